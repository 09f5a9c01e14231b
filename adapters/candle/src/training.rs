//! What Trainer does around an optimizer.

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

/// What became of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Its gradients wait for those of more micro-batches.
    Accumulated,
    /// The variables moved by its share of the window, of which there is more to come: as LOMO
    /// has it. The rates stay until the window is full.
    Moved,
    /// The variables moved; the norm of all gradients before clipping, if they are clipped.
    Stepped(Option<f64>),
    /// A gradient was not finite: the loss scale has been cut, and nothing moved.
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
    /// For each schedule, the groups whose rates it sets.
    scheduled: Vec<Vec<GroupId>>,
    clip: Option<ClipGradNorm>,
    accumulation: GradientAccumulator,
    totals: Vec<Option<Tensor>>,
    /// Labels in each micro-batch of the window, where the caller said so.
    labels: Vec<u64>,
    /// Whether the variables move with each micro-batch.
    every_micro_batch: bool,
    loss_scale: Option<LossScale>,
    neftune: Option<Neftune>,
    /// The seed of the noise, and how often there was any.
    noise: (u64, u64),
}

impl Training {
    /// As Trainer sets up the training of these variables, for the file's `max_steps` or else
    /// `num_training_steps`. Types of layers are guessed: [`Parameter::guess`]. Of a variable with
    /// several names (tied weights) the first counts, as in `named_parameters()`.
    ///
    /// # Errors
    /// What the arguments or the variables can't be used for.
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

    /// The same where types of layers are known: `layers` is given the name and shape of each
    /// variable and returns a [`Parameter`] for each, in their order.
    ///
    /// ```
    /// use bitstep_candle::Training;
    /// use bitstep_trainer::{Arguments, Layer, ModelLayers, Parameter};
    /// use candle_core::{DType, Device, Var};
    ///
    /// let args = Arguments::from_json(r#"{"weight_decay": 0.1, "max_steps": 10}"#)?;
    /// let var = || Var::ones(4, DType::F32, &Device::Cpu);
    /// let vars = || Ok::<_, candle_core::Error>([("scale.weight".to_owned(), var()?)]);
    /// // As the caller knows them.
    /// let training = Training::with_layers(&args, vars()?, None, |named| {
    ///     let norm = |&(name, shape): &(&str, &[usize])| Parameter::of(name, shape, Layer::LayerNorm);
    ///     Ok(named.iter().map(norm).collect())
    /// })?;
    /// assert_eq!(training.optimizer().state("scale.weight").unwrap().group, 1); // does not decay
    /// // As a model in Python has them.
    /// let layers = ModelLayers::from_json(
    ///     r#"{"modules": {"": [], "scale": []},
    ///     "parameters": [{"names": ["scale.weight"], "shape": [4]}]}"#,
    /// )?;
    /// let training = Training::with_layers(&args, vars()?, None, |named| {
    ///     layers.parameters(named.iter().copied())
    /// })?;
    /// assert_eq!(training.optimizer().state("scale.weight").unwrap().group, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of `layers`; as many parameters as variables are expected, of their shapes; and as
    /// [`new`](Self::new).
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
            let number = optimizer.add_group(group.recipe.clone(), [])?;
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

    /// An optimizer with nothing around it yet.
    ///
    /// # Errors
    /// None that is known.
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

    /// Lets a schedule set the rates of these groups, in their order, from now on.
    ///
    /// # Errors
    /// Not as many groups as the schedule has, or one that there is not.
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

    /// Puts a schedule of the caller's own, for all groups, in place of those that there are: `of` makes it for the
    /// groups' own rates. Momentum that another schedule has cycled stays as it is.
    ///
    /// ```
    /// use bitstep::hyper::{FieldVisitor, HyperParams};
    /// use bitstep::schedule::{Schedule, Scheduler};
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
    /// Those of `of` and of [`attach`](Self::attach); the schedules are as before then.
    pub fn set_schedule(
        &mut self,
        of: impl FnOnce(&[f64]) -> std::result::Result<Scheduler, ArgError>,
    ) -> Result<()> {
        let groups = self.optimizer.inner().groups();
        let lrs: Vec<f64> = groups.iter().map(|group| group.spec.rule.lr()).collect();
        let scheduler = of(&lrs).map_err(Error::wrap)?;
        self.attach(scheduler, (0..lrs.len()).map(GroupId).collect())?;
        // The last one stays.
        self.schedulers.drain(..self.schedulers.len() - 1);
        self.scheduled.drain(..self.scheduled.len() - 1);
        Ok(())
    }

