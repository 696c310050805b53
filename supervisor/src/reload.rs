//! Reloads the configuration of a running node: checks all of it, then applies what can be applied at once.
//!
//! A configuration with any fault changes nothing.

use crate::{
    actor_settings::{Environment, live_settings},
    errors::StartError,
    host::{self, Host},
    identity::NodeIdentity,
    local_servers::MetricsServer,
    logging::LogFilter,
    service_manager,
};
use actix::Recipient;
use actors::{
    live_settings::{LocalLimits, Mode, SharedLiveSettings},
    messages::SettingsChanged,
    sinks::{
        control::{DaemonRequest, RestartRequest},
        exporter::ExporterError,
    },
};
use config::{Effect, KEYS, Settings, paths::Paths};
use futures_util::StreamExt;
use membership::{documents::PrivateEndpoints, registry_api::RegistryApiClient};
use policies::names::Prefix;
use signal_hook::consts::signal::SIGHUP;
use std::{cell::Cell, path::PathBuf, sync::Arc};
use tokio::sync::mpsc;
use wire::{
    control::{ReloadDocument, VERSION},
    errors::Chain,
    overlay::Network,
};

/// The reason why a configuration is not reloaded.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// The configuration or the identity on disk is wrong.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The certificate on disk is that of another node or network.
    #[error("{file}: is the certificate of node {found}, expected that of {me} in this network; restart warren to run as the other node", file = file.display())]
    OtherIdentity {
        file: PathBuf,
        found: Prefix,
        me: Prefix,
    },
    /// The new address of metrics cannot be used.
    #[error("{file}: metrics: {error}: expected an address that no other program uses", file = file.display())]
    Metrics { file: PathBuf, error: String },
}

/// What the command line says about the configuration.
pub(crate) struct CommandLine {
    /// The configuration file.
    pub(crate) config_file: PathBuf,
    /// The mode, unless the configuration demands [`Mode::Watch`].
    pub(crate) mode: Mode,
}

/// What a reload reads and changes.
pub(crate) struct Reloader {
    command_line: CommandLine,
    paths: Paths,
    /// The prefix and the network with which the daemon was started.
    identity: (Prefix, Network),
    /// The host, as it was prepared for the configuration at the start.
    host: Host,
    /// The configuration at the start, which keys that need a restart still have.
    started: Settings,
    /// The configuration that was loaded last.
    current: Settings,
    live: SharedLiveSettings,
    readers: Vec<Recipient<SettingsChanged>>,
    private: PrivateEndpoints,
    registry: RegistryApiClient,
    metrics: MetricsServer,
    log: LogFilter,
}

impl Reloader {
    /// Prepares for reloads of a node that runs.
    pub(crate) fn new(
        command_line: CommandLine,
        environment: &Environment<'_>,
        readers: &[Recipient<SettingsChanged>],
        metrics: MetricsServer,
        log: LogFilter,
    ) -> Self {
        Self {
            command_line,
            paths: environment.paths.clone(),
            identity: (environment.identity.me, environment.identity.network),
            host: environment.host.clone(),
            started: environment.settings.clone(),
            current: environment.settings.clone(),
            live: environment.store.settings.clone(),
            readers: readers.to_vec(),
            private: environment.private.clone(),
            registry: environment.registry.clone(),
            metrics,
            log,
        }
    }

