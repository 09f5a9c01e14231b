//! Resumes runs of Transformers' Trainer on candle: the next 20 steps, with the reference's gradients, agree with
//! the reference within the suite's bounds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bitstep::hyper::Args;
use bitstep::optimizer::Buffer;
use bitstep_candle::{Outcome, Training, import};
use bitstep_conformance::judge::bounds::{Bounds, DEFAULT, Mode, Subject, Tolerance};
use bitstep_conformance::judge::compare::{error, scale, spacing};
use bitstep_conformance::tensor::Dtype;
use bitstep_trainer::Arguments;
use candle_core::{DType, Device, Tensor, Var};
use safetensors::SafeTensors;

fn folder(run: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapters/trainer/fixtures/resume").join(run)
}

/// All runs in a folder beside those of [`folder`], or in it.
fn runs(of: &str) -> Vec<String> {
    let runs = std::fs::read_dir(folder(of)).unwrap();
    let mut runs: Vec<String> = runs
        .map(|run| run.unwrap())
        .filter(|run| run.path().join("continuation.safetensors").exists())
        .map(|run| format!("{of}{}", run.file_name().into_string().unwrap()))
        .collect();
    runs.sort();
    runs
}

/// The metadata of a continuation.
fn about(run: &str) -> HashMap<String, String> {
    let bytes = std::fs::read(folder(run).join("continuation.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    metadata.metadata().clone().unwrap()
}

/// The order of the model's parameters, and the tensors of the reference's continuation.
fn continuation(run: &str) -> (Vec<String>, HashMap<String, Tensor>) {
    let order = serde_json::from_str(&about(run)["order"]).unwrap();
    let path = folder(run).join("continuation.safetensors");
    (order, candle_core::safetensors::load(path, &Device::Cpu).unwrap())
}

fn training(run: &str) -> (Training, Vec<String>) {
    let (order, tensors) = continuation(run);
    let args = Arguments::read(folder(run).join("training_args.json")).unwrap();
    let init = |name: &String| Var::from_tensor(&tensors[&format!("{name}.init")]).unwrap();
    // In neither the model's order nor the groups'; frozen parameters are not variables.
    let trained = order.iter().filter(|name| tensors.contains_key(&format!("{name}.grad")));
    let mut vars: Vec<_> = trained.map(|name| (name.clone(), init(name))).collect();
    vars.sort_by(|a, b| b.0.cmp(&a.0));
    (Training::new(&args, vars, None).unwrap(), order)
}

fn floats(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The bound of a step behind products of matrices, in ULP at scale. The suite derives it for each number; of its cases
/// the worst error was 426.
const PRODUCTS: f64 = 1000.0;

/// The steps of a run; the worst error as a share of its bound.
fn go_on(run: &str, resume: bool) -> f64 {
    let (_, tensors) = continuation(run);
    let (mut training, order) = training(run);
    if resume {
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        training.resume(folder(run), &order).unwrap();
    }
    let args = Arguments::read(folder(run).join("training_args.json")).unwrap();
    let dtype = match tensors[&format!("{}.init", order[0])].dtype() {
        DType::BF16 => Dtype::Bf16,
        _ => Dtype::F32,
    };
    // In f32, as the suite has no bounds for free runs of 16-bit parameters.
    let case = format!("optimizer/{}/resumed_f32", args.training.optim);
    let subject = Subject { case: &case, dtype: Dtype::F32, what: "value", mode: Mode::Free };
    let bounds = Bounds::default();
    let per_step = match bounds.exemption(&subject) {
        _ if case.contains("/galore_") || case.contains("/apollo_") => PRODUCTS,
        Some((_, Tolerance::Ulp(ulp))) => ulp,
        None => DEFAULT,
        // Free runs of 8-bit state are not compared, see below.
        Some(_) if case.contains("_8bit/") => DEFAULT,
        Some(other) => panic!("no bound to hold a resumed run to: {other:?}"),
    };
    // torchao's learning rates are f32.
    let exact = if args.training.optim.starts_with("adamw_torch_8bit") { 1e-7 } else { 1e-15 };
    let lrs = &tensors["lr"].to_vec2::<f64>().unwrap();
    let metrics = tensors.get("metric").map(floats);
    let steps = tensors[&format!("{}.grad", training.optimizer().vars()[0].0)].dims()[0];
    let mut widest: Vec<Vec<f64>> = Vec::new();
    let mut worst = 0f64;
    for (t, lr) in lrs.iter().enumerate() {
        for (got, want) in training.rates().iter().zip(lr) {
            let near = (got - want).abs() <= want * exact;
            assert!(near || !resume, "{run}, step {t}: {got} {want}");
        }
        if t == steps {
            break; // the learning rate of a step that was not made
        }
        let names: Vec<String> =
            training.optimizer().vars().iter().map(|(name, _)| name.clone()).collect();
        let row = |name: &str, what: &str| tensors[&format!("{name}.{what}")].get(t).unwrap();
        let grads = names.iter().map(|name| Some(row(name, "grad").copy().unwrap())).collect();
        let outcome = training.micro_batch(grads, &[]).unwrap();
        assert!(matches!(outcome, Outcome::Stepped(Some(_))));
        if let Some(metrics) = &metrics {
            training.metric(metrics[t]).unwrap();
        }
        widest.resize(names.len(), Vec::new());
        for ((name, var), widest) in training.optimizer().vars().iter().zip(&mut widest) {
            let (got, want) = (floats(var), floats(&row(name, "value")));
            let init = floats(&tensors[&format!("{name}.init")]);
            // Codes diverge where the reference is on a tie, and the CPU kernels round differently: as in the
            // suite, only the first step is compared, which starts from the checkpoint's codes.
            let slots = &training.optimizer().state(name).unwrap().slots;
            let coded = slots.iter().any(|slot| matches!(slot, Buffer::Encoded(_)));
            if coded && t > 0 {
                continue;
            }
            let least = if coded { 8.0 * lr[0] } else { 0.0 };
            widest.resize(got.len(), 0.0);
            for (k, (got, want)) in got.iter().zip(&want).enumerate() {
                let unit = spacing(dtype, scale(*want, init[k]).max(least));
                widest[k] = widest[k].max(unit);
                let bound = (t + 1) as f64 * per_step;
                worst = worst.max(error(*got, *want, widest[k]) / bound);
            }
        }
    }
    worst
}

/// Continues all runs; without their state they must end elsewhere.
fn compare(runs: &[String]) {
    let mut off = Vec::new();
    for run in runs {
        let (worst, fresh) = (go_on(run, true), go_on(run, false));
        println!("{run}: {worst:.3} of the bound, {fresh:.1} without its state");
        // bf16 has too few digits to show a difference.
        let least = if run.ends_with("bf16") { 4.0 } else { 10.0 };
        if !(worst <= 1.0 && fresh > least) {
            off.push(run);
        }
    }
    assert!(off.is_empty(), "{off:?}");
}

#[test]
fn the_next_steps_of_a_trainers_run_are_the_references() {
    let runs = runs("");
    assert!(runs.len() >= 6, "{runs:?}");
    compare(&runs);
}

/// `adapters/trainer/export/resumed.py`: what Trainer takes from the checkpoint takes precedence.
#[test]
fn the_next_steps_under_other_arguments_are_the_references() {
    let all = runs("../resumed/");
    assert!(all.len() >= 20, "{all:?}");
    let (refused, all): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|run| about(run).contains_key("refused"));
    compare(&all);
    // Trainer does not load objects of arbitrary classes either.
    assert_eq!(refused.len(), 2);
    for (run, class) in refused.iter().zip(["apollo_torch", "galore_torch"]) {
        let error = import::optimizer(folder(run).join("optimizer.pt")).unwrap_err().to_string();
        assert!(error.contains(class), "{run}: {error}");
    }
}

/// The values of the variables.
fn values(training: &Training) -> Vec<Vec<f64>> {
    training.optimizer().vars().iter().map(|(_, var)| floats(var)).collect()
}

#[test]
fn a_resumed_run_that_is_saved_is_loaded_under_the_arguments_it_was_resumed_with() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("run.safetensors");
    for run in
        ["../resumed/linear_other_rate", "../resumed/plateau_other", "../resumed/greedy_other"]
    {
        let (_, tensors) = continuation(run);
        let (mut went_on, order) = training(run);
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        went_on.resume(folder(run), &order).unwrap();
        let step = |training: &mut Training, t: usize| {
            let vars = training.optimizer().vars().iter();
            let grad = |name: &String| tensors[&format!("{name}.grad")].get(t).unwrap().copy();
            let grads = vars.map(|(name, _)| Some(grad(name).unwrap())).collect();
            training.micro_batch(grads, &[]).unwrap();
            training.metric(1.0).unwrap();
        };
        step(&mut went_on, 0);
        went_on.save(&path, &Default::default()).unwrap();
        let (mut loaded, _) = training(run);
        loaded.load(&path).unwrap();
        for t in 1..3 {
            step(&mut went_on, t);
            step(&mut loaded, t);
            assert_eq!(loaded.rates(), went_on.rates(), "{run}");
            assert_eq!(values(&loaded), values(&went_on), "{run}");
        }
        // Another schedule, or another length, is not the saved run's.
        let with = |change: &dyn Fn(&mut Arguments)| {
            let mut args = Arguments::read(folder(run).join("training_args.json")).unwrap();
            change(&mut args);
            let vars = loaded.optimizer().vars().to_vec();
            let mut other = Training::new(&args, vars, None).unwrap();
            other.load(&path).unwrap_err().to_string()
        };
        let error = with(&|args| {
            args.training.lr_scheduler_type = "cosine".to_owned();
            args.training.lr_scheduler_kwargs = Args::new();
        });
        assert!(error.contains("schedule 0: `name` was"), "{error}");
        if run.ends_with("linear_other_rate") {
            let error = with(&|args| args.max_steps = Some(30));
            assert!(error.contains("schedule 0: `num_training_steps` was 20 and is 30"), "{error}");
        }
    }
}

#[test]
fn names_of_frozen_parameters_may_be_given_and_all_others_must() {
    let run = "../resumed/frozen";
    let (mut training, order) = training(run);
    let all: Vec<&str> = order.iter().map(String::as_str).collect();
    let trained: Vec<&str> = training.optimizer().vars().iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!((all.len(), trained.len()), (5, 3));
    let trained: Vec<&str> = all.iter().copied().filter(|n| trained.contains(n)).collect();
    training.resume(folder(run), &trained).unwrap();
    let one = format!("{:?}", training.optimizer().inner());
    let (mut training, _) = self::training(run);
    training.resume(folder(run), &all).unwrap();
    assert_eq!(format!("{:?}", training.optimizer().inner()), one);
    let error = training.resume(folder(run), &trained[1..]).unwrap_err().to_string();
    assert!(error.contains(trained[0]), "{error}");
}

#[test]
fn state_that_does_not_fit_is_refused_and_nothing_has_changed() {
    let (mut training, order) = training("adamw_torch");
    let order: Vec<&str> = order.iter().map(String::as_str).collect();
    let before = format!("{:?}", training.optimizer().inner());
    let error = training.resume(folder("sgd"), &order).unwrap_err().to_string();
    assert!(error.contains("exp_avg"), "{error}");
    let error = training.resume(folder("no_such_run"), &order).unwrap_err().to_string();
    assert!(error.contains("optimizer.pt"), "{error}");
    let mut swapped = order.clone();
    swapped.swap(0, 4);
    assert!(training.resume(folder("adamw_torch"), &swapped).is_err());
    assert_eq!(format!("{:?}", training.optimizer().inner()), before);
}

/// A pickle may call any function; here it is only data.
#[test]
fn nothing_of_a_pickle_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.pt");
    let proof = folder.path().join("executed");
    // {"state": os.system("touch …"), "param_groups": []}
    let mut pickle = b"\x80\x02}(X\x05\x00\x00\x00statecposix\nsystem\n(X".to_vec();
    let command = format!("touch {}", proof.display());
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"tRX\x0c\x00\x00\x00param_groups]u.");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", stored).unwrap();
    std::io::Write::write_all(&mut archive, &pickle).unwrap();
    archive.finish().unwrap();

    let error = import::optimizer(&path).unwrap_err().to_string();
    assert!(error.contains("a dictionary of states"), "{error}");
    assert!(!proof.exists());

    for text in ["", "PK\x03\x04 but no more"] {
        std::fs::write(&path, text).unwrap();
        assert!(import::optimizer(&path).is_err());
    }
}
