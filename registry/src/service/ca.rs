//! Changes the CA, in three steps. Below a root that stays nobody has to trust anything new.

use super::{
    RegistryService,
    rotations::{RotationStep, refuse},
};
use crate::{
    clock::UnixSeconds,
    files::FileError,
    init::{
        ca_versions,
        documents::{read_stored, sign_and_store},
        error::RegistryError,
    },
    pki::{authority::Authorities, certificates::Parsed, credentials::NewCa},
    service::error::ServiceError,
    settings::{self, RevokedCa, Settings},
    store::Storage,
};
use ipnet::Ipv6Net;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData};
use wire::{
    chain,
    registry::{DocumentKind, MAX_REVOKED_CAS, NetworkDocument, Revocations},
};

/// The request to a root for the next CA.
pub struct CaSigningRequest {
    /// A request (PKCS #10 in PEM) with the key of the next CA.
    pub csr: String,
    /// The network's range.
    pub network: Ipv6Net,
    /// A root stands above the present CA: no other will do.
    pub has_root: bool,
}

/// Returns the CAs that the network document must list: none while there was only the first.
fn expected(authorities: &Authorities) -> Vec<String> {
    let authority = &authorities.authority;
    match (authority.version(), &authorities.other) {
        (1, None) => Vec::new(),
        (_, _) => authority.trusted(),
    }
}

/// Brings the documents in line with the CAs, in case a change of the CA was interrupted between
/// its files and its documents.
pub(super) fn repair(
    storage: &mut dyn Storage,
    authorities: &Authorities,
    settings: &Settings,
) -> Result<(), ServiceError> {
    let authority = &authorities.authority;
    let cas = authority.trusted_der();
    let (payload, signed) = read_stored(storage, DocumentKind::Network, &cas)?;
    let mut network = NetworkDocument::read(&payload)?;
    if network.authorities != expected(authorities) || !authority.signed_rightly(&signed) {
        network.authorities = expected(authorities);
        network.version += 1;
        sign_and_store(
            storage,
            authority,
            DocumentKind::Network,
            network.version,
            &network,
        )?;
    }
    let (payload, signed) = read_stored(storage, DocumentKind::Revocations, &cas)?;
    let mut list = Revocations::read(&payload)?;
    if list.authorities != settings.revoked_ca_serials() || !authority.signed_rightly(&signed) {
        list.authorities = settings.revoked_ca_serials();
        list.version += 1;
        sign_and_store(
            storage,
            authority,
            DocumentKind::Revocations,
            list.version,
            &list,
        )?;
    }
    Ok(())
}

fn certificate(why: impl ToString) -> ServiceError {
    ServiceError::CaCertificate {
        why: why.to_string(),
    }
}

fn out_of_order<T>(why: &str) -> Result<T, ServiceError> {
    Err(ServiceError::Step {
        why: why.to_owned(),
    })
}

/// A certificate (DER) in PEM.
fn in_pem(der: &[u8]) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der), lines)
}

impl RegistryService {
    /// When each trusted CA ends, seconds since 1970, and what it is.
    pub fn ca_expiries(&self) -> Vec<(&'static str, UnixSeconds)> {
        self.authorities.authority.ends()
    }

