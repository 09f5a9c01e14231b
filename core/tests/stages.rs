//! Optimizers that no kind of rule covers, written against the public interface alone: CAME, two factored rules one after
//! the other, and SOAP, matrices and an elementwise update between them. They hold [`DynRule`] to being enough for such.
//!
//! Expected values: pytorch_optimizer 4.1.0 (`CAME`, `SOAP`), torch 2.15.0, `float64` on a CPU.

use bitstep::float::{ComputeFloat, Dtype};
use bitstep::hyper::{FieldVisitor, HyperParams};
use bitstep::math::matmul::{MatrixView, gram, matmul};
use bitstep::math::reduce;
use bitstep::rule::factored::{FactoredRule, FactoredUpdate, MatrixLayout};
use bitstep::rule::{
    ComputePolicy, DynRule, Rule, RuleInfo, ScalarState, SlotInit, StepContext, UpdateBuffers,
};
use bitstep::storage::{Data, DataMut, Plain, numel};
use bitstep::{prelude::*, rule};

/// CAME: Adafactor's update, whose momentum is divided by the root of a second pair of row and column averages: those of
/// the squared differences between update and momentum. Without `ams_bound`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Came {
    lr: f64,
    betas: [f64; 3],
    weight_decay: f64,
    clip_threshold: f64,
    eps1: f64,
    eps2: f64,
}

impl HyperParams for Came {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("clip_threshold", &mut self.clip_threshold);
        f.f64("eps1", &mut self.eps1);
        f.f64("eps2", &mut self.eps2);
    }
}

/// What both stages have in common.
#[derive(Clone, Copy)]
struct Coefs<S> {
    /// The decay of the stage's row and column averages, and one minus it.
    beta: [S; 2],
    /// Added to the squares that they average.
    eps: S,
    one_minus_beta1: S,
    clip_threshold: S,
    clip: S,
    lr: S,
    keep: S,
    is_single: bool,
}

impl Came {
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, beta: f64, eps: f64) -> Coefs<C::Scalar> {
        Coefs {
            beta: [C::scalar(beta), C::scalar(1.0 - beta)],
            eps: C::scalar(eps),
            one_minus_beta1: C::scalar(1.0 - self.betas[0]),
            clip_threshold: C::scalar(self.clip_threshold),
            clip: C::Scalar::ONE,
            lr: C::scalar(step.lr),
            keep: C::scalar(1.0 - step.lr * self.weight_decay),
            is_single: step.is_single(),
        }
    }
}

/// The moments of a factored stage: those of Adafactor.
macro_rules! moments {
    () => {
        fn accumulate_term<C: ComputeFloat>(k: &Self::Coefs<C>, g: C) -> C::Scalar {
            (g * g).widen().add_scalar(k.eps)
        }
        fn update_moment<C: ComputeFloat>(k: &Self::Coefs<C>, old: C, mean: C) -> C {
            old.mul_scalar(k.beta[0]).add_scaled(mean, k.beta[1])
        }
        fn row_factor<C: ComputeFloat>(_: &Self::Coefs<C>, row: C, mean_of_rows: C) -> C {
            (row / mean_of_rows).rsqrt()
        }
        fn col_factor<C: ComputeFloat>(_: &Self::Coefs<C>, col: C) -> C {
            col.rsqrt()
        }
        fn element_scale<C: ComputeFloat>(_: &Self::Coefs<C>, row: C, col: C, _: C) -> C {
            row * col
        }
    };
}

/// The first stage: from the gradient to the momentum. Its parameter is a buffer, which becomes the difference of update
/// and momentum, the gradient of the second stage.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Momentum(Came);

impl HyperParams for Momentum {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        self.0.fields(f);
    }
}

impl Momentum {
    fn next<C: ComputeFloat>(k: &Coefs<C::Scalar>, u: C, m: C) -> (C, C) {
        let u = u.div_scalar(k.clip);
        let m = m.add_scaled(u - m, k.one_minus_beta1);
        (u - m, m)
    }
}

