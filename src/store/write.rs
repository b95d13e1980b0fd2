//! What can be written within one transaction, and how it is taken back.
//!
//! Derived tables are kept here and nowhere else. No rule of the product is kept here: what a key
//! may be is the caller's to check; but a key or a token always has its shop.

use std::ops::{Bound, Deref};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableTable as _};

use super::error::StoreError;
use super::read::{Context, Opened, ReadTx, Source, seal_context};
use super::records::{
    AdminTokenRecord, AssertionKeyRecord, IdempotencyRecord, KeyRecord, KeySetRecord, Record,
    SealedAssertionKey, SealedSigningKey, ShopRecord, SigningKeyRecord, TokenRecord,
};
use super::schema::{self, Table};
use crate::clock::Timestamp;
use crate::id::{AdminTokenId, KeyId, ShopId, TokenId};
use crate::secret::SecretBytes;

/// Most entries that one call of a `prune_…` removes, to bound the time writers wait.
pub const PRUNE_MAX: usize = 1_000;

/// Entries that a transaction writes before other threads go first (see [`pace`](crate::pace)):
/// some tens of microseconds.
const STEPS: usize = 16;

/// One entry as it was before a write.
struct Before {
    table: Table,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Everything a transaction changed, as it was before, in the order of the changes.
#[derive(Default)]
pub(super) struct Undo(Vec<Before>);

impl Undo {
    /// Takes back every change, the last first. May be called again after a failure, in another
    /// transaction.
    pub(super) fn apply(
        &self,
        tx: &redb::WriteTransaction,
        context: &Context,
    ) -> Result<(), StoreError> {
        for before in self.0.iter().rev() {
            let mut table = schema::open(tx, before.table, &context.path)?;
            let key = before.key.as_slice();
            let undone = match &before.value {
                Some(value) => table.insert(key, value.as_slice()),
                None => table.remove(key),
            };
            undone.map_err(|error| context.failed("written", error))?;
        }
        Ok(())
    }
}

/// A transaction that has only to be committed.
pub(super) struct Ready {
    pub(super) tx: redb::WriteTransaction,
    /// Its number.
    pub(super) commit: u64,
    /// How to take it back.
    pub(super) undo: Undo,
}

/// Begins a write whose commit survives a crash at any point: the data is on the disk before the
/// root that names it (two phases), and the next open need not walk the file (quick repair).
pub(super) fn begin_write(database: &Database) -> Result<redb::WriteTransaction, redb::Error> {
    let mut tx = database.begin_write()?;
    tx.set_durability(redb::Durability::Immediate)?;
    tx.set_two_phase_commit(true);
    tx.set_quick_repair(true);
    Ok(tx)
}

/// How many commits the database has seen.
pub(super) fn commit_number(tx: &redb::WriteTransaction, path: &Path) -> Result<u64, StoreError> {
    let table = schema::open(tx, schema::META, path)?;
    let found = table.get(schema::META_COMMIT);
    let found = found.map_err(|error| StoreError::from_redb(path, "read", error.into()))?;
    let bytes = found.and_then(|bytes| schema::id_of(bytes.value()));
    Ok(bytes.map_or(0, u64::from_be_bytes))
}

/// Notes that the commit to come is number `number`.
pub(super) fn set_commit_number(
    tx: &redb::WriteTransaction,
    number: u64,
    path: &Path,
) -> Result<(), StoreError> {
    let mut table = schema::open(tx, schema::META, path)?;
    let bytes = number.to_be_bytes();
    let written = table.insert(schema::META_COMMIT, bytes.as_slice());
    written.map_err(|error| StoreError::from_redb(path, "written", error.into()))?;
    Ok(())
}

/// A view of the database and the changes made to it; see [`Store::write`](super::Store::write).
pub struct WriteTx {
    read: ReadTx,
    undo: Undo,
}

impl Deref for WriteTx {
    type Target = ReadTx;

