//! The settings of the babeld actor.

use super::*;

/// The settings of the babeld actor.
#[derive(Clone, Debug)]
pub struct BabeldSettings {
    /// The path of babeld's executable.
    pub babeld: PathBuf,
    /// The user, group and capabilities of the process.
    pub rights: Rights,
    /// The folder of the socket and the configuration, 0700 and owned by babeld's user.
    pub folder: PathBuf,
    /// The folder of the state file, 0700 and owned by babeld's user.
    pub state_folder: PathBuf,
    /// The path of our copy of the last sequence number, which belongs to root.
    pub seqno: PathBuf,
    /// The path of the pid file, which belongs to root.
    pub pid_file: PathBuf,
    /// The uid of OpenVPN, whose packets from the network's range are never sent to an exit
    /// gateway.
    pub openvpn_uid: u32,
    /// The configuration with which babeld starts next.
    pub config: BabelConfig,
}

impl BabeldSettings {
    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("babeld.conf")
    }

    /// Returns the command line.
    ///
    /// babeld repeats an urgent update or request after half of the interval in `-h` and `-H`. With its default of 4 s, the loss
    /// of one costs 2 s. The configuration file can set these intervals only per interface.
    pub(super) fn args(&self) -> Vec<OsString> {
        let hello = self.config.hello_interval.as_secs_f64().to_string();
        let words = ["-h", &hello, "-H", &hello, "-I", "", "-c"]
            .map(OsString::from)
            .into_iter();
        words.chain([self.config_file().into()]).collect()
    }
}
