//! Saving, resuming and refusing.

use std::collections::BTreeMap;
use std::path::Path;

use bitstep::args::Args;
use bitstep::named;
use bitstep::optim::LIST;
use bitstep::optimizer::{Buffer, Optimizer, Param};
use bitstep::real::Dtype;
use bitstep::schedule::Scheduler;
use bitstep::storage::Data;
use bitstep::training::TrainingArguments;
use bitstep_training::checkpoint::{Checkpoint, CheckpointError, Run, save};

const SHAPES: [&[usize]; 4] = [&[40, 120], &[64, 80], &[5, 3], &[4096, 1]];

/// A run of some optimizer over made-up gradients.
struct Toy {
    optimizer: Optimizer,
    values: Vec<Buffer>,
    names: Vec<String>,
    schedulers: Vec<Scheduler>,
    t: u64,
}

fn numbers(len: usize, salt: u64) -> impl Iterator<Item = f64> {
    (0..len as u64).map(move |i| {
        let x =
            (i ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(salt | 1);
        (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

fn buffer(dtype: Dtype, len: usize, salt: u64) -> Buffer {
    let mut all = Buffer::zeros(dtype, len);
    match &mut all {
        Buffer::F32(x) => x.iter_mut().zip(numbers(len, salt)).for_each(|(x, n)| *x = n as f32),
        Buffer::Bf16(x) => {
            x.iter_mut().zip(numbers(len, salt)).for_each(|(x, n)| *x = half::bf16::from_f64(n));
        }
        _ => unreachable!(),
    }
    all
}

impl Toy {
    fn new(name: &str, dtype: Dtype, schedule: &str) -> Toy {
        let mut optimizer = Optimizer::new();
        let mut values = Vec::new();
        for _ in 0..2 {
            optimizer.add_group(named::optimizer(name, &Args::new()).unwrap()).unwrap();
        }
        for (i, shape) in SHAPES.iter().enumerate() {
            optimizer.add_param(i % 2, shape, dtype).unwrap();
            values.push(buffer(dtype, shape.iter().product(), i as u64 + 1));
        }
        let mut args = TrainingArguments {
            lr_scheduler_type: schedule.into(),
            warmup_steps: 2.0,
            ..TrainingArguments::default()
        };
        if schedule == "reduce_lr_on_plateau" || schedule == "greedy" {
            args.lr_scheduler_kwargs = Args::parse("patience=1, min_lr=1e-5").unwrap();
        }
        let schedulers = vec![args.scheduler(&[0.01, 0.002], 20).unwrap()];
        let names = ["up.weight", "down.weight", "norm", "wide"].map(str::to_owned).to_vec();
        Toy { optimizer, values, names, schedulers, t: 0 }
    }

    fn step(&mut self) {
        for (group, lr) in self.optimizer.groups_mut().iter_mut().zip(self.schedulers[0].lrs()) {
            group.lr = *lr;
        }
        let t = self.t;
        let grads: Vec<Buffer> = self
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| buffer(v.data().unwrap().dtype(), v.len(), 1000 + 10 * t + i as u64))
            .collect();
        let mut params: Vec<Param<'_>> = self
            .values
            .iter_mut()
            .zip(&grads)
            .enumerate()
            // One parameter joins late.
            .map(|(i, (v, g))| Param {
                value: v.data_mut(),
                grad: g.data().filter(|_| i != 2 || t > 4),
            })
            .collect();
        self.optimizer.step(&mut params, &[]).unwrap();
        let metric = [1.0 + (t % 3) as f64];
        let driven = self.schedulers[0].state();
        let driven = driven.plateau.is_some() || driven.greedy.is_some();
        self.schedulers[0].step(if driven { &metric } else { &[] }).unwrap();
        self.t += 1;
    }

    fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let extra = BTreeMap::from([("t".to_owned(), self.t.to_string())]);
        let run = Run {
            optimizer: &self.optimizer,
            names: &self.names,
            schedulers: &self.schedulers,
            extra: &extra,
        };
        let values: Vec<Data<'_>> = self.values.iter().map(|v| v.data().unwrap()).collect();
        save(path, &run, &values)
    }

    fn load(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let file = Checkpoint::read(path)?;
        let mut values: Vec<_> = self.values.iter_mut().map(Buffer::data_mut).collect();
        file.restore(&mut self.optimizer, &self.names, &mut self.schedulers, &mut values)?;
        self.t = file.extra()["t"].parse().unwrap();
        Ok(())
    }

    /// Parameters, state, rates: all that a further step depends on.
    fn bits(&self) -> String {
        let values = format!("{:?}", self.values);
        let states: Vec<_> = self.schedulers.iter().map(Scheduler::state).collect();
        format!("{values}{:?}{states:?}", self.optimizer.params())
    }
}

#[test]
fn a_resumed_run_of_every_optimizer_has_the_bits_of_one_that_went_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    for entry in LIST {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let mut went_on = Toy::new(entry.name, dtype, "cosine");
            (0..3).for_each(|_| went_on.step());
            went_on.save(&path).unwrap();
            let mut resumed = Toy::new(entry.name, dtype, "cosine");
            resumed.load(&path).unwrap();
            for t in 3..7 {
                assert!(resumed.bits() == went_on.bits(), "{} {dtype:?} {t}", entry.name);
                resumed.step();
                went_on.step();
            }
        }
    }
}

#[test]
fn schedules_with_a_memory_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    for schedule in ["reduce_lr_on_plateau", "greedy", "polynomial", "inverse_sqrt"] {
        let mut went_on = Toy::new("adamw_torch", Dtype::F32, schedule);
        (0..5).for_each(|_| went_on.step());
        went_on.save(&path).unwrap();
        let mut resumed = Toy::new("adamw_torch", Dtype::F32, schedule);
        resumed.load(&path).unwrap();
        for _ in 0..8 {
            resumed.step();
            went_on.step();
            assert!(resumed.bits() == went_on.bits(), "{schedule}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_half_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut saved = Toy::new("adamw_torch", Dtype::F32, "cosine");
    (0..3).for_each(|_| saved.step());
    saved.save(&path).unwrap();

    let refused = |mut toy: Toy| {
        let before = toy.bits();
        let error = toy.load(&path).unwrap_err();
        assert!(toy.bits() == before, "{error}");
        error
    };
    let other = refused(Toy::new("sgd", Dtype::F32, "cosine"));
    assert!(matches!(other, CheckpointError::Recipe { .. }), "{other}");
    let other = refused(Toy::new("adamw_torch", Dtype::Bf16, "cosine"));
    assert!(matches!(other, CheckpointError::Tensor { .. }), "{other}");
    let other = refused(Toy::new("adamw_torch_8bit", Dtype::F32, "cosine"));
    assert!(matches!(other, CheckpointError::Recipe { .. }), "{other}");
    let other = refused(Toy::new("adamw_torch", Dtype::F32, "greedy"));
    assert!(matches!(other, CheckpointError::Core(_)), "{other}");

    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.names[1] = "side.weight".into();
    assert!(matches!(refused(toy), CheckpointError::Missing(name) if name == "side.weight"));

    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    let with = Args::parse("weight_decay=0.5").unwrap();
    toy.optimizer.groups_mut()[1].recipe = toy.optimizer.groups()[1].recipe.with(&with).unwrap();
    let error = refused(toy);
    assert_eq!(error.to_string(), "group 1: `hyper.weight_decay` was 0.01 and is 0.5");

    // A parameter that only the file has.
    let mut fewer = Toy::new("adamw_torch", Dtype::F32, "cosine");
    let mut optimizer = Optimizer::new();
    for group in fewer.optimizer.groups() {
        optimizer.add_group(group.recipe.clone()).unwrap();
    }
    for (i, shape) in SHAPES.iter().enumerate().take(3) {
        optimizer.add_param(i % 2, shape, Dtype::F32).unwrap();
    }
    fewer.optimizer = optimizer;
    fewer.values.pop();
    fewer.names.pop();
    assert!(matches!(refused(fewer), CheckpointError::Surplus(name) if name.starts_with("wide")));

    // Another shape with as many elements.
    let mut bent = Toy::new("adamw_torch", Dtype::F32, "cosine");
    bent.optimizer.params_mut()[0].shape = vec![120, 40];
    assert!(matches!(refused(bent), CheckpointError::Tensor { name, .. } if name == "up.weight"));

    let whole = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = refused(Toy::new("adamw_torch", Dtype::F32, "cosine"));
        assert!(matches!(error, CheckpointError::SafeTensors(_)), "{len}: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = refused(Toy::new("adamw_torch", Dtype::F32, "cosine"));
    assert!(matches!(error, CheckpointError::Io { .. }));
}

#[test]
fn a_save_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    toy.step();
    toy.names[0] = "norm".into(); // a name twice
    assert!(matches!(toy.save(&path), Err(CheckpointError::Names(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

const STEPS: u64 = 4000;
const CHILD: &str = "BITSTEP_TEST_SAVES_HERE";

/// Not a test of its own: what the next one starts and kills. Saves after every step.
#[test]
fn child_that_saves_after_every_step() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let mut toy = Toy::new("flash_adamw", Dtype::Bf16, "constant_with_warmup");
    while toy.t < STEPS {
        toy.step();
        toy.save(Path::new(&path)).unwrap();
    }
}

#[test]
fn a_killed_process_leaves_a_whole_file_and_the_resumed_run_has_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    for round in 0..12 {
        let _ = std::fs::remove_file(&path);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["child_that_saves_after_every_step", "--exact"])
            .env(CHILD, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !path.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "the child ended before it saved");
            std::thread::yield_now();
        }
        // At another place in the child's work each time.
        std::thread::sleep(std::time::Duration::from_micros(700 * round + 130));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut resumed = Toy::new("flash_adamw", Dtype::Bf16, "constant_with_warmup");
        resumed.load(&path).unwrap();
        assert!(resumed.t > 0 && resumed.t < STEPS);
        let mut whole = Toy::new("flash_adamw", Dtype::Bf16, "constant_with_warmup");
        while whole.t < resumed.t {
            whole.step();
        }
        for _ in 0..3 {
            assert!(resumed.bits() == whole.bits(), "round {round}");
            resumed.step();
            whole.step();
        }
    }
}
