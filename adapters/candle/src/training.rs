//! Transformers' Trainer around an optimizer.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bitstep::gradient::{ClipGradNorm, GradientAccumulator, LossScale, Neftune};
use bitstep::hyper::ArgError;
use bitstep::optimizer::GroupId;
use bitstep::rule::mode::Mode;
use bitstep::schedule::Scheduler;
use bitstep_trainer::checkpoint::{self, Checkpoint, Run};
use bitstep_trainer::{Arguments, LayersError, Parameter, follows_metric, resume};
use candle_core::{Error, Result, Tensor, Var};

use crate::{Optimizer, cpu, import};

mod window;

/// The effect of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Its gradients were added to those of its accumulation window, which is not full yet.
    Accumulated,
    /// The variables were updated with this micro-batch alone, as LOMO does, and its window is not
    /// full yet. Learning rates stay until it is.
    Moved,
    /// The variables were updated. The norm of all gradients before clipping, if they are clipped.
    Stepped(Option<f64>),
    /// A gradient was not finite: the loss scale was reduced, and the variables were not updated.
    Skipped,
}

/// An optimizer with schedules, accumulation, clipping and loss scaling around it.
///
/// ```
/// use bitstep_candle::{Outcome, Training};
/// use bitstep_trainer::Arguments;
/// use candle_core::{DType, Device, Var};
///
/// let args = Arguments::from_json(r#"{"optim": "adamw_torch", "learning_rate": 0.1,
///     "gradient_accumulation_steps": 2, "max_steps": 10}"#)?;
/// let weight = Var::ones((2, 3), DType::F32, &Device::Cpu)?;
/// let mut training = Training::new(&args, [("layer.weight".into(), weight.clone())], None)?;
/// let loss = || weight.sqr()?.sum_all();
/// assert_eq!(training.backward(&loss()?)?, Outcome::Accumulated);
/// assert!(matches!(training.backward(&loss()?)?, Outcome::Stepped(Some(_))));
/// assert!(training.rates().iter().all(|lr| (lr - 0.09).abs() < 1e-9)); // with and without decay
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Training {
    optimizer: Optimizer,
    schedulers: Vec<Scheduler>,
    /// For each schedule, the groups whose learning rates it sets.
    scheduled: Vec<Vec<GroupId>>,
    clip: Option<ClipGradNorm>,
    accumulation: GradientAccumulator,
    totals: Vec<Option<Tensor>>,
    /// The number of labels in each micro-batch of the window, if the caller announced them.
    labels: Vec<u64>,
    /// Whether the variables are updated with each micro-batch.
    every_micro_batch: bool,
    loss_scale: Option<LossScale>,
    neftune: Option<Neftune>,
    /// The seed of NEFTune's noise, and the number of draws so far.
    noise: (u64, u64),
}

impl Training {
    /// Sets up the training of these variables as Trainer does, for the file's `max_steps` or else
    /// `num_training_steps`. Layer types are guessed: [`Parameter::guess`]. The first name of a
    /// variable with several (tied weights) is used, as in `named_parameters()`.
    ///
    /// # Errors
    /// Arguments or variables that training can't be set up with.
    pub fn new(
        args: &Arguments,
        vars: impl IntoIterator<Item = (String, Var)>,
        num_training_steps: Option<u64>,
    ) -> Result<Self> {
        let version = args.training.version;
        let guess =
            |named: &[(&str, &[usize])]| Ok(Parameter::guess(named.iter().copied(), version));
        Self::with_layers(args, vars, num_training_steps, guess)
    }

