//! Replaces the CA in three steps. If both CAs have the same root, nodes need not trust anything new.

use super::{
    RegistryService,
    rotations::{RotationStep, require_none_missing},
};
use crate::{
    clock::UnixSeconds,
    files::FileError,
    init::{
        ca_versions,
        documents::{read_stored, sign_and_store},
        error::RegistryError,
    },
    pki::{
        PkiError,
        authority::Authorities,
        certificates::{Parsed, to_pem},
        credentials::NewCa,
    },
    service::error::ServiceError,
    settings::{self, RevokedCa, Settings},
    store::Storage,
};
use ipnet::Ipv6Net;
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData};
use wire::{
    chain,
    registry::{DocumentKind, MAX_REVOKED_CAS, NetworkDocument, Revocations},
};

/// What a root needs to certify the next CA.
pub struct CaSigningRequest {
    /// The certificate request (PKCS #10 in PEM) for the key of the next CA.
    pub csr: String,
    /// The range of the network.
    pub network: Ipv6Net,
    /// Whether the present CA has a root, which must certify the next one too.
    pub has_root: bool,
}

/// Returns the CAs that the network document must list: none as long as there was only the first.
fn listed_cas(authorities: &Authorities) -> Vec<String> {
    let authority = &authorities.authority;
    match (authority.version(), &authorities.other) {
        (1, None) => Vec::new(),
        (_, _) => authority.trusted(),
    }
}

