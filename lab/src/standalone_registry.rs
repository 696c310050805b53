//! A registry alone in a namespace, which may be killed and started again, and clients that speak with it as
//! nodes do.
//!
//! All of 2001:db8::/32 is local there, so that a client can come from any network of it.

use crate::{
    ip,
    lab_run::Run,
    process::{self, Process, wait_until},
    signal_cleanup,
};
use anyhow::{Context, Result, anyhow, bail};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use wire::{
    invitation::{Invitation, token_text},
    registry::{Claim, VERSION},
};

/// Where the registry listens.
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// Its port.
const PORT: u16 = 9443;
/// For short commands, for connections, and for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry with its files; SIGKILL ends it when this is dropped.
#[derive(Debug)]
pub struct Desk {
    run: Arc<Run>,
    namespace: String,
    root: PathBuf,
    program: PathBuf,
    options: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl Desk {
    /// Makes a namespace and a network with these options of `warren registry init`; the registry is started
    /// with those of `warren registry run`.
    ///
    /// # Errors
    /// Where we are not root, or a command refuses.
    pub fn start(init: &[&str], options: &[&str]) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root: it makes network namespaces");
        }
        crate::lab_run::clean();
        let run = Arc::new(Run::new()?);
        signal_cleanup::take_down_on_signals(&run, false);
        let namespace = run.namespace("desk");
        ip::batch(None, &format!("netns add {namespace}\n"))?;
        ip::batch(
            Some(&namespace),
            "link set lo up\nroute add local 2001:db8::/32 dev lo\n",
        )?;
        let root = run.make_folder("registry")?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let desk = Self {
            run,
            namespace,
            root,
            program: process::program(),
            options,
            process: Mutex::default(),
        };
        let address = format!("[{ADDRESS}]:{PORT}");
        desk.command("init", &[&["--address", &address], init].concat())?;
        desk.run_again()?;
        Ok(desk)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.process()
            .as_ref()
            .map(Process::pid)
            .context("the registry does not run")
    }

    /// SIGKILL.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
        }
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// Where it ends or does not listen within 30 s.
    pub fn run_again(&self) -> Result<()> {
        let fixed = ["registry", "run", "--root"]
            .into_iter()
            .map(ToOwned::to_owned);
        let root = self.root.to_string_lossy().into_owned();
        let arguments = fixed.chain([root]).chain(self.options.iter().cloned());
        let log = self.run.folder().join("registry.log");
        let process = Process::start(&self.namespace, &self.program, arguments, &log)?;
        let socket = self.socket();
        let listens = wait_until(PATIENCE, || {
            let ready = UnixStream::connect(&socket).is_ok();
            (ready || process.ended().is_some()).then_some(ready)
        });
        if listens != Some(true) {
            bail!(
                "the registry does not listen: {}",
                crate::node::tail(&log, 10)
            );
        }
        *self.process() = Some(process);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.root.join("run/warren-registry/admin.sock")
    }

    /// Where its files lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A verb of `warren registry`, and what it printed.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn command(&self, verb: &str, more: &[&str]) -> Result<String> {
        let root = self.root.to_string_lossy();
        let arguments = ["registry", verb, "--root", &root]
            .into_iter()
            .chain(more.iter().copied());
        process::run(&self.namespace, &self.program, arguments, PATIENCE)
    }

    /// The token of a new invitation, good for `uses` nodes.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn token(&self, uses: u32) -> Result<String> {
        let told = self.command("invite", &["--uses", &uses.to_string()])?;
        let invitation: Invitation = told.trim().parse().map_err(|error| anyhow!("{error}"))?;
        Ok(token_text(&invitation.token))
    }

    /// Who can speak with it, from whatever address.
    ///
    /// # Errors
    /// Where its CA cannot be read.
    pub fn clients(&self, identity: Option<(&str, &KeyPair)>) -> Result<Clients> {
        let mut roots = RootCertStore::empty();
        let ca = self.root.join("etc/warren-registry/ca.crt");
        roots.add(CertificateDer::from_pem_file(ca).context("no CA")?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config.with_client_auth_cert(
                vec![
                    CertificateDer::from_pem_slice(certificate.as_bytes())
                        .context("no certificate")?,
                ],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).context("no key")?,
            )?,
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Clients {
            config: Arc::new(config),
        })
    }

    /// Does `work` in a thread inside the registry's namespace.
    ///
    /// # Errors
    /// Whatever `work` says.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        ip::inside(&self.namespace, work)
    }

    /// Moves the calling thread into the registry's namespace, for good.
    ///
    /// # Errors
    /// Where there is none.
    pub fn enter(&self) -> Result<()> {
        ip::enter(&self.namespace)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.kill();
        self.run
            .remove(std::env::var_os("WARREN_LAB_KEEP").is_some_and(|value| value == "1"));
    }
}