impl Rule for Momentum {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "came_momentum";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b01, 0b11];
    const NUM_SUMS: usize = 1;

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
    fn lr(&self) -> f64 {
        self.0.lr
    }
    fn weight_decay(&self) -> f64 {
        self.0.weight_decay
    }
    fn active_slots(&self, _: Dtype) -> u32 {
        0b11
    }
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Self::Coefs<C> {
        self.0.coefs::<C>(step, self.0.betas[1], self.0.eps1)
    }
    fn sum_terms<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        _: C,
        g: C,
        [_, v]: [C; 2],
    ) -> [C::Scalar; 2] {
        let v = Self::update_moment(k, v, C::round_from(Self::accumulate_term(k, g)));
        [reduce::square((v.rsqrt() * g).widen(), k.is_single), C::Scalar::ZERO]
    }
    fn apply_sums<C: ComputeFloat>(k: &mut Self::Coefs<C>, [u, _]: [C::Scalar; 2], n: usize) {
        let rms = reduce::root(u, k.is_single) / C::scalar((n as f64).sqrt());
        k.clip = (rms / k.clip_threshold).maximum(C::Scalar::ONE);
    }
    fn update<C: ComputeFloat>(k: &Self::Coefs<C>, _: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let v = Self::update_moment(k, v, C::round_from(Self::accumulate_term(k, g)));
        let (p, m) = Self::next(k, v.rsqrt() * g, m);
        (p, [m, v])
    }
}

impl FactoredUpdate for Momentum {
    const SLOT_NAMES: &'static [&'static str] =
        &["exp_avg", "exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"];
    const FACTORED_SLOTS: u32 = 0b10;
    moments!();

    fn factored_terms<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        _: C,
        g: C,
        scale: C,
        _: [C; 2],
    ) -> [C::Scalar; 2] {
        [reduce::square((scale * g).widen(), k.is_single), C::Scalar::ZERO]
    }
    fn factored_update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        _: C,
        g: C,
        scale: C,
        [m, v]: [C; 2],
    ) -> (C, [C; 2]) {
        let (p, m) = Self::next(k, scale * g, m);
        (p, [m, v])
    }
}

/// The second stage: moves the parameter by the momentum, for matrices in proportion to the confidence in it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Confidence(Came);

impl HyperParams for Confidence {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        self.0.fields(f);
    }
}

impl Rule for Confidence {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "came_confidence";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    const SLOT_MASKS: &'static [u32] = &[0b1];

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
    fn lr(&self) -> f64 {
        self.0.lr
    }
    fn weight_decay(&self) -> f64 {
        self.0.weight_decay
    }
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Self::Coefs<C> {
        self.0.coefs::<C>(step, self.0.betas[2], self.0.eps2)
    }
    fn update<C: ComputeFloat>(k: &Self::Coefs<C>, p: C, _: C, [m]: [C; 1]) -> (C, [C; 1]) {
        (p.mul_scalar(k.keep) - m.mul_scalar(k.lr), [m])
    }
}

impl FactoredUpdate for Confidence {
    const SLOT_NAMES: &'static [&'static str] = &["exp_avg", "exp_avg_res_row", "exp_avg_res_col"];
    const FACTORED_SLOTS: u32 = 0;
    moments!();

    fn factored_terms<C: ComputeFloat>(
        _: &Self::Coefs<C>,
        _: C,
        _: C,
        _: C,
        _: [C; 1],
    ) -> [C::Scalar; 2] {
        [C::Scalar::ZERO; 2]
    }
    fn factored_update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        _: C,
        scale: C,
        [m]: [C; 1],
    ) -> (C, [C; 1]) {
        (p.mul_scalar(k.keep) - (scale * m).mul_scalar(k.lr), [m])
    }
}

impl Came {
    fn stages(&self) -> (FactoredRule<Momentum>, FactoredRule<Confidence>) {
        (FactoredRule(Momentum(*self)), FactoredRule(Confidence(*self)))
    }

    /// Slot k as one of the first stage (0 to 3), or of the second.
    fn slot(k: usize) -> Result<usize, usize> {
        if k < 4 { Ok(k) } else { Err(k - 3) }
    }

