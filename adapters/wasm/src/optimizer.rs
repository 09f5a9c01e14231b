//! An optimizer that owns its state.

use bitstep::optimizer::{Buffer, GroupId, ParamId};
use bitstep::rule::mode::Mode;
use bitstep::schedule::Scheduler;
use bitstep::storage::DataMut;
use bitstep::{Error, registry};
use js_sys::{Array, Float64Array, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::args::{args, args_to_js, list, name, number, numbers, object, shape, whole};
use crate::error::{Refusal, Result};
use crate::memory::{ArrayOf, Tensor, bytes, dtype};
use crate::schedule::{Schedule, metrics};

/// Groups of parameters and their state.
#[wasm_bindgen]
pub struct Optimizer {
    inner: bitstep::optimizer::Optimizer,
    own: Vec<Own>,
}

/// Memory of a parameter in the module.
#[derive(Default)]
struct Own {
    /// What [`Optimizer::value`] and [`Optimizer::grad`] show.
    value: Option<Tensor>,
    grad: Option<Tensor>,
    /// Copies of the caller's arrays while a step runs.
    staged_value: Option<Tensor>,
    staged_grad: Option<Tensor>,
}

/// An update with the caller's arrays, checked.
struct Update {
    value: ArrayOf,
    grad: ArrayOf,
}

/// What `step` takes.
#[wasm_bindgen(typescript_custom_section)]
const UPDATES: &str = r#"
/** A parameter of an optimizer with the arrays of its value and gradient. */
export type Update = readonly [param: number, value: Numbers, grad: Numbers];
"#;

#[wasm_bindgen]
impl Optimizer {
    /// An optimizer with one group of this name, or without any: `new Optimizer("adamw_torch", { lr: 1e-3 })`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        #[wasm_bindgen(js_name = name, unchecked_optional_param_type = "string")] optim: &JsValue,
        #[wasm_bindgen(js_name = args, unchecked_optional_param_type = "Arguments")]
        given: &JsValue,
    ) -> Result<Optimizer> {
        let inner = bitstep::optimizer::Optimizer::empty();
        let mut optimizer = Optimizer { inner, own: Vec::new() };
        if !optim.is_undefined() {
            optimizer.add_group(optim, given)?;
        }
        Ok(optimizer)
    }

    /// Adds a group of parameters and returns its index.
    #[wasm_bindgen(js_name = addGroup)]
    pub fn add_group(
        &mut self,
        #[wasm_bindgen(js_name = name, unchecked_param_type = "string")] optim: &JsValue,
        #[wasm_bindgen(js_name = args, unchecked_optional_param_type = "Arguments")]
        given: &JsValue,
    ) -> Result<usize> {
        let spec = registry::optimizer(&name("name", optim)?, args(given)?)?;
        Ok(self.inner.add_group(spec)?.0)
    }

    /// Adds a parameter of this shape to a group (the latest) and returns its index. `dtype` is `f32` if it is left out.
    #[wasm_bindgen(js_name = addParam)]
    pub fn add_param(
        &mut self,
        #[wasm_bindgen(js_name = shape, unchecked_param_type = "number | readonly number[]")]
        dimensions: &JsValue,
        #[wasm_bindgen(js_name = dtype, unchecked_optional_param_type = "Dtype")] of: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "number")] group: &JsValue,
    ) -> Result<usize> {
        let (shape, dtype) = (shape(dimensions)?, dtype(of)?);
        let id = match group.is_undefined() {
            true => self.inner.add_param(&shape, dtype)?,
            false => self.inner.add_param_to(GroupId(whole("group", group)?), &shape, dtype)?,
        };
        self.own.resize_with(self.inner.params().len(), Own::default);
        Ok(id.0)
    }

    /// The parameter's numbers in the module's memory, zeros at first: a view, so that a step copies nothing. It is
    /// valid until something takes more memory, and is empty then: get it anew before each use, and not after `free`.
    #[wasm_bindgen(unchecked_return_type = "Numbers")]
    pub fn value(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "number")] param: &JsValue,
    ) -> Result<JsValue> {
        self.view(param, |own| &mut own.value)
    }

    /// The parameter's gradient in the module's memory, as `value` is.
    #[wasm_bindgen(unchecked_return_type = "Numbers")]
    pub fn grad(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "number")] param: &JsValue,
    ) -> Result<JsValue> {
        self.view(param, |own| &mut own.grad)
    }

    /// One step. With `updates`, of these parameters, whose arrays are copied in and, the values, out again:
    /// `step([[weight, values, gradient]])`. Without, of all parameters of which `value` and `grad` have been asked for.
    /// Other parameters keep their values, state and step counts. `extra` are the named numbers that some rules use:
    /// `{ train_loss: 0.5 }`.
    pub fn step(
        &mut self,
        #[wasm_bindgen(unchecked_optional_param_type = "readonly Update[] | null")]
        updates: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "{ readonly [name: string]: number }")]
        extra: &JsValue,
    ) -> Result<()> {
        let extra = self.extra(extra)?;
        let extra: Vec<_> = extra.iter().map(|(name, x)| (name.as_str(), *x)).collect();
        if updates.is_undefined() || updates.is_null() {
            let own = self.own.iter_mut().enumerate();
            let updates = own.filter_map(|(id, own)| {
                Some((ParamId(id), own.value.as_mut()?.data_mut(), own.grad.as_ref()?.data()))
            });
            return Ok(self.inner.step_with(updates, &extra)?);
        }
        let updates = self.updates(&list("updates", updates)?)?;
        for (own, update) in self.own.iter_mut().zip(&updates) {
            if let (Own { staged_value: Some(value), staged_grad: Some(grad), .. }, Some(update)) =
                (own, update)
            {
                value.copy_from(&update.value);
                grad.copy_from(&update.grad);
            }
        }
        let staged = self.own.iter_mut().zip(&updates).enumerate();
        let staged = staged.filter_map(|(id, (own, update))| {
            update.as_ref()?;
            let (value, grad) = (own.staged_value.as_mut()?, own.staged_grad.as_ref()?);
            Some((ParamId(id), value.data_mut(), grad.data()))
        });
        self.inner.step_with(staged, &extra)?;
        for (own, update) in self.own.iter().zip(&updates) {
            if let (Some(value), Some(update)) = (&own.staged_value, update) {
                value.copy_to(&update.value);
            }
        }
        Ok(())
    }

    /// Converts parameters to the values to evaluate, in place: other ones than those to train with schedule-free
    /// optimizers only. Steps are refused until `train`. `values` are all parameters in their order; without, they are
    /// those in the module's memory.
    pub fn eval(
        &mut self,
        #[wasm_bindgen(unchecked_optional_param_type = "readonly Numbers[]")] values: &JsValue,
    ) -> Result<()> {
        self.switch(Mode::Eval, values)
    }

    /// Converts parameters back to the values to train.
    pub fn train(
        &mut self,
        #[wasm_bindgen(unchecked_optional_param_type = "readonly Numbers[]")] values: &JsValue,
    ) -> Result<()> {
        self.switch(Mode::Train, values)
    }

    /// Clips the gradients in the module's memory to a total norm of at most `maxNorm`, as torch's `clip_grad_norm_`
    /// does, and returns the norm before. `normType` is its order, 2 if it is left out.
    #[wasm_bindgen(js_name = clipGradNorm)]
    pub fn clip_grad_norm(
        &mut self,
        #[wasm_bindgen(js_name = maxNorm, unchecked_param_type = "number")] max_norm: &JsValue,
        #[wasm_bindgen(js_name = normType, unchecked_optional_param_type = "number")]
        norm_type: &JsValue,
    ) -> Result<f64> {
        let clip = crate::gradient::clip(max_norm, norm_type)?;
        let grads = self.own.iter_mut().filter_map(|own| own.grad.as_mut());
        let mut grads: Vec<_> = grads.map(Tensor::data_mut).collect();
        Ok(clip.clip(&mut grads)?)
    }

    /// A group's learning rate.
    pub fn lr(
        &self,
        #[wasm_bindgen(unchecked_optional_param_type = "number")] group: &JsValue,
    ) -> Result<f64> {
        Ok(self.group(group)?.1.lr)
    }

    /// Sets a group's learning rate. One below 0 and NaN are refused, as by every reference's constructor.
    #[wasm_bindgen(js_name = setLr)]
    pub fn set_lr(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "number")] lr: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "number")] group: &JsValue,
    ) -> Result<()> {
        let lr = number("lr", lr)?;
        bitstep::error::ensure_not_negative("lr", lr)?;
        let id = self.group(group)?.0;
        if let Some(group) = self.inner.groups_mut().get_mut(id.0) {
            group.lr = lr;
        }
        Ok(())
    }

    /// A group's arguments, with their defaults.
    #[wasm_bindgen(unchecked_return_type = "{ [name: string]: Value }")]
    pub fn args(
        &self,
        #[wasm_bindgen(unchecked_optional_param_type = "number")] group: &JsValue,
    ) -> Result<JsValue> {
        let mut rule = self.group(group)?.1.spec.rule.clone();
        Ok(args_to_js(&bitstep::hyper::Args::of(rule.hyper_params())))
    }

    /// Changes arguments of a group during training, as assigning to the reference's `param_groups` does. `lr` has a
    /// method of its own.
    #[wasm_bindgen(js_name = setArgs)]
    pub fn set_args(
        &mut self,
        #[wasm_bindgen(js_name = args, unchecked_param_type = "Arguments")] given: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "number")] group: &JsValue,
    ) -> Result<()> {
        let id = self.group(group)?.0;
        Ok(self.inner.set_args(id, &args(given)?)?)
    }

    /// Sets the groups' learning rates, and their momentum if the schedule cycles it, to a schedule's current ones.
    pub fn follow(&mut self, schedule: &Schedule) -> Result<()> {
        let groups = self.all_groups();
        Ok(self.inner.follow(schedule.inner(), &groups)?)
    }

    /// Steps a schedule of all groups, and follows it. `metrics` are those of `Schedule.step`.
    #[wasm_bindgen(js_name = stepSchedule)]
    pub fn step_schedule(
        &mut self,
        schedule: &mut Schedule,
        #[wasm_bindgen(js_name = metrics, unchecked_optional_param_type = "number | readonly number[]")]
        given: &JsValue,
    ) -> Result<()> {
        let groups = self.all_groups();
        let scheduler: &mut Scheduler = schedule.inner_mut();
        Ok(self.inner.step_schedule(scheduler, &groups, &metrics(given)?)?)
    }

    /// The state of a parameter: its slots as numbers, decoded, under the reference's keys.
    #[wasm_bindgen(unchecked_return_type = "{ [slot: string]: Float64Array }")]
    pub fn state(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "number")] param: &JsValue,
    ) -> Result<JsValue> {
        let id = self.param(param)?;
        let info = match self.inner.param(id) {
            Some(param) => self.inner.groups().get(param.group.0).map(|g| g.spec.rule.info()),
            None => None,
        };
        let names = info.map_or(&[][..], |info| info.slots);
        let Some(state) = self.inner.params_mut().get_mut(id.0) else {
            return Err(NO_PARAM.into());
        };
        let slots = names.iter().zip(&mut state.slots).filter(|(_, slot)| !slot.is_empty());
        let slots = slots.map(|(&name, slot)| Ok((name, decoded(slot)?.into())));
        Ok(object(slots.collect::<Result<Vec<_>>>()?))
    }

    /// A parameter's steps so far.
    pub fn steps(
        &self,
        #[wasm_bindgen(unchecked_param_type = "number")] param: &JsValue,
    ) -> Result<f64> {
        let id = self.param(param)?;
        Ok(self.inner.param(id).map_or(0.0, |param| param.steps as f64))
    }

    /// State, step counts and learning rates as bytes, the same on every machine and in every language. Parameters and
    /// the other arguments are not among them.
    pub fn save(&self) -> Result<Uint8Array> {
        Ok(Uint8Array::from(&self.inner.save()?[..]))
    }

    /// Restores what `save` returned, in an optimizer with the same groups and parameters.
    pub fn load(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] saved: &JsValue,
    ) -> Result<()> {
        Ok(self.inner.load(&bytes("saved", saved)?)?)
    }
}

