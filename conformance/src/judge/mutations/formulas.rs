//! Mistakes inside of a formula, for [`crate::judge::diagnose`] only: each makes the right rule compute the wrong
//! one's numbers, by arguments, gradients or state that have this effect.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    MutatedStep, Mutation, STEP_KEYS, StepOutput, decays, eps_key, has_eps, is_coupled, map,
    number, two_betas, undecayed,
};
use crate::backend::BackendError;
use crate::golden::{Case, Data, Group};
use crate::tensor::{Dtype, Tensor};

type Answer = Result<StepOutput, BackendError>;

/// Mistakes inside of a formula.
pub const FORMULAS: &[Mutation] = &[
    Mutation {
        name: "bias correction off by one",
        applies: is_adam,
        step: |s| {
            reformed(s, |f| {
                f.correction1 = 1.0 - f.betas.0.powf(f.t - 1.0);
                f.root_correction2 = (1.0 - f.betas.1.powf(f.t - 1.0)).sqrt();
            })
        },
    },
    Mutation {
        name: "epsilon inside the root",
        applies: is_adam,
        step: |s| super::eps_inside(s, true),
    },
    Mutation {
        name: "no bias correction of the first moment",
        applies: is_adam,
        step: |s| reformed(s, |f| f.correction1 = 1.0),
    },
    Mutation {
        name: "no bias correction of the second moment",
        applies: is_adam,
        step: |s| reformed(s, |f| f.root_correction2 = 1.0),
    },
    Mutation {
        name: "no root of the second moment's bias correction",
        applies: is_adam,
        step: |s| reformed(s, |f| f.root_correction2 *= f.root_correction2),
    },
    Mutation {
        name: "epsilon added before the bias correction",
        applies: |case, group| is_adam(case, group) && has_eps(case, group),
        step: |s| reformed(s, |f| f.eps /= f.root_correction2),
    },
    Mutation {
        name: "epsilon added after the bias correction",
        applies: |case, group| adds_early(&case.name) && has_eps(case, group),
        step: |s| reformed(s, |f| f.eps *= f.root_correction2),
    },
    Mutation {
        name: "beta2 for the first moment",
        applies: is_adam,
        step: |s| reformed(s, |f| f.betas.0 = f.betas.1),
    },
    Mutation {
        name: "beta2 for the first moment",
        applies: is_adam,
        step: |s| {
            reformed(s, |f| {
                f.betas.0 = f.betas.1;
                f.correction1 = f.root_correction2 * f.root_correction2;
            })
        },
    },
    Mutation {
        name: "beta1 for the second moment",
        applies: is_adam,
        step: |s| reformed(s, |f| f.betas.1 = f.betas.0),
    },
    Mutation {
        name: "beta1 for the second moment",
        applies: is_adam,
        step: |s| {
            reformed(s, |f| {
                f.betas.1 = f.betas.0;
                f.root_correction2 = f.correction1.sqrt();
            })
        },
    },
    Mutation {
        name: "bias corrections swapped",
        applies: is_adam,
        step: |s| {
            reformed(s, |f| {
                (f.correction1, f.root_correction2) =
                    (f.root_correction2 * f.root_correction2, f.correction1.sqrt());
            })
        },
    },
    Mutation {
        name: "beta1 and 1 - beta1 exchanged",
        applies: is_adam,
        step: |s| reformed(s, |f| f.betas.0 = 1.0 - f.betas.0),
    },
    Mutation {
        name: "beta2 and 1 - beta2 exchanged",
        applies: is_adam,
        step: |s| reformed(s, |f| f.betas.1 = 1.0 - f.betas.1),
    },
    Mutation {
        name: "alpha and 1 - alpha exchanged",
        applies: |case, group| case.name.starts_with("rmsprop") && number(group, "alpha").is_some(),
        step: |mut s| {
            s.set("alpha", |g| number(g, "alpha").map(|alpha| Value::from(1.0 - alpha)));
            s.answer()
        },
    },
    Mutation {
        name: "first moment started at the gradient",
        applies: |case, _| has_slot(case, "exp_avg"),
        step: moment_from_gradient,
    },
    Mutation {
        name: "amsgrad's maximum not kept",
        applies: |case, _| has_slot(case, MAXIMUM),
        step: without_maximum,
    },
    Mutation {
        name: "amsgrad's maximum not kept",
        applies: |case, _| has_slot(case, MAXIMUM),
        step: maximum_not_stored,
    },
    Mutation {
        name: "amsgrad's maximum not used",
        applies: |case, _| has_slot(case, MAXIMUM),
        step: |s| {
            let right = s.answer()?;
            let mut out = without_maximum(s)?;
            for (state, right) in out.states.iter_mut().zip(right.states) {
                state.extend(right.get_key_value(MAXIMUM).map(|(k, x)| (k.clone(), x.clone())));
            }
            Ok(out)
        },
    },
    Mutation {
        name: "amsgrad's maximum of the corrected second moment",
        applies: |case, group| has_slot(case, MAXIMUM) && is_adam(case, group),
        step: maximum_of_corrected,
    },
    Mutation {
        name: "dampening on the first step",
        applies: |case, group| has_momentum(case, group) && set(group, "dampening"),
        step: dampened_first,
    },
    Mutation {
        name: "momentum as an average: 1 - momentum times the gradient",
        applies: has_momentum,
        step: |s| {
            along(
                s,
                |_| true,
                |x| {
                    let b = x.old.map_or(x.g, |b| x.momentum * b + (1.0 - x.momentum) * x.g);
                    (if x.nesterov { x.g + x.momentum * b } else { b }, b)
                },
            )
        },
    },
    Mutation {
        name: "momentum as an average: 1 - momentum times the gradient",
        applies: has_momentum,
        step: |s| {
            along(
                s,
                |_| true,
                |x| {
                    let b = x.momentum * x.old.unwrap_or(0.0) + (1.0 - x.momentum) * x.g;
                    (if x.nesterov { x.g + x.momentum * b } else { b }, b)
                },
            )
        },
    },
    Mutation {
        name: "learning rate inside of the momentum",
        applies: has_momentum,
        step: |s| {
            along(
                s,
                |_| true,
                |x| {
                    let g = x.lr * x.g;
                    let b = x.old.map_or(g, |b| x.momentum * b + (1.0 - x.dampening) * g);
                    let d = if x.nesterov { g + x.momentum * b } else { b };
                    (d / x.lr, b)
                },
            )
        },
    },
    Mutation {
        name: "Nesterov's momentum where none is asked for",
        applies: |case, group| has_momentum(case, group) && !is_on(group, "nesterov"),
        step: |s| along(s, |g| !is_on(g, "nesterov"), |x| (x.g + x.momentum * x.new, x.new)),
    },
    Mutation {
        name: "Nesterov's momentum with the factor on the gradient",
        applies: has_nesterov,
        step: |s| along(s, |g| is_on(g, "nesterov"), |x| (x.new + x.momentum * x.g, x.new)),
    },
    Mutation {
        name: "Nesterov's momentum without the gradient",
        applies: has_nesterov,
        step: |s| along(s, |g| is_on(g, "nesterov"), |x| (x.momentum * x.new, x.new)),
    },
    Mutation {
        name: "Nesterov's momentum with the buffer before the step",
        applies: has_nesterov,
        step: |s| {
            along(
                s,
                |g| is_on(g, "nesterov"),
                |x| (x.g + x.momentum * x.old.unwrap_or(x.new), x.new),
            )
        },
    },
    Mutation {
        name: "Nesterov's momentum with the buffer in place of the gradient",
        applies: has_nesterov,
        step: |s| along(s, |g| is_on(g, "nesterov"), |x| (x.new + x.momentum * x.new, x.new)),
    },
    Mutation {
        name: "Nesterov's step kept as the buffer",
        applies: has_nesterov,
        step: |s| {
            along(
                s,
                |g| is_on(g, "nesterov"),
                |x| {
                    let d = x.g + x.momentum * x.new;
                    (d, d)
                },
            )
        },
    },
    Mutation {
        name: "update not clipped",
        applies: |_, group| clip_key(group).is_some(),
        step: |s| clipped(s, |_| f64::INFINITY),
    },
    Mutation {
        name: "update clipped after the learning rate",
        applies: |_, group| clip_key(group).is_some(),
        step: |s| clipped(s, |rate| 1.0 / rate),
    },
    Mutation {
        name: "weight decay not multiplied by the learning rate",
        applies: |case, group| decays(case, group) && case.name.ends_with("adafactor"),
        step: |s| {
            own_rates(s, |s, rate| {
                s.set("weight_decay", |g| number(g, "weight_decay").map(|wd| (wd / rate).into()));
            })
        },
    },
    Mutation {
        name: "learning rate in f32",
        applies: |_, _| true,
        step: |s| with_rate(s, |lr| f64::from(lr as f32)),
    },
    Mutation {
        name: "learning rate not updated",
        applies: |case, _| matches!(&case.data, Data::Optimizer(data) if data.lr.is_some()),
        step: |mut s| {
            s.inputs.lr = None;
            s.answer()
        },
    },
    Mutation {
        name: "arguments of a group ignored",
        applies: has_groups,
        step: |mut s| {
            let all = s.groups.iter().map(|g| g.hyper.clone()).collect::<Vec<_>>();
            for (group, own) in s.groups.iter_mut().zip(&all) {
                let given = |key: &String| s.hyper.get(key).or_else(|| all[0].get(key));
                let values = own.keys().filter_map(|k| Some((k.clone(), given(k)?.clone())));
                group.hyper = values.collect();
            }
            s.answer()
        },
    },
    Mutation {
        name: "arguments of a group ignored",
        applies: has_groups,
        step: |mut s| {
            let first = s.groups[0].hyper.clone();
            s.groups.iter_mut().for_each(|g| g.hyper = first.clone());
            s.answer()
        },
    },
    Mutation {
        name: "missing gradient taken as zero",
        applies: |case, _| misses_gradients(case),
        step: |mut s| {
            for (grad, p) in s.inputs.grads.iter_mut().zip(&s.params) {
                grad.get_or_insert_with(|| map(&p.value, |_, _| 0.0));
            }
            s.answer()
        },
    },
    Mutation {
        name: "update added, not subtracted",
        applies: |_, _| true,
        step: |s| {
            let mut out = s.answer()?;
            for i in s.with_gradient() {
                let kept = match is_coupled(&s.name) {
                    true => 1.0,
                    false => 1.0 - s.lr(i) * s.number(i, "weight_decay"),
                };
                let p = &s.params[i].value;
                out.values[i] = map(&out.values[i], |k, x| 2.0 * kept * p.get(k) - x);
            }
            Ok(out)
        },
    },
    Mutation {
        name: "computed in f32",
        applies: |case, _| case.dtype() != Dtype::F32,
        step: |s| in_type(s, Dtype::F32),
    },
];

