//! Training around the optimizer: groups, schedules, accumulation, clipping, loss scaling,
//! checkpoints, layer-wise backward passes.

use bitstep::error::ensure_range;
use std::collections::BTreeMap;

use bitstep::gradient::{ClipGradNorm, GradientAccumulator, LossScale, Neftune};
use bitstep::hyper::{Args, FieldVisitor, HyperParams, Value};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::{self, Schedule, ScheduleFacts, Scheduler};
use bitstep::storage::DataMut;
use bitstep_candle::{Layers, Optimizer, Outcome, Training, named_vars};
use bitstep_trainer::{Arguments, ModelLayers, Parameter};
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Linear, Optimizer as _, VarBuilder, VarMap};

const LAYERS: usize = 3;

/// A small network with every kind of parameter that groups distinguish.
struct Model {
    map: VarMap,
    layers: Vec<Linear>,
    norm: candle_nn::LayerNorm,
}

fn numbers(shape: &[usize], salt: usize) -> Tensor {
    let len: usize = shape.iter().product();
    let at = |i: usize| ((i * 7919 + salt * 104_729) % 1009) as f32 / 504.5 - 1.0;
    Tensor::from_vec((0..len).map(at).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

impl Model {
    fn new(dtype: DType) -> Model {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, dtype, &Device::Cpu);
        let layer = |i: usize| candle_nn::linear(6, 6, vb.pp(format!("layer{i}"))).unwrap();
        let layers = (0..LAYERS).map(layer).collect();
        let norm = candle_nn::layer_norm(6, 1e-5, vb.pp("norm")).unwrap();
        for (i, (_, var)) in named_vars(&map).iter().enumerate() {
            var.set(&numbers(var.dims(), i).to_dtype(dtype).unwrap()).unwrap();
        }
        Model { map, layers, norm }
    }

    fn vars(&self) -> Vec<(String, Var)> {
        named_vars(&self.map)
    }

    fn loss(&self, t: usize) -> Tensor {
        let dtype = self.vars()[0].1.dtype();
        let mut x = numbers(&[4, 6], 100 + t).to_dtype(dtype).unwrap();
        for layer in &self.layers {
            x = layer.forward(&x).unwrap().tanh().unwrap();
        }
        self.normalise(&x).unwrap().sqr().unwrap().mean_all().unwrap()
    }

    /// candle's fused layer norm has no gradient.
    fn normalise(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.norm.bias().expect("a bias");
        candle_nn::ops::layer_norm_slow(x, self.norm.weight(), bias, 1e-5)
    }

    /// The forward pass split into layers.
    fn cut_loss(&self, t: usize, layers: &mut Layers) -> Result<Tensor> {
        let mut x = numbers(&[4, 6], 100 + t);
        for layer in &self.layers {
            x = layers.run(&x, |x| layer.forward(x)?.tanh())?;
        }
        layers.run(&x, |x| self.normalise(x)?.sqr()?.mean_all())
    }

    fn bits(&self) -> Vec<u32> {
        let flat = |var: &Var| var.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        self.vars().iter().flat_map(|(_, var)| flat(var).unwrap()).map(f32::to_bits).collect()
    }
}

fn arguments(more: &str) -> Arguments {
    let text = r#"{"optim": "adamw_torch", "learning_rate": 0.01, "weight_decay": 0.1,
        "lr_scheduler_type": "cosine", "warmup_steps": 2, "max_steps": 20"#;
    Arguments::from_json(&format!("{text}{more}}}")).unwrap()
}

#[test]
fn biases_and_norms_do_not_decay() {
    let model = Model::new(DType::F32);
    let training = Training::new(&arguments(""), model.vars(), None).unwrap();
    let of = |name: &str| training.optimizer().state(name).unwrap().group;
    for name in ["layer0.weight", "layer2.weight"] {
        assert_eq!(of(name), bitstep::optimizer::GroupId(0), "{name}");
    }
    for name in ["layer0.bias", "norm.weight", "norm.bias"] {
        assert_eq!(of(name), bitstep::optimizer::GroupId(1), "{name}");
    }
}

/// The groups that the real Trainer makes for small models in Python.
#[test]
fn groups_are_trainers_where_layers_are_known() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../trainer/fixtures/layers/5.23.0.json");
    let text = std::fs::read_to_string(root).unwrap();
    let models: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (model, want) in models {
        let layers = ModelLayers::from_json(&want["layers"].to_string()).unwrap();
        let zeros = |p: &Parameter| {
            (p.name.clone(), Var::zeros(p.shape.as_slice(), DType::F32, &Device::Cpu).unwrap())
        };
        let vars = || layers.all().iter().map(zeros);
        let known = |named: &[(&str, &[usize])]| layers.parameters(named.iter().copied());
        let training = Training::with_layers(&arguments(""), vars(), None, known).unwrap();
        for (group, names) in want["groups"].as_array().unwrap().iter().enumerate() {
            for name in names.as_array().unwrap() {
                let name = name.as_str().unwrap();
                let got = training.optimizer().state(name).unwrap().group;
                assert_eq!(got, bitstep::optimizer::GroupId(group), "{model}: {name}");
            }
        }
        let too_few = |named: &[(&str, &[usize])]| known(&named[1..]);
        assert!(Training::with_layers(&arguments(""), vars(), None, too_few).is_err());
    }
}

