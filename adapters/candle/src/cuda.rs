//! Optimizers over variables on a GPU.

use bitstep::float::Dtype;
use bitstep::gradient::ClipGradNorm;
use bitstep::optimizer::{Group, GroupId, Optimizer as State, OptimizerSpec};
use bitstep_cudarc::{
    Clip, Cuda, Device as _, DeviceOptimizer, DeviceSlice, Tensor as Memory, Workspace,
};
use candle_core::backprop::GradStore;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtr, SyncOnDrop};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Storage, Tensor, Var};

use crate::memory::Places;

/// Groups of variables on a GPU, what moves them, and their state beside them.
///
/// Everything is launched on candle's own stream, over candle's own storage; nothing is copied,
/// and nothing waits but what reads ([`norm`](Self::norm), [`download`](Self::download), and the
/// rules that [`DeviceOptimizer`] names). Many variables go in one launch.
///
/// ```no_run
/// use bitstep::{hyper::Args, gradient::ClipGradNorm, registry};
/// use bitstep_candle::CudaOptimizer;
/// use candle_core::{DType, Device, Var};
/// let device = Device::new_cuda(0)?;
/// let weight = Var::ones((2, 3), DType::F32, &device)?;
/// let mut optimizer = CudaOptimizer::on(device.as_cuda_device()?)?;
/// optimizer.add_group(registry::optimizer("muon", &Args::new())?, [("weight".into(), weight.clone())])?;
/// let grads = weight.sqr()?.sum_all()?.backward()?;
/// optimizer.clip_grad_norm(&grads, &ClipGradNorm::default())?;
/// optimizer.step_with_extra_args(&grads, &[])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CudaOptimizer {
    resident: DeviceOptimizer<Cuda>,
    workspace: Workspace,
    vars: Vec<(String, Var)>,
    places: Places,
    /// A norm, and what gradients were multiplied by.
    clipped: u64,
}

impl CudaOptimizer {
    /// No groups yet; for variables on this device.
    ///
    /// # Errors
    /// A device that is too old, or the driver's own.
    pub fn on(device: &CudaDevice) -> Result<Self> {
        let mut cuda = Cuda::on(device.cuda_stream()).map_err(Error::wrap)?;
        let clipped = cuda.alloc(16).map_err(Error::wrap)?;
        let (resident, workspace) = (DeviceOptimizer::new(cuda), Workspace::default());
        let (vars, places) = (Vec::new(), Places::default());
        Ok(CudaOptimizer { resident, workspace, vars, places, clipped })
    }

    /// Adds variables that share a recipe; returns the group's number.
    ///
    /// # Errors
    /// An invalid recipe; a variable that is not on a GPU, or not of f64, f32, bf16 or f16, or that
    /// shares memory with another ([`SharedMemory`](crate::SharedMemory)).
    pub fn add_group(
        &mut self,
        recipe: OptimizerSpec,
        vars: impl IntoIterator<Item = (String, Var)>,
    ) -> Result<GroupId> {
        let group = self.resident.add_group(recipe).map_err(Error::wrap)?;
        vars.into_iter().try_for_each(|(name, var)| self.add_var(group, name, var))?;
        Ok(group)
    }

    /// Adds one variable to a group.
    ///
    /// # Errors
    /// No such group, or a variable as in [`add_group`](Self::add_group).
    pub fn add_var(&mut self, group: GroupId, name: String, var: Var) -> Result<()> {
        if !var.device().is_cuda() {
            return Err(Error::msg(format!("{name}: wanted a variable on a GPU")));
        }
        let dtype = crate::number(&name, &var)?;
        let at = self.places.free(&self.vars, &name, &var)?;
        self.resident.add_param(group, var.dims(), dtype).map_err(Error::wrap)?;
        at.into_iter().for_each(|at| self.places.add(at, self.vars.len()));
        self.vars.push((name, var));
        Ok(())
    }

