//! Measures the size and cost of AdamW with 24-bit weights and 8-bit moments in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep::Error;
use bitstep::optim::FlashAdamW;
use bitstep::rule::{Rule, ScalarState, StepContext};
use bitstep::rule::{UpdateBuffers, step_buffered};
use bitstep::storage::{BlockQuantized, Companded, Data, DataMut, SplitFloat};
use bitstep_firmware::size::{MOST, report};
use core::hint::black_box;
use half::{bf16, f16};

const GROUP: usize = 32;

/// Everything that is stored for a parameter and its state, except the 16-bit part of the weights.
#[derive(Default)]
struct State {
    error_bits: [[i8; GROUP]; MOST / GROUP],
    codes: [[[u8; GROUP]; MOST / GROUP]; 2],
    scales: [[f16; MOST / GROUP]; 2],
}

#[inline(never)]
fn measured(
    at: &StepContext<'_>,
    scalars: &mut ScalarState,
    param: &mut [bf16],
    grad: &[f32],
    state: &mut State,
) -> Result<(), Error> {
    let n = param.len();
    let [codes1, codes2] = &mut state.codes;
    let [scales1, scales2] = &mut state.scales;
    let codes = [codes1, codes2].map(|c| c.as_flattened_mut().get_mut(..n).unwrap_or_default());
    let scales = [scales1, scales2].map(|s| s.get_mut(..n.div_ceil(GROUP)).unwrap_or_default());
    let error_bits = state.error_bits.as_flattened_mut().get_mut(..n).unwrap_or_default();
    let mut weights = SplitFloat::new(param, error_bits)?;
    let ([codes1, codes2], [scales1, scales2]) = (codes, scales);
    let mut exp_avg = BlockQuantized::new(Companded::Momentum, n, codes1, scales1)?;
    let mut exp_avg_sq = BlockQuantized::new(Companded::Variance, n, codes2, scales2)?;
    let tensor = UpdateBuffers {
        shape: &[n],
        param: DataMut::Encoded(&mut weights),
        grad: Data::F32(grad),
        slots: &mut [DataMut::Encoded(&mut exp_avg), DataMut::Encoded(&mut exp_avg_sq)],
        scratch: DataMut::F32(&mut []),
    };
    step_buffered(&FlashAdamW::DEFAULT, at, scalars, tensor, &mut [[0.0f32; GROUP]; 4])
}

fn run() -> bool {
    let mut state = State::default();
    let mut scalars = FlashAdamW::DEFAULT.scalars();
    let (mut param, grad) = ([bf16::ONE; MOST], black_box([0.5f32; MOST]));
    report(size_of::<State>(), |t, n| {
        let n = black_box(n);
        let (Some(param), Some(grad)) = (param.get_mut(..n), grad.get(..n)) else { return false };
        measured(&StepContext::new(t, black_box(1e-3)), &mut scalars, param, grad, &mut state)
            .is_ok()
    })
}
bitstep_firmware::firmware!(run);
