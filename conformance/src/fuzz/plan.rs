//! Strategies for what a run is like: how many parameters of which types and shapes, which gradients, which rates.
//!
//! A [`Plan`] is small and says what is drawn; [`super::draw`] makes a run of it for one name.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::values::Pattern;

/// Which inputs are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What occurs in training: numbers of ordinary size, hyper-parameters well within their ranges.
    Ordinary,
    /// Where arithmetic changes: the ends of ranges, NaN, infinity, denormals, cancellation, ties.
    Edges,
    /// Both.
    All,
}

/// How one argument of the reference is changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// To the value that another case of the suite has.
    Other(Index),
    /// To an ordinary number, or the other truth value.
    Ordinary(Index),
    /// To a number at the end of a range.
    Edge(Index),
    /// To the default.
    Default,
}

/// When a parameter has a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Never,
    /// Each step is missing with a chance of one in three.
    Sometimes,
    /// The first steps are missing.
    First,
}

/// What the learning rate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rates {
    /// It stays that of the arguments.
    Constant,
    /// It moves by small factors.
    Moving,
    /// It jumps, to 0 too.
    Jumping,
}

/// Where the run begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Start {
    /// At the first step.
    Fresh,
    /// From the state after some steps.
    Preset,
    /// From such a state, with the counters at this number.
    Late(f64),
}

/// One parameter.
#[derive(Clone, Debug)]
pub(crate) struct ParamPlan {
    /// The type; that of the first parameter if `None`.
    pub(crate) dtype: Option<Index>,
    pub(crate) shape: Vec<usize>,
    pub(crate) init: Pattern,
    pub(crate) grad: Pattern,
    pub(crate) missing: Missing,
    pub(crate) group: Index,
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) template: Index,
    pub(crate) dtype: Index,
    pub(crate) params: Vec<ParamPlan>,
    pub(crate) steps: usize,
    /// Which argument, and how it changes.
    pub(crate) changes: Vec<(Index, Change)>,
    pub(crate) rates: Rates,
    pub(crate) start: Start,
    /// The seed of the numbers.
    pub(crate) numbers: u64,
}

fn shape() -> BoxedStrategy<Vec<usize>> {
    prop_oneof![
        4 => prop::collection::vec(1usize..=5, 1),
        3 => prop::collection::vec(1usize..=6, 2),
        2 => Just(vec![1]),
        2 => Just(Vec::new()),
        1 => Just(vec![0]),
        1 => prop::collection::vec(0usize..=3, 3),
        1 => (6usize..=40).prop_map(|n| vec![n]),
        1 => prop_oneof![(2usize..=33, Just(1usize)), (Just(1usize), 2usize..=33), (7usize..=17, 2usize..=9)]
            .prop_map(|(rows, columns)| vec![rows, columns]),
        1 => prop_oneof![Just(vec![1031]), Just(vec![33, 32]), Just(vec![3, 349])],
    ]
    .boxed()
}

fn change(profile: Profile) -> BoxedStrategy<Change> {
    let index = any::<Index>;
    let other = index().prop_map(Change::Other);
    let ordinary = index().prop_map(Change::Ordinary);
    let edge = index().prop_map(Change::Edge);
    let default = Just(Change::Default);
    match profile {
        Profile::Ordinary => prop_oneof![3 => other, 3 => ordinary, 1 => default].boxed(),
        Profile::Edges => prop_oneof![1 => other, 1 => ordinary, 3 => edge].boxed(),
        Profile::All => prop_oneof![3 => other, 3 => ordinary, 2 => edge, 1 => default].boxed(),
    }
}

fn pattern(profile: Profile) -> BoxedStrategy<Pattern> {
    let ordinary = prop::sample::select(Pattern::ORDINARY);
    let edges = prop::sample::select(Pattern::EDGES);
    match profile {
        Profile::Ordinary => ordinary.boxed(),
        Profile::Edges => edges.boxed(),
        Profile::All => prop_oneof![1 => ordinary, 1 => edges].boxed(),
    }
}

fn start(profile: Profile) -> BoxedStrategy<Start> {
    let late = prop::sample::select(&[9.0, 1000.0, 999_990.0, 16_777_216.0][..]);
    let far =
        prop::sample::select(&[2_147_483_647.0, 4_294_967_296.0, 9_007_199_254_740_990.0][..]);
    let (late, far) = (late.prop_map(Start::Late), far.prop_map(Start::Late));
    match profile {
        Profile::Ordinary => {
            prop_oneof![10 => Just(Start::Fresh), 1 => Just(Start::Preset), 1 => late].boxed()
        }
        _ => prop_oneof![10 => Just(Start::Fresh), 1 => Just(Start::Preset), 1 => late, 1 => far]
            .boxed(),
    }
}

fn param(profile: Profile) -> impl Strategy<Value = ParamPlan> {
    let init = match profile {
        Profile::Ordinary => Just(Pattern::Ordinary).boxed(),
        _ => prop_oneof![4 => Just(Pattern::Ordinary), 1 => pattern(profile)].boxed(),
    };
    let missing = prop_oneof![
        6 => Just(Missing::Never),
        2 => Just(Missing::Sometimes),
        1 => Just(Missing::First),
    ];
    let dtype = prop::option::weighted(0.2, any::<Index>());
    (dtype, shape(), init, pattern(profile), missing, any::<Index>()).prop_map(
        |(dtype, shape, init, grad, missing, group)| ParamPlan {
            dtype,
            shape,
            init,
            grad,
            missing,
            group,
        },
    )
}

/// Plans of this profile.
pub(crate) fn plans(profile: Profile) -> impl Strategy<Value = Plan> {
    let steps =
        prop_oneof![3 => Just(1usize), 5 => 2usize..=4, 3 => 5usize..=12, 1 => 13usize..=40];
    let rates = prop_oneof![
        6 => Just(Rates::Constant),
        2 => Just(Rates::Moving),
        2 => Just(Rates::Jumping),
    ];
    let changes = prop::collection::vec((any::<Index>(), change(profile)), 0..=4);
    let params = prop::collection::vec(param(profile), 1..=3);
    (any::<Index>(), any::<Index>(), params, steps, changes, rates, start(profile), any::<u64>())
        .prop_map(|(template, dtype, params, steps, changes, rates, start, numbers)| {
            let elements: usize = params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
            // Long runs of large tensors show nothing that short ones do not.
            let steps = if elements > 200 { steps.min(3) } else { steps };
            Plan { template, dtype, params, steps, changes, rates, start, numbers }
        })
}

/// Draws one value of a strategy; equal seeds, equal values.
pub(crate) fn draw<S: Strategy>(strategy: &S, seed: u64) -> Option<S::Value> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).ok().map(|tree| tree.current())
}
