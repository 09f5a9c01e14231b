//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::StableAdamW;
bitstep_firmware::measure!(StableAdamW, StableAdamW::default(), 2);
