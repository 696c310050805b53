//! Resolves the registry's name, and falls back to the address at which the registry answered last.
//!
//! A lookup by the system's resolver cannot be cancelled, and takes half a minute if several DNS servers do not answer. It
//! therefore runs in a thread that nothing waits for, so that it delays neither a call nor the end of the daemon.

use arc_swap::ArcSwapOption;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// Maximum duration of a lookup if the registry has answered before. It is less than that of a connection attempt.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of a name's addresses that are tried.
const MAX_ADDRESSES: usize = 8;

/// Maximum number of lookups at the same time.
const MAX_LOOKUPS: usize = 8;

/// Looks up names in threads of their own.
#[derive(Debug)]
pub(super) struct NameLookup {
    /// The address at which the registry answered last.
    pub(super) last_address: Arc<ArcSwapOption<IpAddr>>,
    running: Arc<AtomicUsize>,
}

/// Counts a lookup for as long as it runs.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NameLookup {
    pub(super) fn new(last_address: Arc<ArcSwapOption<IpAddr>>) -> Self {
        Self {
            last_address,
            running: Arc::default(),
        }
    }

    /// Starts a lookup; its outcome arrives at the receiver, which gets nothing if the lookup cannot be started.
    fn start(&self, name: String) -> oneshot::Receiver<io::Result<Vec<IpAddr>>> {
        let (send, outcome) = oneshot::channel();
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.running));
        if before < MAX_LOOKUPS {
            let look_up = move || {
                let found = (name.as_str(), 0).to_socket_addrs();
                // Nobody receives the outcome of a call that has timed out.
                let _ = send.send(found.map(|all| all.map(|address| address.ip()).collect()));
                drop(running);
            };
            // A thread that cannot be spawned drops the sender.
            let _ = thread::Builder::new()
                .name("lookup".to_owned())
                .spawn(look_up);
        }
        outcome
    }
}

impl Resolve for NameLookup {
    fn resolve(&self, name: Name) -> Resolving {
        let outcome = self.start(name.as_str().to_owned());
        let last = self.last_address.load().as_deref().copied();
        Box::pin(async move {
            let outcome = if last.is_some() {
                timeout(LOOKUP_TIMEOUT, outcome).await
            } else {
                Ok(outcome.await)
            };
            let found = match outcome {
                Ok(Ok(found)) => found,
                Ok(Err(_)) => Err(io::Error::other("too many lookups hang")),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let chosen = choose(found, last)?;
            let addresses: Addrs = Box::new(chosen.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

/// Returns the addresses to try: those that were found, and the last one at which the registry answered. The last one comes first if
/// it was found again, else it comes last.
fn choose(found: io::Result<Vec<IpAddr>>, last: Option<IpAddr>) -> io::Result<Vec<IpAddr>> {
    let (found, last) = match (found, last) {
        (Ok(found), last) => (found, last),
        (Err(_), Some(last)) => (Vec::new(), Some(last)),
        (Err(error), None) => return Err(error),
    };
    let is_found = last.is_some_and(|last| found.contains(&last));
    let others = found.into_iter().filter(|address| Some(*address) != last);
    let first = last.filter(|_| is_found).into_iter();
    let mut chosen: Vec<_> = first.chain(others).take(MAX_ADDRESSES).collect();
    chosen.extend(last.filter(|_| !is_found));
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [45, 67, 0, number].into()
    }

    #[track_caller]
    fn check(found: Option<&[u8]>, last: Option<u8>, expected: Option<&[u8]>) {
        let all = |numbers: &[u8]| numbers.iter().copied().map(address).collect::<Vec<_>>();
        let found = found.map(all).ok_or_else(|| io::ErrorKind::NotFound.into());
        assert_eq!(choose(found, last.map(address)).ok(), expected.map(all));
    }

    #[test]
    fn the_last_good_address_comes_first_if_it_was_found_and_last_if_not() {
        check(Some(&[1, 2, 3]), None, Some(&[1, 2, 3]));
        check(Some(&[1, 2, 3]), Some(2), Some(&[2, 1, 3]));
        check(Some(&[1, 2, 3]), Some(4), Some(&[1, 2, 3, 4]));
        check(Some(&[]), Some(4), Some(&[4]));
    }

    #[test]
    fn a_failed_lookup_leaves_the_last_good_address() {
        check(None, Some(4), Some(&[4]));
        check(None, None, None);
    }

    #[test]
    fn of_many_addresses_few_are_tried_and_the_last_good_one_is_among_them() {
        let many: Vec<u8> = (1..=200).collect();
        check(Some(&many), None, Some(&[1, 2, 3, 4, 5, 6, 7, 8]));
        check(Some(&many), Some(200), Some(&[200, 1, 2, 3, 4, 5, 6, 7]));
        check(Some(&many), Some(201), Some(&[1, 2, 3, 4, 5, 6, 7, 8, 201]));
    }

    #[test]
    fn lookups_that_hang_are_limited() {
        let lookup = NameLookup::new(Arc::default());
        lookup.running.store(MAX_LOOKUPS, Ordering::Relaxed);
        assert!(lookup.start("localhost".into()).blocking_recv().is_err());
        assert_eq!(lookup.running.load(Ordering::Relaxed), MAX_LOOKUPS);
    }
}
