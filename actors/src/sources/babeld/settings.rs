//! The settings of babeld.

use super::*;

/// What the actor is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// babeld's executable.
    pub babeld: PathBuf,
    /// Its rights.
    pub rights: Rights,
    /// Its folder for socket and configuration, 0700 of its user.
    pub folder: PathBuf,
    /// Its folder for the state file, 0700 of its user.
    pub state_folder: PathBuf,
    /// Where the last sequence number is kept, root's own.
    pub seqno: PathBuf,
    /// Where its pid is kept, root's own.
    pub pid_file: PathBuf,
    /// OpenVPN's user, whose packets never leave the network's range for the way out.
    pub openvpn_uid: u32,
    /// What it is told.
    pub config: BabelConfig,
}

impl Settings {
    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("babeld.conf")
    }

    /// babeld sends an urgent update or request once more after half of the interval that `-h` and `-H` say:
    /// with its default of 4 s a lost one costs 2 s. The file can set intervals by link only.
    pub(super) fn args(&self) -> Vec<OsString> {
        let hello = self.config.hello_interval.as_secs_f64().to_string();
        let words = ["-h", &hello, "-H", &hello, "-I", "", "-c"]
            .map(OsString::from)
            .into_iter();
        words.chain([self.config_file().into()]).collect()
    }
}
