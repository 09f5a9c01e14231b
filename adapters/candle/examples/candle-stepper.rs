//! Makes AdamW steps on demand and prints how long each took: one side of `conformance/bench/peers.py`.
//!
//! ```text
//! stepper bitstep|candle-nn DTYPE THREADS SHAPE…
//! ```
//! Each line on standard input makes one step; its time in seconds is printed on standard
//! output.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use bitstep::hyper::Args;
use bitstep::registry;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [side, dtype, threads, shapes @ ..] = args.as_slice() else {
        return Err("usage: stepper bitstep|candle-nn DTYPE THREADS SHAPE…".into());
    };
    let dtype: DType = dtype.parse()?;
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let cpu = &Device::Cpu;
    let mut vars = Vec::new();
    for shape in shapes {
        let dims =
            shape.split('x').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
        vars.push(Var::randn_f64(0.0, 0.02, dims, dtype, cpu)?);
    }
    let mut grads = Tensor::zeros((), DType::F32, cpu)?.backward()?;
    for var in &vars {
        grads.insert(var, Var::randn_f64(0.0, 1e-3, var.shape(), dtype, cpu)?.as_tensor().clone());
    }
    let mut step: Box<dyn FnMut() -> Result<()>> = match side.as_str() {
        "candle-nn" => {
            let mut theirs = candle_nn::AdamW::new(vars, ParamsAdamW::default())?;
            Box::new(move || theirs.step(&grads))
        }
        "bitstep" => {
            let args = Args::parse("lr=1e-3, weight_decay=0.01")?;
            let spec = registry::optimizer("adamw_torch_fused", &args)?;
            let mut ours = bitstep_candle::Optimizer::new(vars, spec)?;
            Box::new(move || ours.step(&grads))
        }
        other => return Err(format!("bitstep or candle-nn, not {other}").into()),
    };
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        step()?;
        writeln!(answers, "{}", start.elapsed().as_secs_f64())?;
        answers.flush()?;
    }
    Ok(())
}
