//! Malformed files, each with the error that it must give.

mod common;

use bitstep_conformance::golden::{Case, Data, Given};
use bitstep_conformance::tensor::{Dtype, Tensor};
use common::{Draft, f32s};

fn message(bytes: &[u8]) -> String {
    Case::parse(bytes).err().map_or("no error".to_owned(), |e| e.to_string())
}

/// Corrupts a draft and expects an error.
fn spoiled(draft: Draft, want: &str, spoil: impl FnOnce(&mut Draft)) {
    assert!(Case::parse(&draft.bytes()).is_ok(), "the draft itself is fine");
    let mut draft = draft;
    spoil(&mut draft);
    let got = message(&draft.bytes());
    assert!(got.contains(want), "got {got:?}, want {want:?}");
}

fn u8s(values: &[u8]) -> Tensor {
    Tensor { dtype: Dtype::U8, shape: vec![values.len()], bytes: values.to_vec() }
}

fn i64s(values: &[i64]) -> Tensor {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor { dtype: Dtype::I64, shape: vec![values.len()], bytes }
}

#[test]
fn damaged_bytes_are_named_so() {
    let good = Draft::sgd().bytes();
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut garbled = good.clone();
    garbled[9] = b'#';
    for bytes in
        [&[][..], b"not a tensor in sight", &good[..good.len() - 3], &good[..20], &huge, &garbled]
    {
        let got = message(bytes);
        assert!(got.starts_with("damaged, or no safetensors file"), "{got}");
    }
}

#[test]
fn no_prefix_of_a_file_is_a_case() {
    let good = Draft::clip().bytes();
    for n in 0..good.len() {
        assert!(Case::parse(&good[..n]).is_err(), "{n} bytes");
    }
}

#[test]
fn foreign_files_are_named_so() {
    spoiled(Draft::sgd(), "foreign: `format` is missing", |d| {
        d.meta.clear();
    });
    spoiled(Draft::sgd(), "foreign: `format` is `bitstep-golden/2`", |d| {
        d.meta("format", "bitstep-golden/2");
    });
    spoiled(Draft::sgd(), "unknown kind `optimiser`", |d| d.meta("kind", "optimiser"));
}

#[test]
fn metadata_that_lacks_or_garbles_a_key() {
    for key in ["kind", "name", "hyper", "steps"] {
        spoiled(Draft::sgd(), &format!("the metadata lacks `{key}`"), |d| {
            d.meta.remove(key);
        });
    }
    spoiled(Draft::sgd(), "`steps` in the metadata is `-1`", |d| d.meta("steps", "-1"));
    spoiled(Draft::sgd(), "`steps` in the metadata is `two`", |d| d.meta("steps", "two"));
    spoiled(Draft::sgd(), "wanted a JSON object", |d| d.meta("hyper", "[1]"));
    spoiled(Draft::sgd(), "wanted a JSON object", |d| d.meta("hyper", "{\"lr\": }"));
    spoiled(Draft::sgd(), "a name that can be a folder's", |d| d.meta("name", "../sgd"));
}

#[test]
fn missing_tensors_are_named() {
    for name in ["p0.grad", "p0.value", "p1.init"] {
        spoiled(Draft::sgd(), &format!("tensor `{name}` is missing"), |d| {
            d.tensors.remove(name);
        });
    }
    spoiled(Draft::sgd(), "tensor `p0.init` is missing", |d| d.tensors.clear());
    spoiled(Draft::sgd(), "tensor `p2.init` is missing", |d| {
        d.set("p3.init", f32s(&[1], &[0.0]));
    });
    spoiled(Draft::constant(), "tensor `lr` is missing", |d| d.tensors.clear());
    spoiled(Draft::clip(), "tensor `g0.out` is missing", |d| {
        d.tensors.remove("g0.out");
    });
    spoiled(Draft::clip(), "tensor `norm` is missing", |d| {
        d.tensors.remove("norm");
    });
}