const NO_PARAM: Error =
    Error::InvalidArgument { argument: "param", expected: "the index of a parameter" };
const NO_GROUP: Error =
    Error::InvalidArgument { argument: "group", expected: "the index of a group" };

/// A slot's numbers.
fn decoded(slot: &mut Buffer) -> Result<Float64Array> {
    let len = slot.len();
    let mut all = bitstep::storage::memory::filled("state", 0.0, len)?;
    match slot.data_mut() {
        DataMut::F64(x) => all.copy_from_slice(x),
        DataMut::F32(x) => all.iter_mut().zip(x).for_each(|(to, x)| *to = f64::from(*x)),
        DataMut::Bf16(x) => all.iter_mut().zip(x).for_each(|(to, x)| *to = f64::from(*x)),
        DataMut::F16(x) => all.iter_mut().zip(x).for_each(|(to, x)| *to = f64::from(*x)),
        DataMut::Encoded(storage) => {
            let block = storage.block().max(1);
            let mut numbers = bitstep::storage::memory::filled("state", 0.0f32, block)?;
            for (k, to) in all.chunks_mut(block).enumerate() {
                let numbers = numbers.get_mut(..to.len()).unwrap_or_default();
                storage.load(k * block, numbers);
                to.iter_mut().zip(numbers).for_each(|(to, x)| *to = f64::from(*x));
            }
        }
    }
    Ok(Float64Array::from(&all[..]))
}

