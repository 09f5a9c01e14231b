//! bitstep's optimizers, schedules and gradient clipping for JavaScript: by name, over typed arrays.
//!
//! `npm/README.md` shows how it is used; the types of the package come from here. Whatever is wrong is thrown as an
//! exception that names the argument and its value, and nothing has been written then. One thing ends the module: no
//! memory for a small allocation, such as a message.

mod args;
mod describe;
mod error;
mod gradient;
mod memory;
mod optimizer;
mod schedule;

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** A hyper-parameter. */
export type Value = number | boolean | string | null | readonly Value[] | { readonly [name: string]: Value };
/** Arguments under the reference's names: `{ lr: 1e-3, betas: [0.9, 0.95] }`, or as text, `lr=1e-3, eps=1e-6`. */
export type Arguments = { readonly [name: string]: Value } | string;
/** How numbers are stored. */
export type Dtype = "f64" | "f32" | "bf16" | "f16";
/** Numbers of a parameter or gradient; those of 16 bits by their bits. */
export type Numbers = Float32Array | Float64Array | Uint16Array;
/** What an argument takes. */
export interface Argument {
  name: string;
  /** `choice`: one of `choices`; `tuple`: a list; `value`: anything; `ignored`: changes no result. */
  kind: "number" | "integer" | "boolean" | "choice" | "tuple" | "value" | "ignored" | "none";
  /** Whether `null` is accepted. */
  optional: boolean;
  /** Whether there is no default. */
  required: boolean;
  default: Value;
  choices?: string[];
}
/** What an optimizer's name stands for. */
export interface Description {
  arguments: Argument[];
  /** State slots under the reference's keys. */
  slots: string[];
  /** Extra arguments of a step: `train_loss`, … */
  extra: string[];
}
"#;
