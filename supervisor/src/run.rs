//! Runs one node, from reading its configuration to its shutdown.

use crate::{
    actor_settings::{Environment, document_files, live_settings},
    errors::StartError,
    fetch_network,
    graph::Graph,
    handed::{self, Handed},
    host,
    identity::{NodeIdentity, read_credentials},
    local_servers::{MetricsServer, Requests, serve_control},
    logging::{self, LogFilter},
    moved_files, open_files, pid_file,
    reload::{CommandLine, Reloader},
    renew_expired,
    restart::Restart,
    service_manager, shutdown,
    wiring::{self, ACTORS},
};
pub use actors::live_settings::Mode;
use actors::{
    live_settings::LiveSettings,
    sinks::telemetry::{self, Published},
    store::Store,
};
use arc_swap::ArcSwap;
use config::{Settings, paths::Paths};
use futures_util::{FutureExt, StreamExt};
use membership::{
    certificate::Certificate,
    credentials::SharedServerTls,
    documents::{CurrentDocuments, DocumentStore, PrivateEndpoints, UpdateOutcome},
    node_names::NodeNames,
    peer_api::{PeerApiClient, PeerApiSettings, SharedNodeDocument},
    registry_api::RegistryApiClient,
};
use nix::fcntl::Flock;
use os::{
    babel_socket::BabelSocket,
    clock::Clock,
    kernel::{Kernel, UplinkAddress},
    process::reexec::Invocation,
};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use std::{cell::Cell, fs::File, path::Path, process::ExitCode, rc::Rc, sync::Arc, time::Duration};
use wire::errors::Chain;
use wire::peer::NodeDocument;

/// Time within which all children must be stopped and the host must be restored.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The program that runs.
struct Program {
    /// The commit of the source.
    revision: &'static str,
    command_line: CommandLine,
    log: LogFilter,
    /// How to execute the program again.
    invocation: Invocation,
    /// The locked pid file.
    lock: Flock<File>,
    /// What an earlier program of this process has handed over.
    handed: Option<Handed>,
}

/// Runs the node with the configuration `config_file` until SIGTERM or SIGINT. `format` is that of log lines, and
/// `revision` the commit of the program.
///
/// # Errors
///
/// The node could not be started.
pub fn run(
    config_file: &Path,
    paths: &Paths,
    mode: Mode,
    format: logging::Format,
    revision: &'static str,
) -> Result<ExitCode, StartError> {
    let settings = config::load(config_file)?;
    let log = logging::start(&settings.log, format);
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    host::check_root()?;
    open_files::raise_limit()?;
    let invocation = Invocation::of_this_process().map_err(|source| StartError::Runtime {
        doing: "find the path of this program",
        source,
    })?;
    host::create_folders(paths)?;
    let mut handed = handed::take();
    let lock = match handed.as_mut().map(|handed| handed.lock.try_clone()) {
        Some(Ok(file)) => pid_file::lock_file(paths, file)?,
        Some(Err(_)) | None => pid_file::lock(paths)?,
    };
    moved_files::move_files(paths)?;
    let system = actix::System::new();
    system.runtime().spawn(log.clone().report_dropped_lines());
    let command_line = CommandLine {
        config_file: config_file.to_owned(),
        mode,
    };
    let program = Program {
        revision,
        command_line,
        log,
        invocation,
        lock,
        handed,
    };
    system.block_on(run_node(settings, paths.clone(), program))
}

/// Reads the identity of the node, and inspects the host. Before that, it fetches a damaged network document,
/// and renews an expired certificate.
async fn read_identity(
    settings: &Settings,
    paths: &Paths,
) -> Result<(NodeIdentity, host::Host), StartError> {
    // A boot must not wait for a registry that is down, so the unit counts as started meanwhile.
    let (registry, report) = (&settings.registry, service_manager::report_ready);
    fetch_network::fetch_if_bad(registry, paths, report).await?;
    let identity = NodeIdentity::read(paths)?;
    let host = host::inspect(settings, &identity)?;
    let credentials = read_credentials(paths)?;
    let renewed =
        renew_expired::renew_if_expired(identity, registry, &credentials, paths, report).await?;
    Ok((renewed, host))
}

