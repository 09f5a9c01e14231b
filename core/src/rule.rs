//! What a rule is, and the loops that run one.
//!
//! Three shapes cover every optimizer:
//!
//! * **elementwise**: one function of a parameter, its gradient, its state slots
//!   and the step's coefficients ([`Rule::element`]);
//! * **tensorwise**: the same, with coefficients that depend on sums over the
//!   tensor ([`Rule::SUMS`], [`Rule::terms`], [`Rule::finish`]);
//! * **matrix**: row and column state ([`crate::factored`]), or products of
//!   matrices.
//!
//! [`step`] is the whole job for slices of plain numbers. [`sums`] and [`apply`]
//! are its two halves, for callers that cut a tensor into parts.

use crate::accurate;
use crate::args::{Fields, Hyper, Slot};
use crate::array::Array;
use crate::error::Error;
use crate::gradient::unscaled_norm;
use crate::real::{Dtype, Number, Real};
use crate::reduce::{self, Terms};
use crate::simd::{self, Kernel};
use crate::storage::{Data, numel};

/// One step, as its caller describes it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The number of this update, from 1. Whose number: [`Rule::counter`].
    pub t: u64,
    /// The learning rate in force.
    pub lr: f64,
    /// Whether it is this tensor's first update. Where the group counts the steps, t alone doesn't say.
    pub first: bool,
    /// The parameter's position among those of its group that have a gradient.
    pub layer: u32,
    /// The dimensions of the whole parameter, also where only a part of it is stepped.
    pub shape: &'a [usize],
    /// The number of elements of the parameter of which `shape` is a projection, if it is one.
    pub projected: Option<usize>,
    /// The parameter's type in memory; `None` if it is not a plain number, or that of the arithmetic.
    pub dtype: Option<Dtype>,
    /// Whether its state is plain numbers, though that of others of its group may be coded.
    pub plain: bool,
    /// The type in memory of the first parameter of the group that has a gradient, if known.
    pub lead: Option<Dtype>,
    /// The norm over all gradients of the step, for rules that [ask for it](Rule::norm_scale).
    pub grad_norm: Option<f64>,
    /// Numbers from outside that some rules listen to, by name: `train_loss`,
    /// `eval_loss`, `loss_scale`, …
    pub given: &'a [(&'a str, f64)],
    /// What [`Step::power`] need not find again.
    pub powers: Option<&'a Powers>,
}

/// Powers of [`Rule::bases`], found once for all parameters of a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct Powers {
    t: u64,
    known: [(f64, f64); 2],
}

impl Powers {
    /// Those of these bases with the exponent t.
    #[must_use]
    pub fn new(bases: [f64; 2], t: u64) -> Self {
        Powers { t, known: bases.map(|base| (base, accurate::pow(base, t as f64))) }
    }
}

impl Step<'_> {
    /// Step number t at learning rate `lr`, with nothing else given.
    pub const fn new(t: u64, lr: f64) -> Self {
        Step {
            t,
            lr,
            first: t == 1,
            layer: 0,
            shape: &[],
            projected: None,
            dtype: None,
            plain: false,
            lead: None,
            grad_norm: None,
            given: &[],
            powers: None,
        }
    }

    /// `base` to the power t.
    #[must_use]
    pub fn power(&self, base: f64) -> f64 {
        // Only an `Optimizer` knows any, and it needs the heap: firmware without is spared the search.
        if cfg!(feature = "alloc")
            && let Some(powers) = self.powers
            && powers.t == self.t
        {
            let same = |&&(known, _): &&(f64, f64)| known.to_bits() == base.to_bits();
            if let Some(&(_, power)) = powers.known.iter().find(same) {
                return power;
            }
        }
        accurate::pow(base, self.t_f64())
    }

    /// The given number of that name.
    pub fn given(&self, name: &str) -> Option<f64> {
        self.given.iter().find(|(n, _)| *n == name).map(|&(_, x)| x)
    }

    /// The number of elements of the whole parameter.
    pub fn numel(&self) -> usize {
        numel(self.shape)
    }

    /// The same step; of a parameter of this shape, if it did not say of which.
    pub(crate) fn of<'a>(&'a self, shape: &'a [usize]) -> Step<'a> {
        Step { shape: if self.shape.is_empty() { shape } else { self.shape }, ..*self }
    }

    /// Whether the parameter is a single number, whose [norm](reduce::square) is that number's size.
    pub fn is_single(&self) -> bool {
        self.projected.unwrap_or(self.numel()) == 1
    }

    /// t as a float; exact up to 2⁵³.
    pub const fn t_f64(&self) -> f64 {
        self.t as f64
    }
}

