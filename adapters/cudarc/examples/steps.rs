//! Times of steps on a GPU, in ms and as a fraction of its copy bandwidth, for `RESULTS.md`.
//!
//! `conformance/bench/torch_steps.py` prints the same lines for PyTorch and FlashOptim; run both on the same
//! GPU.

use std::time::Instant;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::registry;
use bitstep_cudarc::{Cuda, Device, DeviceOptimizer, Tensor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const WIDTH: usize = 768;

/// GPT-2 small.
fn gpt2() -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![50257, WIDTH], vec![1024, WIDTH]];
    for _ in 0..12 {
        let norm = [vec![WIDTH], vec![WIDTH]];
        let linear = |from, to| [vec![from, to], vec![to]];
        shapes.extend(norm.clone());
        shapes.extend(linear(WIDTH, 3 * WIDTH));
        shapes.extend(linear(WIDTH, WIDTH));
        shapes.extend(norm);
        shapes.extend(linear(WIDTH, 4 * WIDTH));
        shapes.extend(linear(4 * WIDTH, WIDTH));
    }
    shapes.extend([vec![WIDTH], vec![WIDTH]]);
    shapes
}

/// A model of 7 billion parameters, like Llama 2's.
fn seven_billion() -> Vec<Vec<usize>> {
    let (width, hidden) = (4096, 11008);
    let mut shapes = vec![vec![32000, width], vec![32000, width], vec![width]];
    for _ in 0..32 {
        shapes.extend(vec![vec![width, width]; 4]);
        shapes.extend(vec![vec![hidden, width]; 3]);
        shapes.extend(vec![vec![width]; 2]);
    }
    shapes
}

/// The median of several runs in ms, each of which waits for the stream.
fn time(mut run: impl FnMut() -> Result<()>, mut wait: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    wait()?;
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        run()?;
        wait()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// The bandwidth of a copy in device memory in GB/s, counting read and written bytes.
fn copy_bandwidth(cuda: &mut Cuda) -> Result<f64> {
    let bytes = 4 << 30;
    let (from, to) = (cuda.alloc(bytes)?, cuda.alloc(bytes)?);
    let stream = cuda.stream().clone();
    let ms = time(
        || {
            // SAFETY: both were allocated above, and are of that size.
            let copied = unsafe {
                cudarc::driver::result::memcpy_dtod_async(to, from, bytes, stream.cu_stream())
            };
            Ok(copied?)
        },
        || Ok(stream.synchronize()?),
    )?;
    cuda.free(from)?;
    cuda.free(to)?;
    Ok(2.0 * bytes as f64 / ms / 1e6)
}

fn measure(
    label: &str,
    name: &str,
    dtype: Dtype,
    shapes: &[Vec<usize>],
    bandwidth: f64,
) -> Result<()> {
    let mut model = DeviceOptimizer::new(Cuda::open(0)?);
    let spec = registry::optimizer(name, Args::new())?;
    let bytes: f64 = shapes
        .iter()
        .map(|s| {
            let n = s.iter().product::<usize>() as f64;
            // State and parameter are read and written, the gradient is read.
            n * (2.0 * spec.bytes_per_parameter(s, dtype) - dtype.size() as f64)
        })
        .sum();
    let group = model.add_group(spec)?;
    let mut tensors = Vec::new();
    for shape in shapes {
        model.add_param(group, shape, dtype)?;
        let len: usize = shape.iter().product();
        let zeros = vec![0; len * dtype.size()];
        let mut room = || -> Result<u64> {
            let at = model.device().alloc(zeros.len())?;
            model.device().write(at, &zeros)?;
            Ok(at)
        };
        let (value, grad) = (room()?, room()?);
        tensors.push(Tensor { value, len, grad: Some((dtype, grad)) });
    }
    let stream = model.device().stream().clone();
    // SAFETY: all of it was allocated above.
    let ms = time(|| Ok(unsafe { model.step(&tensors, &[]) }?), || Ok(stream.synchronize()?))?;
    let share = bytes / ms / 1e6 / bandwidth * 100.0;
    println!("| {label} | bitstep `{name}` | {dtype:?} | {ms:.3} | {share:.0} % |");
    for t in tensors {
        for at in [Some(t.value), t.grad.map(|(_, at)| at)].into_iter().flatten() {
            model.device().free(at)?;
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut cuda = Cuda::open(0)?;
    println!("{}", cuda.stream().context().name()?);
    let bandwidth = copy_bandwidth(&mut cuda)?;
    println!("copy: {bandwidth:.0} GB/s\n");
    println!("| tensors | step | type | ms | of copy bandwidth |\n| --- | --- | --- | --- | --- |");
    for power in [20, 22, 24, 26, 28, 30] {
        let (label, shapes) = (format!("2^{power}"), [vec![1 << power]]);
        measure(&label, "adamw_torch_fused", Dtype::F32, &shapes, bandwidth)?;
        measure(&label, "adamw_torch_fused", Dtype::Bf16, &shapes, bandwidth)?;
        measure(&label, "flash_adamw", Dtype::Bf16, &shapes, bandwidth)?;
        measure(&label, "adamw_bnb_8bit", Dtype::Bf16, &shapes, bandwidth)?;
        measure(&label, "adamw_torch_8bit", Dtype::Bf16, &shapes, bandwidth)?;
    }
    for (label, shapes) in [("GPT-2", gpt2()), ("7B", seven_billion())] {
        measure(label, "adamw_torch_fused", Dtype::Bf16, &shapes, bandwidth)?;
        measure(label, "flash_adamw", Dtype::Bf16, &shapes, bandwidth)?;
    }
    measure("GPT-2", "adamw_torch_fused", Dtype::F32, &gpt2(), bandwidth)
}
