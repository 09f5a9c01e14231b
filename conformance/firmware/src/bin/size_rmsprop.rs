//! Measures the size and cost of RMSprop in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::RmsProp;
bitstep_firmware::measure!(RmsProp, RmsProp::DEFAULT, 1);