/// How a state slot starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// This number everywhere.
    Value(f64),
    /// A copy of the parameter.
    Parameter,
}

/// What the parameter in the caller's hands is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Taking gradients at, and stepping.
    #[default]
    Train,
    /// Evaluating, and saving for others to use.
    Eval,
}

/// Who counts the steps, or owns the carried numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Each parameter: it stands still while that parameter has no gradient.
    Parameter,
    /// The whole group, with every call of the optimizer's `step`.
    Group,
}

/// How an optimizer moves one parameter.
///
/// A plain configuration whose public fields carry the reference's names. The
/// element functions take no `self`: all that they need of the configuration is
/// in [`Rule::Coefs`], computed once a step on the host, so that every backend
/// computes with the same bits.
pub trait Rule: Hyper + Copy + PartialEq + core::fmt::Debug + Send + Sync + 'static {
    /// One `T` for each state slot: `[T; 2]` for two.
    type Slots<T>: Array<T>;
    /// The step's constants.
    type Coefs<C: Real>: Copy + Send + Sync;

    /// What saved files call the rule, whatever becomes of its type's name. It never changes.
    const ID: &'static str;
    /// The slots' names: the reference's `state_dict` keys. Slots of the same name are one tensor
    /// of the reference, stacked along a new first dimension in this order.
    const SLOTS: &'static [&'static str];
    /// The combinations of slots that occur, as bit masks (bit k: slot k); at most 4.
    const MASKS: &'static [u32];
    /// Names of the numbers carried from step to step beside the slots, at most [`MAX_SCALARS`].
    const SCALARS: &'static [&'static str] = &[];
    /// Whose steps are counted.
    const COUNTER: Counter = Counter::Parameter;
    /// The reference's state key of the number of steps.
    const STEP_KEY: &'static str = "step";
    /// Whether a step of a parameter without elements counts.
    const COUNTS_EMPTY: bool = true;
    /// The numbers from outside that the rule [listens to](Step::given).
    const GIVEN: &'static [&'static str] = &[];
    /// How many sums over the tensor the coefficients may need: 0 (elementwise), 1 or 2.
    const SUMS: usize = 0;
    /// Which of the sums (as bits) are over the parameter alone. Where the rule steps a
    /// projection ([`crate::lowrank`]), these are over the whole parameter all the same.
    const SUMS_OF_PARAM: u32 = 0;

    /// Whether the configuration is valid; ranges are the reference's.
    fn check(&self) -> Result<(), Error>;
    /// The learning rate of the configuration.
    fn lr(&self) -> f64;
    /// Fills in the defaults that depend on other arguments, as the reference's constructor does:
    /// parameter groups then start from these values, whatever they change.
    fn settle(&mut self) {}

    /// Whether this configuration needs the sums; without, [`Rule::finish`] is not called.
    fn needs_sums(&self) -> bool {
        Self::SUMS > 0
    }
    /// Whether this configuration carries the numbers of [`Rule::SCALARS`].
    fn carries(&self) -> bool {
        true
    }
    /// What gradients are divided by before the norm over all of them is taken for
    /// [`Step::grad_norm`]; `None` if the rule can do without that norm.
    fn norm_scale(&self, given: &[(&str, f64)]) -> Option<f64> {
        let _ = given;
        None
    }
    /// That norm, of gradients divided by `scale`.
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        unscaled_norm(grads.iter().copied(), scale)
    }
    /// Whether the step depends on the parameter's [place](Step::layer) among the others.
    fn needs_layer(&self) -> bool {
        false
    }
    /// Whose steps are counted, under this configuration.
    fn counter(&self) -> Counter {
        Self::COUNTER
    }
    /// Who owns the carried numbers: as a rule whoever counts the steps.
    fn scalar_owner(&self) -> Counter {
        self.counter()
    }
    /// Of which numbers the constants hold [`Step::power`]s: those are found once for a group.
    fn bases(&self) -> [f64; 2] {
        [1.0; 2]
    }
    /// The slots that this configuration uses; one of [`Rule::MASKS`]. `compute` is the type that
    /// the step is computed in: a sum needs a compensation only where it is rounded to 16 bits.
    fn mask(&self, compute: Dtype) -> u32 {
        let _ = compute;
        Self::MASKS.first().copied().unwrap_or(0)
    }
    /// How slot k starts.
    fn start(&self, slot: usize) -> Start {
        let _ = slot;
        Start::Value(0.0)
    }
    /// The number type in which the reference keeps slot k for a parameter of this type.
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        let _ = slot;
        param
    }
    /// How the carried numbers start.
    fn scalars(&self) -> Scalars {
        [0.0; MAX_SCALARS]
    }
    /// Moves the carried numbers on, before the coefficients are computed.
    fn advance(&self, step: &Step, scalars: &mut Scalars) {
        let _ = (step, scalars);
    }

    /// The step's constants, as the reference computes them.
    fn coefs<C: Real>(&self, step: &Step, scalars: &Scalars) -> Self::Coefs<C>;

    /// What one element adds to the tensor's sums. Not rounded to `C`: PyTorch's
    /// norms and means of 16-bit tensors add up in `f32` too.
    #[inline(always)]
    fn terms<C: Real>(k: &Self::Coefs<C>, p: C, g: C, slots: Self::Slots<C>) -> [C::Scalar; 2] {
        let _ = (k, p, g, slots);
        [C::Scalar::ZERO; 2]
    }
    /// Completes the constants with the sums over the tensor's n elements.
    fn finish<C: Real>(k: &mut Self::Coefs<C>, sums: [C::Scalar; 2], n: usize) {
        let _ = (k, sums, n);
    }
    /// Notes numbers of the finished constants among the carried ones, for those who read the state.
    fn record<C: Real>(k: &Self::Coefs<C>, scalars: &mut Scalars) {
        let _ = (k, scalars);
    }

    /// The update of one element: the parameter and its slots afterwards. A slot
    /// outside of the mask comes in as zero and is not stored.
    fn element<C: Real>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>);

    /// The constant that [`Rule::convert`] needs to turn a parameter into the one of
    /// mode `to`; `None` if training and evaluation share one, as they mostly do.
    fn conversion(&self, to: Mode) -> Option<f64> {
        let _ = to;
        None
    }
    /// One element of the parameter, turned into that of the other mode.
    #[inline(always)]
    fn convert<C: Real>(weight: C::Scalar, p: C, slots: Self::Slots<C>) -> C {
        let _ = (weight, slots);
        p
    }

    /// The first half of [`Rule::element`], for what may come between ([`crate::lowrank`]): the
    /// direction to be found in a gradient. Unless a rule says otherwise, the way from 0.
    #[inline(always)]
    fn direction<C: Real>(k: &Self::Coefs<C>, g: C, slots: Self::Slots<C>) -> (C, Self::Slots<C>) {
        Self::element(k, C::ZERO, g, slots)
    }
    /// The second half: the parameter, moved along a direction. Decay is part of it, where the rule
    /// says so in [`Rule::check_halves`].
    #[inline(always)]
    fn descend<C: Real>(k: &Self::Coefs<C>, p: C, direction: C) -> C {
        let _ = k;
        p + direction
    }
    /// Whether the two halves, one after the other, are [`Rule::element`] but for rounding. Unless a rule
    /// says otherwise they are if nothing decays and no slot starts as the parameter: then the parameter
    /// is only added to.
    ///
    /// # Errors
    /// They are not; with the argument that stands in the way.
    fn check_halves(&self) -> Result<(), Error> {
        if (0..Self::SLOTS.len()).any(|slot| self.start(slot) == Start::Parameter) {
            return Err(Error::Invalid {
                argument: "rank",
                wanted: "none: a slot of the rule stands for the parameter",
            });
        }
        no_decay(self)
    }
}

