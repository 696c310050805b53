//! The findings that can be made about a node: their names, how bad each is, and what to do.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The node does not do its work, and is not ready.
    Error,
    /// The node works, but something that it needs is missing, or soon will be.
    Degraded,
    /// Something that an operator may want to know; the node is healthy.
    Information,
}

impl Severity {
    /// Returns the name in metrics and documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Degraded => "degraded",
            Self::Information => "information",
        }
    }
}

/// Defines the findings, in the order in which they are shown.
macro_rules! findings {
    ($($(#[$doc:meta])* $name:ident $severity:ident $label:literal $advice:literal;)*) => {
        /// What can be wrong with a node, or worth knowing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FindingId {
            $($(#[$doc])* $name,)*
        }

        impl FindingId {
            /// All findings, those that make the node unready first.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the name in metrics and documents.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Returns how bad the finding is, unless the state of the node makes it worse.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// Returns what an operator should do.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

findings! {
    /// Telemetry publishes nothing any more, so all else that is shown is old.
    StaleTelemetry Error "stale_telemetry"
        "restart the daemon: systemctl restart warren";
    /// The network has revoked the node's certificate.
    Revoked Error "revoked"
        "ask the operator of the registry for an invitation, then: warren join --replace -";
    /// Another machine uses this node's key, so packets to the node go to either.
    OwnKeyShared Error "own_key_shared"
        "probably one machine is a clone of the other: give one of them an identity of its own by warren join --replace -";
    /// The node's certificate has expired.
    CertificateExpired Error "certificate_expired"
        "check that the registry can be reached and that this host's clock is right; the node renews by itself then";
    /// babeld does not answer, so no route is kept. It is started again after ten seconds.
    BabeldDown Error "babeld_down"
        "see journalctl -u warren; warren doctor looks for another babeld and for a wrong version";
    /// babeld has a route to a node, but packets to it leave by another link than a tunnel, or are dropped.
    RoutesDiverted Error "routes_diverted"
        "ip -6 rule shows the rules before 31999: let the other program (mostly a VPN) leave out the network's range, or give its rules priorities above 32006";
    /// Tunnels exist, but nothing arrives by any of them.
    Disconnected Error "disconnected"
        "check this host's uplink and firewall";
    /// No tunnel is up, although there are other nodes, or nobody knows whether there are.
    NoTunnel Error "no_tunnel"
        "warren peers shows why dials failed; warren doctor checks the network access of this host";
    /// Tunnels are up, but babeld has no route to any node.
    NoRoute Error "no_route"
        "wait for 10 s; if it stays: warren routes, and journalctl -u warren";
    /// The registry does not answer.
    RegistryAway Degraded "registry_away"
        "check that the registry runs and that its address in warren.yaml is right; tunnels stay up meanwhile";
    /// The certificate should have been renewed by now.
    CertificateExpires Degraded "certificate_expires"
        "check that the registry answers: the node renews its certificate there by itself";
    /// The host's clock and the registry's differ.
    ClockOff Degraded "clock_off"
        "synchronise the clock of this host or of the registry by NTP: timedatectl set-ntp true";
    /// Tunnels work by TCP only.
    UdpBlocked Degraded "udp_blocked"
        "let UDP out to the ports of other nodes (1194 by default); tunnels over TCP are slower";
    /// Peers are known only by private endpoints that cannot be dialled from here.
    PrivateEndpointsOnly Degraded "private_endpoints_only"
        "warren peers lists them; if they can be reached from here, set private-endpoints: true";
    /// An OpenVPN server of the node does not run, so nobody can dial it by this transport.
    ServerDown Degraded "server_down"
        "see journalctl -u warren; warren doctor shows which program has taken a port";
    /// babeld or a server exits again and again.
    ProcessRestarting Degraded "process_restarting"
        "see journalctl -u warren for the last lines of the process";
    /// The router in front of the host maps no port to it, or not all.
    PortMappingMissing Degraded "port_mapping_missing"
        "allow PCP, NAT-PMP or UPnP on the router, or forward the ports by hand and list them under endpoints";
    /// Two machines have dialled this node with one key; the one that came first keeps its tunnel.
    PeerKeyShared Degraded "peer_key_shared"
        "probably one machine is a clone of the other: give one of them an identity of its own by warren join --replace -";
    /// The network's IPv4 range overlaps a network of the host, so the node has no IPv4.
    Ipv4Overlap Degraded "ipv4_overlap"
        "let the operator of the registry choose another range (warren registry set ipv4), or change the network of this host";
    /// A firewall drops what the node should forward for others.
    TransitBlocked Degraded "transit_blocked"
        "allow forwarding between links wrn*: ip6tables -I FORWARD -i wrn+ -o wrn+ -j ACCEPT (with Docker in the chain DOCKER-USER; the same by iptables if the network carries IPv4); or set transit: leaf";
    /// Another program, mostly a second babeld, shares babeld's port, so that each receives some packets of the other.
    AnotherBabeld Degraded "another_babeld"
        "stop the other babeld: systemctl disable --now babeld";
    /// Another program removes or changes the node's rules, routes, addresses, settings or links again and again.
    HostChanged Degraded "host_changed"
        "for systemd-networkd, set ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no in /etc/systemd/networkd.conf; otherwise look for another VPN or a firewall script";
    /// Something that the node needs on the host is missing, and cannot be restored.
    HostNotRestored Degraded "host_not_restored"
        "see journalctl -u warren; in a container, allow the change or make it from outside";
    /// Tunnels carry small packets only.
    NarrowPath Degraded "narrow_path"
        "let firewalls on the path pass fragments, or ICMP type 3 and ICMPv6 type 2; or let the peer listen on TCP";
    /// The network asks for newer software.
    SoftwareOutdated Degraded "software_outdated"
        "install a newer release of warren";
    /// There is no other node yet.
    WaitingForOthers Information "waiting_for_others"
        "let another node join: warren registry invite";
    /// The node announces no endpoint, so nobody can dial it.
    NoEndpoint Information "no_endpoint"
        "forward a port to this host and list it under endpoints; without that, the node only dials";
    /// No other node has dialled this one for a while.
    NotReached Information "not_reached"
        "open the ports of listen in firewalls, and forward them on the router";
    /// The router in front of the host does not open its firewall for the node's IPv6 endpoints, or not for all.
    Ipv6FirewallClosed Information "ipv6_firewall_closed"
        "let this host open ports on the router (PCP, or pinholes by UPnP), or open the ports of listen there by hand";
    /// The NAT in front of the host maps each destination to another port (symmetric), so hole punching mostly fails.
    EndpointDependentNat Information "endpoint_dependent_nat"
        "let the router map a port to this host (PCP, NAT-PMP or UPnP), forward one by hand and list it under endpoints, or give the host a public IPv6 address";
    /// Routing rules of other programs are consulted before the node's own.
    EarlierRules Information "earlier_rules"
        "nothing, as long as all nodes can be reached; ip -6 rule shows the rules";
    /// A further port of `listen` is not used.
    PortUnused Information "port_unused"
        "stop the program that has the port (ss -lpn), or remove the port from listen, and restart warren";
    /// Changed keys of the configuration are not in force yet.
    RestartPending Information "restart_pending"
        "systemctl restart warren";
    /// The policy only logs its decisions.
    DryRun Information "dry_run"
        "set dry-run: false and run warren reload, to let the policy open and close tunnels";
    /// Parts of the daemon were restarted after a panic.
    ActorRestarted Information "actor_restarted"
        "report the panic in journalctl -u warren as a bug";
}
