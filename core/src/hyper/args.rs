//! [`Args`], a list of named arguments, and the errors of names and arguments.

use super::{FieldMut, FieldVisitor, HyperParams, Value};
use crate::Error;
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Named arguments, in order. As in a dictionary, setting one again replaces its value and keeps its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args(Vec<(String, Value)>);

impl Args {
    /// No arguments.
    #[must_use]
    pub const fn new() -> Args {
        Args(Vec::new())
    }

    /// Parses `name=value, name=value`, the syntax of Transformers' `TrainingArguments.optim_args`. A value may be a list
    /// of words too: `betas=[0.9, 0.95]` or `betas=(0.9, 0.95)`.
    ///
    /// # Errors
    /// A part without `=`.
    pub fn parse(text: &str) -> Result<Args, ArgError> {
        let mut open = false;
        let outside = |c: char| {
            open = matches!(c, '[' | '(') || open && !matches!(c, ']' | ')');
            c == ',' && !open
        };
        let pieces = text.split(outside).map(str::trim).filter(|p| !p.is_empty());
        let read = |piece: &str| match piece.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), Value::parse_list(value.trim()))),
            None => Err(ArgError::Value {
                argument: piece.to_owned(),
                value: Value::None,
                expected: "name=value".to_owned(),
            }),
        };
        pieces.map(read).collect()
    }

    /// Adds an argument or replaces its value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// [`Args::set`] for method chaining.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Args {
        self.set(name, value);
        self
    }

    /// The value of an argument.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Removes an argument and returns its value.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(at).1)
    }

    /// All arguments, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// Sets the fields of `target` that are named here; the others keep their values.
    ///
    /// # Errors
    /// An argument that `target` does not have, or a value that does not fit its field. Some fields may have been set
    /// then: apply to a copy if the original is needed.
    pub fn apply(
        &self,
        of: &str,
        target: &mut (impl HyperParams + ?Sized),
    ) -> Result<(), ArgError> {
        self.apply_fields(of, &mut |visit| target.fields(visit))
    }

    /// [`Args::apply`]: what is compiled once for all types.
    fn apply_fields(&self, of: &str, fields: Fields<'_>) -> Result<(), ArgError> {
        let mut visit = Apply { args: self, known: Vec::new(), error: None };
        fields(&mut visit);
        let known = visit.known;
        if let Some((name, _)) = self.0.iter().find(|(n, _)| !known.contains(&n.as_str())) {
            return Err(ArgError::UnknownArgument {
                of: of.to_owned(),
                argument: name.clone(),
                nearest: nearest(name, known),
            });
        }
        visit.error.map_or(Ok(()), Err)
    }

    /// The hyper-parameters of `source` with their current values.
    #[must_use]
    pub fn of(source: &mut (impl HyperParams + ?Sized)) -> Args {
        dump(&mut |visit| source.fields(visit))
    }
}

/// [`HyperParams::fields`] of some type.
type Fields<'a> = &'a mut dyn FnMut(&mut dyn FieldVisitor);

impl From<&Args> for Args {
    fn from(args: &Args) -> Args {
        args.clone()
    }
}

