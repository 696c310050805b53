//! Runs a registry in a thread of its own, with a clock that the test sets.

use super::*;

#[derive(Debug)]
pub(super) struct FixedClock(pub(super) UnixSeconds);

impl rustls::time_provider::TimeProvider for FixedClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let since = Duration::from_secs(self.0.0.try_into().unwrap());
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
    }
}

pub(super) type Started = (
    [SocketAddr; 2],
    tokio::sync::oneshot::Sender<()>,
    JoinHandle<()>,
);

pub(super) fn run(
    paths: &RegistryPaths,
    now_s: &Arc<AtomicI64>,
    options: Options,
) -> Result<Started, String> {
    let (paths, now_s) = (paths.clone(), Arc::clone(now_s));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (send_address, address_received) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let clock: registry::clock::WallClock =
                Arc::new(move || UnixSeconds(now_s.load(Ordering::SeqCst)));
            let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let Options {
                no_limits,
                max_per_network,
                trusted_proxy,
                ..
            } = options;
            let serving = server::ServerOptions {
                listen: vec![listen, listen],
                metrics: Some(listen),
                trusted_proxies: trusted_proxy.into_iter().collect(),
                max_per_network,
                no_limits,
                clock,
                revision: "test",
            };
            let running = match server::start(&paths, &serving) {
                Ok(running) => running,
                Err(error) => {
                    return send_address
                        .send(Err(wire::errors::Chain(&error).to_string()))
                        .unwrap();
                }
            };
            let addresses = [running.addresses()[1], running.metrics_address().unwrap()];
            send_address.send(Ok(addresses)).unwrap();
            let stop = async move {
                let _ = stopped.await;
            };
            running.run(stop).await.unwrap();
        });
    });
    let addresses = address_received
        .recv_timeout(Duration::from_secs(30))
        .unwrap()?;
    Ok((addresses, stop, thread))
}

/// Number of checks after which a test no longer waits for the database to be closed, some seconds in total; a corrupt
/// database may keep its WAL.
const MAX_CLOSE_CHECKS: usize = 1_000_000;

/// Waits until a stopped registry has closed its database. Its service has a thread of its own, which does so a moment
/// later; SQLite removes the WAL then.
pub(super) fn wait_until_closed(paths: &RegistryPaths) {
    let wal = paths.state_dir.join("registry.sqlite-wal");
    for _ in 0..MAX_CLOSE_CHECKS {
        if !wal.exists() {
            return;
        }
        std::thread::yield_now();
    }
}