#[test]
fn shapes_that_contradict_each_other() {
    spoiled(Draft::sgd(), "tensor `p0.grad` has shape [1, 2], wanted [2, 2]", |d| {
        d.set("p0.grad", f32s(&[1, 2], &[1.0, 2.0]));
    });
    spoiled(Draft::sgd(), "tensor `p1.value` has shape [4], wanted [2, 2]", |d| {
        d.set("p1.value", f32s(&[4], &[0.0; 4]));
    });
    spoiled(Draft::sgd(), "tensor `p0.grad` has shape [2, 2], wanted [3, 2]", |d| {
        d.meta("steps", "3");
    });
    spoiled(Draft::sgd(), "tensor `p0.state.momentum_buffer` has shape [3, 2], wanted 2 ×", |d| {
        d.set("p0.state.momentum_buffer", f32s(&[3, 2], &[0.0; 6]));
    });
    spoiled(Draft::sgd(), "tensor `p0.state0.x` has shape [3], wanted [2]", |d| {
        d.set("p0.state.x", f32s(&[2, 2], &[0.0; 4]));
        d.set("p0.state0.x", f32s(&[3], &[0.0; 3]));
    });
    spoiled(Draft::sgd(), "tensor `p0.eval` has shape [1], wanted [2]", |d| {
        d.set("p0.eval", f32s(&[1], &[0.0]));
    });
    spoiled(Draft::sgd(), "tensor `lr` has shape [3], wanted [2]", |d| {
        d.set("lr", Tensor::f64(&[3], &[0.0; 3]));
    });
    spoiled(Draft::sgd(), "tensor `given.train_loss` has shape [1], wanted [2]", |d| {
        d.set("given.train_loss", Tensor::f64(&[1], &[0.0]));
    });
    spoiled(
        Draft::sgd(),
        "tensor `p0.given.projector` has shape [3, 1], wanted 2 × … or 1",
        |d| {
            d.set("p0.refresh_at", i64s(&[0]));
            d.set("p0.given.projector", f32s(&[3, 1], &[0.0; 3]));
        },
    );
    spoiled(Draft::constant(), "tensor `lr` has shape [2, 2], wanted 3 × groups", |d| {
        d.set("lr", Tensor::f64(&[2, 2], &[0.5; 4]));
    });
    spoiled(Draft::constant(), "tensor `metric` has shape [3], wanted [2]", |d| {
        d.set("metric", Tensor::f64(&[3], &[0.5; 3]));
    });
    spoiled(Draft::clip(), "tensor `g0.out` has shape [1], wanted [2]", |d| {
        d.set("g0.out", f32s(&[1], &[0.0]));
    });
    spoiled(Draft::clip(), "tensor `g0.in` has shape [2], wanted micro-batches × [2]", |d| {
        d.meta("name", "accumulate");
    });
}

#[test]
fn types_that_contradict_each_other() {
    spoiled(Draft::sgd(), "tensor `p0.value` is of type f64, wanted f32", |d| {
        d.set("p0.value", Tensor::f64(&[2, 2], &[0.0; 4]));
    });
    spoiled(Draft::sgd(), "tensor `p0.init` is of type u8, wanted a floating-point type", |d| {
        d.set("p0.init", u8s(&[1, 2]));
    });
    spoiled(Draft::sgd(), "tensor `lr` is of type f32, wanted f64", |d| {
        d.set("lr", f32s(&[2], &[0.5; 2]));
    });
    spoiled(Draft::clip(), "tensor `norm` is of type f32, wanted f64", |d| {
        d.set("norm", f32s(&[], &[5.0]));
    });
}