fn set(group: &Group, key: &str) -> bool {
    number(group, key).is_some_and(|x| x != 0.0)
}

fn is_on(group: &Group, key: &str) -> bool {
    group.hyper.get(key) == Some(&Value::Bool(true))
}

fn has_slot(case: &Case, slot: &str) -> bool {
    let Data::Optimizer(data) = &case.data else { return false };
    data.params.iter().any(|p| p.state.contains_key(slot))
}

fn has_groups(case: &Case, _: &Group) -> bool {
    matches!(&case.data, Data::Optimizer(data) if data.groups.len() > 1)
}

fn misses_gradients(case: &Case) -> bool {
    let Data::Optimizer(data) = &case.data else { return false };
    data.params.iter().any(|p| p.has_grad.iter().any(|has| !has))
}

/// References that add epsilon before the bias correction.
fn adds_early(name: &str) -> bool {
    ["adamw_hf", "adam_weight_decay", "keras_adam"].contains(&name)
}

/// Whether the update is −η m / c₁ / (√v / √c₂ + ε).
fn is_adam(case: &Case, group: &Group) -> bool {
    let plain = ["adam", "adamw_torch", "adamw_torch_fused", "flash_adam", "flash_adamw"];
    let others =
        ["torchao_adam", "bnb_adam", "paged_adamw", "galore_adamw", "adamw_bnb", "adamw_torch_"];
    let name = case.name.as_str();
    let named = plain.contains(&name) || others.iter().any(|o| name.starts_with(o));
    (named || adds_early(name)) && two_betas(group).is_some()
}

