//! What a child may do, and how rights are given up between fork and exec.
//!
//! Only direct system calls are made there: after fork nothing may allocate or lock.

use rustix::{
    process::{Signal, getppid, set_parent_process_death_signal, setpriority_process},
    thread::{self, CapabilitySet, CapabilitySets},
};
use std::io;

/// The rights of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Real, effective and saved user, never 0.
    pub uid: u32,
    /// Likewise its only group.
    pub gid: u32,
    /// `CAP_NET_ADMIN` and `CAP_NET_RAW`, and nothing else; without them no capability at all.
    pub network: bool,
    /// Scheduling priority, -20 to 19 (setpriority(2)); a nimble child is never held up in the middle
    /// of a change of routes, which is a deletion and an addition.
    pub nice: i32,
}

/// Every capability that Linux 6 knows, by number (linux/capability.h, `CAP_LAST_CAP` 40).
const KNOWN: u64 = (1 << 41) - 1;

impl Rights {
    /// Gives up all else. To be called in the child, between fork and exec.
    ///
    /// # Errors
    ///
    /// The system call that failed; the child must then not go on.
    pub(super) fn assume(self, parent: u32) -> io::Result<()> {
        let kept = if self.network {
            CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW
        } else {
            CapabilitySet::empty()
        };
        setpriority_process(None, self.nice)?;
        drop_bounding_set(kept)?;
        thread::set_thread_groups(&[])?;
        thread::set_thread_gid(thread::Gid::from_raw(self.gid))?;
        thread::set_keep_capabilities(true)?;
        thread::set_thread_uid(thread::Uid::from_raw(self.uid))?;
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
        thread::set_no_new_privs(true)?;
        // Set after the change of user, which clears it. SIGTERM, so that babeld retracts its routes.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // The daemon may have died before the line above.
        let orphaned =
            getppid().is_none_or(|pid| pid.as_raw_nonzero().get().unsigned_abs() != parent);
        if orphaned {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        } else {
            Ok(())
        }
    }
}

fn drop_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if KNOWN & 1 << bit == 0 || kept.contains(capability) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(capability) {
            // An older kernel does not know it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
