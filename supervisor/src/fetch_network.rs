//! Fetches the network document from the registry before anything else is started, if its file is missing or damaged.
//!
//! While the registry cannot be reached, the call is retried, so that no operator has to intervene; only an explicit
//! rejection is final.

use crate::{
    errors::StartError,
    identity::{identity_error, read_cas, read_chain, read_credentials, read_network_document},
    renew_expired::{FIRST_RETRY_DELAY, MAX_RETRY_DELAY, REJECTED_STATUS},
};
use config::paths::Paths;
use files::Access;
use membership::registry_api::{RegistryApiClient, RegistryApiError};
use os::randomness::Randomness;
use rustls::pki_types::CertificateDer;
use wire::{errors::Chain, registry::NetworkDocument, signed, signed::SignedDocument};

/// Returns at once if the network document can be used; otherwise its file is set aside, and written again as soon as the
/// registry sends the document. `report` receives one line when the first attempt has failed.
///
/// # Errors
/// The node's certificate or key cannot be used, the registry rejects the node, or the file cannot be written.
pub(crate) async fn fetch_if_bad(
    registry: &str,
    paths: &Paths,
    report: impl Fn(&str),
) -> Result<(), StartError> {
    let cas = read_cas(paths)?;
    // With the CA of another network, a good document would count as bad.
    read_chain(paths, &cas)?;
    let Err(fault) = read_network_document(paths, &cas) else {
        return Ok(());
    };
    let registry = RegistryApiClient::with_credentials(registry, &read_credentials(paths)?)?;
    let path = paths.network();
    let renamed = files::set_aside(&path).ok();
    tracing::warn!(
        fault = %Chain(&fault),
        renamed = %renamed.unwrap_or_default().display(),
        "network document cannot be used: it is fetched from the registry"
    );
    let random = Randomness::from_system();
    let (mut delay, mut is_reported) = (FIRST_RETRY_DELAY, false);
    loop {
        let why = match registry.get::<SignedDocument>("/v1/network").await {
            Ok(document) => match check(&document, &cas) {
                Ok(()) => return write(&document, paths),
                Err(why) => why,
            },
            Err(
                error @ RegistryApiError::Rejected {
                    status: REJECTED_STATUS,
                    ..
                },
            ) => {
                let why = format!(
                    "it cannot be used, and the registry does not send it any more ({error}): join again with an invitation: warren join --replace -"
                );
                return Err(identity_error(&path, why));
            }
            Err(error) => Chain(&error).to_string(),
        };
        if !is_reported {
            let line = format!(
                "{} cannot be used; the node starts as soon as the registry sends it: {why}",
                path.display()
            );
            tracing::warn!("{line}");
            report(&line);
            is_reported = true;
        }
        tokio::time::sleep(random.around(delay)).await;
        delay = (delay * 2).min(MAX_RETRY_DELAY);
    }
}

fn check(document: &SignedDocument, cas: &[CertificateDer<'_>]) -> Result<(), String> {
    let opened = signed::open(document, cas).map_err(|error| Chain(&error).to_string())?;
    match NetworkDocument::read(&opened.payload) {
        Ok(_) => Ok(()),
        Err(error) => Err(Chain(&error).to_string()),
    }
}

fn write(document: &SignedDocument, paths: &Paths) -> Result<(), StartError> {
    let path = paths.network();
    let text = serde_json::to_vec(document).map_err(std::io::Error::from);
    text.and_then(|text| files::replace(&path, &text, Access::ours(0o600)))
        .map_err(|source| StartError::Folder { path, source })?;
    tracing::info!("network document fetched from the registry");
    Ok(())
}
