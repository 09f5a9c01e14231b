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

/// Groups of variables on a GPU, their optimizers, and their state on the same GPU.
///
/// Kernels are launched on candle's own stream and work on candle's own storage. Nothing is copied,
/// and the host waits only where it reads from the device ([`norm`](Self::norm),
/// [`download`](Self::download), and the rules listed at [`DeviceOptimizer`]). One launch updates
/// many variables.
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
    inner: DeviceOptimizer<Cuda>,
    workspace: Workspace,
    vars: Vec<(String, Var)>,
    places: Places,
    /// The address of two `f64`: a total norm, and the factor that gradients were multiplied by.
    clipped: u64,
}

impl CudaOptimizer {
    /// An optimizer without groups, for variables on this device.
    ///
    /// # Errors
    /// A device that is too old, or an error of the driver.
    pub fn on(device: &CudaDevice) -> Result<Self> {
        let mut cuda = Cuda::on(device.cuda_stream()).map_err(Error::wrap)?;
        let clipped = cuda.alloc(16).map_err(Error::wrap)?;
        let (inner, workspace) = (DeviceOptimizer::new(cuda), Workspace::default());
        let (vars, places) = (Vec::new(), Places::default());
        Ok(CudaOptimizer { inner, workspace, vars, places, clipped })
    }

    /// Adds a group of variables that share a spec.
    ///
    /// # Errors
    /// An invalid spec; a variable that is not on a GPU, or not of f64, f32, bf16 or f16, or that
    /// shares memory with another ([`SharedMemory`](crate::SharedMemory)).
    pub fn add_group(
        &mut self,
        spec: OptimizerSpec,
        vars: impl IntoIterator<Item = (String, Var)>,
    ) -> Result<GroupId> {
        let group = self.inner.add_group(spec).map_err(Error::wrap)?;
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
        self.inner.add_param(group, var.dims(), dtype).map_err(Error::wrap)?;
        at.into_iter().for_each(|at| self.places.add(at, self.vars.len()));
        self.vars.push((name, var));
        Ok(())
    }

