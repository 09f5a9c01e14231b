//! Measures the size and cost of Lion in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::Lion;
bitstep_firmware::measure!(Lion, Lion::DEFAULT, 1);
