//! Schedules by Transformers' names.

use bitstep::schedule;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::args::{arg_error, args, dict, error};

/// The names of all schedules.
#[pyfunction]
pub(crate) fn schedules() -> Vec<&'static str> {
    schedule::NAMES.to_vec()
}

/// The rates of groups by the number of steps.
#[pyclass(module = "bitstep._bitstep")]
pub(crate) struct Scheduler(schedule::Scheduler);

#[pymethods]
impl Scheduler {
    #[new]
    fn new(name: &str, arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        Ok(Scheduler(schedule::build(name, &args(arguments)?).map_err(arg_error)?))
    }

    /// The current rate of each group.
    #[getter]
    fn lrs(&self) -> Vec<f64> {
        self.0.lrs().to_vec()
    }

    #[setter]
    fn set_lrs(&mut self, lrs: Vec<f64>) -> PyResult<()> {
        self.0.set_lrs(&lrs).map_err(error)
    }

    /// The arguments that it was built from.
    #[getter]
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.0.args())
    }

    /// The momentum of a group, if the schedule sets one.
    fn momentum(&self, group: usize) -> Option<f64> {
        self.0.momentum(group)
    }

    /// Makes a step and returns the new rates.
    fn step(&mut self, metrics: Vec<f64>) -> PyResult<Vec<f64>> {
        Ok(self.0.step(&metrics).map_err(error)?.to_vec())
    }

    /// The state as bytes.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.save().map_err(error)?))
    }

    /// Restores what `save` returned.
    fn load(&mut self, state: &[u8]) -> PyResult<()> {
        self.0.load(state).map_err(error)
    }
}
