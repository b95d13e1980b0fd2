//! What a committed transaction changes in the snapshot.
//!
//! It writes nothing to the store, and is applied only after the transaction is on the disk.

use super::identity;
use crate::decision::principal::{ApiKey, Shop};
use crate::id::ShopId;
use crate::secret::Digest;
use crate::snapshot::Snapshot;
use crate::store::{AdminTokenRecord, AssertionKeyRecord, SigningKeyRecord, TokenRecord};

/// One change.
#[derive(Debug)]
pub(super) enum Change {
    PutShop(Shop),
    RemoveShop(ShopId),
    PutKey(ApiKey),
    RemoveKey(Digest),
    SetSigningKeys(Vec<SigningKeyRecord>),
    SetAssertionKeys(Vec<AssertionKeyRecord>),
    RevokeToken(TokenRecord),
}

/// The changes of one transaction, in their order: collected while it is written, applied only
/// once it is on the disk.
#[derive(Debug, Default)]
pub(super) struct Patch {
    snapshot: Vec<Change>,
    identity: Vec<identity::Change>,
    admin_tokens: Vec<AdminTokenRecord>,
}

impl Patch {
    pub(super) fn push(&mut self, change: Change) {
        self.snapshot.push(change);
    }

    /// A change of who may sign in, or is.
    pub(super) fn identity(&mut self, change: identity::Change) {
        self.identity.push(change);
    }

    /// An admin token is another from now on.
    pub(super) fn admin_token(&mut self, token: AdminTokenRecord) {
        self.admin_tokens.push(token);
    }

    pub(super) fn take_admin_tokens(&mut self) -> Vec<AdminTokenRecord> {
        std::mem::take(&mut self.admin_tokens)
    }

    pub(super) fn take_identity(&mut self) -> Vec<identity::Change> {
        std::mem::take(&mut self.identity)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.snapshot.is_empty()
    }

    pub(super) fn apply(self, snapshot: &mut Snapshot) {
        for change in self.snapshot {
            match change {
                Change::PutShop(shop) => snapshot.put_shop(shop),
                Change::RemoveShop(id) => snapshot.remove_shop(&id),
                Change::PutKey(key) => snapshot.put_api_key(key),
                Change::RemoveKey(digest) => snapshot.remove_api_key(&digest),
                Change::SetSigningKeys(keys) => snapshot.set_signing_keys(&keys),
                Change::SetAssertionKeys(keys) => snapshot.set_assertion_keys(&keys),
                Change::RevokeToken(token) => snapshot.revoke_token(&token),
            }
        }
    }
}
