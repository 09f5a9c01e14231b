//! Every rule over every storage of the parameter and every storage of its state.

use std::sync::atomic::{AtomicUsize, Ordering};

use bitstep::float::Dtype;
use bitstep::hyper::{Args, names};
use bitstep::optimizer::{ParamStorage, StorageConfig};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::storage::StorageFormat;
use bitstep_fuzz::{
    FORMATS, Run, Trial, WEIGHTS, deterministic, error_leaves_everything_untouched, restorable,
    splittable,
};

/// Bits of ordinary numbers, with any bits at all among them.
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let x = self.0 >> 33;
        match x % 16 {
            0 => 0,
            1 => x >> 8 & 0xffff,
            _ => {
                let number = (x >> 5 & 0xffff) as f32 / 8192.0 - 4.0;
                half::bf16::from_f32(number).to_bits().into()
            }
        }
    }

    fn many(&mut self, n: usize) -> Vec<u64> {
        (0..n).map(|_| self.next()).collect()
    }
}

fn trial(
    name: &'static str,
    weights: ParamStorage,
    state: StorageFormat,
    shape: &[usize],
) -> Trial {
    let mut recipe = registry::optimizer(name, &Args::new()).expect("defaults are valid");
    // bitsandbytes has another formula for small tensors; a part shall be as its whole.
    if names(recipe.rule.hyper_params()).contains(&"min_8bit_size") {
        let any_size = Args::new().with("min_8bit_size", 0i64);
        recipe = recipe.with_args(&any_size).expect("an argument of the rule's");
    }
    let slots = vec![Some(state); recipe.rule.info().slots.len()];
    recipe.storage =
        StorageConfig { slot_formats: slots, min_len: 0, len_multiple: 0, param: weights };
    let n = shape.iter().product();
    let mut bits = Bits(n as u64 + name.len() as u64);
    let mut trial = Trial {
        name,
        recipe,
        tuned: false,
        dtype: Dtype::Bf16,
        shape: shape.to_vec(),
        before: 0,
        init: bits.many(n),
        grads: (0..3).map(|_| Some(bits.many(n))).collect(),
        lrs: vec![0.1, 0.5, 0.01],
        given: vec![1.5, 2.0],
    };
    if Run::try_new(&trial).is_err() {
        trial.shape = vec![n, 1]; // a rule that takes matrices only
    }
    trial
}

/// Runs a property over everything, a rule after the other on every processor.
fn over_all(shape: &[usize], property: impl Fn(&Trial) + Sync) {
    let over_storages = |name: &'static str| {
        for weights in WEIGHTS {
            for state in FORMATS {
                let what = format!("{name} x {weights:?} x {state:?}");
                let run = || property(&trial(name, weights, state, shape));
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                    panic!("{what}");
                }
            }
        }
    };
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(entry) = OPTIMIZERS.get(next.fetch_add(1, Ordering::Relaxed)) {
            over_storages(entry.name);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

#[test]
fn every_rule_over_every_storage_is_deterministic() {
    over_all(&[7, 41], deterministic);
    over_all(&[0], deterministic);
}

#[test]
fn every_rule_over_every_storage_continues_from_restored_parts() {
    over_all(&[270], restorable);
}

#[test]
fn every_elementwise_rule_over_every_storage_may_be_cut_between_blocks() {
    // A little more than a multiple of every block.
    over_all(&[12_900], splittable);
}

#[test]
fn every_refused_step_over_every_storage_leaves_everything_untouched() {
    over_all(&[3, 50], error_leaves_everything_untouched);
}
