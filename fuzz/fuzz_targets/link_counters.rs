#![no_main]

#[path = "../properties/link_counters.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|input: &[u8]| property::check(input));
