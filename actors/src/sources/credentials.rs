//! Keeps the node's certificate, the trusted CAs and the network's `tls-crypt` keys current, on disk and in use.
//!
//! The certificate is renewed in the last third of its validity, with the same key. OpenVPN reads these files only when it
//! starts, so this actor requests restarts ([`CredentialsChanged`]). The peer API and the clients of the registry and of other
//! nodes use new files at once.

mod ca_changes;
mod credential_files;
mod error;
mod renewal_time;
mod settings;

use crate::messages::{CredentialsChanged, DocumentsChanged, OwnCertificate};
use crate::store::Store;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use credential_files::*;
pub use error::CredentialError;
use membership::credentials::SharedServerTls;
use membership::{certificate::Certificate, renewal};
use membership::{
    credentials::NodeCredentials,
    documents::{CurrentDocuments, DocumentStore, FileError, replace},
    node_names::NodeNames,
    peer_api::PeerApiClient,
    registry_api::{RegistryApiClient, RegistryApiError},
};
use os::clock::{Clock, wall};
use os::randomness::Randomness;
use policies::units::Uptime;
use rustls::pki_types::{CertificateDer, pem::PemObject};
pub use settings::{CredentialSettings, CredentialsDeps};
use std::{
    cell::Cell,
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use wire::errors::Chain;
use wire::{
    chain,
    registry::{DocumentKind, NetworkDocument, Renewed},
};

/// Interval between checks whether a renewal is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before a failed renewal is first retried, ± 50 %. It doubles with each failure.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Maximum delay between two attempts; a tenth of the certificate's remaining lifetime if that is shorter.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3600);
/// Maximum delay between two attempts once the certificate has expired.
const MAX_RETRY_DELAY_AFTER_EXPIRY: Duration = Duration::from_secs(300);
/// Minimum interval between two warnings about a renewal that keeps failing.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);
/// Span for each node of the network over which nodes spread at random their first restart of a process, and their renewals
/// after a change of the trusted CAs: the registry then renews 20 certificates a second. The restart locks order all restarts.
const SPREAD_PER_NODE: Duration = Duration::from_millis(50);
/// Longest span over which nodes spread these. A sixteenth of the old certificate's remaining lifetime, if that is shorter.
const MAX_SPREAD_WINDOW: Duration = Duration::from_secs(600);

/// The actor that keeps credentials current.
pub struct Credentials {
    settings: CredentialSettings,
    clock: Clock,
    random: Randomness,
    registry: RegistryApiClient,
    peer_api: PeerApiClient,
    server_tls: SharedServerTls,
    documents: DocumentStore,
    /// The number of nodes in the network, as far as this one knows.
    node_count: Rc<Cell<usize>>,
    names: NodeNames,
    readers: Vec<Recipient<CredentialsChanged>>,
    /// This node's random share, 0 to 1, of each time window over which all nodes spread an action.
    window_share: f64,
    is_renewing: bool,
    /// Whether the registry asked for a renewal that has not been tried yet.
    is_requested: bool,
    next_check_at: Uptime,
    /// Delay before the next retry if the renewal fails.
    retry_delay: Duration,
    /// The time of the last warning about the present series of failures.
    warned_at: Option<Uptime>,
    /// The number of revoked CAs for which the restart of dialled tunnels was already requested.
    handled_ca_revocations: usize,
    /// The version of the network document that our files match.
    applied_network_version: u64,
}

impl Credentials {
    /// Builds the actor; it uses the files that are on disk.
    pub fn new(deps: CredentialsDeps) -> Self {
        let CredentialsDeps {
            settings,
            store,
            server_tls,
            registry,
            peers: peer_api,
            readers,
        } = deps;
        let Store {
            clock,
            random,
            documents,
            node_count,
            names,
            ..
        } = store;

        let (window_share, next_check_at) = (random.fraction(), clock.now());
        let handled_ca_revocations = documents.load().revoked_ca_count();
        Self {
            settings,
            clock,
            random,
            registry,
            peer_api,
            server_tls,
            documents,
            node_count,
            names,
            readers,
            window_share,
            is_renewing: false,
            is_requested: false,
            next_check_at,
            retry_delay: MIN_RETRY_DELAY,
            warned_at: None,
            handled_ca_revocations,
            applied_network_version: 0,
        }
    }

    /// Reads the node's certificate, with its chain (DER).
    fn read_certificate(&self) -> Option<(Vec<Vec<u8>>, Certificate)> {
        Certificate::read_file(&self.settings.certificate)
    }

    fn renew_if_due(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if self.is_renewing || self.next_check_at > now {
            return;
        }
        let Some((chain, certificate)) = self.read_certificate() else {
            self.next_check_at = now + MAX_RETRY_DELAY;
            return tracing::error!(
                "the node's certificate can no longer be read, so it is not renewed: restore node.crt, or join again with an invitation: warren join --replace -"
            );
        };
        let due_s = self.renewal_due_s(&chain, &certificate);
        let now_s = now_s();
        if now_s < due_s {
            let until_due =
                Duration::from_secs(u64::try_from(due_s.saturating_sub(now_s)).unwrap_or(0));
            // Checked every minute, since the wall clock may be set and another CA may sign.
            self.next_check_at = now + until_due.clamp(CHECK_INTERVAL, Duration::from_secs(60));
            return;
        }
        self.is_renewing = true;
        let (registry, request) = (self.registry.clone(), self.settings.request.clone());
        let call = async move { renewal::request(&registry, request).await };
        ctx.spawn(call.into_actor(self).map(move |answer, credentials, _| {
            credentials.is_renewing = false;
            let result = answer
                .map_err(|error| CredentialError::Renewal(error.into()))
                .and_then(|renewed| credentials.install_renewed(&certificate, &renewed));
            if let Err(error) = result {
                credentials.schedule_retry(&certificate, &error);
            }
        }));
    }

    /// Installs the registry's new certificate and puts it to use.
    fn install_renewed(
        &mut self,
        old: &Certificate,
        renewed: &Renewed,
    ) -> Result<(), CredentialError> {
        let old_remaining = self.remaining_until_others_reject();
        let (documents, path) = (self.documents.load(), &self.settings.certificate);
        let new = renewal::install(renewed, old, documents.cas(), path)?;
        tracing::info!(
            serial = new.serial,
            days = new.remaining_lifetime(now_s()).as_secs() / 86_400,
            "certificate renewed"
        );
        (self.retry_delay, self.warned_at) = (MIN_RETRY_DELAY, None);
        self.next_check_at = self.clock.now() + CHECK_INTERVAL;
        self.apply_files(old_remaining, true, true)
    }

    /// Schedules the next attempt after a failed renewal, and logs a warning now and then.
    fn schedule_retry(&mut self, certificate: &Certificate, error: &CredentialError) {
        let now = self.clock.now();
        let remaining = certificate.remaining_lifetime(now_s());
        let max_delay = if remaining.is_zero() {
            MAX_RETRY_DELAY_AFTER_EXPIRY
        } else {
            MAX_RETRY_DELAY.min(remaining / 10).max(MIN_RETRY_DELAY)
        };
        self.next_check_at = now
            + self
                .retry_delay
                .min(max_delay)
                .mul_f64(0.5 + self.random.fraction());
        self.retry_delay = (self.retry_delay * 2).min(max_delay);
        if self
            .warned_at
            .is_none_or(|last| now.since(last) >= WARNING_INTERVAL)
        {
            self.warned_at = Some(now);
            let days_left = remaining.as_secs() / 86_400;
            tracing::warn!(error = %Chain(error), days_left, "certificate not renewed; the renewal is tried again");
        }
    }

    /// Puts the files on disk to use: replaces the certificate of all clients and of the peer API, and requests restarts of
    /// OpenVPN.
    fn apply_files(
        &mut self,
        old_remaining: Duration,
        servers: bool,
        dials: bool,
    ) -> Result<(), CredentialError> {
        let CredentialSettings {
            ca,
            certificate,
            key,
            ..
        } = &self.settings;
        let credentials =
            NodeCredentials::from_pem(&read_file(ca)?, &read_file(certificate)?, &read_file(key)?)?;
        self.registry.replace_credentials(&credentials)?;
        self.peer_api.replace_credentials(&credentials)?;
        self.server_tls
            .store(Arc::new(credentials.server_config()?));
        self.report(old_remaining, servers, dials);
        Ok(())
    }

    /// Returns the span over which all nodes spread an action, if other nodes accept the old files for `old_remaining`.
    fn spread_window(&self, old_remaining: Duration) -> Duration {
        let nodes = u32::try_from(self.node_count.get()).unwrap_or(u32::MAX);
        let window = SPREAD_PER_NODE.saturating_mul(nodes);
        window.min(MAX_SPREAD_WINDOW).min(old_remaining / 16)
    }

    /// Sends [`CredentialsChanged`]; `old_remaining` is the time for which other nodes accept the old files.
    fn report(&mut self, old_remaining: Duration, servers: bool, dials: bool) {
        let (own, documents) = (self.read_certificate(), self.documents.load_full());
        // A network document of a later intermediate CA counts as applied only once that CA has issued our certificate, too.
        if !own
            .as_ref()
            .is_some_and(|(chain, _)| documents.is_superseded(chain))
        {
            self.applied_network_version = documents.version(DocumentKind::Network);
        }
        if let Some((_, own)) = &own {
            let name = own.name.clone();
            self.names.learn(own.prefix, name, own.not_before_s);
        }
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let certificate = own.map(|(_, own)| OwnCertificate {
            not_before_s: seconds(own.not_before_s),
            not_after_s: seconds(own.not_after_s),
            serial: own.serial,
        });
        let window = self.spread_window(old_remaining);
        let changed = CredentialsChanged {
            at: self.clock.now(),
            network_version: self.applied_network_version,
            servers,
            dials,
            start_after: window.mul_f64(self.window_share),
            force_after: old_remaining.saturating_sub(old_remaining / 8),
            certificate,
        };
        self.readers
            .iter()
            .for_each(|reader| reader.do_send(changed.clone()));
    }

    /// Writes the CAs and keys of the network document to disk if they differ, and requests the restarts that follow.
    fn apply_network_document(
        &mut self,
        documents: &CurrentDocuments,
    ) -> Result<(), CredentialError> {
        let Some(network) = documents.network() else {
            return Ok(());
        };
        let CredentialSettings {
            ca,
            tls_crypt,
            tls_crypt_other,
            reader,
            ..
        } = &self.settings;
        let mut has_other_cas = false;
        if !network.authorities.is_empty() {
            let bundle = ca_bundle(network);
            // The first CA is the one that signs. For verification the order does not matter.
            has_other_cas =
                parse_cas(&read_file(ca).unwrap_or_default()) != parse_cas(bundle.as_bytes());
            if write_if_different(ca, bundle.as_bytes(), 0o644, None)? {
                let window = self.spread_window(self.remaining_lifetime());
                self.next_check_at = self.clock.now() + window.mul_f64(self.window_share);
            }
        }
        match &network.tls_crypt_other {
            Some(other) => {
                write_if_different(tls_crypt_other, other.as_bytes(), 0o600, Some(*reader))?;
            }
            None => files::remove(tls_crypt_other).map_err(|source| {
                let path = tls_crypt_other.clone();
                CredentialError::Read { path, source }
            })?,
        }
        let has_other_key = write_if_different(
            tls_crypt,
            network.tls_crypt.as_bytes(),
            0o600,
            Some(*reader),
        )?;
        if has_other_cas {
            tracing::info!(
                cas = network.authorities.len(),
                "the set of trusted CAs has changed"
            );
        }
        if has_other_key {
            tracing::info!("the network's tls-crypt key has changed");
        }
        if has_other_cas {
            self.apply_files(self.remaining_lifetime(), true, true)
        } else {
            // Running clients keep their key; only servers must restart.
            self.report(self.remaining_lifetime(), has_other_key, false);
            Ok(())
        }
    }
}

impl Actor for Credentials {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.report(self.remaining_lifetime(), false, false);
        ctx.run_interval(CHECK_INTERVAL, Self::renew_if_due);
    }
}

impl Handler<DocumentsChanged> for Credentials {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        if changed.kind != Some(DocumentKind::Revocations)
            && let Err(error) = self.apply_network_document(&changed.documents)
        {
            tracing::error!(error = %Chain(&error), "the network's new CAs or keys cannot be used");
        }
        self.react_to_ca_changes(&changed.documents);
    }
}
