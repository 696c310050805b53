//! Reads the tables of babeld over its local socket.

use super::*;
use files::FoundSocket;

/// Requests one dump of babeld's tables, and waits for all of it.
pub(super) async fn read_dump(
    socket: io::Result<FoundSocket>,
    mut decoder: Decoder,
) -> io::Result<babel::Dump> {
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
                    Reply::Greeting { .. } => stream.write_all(babel::DUMP.as_bytes()).await?,
                    Reply::Dump(dump) => return Ok(dump),
                    Reply::Refused(reason) => return Err(io::Error::other(reason)),
                }
            }
        }
    };
    tokio::time::timeout(READ_TIMEOUT, dump)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