    /// Both stages, in the type that is computed in; `moved` is a number for each element.
    fn run<C: Plain>(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        mut t: UpdateBuffers<'_, '_>,
        scratch: &mut [C],
    ) -> Result<(), Error> {
        let (first, second) = self.stages();
        let (moved, scratch) = scratch.split_at_mut(numel(t.shape));
        let (shape, grad) = (t.shape, t.grad);
        let [m, v, row, col, res_row, res_col] = t.slots else { unreachable!("checked") };
        first.update(
            ComputePolicy::Fused,
            step,
            scalars,
            UpdateBuffers {
                shape,
                param: C::data_mut(moved),
                grad,
                slots: &mut [m.reborrow(), v.reborrow(), row.reborrow(), col.reborrow()],
                scratch: C::data_mut(scratch),
            },
        )?;
        second.update(
            ComputePolicy::Fused,
            step,
            scalars,
            UpdateBuffers {
                shape,
                param: t.param.reborrow(),
                grad: C::data(moved),
                slots: &mut [m.reborrow(), res_row.reborrow(), res_col.reborrow()],
                scratch: C::data_mut(scratch),
            },
        )
    }
}

impl DynRule for Came {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part("came");
    }
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
    fn info(&self) -> RuleInfo {
        const SLOTS: &[&str] = &[
            "exp_avg",
            "exp_avg_sq",
            "exp_avg_sq_row",
            "exp_avg_sq_col",
            "exp_avg_res_row",
            "exp_avg_res_col",
        ];
        RuleInfo { slots: SLOTS, ..self.stages().0.info() }
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        self
    }
    fn lr(&self) -> f64 {
        self.lr
    }
    fn initial_scalars(&self, index: usize) -> ScalarState {
        self.stages().0.initial_scalars(index)
    }
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        self.stages().0.advance_scalars(step, scalars);
    }
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize {
        let (first, second) = self.stages();
        match Self::slot(slot) {
            Ok(k) => first.slot_len(k, shape, compute),
            Err(k) => second.slot_len(k, shape, compute),
        }
    }
    fn slot_dtype(&self, _: usize, param: Dtype) -> Dtype {
        param
    }
    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Constant(0.0)
    }
    fn scratch_len(&self, shape: &[usize]) -> usize {
        numel(shape) + MatrixLayout::of(shape).map_or(0, MatrixLayout::scratch_len)
    }
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        scalars: &mut ScalarState,
        mut t: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        rule::check_tensor(self, policy, step, &t)?;
        match std::mem::replace(&mut t.scratch, DataMut::F32(&mut [])) {
            DataMut::F64(scratch) => self.run(step, scalars, t, scratch),
            DataMut::F32(scratch) => self.run(step, scalars, t, scratch),
            _ => Err(Error::InvalidArgument { argument: "scratch", expected: "f32 or f64" }),
        }
    }
    fn clone_box(&self) -> Box<dyn DynRule> {
        Box::new(*self)
    }
}

/// SOAP: Adam in the eigenbases of the averages of G Gᵀ and Gᵀ G, which an iteration and a QR decomposition follow every
/// `frequency` steps. Matrices only; the first step sets the bases alone.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Soap {
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    frequency: u64,
}

impl HyperParams for Soap {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.u64("precondition_frequency", &mut self.frequency);
    }
}

/// Moves `x` towards `to`.
fn lerp<C: ComputeFloat<Scalar = C>>(x: &mut [C], to: impl Iterator<Item = C>, weight: f64) {
    for (x, to) in x.iter_mut().zip(to) {
        *x = x.add_scaled(to - *x, C::from_f64(weight));
    }
}