    fn deref(&self) -> &ReadTx {
        &self.read
    }
}

impl WriteTx {
    pub(super) fn new(context: Arc<Context>, tx: redb::WriteTransaction) -> Self {
        let source = Source::Write(Box::new(tx));
        Self { read: ReadTx { context, source }, undo: Undo::default() }
    }

    /// How many changes there have been.
    pub(super) fn changes(&self) -> usize {
        self.undo.0.len()
    }

    /// Takes back every change after the first `keep`.
    pub(super) fn take_back(&mut self, keep: usize) -> Result<(), StoreError> {
        let undo = Undo(self.undo.0.split_off(keep));
        match &self.read.source {
            Source::Write(tx) => undo.apply(tx, &self.read.context),
            Source::Read(_) => Ok(()),
        }
    }

    /// Numbers the transaction for its commit; `None`, and aborted, if it changed nothing.
    pub(super) fn prepare_commit(self) -> Result<Option<Ready>, StoreError> {
        let Self { read, undo } = self;
        let context = read.context;
        let Source::Write(tx) = read.source else {
            return Ok(None);
        };
        if undo.0.is_empty() {
            tx.abort().map_err(|error| context.failed("read", error))?;
            return Ok(None);
        }
        let commit = commit_number(&tx, &context.path)?.saturating_add(1);
        set_commit_number(&tx, commit, &context.path)?;
        Ok(Some(Ready { tx: *tx, commit, undo }))
    }

    /// Creates or replaces a shop.
    pub fn put_shop(&mut self, shop: &ShopRecord) -> Result<(), StoreError> {
        self.put(schema::SHOPS, &schema::shop_id(&shop.id), shop)
    }

    /// Deletes a shop, its keys, its widget tokens and what was counted of it; `false` if there was
    /// none.
    pub fn delete_shop(&mut self, id: &ShopId) -> Result<bool, StoreError> {
        for key in self.ids_of_shop::<8>(schema::KEYS_BY_SHOP, id, None, usize::MAX)? {
            self.remove_key(KeyId(u64::from_be_bytes(key)))?;
        }
        for token in self.ids_of_shop::<16>(schema::TOKENS_BY_SHOP, id, None, usize::MAX)? {
            self.delete_token(TokenId(u128::from_be_bytes(token)))?;
        }
        self.delete_usage_of_shop(id)?;
        self.remove(schema::SHOPS, &schema::shop_id(id))
    }

    /// Creates or replaces an API key; [`StoreError::NoSuchShop`] if its shop is not there.
    pub fn put_key(&mut self, key: &KeyRecord) -> Result<(), StoreError> {
        self.require_shop(&key.shop)?;
        let id = schema::key_id(key.id);
        if let Some(old) = self.key(key.id)?.filter(|old| old.shop != key.shop) {
            self.remove(schema::KEYS_BY_SHOP, &schema::of_shop(&old.shop, &id))?;
        }
        self.insert(schema::KEYS_BY_SHOP, &schema::of_shop(&key.shop, &id), &[])?;
        self.put(schema::KEYS, &id, key)
    }

    /// Deletes an API key: revokes it. What was counted of it alone goes too. `false` if there
    /// was none.
    pub fn delete_key(&mut self, id: KeyId) -> Result<bool, StoreError> {
        if let Some(key) = self.key(id)? {
            self.delete_usage_of_key(&key.shop, id)?;
        }
        self.remove_key(id)
    }

    fn remove_key(&mut self, id: KeyId) -> Result<bool, StoreError> {
        let Some(key) = self.key(id)? else {
            return Ok(false);
        };
        let id = schema::key_id(id);
        self.remove(schema::KEYS_BY_SHOP, &schema::of_shop(&key.shop, &id))?;
        self.remove(schema::KEYS, &id)
    }

    /// Notes when keys were last used. Times only move forward; keys that are gone are skipped.
    pub fn touch_keys(&mut self, used: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        for (id, at) in used {
            let Some(mut key) = self.key(*id)? else {
                continue;
            };
            if key.last_used_at < Some(*at) {
                key.last_used_at = Some(*at);
                self.put(schema::KEYS, &schema::key_id(*id), &key)?;
            }
        }
        Ok(())
    }

