//! Documents of the control socket: what `--json` prints.