/// Refuses a weight decay. For a rule that applies it where a projection has no parameter.
pub(crate) fn no_decay<R: Rule>(rule: &R) -> Result<(), Error> {
    struct Decay(Result<(), Error>);
    impl Fields for Decay {
        fn field(&mut self, name: &'static str, slot: Slot<'_>) {
            let value = match slot {
                Slot::F64(x) if ["weight_decay", "weight_decay_rate"].contains(&name) => *x,
                _ => 0.0,
            };
            if value != 0.0 {
                let wanted = "= 0: in a projection this rule has nothing to decay";
                self.0 = Err(Error::Range { argument: name, value, wanted });
            }
        }
    }
    let (mut rule, mut found) = (*rule, Decay(Ok(())));
    rule.fields(&mut found);
    found.0
}

/// The most numbers that a rule may carry from step to step beside its slots.
pub const MAX_SCALARS: usize = 4;
/// Numbers carried from step to step beside the slots.
pub type Scalars = [f64; MAX_SCALARS];

/// One step of one tensor of plain numbers; the state rests in slices of the
/// same length as the parameter, empty for a slot that the rule does not use.
///
/// `C` is the type to compute in: `f64`, `f32`, or a 16-bit type for PyTorch's
/// eager arithmetic. `scalars` start as [`Rule::scalars`] (most rules have none).
///
/// # Errors
/// An invalid configuration, or a slice of the wrong length. Nothing is written then.
///
/// # Example
/// ```
/// use bitstep::{optim::AdamW, rule::{step, Rule, Step}};
/// let rule = AdamW { weight_decay: 0.1, ..AdamW::default() };
/// let (mut p, g) = ([1.0f32, -2.0], [0.5f32, 0.25]);
/// let (mut m, mut v) = ([0.0f32; 2], [0.0f32; 2]);
/// let mut scalars = rule.scalars();
/// for t in 1..=10 {
///     let at = Step::new(t, 1e-3);
///     step::<_, f32, _, _, _>(&rule, &at, &mut scalars, &mut p, &g, [&mut m, &mut v, &mut []])?;
/// }
/// assert!(p[0] < 1.0 && p[1] < -1.99);
/// # Ok::<(), bitstep::Error>(())
/// ```
pub fn step<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    rule: &R,
    step: &Step,
    scalars: &mut Scalars,
    param: &mut [P],
    grad: &[G],
    mut slots: R::Slots<&mut [S]>,
) -> Result<(), Error> {
    check_slices::<R, C, P, G, S>(rule, step, param, grad, &mut slots)?;
    let shape = [param.len()];
    let step = &Step { shape: &shape, dtype: Some(P::DTYPE), ..*step };
    rule.advance(step, scalars);
    step_slices::<R, C, P, G, S>(rule, step, scalars, param, grad, slots);
    Ok(())
}

