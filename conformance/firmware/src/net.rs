//! A network small enough for 16 KiB: two inputs, sixteen units, one output. It learns to multiply.
//!
//! It uses only + − × ÷, so that its bits too are identical everywhere.

/// Units of the hidden layer.
pub const UNITS: usize = 16;
/// Parameters of the network: for each unit two weights, a bias and an output weight, and one output bias.
pub const PARAMS: usize = 4 * UNITS + 1;
/// Steps of the training.
pub const STEPS: u64 = 300;

/// The initial parameters: small pseudo-random values.
pub fn init() -> [f32; PARAMS] {
    let mut state = 1u32;
    core::array::from_fn(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The mean loss over a grid of 25 points, and its gradient.
pub fn loss(params: &[f32; PARAMS], grad: &mut [f32; PARAMS]) -> f32 {
    grad.fill(0.0);
    let mut loss = 0.0;
    let (units, bias) = params.split_at(4 * UNITS);
    let (unit_grads, bias_grad) = grad.split_at_mut(4 * UNITS);
    for point in 0u8..25 {
        let [x, y] = [point / 5, point % 5].map(|i| f32::from(i) / 2.0 - 1.0);
        let activation = |unit: &[f32; 4]| {
            let [a, b, c, _] = *unit;
            a * x + b * y + c
        };
        let (units, _) = units.as_chunks::<4>();
        let (unit_grads, _) = unit_grads.as_chunks_mut::<4>();
        let mut out = bias.first().copied().unwrap_or(0.0);
        for unit in units {
            let h = activation(unit);
            out += unit[3] * (h / (1.0 + h.abs()));
        }
        let error = out - x * y;
        loss += error * error / 25.0;
        let d_out = 2.0 * error / 25.0;
        for (unit, grad) in units.iter().zip(unit_grads) {
            let h = activation(unit);
            let width = 1.0 + h.abs();
            let d_h = d_out * unit[3] / (width * width);
            grad[0] += d_h * x;
            grad[1] += d_h * y;
            grad[2] += d_h;
            grad[3] += d_out * (h / width);
        }
        if let Some(grad) = bias_grad.first_mut() {
            *grad += d_out;
        }
    }
    loss
}

/// Prints the losses; whether the loss fell to a hundredth.
pub fn report(params: &[f32; PARAMS], first: f32, last: f32) -> bool {
    use crate::board::print_words;
    print_words("first loss", [first.to_bits()]);
    print_words("last loss", [last.to_bits()]);
    print_words("parameters", params.iter().map(|p| p.to_bits()));
    last < first / 100.0
}