    /// Creates or replaces a widget token; [`StoreError::NoSuchShop`] if its shop is not there.
    pub fn put_token(&mut self, token: &TokenRecord) -> Result<(), StoreError> {
        self.require_shop(&token.shop)?;
        self.delete_token(token.id)?;
        let id = schema::token_id(token.id);
        let by_expiry = schema::at_time(token.expires_at, &id);
        self.insert(schema::TOKENS_BY_EXPIRY, &by_expiry, &[])?;
        let by_shop = schema::of_shop(&token.shop, &id);
        self.insert(schema::TOKENS_BY_SHOP, &by_shop, &[])?;
        self.put(schema::TOKENS, &id, token)
    }

    /// Removes up to [`PRUNE_MAX`] widget tokens that expired at or before `now`, the oldest
    /// first; how many. As many as that means there may be more.
    pub fn prune_tokens(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        let end = schema::at_time(now, &[0xff; 17]);
        let ids = self.ids::<16>(schema::TOKENS_BY_EXPIRY, Bound::Unbounded, &end, PRUNE_MAX)?;
        for id in &ids {
            self.delete_token(TokenId(u128::from_be_bytes(*id)))?;
        }
        Ok(ids.len())
    }

    /// Creates or replaces a signing key, sealed.
    pub fn put_signing_key(&mut self, key: &SigningKeyRecord) -> Result<(), StoreError> {
        let stored = SealedSigningKey {
            id: key.id,
            sealed: self.seal(schema::SIGNING_KEYS, key.id, &key.key)?,
            created_at: key.created_at,
            retired_at: key.retired_at,
            last_expiry: key.last_expiry,
        };
        self.put(schema::SIGNING_KEYS, &key.id.to_be_bytes(), &stored)
    }

    /// Deletes a signing key; `false` if there was none.
    pub fn delete_signing_key(&mut self, id: u32) -> Result<bool, StoreError> {
        self.remove(schema::SIGNING_KEYS, &id.to_be_bytes())
    }

    /// Creates or replaces a key that signs assertions, sealed.
    pub fn put_assertion_key(&mut self, key: &AssertionKeyRecord) -> Result<(), StoreError> {
        let stored = SealedAssertionKey {
            id: key.id,
            sealed: self.seal(schema::ASSERTION_KEYS, key.id, &key.seed)?,
            created_at: key.created_at,
            signs_from: key.signs_from,
        };
        self.put(schema::ASSERTION_KEYS, &key.id.to_be_bytes(), &stored)
    }

    /// Deletes a key that signs assertions; `false` if there was none.
    pub fn delete_assertion_key(&mut self, id: u32) -> Result<bool, StoreError> {
        self.remove(schema::ASSERTION_KEYS, &id.to_be_bytes())
    }

    /// Creates or replaces an admin token.
    pub fn put_admin_token(&mut self, token: &AdminTokenRecord) -> Result<(), StoreError> {
        let id = schema::admin_token_id(token.id);
        self.put(schema::ADMIN_TOKENS, &id, token)
    }

    /// Deletes an admin token: revokes it. `false` if there was none.
    pub fn delete_admin_token(&mut self, id: AdminTokenId) -> Result<bool, StoreError> {
        self.remove(schema::ADMIN_TOKENS, &schema::admin_token_id(id))
    }

    /// Keeps an issuer's last good key set.
    pub fn put_key_set(&mut self, set: &KeySetRecord) -> Result<(), StoreError> {
        self.put(schema::KEY_SETS, set.issuer.as_str().as_bytes(), set)
    }

    /// Notes what was made under the idempotency key whose digest, with its principal, is `key`.
    pub fn put_idempotency(
        &mut self,
        key: &[u8; 32],
        made: &IdempotencyRecord,
    ) -> Result<(), StoreError> {
        self.delete_idempotency(key)?;
        let by_age = schema::at_time(made.created_at, key);
        self.insert(schema::IDEMPOTENCY_BY_AGE, &by_age, &[])?;
        self.put(schema::IDEMPOTENCY, key, made)
    }