    /// [`new`](Self::new) with known layer types: `layers` takes the name and shape of each
    /// variable and returns a [`Parameter`] for each, in the same order.
    ///
    /// ```
    /// use bitstep::optimizer::GroupId;
    /// use bitstep_candle::Training;
    /// use bitstep_trainer::{Arguments, Layer, ModelLayers, Parameter};
    /// use candle_core::{DType, Device, Var};
    ///
    /// let args = Arguments::from_json(r#"{"weight_decay": 0.1, "max_steps": 10}"#)?;
    /// let var = || Var::ones(4, DType::F32, &Device::Cpu);
    /// let vars = || Ok::<_, candle_core::Error>([("scale.weight".to_owned(), var()?)]);
    /// // Layer types that the caller knows.
    /// let training = Training::with_layers(&args, vars()?, None, |named| {
    ///     let norm = |&(name, shape): &(&str, &[usize])| Parameter::of(name, shape, Layer::LayerNorm);
    ///     Ok(named.iter().map(norm).collect())
    /// })?;
    /// assert_eq!(training.optimizer().state("scale.weight").unwrap().group, GroupId(1)); // does not decay
    /// // Layer types of a model in Python.
    /// let layers = ModelLayers::from_json(
    ///     r#"{"modules": {"": [], "scale": []},
    ///     "parameters": [{"names": ["scale.weight"], "shape": [4]}]}"#,
    /// )?;
    /// let training = Training::with_layers(&args, vars()?, None, |named| {
    ///     layers.parameters(named.iter().copied())
    /// })?;
    /// assert_eq!(training.optimizer().state("scale.weight").unwrap().group, GroupId(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of `layers`, parameters that do not match the variables in number and shapes, and
    /// those of [`new`](Self::new).
    pub fn with_layers(
        args: &Arguments,
        vars: impl IntoIterator<Item = (String, Var)>,
        num_training_steps: Option<u64>,
        layers: impl FnOnce(&[(&str, &[usize])]) -> std::result::Result<Vec<Parameter>, LayersError>,
    ) -> Result<Self> {
        let mut seen = HashSet::new();
        let vars = vars.into_iter().filter(|(_, var)| seen.insert(var.id()));
        let vars: Vec<(String, Var)> = vars.collect();
        let named: Vec<_> = vars.iter().map(|(name, var)| (name.as_str(), var.dims())).collect();
        let parameters = layers(&named).map_err(Error::wrap)?;
        if !parameters.iter().map(|p| p.shape.as_slice()).eq(named.iter().map(|(_, shape)| *shape))
        {
            return Err(Error::msg(
                "the layers' parameters are not of the shapes of the variables",
            ));
        }
        let setup = args.setup(&parameters, num_training_steps).map_err(Error::wrap)?;
        let mut optimizer = Optimizer::empty();
        for group in &setup.groups {
            let number = optimizer.add_group(group.spec.clone(), [])?;
            for &i in &group.members {
                let (name, var) = vars[i].clone();
                match group.plain.contains(&i) {
                    true => optimizer.add_plain_var(number, name, var)?,
                    false => optimizer.add_var(number, name, var)?,
                }
            }
        }
        let mut training = Training::of(optimizer)?;
        training.clip = setup.clip;
        training.accumulation = setup.accumulation;
        training.loss_scale = setup.loss_scale;
        training.neftune = setup.neftune;
        training.every_micro_batch = setup.every_micro_batch;
        training.attach(setup.scheduler, (0..setup.groups.len()).map(GroupId).collect())?;
        Ok(training)
    }

    /// Wraps an optimizer, without schedules, clipping, accumulation or loss scaling.
    ///
    /// # Errors
    /// None known.
    pub fn of(optimizer: Optimizer) -> Result<Self> {
        Ok(Training {
            totals: vec![None; optimizer.vars().len()],
            optimizer,
            schedulers: Vec::new(),
            scheduled: Vec::new(),
            clip: None,
            accumulation: GradientAccumulator::mean(1).map_err(Error::wrap)?,
            labels: Vec::new(),
            every_micro_batch: false,
            loss_scale: None,
            neftune: None,
            noise: (0, 0),
        })
    }

    /// Lets a schedule set the learning rates of these groups, in this order, from now on.
    ///
    /// # Errors
    /// Another number of groups than the schedule has, or a group that does not exist.
    pub fn attach(&mut self, scheduler: Scheduler, groups: Vec<GroupId>) -> Result<()> {
        let all = self.optimizer.inner().groups().len();
        if scheduler.lrs().len() != groups.len() || groups.iter().any(|&g| g.0 >= all) {
            let rates = scheduler.lrs().len();
            let message = format!("a schedule of {rates} groups for {groups:?} of {all}");
            return Err(Error::msg(message));
        }
        self.optimizer.inner_mut().follow(&scheduler, &groups).map_err(Error::wrap)?;
        self.schedulers.push(scheduler);
        self.scheduled.push(groups);
        Ok(())
    }

