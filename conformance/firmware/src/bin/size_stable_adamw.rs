//! Measures the size and cost of StableAdamW in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::StableAdamW;
bitstep_firmware::measure!(StableAdamW, StableAdamW::DEFAULT, 2);
