//! How many launches a step of a whole model takes, for every name.

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::registry;
use bitstep_cudarc::{Device, DeviceOptimizer, Tensor};

/// A device that runs nothing: it hands out addresses, and counts launches.
#[derive(Default)]
struct Counter {
    next: u64,
    launches: Vec<String>,
}

impl Device for Counter {
    type Error = std::convert::Infallible;
    fn alloc(&mut self, bytes: usize) -> Result<u64, Self::Error> {
        self.next += 256;
        let at = self.next;
        self.next += (bytes as u64).next_multiple_of(256);
        Ok(at)
    }
    fn free(&mut self, _: u64) -> Result<(), Self::Error> {
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
    fn read(&mut self, _: u64, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(0);
        Ok(())
    }
    fn check(&mut self, _: u64, _: usize) -> Result<(), Self::Error> {
        Ok(())
    }
    fn launch(&mut self, kernel: &str, _: u32, _: u32, _: [u64; 3]) -> Result<(), Self::Error> {
        self.launches.push(kernel.to_owned());
        Ok(())
    }
}

/// GPT-2 with a quarter of its width and one of its twelve layers; others add tensors to the same launches.
const GPT2: [&[usize]; 16] = [
    &[12565, 192],
    &[1024, 192],
    &[192, 576],
    &[576],
    &[192, 192],
    &[192],
    &[192, 768],
    &[768],
    &[768, 192],
    &[192],
    &[192],
    &[192],
    &[192],
    &[192],
    &[192],
    &[192],
];

/// The kernels of a second step; `None` if the rule does not take these shapes.
fn kernels(name: &str, dtype: Dtype, shapes: &[&[usize]]) -> Option<Vec<String>> {
    let spec = ["", "lr=0.1", "lr=0.1,momentum=0.9"]
        .iter()
        .find_map(|args| registry::optimizer(name, &Args::parse(args).ok()?).ok())?;
    let mut model = DeviceOptimizer::new(Counter::default());
    let group = model.add_group(spec).ok()?;
    let mut tensors = Vec::new();
    for shape in shapes {
        model.add_param(group, shape, dtype).ok()?;
        let len: usize = shape.iter().product();
        let [Ok(value), Ok(grad)] = [(); 2].map(|()| model.device().alloc(len * dtype.size()));
        tensors.push(Tensor { value, len, grad: Some((dtype, grad)) });
    }
    for _ in 0..2 {
        model.device().launches.clear();
        // SAFETY: nothing is accessed.
        unsafe { model.step(&tensors, &[]) }.ok()?;
    }
    Some(model.device().launches.clone())
}

#[test]
fn no_name_takes_more_than_eight_launches_for_a_step_of_gpt2() {
    let mut taken = 0;
    for entry in registry::OPTIMIZERS {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let Some(kernels) = kernels(entry.name, dtype, &GPT2) else { continue };
            taken += 1;
            let name = entry.name;
            assert!(kernels.len() <= 8, "{name} {dtype:?}: {} of {kernels:?}", kernels.len());
        }
    }
    assert!(taken > 150, "{taken}");
}
