//! Raises the limit of open files, so that a node with many tunnels does not run out of file descriptors.

use crate::errors::StartError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit that the daemon sets where it may: 250 accepted tunnels and all connections of its servers fit.
const WANTED: u64 = 4096;
/// The smallest limit with which the daemon starts. A node with two tunnels has about 73 files open.
const MIN: u64 = 96;
/// Below this limit a node with all its tunnels may run out of file descriptors.
const ENOUGH: u64 = 512;

/// Returns the soft and hard limits to set, best first.
fn wanted_limits(soft: u64, hard: u64) -> Vec<(u64, u64)> {
    let wanted = soft.max(WANTED);
    let raised = (hard < wanted).then_some((wanted, wanted));
    let within = (wanted.min(hard), hard);
    let limits = raised.into_iter().chain([within]);
    limits.filter(|limits| *limits != (soft, hard)).collect()
}

/// Raises the soft limit as far as the hard limit allows, and the hard limit too if the process has CAP_SYS_RESOURCE.
///
/// # Errors
///
/// [`StartError::FewOpenFiles`]: the limit is too low for any node, and cannot be raised.
pub fn raise_limit() -> Result<(), StartError> {
    let limit = || {
        let limits = getrlimit(Resource::RLIMIT_NOFILE);
        limits.map_err(|errno| StartError::Runtime {
            doing: "read the limit of open files",
            source: errno.into(),
        })
    };
    let (soft, hard) = limit()?;
    // What could not be raised shows in the limit that is read afterwards.
    wanted_limits(soft, hard)
        .into_iter()
        .any(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft, hard).is_ok());
    let (limit, _) = limit()?;
    if limit < MIN {
        return Err(StartError::FewOpenFiles { limit, min: MIN });
    }
    if limit < ENOUGH {
        tracing::warn!(
            limit,
            "the limit of open files is low: with more than a few tunnels, set it to {ENOUGH} (LimitNOFILE= of the unit)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_is_raised_only_if_it_is_too_low() {
        for (soft, hard, expected) in [
            (1024, 524_288, vec![(4096, 524_288)]),
            (24, 24, vec![(4096, 4096)]),
            (24, 64, vec![(4096, 4096), (64, 64)]),
            (4096, 4096, vec![]),
            (65_536, 65_536, vec![]),
        ] {
            assert_eq!(wanted_limits(soft, hard), expected, "{soft}:{hard}");
        }
    }
}