/// Refuses what can't be stepped.
pub(crate) fn check_slices<R: Rule, C: Real, P, G, S>(
    rule: &R,
    step: &Step,
    param: &[P],
    grad: &[G],
    slots: &mut R::Slots<&mut [S]>,
) -> Result<(), Error> {
    rule.check()?;
    check_norm(rule.norm_scale(step.given), step)?;
    Error::length("grad", grad.len(), param.len())?;
    for (k, slot) in slots.as_mut().iter_mut().enumerate() {
        let used = rule.mask(C::DTYPE) >> k & 1 == 1;
        let name = R::SLOTS.get(k).copied().unwrap_or("state");
        Error::length(name, slot.len(), if used { param.len() } else { 0 })?;
    }
    Ok(())
}

/// [`step`] of what has been checked, with carried numbers that have been advanced.
pub(crate) fn step_slices<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    rule: &R,
    step: &Step,
    scalars: &mut Scalars,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    let (mut coefs, mask) = (rule.coefs::<C>(step, scalars), rule.mask(C::DTYPE));
    if R::SUMS > 0 && rule.needs_sums() {
        let views = slots.as_ref();
        let views = R::Slots::<&[S]>::from_fn(|k| views.get(k).map_or(&[][..], |s| s));
        let sums = sums::<R, C, P, G, S>(&coefs, mask, param, grad, &views);
        R::finish::<C>(&mut coefs, sums, param.len());
    }
    R::record::<C>(&coefs, scalars);
    apply::<R, C, P, G, S>(&coefs, mask, param, grad, slots);
}

