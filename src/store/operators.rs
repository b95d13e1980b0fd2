//! Operators and their sessions: their records, and what is read and written of them.
//!
//! An operator's second factor is sealed in its record; its password and recovery codes are kept
//! as digests, a session's cookie too. No rule of the product is kept here, but that two operators
//! never have the same name.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::read::ReadTx;
use super::records::{Record, Role, bytes_text, digest_text, digest_texts, unix_ms};
use super::schema;
use super::write::WriteTx;
use crate::clock::Timestamp;
use crate::id::{OperatorId, SessionId, ShopId};
use crate::secret::{Digest, SecretBytes};

/// Bytes of a second factor's secret (RFC 4226 §4 recommends 160 bits).
pub const TOTP_BYTES: usize = 20;

/// A password as it is kept: a PHC string (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes over a PHC string.
    #[must_use]
    pub fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[password hash]")
    }
}

/// Whom an identity provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OidcSubject {
    /// The provider: its `iss`.
    pub issuer: String,
    /// Its name for the person: `sub`.
    pub subject: String,
}

/// A second factor that its owner has confirmed with a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpRecord {
    /// The secret, sealed.
    #[serde(with = "bytes_text")]
    pub sealed: Vec<u8>,
    /// The latest time step whose code was accepted: none is accepted twice.
    pub last_step: u64,
    /// When it was confirmed.
    #[serde(with = "unix_ms")]
    pub confirmed_at: Timestamp,
    /// What is kept of the recovery codes that are left.
    #[serde(with = "digest_texts")]
    pub recovery: Vec<Digest>,
}

/// An operator: a human of the admin plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Its public id.
    pub id: OperatorId,
    /// What it signs in with; unique but for case.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The shops that a member sees; empty for everyone else.
    pub shops: BTreeSet<ShopId>,
    /// Its password; `None` if it has none, and signs in by an identity provider.
    pub password: Option<PasswordHash>,
    /// When its password was last set.
    #[serde(with = "unix_ms")]
    pub password_changed_at: Timestamp,
    /// Its second factor.
    pub totp: Option<TotpRecord>,
    /// Who it is at an identity provider.
    pub oidc: Option<OidcSubject>,
    /// It may not sign in.
    pub disabled: bool,
    /// When it was made.
    #[serde(with = "unix_ms")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "unix_ms")]
    pub updated_at: Timestamp,
    /// Counts its changes, for `ETag` and `If-Match`; signing in is none.
    pub revision: u64,
}

/// A session of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its public id.
    pub id: SessionId,
    /// Whose it is.
    pub operator: OperatorId,
    /// What is kept of its cookie.
    #[serde(with = "digest_text")]
    pub digest: Digest,
    /// When it began.
    #[serde(with = "unix_ms")]
    pub created_at: Timestamp,
    /// When it was last used, to the precision of the batches that write it.
    #[serde(with = "unix_ms")]
    pub last_seen_at: Timestamp,
    /// When it ends, however busy.
    #[serde(with = "unix_ms")]
    pub expires_at: Timestamp,
    /// From where it began.
    pub address: Option<IpAddr>,
    /// With what, as the browser called itself; shortened.
    pub user_agent: String,
}

impl Record for OperatorRecord {}
impl Record for SessionRecord {}

/// Names are one when they are so without regard to case.
#[must_use]
pub fn folded(name: &str) -> String {
    name.to_lowercase()
}

fn totp_context(id: OperatorId) -> Vec<u8> {
    format!("{}/{id}/totp", schema::name(schema::OPERATORS)).into_bytes()
}

impl ReadTx {
    /// The operator `id`.
    pub fn operator(&self, id: OperatorId) -> Result<Option<OperatorRecord>, StoreError> {
        self.record(schema::OPERATORS, &schema::operator_id(id))
    }

    /// The operator of this name, in whatever case.
    pub fn operator_named(&self, name: &str) -> Result<Option<OperatorRecord>, StoreError> {
        let table = schema::OPERATORS_BY_NAME;
        let Some(id) = self.bytes(table, folded(name).as_bytes())? else { return Ok(None) };
        let missing = || self.context.bad_record(table, &"it names an operator that is gone");
        let id = schema::id_of::<8>(&id).ok_or_else(missing)?;
        self.operator(OperatorId(u64::from_be_bytes(id)))?.ok_or_else(missing).map(Some)
    }

