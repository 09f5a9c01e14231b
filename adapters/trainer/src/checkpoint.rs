//! Saving and resuming a run.
//!
//! A checkpoint is one [safetensors](https://github.com/huggingface/safetensors) file. It has each
//! parameter under its name and its state under `NAME/SLOT`. The metadata has, as JSON under
//! `bitstep`, the rules with their hyper-parameters and storage, the counters and the schedules.
//! `docs/checkpoints.md` describes the format. It contains no names of Rust items, and earlier versions
//! of it still load.
//!
//! A file is written to the same folder under a temporary name, read back, flushed to disk and renamed:
//! readers find the old file or the new one, never a partial one. For a symbolic link, its target is
//! replaced. The permissions of an old file are preserved, its owner and other hard links are not. A
//! killed process leaves a file `.bitstep-checkpoint-….tmp`, which the next save in that folder removes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use bitstep::float::Dtype;
use bitstep::hyper::Args;
use bitstep::optimizer::{Buffer, GroupId, Optimizer, OptimizerSpec, StorageConfig};
use bitstep::rule::DynRule;
use bitstep::rule::ScalarState;
use bitstep::rule::mode::Mode;
use bitstep::schedule::{
    AdafactorScheduleState, GreedyState, PlateauState, Scheduler, SchedulerState,
};
use bitstep::storage::{Data, DataMut, RawDtype, RawPart};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype as FileType, Metadata, SafeTensors, TensorInfo, View};
use serde_json::{Map, Value as Json, json};

use crate::json::{as_f64, json as to_json, number, value as to_value};

mod error;
mod old_words;
mod replace;

pub use error::CheckpointError;
use error::in_words;
use replace::Replacement;

/// The value of `format` in the metadata.
pub const FORMAT: &str = "bitstep-checkpoint/3";

/// The key of the correction bits of a 16-bit parameter, after the parameter's name.
const CORRECTION: &str = "correction";

/// The values of `format` that can be read: versions 1, 2, ….
const FORMATS: [&str; 3] = ["bitstep-checkpoint/1", "bitstep-checkpoint/2", FORMAT];

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    let path = path.display().to_string();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

/// A run to be saved.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Groups and state.
    pub optimizer: &'a Optimizer,
    /// A name for each parameter, in the optimizer's order.
    pub names: &'a [String],
    /// The schedules.
    pub schedulers: &'a [Scheduler],
    /// Other data to save: the epoch, the loss scale, ….
    pub extra: &'a BTreeMap<String, String>,
}

