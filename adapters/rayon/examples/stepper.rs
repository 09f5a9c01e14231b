//! Makes steps on demand and prints how long each took: one side of `conformance/bench/peers.py`.
//!
//! ```text
//! stepper NAME ARGS DTYPE THREADS SHAPE…
//! ```
//! A shape is written `768x3072`. ARGS are as in `optim_args`, or empty; those after a slash apply to
//! matrices only (`lr=1e-3 / rank=128`). Each line on standard input is a number of steps to make; the
//! time of the fastest, in seconds, is printed on standard output.
//!
//! Projectors are fixed, unless a line is `refresh`, which makes one step: finding singular vectors takes
//! far longer than the rest of it. With the feature `faer`, `galore_adamw+faer` computes its products and
//! singular vectors with faer.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, Optimizer, OptimizerSpec, Param};
use bitstep::registry;

fn main() -> Result<(), Box<dyn Error>> {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let [name, args, dtype, threads, shapes @ ..] = argv.as_slice() else {
        return Err("usage: stepper NAME ARGS DTYPE THREADS SHAPE…".into());
    };
    let dtype = match dtype.as_str() {
        "f32" => Dtype::F32,
        "bf16" => Dtype::Bf16,
        "f16" => Dtype::F16,
        "f64" => Dtype::F64,
        other => return Err(format!("a type of f32, bf16, f16 or f64, not {other}").into()),
    };
    let threads: usize = threads.parse()?;
    // This thread is part of the pool, so that no step waits for others to wake up.
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;

    let mut optimizer = Optimizer::empty();
    let (plain, more) = args.split_once('/').unwrap_or((args, ""));
    let group = optimizer.add_group(spec(name, &Args::parse(plain)?)?)?;
    let spec = spec(name, &Args::parse(&format!("{plain}, {more}"))?)?;
    let slots = spec.rule.info().slots;
    let matrices = if more.is_empty() { group } else { optimizer.add_group(spec)? };
    let (mut values, mut grads) = (Vec::new(), Vec::new());
    for (i, shape) in shapes.iter().enumerate() {
        let shape = shape.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        optimizer.add_param_to(if shape.len() == 2 { matrices } else { group }, &shape, dtype)?;
        let n = shape.iter().product();
        let wave = |k: usize, scale: f32| ((k * 37 + i * 11) % 1009) as f32 * scale - 0.5 * scale;
        values.push(filled(dtype, n, |k| wave(k, 1e-3)));
        grads.push(filled(dtype, n, |k| wave(k + 5, 1e-5)));
    }
    for param in optimizer.params_mut() {
        for (_, slot) in slots.iter().zip(&mut param.slots).filter(|(k, _)| **k == "projector") {
            *slot = filled(dtype, slot.len(), |k| (k * 37 % 1009) as f32 * 1e-4 - 0.05);
        }
    }
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let (steps, extra): (usize, &[_]) = match line?.as_str() {
            "refresh" => (1, &[]),
            steps => (steps.parse()?, &[("projector", 1.0)]),
        };
        let mut best = f64::INFINITY;
        for _ in 0..steps {
            let params = values.iter_mut().zip(&grads);
            let mut params: Vec<Param<'_>> =
                params.map(|(v, g)| Param { value: v.data_mut(), grad: g.data() }).collect();
            let start = Instant::now();
            if threads == 1 {
                optimizer.step_all(&mut params, extra)?;
            } else {
                bitstep_rayon::step(&mut optimizer, &mut params, extra)?;
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        writeln!(answers, "{best}")?;
        answers.flush()?;
    }
    Ok(())
}

fn spec(name: &str, args: &Args) -> Result<OptimizerSpec, Box<dyn Error>> {
    #[cfg(feature = "faer")]
    if name == "galore_adamw+faer" {
        use bitstep::lowrank::{GaLore, Projected};
        use bitstep::rule::{ComputePolicy, DynRule as _};
        let mut rule = Projected::<bitstep::optim::AdamWHf, GaLore, bitstep_rayon::Faer>::default();
        args.apply(name, rule.hyper_params())?;
        return Ok(OptimizerSpec::new(rule, ComputePolicy::Eager));
    }
    Ok(registry::optimizer(name, args)?)
}

fn filled(dtype: Dtype, n: usize, f: impl Fn(usize) -> f32) -> Buffer {
    match dtype {
        Dtype::F64 => Buffer::F64((0..n).map(|k| f(k).into()).collect()),
        Dtype::F32 => Buffer::F32((0..n).map(f).collect()),
        Dtype::Bf16 => Buffer::Bf16((0..n).map(|k| half::bf16::from_f32(f(k))).collect()),
        Dtype::F16 => Buffer::F16((0..n).map(|k| half::f16::from_f32(f(k))).collect()),
    }
}
