//! State on a device: the bits of the core's optimizer, few launches, typed errors.

use bitstep::float::Dtype;
use bitstep::gradient::ClipGradNorm;
use bitstep::hyper::Args;
use bitstep::lowrank::{GaLore, Projected};
use bitstep::optim::Lion;
use bitstep::optimizer::{Buffer, Optimizer, OptimizerSpec, Param, ParamId};
use bitstep::registry;
use bitstep::rule::ComputePolicy;
use bitstep_cudarc::{
    Clip, Device, DeviceOptimizer, DeviceSlice, Error, Tensor, Workspace, clip, norm,
};
use bitstep_ptx::Machine;
use half::{bf16, f16};

/// The calls of a device.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Alloc,
    Free,
    Write,
    Read,
    Launch(String, [u32; 2], [u64; 3]),
}

/// The interpreter, which records the calls.
struct Counted {
    machine: Machine,
    calls: Vec<Call>,
    /// Whether every read returns all ones.
    garbled: bool,
    /// Whether nothing can be written.
    broken: bool,
    /// A kernel that the device has not.
    lacks: &'static str,
    /// How many more calls of alloc and write go well before one fails; `None` if none does.
    left: Option<usize>,
}

impl Counted {
    fn count(&self, what: fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| what(call)).count()
    }
    fn launches(&self) -> usize {
        self.count(|call| matches!(call, Call::Launch(..)))
    }
    /// What has been allocated and not freed.
    fn held(&self) -> usize {
        self.count(|call| *call == Call::Alloc) - self.count(|call| *call == Call::Free)
    }
    fn spend(&mut self) -> Result<(), bitstep_ptx::Error> {
        let left = self.left.take().map(|left| left.checked_sub(1));
        self.left = left.flatten();
        match left {
            Some(None) => Err(bitstep_ptx::Error::Launch("spent".into())),
            _ => Ok(()),
        }
    }
}

impl Device for Counted {
    type Error = bitstep_ptx::Error;
    fn alloc(&mut self, bytes: usize) -> Result<u64, Self::Error> {
        self.spend()?;
        self.calls.push(Call::Alloc);
        Device::alloc(&mut self.machine, bytes)
    }
    fn free(&mut self, address: u64) -> Result<(), Self::Error> {
        self.calls.push(Call::Free);
        Device::free(&mut self.machine, address)
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        self.spend()?;
        self.calls.push(Call::Write);
        if self.broken {
            return Err(bitstep_ptx::Error::Launch("broken".into()));
        }
        Device::write(&mut self.machine, address, bytes)
    }
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.calls.push(Call::Read);
        Device::read(&mut self.machine, address, bytes)?;
        if self.garbled {
            bytes.fill(0xff);
        }
        Ok(())
    }
    fn check(&mut self, address: u64, bytes: usize) -> Result<(), Self::Error> {
        Device::check(&mut self.machine, address, bytes)
    }
    fn load(&mut self, kernel: &str) -> Result<(), Self::Error> {
        if kernel == self.lacks {
            return Err(bitstep_ptx::Error::Launch(format!("no kernel `{kernel}`")));
        }
        Device::load(&mut self.machine, kernel)
    }
    fn launch(
        &mut self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        params: [u64; 3],
    ) -> Result<(), Self::Error> {
        self.calls.push(Call::Launch(kernel.to_owned(), [blocks, threads], params));
        Device::launch(&mut self.machine, kernel, blocks, threads, params)
    }
}

fn device() -> Counted {
    let machine = Machine::new(bitstep_cudarc::ptx()).unwrap();
    Counted { machine, calls: Vec::new(), garbled: false, broken: false, lacks: "", left: None }
}

/// Pseudo-random values of either sign, around magnitude 1.
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
        Buffer::Encoded(_) => Vec::new(),
    }
}

/// A model on a device, and the same model on the host.
struct Both<D: Device> {
    device: DeviceOptimizer<D>,
    tensors: Vec<Tensor>,
    host: Optimizer,
    values: Vec<Buffer>,
    step: u64,
}

