//! Measures the size and cost of SGD in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::Sgd;
bitstep_firmware::measure!(Sgd, Sgd::DEFAULT, 0);
