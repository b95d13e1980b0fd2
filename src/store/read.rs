//! What can be read within one transaction.
//!
//! The same view serves writers, who see their own writes in it. Nothing is changed here, and no
//! rule of the product is kept: a key that expired is a key.

use std::fmt;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{AccessGuard, ReadOnlyTable, ReadableTable as _};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::records::{
    AdminTokenRecord, AssertionKeyRecord, IdempotencyRecord, KeyRecord, KeySetRecord, Record,
    SealedAssertionKey, SealedSigningKey, ShopRecord, SigningKeyRecord, TokenRecord,
};
use super::schema::{self, Table};
use crate::id::{AdminTokenId, KeyId, ShopId, TokenId};
use crate::pace::pace;
use crate::secret::{ChainKey, Entropy, Sealer, SecretBytes};

/// What every transaction needs beside the tables.
pub(super) struct Context {
    pub(super) path: PathBuf,
    pub(super) sealer: Sealer,
    /// Links the entries of the audit log.
    pub(super) chain: ChainKey,
    pub(super) entropy: Arc<dyn Entropy>,
    /// Set when redb met an I/O error: from then on it refuses reads and writes alike until the
    /// database is opened again.
    pub(super) broken: AtomicBool,
}

impl Context {
    pub(super) fn failed(&self, action: &'static str, error: impl Into<redb::Error>) -> StoreError {
        let error = error.into();
        let latched =
            matches!(error, redb::Error::Io(_) | redb::Error::Backend(_) | redb::Error::PreviousIo);
        self.broken.fetch_or(latched, Ordering::Relaxed);
        StoreError::from_redb(&self.path, action, error)
    }

    pub(super) fn bad_record(&self, table: Table, detail: &dyn fmt::Display) -> StoreError {
        StoreError::Record {
            path: self.path.clone(),
            table: schema::name(table),
            detail: detail.to_string(),
        }
    }

    pub(super) fn decode<R: Record>(&self, table: Table, bytes: &[u8]) -> Result<R, StoreError> {
        R::decode(bytes).map_err(|error| self.bad_record(table, &error))
    }
}

type Bytes = &'static [u8];

/// A key and a value, or why they cannot be read.
type Entry<'t> = Result<(AccessGuard<'t, Bytes>, AccessGuard<'t, Bytes>), redb::StorageError>;

/// Entries of a table that are read before others go first: some tens of microseconds.
const STEPS: u32 = 64;

/// Either kind of redb's transactions.
pub(super) enum Source {
    Read(redb::ReadTransaction),
    /// Boxed: three times the size of the other.
    Write(Box<redb::WriteTransaction>),
}

/// Either kind of redb's tables.
pub(super) enum Opened<'tx> {
    Read(ReadOnlyTable<Bytes, Bytes>),
    Write(redb::Table<'tx, Bytes, Bytes>),
}

impl Opened<'_> {
    pub(super) fn get(
        &self,
        key: &[u8],
    ) -> Result<Option<AccessGuard<'_, Bytes>>, redb::StorageError> {
        match self {
            Self::Read(table) => redb::ReadableTable::get(table, key),
            Self::Write(table) => table.get(key),
        }
    }

    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<impl DoubleEndedIterator<Item = Entry<'_>>, redb::StorageError> {
        let range = match self {
            Self::Read(table) => redb::ReadableTable::range::<&[u8]>(table, (from, to)),
            Self::Write(table) => table.range::<&[u8]>((from, to)),
        };
        // Whatever walks through much of a table walks through here.
        Ok(range?.inspect(pace(STEPS)))
    }
}

