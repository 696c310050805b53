//! A node's configuration: complaints of one line each.

use std::path::Path;

/// The input is the text of the file.
pub fn check(input: &[u8]) {
    if let Err(error) = config::parse(Path::new("warren.yaml"), input) {
        let lines = if let config::ConfigError::Values { complaints, .. } = &error {
            complaints.len()
        } else {
            1
        };
        assert_eq!(error.to_string().lines().count(), lines, "{error}");
    }
}
