//! Accumulation of micro-batches: windows, labels, shared gradients, tied weights.

use bitstep::gradient::{ClipGradNorm, GradientAccumulator, LossScale};
use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, GroupId};
use bitstep::registry;
use bitstep_candle::{Optimizer, Outcome, Training};
use bitstep_trainer::Arguments;
use candle_core::{DType, Device, Tensor, Var};

fn var(values: &[f32]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_vec1().unwrap()
}

/// Plain gradient descent at learning rate 1 on variables `a`, `b`, ….
fn descent(vars: &[&Var]) -> Training {
    let spec = registry::optimizer("sgd", Args::new().with("lr", 1.0)).unwrap();
    let mut optimizer = Optimizer::empty();
    let names = ["a", "b", "c"].map(str::to_owned);
    let vars = names.into_iter().zip(vars.iter().map(|&var| var.clone()));
    optimizer.add_group(spec, vars).unwrap();
    Training::of(optimizer).unwrap()
}

#[test]
fn a_window_announced_is_one_and_those_after_it_are_as_long_as_ever() {
    let w = var(&[0.0]);
    let mut training = descent(&[&w]);
    training.set_accumulation(GradientAccumulator::mean(4).unwrap());
    let mut outcomes = String::new();
    for micro_batch in 0..14 {
        if micro_batch == 4 {
            training.expect(2).unwrap();
        }
        let outcome = training.micro_batch(vec![Some(tensor(&[1.0]))], &[]).unwrap();
        outcomes.push(if outcome == Outcome::Accumulated { '.' } else { 'S' });
    }
    assert_eq!(outcomes, "...S.S...S...S");
    assert_eq!(numbers(&w), [-4.0], "each window is a mean");

    // A window of one micro-batch, as at the end of an epoch.
    training.expect(1).unwrap();
    let step = |training: &mut Training| {
        training.micro_batch(vec![Some(tensor(&[1.0]))], &[]).unwrap() != Outcome::Accumulated
    };
    assert_eq!([(); 5].map(|()| step(&mut training)), [true, false, false, false, true]);
}

#[test]
fn a_group_that_is_added_later_moves_in_every_window() {
    let (a, b) = (var(&[0.0]), var(&[0.0]));
    let mut training = descent(&[&a]);
    training.set_accumulation(GradientAccumulator::mean(2).unwrap());
    let spec = registry::optimizer("sgd", Args::new().with("lr", 1.0)).unwrap();
    training.optimizer_mut().add_group(spec, [("b".to_owned(), b.clone())]).unwrap();
    for _ in 0..6 {
        let grads = vec![Some(tensor(&[1.0])), Some(tensor(&[1.0]))];
        training.micro_batch(grads, &[]).unwrap();
    }
    assert_eq!((numbers(&a), numbers(&b)), (vec![-3.0], vec![-3.0]));
}

#[test]
fn gradients_that_are_handed_in_stay_as_they_are() {
    let (a, b) = (var(&[0.0, 0.0]), var(&[0.0, 0.0]));
    let mut training = descent(&[&a, &b]);
    training.set_clip(Some(ClipGradNorm { max_norm: 1.0, ..ClipGradNorm::default() }));
    training.set_loss_scale(Some(LossScale { scale: 4.0, ..LossScale::default() }));
    // One tensor for both variables: divided by 4 once, of norm √2 · 10, clipped to 1 once.
    let shared = tensor(&[24.0, 32.0]);
    let grads = vec![Some(shared.clone()), Some(shared.clone())];
    let Outcome::Stepped(Some(norm)) = training.micro_batch(grads, &[]).unwrap() else { panic!() };
    assert_eq!(numbers(&shared), [24.0, 32.0]);
    assert!((norm - 10.0 * 2f64.sqrt()).abs() < 1e-5, "{norm}");
    let want = [6.0, 8.0].map(|g: f32| -g / (10.0 * 2f32.sqrt()));
    for got in [numbers(&a), numbers(&b)] {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{got:?}");
    }
}

#[test]
fn labels_weigh_micro_batches() {
    let w = var(&[0.0]);
    let mut training = descent(&[&w]);
    training.set_accumulation(GradientAccumulator::mean(4).unwrap());
    let mut window = |labels: &[u64], grads: &[f32]| {
        let before = numbers(&w)[0];
        training.expect_labels(labels).unwrap();
        for (i, &grad) in grads.iter().enumerate() {
            let outcome = training.micro_batch(vec![Some(tensor(&[grad]))], &[]).unwrap();
            assert_eq!(outcome != Outcome::Accumulated, i + 1 == grads.len());
        }
        before - numbers(&w)[0]
    };
    let moved = window(&[31, 37, 30, 35], &[1.0, 2.0, 3.0, 4.0]);
    assert!((moved - (31.0 + 74.0 + 90.0 + 140.0) / 133.0).abs() < 1e-6, "{moved}");
    // Without labels the mean loss is NaN, and does not count.
    assert!((window(&[0, 2], &[f32::NAN, 3.0]) - 3.0).abs() < 1e-6);
    assert!(training.expect_labels(&[0, 0]).is_err() && training.expect_labels(&[]).is_err());
    // Applies to one window only.
    for _ in 0..4 {
        training.micro_batch(vec![Some(tensor(&[1.0]))], &[]).unwrap();
    }
    assert!((numbers(&w)[0] + moved + 3.0 + 1.0).abs() < 1e-5);
    training.micro_batch(vec![Some(tensor(&[1.0]))], &[]).unwrap();
    assert!(training.expect_labels(&[1]).is_err(), "a window that has begun");
}

