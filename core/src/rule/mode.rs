//! Rules that train one set of parameters and evaluate another.
//!
//! A schedule-free optimizer takes gradients at y and is evaluated at x, which it
//! does not store: [`Rule::convert_element`] converts one into the other in place. Code that
//! steps slices uses [`evaluate`], which passes x to a closure, then restores y, so that
//! a step never sees x; [`crate::optimizer::Optimizer`] remembers its mode and refuses to step
//! in evaluation mode.

use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, StoredFloat};
use crate::rule::Array;
use crate::rule::Rule;

pub use crate::rule::Mode;

/// The weight of a rule's conversion; `None` if there is nothing to convert.
pub(crate) fn conversion<R: Rule>(rule: &R, to: Mode) -> Result<Option<f64>, Error> {
    let weight = rule.eval_weight(to);
    if weight.is_some_and(|w| !w.is_finite()) {
        return Err(Error::InvalidArgument {
            argument: "mode",
            expected: "a momentum above 0 to evaluate",
        });
    }
    Ok(weight)
}

/// Converts a parameter to mode `to`, in place. Don't call it before the first step:
/// the parameter is the same in both modes then.
///
/// # Errors
/// A slice of the wrong length, or a configuration that can't be evaluated. Nothing is written then.
pub fn convert<R: Rule, C: ComputeFloat, P: StoredFloat, S: StoredFloat>(
    rule: &R,
    to: Mode,
    param: &mut [P],
    slots: &R::Slots<&[S]>,
) -> Result<(), Error> {
    let Some(weight) = conversion(rule, to)? else { return Ok(()) };
    let active = rule.active_slots(C::DTYPE);
    let slots = slots.as_ref();
    for (k, slot) in slots.iter().enumerate() {
        let name = R::SLOTS.get(k).copied().unwrap_or("state");
        ensure_len(name, slot.len(), if active >> k & 1 == 1 { param.len() } else { 0 })?;
    }
    for (i, p) in param.iter_mut().enumerate() {
        let state = R::Slots::<C>::from_fn(|k| {
            slots.get(k).and_then(|s| s.get(i)).map_or(C::ZERO, |&x| C::load(x))
        });
        *p = R::convert_element(C::scalar(weight), C::load(*p), state).store();
    }
    Ok(())
}

/// Calls `f` with the parameter converted for evaluation, then converts it back for
/// training. Both conversions round, as in the reference. [`Optimize::evaluate`](crate::state::Optimize::evaluate),
/// with an example, does so for a rule with its state.
///
/// # Errors
/// Those of [`convert`].
pub fn evaluate<R: Rule, C: ComputeFloat, P: StoredFloat, S: StoredFloat, T>(
    rule: &R,
    param: &mut [P],
    slots: R::Slots<&[S]>,
    f: impl FnOnce(&[P]) -> T,
) -> Result<T, Error> {
    conversion(rule, Mode::Train)?;
    convert::<R, C, P, S>(rule, Mode::Eval, param, &slots)?;
    let result = f(param);
    convert::<R, C, P, S>(rule, Mode::Train, param, &slots)?;
    Ok(result)
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use crate::float::Dtype;
    use crate::hyper::Args;
    use crate::optim::{AdamW, ScheduleFreeAdamW, ScheduleFreeSgd};
    use crate::optimizer::{Optimizer, Param};
    use crate::registry::{OptimizerEntry, entries, optimizer_of};
    use crate::storage::{Data, DataMut};

    static NAMES: &[OptimizerEntry] = &[
        entries::fusible::<AdamW>("adamw_torch"),
        entries::eager::<ScheduleFreeAdamW>("schedule_free_adamw"),
        entries::eager::<ScheduleFreeSgd>("schedule_free_sgd"),
    ];

    fn optimizer(name: &str, args: &str) -> Optimizer {
        let mut optimizer = Optimizer::empty();
        let spec = optimizer_of(NAMES, name, &Args::parse(args).unwrap()).unwrap();
        let group = optimizer.add_group(spec).unwrap();
        optimizer.add_param_to(group, &[1], Dtype::F64).unwrap();
        optimizer
    }

    fn step(optimizer: &mut Optimizer, value: &mut [f64], grad: &[f64]) -> Result<(), Error> {
        let value = DataMut::F64(value);
        optimizer.step_all(&mut [Param { value, grad: Some(Data::F64(grad)) }], &[])
    }

    #[test]
    fn step_while_evaluating_is_refused_and_writes_nothing() {
        let mut o = optimizer("schedule_free_sgd", "lr=0.5, momentum=0.5");
        let mut y = [1.0];
        for _ in 0..2 {
            step(&mut o, &mut y, &[1.0]).unwrap();
        }
        assert_eq!(y, [0.125]);
        o.eval(&mut [DataMut::F64(&mut y)]).unwrap();
        assert_eq!((y, o.mode()), ([0.25], Mode::Eval)); // y = (x + z) / 2 with z = 0
        assert!(matches!(
            step(&mut o, &mut y, &[1.0]),
            Err(Error::InvalidArgument { argument: "mode", .. })
        ));
        o.eval(&mut [DataMut::F64(&mut y)]).unwrap();
        assert_eq!((y, o.groups()[0].steps), ([0.25], 2));
        o.train(&mut [DataMut::F64(&mut y)]).unwrap();
        assert_eq!(y, [0.125]);
        assert!(step(&mut o, &mut y, &[1.0]).is_ok());
    }

    #[test]
    fn eval_before_the_first_step_or_with_one_set_of_parameters_changes_nothing() {
        let (mut free, mut plain) =
            (optimizer("schedule_free_sgd", ""), optimizer("adamw_torch", ""));
        let mut x = [3.0];
        free.eval(&mut [DataMut::F64(&mut x)]).unwrap();
        assert_eq!(x, [3.0]);
        step(&mut plain, &mut x, &[1.0]).unwrap();
        let before = x;
        plain.eval(&mut [DataMut::F64(&mut x)]).unwrap();
        assert_eq!(x, before);
        assert!(step(&mut plain, &mut x, &[1.0]).is_err());
    }

    #[test]
    fn eval_without_momentum_is_an_error_and_training_goes_on() {
        let mut o = Optimizer::empty();
        let args = Args::new().with("betas", [0.0, 0.5]);
        let spec = optimizer_of(NAMES, "schedule_free_adamw", &args).unwrap();
        let group = o.add_group(spec).unwrap();
        o.add_param_to(group, &[1], Dtype::F64).unwrap();
        let mut y = [1.0];
        step(&mut o, &mut y, &[1.0]).unwrap();
        let before = y;
        assert!(o.eval(&mut [DataMut::F64(&mut y)]).is_err());
        assert_eq!((y, o.mode()), (before, Mode::Train));
        assert!(step(&mut o, &mut y, &[1.0]).is_ok());
    }
}