    /// Replaces all schedules with one of the caller's for all groups, which `of` builds from the
    /// groups' initial learning rates. Momentum that another schedule has cycled stays as it is.
    ///
    /// ```
    /// use bitstep::hyper::{FieldVisitor, HyperParams};
    /// use bitstep::schedule::{Schedule, ScheduleFacts, Scheduler};
    /// use bitstep_candle::Training;
    /// use bitstep_trainer::Arguments;
    /// use candle_core::{DType, Device, Var};
    ///
    /// /// A tenth of the rate every third step.
    /// #[derive(Clone, Debug)]
    /// struct Breather;
    ///
    /// impl HyperParams for Breather {
    ///     fn fields(&mut self, _: &mut dyn FieldVisitor) {}
    /// }
    ///
    /// impl Schedule for Breather {
    ///     fn lr(&self, base_lr: f64, step: u64) -> f64 {
    ///         if step % 3 == 2 { 0.1 * base_lr } else { base_lr }
    ///     }
    /// }
    ///
    /// impl ScheduleFacts for Breather {}
    ///
    /// let args = Arguments::from_json(r#"{"learning_rate": 0.5, "max_steps": 10}"#)?;
    /// let weight = Var::ones((2, 3), DType::F32, &Device::Cpu)?;
    /// let mut training = Training::new(&args, [("layer.weight".into(), weight.clone())], None)?;
    /// training.set_schedule(|lrs| Scheduler::of("breather", Breather, lrs))?;
    /// for lr in [0.5, 0.05, 0.5] {
    ///     training.backward(&weight.sqr()?.sum_all()?)?;
    ///     assert_eq!(training.rates()[0], lr); // of the step to come
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of `of` and of [`attach`](Self::attach); the schedules are unchanged then.
    pub fn set_schedule(
        &mut self,
        of: impl FnOnce(&[f64]) -> std::result::Result<Scheduler, ArgError>,
    ) -> Result<()> {
        let groups = self.optimizer.inner().groups();
        let lrs: Vec<f64> = groups.iter().map(|group| group.spec.rule.lr()).collect();
        let scheduler = of(&lrs).map_err(Error::wrap)?;
        self.attach(scheduler, (0..lrs.len()).map(GroupId).collect())?;
        // Only the new one stays.
        self.schedulers.drain(..self.schedulers.len() - 1);
        self.scheduled.drain(..self.scheduled.len() - 1);
        Ok(())
    }

    /// Clips all gradients by their total norm before each step.
    pub fn set_clip(&mut self, clip: Option<ClipGradNorm>) {
        self.clip = clip;
    }

    /// Scales the loss, for 16-bit gradients that would underflow.
    pub fn set_loss_scale(&mut self, scale: Option<LossScale>) {
        self.loss_scale = scale;
    }

    /// Adds noise drawn from this seed to the tensors passed to [`embedded`](Self::embedded).
    pub fn set_neftune(&mut self, neftune: Option<Neftune>, seed: u64) {
        self.neftune = neftune;
        self.noise = (seed, 0);
    }

    /// Adds NEFTune's noise to the output of the model's input embedding (…, length, width), if
    /// `neftune_noise_alpha` is set and the optimizer is in training mode; otherwise returns the
    /// output itself. candle's modules have no hooks, so the model calls this where Trainer's hook
    /// would run.
    ///
    /// # Errors
    /// A tensor of fewer than two dimensions, not on the CPU, or not of f64, f32, bf16 or f16.
    pub fn embedded(&mut self, output: &Tensor) -> Result<Tensor> {
        let Some(neftune) = &self.neftune else { return Ok(output.clone()) };
        if self.optimizer.inner().mode() == Mode::Eval {
            return Ok(output.clone());
        }
        let (seed, draw) = self.noise;
        let noisy = cpu::add_noise(output, neftune, seed, draw)?;
        self.noise = (seed, draw.wrapping_add(1));
        Ok(noisy)
    }

    /// Steps the schedules that are driven by a metric.
    ///
    /// # Errors
    /// Those of the schedule.
    pub fn metric(&mut self, metric: f64) -> Result<()> {
        self.step_schedules(Some(metric))
    }

    /// Steps the schedules that are driven by a metric, or those that are not. They continue from
    /// the current learning rates, also if those were set by hand.
    fn step_schedules(&mut self, metric: Option<f64>) -> Result<()> {
        let state = self.optimizer.inner_mut();
        for (scheduler, groups) in self.schedulers.iter_mut().zip(&self.scheduled) {
            if follows_metric(scheduler) == metric.is_some() {
                let step = state.step_schedule(scheduler, groups, metric.as_slice());
                step.map_err(Error::wrap)?;
            }
        }
        Ok(())
    }

    /// The groups' current learning rates.
    #[must_use]
    pub fn rates(&self) -> Vec<f64> {
        self.optimizer.inner().groups().iter().map(|g| g.lr).collect()
    }

    /// The current loss scale.
    #[must_use]
    pub fn loss_scale(&self) -> Option<&LossScale> {
        self.loss_scale.as_ref()
    }