    /// The groups: learning rates and counters.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        self.resident.groups()
    }

    /// The groups, to set learning rates.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        self.resident.groups_mut()
    }

    /// The variables under their names, in the order in which they were added.
    #[must_use]
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// One step; `given` are numbers from outside, for the rules that listen to any.
    ///
    /// # Errors
    /// A gradient of another shape, type or device than its variable, one that shares memory with a
    /// variable, or what has no kernels: nothing is launched then. Or the driver's own.
    pub fn step_with_extra_args(&mut self, grads: &GradStore, given: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect();
        let grads = crate::check(&self.vars, &self.places, grads)?;
        self.run(&grads, |resident, memory| {
            // SAFETY: variables and gradients have these lengths; their guards are held until all
            // is launched, on the stream on which candle orders whatever comes later.
            unsafe { resident.step(memory, given) }.map_err(Error::wrap)
        })
    }

    /// Scales the gradients of all variables in place, to a total norm of at most `clip.max_norm`.
    /// The norm before stays on the device until [`norm`](Self::norm) asks for it.
    ///
    /// # Errors
    /// A gradient that is not contiguous, or of a type that is no number's; one that shares memory
    /// with a variable or another one; a non-finite norm, if `clip` refuses one. Nothing is written
    /// then.
    pub fn clip_grad_norm(&mut self, grads: &GradStore, clip: &ClipGradNorm) -> Result<()> {
        let grads: Vec<_> = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect();
        self.places.check(&self.vars, &grads, true)?;
        let grads: Vec<Tensor> = grads.into_iter().flatten().collect();
        let stream = self.resident.device().stream().clone();
        let guards: Vec<_> = grads.iter().map(Tensor::storage_and_layout).collect();
        let mut uses = Vec::new();
        let numbers = guards.iter().map(|(storage, layout)| {
            let (dtype, at) = place(storage, layout, &stream, &mut uses)?;
            Ok(DeviceSlice { at, len: layout.shape().elem_count(), dtype })
        });
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        let (device, how) = (self.resident.device(), Clip::Norm(*clip));
        // SAFETY: as in `step_with_extra_args`.
        unsafe { bitstep_cudarc::clip(device, &mut self.workspace, &numbers, how, self.clipped) }
            .map_err(Error::wrap)
    }

    /// The total norm that the last [`clip_grad_norm`](Self::clip_grad_norm) found; waits for it.
    ///
    /// # Errors
    /// The driver's own.
    pub fn norm(&mut self) -> Result<f64> {
        let mut bytes = [0; 8];
        self.resident.device().read(self.clipped, &mut bytes).map_err(Error::wrap)?;
        Ok(f64::from_le_bytes(bytes))
    }

    /// Turns the variables into those to evaluate; the same ones for most rules, but not for the
    /// schedule-free ones. By way of the host's memory.
    ///
    /// # Errors
    /// A configuration that can't be evaluated. Nothing is written then.
    pub fn eval(&mut self) -> Result<()> {
        let none = vec![None; self.vars.len()];
        // SAFETY: as in `step_with_extra_args`.
        self.run(&none, |resident, memory| unsafe { resident.eval(memory) }.map_err(Error::wrap))
    }

    /// Turns the variables back into those to train.
    ///
    /// # Errors
    /// The driver's own.
    pub fn train(&mut self) -> Result<()> {
        let none = vec![None; self.vars.len()];
        // SAFETY: as in `step_with_extra_args`.
        self.run(&none, |resident, memory| unsafe { resident.train(memory) }.map_err(Error::wrap))
    }

    /// Groups, counters and buffers, read from the device: to save.
    ///
    /// # Errors
    /// The driver's own.
    pub fn download(&mut self) -> Result<State> {
        self.resident.download().map_err(Error::wrap)
    }

    /// Goes on from such a state; variables are the caller's to set.
    ///
    /// # Errors
    /// Another number of parameters, or other shapes.
    pub fn load(&mut self, state: State) -> Result<()> {
        self.resident.load(state).map_err(Error::wrap)
    }

    /// Runs `f` on the memory of all variables and their gradients.
    fn run(
        &mut self,
        grads: &[Option<Tensor>],
        f: impl FnOnce(&mut DeviceOptimizer<Cuda>, &[Memory]) -> Result<()>,
    ) -> Result<()> {
        let stream = self.resident.device().stream().clone();
        let values: Vec<_> = self.vars.iter().map(|(_, var)| var.storage_and_layout()).collect();
        let grads: Vec<_> =
            grads.iter().map(|g| g.as_ref().map(Tensor::storage_and_layout)).collect();
        let mut uses = Vec::new();
        let mut memory = Vec::new();
        for ((storage, layout), grad) in values.iter().zip(&grads) {
            let (_, value) = place(storage, layout, &stream, &mut uses)?;
            let grad = match grad {
                Some((storage, layout)) => Some(place(storage, layout, &stream, &mut uses)?),
                None => None,
            };
            memory.push(Memory { value, len: layout.shape().elem_count(), grad });
        }
        f(&mut self.resident, &memory)
    }
}

