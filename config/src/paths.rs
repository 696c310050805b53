//! The paths of all files. All lie below one root, so that many nodes can run side by side in a
//! lab.

use std::path::{Path, PathBuf};

/// The root below which everything lies; `/` on an ordinary machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// `root` must be absolute: babeld takes no relative socket paths.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// `/etc/warren`: what the operator edits. The daemon only reads it.
    pub fn etc(&self) -> PathBuf {
        self.at("etc/warren")
    }

    /// The node's configuration.
    pub fn config(&self) -> PathBuf {
        self.etc().join("warren.yaml")
    }

    /// The network's CA certificates (PEM).
    pub fn ca(&self) -> PathBuf {
        self.state().join("ca.crt")
    }

    /// The node's certificate (PEM).
    pub fn certificate(&self) -> PathBuf {
        self.state().join("node.crt")
    }

    /// The node's private key (PEM), 0600 of OpenVPN's user.
    pub fn key(&self) -> PathBuf {
        self.state().join("node.key")
    }

    /// The network's `tls-crypt` key (OpenVPN static key), 0600 of OpenVPN's user.
    pub fn tls_crypt(&self) -> PathBuf {
        self.state().join("tls-crypt.key")
    }

    /// The `tls-crypt` key that others may use while the network's key is changed, 0600 of OpenVPN's user.
    pub fn tls_crypt_other(&self) -> PathBuf {
        self.state().join("tls-crypt-other.key")
    }

    /// The signed network document (JSON), as the registry or a peer last gave it.
    pub fn network(&self) -> PathBuf {
        self.state().join("network.json")
    }

    /// The files of the node that lay in [`Self::etc`] until release 0.1, each with its former path.
    pub fn moved_files(&self) -> [(PathBuf, PathBuf); 6] {
        [
            self.key(),
            self.ca(),
            self.certificate(),
            self.tls_crypt(),
            self.tls_crypt_other(),
            self.network(),
        ]
        .map(|path| (self.etc().join(path.file_name().unwrap_or_default()), path))
    }

    /// The folder of identity and state, `/var/lib/warren`, 0711.
    pub fn state(&self) -> PathBuf {
        self.at("var/lib/warren")
    }

    /// The peer cache (SQLite), 0600.
    pub fn peer_cache(&self) -> PathBuf {
        self.state().join("peers.sqlite")
    }

    /// The signed list of revocations (JSON), 0600.
    pub fn revocations(&self) -> PathBuf {
        self.state().join("revocations.json")
    }

    /// The folder of revoked serial numbers, 0755: OpenVPN reads it.
    pub fn revoked(&self) -> PathBuf {
        self.state().join("revoked")
    }

    /// The lease ledger (JSON), 0600: port mappings, written before the router is asked for them.
    pub fn leases(&self) -> PathBuf {
        self.state().join("leases.json")
    }

    /// The ledger of ports for which the router's firewall was opened.
    pub fn pinholes(&self) -> PathBuf {
        self.state().join("pinholes.json")
    }

    /// Host settings that we changed, with their old values (JSON), 0600.
    pub fn sysctls(&self) -> PathBuf {
        self.state().join("sysctls.json")
    }

    /// The folder of sockets and pids, `/run/warren`, 0711.
    pub fn run(&self) -> PathBuf {
        self.at("run/warren")
    }

    /// The control socket, 0660 root:warren.
    pub fn control(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    /// The daemon's pid and start time.
    pub fn pid_file(&self) -> PathBuf {
        self.run().join("warren.pid")
    }

    /// The folder of one child: babeld's is 0700 of its user; an OpenVPN's is 0710 of root and the child's group.
    pub fn child(&self, name: &str) -> PathBuf {
        self.run().join("child").join(name)
    }

    /// A tun node of our own, where the mode of `/dev/net/tun` forbids the child.
    pub fn tun_node(&self) -> PathBuf {
        self.at("dev/warren/tun")
    }

    /// The registry's configuration and keys, 0700 of its user.
    pub fn registry_etc(&self) -> PathBuf {
        self.at("etc/warren-registry")
    }

    /// The registry's state, 0700 of its user.
    pub fn registry_state(&self) -> PathBuf {
        self.at("var/lib/warren-registry")
    }

    /// The registry's administration socket.
    pub fn registry_admin(&self) -> PathBuf {
        self.at("run/warren-registry/admin.sock")
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