#[test]
fn the_rate_in_force_is_the_schedules() {
    let model = Model::new(DType::F32);
    let mut training = Training::new(&arguments(""), model.vars(), None).unwrap();
    let before = model.bits();
    assert_eq!(training.rates(), [0.0, 0.0], "warming up");
    training.backward(&model.loss(0)).unwrap();
    assert_eq!(model.bits(), before, "a rate of 0 moves nothing");
    assert_eq!(training.rates(), [0.005, 0.005]);
    training.backward(&model.loss(1)).unwrap();
    assert_ne!(model.bits(), before);
}

#[test]
fn every_group_may_have_a_schedule_of_its_own() {
    let model = Model::new(DType::F32);
    let mut optimizer = Optimizer::empty();
    let spec = |name, lr| registry::optimizer(name, Args::new().with("lr", lr)).unwrap();
    let (weights, rest): (Vec<_>, Vec<_>) =
        model.vars().into_iter().partition(|(name, _)| name.ends_with("weight"));
    optimizer.add_group(spec("lion_32bit", 0.1), weights).unwrap();
    optimizer.add_group(spec("sgd", 0.2), rest).unwrap();
    let mut training = Training::of(optimizer).unwrap();
    let schedule = |name, lr: f64, args: &str| {
        let mut args = Args::parse(args).unwrap();
        args.set("groups", vec![Value::Map(vec![("lr".into(), lr.into())])]);
        schedule::build(name, &args).unwrap()
    };
    let linear = schedule("linear", 0.1, "num_warmup_steps=0, num_training_steps=10");
    training.attach(linear, vec![bitstep::optimizer::GroupId(0)]).unwrap();
    let plateau = schedule("reduce_lr_on_plateau", 0.2, "factor=0.5, patience=0");
    training.attach(plateau, vec![bitstep::optimizer::GroupId(1)]).unwrap();
    let other = schedule("constant", 0.2, "");
    assert!(
        training.attach(other, vec![bitstep::optimizer::GroupId(2)]).is_err(),
        "there is no such group"
    );
    training.backward(&model.loss(0)).unwrap();
    training.metric(1.0).unwrap();
    training.metric(2.0).unwrap();
    assert_eq!(training.rates(), [0.1 * 0.9, 0.1]);
}

/// Halves the rate in every second window of `length` steps.
#[derive(Clone, Debug)]
struct Windows {
    length: u64,
}

impl HyperParams for Windows {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("length", &mut self.length);
    }
}

impl Schedule for Windows {
    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        if step / self.length % 2 == 1 { 0.5 * base_lr } else { base_lr }
    }
}

impl ScheduleFacts for Windows {
    fn check(&self) -> std::result::Result<(), bitstep::Error> {
        ensure_range(self.length > 0, "length", self.length as f64, "length >= 1")
    }
}

