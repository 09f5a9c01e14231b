//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::Sgd;
bitstep_firmware::measure!(Sgd, Sgd { momentum: 0.9, ..Sgd::default() }, 1);