/// Refuses a step without the norm that its rule asks for.
pub(crate) fn check_norm(scale: Option<f64>, step: &Step) -> Result<(), Error> {
    if scale.is_some() && step.grad_norm.is_none() {
        return Err(Error::Invalid { argument: "grad_norm", wanted: "the norm of all gradients" });
    }
    Ok(())
}

/// What a check says of arguments that a group may have brought: a weight decay below 0, which the
/// references refuse where an optimizer is made, they step with if it is a group's own.
pub(crate) fn check_group(checked: Result<(), Error>) -> Result<(), Error> {
    match checked {
        Err(Error::Range { argument: "weight_decay", value, .. }) if value < 0.0 => Ok(()),
        checked => checked,
    }
}

/// Runs `$body` with `I` bound to the index of `$mask` among the rule's masks, as a constant.
macro_rules! with_mask {
    ($rule:ty, $mask:expr, $I:ident => $body:expr) => {{
        const {
            assert!(<$rule>::MASKS.len() <= 4 && <$rule>::SUMS <= 2);
        }
        let mask = $mask;
        // The constant guards keep combinations that do not occur from being compiled.
        if const { <$rule>::MASKS.len() > 1 }
            && mask == const { $crate::rule::mask_at::<$rule, 1>() }
        {
            const $I: usize = 1;
            $body
        } else if const { <$rule>::MASKS.len() > 2 }
            && mask == const { $crate::rule::mask_at::<$rule, 2>() }
        {
            const $I: usize = 2;
            $body
        } else if const { <$rule>::MASKS.len() > 3 }
            && mask == const { $crate::rule::mask_at::<$rule, 3>() }
        {
            const $I: usize = 3;
            $body
        } else {
            const $I: usize = 0;
            $body
        }
    }};
}

pub(crate) use with_mask;

/// The mask at index I, or none at all.
#[inline(always)]
pub(crate) const fn mask_at<R: Rule, const I: usize>() -> u32 {
    let masks = R::MASKS;
    if I < masks.len() { masks[I] } else { 0 }
}

/// The sums of [`Rule::terms`] over a tensor, or over a part of one cut at a
/// multiple of [`reduce::PART`]; the sums of the parts are added by
/// [`reduce::sum`]. Slices shorter than `param` count as absent.
pub fn sums<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    coefs: &R::Coefs<C>,
    mask: u32,
    param: &[P],
    grad: &[G],
    slots: &R::Slots<&[S]>,
) -> [C::Scalar; 2] {
    with_mask!(R, mask, I => simd::dispatch_in::<C, _>(Sums::<R, C, P, G, S, I> { coefs, param, grad, slots }))
}

struct Sums<'a, 's, R: Rule, C: Real, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    param: &'a [P],
    grad: &'a [G],
    slots: &'a R::Slots<&'s [S]>,
}

