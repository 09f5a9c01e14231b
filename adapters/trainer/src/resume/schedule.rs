//! The state of the reference's schedulers.

use bitstep::hyper::{Args, Value};
use bitstep::schedule::{GreedyState, PlateauState, Scheduler, SchedulerState};

use super::ResumeError;

/// Loads the reference's schedule, the contents of `scheduler.state_dict()`, into a scheduler of the
/// same kind.
///
/// As with the reference, the arguments in that state override the current ones: the base learning
/// rates of Transformers' schedules, all arguments of ReduceLROnPlateau and GreedyLR, and those of
/// torch's schedules, except for what they store elsewhere (OneCycleLR's rates, in the optimizer's
/// groups) and for ChainedScheduler and SequentialLR. Arguments that the state does not have stay: the
/// numbers of warm-up steps and of all steps of Transformers' schedules.
///
/// # Errors
/// [`ResumeError`]; nothing has changed then.
pub fn scheduler(to: &mut Scheduler, from: &Args) -> Result<(), ResumeError> {
    let from = Saved(from);
    let (saved, here) = (from.class(), class(to.name()));
    if saved != here {
        let (saved, here) = (saved.unwrap_or("torch's own"), to.name());
        return Err(ResumeError::Schedule { saved: saved.to_owned(), here: here.to_owned() });
    }
    if here == Some(LAMBDA) {
        from.floats("base_lrs")?;
    }
    let mut replaced = match here {
        Some(LAMBDA) => from.renamed(&[("base_lrs", "groups")]),
        Some(PLATEAU) => from.renamed(PLATEAU_ARGUMENTS),
        Some(_) => from.renamed(GREEDY_ARGUMENTS),
        None => from.own(to.name()),
    };
    // Each group has its own rate. (A single number stays: the optimizer's default, which `polynomial` reads.)
    let listed = to.args().get("lr").is_some_and(|lr| lr.as_list().is_some());
    if listed && replaced.get("groups").is_some() {
        replaced.set("lr", Value::None);
    }
    let mut state = to.state().clone();
    state.step = from.count("last_epoch")?;
    state.lrs = from.floats("_last_lr")?;
    if state.plateau.is_some() {
        state.plateau = Some(PlateauState {
            best: from.float("best")?,
            num_bad_epochs: from.count("num_bad_epochs")?,
            cooldown_counter: from.count("cooldown_counter")?,
        });
    }
    if state.greedy.is_some() {
        state.greedy = Some(from.greedy()?);
    }
    if !state.adafactor.is_empty() {
        return Err(from.missing("a state of this schedule that can be taken over"));
    }
    check(&state, to)?;
    Ok(to.resume(&replaced, state)?)
}

/// Checks that there are as many rates as groups here.
fn check(state: &SchedulerState, to: &Scheduler) -> Result<(), ResumeError> {
    let (saved, here) = (state.lrs.len(), to.lrs().len());
    match saved == here {
        true => Ok(()),
        false => Err(ResumeError::Count { what: "rates".to_owned(), saved, here }),
    }
}

const LAMBDA: &str = "LambdaLR";
const PLATEAU: &str = "ReduceLROnPlateau";
const GREEDY: &str = "GreedyLR";

/// The reference's class for a name; `None` for torch's schedules.
fn class(name: &str) -> Option<&'static str> {
    match name {
        "reduce_lr_on_plateau" => Some(PLATEAU),
        "greedy" => Some(GREEDY),
        own if own.starts_with("torch_") => None,
        _ => Some(LAMBDA),
    }
}

/// Keys of the state, with the arguments that they hold.
type Names = &'static [(&'static str, &'static str)];

const PLATEAU_ARGUMENTS: Names = &[
    ("mode", "mode"),
    ("factor", "factor"),
    ("patience", "patience"),
    ("threshold", "threshold"),
    ("threshold_mode", "threshold_mode"),
    ("cooldown", "cooldown"),
    ("min_lrs", "min_lr"),
    ("eps", "eps"),
];

const GREEDY_ARGUMENTS: Names = &[
    ("_init_lrs", "groups"),
    ("mode", "mode"),
    ("factor", "factor"),
    ("patience", "patience"),
    ("threshold", "threshold"),
    ("threshold_mode", "threshold_mode"),
    ("cooldown", "cooldown"),
    ("warmup", "warmup"),
    ("min_lrs", "min_lr"),
    ("max_lrs", "max_lr"),
    ("eps", "eps"),
    ("smooth", "smooth"),
    ("window_size", "window_size"),
    ("reset_start_original", "reset_start"),
];

/// The contents of `state_dict()`.
struct Saved<'a>(&'a Args);

