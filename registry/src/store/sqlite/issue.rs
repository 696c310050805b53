//! Issues certificates: checks the token, the key, the prefix and the name, and records the result, in one
//! transaction.

use super::{Sqlite, columns::prefix_of};
use crate::{
    clock::UnixSeconds,
    pki::{authority::IssuedCertificate, request::ProvenKey},
    store::{CheckedClaim, IssueError, Member, NewInvitation, NodeProperties, Sign, StorageError},
};
use policies::{names::Prefix, node_name::NodeName};
use rusqlite::{Connection, OptionalExtension, params};

/// Returns the number and length of a prefix as parameters of a query; both are NULL if there is no prefix.
fn numbers(prefix: Option<Prefix>) -> (Option<u32>, Option<u8>) {
    (prefix.map(Prefix::number), prefix.map(Prefix::length))
}

/// Returns whether a key may be certified for `prefix`: it was never revoked, and no live certificate of
/// another node has it.
fn key_is_free(
    connection: &Connection,
    key: &[u8; 32],
    prefix: Option<Prefix>,
    now: UnixSeconds,
) -> rusqlite::Result<bool> {
    let (number, length) = numbers(prefix);
    let mut query = connection.prepare_cached(
        "SELECT 1 FROM certificates WHERE key = ?1 AND (revoked_s IS NOT NULL
             OR (not_after_s > ?2 AND NOT (number IS ?3 AND length IS ?4)))",
    )?;
    Ok(!query.exists(params![key, now, number, length])?)
}

/// Returns whether a prefix has a certificate that is not revoked and expires after `moment`.
fn is_live(connection: &Connection, prefix: Prefix, moment: UnixSeconds) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM certificates
                 WHERE number = ?1 AND length = ?2 AND revoked_s IS NULL AND not_after_s > ?3",
        )?
        .exists(params![prefix.number(), prefix.length(), moment])
}

/// Records a certificate with the hash of the token that it was issued for, and keeps its prefix allocated until it
/// expires.
fn record_certificate(
    connection: &Connection,
    prefix: Prefix,
    (key, token): (&[u8; 32], Option<&[u8; 32]>),
    issued: &IssuedCertificate,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO certificates (serial, number, length, key, not_before_s, not_after_s, certificate,
                 authority, token) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            issued.serial,
            prefix.number(),
            prefix.length(),
            key,
            issued.not_before,
            issued.not_after,
            issued.certificate,
            issued.authority,
            token
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO prefixes (number, length, until_s) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET until_s = max(until_s, excluded.until_s)",
        )?
        .execute(params![prefix.number(), prefix.length(), issued.not_after])?;
    Ok(())
}

