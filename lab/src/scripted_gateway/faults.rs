//! The faults of a scripted gateway, each by a name.
//!
//! They follow public reports of people whose routers behaved so.

use std::time::Duration;

const IGD_1: &str = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
const IGD_2: &str = "urn:schemas-upnp-org:device:InternetGatewayDevice:2";
const WAN_IP_1: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";
const WAN_IP_2: &str = "urn:schemas-upnp-org:service:WANIPConnection:2";
const ROOT: &str = "upnp:rootdevice";

/// The external address of a gateway without faults.
pub const EXTERNAL_ADDRESS: &str = "45.67.2.1";

/// What becomes of the description of a mapping.
#[derive(Clone, Copy, Debug)]
pub enum DescriptionFault {
    /// It is cut to so many letters.
    Cut(usize),
    /// It is replaced by this one.
    Replaced(&'static str),
}

/// What is unusual in the entry of another client, which comes first in the list.
#[derive(Clone, Copy, Debug)]
pub enum ForeignEntry {
    /// Its description has an ampersand that is not escaped.
    Ampersand,
    /// Its description is not UTF-8.
    Latin1,
    /// Its protocol is written in lower case.
    LowerCase,
    /// It has no lease.
    NoLease,
    /// It is enabled by a word instead of a number.
    EnabledWord,
    /// It has no remote host.
    NoRemoteHost,
}

/// How the list of mappings is shown.
#[derive(Clone, Copy, Debug)]
pub enum ListFault {
    /// It is always at its end.
    Empty,
    /// Its end is reported by this error code.
    EndsBy(u16),
}

/// What becomes of a lease that expires.
#[derive(Clone, Copy, Debug)]
pub enum LeaseFault {
    /// It is rejected with this error code.
    Rejected(u16),
    /// Its full duration is shown at all times.
    ShownAsRequested,
    /// It is shown as one that never expires.
    ShownAsPermanent,
    /// It is shortened to so many seconds.
    AtMost(u32),
}

/// How the body of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// In chunks, by HTTP/1.1.
    Chunked,
    /// Compressed, although nobody asked for that.
    Gzip,
    /// By HTTP/1.0, up to the end of the connection.
    Http10,
    /// With a length that is 20 bytes too large.
    LengthTooLarge,
    /// With a length that is 20 bytes too small.
    LengthTooSmall,
}

/// What a gateway does otherwise than the standard says. The default is a gateway of version 1 without faults, which does not
/// show single mappings.
#[derive(Clone, Debug)]
pub struct GatewayFaults {
    /// The searches that are answered.
    pub targets: Vec<&'static str>,
    /// The version of its devices and services.
    pub version: u8,
    /// The host that its answers to searches name instead of its own address.
    pub location_host: Option<&'static str>,
    /// Delay of answers to searches.
    pub search_delay: Duration,
    /// Delay of the description.
    pub document_delay: Duration,
    /// Delay of each entry of the list.
    pub entry_delay: Duration,
    /// Its address on the internet; empty if it reports none.
    pub external: &'static str,
    /// What becomes of descriptions of mappings.
    pub description: Option<DescriptionFault>,
    /// An unusual entry of another client.
    pub foreign: Option<ForeignEntry>,
    /// The number of further entries of other clients.
    pub foreign_entries: u16,
    /// How the list is shown.
    pub list: Option<ListFault>,
    /// What becomes of leases.
    pub lease: Option<LeaseFault>,
    /// The number of first requests to map a port that are rejected, and the error code.
    pub conflicts: (usize, u16),
    /// Whether errors have an empty description.
    pub has_bare_errors: bool,
    /// Whether a service that does nothing comes before the one that works.
    pub has_dead_service: bool,
    /// Whether the description of the service is missing.
    pub lacks_service_description: bool,
    /// How bodies are sent.
    pub body: Option<BodyFault>,
    /// Whether it knows only the action that chooses the port itself.
    pub maps_any_port_only: bool,
    /// Whether it shows single mappings.
    pub shows_single_mappings: bool,
    /// Whether it shows the same entry of another client at each port.
    pub shows_one_for_all: bool,
    /// Whether all requests to map a port are rejected with this error code.
    pub rejects_all: Option<u16>,
}

impl Default for GatewayFaults {
    fn default() -> Self {
        Self {
            targets: vec![IGD_1, WAN_IP_1],
            version: 1,
            location_host: None,
            search_delay: Duration::ZERO,
            document_delay: Duration::ZERO,
            entry_delay: Duration::ZERO,
            external: EXTERNAL_ADDRESS,
            description: None,
            foreign: None,
            foreign_entries: 0,
            list: None,
            lease: None,
            conflicts: (0, 0),
            has_bare_errors: false,
            has_dead_service: false,
            lacks_service_description: false,
            body: None,
            maps_any_port_only: false,
            shows_single_mappings: false,
            shows_one_for_all: false,
            rejects_all: None,
        }
    }
}

/// A gateway by name, and whether a port can be mapped on it.
pub struct NamedGateway {
    /// The name of the fault.
    pub name: &'static str,
    /// What the gateway does.
    pub faults: GatewayFaults,
    /// Whether a node can map its ports there.
    pub can_map: bool,
}

