//! What the babeld actor needs: its settings, and the parts of the daemon that it works with.

use super::*;

/// Maximum of the hello interval on babeld's command line.
const MAX_DEFAULT_HELLO_INTERVAL: Duration = Duration::from_secs(1);

/// The settings of the babeld actor.
#[derive(Clone, Debug)]
pub struct BabeldSettings {
    /// The path of babeld's executable.
    pub babeld: PathBuf,
    /// The user, group and capabilities of the process.
    pub rights: Rights,
    /// The folder of the socket and the state file, 0700 and owned by babeld's user; it is created again at each start.
    pub folder: PathBuf,
    /// The path of the configuration, which belongs to root, and which babeld's group can read.
    pub config_file: PathBuf,
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
    /// The name of the state file in [`Self::folder`].
    pub const STATE_FILE: &str = "state";

    /// Returns the command line.
    ///
    /// babeld repeats an urgent update or request after half of the interval in `-h` and `-H`, which is that of interfaces for
    /// which the configuration file sets none. At an interval of 4 s the loss of one would cost 2 s.
    pub(super) fn args(&self) -> Vec<OsString> {
        let hello = self.config.hello_interval.min(MAX_DEFAULT_HELLO_INTERVAL);
        let hello = hello.as_secs_f64().to_string();
        let words = ["-h", &hello, "-H", &hello, "-I", "", "-c"]
            .map(OsString::from)
            .into_iter();
        words.chain([self.config_file.clone().into()]).collect()
    }
}

/// The dependencies of the babeld actor.
#[derive(Clone)]
pub struct BabeldDeps {
    /// The paths, rights and configuration of babeld.
    pub settings: BabeldSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The kernel, in which the actor configures exit routes and flushes routes of a stopped babeld.
    pub kernel: Kernel,
    /// The queue of link orders.
    pub links: LinkOrderQueue,
    /// babeld's process, which outlives the actor.
    pub process: BabeldProcess,
    /// The queue of babeld's process events.
    pub events: ChildEvents,
    /// The receivers of each reading of babeld's tables.
    pub readers: Vec<Recipient<RoutesRead>>,
    /// The receiver of what packets say about the origins of nodes' ranges.
    pub claims_to: Recipient<OriginsClaimed>,
}
