//! Learning-rate schedules.

use bitstep::schedule::{Scheduler, build};
use js_sys::{Float64Array, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::args::{args, list, name, number, whole};
use crate::error::Result;
use crate::memory::bytes;

/// A schedule with its state, for all groups of an optimizer.
#[wasm_bindgen]
pub struct Schedule(Scheduler);

#[wasm_bindgen]
impl Schedule {
    /// The schedule of this name. Its arguments are the reference's, and the optimizer's `lr`, or `groups` if there are
    /// several: `new Schedule("cosine", { lr: 1e-3, num_warmup_steps: 10, num_training_steps: 100 })`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        #[wasm_bindgen(js_name = name, unchecked_param_type = "string")] schedule: &JsValue,
        #[wasm_bindgen(js_name = args, unchecked_optional_param_type = "Arguments")]
        given: &JsValue,
    ) -> Result<Schedule> {
        Ok(Schedule(build(&name("name", schedule)?, &args(given)?)?))
    }

    /// The current learning rate of the first group: the one of the next update.
    #[wasm_bindgen(getter)]
    pub fn lr(&self) -> f64 {
        self.0.lrs().first().copied().unwrap_or(f64::NAN)
    }

    /// The current learning rate of each group.
    #[wasm_bindgen(getter)]
    pub fn lrs(&self) -> Float64Array {
        Float64Array::from(self.0.lrs())
    }

    /// The momentum (or β₁) that the schedule has set for a group; undefined if it sets none.
    pub fn momentum(
        &self,
        #[wasm_bindgen(unchecked_optional_param_type = "number")] group: &JsValue,
    ) -> Result<Option<f64>> {
        let group = if group.is_undefined() { 0 } else { whole("group", group)? };
        Ok(self.0.momentum(group))
    }

    /// Makes a scheduler step and returns the first group's new rate. `metrics` is the metric of `reduce_lr_on_plateau`
    /// and `greedy`, the RMS of each group's first parameter for `adafactor_schedule`, and left out for all others.
    pub fn step(
        &mut self,
        #[wasm_bindgen(js_name = metrics, unchecked_optional_param_type = "number | readonly number[]")]
        given: &JsValue,
    ) -> Result<f64> {
        self.0.step(&metrics(given)?)?;
        Ok(self.lr())
    }

    /// The state as bytes, the same on every machine.
    pub fn save(&self) -> Result<Uint8Array> {
        Ok(Uint8Array::from(&self.0.save()?[..]))
    }

    /// Restores what `save` returned, in a schedule of the same name and number of groups.
    pub fn load(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] saved: &JsValue,
    ) -> Result<()> {
        Ok(self.0.load(&bytes("saved", saved)?)?)
    }
}

impl Schedule {
    pub(crate) fn inner(&self) -> &Scheduler {
        &self.0
    }

    pub(crate) fn inner_mut(&mut self) -> &mut Scheduler {
        &mut self.0
    }
}

/// No metric, one, or a list.
pub(crate) fn metrics(given: &JsValue) -> Result<Vec<f64>> {
    if given.is_undefined() || given.is_null() {
        return Ok(Vec::new());
    }
    if given.as_f64().is_some() {
        return Ok(vec![number("metrics", given)?]);
    }
    list("metrics", given)?.iter().map(|x| number("metrics", &x)).collect()
}
