//! Reproduces runs of Transformers' Trainer that `adapters/trainer/export/traces.py` recorded: the learning
//! rates of every step to the bit, the parameters after every step within a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bitstep_candle::{Outcome, Training};
use bitstep_trainer::{Arguments, Version};
use candle_core::{DType, Device, Tensor, Var};
use safetensors::SafeTensors;
use serde_json::Value as Json;

/// A recorded run.
struct Trace {
    name: String,
    about: Json,
    tensors: BTreeMap<String, Tensor>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../trainer/fixtures/traces")
}

impl Trace {
    fn all() -> Vec<Trace> {
        let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
        files.sort();
        files.iter().map(|path| Trace::read(path)).collect()
    }

    fn read(path: &std::path::Path) -> Trace {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let about = &metadata.metadata().as_ref().unwrap()["run"];
        Trace {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            about: serde_json::from_str(about).unwrap(),
            tensors: candle_core::safetensors::load(path, &Device::Cpu)
                .unwrap()
                .into_iter()
                .collect(),
        }
    }

    fn arguments(&self) -> Arguments {
        let text = self.about["arguments"].to_string();
        let version = match self.about["version"].as_str().unwrap() {
            "4.49.0" => Version::V4_49,
            "4.57.6" => Version::V4_57,
            version => {
                assert_eq!(version, "5.23.0");
                Version::V5_23
            }
        };
        let mut args = Arguments::from_json_as(&text, version).unwrap();
        let t = &mut args.training;
        if t.optim.contains("8bit") && t.optim != "adamw_torch_8bit" {
            // The recorded runs were on the CPU.
            let more = if t.optim_args.is_empty() { "" } else { "," };
            t.optim_args = format!("quantizer=cpu{more}{}", t.optim_args);
        }
        args
    }

    fn names(&self) -> Vec<&str> {
        self.about["order"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect()
    }

    fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        Some(self.about[key].as_array()?.iter().map(|n| n.as_f64().unwrap()).collect())
    }
}

fn floats(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Reproduces the run; returns the largest error of a parameter, in ULP of the largest value of its tensor.
fn replay(trace: &Trace) -> f64 {
    let (name, names, args) = (&trace.name, trace.names(), trace.arguments());
    let every = args.training.gradient_accumulation_steps;
    let vars = names.iter().map(|n| {
        let var = Var::from_tensor(&trace.tensors[&format!("{n}.init")]).unwrap();
        ((*n).to_owned(), var)
    });
    let vars: Vec<(String, Var)> = vars.collect();
    let mut training = Training::new(&args, vars.clone(), None).unwrap();
    let resumed = trace.about["resumed"] == true;
    if resumed {
        training.resume(folder().join(format!("{name}.checkpoint")), &names).unwrap();
    }
    let labels = trace.numbers("labels").map(|l| l.iter().map(|&n| n as u64).collect::<Vec<_>>());
    let rates = trace.tensors["lr"].to_vec2::<f64>().unwrap();
    let mut grads = 0..;
    let mut worst = 0f64;
    for (step, (window, rates)) in trace.numbers("windows").unwrap().iter().zip(rates).enumerate() {
        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let got = training.rates();
        // LOMO has no groups.
        let expected = if rates.len() == 1 { vec![rates[0]; got.len()] } else { rates };
        assert_eq!(
            bits(&got),
            bits(&expected),
            "{name}, step {step}: {got:?}, wanted {expected:?}"
        );
        let window = *window as u64;
        match &labels {
            Some(labels) => training.expect_labels(labels).unwrap(),
            None if window != every => training.expect(window).unwrap(),
            None => {}
        }
        for micro_batch in 0..window {
            let row = grads.next().unwrap();
            let of = |name: &str| trace.tensors[&format!("{name}.grad")].get(row).unwrap();
            let all = training.optimizer().vars().iter().map(|(n, _)| Some(of(n))).collect();
            let outcome = training.micro_batch(all, &[]).unwrap();
            let last = micro_batch + 1 == window;
            assert_eq!(matches!(outcome, Outcome::Stepped(_)), last, "{name}, step {step}");
        }
        for metric in trace.about["metrics"][step].as_array().unwrap() {
            training.metric(metric.as_f64().unwrap()).unwrap();
        }
        for (n, var) in &vars {
            let value = &trace.tensors[&format!("{n}.value")];
            // Only the end of large tensors is recorded.
            let rows = value.dim(0).unwrap();
            let all = trace.numbers("windows").unwrap().len();
            let Some(row) = (step + rows).checked_sub(all) else { continue };
            let (got, want) = (floats(var), floats(&value.get(row).unwrap()));
            let scale = want.iter().fold(0f64, |a, x| a.max(x.abs()));
            let digits = if var.dtype() == DType::BF16 { 7 } else { 23 };
            let ulp = 2f64.powi(scale.log2().floor().max(-126.0) as i32 - digits);
            for (got, want) in got.iter().zip(&want) {
                worst = worst.max((got - want).abs() / ulp);
            }
        }
    }
    worst
}

/// The tolerance of a parameter, in ULP of the largest value of its tensor, after up to twelve steps
/// whose errors add up. The remaining differences to torch without its fused multiply-add are norms
/// summed in another order, and powers and roots computed in another type.
const BOUND: f64 = 2.0;

#[test]
fn recorded_runs_of_trainer_are_made_again() {
    let traces = Trace::all();
    assert!(traces.len() >= 60, "{} runs", traces.len());
    let far: Vec<String> = traces
        .iter()
        .map(|trace| (&trace.name, replay(trace)))
        .filter(|(_, worst)| worst.is_nan() || *worst > BOUND)
        .map(|(name, worst)| format!("{name}: {worst} ULP"))
        .collect();
    assert!(far.is_empty(), "{far:#?}");
}

/// The runs cover every schedule of Trainer, and every strategy around the optimizer.
#[test]
fn recorded_runs_cover_what_trainer_does() {
    let traces = Trace::all();
    let schedules: BTreeSet<String> =
        traces.iter().map(|t| t.arguments().training.lr_scheduler_type).collect();
    let all = [
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_warmup_with_min_lr",
        "cosine_with_min_lr",
        "cosine_with_restarts",
        "greedy",
        "inverse_sqrt",
        "linear",
        "polynomial",
        "reduce_lr_on_plateau",
        "warmup_stable_decay",
    ];
    assert_eq!(schedules.iter().map(String::as_str).collect::<Vec<_>>(), all);
    let optimizers: BTreeSet<String> =
        traces.iter().map(|t| t.arguments().training.optim).collect();
    assert!(optimizers.len() >= 30, "{optimizers:?}");
    let count = |is: &dyn Fn(&Trace) -> bool| traces.iter().filter(|t| is(t)).count();
    assert!(count(&|t| t.about["resumed"] == true) >= 7);
    assert!(count(&|t| t.arguments().training.gradient_accumulation_steps > 1) >= 7);
    assert!(count(&|t| t.arguments().training.max_grad_norm < 1.0) >= 8);
    assert!(count(&|t| t.arguments().training.weight_decay > 0.0) >= 15);
    let bytes: u64 = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 3_000_000, "{bytes} bytes");
}