/// An Adam's constants at one step.
struct Form {
    t: f64,
    betas: (f64, f64),
    correction1: f64,
    root_correction2: f64,
    eps: f64,
}

/// The answer of an Adam with other constants, through the arguments of the right one: its corrections follow from
/// its betas, so the rate and epsilon make up for the difference.
fn reformed(s: MutatedStep<'_>, f: fn(&mut Form)) -> Answer {
    let mut out = s.answer()?;
    let mut together = BTreeMap::<_, Vec<usize>>::new();
    for i in s.with_gradient() {
        let step = STEP_KEYS.iter().find_map(|k| out.states[i].get(*k)).map(|t| t.get(0));
        let group = s.groups.iter().position(|g| g.params.contains(&i));
        if let (Some(step), Some(group)) = (step, group) {
            together.entry((group, step as u64)).or_default().push(i);
        }
    }
    for ((index, step), params) in together {
        let group = &s.groups[index];
        let Some(betas) = two_betas(group) else { continue };
        let t = step as f64;
        let eps_key = eps_key(group);
        let eps = eps_key.and_then(|k| number(group, k)).unwrap_or(0.0);
        let corrections =
            |betas: (f64, f64)| (1.0 - betas.0.powf(t), (1.0 - betas.1.powf(t)).sqrt());
        let (correction1, root_correction2) = corrections(betas);
        // Where epsilon comes before the correction, the right rule divides it as well.
        let early = if adds_early(&s.name) { root_correction2 } else { 1.0 };
        let mut want = Form { t, betas, correction1, root_correction2, eps: eps / early };
        f(&mut want);
        if want.correction1 == 0.0 {
            // ∞ · m / ∞
            for i in params {
                out.values[i] = map(&out.values[i], |_, _| f64::NAN);
            }
            continue;
        }
        let (own1, own2) = corrections(want.betas);
        let early = if adds_early(&s.name) { own2 } else { 1.0 };
        let root = want.root_correction2 / own2;
        let rate = own1 / want.correction1 * root;
        let mut wrong = s.clone();
        wrong.inputs.lr = wrong.inputs.lr.map(|lr| lr * rate);
        let decoupled = !is_coupled(&s.name) || is_on(group, "decoupled_weight_decay");
        let hyper = &mut wrong.groups[index].hyper;
        let mut put = |key: &str, x: f64| {
            if hyper.get(key).is_some_and(Value::is_number) {
                hyper.insert(key.to_owned(), x.into());
            }
        };
        for key in ["lr", "learning_rate"] {
            put(key, number(group, key).unwrap_or(0.0) * rate);
        }
        if decoupled && rate != 1.0 {
            put("weight_decay", number(group, "weight_decay").unwrap_or(0.0) / rate);
        }
        if let Some(key) = eps_key {
            put(key, want.eps * root * early);
        }
        if want.betas != betas {
            put("beta1", want.betas.0);
            put("beta_1", want.betas.0);
            put("beta2", want.betas.1);
            put("beta_2", want.betas.1);
            if let Some(Value::Array(list)) = hyper.get_mut("betas") {
                let new = [want.betas.0, want.betas.1];
                list.iter_mut().zip(new).for_each(|(x, new)| *x = new.into());
            }
        }
        let wrong = wrong.answer()?;
        for i in params {
            out.values[i] = wrong.values[i].clone();
            out.states[i] = wrong.states[i].clone();
            out.evals[i] = wrong.evals[i].clone();
        }
    }
    Ok(out)
}