/// Saves a run and its parameters, whose `values` are in the optimizer's order.
///
/// # Errors
/// [`CheckpointError`]; an old file is unchanged then.
pub fn save(path: &Path, run: &Run<'_>, values: &[Data<'_>]) -> Result<(), CheckpointError> {
    check_names(run.names, run.optimizer)?;
    if values.len() != run.names.len() {
        let (saved, here) = (values.len(), run.names.len());
        return Err(CheckpointError::Layout { what: "values".to_owned(), saved, here });
    }
    let mut tensors: Vec<(String, Saved<'_>)> = Vec::new();
    let params = run.optimizer.params();
    for ((name, &value), param) in run.names.iter().zip(values).zip(params) {
        let shape = param.shape.clone();
        let (got, expected) = ((value.dtype(), value.len()), (param.dtype, shape.iter().product()));
        if got != expected {
            let text = |(dtype, len): (Dtype, usize)| format!("{len} numbers of {dtype:?}");
            let (name, got, expected) = (name.clone(), text(got), text(expected));
            return Err(CheckpointError::Tensor { name, got, expected });
        }
        tensors.push((name.clone(), Saved { shape, numbers: Numbers::Data(value) }));
        for slot in slots(run.optimizer, param, name) {
            match slot.buffer {
                Slot::Plain(data) => {
                    let numbers = Numbers::Data(data);
                    tensors.push((slot.key, Saved { shape: vec![data.len()], numbers }));
                }
                Slot::Part(part) => {
                    let shape = vec![part.bytes.len() / part.element.size()];
                    tensors.push((slot.key, Saved { shape, numbers: Numbers::Part(part) }));
                }
            }
        }
    }
    let metadata = HashMap::from([("bitstep".to_owned(), metadata(run).to_string())]);

    let part = Replacement::begin(path).map_err(io(path))?;
    let views = tensors.iter().map(|(name, saved)| (name, saved));
    match safetensors::serialize_to_file(views, Some(metadata.clone()), part.path()) {
        Err(SafeTensorError::IoError(e)) => return Err(io(path)(e)),
        other => other?,
    }
    if let Some(what) = difference(part.path(), &tensors, &metadata).map_err(io(path))? {
        return Err(CheckpointError::ReadBack { path: path.display().to_string(), what });
    }
    part.finish().map_err(io(path))?;
    Ok(())
}

/// The difference of a file to the intended contents, if there is any.
fn difference(
    path: &Path,
    tensors: &[(String, Saved<'_>)],
    about: &HashMap<String, String>,
) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut len = [0; 8];
    file.read_exact(&mut len)?;
    let header = u64::from_le_bytes(len);
    let mut text = Vec::new();
    file.by_ref().take(header).read_to_end(&mut text)?;
    let metadata: Metadata = match serde_json::from_slice(&text) {
        Ok(metadata) => metadata,
        Err(e) => return Ok(Some(e.to_string())),
    };
    let start = header.saturating_add(8);
    let end = start.saturating_add(metadata.data_len() as u64);
    if metadata.metadata().as_ref() != Some(about)
        || metadata.offset_keys().len() != tensors.len()
        || file.metadata()?.len() != end
    {
        return Ok(Some("its header".to_owned()));
    }
    let mut chunk = vec![0; 1 << 16];
    for (name, saved) in tensors {
        let (info, data) = (metadata.info(name), saved.data());
        let same = info.is_some_and(|info| {
            (info.dtype, &info.shape[..]) == (saved.dtype(), saved.shape())
                && info.data_offsets.1 - info.data_offsets.0 == data.len()
        });
        let Some(info) = info.filter(|_| same) else {
            return Ok(Some(format!("type and shape of `{name}`")));
        };
        file.seek(SeekFrom::Start(start + info.data_offsets.0 as u64))?;
        for part in data.chunks(chunk.len()) {
            let chunk = &mut chunk[..part.len()];
            file.read_exact(chunk)?;
            if chunk != part {
                return Ok(Some(format!("the numbers of `{name}`")));
            }
        }
    }
    Ok(None)
}

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    bytes: Vec<u8>,
    /// Parsed once: files have thousands of tensors.
    header: Metadata,
    /// The offset of the tensors.
    start: usize,
    about: Map<String, Json>,
    /// The version of the format.
    version: usize,
}

impl Checkpoint {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
        Self::parse(crate::file::read(path, u64::MAX).map_err(io(path))?)
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
        let (len, header) = SafeTensors::read_metadata(&bytes)?;
        let text = header.metadata().as_ref().and_then(|m| m.get("bitstep"));
        let text = text.ok_or_else(|| wrong("no `bitstep`"))?;
        let about: Map<String, Json> = serde_json::from_str(text).map_err(wrong)?;
        let found = about.get("format");
        match FORMATS.iter().position(|f| found.and_then(Json::as_str) == Some(f)) {
            Some(at) => Ok(Checkpoint { bytes, header, start: len + 8, about, version: at + 1 }),
            None => {
                let (found, known) = (in_words(found), FORMATS.join(", "));
                Err(CheckpointError::Format { found, known })
            }
        }
    }

    /// The other data that was saved ([`Run::extra`]).
    #[must_use]
    pub fn extra(&self) -> BTreeMap<String, String> {
        let extra = self.about.get("extra").and_then(Json::as_object);
        let text = |(k, v): (&String, &Json)| Some((k.clone(), v.as_str()?.to_owned()));
        extra.into_iter().flatten().filter_map(text).collect()
    }

    /// Restores state, counters, learning rates, schedules and parameters.
    ///
    /// # Errors
    /// [`CheckpointError`]; nothing has changed then.
    pub fn restore(
        &self,
        optimizer: &mut Optimizer,
        names: &[String],
        schedulers: &mut [Scheduler],
        values: &mut [DataMut<'_>],
    ) -> Result<(), CheckpointError> {
        let dtypes: Vec<_> = values.iter().map(|v| v.dtype()).collect();
        let restored = self.prepare(optimizer, names, schedulers, &dtypes)?;
        for ((name, value), param) in names.iter().zip(&*values).zip(optimizer.params()) {
            let (got, expected) = (value.len(), param.shape.iter().product());
            if got != expected {
                let text = |len: usize| format!("{len} numbers");
                let (name, got, expected) = (name.clone(), text(got), text(expected));
                return Err(CheckpointError::Tensor { name, got, expected });
            }
        }
        for (name, value) in names.iter().zip(values) {
            self.fill(name, value)?;
        }
        restored.commit(optimizer, schedulers)
    }

    /// [`restore`](Self::restore) for parameters that can't be borrowed all at once: checks everything,
    /// given the types of the parameters. The caller then [`fill`](Self::fill)s each parameter, and
    /// [`commit`](Restored::commit)s.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn prepare(
        &self,
        optimizer: &Optimizer,
        names: &[String],
        schedulers: &[Scheduler],
        dtypes: &[Option<Dtype>],
    ) -> Result<Restored, CheckpointError> {
        check_names(names, optimizer)?;
        let mut next = optimizer.clone();
        let mut seen = BTreeSet::new();
        self.restore_groups(&mut next)?;

        let params = list(&self.about, "params")?;
        let by_name: BTreeMap<&str, &Json> =
            params.iter().filter_map(|p| Some((p.get("name")?.as_str()?, p))).collect();
        if dtypes.len() != names.len() {
            let (saved, here) = (params.len(), dtypes.len());
            return Err(CheckpointError::Layout { what: "values".to_owned(), saved, here });
        }
        for (i, (name, dtype)) in names.iter().zip(dtypes).enumerate() {
            let about = by_name.get(name.as_str());
            let about = about.ok_or_else(|| CheckpointError::Missing(name.clone()))?;
            let (group, here) = (count(about, "group")? as usize, next.params()[i].group.0);
            if group != here {
                let what = format!("the groups of `{name}`");
                return Err(CheckpointError::Layout { what, saved: group, here });
            }
            let rule = &*next.groups()[group].spec.rule;
            let scalars = self.scalars(about, rule, rule.initial_scalars(i))?;
            let param = &mut next.params_mut()[i];
            param.scalars = scalars;
            param.steps = count(about, "steps")?;
            param.seed = count(about, "seed")?;
            param.is_initialized = about.get("started").and_then(Json::as_bool) == Some(true);
            let shape = param.shape.clone();
            let expected = dtype.map(RawDtype::from);
            self.bytes(name, expected.map(file_type), &shape, &mut seen)?;
            self.restore_slots(&mut next, i, name, &mut seen)?;
        }
        let surplus = self.header.offset_keys().into_iter().find(|name| !seen.contains(name));
        if let Some(surplus) = surplus {
            return Err(CheckpointError::Surplus(surplus));
        }

        let saved = list(&self.about, "schedules")?;
        if saved.len() != schedulers.len() {
            let (saved, here) = (saved.len(), schedulers.len());
            return Err(CheckpointError::Layout { what: "schedules".to_owned(), saved, here });
        }
        let schedulers = saved.iter().zip(schedulers).enumerate();
        let schedulers =
            schedulers.map(|(i, (saved, here))| schedule(self.version, i, saved, here));
        let schedulers = schedulers.collect::<Result<Vec<_>, _>>()?;
        Ok(Restored { optimizer: next, schedulers })
    }

    /// Overwrites a parameter with the saved values of its name.
    ///
    /// # Errors
    /// No such tensor, or one of another length or type; nothing has changed then.
    pub fn fill(&self, name: &str, value: &mut DataMut<'_>) -> Result<(), CheckpointError> {
        let (tensor, data) = self.tensor(name)?;
        let here = value.dtype().map(|dtype| file_type(dtype.into()));
        let count: usize = tensor.shape.iter().product();
        if here != Some(tensor.dtype) || value.len() != count {
            let got = format!("{:?}, {count} numbers", tensor.dtype);
            let kind = here.map_or("no plain numbers".to_owned(), |dtype| format!("{dtype:?}"));
            let expected = format!("{kind}, {} numbers", value.len());
            return Err(CheckpointError::Tensor { name: name.to_owned(), got, expected });
        }
        value.set_bytes(data)?;
        Ok(())
    }

    /// The per-step scalars of a group or parameter; `scalars` where the rule names none.
    fn scalars(
        &self,
        about: &Json,
        rule: &dyn DynRule,
        mut scalars: ScalarState,
    ) -> Result<ScalarState, CheckpointError> {
        if self.version < 3 {
            let numbers = floats(about, "scalars")?;
            return numbers.try_into().map_err(|_| wrong("another number of `scalars`"));
        }
        let saved = about.get("scalars").ok_or_else(|| wrong("no `scalars`"))?;
        for (to, name) in scalars.iter_mut().zip(rule.info().scalar_names) {
            *to = float(saved, name)?;
        }
        Ok(scalars)
    }

    /// A tensor of the file.
    fn tensor(&self, name: &str) -> Result<(&TensorInfo, &[u8]), CheckpointError> {
        let found = self.header.info(name).and_then(|info| {
            let (begin, end) = info.data_offsets;
            Some((info, self.bytes.get(self.start + begin..self.start + end)?))
        });
        found.ok_or_else(|| CheckpointError::Missing(name.to_owned()))
    }

    /// The bytes of a tensor of this type and shape.
    fn bytes(
        &self,
        name: &str,
        dtype: Option<FileType>,
        shape: &[usize],
        seen: &mut BTreeSet<String>,
    ) -> Result<&[u8], CheckpointError> {
        let (tensor, data) = self.tensor(name)?;
        if Some(tensor.dtype) != dtype || tensor.shape != shape {
            let expected =
                dtype.map_or("a plain tensor".to_owned(), |d| format!("{d:?} {shape:?}"));
            let got = format!("{:?} {:?}", tensor.dtype, tensor.shape);
            return Err(CheckpointError::Tensor { name: name.to_owned(), got, expected });
        }
        seen.insert(name.to_owned());
        Ok(data)
    }

    fn restore_slots(
        &self,
        next: &mut Optimizer,
        i: usize,
        name: &str,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), CheckpointError> {
        let group = next.params()[i].group;
        let names = next.groups()[group.0].spec.rule.info().slots;
        let param = &mut next.params_mut()[i];
        for (k, slot) in param.slots.iter_mut().enumerate() {
            let key = slot_key(names, k);
            if let Buffer::Encoded(coded) = slot {
                // Before version 3 the keys of parts were built from the names of the parameter and the slot.
                let old = self.version < 3;
                let of = if old { format!("{name}/{key}") } else { key };
                for part in coded.parts(&of) {
                    let key = if old { part.key.clone() } else { format!("{name}/{}", part.key) };
                    let len = part.bytes.len() / part.element.size();
                    let found = self.bytes(&key, Some(file_type(part.element)), &[len], seen)?;
                    coded.set_part(&of, &RawPart { bytes: found.to_vec(), ..part })?;
                }
                continue;
            }
            if slot.is_empty() {
                continue;
            }
            let dtype = slot.data().map(|d| file_type(d.dtype().into()));
            let found = self.bytes(&format!("{name}/{key}"), dtype, &[slot.len()], seen)?;
            slot.data_mut().set_bytes(found)?;
        }
        if let Some(correction) = &mut param.correction {
            let key = if self.version < 3 { old_words::CORRECTION } else { CORRECTION };
            let (key, of) = (format!("{name}/{key}"), file_type(correction.element()));
            correction.set_bytes(self.bytes(&key, Some(of), &[correction.len()], seen)?)?;
        }
        Ok(())
    }

    fn restore_groups(&self, next: &mut Optimizer) -> Result<(), CheckpointError> {
        let groups = list(&self.about, "groups")?;
        if groups.len() != next.groups().len() {
            let (saved, here) = (groups.len(), next.groups().len());
            return Err(CheckpointError::Layout { what: "groups".to_owned(), saved, here });
        }
        let mut changed = Vec::new();
        for (number, (saved, group)) in groups.iter().zip(next.groups_mut()).enumerate() {
            let about = |key: &str| {
                let about = saved.get(key).and_then(Json::as_object);
                about.ok_or_else(|| wrong(format!("no `{key}`")))
            };
            let (here, made) = (describe_spec(&group.spec), describe_spec(&group.original_spec));
            let in_current_words = |saved: &Map<String, Json>| match self.version {
                1 | 2 => old_words::translated(saved, here["rule"].as_str().unwrap_or_default()),
                _ => Ok(saved.clone()),
            };
            let saved_spec = in_current_words(about("recipe")?)?;
            let saved_made = match self.version {
                1 => saved_spec.clone(),
                _ => in_current_words(about("made")?)?,
            };
            let only_saved = saved_spec.keys().filter(|key| !here.contains_key(*key));
            let mut since = Args::new();
            for key in here.keys().chain(only_saved) {
                let (saved, here) = (saved_spec.get(key), here.get(key));
                // Changed by a schedule or a reference's checkpoint since the group was created.
                if let (Some(hyper), Some(value), true) =
                    (key.strip_prefix("hyper."), saved, same(saved_made.get(key), made.get(key)))
                {
                    since.set(hyper, to_value(value));
                } else if !same(saved, here) {
                    let (saved, here) = (in_words(saved), in_words(here));
                    let what = format!("`{key}`");
                    return Err(CheckpointError::Recipe { group: number, what, saved, here });
                }
            }
            changed.push(since);
            group.lr = float(saved, "lr")?;
            group.steps = count(saved, "steps")?;
        }
        for (number, args) in changed.iter().enumerate() {
            next.set_args(GroupId(number), args)?;
        }
        for (saved, group) in groups.iter().zip(next.groups_mut()) {
            let rule = &*group.spec.rule;
            group.scalars = self.scalars(saved, rule, rule.initial_scalars(0))?;
        }
        let mode = match self.about.get("mode").and_then(Json::as_str) {
            Some("train") => Mode::Train,
            Some("eval") => Mode::Eval,
            other => return Err(wrong(format!("`mode` is {other:?}"))),
        };
        next.restore_mode(mode);
        Ok(())
    }
}

