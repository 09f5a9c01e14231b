//! Trains a network with AdamW along a cosine.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep::optim::AdamW;
use bitstep::rule::{Rule, StepContext, step};
use bitstep::schedule::{Cosine, Schedule};
use bitstep_firmware::net::{PARAMS, STEPS, init, loss, report};

bitstep_firmware::firmware!(train);

fn train() -> bool {
    let rule = AdamW { lr: 0.05, ..AdamW::default() };
    let cosine = Cosine { num_warmup_steps: 20, num_training_steps: STEPS, ..Cosine::default() };
    let (mut params, mut grad) = (init(), [0.0; PARAMS]);
    let (mut exp_avg, mut exp_avg_sq) = ([0.0f32; PARAMS], [0.0f32; PARAMS]);
    let mut scalars = rule.scalars();
    let first = loss(&params, &mut grad);
    for t in 1..=STEPS {
        loss(&params, &mut grad);
        let at = StepContext::new(t, cosine.lr(rule.lr, t));
        let slots = [&mut exp_avg[..], &mut exp_avg_sq, &mut []];
        if step::<_, f32, _, _, _>(&rule, &at, &mut scalars, &mut params, &grad, slots).is_err() {
            return false;
        }
    }
    let last = loss(&params, &mut grad);
    report(&params, first, last)
}
