//! Prints what steps cost, counted by the interpreter: sectors moved beside the least bytes, instructions by
//! class, registers and the threads that they leave room for. Takes minutes. Registers are those that
//! `.ci/ptx registers` last wrote.
//!
//! With the argument `check` it counts some rows only, and fails unless RESULTS.md has them just so. `.ci/gpu`
//! does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::registry;
use bitstep_cudarc::{Device, DeviceOptimizer, Tensor};
use bitstep_ptx::{Class, Cost, Machine};

/// The registers of each kernel, as ptxas allots them for sm_90.
const REGISTERS: &str = include_str!("../ptx/registers.txt");

/// An H200: bytes of memory, and instructions of warps, in a second.
const BANDWIDTH: f64 = 4.8e12;
const ISSUE: f64 = 132.0 * 4.0 * 1.98e9;

/// Elements of the tensor that rows are about; a multiple of every block.
const ALIGNED: usize = 1 << 15;

/// The rows: what a user is likely to choose, and one of each storage and shape.
const ROWS: &[(&str, &str, Dtype)] = &[
    ("adamw_torch_fused", "", Dtype::F32),
    ("adamw_torch_fused", "", Dtype::Bf16),
    ("adamw_torch", "", Dtype::Bf16),
    ("sgd", "lr=0.1,momentum=0.9", Dtype::F32),
    ("lion_32bit", "", Dtype::F32),
    ("lion_32bit", "", Dtype::F16),
    ("adamw_bnb_8bit", "", Dtype::F32),
    ("adamw_bnb_8bit", "", Dtype::Bf16),
    ("lion_8bit", "", Dtype::Bf16),
    ("ademamix_8bit", "", Dtype::Bf16),
    ("bnb_sgd_8bit", "lr=0.1,momentum=0.9", Dtype::Bf16),
    ("adamw_torch_8bit", "", Dtype::Bf16),
    ("adamw_torch_8bit", "bf16_stochastic_round=true", Dtype::Bf16),
    ("adamw_torch_4bit", "", Dtype::Bf16),
    ("torchao_adamw_fp8", "", Dtype::Bf16),
    ("flash_adamw", "", Dtype::F32),
    ("flash_adamw", "", Dtype::Bf16),
    ("flash_lion", "", Dtype::Bf16),
    ("flash_sgdw", "lr=0.1,momentum=0.9", Dtype::Bf16),
    ("optimi_adamw", "lr=0.001,kahan_sum=true", Dtype::Bf16),
    ("adamw_anyprecision", "", Dtype::Bf16),
    ("schedule_free_adamw", "", Dtype::Bf16),
    ("stable_adamw", "", Dtype::F32),
    ("bnb_lamb_8bit", "", Dtype::Bf16),
    ("grokadamw", "", Dtype::F32),
    ("adafactor", "", Dtype::F32),
    ("galore_adamw", "rank=8", Dtype::F32),
    ("apollo_adamw", "rank=8", Dtype::F32),
    ("muon", "", Dtype::F32),
];

/// GPT-2 with a quarter of its width and one of its twelve layers, and as much of its words.
fn gpt2() -> Vec<Vec<usize>> {
    let width = 192;
    let mut shapes = vec![vec![785, width], vec![64, width]];
    for (from, to) in [(1, 3), (1, 1), (1, 4), (4, 1)] {
        shapes.extend([vec![from * width, to * width], vec![to * width]]);
    }
    shapes.extend(vec![vec![width]; 6]);
    shapes
}

/// What the launches of a step cost, and the least number of bytes that it has to move. `None` if the rule
/// does not take these shapes.
fn step(
    machine: &Machine,
    name: &str,
    args: &str,
    dtype: Dtype,
    shapes: &[Vec<usize>],
) -> Option<(Vec<Cost>, f64)> {
    let spec = registry::optimizer(name, &Args::parse(args).ok()?).ok()?;
    let least = shapes.iter().map(|shape| {
        let n = shape.iter().product::<usize>() as f64;
        // State and parameter are read and written, the gradient is read.
        n * (2.0 * spec.bytes_per_parameter(shape, dtype) - 3.0 * dtype.size() as f64)
            + n * 2.0 * dtype.size() as f64
    });
    let least = least.sum();
    let mut model = DeviceOptimizer::new(machine.clone());
    let group = model.add_group(spec).ok()?;
    let mut tensors = Vec::new();
    for shape in shapes {
        model.add_param(group, shape, dtype).ok()?;
        let len: usize = shape.iter().product();
        let ones: Vec<u8> = match dtype {
            Dtype::F64 => (0..len).flat_map(|i| (i as f64 * 1e-3 + 0.5).to_le_bytes()).collect(),
            Dtype::F32 => (0..len).flat_map(|i| (i as f32 * 1e-3 + 0.5).to_le_bytes()).collect(),
            _ => (0..len).flat_map(|i| (0x3800 + i as u16 % 97).to_le_bytes()).collect(),
        };
        let mut room = || {
            let at = Device::alloc(model.device(), ones.len()).ok()?;
            Device::write(model.device(), at, &ones).ok()?;
            Some(at)
        };
        let (value, grad) = (room()?, room()?);
        tensors.push(Tensor { value, len, grad: Some((dtype, grad)) });
    }
    for _ in 0..2 {
        model.device().count_costs();
        // SAFETY: all of it was allocated above, and nothing else uses it.
        unsafe { model.step(&tensors, &[]) }.ok()?;
    }
    Some((model.device().costs().to_vec(), least))
}

fn moved(costs: &[Cost]) -> f64 {
    costs.iter().map(|c| (c.read + c.written) as f64 * 32.0).sum()
}