impl<R: Rule, C: Real, P: Number, G: Number, S: Number, const I: usize>
    Sums<'_, '_, R, C, P, G, S, I>
{
    /// The terms from element `start` on; the second buffer is as long as the first, or empty.
    #[inline(always)]
    fn terms(&self, start: usize, [a, b]: [&mut [C::Scalar]; 2]) {
        let mask = const { mask_at::<R, I>() };
        let n = a.len();
        let part = start..start + n;
        let (Some(param), Some(grad)) = (self.param.get(part.clone()), self.grad.get(part.clone()))
        else {
            return;
        };
        let views = self.slots.as_ref();
        let slots = R::Slots::<&[S]>::from_fn(|k| {
            views.get(k).and_then(|s| s.get(part.clone())).unwrap_or_default()
        });
        let slots = slots.as_ref();
        if slots.iter().enumerate().any(|(k, s)| mask >> k & 1 == 1 && s.len() != n) {
            return;
        }
        let two = R::SUMS > 1 && b.len() == n;
        let coefs = *self.coefs;
        for i in 0..n {
            let state = R::Slots::<C>::from_fn(|k| {
                if mask >> k & 1 == 1 { read(slots[k], i) } else { C::ZERO }
            });
            let terms = R::terms::<C>(&coefs, read(param, i), read(grad, i), state);
            a[i] = terms[0];
            if two {
                b[i] = terms[1];
            }
        }
    }
}

impl<R: Rule, C: Real, P: Number, G: Number, S: Number, const I: usize> Kernel
    for Sums<'_, '_, R, C, P, G, S, I>
{
    type Output = [C::Scalar; 2];

    #[inline(always)]
    fn run(self) -> [C::Scalar; 2] {
        let n = self.param.len();
        if const { R::SUMS == 1 } {
            let [a] = reduce::sums_by_chunk::<_, 1>(n, self);
            [a, C::Scalar::ZERO]
        } else {
            reduce::sums_by_chunk::<_, 2>(n, self)
        }
    }
}

impl<R: Rule, C: Real, P: Number, G: Number, S: Number, const I: usize> Terms<C::Scalar, 1>
    for Sums<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn fill(&mut self, start: usize, [a]: [&mut [C::Scalar]; 1]) {
        self.terms(start, [a, &mut []]);
    }
}

impl<R: Rule, C: Real, P: Number, G: Number, S: Number, const I: usize> Terms<C::Scalar, 2>
    for Sums<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn fill(&mut self, start: usize, terms: [&mut [C::Scalar]; 2]) {
        self.terms(start, terms);
    }
}

/// Updates a tensor, or any part of one, with finished coefficients. Does
/// nothing if `grad` or a slot in use is shorter than `param`: [`step`] checks.
// Handed on in registers, but where code has to be small.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn apply<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    coefs: &R::Coefs<C>,
    mask: u32,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    with_mask!(R, mask, I => simd::dispatch_in::<C, _>(Apply::<R, C, P, G, S, I> { coefs, param, grad, slots }))
}

struct Apply<'a, 's, R: Rule, C: Real, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    param: &'a mut [P],
    grad: &'a [G],
    slots: R::Slots<&'s mut [S]>,
}

impl<R: Rule, C: Real, P: Number, G: Number, S: Number, const I: usize> Kernel
    for Apply<'_, '_, R, C, P, G, S, I>
{
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let mask = const { mask_at::<R, I>() };
        let n = self.param.len();
        let param = self.param;
        let Some(grad) = self.grad.get(..n) else { return };
        let mut views = self.slots.as_mut().iter_mut();
        let mut slots = R::Slots::<&mut [S]>::from_fn(|_| {
            views.next().and_then(|s| s.get_mut(..n)).unwrap_or_default()
        });
        let slots = slots.as_mut();
        if slots.iter().enumerate().any(|(k, s)| mask >> k & 1 == 1 && s.len() != n) {
            return;
        }
        let coefs = *self.coefs;
        if const { FEW > 0 && is_single::<C, P>() && is_single::<P, G>() && is_single::<G, S>() }
            && n < 2 * FEW
        {
            return few::<R, C, P, G, S>(&coefs, mask, param, grad, slots);
        }
        for i in 0..n {
            let state = R::Slots::<C>::from_fn(|k| {
                if mask >> k & 1 == 1 { read(slots[k], i) } else { C::ZERO }
            });
            let (p, state) = R::element::<C>(&coefs, C::load(param[i]), C::load(grad[i]), state);
            param[i] = p.store();
            for (k, &x) in state.as_ref().iter().enumerate() {
                if mask >> k & 1 == 1 {
                    write(slots[k], i, x);
                }
            }
        }
    }
}