    /// The groups: learning rates and counters.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        self.inner.groups()
    }

    /// The groups, to set learning rates.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        self.inner.groups_mut()
    }

    /// The variables with their names, in the order in which they were added.
    #[must_use]
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// One step. `extra` are extra arguments by name, for the rules that use any.
    ///
    /// # Errors
    /// A gradient of another shape, type or device than its variable, one that shares memory with a
    /// variable, or a rule or storage without kernels: nothing is launched then. Or an error of the
    /// driver.
    pub fn step_with_extra_args(&mut self, grads: &GradStore, extra: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect();
        let grads = crate::check(&self.vars, &self.places, grads)?;
        self.run(&grads, |inner, memory| {
            // SAFETY: variables and gradients have these lengths. Their guards are held until all
            // kernels are launched, and candle launches later work on the same stream.
            unsafe { inner.step(memory, extra) }.map_err(Error::wrap)
        })
    }

    /// Scales the gradients of all variables in place, to a total norm of at most `clip.max_norm`.
    /// The norm before clipping stays on the device until [`norm`](Self::norm) reads it.
    ///
    /// # Errors
    /// A gradient that is not contiguous, not of f64, f32, bf16 or f16, or that shares memory with a
    /// variable or another gradient; a non-finite norm, if `clip` refuses one. Nothing is written
    /// then.
    pub fn clip_grad_norm(&mut self, grads: &GradStore, clip: &ClipGradNorm) -> Result<()> {
        let grads: Vec<_> = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect();
        self.places.check(&self.vars, &grads, true)?;
        let grads: Vec<Tensor> = grads.into_iter().flatten().collect();
        let stream = self.inner.device().stream().clone();
        let guards: Vec<_> = grads.iter().map(Tensor::storage_and_layout).collect();
        let mut uses = Vec::new();
        let numbers = guards.iter().map(|(storage, layout)| {
            let (dtype, at) = place(storage, layout, &stream, &mut uses)?;
            Ok(DeviceSlice { at, len: layout.shape().elem_count(), dtype })
        });
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        let (device, how) = (self.inner.device(), Clip::Norm(*clip));
        // SAFETY: as in `step_with_extra_args`.
        unsafe { bitstep_cudarc::clip(device, &mut self.workspace, &numbers, how, self.clipped) }
            .map_err(Error::wrap)
    }

    /// The total norm that the last [`clip_grad_norm`](Self::clip_grad_norm) computed. Waits for the
    /// device.
    ///
    /// # Errors
    /// An error of the driver.
    pub fn norm(&mut self) -> Result<f64> {
        let mut bytes = [0; 8];
        self.inner.device().read(self.clipped, &mut bytes).map_err(Error::wrap)?;
        Ok(f64::from_le_bytes(bytes))
    }

    /// Converts the variables to their evaluation values, which differ from the trained ones for the
    /// schedule-free rules only. The conversion runs on the host.
    ///
    /// # Errors
    /// A configuration that can't be evaluated. Nothing is written then.
    pub fn eval(&mut self) -> Result<()> {
        let none = vec![None; self.vars.len()];
        // SAFETY: as in `step_with_extra_args`.
        self.run(&none, |inner, memory| unsafe { inner.eval(memory) }.map_err(Error::wrap))
    }

    /// Converts the variables back to their training values.
    ///
    /// # Errors
    /// An error of the driver.
    pub fn train(&mut self) -> Result<()> {
        let none = vec![None; self.vars.len()];
        // SAFETY: as in `step_with_extra_args`.
        self.run(&none, |inner, memory| unsafe { inner.train(memory) }.map_err(Error::wrap))
    }

    /// Groups, counters and buffers, read from the device: to save them.
    ///
    /// # Errors
    /// An error of the driver.
    pub fn download(&mut self) -> Result<State> {
        self.inner.download().map_err(Error::wrap)
    }

    /// Loads such a state; the caller sets the variables themselves.
    ///
    /// # Errors
    /// Another number of parameters, other shapes, or an error of the driver.
    pub fn load(&mut self, state: State) -> Result<()> {
        self.inner.load(state).map_err(Error::wrap)
    }

    /// Runs `f` on the memory of all variables and their gradients.
    fn run(
        &mut self,
        grads: &[Option<Tensor>],
        f: impl FnOnce(&mut DeviceOptimizer<Cuda>, &[Memory]) -> Result<()>,
    ) -> Result<()> {
        let stream = self.inner.device().stream().clone();
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
        f(&mut self.inner, &memory)
    }
}

impl Drop for CudaOptimizer {
    fn drop(&mut self) {
        let device = self.inner.device();
        for at in self.workspace.memory().chain([self.clipped]) {
            // Errors in `Drop` can't be reported.
            let _ = device.free(at);
        }
    }
}

impl candle_nn::Optimizer for CudaOptimizer {
    type Config = OptimizerSpec;

    /// An optimizer with one group on the first variable's device; variables are named by their position.
    fn new(vars: Vec<Var>, spec: OptimizerSpec) -> Result<Self> {
        let first = vars.first().ok_or_else(|| Error::msg("a variable was wanted"))?;
        let mut optimizer = Self::on(first.device().as_cuda_device()?)?;
        let named = vars.into_iter().enumerate().map(|(i, var)| (i.to_string(), var));
        optimizer.add_group(spec, named)?;
        Ok(optimizer)
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step_with_extra_args(grads, &[])
    }

    /// The first group's learning rate.
    fn learning_rate(&self) -> f64 {
        self.groups().first().map_or(0.0, |g| g.lr)
    }

    /// Sets every group's learning rate.
    fn set_learning_rate(&mut self, lr: f64) {
        self.groups_mut().iter_mut().for_each(|g| g.lr = lr);
    }
}

/// The type and device address of a contiguous tensor.
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