impl<D: Device> Both<D> {
    fn new(device: D, name: &str, args: &Args, dtype: Dtype, shapes: &[&[usize]]) -> Self {
        let spec = || registry::optimizer(name, args).unwrap();
        let (mut device, mut host) = (DeviceOptimizer::new(device), Optimizer::empty());
        let group = device.add_group(spec()).unwrap();
        assert_eq!(host.add_group(spec()).unwrap(), group);
        let (mut tensors, mut values) = (Vec::new(), Vec::new());
        for (i, shape) in shapes.iter().enumerate() {
            device.add_param(group, shape, dtype).unwrap();
            host.add_param_to(group, shape, dtype).unwrap();
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

    /// A step on the host, whose gradients are on the device then.
    fn step_host(&mut self) {
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
        self.host.step_all(&mut params, &[]).unwrap();
    }

    fn step(&mut self) {
        self.step_host();
        // SAFETY: all of it was allocated above, and nothing else uses it.
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
                    Buffer::Encoded(coded) => {
                        coded.parts("").into_iter().map(|p| p.bytes).collect()
                    }
                    plain => vec![raw(plain)],
                };
                assert!(
                    self.device.slot(ParamId(i), k).unwrap() == want,
                    "{what}: parameter {i}, slot {k}"
                );
            }
            // Any NaN equals any NaN: the mean of a tensor without elements is one.
            let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
            let scalars = self.device.scalars(ParamId(i)).unwrap().map(|s| s.map(bits));
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

/// Sums of more blocks than one adds, tiles side by side and below each other; whichever warp is the last.
#[test]
fn sums_of_several_levels_have_the_bits_of_the_core() {
    for (name, args, dtype, shapes) in [
        ("adafactor", "", Dtype::F32, &[&[1100, 33][..], &[70, 2100], &[2, 40, 1030]][..]),
        ("adafactor", "", Dtype::F32, &[&[1, 1_050_000][..]]),
        ("stable_adamw", "", Dtype::F32, &[&[1_050_000][..]]),
        ("bnb_lamb_8bit", "", Dtype::Bf16, &[&[3000][..], &[100, 90]]),
        ("apollo_adamw", "rank=2", Dtype::F32, &[&[40, 1100][..], &[1100, 40]]),
        ("muon", "", Dtype::F32, &[&[8, 300][..], &[30, 20]]),
    ] {
        for backwards in [false, true] {
            let mut device = device();
            if backwards {
                device.machine.run_backwards();
            }
            let args = Args::parse(args).unwrap();
            let mut both = Both::new(device, name, &args, dtype, shapes);
            for _ in 0..2 {
                both.step();
                both.assert_same(&format!("{name} {shapes:?}, backwards: {backwards}"));
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
        // Singular vectors every other step, and random projectors.
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

/// Bytes read from a device may be invalid values: flags that are neither 0 nor 1.
#[test]
fn constants_that_are_no_values_are_not_taken() {
    let mut both = Both::new(device(), "adafactor", &Args::new(), Dtype::F32, &[&[40, 60]]);
    both.step();
    both.device.device().garbled = true;
    let scalars = both.device.scalars(ParamId(0)).unwrap().unwrap();
    assert!(scalars.iter().all(|x| !x.is_nan()), "{scalars:?}");
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

/// The calls of a third step, which must equal those of the second.
fn costs(name: &str, args: &str, count: usize) -> Vec<Call> {
    let shapes = vec![&[50, 41][..]; count];
    let mut both = Both::new(device(), name, &Args::parse(args).unwrap(), Dtype::F32, &shapes);
    both.step();
    let mut calls = [(); 2].map(|()| {
        let (tensors, device) = (both.tensors.clone(), both.device.device());
        device.calls.clear();
        // SAFETY: all of it was allocated above, and nothing else uses it.
        unsafe { both.device.prepare(&tensors, &[]) }.unwrap();
        // The host's part: one table, without waiting or allocating.
        assert_eq!(both.device.device().calls, [Call::Write], "{name}");
        both.device.device().calls.clear();
        // SAFETY: as above.
        unsafe { both.device.launch() }.unwrap();
        std::mem::take(&mut both.device.device().calls)
    });
    // A captured graph has the addresses of the first tensors, and would step those again.
    assert_eq!(calls[0], calls[1], "{name}");
    std::mem::take(&mut calls[0])
}

#[test]
fn a_step_after_the_first_launches_and_nothing_else() {
    // GPT-2 has 148 tensors.
    assert_eq!(costs("adamw_torch", "lr=0.1", 148).len(), 1);
    for (name, args) in [
        ("flash_adamw", ""),
        ("adafactor", ""),
        ("stable_adamw", ""),
        ("bnb_lamb_8bit", ""),
        ("muon", ""),
        ("apollo_adamw", "rank=2"),
        ("galore_adafactor", "rank=2"),
        ("galore_adamw_8bit", "rank=2"),
        ("schedule_free_radam", ""),
    ] {
        let of_one = costs(name, args, 1);
        assert!(of_one.iter().all(|call| matches!(call, Call::Launch(..))), "{name}");
        assert_eq!(costs(name, args, 8).len(), of_one.len(), "{name}");
        assert!(of_one.len() < 50, "{name}: {}", of_one.len());
    }
}

#[test]
fn prepared_launches_change_when_the_tensors_do() {
    let mut both = Both::new(device(), "adamw_torch", &Args::new(), Dtype::F32, &[&[8], &[9]]);
    let mut tensors = both.tensors.clone();
    // SAFETY: all of it was allocated above, and nothing else uses it.
    let mut prepare = |tensors: &[Tensor]| unsafe { both.device.prepare(tensors, &[]) }.unwrap();
    assert!(!prepare(&tensors) && prepare(&tensors));
    tensors[1].grad = None;
    assert!(!prepare(&tensors) && prepare(&tensors));
}

#[test]
fn a_step_that_fails_has_not_been_counted() {
    // Counters of parameters, of groups, and scalars of either.
    for name in ["adamw_torch", "schedule_free_adamw", "nadam", "muon", "lomo"] {
        let mut both = Both::new(device(), name, &Args::new(), Dtype::F32, &[&[8, 4], &[3, 3]]);
        for broken in [true, false, true, true, false] {
            both.device.device().broken = broken;
            if broken {
                let tensors = both.tensors.clone();
                // SAFETY: all of it was allocated above, and nothing else uses it.
                let failed = unsafe { both.device.step(&tensors, &[]) };
                assert!(matches!(failed, Err(Error::Device(_))), "{name}");
            } else {
                both.step();
                both.assert_same(name);
            }
        }
    }
}

/// A device that has no more room, or can't be written, at any one call.
#[test]
fn what_fails_on_the_way_to_the_device_leaves_everything_as_it_was() {
    for (name, args) in [("flash_adamw", ""), ("bnb_lamb_8bit", ""), ("apollo_adamw", "rank=2")] {
        let (args, shape) = (Args::parse(args).unwrap(), &[70, 64][..]);
        let mut both = Both::new(device(), name, &args, Dtype::Bf16, &[shape]);
        both.step();
        let group = both.device.groups().len() - 1;
        let before = both.device.download().unwrap();
        let same = |both: &mut Both<Counted>, held| {
            both.device.device().left = None;
            let after = both.device.download().unwrap();
            assert_eq!(after.params().len(), 1, "{name}");
            let (old, new) = (&before.params()[0], &after.params()[0]);
            assert!(old.slots == new.slots && old.correction == new.correction, "{name}");
            assert_eq!((old.steps, old.scalars), (new.steps, new.scalars), "{name}");
            assert_eq!(both.device.device().held(), held, "{name}");
        };
        let held = both.device.device().held();
        let mut refused = [0; 2];
        loop {
            both.device.device().left = Some(refused[0]);
            let group = bitstep::optimizer::GroupId(group);
            if both.device.add_param(group, shape, Dtype::Bf16).is_ok() {
                break;
            }
            same(&mut both, held);
            refused[0] += 1;
        }
        assert!(refused[0] >= 4, "{name}: {refused:?}");
        let mut both = Both::new(device(), name, &args, Dtype::Bf16, &[shape]);
        both.step();
        let held = both.device.device().held();
        let other = Optimizer::clone(&before);
        loop {
            both.device.device().left = Some(refused[1]);
            if both.device.load(other.clone()).is_ok() {
                break;
            }
            same(&mut both, held);
            refused[1] += 1;
        }
        assert_eq!(refused[0], refused[1], "{name}");
        both.device.device().left = None;
        both.step();
        both.assert_same(name);
        assert_eq!(both.device.device().held(), held, "{name}");
    }
}

/// Averaged parameters, which come from the device, change, and go back.
#[test]
fn an_evaluation_that_fails_leaves_everything_as_it_was() {
    let shapes: [&[usize]; 2] = [&[40], &[6, 7]];
    let mut both = Both::new(device(), "schedule_free_adamw", &Args::new(), Dtype::F32, &shapes);
    both.step();
    both.step();
    let held = both.device.device().held();
    let mut refused = 0;
    loop {
        both.device.device().left = Some(refused);
        // SAFETY: all of it was allocated above, and nothing else uses it.
        if unsafe { both.device.eval(&both.tensors) }.is_ok() {
            break;
        }
        both.device.device().left = None;
        assert_eq!(both.device.device().held(), held);
        both.assert_same("evaluation");
        refused += 1;
    }
    assert!(refused >= 6, "{refused}");
}

/// Projectors, which the host refreshes, are written when nothing can be refused any more.
#[test]
fn a_step_that_is_refused_leaves_projectors_as_they_were() {
    for (name, lacks) in [("galore_adamw", "adamw_hf_direct_f32"), ("apollo_adamw", "channels_f32")]
    {
        let args = Args::parse("rank=2").unwrap();
        let mut both = Both::new(device(), name, &args, Dtype::F32, &[&[8, 6], &[6, 8]]);
        both.device.device().lacks = lacks;
        let slots = |both: &mut Both<Counted>| -> Vec<_> {
            let count = both.host.params()[0].slots.len();
            (0..count).map(|k| both.device.slot(ParamId(0), k).unwrap()).collect()
        };
        let (before, tensors) = (slots(&mut both), both.tensors.clone());
        // SAFETY: all of it was allocated above, and nothing else uses it.
        let refused = unsafe { both.device.step(&tensors, &[]) };
        assert!(matches!(refused, Err(Error::Device(_))), "{name}: {refused:?}");
        assert!(before == slots(&mut both), "{name}");
        both.device.device().lacks = "";
        both.step();
        both.assert_same(name);
    }
}

#[test]
fn a_norm_over_all_gradients_has_the_bits_of_the_core() {
    for (name, args) in [("lomo", "clip_grad_norm=0.5"), ("keras_adam", "adam_global_clipnorm=0.1")]
    {
        let args = Args::parse(args).unwrap();
        let mut both = Both::new(device(), name, &args, Dtype::F32, &SHAPES);
        for _ in 0..2 {
            both.step();
            both.assert_same(name);
        }
    }
}

#[test]
fn state_comes_back_and_goes_on_elsewhere() {
    for (name, args, dtype) in [
        ("flash_adamw", "lr=0.1", Dtype::Bf16),
        ("apollo_adamw", "rank=3", Dtype::F32),
        ("adamw_torch_4bit", "lr=0.1", Dtype::F32),
        ("adamw_anyprecision", "use_kahan_summation=true", Dtype::Bf16),
        ("adafactor", "lr=0.1, relative_step=false, scale_parameter=false", Dtype::F16),
    ] {
        let args = Args::parse(args).unwrap();
        let shapes: [&[usize]; 2] = [&[40, 60], &[64, 32]];
        let mut both = Both::new(device(), name, &args, dtype, &shapes);
        both.step();
        // As after a checkpoint: only the downloaded state is known.
        let saved = both.device.download().unwrap();
        for (ours, theirs) in saved.params().iter().zip(both.host.params()) {
            assert!(ours.slots == theirs.slots, "{name}");
            assert!(ours.correction == theirs.correction && ours.steps == theirs.steps, "{name}");
        }
        let mut other = Both::new(device(), name, &args, dtype, &shapes);
        other.device.load(saved).unwrap();
        for ((value, tensor), theirs) in
            both.values.iter().zip(&other.tensors).zip(&mut other.values)
        {
            other.device.device().write(tensor.value, &raw(value)).unwrap();
            *theirs = value.clone();
        }
        (other.host, other.step) = (both.host.clone(), both.step);
        other.step();
        other.assert_same(name);
        // The state of another model is refused.
        let mut small = Both::new(device(), name, &args, dtype, &[&[40, 61]]);
        let error = small.device.load(both.device.download().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Core(bitstep::Error::LengthMismatch { .. })), "{error}");
    }
}

#[test]
fn evaluation_has_the_parameters_of_the_core() {
    for name in ["schedule_free_adamw", "adamw_torch"] {
        let args = Args::parse("lr=0.1").unwrap();
        let mut both = Both::new(device(), name, &args, Dtype::Bf16, &SHAPES);
        both.step();
        both.step();
        for eval in [true, false] {
            let mut views: Vec<_> = both.values.iter_mut().map(Buffer::data_mut).collect();
            // SAFETY: all of it was allocated above, and nothing else uses it.
            unsafe {
                if eval {
                    both.host.eval(&mut views).unwrap();
                    both.device.eval(&both.tensors).unwrap();
                    // A step would update the wrong parameters.
                    let refused = both.device.step(&both.tensors, &[]).unwrap_err();
                    assert!(matches!(refused, Error::Core(_)), "{refused}");
                } else {
                    both.host.train(&mut views).unwrap();
                    both.device.train(&both.tensors).unwrap();
                }
            }
            drop(views);
            both.assert_same(name);
        }
        both.step();
        both.assert_same(name);
    }
}

#[test]
fn gradients_multiplied_on_their_way_are_as_if_clipped() {
    for (name, args, dtype) in [
        ("adamw_torch", "", Dtype::F32),
        ("adamw_torch_fused", "", Dtype::Bf16),
        ("adamw_torch", "", Dtype::F16),
        ("flash_adamw", "", Dtype::Bf16),
        ("flash_adamw", "", Dtype::F32),
        ("stable_adamw", "", Dtype::F32),
        ("adafactor", "", Dtype::Bf16),
        ("adafactor_torch", "", Dtype::F64),
        ("muon", "", Dtype::Bf16),
        ("galore_adamw", "rank=2, update_proj_gap=2", Dtype::F32),
        ("apollo_adamw", "rank=2", Dtype::F16),
        ("lomo", "clip_grad_norm=0.5", Dtype::F32),
    ] {
        let args = Args::parse(args).unwrap();
        let mut both = Both::new(device(), name, &args, dtype, &[&[40, 60], &[70, 33]]);
        let found = both.device.device().alloc(16).unwrap();
        let mut workspace = Workspace::default();
        // SAFETY: it was allocated above.
        unsafe { both.device.set_grad_scale(Some(found + 8)) };
        for t in 0..3 {
            let clip = ClipGradNorm { max_norm: 0.5, ..ClipGradNorm::default() };
            let lens = both.tensors.iter().map(|t| t.len);
            let mut grads: Vec<_> = lens.map(|len| numbers(t + 90, len, dtype)).collect();
            let mut ours = Vec::new();
            for (tensor, grad) in both.tensors.iter().zip(&grads) {
                let at = tensor.grad.unwrap().1;
                both.device.device().write(at, &raw(grad)).unwrap();
                ours.push(DeviceSlice { at, len: tensor.len, dtype });
            }
            // SAFETY: all of it was allocated above, and nothing else uses it.
            unsafe {
                norm(both.device.device(), &mut workspace, &ours, Clip::Norm(clip), found).unwrap();
                both.device.step(&both.tensors, &[]).unwrap();
            }
            let mut views: Vec<_> = grads.iter_mut().map(Buffer::data_mut).collect();
            clip.clip(&mut views).unwrap();
            drop(views);
            let pairs = both.values.iter_mut().zip(&grads);
            let mut params: Vec<_> = pairs
                .map(|(value, grad)| Param { value: value.data_mut(), grad: grad.data() })
                .collect();
            both.host.step_all(&mut params, &[]).unwrap();
            both.assert_same(name);
        }
    }
}

/// The norm stays on the device, and has the bits of the core.
#[test]
fn gradients_are_clipped_by_their_norm_without_waiting() {
    let mut device = device();
    let lens = [3000, 7, 0, 40_000, 33];
    let mut grads: Vec<_> = (1..).zip(lens).map(|(i, n)| numbers(i, n, Dtype::F32)).collect();
    let mut workspace = Workspace::default();
    let mut put = |bytes: &[u8]| {
        let at = device.alloc(bytes.len().max(1)).unwrap();
        device.write(at, bytes).unwrap();
        at
    };
    let found = put(&[0; 16]);
    let ours: Vec<_> = grads
        .iter()
        .map(|g| DeviceSlice { at: put(&raw(g)), len: g.len(), dtype: Dtype::F32 })
        .collect();
    let how = ClipGradNorm { max_norm: 0.25, ..ClipGradNorm::default() };
    // Once, so that memory is allocated.
    for _ in 0..2 {
        device.calls.clear();
        // SAFETY: all of it was allocated above, and nothing else uses it.
        unsafe { clip(&mut device, &mut workspace, &ours, Clip::Norm(how), found) }.unwrap();
    }
    assert!(device.calls.iter().all(|c| matches!(c, Call::Write | Call::Launch(..))));
    let mut views: Vec<_> = grads.iter_mut().map(Buffer::data_mut).collect();
    let want = [(); 2].map(|()| how.clip(&mut views).unwrap());
    drop(views);
    let mut norm = [0; 8];
    device.read(found, &mut norm).unwrap();
    assert_eq!(f64::from_le_bytes(norm), want[1]);
    for (want, got) in grads.iter().zip(&ours) {
        let mut bytes = vec![0; got.len * 4];
        device.read(got.at, &mut bytes).unwrap();
        assert!(bytes == raw(want));
    }
    // A clip that may refuse reads the norm before it scales.
    device.write(ours[1].at, &f32::NAN.to_le_bytes()).unwrap();
    let how = ClipGradNorm { error_if_nonfinite: true, ..how };
    // SAFETY: as above.
    let refused = unsafe { clip(&mut device, &mut workspace, &ours, Clip::Norm(how), found) };
    assert!(matches!(refused, Err(Error::Core(bitstep::Error::OutOfRange { .. }))));
    let mut bytes = vec![0; 12000];
    device.read(ours[0].at, &mut bytes).unwrap();
    assert!(bytes == raw(&grads[0]));
}

#[test]
fn a_step_that_can_not_be_made_launches_nothing() {
    let mut both = Both::new(device(), "adamw_torch", &Args::new(), Dtype::F32, &[&[8], &[8]]);
    both.step();
    both.device.device().calls.clear();
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
    assert!(matches!(
        refused(|t| t[1].len = 7),
        Error::Core(bitstep::Error::LengthMismatch { .. })
    ));
    assert!(matches!(
        refused(|t| t.truncate(1)),
        Error::Core(bitstep::Error::LengthMismatch { .. })
    ));
    // Memory that does not belong to the device, or is too short.
    assert!(matches!(refused(|t| t[0].value = 1 << 60), Error::Device(_)));
    assert!(matches!(refused(|t| t[0].value += 1 << 40), Error::Device(_)));
    assert_eq!(both.device.device().launches(), 0);
    // Gradients may be shared: they are not written to.
    let mut tensors = good.clone();
    tensors[1].grad = tensors[0].grad;
    // SAFETY: all of it was allocated above.
    unsafe { both.device.step(&tensors, &[]) }.unwrap();
}

#[test]
fn a_rule_without_kernels_is_refused_by_name() {
    let mut resident = DeviceOptimizer::new(device());
    // The core can project any rule; kernels exist for those that the references project.
    let projected = Projected::<Lion, GaLore>::default();
    let error =
        resident.add_group(OptimizerSpec::new(projected, ComputePolicy::Fused)).unwrap_err();
    assert_eq!(error.to_string(), "no kernel for rules of the kind `Projected`");
}

/// Errors of the driver, by their code.
#[cfg(feature = "cuda")]
#[test]
fn what_the_driver_says_has_a_type() {
    use bitstep_cudarc::CudaError;
    use cudarc::driver::{DriverError, sys::CUresult};
    let of = |answer| CudaError::from(DriverError(answer));
    assert_eq!(of(CUresult::CUDA_ERROR_NO_DEVICE), CudaError::NoDevice);
    assert_eq!(of(CUresult::CUDA_ERROR_INVALID_DEVICE), CudaError::NoDevice);
    let memory = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(CudaError::from(memory), CudaError::Driver(memory));
    for (error, says) in [
        (CudaError::NoDriver, "no CUDA driver"),
        (CudaError::TooOld(7, 0), "the device has compute capability 7.0, 7.5 is wanted"),
        (CudaError::WrongContext(256), "0x100 belongs to another device or context"),
        (CudaError::NotMemory(256), "0x100 is no memory of a device"),
        (CudaError::NoKernel("x".into()), "no kernel `x`"),
    ] {
        assert_eq!(error.to_string(), says);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_has_the_bits_of_the_core_or_says_what_is_missing() {
    use bitstep_cudarc::{Cuda, CudaError};
    match Cuda::open(0) {
        Ok(_) => {
            const MATRICES: [&[usize]; 3] = [&[40, 60], &[70, 33], &[300, 3]];
            for (name, args, shapes) in [
                ("adamw_torch", "", &SHAPES[..]),
                ("flash_adamw", "", &SHAPES),
                ("stable_adamw", "", &SHAPES),
                ("adafactor", "", &SHAPES),
                ("adamw_bnb_8bit", "", &SHAPES),
                ("muon", "", &MATRICES),
                ("galore_adamw", "rank=2", &MATRICES),
                ("apollo_adamw", "rank=2", &MATRICES),
            ] {
                let (device, args) = (Cuda::open(0).unwrap(), Args::parse(args).unwrap());
                let mut both = Both::new(device, name, &args, Dtype::Bf16, shapes);
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

/// A step that is captured once, and replayed with the constants of each further one.
#[cfg(feature = "cuda")]
#[test]
fn a_captured_step_has_the_bits_of_the_core_or_says_what_is_missing() {
    use bitstep_cudarc::Cuda;
    use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
    let cuda = match Cuda::open(0) {
        Ok(cuda) => cuda,
        Err(missing) => return println!("not run on a GPU: {missing}"),
    };
    for name in ["adamw_torch", "flash_adamw", "adamw_bnb_8bit", "stable_adamw"] {
        // The default stream can't be captured.
        let stream = cuda.stream().context().new_stream().unwrap();
        let device = Cuda::on(stream.clone()).unwrap();
        let mut both = Both::new(device, name, &Args::new(), Dtype::Bf16, &SHAPES);
        both.step();
        both.step();
        let mut graph = None;
        for _ in 0..3 {
            both.step_host();
            let tensors = both.tensors.clone();
            // SAFETY: all of it was allocated by `both`, and nothing else uses it.
            assert!(unsafe { both.device.prepare(&tensors, &[]) }.unwrap(), "{name}");
            if graph.is_none() {
                stream
                    .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
                    .unwrap();
                // SAFETY: as above.
                unsafe { both.device.launch() }.unwrap();
                let flags =
                    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
                graph = stream.end_capture(flags).unwrap();
            }
            graph.as_ref().unwrap().launch().unwrap();
            stream.synchronize().unwrap();
            both.assert_same(name);
        }
    }
}
