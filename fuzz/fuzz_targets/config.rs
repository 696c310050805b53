//! A node's configuration: no panic, and complaints of one line each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &[u8]| {
    if let Err(error) = config::parse(Path::new("warren.yaml"), text) {
        let lines = match &error {
            config::ConfigError::Values { complaints, .. } => complaints.len(),
            _ => 1,
        };
        assert_eq!(error.to_string().lines().count(), lines, "{error}");
    }
});
