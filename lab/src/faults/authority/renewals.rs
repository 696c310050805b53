//! Renewals of certificates of each age, with each key.

use super::matrix::{Cell, Member, START_S, cells, revoke, start_registry};
use crate::{
    faults::{Figure, Outcome},
    progress::progress,
    registry_connection::{Response, csr_for},
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use wire::registry::{Renewal, Renewed, VERSION};

/// Which renewals are accepted. The registry's own tests read the same table.
const RENEWALS: &str = include_str!("../../../../registry/tests/authority/renewals.txt");

pub(super) fn run() -> Result<Outcome> {
    progress("renewals of certificates of each age, with each key");
    let registry = start_registry(&[])?;
    let cells = cells(RENEWALS);
    // A node that has renewed its certificate cannot stand for one that has not.
    let members = cells.iter().map(|cell| {
        let member = Member::join(&registry)?;
        if cell.column.starts_with("revoked") {
            let status = revoke(&registry, member.prefix)?;
            ensure!(status == 200, "a node cannot be revoked: {status}");
        }
        Ok((cell, member))
    });
    let members: Vec<_> = members.collect::<Result<_>>()?;
    let other = Member::join(&registry)?;
    let (mut wrong, mut wrong_prefixes) = (0, 0);
    for (cell, member) in &members {
        let age_s: u64 = cell.row.parse().context("the table has a wrong age")?;
        registry.set_clock(START_S + age_s)?;
        let (status, body) = renew(&registry, cell, member, &other)?;
        if status.to_string() != cell.expected {
            wrong += 1;
            progress(format!("{} at {age_s} s: {status} {body}", cell.column));
        } else if status == 200 {
            let renewed: Renewed = serde_json::from_str(&body)?;
            let serial = wire::signed::serial_of_pem(&renewed.certificate);
            let nodes = registry.list_nodes()?;
            let recorded = nodes
                .iter()
                .find(|node| Some(&node.serial) == serial.as_ref());
            let prefix = recorded.map(|node| node.prefix.clone());
            wrong_prefixes += u64::from(prefix != Some(member.prefix.to_string()));
        }
    }
    Ok(Outcome {
        id: "renewals",
        fault: "renewals of certificates that are valid, due, expired and revoked, with their own, a new and another node's key, for their own and another prefix",
        tries: cells.len(),
        figures: vec![
            Figure::count("wrong answers", wrong, 0),
            Figure::count("certificates for another prefix", wrong_prefixes, 0),
        ],
    })
}

/// Renews the certificate of a member as the column of the cell says.
fn renew(
    registry: &StandaloneRegistry,
    cell: &Cell,
    member: &Member,
    other: &Member,
) -> Result<Response> {
    let new_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let csr = match cell.column {
        "own-key" | "revoked" => csr_for(&member.key)?,
        "new-key" | "revoked-new-key" => csr_for(&new_key)?,
        "other-key" => csr_for(&other.key)?,
        "other-prefix" => {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::CommonName, other.prefix.to_string());
            params.serialize_request(&member.key)?.pem()?
        }
        column => anyhow::bail!("the table has an unknown column {column}"),
    };
    let renewal = serde_json::to_vec(&Renewal {
        version: VERSION,
        csr,
    })?;
    let connector = registry.connector(Some(member.identity()))?;
    registry.run_inside(|| {
        connector
            .connect(None)?
            .request("POST", "/v1/renewals", &renewal)
    })
}
