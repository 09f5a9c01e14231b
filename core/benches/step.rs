//! Time per step of the common rules: `cargo bench -p bitstep`.
//!
//! Throughput counts the bytes of memory traffic: parameter and state read and
//! written, gradient read. `conformance/bench/torch_step.py` runs PyTorch's own
//! steps on the same sizes.
#![allow(missing_docs)]

use std::hint::black_box;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, Optimizer, Param};
use bitstep::registry;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RULES: &[(&str, &str)] =
    &[("adamw_torch_fused", ""), ("sgd", "lr=0.01, momentum=0.9"), ("lion_32bit", "")];

fn step(c: &mut Criterion) {
    for &(name, args) in RULES {
        let Ok(spec) = Args::parse(args).and_then(|a| registry::optimizer(name, &a)) else {
            panic!("{name} is not a known optimizer")
        };
        let mut group = c.benchmark_group(name);
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for bits in [14, 16, 24] {
                let n = 1usize << bits;
                let mut optimizer = Optimizer::empty();
                let g = optimizer.add_group(spec.clone()).expect("a valid spec");
                optimizer.add_param_to(g, &[n], dtype).expect("a group");
                let [mut value, grad] = [(); 2].map(|()| Buffer::zeros(dtype, n).expect("memory"));
                value.data_mut().fill(1.0);
                let state: usize =
                    optimizer.params()[0].slots.iter().map(|s| s.len() * dtype.size()).sum();
                group.throughput(Throughput::Bytes((3 * n * dtype.size() + 2 * state) as u64));
                group.bench_function(
                    BenchmarkId::new(format!("{dtype:?}"), format!("2^{bits}")),
                    |b| {
                        b.iter(|| {
                            let param = Param { value: value.data_mut(), grad: grad.data() };
                            optimizer
                                .step_all(black_box(&mut [param]), &[])
                                .expect("lengths that fit");
                        });
                    },
                );
            }
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = step }
criterion_main!(benches);
