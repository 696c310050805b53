//! Connections to a standalone registry over TLS, as nodes and attackers make them.

use anyhow::{Context, Result, bail, ensure};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    time_provider::{DefaultTimeProvider, TimeProvider},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};
use wire::registry::{Claim, VERSION};

/// The address at which the registry listens.
pub(crate) const REGISTRY_ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The port at which the registry listens.
pub(crate) const PORT: u16 = 9443;
/// Longest time for one connect, read or write.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that are read of a response; the registry's responses are smaller.
const MAX_RESPONSE_BYTES: usize = 4 << 20;

/// Status and body of a response.
pub type Response = (u16, String);

/// A clock that stands at this time in seconds since 1970; without one, the machine's clock.
#[derive(Debug)]
struct ClientClock(Option<u64>);

impl TimeProvider for ClientClock {
    fn current_time(&self) -> Option<UnixTime> {
        let standing = self.0.map(Duration::from_secs);
        standing.map_or_else(
            || DefaultTimeProvider.current_time(),
            |time| Some(UnixTime::since_unix_epoch(time)),
        )
    }
}

/// Opens connections to the registry. The calling thread must be inside the registry's namespace.
#[derive(Clone, Debug)]
pub struct RegistryConnector {
    tls: Arc<ClientConfig>,
}

impl RegistryConnector {
    /// Reads the CA that is trusted and, with `identity`, a certificate in PEM and its key. The client judges certificates by the time
    /// `time_s`, in seconds since 1970, or by the machine's clock.
    pub(crate) fn new(
        ca: &Path,
        identity: Option<(&str, &KeyPair)>,
        time_s: Option<u64>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca).context("cannot read the registry's CA")?;
        roots.add(ca)?;
        let provider = Arc::new(ring::default_provider());
        let clock = Arc::new(ClientClock(time_s));
        let config = ClientConfig::builder_with_details(provider, clock)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
                    .context("cannot read the node's certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())
                    .context("cannot read the node's key")?;
                config.with_client_auth_cert(vec![certificate], key)?
            }
        };
        // Each new connection shall cost the registry a full handshake.
        config.resumption = Resumption::disabled();
        Ok(Self {
            tls: Arc::new(config),
        })
    }

    /// Opens a connection with TLS, from this address or from any.
    ///
    /// # Errors
    /// Fails if nothing listens, or if it is not the registry.
    pub fn connect(&self, from: Option<Ipv6Addr>) -> Result<RegistryConnection> {
        let name = ServerName::IpAddress(IpAddr::V6(REGISTRY_ADDRESS).into());
        let session = ClientConnection::new(Arc::clone(&self.tls), name)?;
        Ok(RegistryConnection {
            stream: StreamOwned::new(session, connect_tcp(from)?),
            unread: Vec::new(),
        })
    }
}

/// Opens a connection without TLS, from this address or from any.
///
/// # Errors
/// Fails if nothing listens.
pub fn connect_tcp(from: Option<Ipv6Addr>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        // The address is local, but no interface has it.
        socket.set_freebind_v6(true)?;
        socket.bind(&SocketAddr::new(IpAddr::V6(from), 0).into())?;
    }
    let registry = SocketAddr::new(IpAddr::V6(REGISTRY_ADDRESS), PORT);
    socket.connect_timeout(&registry.into(), IO_TIMEOUT)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(stream)
}

/// A connection with TLS, which serves any number of requests.
#[derive(Debug)]
pub struct RegistryConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Bytes that came after the last response.
    unread: Vec<u8>,
}

impl RegistryConnection {
    /// Sends a request and reads the response.
    ///
    /// # Errors
    /// Fails if the connection breaks, or if the response is not HTTP.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        self.request_with("", method, path, body)
    }

    /// Sends a request with further headers, each with the end of its line, and reads the response.
    ///
    /// # Errors
    /// Fails as [`RegistryConnection::request`] does.
    pub fn request_with(
        &mut self,
        headers: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Response> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: registry\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat())?;
        self.stream.flush()?;
        loop {
            if let Some((response, length)) = parse_response(&self.unread)? {
                self.unread.drain(..length);
                return Ok(response);
            }
            let mut buffer = [0; 8192];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                bail!("the registry closed the connection before the end of its response");
            }
            self.unread.extend(buffer.get(..count).unwrap_or_default());
            ensure!(
                self.unread.len() <= MAX_RESPONSE_BYTES,
                "the response has more than {MAX_RESPONSE_BYTES} bytes"
            );
        }
    }

    /// Sends one byte, without waiting for a response.
    ///
    /// # Errors
    /// Fails if the connection breaks.
    pub fn send_byte(&mut self, byte: u8) -> Result<()> {
        self.stream.write_all(&[byte])?;
        Ok(self.stream.flush()?)
    }

    /// Claims a certificate with a token and a certificate signing request in PEM.
    ///
    /// # Errors
    /// Fails as [`RegistryConnection::request`] does.
    pub fn claim(&mut self, token: &str, csr: &str) -> Result<Response> {
        let claim = Claim {
            version: VERSION,
            token: token.into(),
            csr: csr.into(),
        };
        self.request("POST", "/v1/claims", &serde_json::to_vec(&claim)?)
    }
}

/// The first response in the bytes with its length, or `None` if it is not complete yet.
fn parse_response(bytes: &[u8]) -> Result<Option<(Response, usize)>> {
    let Some(head_length) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = bytes.get(..head_length).unwrap_or_default();
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("the response has no status")?;
    let body_length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let body_length: usize = body_length.map_or(Ok(0), str::parse)?;
    let body_start = head_length + 4;
    let length = body_start + body_length;
    Ok(bytes.get(body_start..length).map(|body| {
        let body = String::from_utf8_lossy(body).into_owned();
        ((status, body), length)
    }))
}

/// Creates a key, and a certificate signing request with nothing but the key.
///
/// # Errors
/// Fails if the library fails.
pub fn new_key_and_csr() -> Result<(KeyPair, String)> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let csr = csr_for(&key)?;
    Ok((key, csr))
}

/// A certificate signing request in PEM with nothing but the key.
///
/// # Errors
/// Fails if the library fails.
pub fn csr_for(key: &KeyPair) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Option<(u16, &str, usize)>) {
        let response = parse_response(bytes.as_bytes()).unwrap();
        let response = response
            .as_ref()
            .map(|((status, body), length)| (*status, body.as_str(), *length));
        assert_eq!(response, expected, "{bytes:?}");
    }

    #[test]
    fn a_response_is_parsed_once_its_body_is_complete() {
        let head = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n";
        check("HTTP/1.1 403 Forbidden\r\nContent-Le", None);
        check(&format!("{head}n"), None);
        check(
            &format!("{head}noHTTP/1.1"),
            Some((403, "no", head.len() + 2)),
        );
        check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, "", 27)));
    }
}
