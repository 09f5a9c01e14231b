//! Versions 1 and 2 of the format contained names of Rust types, as they were at the time.
//!
//! They are only read, and must not change when types are renamed.

use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::error::{CheckpointError, in_words};

/// The key of the correction bits of a 16-bit parameter.
pub(super) const CORRECTION: &str = "companion";

/// Names of types that several rules shared, which their arguments distinguish.
const RULES: [(&str, &[&str]); 6] = [
    ("Matrix", &["adafactor", "adafactor_torch", "adalomo"]),
    ("Projected", &["galore/", "apollo/"]),
    ("Single", &["f32/"]),
    ("FlashAdamRule", &["flash_adam", "flash_adamw"]),
    ("FlashSgdRule", &["flash_sgd", "flash_sgdw"]),
    ("TorchaoAdamRule", &["torchao_adam", "torchao_adamw"]),
];

const COMPUTE: [(&str, &str); 4] =
    [("Fused", "fused"), ("Eager", "eager"), ("Single", "f32"), ("Double", "f64")];

const STATE: &str = r"^(?:None|Some\((F64|F32|Bf16|F16)\))$";

const STORAGE: &str = r"^Coding \{ slots: (\[.*\]), min_len: (\d+), multiple: (\d+), weights: (Plain|Kahan|Split|Stochastic)(?:\((\d+)\))? \}$";

/// Replacements that turn the lowercased slots into JSON, applied in this order.
const SLOTS: [(&str, &str); 11] = [
    ("none", "null"),
    ("signed: true", "signed"),
    ("signed: false", "unsigned"),
    ("grid: true", "cpu"),
    ("grid: false", "nearest"),
    (r"some\(plain\((\w+)\)\)", r#""$1""#),
    (r"some\((companded|kahan)\((\w+)\)\)", r#""$1:$2""#),
    (r"some\(split\((\w+), (\d+)\)\)", r#""split:$1:$2""#),
    (r"some\(dynamic\(dynamic \{ (\w+), (\w+) \}\)\)", r#""dynamic8:$1:$2""#),
    (r"some\(scaled([48])\(scaled[48] \{ (\w+), block: (\d+) \}\)\)", r#""scaled$1:$2:$3""#),
    (r"some\(fp8\(fp8 \{ block: (\d+) \}\)\)", r#""fp8:$1""#),
];

/// Translates a saved spec to today's ids. The rule is the current one if it had the saved name.
pub(super) fn translated(
    saved: &Map<String, Json>,
    rule: &str,
) -> Result<Map<String, Json>, CheckpointError> {
    let mut all = saved.clone();
    let mut take = |key: &'static str, read: &dyn Fn(&str) -> Option<Json>| {
        let found = all.remove(key);
        let read = found.as_ref().and_then(Json::as_str).and_then(read);
        read.ok_or_else(|| CheckpointError::Word { key, found: in_words(found.as_ref()) })
    };
    let was = take("rule", &|old| Some(if was_called(rule, old) { rule } else { old }.into()))?;
    let compute = take("arithmetic", &|old| {
        COMPUTE.iter().find(|(word, _)| *word == old).map(|&(_, id)| id.into())
    })?;
    let state = take("state", &|old| {
        let dtype = Regex::new(STATE).ok()?.captures(old)?.get(1);
        Some(dtype.map(|dtype| dtype.as_str().to_lowercase()).into())
    })?;
    let storage = take("storage", &storage)?;
    all.extend([("rule", was), ("compute", compute), ("state", state)].map(named));
    all.extend(storage.as_object().cloned().unwrap_or_default());
    Ok(all)
}

fn named((key, value): (&str, Json)) -> (String, Json) {
    (key.to_owned(), value)
}

/// Whether the rule with this id had a type of that name.
fn was_called(id: &str, old: &str) -> bool {
    match RULES.iter().find(|(word, _)| *word == old) {
        Some((_, ids)) => ids.iter().any(|i| id == *i || i.ends_with('/') && id.starts_with(i)),
        None => old.to_lowercase() == id.replace('_', ""),
    }
}

fn storage(old: &str) -> Option<Json> {
    let parts = Regex::new(STORAGE).ok()?.captures(old)?;
    let part = |n: usize| parts.get(n).map_or("", |part| part.as_str());
    let mut slots = part(1).to_lowercase();
    for (word, id) in SLOTS {
        slots = Regex::new(word).ok()?.replace_all(&slots, id).into_owned();
    }
    let slots: Json = serde_json::from_str(&slots).ok()?;
    let count = |n| part(n).parse::<u64>().ok();
    let weights = match part(5) {
        "" => part(4).to_lowercase(),
        number => format!("{}:{number}", part(4).to_lowercase()),
    };
    Some(json!({
        "slots": slots, "min_len": count(2)?, "multiple": count(3)?, "weights": weights,
    }))
}
