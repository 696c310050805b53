//! Produces faults of the configuration.

use super::network::{etc, warren};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// The uid of an ordinary user.
pub(super) const NOBODY: u32 = 65_534;

/// Returns a root below which nobody has joined.
fn empty_root(root: &Path) -> PathBuf {
    root.with_file_name("nowhere")
}

/// Returns the command of a case; `None` if the case is not about the configuration.
pub(super) fn command(root: &Path, case: &str) -> Option<Command> {
    Some(match case {
        "config missing" => warren(&["run"], &empty_root(root)),
        "config a folder" => {
            fs::remove_file(etc(root, "warren.yaml")).unwrap();
            fs::create_dir(etc(root, "warren.yaml")).unwrap();
            warren(&["run"], root)
        }
        "config empty" => run_with_config(root, "# nothing\n"),
        "config unreadable" => {
            let permissions = fs::Permissions::from_mode(0o600);
            fs::set_permissions(etc(root, "warren.yaml"), permissions).unwrap();
            let mut command = warren(&["run"], root);
            command.uid(NOBODY).gid(NOBODY);
            command
        }
        "config not text" => run_with_config(root, b"log: \xff\n"),
        "config not yaml" => run_with_lines(root, "listen: { udp: 1\nlog: info\n"),
        "config wrong value" => run_with_lines(root, "listen: { udp: 70000 }\n"),
        "config wrong type" => run_with_lines(root, "upnp: true\n"),
        "config unknown key" => run_with_lines(root, "listn: {}\n"),
        "config doubled key" => run_with_lines(root, "log: info\nlog: debug\n"),
        "config two faults" => run_with_lines(root, "upnp: true\nlog:\n"),
        "config without registry" => run_with_config(root, "log: info\n"),
        "config wrong drop-in" => {
            let drop_ins = etc(root, "warren.d");
            fs::create_dir(&drop_ins).unwrap();
            fs::write(drop_ins.join("50-log.yaml"), "# less\nlog: inof\n").unwrap();
            warren(&["run"], root)
        }
        "reload without a daemon" => warren(&["reload"], root),
        "config unknown user" => run_with_lines(
            root,
            "child-users: { openvpn: nobody-of-that-name, babeld: 60198 }\n",
        ),
        _ => return None,
    })
}

/// Returns `warren run` with this text as its configuration.
fn run_with_config(root: &Path, text: impl AsRef<[u8]>) -> Command {
    fs::write(etc(root, "warren.yaml"), text).unwrap();
    warren(&["run"], root)
}

/// Returns `warren run` with these lines after the first line of its configuration.
fn run_with_lines(root: &Path, lines: &str) -> Command {
    run_with_config(root, format!("registry: https://127.0.0.1:9443\n{lines}"))
}
