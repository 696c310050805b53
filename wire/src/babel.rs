//! babeld's local socket: lines of `dump` to tables, and the configuration file.