fn moment_from_gradient(mut s: MutatedStep<'_>) -> Answer {
    for (i, mut state) in s.initial()?.into_iter().enumerate() {
        let (Some(g), true) = (directed(&s, i), s.params[i].fresh) else { continue };
        if let Some(m) = state.get_mut("exp_avg") {
            *m = map(m, |k, _| g.get(k).copied().unwrap_or(0.0));
            (s.params[i].state, s.params[i].fresh) = (state, false);
        }
    }
    s.answer()
}

/// The slot of amsgrad's maximum.
const MAXIMUM: &str = "max_exp_avg_sq";

/// The answer from a maximum of 0: that of the second moment alone.
fn without_maximum(mut s: MutatedStep<'_>) -> Answer {
    for p in &mut s.params {
        if let Some(maximum) = p.state.get_mut(MAXIMUM) {
            *maximum = map(maximum, |_, _| 0.0);
        }
    }
    s.answer()
}

/// The maximum is used, but what is stored stays as it was.
fn maximum_not_stored(s: MutatedStep<'_>) -> Answer {
    let mut out = s.answer()?;
    for i in s.with_gradient() {
        if let Some(after) = out.states[i].get_mut(MAXIMUM) {
            let before = s.params[i].state.get(MAXIMUM);
            *after = before.cloned().unwrap_or_else(|| map(after, |_, _| 0.0));
        }
    }
    Ok(out)
}

