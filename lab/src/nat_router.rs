//! A site behind NAT: a router with nftables masquerading and a real miniupnpd, and a LAN with one node or several.
//!
//! The LAN's switch has a namespace of its own, so that the router gets only the frames that are for it.
//!
//! miniupnpd maps no ports if the WAN address is not public; the lab's internet therefore has addresses that look
//! public.

use crate::{
    ip, netns,
    network::underlay::{allow_ping_sockets, skip_duplicate_address_detection},
    process::{self, Process, run_with_input},
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::libc;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The router's address on the LAN.
pub const ROUTER_ADDRESS: &str = "192.168.77.1";
/// The address on the LAN of its first node; the others have those after it.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The router's IPv6 address on the internet, where a lab has given it one.
pub const ROUTER_IPV6: &str = "2a0c:5c80::2:1";
/// The range of its LAN, without the end; the first node has the address 2 in it.
pub const LAN_IPV6: &str = "2a0c:5c80:77:0";
/// How nft shows that a rule of miniupnpd compares the destination of an IPv6 packet.
const IPV6_DESTINATION: &str = "@nh,192,128";
/// Longest wait until miniupnpd exits after SIGTERM.
const MINIUPNPD_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that nft(8) may take.
const NFT_TIMEOUT: Duration = Duration::from_secs(10);

/// The chains that miniupnpd expects, and masquerading. Each statement has a line of its own, because nft reports a
/// syntax error otherwise.
const NFT_RULES: &str = "
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain forward {
        type filter hook forward priority 0
        policy drop
        ct state established,related accept
        iifname lan0 accept
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority -100
        policy accept
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 100
        policy accept
        jump postrouting_miniupnpd
        meta nfproto ipv4 oifname eth0 masquerade
    }
}
";

const MINIUPNPD_CONFIGURATION: &str = "
ext_ifname=eth0
listening_ip=lan0
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
system_uptime=yes
uuid=5b3cbb4e-6b2c-4f0f-9a6d-2b9e6a1d0197
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";

/// The protocols by which a router maps ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MappingProtocols {
    /// UPnP, PCP and NAT-PMP.
    #[default]
    All,
    /// The Internet Gateway Device protocol of UPnP.
    UpnpOnly,
    /// The Port Control Protocol (RFC 6887).
    PcpOnly,
    /// The NAT Port Mapping Protocol (RFC 6886).
    NatPmpOnly,
}

impl MappingProtocols {
    /// The configuration of miniupnpd.
    fn configuration(self) -> String {
        let configuration = MINIUPNPD_CONFIGURATION;
        match self {
            Self::All => configuration.to_owned(),
            Self::UpnpOnly => configuration.replace("enable_natpmp=yes", "enable_natpmp=no"),
            Self::PcpOnly | Self::NatPmpOnly => {
                configuration.replace("enable_upnp=yes", "enable_upnp=no")
            }
        }
    }

    /// Rules that drop the requests of a protocol that miniupnpd cannot switch off: the first byte of
    /// PCP and NAT-PMP is their version.
    fn rules(self) -> String {
        let version = match self {
            Self::All | Self::UpnpOnly => None,
            Self::PcpOnly => Some(0),
            Self::NatPmpOnly => Some(2),
        };
        let rule = version.map(|version| format!("udp dport 5351 @th,64,8 {version} drop"));
        let rule = rule.unwrap_or_default();
        format!(
            "table inet versions\ndelete table inet versions\ntable inet versions {{\nchain input {{\n\
             type filter hook input priority 0\n{rule}\n}}\n}}\n"
        )
    }
}

/// Counts the bytes from the LAN that the router's own network stack gets, and those of them that are for a host of the LAN after all.
const COUNTERS: &str = "
table inet lan_bytes {
    counter routed { }
    counter hairpin { }
    chain prerouting {
        type filter hook prerouting priority -300
        iifname lan0 counter name routed
        iifname lan0 ip daddr { 192.168.77.2-192.168.77.254, UPLINK } counter name hairpin
    }
}
";

/// How a NAT treats packets from the internet, and how it maps ports (RFC 3489, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum NatKind {
    /// Whatever arrives at the node's external port is passed to it.
    FullCone,
    /// Only packets of hosts to which the node has sent are passed.
    Restricted,
    /// Only packets of hosts and ports to which the node has sent are passed.
    PortRestricted,
    /// The same, and each destination sees another external port.
    Symmetric,
}

