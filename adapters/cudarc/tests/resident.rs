//! State on a device: the bits of the core's own optimizer, few launches, typed refusals.

use bitstep::any::Arithmetic;
use bitstep::args::Args;
use bitstep::lowrank::{GaLore, Projected};
use bitstep::named;
use bitstep::optim::Lion;
use bitstep::optimizer::{Buffer, Optimizer, Param, Recipe};
use bitstep::real::Dtype;
use bitstep_cudarc::{Device, Error, Resident, Tensor};
use bitstep_ptx::Machine;
use half::{bf16, f16};

/// The interpreter, and what was asked of it.
struct Counted {
    machine: Machine,
    launches: usize,
    allocations: usize,
    reads: usize,
}

impl Device for Counted {
    type Error = bitstep_ptx::Error;
    fn alloc(&mut self, bytes: usize) -> Result<u64, Self::Error> {
        self.allocations += 1;
        Device::alloc(&mut self.machine, bytes)
    }
    fn free(&mut self, address: u64) -> Result<(), Self::Error> {
        Device::free(&mut self.machine, address)
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        Device::write(&mut self.machine, address, bytes)
    }
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.reads += 1;
        Device::read(&mut self.machine, address, bytes)
    }
    fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        params: [u64; 3],
    ) -> Result<(), Self::Error> {
        self.launches += 1;
        Device::launch(&mut self.machine, kernel, blocks, threads, params)
    }
}

fn device() -> Counted {
    let machine = Machine::new(bitstep_cudarc::ptx()).unwrap();
    Counted { machine, launches: 0, allocations: 0, reads: 0 }
}

/// Numbers without a pattern, of either sign, about 1.
fn numbers(seed: u64, len: usize, dtype: Dtype) -> Buffer {
    let x = (0..len as u64).map(|i| {
        let bits = (seed + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (bits >> 40) as f64 / f64::from(1 << 23) - 1.0
    });
    match dtype {
        Dtype::F64 => Buffer::F64(x.collect()),
        Dtype::F32 => Buffer::F32(x.map(|x| x as f32).collect()),
        Dtype::Bf16 => Buffer::Bf16(x.map(bf16::from_f64).collect()),
        Dtype::F16 => Buffer::F16(x.map(f16::from_f64).collect()),
    }
}

fn raw(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bf16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Coded(_) => Vec::new(),
    }
}

/// A model on a device, and one in the host's memory.
struct Both<D: Device> {
    device: Resident<D>,
    tensors: Vec<Tensor>,
    host: Optimizer,
    values: Vec<Buffer>,
    step: u64,
}

impl<D: Device> Both<D> {
    fn new(device: D, name: &str, args: &Args, dtype: Dtype, shapes: &[&[usize]]) -> Self {
        let recipe = || named::optimizer(name, args).unwrap();
        let (mut device, mut host) = (Resident::new(device), Optimizer::new());
        let group = device.add_group(recipe()).unwrap();
        assert_eq!(host.add_group(recipe()).unwrap(), group);
        let (mut tensors, mut values) = (Vec::new(), Vec::new());
        for (i, shape) in shapes.iter().enumerate() {
            device.add_param(group, shape, dtype).unwrap();
            host.add_param(group, shape, dtype).unwrap();
            let len = shape.iter().product();
            let value = numbers(1000 * i as u64, len, dtype);
            let bytes = raw(&value);
            let at = device.device().alloc(bytes.len()).unwrap();
            device.device().write(at, &bytes).unwrap();
            let grad = device.device().alloc(bytes.len()).unwrap();
            tensors.push(Tensor { value: at, len, grad: Some((dtype, grad)) });
            values.push(value);
        }
        Both { device, tensors, host, values, step: 0 }
    }

    fn step(&mut self) {
        self.step += 1;
        let mut grads = Vec::new();
        for (i, (tensor, value)) in self.tensors.iter().zip(&mut self.values).enumerate() {
            let (dtype, at) = tensor.grad.unwrap();
            let grad = numbers(7 * self.step + 31 * i as u64, value.len(), dtype);
            self.device.device().write(at, &raw(&grad)).unwrap();
            grads.push(grad);
        }
        let pairs = self.values.iter_mut().zip(&grads);
        let mut params: Vec<_> = pairs
            .map(|(value, grad)| Param { value: value.data_mut(), grad: grad.data() })
            .collect();
        self.host.step(&mut params, &[]).unwrap();
        // SAFETY: all of it was allocated above, and nobody else has it.
        unsafe { self.device.step(&self.tensors, &[]) }.unwrap();
    }

