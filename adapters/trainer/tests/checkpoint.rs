//! Saving and resuming runs, and refusing files.

use std::collections::BTreeMap;
use std::path::Path;

use bitstep::float::Dtype;
use bitstep::hyper::{Args, FieldVisitor, HyperParams};
use bitstep::optimizer::{Buffer, GroupId, Optimizer, Param};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::{Schedule, ScheduleFacts, Scheduler};
use bitstep::storage::Data;
use bitstep_trainer::TrainingArguments;
use bitstep_trainer::checkpoint::{Checkpoint, CheckpointError, Run, save};

const SHAPES: [&[usize]; 4] = [&[40, 120], &[64, 80], &[5, 3], &[4096, 1]];

/// A run of an optimizer with synthetic gradients.
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
    let mut all = Buffer::zeros(dtype, len).unwrap();
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
        let mut optimizer = Optimizer::empty();
        let mut values = Vec::new();
        for _ in 0..2 {
            optimizer.add_group(registry::optimizer(name, Args::new()).unwrap()).unwrap();
        }
        for (i, shape) in SHAPES.iter().enumerate() {
            optimizer.add_param_to(GroupId(i % 2), shape, dtype).unwrap();
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
            // One parameter gets gradients later than the others.
            .map(|(i, (v, g))| Param {
                value: v.data_mut(),
                grad: g.data().filter(|_| i != 2 || t > 4),
            })
            .collect();
        self.optimizer.step_all(&mut params, &[]).unwrap();
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

    /// Parameters, state, learning rates: everything that the next step depends on.
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
    for entry in OPTIMIZERS {
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

/// The rate, and a tenth of it in every second step.
#[derive(Clone, Debug)]
struct Breather {
    every: u64,
}

impl HyperParams for Breather {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("every", &mut self.every);
    }
}

impl Schedule for Breather {
    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        if step.is_multiple_of(self.every) { 0.1 * base_lr } else { base_lr }
    }
}

impl ScheduleFacts for Breather {}

