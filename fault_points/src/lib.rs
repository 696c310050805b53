//! Points between two side effects, at which a test kills the process.
//!
//! Programs have them only with the feature `inject`. Then `WARREN_FAULT_POINTS=list` in the environment prints the name of each
//! point that is reached, and `WARREN_FAULT_POINTS="kill HIT NAME"` sends SIGKILL to the process when it reaches the point of
//! that name for the HITth time. `warren-lab faults --only fault-points` does both.

/// Marks a point between two side effects; the arguments are those of `format!`, and name what has just been done.
#[macro_export]
macro_rules! fault {
    ($($name:tt)+) => {
        $crate::reach(::core::format_args!($($name)+))
    };
}

/// Returns whether changes should be made one by one, although they could be sent together, so that there is a point after each.
#[cfg(not(feature = "inject"))]
pub const fn is_armed() -> bool {
    false
}

/// Does nothing in a build without points.
#[cfg(not(feature = "inject"))]
pub const fn reach(_: core::fmt::Arguments<'_>) {}

#[cfg(feature = "inject")]
pub use injected::{is_armed, reach};

#[cfg(feature = "inject")]
mod injected {
    use std::{
        env,
        fmt::Arguments,
        io::Write,
        sync::{
            OnceLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    /// What is done at the points.
    #[derive(Debug, PartialEq, Eq)]
    enum Mode {
        Off,
        List,
        Kill { hit: u32, name: String },
    }

    fn parse(text: &str) -> Mode {
        let kill = || {
            let (hit, name) = text.strip_prefix("kill ")?.split_once(' ')?;
            let name = name.to_owned();
            Some(Mode::Kill {
                hit: hit.parse().ok()?,
                name,
            })
        };
        match text {
            "list" => Mode::List,
            _ => kill().unwrap_or(Mode::Off),
        }
    }

    fn mode() -> &'static Mode {
        static MODE: OnceLock<Mode> = OnceLock::new();
        MODE.get_or_init(|| parse(&env::var("WARREN_FAULT_POINTS").unwrap_or_default()))
    }

    /// Returns whether changes should be made one by one, so that there is a point after each.
    pub fn is_armed() -> bool {
        *mode() != Mode::Off
    }

    /// Prints the name of the point, or kills the process, as the environment says.
    pub fn reach(point: Arguments<'_>) {
        static HITS: AtomicU32 = AtomicU32::new(0);
        match mode() {
            Mode::Off => {}
            Mode::List => drop(writeln!(std::io::stderr(), "fault point: {point}")),
            Mode::Kill { hit, name } => {
                let is_named = point.to_string() == *name;
                if is_named && HITS.fetch_add(1, Ordering::Relaxed) + 1 == *hit {
                    let own = rustix::process::getpid();
                    // It cannot fail, since the process exists.
                    rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_named_after_the_hit_at_which_it_kills() {
            let kill = |hit, name: &str| Mode::Kill {
                hit,
                name: name.to_owned(),
            };
            assert_eq!(parse("kill 2 add rule 5"), kill(2, "add rule 5"));
            assert_eq!(parse("list"), Mode::List);
            for nothing in ["", "kill", "kill x y", "kill 1"] {
                assert_eq!(parse(nothing), Mode::Off);
            }
        }
    }
}
