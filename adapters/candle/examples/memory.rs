//! Peak memory of a training step of a deep network, each variant measured in a process of its own:
//! with all gradients alive, with each freed once it is used, and layer by layer.
//!
//! ```text
//! cargo run --release -p bitstep-candle --example memory
//! ```
//! Linux only: the peak is `VmHWM` of `/proc/self/status`.

use bitstep::hyper::Args;
use bitstep::registry;
use bitstep_candle::{Layers, Optimizer};
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Linear, Optimizer as _};

const WIDTH: usize = 1024;
const DEPTH: usize = 24;
const WAYS: [&str; 4] =
    ["nothing but the forward pass", "ordinary step", "step_and_free", "layer by layer"];

fn run(way: &str, optim: &str) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let cpu = &Device::Cpu;
    let var = |shape: &[usize], std| Var::randn_f64(0.0, std, shape, DType::F32, cpu);
    let mut vars = Vec::new();
    for _ in 0..DEPTH {
        vars.extend([var(&[WIDTH, WIDTH], 0.03)?, var(&[WIDTH], 0.0)?]);
    }
    let layers: Vec<Linear> = vars
        .chunks(2)
        .map(|pair| Linear::new(pair[0].as_tensor().clone(), Some(pair[1].as_tensor().clone())))
        .collect();
    let spec = registry::optimizer(optim, Args::new().with("lr", 1e-3))?;
    let mut optimizer = Optimizer::new(vars, spec)?;
    let x = Tensor::ones((8, WIDTH), DType::F32, cpu)?;
    let forward = |x: &Tensor, layer: &Linear| -> Result<Tensor> { layer.forward(x)?.tanh() };
    let whole = || -> Result<Tensor> {
        layers.iter().try_fold(x.clone(), |x, layer| forward(&x, layer))?.sqr()?.mean_all()
    };
    for _ in 0..2 {
        match WAYS.iter().position(|w| *w == way) {
            Some(0) => drop(whole()?),
            Some(1) => optimizer.backward_step(&whole()?)?,
            Some(2) => {
                let mut grads = whole()?.backward()?;
                optimizer.step_and_free(&mut grads, &[])?;
            }
            _ => {
                let mut cuts = Layers::new();
                let mut x = x.clone();
                for layer in &layers {
                    x = cuts.run(&x, |x| forward(x, layer))?;
                }
                optimizer.begin(&[])?;
                cuts.backward(&x.sqr()?.mean_all()?, |g| optimizer.step_some(g, &[]))?;
            }
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{optim:12} {way:30} peak {}", peak.unwrap_or("?").trim());
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [way, optim] = args.as_slice() {
        return run(way, optim);
    }
    println!(
        "{DEPTH} layers of {WIDTH} x {WIDTH} in f32: {} MB of parameters",
        (WIDTH * (WIDTH + 1) * DEPTH * 4) >> 20
    );
    for optim in ["sgd", "adamw_torch"] {
        for way in WAYS {
            std::process::Command::new(std::env::current_exe()?).args([way, optim]).status()?;
        }
    }
    Ok(())
}
