//! Every optimizer and learning-rate schedule of Hugging Face Transformers, and the optimizers of `torch.optim`: each
//! rule written once, with the same bits on every backend, checked against vectors of the real references.
//!
//! Looking for AdamW? [`optim::AdamW`]; the others stand beside it in [`optim`], the schedules in [`schedule`].
//!
//! # Quick starts
//!
//! **A device without a heap.** A constant configuration, state in an array, nothing else:
//!
//! ```
//! use bitstep::prelude::*;
//! use bitstep::schedule::Cosine;
//!
//! const OPT: AdamW = AdamW { lr: 0.05, ..AdamW::DEFAULT };
//! const COSINE: Cosine = Cosine { num_warmup_steps: 30, num_training_steps: 300, ..Cosine::DEFAULT };
//!
//! let mut w = [1.0f32; 65];
//! let mut state = State::new(&OPT, 65, [0.0; 2 * 65])?; // two averages of each weight (`State::memory_len`)
//! for _ in 0..300 {
//!     let g = w; // of half the square
//!     let lr = COSINE.lr(OPT.lr, state.steps()); // the rate after so many updates, as Trainer has it
//!     OPT.step(&mut state, lr, &mut w, &g)?;
//! }
//! assert!(w[0].abs() < 0.1);
//! # Ok::<(), Error>(())
//! ```
//!
//! **With a heap** (feature `names`). Optimizers by their references' names, chosen at run time; groups and state kept
//! for you:
//!
#![cfg_attr(feature = "names", doc = "```")]
#![cfg_attr(not(feature = "names"), doc = "```ignore")]
//! use bitstep::prelude::*;
//!
//! let mut opt = Optimizer::new(registry::optimizer("adamw_torch", [("lr", 1e-3)])?)?;
//! let w = opt.add_param(&[768, 768], Dtype::F32)?;
//!
//! let (mut weights, grads) = (vec![1.0f32; 768 * 768], vec![0.1f32; 768 * 768]);
//! opt.step([(w, (&mut weights).into(), (&grads).into())])?;
//! let bytes = opt.save()?; // and `opt.load(&bytes)?` later
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **candle**: `bitstep_candle::Optimizer` is a drop-in `candle_nn::Optimizer`, in place, and its `Training` does what
//! Transformers' Trainer does. **ndarray, CUDA, threads**: `bitstep-ndarray`, `bitstep-cudarc`, `bitstep-rayon`.
//!
//! **C and C++**: `bitstep.h`, with and without an operating system:
//!
//! ```c
//! bitstep_optimizer *optimizer;
//! size_t group, shape[] = {3, 2};
//! bitstep_optimizer_new(&optimizer, &error);
//! bitstep_optimizer_add_group(optimizer, "adamw_torch", "{\"lr\": 1e-3}", &group, &error);
//! bitstep_optimizer_add_param(optimizer, group, shape, 2, BITSTEP_F32, &error);
//!
//! bitstep_tensor tensor = {weights, 6, BITSTEP_F32, BITSTEP_F32, gradient};
//! if (bitstep_optimizer_step(optimizer, &tensor, 1, NULL, 0, &error) != BITSTEP_OK) puts(error.message);
//! ```
//!
//! # Three independent choices
//!
//! | choice | says | in |
//! | --- | --- | --- |
//! | **rule** | how a parameter moves: AdamW, Lion, Adafactor, Muon, ScheduleFree, … | [`optim`] |
//! | **storage** | how values are stored between steps: `f64` `f32` `bf16` `f16`, split or compensated weights, 8 and 4 bits | [`storage`] |
//! | **backend** | where the loop runs: slices here, SIMD and threads, ndarray, candle, CUDA, your own | [`backend`] |
//!
//! Values of one go with values of the others, as far as a rule allows: Muon is for matrices, and a rule whose
//! reference has no eager kernels refuses that policy. A [projection](lowrank) (GaLore, APOLLO) wraps a rule.
//!
//! # What is promised
//!
//! Every `+ − × ÷ √` rounds once, to nearest even; multiplication and addition are never
//! fused (no FMA) or reassociated, on any processor, and sums have
//! [one order](math::reduce). So one step from the same inputs has the same bits on every backend, vector unit and
//! number of threads. 16-bit parameters are computed in `f32` and rounded when stored, as PyTorch's fused kernels do;
//! [`ComputePolicy::Eager`](rule::ComputePolicy::Eager) rounds after every operation, as its other kernels do, and a
//! registry name comes with the policy of its reference. NaN and infinity are data. No `unsafe` outside `arch`, no
//! panic, and an error means that nothing has been written.
//!
//! # Features
//!
//! | feature | brings | without it |
//! | --- | --- | --- |
//! | `std` (default) | the widest vector unit, chosen at run time | the target's baseline; the same bits |
//! | `alloc` (default) | [`optimizer`], [`hyper::Args`], [`registry`] | rules, schedules, clipping and storages over memory of yours |
//! | `names` (brings `alloc`) | every optimizer by its reference's name | only rules that the program names are compiled |
//! | `names-torch`, `names-bnb`, … | the names of one family of references; `registry` without a family knows none | |
//! | `num-traits` | `Zero` and `One` of that crate for [`float::Eager`] | |
//!
//! # Map
//!
//! | module | holds |
//! | --- | --- |
//! | [`prelude`] | what most programs import |
//! | [`optim`] | the rules, one a file |
//! | [`schedule`] | learning-rate schedules of Transformers, torch and Keras |
//! | [`state`] | a rule with its state, without groups: [`State`](state::State), [`Optimize`](state::Optimize) |
//! | [`optimizer`] | groups of parameters, their state, saving and loading, tasks for threads |
//! | [`registry`], [`hyper`] | reference names and arguments |
//! | [`gradient`] | clipping, accumulation, NEFTune, loss scale |
//! | [`storage`], [`lowrank`] | formats of stored values, projections |
//! | [`rule`], [`backend`] | the contract of a rule, for those who write one or a backend |
//! | [`float`], [`math`], [`error`] | types of numbers, sums and products with one result everywhere, typed errors |
#![no_std]
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Kernels are compiled where unstable features are at hand: the GPU's own square root is one.
#![cfg_attr(target_arch = "nvptx64", feature(core_float_math))]
#![deny(unsafe_code)]

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!(
    "x86 without SSE2 computes in 80 bits: results would differ from every other processor"
);

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod arch;
pub mod backend;
pub mod error;
#[macro_use]
pub mod float;
pub mod gradient;
pub mod hyper;
pub mod lowrank;
pub mod math;
pub mod optim;
#[cfg(feature = "alloc")]
pub mod optimizer;
pub mod prelude;
#[cfg(feature = "alloc")]
pub mod registry;
pub mod rule;
pub mod schedule;
pub mod state;
pub mod storage;

#[cfg(all(doctest, feature = "names"))]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;

#[cfg(all(doctest, feature = "names"))]
#[doc = include_str!("../../docs/cost.md")]
struct Cost;

pub use error::Error;
