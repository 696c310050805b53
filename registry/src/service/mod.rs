//! Answers what nodes and the operator ask of a registry; knows nothing of HTTP.
//!
//! Everything goes through one desk, one after the other.

mod ca;
mod endpoint_directory;
pub mod error;
pub mod limits;
mod operator;
mod parameters;
pub(crate) mod queue;
mod rotations;

pub use ca::CaRequest;
pub use operator::{Invitations, Invited, LONGEST_TTL_S, Listed, MOST_USES};
pub use rotations::{CaStep, KeyKind, Spread};

use crate::{
    clock::WallClock,
    init::{Opened, ca_versions},
    pki::{
        authority::{Authorities, Authority},
        certificates::BACKDATE_S,
        request::{self, ProvenKey, sha256},
        tls::Live,
    },
    service::{
        error::Refusal,
        limits::{Failures, Pace, Site},
    },
    settings::{self, Places, Settings},
    store::{CheckedClaim, IssueError, Member, Report, Storage, StorageError, Wanted},
};
use endpoint_directory::Book;
use policies::names::Endpoint;
use std::net::IpAddr;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;
use wire::{
    endpoints::dialable,
    invitation::{RegistryAddress, token_from_text},
    registry::{
        Announced, Announcement, Bootstrap, Claim, Claimed, DocumentKind, MAX_NODES,
        NetworkDocument, Refused, Renewal, Renewed, Revocations, SOFTWARE_LIMIT, VERSION,
    },
    signed::SignedDocument,
};

/// Certificates that one certificate may be renewed to with new keys: answers get lost, but not for
/// ever.
const MOST_RENEWALS: usize = 5;

/// What a caller's certificate says, which it proved to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of the SPKI.
    pub key: [u8; 32],
}

/// Versions of the signed documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of the network document.
    pub network: u64,
    /// Of the revocations.
    pub revocations: u64,
}

/// A registry at work.
pub struct Desk {
    settings: Settings,
    places: Places,
    address: RegistryAddress,
    authorities: Authorities,
    live: Live,
    storage: Box<dyn Storage>,
    network: (NetworkDocument, SignedDocument),
    revocations: (u64, SignedDocument),
    news: watch::Sender<Versions>,
    failures: Failures,
    pace: Pace,
    book: Book,
    clock: WallClock,
}

/// A stored document and its payload.
fn stored(
    storage: &dyn Storage,
    kind: DocumentKind,
    authority: &Authority,
) -> Result<(Vec<u8>, SignedDocument), Refusal> {
    let missing = StorageError::Value {
        what: "no signed document, or one",
    };
    let (_, json) = storage.document(kind)?.ok_or(missing)?;
    let signed: SignedDocument = serde_json::from_str(&json)?;
    let payload = wire::signed::open(&signed, &[authority.ca_der()])?.payload;
    Ok((payload, signed))
}

fn network_of(
    storage: &dyn Storage,
    authority: &Authority,
) -> Result<(NetworkDocument, SignedDocument), Refusal> {
    let (payload, signed) = stored(storage, DocumentKind::Network, authority)?;
    Ok((NetworkDocument::read(&payload)?, signed))
}

fn revocations_of(
    storage: &dyn Storage,
    authority: &Authority,
) -> Result<(u64, SignedDocument), Refusal> {
    let (payload, signed) = stored(storage, DocumentKind::Revocations, authority)?;
    Ok((Revocations::read(&payload)?.version, signed))
}

impl Desk {
    /// Sits down at an opened registry.
    ///
    /// # Errors
    /// A stored document is not good.
    pub(crate) fn new(opened: Opened, live: Live, clock: WallClock) -> Result<Self, Refusal> {
        let Opened {
            settings,
            places,
            address,
            authorities,
            storage,
        } = opened;
        let mut storage: Box<dyn Storage> = Box::new(storage);
        ca::mend(storage.as_mut(), &authorities, &settings)?;
        let network = network_of(storage.as_ref(), &authorities.authority)?;
        let revocations = revocations_of(storage.as_ref(), &authorities.authority)?;
        let versions = Versions {
            network: network.0.version,
            revocations: revocations.0,
        };
        let book = Book::new(storage.announced((clock)())?);
        Ok(Self {
            settings,
            places,
            address,
            authorities,
            live,
            storage,
            network,
            revocations,
            news: watch::Sender::new(versions),
            failures: Failures::default(),
            pace: Pace::default(),
            book,
            clock,
        })
    }

    /// Lets everybody guess tokens as often as they like: for measurements.
    pub(crate) fn lift_limits(&mut self) {
        self.failures = Failures::off();
        self.pace = Pace::off();
    }

    fn now_s(&self) -> i64 {
        (self.clock)()
    }

    /// Begins to gather what is to be written.
    ///
    /// # Errors
    /// The database refused.
    pub(crate) fn begin(&mut self) -> Result<(), Refusal> {
        Ok(self.storage.begin()?)
    }

    /// Writes what was gathered down to the disk.
    ///
    /// # Errors
    /// Then nothing of it was kept, and what is remembered beside the disk is that of before.
    pub(crate) fn commit(&mut self) -> Result<(), Refusal> {
        Ok(self.storage.commit()?)
    }

