//! Produces faults of joining: bad invitations, a machine that has joined, a registry that does not answer.

use super::{
    network::{Network, identity_file, warren},
    programs::run_successfully,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the command of a case; `None` if the case is not about joining by an invitation.
pub(super) fn command(network: &Network, case: &str, root: &Path) -> Option<Command> {
    Some(match case {
        "invitation malformed" => network.join("nonsense", "newcomer"),
        "invitation unknown" => {
            let invitation = with_other_value(&network.invitation(), "token");
            network.join(&invitation, "newcomer")
        }
        "invitation used" => {
            let invitation = network.invitation();
            run_successfully(network.join(&invitation, "first"));
            network.join(&invitation, "second")
        }
        "invitation of another registry" => {
            let invitation = with_other_value(&network.invitation(), "pin");
            network.join(&invitation, "newcomer")
        }
        "joined already" => {
            let folder = root.file_name().unwrap().to_str().unwrap();
            network.join(&network.invitation(), folder)
        }
        "join without a registry" => {
            let invitation = network.invitation();
            let elsewhere = invitation.replace("127.0.0.1:9443", "127.0.0.1:9");
            network.join(&elsewhere, "newcomer")
        }
        "join over a link" => {
            let key = pending_key(network, "linked");
            symlink("/etc/hostname", key).unwrap();
            network.join(&network.invitation(), "linked")
        }
        "join over a public key" => {
            let key = pending_key(network, "public");
            fs::copy(identity_file(root, "node.key"), &key).unwrap();
            fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
            network.join(&network.invitation(), "public")
        }
        "start elsewhere" => {
            let newcomer = network.path("newcomer");
            warren(&["join", &network.invitation(), "--start"], &newcomer)
        }
        "request where joined" => warren(&["request"], root),
        _ => return None,
    })
}

/// Creates the folder of a machine's files, and returns the path of the key that an interrupted `join` keeps.
fn pending_key(network: &Network, machine: &str) -> PathBuf {
    let path = identity_file(&network.path(machine), "node.key.join");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// Changes the first letter after `name=`.
///
/// The last letter of a base64 group may have bits that must be zero; the first has none.
fn with_other_value(invitation: &str, name: &str) -> String {
    let (before, after) = invitation.split_once(&format!("{name}=")).unwrap();
    let letter = if after.starts_with('A') { 'B' } else { 'A' };
    format!("{before}{name}={letter}{}", &after[1..])
}
