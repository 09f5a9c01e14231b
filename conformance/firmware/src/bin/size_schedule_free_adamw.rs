//! Measures the size and cost of schedule-free AdamW in a firmware.
#![cfg_attr(target_os = "none", no_std, no_main)]
use bitstep::optim::ScheduleFreeAdamW;
bitstep_firmware::measure!(ScheduleFreeAdamW, ScheduleFreeAdamW::DEFAULT, 2);
