//! The training of `train` in less memory: 24-bit weights, 8-bit moments.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep::prelude::*;
use bitstep::rule::{UpdateBuffers, step_buffered};
use bitstep::schedule::Cosine;
use bitstep::storage::{BlockQuantized, Companded, SplitFloat, Storage};
use bitstep_firmware::net::{PARAMS, STEPS, init, loss, report};
use half::{bf16, f16};

/// Elements that share a scale.
const GROUP: usize = 32;
const GROUPS: usize = PARAMS.div_ceil(GROUP);

bitstep_firmware::firmware!(train);

// Small averages in a group with large ones are stored as 0: with the default of 1e-8 such a
// weight may be moved by a thousand times the rate.
const OPT: FlashAdamW = FlashAdamW { lr: 0.05, eps: 1e-4, ..FlashAdamW::DEFAULT };
const COSINE: Cosine =
    Cosine { num_warmup_steps: 20, num_training_steps: STEPS, ..Cosine::DEFAULT };

fn train() -> bool {
    run().unwrap_or(false)
}

fn run() -> Result<bool, bitstep::Error> {
    let (mut narrow, mut error_bits) = ([bf16::ZERO; PARAMS], [0i8; PARAMS]);
    let (mut codes, mut scales) = ([[0u8; PARAMS]; 2], [[f16::ZERO; GROUPS]; 2]);
    let [codes1, codes2] = &mut codes;
    let [scales1, scales2] = &mut scales;
    let mut weights = SplitFloat::new(&mut narrow, &mut error_bits)?;
    let mut exp_avg = BlockQuantized::new(Companded::Momentum, PARAMS, codes1, scales1)?;
    let mut exp_avg_sq = BlockQuantized::new(Companded::Variance, PARAMS, codes2, scales2)?;

    // The weights decoded from 24 bits; a device may decode them unit by unit instead.
    let (mut params, mut grad) = (init(), [0.0; PARAMS]);
    weights.store(0, &params);
    let mut scalars = OPT.scalars();
    weights.load(0, &mut params);
    let first = loss(&params, &mut grad);
    for t in 1..=STEPS {
        loss(&params, &mut grad);
        let tensor = UpdateBuffers {
            shape: &[PARAMS],
            param: DataMut::Encoded(&mut weights),
            grad: Data::F32(&grad),
            slots: &mut [DataMut::Encoded(&mut exp_avg), DataMut::Encoded(&mut exp_avg_sq)],
            scratch: DataMut::F32(&mut []),
        };
        let at = StepContext::new(t, COSINE.lr(OPT.lr, t - 1)); // the rate after t − 1 updates
        step_buffered(&OPT, &at, &mut scalars, tensor, &mut [[0.0f32; GROUP]; 4])?;
        weights.load(0, &mut params);
    }
    let last = loss(&params, &mut grad);
    Ok(report(&params, first, last))
}
