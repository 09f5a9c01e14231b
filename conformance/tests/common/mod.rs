//! Golden files made by hand, to be corrupted by tests.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bitstep_conformance::tensor::{Dtype, Tensor};
use safetensors::tensor::TensorView;

/// Runs a command, which must end within a minute.
pub fn within_a_minute(command: &mut Command) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("still running after a minute: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    Output { status, stdout: read("out"), stderr: read("err") }
}

/// The contents of a file to be written.
#[derive(Clone)]
pub struct Draft {
    pub meta: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, Tensor>,
}

pub fn f32s(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::round(Dtype::F32, shape, values).unwrap()
}

impl Draft {
    fn new(kind: &str, name: &str, steps: usize, hyper: &str) -> Draft {
        let steps = steps.to_string();
        let meta = [
            ("format", "bitstep-golden/1"),
            ("kind", kind),
            ("name", name),
            ("reference", "by.hand"),
            ("versions", "{}"),
            ("hyper", hyper),
            ("steps", &steps),
            ("seed", "0"),
            ("note", "made by hand"),
        ];
        let own = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
        Draft { meta: meta.map(own).into(), tensors: BTreeMap::new() }
    }

    /// Two plain steps p ← p − lr·g with lr = ½, of two parameters.
    pub fn sgd() -> Draft {
        let mut d = Draft::new("optimizer", "sgd", 2, r#"{"lr": 0.5}"#);
        for p in ["p0", "p1"] {
            d.set(&format!("{p}.init"), f32s(&[2], &[1.0, 2.0]));
            d.set(&format!("{p}.grad"), f32s(&[2, 2], &[1.0, 2.0, 4.0, -2.0]));
            d.set(&format!("{p}.value"), f32s(&[2, 2], &[0.5, 1.0, -1.5, 2.0]));
        }
        d
    }

    /// A constant learning rate of two groups.
    pub fn constant() -> Draft {
        let mut d = Draft::new("schedule", "constant", 2, r#"{"lr": 0.5}"#);
        d.set("lr", Tensor::f64(&[3, 2], &[0.5, 0.25, 0.5, 0.25, 0.5, 0.25]));
        d
    }

    /// Clipping a vector of norm 5 to 2.5, within 1e-6.
    pub fn clip() -> Draft {
        let hyper = r#"{"max_norm": 10.0, "norm_type": 2.0}"#;
        let mut d = Draft::new("gradient", "clip_grad_norm", 1, hyper);
        d.set("g0.in", f32s(&[2], &[3.0, -4.0]));
        d.set("g0.out", f32s(&[2], &[3.0, -4.0]));
        d.set("norm", Tensor::scalar(5.0));
        d
    }

    pub fn set(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    pub fn meta(&mut self, key: &str, value: &str) {
        self.meta.insert(key.to_owned(), value.to_owned());
    }

    pub fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, t)| {
            let dtype = match t.dtype {
                Dtype::F64 => safetensors::Dtype::F64,
                Dtype::F32 => safetensors::Dtype::F32,
                Dtype::I64 => safetensors::Dtype::I64,
                Dtype::U8 => safetensors::Dtype::U8,
                other => panic!("{other}"),
            };
            (name, TensorView::new(dtype, t.shape.clone(), &t.bytes).unwrap())
        });
        let meta: HashMap<_, _> = self.meta.clone().into_iter().collect();
        safetensors::serialize(views, Some(meta)).unwrap()
    }

    /// Writes the file to its place below `root`.
    pub fn write(&self, root: &Path, case: &str) -> PathBuf {
        let folder = root.join(&self.meta["kind"]).join(&self.meta["name"]);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{case}.safetensors"));
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}
