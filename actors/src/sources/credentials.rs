//! Keeps the node's certificate, its CAs and the network's `tls-crypt` keys current on disk and in
//! use.
//!
//! A certificate is renewed in the last third of its life, with the same key. OpenVPN reads these
//! files at its start only, so its restart is requested ([`CredentialsChanged`]). The calls to the
//! registry and to other nodes and the peer API use new files at once.

mod files;

mod error;

mod settings;

use crate::messages::{CredentialsChanged, DocumentsChanged};
use crate::store::Store;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
pub use error::CredentialError;
use files::*;
use membership::credentials::SharedServerTls;
use membership::{certificate::Certificate, renewal};
use membership::{
    credentials::NodeCredentials,
    documents::{CurrentDocuments, DocumentStore, FileError, replace},
    peer_api::PeerApiClient,
    registry_api::{RegistryApiClient, RegistryApiError},
};
use os::clock::{Clock, wall};
use os::randomness::Randomness;
use policies::units::Uptime;
use rustls::pki_types::{CertificateDer, pem::PemObject};
pub use settings::{CredentialSettings, CredentialsDeps};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use wire::errors::{Chain, ignore_not_found};
use wire::{
    chain,
    registry::{DocumentKind, NetworkDocument, Renewed},
};

/// How often it is looked whether a renewal is due.
const TICK: Duration = Duration::from_secs(1);
/// The first wait after a renewal that failed, ± 50 %; it doubles.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait, also bounded by a tenth of what is left of the certificate's life.
const LAST: Duration = Duration::from_secs(3600);
/// The longest wait between two attempts once the certificate has expired.
const MAX_RETRY_AFTER_EXPIRY: Duration = Duration::from_secs(300);
/// A renewal that goes on failing is logged this often.
const COMPLAIN: Duration = Duration::from_secs(3600);
/// A later CA below the same root is used within this, spread by chance.
const SOON: Duration = Duration::from_secs(30);
/// Once a later CA signs no more than this counts as left of the life of what the earlier one signed: a day.
const SUPERSEDED: Duration = Duration::from_secs(86_400);
/// The remaining lifetime of a revoked CA's certificates counts as no more than this.
const REMAINING_WITH_REVOKED_CA: Duration = Duration::from_secs(300);
/// Nodes spread the first restart of a process at random over this span, or over a sixteenth of
/// the old certificate's remaining lifetime if that is shorter. The restart locks order the remaining.
const WINDOW: Duration = Duration::from_secs(600);

/// The actor that keeps credentials current.
pub struct Credentials {
    settings: CredentialSettings,
    clock: Clock,
    random: Randomness,
    registry: RegistryApiClient,
    peer_api: PeerApiClient,
    tls: SharedServerTls,
    documents: DocumentStore,
    changed: Vec<Recipient<CredentialsChanged>>,
    /// 0 to 1: where in the spans that all nodes share this one acts.
    chance: f64,
    busy: bool,
    next: Uptime,
    wait: Duration,
    complained: Option<Uptime>,
    /// The number of revoked CAs when dialled tunnels were last restarted for that.
    revoked_cas: usize,
    /// The network document whose wishes our files fulfil.
    fulfilled: u64,
}

impl Credentials {
    /// Goes on from what is on disk.
    pub fn new(deps: CredentialsDeps) -> Self {
        let CredentialsDeps {
            settings,
            store,
            server_tls: tls,
            registry,
            peers: peer_api,
            readers: changed,
        } = deps;
        let Store {
            clock,
            random,
            documents,
            ..
        } = store;

        let (chance, next) = (random.fraction(), clock.now());
        let revoked_cas = documents.load().revoked_ca_count();
        Self {
            settings,
            clock,
            random,
            registry,
            peer_api,
            tls,
            documents,
            changed,
            chance,
            busy: false,
            next,
            wait: FIRST,
            complained: None,
            revoked_cas,
            fulfilled: 0,
        }
    }