/// The columns of a square matrix become orthonormal, one after the other: the Q of its QR decomposition.
fn orthonormal<C: ComputeFloat<Scalar = C>>(n: usize, q: &mut [C]) {
    for j in 0..n {
        for i in (0..j).chain(0..j) {
            let dot = reduce::sum(n, |k| q[k * n + i] * q[k * n + j]);
            (0..n).for_each(|k| q[k * n + j] = q[k * n + j] - dot * q[k * n + i]);
        }
        let norm = reduce::sum(n, |k| q[k * n + j] * q[k * n + j]).sqrt();
        (0..n).for_each(|k| q[k * n + j] = q[k * n + j] / norm);
    }
}

/// Two-sided Jacobi rotations: `a` becomes diagonal, the columns of `q` its eigenvectors.
fn eigenvectors<C: ComputeFloat<Scalar = C>>(n: usize, a: &mut [C], q: &mut [C]) {
    (0..n * n).for_each(|i| q[i] = if i % (n + 1) == 0 { C::ONE } else { C::ZERO });
    for (i, j) in (0..30).flat_map(|_| (0..n).flat_map(move |j| (0..j).map(move |i| (i, j)))) {
        let off = a[i * n + j];
        if off == C::ZERO {
            continue;
        }
        let theta = (a[j * n + j] - a[i * n + i]) / (off + off);
        let root = (theta * theta + C::ONE).sqrt();
        let t = (if theta < C::ZERO { -C::ONE } else { C::ONE }) / (theta.abs() + root);
        let c = C::ONE / (t * t + C::ONE).sqrt();
        let rotate = |m: &mut [C], x: usize, y: usize| {
            (m[x], m[y]) = (c * m[x] - t * c * m[y], t * c * m[x] + c * m[y]);
        };
        for k in 0..n {
            rotate(a, k * n + i, k * n + j);
            rotate(q, k * n + i, k * n + j);
        }
        for k in 0..n {
            rotate(a, i * n + k, j * n + k);
        }
    }
}

/// The indices of `values`, the largest first.
fn descending<C: ComputeFloat>(values: impl Iterator<Item = C>) -> Vec<usize> {
    let values: Vec<_> = values.collect();
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap_or(std::cmp::Ordering::Equal));
    order
}

/// `from` with its columns in another order.
fn permute_columns<C: Copy>(order: &[usize], from: &mut [C]) {
    for row in from.chunks_mut(order.len()) {
        let old = row.to_vec();
        row.iter_mut().zip(order).for_each(|(x, &k)| *x = old[k]);
    }
}

