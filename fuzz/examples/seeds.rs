//! Writes the seed corpus of the fuzzers: `cargo run -p bitstep-fuzz --example seeds`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::optimizer::{Optimizer, Param};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::{NAMES, build};
use bitstep::storage::{Data, DataMut};
use bitstep_conformance::exec::{ANSWER, check_answer};
use bitstep_conformance::tensor::{Dtype as Float, Tensor};
use bitstep_fuzz::{PROPERTIES, SCHEDULE_PROPERTIES, pickle_seeds};
use bitstep_trainer::checkpoint::{Run, save};
use safetensors::Dtype as Stored;
use safetensors::tensor::TensorView;

/// As many bytes as a trial reads.
fn bytes(head: &[u8], salt: usize) -> Vec<u8> {
    let tail = (0..120usize).map(|i| (i * (2 * salt + 37) % 251) as u8);
    head.iter().copied().chain(tail).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    // By name: a new one changes no other's seed.
    let salt = |name: &str| name.bytes().map(usize::from).sum::<usize>();
    for name in OPTIMIZERS.iter().map(|entry| entry.name) {
        let (property, _) = PROPERTIES[salt(name) % PROPERTIES.len()];
        write("rules", name, &bytes(format!("{property}\n{name}\n").as_bytes(), salt(name)))?;
    }
    for name in NAMES {
        let (property, _) = SCHEDULE_PROPERTIES[salt(name) % SCHEDULE_PROPERTIES.len()];
        write("schedules", name, &bytes(format!("{property}\n{name}\n").as_bytes(), salt(name)))?;
    }
    for i in 0..13 {
        write("codecs", &i.to_string(), &bytes(&[i as u8], i))?;
    }
    // The first byte: an optimizer, or a schedule.
    for (i, name) in ["adamw_torch", "linear", "sgd", "cosine"].into_iter().enumerate() {
        let head = [&[i as u8 % 2], name.as_bytes(), b"\n"].concat();
        write("resumed", &i.to_string(), &bytes(&head, i))?;
    }

    // The smallest golden case of each kind.
    for kind in ["optimizer", "schedule", "gradient"] {
        let files =
            bitstep_conformance::golden::files(&root.join("../conformance/golden").join(kind))?;
        let smallest = files.iter().min_by_key(|f| fs::metadata(f).map_or(u64::MAX, |m| m.len()));
        write("goldens", kind, &fs::read(smallest.ok_or("no files")?)?)?;
    }

    // A program's answer to two steps of an f32 vector and an f64 scalar.
    let zeros = [0u8; 16];
    let meta = [("format".to_owned(), ANSWER.to_owned())].into();
    let tensors = [
        ("p0.value", TensorView::new(Stored::F32, vec![2, 2], &zeros)?),
        ("p0.state.exp_avg", TensorView::new(Stored::F32, vec![2, 2], &zeros)?),
        ("p1.value", TensorView::new(Stored::F64, vec![2], &zeros)?),
    ];
    let answer = safetensors::serialize(tensors, Some(meta))?;
    let params = [
        Tensor { dtype: Float::F32, shape: vec![2], bytes: zeros[..8].to_vec() },
        Tensor::f64(&[], &[0.0]),
    ];
    check_answer(&answer, &[&params[0], &params[1]], 2)?;
    write("answers", "two_steps", &answer)?;

    for (name, pickle) in pickle_seeds() {
        write("resumed", name, &pickle)?;
    }
    let archive = fs::read(root.join("../adapters/trainer/fixtures/torch/numpy_rate.pt"))?;
    write("resumed", "archive", &archive)?;

    // A checkpoint that the target `checkpoints` restores.
    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(registry::optimizer("adamw_torch", Args::new())?)?;
    optimizer.add_param_to(group, &[3], Dtype::F32)?;
    let (mut value, grad) = ([1.0f32, 2.0, 3.0], [0.5f32, -0.5, 0.0]);
    let grad = Some(Data::F32(&grad));
    optimizer.step_all(&mut [Param { value: DataMut::F32(&mut value), grad }], &[])?;
    let (names, schedulers) = (["w".to_owned()], [build("constant", &Args::new())?]);
    let extra = BTreeMap::new();
    let run = Run { optimizer: &optimizer, names: &names, schedulers: &schedulers, extra: &extra };
    fs::create_dir_all(root.join("corpus/checkpoints"))?;
    save(&root.join("corpus/checkpoints/adamw_torch"), &run, &[Data::F32(&value)])?;

    let text = r#"{"optim": "adamw_torch", "optim_args": "eps=1e-6", "learning_rate": 0.001,
        "weight_decay": 0.1, "lr_scheduler_type": "cosine", "warmup_steps": 10, "max_steps": 100,
        "lr_scheduler_kwargs": {"num_cycles": 0.5}, "max_grad_norm": 1.0, "fp16": false,
        "optim_target_modules": ["up"], "gradient_accumulation_steps": 2}"#;
    write("arguments", "adamw_torch", text.as_bytes())?;
    let galore =
        text.replace("adamw_torch", "galore_adamw").replace("eps=1e-6", "rank=2, scale=0.5");
    write("arguments", "galore_adamw", galore.as_bytes())?;
    write("arguments", "args", b"lr=1e-3, betas=None, weight_decay=0.1, amsgrad=True")?;
    Ok(())
}
