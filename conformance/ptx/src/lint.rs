//! Finds forbidden instructions.

use crate::parse::{scoped, strip};

/// Float operations that round once, by the given mode, or not at all.
const ALLOWED: &[&str] = &[
    "add.rn", "sub.rn", "mul.rn", "div.rn", "rcp.rn", "sqrt.rn", "neg", "abs", "min", "max",
    "selp", "mov",
];

/// Lists violations in a module's text, one per line: float operations that are approximate, flush to zero,
/// fuse, or round by another mode; calls; and external symbols.
#[must_use]
pub fn lint(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = scoped(strip(line));
        let unguarded = match line.strip_prefix('@') {
            Some(rest) => rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim()),
            None => line,
        };
        let name = unguarded.split([' ', '\t', ';']).next().unwrap_or_default();
        if is_wrong(name) {
            complaints.push(format!("line {}: {line}", number + 1));
        }
    }
    complaints
}

fn is_wrong(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let float =
        |part: &&str| matches!(*part, "f16" | "f16x2" | "bf16" | "bf16x2" | "tf32" | "f32" | "f64");
    let floats = parts.iter().copied().filter(float).count();
    match parts.as_slice() {
        ["", "extern", ..] | ["call", ..] => true,
        _ if parts.iter().any(|p| matches!(*p, "ftz" | "approx" | "full" | "fma")) => true,
        _ if floats == 0 => false,
        // A comparison is exact.
        ["setp", _, "f32" | "f64"] => false,
        // Widening is exact; all else rounds to nearest, or towards zero to an integer.
        ["cvt", "f64", "f32"] => false,
        ["cvt", "rn", "f32" | "f64", _] => false,
        ["cvt", "rzi", to, "f32" | "f64"] => to.starts_with('f'),
        [name @ .., "f32" | "f64"] => !ALLOWED.contains(&name.join(".").as_str()),
        _ => true,
    }
}
