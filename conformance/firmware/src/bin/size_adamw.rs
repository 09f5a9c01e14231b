//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::AdamW;
bitstep_firmware::measure!(AdamW, AdamW::default(), 2);
