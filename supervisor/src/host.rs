//! Prepares the host: checks that programs, users and ports are available, removes what an earlier daemon left, and
//! creates links, addresses and routes.

use crate::{errors::StartError, further_ports::FurtherPorts, identity::NodeIdentity};
use config::{ChildUser, Settings, paths::Paths};
use files::Access;
use os::{
    kernel::{self, Kernel, PacketFilter, Swept},
    process::{Capabilities, Rights, kill_leftover},
};
use policies::{
    names::{FIRST_VLAN, Slot, Transport},
    observation::INFINITY,
};
use std::{
    fs, io,
    net::{Ipv6Addr, SocketAddrV6, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use wire::errors::Chain;

/// The folders that are searched for programs.
pub(crate) const PROGRAM_FOLDERS: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Babel's port (RFC 8966, section 5).
const BABEL_PORT: u16 = 6696;

/// Number of dialling slots in addition to the tunnels to dial, so that a new tunnel need not wait until an old one
/// has closed.
const SPARE_SLOTS: u16 = 2;

/// Number of dialling slots that exist at the start; more are created before they are needed.
const FIRST_DIALLING_SLOTS: u16 = 4;

/// The nice value of babeld. It is low, so that babeld is not interrupted between deleting a route and adding the next
/// one. If it is, the fallback route table helps (docs/decisions/0002-fallback-route-table.md).
const BABELD_NICE: i32 = -10;

/// The programs, users and ports of the host that the node uses.
#[derive(Clone, Debug)]
pub struct Host {
    /// The path of OpenVPN's executable.
    pub openvpn: PathBuf,
    /// The path of babeld's executable.
    pub babeld: PathBuf,
    /// The rights of OpenVPN processes.
    pub openvpn_rights: Rights,
    /// The rights of babeld.
    pub babeld_rights: Rights,
    /// The tun device node that OpenVPN opens; `None` for `/dev/net/tun`.
    pub tun_node: Option<PathBuf>,
    /// The transport and the port of each server; empty if the kernel supports no accepting slots.
    pub servers: Vec<(Transport, u16)>,
    /// The ports that lead to a server as well.
    pub further_ports: FurtherPorts,
    /// Number of tunnels to dial.
    pub tunnels_to_dial: u16,
    /// Maximum number of tunnels to accept.
    pub max_accepted: u16,
    /// Whether a firewall drops what the node should forward for others.
    pub is_transit_blocked: bool,
    /// Whether the network's IPv4 range overlaps a network of this host.
    pub has_ipv4_overlap: bool,
}

impl Host {
    /// Returns the maximum number of dialling slots.
    pub fn max_dialling_slots(&self) -> u16 {
        self.tunnels_to_dial.saturating_add(SPARE_SLOTS)
    }

    /// Returns all ports at which the node accepts tunnels: of each server, then those that lead to one as well.
    pub fn ports(&self) -> Vec<(Transport, u16)> {
        self.servers.iter().copied().chain(self.further()).collect()
    }

    /// Returns the ports that lead to a server beside its own.
    pub fn further(&self) -> Vec<(Transport, u16)> {
        let redirects = self.further_ports.redirects.iter();
        redirects
            .map(|redirect| (redirect.transport, redirect.from))
            .collect()
    }

    /// Returns all slots that the node may create, sorted.
    pub fn slots(&self) -> Vec<Slot> {
        let end = FIRST_VLAN.saturating_add(self.max_accepted);
        let accepting = self.servers.iter().flat_map(|(transport, _)| {
            (FIRST_VLAN..end).map(|vlan| Slot::Accepting(*transport, vlan))
        });
        let dialling = (0..self.max_dialling_slots()).map(Slot::Dialling);
        let mut slots: Vec<Slot> = dialling.chain(accepting).collect();
        slots.sort();
        slots
    }
}

/// Checks that the daemon runs as root.
///
/// # Errors
///
/// [`StartError::NotRoot`].
pub fn check_root() -> Result<(), StartError> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(StartError::NotRoot)
    }
}