/// A checked state, not applied yet.
#[derive(Debug)]
pub struct Restored {
    optimizer: Optimizer,
    schedulers: Vec<Scheduler>,
}

impl Restored {
    /// Applies it to the optimizer and the schedules that it was prepared for.
    ///
    /// # Errors
    /// Other schedules.
    pub fn commit(
        self,
        optimizer: &mut Optimizer,
        schedulers: &mut [Scheduler],
    ) -> Result<(), CheckpointError> {
        for (scheduler, next) in schedulers.iter_mut().zip(self.schedulers) {
            *scheduler = next;
        }
        *optimizer = self.optimizer;
        Ok(())
    }
}

fn wrong(what: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::Metadata(what.to_string())
}

/// Refuses a name that a tensor of a checkpoint can't have. Called when parameters are added, so that the
/// error does not come with the first `save`.
///
/// # Errors
/// A name with a `/`, which separates it from its slots, and safetensors' reserved name.
pub fn check_name(name: &str) -> Result<(), CheckpointError> {
    if name.contains('/') {
        return Err(CheckpointError::Names(format!("`{name}` has a `/` in it")));
    }
    if name == "__metadata__" {
        return Err(CheckpointError::Names(format!("`{name}` is safetensors' own")));
    }
    Ok(())
}

fn check_names(names: &[String], optimizer: &Optimizer) -> Result<(), CheckpointError> {
    let (got, expected) = (names.len(), optimizer.params().len());
    if got != expected {
        return Err(CheckpointError::Names(format!("{got} for {expected} parameters")));
    }
    let mut seen = BTreeSet::new();
    names.iter().try_for_each(|name| check_name(name))?;
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(CheckpointError::Names(format!("`{twice}` twice"))),
        None => Ok(()),
    }
}