/// How to speak with the registry; connections are made by threads inside its namespace.
#[derive(Clone, Debug)]
pub struct Clients {
    config: Arc<ClientConfig>,
}

/// A connection from an address of our choice, without TLS.
///
/// # Errors
/// Where nobody listens.
pub fn connect(from: Option<Ipv6Addr>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        // The address is local, but on no interface.
        socket.set_freebind_v6(true)?;
        socket.bind(&SocketAddr::new(IpAddr::V6(from), 0).into())?;
    }
    socket.connect_timeout(&SocketAddr::new(IpAddr::V6(ADDRESS), PORT).into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Clients {
    /// A connection with TLS.
    ///
    /// # Errors
    /// Where nobody listens, or it is not the registry.
    pub fn connect(&self, from: Option<Ipv6Addr>) -> Result<Connection> {
        let name = ServerName::IpAddress(IpAddr::V6(ADDRESS).into());
        let session = ClientConnection::new(Arc::clone(&self.config), name)?;
        Ok(Connection {
            stream: StreamOwned::new(session, connect(from)?),
            rest: Vec::new(),
        })
    }
}

/// A connection that is kept for several calls.
#[derive(Debug)]
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    rest: Vec<u8>,
}

impl Connection {
    /// Makes a call: status and body.
    ///
    /// # Errors
    /// Where the connection breaks, or what comes is no HTTP.
    pub fn call(&mut self, method: &str, call: &str, body: &[u8]) -> Result<(u16, String)> {
        let head = format!(
            "{method} {call} HTTP/1.1\r\nhost: registry\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Sends bytes as they are, and reads one answer.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<(u16, String)> {
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        loop {
            if let Some((answer, used)) = parse(&self.rest)? {
                self.rest.drain(..used);
                return Ok(answer);
            }
            let mut part = [0; 8192];
            let count = self.stream.read(&mut part)?;
            if count == 0 {
                bail!("the registry hung up");
            }
            self.rest.extend(part.get(..count).unwrap_or_default());
            if self.rest.len() > 4 << 20 {
                bail!("an endless answer");
            }
        }
    }

    /// Sends one byte.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub fn dribble(&mut self, byte: u8) -> Result<()> {
        self.stream.write_all(&[byte])?;
        Ok(self.stream.flush()?)
    }

    /// Claims a certificate.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn claim(&mut self, token: &str, csr: &str) -> Result<(u16, String)> {
        let claim = Claim {
            version: VERSION,
            token: token.into(),
            csr: csr.into(),
        };
        self.call("POST", "/v1/claims", &serde_json::to_vec(&claim)?)
    }
}

type Parsed = ((u16, String), usize);

/// The first answer in the bytes, if it is whole, and its length.
fn parse(bytes: &[u8]) -> Result<Option<Parsed>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?.to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no status")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Ok(0), str::parse)?;
    let body = bytes.get(end + 4..end + 4 + length);
    Ok(body.map(|body| {
        (
            (status, String::from_utf8_lossy(body).into_owned()),
            end + 4 + length,
        )
    }))
}

/// A new key, and a request that says nothing but it.
///
/// # Errors
/// Where the library refuses.
pub fn request() -> Result<(KeyPair, String)> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let csr = csr(&key)?;
    Ok((key, csr))
}

/// A request that says nothing but the key.
///
/// # Errors
/// Where the library refuses.
pub fn csr(key: &KeyPair) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}