/// `[("lr", 1e-3), ("eps", 1e-6)]`. Values of several types: [`Args::with`].
impl<V: Into<Value>, const N: usize> From<[(&str, V); N]> for Args {
    fn from(items: [(&str, V); N]) -> Args {
        items.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for Args {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(items: I) -> Args {
        let mut args = Args::new();
        // A map of the names' places: a search per name would be quadratic.
        let mut places = BTreeMap::new();
        for (name, value) in items {
            let name = name.into();
            match places.get(&name).and_then(|&at: &usize| args.0.get_mut(at)) {
                Some((_, old)) => *old = value,
                None => {
                    places.insert(name.clone(), args.0.len());
                    args.0.push((name, value));
                }
            }
        }
        args
    }
}

/// The argument names of `source`, in the reference's order.
#[must_use]
pub fn names(source: &mut (impl HyperParams + ?Sized)) -> Vec<&'static str> {
    names_of(&mut |visit| source.fields(visit))
}

fn names_of(fields: Fields<'_>) -> Vec<&'static str> {
    struct Names(Vec<&'static str>);
    impl FieldVisitor for Names {
        fn field(&mut self, name: &'static str, _: FieldMut<'_>) {
            self.0.push(name);
        }
    }
    let mut visit = Names(Vec::new());
    fields(&mut visit);
    visit.0
}

/// An error in a name or an argument.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ArgError {
    /// No such optimizer, schedule, ….
    UnknownName {
        /// The kind of thing: `schedule`, `optimizer`.
        kind: &'static str,
        /// The unknown name.
        name: String,
        /// The most similar known name, if there is one.
        nearest: Option<&'static str>,
    },
    /// No such argument.
    UnknownArgument {
        /// The optimizer or schedule that does not have it.
        of: String,
        /// The unknown argument.
        argument: String,
        /// The most similar known argument, if there is one.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type, or a string that is not one of the choices.
    Value {
        /// The argument.
        argument: String,
        /// The refused value.
        value: Value,
        /// A description of the accepted values.
        expected: String,
    },
    /// A missing argument for which the reference has no default.
    Missing {
        /// The optimizer or schedule that needs it.
        of: String,
        /// The missing argument.
        argument: &'static str,
    },
    /// A value that the rule or schedule refuses.
    InvalidConfig(Error),
}

impl From<Error> for ArgError {
    fn from(e: Error) -> ArgError {
        ArgError::InvalidConfig(e)
    }
}

impl fmt::Display for ArgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = |f: &mut fmt::Formatter<'_>, nearest: &Option<&str>| match nearest {
            Some(n) => write!(f, "; did you mean `{n}`?"),
            None => Ok(()),
        };
        match self {
            ArgError::UnknownName { kind, name, nearest } => {
                write!(f, "unknown {kind} `{}`", Short(name))?;
                hint(f, nearest)
            }
            ArgError::UnknownArgument { of, argument, nearest } => {
                write!(f, "`{}` has no argument `{}`", Short(of), Short(argument))?;
                hint(f, nearest)
            }
            ArgError::Value { argument, value, expected } => {
                let (argument, value) = (Short(argument), Short(value));
                write!(f, "`{argument}` is {value}, but must be {expected}")
            }
            ArgError::Missing { of, argument } => {
                write!(f, "`{}` needs the argument `{argument}`", Short(of))
            }
            ArgError::InvalidConfig(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for ArgError {}

/// Displays at most 80 characters, and `…` for the rest: keeps error messages about untrusted input short.
///
/// ```
/// use bitstep::hyper::Short;
/// assert_eq!(Short("adamw").to_string(), "adamw");
/// assert_eq!(Short("a".repeat(1 << 20)).to_string(), format!("{}…", "a".repeat(80)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Short<T>(pub T);

impl<T: fmt::Display> fmt::Display for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The remaining room in characters, and whether it was exceeded. Returns an error when full, so that formatting
        /// stops early.
        struct Room<'a, 'f>(&'a mut fmt::Formatter<'f>, usize, bool);
        impl fmt::Write for Room<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let end = text.char_indices().nth(self.1).map_or(text.len(), |(at, _)| at);
                let (head, rest) = text.split_at_checked(end).unwrap_or((text, ""));
                self.1 -= head.chars().count();
                self.2 = !rest.is_empty();
                self.0.write_str(head)?;
                if self.2 { Err(fmt::Error) } else { Ok(()) }
            }
        }
        let mut room = Room(f, 80, false);
        match fmt::write(&mut room, format_args!("{}", self.0)) {
            Err(_) if room.2 => f.write_str("…"),
            result => result,
        }
    }
}

/// No suggestion is looked for beyond this many bytes, which bounds the time; all known names are shorter.
const LONGEST_NAME: usize = 64;

