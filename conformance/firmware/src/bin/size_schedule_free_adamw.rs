//! What a firmware with this optimizer weighs.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::ScheduleFreeAdamW;
bitstep_firmware::measure!(ScheduleFreeAdamW, ScheduleFreeAdamW::default(), 2);