    fn own(&self) -> Option<(Vec<Vec<u8>>, Certificate)> {
        Certificate::of_file(&self.settings.certificate)
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if self.busy || self.next > now {
            return;
        }
        let Some((chain, own)) = self.own() else {
            self.next = now + LAST;
            return tracing::error!(
                "the node's certificate cannot be read any more; it is not renewed"
            );
        };
        let due_s = self.due_s(&chain, &own);
        let now_s = now_s();
        if now_s < due_s {
            let remaining =
                Duration::from_secs(u64::try_from(due_s.saturating_sub(now_s)).unwrap_or(0));
            // Looked at again now and then, since clocks are set and CAs change.
            self.next = now + remaining.clamp(TICK, Duration::from_secs(60));
            return;
        }
        self.busy = true;
        let (registry, request) = (self.registry.clone(), self.settings.request.clone());
        let call = async move { renewal::request(&registry, request).await };
        ctx.spawn(call.into_actor(self).map(move |answer, credentials, _| {
            credentials.busy = false;
            let done = answer
                .map_err(|error| CredentialError::Renewal(error.into()))
                .and_then(|renewed| credentials.renewed(&own, &renewed));
            match done {
                Ok(()) => {}
                Err(error) => credentials.failed(&own, &error),
            }
        }));
    }

    /// When it shall be renewed, seconds since 1970: in the first tenth of the last third, by chance; at
    /// once where another CA signs now.
    fn due_s(&self, chain: &[Vec<u8>], own: &Certificate) -> i64 {
        let documents = self.documents.load();
        let signs = documents
            .network()
            .is_some_and(|network| !network.authorities.is_empty());
        let other_ca = signs
            && documents
                .cas()
                .first()
                .is_some_and(|ca| chain::verify(chain, &[ca], None).is_err());
        if other_ca || documents.is_superseded(chain) {
            return 0;
        }
        let third =
            Duration::from_secs(u64::try_from(own.not_after_s - own.last_third_s()).unwrap_or(0));
        let later = i64::try_from(third.mul_f64(self.chance / 10.0).as_secs()).unwrap_or(0);
        own.last_third_s().saturating_add(later)
    }

    fn renewed(&mut self, old: &Certificate, renewed: &Renewed) -> Result<(), CredentialError> {
        let old_remaining = self.remaining_until_others_reject();
        let (documents, path) = (self.documents.load(), &self.settings.certificate);
        let fresh = renewal::install(renewed, old, documents.cas(), path)?;
        tracing::info!(
            serial = fresh.serial,
            days = fresh.remaining(now_s()).as_secs() / 86_400,
            "certificate renewed"
        );
        (self.wait, self.complained) = (FIRST, None);
        self.next = self.clock.now() + TICK;
        self.use_files(old_remaining, true, true)
    }

    fn failed(&mut self, own: &Certificate, error: &CredentialError) {
        let now = self.clock.now();
        let remaining = own.remaining(now_s());
        let longest = if remaining.is_zero() {
            MAX_RETRY_AFTER_EXPIRY
        } else {
            LAST.min(remaining / 10).max(FIRST)
        };
        self.next = now + self.wait.min(longest).mul_f64(0.5 + self.random.fraction());
        self.wait = (self.wait * 2).min(longest);
        if self
            .complained
            .is_none_or(|last| now.since(last) >= COMPLAIN)
        {
            self.complained = Some(now);
            let days_left = remaining.as_secs() / 86_400;
            tracing::warn!(error = %Chain(error), days_left, "certificate not renewed yet; it is tried again");
        }
    }

    /// Lets everybody use what is on disk now.
    fn use_files(
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
        let member = NodeCredentials::from_pem(&read(ca)?, &read(certificate)?, &read(key)?)?;
        self.registry.renew(&member)?;
        self.peer_api.renew(&member)?;
        self.tls.store(Arc::new(member.server()?));
        self.report(old_remaining, servers, dials);
        Ok(())
    }