impl Sqlite {
    /// Returns whether the node `prefix` may have this name: no other node has it that is live, or whose certificate can
    /// still be renewed.
    fn name_is_free(
        &self,
        name: &str,
        prefix: Option<Prefix>,
        now: UnixSeconds,
    ) -> Result<bool, IssueError> {
        let (number, length) = numbers(prefix);
        let renewable_since = now.saturating_sub_s(self.grace_s);
        let is_taken = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM prefixes p JOIN certificates c USING (number, length)
                     WHERE p.name = ?1 COLLATE NOCASE AND NOT (p.number IS ?2 AND p.length IS ?3)
                     AND revoked_s IS NULL AND not_after_s > ?4",
            )
            .and_then(|mut query| query.exists(params![name, number, length, renewable_since]))
            .map_err(self.database.failure("find a name"))?;
        Ok(!is_taken)
    }

    /// Returns whether an invitation that can still be used has this name.
    fn name_is_invited(&self, name: &str, now: UnixSeconds) -> Result<bool, IssueError> {
        let is_invited = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM invitations
                     WHERE name = ?1 COLLATE NOCASE AND used < uses AND expires_s > ?2",
            )
            .and_then(|mut query| query.exists(params![name, now]))
            .map_err(self.database.failure("find a name"))?;
        Ok(is_invited)
    }

    pub(super) fn insert_invitation(
        &mut self,
        invitation: &NewInvitation,
        now: UnixSeconds,
    ) -> Result<(), IssueError> {
        let failed = self.database.failure("store an invitation");
        let NewInvitation {
            token,
            uses,
            expires_at,
            wanted,
            anonymous,
            created_by,
        } = invitation;
        if let Some(name) = &wanted.name
            && (self.name_is_invited(name, now)? || !self.name_is_free(name, None, now)?)
        {
            return Err(IssueError::NameTaken);
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
                "INSERT INTO invitations (token, made_s, expires_s, uses, name, number, length, anonymous, made_by)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    token,
                    now,
                    expires_at,
                    uses,
                    wanted.name,
                    number,
                    length,
                    anonymous,
                    created_by
                ],
            )
            .map(|_| ())
            .map_err(|error| failed(error).into())
    }

    /// Returns whether a new node may have exactly this prefix: it is not allocated, or its last owner's
    /// certificates are revoked or cannot be renewed any more.
    fn prefix_is_free(&self, prefix: Prefix, now: UnixSeconds) -> Result<bool, IssueError> {
        let failed = self.database.failure("find a prefix");
        let known = self
            .connection
            .prepare_cached("SELECT 1 FROM prefixes WHERE number = ?1 AND length = ?2")
            .and_then(|mut query| query.exists(params![prefix.number(), prefix.length()]))
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

    /// Consumes one use of the token; returns the properties that its invitation fixes.
    fn consume_token(
        &self,
        token: &[u8; 32],
        now: UnixSeconds,
    ) -> Result<NodeProperties, IssueError> {
        let failed = self.database.failure("use an invitation");
        self.connection
            .prepare_cached(
                "UPDATE invitations SET used = used + 1, used_s = ?2
                     WHERE token = ?1 AND used < uses AND expires_s > ?2 RETURNING name, number, length",
            )
            .and_then(|mut update| {
                update
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
            .ok_or(IssueError::TokenRejected)
    }

    pub(super) fn read_claimed(
        &self,
        token: &[u8; 32],
        key: &[u8; 32],
        now: UnixSeconds,
    ) -> Result<Option<(Prefix, String)>, StorageError> {
        // Renewals keep the token of the certificate that they replace.
        let found = self
            .connection
            .prepare_cached(
                "SELECT number, length, certificate FROM certificates
                     WHERE key = ?1 AND token = ?2 AND revoked_s IS NULL AND not_after_s > ?3
                     ORDER BY not_before_s, not_after_s LIMIT 1",
            )
            .and_then(|mut query| {
                query
                    .query_row(params![key, token, now], |row| {
                        Ok((prefix_of(row, 0), row.get(2)?))
                    })
                    .optional()
            })
            .map_err(self.database.failure("find the certificate of a claim"))?;
        let out_of_range = || {
            self.database
                .corrupt("a certificate's prefix is out of range")
        };
        found
            .map(|(prefix, certificate)| Ok((prefix.ok_or_else(out_of_range)?, certificate)))
            .transpose()
    }

    /// Returns the properties of a node that joins without a token. An open invitation keeps its name.
    fn wanted_without_token(&self, checked: &CheckedClaim) -> Result<NodeProperties, IssueError> {
        match &checked.wanted.name {
            Some(name) if self.name_is_invited(name, checked.now)? => Err(IssueError::NameTaken),
            Some(_) | None => Ok(checked.wanted.clone()),
        }
    }

    /// Carries out a claim: all of it or nothing, in the database and in the allocator.
    pub(super) fn issue(
        &mut self,
        checked: &CheckedClaim,
        sign: Sign<'_>,
    ) -> Result<(Prefix, IssuedCertificate), IssueError> {
        let failed = self.database.failure("issue a certificate");
        let (mut taken, renewable_since) = (None, checked.now.saturating_sub_s(self.grace_s));
        let outcome = self.atomically("issue a certificate", |this| {
            let wanted = match &checked.token {
                Some(token) => this.consume_token(token, checked.now)?,
                None => this.wanted_without_token(checked)?,
            };
            let key = checked.key.hash();
            if !key_is_free(&this.connection, &key, None, checked.now).map_err(&failed)? {
                return Err(IssueError::KeyRejected);
            }
            let prefix = match wanted.prefix {
                Some(prefix) if !this.prefix_is_free(prefix, checked.now)? => {
                    return Err(IssueError::PrefixTaken);
                }
                Some(prefix) => {
                    // A prefix in its grace period is allocated already.
                    taken = this.allocator.take(prefix).then_some(prefix);
                    prefix
                }
                None => {
                    let length = wanted.length.unwrap_or(checked.length);
                    taken = this.allocator.allocate(length);
                    let prefix = taken.ok_or(IssueError::NoPrefixLeft)?;
                    if is_live(&this.connection, prefix, renewable_since).map_err(&failed)? {
                        // A flipped bit in a number is nothing that SQLite's integrity check can see.
                        let detail = format!("the free prefix {prefix} has a live certificate");
                        return Err(this.database.corrupt(detail).into());
                    }
                    prefix
                }
            };
            let name = match &wanted.name {
                Some(name) => name.parse().ok(),
                None => this.certified_name(prefix)?,
            };
            let issued = sign(prefix, name.as_ref()).map_err(IssueError::Sign)?;
            let origin = (&key, checked.token.as_ref());
            record_certificate(&this.connection, prefix, origin, &issued).map_err(&failed)?;
            if let Some(name) = &wanted.name {
                this.assign_name(prefix, name, checked.now)?;
            }
            Ok((prefix, issued))
        });
        if let (Err(_), Some(prefix)) = (&outcome, taken) {
            self.allocator.release(prefix);
        }
        outcome
    }

    fn assign_name(&self, prefix: Prefix, name: &str, now: UnixSeconds) -> Result<(), IssueError> {
        let failed = self.database.failure("assign a name");
        if !self.name_is_free(name, Some(prefix), now)? {
            return Err(IssueError::NameTaken);
        }
        self.connection
            .execute(
                "UPDATE prefixes SET name = NULL WHERE name = ?1 COLLATE NOCASE",
                [name],
            )
            .map_err(&failed)?;
        self.connection
            .execute(
                "UPDATE prefixes SET name = ?3 WHERE number = ?1 AND length = ?2",
                params![prefix.number(), prefix.length(), name],
            )
            .map_err(&failed)?;
        Ok(())
    }

    /// Returns the name that certificates of the node state: its name, unless it is from before the present rule for names.
    fn certified_name(&self, prefix: Prefix) -> Result<Option<NodeName>, IssueError> {
        let name: Option<String> = self
            .connection
            .prepare_cached("SELECT name FROM prefixes WHERE number = ?1 AND length = ?2")
            .and_then(|mut query| {
                query
                    .query_row(params![prefix.number(), prefix.length()], |row| row.get(0))
                    .optional()
            })
            .map(Option::flatten)
            .map_err(self.database.failure("read a name"))?;
        Ok(name
            .filter(|name| NodeName::is_normalized(name))
            .and_then(|name| name.parse().ok()))
    }

    /// Gives a node another name. An open invitation keeps its name.
    pub(super) fn rename_node(
        &mut self,
        prefix: Prefix,
        name: &NodeName,
        now: UnixSeconds,
    ) -> Result<(), IssueError> {
        let failed = self.database.failure("rename a node");
        self.atomically("rename a node", |this| {
            if this.name_is_invited(name.as_str(), now)? {
                return Err(IssueError::NameTaken);
            }
            this.connection
                .execute(
                    "UPDATE prefixes SET renamed_s = ?3 WHERE number = ?1 AND length = ?2",
                    params![prefix.number(), prefix.length(), now],
                )
                .map_err(&failed)?;
            this.assign_name(prefix, name.as_str(), now)
        })
    }

    /// Carries out a renewal: all of it or nothing.
    pub(super) fn issue_renewal(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now: UnixSeconds,
        sign: Sign<'_>,
    ) -> Result<IssuedCertificate, IssueError> {
        let failed = self.database.failure("renew a certificate");
        let renewable_since = now.saturating_sub_s(self.grace_s);
        self.atomically("renew a certificate", |this| {
            let token: Option<[u8; 32]> = this
                .connection
                .prepare_cached(
                    "SELECT token FROM certificates
                         WHERE serial = ?1 AND revoked_s IS NULL AND not_after_s > ?2",
                )
                .and_then(|mut query| {
                    query
                        .query_row(params![old.serial, renewable_since], |row| row.get(0))
                        .optional()
                })
                .map_err(&failed)?
                .ok_or(IssueError::NotRenewable)?;
            let hash = key.hash();
            if !key_is_free(&this.connection, &hash, Some(old.prefix), now).map_err(&failed)? {
                return Err(IssueError::KeyRejected);
            }
            let name = this.certified_name(old.prefix)?;
            let issued = sign(old.prefix, name.as_ref()).map_err(IssueError::Sign)?;
            let origin = (&hash, token.as_ref());
            record_certificate(&this.connection, old.prefix, origin, &issued).map_err(&failed)?;
            Ok(issued)
        })
    }
}