#[test]
fn a_schedule_of_ones_own_goes_on_where_it_was_and_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let toy = |every: u64, lrs: [f64; 2]| {
        let schedule = Scheduler::of("breather", Breather { every }, &lrs).unwrap();
        Toy { schedulers: vec![schedule], ..Toy::new("adamw_torch", Dtype::F32, "cosine") }
    };
    let mut went_on = toy(3, [0.01, 0.002]);
    (0..5).for_each(|_| went_on.step());
    went_on.save(&path).unwrap();
    let mut resumed = toy(3, [0.01, 0.002]);
    resumed.load(&path).unwrap();
    for _ in 0..4 {
        resumed.step();
        went_on.step();
        assert!(resumed.bits() == went_on.bits());
    }
    let refused = |mut toy: Toy| {
        let before = toy.bits();
        let error = toy.load(&path).unwrap_err();
        assert!(toy.bits() == before, "{error}");
        error.to_string()
    };
    assert_eq!(refused(toy(4, [0.01, 0.002])), "schedule 0: `every` was 3 and is 4");
    assert!(refused(toy(3, [0.01, 0.02])).starts_with("schedule 0: `groups` was "));
    let named = Toy::new("adamw_torch", Dtype::F32, "cosine");
    assert_eq!(refused(named), "schedule 0: `name` was \"breather\" and is \"cosine\"");
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
    assert_eq!(other.to_string(), "group 0: `rule` was \"adamw\" and is \"sgd\"");
    let other = refused(Toy::new("adamw_torch", Dtype::Bf16, "cosine"));
    assert!(matches!(other, CheckpointError::Tensor { .. }), "{other}");
    let other = refused(Toy::new("adamw_torch_8bit", Dtype::F32, "cosine"));
    assert!(matches!(other, CheckpointError::Recipe { .. }), "{other}");
    let other = refused(Toy::new("adamw_torch", Dtype::F32, "greedy"));
    assert_eq!(other.to_string(), "schedule 0: `name` was \"cosine\" and is \"greedy\"");

    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.names[1] = "side.weight".into();
    assert!(matches!(refused(toy), CheckpointError::Missing(name) if name == "side.weight"));

    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    let with = Args::parse("weight_decay=0.5").unwrap();
    let mut other = Optimizer::empty();
    for (number, group) in toy.optimizer.groups().iter().enumerate() {
        let with = if number == 1 { &with } else { &Args::new() };
        other.add_group(group.spec.with_args(with).unwrap()).unwrap();
    }
    for (i, shape) in SHAPES.iter().enumerate() {
        other.add_param_to(GroupId(i % 2), shape, Dtype::F32).unwrap();
    }
    toy.optimizer = other;
    let error = refused(toy);
    assert_eq!(error.to_string(), "group 1: `hyper.weight_decay` was 0.01 and is 0.5");

    // A parameter that only the file has.
    let mut fewer = Toy::new("adamw_torch", Dtype::F32, "cosine");
    let mut optimizer = Optimizer::empty();
    for group in fewer.optimizer.groups() {
        optimizer.add_group(group.spec.clone()).unwrap();
    }
    for (i, shape) in SHAPES.iter().enumerate().take(3) {
        optimizer.add_param_to(GroupId(i % 2), shape, Dtype::F32).unwrap();
    }
    fewer.optimizer = optimizer;
    fewer.values.pop();
    fewer.names.pop();
    assert!(matches!(refused(fewer), CheckpointError::Surplus(name) if name.starts_with("wide")));

    // Another shape with the same number of elements.
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
    toy.names[0] = "norm".into(); // a duplicate name
    assert!(matches!(toy.save(&path), Err(CheckpointError::Names(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// The names and lengths of the files in a folder.
fn names(folder: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let name = |e: &std::fs::DirEntry| e.file_name().into_string().unwrap();
    entries.map(|e| (name(&e), e.metadata().unwrap().len())).collect()
}

fn part(name: &str) -> bool {
    name.starts_with(".bitstep-checkpoint-") && name.ends_with(".tmp")
}

#[test]
fn names_that_a_file_cannot_have_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    toy.step();
    for name in ["__metadata__", "a/b", "/", "up.weight/exp_avg", "wide"] {
        toy.names[0] = name.into();
        let error = toy.save(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Names(_)), "{name}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{name}");
        assert_eq!(names(folder.path()).len(), 1);
    }
    for name in ["", "é\n\0\"\\", "metadata", ".", "__metadata", &"long".repeat(1000)] {
        toy.names[0] = name.into();
        toy.save(&path).unwrap();
        let mut resumed = Toy::new("adamw_torch", Dtype::F32, "cosine");
        resumed.names[0] = name.into();
        resumed.load(&path).unwrap();
        assert!(resumed.bits() == toy.bits(), "{name:?}");
    }
}

#[test]
fn values_of_another_length_are_refused_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.step();
    toy.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    for len in [0, 1, 4799, 4801] {
        let mut other = Toy::new("adamw_torch", Dtype::F32, "cosine");
        other.values[0] = buffer(Dtype::F32, len, 1);
        let bits = other.bits();
        let error = other.load(&path).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::Tensor { name, .. } if name == "up.weight"),
            "{error}"
        );
        assert!(other.bits() == bits);
        let error = other.save(&path).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::Tensor { name, .. } if name == "up.weight"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let file = Checkpoint::read(&path).unwrap();
        let error = file.fill("up.weight", &mut other.values[0].data_mut()).unwrap_err();
        assert!(matches!(error, CheckpointError::Tensor { .. }), "{error}");
        let error = file.fill("up.weight", &mut buffer(Dtype::Bf16, 4800, 1).data_mut());
        assert!(matches!(error, Err(CheckpointError::Tensor { .. })));
    }
}

