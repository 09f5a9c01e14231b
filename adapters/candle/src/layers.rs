//! Backward passes that hold the gradients of one layer at a time.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// A forward pass cut between its layers, so that the backward pass can be made layer by layer:
/// each layer's variables are updated, and their gradients freed, before the next layer's come
/// about. candle's autograd knows no hooks, so the cuts are the caller's to make; what a cut
/// costs is a copy of the activations there. Gradients, and so updates, have the same bits.
///
/// ```
/// use bitstep::{hyper::Args, registry};
/// use bitstep_candle::{Layers, Optimizer};
/// use candle_core::{DType, Device, UpdateBuffers, Var};
/// use candle_nn::Optimizer as _;
///
/// let w = [0.5f32, 2.0].map(|x| Var::new(x, &Device::Cpu).unwrap());
/// let recipe = registry::optimizer("sgd", &Args::new().with("lr", 0.1))?;
/// let mut optimizer = Optimizer::new(w.to_vec(), recipe)?;
///
/// let mut layers = Layers::new();
/// let mut x = UpdateBuffers::new(3f32, &Device::Cpu)?;
/// for w in &w {
///     x = layers.run(&x, |x| x * w.as_tensor())?;
/// }
/// optimizer.begin(&[])?;
/// layers.backward(&x, |grads| optimizer.step_some(grads, &[]))?;
/// // The gradient of the first is 3 · 2, although the second has moved before it came about.
/// assert!((w[0].to_scalar::<f32>()? - (0.5 - 0.1 * 6.0)).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Layers {
    /// What went into a layer, and where it came from.
    cuts: Vec<(Var, Tensor)>,
}

impl Layers {
    /// No layers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a layer on what the layer before gave.
    ///
    /// # Errors
    /// Those of candle.
    pub fn run(
        &mut self,
        x: &Tensor,
        layer: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let input = Var::from_tensor(&x.detach())?;
        let out = layer(&input)?;
        self.cuts.push((input, x.clone()));
        Ok(out)
    }

    /// The backward pass, last layer first. `each` is given the gradients of one layer, and
    /// takes out what it wants.
    ///
    /// # Errors
    /// Those of candle and of `each`.
    pub fn backward(
        mut self,
        loss: &Tensor,
        mut each: impl FnMut(&mut GradStore) -> Result<()>,
    ) -> Result<()> {
        let mut grads = loss.backward()?;
        while let Some((input, x)) = self.cuts.pop() {
            let grad = grads.remove(&input);
            each(&mut grads)?;
            let Some(grad) = grad else { return Ok(()) };
            drop(grads);
            // candle begins a backward pass with ones only. The gradient still remembers the
            // layer that it came through.
            grads = (&x * &grad.detach())?.sum_all()?.backward()?;
        }
        each(&mut grads)
    }
}