    /// Removes up to [`PRUNE_MAX`] notes of [`WriteTx::put_idempotency`] made before `before`,
    /// the oldest first; how many. As many as that means there may be more.
    pub fn prune_idempotency(&mut self, before: Timestamp) -> Result<usize, StoreError> {
        let end = schema::at_time(before, &[]);
        let table = schema::IDEMPOTENCY_BY_AGE;
        let keys = self.ids::<32>(table, Bound::Unbounded, &end, PRUNE_MAX)?;
        for key in &keys {
            self.delete_idempotency(key)?;
        }
        Ok(keys.len())
    }

    fn delete_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        let Some(token) = self.token(id)? else {
            return Ok(());
        };
        let id = schema::token_id(id);
        let by_expiry = schema::at_time(token.expires_at, &id);
        self.remove(schema::TOKENS_BY_EXPIRY, &by_expiry)?;
        self.remove(schema::TOKENS_BY_SHOP, &schema::of_shop(&token.shop, &id))?;
        self.remove(schema::TOKENS, &id).map(drop)
    }

    fn delete_idempotency(&mut self, key: &[u8; 32]) -> Result<(), StoreError> {
        let Some(made) = self.idempotency(key)? else {
            return Ok(());
        };
        let by_age = schema::at_time(made.created_at, key);
        self.remove(schema::IDEMPOTENCY_BY_AGE, &by_age)?;
        self.remove(schema::IDEMPOTENCY, key).map(drop)
    }

    fn require_shop(&self, id: &ShopId) -> Result<(), StoreError> {
        if self.has(schema::SHOPS, &schema::shop_id(id))? {
            return Ok(());
        }
        Err(StoreError::NoSuchShop { shop: *id })
    }

    fn seal(&self, table: Table, id: u32, key: &SecretBytes<32>) -> Result<Vec<u8>, StoreError> {
        let context = &self.read.context;
        let place = seal_context(table, id);
        let sealed = context.sealer.seal(context.entropy.as_ref(), &place, key.expose());
        sealed.map_err(|_| StoreError::Entropy { path: context.path.clone() })
    }

    pub(super) fn put<R: Record>(
        &mut self,
        table: Table,
        key: &[u8],
        record: &R,
    ) -> Result<(), StoreError> {
        let bytes = record.encode();
        let bytes = bytes.map_err(|error| self.read.context.bad_record(table, &error))?;
        self.insert(table, key, &bytes)
    }

    pub(super) fn insert(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.change(table, key, Some(value)).map(drop)
    }