#[test]
fn a_schedule_of_ones_own_takes_the_place_of_trainers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let training = |model: &Model, length: u64| {
        let mut training = Training::new(&arguments(""), model.vars(), None).unwrap();
        let of = |lrs: &[f64]| Scheduler::of("windows", Windows { length }, lrs);
        training.set_schedule(of).map(|()| training)
    };
    let model = Model::new(DType::F32);
    let mut went_on = training(&model, 2).unwrap();
    let rates = went_on.rates(); // not those of a warm-up, which starts at 0
    assert!(rates.iter().all(|&lr| lr > 0.0));
    let half: Vec<f64> = rates.iter().map(|lr| 0.5 * lr).collect();
    let want = [&rates, &half, &half, &rates, &rates, &half];
    for (t, want) in want.into_iter().enumerate() {
        if t == 3 {
            went_on.save(&path, &BTreeMap::new()).unwrap();
        }
        went_on.backward(&model.loss(t)).unwrap();
        assert_eq!(&went_on.rates(), want, "after step {t}");
    }
    let other = Model::new(DType::F32);
    let mut resumed = training(&other, 2).unwrap();
    resumed.load(&path).unwrap();
    for t in 3..6 {
        resumed.backward(&other.loss(t)).unwrap();
    }
    assert_eq!((other.bits(), resumed.rates()), (model.bits(), went_on.rates()));
    // A schedule of that name with another argument, or with an invalid one.
    assert!(training(&other, 3).unwrap().load(&path).is_err());
    assert!(training(&other, 0).is_err());
    let refused = resumed.set_schedule(|_| Scheduler::of("windows", Windows { length: 2 }, &[1.0]));
    assert!(refused.is_err());
    resumed.backward(&other.loss(6)).unwrap();
    assert_eq!(resumed.rates(), half, "the one before goes on alone");
}

#[test]
fn a_rate_set_by_hand_lasts_until_its_schedule_makes_a_step() {
    let model = Model::new(DType::F32);
    let args = r#", "lr_scheduler_kwargs": {"factor": 0.5, "patience": 0}}"#;
    let text =
        r#"{"optim": "sgd", "learning_rate": 0.01, "lr_scheduler_type": "reduce_lr_on_plateau""#;
    let args = Arguments::from_json(&format!("{text}{args}")).unwrap();
    let mut training = Training::new(&args, model.vars(), None).unwrap();
    training.optimizer_mut().set_group_lr(bitstep::optimizer::GroupId(1), 0.25).unwrap();
    for t in 0..3 {
        training.backward(&model.loss(t)).unwrap();
        assert_eq!(training.rates(), [0.01, 0.25]);
    }
    // torch multiplies the current rates.
    training.metric(1.0).unwrap();
    training.metric(1.0).unwrap();
    assert_eq!(training.rates(), [0.005, 0.125]);
}

