//! What a firmware with clipping by global norm weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep::gradient::clip_grad_norm;
use bitstep_firmware::size::{MOST, report};
use core::hint::black_box;

#[inline(never)]
fn measured(grads: &mut [&mut [f32]], max_norm: f64) -> f64 {
    clip_grad_norm(grads, max_norm)
}

fn run() -> bool {
    let mut grad = [0.5f32; MOST];
    report(0, |_, n| {
        let n = black_box(n);
        let (weights, bias) = grad.split_at_mut(n / 2);
        let bias = bias.get_mut(..n - n / 2).unwrap_or_default();
        measured(&mut [weights, bias], black_box(1.0)).is_finite()
    })
}
bitstep_firmware::firmware!(run);