/// Finds the programs and users that the node needs, and determines its servers and limits. It changes nothing.
///
/// # Errors
///
/// A program or a user is missing; the error names it.
pub fn inspect(settings: &Settings, identity: &NodeIdentity) -> Result<Host, StartError> {
    let openvpn = find_program("openvpn")?;
    let babeld = find_program("babeld")?;
    let openvpn_rights = rights(&settings.openvpn_user, Capabilities::None, 0)?;
    let babeld_rights = rights(&settings.babeld_user, Capabilities::Network, BABELD_NICE)?;
    let parameters = identity.document.parameters();
    let limit = |configured: Option<u16>, network: u16| {
        configured.map_or(network, |configured| configured.min(network))
    };
    let ports = [
        (Transport::Udp, &settings.listen_udp),
        (Transport::Tcp, &settings.listen_tcp),
    ];
    let own = |(transport, ports): (_, &Vec<u16>)| Some((transport, *ports.first()?));
    let servers: Vec<_> = ports.into_iter().filter_map(own).collect();
    Ok(Host {
        openvpn,
        babeld,
        openvpn_rights,
        babeld_rights,
        tun_node: None,
        servers,
        further_ports: FurtherPorts::default(),
        tunnels_to_dial: limit(settings.dialled_limit(), parameters.tunnels_to_dial),
        max_accepted: limit(settings.accepted_limit(), parameters.max_accepted),
        is_transit_blocked: false,
        has_ipv4_overlap: false,
    })
}

fn find_program(program: &'static str) -> Result<PathBuf, StartError> {
    let candidates = PROGRAM_FOLDERS
        .split(':')
        .map(|folder| Path::new(folder).join(program));
    let is_executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    candidates
        .into_iter()
        .find(is_executable)
        .ok_or(StartError::NoProgram {
            program,
            looked: PROGRAM_FOLDERS,
        })
}

fn rights(user: &ChildUser, capabilities: Capabilities, nice: i32) -> Result<Rights, StartError> {
    match user {
        ChildUser::Id(id) => Ok(Rights {
            uid: *id,
            gid: *id,
            capabilities,
            nice,
        }),
        ChildUser::Name(name) => {
            let missing = || StartError::NoUser { name: name.clone() };
            let found = nix::unistd::User::from_name(name)
                .ok()
                .flatten()
                .ok_or_else(missing)?;
            Ok(Rights {
                uid: found.uid.as_raw(),
                gid: found.gid.as_raw(),
                capabilities,
                nice,
            })
        }
    }
}

/// Checks that no other program uses the ports of the servers and of babeld. Children of an earlier daemon must have been
/// killed before.
///
/// # Errors
///
/// A port is taken; the error names it.
pub fn check_ports(servers: &[(Transport, u16)]) -> Result<(), StartError> {
    let any = |port| SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    let any4 = |port| (std::net::Ipv4Addr::UNSPECIFIED, port);
    let is_taken = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    for (transport, port) in servers {
        let (name, tried) = match transport {
            Transport::Udp => (
                "udp",
                [
                    UdpSocket::bind(any(*port)).map(drop),
                    UdpSocket::bind(any4(*port)).map(drop),
                ],
            ),
            Transport::Tcp => (
                "tcp",
                [
                    TcpListener::bind(any(*port)).map(drop),
                    TcpListener::bind(any4(*port)).map(drop),
                ],
            ),
        };
        if tried.into_iter().any(is_taken) {
            return Err(StartError::PortTaken {
                transport: name,
                port: *port,
            });
        }
    }
    if is_taken(UdpSocket::bind(any(BABEL_PORT)).map(drop)) {
        Err(StartError::AnotherBabeld)
    } else {
        Ok(())
    }
}

/// Creates the folders of the node below `/run` and `/var/lib`. Children can enter them but not list them.
///
/// # Errors
///
/// A folder cannot be created; the error names it.
pub fn create_folders(paths: &Paths) -> Result<(), StartError> {
    for folder in [paths.state(), paths.run(), paths.run().join("child")] {
        let failed = |source| StartError::Folder {
            path: folder.clone(),
            source,
        };
        create_folder(&folder).map_err(failed)?;
    }
    Ok(())
}

/// Creates a folder that children can enter but not list.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    // An operator may have put the folder on another disk by a link; its parent is root's alone.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    files::folder(&folder, Access::ours(0o711))
}

/// The numbers of things that an earlier daemon had left, and that were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Children that still ran.
    pub processes: usize,
    /// Links, routes, addresses, rules and settings.
    pub swept: Swept,
}

/// Kills the children that an earlier daemon left running, and removes what it left in the kernel. The caller holds the
/// lock of the pid file.
///
/// # Errors
///
/// The kernel rejects a change.
pub async fn remove_leftovers(kernel: &Kernel, paths: &Paths) -> Result<Leftovers, StartError> {
    Ok(Leftovers {
        processes: kill_leftovers(paths),
        swept: kernel.sweep(&paths.sysctls()).await?,
    })
}

