//! Prepares the host: looks for what must be there, removes what a dead predecessor left, makes
//! links, addresses and routes.

use crate::{errors::StartError, identity::Identity};
use config::{ChildUser, Settings, paths::Paths};
use os::{
    kernel::{self, Kernel},
    process::{Rights, kill_leftover},
};
use policies::names::{FIRST_VLAN, Transport};
use std::{
    fs, io,
    net::{Ipv6Addr, SocketAddrV6, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The folders in which programs are searched.
const LOOKED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Babel's port (RFC 8966, section 5).
const BABEL_PORT: u16 = 6696;

/// Dialling slots beyond the tunnels wanted, so that a new tunnel need not wait for a closing one.
const SPARE_SLOTS: u16 = 2;

/// babeld deletes a route and adds the next one, and should not be held up in between; what is lost all
/// the same, the copies of `actors::effects::fallback_routes` bridge (docs/decisions/0002-fallback-route-table.md).
const BABELD_NICE: i32 = -10;

/// The programs, users and ports that the host offers.
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
    /// The tun node to open, where not `/dev/net/tun`.
    pub tun_node: Option<PathBuf>,
    /// Servers to run; none where no accepting slot can be made.
    pub servers: Vec<(Transport, u16)>,
    /// Tunnels to dial.
    pub tunnels_to_dial: u16,
    /// Tunnels to accept.
    pub max_accepted: u16,
}

/// Refuses an ordinary user, who could not read the keys either.
///
/// # Errors
///
/// [`StartError::NotRoot`].
pub fn need_root() -> Result<(), StartError> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(StartError::NotRoot)
    }
}

/// Looks for programs, users and ports before anything is changed.
///
/// # Errors
///
/// Names what is missing or in use.
pub fn look(settings: &Settings, identity: &Identity) -> Result<Host, StartError> {
    let openvpn = find("openvpn")?;
    let babeld = find("babeld")?;
    let openvpn_rights = rights(&settings.openvpn_user, false, 0)?;
    let babeld_rights = rights(&settings.babeld_user, true, BABELD_NICE)?;
    let parameters = identity.document.parameters();
    let capped = |own: Option<u16>, network: u16| own.map_or(network, |own| own.min(network));
    let ports = [
        (Transport::Udp, settings.listen_udp),
        (Transport::Tcp, settings.listen_tcp),
    ];
    let servers: Vec<_> = ports.into_iter().filter(|(_, port)| *port != 0).collect();
    Ok(Host {
        openvpn,
        babeld,
        openvpn_rights,
        babeld_rights,
        tun_node: None,
        servers,
        tunnels_to_dial: capped(settings.tunnels_to_dial, parameters.tunnels_to_dial),
        max_accepted: capped(settings.max_accepted, parameters.max_accepted),
    })
}

fn find(program: &'static str) -> Result<PathBuf, StartError> {
    let candidates = LOOKED
        .split(':')
        .map(|folder| Path::new(folder).join(program));
    let runs = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    candidates
        .into_iter()
        .find(runs)
        .ok_or(StartError::NoProgram {
            program,
            looked: LOOKED,
        })
}

fn rights(user: &ChildUser, network: bool, nice: i32) -> Result<Rights, StartError> {
    match user {
        ChildUser::Id(id) => Ok(Rights {
            uid: *id,
            gid: *id,
            network,
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
                network,
                nice,
            })
        }
    }
}

/// Refuses to start where a port we need is held by somebody else. Leftovers must be dead by now.
///
/// # Errors
///
/// Names the port.
pub fn check_ports(host: &Host) -> Result<(), StartError> {
    let any = |port| SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    let any4 = |port| (std::net::Ipv4Addr::UNSPECIFIED, port);
    let taken = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    for (transport, port) in &host.servers {
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
        if tried.into_iter().any(taken) {
            return Err(StartError::PortTaken {
                transport: name,
                port: *port,
            });
        }
    }
    if taken(UdpSocket::bind(any(BABEL_PORT)).map(drop)) {
        Err(StartError::AnotherBabeld)
    } else {
        Ok(())
    }
}

/// Makes the folders of `/run` and `/var/lib`, which children may pass through but not read.
///
/// # Errors
///
/// Names the folder.
pub fn make_folders(paths: &Paths) -> Result<(), StartError> {
    for folder in [paths.state(), paths.run(), paths.run().join("child")] {
        let failed = |source| StartError::Folder {
            path: folder.clone(),
            source,
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).map_err(failed)?;
    }
    Ok(())
}

/// Ends the children of a dead predecessor; how many there were.
pub fn kill_leftovers(paths: &Paths) -> usize {
    let Ok(entries) = fs::read_dir(paths.run().join("child")) else {
        return 0;
    };
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|is| is == "pid") && kill_leftover(path))
        .count()
}

/// Removes what a predecessor left, and makes links, address, routes and settings.
///
/// # Errors
///
/// The kernel refuses; what was made is left for the next start.
pub async fn prepare(
    host: &mut Host,
    kernel: &Kernel,
    identity: &Identity,
    paths: &Paths,
) -> Result<(), StartError> {
    let killed = kill_leftovers(paths);
    let swept = kernel.sweep(&paths.sysctls()).await?;
    if killed > 0 || swept != kernel::Swept::default() {
        tracing::info!(killed, ?swept, "removed what a predecessor left");
    }
    check_ports(host)?;
    let Rights { uid, gid, .. } = host.openvpn_rights;
    let node = kernel::make_tun_node(&paths.tun_node(), uid, gid)?;
    host.tun_node = (node != Path::new("/dev/net/tun")).then_some(node);
    kernel.enable_forwarding(&paths.sysctls())?;
    kernel.join_host(identity.network, identity.me).await?;
    kernel
        .make_dialling_slots(
            0..host.tunnels_to_dial.saturating_add(SPARE_SLOTS),
            identity.me,
            uid,
        )
        .await?;
    if host.max_accepted == 0 || kernel.accepting_kind().await.is_none() {
        host.servers.clear();
    }
    for (transport, _) in &host.servers {
        kernel.make_server_tap(*transport, uid).await?;
        let last = FIRST_VLAN
            .saturating_add(host.max_accepted)
            .saturating_sub(1);
        kernel
            .make_accepting_slots(*transport, FIRST_VLAN..=last, identity.me)
            .await?;
    }
    Ok(())
}