/// A consistent view of the database.
pub struct ReadTx {
    pub(super) context: Arc<Context>,
    pub(super) source: Source,
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
        let stored: Vec<SealedSigningKey> = self.page(schema::SIGNING_KEYS, None, usize::MAX)?;
        let unseal = |key: &SealedSigningKey| {
            Ok(SigningKeyRecord {
                id: key.id,
                key: self.unseal(schema::SIGNING_KEYS, key.id, &key.sealed)?,
                created_at: key.created_at,
                retired_at: key.retired_at,
                last_expiry: key.last_expiry,
            })
        };
        stored.iter().map(unseal).collect()
    }

    /// Every key that signs assertions, unsealed, in the order of their numbers.
    pub fn assertion_keys(&self) -> Result<Vec<AssertionKeyRecord>, StoreError> {
        let stored: Vec<SealedAssertionKey> =
            self.page(schema::ASSERTION_KEYS, None, usize::MAX)?;
        let unseal = |key: &SealedAssertionKey| {
            Ok(AssertionKeyRecord {
                id: key.id,
                seed: self.unseal(schema::ASSERTION_KEYS, key.id, &key.sealed)?,
                created_at: key.created_at,
                signs_from: key.signs_from,
            })
        };
        stored.iter().map(unseal).collect()
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

    pub(super) fn open(&self, table: Table) -> Result<Opened<'_>, StoreError> {
        let opened = match &self.source {
            Source::Read(tx) => tx.open_table(table).map(Opened::Read),
            Source::Write(tx) => tx.open_table(table).map(Opened::Write),
        };
        opened.map_err(|error| self.context.failed("read", error))
    }

    pub(super) fn record<R: Record>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<R>, StoreError> {
        let opened = self.open(table)?;
        let found = opened.get(key);
        let found = found.map_err(|error| self.context.failed("read", error))?;
        found.map(|bytes| self.context.decode(table, bytes.value())).transpose()
    }

    /// Every entry of `table`, whatever it holds.
    #[cfg(test)]
    pub(super) fn for_each_entry(
        &self,
        table: Table,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), StoreError> {
        let all = Bound::Unbounded;
        self.visit(table, all, all, usize::MAX, |key, value| {
            visit(key, value);
            Ok(())
        })
    }

    /// The bytes under `key`, whatever they are.
    pub(super) fn bytes(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = self.open(table)?;
        let found = opened.get(key);
        let found = found.map_err(|error| self.context.failed("read", error))?;
        Ok(found.map(|bytes| bytes.value().to_vec()))
    }

    pub(super) fn has(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        let opened = self.open(table)?;
        let found = opened.get(key);
        let found = found.map_err(|error| self.context.failed("read", error))?;
        Ok(found.is_some())
    }

    /// The records of `ids`, which a derived table of this same view named.
    fn records<R: Record, const N: usize>(
        &self,
        table: Table,
        ids: &[[u8; N]],
    ) -> Result<Vec<R>, StoreError> {
        let missing = || self.context.bad_record(table, &"an index names it and it is gone");
        ids.iter().map(|id| self.record(table, id)?.ok_or_else(missing)).collect()
    }

    pub(super) fn page<R: Record>(
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

    pub(super) fn ids_of_shop<const N: usize>(
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
    pub(super) fn ids<const N: usize>(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<[u8; N]>, StoreError> {
        let mut ids = Vec::new();
        self.visit(table, from, Bound::Excluded(to), limit, |derived, _| {
            let id = schema::id_of(derived);
            ids.push(id.ok_or_else(|| self.context.bad_record(table, &"its key is too short"))?);
            Ok(())
        })?;
        Ok(ids)
    }

    pub(super) fn visit(
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

    /// Visits entries of `table` until `visit` says `false`; whether it never did.
    pub(super) fn visit_while(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let opened = self.open(table)?;
        let range = opened.range(from, Bound::Unbounded);
        for entry in range.map_err(|error| self.context.failed("read", error))? {
            let (key, value) = entry.map_err(|error| self.context.failed("read", error))?;
            if !visit(key.value(), value.value())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn unseal(&self, table: Table, id: u32, sealed: &[u8]) -> Result<SecretBytes<32>, StoreError> {
        let opened = self.context.sealer.open(&seal_context(table, id), sealed);
        let opened = opened.map_err(|error| self.context.bad_record(table, &error))?;
        let bytes: &[u8; 32] = opened.as_slice().try_into().map_err(|_| {
            let detail = "a signing key is 32 bytes long";
            self.context.bad_record(table, &detail)
        })?;
        Ok(SecretBytes::new(*Zeroizing::new(*bytes)))
    }
}

/// Where a sealed key belongs; sealed with it, so that it opens nowhere else.
pub(super) fn seal_context(table: Table, id: u32) -> Vec<u8> {
    format!("{}/{id}", schema::name(table)).into_bytes()
}
