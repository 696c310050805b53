//! Issues certificates, each in one transaction: invitations, keys, prefixes and names.

use super::{Sqlite, cannot, prefix_of};
use crate::{
    clock::UnixSeconds,
    pki::{authority::IssuedCertificate, request::ProvenKey},
    store::{CheckedClaim, IssueError, Member, NewInvitation, NodeProperties, Sign, StorageError},
};
use policies::names::Prefix;
use rusqlite::{Connection, OptionalExtension, params};

/// Number and length of a prefix for a query; both NULL where there is none.
fn numbers(prefix: Option<Prefix>) -> (Option<u32>, Option<u8>) {
    (prefix.map(Prefix::number), prefix.map(Prefix::length))
}

/// Returns whether a key may have a certificate for `prefix`: it is not blocked, and no other node
/// has it.
fn key_is_free(
    connection: &Connection,
    key: &[u8; 32],
    prefix: Option<Prefix>,
    now: UnixSeconds,
) -> rusqlite::Result<bool> {
    let (number, length) = numbers(prefix);
    let mut find = connection.prepare_cached(
        "SELECT 1 FROM certificates WHERE key = ?1 AND (revoked_s IS NOT NULL
             OR (not_after_s > ?2 AND NOT (number IS ?3 AND length IS ?4)))",
    )?;
    Ok(!find.exists(params![key, now, number, length])?)
}

/// Whether somebody has a good certificate for a prefix, or could still renew one.
fn is_live(
    connection: &Connection,
    prefix: Prefix,
    renewable_since: UnixSeconds,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM certificates
                 WHERE number = ?1 AND length = ?2 AND revoked_s IS NULL AND not_after_s > ?3",
        )?
        .exists(params![prefix.number(), prefix.length(), renewable_since])
}

fn keep_certificate(
    connection: &Connection,
    prefix: Prefix,
    key: &[u8; 32],
    issued: &IssuedCertificate,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO certificates (serial, number, length, key, not_before_s, not_after_s, certificate,
                 authority) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            issued.serial,
            prefix.number(),
            prefix.length(),
            key,
            issued.not_before,
            issued.not_after,
            issued.certificate,
            issued.authority
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO prefixes (number, length, until_s) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET until_s = max(until_s, excluded.until_s)",
        )?
        .execute(params![prefix.number(), prefix.length(), issued.not_after])?;
    Ok(())
}

/// Returns the prefix of the node that has this name.
fn owner(connection: &Connection, name: &str) -> rusqlite::Result<Option<Prefix>> {
    connection
        .prepare_cached("SELECT number, length FROM prefixes WHERE name = ?1")?
        .query_row([name], |row| Ok(prefix_of(row, 0)))
        .optional()
        .map(Option::flatten)
}

impl Sqlite {
    /// Whether a name may be given to somebody new.
    fn name_is_free(&self, name: &str, now: UnixSeconds) -> Result<bool, IssueError> {
        let failed = cannot("find a name");
        match owner(&self.connection, name).map_err(&failed)? {
            Some(prefix) => Ok(!is_live(&self.connection, prefix, now).map_err(&failed)?),
            None => Ok(true),
        }
    }

    pub(super) fn keep_invitation(
        &mut self,
        invitation: &NewInvitation,
        now: UnixSeconds,
    ) -> Result<(), IssueError> {
        let failed = cannot("keep an invitation");
        let NewInvitation {
            token,
            uses,
            expires_at,
            wanted,
            anonymous,
        } = invitation;
        if let Some(name) = &wanted.name {
            let open =
                "SELECT 1 FROM invitations WHERE name = ?1 AND used < uses AND expires_s > ?2";
            let asked = self.connection.prepare_cached(open);
            let invited = asked
                .and_then(|mut find| find.exists(params![name, now]))
                .map_err(&failed)?;
            if invited || !self.name_is_free(name, now)? {
                return Err(IssueError::NameTaken);
            }
        }
        if let Some(prefix) = wanted.prefix {
            self.sweep(now)?;
            if !self.prefix_is_free(prefix, now)? {
                return Err(IssueError::PrefixTaken);
            }
        }
        let number = wanted.prefix.map(Prefix::number);
        let length = wanted.prefix.map(Prefix::length).or(wanted.length);
        self.connection
            .execute(
                "INSERT INTO invitations (token, made_s, expires_s, uses, name, number, length, anonymous)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![token, now, expires_at, uses, wanted.name, number, length, anonymous],
            )
            .map(|_| ())
            .map_err(|error| failed(error).into())
    }

    /// Whether exactly this prefix can be given to somebody new: it is nobody's, or its owner's
    /// certificates are revoked or over.
    fn prefix_is_free(&self, prefix: Prefix, now: UnixSeconds) -> Result<bool, IssueError> {
        let failed = cannot("find a prefix");
        let known = self
            .connection
            .prepare_cached("SELECT 1 FROM prefixes WHERE number = ?1 AND length = ?2")
            .and_then(|mut find| find.exists(params![prefix.number(), prefix.length()]))
            .map_err(&failed)?;
        if known {
            Ok(
                !is_live(&self.connection, prefix, now.saturating_sub_s(self.grace_s))
                    .map_err(&failed)?,
            )
        } else {
            Ok(self.allocator.is_free(prefix))
        }
    }

