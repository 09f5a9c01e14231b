//! What a firmware with one optimizer weighs and costs. The figures are read by .ci/firmware.

use crate::board::{Stopwatch, print_words, stack_used};

/// The most numbers that are stepped.
pub const MOST: usize = 192;

/// Prints what `step` costs: step number t of a tensor of n numbers. `state`: its bytes for [`MOST`] numbers.
pub fn report(state: usize, mut step: impl FnMut(u64, usize) -> bool) -> bool {
    print_words("state", [(8 * state / MOST) as u32]);
    let mut ok = true;
    let mut cost = [0; 2];
    for (n, cost) in [0, MOST].into_iter().zip(&mut cost) {
        let watch = Stopwatch::start();
        for t in 1..=4 {
            ok &= step(t, n);
        }
        *cost = watch.instructions() / 4;
    }
    print_words("instructions", cost);
    print_words("stack", [stack_used(|| ok &= step(5, MOST))]);
    ok
}

/// A firmware that steps slices with `$rule` of type `$type`, of whose slots `$slots` are active: `rule::step` alone.
#[macro_export]
macro_rules! measure {
    ($type:ty, $rule:expr, $slots:expr) => {
        use bitstep::rule::{Rule, ScalarState, StepContext, step};
        use bitstep_firmware::size::{MOST, report};
        use core::hint::black_box;

        #[inline(never)]
        fn measured(
            at: &StepContext<'_>,
            scalars: &mut ScalarState,
            param: &mut [f32],
            grad: &[f32],
            slots: <$type as Rule>::Slots<&mut [f32]>,
        ) -> bool {
            // A constant configuration, as a firmware has it: the branches of others are not compiled.
            let rule: $type = $rule;
            step::<_, f32, _, _, _>(&rule, at, scalars, param, grad, slots).is_ok()
        }

        fn run() -> bool {
            let rule: $type = $rule;
            let mut state = [[0.0f32; MOST]; $slots];
            let mut scalars = rule.scalars();
            let (mut param, grad) = ([1.0f32; MOST], black_box([0.5f32; MOST]));
            report(size_of_val(&state), |t, n| {
                let n = black_box(n);
                let mut views = state.iter_mut();
                let slots =
                    <<$type as Rule>::Slots<&mut [f32]> as bitstep::rule::Array<_>>::from_fn(
                        |_| views.next().and_then(|s| s.get_mut(..n)).unwrap_or_default(),
                    );
                let (Some(param), Some(grad)) = (param.get_mut(..n), grad.get(..n)) else {
                    return false;
                };
                measured(&StepContext::new(t, black_box(1e-3)), &mut scalars, param, grad, slots)
            })
        }
        $crate::firmware!(run);
    };
}

/// A firmware that steps a `State` with the constant `$rule` of type `$type`, of whose slots `$slots` are active.
#[macro_export]
macro_rules! measure_state {
    ($type:ty, $rule:expr, $slots:expr) => {
        use bitstep::prelude::*;
        use bitstep_firmware::size::{MOST, report};
        use core::hint::black_box;

        // A constant configuration, as a firmware has it: the branches of others are not compiled.
        const RULE: $type = $rule;

        #[inline(never)]
        fn measured(
            state: &mut State<$type, &mut [f32]>,
            lr: f64,
            param: &mut [f32],
            grad: &[f32],
        ) -> bool {
            RULE.step(state, lr, param, grad).is_ok()
        }

        fn run() -> bool {
            let mut memory = [0.0f32; $slots * MOST];
            let (mut param, grad) = ([1.0f32; MOST], black_box([0.5f32; MOST]));
            let bytes = size_of_val(&memory);
            let states =
                (State::new(&RULE, 0, &mut [][..]), State::new(&RULE, MOST, &mut memory[..]));
            let (Ok(mut none), Ok(mut all)) = states else { return false };
            report(bytes, |_, n| {
                let n = black_box(n);
                let (Some(param), Some(grad)) = (param.get_mut(..n), grad.get(..n)) else {
                    return false;
                };
                let state = if n == 0 { &mut none } else { &mut all };
                measured(state, black_box(1e-3), param, grad)
            })
        }
        $crate::firmware!(run);
    };
}
