//! Answers what nodes and the operator ask of a registry; knows nothing of HTTP.
//!
//! Everything goes through one desk, one after the other.

use crate::{
    authority::{Authority, AuthorityError, BACKDATE_S, random},
    limits::{Failures, Site},
    request::{self, BadRequest, sha256},
    settings::{Opened, Settings, SettingsError, keep},
    storage::{CheckedClaim, IssueError, Member, Storage, StorageError},
};
use policies::names::{Endpoint, Prefix};
use std::{net::IpAddr, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;
use wire::{
    endpoints::dialable,
    invitation::{Invitation, RegistryAddress, token_from_text},
    registry::{
        Announced, Announcement, Bootstrap, Claim, Claimed, Kind, MOST_NODES, NetworkDocument, Refused,
        Renewal, Renewed, Revocations, VERSION,
    },
    signed::SignedDocument,
};

/// Tells the wall clock in seconds since 1970; tests own it.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's wall clock: certificates cannot do without it.
pub fn system_clock() -> WallClock {
    Arc::new(|| OffsetDateTime::now_utc().unix_timestamp())
}

/// Why the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A document of another version.
    #[error("version {version} is not {VERSION}")]
    Version {
        /// What it said.
        version: u32,
    },
    /// The token: unknown, used or expired; nobody is told which.
    #[error("the token is unknown, used or expired")]
    Token,
    /// Too many failures from there, or overall.
    #[error("too many failed claims; try again in a minute")]
    TooMany,
    /// The certificate request.
    #[error("{0}")]
    Request(BadRequest),
    /// The key is another's, or was revoked.
    #[error("this key has a certificate already, or was revoked; make a new one")]
    KeyKnown,
    /// No prefix is left.
    #[error("the network has no prefix left")]
    Full,
    /// No certificate on TLS.
    #[error("this needs a certificate of the network")]
    NoCertificate,
    /// The certificate is revoked, unknown or expired.
    #[error("the certificate is not one of a member")]
    NoMember,
    /// A renewal that comes too early.
    #[error("renewals begin in the last third of a certificate's life")]
    TooEarly,
    /// A prefix without a live certificate.
    #[error("{prefix} has no certificate to revoke")]
    NoSuchNode {
        /// Which.
        prefix: Prefix,
    },
    /// Ours to mend: nothing was issued.
    #[error("the registry failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<AuthorityError> for Refusal {
    fn from(error: AuthorityError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<SettingsError> for Refusal {
    fn from(error: SettingsError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Token => Self::Token,
            IssueError::KeyKnown => Self::KeyKnown,
            IssueError::Full => Self::Full,
            IssueError::NotLive => Self::NoMember,
            IssueError::Sign(_) | IssueError::Storage(_) => Self::Failed(Box::new(error)),
        }
    }
}

/// A registry at work.
pub struct Desk {
    settings: Settings,
    address: RegistryAddress,
    authority: Authority,
    storage: Box<dyn Storage>,
    network: (NetworkDocument, SignedDocument),
    revocations: (u64, SignedDocument),
    news: watch::Sender<u64>,
    failures: Failures,
    clock: WallClock,
}

fn stored(
    storage: &dyn Storage,
    kind: Kind,
    authority: &Authority,
) -> Result<(Vec<u8>, SignedDocument), Refusal> {
    let missing = StorageError::Value { what: "no signed document, or one" };
    let (_, json) = storage.document(kind)?.ok_or(missing)?;
    let signed: SignedDocument =
        serde_json::from_str(&json).map_err(|error| Refusal::Failed(Box::new(error)))?;
    let payload = wire::signed::open(&signed, authority.ca_der());
    Ok((payload.map_err(|error| Refusal::Failed(Box::new(error)))?, signed))
}

impl Desk {
    /// Sits down at an opened registry.
    ///
    /// # Errors
    /// A stored document is not good.
    pub fn new(opened: Opened, clock: WallClock) -> Result<Self, Refusal> {
        let Opened { settings, address, authority, storage, credentials: _ } = opened;
        let (payload, signed) = stored(&storage, Kind::Network, &authority)?;
        let document = NetworkDocument::read(&payload).map_err(|error| Refusal::Failed(Box::new(error)))?;
        let (payload, list) = stored(&storage, Kind::Revocations, &authority)?;
        let revocations = Revocations::read(&payload).map_err(|error| Refusal::Failed(Box::new(error)))?;
        Ok(Self {
            settings,
            address,
            authority,
            storage: Box::new(storage),
            network: (document, signed),
            revocations: (revocations.version, list),
            news: watch::Sender::new(revocations.version),
            failures: Failures::default(),
            clock,
        })
    }

    fn now_s(&self) -> i64 {
        (self.clock)()
    }

    /// Where the registry is reached.
    pub fn address(&self) -> &RegistryAddress {
        &self.address
    }

    /// A token for a certificate; `from` is where the request came from.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was issued then.
    pub fn claim(&mut self, from: IpAddr, claim: &Claim) -> Result<Claimed, Refusal> {
        let (site, now_s) = (Site::from(from), self.now_s());
        if !self.failures.may_try(site, now_s) {
            return Err(Refusal::TooMany);
        }
        check_version(claim.version)?;
        let key = request::read(&claim.csr).map_err(Refusal::Request)?;
        // A text that is no token goes the same way as an unknown one.
        let token = token_from_text(&claim.token).map_or([0; 32], |token| sha256(&token));
        let checked = CheckedClaim { token, key, length: self.settings.prefix_length, now_s };
        let (authority, life_s) = (&self.authority, self.settings.certificate_life_s);
        let sign = |prefix| authority.sign_node(prefix, &checked.key, now_s, life_s);
        let (prefix, issued) = self.storage.claim(&checked, &sign).inspect_err(|error| {
            if matches!(error, IssueError::Token) {
                self.failures.note(site, now_s);
            }
        })?;
        tracing::info!(%prefix, serial = issued.serial, from = %from, "certificate issued");
        Ok(Claimed {
            version: VERSION,
            prefix,
            certificate: issued.certificate,
            ca: self.authority.ca_pem().to_owned(),
            network: self.network.1.clone(),
        })
    }

    /// The member whose certificate has this serial number, if it still is one.
    ///
    /// # Errors
    /// Unknown, revoked or expired.
    pub fn member(&self, serial: &str) -> Result<Member, Refusal> {
        let now_s = self.now_s();
        let live = |member: &Member| member.revoked_s.is_none() && member.not_after_s > now_s;
        self.storage.member(serial)?.filter(live).ok_or(Refusal::NoMember)
    }

    /// A fresh certificate for a member's prefix.
    ///
    /// # Errors
    /// Too early, or the key is another's.
    pub fn renew(&mut self, member: &Member, renewal: &Renewal) -> Result<Renewed, Refusal> {
        check_version(renewal.version)?;
        let key = request::read(&renewal.csr).map_err(Refusal::Request)?;
        let now_s = self.now_s();
        let life_s = member.not_after_s - member.not_before_s - BACKDATE_S;
        if member.not_after_s - now_s > life_s / 3 {
            return Err(Refusal::TooEarly);
        }
        let (authority, life_s) = (&self.authority, self.settings.certificate_life_s);
        let sign = |prefix| authority.sign_node(prefix, &key, now_s, life_s);
        let issued = self.storage.renew(member, &key, now_s, &sign)?;
        tracing::info!(prefix = %member.prefix, serial = issued.serial, "certificate renewed");
        Ok(Renewed { version: VERSION, certificate: issued.certificate })
    }

    /// Remembers where a member can be dialled; endpoints that nobody should dial are left out.
    ///
    /// # Errors
    /// It could not be kept.
    pub fn announce(&mut self, member: &Member, said: &Announcement) -> Result<Announced, Refusal> {
        check_version(said.version)?;
        let (network, private) = (self.authority.network(), self.network.0.private_endpoints);
        let mut kept: Vec<Endpoint> = Vec::new();
        let mut refused = Vec::new();
        for endpoint in &said.endpoints {
            match dialable(*endpoint, network, private) {
                Ok(()) if kept.contains(endpoint) => {}
                Ok(()) => kept.push(*endpoint),
                Err(why) => refused.push(Refused { endpoint: *endpoint, why: why.to_string() }),
            }
        }
        let (now_s, ttl_s) = (self.now_s(), self.settings.announcement_ttl_s);
        self.storage.announce(member.prefix, &kept, now_s.saturating_add(ttl_s))?;
        tracing::debug!(prefix = %member.prefix, endpoints = kept.len(), "announcement kept");
        let ttl_s = u64::try_from(ttl_s).unwrap_or(0);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        let at = rfc3339(now_s);
        Ok(Announced { version: VERSION, ttl_s, refused, at, network_version, revocations_version })
    }

    /// Random nodes that can be dialled, at most `count` and [`MOST_NODES`].
    ///
    /// # Errors
    /// The database refused.
    pub fn bootstrap(&self, member: &Member, count: usize) -> Result<Bootstrap, Refusal> {
        let nodes = self.storage.bootstrap(member.prefix, count.min(MOST_NODES), self.now_s())?;
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        Ok(Bootstrap { version: VERSION, nodes, network_version, revocations_version })
    }

    /// The network's signed document.
    pub fn network(&self) -> SignedDocument {
        self.network.1.clone()
    }

    /// The signed list of revocations, with its version.
    pub fn revocations(&self) -> (u64, SignedDocument) {
        self.revocations.clone()
    }

    /// Tells the version of the revocations when it changes.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Makes an invitation that is good for `ttl_s` seconds and for one node; also its end.
    ///
    /// # Errors
    /// It could not be kept.
    pub fn invite(&mut self, ttl_s: i64) -> Result<(Invitation, String), Refusal> {
        let (token, now_s) = (random::<16>()?, self.now_s());
        let until_s = now_s.saturating_add(ttl_s);
        self.storage.invite(&sha256(&token), now_s, until_s)?;
        tracing::info!(ttl_s, "invitation made");
        let invitation = Invitation { address: self.address.clone(), pin: self.authority.pin(), token };
        Ok((invitation, rfc3339(until_s)))
    }

    /// All live certificates, and where their nodes can be dialled.
    ///
    /// # Errors
    /// The database refused.
    pub fn members(&self) -> Result<Vec<(Member, String)>, Refusal> {
        let members = self.storage.members(self.now_s())?;
        Ok(members
            .into_iter()
            .map(|member| (rfc3339(member.not_after_s), member))
            .map(|(a, b)| (b, a))
            .collect())
    }

    /// Revokes a node: its certificates and keys are barred, and the signed list says so.
    ///
    /// # Errors
    /// It has no live certificate, or it could not be kept.
    pub fn revoke(&mut self, prefix: Prefix) -> Result<usize, Refusal> {
        let now_s = self.now_s();
        let count = self.storage.revoke(prefix, now_s)?;
        if count == 0 {
            return Err(Refusal::NoSuchNode { prefix });
        }
        let version = self.revocations.0 + 1;
        let list = Revocations { kind: Kind::Revocations, version, revoked: self.storage.revoked(now_s)? };
        keep(self.storage.as_mut(), &self.authority, Kind::Revocations, version, &list)?;
        let (_, signed) = stored(self.storage.as_ref(), Kind::Revocations, &self.authority)?;
        self.revocations = (version, signed);
        self.news.send_replace(version);
        tracing::info!(%prefix, certificates = count, "node revoked");
        Ok(count)
    }
}

fn check_version(version: u32) -> Result<(), Refusal> {
    if version == VERSION { Ok(()) } else { Err(Refusal::Version { version }) }
}

/// RFC 3339 UTC; a moment outside the calendar is printed as seconds.
fn rfc3339(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{seconds} s"))
}
