//! Reads the files that PyTorch saves of an optimizer, a schedule and a loss scale: [`bitstep_trainer::torch`]
//! with candle's errors.

use std::path::Path;

use bitstep::hyper::Args;
use bitstep_trainer::resume::State;
use bitstep_trainer::torch;
use candle_core::{Error, Result};

/// Reads a file written by `torch.save(optimizer.state_dict(), …)`.
///
/// # Errors
/// A file that can't be read or has other contents.
pub fn optimizer(path: impl AsRef<Path>) -> Result<State> {
    torch::optimizer(path).map_err(Error::wrap)
}

/// Reads a file written by `torch.save(scheduler.state_dict(), …)`.
///
/// # Errors
/// A file that can't be read or has other contents.
pub fn scheduler(path: impl AsRef<Path>) -> Result<Args> {
    torch::scheduler(path).map_err(Error::wrap)
}

/// Reads a file written by `torch.save(scaler.state_dict(), …)`.
///
/// # Errors
/// A file that can't be read or has other contents.
pub fn scaler(path: impl AsRef<Path>) -> Result<Args> {
    torch::scaler(path).map_err(Error::wrap)
}