    /// The optimizer: variables, groups and state.
    #[must_use]
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimizer, mutably.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// Saves everything that resuming needs, the variables included, to one file that is replaced
    /// atomically. [`load`](Self::load) returns `extra`.
    ///
    /// # Errors
    /// [`CheckpointError`](checkpoint::CheckpointError), wrapped; an accumulation window that is not
    /// full.
    pub fn save(&self, path: impl AsRef<Path>, extra: &BTreeMap<String, String>) -> Result<()> {
        if self.accumulation.position() > 0 {
            return Err(Error::msg("micro-batches wait for a step: save after it"));
        }
        let mut extra = extra.clone();
        if let Some(scale) = &self.loss_scale {
            let bits = scale.scale.to_bits();
            extra.insert(LOSS_SCALE.to_owned(), format!("{bits} {}", scale.good_steps));
        }
        if self.neftune.is_some() {
            let (seed, draw) = self.noise;
            extra.insert(NOISE.to_owned(), format!("{seed} {draw}"));
        }
        let names = self.names();
        let vars: Vec<Option<Tensor>> =
            self.optimizer.vars().iter().map(|(_, var)| Some(var.as_tensor().clone())).collect();
        cpu::with_data(&vars, |values| {
            let values: Vec<_> = values.iter().copied().flatten().collect();
            let run = Run {
                optimizer: self.optimizer.inner(),
                names: &names,
                schedulers: &self.schedulers,
                extra: &extra,
            };
            checkpoint::save(path.as_ref(), &run, &values).map_err(Error::wrap)
        })
    }

    /// Resumes a saved run of the same variables, groups and schedules; returns the `extra` that was
    /// saved.
    ///
    /// # Errors
    /// [`CheckpointError`](checkpoint::CheckpointError), wrapped; nothing has changed then.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
        let file = Checkpoint::read(path.as_ref()).map_err(Error::wrap)?;
        let names = self.names();
        let vars = self.optimizer.vars();
        let dtypes: Vec<_> =
            vars.iter().map(|(_, var)| cpu::empty_data(var.dtype()).map(|d| d.dtype())).collect();
        let restored = file
            .prepare(self.optimizer.inner(), &names, &self.schedulers, &dtypes)
            .map_err(Error::wrap)?;
        let mut extra = file.extra();
        let mut numbers = |key| {
            let text = extra.remove(key)?;
            let (a, b) = text.split_once(' ')?;
            Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?))
        };
        let (scaled, noise) = (numbers(LOSS_SCALE), numbers(NOISE));
        vars.iter().try_for_each(|(name, var)| cpu::fill(var, name, &file))?;
        restored.commit(self.optimizer.inner_mut(), &mut self.schedulers).map_err(Error::wrap)?;
        if let (Some(scale), Some((bits, steps))) = (&mut self.loss_scale, scaled) {
            (scale.scale, scale.good_steps) = (f64::from_bits(bits), steps);
        }
        if let (Some(_), Some(noise)) = (&self.neftune, noise) {
            self.noise = noise;
        }
        self.begin_window();
        Ok(extra)
    }

    /// Resumes from a checkpoint folder of Trainer: `optimizer.pt`, `scheduler.pt` and, where the
    /// loss is scaled, `scaler.pt` if it exists. These files have no parameter names: `order` is the
    /// names in the order of `model.named_parameters()`, with or without frozen parameters, which
    /// are no variables here. The caller loads the variables themselves, from `model.safetensors`.
    ///
    /// # Errors
    /// A file that can't be read, or state that does not match; nothing has changed then.
    pub fn resume(&mut self, folder: impl AsRef<Path>, order: &[&str]) -> Result<()> {
        let folder = folder.as_ref();
        let saved = import::optimizer(folder.join("optimizer.pt"))?;
        let schedule = import::scheduler(folder.join("scheduler.pt"))?;
        let [scheduler] = self.schedulers.as_mut_slice() else {
            return Err(Error::msg("Trainer has one schedule for all groups"));
        };
        let mut scale = self.loss_scale;
        let path = folder.join("scaler.pt");
        if let (Some(scale), true) = (&mut scale, path.exists()) {
            resume::loss_scale(scale, &import::scaler(path)?).map_err(Error::wrap)?;
        }
        let vars = self.optimizer.vars();
        if let Some((name, _)) = vars.iter().find(|(name, _)| !order.contains(&name.as_str())) {
            return Err(Error::msg(format!("`{name}` is not in the order of parameters")));
        }
        // torch numbers parameters group by group, each group in the model's order.
        let params = self.optimizer.inner().params();
        let groups = 0..self.optimizer.inner().groups().len();
        let found = |name: &&str| vars.iter().position(|(n, _)| n == name);
        let positions: Vec<usize> = groups
            .flat_map(|group| {
                let trained = order.iter().filter_map(found);
                trained.filter(move |&i| params[i].group == GroupId(group))
            })
            .collect();
        let state = self.optimizer.inner_mut();
        resume::run(state, &positions, &saved, scheduler, &schedule).map_err(Error::wrap)?;
        self.loss_scale = scale;
        self.begin_window();
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.optimizer.vars().iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The key of the loss scale and its number of good steps in a checkpoint's `extra`.
const LOSS_SCALE: &str = "bitstep.loss_scale";
/// The key of the noise: its seed and number of draws.
const NOISE: &str = "bitstep.noise";
