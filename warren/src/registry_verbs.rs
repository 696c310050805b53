//! `warren registry …`: makes and runs a registry, and asks the running one over its socket.

mod arguments;
mod authority;
mod invitations;
mod operate;

use crate::{
    output::{fail, print_line},
    run_verb::LogArgs,
};
use clap::Subcommand;
use config::paths::Paths;
use ipnet::{IpNet, Ipv6Net};
use policies::parameters::Parameters;
use registry::{
    FileError,
    http::server::{self, ServeError, ServerOptions},
    init::{self, NewNetwork, error::RegistryError},
    owner,
    pki::{PkiError, credentials::OwnCa},
    settings::RegistryPaths,
};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use wire::invitation::RegistryAddress;

/// The arguments of `warren registry`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new network: its CA, keys and parameters
    Init(Init),
    /// Serve nodes until SIGTERM
    Run(Run),
    /// Print an invitation
    Invite(arguments::InviteArgs),
    /// List the invitations that can still be used
    Invitations(arguments::ListArgs),
    /// Revoke an invitation: nobody joins by it any more
    RevokeInvitation(arguments::RevokeInvitationArgs),
    /// Sign a request that came by file; prints what `warren install` takes
    Sign(arguments::SignArgs),
    /// List the certificates that are live
    List(arguments::ListArgs),
    /// Give a node another name
    Rename(arguments::RenameArgs),
    /// Revoke a node: its certificates and keys
    Revoke(arguments::RevokeArgs),
    /// Show the network's parameters
    Parameters(arguments::ListArgs),
    /// Set one of the network's parameters
    Set(arguments::SetArgs),
    /// Show how far the signed documents have come
    Rollout(arguments::RolloutArgs),
    /// Change the CA, in three steps
    RotateCa(arguments::RotateCaArgs),
    /// Certify a registry's next CA with the root's key, where no registry need be
    Certify(arguments::CertifyArgs),
    /// Change a key that all nodes share, in three steps
    RotateKey(arguments::RotateKeyArgs),
    /// Copy the database to a new file, while the registry works
    Backup(arguments::BackupArgs),
    /// Put a copy in the database's place, while the registry is down
    Restore(arguments::BackupArgs),
    /// Show what operators did
    AuditLog(arguments::AuditLogArgs),
    /// Print the OpenAPI document of the calls over HTTP
    Openapi(arguments::OpenapiArgs),
}

#[derive(clap::Args)]
struct Root {
    /// All files lie below it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Root {
    fn paths(&self) -> RegistryPaths {
        let root = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        let paths = Paths::new(root);
        RegistryPaths {
            config_dir: paths.registry_etc(),
            state_dir: paths.registry_state(),
            admin_socket: paths.registry_admin(),
        }
    }

    /// Gives the files below `/` to the user of the systemd unit. Those below another root stay with their creator.
    fn give_to_registry_user(&self, paths: &RegistryPaths) -> Result<(), RegistryError> {
        if self.root == Path::new("/") {
            owner::give_to_registry_user(paths)?;
        }
        Ok(())
    }
}

