//! Limits the TCP connections of an HTTP server, so that no client can keep the others out.
//!
//! A client that opens too many connections loses its own oldest one, which it may have left idle, or on which it may send slowly. So
//! a client that sends its request at once is always served.

use actix_service::{Service, ServiceFactory, apply_fn_factory};
use actix_web::rt::net::TcpStream;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// Maximum number of open connections.
    pub(crate) total: usize,
    /// Maximum number of open connections from one address.
    pub(crate) per_address: usize,
    /// Time after which a connection is closed, whatever happens on it.
    pub(crate) lifetime: Duration,
}

/// The open connections of a server, oldest first. Clones share them.
#[derive(Clone)]
pub(crate) struct Connections {
    limits: ConnectionLimits,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Where each connection comes from, and what closes it when it is dropped.
    connections: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// The place of one connection, which is free again once this is dropped.
struct Place {
    number: u64,
    connections: Connections,
}

impl Connections {
    /// Builds the list of a server without connections.
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: Arc::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The list is whole after each statement that changes it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection, and closes others if there are too many. The receiver ends when the connection has to be closed.
    fn take(&self, from: IpAddr) -> (Place, oneshot::Receiver<()>) {
        let (close, closed) = oneshot::channel();
        let mut open = self.open();
        while let Some((number, owner)) = open.surplus(self.limits, from) {
            open.connections.remove(&number);
            tracing::warn!(from = %owner, limit = self.limits.per_address, "the oldest connection was closed: too many are open");
        }
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, (from, close));
        let place = Place {
            number,
            connections: self.clone(),
        };
        (place, closed)
    }
}

impl Open {
    /// Returns the connection that has to be closed before another one from `from` is accepted: the oldest one of that address, or of the
    /// address with the most.
    fn surplus(&self, limits: ConnectionLimits, from: IpAddr) -> Option<(u64, IpAddr)> {
        let mut counts = BTreeMap::from([(from, 0usize)]);
        for (address, _) in self.connections.values() {
            *counts.entry(*address).or_default() += 1;
        }
        let owner = if counts.get(&from).copied() >= Some(limits.per_address) {
            from
        } else if self.connections.len() >= limits.total {
            counts.into_iter().max_by_key(|(_, count)| *count)?.0
        } else {
            return None;
        };
        let mut connections = self.connections.iter();
        let oldest = connections.find(|(_, (address, _))| *address == owner);
        oldest.map(|(number, _)| (*number, owner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.number);
    }
}

/// Wraps the service of a server so that it keeps to the limits of `connections`.
pub(crate) fn limited<F>(
    factory: F,
    connections: Connections,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = F::Error, InitError = F::InitError>
where
    F: ServiceFactory<TcpStream, Config = (), Response = ()>,
    <F::Service as Service<TcpStream>>::Future: 'static,
{
    apply_fn_factory(factory, move |stream: TcpStream, service: &F::Service| {
        let place = stream
            .peer_addr()
            .map(|from| connections.take(from.ip().to_canonical()));
        let lifetime = connections.limits.lifetime;
        let answered = service.call(stream);
        async move {
            // Without an address the client is gone already.
            let Ok((_place, closed)) = place else {
                return Ok(());
            };
            tokio::select! {
                result = answered => result,
                _ = closed => Ok(()),
                () = tokio::time::sleep(lifetime) => Ok(()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        total: 6,
        per_address: 3,
        lifetime: Duration::from_secs(10),
    };

    /// Opens connections from addresses with these last bytes, and returns which of them are still open.
    fn left(from: &[u8]) -> Vec<usize> {
        let connections = Connections::new(LIMITS);
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let mut opened: Vec<_> = from
            .iter()
            .map(|last| connections.take(address(*last)))
            .collect();
        let is_open = |(_, closed): &mut (Place, oneshot::Receiver<()>)| {
            closed.try_recv() == Err(oneshot::error::TryRecvError::Empty)
        };
        let mut left = Vec::new();
        for (number, connection) in opened.iter_mut().enumerate() {
            if is_open(connection) {
                left.push(number);
            }
        }
        assert_eq!(connections.open().connections.len(), left.len());
        drop(opened);
        assert!(connections.open().connections.is_empty());
        left
    }

    #[test]
    fn an_address_with_too_many_connections_loses_its_oldest_one() {
        assert_eq!(left(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(left(&[2, 1, 1, 1, 1, 1]), [0, 3, 4, 5]);
    }

    #[test]
    fn a_full_server_closes_a_connection_of_the_address_with_the_most() {
        assert_eq!(left(&[1, 1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(left(&[1, 2, 2, 2, 3, 3, 4]), [0, 2, 3, 4, 5, 6]);
    }
}
