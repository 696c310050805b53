#![no_main]

#[path = "../properties/port_control.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|input: &[u8]| property::check(input));
