//! Measures the size and cost of SGD with momentum in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::Sgd;
bitstep_firmware::measure!(Sgd, Sgd { momentum: 0.9, ..Sgd::DEFAULT }, 1);