/// All faults, in the order in which they are measured.
pub fn all() -> Vec<NamedGateway> {
    let mut all = Vec::new();
    add_tables(&mut all);
    add_leases_and_conflicts(&mut all);
    add_descriptions(&mut all);
    add_unusable_gateways(&mut all);
    all
}

fn add(all: &mut Vec<NamedGateway>, name: &'static str, change: impl FnOnce(&mut GatewayFaults)) {
    let mut faults = GatewayFaults::default();
    change(&mut faults);
    all.push(NamedGateway {
        name,
        faults,
        can_map: true,
    });
}

/// Adds faults of what a gateway shows of its mappings.
fn add_tables(all: &mut Vec<NamedGateway>) {
    add(all, "none", |_| {});
    add(all, "shows-single-mappings", |g| {
        g.shows_single_mappings = true
    });
    add(all, "shows-one-for-all", |g| g.shows_one_for_all = true);
    add(all, "description-cut", |g| {
        g.description = Some(DescriptionFault::Cut(8))
    });
    add(all, "description-replaced", |g| {
        g.description = Some(DescriptionFault::Replaced("UPnP"));
    });
    for (name, foreign) in [
        ("foreign-ampersand", ForeignEntry::Ampersand),
        ("foreign-latin1", ForeignEntry::Latin1),
        ("foreign-lower-case", ForeignEntry::LowerCase),
        ("foreign-no-lease", ForeignEntry::NoLease),
        ("foreign-enabled-word", ForeignEntry::EnabledWord),
        ("foreign-no-remote-host", ForeignEntry::NoRemoteHost),
    ] {
        add(all, name, |g| g.foreign = Some(foreign));
    }
    add(all, "table-slow", |g| {
        (g.entry_delay, g.foreign_entries) = (Duration::from_secs(1), 40);
    });
    for (name, list) in [
        ("list-empty", ListFault::Empty),
        ("list-ends-by-402", ListFault::EndsBy(402)),
        ("list-ends-by-501", ListFault::EndsBy(501)),
        ("list-ends-by-714", ListFault::EndsBy(714)),
    ] {
        add(all, name, |g| g.list = Some(list));
    }
}

/// Adds faults of the answers to requests to map a port.
fn add_leases_and_conflicts(all: &mut Vec<NamedGateway>) {
    for (name, lease) in [
        ("lease-rejected-402", LeaseFault::Rejected(402)),
        ("lease-rejected-501", LeaseFault::Rejected(501)),
        ("lease-rejected-725", LeaseFault::Rejected(725)),
        ("lease-shown-as-permanent", LeaseFault::ShownAsPermanent),
        ("lease-shown-as-requested", LeaseFault::ShownAsRequested),
        ("lease-shortened", LeaseFault::AtMost(120)),
    ] {
        add(all, name, |g| g.lease = Some(lease));
    }
    for (name, conflicts) in [
        ("conflict-718", (3, 718)),
        ("conflict-501", (1, 501)),
        ("conflict-729", (1, 729)),
        ("conflict-402", (1, 402)),
    ] {
        add(all, name, |g| g.conflicts = conflicts);
    }
    add(all, "conflict-718-bare", |g| {
        (g.conflicts, g.has_bare_errors) = ((3, 718), true);
    });
    add(all, "any-port-only", |g| g.maps_any_port_only = true);
}

/// Adds faults of the search, of the descriptions, and of how answers are sent.
fn add_descriptions(all: &mut Vec<NamedGateway>) {
    add(all, "service-dead-first", |g| g.has_dead_service = true);
    add(all, "version-2-only", |g| {
        (g.targets, g.version) = (vec![IGD_2, WAN_IP_2, ROOT], 2);
    });
    add(all, "version-2-found-as-1", |g| g.version = 2);
    add(all, "root-device-only", |g| g.targets = vec![ROOT]);
    add(all, "search-slow", |g| {
        g.search_delay = Duration::from_millis(2_500)
    });
    add(all, "document-slow", |g| {
        g.document_delay = Duration::from_secs(2)
    });
    add(all, "location-loopback", |g| {
        g.location_host = Some("[::1]")
    });
    add(all, "location-name", |g| {
        g.location_host = Some("router.lan")
    });
    add(all, "service-description-missing", |g| {
        g.lacks_service_description = true;
    });
    for (name, body) in [
        ("body-chunked", BodyFault::Chunked),
        ("body-gzip", BodyFault::Gzip),
        ("body-http-1.0", BodyFault::Http10),
        ("body-length-too-large", BodyFault::LengthTooLarge),
        ("body-length-too-small", BodyFault::LengthTooSmall),
    ] {
        add(all, name, |g| g.body = Some(body));
    }
}

/// Adds gateways on which no port can be mapped.
fn add_unusable_gateways(all: &mut Vec<NamedGateway>) {
    let first = all.len();
    add(all, "document-hangs", |g| {
        g.document_delay = Duration::from_secs(60)
    });
    add(all, "rejects-606", |g| g.rejects_all = Some(606));
    add(all, "rejects-501", |g| g.rejects_all = Some(501));
    add(all, "external-address-missing", |g| g.external = "");
    add(all, "external-address-private", |g| {
        g.external = "192.168.1.20"
    });
    add(all, "external-address-of-carrier", |g| {
        g.external = "100.64.3.4"
    });
    let unusable = all.iter_mut().skip(first);
    unusable.for_each(|gateway| gateway.can_map = false);
}
