//! One `f32` step is within a few units in the last place of the paper's formula in naive `f64`.

use std::collections::BTreeMap;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::registry;
use bitstep_fuzz::{Run, Trial};

type Slots = BTreeMap<&'static str, f64>;

/// (step, parameter, gradient, slots) → next parameter.
type Formula = fn(f64, f64, f64, &Slots) -> f64;

const LR: f64 = 0.01;

fn adam(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let m = 0.9 * s["exp_avg"] + 0.1 * g;
    let v = 0.999 * s["exp_avg_sq"] + 0.001 * g * g;
    p - LR * (m / (1.0 - 0.9f64.powf(t))) / ((v / (1.0 - 0.999f64.powf(t))).sqrt() + 1e-8)
}

fn adamw(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    adam(t, p * (1.0 - LR * 0.1), g, s)
}

fn amsgrad(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let m = 0.9 * s["exp_avg"] + 0.1 * g;
    let v = (0.999 * s["exp_avg_sq"] + 0.001 * g * g).max(s["max_exp_avg_sq"]);
    p - LR * (m / (1.0 - 0.9f64.powf(t))) / ((v / (1.0 - 0.999f64.powf(t))).sqrt() + 1e-8)
}

fn sgd(_: f64, p: f64, g: f64, _: &Slots) -> f64 {
    p - LR * (g + 0.1 * p)
}

fn momentum(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let b = if t == 1.0 { g } else { 0.9 * s["momentum_buffer"] + g };
    p - LR * (g + 0.9 * b)
}

fn adagrad(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    p - LR / (1.0 + (t - 1.0) * 0.1) * g / ((s["sum"] + g * g).sqrt() + 1e-10)
}

fn rmsprop(_: f64, p: f64, g: f64, s: &Slots) -> f64 {
    p - LR * g / ((0.99 * s["square_avg"] + 0.01 * g * g).sqrt() + 1e-8)
}

fn adadelta(_: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let v = 0.9 * s["square_avg"] + 0.1 * g * g;
    p - LR * (s["acc_delta"] + 1e-6).sqrt() / (v + 1e-6).sqrt() * g
}

fn adamax(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let m = 0.9 * s["exp_avg"] + 0.1 * g;
    let u = (0.999 * s["exp_inf"]).max(g.abs() + 1e-8);
    p - LR / (1.0 - 0.9f64.powf(t)) * m / u
}

fn nadam(t: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let mu = |t: f64| 0.9 * (1.0 - 0.5 * 0.96f64.powf(t * 0.004));
    let product = |t: f64| (1..=t as u32).map(|k| mu(k.into())).product::<f64>();
    let m = 0.9 * s["exp_avg"] + 0.1 * g;
    let v = (0.999 * s["exp_avg_sq"] + 0.001 * g * g) / (1.0 - 0.999f64.powf(t));
    let ahead = mu(t + 1.0) / (1.0 - product(t + 1.0)) * m;
    p - LR * (ahead + (1.0 - mu(t)) / (1.0 - product(t)) * g) / (v.sqrt() + 1e-8)
}

fn lion(_: f64, p: f64, g: f64, s: &Slots) -> f64 {
    let c = 0.9 * s["state1"] + 0.1 * g;
    p * (1.0 - LR * 0.1) - LR * c.signum()
}

const FORMULAS: &[(&str, &str, Formula)] = &[
    ("adadelta", "", adadelta),
    ("adagrad", "lr_decay=0.1", adagrad),
    ("adam", "", adam),
    ("adam", "amsgrad=True", amsgrad),
    ("adamax", "", adamax),
    ("adamw_torch", "weight_decay=0.1", adamw),
    ("adamw_torch_fused", "weight_decay=0.1", adamw),
    ("lion_32bit", "weight_decay=0.1", lion),
    ("nadam", "", nadam),
    ("rmsprop", "", rmsprop),
    ("sgd", "weight_decay=0.1", sgd),
    ("sgd", "momentum=0.9, nesterov=True", momentum),
];

/// The spacing of `f32` at x.
fn gap(x: f64) -> f64 {
    let x = (x.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

/// The largest error against a formula, in units in the last place of the largest of: the parameter before and
/// after, and the learning rate, which is about the size of the update.
fn worst(name: &'static str, args: &str, formula: Formula) -> f64 {
    let mut seed = 1u64;
    let mut number = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 40) as f32 / 4_194_304.0 - 2.0
    };
    let mut bits = |n: usize| (0..n).map(|_| number().to_bits().into()).collect::<Vec<u64>>();
    let args = Args::parse(args).expect("arguments").with("lr", LR);
    let (n, steps) = (200, 25);
    let trial = Trial {
        name,
        spec: registry::optimizer(name, &args).expect("valid arguments"),
        tuned: true,
        dtype: Dtype::F32,
        shape: vec![n],
        before: 0,
        init: bits(n),
        grads: (0..steps).map(|_| Some(bits(n))).collect(),
        lrs: vec![LR; steps],
        extra: vec![],
    };
    let mut run = Run::new(&trial);
    let mut worst: f64 = 0.0;
    for t in 0..steps {
        let (before, slots) = (run.numbers(), run.slots().collect::<Vec<_>>());
        run.steps(&trial, t..t + 1);
        let grads = trial.grads[t].as_ref().expect("a gradient");
        for (i, got) in run.numbers().into_iter().enumerate() {
            let held = slots.iter().filter(|s| !s.1.is_empty());
            let own: Slots = held.map(|(name, slot)| (*name, slot[i])).collect();
            let g = f64::from(f32::from_bits(grads[i] as u32));
            let want = formula((t + 1) as f64, before[i], g, &own);
            worst = worst.max((got - want).abs() / gap(want.abs().max(before[i].abs()).max(LR)));
        }
    }
    worst
}

#[test]
fn one_step_in_f32_is_near_the_naive_formula() {
    for (name, args, formula) in FORMULAS {
        let worst = worst(name, args, *formula);
        assert!(worst <= 4.0, "{name} {args}: {worst} ULP");
    }
}

#[test]
fn wrong_formula_is_far_off() {
    // ε inside the root, and decay coupled into the gradient.
    let inside: Formula =
        |_, p, g, s| p - LR * g / (0.99 * s["square_avg"] + 0.01 * g * g + 1e-8).sqrt();
    let coupled: Formula = |t, p, g, s| adam(t, p, g + 0.1 * p, s);
    assert!(worst("rmsprop", "", inside) > 4.0);
    assert!(worst("adamw_torch", "weight_decay=0.1", coupled) > 4.0);
}