#[test]
fn micro_batches_of_one_batch_give_its_mean_and_its_clipped_norm() {
    let step = |args: &str, micro_batches: &[usize]| {
        let model = Model::new(DType::F32);
        let mut training = Training::new(&arguments(args), model.vars(), None).unwrap();
        training.optimizer_mut().set_group_lr(bitstep::optimizer::GroupId(0), 0.1).unwrap();
        let mut last = Outcome::Accumulated;
        for &t in micro_batches {
            assert_eq!(last, Outcome::Accumulated);
            last = training.backward(&model.loss(t)).unwrap();
        }
        let Outcome::Stepped(norm) = last else { panic!("{last:?}") };
        (model.bits(), norm)
    };
    // The mean of a batch and itself is that batch, to the bit.
    let once = step(r#", "max_grad_norm": 0.01"#, &[5]);
    let twice = step(r#", "max_grad_norm": 0.01, "gradient_accumulation_steps": 2"#, &[5, 5]);
    assert_eq!(once, twice);
    assert_ne!(once.0, step("", &[6]).0);
    assert!(once.1.unwrap() > 0.01, "something to clip");
    assert_eq!(step(r#", "max_grad_norm": 0.0"#, &[5]).1, None);
}

#[test]
fn a_shorter_last_window_is_a_mean_of_its_own() {
    let model = Model::new(DType::F32);
    let (a, b) = (arguments(r#", "gradient_accumulation_steps": 4"#), arguments(""));
    let other = Model::new(DType::F32);
    let mut training = Training::new(&a, model.vars(), None).unwrap();
    let mut plain = Training::new(&b, other.vars(), None).unwrap();
    for step in 0..3 {
        training.expect(2).unwrap();
        training.backward(&model.loss(step)).unwrap();
        assert!(training.expect(3).is_err(), "a window that has begun");
        assert!(matches!(training.backward(&model.loss(step)).unwrap(), Outcome::Stepped(_)));
        plain.backward(&other.loss(step)).unwrap();
        assert_eq!(model.bits(), other.bits());
    }
}

#[test]
fn a_scaled_loss_gives_the_same_step_and_an_overflow_skips_one() {
    let (plain, scaled) = (Model::new(DType::F32), Model::new(DType::F32));
    let mut a = Training::new(&arguments(""), plain.vars(), None).unwrap();
    let mut b = Training::new(&arguments(r#", "fp16": true"#), scaled.vars(), None).unwrap();
    for t in 0..4 {
        a.backward(&plain.loss(t)).unwrap();
        b.backward(&scaled.loss(t)).unwrap();
        assert_eq!(plain.bits(), scaled.bits(), "a power of two scales to the bit");
    }
    let (before, rates) = (scaled.bits(), b.rates());
    let infinite = (scaled.loss(0) * f64::INFINITY).unwrap();
    assert_eq!(b.backward(&infinite).unwrap(), Outcome::Skipped);
    assert_eq!((scaled.bits(), b.rates()), (before, rates), "neither step nor schedule");
    assert_eq!(b.loss_scale().unwrap().scale, 32768.0);
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_went_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let extra = BTreeMap::from([("epoch".to_owned(), "3".to_owned())]);
    for optim in ["adamw_torch", "schedule_free_adamw", "adafactor", "adamw_torch_8bit"] {
        for dtype in [DType::F32, DType::BF16] {
            let mut args = arguments("");
            args.training.optim = optim.into();
            args.training.gradient_accumulation_steps = 2;
            args.fp16 = true;
            let model = Model::new(dtype);
            let mut training = Training::new(&args, model.vars(), None).unwrap();
            let steps = |training: &mut Training, model: &Model, range: std::ops::Range<usize>| {
                for t in range {
                    training.backward(&model.loss(t)).unwrap();
                }
            };
            steps(&mut training, &model, 0..5);
            assert!(training.save(&path, &extra).is_err(), "a micro-batch waits");
            steps(&mut training, &model, 5..6);
            training.save(&path, &extra).unwrap();

            let other = Model::new(dtype);
            let mut resumed = Training::new(&args, other.vars(), None).unwrap();
            assert_eq!(resumed.load(&path).unwrap(), extra);
            assert_eq!(other.bits(), model.bits());
            steps(&mut training, &model, 6..12);
            steps(&mut resumed, &other, 6..12);
            assert_eq!(other.bits(), model.bits(), "{optim}");
            assert_eq!(resumed.rates(), training.rates());
        }
    }
    let before = Model::new(DType::F32);
    let mut other = Training::new(&arguments(""), before.vars(), None).unwrap();
    let bits = before.bits();
    assert!(other.load(&path).is_err(), "another optimizer");
    assert_eq!(before.bits(), bits);
}

#[test]
fn evaluation_turns_schedule_free_variables_and_back() {
    let model = Model::new(DType::F32);
    let spec = registry::optimizer("schedule_free_sgd", Args::new().with("lr", 0.1)).unwrap();
    let vars: Vec<Var> = model.vars().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = Optimizer::new(vars, spec).unwrap();
    for t in 0..4 {
        optimizer.backward_step(&model.loss(t)).unwrap();
    }
    let train = model.bits();
    optimizer.eval().unwrap();
    let eval = model.bits();
    assert_ne!(eval, train);
    assert!(optimizer.backward_step(&model.loss(0)).is_err(), "not while evaluating");
    assert_eq!(model.bits(), eval);
    optimizer.train().unwrap();
    let close = |a: &[u32], b: &[u32]| {
        a.iter().zip(b).all(|(a, b)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-5)
    };
    assert!(close(&model.bits(), &train));
}

#[test]
fn layer_by_layer_has_the_bits_of_all_at_once_for_every_optimizer() {
    let mut refused = 0;
    for entry in OPTIMIZERS {
        let spec = registry::optimizer(entry.name, Args::new()).unwrap();
        let fits = |dims: &[usize]| spec.rule.check_shape(dims).is_ok();
        let vars = |model: &Model| -> Vec<Var> {
            let vars = model.vars().into_iter().map(|(_, var)| var);
            vars.filter(|var| fits(var.dims())).collect()
        };
        let (whole, cut) = (Model::new(DType::F32), Model::new(DType::F32));
        let mut a = Optimizer::new(vars(&whole), spec.clone()).unwrap();
        let mut b = Optimizer::new(vars(&cut), spec.clone()).unwrap();
        for t in 0..3 {
            let mut layers = Layers::new();
            let loss = cut.cut_loss(t, &mut layers).unwrap();
            if b.begin(&[]).is_err() {
                refused += 1;
                break;
            }
            a.backward_step(&whole.loss(t)).unwrap();
            let mut parts = 0;
            layers
                .backward(&loss, |grads| {
                    let held = vars(&cut).iter().filter(|var| grads.get(var).is_some()).count();
                    assert!(held <= 2, "the gradients of one layer at a time");
                    parts += usize::from(held > 0);
                    b.step_some(grads, &[])
                })
                .unwrap();
            assert!(parts >= LAYERS);
            assert_eq!(cut.bits(), whole.bits(), "{}", entry.name);
        }
    }
    assert!(refused <= 1, "{refused} rules want a norm over all gradients");
}

#[test]
fn what_is_set_by_hand_is_used() {
    let model = Model::new(DType::F32);
    let spec = registry::optimizer("sgd", Args::new().with("lr", 0.1)).unwrap();
    let mut optimizer = Optimizer::empty();
    optimizer.add_group(spec, model.vars()).unwrap();
    let mut training = Training::of(optimizer).unwrap();
    training.set_clip(Some(ClipGradNorm { max_norm: 1e-3, ..ClipGradNorm::default() }));
    training.set_accumulation(GradientAccumulator::sum(2).unwrap());
    training.set_loss_scale(Some(LossScale::default()));
    assert_eq!(training.backward(&model.loss(0)).unwrap(), Outcome::Accumulated);
    assert!(matches!(training.backward(&model.loss(1)).unwrap(), Outcome::Stepped(Some(_))));
}

#[test]
fn noise_on_embeddings_is_the_cores_and_goes_on_after_a_resume() {
    let model = Model::new(DType::F32);
    let new = || {
        let args = arguments(r#", "neftune_noise_alpha": 5.0"#);
        Training::new(&args, model.vars(), None).unwrap()
    };
    let mut training = new();
    let var = Var::from_tensor(&numbers(&[2, 3, 4], 1)).unwrap();
    let bits = |x: &Tensor| -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    let mut seen = Vec::new();
    for draw in 0..3 {
        let noisy = training.embedded(&var).unwrap();
        let mut want = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let data = DataMut::F32(&mut want);
        Neftune { alpha: 5.0 }.add(data, 3, 4, 0, draw).unwrap();
        assert_eq!(bits(&noisy), want.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        let grads = noisy.sum_all().unwrap().backward().unwrap();
        assert_eq!(bits(grads.get(&var).unwrap()), [1f32.to_bits(); 24], "it passes through");
        seen.push(bits(&noisy));
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    training.save(&path, &BTreeMap::new()).unwrap();
    let mut resumed = new();
    resumed.load(&path).unwrap();
    let next = |training: &mut Training| bits(&training.embedded(&var).unwrap());
    assert_eq!(next(&mut resumed), next(&mut training));

    training.optimizer_mut().eval().unwrap();
    assert_eq!(next(&mut training), bits(&var), "none while evaluating");
    training.optimizer_mut().train().unwrap();
    assert_ne!(next(&mut training), bits(&var));
    training.set_neftune(None, 0);
    assert_eq!(next(&mut training), bits(&var));
}
