//! Trains a network with AdamW and a cosine schedule.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep::prelude::*;
use bitstep::schedule::Cosine;
use bitstep_firmware::net::{PARAMS, STEPS, init, loss, report};

bitstep_firmware::firmware!(train);

const OPT: AdamW = AdamW { lr: 0.05, ..AdamW::DEFAULT };
const COSINE: Cosine =
    Cosine { num_warmup_steps: 20, num_training_steps: STEPS, ..Cosine::DEFAULT };

fn train() -> bool {
    run().unwrap_or(false)
}

fn run() -> Result<bool, Error> {
    let (mut params, mut grad) = (init(), [0.0; PARAMS]);
    let mut state = State::new(&OPT, PARAMS, [0.0; 2 * PARAMS])?;
    let first = loss(&params, &mut grad);
    for _ in 0..STEPS {
        loss(&params, &mut grad);
        let lr = COSINE.lr(OPT.lr, state.steps());
        OPT.step(&mut state, lr, &mut params, &grad)?;
    }
    let last = loss(&params, &mut grad);
    Ok(report(&params, first, last))
}