    fn assert_same(&mut self, what: &str) {
        for (i, (tensor, value)) in self.tensors.iter().zip(&self.values).enumerate() {
            let want = raw(value);
            let mut got = vec![0; want.len()];
            self.device.device().read(tensor.value, &mut got).unwrap();
            assert!(got == want, "{what}: parameter {i} after {} steps", self.step);
            for (k, slot) in self.host.params()[i].slots.iter().enumerate() {
                let want = match slot {
                    nothing if nothing.is_empty() => Vec::new(),
                    Buffer::Coded(coded) => coded.parts("").into_iter().map(|p| p.bytes).collect(),
                    plain => vec![raw(plain)],
                };
                assert!(self.device.slot(i, k).unwrap() == want, "{what}: parameter {i}, slot {k}");
            }
            // Any NaN equals any NaN: a tensor without elements has a mean of that kind.
            let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
            let scalars = self.device.scalars(i).map(|s| s.map(bits));
            let want = self.host.params()[i].scalars.map(bits);
            assert_eq!(scalars, Some(want), "{what}: parameter {i}");
        }
    }
}

const SHAPES: [&[usize]; 5] = [&[3000], &[40, 60], &[7], &[0], &[2, 33, 40]];

#[test]
fn state_on_a_device_has_the_bits_of_the_core() {
    use Dtype::{Bf16, F16, F32, F64};
    for (name, dtypes) in [
        ("adamw_torch", &[F32, F64, Bf16, F16][..]),
        ("adamw_torch_fused", &[Bf16, F16]),
        ("flash_adamw", &[Bf16, F32]),
        ("flash_lion", &[F16]),
        ("adamw_bnb_8bit", &[F32, Bf16]),
        ("adamw_torch_4bit", &[Bf16]),
        ("torchao_adam_fp8", &[F32]),
        ("adamw_anyprecision", &[Bf16]),
        ("bnb_lamb_32bit", &[F32]),
        ("stable_adamw", &[F32, Bf16]),
        ("grokadamw", &[F16]),
        ("adafactor", &[F32, Bf16]),
        ("adafactor_torch", &[F64, Bf16]),
        ("schedule_free_adamw", &[F32]),
        ("keras_adam", &[F32]),
    ] {
        for &dtype in dtypes {
            let what = format!("{name} {dtype:?}");
            let mut both = Both::new(device(), name, &Args::new(), dtype, &SHAPES);
            for _ in 0..3 {
                both.step();
                both.assert_same(&what);
            }
        }
    }
}

#[test]
fn rules_with_products_of_matrices_have_the_bits_of_the_core() {
    use Dtype::{Bf16, F16, F32, F64};
    const MATRICES: [&[usize]; 4] = [&[40, 60], &[70, 33], &[1, 5], &[300, 3]];
    let low = |args: &str| Args::parse(&format!("rank=3, update_proj_gap=2, {args}")).unwrap();
    for (name, args, dtypes) in [
        ("muon", Args::new(), &[F32, F64, Bf16, F16][..]),
        // Singular vectors every other step, and numbers drawn at random.
        ("galore_adamw", low("scale=2"), &[F32, Bf16]),
        ("galore_adamw", low("proj_type=full"), &[F64]),
        ("galore_adafactor", low("scale_parameter=true, relative_step=true"), &[F32, F16]),
        ("galore_adamw_8bit", low("proj_type=reverse_std"), &[F32, Bf16]),
        ("apollo_adamw", low("scale=4"), &[F32, F64, F16]),
        ("apollo_adamw", low("scale_type=tensor, scale_front=true"), &[Bf16]),
        ("apollo_adamw", low("proj=svd, disable_nl=true"), &[F32]),
        ("galore_adamw", Args::new(), &[F32]),
        ("galore_adamw_8bit", Args::new(), &[Bf16]),
    ] {
        let shapes = if name == "galore_adamw_8bit" { &MATRICES[..2] } else { &MATRICES };
        for &dtype in dtypes {
            let what = format!("{name} {args:?} {dtype:?}");
            let mut both = Both::new(device(), name, &args, dtype, shapes);
            for _ in 0..4 {
                both.step();
                both.assert_same(&what);
            }
        }
    }
}