/// max(M, v / c₂) for max(M, v) / c₂.
fn maximum_of_corrected(mut s: MutatedStep<'_>) -> Answer {
    let right = s.answer()?;
    let mut kept = BTreeMap::new();
    let initial = s.initial()?;
    for (i, initial) in s.with_gradient().into_iter().map(|i| (i, &initial[i])) {
        let state = &right.states[i];
        let step = STEP_KEYS.iter().find_map(|k| state.get(*k)).map(|t| t.get(0));
        let betas = s.group(i).and_then(two_betas);
        let (Some(v), Some(step), Some(betas)) = (state.get("exp_avg_sq"), step, betas) else {
            continue;
        };
        let correction = 1.0 - betas.1.powf(step);
        if s.params[i].fresh {
            (s.params[i].state, s.params[i].fresh) = (initial.clone(), false);
        }
        let Some(before) = s.params[i].state.get_mut(MAXIMUM) else { continue };
        let new = map(before, |k, m| m.max(v.get(k) / correction));
        *before = map(&new, |_, m| m * correction);
        kept.insert(i, new);
    }
    let mut out = s.answer()?;
    for (i, new) in kept {
        out.states[i].insert(MAXIMUM.to_owned(), new);
    }
    Ok(out)
}

fn has_momentum(case: &Case, group: &Group) -> bool {
    set(group, "momentum") && has_slot(case, BUFFER) && case.name.ends_with("sgd")
}

fn has_nesterov(case: &Case, group: &Group) -> bool {
    has_momentum(case, group) && is_on(group, "nesterov")
}

const BUFFER: &str = "momentum_buffer";

/// The gradient in the direction of descent, with a coupled decay added.
fn directed(s: &MutatedStep<'_>, i: usize) -> Option<Vec<f64>> {
    let g = s.inputs.grads.get(i)?.as_ref()?;
    let group = s.group(i)?;
    let sign = if is_on(group, "maximize") { -1.0 } else { 1.0 };
    let decoupled = !is_coupled(&s.name) || is_on(group, "decoupled_weight_decay");
    let decay = if decoupled { 0.0 } else { s.number(i, "weight_decay") };
    let p = &s.params[i].value;
    Some((0..g.len()).map(|k| sign * g.get(k) + decay * p.get(k)).collect())
}

/// What one element of momentum depends on.
struct Element {
    /// The gradient in the direction of descent, with the coupled decay.
    g: f64,
    /// The buffer before, if there is one.
    old: Option<f64>,
    /// The right buffer after.
    new: f64,
    momentum: f64,
    dampening: f64,
    lr: f64,
    nesterov: bool,
}

/// A step of −η along another direction, with another buffer, in some groups: the function gives both.
fn along(
    s: MutatedStep<'_>,
    concerns: fn(&Group) -> bool,
    f: fn(&Element) -> (f64, f64),
) -> Answer {
    let mut out = s.answer()?;
    let mut straight = if is_coupled(&s.name) { undecayed(s.clone()) } else { s.clone() };
    for (key, to) in [("momentum", 0.0.into()), ("dampening", 0.0.into())] {
        let to: Value = to;
        straight.set(key, |g| g.hyper.get(key).map(|_| to.clone()));
    }
    for key in ["nesterov", "maximize"] {
        straight.set(key, |g| g.hyper.get(key).map(|_| Value::Bool(false)));
    }
    let mut buffers = BTreeMap::new();
    for i in s.with_gradient() {
        let (Some(g), Some(group)) = (directed(&s, i), s.group(i)) else { continue };
        let Some(new) = out.states[i].get(BUFFER).filter(|_| concerns(group)) else { continue };
        let old = s.params[i].state.get(BUFFER).filter(|_| !s.params[i].fresh);
        let element = |k: usize| {
            f(&Element {
                g: g[k],
                old: old.map(|b| b.get(k)),
                new: new.get(k),
                momentum: s.number(i, "momentum"),
                dampening: s.number(i, "dampening"),
                lr: s.lr(i),
                nesterov: is_on(group, "nesterov"),
            })
        };
        let direction = s.inputs.grads[i].as_ref().map(|g| map(g, |k, _| element(k).0));
        buffers.insert(i, map(new, |k, _| element(k).1));
        straight.inputs.grads[i] = direction;
    }
    let stepped = straight.answer()?;
    for (i, buffer) in buffers {
        out.values[i] = stepped.values[i].clone();
        out.evals[i] = stepped.evals[i].clone();
        out.states[i].insert(BUFFER.to_owned(), buffer);
    }
    Ok(out)
}