impl Soap {
    fn run<C: Plain + ComputeFloat<Scalar = C>>(
        &self,
        t: u64,
        lr: f64,
        [rows, cols]: [usize; 2],
        tensors: [&mut [C]; 7],
        grad: &[C],
        scratch: &mut [C],
    ) {
        let [param, m, v, left, right, q_left, q_right] = tensors;
        let n = rows * cols;
        let square = rows.max(cols).pow(2);
        let (a, rest) = scratch.split_at_mut(n);
        let (b, rest) = rest.split_at_mut(n);
        let (c, rest) = rest.split_at_mut(square);
        let weights = self.betas.map(|beta| 1.0 - beta);
        if t > 1 {
            // Qᵀ x Q', and back.
            let project = |q: [&[C]; 2], x: &[C], between: &mut [C], out: &mut [C]| {
                let [q, q2] = [MatrixView::new(q[0], rows), MatrixView::new(q[1], cols)];
                matmul([rows, rows, cols], q.transposed(), MatrixView::new(x, cols), between);
                matmul([rows, cols, cols], MatrixView::new(between, cols), q2, out);
            };
            project([q_left, q_right], grad, a, b);
            lerp(m, grad.iter().copied(), weights[0]);
            lerp(v, b.iter().map(|&x| x * x), weights[1]);
            project([q_left, q_right], m, a, b);
            for (x, v) in b.iter_mut().zip(&*v) {
                *x = *x / v.sqrt().add_scalar(C::from_f64(self.eps));
            }
            let [q, q2] = [MatrixView::new(q_left, rows), MatrixView::new(q_right, cols)];
            matmul([rows, rows, cols], q, MatrixView::new(b, cols), a);
            matmul([rows, cols, cols], MatrixView::new(a, cols), q2.transposed(), b);
            let corrections = self.betas.map(|beta| 1.0 - beta.powf((t - 1) as f64));
            let size = C::from_f64(lr * (corrections[1].sqrt() / corrections[0]));
            for (p, x) in param.iter_mut().zip(&*b) {
                *p =
                    (*p - x.mul_scalar(size)).mul_scalar(C::from_f64(1.0 - lr * self.weight_decay));
            }
        }
        let g = MatrixView::new(grad, cols);
        for (n, gg, product) in [(rows, &mut *left, g), (cols, &mut *right, g.transposed())] {
            let other = grad.len() / n;
            gram([n, other], product, &mut c[..n * n]);
            lerp(gg, c.iter().copied(), weights[1]);
        }
        for (n, gg, q, is_left) in [(rows, left, q_left, true), (cols, right, q_right, false)] {
            let (c, rest) = (&mut c[..n * n], &mut rest[..n * n]);
            if t == 1 {
                c.copy_from_slice(gg);
                eigenvectors(n, c, q);
                permute_columns(&descending((0..n).map(|i| c[i * (n + 1)])), q);
            } else if (t - 1).is_multiple_of(self.frequency) {
                matmul([n, n, n], MatrixView::new(gg, n), MatrixView::new(q, n), rest);
                let along = |j: usize| reduce::sum(n, |k| q[k * n + j] * rest[k * n + j]);
                let order = descending((0..n).map(along));
                permute_columns(&order, rest);
                orthonormal(n, rest);
                q.copy_from_slice(rest);
                if is_left {
                    let old = v.to_vec();
                    let rows = order.iter().flat_map(|&i| &old[i * cols..(i + 1) * cols]);
                    v.iter_mut().zip(rows).for_each(|(x, &old)| *x = old);
                } else {
                    permute_columns(&order, v);
                }
            }
        }
    }
}

impl DynRule for Soap {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part("soap");
    }
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
    fn info(&self) -> RuleInfo {
        // What is said of the group and of counters is what it is for AdamW.
        const SLOTS: &[&str] = &["exp_avg", "exp_avg_sq", "GG_0", "GG_1", "Q_0", "Q_1"];
        RuleInfo { slots: SLOTS, is_elementwise: false, is_eager: false, ..AdamW::DEFAULT.info() }
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        self
    }
    fn lr(&self) -> f64 {
        self.lr
    }
    fn initial_scalars(&self, _: usize) -> ScalarState {
        ScalarState::default()
    }
    fn advance_scalars(&self, _: &StepContext, _: &mut ScalarState) {}
    fn check_shape(&self, shape: &[usize]) -> Result<(), Error> {
        match shape {
            [rows, cols] if *rows > 0 && *cols > 0 => Ok(()),
            _ => Err(Error::InvalidArgument {
                argument: "shape",
                expected: "a matrix with elements",
            }),
        }
    }
    fn slot_len(&self, slot: usize, shape: &[usize], _: Dtype) -> usize {
        match (slot, shape) {
            (0 | 1, _) => numel(shape),
            (_, &[rows, cols]) => {
                let n = if slot.is_multiple_of(2) { rows } else { cols };
                numel(&[n, n])
            }
            _ => 0,
        }
    }
    fn slot_shape(&self, slot: usize, shape: &[usize], dims: &mut dyn FnMut(usize)) {
        match (slot, shape) {
            (2.., &[rows, cols]) => {
                (0..2).for_each(|_| dims(if slot.is_multiple_of(2) { rows } else { cols }))
            }
            _ => shape.iter().for_each(|&d| dims(d)),
        }
    }
    fn slot_dtype(&self, _: usize, param: Dtype) -> Dtype {
        param
    }
    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Constant(0.0)
    }
    fn scratch_len(&self, shape: &[usize]) -> usize {
        let longest = shape.iter().copied().max().unwrap_or(0);
        [numel(shape), numel(&[longest, longest])].map(|n| n.saturating_mul(2)).iter().sum()
    }
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        _: &mut ScalarState,
        mut t: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        fn all<C: Plain + ComputeFloat<Scalar = C>>(
            rule: &Soap,
            step: &StepContext,
            t: &mut UpdateBuffers<'_, '_>,
        ) -> Option<()> {
            let &[rows, cols] = t.shape else { return None };
            let [m, v, left, right, q_left, q_right] = t.slots else { return None };
            let of = C::of_mut;
            let slots = [
                of(&mut t.param)?,
                of(m)?,
                of(v)?,
                of(left)?,
                of(right)?,
                of(q_left)?,
                of(q_right)?,
            ];
            let (grad, scratch) = (C::of(&t.grad)?, of(&mut t.scratch)?);
            rule.run(step.t, step.lr, [rows, cols], slots, grad, scratch);
            Some(())
        }
        rule::check_tensor(self, policy, step, &t)?;
        all::<f64>(self, step, &mut t).or_else(|| all::<f32>(self, step, &mut t)).ok_or(
            Error::InvalidArgument {
                argument: "param",
                expected: "f32 or f64, with state of the same type",
            },
        )
    }
    fn clone_box(&self) -> Box<dyn DynRule> {
        Box::new(*self)
    }
}