    fn report(&mut self, old_remaining: Duration, servers: bool, dials: bool) {
        let (own, documents) = (self.own(), self.documents.load_full());
        // Where a later CA signs, its document is not followed before our certificate is the later one's too.
        if !own
            .as_ref()
            .is_some_and(|(chain, _)| documents.is_superseded(chain))
        {
            self.fulfilled = documents.version(DocumentKind::Network);
        }
        let not_after_s = own.and_then(|(_, own)| u64::try_from(own.not_after_s).ok());
        let window = WINDOW.min(old_remaining / 16);
        let changed = CredentialsChanged {
            at: self.clock.now(),
            network_version: self.fulfilled,
            servers,
            dials,
            after: window.mul_f64(self.chance),
            at_the_latest: old_remaining.saturating_sub(old_remaining / 8),
            not_after_s,
        };
        self.changed
            .iter()
            .for_each(|to| to.do_send(changed.clone()));
    }

    /// Writes the CAs and keys of the network document, where they differ from those on disk.
    fn follow(&mut self, documents: &CurrentDocuments) -> Result<(), CredentialError> {
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
        let mut cas = false;
        if !network.authorities.is_empty() {
            // The order of the CAs says which one signs; it does not matter for verification.
            cas = trusted(&fs::read(ca).unwrap_or_default()) != trusted(bundle(network).as_bytes());
            let other = write_changed(ca, bundle(network).as_bytes(), 0o644, None)?;
            if other {
                self.next =
                    self.clock.now() + WINDOW.min(self.remaining() / 16).mul_f64(self.chance);
            }
        }
        match &network.tls_crypt_other {
            Some(other) => {
                write_changed(tls_crypt_other, other.as_bytes(), 0o600, Some(*reader))?;
            }
            None => ignore_not_found(fs::remove_file(tls_crypt_other)).map_err(|source| {
                let path = tls_crypt_other.clone();
                CredentialError::Read { path, source }
            })?,
        }
        let keys = write_changed(
            tls_crypt,
            network.tls_crypt.as_bytes(),
            0o600,
            Some(*reader),
        )?;
        if cas {
            tracing::info!(cas = network.authorities.len(), "other CAs are trusted");
        }
        if keys {
            tracing::info!("the network's tls-crypt key is another");
        }
        if cas {
            self.use_files(self.remaining(), true, true)
        } else {
            // Who has dialled keeps its key; it is the servers that others must be able to dial.
            self.report(self.remaining(), keys, false);
            Ok(())
        }
    }

    /// Renews soon if a later CA signs now, and restarts dialled tunnels if a CA is revoked: a
    /// peer that we dialled may have shown a certificate of it.
    fn look_at_cas(&mut self, documents: &CurrentDocuments) {
        if self
            .own()
            .is_some_and(|(chain, _)| documents.is_superseded(&chain))
        {
            self.next = self.next.min(self.clock.now() + SOON.mul_f64(self.chance));
        }
        if self.revoked_cas != documents.revoked_ca_count() {
            self.revoked_cas = documents.revoked_ca_count();
            tracing::info!(cas = self.revoked_cas, "CAs below the root are revoked");
            self.report(self.remaining().min(REMAINING_WITH_REVOKED_CA), false, true);
        }
    }

    /// What is left of the time in which others take our certificate.
    fn remaining_until_others_reject(&self) -> Duration {
        let Some((chain, own)) = self.own() else {
            return Duration::ZERO;
        };
        let (documents, remaining) = (self.documents.load(), own.remaining(now_s()));
        match (
            documents.is_ca_of_chain_revoked(&chain),
            documents.is_superseded(&chain),
        ) {
            (true, _) => remaining.min(REMAINING_WITH_REVOKED_CA),
            (false, true) => remaining.min(SUPERSEDED),
            (false, false) => remaining,
        }
    }

    /// What is left of the life of our certificate.
    fn remaining(&self) -> Duration {
        self.own()
            .map(|(_, own)| own.remaining(now_s()))
            .unwrap_or_default()
    }
}

impl Actor for Credentials {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.report(self.remaining(), false, false);
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Handler<DocumentsChanged> for Credentials {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        if changed.kind != Some(DocumentKind::Revocations)
            && let Err(error) = self.follow(&changed.documents)
        {
            tracing::error!(error = %Chain(&error), "the network's new CAs or keys are not in use");
        }
        self.look_at_cas(&changed.documents);
    }
}