/// Reads the signed documents from disk. A revocation list that cannot be read or verified is ignored, since the
/// registry and the neighbours have it, too.
fn load_documents(identity: &NodeIdentity, paths: &Paths) -> Result<DocumentStore, StartError> {
    let mut documents = CurrentDocuments::new(identity.cas.clone());
    let files = document_files(paths);
    let revocations = files.read_revocations();
    for document in [Some(identity.signed.clone()), revocations]
        .into_iter()
        .flatten()
    {
        match documents.accept_document(&document) {
            Ok(UpdateOutcome::New(_, next)) => documents = *next,
            Ok(UpdateOutcome::Same | UpdateOutcome::Older(_)) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "stored document ignored"),
        }
    }
    files.write_revoked_serials(&documents)?;
    Ok(DocumentStore::new(ArcSwap::from_pointee(documents)))
}

/// Publishes the first, empty snapshot of this node.
fn publish(
    identity: &NodeIdentity,
    (revision, live): (&'static str, &LiveSettings),
    (host, names): (&host::Host, &NodeNames),
    clock: &Clock,
) -> Published {
    let identity = telemetry::NodeDescription {
        prefix: identity.me,
        network: identity.network,
        software: env!("CARGO_PKG_VERSION"),
        revision,
        actors: ACTORS.to_vec(),
        dry_run: live.mode == Mode::Watch,
        unused_ports: host.further_ports.unused.clone(),
        started: clock.now(),
    };
    telemetry::publish(identity, names, clock)
}

fn peer_api_settings(identity: &NodeIdentity, store: &Store) -> PeerApiSettings {
    PeerApiSettings {
        me: identity.me,
        network: identity.network,
        port: wire::peer::PORT,
        names: store.names.clone(),
    }
}

/// Builds the rules for private endpoints. The registry client keeps their view of the surroundings current; peers from the cache
/// may be dialled before its first call.
async fn private_endpoints(
    settings: &Settings,
    documents: DocumentStore,
    kernel: &Kernel,
    registry: &RegistryApiClient,
) -> Result<PrivateEndpoints, StartError> {
    let private = PrivateEndpoints::new(settings.private_endpoints, documents);
    let uplinks = kernel.addresses().await?;
    private.set_addresses(uplinks.iter().map(UplinkAddress::in_subnet).collect());
    if let Some(address) = registry.address() {
        private.set_registry_address(address);
    }
    Ok(private)
}

/// Builds the document about this node that the peer API shows at first.
fn node_document(settings: &Settings, identity: &NodeIdentity) -> SharedNodeDocument {
    SharedNodeDocument::new(ArcSwap::from_pointee(NodeDocument {
        version: wire::peer::VERSION,
        prefix: identity.me,
        endpoints: settings.endpoints.clone(),
        software: concat!("warren ", env!("CARGO_PKG_VERSION")).to_owned(),
        network_version: identity.document.version,
        revocations_version: 0,
        transit_cost: settings.transit_cost(),
    }))
}

/// Creates the store of a node that knows its documents and its own name, and nothing else.
fn create_store(
    identity: &NodeIdentity,
    paths: &Paths,
    (settings, live, names): (&Settings, LiveSettings, NodeNames),
    host: &host::Host,
    clock: &Clock,
) -> Result<Store, StartError> {
    Ok(Store {
        documents: load_documents(identity, paths)?,
        names,
        node_document: node_document(settings, identity),
        settings: Arc::new(ArcSwap::from_pointee(live)),
        is_transit_blocked: Rc::new(Cell::new(host.is_transit_blocked)),
        has_ipv4_overlap: Rc::new(Cell::new(host.has_ipv4_overlap)),
        ..Store::new(clock.clone(), identity.me)
    })
}

/// Reads the name of the node from its certificate, so that the first figures that it shows have its name.
fn own_name(paths: &Paths) -> NodeNames {
    let names = NodeNames::default();
    if let Some((_, own)) = Certificate::read_file(&paths.certificate()) {
        names.learn(own.prefix, own.name, own.not_before_s);
    }
    names
}

async fn run_node(
    settings: Settings,
    paths: Paths,
    mut program: Program,
) -> Result<ExitCode, StartError> {
    let doing = |doing| move |source| StartError::Runtime { doing, source };
    let mut signals = signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(doing("handle signals"))?;
    actix_rt::spawn(service_manager::answer_watchdog());
    let (identity, mut host) = tokio::select! {
        read = read_identity(&settings, &paths) => read?,
        () = until_stopped(&mut signals) => return Ok(ExitCode::SUCCESS),
    };
    let clock = Clock::boottime();
    let kernel = Kernel::open(paths.root())?;
    let is_handed_over = program.handed.is_some();
    host::prepare(
        &mut host,
        &kernel,
        &identity,
        &settings,
        &paths,
        is_handed_over,
    )
    .await?;
    let live = live_settings(&settings, &host, program.command_line.mode);
    let own = own_name(&paths);
    let published = publish(&identity, (program.revision, &live), (&host, &own), &clock);
    let metrics = MetricsServer::start(&settings, &clock, &published);
    let credentials = read_credentials(&paths)?;
    let server_tls = SharedServerTls::new(ArcSwap::from_pointee(credentials.server_config()?));
    let store = create_store(&identity, &paths, (&settings, live, own), &host, &clock)?;
    let peers = PeerApiClient::new(&peer_api_settings(&identity, &store), &credentials)?;
    let control_requests = serve_control(&host, &paths, &clock, &published, peers.clone());
    let registry = RegistryApiClient::with_credentials(&settings.registry, &credentials)?;
    let private = private_endpoints(&settings, store.documents.clone(), &kernel, &registry).await?;
    let babel_socket = BabelSocket::open(identity.network, identity.me)
        .map_err(doing("open a socket for route requests"))?;
    let environment = Environment {
        settings: &settings,
        identity: &identity,
        host: &host,
        paths: &paths,
        store,
        server_tls,
        kernel: kernel.clone(),
        published: published.clone(),
        babel_socket,
        peers,
        registry,
        private,
    };
    let handed = handed::processes(program.handed.take(), &clock);
    let graph = wiring::wire(&environment, handed);
    tracing::info!(prefix = %identity.me, address = %identity.network.node_address(identity.me), "warren runs");
    actix_rt::spawn(os::memory::release_regularly());
    let requests = control_requests.forward_orders(graph.operator_reader.clone());
    let servers = (metrics, requests);
    serve_until_stopped(&environment, &graph, program, servers, &mut signals).await;
    stop(&graph, &clock, &kernel, &paths, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// Reports how the node does, reloads its configuration, and restarts the daemon in place, until a signal asks it to stop.
async fn serve_until_stopped(
    environment: &Environment<'_>,
    graph: &Graph,
    program: Program,
    (metrics, mut requests): (MetricsServer, Requests),
    signals: &mut signal_hook_tokio::Signals,
) {
    let (command_line, log) = (program.command_line, program.log);
    let readers = &graph.settings_readers;
    let mut reloader = Reloader::new(command_line, environment, readers, metrics, log);
    let restart = Restart {
        graph,
        clock: &environment.store.clock,
        lock: &program.lock,
        invocation: &program.invocation,
    };
    let is_ready = Cell::new(false);
    let (published, servers) = (&environment.published, &environment.host.servers);
    loop {
        let request = tokio::select! {
            () = service_manager::report(graph, published, servers, &is_ready) => None,
            request = reloader.serve_until_stopped(signals, &mut requests, &is_ready) => request,
        };
        let Some(request) = request else { break };
        let mut signal = None;
        let reason = match reloader.check() {
            Ok(()) => {
                let report = || service_manager::report_reload(&is_ready);
                let is_interrupted = || {
                    signal = signal.or(signals.next().now_or_never().flatten());
                    signal.is_some()
                };
                Chain(&restart.run(report, is_interrupted).await).to_string()
            }
            Err(reason) => reason,
        };
        service_manager::report_reloaded(&is_ready);
        tracing::error!("daemon not restarted in place, it runs on: {reason}");
        // The client may have gone away.
        let _ = request.send(reason);
        match signal {
            None => {}
            Some(SIGHUP) => drop(reloader.reload(&is_ready).await),
            Some(_) => break,
        }
    }
    service_manager::report_stop(&is_ready);
}

/// Waits for SIGTERM or SIGINT.
async fn until_stopped(signals: &mut signal_hook_tokio::Signals) {
    while let Some(signal) = signals.next().await {
        match signal {
            SIGHUP => tracing::warn!(
                "SIGHUP ignored: the configuration is reloaded only while the node runs, not while it starts or stops"
            ),
            _ => return,
        }
    }
}

async fn stop(
    graph: &Graph,
    clock: &Clock,
    kernel: &Kernel,
    paths: &Paths,
    signals: &mut signal_hook_tokio::Signals,
) {
    tracing::info!("stopping: draining all tunnels first; a second signal skips that");
    tokio::select! {
        () = shutdown::drain(graph, clock) => {}
        () = until_stopped(signals) => tracing::info!("second signal: drain skipped"),
    }
    let stopping = shutdown::stop_children_and_restore_host(graph, clock, kernel, paths);
    if tokio::time::timeout(STOP_TIMEOUT, stopping).await.is_err() {
        tracing::error!(
            "children not stopped or host not restored in time; warren cleanup, or the next start of warren, restores it"
        );
    }
}