    /// Up to `limit` operators in the order of their ids, from the first after `after`.
    pub fn operators(
        &self,
        after: Option<OperatorId>,
        limit: usize,
    ) -> Result<Vec<OperatorRecord>, StoreError> {
        let after = after.map(schema::operator_id);
        let after = after.as_ref().map(<[u8; 8]>::as_slice);
        self.page(schema::OPERATORS, after, limit)
    }

    /// The secret of an operator's second factor, unsealed.
    pub fn totp_secret(
        &self,
        operator: OperatorId,
        totp: &TotpRecord,
    ) -> Result<SecretBytes<TOTP_BYTES>, StoreError> {
        let opened = self.context.sealer.open(&totp_context(operator), &totp.sealed);
        let opened = opened.map_err(|error| self.context.bad_record(schema::OPERATORS, &error))?;
        let bytes: &[u8; TOTP_BYTES] = opened.as_slice().try_into().map_err(|_| {
            let detail = "a second factor's secret is 20 bytes long";
            self.context.bad_record(schema::OPERATORS, &detail)
        })?;
        Ok(SecretBytes::new(*Zeroizing::new(*bytes)))
    }

    /// The session whose cookie has this digest.
    pub fn session(&self, digest: &Digest) -> Result<Option<SessionRecord>, StoreError> {
        self.record(schema::SESSIONS, digest.as_bytes())
    }

    /// Every session.
    pub fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.page(schema::SESSIONS, None, usize::MAX)
    }
}

impl WriteTx {
    /// Creates or replaces an operator; [`StoreError::NameTaken`] if another has its name.
    pub fn put_operator(&mut self, operator: &OperatorRecord) -> Result<(), StoreError> {
        let id = schema::operator_id(operator.id);
        let name = folded(&operator.name);
        if self.operator_named(&name)?.is_some_and(|other| other.id != operator.id) {
            return Err(StoreError::NameTaken);
        }
        let old = self.operator(operator.id)?.map(|old| folded(&old.name));
        if let Some(old) = old.filter(|old| *old != name) {
            self.remove(schema::OPERATORS_BY_NAME, old.as_bytes())?;
        }
        self.insert(schema::OPERATORS_BY_NAME, name.as_bytes(), &id)?;
        self.put(schema::OPERATORS, &id, operator)
    }

    /// Deletes an operator; `false` if there was none. Its sessions are another call.
    pub fn delete_operator(&mut self, id: OperatorId) -> Result<bool, StoreError> {
        let Some(operator) = self.operator(id)? else {
            return Ok(false);
        };
        self.remove(schema::OPERATORS_BY_NAME, folded(&operator.name).as_bytes())?;
        self.remove(schema::OPERATORS, &schema::operator_id(id))
    }

    /// Seals the secret of a second factor for the record of `operator`.
    pub fn seal_totp(
        &self,
        operator: OperatorId,
        secret: &SecretBytes<TOTP_BYTES>,
    ) -> Result<Vec<u8>, StoreError> {
        let entropy = self.context.entropy.as_ref();
        let sealed = self.context.sealer.seal(entropy, &totp_context(operator), secret.expose());
        sealed.map_err(|_| StoreError::Entropy { path: self.context.path.clone() })
    }

    /// Creates or replaces a session.
    pub fn put_session(&mut self, session: &SessionRecord) -> Result<(), StoreError> {
        self.put(schema::SESSIONS, session.digest.as_bytes(), session)
    }

    /// Ends a session; `false` if there was none.
    pub fn delete_session(&mut self, digest: &Digest) -> Result<bool, StoreError> {
        self.remove(schema::SESSIONS, digest.as_bytes())
    }

    /// Notes when sessions were last used. Times only move forward; those that ended are skipped.
    pub fn touch_sessions(&mut self, used: &[(Digest, Timestamp)]) -> Result<(), StoreError> {
        for (digest, at) in used {
            let Some(mut session) = self.session(digest)? else { continue };
            if session.last_seen_at < *at {
                session.last_seen_at = *at;
                self.put_session(&session)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, operator, session};
    use super::*;

    #[test]
    fn what_was_stored_is_read() {
        let bench = Bench::in_memory();
        let written: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_operator(&operator(2, "Bob"))?;
            tx.put_operator(&operator(1, "ada"))?;
            tx.put_session(&session(1, 1))
        });
        written.unwrap();
        let look = |tx: &ReadTx| {
            assert_eq!(tx.operator(OperatorId(1))?, Some(operator(1, "ada")));
            assert_eq!(tx.operator_named("BOB")?, Some(operator(2, "Bob")));
            assert_eq!(tx.operator_named("eve")?, None);
            assert_eq!(tx.operators(None, 9)?, [operator(1, "ada"), operator(2, "Bob")]);
            assert_eq!(tx.operators(Some(OperatorId(1)), 9)?, [operator(2, "Bob")]);
            assert_eq!(tx.sessions()?, [session(1, 1)]);
            assert_eq!(tx.session(&Digest::from_bytes([2; 32]))?, None);
            Ok(())
        };
        bench.store.read(look).unwrap();
    }

