//! What the database file holds: its tables, how their keys are spelt, its schema version, and
//! the steps from one version to the next.
//!
//! Every table maps bytes to bytes, so that undoing a write, copying and checking need no
//! knowledge of what is in it. Keys sort as the things they name: numbers are big-endian, a shop
//! id is followed by a zero byte, which no shop id contains. Tables named `…_by_…` are derived
//! from the others and can be rebuilt from them.

use std::path::Path;

use redb::{ReadableTable as _, TableDefinition};

use super::error::StoreError;
use super::records::{IdempotencyRecord, KeyRecord, Record, TokenRecord};
use crate::clock::Timestamp;
use crate::id::{AdminTokenId, KeyId, OperatorId, ShopId, TokenId};

/// A table, from bytes to bytes.
pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Facts about the database itself: see [`META_SCHEMA`], [`META_CHECK`], [`META_COMMIT`].
pub(super) const META: Table = Table::new("meta");
/// Shop id → shop.
pub(super) const SHOPS: Table = Table::new("shops");
/// Key id → key.
pub(super) const KEYS: Table = Table::new("keys");
/// Shop id, 0, key id → nothing.
pub(super) const KEYS_BY_SHOP: Table = Table::new("keys_by_shop");
/// Token id → widget token.
pub(super) const TOKENS: Table = Table::new("tokens");
/// Shop id, 0, token id → nothing.
pub(super) const TOKENS_BY_SHOP: Table = Table::new("tokens_by_shop");
/// Expiry, token id → nothing.
pub(super) const TOKENS_BY_EXPIRY: Table = Table::new("tokens_by_expiry");
/// Number → sealed signing key.
pub(super) const SIGNING_KEYS: Table = Table::new("signing_keys");
/// Admin token id → admin token.
pub(super) const ADMIN_TOKENS: Table = Table::new("admin_tokens");
/// Issuer → its last good key set.
pub(super) const KEY_SETS: Table = Table::new("key_sets");
/// Digest of principal and idempotency key → what was made.
pub(super) const IDEMPOTENCY: Table = Table::new("idempotency");
/// Creation time, the same digest → nothing.
pub(super) const IDEMPOTENCY_BY_AGE: Table = Table::new("idempotency_by_age");

/// Number → sealed key that signs assertions.
pub(super) const ASSERTION_KEYS: Table = Table::new("assertion_keys");

/// Operator id → operator.
pub(super) const OPERATORS: Table = Table::new("operators");
/// Operator's name, folded to lower case → operator id.
pub(super) const OPERATORS_BY_NAME: Table = Table::new("operators_by_name");
/// Digest of a session's cookie → session.
pub(super) const SESSIONS: Table = Table::new("sessions");
/// Number of an audit entry → the entry and its place in the chain.
pub(super) const AUDIT: Table = Table::new("audit");
/// Series, period, start → what was counted.
pub(super) const USAGE: Table = Table::new("usage");

/// Every table of the current schema.
pub(super) const TABLES: [Table; 18] = [
    META,
    SHOPS,
    KEYS,
    KEYS_BY_SHOP,
    TOKENS,
    TOKENS_BY_SHOP,
    TOKENS_BY_EXPIRY,
    SIGNING_KEYS,
    ADMIN_TOKENS,
    KEY_SETS,
    IDEMPOTENCY,
    IDEMPOTENCY_BY_AGE,
    ASSERTION_KEYS,
    OPERATORS,
    OPERATORS_BY_NAME,
    SESSIONS,
    AUDIT,
    USAGE,
];

/// In [`META`]: the schema version, a big-endian `u32`.
pub(super) const META_SCHEMA: &[u8] = b"schema";
/// In [`META`]: 32 bytes derived from the master key the database belongs to.
pub(super) const META_CHECK: &[u8] = b"check";
/// In [`META`]: how many commits there have been, a big-endian `u64`.
pub(super) const META_COMMIT: &[u8] = b"commit";

/// A step from one schema version to the next. Runs inside the migration's one transaction.
pub(super) struct Step {
    /// The version it starts from; it ends at the next.
    pub(super) from: u32,
    /// What it does.
    pub(super) run: fn(&redb::WriteTransaction, &Path) -> Result<(), StoreError>,
}

/// A schema version and the way to it from every older one.
pub(super) struct Schema {
    /// The version.
    pub(super) version: u32,
    /// One step for each older version, the oldest first.
    pub(super) steps: &'static [Step],
}

/// The schema of this build.
///
/// * 0: the primary tables alone. What a copy of the records without the derived tables is.
/// * 1: the derived tables `keys_by_shop`, `tokens_by_shop`, `tokens_by_expiry`,
///   `idempotency_by_age` as well.
/// * 2: the table `assertion_keys`.
/// * 3: the tables `operators`, `operators_by_name`, `sessions`, `audit`, `usage`.
pub(super) const CURRENT: Schema = Schema {
    version: 3,
    steps: &[
        Step { from: 0, run: derive_tables },
        Step { from: 1, run: add_assertion_keys },
        Step { from: 2, run: add_operators },
    ],
};

