//! The keys of a `TrainingArguments` file, and the version of Transformers that they imply.

use std::collections::BTreeMap;

use bitstep::hyper::Value;

use crate::version::Version;

/// The version of Transformers that wrote a file, told by its keys: each version writes all that it
/// has. Without a telling key it is the newest.
pub(crate) fn version(file: &BTreeMap<String, Value>) -> Version {
    let has = |keys: &[&str]| keys.iter().any(|key| file.contains_key(*key));
    if has(ONLY_5) {
        Version::V5_23
    } else if has(ONLY_4_49) {
        Version::V4_49
    } else if has(ONLY_4) {
        Version::V4_57
    } else {
        Version::V5_23
    }
}

/// Keys that were introduced with 5.
pub(crate) const ONLY_5: &[&str] = &[
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "dataloader_multiprocessing_context",
    "ddp_static_graph",
    "enable_jit_checkpoint",
    "trackio_bucket_id",
    "trackio_static_space_id",
    "train_sampling_strategy",
    "use_cache",
];

/// Keys that 4.57 no longer has.
const ONLY_4_49: &[&str] =
    &["dispatch_batches", "evaluation_strategy", "split_batches", "use_ipex"];

/// Keys that 5.23 no longer has. (5.0 still had `warmup_ratio` and some others, but is recognized by
/// its own keys first.)
const ONLY_4: &[&str] = &[
    "adafactor",
    "fp16_backend",
    "fp16_opt_level",
    "fsdp_min_num_params",
    "fsdp_transformer_layer_cls_to_wrap",
    "group_by_length",
    "half_precision_backend",
    "include_inputs_for_metrics",
    "include_tokens_per_second",
    "jit_mode_eval",
    "logging_dir",
    "mp_parameters",
    "no_cuda",
    "overwrite_output_dir",
    "past_index",
    "per_gpu_eval_batch_size",
    "per_gpu_train_batch_size",
    "push_to_hub_model_id",
    "push_to_hub_organization",
    "push_to_hub_token",
    "ray_scope",
    "save_safetensors",
    "torchdynamo",
    "tpu_metrics_debug",
    "tpu_num_cores",
    "use_legacy_prediction_loop",
    "use_mps_device",
    "warmup_ratio",
];

/// Keys that affect how parameters are updated.
pub(crate) const READ: &[&str] = &[
    "adafactor",
    "accelerator_config",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "fp16",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "neftune_noise_alpha",
    "optim",
    "optim_args",
    "optim_target_modules",
    "warmup_ratio",
    "warmup_steps",
    "weight_decay",
];

/// Keys that replace the optimizer or change how gradients are computed.
pub(crate) const MUST_BE_OFF: &[&str] = &["deepspeed", "fsdp", "parallelism_config"];

/// The other keys of Transformers 4.49 to 5.23, of its `Seq2SeqTrainingArguments` and
/// `TFTrainingArguments` too: about data, logging, saving, devices and the forward pass.
pub(crate) const IGNORED: &[&str] = &[
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "batch_eval_metrics",
    "bf16",
    "bf16_full_eval",
    "data_seed",
    "dataloader_drop_last",
    "dataloader_in_order",
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "ddp_backend",
    "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters",
    "ddp_static_graph",
    "ddp_timeout",
    "debug",
    "disable_tqdm",
    "dispatch_batches",
    "do_eval",
    "do_predict",
    "do_train",
    "enable_jit_checkpoint",
    "eval_accumulation_steps",
    "eval_delay",
    "eval_do_concat_batches",
    "eval_on_start",
    "eval_steps",
    "eval_strategy",
    "eval_use_gather_object",
    "evaluation_strategy",
    "fp16_backend",
    "fp16_full_eval",
    "fp16_opt_level",
    "fsdp_config",
    "fsdp_min_num_params",
    "fsdp_transformer_layer_cls_to_wrap",
    "full_determinism",
    "gcp_project",
    "generation_config",
    "generation_max_length",
    "generation_num_beams",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "greater_is_better",
    "group_by_length",
    "half_precision_backend",
    "hub_always_push",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "hub_strategy",
    "hub_token",
    "ignore_data_skip",
    "include_for_metrics",
    "include_inputs_for_metrics",
    "include_num_input_tokens_seen",
    "include_tokens_per_second",
    "jit_mode_eval",
    "label_names",
    "label_smoothing_factor",
    "length_column_name",
    "liger_kernel_config",
    "load_best_model_at_end",
    "local_rank",
    "log_level",
    "log_level_replica",
    "log_on_each_node",
    "logging_dir",
    "logging_first_step",
    "logging_nan_inf_filter",
    "logging_steps",
    "logging_strategy",
    "metric_for_best_model",
    "mp_parameters",
    "no_cuda",
    "num_train_epochs",
    "output_dir",
    "overwrite_output_dir",
    "past_index",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "per_gpu_eval_batch_size",
    "per_gpu_train_batch_size",
    "poly_power",
    "predict_with_generate",
    "prediction_loss_only",
    "project",
    "push_to_hub",
    "push_to_hub_model_id",
    "push_to_hub_organization",
    "push_to_hub_token",
    "ray_scope",
    "remove_unused_columns",
    "report_to",
    "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint",
    "run_name",
    "save_on_each_node",
    "save_only_model",
    "save_safetensors",
    "save_steps",
    "save_strategy",
    "save_total_limit",
    "seed",
    "skip_memory_metrics",
    "sortish_sampler",
    "split_batches",
    "tf32",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "torch_empty_cache_steps",
    "torchdynamo",
    "tpu_metrics_debug",
    "tpu_name",
    "tpu_num_cores",
    "tpu_zone",
    "trackio_bucket_id",
    "trackio_space_id",
    "trackio_static_space_id",
    "train_sampling_strategy",
    "use_cache",
    "use_cpu",
    "use_ipex",
    "use_legacy_prediction_loop",
    "use_liger_kernel",
    "use_mps_device",
    "xla",
];
