//! What can be read and written within one transaction.
//!
//! [`WriteTx`] can do all that [`ReadTx`] can, and sees its own writes. Derived tables are kept
//! here and nowhere else. No rule of the product is kept here: what a key may be is the caller's
//! to check, but a key or a token always has its shop.

use std::ops::{Bound, Deref};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{AccessGuard, Database, ReadOnlyTable, ReadableTable as _};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::records::{
    AdminTokenRecord, IdempotencyRecord, KeyRecord, KeySetRecord, Record, SealedSigningKey,
    ShopRecord, SigningKeyRecord, TokenRecord,
};
use super::schema::{self, Table};
use crate::clock::Timestamp;
use crate::id::{AdminTokenId, KeyId, ShopId, TokenId};
use crate::secret::{Entropy, Sealer, SecretBytes};

/// Most entries that one call of a `prune_…` removes, to bound the time writers wait.
pub const PRUNE_MAX: usize = 1_000;

/// What every transaction needs beside the tables.
pub(super) struct Context {
    pub(super) path: PathBuf,
    pub(super) sealer: Sealer,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl Context {
    pub(super) fn failed(&self, action: &'static str, error: impl Into<redb::Error>) -> StoreError {
        StoreError::from_redb(&self.path, action, error.into())
    }

    fn bad_record(&self, table: Table, detail: impl ToString) -> StoreError {
        StoreError::Record {
            path: self.path.clone(),
            table: schema::name(table),
            detail: detail.to_string(),
        }
    }

    fn decode<R: Record>(&self, table: Table, bytes: &[u8]) -> Result<R, StoreError> {
        R::decode(bytes).map_err(|error| self.bad_record(table, error))
    }
}

type Bytes = &'static [u8];

/// Either kind of redb's transactions.
enum Source {
    Read(redb::ReadTransaction),
    Write(redb::WriteTransaction),
}

/// Either kind of redb's tables.
enum Opened<'tx> {
    Read(ReadOnlyTable<Bytes, Bytes>),
    Write(redb::Table<'tx, Bytes, Bytes>),
}

impl Opened<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<AccessGuard<'_, Bytes>>, redb::StorageError> {
        match self {
            Self::Read(table) => redb::ReadableTable::get(table, key),
            Self::Write(table) => table.get(key),
        }
    }

    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<redb::Range<'_, Bytes, Bytes>, redb::StorageError> {
        match self {
            Self::Read(table) => redb::ReadableTable::range::<&[u8]>(table, (from, to)),
            Self::Write(table) => table.range::<&[u8]>((from, to)),
        }
    }
}

/// A consistent view of the database.
pub struct ReadTx {
    context: Arc<Context>,
    source: Source,
}

impl ReadTx {
    pub(super) fn new(context: Arc<Context>, tx: redb::ReadTransaction) -> Self {
        Self { context, source: Source::Read(tx) }
    }

    /// The shop `id`.
    pub fn shop(&self, id: &ShopId) -> Result<Option<ShopRecord>, StoreError> {
        self.record(schema::SHOPS, &schema::shop_id(id))
    }

    /// Up to `limit` shops in the order of their ids, from the first after `after`.
    pub fn shops(
        &self,
        after: Option<&ShopId>,
        limit: usize,
    ) -> Result<Vec<ShopRecord>, StoreError> {
        let after = after.map(schema::shop_id);
        self.page(schema::SHOPS, after.as_deref(), limit)
    }

    /// Calls `visit` with every shop, in the order of their ids.
    pub fn for_each_shop(&self, visit: impl FnMut(ShopRecord)) -> Result<(), StoreError> {
        self.for_each(schema::SHOPS, visit)
    }

