//! What a firmware with this optimizer and a `State` weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
bitstep_firmware::measure_state!(AdamW, AdamW::DEFAULT, 2);
