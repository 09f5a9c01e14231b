//! Arguments between Python and the core, and the core's errors as Python's.

use bitstep::Error;
use bitstep::hyper::{ArgError, Args, Value};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// An error of the core.
pub(crate) fn error(error: Error) -> PyErr {
    match error {
        Error::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
        error => PyValueError::new_err(error.to_string()),
    }
}

/// An error of the core about an argument.
pub(crate) fn arg_error(error: ArgError) -> PyErr {
    match error {
        ArgError::InvalidConfig(inner) => self::error(inner),
        error => PyValueError::new_err(error.to_string()),
    }
}

/// The deepest nesting of lists and dictionaries that is read.
const DEPTH: usize = 16;

fn value(name: &str, from: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    let list = |items: Vec<Bound<'_, PyAny>>| -> PyResult<Value> {
        let items = items.iter().map(|item| value(name, item, depth + 1));
        Ok(Value::List(items.collect::<PyResult<_>>()?))
    };
    if depth > DEPTH {
        return Err(PyValueError::new_err(format!("`{name}` is nested too deeply")));
    }
    if from.is_none() {
        Ok(Value::None)
    } else if let Ok(x) = from.cast::<PyBool>() {
        Ok(Value::Bool(x.is_true()))
    } else if from.is_instance_of::<PyInt>() {
        Ok(from
            .extract::<i64>()
            .map_or_else(|_| from.extract().map(Value::Float), |x| Ok(Value::Int(x)))?)
    } else if from.is_instance_of::<PyFloat>() {
        Ok(Value::Float(from.extract()?))
    } else if let Ok(x) = from.cast::<PyString>() {
        Ok(Value::Str(x.to_string()))
    } else if let Ok(x) = from.cast::<PyList>() {
        list(x.iter().collect())
    } else if let Ok(x) = from.cast::<PyTuple>() {
        list(x.iter().collect())
    } else if let Ok(x) = from.cast::<PyDict>() {
        let mut map = Vec::new();
        for (key, item) in x.iter() {
            map.push((key.str()?.to_string(), value(name, &item, depth + 1)?));
        }
        Ok(Value::Map(map))
    } else if let Ok(item) = from.call_method0("item") {
        // A tensor of one element, or a scalar of numpy's.
        if item.get_type().is(from.get_type()) {
            return Err(PyTypeError::new_err(format!("`{name}` can't be read: {}", from.repr()?)));
        }
        value(name, &item, depth + 1)
    } else {
        Err(PyTypeError::new_err(format!("`{name}` can't be read: {}", from.repr()?)))
    }
}

/// The arguments in a dictionary.
pub(crate) fn args(from: &Bound<'_, PyDict>) -> PyResult<Args> {
    let mut args = Vec::new();
    for (key, item) in from.iter() {
        let name = key.cast::<PyString>().map_err(PyErr::from)?.to_string();
        let read = value(&name, &item, 0)?;
        args.push((name, read));
    }
    Ok(args.into_iter().collect())
}

/// A value as Python's; a list becomes a tuple, as the references have theirs.
fn object<'py>(py: Python<'py>, from: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match from {
        Value::None => py.None().into_bound(py),
        Value::Bool(x) => PyBool::new(py, *x).to_owned().into_any(),
        Value::Int(x) => x.into_pyobject(py)?.into_any(),
        Value::Float(x) => x.into_pyobject(py)?.into_any(),
        Value::Str(x) => x.into_pyobject(py)?.into_any(),
        Value::List(items) => {
            let items = items.iter().map(|item| object(py, item));
            PyTuple::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Value::Map(items) => {
            let map = PyDict::new(py);
            for (key, item) in items {
                map.set_item(key, object(py, item)?)?;
            }
            map.into_any()
        }
    })
}

/// Arguments as a dictionary.
pub(crate) fn dict<'py>(py: Python<'py>, args: &Args) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, value) in args.iter() {
        all.set_item(name, object(py, value)?)?;
    }
    Ok(all)
}
