//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::RmsProp;
bitstep_firmware::measure!(RmsProp, RmsProp::default(), 1);