impl Optimizer {
    fn param(&self, param: &JsValue) -> Result<ParamId> {
        let id = ParamId(whole("param", param)?);
        match self.inner.param(id) {
            Some(_) => Ok(id),
            None => Err(NO_PARAM.into()),
        }
    }

    fn group(&self, group: &JsValue) -> Result<(GroupId, &bitstep::optimizer::Group)> {
        let id = if group.is_undefined() { 0 } else { whole("group", group)? };
        let group = self.inner.groups().get(id).ok_or(NO_GROUP)?;
        Ok((GroupId(id), group))
    }

    fn all_groups(&self) -> Vec<GroupId> {
        (0..self.inner.groups().len()).map(GroupId).collect()
    }

    fn view(
        &mut self,
        param: &JsValue,
        of: fn(&mut Own) -> &mut Option<Tensor>,
    ) -> Result<JsValue> {
        let id = self.param(param)?;
        let (Some(param), Some(own)) = (self.inner.param(id), self.own.get_mut(id.0)) else {
            return Err(NO_PARAM.into());
        };
        let own = of(own);
        if own.is_none() {
            *own = Some(Tensor::zeros(param.dtype, param.shape.iter().product())?);
        }
        Ok(own.as_mut().map_or(JsValue::UNDEFINED, |tensor| tensor.view().into()))
    }

