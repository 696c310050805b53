//! The rights of a child, and how a new child gives up all others between fork and exec.
//!
//! Between fork and exec, the code only makes system calls, since it must neither allocate memory nor take a lock.

use super::{
    landlock::enter_own_domain,
    start_step::{Step, StepWriter},
};
use rustix::{
    process::{
        Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal,
        setpriority_process, setrlimit,
    },
    thread::{self, CapabilitySet, CapabilitySets},
};
use std::{io, path::Path};

/// The rights of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The real, effective and saved user id; never 0.
    pub uid: u32,
    /// The real, effective and saved group id; the child has no other group.
    pub gid: u32,
    /// The capabilities of the child; it never has any other.
    pub capabilities: Capabilities,
    /// The nice value, -20 to 19 (setpriority(2)). babeld has a low one, so that it is not interrupted between the
    /// deletion of a route and the addition of the next one. A child that may not have it starts all the same.
    pub nice: i32,
}

/// The capabilities of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capabilities {
    /// None at all.
    None,
    /// `CAP_NET_BIND_SERVICE`, to bind ports below 1024.
    Ports,
    /// `CAP_NET_ADMIN` and `CAP_NET_RAW`; such a child also has a folder in which it can create files.
    Network,
}

impl Capabilities {
    /// The capabilities of a child that binds this port: none unless the port is privileged (ip(7)).
    pub const fn for_port(port: u16) -> Self {
        if port < FIRST_UNPRIVILEGED_PORT {
            Self::Ports
        } else {
            Self::None
        }
    }

    fn set(self) -> CapabilitySet {
        match self {
            Self::None => CapabilitySet::empty(),
            Self::Ports => CapabilitySet::NET_BIND_SERVICE,
            Self::Network => CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW,
        }
    }
}

/// Ports below this one need `CAP_NET_BIND_SERVICE`, unless `net.ipv4.ip_unprivileged_port_start` was changed.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Address space of a child, in bytes (`RLIMIT_AS`, getrlimit(2)). An OpenVPN with few clients has 13 MiB, a babeld 3 MiB, and 70 MiB after a flood
/// of routes (measured): the limit only ends a child that somebody makes grow without end, before the host lacks memory.
const MAX_ADDRESS_SPACE: u64 = 1 << 30;

/// The set of all capabilities of Linux 6, one bit each (linux/capability.h, `CAP_LAST_CAP` 40).
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

impl Rights {
    /// Gives up all other rights of the calling process. It must be called in the child, between fork and exec.
    /// Each step is noted before it is taken, so that the parent knows which one failed.
    ///
    /// # Errors
    ///
    /// A system call failed; the child must then not execute the program.
    pub(super) fn assume(self, parent: u32, steps: &StepWriter) -> io::Result<()> {
        let kept = self.capabilities.set();
        // Without CAP_SYS_NICE or a limit such as LimitNICE= of systemd it fails; the parent then warns.
        let _ = setpriority_process(None, self.nice);
        steps.note(Step::Limits);
        // The memory of OpenVPN holds the key of the node: it writes no core dump.
        limit(Resource::Core, 0)?;
        limit(Resource::As, MAX_ADDRESS_SPACE)?;
        steps.note(Step::BoundingSet);
        drop_bounding_set(kept)?;
        steps.note(Step::Groups);
        thread::set_thread_groups(&[])?;
        steps.note(Step::GroupId);
        thread::set_thread_gid(thread::Gid::from_raw(self.gid))?;
        steps.note(Step::UserId);
        thread::set_keep_capabilities(true)?;
        thread::set_thread_uid(thread::Uid::from_raw(self.uid))?;
        steps.note(Step::Capabilities);
        thread::set_capabilities(
            None,
            CapabilitySets {
                effective: kept,
                permitted: kept,
                inheritable: kept,
            },
        )?;
        thread::clear_ambient_capability_set()?;
        for capability in kept.iter() {
            thread::configure_capability_in_ambient_set(capability, true)?;
        }
        steps.note(Step::NoNewPrivileges);
        thread::set_no_new_privs(true)?;
        // An older kernel has no Landlock; the child then starts without it.
        let _ = enter_own_domain(self.capabilities == Capabilities::Network);
        steps.note(Step::DeathSignal);
        // The kernel clears this signal when the user changes, so it is set afterwards. It is SIGTERM, so that
        // babeld retracts its routes.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // If the daemon exited before the signal was set, the child would never get it.
        let orphaned =
            getppid().is_none_or(|pid| pid.as_raw_nonzero().get().unsigned_abs() != parent);
        if orphaned {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        steps.note(Step::Execute);
        Ok(())
    }

    /// Returns a step in words, with its object, to follow "cannot"; without a step, the process was not created.
    pub(super) fn describe_step(self, step: Option<Step>, program: &Path) -> String {
        match step {
            None => "create the process".to_owned(),
            Some(Step::Limits) => "limit core dumps and memory".to_owned(),
            Some(Step::BoundingSet) => "reduce the capability bounding set".to_owned(),
            Some(Step::Groups) => "give up the supplementary groups".to_owned(),
            Some(Step::GroupId) => format!("become group {}", self.gid),
            Some(Step::UserId) => format!("become user {}", self.uid),
            Some(Step::Capabilities) => match self.capabilities {
                Capabilities::None => "give up all capabilities".to_owned(),
                Capabilities::Ports => "keep the capability CAP_NET_BIND_SERVICE".to_owned(),
                Capabilities::Network => {
                    "keep the capabilities CAP_NET_ADMIN and CAP_NET_RAW".to_owned()
                }
            },
            Some(Step::NoNewPrivileges) => "set no_new_privs".to_owned(),
            Some(Step::DeathSignal) => "set the parent death signal".to_owned(),
            Some(Step::Execute) => format!("execute {}", program.display()),
        }
    }
}

/// Lowers both limits of the calling process to `most`, unless they are lower.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.unwrap_or(u64::MAX).min(most));
    let lowered = Rlimit {
        current: lower(current),
        maximum: lower(maximum),
    };
    Ok(setrlimit(resource, lowered)?)
}

fn drop_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if ALL_CAPABILITIES & 1 << bit == 0 || kept.contains(capability) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(capability) {
            // EINVAL: an older kernel does not know this capability.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