/// The known name with the smallest edit distance from `name`, if that is at most half of the longer name's length.
#[must_use]
pub fn nearest(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    known
        .into_iter()
        .map(|k| (distance(name, k), k))
        .filter(|&(d, k)| d <= k.chars().count().max(name.chars().count()) / 2)
        .min_by_key(|&(d, _)| d)
        .map(|(_, k)| k)
}

/// The Levenshtein distance: the least number of insertions, deletions and replacements. Dynamic programming, row by
/// row (Wagner and Fischer, 1974).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, y) in row.iter_mut().zip(core::iter::once(None).chain(b.chars().map(Some))) {
            let above = *slot;
            *slot = match y {
                None => left,
                Some(y) => (diagonal + usize::from(x != y)).min(above + 1).min(left + 1),
            };
            left = *slot;
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Sets fields, and records the known names and the first error.
struct Apply<'a> {
    args: &'a Args,
    known: Vec<&'static str>,
    error: Option<ArgError>,
}

impl FieldVisitor for Apply<'_> {
    fn field(&mut self, name: &'static str, mut slot: FieldMut<'_>) {
        self.known.push(name);
        if self.error.is_some() {
            return;
        }
        if let Some(value) = self.args.get(name)
            && let Err(expected) = assign(&mut slot, value)
        {
            self.error =
                Some(ArgError::Value { argument: name.to_owned(), value: value.clone(), expected });
        }
    }
}

/// Assigns `value` to `slot`; the error describes the accepted values.
fn assign(slot: &mut FieldMut<'_>, value: &Value) -> Result<(), String> {
    fn put<T>(to: &mut T, from: Option<T>, expected: &str) -> Result<(), String> {
        *to = from.ok_or(expected)?;
        Ok(())
    }
    let none = *value == Value::None;
    match slot {
        FieldMut::F64(x) => put(*x, value.as_f64(), "a number"),
        FieldMut::U64(x) => put(*x, value.as_u64(), "a whole number, at least 0"),
        FieldMut::I64(x) => put(*x, value.as_i64(), "a whole number"),
        FieldMut::Bool(x) => put(*x, value.as_bool(), "True or False"),
        FieldMut::OptBool(x) if none => put(*x, Some(None), ""),
        FieldMut::OptBool(x) => put(*x, value.as_bool().map(Some), "True, False or None"),
        FieldMut::OptF64(x) if none => put(*x, Some(None), ""),
        FieldMut::OptF64(x) => put(*x, value.as_f64().map(Some), "a number or None"),
        FieldMut::OptU64(x) if none => put(*x, Some(None), ""),
        FieldMut::OptU64(x) => {
            put(*x, value.as_u64().map(Some), "a whole number, at least 0, or None")
        }
        FieldMut::Tuple(slots) => {
            let list = value.as_list().filter(|l| l.len() == slots.len());
            let list = list.ok_or_else(|| format!("a list of {}", slots.len()))?;
            for (slot, value) in slots.iter_mut().zip(list) {
                assign(slot, value).map_err(|w| format!("a list whose {} is {w}", Short(value)))?;
            }
            Ok(())
        }
        FieldMut::Choice(index, names) => {
            **index = choice(value, names)?;
            Ok(())
        }
        FieldMut::OptChoice(index, names) => {
            **index = if *value == Value::None { None } else { Some(choice(value, names)?) };
            Ok(())
        }
        FieldMut::Value(to) => {
            (*to).clone_from(value);
            Ok(())
        }
        FieldMut::Ignored => Ok(()),
        FieldMut::MustBeNone if none => Ok(()),
        FieldMut::MustBeNone => Err("None".to_owned()),
    }
}

/// Collects the values of the fields.
struct Dump(Args);

impl FieldVisitor for Dump {
    fn field(&mut self, name: &'static str, slot: FieldMut<'_>) {
        if let Some(value) = read(&slot) {
            self.0.set(name, value);
        }
    }
}

fn dump(fields: Fields<'_>) -> Args {
    let mut visit = Dump(Args::new());
    fields(&mut visit);
    visit.0
}

