//! The table in `docs/memory.md` agrees with `OptimizerSpec::bytes_per_parameter`.

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::registry::optimizer;

const PAGE: &str = include_str!("../../docs/memory.md");

/// Name, arguments, type of parameters and gradients, and that type as the page writes it.
const ROWS: [(&str, &str, Dtype, &str); 19] = [
    ("adamw_torch", "", Dtype::F32, "f32"),
    ("adamw_torch", "", Dtype::Bf16, "bf16"),
    ("flash_adamw", "", Dtype::Bf16, "bf16"),
    ("flash_adamw", "master_weight_bits=32", Dtype::Bf16, "bf16"),
    ("flash_adamw", "quantize=False", Dtype::Bf16, "bf16"),
    ("flash_lion", "", Dtype::Bf16, "bf16"),
    ("flash_sgd", "momentum=0.9", Dtype::Bf16, "bf16"),
    ("adamw_bnb_8bit", "", Dtype::F32, "f32"),
    ("adamw_bnb_8bit", "", Dtype::Bf16, "bf16"),
    ("lion_8bit", "", Dtype::Bf16, "bf16"),
    ("ademamix_8bit", "", Dtype::Bf16, "bf16"),
    ("adamw_torch_8bit", "", Dtype::Bf16, "bf16"),
    ("adamw_torch_4bit", "", Dtype::Bf16, "bf16"),
    ("torchao_adamw_fp8", "", Dtype::Bf16, "bf16"),
    ("rmsprop_bnb_8bit", "", Dtype::Bf16, "bf16"),
    ("adafactor", "", Dtype::F32, "f32"),
    ("galore_adamw", "rank=128", Dtype::F32, "f32"),
    ("galore_adamw_8bit", "rank=128", Dtype::F32, "f32"),
    ("apollo_adamw", "rank=128", Dtype::F32, "f32"),
];

fn row((name, args, dtype, of): (&str, &str, Dtype, &str)) -> String {
    let spec = optimizer(name, Args::parse(args).expect("arguments")).expect("a spec");
    let bytes = spec.bytes_per_parameter(&[4096, 4096], dtype);
    let fits = |gib: f64| gib * f64::from(1u32 << 30) / bytes / 1e9;
    let args = if args.is_empty() { String::new() } else { format!(" `{args}`") };
    format!(
        "| `{name}`{args} | {of} | {bytes:.3} | {:.1} | {:.1} | {:.1} |",
        fits(16.0),
        fits(24.0),
        fits(80.0)
    )
}

#[test]
fn table_on_the_page_is_what_the_library_computes() {
    let rows: Vec<String> = ROWS.into_iter().map(row).collect();
    let table = rows.join("\n");
    assert!(PAGE.contains(&table), "docs/memory.md should have\n{table}");
}
