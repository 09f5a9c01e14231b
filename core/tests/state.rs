//! `State` agrees with an `Optimizer` of one parameter, and survives saving and loading.

use bitstep::Error;
use bitstep::float::EagerFloat;
use bitstep::hyper::Args;
use bitstep::optim::*;
use bitstep::optimizer::{Optimizer, OptimizerSpec, Param};
use bitstep::rule::ComputePolicy;
use bitstep::rule::Rule;
use bitstep::schedule;
use bitstep::state::{Optimize, State};
use bitstep::storage::Plain;
use half::{bf16, f16};

const N: usize = 37;

fn values<S: Plain>(seed: u64) -> [S; N] {
    std::array::from_fn(|i| {
        let bits = ((seed << 32) | (i as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        S::from_f64(f64::from(bits as i32) / f64::from(i32::MAX))
    })
}

/// Compares `State` and `Optimizer` over six steps; after three, `State` is saved and loaded into other memory.
fn agrees<R: Rule + Default, S: EagerFloat + Plain>(rule: R) {
    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(OptimizerSpec::new(rule, ComputePolicy::Fused)).unwrap();
    optimizer.add_param_to(group, &[N], S::DTYPE).unwrap();
    let size = State::<R, Vec<S>>::memory_len(&rule, N);
    let (mut memory, mut later) = (vec![S::from_f32(1.0); size], vec![S::from_f32(1.0); size]);
    let (mut ours, mut theirs) = (values::<S>(0), values::<S>(0));
    let mut state = State::new(&rule, N, &mut memory).unwrap();
    let mut saved = Vec::new();
    for t in 1..=6 {
        let grad = values::<S>(t);
        let lr = 0.01 * t as f64;
        rule.step(&mut state, lr, &mut ours, &grad).unwrap();
        optimizer.groups_mut()[0].lr = lr;
        let (value, grad) = (S::data_mut(&mut theirs), Some(S::data(&grad)));
        optimizer.step_all(&mut [Param { value, grad }], &[]).unwrap();
        assert_eq!(S::data(&ours).bytes(), S::data(&theirs).bytes(), "{}, {t}", R::ID);
        saved = vec![0; state.saved_len()];
        state.save(&ours, &mut saved).unwrap();
        if t == 3 {
            break;
        }
    }
    let mut state = State::new(&rule, N, &mut later).unwrap();
    let before = state.slots().as_ref().concat();
    let kept = std::mem::replace(&mut ours, [S::from_f32(1.0); N]);
    for bit in 0..8 * saved.len() {
        saved[bit / 8] ^= 1 << (bit % 8);
        let refused = state.load(&mut ours, &saved).unwrap_err();
        assert!(refused.is_saved(), "{}, {bit}: {refused}", R::ID);
        saved[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..saved.len() {
        assert!(state.load(&mut ours, &saved[..len]).unwrap_err().is_saved(), "{}, {len}", R::ID);
    }
    assert_eq!((state.steps(), state.slots().as_ref().concat()), (0, before));
    assert_eq!(ours, [S::from_f32(1.0); N]);
    state.load(&mut ours, &saved).unwrap();
    assert_eq!(ours, kept);
    for t in 4..=6 {
        let grad = values::<S>(t);
        let lr = 0.01 * t as f64;
        rule.step(&mut state, lr, &mut ours, &grad).unwrap();
        optimizer.groups_mut()[0].lr = lr;
        let (value, grad) = (S::data_mut(&mut theirs), Some(S::data(&grad)));
        optimizer.step_all(&mut [Param { value, grad }], &[]).unwrap();
        assert_eq!(S::data(&ours).bytes(), S::data(&theirs).bytes(), "{}, {t}", R::ID);
    }
}

fn agrees_in_all_types<R: Rule + Default>(rule: R) {
    agrees::<R, f64>(rule);
    agrees::<R, f32>(rule);
    agrees::<R, bf16>(rule);
    agrees::<R, f16>(rule);
}

#[test]
fn state_is_that_of_an_optimizer_and_goes_on_after_a_reset() {
    agrees_in_all_types(AdamW::default());
    agrees_in_all_types(AdamW { amsgrad: true, ..AdamW::default() });
    agrees_in_all_types(Sgd::default()); // no active slot
    agrees_in_all_types(Sgd { momentum: 0.9, ..Sgd::default() }); // the first step differs
    agrees_in_all_types(Lion::default());
    agrees_in_all_types(NAdam::default()); // has a scalar
    agrees_in_all_types(Asgd::default()); // scalars of the parameter
    agrees_in_all_types(ScheduleFreeAdamW::default()); // a slot that starts as a copy of the parameter; scalars of the group
    agrees_in_all_types(StableAdamW::default()); // sums; steps counted by the group
    agrees_in_all_types(Adagrad { initial_accumulator_value: 0.5, ..Adagrad::default() });
    agrees_in_all_types(Rprop::default());
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let rule = AdamW::default();
    let mut memory = [7f32; 2 * N];
    let length = |got, expected| Error::LengthMismatch { argument: "memory", got, expected };
    let short = State::new(&rule, N, &mut memory[1..]).map(|_| ());
    assert_eq!(short, Err(length(2 * N - 1, 2 * N)));
    let wrong = AdamW { eps: -1.0, ..rule };
    assert!(State::new(&wrong, N, &mut memory).is_err());
    assert_eq!(memory, [7.0; 2 * N]);
    // More values than `usize` can count.
    assert!(State::new(&rule, usize::MAX, [0f32; 0]).is_err());

    let mut z = [0f32; N];
    let rule = ScheduleFreeSgd::default();
    let mut state = State::new(&rule, N, &mut z).unwrap();
    let mut param = values::<f32>(1);
    let before = param;
    assert!(rule.step(&mut state, 0.1, &mut param, &[0.0; N - 1]).is_err());
    assert!(rule.step(&mut state, 0.1, &mut param[1..], &[0.0; N - 1]).is_err());
    assert_eq!((param, state.steps(), state.slots()), (before, 0, [&[0f32; N][..]]));
    let mut page = [1; 1000];
    assert_eq!(state.save(&param, &mut page), Err(length(1000, state.saved_len())));
    assert!(state.save(&param[1..], &mut page).is_err());
    assert_eq!(page, [1; 1000]);
}

#[test]
fn state_of_anything_else_is_refused() {
    let mut memory = [0f32; 2 * N];
    let state = State::new(&AdamW::default(), N, &mut memory).unwrap();
    let mut saved = vec![0; state.saved_len()];
    state.save(&[1.0; N], &mut saved).unwrap();
    let (mut same, mut shorter, mut wide) = ([0f32; 2 * N], [0f32; 2 * N - 2], [0f64; 2 * N]);
    let (mut more, adam, adamw) = ([0f32; 3 * N], Adam::default(), AdamW::default());
    let amsgrad = AdamW { amsgrad: true, ..adamw };
    assert!(State::new(&adamw, N, &mut same).unwrap().load(&mut [0.0; N], &saved).is_ok());
    let refused = |result: Result<(), Error>| assert!(result.unwrap_err().is_saved());
    refused(State::new(&adam, N, &mut same).unwrap().load(&mut [0.0; N], &saved));
    refused(State::new(&adamw, N - 1, &mut shorter).unwrap().load(&mut [0.0; N - 1], &saved));
    refused(State::new(&adamw, N, &mut wide).unwrap().load(&mut [0.0; N], &saved));
    refused(State::new(&amsgrad, N, &mut more).unwrap().load(&mut [0.0; N], &saved));
    let length = State::new(&adamw, N, &mut same).unwrap().load(&mut [0.0; 1], &saved);
    assert_eq!(length, Err(Error::LengthMismatch { argument: "param", got: 1, expected: N }));
}

/// The bytes of these words, with the checksum of docs/checkpoints.md in place of a last word of 0.
fn sealed(mut words: Vec<u64>) -> Vec<u8> {
    let last = words.pop().unwrap();
    let sum = words.iter().fold(0u64, |s, w| {
        let s = (s ^ w).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        s ^ (s >> 32)
    });
    words.push(if last == 0 { sum } else { last });
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|w| u64::from_le_bytes(*w)).collect()
}

/// A word of up to eight ASCII letters, padded with zeros.
fn text(text: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    u64::from_le_bytes(bytes)
}

/// A word of two `f32` values.
fn pair([a, b]: [f32; 2]) -> u64 {
    u64::from(a.to_bits()) | u64::from(b.to_bits()) << 32
}

#[test]
fn saved_bytes_are_those_that_the_page_describes() {
    let (mut memory, mut param) = ([0f32; 2], [1.0f32, 2.0]);
    let rule = Sgd { momentum: 0.5, ..Sgd::default() };
    let mut state = State::new(&rule, 2, &mut memory).unwrap();
    rule.step(&mut state, 0.25, &mut param, &[4.0, -8.0]).unwrap();
    let mut saved = vec![0; state.saved_len()];
    state.save(&param, &mut saved).unwrap();
    let [kind, id] = ["bitstep1", "sgd"].map(text);
    let (param, slot) = (pair([0.0, 4.0]), pair([4.0, -8.0]));
    let want = vec![kind, 3, 3, id, 1, 2, 1, 0, 0, 0, 0, 8, param, 8, slot, 0];
    assert_eq!(words(&saved), words(&sealed(want)));

    let mut optimizer = Optimizer::empty();
    let group = optimizer.add_group(OptimizerSpec::new(rule, ComputePolicy::Eager)).unwrap();
    optimizer.add_param_to(group, &[2, 1], bitstep::float::Dtype::F32).unwrap();
    optimizer.groups_mut()[0].lr = 0.25;
    let mut param = [1.0f32, 2.0];
    let (value, grad) = (Plain::data_mut(&mut param), Some(Plain::data(&[4.0f32, -8.0])));
    optimizer.step_all(&mut [Param { value, grad }], &[]).unwrap();
    let (spec, lr) = ("sgd eager own plain 0 0", 0.25f64.to_bits());
    let [a, b, c] = [&spec[..8], &spec[8..16], &spec[16..]].map(text);
    let group = [1, spec.len() as u64, a, b, c, 1, lr, 0, 0, 0, 0];
    let param = [1, 0, 1, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0, 8, slot];
    let want = [&[text("bitstep"), 3, 0][..], &group, &param, &[0]].concat();
    assert_eq!(words(&optimizer.save().unwrap()), words(&sealed(want)));

    let linear = Args::parse("lr=0.5, num_warmup_steps=0, num_training_steps=4").unwrap();
    let mut linear = schedule::build("linear", &linear).unwrap();
    linear.step(&[]).unwrap();
    let want = vec![text("bitstes"), 3, 6, text("linear"), 1, 1, 0.375f64.to_bits(), 0];
    assert_eq!(words(&linear.save().unwrap()), words(&sealed(want)));
}

/// A valid checksum does not make the words that it covers trusted.
#[test]
fn any_word_behind_a_right_checksum_is_taken_or_refused_and_nothing_is_half_done() {
    let values = [0, 1, 2, 7, 1 << 31, 1 << 32, 1 << 61, u64::MAX >> 1, u64::MAX - 7, u64::MAX];
    let broken = |saved: &[u8], load: &mut dyn FnMut(&[u8])| {
        let all = words(saved);
        for at in 2..all.len() - 1 {
            for value in values {
                let mut other = all.clone();
                (other[at], *other.last_mut().unwrap()) = (value, 0);
                load(&sealed(other));
            }
        }
    };
    let mut optimizer = Optimizer::empty();
    let mut spec = bitstep::registry::optimizer("adamw_bnb_8bit", Args::new()).unwrap();
    spec.storage.min_len = 0;
    let group = optimizer.add_group(spec).unwrap();
    optimizer.add_param_to(group, &[3, 2], bitstep::float::Dtype::F32).unwrap();
    let before = optimizer.save().unwrap();
    let mut refused = 0;
    broken(&before, &mut |bytes| match optimizer.load(bytes) {
        Ok(()) => optimizer.load(&before).unwrap(),
        Err(error) => {
            refused += 1;
            assert!(error.is_saved(), "{error}");
            assert_eq!(optimizer.save().unwrap(), before);
        }
    });
    assert!(refused > 100, "{refused}");

    for (name, args) in [
        ("cosine", "num_warmup_steps=2, num_training_steps=20"),
        ("reduce_lr_on_plateau", "patience=1"),
        ("greedy", "patience=1, smooth=True, window_size=3"),
        ("adafactor_schedule", "initial_lr=0.5"),
    ] {
        let mut running = schedule::build(name, &Args::parse(args).unwrap()).unwrap();
        let metrics = [1.0; 1];
        let metrics = if name == "cosine" { &[][..] } else { &metrics };
        (0..5).for_each(|_| _ = running.step(metrics).unwrap());
        let before = running.save().unwrap();
        broken(&before, &mut |bytes| match running.load(bytes) {
            Ok(()) => running.load(&before).unwrap(),
            Err(error) => {
                assert!(error.is_saved(), "{name}: {error}");
                assert_eq!(running.save().unwrap(), before, "{name}");
            }
        });
    }
}

#[test]
fn a_parameter_of_any_length_has_a_length_when_saved() {
    let rule = Sgd::default(); // no active slot, so that no memory is needed
    for len in [usize::MAX, usize::MAX / 4, usize::MAX / 4 - 1] {
        let state = State::new(&rule, len, [0f32; 0]).unwrap();
        assert!(state.saved_len() >= len);
    }
}