/// The parameter after steps with the gradients that the reference was given.
fn steps(rule: impl DynRule, shape: &[usize], count: usize) -> Vec<f64> {
    let n = numel(shape);
    let mut p: Vec<f64> = (0..n).map(|i| ((i % 5) as f64 - 2.0) / 2.0).collect();
    let mut opt = Optimizer::new(OptimizerSpec::new(rule, ComputePolicy::Fused)).unwrap();
    let w = opt.add_param(shape, Dtype::F64).unwrap();
    for k in 0..count {
        let g: Vec<f64> = (0..n).map(|i| (((i * 7 + k * 5) % 11) as f64 - 5.0) / 4.0).collect();
        opt.step([(w, (&mut p).into(), Data::from(&g))]).unwrap();
        // Saved in mid-run and loaded into a new one: it goes on alike.
        let saved = opt.save().unwrap();
        opt.load(&saved).unwrap();
    }
    p
}

fn close(got: &[f64], want: &[f64], within: f64) {
    assert_eq!(got.len(), want.len());
    for (a, b) in got.iter().zip(want) {
        assert!((a - b).abs() <= within * b.abs().max(1.0), "{got:?}");
    }
}

const CAME: Came = Came {
    lr: 0.01,
    betas: [0.9, 0.999, 0.9999],
    weight_decay: 0.1,
    clip_threshold: 1.0,
    eps1: 1e-30,
    eps2: 1e-16,
};

#[test]
fn came_is_two_factored_stages() {
    let want = [
        -0.7691767120872868,
        -0.37237436804606766,
        0.05575930941034761,
        0.1049716755904238,
        1.0894747718038187,
        -0.6651537936998657,
        -0.8435751995840944,
        -0.29326064170885036,
        0.9070327894737127,
        0.9118454528854611,
        -1.1442395634942102,
        -0.2806031519941045,
    ];
    close(&steps(CAME, &[3, 4], 4), &want, 1e-13);
    let want = [
        -0.9948933518641339,
        -0.4973591029424872,
        0.0018197171532000293,
        0.49363544918984903,
        0.994956052712255,
    ];
    close(&steps(CAME, &[5], 4), &want, 1e-13);
}

#[test]
fn soap_is_products_around_an_elementwise_update() {
    let rule = Soap { lr: 0.01, betas: [0.95, 0.95], eps: 1e-8, weight_decay: 0.1, frequency: 2 };
    let want = [
        -0.9985929008580916,
        -0.46138039128685376,
        0.020124783750326336,
        0.5084453611194426,
        1.0201585571960476,
        -0.9749482348311953,
        -0.4875280551529183,
        -0.02816788040106605,
        0.5146075664409551,
        1.0154319487496746,
        -1.0264576673172414,
        -0.5272261800660816,
    ];
    // The reference takes its QR decompositions in `f32`.
    close(&steps(rule, &[3, 4], 5), &want, 1e-7);
}