#[test]
fn stochastic_rounding_counts_its_bits_on_the_device() {
    let args = Args::new().with("bf16_stochastic_round", true);
    let mut both = Both::new(device(), "adamw_torch_8bit", &args, Dtype::Bf16, &SHAPES);
    for _ in 0..3 {
        both.step();
        both.assert_same("stochastic");
    }
}

/// Launches and allocations of a second step, and of what is read back.
fn costs(name: &str, count: usize) -> [usize; 3] {
    let shapes = vec![&[50, 41][..]; count];
    let mut both = Both::new(device(), name, &Args::new(), Dtype::F32, &shapes);
    both.step();
    let device = both.device.device();
    (device.launches, device.allocations, device.reads) = (0, 0, 0);
    both.step();
    let device = both.device.device();
    [device.launches, device.allocations, device.reads]
}

#[test]
fn many_tensors_cost_the_launches_of_one_and_no_allocation() {
    // GPT-2 has 148 tensors.
    assert_eq!(costs("adamw_torch", 148), [1, 0, 0]);
    let [launches, allocations, _] = costs("adafactor", 1);
    assert_eq!(costs("adafactor", 20)[..2], [launches, allocations]);
    assert_eq!(allocations, 0);
    assert!(launches < 20, "{launches}");
}

#[test]
fn a_step_that_can_not_be_made_launches_nothing() {
    let mut both = Both::new(device(), "adamw_torch", &Args::new(), Dtype::F32, &[&[8], &[8]]);
    both.step();
    both.device.device().launches = 0;
    let good = both.tensors.clone();
    let mut refused = |change: fn(&mut Vec<Tensor>)| {
        let mut tensors = good.clone();
        change(&mut tensors);
        // SAFETY: it is refused.
        unsafe { both.device.step(&tensors, &[]) }.unwrap_err()
    };
    assert!(matches!(refused(|t| t[0].value += 2), Error::Misaligned { tensor: 0, size: 4, .. }));
    assert!(matches!(refused(|t| t[1].value = 0), Error::Misaligned { tensor: 1, address: 0, .. }));
    assert!(matches!(
        refused(|t| t[1].value = t[0].value + 28),
        Error::Overlap { tensors: [0, 1] }
    ));
    assert!(matches!(
        refused(|t| t[1].grad = Some((Dtype::F32, t[0].value))),
        Error::Overlap { .. }
    ));
    assert!(matches!(refused(|t| t[1].len = 7), Error::Core(bitstep::Error::Length { .. })));
    assert!(matches!(refused(|t| t.truncate(1)), Error::Core(bitstep::Error::Length { .. })));
    assert_eq!(both.device.device().launches, 0);
    // Gradients may be shared: nobody writes them.
    let mut tensors = good.clone();
    tensors[1].grad = tensors[0].grad;
    // SAFETY: all of it was allocated above.
    unsafe { both.device.step(&tensors, &[]) }.unwrap();
}

#[test]
fn a_rule_without_kernels_is_refused_by_name() {
    let mut resident = Resident::new(device());
    // In the core any rule can be projected; there are kernels for the references' only.
    let projected = Projected::<Lion, GaLore>::default();
    let group = resident.add_group(Recipe::new(projected, Arithmetic::Fused)).unwrap();
    resident.add_param(group, &[4, 4], Dtype::F32).unwrap();
    let at = resident.device().alloc(128).unwrap();
    let tensor = Tensor { value: at, len: 16, grad: Some((Dtype::F32, at + 64)) };
    // SAFETY: it is refused.
    let error = unsafe { resident.step(&[tensor], &[]) }.unwrap_err();
    assert_eq!(error.to_string(), "no kernel for rules of the kind `Projected`");
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_has_the_bits_of_the_core_or_says_what_is_missing() {
    use bitstep_cudarc::{Cuda, CudaError};
    match Cuda::open(0) {
        Ok(_) => {
            for name in ["adamw_torch", "flash_adamw", "stable_adamw", "adafactor"] {
                let device = Cuda::open(0).unwrap();
                let mut both = Both::new(device, name, &Args::new(), Dtype::Bf16, &SHAPES);
                for _ in 0..3 {
                    both.step();
                    both.assert_same(name);
                }
            }
        }
        Err(missing) => {
            assert!(matches!(missing, CudaError::NoDriver | CudaError::NoDevice), "{missing}");
            println!("not run on a GPU: {missing}");
        }
    }
}