/// Removes the files that exist only while the daemon runs. One that cannot be removed is logged.
pub fn remove_runtime_files(paths: &Paths) {
    for path in [paths.run().join("child"), paths.tun_node()] {
        if let Err(error) = files::remove_tree(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
    }
    // The folder of the tun device node; it stays if somebody else uses it.
    let _ = paths.tun_node().parent().map(fs::remove_dir);
    for path in [paths.control(), paths.pid_file()] {
        let _ = files::remove(&path);
    }
}

/// Kills the children that an earlier daemon left running; returns how many there were.
fn kill_leftovers(paths: &Paths) -> usize {
    let Ok(entries) = fs::read_dir(paths.run().join("child")) else {
        return 0;
    };
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|is| is == "pid") && kill_leftover(path))
        .count()
}

/// Removes what an earlier daemon left, and creates the links, addresses and routes of the node. If its children were handed over
/// (`is_handed_over`), it keeps what there is, and creates what is missing.
///
/// # Errors
///
/// A port is taken, or the kernel rejects a change. The next start removes what was created before the error.
pub async fn prepare(
    host: &mut Host,
    kernel: &Kernel,
    identity: &NodeIdentity,
    settings: &Settings,
    paths: &Paths,
    is_handed_over: bool,
) -> Result<(), StartError> {
    let Rights { uid, gid, .. } = host.openvpn_rights;
    if is_handed_over {
        kernel.take_over(uid, &paths.sysctls()).await?;
    } else {
        let Leftovers { processes, swept } = remove_leftovers(kernel, paths).await?;
        if processes > 0 || swept != Swept::default() {
            tracing::info!(processes, ?swept, "removed what an earlier daemon had left");
        }
        check_ports(&host.servers)?;
        kernel.apply_host_settings(&paths.sysctls())?;
    }
    let node = kernel::make_tun_node(&paths.tun_node(), uid, gid)?;
    host.tun_node = (node != Path::new("/dev/net/tun")).then_some(node);
    kernel.join_host(identity.network, identity.me).await?;
    let count = host.max_dialling_slots().min(FIRST_DIALLING_SLOTS);
    let existing = u16::try_from(kernel.dialling_slots().len()).unwrap_or(u16::MAX);
    kernel
        .make_dialling_slots(existing..count.max(existing), identity.me, uid)
        .await?;
    if host.max_accepted == 0 || kernel.accepting_kind().await.is_none() {
        host.servers.clear();
    }
    if !host.servers.is_empty() {
        host.further_ports = FurtherPorts::reserve(settings);
    }
    filter_packets(host, kernel, settings);
    let servers = host.servers.iter();
    for (transport, _) in servers.filter(|(transport, _)| !kernel.has_server_tap(*transport)) {
        kernel.make_server_tap(*transport, uid).await?;
    }
    if let Some(ipv4) = identity.document.payload4() {
        host.has_ipv4_overlap = kernel.overlapping_network(ipv4.range()).await?.is_some();
        let ipv4 = Some(ipv4).filter(|_| !host.has_ipv4_overlap);
        kernel.apply_ipv4(ipv4, identity.me).await?;
    }
    if settings.transit_cost() != INFINITY {
        host.is_transit_blocked = is_transit_blocked(kernel, identity).await;
    }
    Ok(())
}

/// Creates the nftables table, without redirects if the kernel has none.
fn filter_packets(host: &mut Host, kernel: &Kernel, settings: &Settings) {
    let filter = |host: &Host| PacketFilter {
        babeld_uid: host.babeld_rights.uid,
        servers: host.ports(),
        redirects: host.further_ports.redirects.clone(),
        interfaces: settings.interfaces.clone(),
    };
    let mut created = kernel.filter_packets(&filter(host));
    if let (Err(error), false) = (&created, host.further_ports.redirects.is_empty()) {
        let reason =
            "this kernel redirects no packets; load the modules nft_fib_inet and nft_redir";
        host.further_ports
            .give_back(format_args!("{reason} ({})", Chain(error)));
        created = kernel.filter_packets(&filter(host));
    }
    if let Err(error) = created {
        tracing::warn!(error = %Chain(&error), "this kernel filters no packets: each user of this host can speak Babel for the node; load the module nf_tables");
    }
}

/// Returns whether a firewall drops what the node should forward; `false` if that cannot be found out.
async fn is_transit_blocked(kernel: &Kernel, identity: &NodeIdentity) -> bool {
    match kernel.forwards_transit(identity.network, identity.me).await {
        Ok(forwards) => !forwards,
        Err(error) => {
            tracing::debug!(error = %Chain(&error), "cannot find out whether this host forwards packets");
            false
        }
    }
}
