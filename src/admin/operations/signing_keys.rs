//! The keys that sign widget tokens: which there are, and how they take turns.
//!
//! Nothing here signs or verifies a token, and nothing happens by itself: `jobs` calls
//! [`maintain`].

use std::time::Duration;

use super::{OperationError, now};
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::{Node, new_signing_key};
use crate::admin::patch::Change;
use crate::clock::Timestamp;
use crate::store::{SigningKeyRecord, WriteTx};

/// A signing key, without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningKeyInfo {
    /// Its number, as tokens carry it.
    pub id: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it only verifies; `None` for the one that signs.
    pub retired_at: Option<Timestamp>,
    /// The latest expiry of any token it signed.
    pub last_expiry: Timestamp,
}

impl SigningKeyInfo {
    fn of(key: &SigningKeyRecord) -> Self {
        let SigningKeyRecord { id, created_at, retired_at, last_expiry, .. } = *key;
        Self { id, created_at, retired_at, last_expiry }
    }
}

/// All signing keys, in the order of their numbers.
pub fn list(node: &Node, caller: &Caller) -> Result<Vec<SigningKeyInfo>, OperationError> {
    caller.require(Permission::NodeRead)?;
    let keys = node.store.read(crate::store::ReadTx::signing_keys)?;
    Ok(keys.iter().map(SigningKeyInfo::of).collect())
}

/// Lets a new key sign from now on. The old one verifies until the last token it signed has
/// expired, and is deleted by the first rotation or [`maintain`] after that.
pub fn rotate(node: &Node, caller: &Caller) -> Result<SigningKeyInfo, OperationError> {
    caller.require(Permission::NodeWrite)?;
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let mut keys = tx.signing_keys()?;
        let last = keys.iter().map(|key| key.id).max().unwrap_or(0);
        let id = last.checked_add(1).ok_or_else(|| {
            OperationError::Conflict("there are no numbers left for signing keys".to_owned())
        })?;
        for key in keys.iter_mut().filter(|key| key.retired_at.is_none()) {
            key.retired_at = Some(now);
            tx.put_signing_key(key)?;
        }
        let fresh = new_signing_key(id, node.entropy.as_ref(), now)?;
        tx.put_signing_key(&fresh)?;
        let info = SigningKeyInfo::of(&fresh);
        let before = keys.iter().filter(|key| key.retired_at == Some(now)).map(|key| key.id).max();
        let signs = |id: Option<u32>| Some(serde_json::json!({ "signs": id }));
        let (subject, after) = (Subject::new(SubjectKind::SigningKey, id), signs(Some(id)));
        audit::record(tx, caller, now, Action::SigningKeyRotated, subject, signs(before), after)?;
        keys.push(fresh);
        remove_spent(tx, &mut keys, now)?;
        patch.push(Change::SetSigningKeys(keys));
        Ok(info)
    })
}

/// Rotates when the signing key is older than `rotation`, and deletes retired keys that no live
/// token needs. Costs a read when there is nothing to do.
pub fn maintain(node: &Node, rotation: Duration) -> Result<(), OperationError> {
    let now = now(node);
    let keys = node.store.read(crate::store::ReadTx::signing_keys)?;
    let due =
        |key: &SigningKeyRecord| key.retired_at.is_none() && now.since(key.created_at) >= rotation;
    if keys.iter().any(due) {
        return rotate(node, &Caller::system()).map(drop);
    }
    if !keys.iter().any(|key| is_spent(key, now)) {
        return Ok(());
    }
    node.mutate(|tx, patch, _| {
        let mut keys = tx.signing_keys()?;
        remove_spent(tx, &mut keys, now)?;
        patch.push(Change::SetSigningKeys(keys));
        Ok(())
    })
}

/// Writes the signing key as it is, to find out whether the store takes writes again after one it
/// refused.
pub fn probe(node: &Node) -> Result<(), OperationError> {
    node.mutate(|tx, _, _| match tx.signing_keys()?.iter().find(|key| key.retired_at.is_none()) {
        Some(key) => Ok(tx.put_signing_key(key)?),
        None => Ok(()),
    })
}

/// Deletes retired keys that no live token needs.
fn remove_spent(
    tx: &mut WriteTx,
    keys: &mut Vec<SigningKeyRecord>,
    now: Timestamp,
) -> Result<(), OperationError> {
    for key in keys.extract_if(.., |key| is_spent(key, now)) {
        tx.delete_signing_key(key.id)?;
        let subject = Subject::new(SubjectKind::SigningKey, key.id);
        let system = Caller::system();
        audit::record(tx, &system, now, Action::SigningKeyRemoved, subject, None, None)?;
    }
    Ok(())
}

/// Whether nothing that `key` signed can still verify.
fn is_spent(key: &SigningKeyRecord, now: Timestamp) -> bool {
    key.retired_at.is_some() && key.last_expiry <= now
}
