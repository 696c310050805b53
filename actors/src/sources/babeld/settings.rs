//! The settings of babeld.

use super::*;

/// The settings of the babeld actor.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path of babeld's executable.
    pub babeld: PathBuf,
    /// The rights of the process.
    pub rights: Rights,
    /// Its folder for socket and configuration, 0700 of its user.
    pub folder: PathBuf,
    /// Its folder for the state file, 0700 of its user.
    pub state_folder: PathBuf,
    /// Where the last sequence number is kept, root's own.
    pub seqno: PathBuf,
    /// The path of the pid file, which belongs to root.
    pub pid_file: PathBuf,
    /// The uid of OpenVPN, whose packets from the network's range are never sent to an exit
    /// gateway.
    pub openvpn_uid: u32,
    /// The content of the configuration file.
    pub config: BabelConfig,
}

impl Settings {
    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("babeld.conf")
    }

    /// babeld repeats an urgent update or request after half of the interval that `-h` and `-H`
    /// give; with its default of 4 s a lost one costs 2 s. The configuration file can set
    /// intervals by link only.
    pub(super) fn args(&self) -> Vec<OsString> {
        let hello = self.config.hello_interval.as_secs_f64().to_string();
        let words = ["-h", &hello, "-H", &hello, "-I", "", "-c"]
            .map(OsString::from)
            .into_iter();
        words.chain([self.config_file().into()]).collect()
    }
}