    /// Clips all gradients by their total norm before each step.
    pub fn set_clip(&mut self, clip: Option<ClipGradNorm>) {
        self.clip = clip;
    }

    /// Scales the loss, for 16-bit gradients.
    pub fn set_loss_scale(&mut self, scale: Option<LossScale>) {
        self.loss_scale = scale;
    }

    /// Puts noise on what [`embedded`](Self::embedded) is given, drawn from this seed.
    pub fn set_neftune(&mut self, neftune: Option<Neftune>, seed: u64) {
        self.neftune = neftune;
        self.noise = (seed, 0);
    }

    /// What the model goes on with, given what its input embedding gives (…, length, width): the
    /// same with noise, if that is asked for (`neftune_noise_alpha`) and the variables are those
    /// to train. candle's modules have no hooks, so the model calls this where Trainer hooks in.
    ///
    /// # Errors
    /// A tensor of fewer than two dimensions, or not of the CPU's floating-point types.
    pub fn embedded(&mut self, output: &Tensor) -> Result<Tensor> {
        let Some(neftune) = &self.neftune else { return Ok(output.clone()) };
        if self.optimizer.inner().mode() == Mode::Eval {
            return Ok(output.clone());
        }
        let (seed, draw) = self.noise;
        let noisy = cpu::noisy(output, neftune, seed, draw)?;
        self.noise = (seed, draw.wrapping_add(1));
        Ok(noisy)
    }

    /// Hands a metric to the schedules that are driven by one.
    ///
    /// # Errors
    /// Those of the schedule.
    pub fn metric(&mut self, metric: f64) -> Result<()> {
        self.step_schedules(Some(metric))
    }

    /// A step of the schedules that are driven by a metric, or of those that are not. They go on
    /// from the rates in force, whoever has set them.
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

    /// The groups' learning rates in force.
    #[must_use]
    pub fn rates(&self) -> Vec<f64> {
        self.optimizer.inner().groups().iter().map(|g| g.lr).collect()
    }

    /// The factor in force on the loss.
    #[must_use]
    pub fn loss_scale(&self) -> Option<&LossScale> {
        self.loss_scale.as_ref()
    }

    /// Variables, groups and state.
    #[must_use]
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The same, to change.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// Saves everything that goes on depends on, the variables among it, in one file that is
    /// replaced at once. `extra` is handed back by [`load`](Self::load).
    ///
    /// # Errors
    /// [`CheckpointError`](checkpoint::CheckpointError), wrapped; micro-batches that wait.
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

    /// Goes on from a saved run of the same variables, groups and schedules.
    ///
    /// # Errors
    /// [`CheckpointError`](checkpoint::CheckpointError), wrapped; nothing has changed then.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
        let file = Checkpoint::read(path.as_ref()).map_err(Error::wrap)?;
        let names = self.names();
        let vars = self.optimizer.vars();
        let dtypes: Vec<_> =
            vars.iter().map(|(_, var)| cpu::nothing(var.dtype()).map(|d| d.dtype())).collect();
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

    /// Goes on from a checkpoint folder of Trainer: `optimizer.pt`, `scheduler.pt` and, where the
    /// loss is scaled, `scaler.pt` if there is one. None names a parameter: `order` has the names
    /// as `model.named_parameters()` gives them, those of frozen parameters, which are no variables
    /// here, among them or not. The variables themselves are the caller's to load, from
    /// `model.safetensors`.
    ///
    /// # Errors
    /// A file that is not one, or state that does not fit; nothing has changed then.
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
        // The reference numbers parameters group by group, each group in the model's order.
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

/// Under which name a checkpoint's `extra` has the loss scale and its good steps.
const LOSS_SCALE: &str = "bitstep.loss_scale";
/// The same of the noise: its seed and how often there was any.
const NOISE: &str = "bitstep.noise";
