//! Produces faults of the certificate, the key and the signed network document.

use super::network::{Network, identity_file, warren};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the command of a case; `None` if the case is not about the node's identity.
pub(super) fn command(network: &Network, case: &str, root: &Path) -> Option<Command> {
    let read = |file: &str| fs::read_to_string(identity_file(root, file)).unwrap();
    match case {
        "certificate missing" => fs::remove_file(identity_file(root, "node.crt")).unwrap(),
        "certificate malformed" => fs::write(identity_file(root, "node.crt"), "letters\n").unwrap(),
        "certificate foreign" => {
            let foreign = network.path("other").join("etc/warren-registry/ca.crt");
            fs::copy(foreign, identity_file(root, "ca.crt")).unwrap();
        }
        "certificate with too much" => {
            let (node, ca) = (read("node.crt"), read("ca.crt"));
            fs::write(identity_file(root, "node.crt"), node + &ca).unwrap();
        }
        "certificate chain too long" => {
            fs::write(identity_file(root, "node.crt"), read("node.crt").repeat(3)).unwrap();
        }
        "certificate expired" => expire_certificate(network, root),
        "key missing" => fs::remove_file(identity_file(root, "node.key")).unwrap(),
        _ => return None,
    }
    Some(warren(&["run"], root))
}

/// Gives the node another key, which the registry does not know, with a certificate that expired in 2021.
fn expire_certificate(network: &Network, root: &Path) {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let registry = network.path("registry").join("etc/warren-registry");
    let ca_key = rcgen::KeyPair::from_pem(&read(registry.join("ca.key"))).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read(registry.join("ca.crt")), ca_key).unwrap();
    let node_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "7/16");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = params.signed_by(&node_key, &issuer).unwrap();
    fs::write(identity_file(root, "node.key"), node_key.serialize_pem()).unwrap();
    fs::write(identity_file(root, "node.crt"), certificate.pem()).unwrap();
}

/// Replaces one letter of the signed payload of the network document.
pub(super) fn alter_payload(root: &Path) {
    let file = identity_file(root, "network.json");
    let text = fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("\"payload\"").unwrap();
    let position = after.find(": \"").unwrap() + 30;
    let letter = if after[position..].starts_with('A') {
        "B"
    } else {
        "A"
    };
    let (start, end) = (&after[..position], &after[position + 1..]);
    fs::write(file, format!("{before}\"payload\"{start}{letter}{end}")).unwrap();
}