    /// Goes back to what is on the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn forget(&mut self) -> Result<(), Refusal> {
        self.storage.forget()?;
        self.settings = settings::read_settings(&self.places)?;
        self.authorities = ca_versions::authorities(&self.places, &self.settings)?;
        self.live.replace(&self.authorities)?;
        ca::mend(self.storage.as_mut(), &self.authorities, &self.settings)?;
        self.network = network_of(self.storage.as_ref(), &self.authorities.authority)?;
        self.revocations = revocations_of(self.storage.as_ref(), &self.authorities.authority)?;
        self.book = Book::new(self.storage.announced(self.now_s())?);
        Ok(())
    }

    /// Issues a certificate.
    fn issue(&mut self, checked: &CheckedClaim) -> Result<Claimed, IssueError> {
        let (authority, life_s) = (
            &self.authorities.authority,
            self.settings.certificate_life_s,
        );
        let sign = |prefix| authority.sign_node(prefix, &checked.key, checked.now_s, life_s);
        let (prefix, issued) = self.storage.claim(checked, &sign)?;
        Ok(Claimed {
            version: VERSION,
            prefix,
            certificate: issued.certificate,
            ca: authority.ca_pem().to_owned(),
            network: self.network.1.clone(),
        })
    }

    /// A token for a certificate; `from` is where the request came from.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was issued then.
    pub fn claim(
        &mut self,
        from: IpAddr,
        claim: &Claim,
        key: ProvenKey,
    ) -> Result<Claimed, Refusal> {
        let (site, now_s) = (Site::from(from), self.now_s());
        if !self.failures.may_try(site, now_s) {
            return Err(Refusal::TooMany);
        }
        // A text that is no token goes the same way as an unknown one.
        let token = token_from_text(&claim.token).map_or([0; 32], |token| sha256(&token));
        let anonymous = self.storage.is_anonymous(&token)?;
        if anonymous && !self.pace.may_join(site, now_s) {
            return Err(Refusal::Strangers);
        }
        let (length, wanted) = (self.settings.prefix_length, Wanted::default());
        let claimed = self
            .issue(&CheckedClaim {
                token: Some(token),
                key,
                wanted,
                length,
                now_s,
            })
            .inspect_err(|error| {
                if matches!(error, IssueError::Token) {
                    self.failures.note(site, now_s);
                }
            })?;
        if anonymous {
            self.pace.joined(site, now_s);
            self.note(
                "a stranger",
                format!(
                    "joined by a public invitation: {}, from {from}",
                    claimed.prefix
                ),
            )?;
        }
        tracing::info!(prefix = %claimed.prefix, from = %from, anonymous, "certificate issued");
        Ok(claimed)
    }

    /// The member whose certificate this is, as we recorded it: who stole a CA's key may sign our serial
    /// numbers, but not with our members' keys.
    fn recorded(
        &self,
        shown: &Shown,
        good: impl FnOnce(&Member) -> bool,
    ) -> Result<Member, Refusal> {
        let ours = self
            .storage
            .member(&shown.serial)?
            .filter(|member| member.key == shown.key);
        ours.filter(good).ok_or(Refusal::NoMember)
    }

    /// The member whose certificate was shown, if it still is one.
    ///
    /// # Errors
    /// Unknown, revoked or expired.
    pub fn member(&self, shown: &Shown) -> Result<Member, Refusal> {
        let now_s = self.now_s();
        self.recorded(shown, |member| {
            member.revoked_s.is_none() && member.not_after_s > now_s
        })
    }

    /// The member whose certificate was shown, if it may be renewed: the grace counts.
    ///
    /// # Errors
    /// Unknown, revoked, or over for too long.
    pub fn renewable(&self, shown: &Shown) -> Result<Member, Refusal> {
        let since_s = self.now_s().saturating_sub(self.settings.grace_s);
        self.recorded(shown, |member| {
            member.revoked_s.is_none() && member.not_after_s > since_s
        })
    }

    /// A fresh certificate for the prefix of the one that was shown.
    ///
    /// # Errors
    /// Too early or too late, or the key is another's.
    pub fn renew(&mut self, shown: &Shown, key: &ProvenKey) -> Result<Renewed, Refusal> {
        let (old, now_s) = (self.renewable(shown)?, self.now_s());
        let hash = key.hash();
        if old.not_after_s <= now_s && hash != old.key {
            return Err(Refusal::LateKey);
        }
        let later = self.storage.certificates(old.prefix, now_s)?;
        let later: Vec<_> = later
            .into_iter()
            .filter(|(member, _)| member.not_before_s > old.not_before_s)
            .collect();
        let wanted = |member: &Member| member.key == hash && !self.is_due(member, now_s);
        // The answer was lost: here it is again.
        if let Some((_, certificate)) = later.iter().rev().find(|(member, _)| wanted(member)) {
            return Ok(Renewed {
                version: VERSION,
                certificate: certificate.clone(),
            });
        }
        if !self.is_due(&old, now_s) {
            return Err(Refusal::TooEarly);
        }
        if later.len() >= MOST_RENEWALS {
            return Err(Refusal::TooOften {
                what: "renewals of one certificate",
            });
        }
        let (authority, life_s) = (
            &self.authorities.authority,
            self.settings.certificate_life_s,
        );
        let sign = |prefix| authority.sign_node(prefix, key, now_s, life_s);
        let issued = self.storage.renew(&old, key, now_s, &sign)?;
        tracing::info!(prefix = %old.prefix, serial = issued.serial, "certificate renewed");
        Ok(Renewed {
            version: VERSION,
            certificate: issued.certificate,
        })
    }

    /// Whether a certificate may be renewed: in the last third of its life, or as soon as its CA is
    /// no longer the one that signs.
    fn is_due(&self, member: &Member, now_s: i64) -> bool {
        let life_s = member.not_after_s - member.not_before_s - BACKDATE_S;
        member.authority != self.authorities.authority.generation()
            || member.not_after_s - now_s <= life_s / 3
    }

    /// Remembers where a member can be dialled, and what it holds; endpoints that nobody should dial
    /// are left out.
    ///
    /// # Errors
    /// It could not be kept.
    pub fn announce(&mut self, member: &Member, said: &Announcement) -> Result<Announced, Refusal> {
        let now_s = self.now_s();
        if !self.pace.announcement(member.prefix, now_s) {
            return Err(Refusal::TooOften {
                what: "announcements",
            });
        }
        let software = said.software.as_str();
        if software.len() > SOFTWARE_LIMIT
            || !software.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        {
            let right = format!("at most {SOFTWARE_LIMIT} printable characters of ASCII");
            return Err(Refusal::Value {
                field: "software",
                value: "it".into(),
                right,
            });
        }
        let (network, private) = (
            self.authorities.authority.network(),
            self.network.0.private_endpoints,
        );
        let mut kept: Vec<Endpoint> = Vec::new();
        let mut refused = Vec::new();
        for endpoint in &said.endpoints {
            match dialable(*endpoint, network, private) {
                Ok(()) if kept.contains(endpoint) => {}
                Ok(()) => kept.push(*endpoint),
                Err(why) => refused.push(Refused {
                    endpoint: *endpoint,
                    why: why.to_string(),
                }),
            }
        }
        let ttl_s = self.settings.announcement_ttl_s;
        let report = Report {
            endpoints: kept,
            software: said.software.clone(),
            network_version: said.network_version,
            network_applied: said.network_applied,
            revocations_version: said.revocations_version,
            // Nobody is told of a node whose certificate is over.
            until_s: now_s.saturating_add(ttl_s).min(member.not_after_s),
        };
        self.storage.announce(member.prefix, &report)?;
        tracing::debug!(prefix = %member.prefix, endpoints = report.endpoints.len(), "announcement kept");
        self.book.announce(member.prefix, report);
        self.book
            .unreachable(member.prefix, &said.unreachable, now_s);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        let (at, ttl_s) = (rfc3339(now_s), u64::try_from(ttl_s).unwrap_or(0));
        Ok(Announced {
            version: VERSION,
            ttl_s,
            refused,
            at,
            network_version,
            revocations_version,
        })
    }

    /// Random nodes that can be dialled, at most `count` and [`MAX_NODES`].
    ///
    /// # Errors
    /// Asked too often.
    pub fn bootstrap(&mut self, member: &Member, count: usize) -> Result<Bootstrap, Refusal> {
        let now_s = self.now_s();
        if !self.pace.bootstrap(member.prefix, now_s) {
            return Err(Refusal::TooOften {
                what: "questions for nodes",
            });
        }
        let nodes = self.book.some(member.prefix, count.min(MAX_NODES), now_s);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        Ok(Bootstrap {
            version: VERSION,
            nodes,
            network_version,
            revocations_version,
        })
    }

    /// The network's signed document, with its version.
    pub fn network(&self) -> (u64, SignedDocument) {
        (self.network.0.version, self.network.1.clone())
    }

    /// The signed list of revocations, with its version.
    pub fn revocations(&self) -> (u64, SignedDocument) {
        self.revocations.clone()
    }

    /// Tells the versions of the documents when they change.
    pub fn news(&self) -> watch::Receiver<Versions> {
        self.news.subscribe()
    }
}

/// The key of a request in a document of our version.
///
/// # Errors
/// Another version, or the first check of the request that failed.
pub(crate) fn proven(version: u32, csr: &str) -> Result<ProvenKey, Refusal> {
    check_version(version)?;
    request::read(csr).map_err(Refusal::Request)
}

pub(crate) fn check_version(version: u32) -> Result<(), Refusal> {
    if version == VERSION {
        Ok(())
    } else {
        Err(Refusal::Version { version })
    }
}

/// The checks of a renewal that need no database.
///
/// # Errors
/// See [`proven`].
pub(crate) fn renewal_key(renewal: &Renewal) -> Result<ProvenKey, Refusal> {
    proven(renewal.version, &renewal.csr)
}

/// RFC 3339 UTC; a moment outside the calendar is printed as seconds.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} s"))
}