impl Saved<'_> {
    /// Its class, as far as the keys tell.
    fn class(&self) -> Option<&'static str> {
        let has = |key| self.0.get(key).is_some();
        match () {
            () if has("lr_lambdas") => Some(LAMBDA),
            () if has("num_good_epochs") => Some(GREEDY),
            () if has("num_bad_epochs") => Some(PLATEAU),
            () => None,
        }
    }

    fn missing(&self, key: &str) -> ResumeError {
        ResumeError::Missing { of: "schedule".into(), key: key.into() }
    }

    fn count(&self, key: &str) -> Result<u64, ResumeError> {
        self.0.get(key).and_then(Value::as_u64).ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str) -> Result<f64, ResumeError> {
        self.0.get(key).and_then(Value::as_f64).ok_or_else(|| self.missing(key))
    }

    fn floats(&self, key: &str) -> Result<Vec<f64>, ResumeError> {
        floats(self.0.get(key)).ok_or_else(|| self.missing(key))
    }

    /// These entries as arguments. Learning rates become the groups' initial ones.
    fn renamed(&self, names: &[(&str, &str)]) -> Args {
        let value = |&(key, name): &(&str, &str)| {
            let value = self.0.get(key)?;
            Some((name.to_owned(), if name == "groups" { groups(value)? } else { value.clone() }))
        };
        names.iter().filter_map(value).collect()
    }

    /// The arguments of one of torch's schedules.
    fn own(&self, name: &str) -> Args {
        let same: &[&str] = match name {
            "torch_constant" => &["factor", "total_iters"],
            "torch_cosine_annealing" => &["T_max", "eta_min"],
            "torch_cosine_annealing_warm_restarts" => &["T_0", "T_mult", "eta_min"],
            "torch_cyclic" => &["mode", "gamma", "cycle_momentum"],
            "torch_exponential" | "torch_multi_step" => &["gamma"],
            "torch_linear" => &["start_factor", "end_factor", "total_iters"],
            "torch_one_cycle" => &["total_steps", "cycle_momentum"],
            "torch_polynomial" => &["total_iters", "power"],
            "torch_step" => &["step_size", "gamma"],
            _ => &[],
        };
        let names: Vec<_> = same.iter().map(|&name| (name, name)).collect();
        let mut all = self.renamed(&names);
        let more: Names = match name {
            "torch_cyclic" => &[
                ("base_lrs", "base_lr"),
                ("max_lrs", "max_lr"),
                ("base_momentums", "base_momentum"),
                ("max_momentums", "max_momentum"),
            ],
            _ => &[("base_lrs", "groups")],
        };
        self.renamed(more).iter().for_each(|(name, value)| all.set(name, value.clone()));
        if let Some(Value::Map(counts)) = self.0.get("milestones") {
            let step = |(step, count): &(String, Value)| {
                let count = count.as_u64().and_then(|n| usize::try_from(n).ok())?.min(1000);
                Some(vec![Value::Int(step.parse().ok()?); count])
            };
            let steps: Vec<Value> = counts.iter().filter_map(step).flatten().collect();
            all.set("milestones", Value::List(steps));
        }
        all
    }

    fn greedy(&self) -> Result<(GreedyState, Vec<f64>), ResumeError> {
        let smooth = self.0.get("smooth").and_then(Value::as_bool);
        let (mut window, mut sum, mut len, mut size) = (Vec::new(), 0.0, 0, 0);
        if smooth.ok_or_else(|| self.missing("smooth"))? {
            const KEY: &str = "_streaming_avg";
            let Some(Value::Map(average)) = self.0.get(KEY) else { return Err(self.missing(KEY)) };
            let get = |key: &str| average.iter().find(|(k, _)| k == key).map(|(_, v)| v);
            window = floats(get("values")).ok_or_else(|| self.missing("values"))?;
            sum = get("sum").and_then(Value::as_f64).ok_or_else(|| self.missing("sum"))?;
            size = usize::try_from(self.count("window_size")?).unwrap_or(usize::MAX);
            len = window.len();
            if len > size {
                let what = "values of the running mean".to_owned();
                return Err(ResumeError::Count { what, saved: len, here: size });
            }
            // Allocates the whole window, unless a file asks for too much.
            const ROOM: usize = 1 << 20;
            window.resize(if size <= ROOM { size } else { len }, 0.0);
        }
        let reset_start = self.0.get("reset_start").and_then(Value::as_i64);
        let state = GreedyState {
            best: self.float("best")?,
            num_bad_epochs: self.count("num_bad_epochs")?,
            num_good_epochs: self.count("num_good_epochs")?,
            cooldown_counter: self.count("cooldown_counter")?,
            warmup_counter: self.count("warmup_counter")?,
            reset_start: reset_start.ok_or_else(|| self.missing("reset_start"))?,
            sum,
            len,
            at: if len < size { len } else { 0 },
        };
        Ok((state, window))
    }
}

fn floats(value: Option<&Value>) -> Option<Vec<f64>> {
    value?.as_list()?.iter().map(Value::as_f64).collect()
}

/// Learning rates as the groups' initial ones.
fn groups(rates: &Value) -> Option<Value> {
    let group = |lr: &Value| {
        let keys = ["lr", "initial_lr"].into_iter();
        lr.as_f64()?;
        Some(Value::Map(keys.map(|key| (key.to_owned(), lr.clone())).collect()))
    };
    Some(Value::List(rates.as_list()?.iter().map(group).collect::<Option<_>>()?))
}