    fn extra(&self, given: &JsValue) -> Result<Vec<(String, f64)>> {
        let extra = numbers("extra", given)?;
        let known = |name: &str| {
            let rules = self.inner.groups().iter().map(|group| group.spec.rule.info());
            rules.into_iter().any(|info| info.extra_args.contains(&name))
        };
        match extra.iter().find(|(name, _)| !known(name)) {
            None => Ok(extra),
            Some((name, _)) => {
                Err(Refusal::Message(format!("`extra` has `{name}`, which no rule listens to")))
            }
        }
    }

    /// Reads updates, and makes room for their copies; an entry for each parameter.
    fn updates(&mut self, updates: &Array) -> Result<Vec<Option<Update>>> {
        let mut all: Vec<Option<Update>> = Vec::new();
        all.resize_with(self.inner.params().len(), || None);
        for update in updates.iter() {
            let update = list("updates", &update)?;
            let id = self.param(&update.get(0))?;
            let (Some(param), Some(own), Some(entry)) =
                (self.inner.param(id), self.own.get_mut(id.0), all.get_mut(id.0))
            else {
                return Err(NO_PARAM.into());
            };
            if entry.is_some() {
                let expected = "each parameter once";
                return Err(Error::InvalidArgument { argument: "updates", expected }.into());
            }
            let value = ArrayOf::of("value", &update.get(1), param.dtype)?;
            let grad = ArrayOf::of("grad", &update.get(2), param.dtype)?;
            *entry = Some(Update { value, grad });
            let len = param.shape.iter().product();
            for staged in [&mut own.staged_value, &mut own.staged_grad] {
                if staged.is_none() {
                    *staged = Some(Tensor::zeros(param.dtype, len)?);
                }
            }
        }
        // Only now: an array may be a view of memory that has just grown.
        for (update, param) in all.iter().zip(self.inner.params()) {
            if let Some(update) = update {
                let len = param.shape.iter().product();
                update.value.expect_len("value", len)?;
                update.grad.expect_len("grad", len)?;
            }
        }
        Ok(all)
    }