#[test]
fn values_where_none_such_may_be() {
    spoiled(Draft::sgd(), "tensor `lr` is NaN at index 1", |d| {
        d.set("lr", Tensor::f64(&[2], &[0.5, f64::NAN]));
    });
    spoiled(Draft::constant(), "tensor `lr` is NaN at index 5", |d| {
        d.set("lr", Tensor::f64(&[3, 2], &[0.5, 0.5, 0.5, 0.5, 0.5, f64::NAN]));
    });
    spoiled(Draft::sgd(), "tensor `p1.has_grad` is 2 at index 1, wanted 0 or 1", |d| {
        d.set("p1.has_grad", u8s(&[1, 2]));
    });
    for at in [&[1, 0][..], &[0, 0], &[2], &[-1]] {
        spoiled(Draft::sgd(), "wanted ascending steps below 2", |d| {
            d.set("p0.refresh_at", i64s(at));
        });
    }
}

#[test]
fn groups_that_do_not_fit_the_parameters() {
    let groups = |g: &str| format!(r#"{{"lr": 0.5, "groups": {g}}}"#);
    for (text, want) in [
        (r#"[{"params": [0]}, {"params": [2]}]"#, "numbers of parameters, below 2"),
        (r#"[{"params": [0, 1]}, {"params": [1]}]"#, "every parameter in one group only"),
        (r#"[{"params": [1]}]"#, "a group for parameter 0"),
        (r#"[{"lr": 0.1}]"#, "`params` in every group"),
        (r#"[3]"#, "a list of objects"),
        (r#"{"params": [0, 1]}"#, "a list of objects"),
    ] {
        spoiled(Draft::sgd(), want, |d| d.meta("hyper", &groups(text)));
    }
}

#[test]
fn unknown_keys_and_tensors_are_ignored() {
    let mut d = Draft::sgd();
    d.meta("mood", "good");
    d.set("p0.colour", f32s(&[1], &[0.0]));
    d.set("whatever", f32s(&[1], &[f64::NAN]));
    assert_eq!(message(&d.bytes()), "no error");
}

#[test]
fn hyper_of_python_is_read() {
    let mut d = Draft::clip();
    d.meta("hyper", r#"{"max_norm": Infinity, "norm_type": NaN, "x": null}"#);
    let case = Case::parse(&d.bytes()).unwrap();
    assert_eq!(case.hyper["max_norm"], "Infinity");
}

#[test]
fn groups_lr_and_refreshes_are_read() {
    let mut d = Draft::sgd();
    let hyper =
        r#"{"lr": 0.5, "nesterov": false, "groups": [{"params": [1]}, {"params": [0], "lr": 2}]}"#;
    d.meta("hyper", hyper);
    d.set("p1.refresh_at", i64s(&[1]));
    d.set("p1.given.projector", f32s(&[1, 3], &[1.0, 2.0, 3.0]));
    let case = Case::parse(&d.bytes()).unwrap();
    let Data::Optimizer(data) = &case.data else { panic!("an optimizer") };
    assert!(!case.hyper.contains_key("groups"));
    assert_eq!(data.groups[0].params, [1]);
    assert_eq!(data.groups[1].hyper["lr"], 2);
    assert_eq!(data.groups[1].hyper["nesterov"], false);
    let given = &data.params[1].given["projector"];
    assert!(matches!(given, Given::Refreshes(..)));
    assert!(given.at(0).is_none());
    let (tensor, fresh) = given.at(1).unwrap();
    assert!(fresh && tensor == f32s(&[3], &[1.0, 2.0, 3.0]));
}

#[test]
fn error_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let path = Draft::sgd().write(root.path(), "wrong");
    let moved = root.path().join("optimizer/adam/wrong.safetensors");
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    std::fs::rename(path, &moved).unwrap();
    let text = Case::read(&moved, root.path()).unwrap_err().to_string();
    assert!(
        text.contains("wrong.safetensors") && text.contains("says that it is `optimizer/sgd"),
        "{text}"
    );
    let absent = root.path().join("absent.safetensors");
    assert!(Case::read(&absent, root.path()).unwrap_err().to_string().contains("absent"));
}