/// The description of a group's spec, for comparison.
fn describe_spec(spec: &OptimizerSpec) -> Map<String, Json> {
    let mut spec = spec.clone();
    let (hyper, mut rule) = (Args::of(spec.rule.hyper_params()), Vec::new());
    spec.rule.id(&mut |part| rule.push(part));
    let StorageConfig { slot_formats: slots, min_len, len_multiple: multiple, param: weights } =
        &spec.storage;
    let slots = slots.iter().map(|slot| slot.map(|format| format.to_string()));
    let about: [(&str, Json); 7] = [
        ("rule", rule.join("/").into()),
        ("compute", spec.policy.id().into()),
        ("state", spec.state_dtype.map(Dtype::id).into()),
        ("slots", slots.collect()),
        ("min_len", (*min_len).into()),
        ("multiple", (*multiple).into()),
        ("weights", weights.to_string().into()),
    ];
    let mut about: Map<_, _> = about.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    for (name, value) in hyper.iter() {
        about.insert(format!("hyper.{name}"), to_json(value));
    }
    about
}

fn metadata(run: &Run<'_>) -> Json {
    let groups = run.optimizer.groups().iter().map(|g| {
        json!({
            "recipe": describe_spec(&g.spec),
            "made": describe_spec(&g.original_spec),
            "lr": number(g.lr),
            "steps": g.steps,
            "scalars": about_scalars(&*g.spec.rule, &g.scalars),
        })
    });
    let params = run.names.iter().zip(run.optimizer.params()).map(|(name, p)| {
        json!({
            "name": name,
            "group": p.group.0,
            "steps": p.steps,
            "scalars": about_scalars(&*run.optimizer.groups()[p.group.0].spec.rule, &p.scalars),
            "seed": p.seed,
            "started": p.is_initialized,
        })
    });
    let schedules = run.schedulers.iter().map(about_schedule);
    json!({
        "format": FORMAT,
        "mode": if run.optimizer.mode() == Mode::Eval { "eval" } else { "train" },
        "groups": groups.collect::<Json>(),
        "params": params.collect::<Json>(),
        "schedules": schedules.collect::<Json>(),
        "extra": run.extra,
    })
}

