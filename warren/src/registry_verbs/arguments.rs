//! The arguments of the operator's verbs.

use super::{Root, seconds};
use registry::service::RotationStep;
use std::{path::PathBuf, time::Duration};

#[derive(clap::Args)]
pub(super) struct InviteArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// How long it is good
    #[arg(long, value_name = "DUR", default_value = "1day", value_parser = seconds)]
    pub(super) ttl: i64,
    /// How many nodes it lets in
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) uses: u32,
    /// The line may be published: at most three may join by it from one network within an hour
    #[arg(long, conflicts_with_all = ["name", "pin_prefix"])]
    pub(super) anonymous: bool,
    #[command(flatten)]
    pub(super) wanted: NodePropertyArgs,
    /// Show it as a QR code too
    #[arg(long)]
    pub(super) qr: bool,
    /// Print a document instead of the invitation alone
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct NodePropertyArgs {
    /// What people will call the node
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Bits of the node's prefix [default: the network's]
    #[arg(long, value_name = "BITS")]
    pub(super) prefix_length: Option<u8>,
    /// Exactly this prefix, such as 7/16; that of a revoked node too
    #[arg(long, value_name = "P/L")]
    pub(super) pin_prefix: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct SignArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// What `warren request` printed; - reads the standard input
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) wanted: NodePropertyArgs,
}

#[derive(clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// Print a document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct RenameArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// The node's prefix (such as 7/16), its present name, or a serial number of its certificates
    pub(super) node: String,
    /// Its new name
    pub(super) name: String,
}

#[derive(clap::Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// The node's name, prefix (such as 7/16), or a serial number of its certificates
    pub(super) node: String,
    #[command(flatten)]
    pub(super) wait: Wait,
}

#[derive(clap::Args)]
pub(super) struct RevokeInvitationArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// The name or the id of the invitation; `warren registry invitations` lists both
    pub(super) invitation: String,
}

#[derive(clap::Args)]
pub(super) struct Wait {
    /// Wait until all nodes that are there hold the new version
    #[arg(long)]
    pub(super) wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DUR", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}

#[derive(clap::Args)]
pub(super) struct SetArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// Which; `warren registry parameters` lists all
    pub(super) key: String,
    /// What it shall be
    pub(super) value: String,
    #[command(flatten)]
    pub(super) wait: Wait,
}

#[derive(clap::Args)]
pub(super) struct RolloutArgs {
    #[command(flatten)]
    pub(super) root: Root,
    #[command(flatten)]
    pub(super) wait: Wait,
    /// Print a document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Step {
    /// Let everybody accept the new beside the old
    Stage,
    /// Use the new
    Activate,
    /// Accept the old no more
    Retire,
}

impl From<Step> for RotationStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Stage => Self::Stage,
            Step::Activate => Self::Activate,
            Step::Retire => Self::Retire,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Key {
    /// Babel's MAC key
    Babel,
    /// OpenVPN's tls-crypt key
    TlsCrypt,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CaVerb {
    /// Print what a root is asked with for the next CA; `warren registry certify` takes it
    Request,
    /// Let everybody accept the new beside the old
    Stage,
    /// Use the new
    Activate,
    /// Accept the old no more
    Retire,
}

#[derive(clap::Args)]
pub(super) struct RotateCaArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// The step to carry out
    #[arg(value_enum)]
    pub(super) step: CaVerb,
    /// Even where nodes are not ready: they will have to join again (warren join --replace -), or below a root that stays be disconnected until they
    /// have asked the registry for a certificate
    #[arg(long)]
    pub(super) force: bool,
    /// To stage: the folder of the root's key, which certifies the new CA; a network whose CA has no root gets a
    /// new one there
    #[arg(long, value_name = "DIR", conflicts_with = "certificate")]
    pub(super) offline_root: Option<PathBuf>,
    /// To stage: what `warren registry certify` printed
    #[arg(long, value_name = "FILE")]
    pub(super) certificate: Option<PathBuf>,
    #[command(flatten)]
    pub(super) wait: Wait,
}

#[derive(clap::Args)]
pub(super) struct CertifyArgs {
    /// What `warren registry rotate-ca request` printed; - reads the standard input
    pub(super) file: PathBuf,
    /// The folder of the root's key
    #[arg(long, value_name = "DIR")]
    pub(super) offline_root: PathBuf,
    /// Make the root first, for the network with this range
    #[arg(long, value_name = "PREFIX")]
    pub(super) network: Option<ipnet::Ipv6Net>,
}

#[derive(clap::Args)]
pub(super) struct RotateKeyArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// The key to replace
    #[arg(value_enum)]
    pub(super) key: Key,
    /// The step to carry out
    #[arg(value_enum)]
    pub(super) step: Step,
    /// Even where nodes are not ready: they will be disconnected until they are
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) wait: Wait,
}

#[derive(clap::Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// The path of the backup file
    pub(super) file: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct AuditLogArgs {
    #[command(flatten)]
    pub(super) root: Root,
    /// How many lines
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(registry::http::admin::MAX_AUDIT_LOG_ENTRIES)))]
    pub(super) lines: u32,
}

#[derive(clap::Args)]
pub(super) struct OpenapiArgs {
    /// The calls over the Unix socket, not those of nodes
    #[arg(long)]
    pub(super) operator: bool,
}