impl Schema {
    /// Takes every step from version `from` on, in order, within `tx`.
    pub(super) fn migrate(
        &self,
        tx: &redb::WriteTransaction,
        path: &Path,
        from: u32,
    ) -> Result<(), StoreError> {
        for version in from..self.version {
            let step = self.steps.iter().find(|step| step.from == version);
            let step = step.ok_or_else(|| StoreError::Migration {
                path: path.to_path_buf(),
                from: version,
                detail: "this build has no step from there".to_owned(),
            })?;
            (step.run)(tx, path)?;
        }
        let mut meta = open(tx, META, path)?;
        let written = meta.insert(META_SCHEMA, self.version.to_be_bytes().as_slice());
        written.map_err(|error| StoreError::from_redb(path, "migrated", error.into()))?;
        Ok(())
    }
}

/// Opens `table` for writing, and makes it if there is none.
pub(super) fn open<'tx>(
    tx: &'tx redb::WriteTransaction,
    table: Table,
    path: &Path,
) -> Result<redb::Table<'tx, &'static [u8], &'static [u8]>, StoreError> {
    let opened = tx.open_table(table);
    opened.map_err(|error| StoreError::from_redb(path, "opened", error.into()))
}

/// Step 0 → 1: fills the derived tables from the primary ones.
fn derive_tables(tx: &redb::WriteTransaction, path: &Path) -> Result<(), StoreError> {
    for table in TABLES {
        drop(open(tx, table, path)?);
    }
    derive(tx, path, KEYS, |_, key: KeyRecord| {
        vec![(KEYS_BY_SHOP, of_shop(&key.shop, &key_id(key.id)))]
    })?;
    derive(tx, path, TOKENS, |id, token: TokenRecord| {
        vec![
            (TOKENS_BY_SHOP, of_shop(&token.shop, id)),
            (TOKENS_BY_EXPIRY, at_time(token.expires_at, id)),
        ]
    })?;
    derive(tx, path, IDEMPOTENCY, |id, made: IdempotencyRecord| {
        vec![(IDEMPOTENCY_BY_AGE, at_time(made.created_at, id))]
    })
}

/// Step 1 → 2: an empty table. The first key is made when assertions are asked for.
fn add_assertion_keys(tx: &redb::WriteTransaction, path: &Path) -> Result<(), StoreError> {
    open(tx, ASSERTION_KEYS, path).map(drop)
}

/// Step 2 → 3: empty tables. The first operator is made by whoever has the set-up link.
fn add_operators(tx: &redb::WriteTransaction, path: &Path) -> Result<(), StoreError> {
    for table in [OPERATORS, OPERATORS_BY_NAME, SESSIONS, AUDIT, USAGE] {
        open(tx, table, path)?;
    }
    Ok(())
}

/// Writes, for every record of `from`, the derived keys that `entries` names.
fn derive<R: Record>(
    tx: &redb::WriteTransaction,
    path: &Path,
    from: Table,
    entries: impl Fn(&[u8], R) -> Vec<(Table, Vec<u8>)>,
) -> Result<(), StoreError> {
    let redb_error = |error| StoreError::from_redb(path, "migrated", error);
    let source = open(tx, from, path)?;
    for entry in source.iter().map_err(|error| redb_error(error.into()))? {
        let (key, value) = entry.map_err(|error| redb_error(error.into()))?;
        let record = R::decode(value.value()).map_err(|error| StoreError::Record {
            path: path.to_path_buf(),
            table: name(from),
            detail: error.to_string(),
        })?;
        for (table, derived) in entries(key.value(), record) {
            let mut table = open(tx, table, path)?;
            let inserted = table.insert(derived.as_slice(), [].as_slice());
            inserted.map_err(|error| redb_error(error.into()))?;
        }
    }
    Ok(())
}

/// The table's name, for messages.
pub(super) fn name(table: Table) -> &'static str {
    const NAMES: [&str; 18] = [
        "meta",
        "shops",
        "keys",
        "keys_by_shop",
        "tokens",
        "tokens_by_shop",
        "tokens_by_expiry",
        "signing_keys",
        "admin_tokens",
        "key_sets",
        "idempotency",
        "idempotency_by_age",
        "assertion_keys",
        "operators",
        "operators_by_name",
        "sessions",
        "audit",
        "usage",
    ];
    use redb::TableHandle as _;
    let known = NAMES.into_iter().find(|name| *name == table.name());
    known.unwrap_or("unknown")
}

/// The key of a shop.
pub(super) fn shop_id(id: &ShopId) -> Vec<u8> {
    id.as_str().as_bytes().to_vec()
}

/// The key of a shop API key.
pub(super) fn key_id(id: KeyId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The key of a widget token.
pub(super) fn token_id(id: TokenId) -> [u8; 16] {
    id.0.to_be_bytes()
}

/// The key of an admin token.
pub(super) fn admin_token_id(id: AdminTokenId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The key of an operator.
pub(super) fn operator_id(id: OperatorId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// A derived key: what belongs to `shop`.
pub(super) fn of_shop(shop: &ShopId, id: &[u8]) -> Vec<u8> {
    [shop.as_str().as_bytes(), &[0], id].concat()
}

/// Where the derived keys of `shop` end: just after every [`of_shop`] of it.
pub(super) fn end_of_shop(shop: &ShopId) -> Vec<u8> {
    [shop.as_str().as_bytes(), &[1]].concat()
}

/// A derived key: what happens, or happened, at `at`.
pub(super) fn at_time(at: Timestamp, id: &[u8]) -> Vec<u8> {
    [&at.unix_ms().to_be_bytes(), id].concat()
}

/// The id at the end of a derived key, `N` bytes long.
pub(super) fn id_of<const N: usize>(derived: &[u8]) -> Option<[u8; N]> {
    derived.last_chunk().copied()
}