    fn switch(&mut self, to: Mode, values: &JsValue) -> Result<()> {
        let Optimizer { inner, own } = self;
        if values.is_undefined() || values.is_null() {
            let values = own.iter_mut().map(|own| own.value.as_mut().map(Tensor::data_mut));
            let mut values = values.collect::<Option<Vec<_>>>().ok_or(Error::InvalidArgument {
                argument: "values",
                expected: "all parameters, or that `value` has been asked for of each",
            })?;
            return convert(inner, to, &mut values);
        }
        let mut arrays = Vec::new();
        for (value, (param, own)) in
            list("values", values)?.iter().zip(inner.params().iter().zip(&mut *own))
        {
            let len = param.shape.iter().product();
            arrays.push(ArrayOf::of("values", &value, param.dtype)?);
            if own.staged_value.is_none() {
                own.staged_value = Some(Tensor::zeros(param.dtype, len)?);
            }
        }
        for (array, (param, own)) in arrays.iter().zip(inner.params().iter().zip(&mut *own)) {
            array.expect_len("values", param.shape.iter().product())?;
            if let Some(staged) = &mut own.staged_value {
                staged.copy_from(array);
            }
        }
        let staged = own.iter_mut().take(arrays.len());
        let staged = staged.filter_map(|own| own.staged_value.as_mut().map(Tensor::data_mut));
        convert(inner, to, &mut staged.collect::<Vec<_>>())?;
        for (array, own) in arrays.iter().zip(own) {
            if let Some(staged) = &own.staged_value {
                staged.copy_to(array);
            }
        }
        Ok(())
    }
}

fn convert(
    inner: &mut bitstep::optimizer::Optimizer,
    to: Mode,
    values: &mut [DataMut<'_>],
) -> Result<()> {
    match to {
        Mode::Eval => inner.eval(values)?,
        Mode::Train => inner.train(values)?,
    }
    Ok(())
}

/// The bytes per element of a large parameter: the element, its gradient, its state.
#[wasm_bindgen(js_name = bytesPerParameter)]
pub fn bytes_per_parameter(
    #[wasm_bindgen(js_name = name, unchecked_param_type = "string")] optim: &JsValue,
    #[wasm_bindgen(js_name = args, unchecked_optional_param_type = "Arguments | null")]
    given: &JsValue,
    #[wasm_bindgen(js_name = shape, unchecked_optional_param_type = "number | readonly number[] | null")]
    dimensions: &JsValue,
    #[wasm_bindgen(js_name = dtype, unchecked_optional_param_type = "Dtype")] of: &JsValue,
) -> Result<f64> {
    let spec = registry::optimizer(&name("name", optim)?, args(given)?)?;
    let shape = match dimensions.is_undefined() || dimensions.is_null() {
        true => vec![1024, 1024],
        false => shape(dimensions)?,
    };
    spec.rule.check_shape(&shape)?;
    Ok(spec.bytes_per_parameter(&shape, dtype(of)?))
}