#[derive(clap::Args)]
struct Init {
    #[command(flatten)]
    root: Root,
    /// The network's range, 16 to 64 bits [default: a random /48 of unique local addresses]
    #[arg(long, value_name = "PREFIX")]
    network: Option<Ipv6Net>,
    /// Where nodes reach the registry
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
    address: RegistryAddress,
    /// Bits of each node's prefix
    #[arg(long, value_name = "BITS", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=32))]
    prefix_length: u8,
    /// Tunnels that each node dials, 1 to 30 [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=30))]
    dial: Option<u16>,
    /// Tunnels that each node accepts, 0 to 250 [default: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=250))]
    max_accepted: Option<u16>,
    /// Babel's hello interval, 0.5 s to 15 s [default: 4s]
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    hello_interval: Option<Duration>,
    /// How often a node may close one tunnel and dial others [default: 5m]
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    refresh: Option<Duration>,
    /// Younger tunnels are spared [default: twice the refresh]
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    min_age: Option<Duration>,
    /// How long a node's certificate is good
    #[arg(long, value_name = "DUR", default_value = "365days", value_parser = seconds)]
    certificate_life: i64,
    /// How long an announcement is kept
    #[arg(long, value_name = "DUR", default_value = "15m", value_parser = seconds)]
    announcement_ttl: i64,
    /// How long after its end a certificate can be renewed, and its prefix is nobody else's
    #[arg(long, value_name = "DUR", default_value = "30days", value_parser = seconds)]
    grace: i64,
    /// Let nodes announce private addresses
    #[arg(long)]
    private_endpoints: bool,
    /// Put a root above the CA, whose key is left in this new folder: keep it where no network leads
    #[arg(long, value_name = "DIR")]
    offline_root: Option<PathBuf>,
    /// Use this CA of your own: its certificate and, if a root certified it, that of the root, in PEM. The serial number of
    /// the trusted CA must be a 1 followed by the network's bits, such as 0x1fd123456789a for fd12:3456:789a::/48
    #[arg(
        long,
        value_name = "FILE",
        requires = "ca_key",
        conflicts_with = "offline_root"
    )]
    ca: Option<PathBuf>,
    /// The key of that CA in PEM, without a passphrase; it is copied
    #[arg(long, value_name = "FILE", requires = "ca")]
    ca_key: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    root: Root,
    /// Where to listen, at one address or at several; the default takes IPv4 as well
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "[::]:9443",
        value_delimiter = ','
    )]
    listen: Vec<SocketAddr>,
    /// Addresses of TCP proxies in front, whose PROXY protocol header names the client
    ///
    /// From these addresses, such as 192.0.2.7 or 192.0.2.0/24, nothing is accepted without the header.
    #[arg(long, value_name = "ADDR[/LENGTH]", value_parser = range, value_delimiter = ',')]
    trusted_proxy: Vec<IpNet>,
    /// Where to serve metrics over plain HTTP [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Slow nobody down, not even who guesses tokens: for measurements
    #[arg(long, hide = true)]
    no_limits: bool,
    #[command(flatten)]
    log: LogArgs,
}

fn range(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| "not an address, or a range such as 192.0.2.0/24".to_owned())
}

fn address(text: &str) -> Result<RegistryAddress, String> {
    RegistryAddress::parse(text, wire::registry::PORT).map_err(|error| error.to_string())
}

/// A span of at least a second, in seconds.
fn seconds(text: &str) -> Result<i64, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let seconds = i64::try_from(span.as_secs())
        .ok()
        .filter(|seconds| (1..=3_153_600_000).contains(seconds));
    seconds.ok_or_else(|| "1s to 100 years".to_owned())
}

/// Does what was asked.
pub fn main(args: &Args) -> ExitCode {
    match &args.verb {
        Verb::Init(args) => init(args),
        Verb::Run(args) => run(args),
        Verb::Invite(args) => invitations::invite(args),
        Verb::Invitations(args) => invitations::list(args),
        Verb::RevokeInvitation(args) => invitations::revoke(args),
        Verb::Sign(args) => operate::sign(args),
        Verb::List(args) => operate::list(args),
        Verb::Rename(args) => operate::rename(args),
        Verb::Revoke(args) => operate::revoke(args),
        Verb::Parameters(args) => operate::parameters(args),
        Verb::Set(args) => operate::set(args),
        Verb::Rollout(args) => operate::rollout(args),
        Verb::RotateCa(args) => authority::rotate_ca(args),
        Verb::Certify(args) => authority::certify(args),
        Verb::RotateKey(args) => operate::rotate_key(args),
        Verb::Backup(args) => operate::backup(args),
        Verb::Restore(args) => operate::restore(args),
        Verb::AuditLog(args) => operate::audit_log(args),
        Verb::Openapi(args) => {
            print_line(registry::http::openapi::document(args.operator));
            ExitCode::SUCCESS
        }
    }
}

