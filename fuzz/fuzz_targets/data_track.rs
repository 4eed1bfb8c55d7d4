//! See `rtcd_core::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtcd_core::fuzzing::data_track(data));