fn about_args(args: &Args) -> Map<String, Json> {
    args.iter().map(|(name, value)| (name.to_owned(), to_json(value))).collect()
}

/// Whether two values are equal, where an integer equals the same float: 0 is 0.0.
fn same(a: Option<&Json>, b: Option<&Json>) -> bool {
    match (a, b) {
        (Some(Json::Array(a)), Some(Json::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(Json::Number(a)), Some(Json::Number(b))) if a.is_f64() != b.is_f64() => {
            a.as_f64() == b.as_f64()
        }
        _ => a == b,
    }
}

fn about_schedule(scheduler: &Scheduler) -> Json {
    let numbers = |x: &[f64]| x.iter().map(|&x| number(x)).collect::<Json>();
    let s = scheduler.state();
    json!({
        "name": scheduler.name(),
        "args": about_args(scheduler.args()),
        "replaced": about_args(scheduler.replaced()),
        "step": s.step,
        "lrs": numbers(&s.lrs),
        "plateau": s.plateau.as_ref().map(|p| json!({
            "best": number(p.best),
            "num_bad_epochs": p.num_bad_epochs,
            "cooldown_counter": p.cooldown_counter,
        })),
        "greedy": s.greedy.as_ref().map(|(g, window)| json!({
            "best": number(g.best),
            "num_bad_epochs": g.num_bad_epochs,
            "num_good_epochs": g.num_good_epochs,
            "cooldown_counter": g.cooldown_counter,
            "warmup_counter": g.warmup_counter,
            "reset_start": g.reset_start,
            "sum": number(g.sum),
            "len": g.len,
            "at": g.at,
            "window": numbers(window),
        })),
        "adafactor": s.adafactor.iter().map(|a| json!({
            "lr": number(a.lr),
            "step": a.step,
            "f32": a.f32,
        })).collect::<Json>(),
    })
}

/// The saved schedule, for one created with equal arguments here. Version 1 did not save the arguments.
fn schedule(
    version: usize,
    number: usize,
    saved: &Json,
    here: &Scheduler,
) -> Result<Scheduler, CheckpointError> {
    if version == 1 {
        return Ok(here.resumed(&Args::new(), scheduler_state(saved)?)?);
    }
    let refused = |what: &str, saved: Option<&Json>, here: Option<&Json>| {
        let what = format!("`{what}`");
        let (saved, here) = (in_words(saved), in_words(here));
        CheckpointError::Schedule { schedule: number, what, saved, here }
    };
    let name = Json::from(here.name());
    if saved.get("name") != Some(&name) {
        return Err(refused("name", saved.get("name"), Some(&name)));
    }
    let object = |key: &str| {
        let object = saved.get(key).and_then(Json::as_object);
        object.ok_or_else(|| wrong(format!("no `{key}` of schedule {number}")))
    };
    let (saved_args, args) = (object("args")?, about_args(here.args()));
    let mut keys = saved_args.keys().chain(args.keys());
    if let Some(key) = keys.find(|key| !same(saved_args.get(*key), args.get(*key))) {
        return Err(refused(key, saved_args.get(key), args.get(key)));
    }
    let replaced = object("replaced")?.iter();
    let replaced = replaced.map(|(name, json)| (name.clone(), to_value(json))).collect();
    Ok(here.resumed(&replaced, scheduler_state(saved)?)?)
}

fn scheduler_state(json: &Json) -> Result<SchedulerState, CheckpointError> {
    let present = |key: &str| json.get(key).filter(|j| !j.is_null());
    Ok(SchedulerState {
        step: count(json, "step")?,
        lrs: floats(json, "lrs")?,
        plateau: present("plateau")
            .map(|p| {
                Ok::<_, CheckpointError>(PlateauState {
                    best: float(p, "best")?,
                    num_bad_epochs: count(p, "num_bad_epochs")?,
                    cooldown_counter: count(p, "cooldown_counter")?,
                })
            })
            .transpose()?,
        greedy: present("greedy")
            .map(|g| {
                let state = GreedyState {
                    best: float(g, "best")?,
                    num_bad_epochs: count(g, "num_bad_epochs")?,
                    num_good_epochs: count(g, "num_good_epochs")?,
                    cooldown_counter: count(g, "cooldown_counter")?,
                    warmup_counter: count(g, "warmup_counter")?,
                    reset_start: g
                        .get("reset_start")
                        .and_then(Json::as_i64)
                        .ok_or_else(|| wrong("no number `reset_start`"))?,
                    sum: float(g, "sum")?,
                    len: count(g, "len")? as usize,
                    at: count(g, "at")? as usize,
                };
                Ok::<_, CheckpointError>((state, floats(g, "window")?))
            })
            .transpose()?,
        adafactor: json
            .get("adafactor")
            .and_then(Json::as_array)
            .ok_or_else(|| wrong("no list `adafactor`"))?
            .iter()
            .map(|a| {
                Ok::<_, CheckpointError>(AdafactorScheduleState {
                    lr: float(a, "lr")?,
                    step: count(a, "step")?,
                    f32: a.get("f32").and_then(Json::as_bool) == Some(true),
                })
            })
            .collect::<Result<_, _>>()?,
    })
}

fn list<'a>(about: &'a Map<String, Json>, key: &str) -> Result<&'a Vec<Json>, CheckpointError> {
    about.get(key).and_then(Json::as_array).ok_or_else(|| wrong(format!("no list `{key}`")))
}