fn init(args: &Init) -> ExitCode {
    let usual = Parameters::default();
    let refresh = args.refresh.unwrap_or(usual.refresh);
    let own_ca = match args.ca.as_ref().zip(args.ca_key.as_ref()) {
        None => None,
        Some((certificates, key)) => {
            match (operate::text_of(certificates), operate::text_of(key)) {
                (Ok(certificates), Ok(key)) => Some(OwnCa { certificates, key }),
                (Err(code), _) | (_, Err(code)) => return code,
            }
        }
    };
    let new = NewNetwork {
        network: args.network,
        address: args.address.clone(),
        prefix_length: args.prefix_length,
        parameters: Parameters {
            hello_interval: args.hello_interval.unwrap_or(usual.hello_interval),
            tunnels_to_dial: args.dial.unwrap_or(usual.tunnels_to_dial),
            max_accepted: args.max_accepted.unwrap_or(usual.max_accepted),
            refresh,
            min_age: args.min_age.unwrap_or(refresh.saturating_mul(2)),
            ..usual
        },
        certificate_life_s: args.certificate_life,
        announcement_ttl_s: args.announcement_ttl,
        grace_s: args.grace,
        private_endpoints: args.private_endpoints,
        offline_root: args.offline_root.clone(),
        own_ca,
    };
    let paths = args.root.paths();
    let made = init::init(&paths, &new, registry::clock::system_clock()());
    match made.and_then(|network| args.root.give_to_registry_user(&paths).map(|()| network)) {
        Ok(network) => {
            print_line(format_args!("network {network}, registry {}", args.address));
            if let Some(folder) = &args.offline_root {
                print_line(format_args!(
                    "the root's key is in {}: move it to a safe place",
                    folder.display()
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, settings_code(&error)),
    }
}

/// 4: no permission; 78: an error that a restart cannot repair; 1: else.
fn settings_code(error: &RegistryError) -> u8 {
    match error {
        error if error.is_permission() => 4,
        RegistryError::NoRegistry { .. }
        | RegistryError::Pki(PkiError::UnusableCa { .. })
        | RegistryError::File(FileError::Missing { .. } | FileError::Bad { .. }) => 78,
        RegistryError::Exists { .. }
        | RegistryError::Network { .. }
        | RegistryError::Running { .. }
        | RegistryError::Document(_)
        | RegistryError::File(FileError::Io { .. })
        | RegistryError::Pki(_)
        | RegistryError::Root(_)
        | RegistryError::Storage(_) => 1,
    }
}

fn run(args: &Run) -> ExitCode {
    supervisor::logging::start("info", args.log.format());
    let paths = args.root.paths();
    if let Err(error) = owner::become_owner(&paths) {
        return fail(&error, 1);
    }
    let served: Result<(), ServeError> = actix_rt::System::new().block_on(async {
        let stop = server::stop_signal().map_err(ServeError::Run)?;
        let serving = ServerOptions {
            listen: args.listen.clone(),
            metrics: args.metrics,
            trusted_proxies: args.trusted_proxy.clone(),
            max_per_network: if args.no_limits {
                usize::MAX
            } else {
                server::MAX_PER_NETWORK
            },
            no_limits: args.no_limits,
            clock: registry::clock::system_clock(),
            revision: env!("WARREN_REVISION"),
        };
        let running = server::start(&paths, &serving)?;
        let addresses = running.addresses().iter();
        let addresses: Vec<_> = addresses.map(SocketAddr::to_string).collect();
        let line = format!("registry listens on {}", addresses.join(", "));
        print_line(&line);
        supervisor::service_manager::report_ready(&line);
        running.run(stop).await
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::Settings(error)) => fail(&error, settings_code(&error)),
        Err(error) => fail(&error, 1),
    }
}