    /// The API key `id`.
    pub fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.record(schema::KEYS, &schema::key_id(id))
    }

    /// Up to `limit` keys of `shop` in the order of their ids, from the first after `after`.
    pub fn keys_of_shop(
        &self,
        shop: &ShopId,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let after = after.map(schema::key_id);
        let after = after.as_ref().map(<[u8; 8]>::as_slice);
        let ids = self.ids_of_shop::<8>(schema::KEYS_BY_SHOP, shop, after, limit)?;
        self.records(schema::KEYS, &ids)
    }

    /// Calls `visit` with every API key.
    pub fn for_each_key(&self, visit: impl FnMut(KeyRecord)) -> Result<(), StoreError> {
        self.for_each(schema::KEYS, visit)
    }

    /// The widget token `id`.
    pub fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.record(schema::TOKENS, &schema::token_id(id))
    }

    /// Up to `limit` widget tokens of `shop` in the order of their ids, from the first after
    /// `after`.
    pub fn tokens_of_shop(
        &self,
        shop: &ShopId,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<TokenRecord>, StoreError> {
        let after = after.map(schema::token_id);
        let after = after.as_ref().map(<[u8; 16]>::as_slice);
        let ids = self.ids_of_shop::<16>(schema::TOKENS_BY_SHOP, shop, after, limit)?;
        self.records(schema::TOKENS, &ids)
    }

    /// Calls `visit` with every widget token.
    pub fn for_each_token(&self, visit: impl FnMut(TokenRecord)) -> Result<(), StoreError> {
        self.for_each(schema::TOKENS, visit)
    }

    /// Every signing key, unsealed, in the order of their numbers.
    pub fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let mut stored: Vec<SealedSigningKey> = Vec::new();
        self.for_each(schema::SIGNING_KEYS, |record| stored.push(record))?;
        stored.into_iter().map(|key| self.unseal(key)).collect()
    }

    /// The admin token `id`.
    pub fn admin_token(&self, id: AdminTokenId) -> Result<Option<AdminTokenRecord>, StoreError> {
        self.record(schema::ADMIN_TOKENS, &schema::admin_token_id(id))
    }

    /// Up to `limit` admin tokens in the order of their ids, from the first after `after`.
    pub fn admin_tokens(
        &self,
        after: Option<AdminTokenId>,
        limit: usize,
    ) -> Result<Vec<AdminTokenRecord>, StoreError> {
        let after = after.map(schema::admin_token_id);
        let after = after.as_ref().map(<[u8; 8]>::as_slice);
        self.page(schema::ADMIN_TOKENS, after, limit)
    }

    /// Every issuer's last good key set.
    pub fn key_sets(&self) -> Result<Vec<KeySetRecord>, StoreError> {
        self.page(schema::KEY_SETS, None, usize::MAX)
    }

    /// What was made under the idempotency key whose digest, with its principal, is `key`.
    pub fn idempotency(&self, key: &[u8; 32]) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.record(schema::IDEMPOTENCY, key)
    }

    fn open(&self, table: Table) -> Result<Opened<'_>, StoreError> {
        let opened = match &self.source {
            Source::Read(tx) => tx.open_table(table).map(Opened::Read),
            Source::Write(tx) => tx.open_table(table).map(Opened::Write),
        };
        opened.map_err(|error| self.context.failed("read", error))
    }

    fn record<R: Record>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        let opened = self.open(table)?;
        let found = opened.get(key);
        let found = found.map_err(|error| self.context.failed("read", error))?;
        found.map(|bytes| self.context.decode(table, bytes.value())).transpose()
    }

    /// The records of `ids`, which a derived table of this same view named.
    fn records<R: Record, const N: usize>(
        &self,
        table: Table,
        ids: &[[u8; N]],
    ) -> Result<Vec<R>, StoreError> {
        let missing = || self.context.bad_record(table, "an index names it and it is gone");
        ids.iter().map(|id| self.record(table, id)?.ok_or_else(missing)).collect()
    }

    fn page<R: Record>(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<R>, StoreError> {
        let mut found = Vec::new();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.visit(table, from, Bound::Unbounded, limit, |_, value| {
            found.push(self.context.decode(table, value)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn for_each<R: Record>(
        &self,
        table: Table,
        mut visit: impl FnMut(R),
    ) -> Result<(), StoreError> {
        let all = Bound::Unbounded;
        self.visit(table, all, all, usize::MAX, |_, value| {
            visit(self.context.decode(table, value)?);
            Ok(())
        })
    }

    fn ids_of_shop<const N: usize>(
        &self,
        table: Table,
        shop: &ShopId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<[u8; N]>, StoreError> {
        let start = schema::of_shop(shop, after.unwrap_or_default());
        let end = schema::end_of_shop(shop);
        self.ids(table, Bound::Excluded(&start), &end, limit)
    }

    /// The ids at the ends of up to `limit` derived keys before `to`.
    fn ids<const N: usize>(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<[u8; N]>, StoreError> {
        let mut ids = Vec::new();
        self.visit(table, from, Bound::Excluded(to), limit, |derived, _| {
            let id = schema::id_of(derived);
            ids.push(id.ok_or_else(|| self.context.bad_record(table, "its key is too short"))?);
            Ok(())
        })?;
        Ok(ids)
    }

    fn visit(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let opened = self.open(table)?;
        let range = opened.range(from, to);
        let range = range.map_err(|error| self.context.failed("read", error))?;
        for entry in range.take(limit) {
            let (key, value) = entry.map_err(|error| self.context.failed("read", error))?;
            visit(key.value(), value.value())?;
        }
        Ok(())
    }

    fn unseal(&self, stored: SealedSigningKey) -> Result<SigningKeyRecord, StoreError> {
        let table = schema::SIGNING_KEYS;
        let opened = self.context.sealer.open(&seal_context(stored.id), &stored.sealed);
        let opened = opened.map_err(|error| self.context.bad_record(table, error))?;
        let bytes: &[u8; 32] = opened.as_slice().try_into().map_err(|_| {
            let detail = "a signing key is 32 bytes long";
            self.context.bad_record(table, detail)
        })?;
        Ok(SigningKeyRecord {
            id: stored.id,
            key: SecretBytes::new(*Zeroizing::new(*bytes)),
            created_at: stored.created_at,
            retired_at: stored.retired_at,
            last_expiry: stored.last_expiry,
        })
    }
}

/// Where a sealed signing key belongs; sealed with it, so that it opens nowhere else.
fn seal_context(id: u32) -> Vec<u8> {
    format!("signing_keys/{id}").into_bytes()
}

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
        let source = Source::Write(tx);
        Self { read: ReadTx { context, source }, undo: Undo::default() }
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
        Ok(Some(Ready { tx, commit, undo }))
    }

    /// Creates or replaces a shop.
    pub fn put_shop(&mut self, shop: &ShopRecord) -> Result<(), StoreError> {
        self.put(schema::SHOPS, &schema::shop_id(&shop.id), shop)
    }

    /// Deletes a shop, its keys and its widget tokens; `false` if there was none.
    pub fn delete_shop(&mut self, id: &ShopId) -> Result<bool, StoreError> {
        for key in self.ids_of_shop::<8>(schema::KEYS_BY_SHOP, id, None, usize::MAX)? {
            self.delete_key(KeyId(u64::from_be_bytes(key)))?;
        }
        for token in self.ids_of_shop::<16>(schema::TOKENS_BY_SHOP, id, None, usize::MAX)? {
            self.delete_token(TokenId(u128::from_be_bytes(token)))?;
        }
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

    /// Deletes an API key: revokes it. `false` if there was none.
    pub fn delete_key(&mut self, id: KeyId) -> Result<bool, StoreError> {
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
        let context = &self.read.context;
        let sealed =
            context.sealer.seal(context.entropy.as_ref(), &seal_context(key.id), key.key.expose());
        let stored = SealedSigningKey {
            id: key.id,
            sealed: sealed.map_err(|_| StoreError::Entropy { path: context.path.clone() })?,
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
        let found = self.open(schema::SHOPS)?.get(&schema::shop_id(id)).map(|shop| shop.is_some());
        if found.map_err(|error| self.read.context.failed("read", error))? {
            return Ok(());
        }
        Err(StoreError::NoSuchShop { shop: *id })
    }

    fn put<R: Record>(&mut self, table: Table, key: &[u8], record: &R) -> Result<(), StoreError> {
        let bytes = record.encode();
        let bytes = bytes.map_err(|error| self.read.context.bad_record(table, error))?;
        self.insert(table, key, &bytes)
    }

    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.change(table, key, Some(value)).map(drop)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
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
        self.undo.0.push(Before { table, key: key.to_vec(), value: before });
        Ok(existed)
    }
}
