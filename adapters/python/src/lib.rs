//! The extension module `bitstep._bitstep`: the registry, the optimizer and the schedules for Python.
//!
//! It borrows tensors' memory, maps errors and converts arguments. What a class is named, and where
//! a reference keeps its state, is `python/bitstep`'s; the updates are the core's.

mod args;
mod clip;
mod conformance;
mod memory;
mod optimizer;
mod schedule;
mod threads;

use pyo3::prelude::*;

/// The names of all optimizers.
#[pyfunction]
fn optimizers() -> Vec<&'static str> {
    bitstep::registry::OPTIMIZERS.iter().map(|entry| entry.name).collect()
}

#[pymodule]
fn _bitstep(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(optimizers, module)?)?;
    module.add_function(wrap_pyfunction!(schedule::schedules, module)?)?;
    module.add_function(wrap_pyfunction!(optimizer::quantization_map, module)?)?;
    module.add_function(wrap_pyfunction!(clip::norms, module)?)?;
    module.add_function(wrap_pyfunction!(clip::clip_coefficient, module)?)?;
    module.add_function(wrap_pyfunction!(clip::scale, module)?)?;
    module.add_function(wrap_pyfunction!(conformance::verify, module)?)?;
    module.add_function(wrap_pyfunction!(conformance::check, module)?)?;
    module.add_function(wrap_pyfunction!(conformance::cases, module)?)?;
    module.add_function(wrap_pyfunction!(conformance::same_bits, module)?)?;
    module.add_function(wrap_pyfunction!(conformance::fuzz_object, module)?)?;
    module.add_class::<optimizer::Optimizer>()?;
    module.add_class::<schedule::Scheduler>()
}
