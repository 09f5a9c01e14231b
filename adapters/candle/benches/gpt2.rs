//! One AdamW step over the 148 tensors of GPT-2 small: this crate against candle-nn.
//!
//! ```text
//! cargo bench -p bitstep-candle --bench gpt2
//! python conformance/bench/gpt2_torch.py     # torch's fused step, the same tensors
//! ```

use std::time::Instant;

use bitstep::hyper::Args;
use bitstep::registry;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

const WIDTH: usize = 768;

fn shapes() -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![50257, WIDTH], vec![1024, WIDTH]];
    for _ in 0..12 {
        let linear = |from, to| [vec![from, to], vec![to]];
        let norm = || [vec![WIDTH], vec![WIDTH]];
        shapes.extend(norm());
        shapes.extend(linear(WIDTH, 3 * WIDTH));
        shapes.extend(linear(WIDTH, WIDTH));
        shapes.extend(norm());
        shapes.extend(linear(WIDTH, 4 * WIDTH));
        shapes.extend(linear(4 * WIDTH, WIDTH));
    }
    shapes.extend([vec![WIDTH], vec![WIDTH]]);
    assert_eq!(shapes.len(), 148);
    shapes
}

fn setup(dtype: DType) -> Result<(Vec<Var>, GradStore)> {
    let cpu = &Device::Cpu;
    let var = |s: &Vec<usize>| Var::randn_f64(0.0, 0.02, s.as_slice(), dtype, cpu);
    let vars = shapes().iter().map(var).collect::<Result<Vec<_>>>()?;
    let mut grads = Tensor::zeros((), DType::F32, cpu)?.backward()?;
    for var in &vars {
        grads.insert(var, Var::randn_f64(0.0, 1e-3, var.shape(), dtype, cpu)?.as_tensor().clone());
    }
    Ok((vars, grads))
}

/// The fastest of several steps, in milliseconds: other processes only add time.
fn time(steps: usize, mut step: impl FnMut() -> Result<()>) -> Result<f64> {
    step()?;
    let mut best = f64::INFINITY;
    for _ in 0..steps {
        let start = Instant::now();
        step()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let count: usize = shapes().iter().map(|s| s.iter().product::<usize>()).sum();
    println!("{count} parameters in 148 tensors; fastest step in ms");
    for dtype in [DType::F32, DType::BF16] {
        let (vars, grads) = setup(dtype)?;
        let mut theirs = candle_nn::AdamW::new(vars.clone(), ParamsAdamW::default())?;
        let their_time = time(5, || theirs.step(&grads))?;
        drop(theirs);
        println!("{:5} candle-nn            {their_time:9.1}", dtype.as_str());
        for name in ["adamw_torch_fused", "flash_adamw"] {
            if name == "flash_adamw" && dtype == DType::F32 {
                continue;
            }
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                let spec = registry::optimizer(name, &Args::parse("lr=1e-3, weight_decay=0.01")?)?;
                let mut ours = bitstep_candle::Optimizer::new(vars.clone(), spec)?;
                let our_time = pool.install(|| time(15, || ours.step(&grads)))?;
                let factor = their_time / our_time;
                println!(
                    "{:5} {name:17} {threads} thr {our_time:9.1}   {factor:5.1} x candle-nn",
                    dtype.as_str()
                );
            }
        }
    }
    Ok(())
}