impl NatKind {
    /// The rules of this kind. The router drops other packets from the internet, as most do.
    fn rules(self) -> String {
        let to_node = format!("udp dport 1024-65535 dnat ip to {NODE_ADDRESS}");
        let prerouting = match self {
            Self::FullCone => format!("iifname eth0 {to_node}"),
            Self::Restricted => format!("iifname eth0 ip saddr @peers {to_node}"),
            Self::PortRestricted | Self::Symmetric => String::new(),
        };
        let masquerade = match self {
            Self::Symmetric => "oifname eth0 masquerade fully-random",
            Self::FullCone | Self::Restricted | Self::PortRestricted => "",
        };
        format!(
            "table inet kind\ndelete table inet kind\ntable inet kind {{\n\
             set peers {{\ntype ipv4_addr\nflags dynamic,timeout\ntimeout 60s\n}}\n\
             chain input {{\ntype filter hook input priority 0\niifname eth0 meta l4proto udp ct state new drop\n}}\n\
             chain forward {{\ntype filter hook forward priority -1\niifname lan0 add @peers {{ ip daddr }}\n}}\n\
             chain prerouting {{\ntype nat hook prerouting priority -110\n{prerouting}\n}}\n\
             chain postrouting {{\ntype nat hook postrouting priority 90\n{masquerade}\n}}\n}}\n\
             insert rule inet filter forward ct status dnat accept\n"
        )
    }
}

/// The bytes that a router got from its LAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanBytes {
    /// All bytes that its network stack got, those for itself included.
    pub routed: u64,
    /// Those of them that are from one host of the LAN to another.
    pub hairpin: u64,
}

/// The router of one site, with its LAN.
#[derive(Debug)]
pub struct NatRouter {
    namespace: String,
    folder: PathBuf,
    miniupnpd: Mutex<Option<Process>>,
}

