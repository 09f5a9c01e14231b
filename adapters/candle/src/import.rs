//! Reading what PyTorch saved of an optimizer, a schedule and a loss scale: [`bitstep_trainer::torch`].

use std::path::Path;

use bitstep::hyper::Args;
use bitstep_trainer::resume::State;
use bitstep_trainer::torch;
use candle_core::{Error, Result};

/// What `torch.save(optimizer.state_dict(), …)` wrote.
///
/// # Errors
/// A file that can't be read, or is something else.
pub fn optimizer(path: impl AsRef<Path>) -> Result<State> {
    torch::optimizer(path).map_err(Error::wrap)
}

/// What `torch.save(scheduler.state_dict(), …)` wrote.
///
/// # Errors
/// A file that can't be read, or is something else.
pub fn scheduler(path: impl AsRef<Path>) -> Result<Args> {
    torch::scheduler(path).map_err(Error::wrap)
}

/// What `torch.save(scaler.state_dict(), …)` wrote.
///
/// # Errors
/// A file that can't be read, or is something else.
pub fn scaler(path: impl AsRef<Path>) -> Result<Args> {
    torch::scaler(path).map_err(Error::wrap)
}
