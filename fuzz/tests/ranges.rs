//! Hyper-parameters are accepted or refused as in the references' constructors.

use bitstep::hyper::{Args, Value};
use bitstep::registry;
use bitstep::rule::ComputePolicy;
use serde_json::Value as Json;

fn value(json: &Json) -> Value {
    match json {
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => {
            n.as_i64().map_or(Value::Float(n.as_f64().expect("a number")), Value::Int)
        }
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        _ => Value::None,
    }
}

/// Where we refuse more than the reference: (prefix of the name, part of the error, reason).
const STRICTER: &[(&str, &str, &str)] = &[
    ("schedule_free_adamw", "", "the reference checks nothing: out of range it divides by 0"),
    ("schedule_free_radam", "", "the same"),
    ("schedule_free_sgd", "is NaN", "NaN, which turns every parameter into NaN"),
    ("adamw_hf", "is NaN", "the same"),
    ("apollo_adamw", "is NaN", "the same"),
    ("", "`min_8bit_size`", "a size below 0"),
    ("", "optim_bits", "bits that no kernel has"),
    ("", "block_size", "blocks that nothing fits into, or half a byte"),
    ("optimi_ranger", "k is 0", "every 0 steps: the reference divides by it"),
    ("", "a whole number, at least 0", "a count below 0"),
];

#[test]
fn hyper_parameters_are_refused_where_the_reference_refuses_them() {
    let records: Vec<(String, serde_json::Map<String, Json>, bool)> =
        serde_json::from_str(include_str!("../ranges/ranges.json"))
            .expect("what the exporter wrote");
    assert!(records.len() > 2000 && records.iter().filter(|r| !r.2).count() > 500);
    let mut needed = [false; STRICTER.len()];
    let wrong = records.iter().filter_map(|(name, args, taken)| {
        let ours: Args = args.iter().map(|(k, v)| (k.as_str(), value(v))).collect();
        let ours = registry::optimizer(name, &ours);
        if let (Err(e), true) = (&ours, taken) {
            let why = e.to_string();
            let at = STRICTER.iter().position(|(n, a, _)| name.starts_with(n) && why.contains(a));
            if let Some(at) = at {
                needed[at] = true;
                return None;
            }
        }
        (ours.is_ok() != *taken).then(|| {
            let why = ours.err().map_or("taken".to_owned(), |e| e.to_string());
            let reference = if *taken { "takes it" } else { "refuses it" };
            format!("{name} {}: {why}; the reference {reference}", Json::Object(args.clone()))
        })
    });
    let wrong: Vec<String> = wrong.collect();
    let idle: Vec<_> = STRICTER.iter().zip(needed).filter(|(_, needed)| !needed).collect();
    assert!(idle.is_empty(), "no record needs {idle:?}");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), records.len(), wrong.join("\n"));
}

/// PyTorch computes in the type that both operands promote to.
#[test]
fn any_precision_computes_in_double_only_for_double_state() {
    let policy = |args: &str| {
        let args = Args::parse(args).expect("arguments");
        registry::optimizer("adamw_anyprecision", &args).expect("types that it takes").policy
    };
    assert_eq!(policy(""), ComputePolicy::Fused);
    assert_eq!(policy("momentum_dtype=float32"), ComputePolicy::Fused);
    assert_eq!(policy("variance_dtype=float64"), ComputePolicy::Double);
}