impl NatRouter {
    /// Creates the LAN between `namespace`, which has its uplink already, and those of nodes, by the switch in a further one.
    /// Then it starts miniupnpd on the router.
    pub(crate) fn build(
        namespace: String,
        switch: &str,
        node_namespaces: &[String],
        folder: PathBuf,
    ) -> Result<Self> {
        let switch_lines = format!(
            "link add switch type bridge\nlink set switch up\nlink add router type veth peer name lan0 netns {namespace}\nlink set router master switch up\n"
        );
        ip::batch(Some(switch), &switch_lines)?;
        let router_lines = format!("addr add {ROUTER_ADDRESS}/24 dev lan0\nlink set lan0 up\n");
        ip::batch(Some(&namespace), &router_lines)?;
        for (number, node_namespace) in node_namespaces.iter().enumerate() {
            let cable = format!(
                "link add node{number} type veth peer name eth0 netns {node_namespace}\nlink set node{number} master switch up\n"
            );
            ip::batch(Some(switch), &cable)?;
            let number = u32::try_from(number).context("too many nodes on a LAN")?;
            let address = Ipv4Addr::from_bits(NODE_ADDRESS.to_bits() + number);
            skip_duplicate_address_detection(node_namespace)?;
            let node_lines = format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {ROUTER_ADDRESS}\n"
            );
            ip::batch(Some(node_namespace), &node_lines)?;
            allow_ping_sockets(node_namespace)?;
        }
        netns::write_sysctl(&namespace, "net/ipv4/ip_forward", "1")?;
        load_nft_rules(&namespace, NFT_RULES)?;
        let router = Self {
            namespace,
            folder,
            miniupnpd: Mutex::default(),
        };
        router.start_miniupnpd(MappingProtocols::All)?;
        Ok(router)
    }

    /// The router's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Turns the router into one of this kind, which maps no ports on request.
    ///
    /// # Errors
    /// Fails if nft cannot be started or fails.
    pub fn set_kind(&self, kind: NatKind) -> Result<()> {
        self.stop_miniupnpd();
        load_nft_rules(&self.namespace, &kind.rules())
    }

    /// Passes what arrives at this TCP port from the internet to the node, as an operator would configure it by hand.
    ///
    /// # Errors
    /// Fails if the kernel rejects the rule.
    pub fn forward_tcp_port(&self, port: u16) -> Result<()> {
        let rules = format!(
            "table ip forwarded {{\nchain prerouting {{\ntype nat hook prerouting priority -110\n\
             iifname != lan0 tcp dport {port} dnat to {NODE_ADDRESS}\n}}\n}}\n\
             insert rule inet filter forward tcp dport {port} accept\n"
        );
        load_nft_rules(&self.namespace, &rules)
    }

    /// Stops miniupnpd with SIGTERM, if it runs.
    pub fn stop_miniupnpd(&self) {
        let process = self
            .miniupnpd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(process) = process {
            process.stop(MINIUPNPD_STOP_TIMEOUT);
        }
    }

    /// Starts miniupnpd with these protocols. It must not run yet.
    ///
    /// # Errors
    /// Fails if miniupnpd or nft cannot be started.
    pub fn start_miniupnpd(&self, protocols: MappingProtocols) -> Result<()> {
        load_nft_rules(&self.namespace, &protocols.rules())?;
        let configuration = self.folder.join("miniupnpd.conf");
        fs::write(&configuration, protocols.configuration())
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let pid_file = self.folder.join("miniupnpd.pid");
        let arguments = [
            "-d".as_ref(),
            "-f".as_ref(),
            configuration.as_os_str(),
            "-P".as_ref(),
            pid_file.as_os_str(),
        ];
        let log = self.folder.join("miniupnpd.log");
        let process = Process::start(&self.namespace, Path::new("miniupnpd"), arguments, &log)?;
        *self
            .miniupnpd
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// Counts from now on what the router gets from its LAN; `uplink` is its address on the internet.
    ///
    /// # Errors
    /// Fails if nft cannot be started or fails.
    pub fn start_counting(&self, uplink: &str) -> Result<()> {
        load_nft_rules(&self.namespace, &COUNTERS.replace("UPLINK", uplink))
    }

    /// What the router has got from its LAN since the counting began.
    ///
    /// # Errors
    /// Fails if nft fails, or shows no counters.
    pub fn lan_bytes(&self) -> Result<LanBytes> {
        let arguments = ["list", "counters", "table", "inet", "lan_bytes"];
        let listing = process::run(&self.namespace, Path::new("nft"), arguments, NFT_TIMEOUT)?;
        let bytes = |name: &str| {
            let (_, counter) = listing.split_once(&format!("counter {name} {{"))?;
            let (_, bytes) = counter.split_once(" bytes ")?;
            bytes.split_whitespace().next()?.parse().ok()
        };
        let context = || format!("nft lists no such counter: {listing}");
        Ok(LanBytes {
            routed: bytes("routed").with_context(context)?,
            hairpin: bytes("hairpin").with_context(context)?,
        })
    }

    /// Gives the router and the first node of its LAN public IPv6 addresses; the router drops what it does not expect. miniupnpd is
    /// started again with these protocols, since it opens its sockets at the start.
    ///
    /// # Errors
    /// Fails if the kernel rejects a change, or miniupnpd cannot be started.
    pub fn route_ipv6(&self, node_namespace: &str, protocols: MappingProtocols) -> Result<()> {
        let router_lines = format!(
            "addr add {ROUTER_IPV6}/64 dev eth0 nodad\naddr add {LAN_IPV6}::1/64 dev lan0 nodad\naddr add fe80::1/64 dev lan0 nodad\n"
        );
        ip::batch(Some(&self.namespace), &router_lines)?;
        netns::write_sysctl(&self.namespace, "net/ipv6/conf/all/forwarding", "1")?;
        let node_lines = format!(
            "addr add {LAN_IPV6}::2/64 dev eth0 nodad\nroute add default via fe80::1 dev eth0\n"
        );
        ip::batch(Some(node_namespace), &node_lines)?;
        self.stop_miniupnpd();
        self.start_miniupnpd(protocols)
    }

    /// The ports for which the router passes IPv6 packets to a node, one line of nft each.
    ///
    /// # Errors
    /// Fails if nft fails.
    pub fn pinholes(&self) -> Result<Vec<String>> {
        let arguments = ["list", "chain", "inet", "filter", "miniupnpd"];
        let listing = process::run(&self.namespace, Path::new("nft"), arguments, NFT_TIMEOUT)?;
        let lines = listing.lines().map(str::trim);
        Ok(lines
            .filter(|line| line.contains(IPV6_DESTINATION))
            .map(ToOwned::to_owned)
            .collect())
    }

    /// The present port mappings, one line of nft each.
    ///
    /// # Errors
    /// Fails if nft fails.
    pub fn mappings(&self) -> Result<Vec<String>> {
        let arguments = ["list", "chain", "inet", "filter", "prerouting_miniupnpd"];
        let listing = process::run(&self.namespace, Path::new("nft"), arguments, NFT_TIMEOUT)?;
        let lines = listing.lines().map(str::trim);
        Ok(lines
            .filter(|line| line.contains("dnat"))
            .map(ToOwned::to_owned)
            .collect())
    }
}

/// Returns whether this kernel has netfilter's netlink sockets, without which there is no nftables.
pub(crate) fn has_nftables() -> bool {
    let netfilter = Protocol::from(libc::NETLINK_NETFILTER);
    Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(netfilter)).is_ok()
}

/// Loads nftables rules into the namespace.
pub(crate) fn load_nft_rules(namespace: &str, rules: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    run_with_input(&mut command, rules)
        .with_context(|| format!("nft cannot load the rules in {namespace} (package nftables)"))
}