impl Drop for CudaOptimizer {
    fn drop(&mut self) {
        let device = self.resident.device();
        for at in self.workspace.memory().chain([self.clipped]) {
            // Nobody is left to hear of an error.
            let _ = device.free(at);
        }
    }
}

impl candle_nn::Optimizer for CudaOptimizer {
    type Config = OptimizerSpec;

    /// One group, on the first variable's device; variables are named by their position.
    fn new(vars: Vec<Var>, recipe: OptimizerSpec) -> Result<Self> {
        let first = vars.first().ok_or_else(|| Error::msg("a variable was wanted"))?;
        let mut optimizer = Self::on(first.device().as_cuda_device()?)?;
        let named = vars.into_iter().enumerate().map(|(i, var)| (i.to_string(), var));
        optimizer.add_group(recipe, named)?;
        Ok(optimizer)
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step_with_extra_args(grads, &[])
    }

    /// The first group's.
    fn learning_rate(&self) -> f64 {
        self.groups().first().map_or(0.0, |g| g.lr)
    }

    /// Every group's.
    fn set_learning_rate(&mut self, lr: f64) {
        self.groups_mut().iter_mut().for_each(|g| g.lr = lr);
    }
}

/// The type and the place of a contiguous tensor's numbers.
fn place<'a>(
    storage: &'a Storage,
    layout: &Layout,
    stream: &'a CudaStream,
    uses: &mut Vec<SyncOnDrop<'a>>,
) -> Result<(Dtype, u64)> {
    fn at<'a, T: CudaDType + 'static>(
        storage: &'a CudaStorage,
        start: usize,
        stream: &'a CudaStream,
        uses: &mut Vec<SyncOnDrop<'a>>,
    ) -> Result<u64> {
        let (at, used) = storage.as_cuda_slice::<T>()?.device_ptr(stream);
        uses.push(used);
        Ok(at + (start * size_of::<T>()) as u64)
    }
    let expected = || Error::msg("wanted a contiguous tensor of f64, f32, bf16 or f16 on a GPU");
    let (Storage::Cuda(storage), Some((start, _))) = (storage, layout.contiguous_offsets()) else {
        return Err(expected());
    };
    use candle_core::backend::BackendStorage as _;
    Ok(match storage.dtype() {
        DType::F64 => (Dtype::F64, at::<f64>(storage, start, stream, uses)?),
        DType::F32 => (Dtype::F32, at::<f32>(storage, start, stream, uses)?),
        DType::BF16 => (Dtype::Bf16, at::<half::bf16>(storage, start, stream, uses)?),
        DType::F16 => (Dtype::F16, at::<half::f16>(storage, start, stream, uses)?),
        _ => return Err(expected()),
    })
}
