//! A step of anybody's rule in bounded arithmetic, in `f32` and in `f64`.

use bitstep::Error;
use bitstep::float::Dtype;
use bitstep::optimizer::{Buffer, Optimizer};
use bitstep::rule::{Rule, ScalarState};

use super::follow::{Held, Task};
use super::number::with_constants_in;
use super::{host, plain};

/// For the parameter, then for each slot, its elements after a step, each with how far apart two correct ones may be.
pub(crate) type Stepped = Vec<Vec<(f64, f64)>>;

/// The next step of an optimizer's only parameter, in `f32` and, from the same numbers, in `f64`.
///
/// # Errors
/// Those of the step.
pub(crate) fn of_rule<R: Rule>(
    own: &R,
    optimizer: &Optimizer,
    value: &Buffer,
    grad: &Buffer,
) -> Result<[Stepped; 2], Error> {
    let mut both = [Stepped::new(), Stepped::new()];
    for (compute, to) in [Dtype::F32, Dtype::F64].into_iter().zip(&mut both) {
        let mut optimizer = optimizer.clone();
        let dtype = |buffer: &Buffer| buffer.data().map(|data| data.dtype());
        let types = [dtype(value).zip(dtype(grad)).map(|(value, grad)| [value, grad])];
        let grads: Vec<_> = grad.data().into_iter().collect();
        let steps =
            optimizer.prepare_all(&types, &[], |rule, scale| rule.grad_norm(&grads, scale))?;
        for (_, mut prepared) in steps {
            if prepared.step.is_first {
                host::start(&mut prepared, value);
            }
            let held = |values| Held { values, errors: &[] };
            let slots: Vec<_> = prepared.slots.iter().map(held).collect();
            let task = &mut Task {
                compute,
                step: prepared.step,
                scalars: prepared.scalars.get(),
                param: held(value),
                grad: held(grad),
                slots: &slots,
                norm_error: 0.0,
                scalar_errors: &mut ScalarState::default(),
                full: None,
            };
            // Constants of `f32` are not those of `f64`.
            let answers = with_constants_in(compute, || plain::elements(own, task));
            let pairs = answers
                .into_iter()
                .map(|all| all.into_iter().map(|x| (x.value, x.tolerance)).collect());
            *to = pairs.collect();
        }
    }
    Ok(both)
}
