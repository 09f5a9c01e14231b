//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::Lion;
bitstep_firmware::measure!(Lion, Lion::default(), 1);