fn count(json: &Json, key: &str) -> Result<u64, CheckpointError> {
    json.get(key).and_then(Json::as_u64).ok_or_else(|| wrong(format!("no count `{key}`")))
}

fn float(json: &Json, key: &str) -> Result<f64, CheckpointError> {
    json.get(key).and_then(as_f64).ok_or_else(|| wrong(format!("no number `{key}`")))
}

fn floats(json: &Json, key: &str) -> Result<Vec<f64>, CheckpointError> {
    let list = json.get(key).and_then(Json::as_array);
    let numbers = list.and_then(|l| l.iter().map(as_f64).collect::<Option<Vec<_>>>());
    numbers.ok_or_else(|| wrong(format!("no numbers `{key}`")))
}

fn about_scalars(rule: &dyn DynRule, scalars: &ScalarState) -> Map<String, Json> {
    let named = rule.info().scalar_names.iter().zip(scalars);
    named.map(|(name, &x)| ((*name).to_owned(), number(x))).collect()
}

/// A part of a parameter's state, with its key.
struct StoredAs<'a> {
    key: String,
    buffer: Slot<'a>,
}

enum Slot<'a> {
    Plain(Data<'a>),
    Part(RawPart),
}

/// The key of slot k: its name, numbered if the rule has several of that name.
fn slot_key(names: &[&str], k: usize) -> String {
    let name = names[k];
    let earlier = names[..k].iter().filter(|n| **n == name).count();
    match earlier {
        0 => name.to_owned(),
        n => format!("{name}.{n}"),
    }
}

