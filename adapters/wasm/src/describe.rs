//! What there is: names, and what each takes.

use bitstep::hyper::{Args, FieldMut, FieldVisitor, HyperParams};
use bitstep::registry::{self, OPTIMIZERS};
use bitstep::schedule;
use js_sys::Array;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::args::{name, object, to_js};
use crate::error::Result;

/// The names of all optimizers.
#[wasm_bindgen(unchecked_return_type = "string[]")]
pub fn optimizers() -> Array {
    OPTIMIZERS.iter().map(|entry| JsValue::from_str(entry.name)).collect()
}

/// The names of all schedules.
#[wasm_bindgen(unchecked_return_type = "string[]")]
pub fn schedules() -> Array {
    schedule::NAMES.iter().map(|&name| JsValue::from_str(name)).collect()
}

/// The arguments of an optimizer with their defaults, its state slots, and the extra arguments of its step.
#[wasm_bindgen(js_name = describeOptimizer, unchecked_return_type = "Description")]
pub fn describe_optimizer(
    #[wasm_bindgen(js_name = name, unchecked_param_type = "string")] optim: &JsValue,
) -> Result<JsValue> {
    let mut spec = registry::optimizer(&name("name", optim)?, Args::new())?;
    let info = spec.rule.info();
    let names =
        |names: &[&str]| names.iter().map(|&name| JsValue::from_str(name)).collect::<Array>();
    Ok(object([
        ("arguments", fields(spec.rule.hyper_params(), &[])),
        ("slots", names(info.slots).into()),
        ("extra", names(info.extra_args).into()),
    ]))
}

/// The arguments of a schedule with their defaults. What it takes of the optimizer, `lr` and `groups`, is not among them.
#[wasm_bindgen(js_name = describeSchedule, unchecked_return_type = "Argument[]")]
pub fn describe_schedule(
    #[wasm_bindgen(js_name = name, unchecked_param_type = "string")] schedule: &JsValue,
) -> Result<JsValue> {
    /// A schedule that is known by its name.
    struct Named<'a>(&'a str);
    impl HyperParams for Named<'_> {
        fn fields(&mut self, f: &mut dyn FieldVisitor) {
            // Its name is a known one.
            _ = schedule::visit_arguments(self.0, f);
        }
    }
    struct Nothing;
    impl FieldVisitor for Nothing {
        fn field(&mut self, _: &'static str, _: FieldMut<'_>) {}
    }
    let name = name("name", schedule)?;
    let required = schedule::visit_arguments(&name, &mut Nothing)?;
    Ok(fields(&mut Named(&name), &required))
}

/// The fields of what has arguments.
fn fields(of: &mut dyn HyperParams, required: &[&str]) -> JsValue {
    let mut fields = Fields { defaults: Args::of(of), required, found: Array::new() };
    of.fields(&mut fields);
    fields.found.into()
}

struct Fields<'a> {
    defaults: Args,
    required: &'a [&'a str],
    found: Array,
}

impl FieldVisitor for Fields<'_> {
    fn field(&mut self, name: &'static str, slot: FieldMut<'_>) {
        let (kind, optional) = match &slot {
            FieldMut::F64(_) => ("number", false),
            FieldMut::OptF64(_) => ("number", true),
            FieldMut::U64(_) | FieldMut::I64(_) => ("integer", false),
            FieldMut::OptU64(_) => ("integer", true),
            FieldMut::Bool(_) => ("boolean", false),
            FieldMut::OptBool(_) => ("boolean", true),
            FieldMut::Tuple(_) => ("tuple", false),
            FieldMut::Choice(..) => ("choice", false),
            FieldMut::OptChoice(..) => ("choice", true),
            FieldMut::Value(_) => ("value", true),
            FieldMut::Ignored => ("ignored", true),
            FieldMut::MustBeNone => ("none", true),
        };
        let required = self.required.contains(&name);
        let default = self.defaults.get(name).map_or(JsValue::NULL, to_js);
        let mut properties = vec![
            ("name", name.into()),
            ("kind", kind.into()),
            ("optional", optional.into()),
            ("required", required.into()),
            ("default", default),
        ];
        if let FieldMut::Choice(_, choices) | FieldMut::OptChoice(_, choices) = slot {
            let choices = (0..).map_while(choices).map(JsValue::from_str).collect::<Array>();
            properties.push(("choices", choices.into()));
        }
        self.found.push(&object(properties));
    }
}
