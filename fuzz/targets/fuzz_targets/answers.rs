#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| bitstep_fuzz::answers(data));
