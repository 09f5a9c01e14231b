//! What has hyper-parameters, and how it shows them.

#[cfg(feature = "alloc")]
use super::Value;

/// Something with hyper-parameters.
///
/// ```
/// use bitstep::hyper::{FieldVisitor, HyperParams};
///
/// struct Sgd { lr: f64, betas: [f64; 2], nesterov: bool }
///
/// impl HyperParams for Sgd {
///     fn fields(&mut self, f: &mut dyn FieldVisitor) {
///         let [beta1, beta2] = &mut self.betas;
///         f.f64("lr", &mut self.lr);
///         f.pair("betas", beta1, beta2);
///         f.bool("nesterov", &mut self.nesterov);
///         f.ignored("foreach"); // chooses a kernel, not a number
///     }
/// }
/// ```
pub trait HyperParams {
    /// Shows `f` every argument of the reference under its own name, in the reference's order.
    ///
    /// Which names are shown does not depend on the values.
    fn fields(&mut self, f: &mut dyn FieldVisitor);

    /// The arguments that have to be given where a name is built: the reference has no default for them.
    fn required(&self) -> &'static [&'static str] {
        &[]
    }
}

#[cfg(feature = "alloc")]
impl<H: HyperParams + ?Sized> HyperParams for alloc::boxed::Box<H> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        (**self).fields(f);
    }

    fn required(&self) -> &'static [&'static str] {
        (**self).required()
    }
}

/// A visitor over the fields of a [`HyperParams`].
///
/// The methods that a `HyperParams` calls (`f64`, `bool`, `pair`, …) belong to `dyn FieldVisitor`; a visitor provides this one.
pub trait FieldVisitor {
    /// The argument `name` and where its value stands.
    fn field(&mut self, name: &'static str, slot: FieldMut<'_>);
}

/// Where the value of an argument stands, and so what it may be.
pub enum FieldMut<'a> {
    /// A number.
    F64(&'a mut f64),
    /// A number or `None`.
    OptF64(&'a mut Option<f64>),
    /// A count.
    U64(&'a mut u64),
    /// A count or `None`.
    OptU64(&'a mut Option<u64>),
    /// A whole number.
    I64(&'a mut i64),
    /// True or false.
    Bool(&'a mut bool),
    /// True, false or `None`.
    OptBool(&'a mut Option<bool>),
    /// A fixed number of values: `betas`, `eps`.
    Tuple(&'a mut [FieldMut<'a>]),
    /// One of some strings: the index of the present one, and the string of an index.
    Choice(&'a mut usize, &'a dyn Fn(usize) -> Option<&'static str>),
    /// The same, or `None`.
    OptChoice(&'a mut Option<usize>, &'a dyn Fn(usize) -> Option<&'static str>),
    /// Anything; the owner reads it later. For lists, which need a heap.
    #[cfg(feature = "alloc")]
    Value(&'a mut Value),
    /// An argument that does not change a number: any value is accepted and dropped.
    Ignored,
    /// An argument that only means something to the reference (a function of Python's): must be `None`.
    MustBeNone,
}

impl<'f> dyn FieldVisitor + 'f {
    /// A number.
    pub fn f64(&mut self, name: &'static str, field: &mut f64) {
        self.field(name, FieldMut::F64(field));
    }

    /// A number or `None`.
    pub fn opt_f64(&mut self, name: &'static str, field: &mut Option<f64>) {
        self.field(name, FieldMut::OptF64(field));
    }

    /// A count.
    pub fn u64(&mut self, name: &'static str, field: &mut u64) {
        self.field(name, FieldMut::U64(field));
    }

    /// A count or `None`.
    pub fn opt_u64(&mut self, name: &'static str, field: &mut Option<u64>) {
        self.field(name, FieldMut::OptU64(field));
    }

    /// A whole number.
    pub fn i64(&mut self, name: &'static str, field: &mut i64) {
        self.field(name, FieldMut::I64(field));
    }

    /// True or false.
    pub fn bool(&mut self, name: &'static str, field: &mut bool) {
        self.field(name, FieldMut::Bool(field));
    }

    /// True, false or `None`.
    pub fn opt_bool(&mut self, name: &'static str, field: &mut Option<bool>) {
        self.field(name, FieldMut::OptBool(field));
    }

    /// Two numbers under one name.
    pub fn pair(&mut self, name: &'static str, first: &mut f64, second: &mut f64) {
        self.field(name, FieldMut::Tuple(&mut [FieldMut::F64(first), FieldMut::F64(second)]));
    }

    /// Three numbers under one name.
    pub fn triple(&mut self, name: &'static str, a: &mut f64, b: &mut f64, c: &mut f64) {
        self.field(
            name,
            FieldMut::Tuple(&mut [FieldMut::F64(a), FieldMut::F64(b), FieldMut::F64(c)]),
        );
    }

    /// Several values under one name, each of its own kind (`eps` of torch's Adafactor: a number or `None`, a number).
    pub fn tuple<'a>(&mut self, name: &'static str, slots: &'a mut [FieldMut<'a>]) {
        self.field(name, FieldMut::Tuple(slots));
    }

    /// One of the strings of `table`, each with what it stands for.
    ///
    /// Two strings may stand for the same thing; the first is the one written out.
    pub fn choice<T: Copy + PartialEq>(
        &mut self,
        name: &'static str,
        field: &mut T,
        table: &[(&'static str, T)],
    ) {
        let mut index = table.iter().position(|(_, t)| t == field).unwrap_or(usize::MAX);
        self.field(name, FieldMut::Choice(&mut index, &|i| table.get(i).map(|&(s, _)| s)));
        if let Some(&(_, t)) = table.get(index)
            && t != *field
        {
            *field = t;
        }
    }

    /// One of the strings of `table`, or `None`.
    pub fn opt_choice<T: Copy + PartialEq>(
        &mut self,
        name: &'static str,
        field: &mut Option<T>,
        table: &[(&'static str, T)],
    ) {
        let mut index =
            field.map(|f| table.iter().position(|&(_, t)| t == f).unwrap_or(usize::MAX));
        self.field(name, FieldMut::OptChoice(&mut index, &|i| table.get(i).map(|&(s, _)| s)));
        *field = index.and_then(|i| table.get(i)).map(|&(_, t)| t);
    }

    /// Anything; the owner reads it later. For lists, which need a heap.
    #[cfg(feature = "alloc")]
    pub fn value(&mut self, name: &'static str, field: &mut Value) {
        self.field(name, FieldMut::Value(field));
    }

    /// An argument that does not change a number (`foreach`, `fused`, `verbose`).
    pub fn ignored(&mut self, name: &'static str) {
        self.field(name, FieldMut::Ignored);
    }

    /// An argument that must be left at `None` (a Python function).
    pub fn must_be_none(&mut self, name: &'static str) {
        self.field(name, FieldMut::MustBeNone);
    }
}
