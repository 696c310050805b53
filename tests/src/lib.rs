//! The end-to-end tests are in `tests/`; each file describes a topology and a fault in its first lines.
