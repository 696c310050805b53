//! Child processes: spawning, watching, ending.