    /// Reloads the configuration whenever SIGHUP or a request arrives. Returns at another signal, or with a request to restart.
    pub(crate) async fn serve_until_stopped(
        &mut self,
        signals: &mut signal_hook_tokio::Signals,
        requests: &mut mpsc::Receiver<DaemonRequest>,
        is_ready: &Cell<bool>,
    ) -> Option<RestartRequest> {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Some(SIGHUP) => drop(self.reload(is_ready).await),
                    Some(_) | None => return None,
                },
                Some(request) = requests.recv() => match request {
                    // The client may have gone away.
                    DaemonRequest::Reload(request) => drop(request.send(self.reload(is_ready).await)),
                    DaemonRequest::Restart(request) => return Some(request),
                }
            }
        }
    }

    /// Reloads the configuration, and reports the outcome to systemd and in the log.
    pub(crate) async fn reload(&mut self, is_ready: &Cell<bool>) -> Result<ReloadDocument, String> {
        service_manager::report_reload(is_ready);
        let outcome = self.apply().await;
        service_manager::report_reloaded(is_ready);
        match outcome {
            Ok(document) => {
                tracing::info!("configuration reloaded: {}", document.lines().join("; "));
                Ok(document)
            }
            Err(error) => {
                let reason = Chain(&error).to_string().replace('\n', "; ");
                tracing::error!("configuration not reloaded, the old one stays in force: {reason}");
                Err(reason)
            }
        }
    }

    /// Reads the configuration, and checks that this node could be started with it.
    fn read(&self) -> Result<(Settings, Host), ReloadError> {
        let new = config::load(&self.command_line.config_file).map_err(StartError::from)?;
        let identity = NodeIdentity::read(&self.paths)?;
        let (me, network) = self.identity;
        if (identity.me, identity.network) != (me, network) {
            return Err(ReloadError::OtherIdentity {
                file: self.paths.certificate(),
                found: identity.me,
                me,
            });
        }
        // Finds programs and users that are missing, which would prevent a restart.
        let wanted = host::inspect(&new, &identity)?;
        Ok((new, wanted))
    }

    /// Returns why this node could not be started with the present configuration, in one line.
    pub(crate) fn check(&self) -> Result<(), String> {
        let read = self.read().map(drop);
        read.map_err(|error| Chain(&error).to_string().replace('\n', "; "))
    }

    async fn apply(&mut self) -> Result<ReloadDocument, ReloadError> {
        let (new, wanted) = self.read()?;
        self.metrics
            .move_to(&new)
            .await
            .map_err(|error| self.metrics_error(&error))?;
        self.log.replace(&new.log);
        self.registry.replace_url(&new.registry);
        self.private.set_configured(new.private_endpoints);
        let old_limits = self.live.load().limits;
        let applied = Settings {
            metered: self.started.metered,
            ..new.clone()
        };
        let mut settings = live_settings(&applied, &self.host, self.command_line.mode);
        settings.limits.max_distances = old_limits.max_distances;
        let document = self.describe(&new, &wanted, old_limits, settings.limits);
        settings.pending_restart.clone_from(&document.restart);
        let settings = Arc::new(settings);
        self.live.store(settings.clone());
        for reader in &self.readers {
            reader.do_send(SettingsChanged {
                settings: settings.clone(),
            });
        }
        self.current = new;
        Ok(document)
    }

    fn metrics_error(&self, error: &ExporterError) -> ReloadError {
        ReloadError::Metrics {
            file: self.command_line.config_file.clone(),
            error: Chain(error).to_string(),
        }
    }

    /// Names the keys that differ, by the way in which they take effect.
    fn describe(
        &self,
        new: &Settings,
        wanted: &Host,
        old_limits: LocalLimits,
        limits: LocalLimits,
    ) -> ReloadDocument {
        let mut document = ReloadDocument {
            version: VERSION,
            applied: Vec::new(),
            draining: Vec::new(),
            restart: Vec::new(),
        };
        for key in KEYS {
            let name = key.name.to_owned();
            // The number of slots limits what can be applied without a restart.
            let (is_raised, is_lowered, needs_restart) = match key.name {
                "tunnels-to-dial" => (
                    limits.tunnels_to_dial > old_limits.tunnels_to_dial,
                    limits.tunnels_to_dial < old_limits.tunnels_to_dial,
                    wanted.tunnels_to_dial > self.host.tunnels_to_dial,
                ),
                "max-accepted" => (
                    limits.max_accepted != old_limits.max_accepted,
                    false,
                    wanted.max_accepted > self.host.max_accepted
                        || (wanted.max_accepted == 0 && !self.host.servers.is_empty()),
                ),
                _ if key.has_effect(Effect::Restart) => {
                    (false, false, key.differs(&self.started, new))
                }
                _ => (key.differs(&self.current, new), false, false),
            };
            if is_raised {
                document.applied.push(name.clone());
            }
            if is_lowered {
                document.draining.push(name.clone());
            }
            if needs_restart {
                document.restart.push(name);
            }
        }
        document
    }
}
