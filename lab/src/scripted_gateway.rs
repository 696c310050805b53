//! A UPnP gateway that does otherwise than the standard says, as routers in homes have been reported to do.
//!
//! It serves SSDP, its description and the actions that map ports, from threads of the lab's own process inside a namespace. It
//! forwards nothing: what matters is what a node makes of its answers.

pub mod faults;
mod http;
mod soap;
mod ssdp;
mod table;

use crate::netns;
use anyhow::{Context, Result};
use faults::GatewayFaults;
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use table::Table;

/// The TCP port of the description and the actions.
const HTTP_PORT: u16 = 5000;
/// Interval at which waiting threads check whether the gateway stops.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What all threads of a gateway share.
struct Shared {
    address: Ipv4Addr,
    faults: GatewayFaults,
    table: Mutex<Table>,
    is_stopping: AtomicBool,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Waits for this span, unless the gateway stops before.
    fn pause(&self, span: Duration) {
        crate::wait::wait_until(span, || self.is_stopping().then_some(()));
    }
}

/// A running gateway. It stops when this value is dropped.
pub struct ScriptedGateway {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl ScriptedGateway {
    /// Starts a gateway inside the namespace, at an address that the namespace has.
    ///
    /// # Errors
    /// Fails if its ports cannot be opened there.
    pub fn start(namespace: &str, address: Ipv4Addr, faults: GatewayFaults) -> Result<Self> {
        let (listener, socket) = netns::run_inside(namespace, || {
            let listener = TcpListener::bind((address, HTTP_PORT))?;
            listener.set_nonblocking(true)?;
            Ok((listener, ssdp::open(address)?))
        })
        .context("cannot open the ports of the scripted gateway")?;
        let shared = Arc::new(Shared {
            address,
            table: Mutex::new(Table::new(&faults)),
            faults,
            is_stopping: AtomicBool::new(false),
        });
        let (of_http, of_ssdp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || accept(&listener, &of_http)),
            thread::spawn(move || ssdp::serve(&socket, &of_ssdp)),
        ];
        Ok(Self { shared, threads })
    }

    /// Returns the mappings that were requested and have not expired, without the entries of others; one line each.
    pub fn mappings(&self) -> Vec<String> {
        self.shared.table().own_rows()
    }

    /// Returns how many mappings were requested.
    pub fn requests(&self) -> usize {
        self.shared.table().requests
    }

    /// Forgets all mappings, and has another external address from now on, as after a restart.
    pub fn restart(&self, external: &str) {
        self.shared.table().clear(external);
    }
}

impl Drop for ScriptedGateway {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended, too.
            drop(thread.join());
        }
    }
}

/// Accepts connections until the gateway stops. Each has a thread of its own, since some answers take long.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !shared.is_stopping() {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                connections.push(thread::spawn(move || {
                    // A client that closes its connection early does not matter.
                    drop(http::serve(stream, &shared));
                }));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(STOP_CHECK_INTERVAL / 5)
            }
            Err(_) => break,
        }
        connections.retain(|connection| !connection.is_finished());
    }
    for connection in connections {
        drop(connection.join());
    }
}
