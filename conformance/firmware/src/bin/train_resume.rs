//! The training of `train`, saved to flash and resumed after each of many resets.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep::prelude::*;
use bitstep::schedule::Cosine;
use bitstep_firmware::net::{PARAMS, STEPS, init, loss, report};

bitstep_firmware::firmware!(train);

const OPT: AdamW = AdamW { lr: 0.05, ..AdamW::DEFAULT };
const COSINE: Cosine =
    Cosine { num_warmup_steps: 20, num_training_steps: STEPS, ..Cosine::DEFAULT };

/// Updates between two resets.
const AWAKE: u64 = 50;

/// Simulates a page of flash, which alone survives a reset. Erased flash is all ones.
struct Flash([u8; 1024]);

/// Runs the firmware from one reset to the next; returns the total number of updates.
fn awake(flash: &mut Flash) -> Result<u64, Error> {
    let (mut params, mut grad) = (init(), [0.0; PARAMS]);
    let mut state = State::new(&OPT, PARAMS, [0.0; 2 * PARAMS])?;
    let page = flash.0.get_mut(..state.saved_len()).unwrap_or_default();
    if page.iter().any(|&byte| byte != 0xff) {
        state.load(&mut params, page)?;
    }
    for _ in state.steps()..STEPS.min(state.steps() + AWAKE) {
        loss(&params, &mut grad);
        let lr = COSINE.lr(OPT.lr, state.steps());
        OPT.step(&mut state, lr, &mut params, &grad)?;
    }
    state.save(&params, page)?;
    Ok(state.steps())
}

/// The parameters on the page.
fn saved(flash: &Flash) -> Result<[f32; PARAMS], Error> {
    let mut params = [0.0; PARAMS];
    let mut state = State::new(&OPT, PARAMS, [0.0; 2 * PARAMS])?;
    state.load(&mut params, flash.0.get(..state.saved_len()).unwrap_or_default())?;
    Ok(params)
}

fn train() -> bool {
    let (mut flash, mut grad) = (Flash([0xff; 1024]), [0.0; PARAMS]);
    let first = loss(&init(), &mut grad);
    while let Ok(steps) = awake(&mut flash) {
        if steps == STEPS {
            let Ok(params) = saved(&flash) else { return false };
            let last = loss(&params, &mut grad);
            // A page whose write was interrupted by a power loss is refused.
            flash.0.iter_mut().skip(500).for_each(|byte| *byte = 0xff);
            return report(&params, first, last) && saved(&flash).is_err();
        }
    }
    false
}
