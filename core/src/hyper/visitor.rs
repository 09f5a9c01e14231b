//! [`HyperParams`] and [`FieldVisitor`]: how hyper-parameters are connected with the fields of a type.

#[cfg(feature = "alloc")]
use super::Value;

/// A type with hyper-parameters.
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
///         f.ignored("foreach"); // chooses a kernel, changes no result
///     }
/// }
/// ```
pub trait HyperParams {
    /// Passes every argument of the reference to `f`, under the reference's name and in its order.
    ///
    /// The names do not depend on the values.
    fn fields(&mut self, f: &mut dyn FieldVisitor);

    /// The arguments that the caller must give because the reference has no default for them.
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
/// A visitor implements this one method; [`HyperParams::fields`] calls the methods of `dyn FieldVisitor` (`f64`, `bool`,
/// `pair`, …).
pub trait FieldVisitor {
    /// The argument `name` and its field.
    fn field(&mut self, name: &'static str, slot: FieldMut<'_>);
}

/// The field of an argument, with its type.
pub enum FieldMut<'a> {
    /// A float.
    F64(&'a mut f64),
    /// A float or `None`.
    OptF64(&'a mut Option<f64>),
    /// An integer, at least 0.
    U64(&'a mut u64),
    /// An integer, at least 0, or `None`.
    OptU64(&'a mut Option<u64>),
    /// An integer.
    I64(&'a mut i64),
    /// True or false.
    Bool(&'a mut bool),
    /// True, false or `None`.
    OptBool(&'a mut Option<bool>),
    /// A fixed number of values: `betas`, `eps`.
    Tuple(&'a mut [FieldMut<'a>]),
    /// One of several strings: the index of the current one, and the string of each index.
    Choice(&'a mut usize, &'a dyn Fn(usize) -> Option<&'static str>),
    /// One of several strings, or `None`.
    OptChoice(&'a mut Option<usize>, &'a dyn Fn(usize) -> Option<&'static str>),
    /// Any value, which the owner interprets later. For lists, which need a heap.
    #[cfg(feature = "alloc")]
    Value(&'a mut Value),
    /// An argument that changes no result: any value is accepted and dropped.
    Ignored,
    /// An argument that only the reference can use (a Python function): must be `None`.
    MustBeNone,
}

impl<'f> dyn FieldVisitor + 'f {
    /// A float.
    pub fn f64(&mut self, name: &'static str, field: &mut f64) {
        self.field(name, FieldMut::F64(field));
    }

    /// A float or `None`.
    pub fn opt_f64(&mut self, name: &'static str, field: &mut Option<f64>) {
        self.field(name, FieldMut::OptF64(field));
    }

    /// An integer, at least 0.
    pub fn u64(&mut self, name: &'static str, field: &mut u64) {
        self.field(name, FieldMut::U64(field));
    }

    /// An integer, at least 0, or `None`.
    pub fn opt_u64(&mut self, name: &'static str, field: &mut Option<u64>) {
        self.field(name, FieldMut::OptU64(field));
    }

    /// An integer.
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

    /// Two floats under one name.
    pub fn pair(&mut self, name: &'static str, first: &mut f64, second: &mut f64) {
        self.field(name, FieldMut::Tuple(&mut [FieldMut::F64(first), FieldMut::F64(second)]));
    }

    /// Three floats under one name.
    pub fn triple(&mut self, name: &'static str, a: &mut f64, b: &mut f64, c: &mut f64) {
        self.field(
            name,
            FieldMut::Tuple(&mut [FieldMut::F64(a), FieldMut::F64(b), FieldMut::F64(c)]),
        );
    }

    /// Several values under one name, each of its own type (`eps` of torch's Adafactor: a float or `None`, and a float).
    pub fn tuple<'a>(&mut self, name: &'static str, slots: &'a mut [FieldMut<'a>]) {
        self.field(name, FieldMut::Tuple(slots));
    }

    /// One of the strings of `table`, each with its value.
    ///
    /// Two strings may have the same value; the first of them is written out.
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

    /// Any value, which the owner interprets later. For lists, which need a heap.
    #[cfg(feature = "alloc")]
    pub fn value(&mut self, name: &'static str, field: &mut Value) {
        self.field(name, FieldMut::Value(field));
    }

    /// An argument that changes no result (`foreach`, `fused`, `verbose`).
    pub fn ignored(&mut self, name: &'static str) {
        self.field(name, FieldMut::Ignored);
    }

    /// An argument that must be left at `None` (a Python function).
    pub fn must_be_none(&mut self, name: &'static str) {
        self.field(name, FieldMut::MustBeNone);
    }
}
