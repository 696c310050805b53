//! Produces faults of the host: no rights, missing programs, ports that are taken.

use super::{
    Case,
    config_cases::NOBODY,
    network::{Network, WARREN, warren},
    programs::program,
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    net::UdpSocket,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
};

/// Returns the case; `None` if it is not about the host.
pub(super) fn case(network: &Network, name: &str, root: &Path) -> Option<Case> {
    Some(match name {
        "no root" => {
            let mut command = warren(&["run"], root);
            command.uid(NOBODY).gid(NOBODY);
            command.into()
        }
        "cleanup without root" => {
            let mut command = warren(&["cleanup"], root);
            command.uid(NOBODY).gid(NOBODY);
            command.into()
        }
        "cleanup while warren runs" => clean_up_beside_lock(root),
        "cleanup elsewhere" => warren(&["cleanup"], &root.join("nowhere")).into(),
        "no openvpn" => run_without("openvpn", root).into(),
        "no babeld" => run_without("babeld", root).into(),
        "port taken" => run_beside_socket("[::]:1194", root),
        "another babeld" => run_beside_socket("[::]:6696", root),
        "registry not running" => warren(&["registry", "list"], &network.path("newcomer")).into(),
        "usage" => warren(&["run", "--nonsense"], root).into(),
        _ => return None,
    })
}

/// Returns `warren run` in a mount namespace where `name` is not an executable file.
fn run_without(name: &str, root: &Path) -> Command {
    let mut command = program("unshare");
    let hide = "for f in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
        [ ! -e $f/$0 ] || mount --bind /dev/null $f/$0 || exit 99; done; exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", hide, name, WARREN, "run", "--root"])
        .arg(root);
    command
}

/// Returns `warren run` while a socket of ours has the UDP port.
fn run_beside_socket(address: &str, root: &Path) -> Case {
    Case {
        command: warren(&["run"], root),
        _kept: Some(Box::new(UdpSocket::bind(address).unwrap())),
    }
}

/// Returns `warren cleanup` while this process has locked the pid file, which names pid 4711.
fn clean_up_beside_lock(root: &Path) -> Case {
    let path = root.join("run/warren/warren.pid");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "4711\n").unwrap();
    let lock = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    Case {
        command: warren(&["cleanup"], root),
        _kept: Some(Box::new(lock)),
    }
}