/// Numbers in a vector of the widest unit.
const FEW: usize = if cfg!(all(feature = "std", target_arch = "x86_64")) { 16 } else { 0 };

const fn is_single<A: Number, B: Number>() -> bool {
    matches!(A::DTYPE, Dtype::F32) && matches!(B::DTYPE, Dtype::F32)
}

/// [`apply`] to less than a loop of vectors pays for: by way of arrays, which a compiler need not
/// ask whether they overlap.
#[inline(always)]
fn few<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    coefs: &R::Coefs<C>,
    mask: u32,
    param: &mut [P],
    grad: &[G],
    slots: &mut [&mut [S]],
) {
    #[inline(always)]
    fn load<C: Real, T: Number>(from: &[T], start: usize) -> [C; FEW] {
        let from = from.get(start..).unwrap_or_default();
        if let Some(from) = from.first_chunk::<FEW>() {
            return from.map(C::load); // no call to copy a few bytes
        }
        let mut all = [C::ZERO; FEW];
        for (x, &from) in all.iter_mut().zip(from) {
            *x = C::load(from);
        }
        all
    }
    #[inline(always)]
    fn store<C: Real, T: Number>(to: &mut [T], start: usize, all: &[C; FEW]) {
        let to = to.get_mut(start..).unwrap_or_default();
        if let Some(to) = to.first_chunk_mut::<FEW>() {
            *to = all.map(C::store);
            return;
        }
        for (to, x) in to.iter_mut().zip(all) {
            *to = x.store();
        }
    }
    for start in (0..param.len()).step_by(FEW.max(1)) {
        let (mut p, g) = (load::<C, P>(param, start), load::<C, G>(grad, start));
        let mut state = R::Slots::<[C; FEW]>::from_fn(|k| match slots.get(k) {
            Some(slot) if mask >> k & 1 == 1 => load(slot, start),
            _ => [C::ZERO; FEW],
        });
        let each = state.as_mut();
        for i in 0..FEW {
            let (to, next) = R::element::<C>(coefs, p[i], g[i], R::Slots::from_fn(|k| each[k][i]));
            p[i] = to;
            for (each, &x) in each.iter_mut().zip(next.as_ref()) {
                each[i] = x;
            }
        }
        store(param, start, &p);
        for (k, (slot, each)) in slots.iter_mut().zip(&*each).enumerate() {
            if mask >> k & 1 == 1 {
                store(slot, start, each);
            }
        }
    }
}

/// Element i of a slice. It is there: the lengths have been checked. A compiler for small
/// processors does not always see that, and a panic is not to be linked there; one for vector
/// units vectorises the loop only if it is told that nothing else can happen.
#[inline(always)]
fn read<C: Real, T: Number>(from: &[T], i: usize) -> C {
    if cfg!(target_os = "none") {
        from.get(i).map_or(C::ZERO, |&x| C::load(x))
    } else {
        C::load(from[i])
    }
}

/// The same, to write.
#[inline(always)]
fn write<C: Real, T: Number>(to: &mut [T], i: usize, x: C) {
    if cfg!(target_os = "none") {
        if let Some(to) = to.get_mut(i) {
            *to = x.store();
        }
    } else {
        to[i] = x.store();
    }
}