#[test]
fn lomo_is_not_clipped_and_moves_with_every_micro_batch() {
    let w = var(&[0.0, 0.0]);
    let new = |more: &str| {
        let text = format!(
            r#"{{"optim": "lomo", "learning_rate": 1, "lr_scheduler_type": "linear",
            "max_steps": 2{more}}}"#
        );
        let args = Arguments::from_json(&text).unwrap();
        Training::new(&args, [("w".to_owned(), w.clone())], None).unwrap()
    };
    let grads = || vec![Some(tensor(&[3.0, 4.0]))];
    assert_eq!(new("").micro_batch(grads(), &[]).unwrap(), Outcome::Stepped(None));
    assert_eq!(numbers(&w), [-3.0, -4.0]);

    let mut training = new(r#", "gradient_accumulation_steps": 2"#);
    assert_eq!(training.micro_batch(grads(), &[]).unwrap(), Outcome::Moved);
    assert_eq!((numbers(&w), training.rates()), (vec![-4.5, -6.0], vec![1.0, 1.0]));
    let saved = tempfile::tempdir().unwrap();
    let path = saved.path().join("run.safetensors");
    assert!(training.save(&path, &Default::default()).is_err(), "in the middle of a window");
    assert_eq!(training.micro_batch(grads(), &[]).unwrap(), Outcome::Stepped(None));
    assert_eq!((numbers(&w), training.rates()), (vec![-6.0, -8.0], vec![0.5, 0.5]));
}

#[test]
fn a_variable_is_there_once() {
    let w = var(&[0.0; 4]);
    let spec = || registry::optimizer("sgd", Args::new().with("lr", 1.0)).unwrap();
    let mut optimizer = Optimizer::empty();
    optimizer.add_group(spec(), [("embed".to_owned(), w.clone())]).unwrap();
    let again = optimizer.add_group(spec(), [("head".to_owned(), w.clone())]).unwrap_err();
    assert!(again.to_string().contains("`embed` and variable `head` share memory"), "{again}");
    let within = optimizer.add_var(GroupId(0), "head".to_owned(), w.clone()).unwrap_err();
    assert!(within.to_string().contains("`embed` and variable `head` share memory"), "{within}");
    assert_eq!(optimizer.vars().len(), 1);

    // The first name is used, as in `named_parameters()`.
    let args = Arguments::from_json(
        r#"{"optim": "sgd", "learning_rate": 1, "lr_scheduler_type": "constant", "max_steps": 1}"#,
    );
    let other = var(&[0.0]);
    let vars = [("embed.weight", &w), ("bias", &other), ("head.weight", &w)];
    let vars = vars.map(|(name, var)| (name.to_owned(), var.clone()));
    let mut training = Training::new(&args.unwrap(), vars, None).unwrap();
    assert_eq!(training.optimizer().vars().len(), 2);
    assert!(training.optimizer().state("head.weight").is_none());
    let loss = (w.sum_all().unwrap() * 0.25).unwrap();
    training.backward(&loss).unwrap();
    assert_eq!(numbers(&w), [-0.25; 4], "stepped and clipped once");
}

#[test]
fn embeddings_keep_plain_state_beside_8_bit_state_and_are_resumed() {
    let args = Arguments::from_json(
        r#"{"optim": "adamw_bnb_8bit", "learning_rate": 0.01, "max_steps": 9,
        "optim_args": "quantizer=cpu"}"#,
    )
    .unwrap();
    let new = || {
        let table =
            |name: &str| (name.to_owned(), Var::ones((64, 64), DType::F32, &Device::Cpu).unwrap());
        Training::new(&args, [table("embed.weight"), table("up.weight")], None).unwrap()
    };
    let step = |training: &mut Training| {
        let at = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
        let grad = Tensor::from_vec((0..4096).map(at).collect::<Vec<_>>(), (64, 64), &Device::Cpu);
        let grad = grad.unwrap();
        training.micro_batch(vec![Some(grad.clone()), Some(grad)], &[]).unwrap();
    };
    let coded = |training: &Training| {
        let state = |name: &str| training.optimizer().state(name).unwrap().slots[0].clone();
        ["embed.weight", "up.weight"].map(|name| matches!(state(name), Buffer::Encoded(_)))
    };
    let mut training = new();
    assert_eq!(coded(&training), [false, true]);
    step(&mut training);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    training.save(&path, &Default::default()).unwrap();
    let mut resumed = new();
    resumed.load(&path).unwrap();
    step(&mut training);
    step(&mut resumed);
    for ((_, a), (_, b)) in training.optimizer().vars().iter().zip(resumed.optimizer().vars()) {
        let flat = |var: &Var| numbers(&var.flatten_all().unwrap());
        assert_eq!(flat(a), flat(b));
    }
    assert_eq!(coded(&resumed), [false, true]);
}