/// Publishes the documents again if they do not match the CAs, because a step was interrupted after it had
/// changed the files and before it published the documents.
pub(super) fn repair(
    storage: &mut dyn Storage,
    authorities: &Authorities,
    settings: &Settings,
) -> Result<(), ServiceError> {
    let authority = &authorities.authority;
    let cas = authority.trusted_der();
    let (payload, signed) = read_stored(storage, DocumentKind::Network, &cas)?;
    let mut network = NetworkDocument::read(&payload)?;
    if network.authorities != listed_cas(authorities) || !authority.has_current_signatures(&signed)
    {
        network.authorities = listed_cas(authorities);
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
    if list.authorities != settings.revoked_ca_serials()
        || !authority.has_current_signatures(&signed)
    {
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

fn certificate_error(why: impl ToString) -> ServiceError {
    ServiceError::CaCertificate {
        why: why.to_string(),
    }
}

/// Reports a CA that cannot be used as a rejection, and anything else as a failure of the registry. It must be called
/// before anything is written.
fn rejected_ca(error: impl Into<RegistryError>) -> ServiceError {
    let error = error.into();
    if let RegistryError::Pki(unusable @ PkiError::UnusableCa { .. }) = &error {
        certificate_error(unusable)
    } else {
        error.into()
    }
}

fn out_of_order<T>(why: &str) -> Result<T, ServiceError> {
    Err(ServiceError::Step {
        why: why.to_owned(),
    })
}

impl RegistryService {
    /// Returns the role and the expiry of each CA.
    pub fn ca_expiries(&self) -> Vec<(&'static str, UnixSeconds)> {
        self.authorities.authority.expiries()
    }

    /// Creates the key of the next CA, and the request for a root to certify it. Until that CA is staged,
    /// further calls return a request for the same key.
    ///
    /// # Errors
    /// The key could not be created or stored.
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
            "rotate-ca: request for the next CA made".to_owned(),
        )?;
        let authority = &self.authorities.authority;
        Ok(CaSigningRequest {
            csr,
            network: authority.network().range(),
            has_root: authority.has_root(),
        })
    }

    /// Returns the next CA: a new self-signed one, or the one that a root certified.
    fn next_ca(&self, certificates: Option<&str>) -> Result<NewCa, ServiceError> {
        let (authority, now) = (&self.authorities.authority, self.now());
        let Some(text) = certificates else {
            if authority.has_root() {
                return out_of_order(
                    "the CA has a root, which must certify the next CA too: use --offline-root or --certificate",
                );
            }
            return Ok(NewCa::self_signed_ca(
                authority.network().range(),
                self.settings.authority + 1,
                now,
            )?);
        };
        let both = chain::read_pem(text.as_bytes()).map_err(certificate_error)?;
        let [ca, root] = both.as_slice() else {
            return Err(certificate_error(
                "two certificates are needed: that of the CA, then that of the root that certified it",
            ));
        };
        if authority.has_root() && root != authority.ca_der() {
            return Err(certificate_error(
                "the root is not the one that the nodes of the network trust",
            ));
        }
        chain::verify_intermediate(ca, &[root], now.0).map_err(certificate_error)?;
        let (ca, root) = (to_pem(ca), to_pem(root));
        if Parsed::read(&root, "the root")?.network() != Some(authority.network()) {
            return Err(certificate_error("the root belongs to another network"));
        }
        let key = match ca_versions::requested_key(&self.paths) {
            Err(RegistryError::File(FileError::Missing { .. })) => {
                return out_of_order(
                    "there is no request for a next CA: run `warren registry rotate-ca request` first",
                );
            }
            key => key?,
        };
        if Parsed::read(&ca, "the CA")?.spki != key.subject_public_key_info() {
            return Err(certificate_error(
                "the certificate is for another key than that of the request",
            ));
        }
        Ok(NewCa {
            certificate: ca,
            key,
            root,
        })
    }

    /// Takes one step to replace the CA. Returns a sentence about what was done, and the version of the network
    /// document.
    ///
    /// For the step `stage`, `certificates` holds the certificates of the next CA and of its root in PEM; `None`
    /// stands for a CA without a root.
    ///
    /// # Errors
    /// The step is out of order, a certificate is rejected, or some node is not ready and `force` is not set.
    pub fn rotate_ca(
        &mut self,
        step: RotationStep,
        certificates: Option<&str>,
        force: bool,
        operator: &str,
    ) -> Result<(String, u64), ServiceError> {
        let retiring = self.authorities.authority.is_retiring();
        let (current, other) = (self.settings.authority, self.settings.other_authority);
        let mut settings = self.settings.clone();
        let done = match (step, other) {
            (RotationStep::Stage, Some(_)) => {
                return out_of_order("the CA is being replaced already: activate or retire first");
            }
            (RotationStep::Stage, None) => {
                let ca = self.next_ca(certificates)?;
                let next = ca_versions::create_next_ca(&self.paths, &self.settings, ca, self.now())
                    .map_err(rejected_ca)?;
                settings.other_authority = Some(next);
                format!("CA {next} is trusted beside CA {current}, which still signs")
            }
            (RotationStep::Activate, Some(next)) if !retiring => {
                let authority = &self.authorities.authority;
                authority.check_other(self.now()).map_err(rejected_ca)?;
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
                format!("CA {before} is no longer trusted, and its keys are removed")
            }
            (RotationStep::Retire, _) => {
                return out_of_order("no CA can be retired: activate the new one first");
            }
        };
        settings::replace(&self.paths, &settings)?;
        self.settings = settings;
        self.authorities = ca_versions::authorities(&self.paths, &self.settings)?;
        self.tls.replace(&self.authorities)?;
        let trusted = listed_cas(&self.authorities);
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

    /// Prepares that the next CA signs. All nodes must trust it; if it has the same root, they do already.
    fn activate(&mut self, current: u32, next: u32, force: bool) -> Result<String, ServiceError> {
        if self
            .authorities
            .authority
            .other_below_same_root()?
            .is_some()
        {
            return Ok(format!("CA {next} signs; nodes renew below the same root"));
        }
        if !force {
            self.require_applied()?;
        }
        let deleted = self.storage.delete_open_invitations(self.now())?;
        Ok(format!(
            "CA {next} signs; {deleted} open invitations, which pin CA {current}, are no longer valid"
        ))
    }

    /// Revokes the previous CA if it has the same root, as nodes would trust it otherwise.
    fn revoke_other_ca(&self, settings: &mut Settings) -> Result<(), ServiceError> {
        let Some((serial, until)) = self.authorities.authority.other_below_same_root()? else {
            return Ok(());
        };
        let now = self.now();
        settings.revoked.retain(|ca| ca.until > now);
        if settings.revoked.len() >= MAX_REVOKED_CAS {
            return out_of_order(
                "the list of revocations has no room for another CA until an earlier one expires",
            );
        }
        settings.revoked.push(RevokedCa { serial, until });
        Ok(())
    }

    /// Fails unless each node has a certificate of this CA.
    fn require_renewed(&self, version: u32) -> Result<(), ServiceError> {
        let nodes = self.live_nodes()?;
        let missing = nodes
            .iter()
            .filter(|(_, theirs)| !theirs.contains(&version));
        require_none_missing(
            missing.map(|(prefix, _)| prefix.to_string()).collect(),
            nodes.len(),
        )
    }
}
