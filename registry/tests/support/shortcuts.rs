//! Shortcuts for tests: keys, certificate requests, claims, and checks of answers.

use super::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use std::{net::TcpStream, os::fd::AsRawFd};

/// Expects that a call is rejected with this title.
#[track_caller]
pub fn check<T>(asked: Result<T, AdminError>, title: &str) {
    let title_of_answer = match asked {
        Err(AdminError::Rejected { title, .. }) => title,
        Err(other) => other.to_string(),
        Ok(_) => "the call succeeded".to_owned(),
    };
    assert_eq!(title_of_answer, title);
}

/// Connects to the registry from this address of the machine's loopback network.
pub fn connect_from([a, b, c, d]: [u8; 4], registry: &Registry) -> TcpStream {
    let tcp = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(tcp.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    let to = SockaddrIn::new(127, 0, 0, 1, registry.address.port());
    connect(tcp.as_raw_fd(), &to).unwrap();
    TcpStream::from(tcp)
}

/// Makes one of the operator's calls.
pub fn ask<T: serde::de::DeserializeOwned>(
    registry: &Registry,
    method: &str,
    call: &str,
    document: &impl serde::Serialize,
) -> Result<T, AdminError> {
    admin::ask(&registry.paths.admin_socket, method, call, Some(document))
}

/// Creates an invitation and makes a claim with it.
pub fn claim_with(registry: &Registry, invite: &InviteRequest) -> (u16, String) {
    let invited: InviteResponse = registry.order("POST", "/v1/invitations", invite);
    let invitation: Invitation = invited.invitation.parse().unwrap();
    registry.claim(
        &token_text(&invitation.token),
        &request(&CertificateParams::default(), &key()),
    )
}

/// Parses the answer to a claim, which must be successful.
#[track_caller]
pub fn joined(answer: &(u16, String)) -> Claimed {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str(&answer.1).unwrap()
}

pub fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

pub fn request(requested_properties: &CertificateParams, key: &KeyPair) -> String {
    requested_properties
        .serialize_request(key)
        .unwrap()
        .pem()
        .unwrap()
}

/// Returns all certificates in the database, in PEM.
pub fn issued(paths: &RegistryPaths) -> Vec<String> {
    let database = rusqlite::Connection::open(paths.state_dir.join("registry.sqlite")).unwrap();
    let mut all = database
        .prepare("SELECT certificate FROM certificates")
        .unwrap();
    let rows = all.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

pub fn read(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Lets a node announce that it has received and applied the latest documents.
pub fn apply(registry: &Registry, identity: &Identity) {
    let rollout: Rollout = registry.order("GET", "/v1/rollout", &());
    let announcement = Announcement {
        version: VERSION,
        network_version: rollout.network_version,
        network_applied: rollout.network_version,
        revocations_version: rollout.revocations_version,
        ..Announcement::default()
    };
    let _: Announced = registry.ask(identity, "PUT", "/v1/nodes/self", &announcement);
}

/// Returns the time of the machine.
pub fn now() -> UnixSeconds {
    (registry::clock::system_clock())()
}

/// Returns the contents of all files of the registry's configuration folder.
pub fn files(registry: &Registry) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(&registry.paths.config_dir).unwrap();
    let mut all: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

impl Registry {
    pub fn invite(&self, ttl_s: i64) -> Invitation {
        let ask = InviteRequest {
            ttl_s,
            ..InviteRequest::default()
        };
        let invited: InviteResponse = admin::ask(
            &self.paths.admin_socket,
            "POST",
            "/v1/invitations",
            Some(&ask),
        )
        .unwrap();
        invited.invitation.parse().unwrap()
    }

    /// Makes one of the operator's calls, which must succeed.
    #[track_caller]
    pub fn order<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        call: &str,
        document: &impl serde::Serialize,
    ) -> T {
        admin::ask(&self.paths.admin_socket, method, call, Some(document)).unwrap()
    }

    /// Lets a new node join.
    pub fn member(&self) -> Identity {
        let key = key();
        let csr = request(&CertificateParams::default(), &key);
        let (status, body) = self.claim(&token_text(&self.invite(60).token), &csr);
        assert_eq!(status, 200, "{body}");
        Identity {
            claimed: serde_json::from_str(&body).unwrap(),
            key,
        }
    }

    pub fn claim(&self, token: &str, csr: &str) -> (u16, String) {
        let claim = Claim {
            version: VERSION,
            token: token.into(),
            csr: csr.into(),
        };
        self.call(
            None,
            "POST",
            "/v1/claims",
            &serde_json::to_string(&claim).unwrap(),
        )
    }
}