#[test]
fn a_value_of_another_type_than_its_parameter_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    for other in [Buffer::F64(vec![0.5; 4800]), buffer(Dtype::Bf16, 4800, 1)] {
        toy.values[0] = other;
        let error = toy.save(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Tensor { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(names(folder.path()).len(), 1);
    }
}

#[test]
fn what_a_killed_process_left_is_cleared_and_what_another_writes_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let left = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, [1; 100]).unwrap();
        path
    };
    let stale: Vec<_> = (0..20).map(|i| left(&format!(".bitstep-checkpoint-x{i}.tmp"))).collect();
    let others = [".tmpAbCdEf", "bitstep-checkpoint-a.tmp", ".bitstep-checkpoint-a.txt"].map(left);
    let held = left(".bitstep-checkpoint-held.tmp");
    let writer = std::fs::File::open(&held).unwrap();
    writer.lock().unwrap();
    Toy::new("adamw_torch", Dtype::F32, "cosine").save(&path).unwrap();
    assert!(stale.iter().all(|path| !path.exists()));
    assert!(others.iter().chain([&held]).all(|path| path.exists()));
    drop(writer);
    Toy::new("adamw_torch", Dtype::F32, "cosine").save(&path).unwrap();
    assert!(!held.exists());
    assert_eq!(names(folder.path()).len(), 4);
}

#[cfg(unix)]
#[test]
fn permissions_and_links_of_an_old_file_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    // A new file has the default permissions.
    std::fs::write(at("any"), "").unwrap();
    toy.save(&at("run")).unwrap();
    assert_eq!(mode(&at("run")), mode(&at("any")));
    for expected in [0o640, 0o600, 0o444, 0o666] {
        std::fs::set_permissions(at("run"), PermissionsExt::from_mode(expected)).unwrap();
        toy.save(&at("run")).unwrap();
        assert_eq!(mode(&at("run")), expected);
    }
    // Through links, one of them relative and one to a file that does not exist yet.
    std::fs::create_dir(at("deep")).unwrap();
    symlink("../run", at("deep/link")).unwrap();
    symlink(at("deep/link"), at("latest")).unwrap();
    symlink("deep/new", at("next")).unwrap();
    std::fs::write(at("run"), "old").unwrap();
    for (link, file) in [("latest", "run"), ("next", "deep/new")] {
        toy.save(&at(link)).unwrap();
        assert!(std::fs::symlink_metadata(at(link)).unwrap().is_symlink());
        assert!(std::fs::symlink_metadata(at(file)).unwrap().is_file());
        Checkpoint::read(&at(file)).unwrap();
    }
    symlink("circle", at("circle")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(at("pipe")).status();
    let mut refused = vec!["circle", "folder", "nowhere/run"];
    if fifo.is_ok_and(|status| status.success()) {
        refused.push("pipe");
    } else {
        println!("SKIPPED: no mkfifo");
    }
    for name in refused {
        let error = toy.save(&at(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::Io { .. }), "{name}: {error}");
        let error = Checkpoint::read(&at(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::Io { .. }), "{name}: {error}");
    }
    assert!(names(folder.path()).iter().all(|(name, _)| !part(name)));
}

const FULL: &str = "BITSTEP_TEST_DISK_IS_FULL";

/// The child process of the next test, with a limit on file sizes.
#[test]
fn child_whose_disk_is_full() {
    let Ok(path) = std::env::var(FULL) else { return };
    let mut toy = Toy::new("adamw_torch", Dtype::F32, "cosine");
    toy.load(Path::new(&path)).unwrap();
    toy.step();
    let error = toy.save(Path::new(&path)).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error:?}");
    println!("refused: {error}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_of_the_system_and_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    Toy::new("adamw_torch", Dtype::F32, "cosine").save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    // Files of at most 32 or 64 KiB, depending on the shell's unit. With the signal ignored, writing fails.
    let child = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["child_whose_disk_is_full", "--exact", "--nocapture"])
        .env(FULL, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("refused: "), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(names(folder.path()).len(), 1);
}

const STEPS: u64 = 4000;
const CHILD: &str = "BITSTEP_TEST_SAVES_HERE";

/// The child process that the next test kills. Saves after every step.
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
        // At a different point of the child's work each time.
        std::thread::sleep(std::time::Duration::from_micros(700 * round + 130));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut resumed = Toy::new("flash_adamw", Dtype::Bf16, "constant_with_warmup");
        resumed.load(&path).unwrap();
        assert!(resumed.t > 0 && resumed.t < STEPS);
        // Files that earlier children were writing have been removed.
        let begun = names(folder.path()).into_iter().filter(|(name, len)| part(name) && *len > 0);
        assert!(begun.count() <= 1, "{:?}", names(folder.path()));
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
