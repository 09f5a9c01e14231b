//! Backward passes that hold the gradients of one layer at a time.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// A forward pass split into layers, so that the backward pass can run layer by layer: each
/// layer's variables are updated and their gradients freed before the next layer's are computed.
/// candle's autograd has no hooks, so the caller splits the pass; each split costs a copy of the
/// activations there. Gradients and updates have the bits of an undivided pass.
///
/// ```
/// use bitstep::{hyper::Args, registry};
/// use bitstep_candle::{Layers, Optimizer};
/// use candle_core::{Device, Tensor, Var};
/// use candle_nn::Optimizer as _;
///
/// let w = [0.5f32, 2.0].map(|x| Var::new(x, &Device::Cpu).unwrap());
/// let spec = registry::optimizer("sgd", &Args::new().with("lr", 0.1))?;
/// let mut optimizer = Optimizer::new(w.to_vec(), spec)?;
///
/// let mut layers = Layers::new();
/// let mut x = Tensor::new(3f32, &Device::Cpu)?;
/// for w in &w {
///     x = layers.run(&x, |x| x * w.as_tensor())?;
/// }
/// optimizer.begin(&[])?;
/// layers.backward(&x, |grads| optimizer.step_some(grads, &[]))?;
/// // The gradient of the first is 3 · 2, although the second was updated before it was computed.
/// assert!((w[0].to_scalar::<f32>()? - (0.5 - 0.1 * 6.0)).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Layers {
    /// Each layer's detached input, and the output of the layer before that it was taken from.
    cuts: Vec<(Var, Tensor)>,
}

impl Layers {
    /// A pass without layers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a layer on the output of the layer before.
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

    /// The backward pass, last layer first. `each` is called with the gradients of one layer, and
    /// removes those that it uses.
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
            // candle starts a backward pass from ones only, so the gradient enters as a factor,
            // detached from the layer that it was computed in.
            grads = (&x * &grad.detach())?.sum_all()?.backward()?;
        }
        each(&mut grads)
    }
}
