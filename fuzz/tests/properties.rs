//! Every property over every optimizer of the list, on arbitrary bits.

use bitstep::args::Args;
use bitstep::named;
use bitstep::optim::LIST;
use bitstep::real::Dtype;
use bitstep_fuzz::{
    Trial, accepted, deterministic, error_leaves_everything_untouched, restorable, splittable,
};
use proptest::prelude::*;

/// Bits of ordinary numbers of each type, and any bits at all.
fn number(dtype: Dtype) -> BoxedStrategy<u64> {
    let ordinary = (-4.0f64..4.0).prop_map(move |x| match dtype {
        Dtype::F64 => x.to_bits(),
        Dtype::F32 => u64::from((x as f32).to_bits()),
        Dtype::Bf16 => u64::from(half::bf16::from_f64(x).to_bits()),
        Dtype::F16 => u64::from(half::f16::from_f64(x).to_bits()),
    });
    prop_oneof![4 => ordinary, 1 => any::<u64>(), 1 => Just(0u64)].boxed()
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F64), Just(Dtype::F32), Just(Dtype::Bf16), Just(Dtype::F16)]
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        prop::collection::vec(0usize..9, 1..4),
        Just(vec![1, 1030]),
        Just(vec![270]),
    ]
}

fn trial(name: &'static str) -> impl Strategy<Value = Trial> {
    (dtype(), shape(), 1usize..5).prop_flat_map(move |(dtype, shape, steps)| {
        let n = shape.iter().product::<usize>();
        let numbers = move || prop::collection::vec(number(dtype), n);
        (
            numbers(),
            prop::collection::vec(prop::option::weighted(0.9, numbers()), steps),
            prop::collection::vec(prop_oneof![Just(0.0), 0.0f64..1.0], steps),
        )
            .prop_map(move |(init, grads, lrs)| {
                let recipe = named::optimizer(name, &Args::new()).expect("defaults are valid");
                let shape = accepted(&recipe, &shape, dtype);
                Trial { recipe, dtype, shape, init, grads, lrs }
            })
    })
}

/// Runs a property over every optimizer, few cases each: the list is long.
fn over_all(property: impl Fn(&Trial)) {
    for entry in LIST {
        let config = ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() };
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let result = runner.run(&trial(entry.name), |trial| {
            property(&trial);
            Ok(())
        });
        if let Err(e) = result {
            panic!("{}: {e}", entry.name);
        }
    }
}

#[test]
fn every_optimizer_is_deterministic() {
    over_all(deterministic);
}

#[test]
fn every_optimizer_continues_from_restored_state() {
    over_all(restorable);
}

#[test]
fn every_elementwise_optimizer_may_be_cut_anywhere() {
    let plain = |trial: &Trial| trial.recipe.coding.slots.iter().all(Option::is_none);
    // Those of blocks are cut between blocks by another test.
    over_all(|trial| {
        if plain(trial) {
            splittable(trial, 1)
        }
    });
    over_all(|trial| {
        if plain(trial) {
            splittable(trial, 259)
        }
    });
}

#[test]
fn every_refused_step_leaves_everything_untouched() {
    over_all(error_leaves_everything_untouched);
}
