//! The facts about the node's membership: signed documents, credentials, the registry, and the configuration.

use crate::live_settings::LiveSettings;
use actix::Message;
use membership::documents::CurrentDocuments;
use policies::{
    endpoint_checks::Reachability,
    names::{Endpoint, Prefix},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use wire::{registry::DocumentKind, signed::SignedDocument};

/// Another node posted a signed document to the peer API; the document is not verified yet.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct DocumentOffered {
    /// The prefix of the sender, from its certificate.
    pub from: Prefix,
    /// The document that was posted.
    pub document: SignedDocument,
}

/// The registry reported the versions of its signed documents.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct VersionsReported {
    /// The version of the network document.
    pub network: u64,
    /// The version of the revocation list.
    pub revocations: u64,
}

/// The registry asked this node to renew its certificate early, because the node was renamed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RenewalRequested;

/// A newer signed document became current.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct DocumentsChanged {
    /// The kind of the new document; `None` in the first message, which carries the documents loaded at the start.
    pub kind: Option<DocumentKind>,
    /// All current documents.
    pub documents: Arc<CurrentDocuments>,
    /// The nodes that have a newly revoked certificate.
    pub revoked: BTreeSet<Prefix>,
}

/// The configuration was reloaded.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SettingsChanged {
    /// The settings that are in force from now on.
    pub settings: Arc<LiveSettings>,
}

/// Certificates, CAs or keys on disk were replaced. If neither `servers` nor `dials` is set, they were
/// only checked, and are current.
///
/// OpenVPN reads these files only when it starts, so its processes must be restarted.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CredentialsChanged {
    /// When the files were replaced: processes started earlier use the old ones.
    pub at: Uptime,
    /// Version of the network document that the files on disk agree with.
    pub network_version: u64,
    /// Whether the servers must be restarted.
    pub servers: bool,
    /// Whether the dialled tunnels must be restarted.
    pub dials: bool,
    /// Delay before the first restart; nodes draw different delays, so that they do not restart all at once.
    pub start_after: Duration,
    /// Delay after which a tunnel is restarted even if it could not be drained.
    pub force_after: Duration,
    /// The node's certificate; `None` if it cannot be read.
    pub certificate: Option<OwnCertificate>,
}

/// What people are shown of the node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// notBefore, in seconds since 1970.
    pub not_before_s: u64,
    /// notAfter, in seconds since 1970.
    pub not_after_s: u64,
}

/// A call to the registry was answered, or failed.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RegistryContacted {
    /// When it happened.
    pub at: Uptime,
    /// The error in one line, if the call failed.
    pub failure: Option<String>,
    /// Whether the call failed because the registry no longer accepts the node's certificate.
    pub is_certificate_rejected: bool,
    /// The number of nodes whose private endpoints the registry does not show to this node; `None` if it has not answered yet.
    pub hidden_nodes: Option<u32>,
    /// The number of other nodes that the registry listed when it was last asked for peers; `None` if it has not answered yet.
    pub listed_peers: Option<usize>,
    /// How many seconds the registry's clock is ahead of this host's, by its last answer; `None` if no answer said it.
    pub clock_offset_s: Option<i64>,
    /// The address of another machine that announces itself with this node's certificate; `None` if the registry knows of none.
    pub other_machine: Option<IpAddr>,
}

/// How the node learnt an endpoint of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointSource {
    /// The configuration lists it.
    Configured,
    /// The router in front of the host maps a port to it.
    PortMapping,
    /// It is an address of the host.
    HostAddress,
    /// It is an address of the host on a link without a default route, such as a bridge or another VPN.
    OtherLink,
}

impl EndpointSource {
    /// Returns the name of the source in documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::PortMapping => "port-mapping",
            Self::HostAddress => "host-address",
            Self::OtherLink => "other-link",
        }
    }
}

/// Other nodes have tried the endpoints that this node announces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct EndpointsChecked {
    /// What is known of each public endpoint that was checked.
    pub endpoints: BTreeMap<Endpoint, Reachability>,
}

/// The endpoints that the node announces were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct OwnEndpointsRead {
    /// The endpoints, best first, each with its source.
    pub endpoints: Vec<(Endpoint, EndpointSource)>,
}
