//! Measures the size and cost of AdamW in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::AdamW;
bitstep_firmware::measure!(AdamW, AdamW::DEFAULT, 2);