/// The index of a string among `names`; the error describes the accepted values.
fn choice(value: &Value, names: &dyn Fn(usize) -> Option<&'static str>) -> Result<usize, String> {
    let all = || (0..).map_while(names);
    value.as_str().and_then(|v| all().position(|n| n == v)).ok_or_else(|| {
        let all: Vec<_> = all().map(|n| format!("{n:?}")).collect();
        format!("one of {}", all.join(", "))
    })
}

/// The value of `slot`; `None` for an ignored argument.
fn read(slot: &FieldMut<'_>) -> Option<Value> {
    let count = |u: u64| i64::try_from(u).map_or(Value::Float(u as f64), Value::Int);
    Some(match slot {
        FieldMut::F64(x) => Value::Float(**x),
        FieldMut::OptF64(x) => x.map_or(Value::None, Value::Float),
        FieldMut::U64(x) => count(**x),
        FieldMut::OptU64(x) => x.map_or(Value::None, count),
        FieldMut::I64(x) => Value::Int(**x),
        FieldMut::Bool(x) => Value::Bool(**x),
        FieldMut::OptBool(x) => x.map_or(Value::None, Value::Bool),
        FieldMut::Tuple(slots) => Value::List(slots.iter().filter_map(read).collect()),
        FieldMut::Choice(i, names) => Value::from(names(**i)?),
        FieldMut::OptChoice(i, names) => {
            i.map_or(Some(Value::None), |i| names(i).map(Value::from))?
        }
        FieldMut::Value(x) => (*x).clone(),
        FieldMut::MustBeNone => Value::None,
        FieldMut::Ignored => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Mode {
        Min,
        Max,
    }

    #[derive(Clone, PartialEq, Debug)]
    struct Toy {
        lr: f64,
        betas: (f64, f64),
        clip: Option<f64>,
        steps: u64,
        nesterov: bool,
        foreach: Option<bool>,
        mode: Mode,
    }

    const TOY: Toy = Toy {
        lr: 0.1,
        betas: (0.9, 0.999),
        clip: None,
        steps: 7,
        nesterov: false,
        foreach: None,
        mode: Mode::Min,
    };

    impl HyperParams for Toy {
        fn fields(&mut self, f: &mut dyn FieldVisitor) {
            f.f64("lr", &mut self.lr);
            f.pair("betas", &mut self.betas.0, &mut self.betas.1);
            f.opt_f64("clip", &mut self.clip);
            f.u64("steps", &mut self.steps);
            f.bool("nesterov", &mut self.nesterov);
            f.opt_bool("foreach", &mut self.foreach);
            f.choice("mode", &mut self.mode, &[("min", Mode::Min), ("max", Mode::Max)]);
            f.ignored("verbose");
            f.must_be_none("scale_fn");
        }
    }

    fn set(args: Args) -> Result<Toy, ArgError> {
        let mut toy = TOY;
        args.apply("toy", &mut toy).map(|()| toy)
    }

    #[test]
    fn every_kind_of_field_is_set() {
        let args = Args::new()
            .with("mode", "max")
            .with("lr", 1i64)
            .with("betas", [0.5, 0.25])
            .with("clip", "Infinity")
            .with("steps", 3.0)
            .with("nesterov", true)
            .with("foreach", true)
            .with("verbose", "whatever")
            .with("scale_fn", Value::None);
        let want = Toy {
            lr: 1.0,
            betas: (0.5, 0.25),
            clip: Some(f64::INFINITY),
            steps: 3,
            nesterov: true,
            foreach: Some(true),
            mode: Mode::Max,
        };
        assert_eq!(set(args), Ok(want));
        assert_eq!(set(Args::new()), Ok(TOY));
    }

    #[test]
    fn dump_and_apply_round_trip() {
        let args = Args::of(&mut TOY.clone());
        assert_eq!(args.get("betas"), Some(&Value::from([0.9, 0.999])));
        assert_eq!(args.get("mode"), Some(&Value::from("min")));
        assert_eq!(args.get("foreach"), Some(&Value::None));
        assert_eq!(args.get("verbose"), None);
        assert_eq!(set(args), Ok(TOY));
    }

    #[test]
    fn names_are_in_order() {
        let want =
            ["lr", "betas", "clip", "steps", "nesterov", "foreach", "mode", "verbose", "scale_fn"];
        assert_eq!(names(&mut TOY.clone()), want);
    }

    #[test]
    fn wrong_arguments_are_named() {
        let message = |args| set(args).unwrap_err().to_string();
        assert_eq!(
            message(Args::new().with("stps", 1i64)),
            "`toy` has no argument `stps`; did you mean `steps`?"
        );
        assert_eq!(message(Args::new().with("q", 1i64)), "`toy` has no argument `q`");
        assert_eq!(
            message(Args::new().with("steps", -1i64)),
            "`steps` is -1, but must be a whole number, at least 0"
        );
        assert_eq!(
            message(Args::new().with("steps", 0.5)),
            "`steps` is 0.5, but must be a whole number, at least 0"
        );
        assert_eq!(
            message(Args::new().with("mode", "mid")),
            "`mode` is \"mid\", but must be one of \"min\", \"max\""
        );
        assert_eq!(
            message(Args::new().with("betas", [0.5])),
            "`betas` is [0.5], but must be a list of 2"
        );
        assert_eq!(
            message(Args::new().with("scale_fn", "f")),
            "`scale_fn` is \"f\", but must be None"
        );
        assert_eq!(
            message(Args::new().with("lr", Value::None)),
            "`lr` is None, but must be a number"
        );
    }

    #[test]
    fn text_is_read_as_optim_args() {
        let args = Args::parse("rank=64, scale = 0.25,proj_type=std,flag=True,x=1e-3").unwrap();
        let want = Args::new()
            .with("rank", 64i64)
            .with("scale", 0.25)
            .with("proj_type", "std")
            .with("flag", true)
            .with("x", 1e-3);
        assert_eq!(args, want);
        let lists = Args::parse("betas=[0.9, 0.95],eps=(1e-30,1e-3) , k=[], x=[1, y=2").unwrap();
        let want = [
            ("betas", Value::List(alloc::vec![0.9.into(), 0.95.into()])),
            ("eps", Value::List(alloc::vec![1e-30.into(), 1e-3.into()])),
            ("k", Value::List(Vec::new())),
            ("x", "[1, y=2".into()),
        ];
        assert!(lists.iter().eq(want.iter().map(|(name, value)| (*name, value))), "{lists:?}");
        assert!(Args::parse("rank").is_err());
        let twice = Args::parse("rank=64, x=1, rank=8").unwrap();
        assert_eq!(twice, Args::new().with("rank", 8i64).with("x", 1i64));
    }

    #[test]
    fn errors_stay_short_and_soon_whatever_is_wrong() {
        let long = "é".repeat(1 << 21);
        assert_eq!(nearest(&long, ["lr"]), None);
        let list = || Value::List(alloc::vec![Value::Str(long.clone()); 3]);
        let errors = [
            set(Args::new().with(&long, 1i64)),
            set(Args::new().with("lr", list())),
            set(Args::new().with("betas", Value::List(alloc::vec![1.0.into(), list()]))),
            set(Args::new().with("mode", long.as_str())),
            Args::parse(&long).map(|_| TOY),
            Args::new().with("q", 1i64).apply(&long, &mut TOY.clone()).map(|()| TOY),
        ];
        for error in errors {
            let text = error.unwrap_err().to_string();
            assert!(text.len() < 600 && text.contains('…'), "{} bytes", text.len());
        }
        // With a quadratic algorithm this would take minutes.
        let many = (0..300_000).map(|i| format!("n{i}=1")).collect::<Vec<_>>().join(",");
        assert_eq!(Args::parse(&many).unwrap().iter().count(), 300_000);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("cosine", "cosine"), 0);
        assert_eq!(nearest("cosin", ["linear", "cosine"]), Some("cosine"));
        assert_eq!(nearest("zzz", ["linear", "cosine"]), None);
    }
}