/// The share of the threads of a multiprocessor of an H200 that registers and shared memory leave room for.
fn occupancy(registers: u64, shared: u64, threads: u64) -> f64 {
    let by_registers = 65536 / (registers.next_multiple_of(8) * threads);
    let by_shared = if shared == 0 { u64::MAX } else { 227 * 1024 / (shared + 1024) };
    let blocks = by_registers.min(by_shared).min(2048 / threads).min(32);
    (blocks * threads) as f64 / 2048.0
}

fn registers() -> BTreeMap<&'static str, u64> {
    let lines = REGISTERS.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(kernel, n)| Some((kernel, n.parse().ok()?))).collect()
}

/// The threads of a block of a kernel.
fn threads(kernel: &str) -> u64 {
    if kernel.ends_with("_encoded_f32") { 128 } else { 256 }
}

fn row(
    machine: &Machine,
    registers: &BTreeMap<&str, u64>,
    &(name, args, dtype): &(&str, &str, Dtype),
) -> String {
    let matrix = vec![ALIGNED / 256, 256];
    let Some((costs, least)) = step(machine, name, args, dtype, &[matrix]) else {
        return format!("| `{name}` {args} | {} | not taken |\n", dtype.id());
    };
    let params = ALIGNED as f64;
    let model = step(machine, name, args, dtype, &gpt2())
        .map_or(("-".to_owned(), "-".to_owned()), |(costs, least)| {
            (costs.len().to_string(), format!("{:.2}", moved(&costs) / least))
        });
    let of = |class: Class| -> f64 {
        costs.iter().map(|c| c.issued[class as usize] as f64).sum::<f64>() * 32.0 / params
    };
    let slots = costs.iter().map(Cost::slots).sum::<u64>() as f64;
    let (memory, issue) = (moved(&costs) / BANDWIDTH, slots / ISSUE);
    let heaviest = costs.iter().max_by_key(|c| c.slots()).map_or("", |c| &c.kernel);
    let used = registers.get(heaviest).copied().unwrap_or(0);
    let shared = machine.shared_bytes(heaviest).unwrap_or(0);
    let mut line = String::new();
    let more = if args.is_empty() { String::new() } else { format!(" {args}") };
    let _ = writeln!(
        line,
        "| `{name}`{more} | {} | {} | {:.2} | {:.2} | {:.2} | {} | {:.0} | {:.1} | {:.0} | {:.1} | {:.0} | {:.1} | {used} | {shared} | {:.0} % | {:.1} | {:.1} | {} |",
        dtype.id(),
        costs.len(),
        least / params,
        moved(&costs) / least,
        costs.iter().map(|c| c.asked as f64 * 32.0).sum::<f64>() / least,
        format_args!("{}, {}", model.0, model.1),
        of(Class::Simple) + of(Class::Wide),
        of(Class::Divide),
        of(Class::Double),
        of(Class::Global),
        of(Class::Near),
        of(Class::Shuffle),
        100.0 * occupancy(used.max(1), shared as u64, threads(heaviest)),
        memory / params * 1e12,
        issue / params * 1e12,
        if memory > issue { "memory" } else { "issue" },
    );
    line
}

/// The names whose sectors are beyond `limit` times the least, of those that step in one launch, and how many
/// those are.
fn beyond(machine: &Machine, limit: f64) -> (usize, Vec<String>) {
    let (mut single, mut beyond) = (0, Vec::new());
    for name in registry::OPTIMIZERS.iter().map(|entry| entry.name) {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let args = ["", "lr=0.1", "lr=0.1,momentum=0.9"];
            let Some((costs, least)) = args
                .iter()
                .find_map(|args| step(machine, name, args, dtype, &[vec![64, 256]]))
                .filter(|(costs, _)| costs.len() == 1)
            else {
                continue;
            };
            single += 1;
            let ratio = moved(&costs) / least;
            if ratio > limit {
                beyond.push(format!("`{name}` {} {ratio:.2}", dtype.id()));
            }
        }
    }
    (single, beyond)
}

/// The table, and what is beyond the target.
fn table() -> String {
    let machine = Machine::new(bitstep_cudarc::ptx()).expect("the kernels are PTX");
    let registers = registers();
    let mut text = String::from(
        "| name | type | launches | bytes | moved | asked | GPT-2 | simple | divide | double | global | near | shuffle | registers | shared | threads | memory | issue | limit |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for line in ROWS {
        text.push_str(&row(&machine, &registers, line));
    }
    let (single, beyond) = beyond(&machine, 1.05);
    let _ = writeln!(
        text,
        "\n{single} names and types of the registry step a tensor in one launch; beyond 1.05 of the least bytes are {}.",
        if beyond.is_empty() { "none".to_owned() } else { beyond.join(", ") },
    );
    text
}

/// Rows that take seconds together: one of each of the shapes of a step.
const CHECKED: [&str; 5] = ["sgd", "lion_8bit", "flash_lion", "grokadamw", "adafactor"];

/// Whether RESULTS.md has the rows that the present kernels make, as far as they are checked.
fn check() -> bool {
    let page = include_str!("../RESULTS.md");
    let machine = Machine::new(bitstep_cudarc::ptx()).expect("the kernels are PTX");
    let registers = registers();
    let mut is_same = true;
    for line in ROWS.iter().filter(|(name, ..)| CHECKED.contains(name)) {
        let row = row(&machine, &registers, line);
        if !page.contains(&row) {
            println!("not in RESULTS.md: {row}");
            is_same = false;
        }
    }
    is_same
}

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() != Some("check") {
        print!("{}", table());
    } else if !check() {
        println!(
            "cost: write the table of RESULTS.md anew: cargo run --release -p bitstep-cudarc --example cost"
        );
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}