fn slots<'a>(
    optimizer: &'a Optimizer,
    param: &'a bitstep::optimizer::ParamState,
    name: &str,
) -> Vec<StoredAs<'a>> {
    let names = optimizer.groups()[param.group.0].spec.rule.info().slots;
    let kept_part =
        |part: RawPart| StoredAs { key: format!("{name}/{}", part.key), buffer: Slot::Part(part) };
    let mut kept = Vec::new();
    for (k, slot) in param.slots.iter().enumerate() {
        let key = slot_key(names, k);
        match slot {
            Buffer::Encoded(coded) => kept.extend(coded.parts(&key).into_iter().map(kept_part)),
            plain => {
                if let Some(data) = plain.data().filter(|d| !d.is_empty()) {
                    kept.push(StoredAs { key: format!("{name}/{key}"), buffer: Slot::Plain(data) });
                }
            }
        }
    }
    if let Some(correction) = &param.correction {
        let (key, element) = (CORRECTION.to_owned(), correction.element());
        kept.push(kept_part(RawPart { key, element, bytes: correction.bytes() }));
    }
    kept
}

fn file_type(element: RawDtype) -> FileType {
    match element {
        RawDtype::F64 => FileType::F64,
        RawDtype::F32 => FileType::F32,
        RawDtype::Bf16 => FileType::BF16,
        RawDtype::F16 => FileType::F16,
        RawDtype::I16 => FileType::I16,
        RawDtype::I8 => FileType::I8,
        RawDtype::U8 => FileType::U8,
        RawDtype::F8E4M3 => FileType::F8_E4M3,
    }
}

/// A tensor to save.
struct Saved<'a> {
    shape: Vec<usize>,
    numbers: Numbers<'a>,
}

enum Numbers<'a> {
    Data(Data<'a>),
    Part(RawPart),
}

impl View for &Saved<'_> {
    fn dtype(&self) -> FileType {
        match &self.numbers {
            Numbers::Data(data) => file_type(data.dtype().into()),
            Numbers::Part(part) => file_type(part.element),
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.numbers {
            Numbers::Data(data) => Cow::Owned(data.bytes()),
            Numbers::Part(part) => Cow::Borrowed(&part.bytes),
        }
    }

    fn data_len(&self) -> usize {
        match &self.numbers {
            Numbers::Data(data) => data.len() * data.dtype().size(),
            Numbers::Part(part) => part.bytes.len(),
        }
    }
}