    #[test]
    fn names_follow_their_operators() {
        let bench = Bench::in_memory();
        let named = |tx: &ReadTx, name: &str| Ok(tx.operator_named(name)?.map(|one| one.id.0));
        let done: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_operator(&operator(1, "Ada"))?;
            assert_eq!(tx.put_operator(&operator(2, "aDA")), Err(StoreError::NameTaken));
            tx.put_operator(&operator(1, "ADA"))?;
            tx.put_operator(&operator(1, "Eve"))?;
            assert_eq!(named(tx, "ada")?, None);
            tx.put_operator(&operator(2, "ada"))?;
            assert!(tx.delete_operator(OperatorId(1))? && !tx.delete_operator(OperatorId(1))?);
            assert_eq!((named(tx, "eve")?, named(tx, "ada")?), (None, Some(2)));
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn a_second_factor_opens_for_its_own_operator_only() {
        let bench = Bench::in_memory();
        let secret = SecretBytes::new(*b"never in the clear !");
        let done: Result<(), StoreError> = bench.store.write(|tx| {
            let sealed = tx.seal_totp(OperatorId(1), &secret)?;
            assert!(!sealed.windows(8).any(|bytes| bytes == b"in the c"));
            let totp = TotpRecord { sealed, ..operator(1, "ada").totp.unwrap() };
            assert_eq!(tx.totp_secret(OperatorId(1), &totp)?.expose(), secret.expose());
            assert!(tx.totp_secret(OperatorId(2), &totp).is_err());
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn times_of_use_move_forward_and_bring_nobody_back() {
        let bench = Bench::in_memory();
        let at = Timestamp::from_unix_ms;
        let done: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_session(&session(1, 1))?;
            let of = |byte: u8| Digest::from_bytes([byte; 32]);
            tx.touch_sessions(&[(of(1), at(9)), (of(1), at(5)), (of(2), at(9))])?;
            assert_eq!(tx.session(&of(1))?.map(|one| one.last_seen_at), Some(at(9)));
            assert_eq!(tx.sessions()?.len(), 1);
            assert!(tx.delete_session(&of(1))? && !tx.delete_session(&of(1))?);
            Ok(())
        });
        done.unwrap();
    }

    /// What an earlier build stored, byte by byte: these texts may never change.
    #[test]
    fn records_of_encoding_1_are_read() {
        let stored = concat!(
            "\u{1}",
            r#"{"id":"op_0000000000000001","name":"ada","role":"member","shops":["one"],"#,
            r#""password":"$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA","password_changed_at":4,"#,
            r#""totp":{"sealed":"AQID","last_step":18446744073709551615,"confirmed_at":5,"#,
            r#""recovery":"BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYHBwcHBwcHBwcHBwcHBwcHBwcHBw"#,
            r#"cHBwcHBwcHBwcHBw"},"oidc":{"issuer":"https://idp.example","subject":"1"},"#,
            r#""disabled":false,"created_at":8,"updated_at":9,"revision":10}"#
        );
        assert_eq!(OperatorRecord::decode(stored.as_bytes()), Ok(operator(1, "ada")));
        assert_eq!(operator(1, "ada").encode().unwrap(), stored.as_bytes());
        let stored = concat!(
            "\u{1}",
            r#"{"id":"ses_0000000000000003","operator":"op_0000000000000001","#,
            r#""digest":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM","created_at":1,"#,
            r#""last_seen_at":2,"expires_at":3,"address":"2001:db8::1","#,
            r#""user_agent":"Mozilla/5.0 \"x\""}"#
        );
        assert_eq!(SessionRecord::decode(stored.as_bytes()), Ok(session(3, 1)));
        assert_eq!(session(3, 1).encode().unwrap(), stored.as_bytes());
        let shown = format!("{:?} {:?}", operator(1, "ada"), session(3, 1));
        assert!(!shown.contains("argon2"), "{shown}");
    }
}