fn dampened_first(s: MutatedStep<'_>) -> Answer {
    along(
        s,
        |_| true,
        |x| {
            let b = x.momentum * x.old.unwrap_or(0.0) + (1.0 - x.dampening) * x.g;
            (if x.nesterov { x.g + x.momentum * b } else { b }, b)
        },
    )
}

/// Adafactor's argument for the largest update.
fn clip_key(group: &Group) -> Option<&'static str> {
    ["clip_threshold", "d"].into_iter().find(|k| number(group, k).is_some())
}

/// Another threshold, as a factor from a parameter's own rate.
fn clipped(s: MutatedStep<'_>, factor: fn(f64) -> f64) -> Answer {
    own_rates(s, |s, rate| {
        for key in ["clip_threshold", "d"] {
            // No infinite arguments.
            let to = |x: f64| (x * factor(rate)).min(1e300);
            s.set(key, |g| number(g, key).map(|x| to(x).into()));
        }
    })
}

/// The answer with arguments that depend on the rate that Adafactor gives a parameter.
fn own_rates(s: MutatedStep<'_>, change: impl Fn(&mut MutatedStep<'_>, f64)) -> Answer {
    let mut out = s.answer()?;
    for i in s.with_gradient() {
        let Some(rate) = own_rate(&s, &out, i) else { continue };
        let mut wrong = s.clone();
        change(&mut wrong, rate);
        let wrong = wrong.answer()?;
        out.values[i] = wrong.values[i].clone();
        out.states[i] = wrong.states[i].clone();
    }
    Ok(out)
}

fn own_rate(s: &MutatedStep<'_>, right: &StepOutput, i: usize) -> Option<f64> {
    let group = s.group(i)?;
    let step = STEP_KEYS.iter().find_map(|k| right.states[i].get(*k))?.get(0);
    let p = s.params[i].value.to_f64s();
    let rms = (p.iter().map(|p| p * p).sum::<f64>() / p.len() as f64).sqrt();
    let eps2 = group.hyper.get("eps").and_then(|e| e.get(1)?.as_f64()).unwrap_or(0.0);
    let relative = 1.0 / step.sqrt();
    let rate = match clip_key(group)? {
        "d" => s.lr(i).min(relative),
        _ if is_on(group, "warmup_init") => relative.min(1e-6 * step),
        _ if is_on(group, "relative_step") => relative.min(1e-2),
        _ => s.lr(i),
    };
    let scaled = group.hyper.get("scale_parameter") != Some(&Value::Bool(false));
    Some(if scaled { rate * if rms > eps2 { rms } else { eps2 } } else { rate })
}

fn with_rate(mut s: MutatedStep<'_>, f: fn(f64) -> f64) -> Answer {
    for key in ["lr", "learning_rate"] {
        s.set(key, |g| number(g, key).map(|lr| f(lr).into()));
    }
    s.inputs.lr = s.inputs.lr.map(f);
    s.answer()
}

/// The answer of parameters, gradients and state of another type, rounded to theirs.
fn in_type(mut s: MutatedStep<'_>, dtype: Dtype) -> Answer {
    let types: Vec<Dtype> = s.params.iter().map(|p| p.value.dtype).collect();
    let convert = |x: &mut Tensor, to: Dtype| {
        let plain = [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16].contains(&x.dtype);
        if let (true, Some(new)) = (plain, Tensor::round(to, &x.shape, &x.to_f64s())) {
            *x = new;
        }
    };
    for p in &mut s.params {
        convert(&mut p.value, dtype);
        p.state.values_mut().filter(|x| !x.shape.is_empty()).for_each(|x| convert(x, dtype));
    }
    s.inputs.grads.iter_mut().flatten().for_each(|g| convert(g, dtype));
    let mut out = s.answer()?;
    for (i, to) in types.into_iter().enumerate() {
        convert(&mut out.values[i], to);
        out.states[i].values_mut().filter(|x| !x.shape.is_empty()).for_each(|x| convert(x, to));
        if let Some(x) = &mut out.evals[i] {
            convert(x, to);
        }
    }
    Ok(out)
}
