//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
bitstep_firmware::measure!(Sgd, Sgd { momentum: 0.9, ..Sgd::DEFAULT }, 1);