    /// Spends the token; what it is good for.
    fn spend(&self, token: &[u8; 32], now: UnixSeconds) -> Result<NodeProperties, IssueError> {
        let failed = cannot("spend an invitation");
        self.connection
            .prepare_cached(
                "UPDATE invitations SET used = used + 1, used_s = ?2
                     WHERE token = ?1 AND used < uses AND expires_s > ?2 RETURNING name, number, length",
            )
            .and_then(|mut spend| {
                spend
                    .query_row(params![token, now], |row| {
                        let length: Option<u8> = row.get(2)?;
                        let number: Option<u32> = row.get(1)?;
                        let prefix =
                            number.zip(length).and_then(|(number, length)| Prefix::new(number, length));
                        Ok(NodeProperties { name: row.get(0)?, length, prefix })
                    })
                    .optional()
            })
            .map_err(&failed)?
            .ok_or(IssueError::Token)
    }

    /// One claim: all or nothing, in the database and in the allocator.
    pub(super) fn issue(
        &mut self,
        checked: &CheckedClaim,
        sign: Sign<'_>,
    ) -> Result<(Prefix, IssuedCertificate), IssueError> {
        let failed = cannot("issue a certificate");
        let (mut taken, renewable_since) = (None, checked.now.saturating_sub_s(self.grace_s));
        let outcome = self.together("issue a certificate", |this| {
            let wanted = match &checked.token {
                Some(token) => this.spend(token, checked.now)?,
                None => checked.wanted.clone(),
            };
            let key = checked.key.hash();
            if !key_is_free(&this.connection, &key, None, checked.now).map_err(&failed)? {
                return Err(IssueError::KeyKnown);
            }
            let prefix = match wanted.prefix {
                Some(prefix) if !this.prefix_is_free(prefix, checked.now)? => {
                    return Err(IssueError::PrefixTaken);
                }
                Some(prefix) => {
                    // It may be resting: then it is taken already.
                    taken = this.allocator.take(prefix).then_some(prefix);
                    prefix
                }
                None => {
                    let length = wanted.length.unwrap_or(checked.length);
                    taken = this.allocator.allocate(length);
                    let prefix = taken.ok_or(IssueError::Full)?;
                    if is_live(&this.connection, prefix, renewable_since).map_err(&failed)? {
                        // A wrong bit in a number: SQLite's check does not see it.
                        return Err(StorageError::Value {
                            what: "a live prefix as a free one,",
                        }
                        .into());
                    }
                    prefix
                }
            };
            let issued = sign(prefix).map_err(IssueError::Sign)?;
            keep_certificate(&this.connection, prefix, &key, &issued).map_err(&failed)?;
            if let Some(name) = &wanted.name {
                this.give_name(prefix, name, checked.now)?;
            }
            Ok((prefix, issued))
        });
        if let (Err(_), Some(prefix)) = (&outcome, taken) {
            self.allocator.release(prefix);
        }
        outcome
    }

    fn give_name(&self, prefix: Prefix, name: &str, now: UnixSeconds) -> Result<(), IssueError> {
        let failed = cannot("give a name");
        if !self.name_is_free(name, now)?
            && owner(&self.connection, name).map_err(&failed)? != Some(prefix)
        {
            return Err(IssueError::NameTaken);
        }
        self.connection
            .execute("UPDATE prefixes SET name = NULL WHERE name = ?1", [name])
            .map_err(&failed)?;
        self.connection
            .execute(
                "UPDATE prefixes SET name = ?3 WHERE number = ?1 AND length = ?2",
                params![prefix.number(), prefix.length(), name],
            )
            .map_err(&failed)?;
        Ok(())
    }

    /// One renewal: all or nothing.
    pub(super) fn issue_again(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now: UnixSeconds,
        sign: Sign<'_>,
    ) -> Result<IssuedCertificate, IssueError> {
        let failed = cannot("renew a certificate");
        let renewable_since = now.saturating_sub_s(self.grace_s);
        self.together("renew a certificate", |this| {
            let live = this
                .connection
                .prepare_cached(
                    "SELECT 1 FROM certificates
                         WHERE serial = ?1 AND revoked_s IS NULL AND not_after_s > ?2",
                )
                .and_then(|mut find| find.exists(params![old.serial, renewable_since]))
                .map_err(&failed)?;
            if !live {
                return Err(IssueError::NotLive);
            }
            let hash = key.hash();
            if !key_is_free(&this.connection, &hash, Some(old.prefix), now).map_err(&failed)? {
                return Err(IssueError::KeyKnown);
            }
            let issued = sign(old.prefix).map_err(IssueError::Sign)?;
            keep_certificate(&this.connection, old.prefix, &hash, &issued).map_err(&failed)?;
            Ok(issued)
        })
    }
}
