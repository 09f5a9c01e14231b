//! burn-optim's AdamW over burn-ndarray, in the protocol of `adapters/rayon/examples/stepper.rs`:
//! `SHAPE…`; each line on standard input makes one step, whose seconds come back. In `f32`, the
//! only type of 32 bits or fewer that this backend has.

use std::io::{BufRead, Write};
use std::time::Instant;

use burn_core::tensor::{Distribution, Tensor};
use burn_ndarray::{NdArray, NdArrayDevice};
use burn_optim::{AdamW, AdamWConfig, SimpleOptimizer};

type B = NdArray<f32>;
type State<const D: usize> = <AdamW as SimpleOptimizer<B>>::State<D>;

struct Param<const D: usize> {
    value: Option<Tensor<B, D>>,
    grad: Tensor<B, D>,
    state: Option<State<D>>,
}

impl<const D: usize> Param<D> {
    fn new(shape: [usize; D]) -> Self {
        let random = |scale| Tensor::random(shape, Distribution::Normal(0.0, scale), &NdArrayDevice::Cpu);
        Param { value: Some(random(0.02)), grad: random(1e-3), state: None }
    }

    fn step(&mut self, rule: &AdamW) {
        let value = self.value.take().expect("put back below");
        let (value, state) = SimpleOptimizer::<B>::step(rule, 1e-3, value, self.grad.clone(), self.state.take());
        (self.value, self.state) = (Some(value), state);
    }
}

fn main() {
    let rule = AdamWConfig::new().with_weight_decay(0.01).with_epsilon(1e-8).build();
    let (mut vectors, mut matrices) = (Vec::new(), Vec::new());
    for shape in std::env::args().skip(1) {
        let shape: Vec<usize> = shape.split('x').map(|n| n.parse().expect("a number")).collect();
        match shape[..] {
            [n] => vectors.push(Param::new([n])),
            [n, m] => matrices.push(Param::new([n, m])),
            _ => panic!("one or two dimensions"),
        }
    }
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line.expect("a line");
        let start = Instant::now();
        vectors.iter_mut().for_each(|p| p.step(&rule));
        matrices.iter_mut().for_each(|p| p.step(&rule));
        writeln!(answers, "{}", start.elapsed().as_secs_f64()).expect("standard output");
        answers.flush().expect("standard output");
    }
}