    /// Makes the key of the next CA, and what a root is asked with to certify it; asked again, it is the same key.
    ///
    /// # Errors
    /// The key could not be made or kept.
    pub fn request_ca(&mut self, operator: &str) -> Result<CaSigningRequest, ServiceError> {
        let key = ca_versions::request_key(&self.paths)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&key)
            .and_then(|request| request.pem());
        let csr = request.map_err(crate::pki::certificates::make("a request"))?;
        self.audit(
            operator,
            "rotate-ca: a root is asked for the next CA".to_owned(),
        )?;
        let authority = &self.authorities.authority;
        Ok(CaSigningRequest {
            csr,
            network: authority.network().range(),
            has_root: authority.has_root(),
        })
    }

    /// The next CA: one that stands for itself, or the one that a root certified.
    fn next_ca(&self, given: Option<&str>) -> Result<NewCa, ServiceError> {
        let (authority, now) = (&self.authorities.authority, self.now());
        let Some(text) = given else {
            if authority.has_root() {
                return out_of_order(
                    "a root stands above the CA, and must certify the next one too",
                );
            }
            return Ok(NewCa::alone(
                authority.network().range(),
                self.settings.authority + 1,
                now,
            )?);
        };
        let both = chain::read_pem(text.as_bytes()).map_err(certificate)?;
        let [ca, root] = both.as_slice() else {
            return Err(certificate(
                "it takes two: that of the CA, and that of the root which certified it",
            ));
        };
        if authority.has_root() && root != authority.ca_der() {
            return Err(certificate(
                "the root is not the one that the network's nodes trust",
            ));
        }
        chain::verify_between(ca, &[root], now.0).map_err(certificate)?;
        let (ca, root) = (in_pem(ca), in_pem(root));
        if Parsed::read(&root, "the root")?.network() != Some(authority.network()) {
            return Err(certificate("the root is another network's"));
        }
        let key = match ca_versions::requested_key(&self.paths) {
            Err(RegistryError::File(FileError::Missing { .. })) => {
                return out_of_order("no root was asked for a CA");
            }
            found => found?,
        };
        if Parsed::read(&ca, "the CA")?.spki != key.subject_public_key_info() {
            return Err(certificate(
                "it is for another key than the root was asked with",
            ));
        }
        Ok(NewCa {
            certificate: ca,
            key,
            root,
        })
    }

    /// Takes one step of a change of the CA; returns what was done, and the version of the network
    /// document. For the first step `given` holds the next CA's certificate and its root's, in
    /// PEM.
    ///
    /// # Errors
    /// The step is out of order, the certificates are not good, or nodes are not ready and it is
    /// not forced.
    pub fn rotate_ca(
        &mut self,
        step: RotationStep,
        given: Option<&str>,
        force: bool,
        operator: &str,
    ) -> Result<(String, u64), ServiceError> {
        let retiring = self.authorities.authority.is_retiring();
        let (current, other) = (self.settings.authority, self.settings.other_authority);
        let mut settings = self.settings.clone();
        let done = match (step, other) {
            (RotationStep::Stage, Some(_)) => {
                return out_of_order("a change of the CA is under way already");
            }
            (RotationStep::Stage, None) => {
                let ca = self.next_ca(given)?;
                let next =
                    ca_versions::create_next_ca(&self.paths, &self.settings, ca, self.now())?;
                settings.other_authority = Some(next);
                format!("CA {next} is made, and trusted beside CA {current}; CA {current} signs")
            }
            (RotationStep::Activate, Some(next)) if !retiring => {
                (settings.authority, settings.other_authority) = (next, Some(current));
                self.activate(current, next, force)?
            }
            (RotationStep::Activate, _) => {
                return out_of_order("there is no new CA: stage one first");
            }
            (RotationStep::Retire, Some(before)) if retiring => {
                if !force {
                    self.require_applied()?;
                    self.require_renewed(current)?;
                }
                settings.other_authority = None;
                self.revoke_other_ca(&mut settings)?;
                format!("CA {before} is trusted no more, and its keys are removed")
            }
            (RotationStep::Retire, _) => {
                return out_of_order("no CA can be retired: activate a new one first");
            }
        };
        settings::replace(&self.paths, &settings)?;
        self.settings = settings;
        self.authorities = ca_versions::authorities(&self.paths, &self.settings)?;
        self.live.replace(&self.authorities)?;
        let trusted = expected(&self.authorities);
        let version = self.publish(|document| document.authorities = trusted)?;
        match (step, other) {
            (RotationStep::Stage, _) => ca_versions::remove_requested_key(&self.paths)?,
            (RotationStep::Retire, Some(before)) => {
                self.publish_revocations()?;
                ca_versions::remove_keys(&self.paths, before)?;
            }
            (RotationStep::Activate | RotationStep::Retire, _) => {
                self.publish_revocations()?;
            }
        }
        self.audit(operator, format!("rotate-ca: {done}"))?;
        Ok((done, version))
    }

    /// Before the next CA signs: all nodes must trust it, which they do for its root's sake where that stays.
    fn activate(&mut self, current: u32, next: u32, force: bool) -> Result<String, ServiceError> {
        if self.authorities.authority.other_between()?.is_some() {
            return Ok(format!("CA {next} signs; nodes renew below the same root"));
        }
        if !force {
            self.require_applied()?;
        }
        let gone = self.storage.delete_open_invitations(self.now())?;
        Ok(format!(
            "CA {next} signs; {gone} invitations, which named CA {current}, are void"
        ))
    }

    /// Revokes the previous CA, for which the root, which stays, would otherwise still vouch.
    fn revoke_other_ca(&self, settings: &mut Settings) -> Result<(), ServiceError> {
        let Some((serial, until)) = self.authorities.authority.other_between()? else {
            return Ok(());
        };
        let now = self.now();
        settings.revoked.retain(|ca| ca.until > now);
        if settings.revoked.len() >= MAX_REVOKED_CAS {
            return out_of_order("as many CAs are revoked as the revocations may name");
        }
        settings.revoked.push(RevokedCa { serial, until });
        Ok(())
    }

    /// Refuses unless each node has a certificate of this CA.
    fn require_renewed(&self, version: u32) -> Result<(), ServiceError> {
        let nodes = self.live_nodes()?;
        let missing = nodes
            .iter()
            .filter(|(_, theirs)| !theirs.contains(&version));
        refuse(
            missing.map(|(prefix, _)| prefix.to_string()).collect(),
            nodes.len(),
        )
    }
}