    pub(super) fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        self.change(table, key, None)
    }

    /// Writes or removes one entry and notes how it was; whether there was one.
    fn change(
        &mut self,
        table: Table,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let context = &self.read.context;
        let mut opened = match self.read.open(table)? {
            Opened::Write(opened) => opened,
            // Unreachable: `new` takes a write transaction.
            Opened::Read(_) => return Err(context.failed("written", redb::Error::DatabaseClosed)),
        };
        let before = match value {
            Some(value) => opened.insert(key, value),
            None => opened.remove(key),
        };
        let before = before.map_err(|error| context.failed("written", error))?;
        let before = before.map(|bytes| bytes.value().to_vec());
        let existed = before.is_some();
        if existed || value.is_some() {
            self.undo.0.push(Before { table, key: key.to_vec(), value: before });
            if self.undo.0.len().is_multiple_of(STEPS) {
                std::thread::yield_now();
            }
        }
        Ok(existed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        self, Bench, KEY, assertion_key, key, made, shop, signing_key, token,
    };
    use super::*;

    fn seconds(s: u64) -> Timestamp {
        Timestamp::from_unix_s(s)
    }

    #[test]
    fn every_record_is_read_as_written_also_within_its_transaction() {
        let bench = Bench::in_memory();
        let look = |tx: &ReadTx| {
            let one = ShopId::parse("one").unwrap();
            assert_eq!(tx.shop(&one)?, Some(shop("one")));
            assert_eq!(tx.shops(None, 9)?.len(), 2);
            assert_eq!(tx.shops(Some(&one), 9)?, [shop("two")]);
            assert_eq!(tx.key(KeyId(1))?, Some(key(1, "one")));
            assert_eq!(tx.keys_of_shop(&one, None, 9)?, [key(1, "one")]);
            assert_eq!(tx.token(TokenId(2))?, Some(token(2, "one", 5)));
            assert_eq!(tx.tokens_of_shop(&one, Some(TokenId(2)), 9)?, []);
            assert_eq!(tx.admin_token(AdminTokenId(3))?, Some(testing::admin_token(3)));
            assert_eq!(tx.admin_tokens(None, 9)?, [testing::admin_token(3)]);
            assert_eq!(tx.admin_tokens(Some(AdminTokenId(3)), 9)?, []);
            assert_eq!(tx.key_sets()?, [testing::key_set("main")]);
            assert_eq!(tx.idempotency(&[5; 32])?, Some(made(6)));
            let keys = tx.signing_keys()?;
            assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [1, 256]);
            assert!(keys.iter().all(|key| key.key.expose() == KEY));
            let keys = tx.assertion_keys()?;
            assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [1, 256]);
            assert!(keys.iter().all(|key| key.seed.expose() == KEY));
            assert!(keys.iter().all(|key| key.signs_from == Timestamp::from_unix_ms(9)));
            let mut shops = Vec::new();
            tx.for_each_shop(|shop| shops.push(shop.id.to_string()))?;
            assert_eq!(shops, ["one", "two"]);
            Ok(())
        };
        let written: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_shop(&shop("two"))?;
            tx.put_shop(&shop("one"))?;
            tx.put_key(&key(1, "one"))?;
            tx.put_token(&token(2, "one", 5))?;
            tx.put_admin_token(&testing::admin_token(3))?;
            tx.put_key_set(&testing::key_set("main"))?;
            tx.put_idempotency(&[5; 32], &made(6))?;
            tx.put_signing_key(&signing_key(256))?;
            tx.put_signing_key(&signing_key(1))?;
            tx.put_assertion_key(&assertion_key(256))?;
            tx.put_assertion_key(&assertion_key(1))?;
            look(tx)
        });
        written.unwrap();
        let bench = bench.reopen();
        bench.store.read(look).unwrap();
        let deleted = bench.store.write(|tx| {
            let all = tx.delete_admin_token(AdminTokenId(3))? && tx.delete_signing_key(256)?;
            let none = tx.delete_admin_token(AdminTokenId(3))? || tx.delete_signing_key(256)?;
            Ok::<_, StoreError>((all, none))
        });
        assert_eq!(deleted, Ok((true, false)));
        let delete = |tx: &mut WriteTx| tx.delete_assertion_key(256);
        assert_eq!(bench.store.write(delete), Ok(true));
        assert_eq!(bench.store.write(delete), Ok(false));
    }

    #[test]
    fn a_sealed_key_opens_only_in_its_place() {
        let bench = Bench::in_memory();
        let written: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_signing_key(&signing_key(1))?;
            tx.put_assertion_key(&assertion_key(1))
        });
        written.unwrap();
        let sealed = testing::dump(&bench.store);
        assert!(!sealed.values().any(|bytes| bytes.windows(32).any(|part| part == KEY)));
        // The record of key 1, said to be key 2.
        let moved: Result<(), StoreError> = bench.store.write(|tx| {
            let table = schema::SIGNING_KEYS;
            let mut stored: SealedSigningKey = tx.record(table, &1_u32.to_be_bytes())?.unwrap();
            stored.id = 2;
            tx.put(table, &2_u32.to_be_bytes(), &stored)
        });
        moved.unwrap();
        let error = bench.store.read(ReadTx::signing_keys).unwrap_err();
        assert!(matches!(error, StoreError::Record { table: "signing_keys", .. }), "{error}");
        // A widget-token key, said to sign assertions.
        let moved: Result<(), StoreError> = bench.store.write(|tx| {
            let one = 1_u32.to_be_bytes();
            let other: SealedSigningKey = tx.record(schema::SIGNING_KEYS, &one)?.unwrap();
            let table = schema::ASSERTION_KEYS;
            let mut stored: SealedAssertionKey = tx.record(table, &one)?.unwrap();
            stored.sealed = other.sealed;
            tx.put(table, &one, &stored)
        });
        moved.unwrap();
        let error = bench.store.read(ReadTx::assertion_keys).unwrap_err();
        assert!(matches!(error, StoreError::Record { table: "assertion_keys", .. }), "{error}");
    }

    #[test]
    fn last_used_only_moves_forward_and_touches_nothing_else() {
        let bench = Bench::in_memory();
        let store = &bench.store;
        store.write(|tx| tx.put_shop(&shop("one"))).unwrap();
        store.write(|tx| tx.put_key(&key(1, "one"))).unwrap();
        for (at, want) in [(5, 5), (4, 5), (5, 5), (9, 9)] {
            let used = [(KeyId(1), seconds(at)), (KeyId(404), seconds(at))];
            store.write(|tx| tx.touch_keys(&used)).unwrap();
            let found = store.read(|tx| tx.key(KeyId(1))).unwrap().unwrap();
            let want = KeyRecord { last_used_at: Some(seconds(want)), ..key(1, "one") };
            assert_eq!(found, want);
        }
        assert_eq!(store.read(|tx| tx.key(KeyId(404))), Ok(None));
    }

    #[test]
    fn pruning_is_bounded_and_takes_the_oldest_first() {
        let bench = Bench::in_memory();
        let store = &bench.store;
        let filled: Result<(), StoreError> = store.write(|tx| {
            tx.put_shop(&shop("one"))?;
            for n in 0..PRUNE_MAX as u64 + 10 {
                tx.put_token(&token(u128::from(n), "one", 10_000 - n))?;
            }
            // Written again with a later expiry: the earlier one no longer counts.
            tx.put_token(&token(0, "one", 1))?;
            tx.put_token(&token(0, "one", 20_000))
        });
        filled.unwrap();
        let prune = |now| store.write(|tx| tx.prune_tokens(seconds(now))).unwrap();
        assert_eq!(prune(10_000 - PRUNE_MAX as u64 - 10), 0);
        assert_eq!(prune(15_000), PRUNE_MAX);
        assert!(store.read(|tx| tx.token(TokenId(1))).unwrap().is_some());
        assert_eq!(prune(15_000), 9);
        assert_eq!(prune(19_999), 0);
        assert_eq!(prune(20_000), 1);

        let digest = |n: u8| [n; 32];
        for n in 0..10 {
            let at = u64::from(n) * 1_000;
            store.write(|tx| tx.put_idempotency(&digest(n), &made(at))).unwrap();
        }
        let prune = |before| store.write(|tx| tx.prune_idempotency(seconds(before))).unwrap();
        assert_eq!((prune(0), prune(3), prune(3)), (0, 3, 0));
        let left = |n| store.read(|tx| tx.idempotency(&digest(n))).unwrap().is_some();
        assert_eq!((left(2), left(3)), (false, true));
    }

    #[test]
    fn a_key_that_moves_leaves_its_old_shop() {
        let bench = Bench::in_memory();
        let moved: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_shop(&shop("one"))?;
            tx.put_shop(&shop("two"))?;
            tx.put_key(&key(1, "one"))?;
            tx.put_key(&key(1, "two"))?;
            assert!(tx.delete_shop(&ShopId::parse("one").unwrap())?);
            assert_eq!(tx.key(KeyId(1))?, Some(key(1, "two")));
            Ok(())
        });
        moved.unwrap();
    }
}
