#![no_main]

#[path = "../properties/babel_packets.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|input: &[u8]| property::check(input));
