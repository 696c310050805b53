//! A network with a running registry and one machine that has joined, from which each case gets a copy.

use super::programs::{program, run_successfully};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub(super) const WARREN: &str = env!("CARGO_BIN_EXE_warren");
pub(super) const CHILD_UIDS: &str = "60197,60198";

pub(super) struct Network {
    folder: tempfile::TempDir,
    registry: Child,
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// Returns `warren ARGS --root ROOT`.
pub(super) fn warren(args: &[&str], root: &Path) -> Command {
    let mut command = program(WARREN);
    command.args(args).arg("--root").arg(root);
    command
}

/// Returns the path of a file of the node's configuration folder.
pub(super) fn etc(root: &Path, file: &str) -> PathBuf {
    root.join("etc/warren").join(file)
}

/// Returns the path of a file of the node's identity.
pub(super) fn identity_file(root: &Path, file: &str) -> PathBuf {
    root.join("var/lib/warren").join(file)
}

impl Network {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (home, other) = (folder.path().join("registry"), folder.path().join("other"));
        for root in [&home, &other] {
            run_successfully(warren(
                &["registry", "init", "--address", "127.0.0.1:9443"],
                root,
            ));
        }
        let mut command = warren(&["registry", "run", "--listen", "127.0.0.1:9443"], &home);
        let mut registry = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(registry.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let network = Self { folder, registry };
        assert!(line.contains("listens"), "{line}");
        run_successfully(network.join(&network.invitation(), "node"));
        network
    }

    pub(super) fn stop_registry(&mut self) {
        self.registry.kill().unwrap();
        self.registry.wait().unwrap();
    }

    /// Returns the path of a file or folder of this network.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a new invitation, good for one node.
    pub(super) fn invitation(&self) -> String {
        run_successfully(warren(&["registry", "invite"], &self.path("registry")))
            .trim()
            .to_owned()
    }

    pub(super) fn join(&self, invitation: &str, root: &str) -> Command {
        let mut command = warren(
            &["join", invitation, "--child-uids", CHILD_UIDS],
            &self.path(root),
        );
        command.env("NO_COLOR", "1");
        command
    }

    /// Copies the machine that has joined, and returns the copy's root.
    pub(super) fn copy_node(&self, name: &str) -> PathBuf {
        let mut command = program("cp");
        command
            .arg("-a")
            .arg(self.path("node"))
            .arg(self.path(name));
        run_successfully(command);
        self.path(name)
    }
}
