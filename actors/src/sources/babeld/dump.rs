//! Reads the tables of babeld over its local socket; a babeld that answers is ready.

use super::*;
use files::FoundSocket;
use std::cell::Cell;

/// Requests one dump of babeld's tables, and waits for all of it. Returns whether babeld has greeted, as any babeld does that is
/// not stuck, and the dump.
pub(super) async fn read_dump(
    socket: io::Result<FoundSocket>,
    mut decoder: Decoder,
) -> (bool, io::Result<babel::Dump>) {
    let has_greeted = Cell::new(false);
    let dump = async {
        let socket = socket?;
        let mut stream = UnixStream::connect(socket.path()).await?;
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for reply in decoder.feed(chunk.get(..count).unwrap_or_default()) {
                match reply {
                    Reply::Greeting { .. } => {
                        has_greeted.set(true);
                        stream.write_all(babel::DUMP.as_bytes()).await?;
                    }
                    Reply::Dump(dump) => return Ok(dump),
                    Reply::Refused(reason) => return Err(io::Error::other(reason)),
                }
            }
        }
    };
    let dump = tokio::time::timeout(READ_TIMEOUT, dump).await;
    let dump = dump.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    (has_greeted.get(), dump)
}

impl Babeld {
    /// Marks a starting babeld as ready, and requests all routes from the neighbours.
    pub(super) fn mark_ready(&mut self) {
        let is_starting = {
            let process = self.process.process.borrow();
            matches!(
                process.as_ref().map(Supervised::state),
                Some(State::Starting { .. })
            )
        };
        if !is_starting {
            return;
        }
        self.handle_event(Event::Ready);
        tracing::info!("babeld answers");
        // Neighbours that knew an earlier babeld would send their routes only with the next periodic update.
        let table = self.table.borrow();
        let up_tunnels = table
            .tunnels
            .values()
            .filter(|tunnel| tunnel.phase == Phase::Up);
        for tunnel in up_tunnels {
            let request = LinkOrder::RequestRoutes(tunnel.slot, tunnel.peer);
            self.links.order(request);
        }
    }
}
