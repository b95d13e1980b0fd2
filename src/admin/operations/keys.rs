//! Shop API keys: create, change, read, rotate, revoke.
//!
//! A secret is returned once, when it is made; only its digest is kept. Who may ask for what is
//! `api`'s to check, here as in every operation.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::validate::Faults;
use super::{
    Created, Idempotency, OperationError, Page, Precondition, Resource, Version, gone, now, shops,
};
use crate::admin::audit::{self, Action, Subject, view};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::patch::{Change, Patch};
use crate::clock::Timestamp;
use crate::decision::Facts as _;
use crate::decision::api_key::{self, API_KEY_START_BYTES};
use crate::id::{KeyId, ShopId};
use crate::secret::{EntropyError, SecretText, random_bytes};
use crate::snapshot::compile_key;
use crate::store::{KeyRecord, WriteTx};

/// Most keys of one shop, those in their grace period included.
pub const KEYS_PER_SHOP_MAX: usize = 100;

/// Longest grace period of a rotation.
pub const GRACE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// What a key is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFields {
    /// What people call it; may be empty.
    pub name: String,
    /// When it stops verifying; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Networks it may be used from; empty: any.
    pub networks: Vec<String>,
}

/// What is to be changed of a key; `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChanges {
    /// As in [`KeyFields`].
    pub name: Option<String>,
    /// As in [`KeyFields`]; `Some(None)` takes the expiry away.
    pub expires_at: Option<Option<Timestamp>>,
    /// As in [`KeyFields`].
    pub networks: Option<Vec<String>>,
}

/// Creates a key. Its secret is in the result and nowhere else.
pub fn create(
    node: &Node,
    caller: &Caller,
    shop: ShopId,
    fields: KeyFields,
    idempotency: Option<&Idempotency>,
) -> Result<Created<KeyRecord>, OperationError> {
    caller.require_in(Permission::KeysWrite, &shop)?;
    let now = now(node);
    let mut faults = Faults::default();
    faults.name("name", &fields.name, true);
    faults.expiry("expires_at", fields.expires_at, now);
    let networks = faults.networks("networks", &fields.networks);
    faults.into_result()?;
    node.mutate(|tx, patch, _| {
        if let Some(made) = Idempotency::replay(idempotency, tx, now)? {
            return replayed(tx, &made);
        }
        shops::find(tx, &shop)?;
        require_room(tx, &shop)?;
        let (mut key, secret) = mint(node, tx, shop, now)?;
        key.name = fields.name;
        key.expires_at = fields.expires_at;
        key.networks = networks;
        put_key(tx, patch, &key)?;
        let (subject, after) = (Subject::key(&key.shop, key.id), Some(view::key(&key)));
        audit::record(tx, caller, now, Action::KeyCreated, subject, None, after)?;
        Idempotency::note(idempotency, tx, key.id.to_string(), now)?;
        Ok(Created::new(key, Some(secret)))
    })
}

/// Changes some fields of a key.
pub fn patch(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: KeyId,
    changes: KeyChanges,
    condition: &Precondition,
) -> Result<KeyRecord, OperationError> {
    caller.require_in(Permission::KeysWrite, shop)?;
    let now = now(node);
    let mut faults = Faults::default();
    if let Some(name) = &changes.name {
        faults.name("name", name, true);
    }
    faults.expiry("expires_at", changes.expires_at.flatten(), now);
    let networks = changes.networks.map(|texts| faults.networks("networks", &texts));
    faults.into_result()?;
    node.mutate(|tx, patch, _| {
        let old = find(tx, shop, id)?;
        condition.check(Some(Version::from(&old)))?;
        let mut key = old.clone();
        key.name = changes.name.unwrap_or(key.name);
        key.expires_at = changes.expires_at.unwrap_or(key.expires_at);
        key.networks = networks.unwrap_or(key.networks);
        let key = change_key(tx, patch, &old, key)?;
        record_change(tx, caller, now, Action::KeyChanged, &old, &key)?;
        Ok(key)
    })
}

/// Replaces a key by a new one of the same name, networks, limits and expiry. Without `grace` the
/// old key is refused from now on; with it, once `grace` is over.
pub fn rotate(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: KeyId,
    grace: Duration,
    idempotency: Option<&Idempotency>,
) -> Result<Created<KeyRecord>, OperationError> {
    caller.require_in(Permission::KeysWrite, shop)?;
    let now = now(node);
    let mut faults = Faults::default();
    faults.within("grace_seconds", grace, Duration::ZERO, GRACE_MAX);
    faults.into_result()?;
    node.mutate(|tx, patch, _| {
        if let Some(made) = Idempotency::replay(idempotency, tx, now)? {
            return replayed(tx, &made);
        }
        let old = find(tx, shop, id)?;
        if let Some(successor) = old.replaced_by {
            let message = format!("the key was rotated already; rotate its successor {successor}");
            return Err(OperationError::Conflict(message));
        }
        if old.expires_at.is_some_and(|at| at <= now) {
            let message = "the key has expired, and a new one would inherit that; create one";
            return Err(OperationError::Conflict(message.to_owned()));
        }
        let (fresh, secret) = mint(node, tx, *shop, now)?;
        let key = KeyRecord {
            name: old.name.clone(),
            expires_at: old.expires_at,
            networks: old.networks.clone(),
            limits: old.limits.clone(),
            ..fresh
        };
        let retired = retire(tx, patch, &old, &key, grace, now)?;
        put_key(tx, patch, &key)?;
        record_rotation(tx, caller, now, &old, retired.as_ref(), &key)?;
        Idempotency::note(idempotency, tx, key.id.to_string(), now)?;
        Ok(Created::new(key, Some(secret)))
    })
}

/// Revokes a key: from now on it is unknown.
pub fn delete(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: KeyId,
    condition: &Precondition,
) -> Result<(), OperationError> {
    caller.require_in(Permission::KeysWrite, shop)?;
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let key = find(tx, shop, id)?;
        condition.check(Some(Version::from(&key)))?;
        tx.delete_key(id)?;
        let (subject, before) = (Subject::key(shop, id), Some(view::key(&key)));
        audit::record(tx, caller, now, Action::KeyRevoked, subject, before, None)?;
        patch.push(Change::RemoveKey(key.digest));
        Ok(())
    })
}

/// Reads a key.
pub fn get(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: KeyId,
) -> Result<KeyRecord, OperationError> {
    caller.require_in(Permission::KeysRead, shop)?;
    let found = node.store.read(|tx| tx.key(id))?.filter(|key| key.shop == *shop);
    found.map(|key| with_last_use(node, key)).ok_or(OperationError::NotFound(Resource::Key))
}

/// Up to `limit` keys of a shop, from the first after `after`.
pub fn list(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    after: Option<KeyId>,
    limit: usize,
) -> Result<Page<KeyRecord>, OperationError> {
    caller.require_in(Permission::KeysRead, shop)?;
    let found = node.store.read(|tx| {
        let Some(_) = tx.shop(shop)? else { return Ok(None) };
        tx.keys_of_shop(shop, after, limit.saturating_add(1)).map(Some)
    })?;
    let found = found.ok_or(OperationError::NotFound(Resource::Shop))?;
    Ok(Page::of(found.into_iter().map(|key| with_last_use(node, key)).collect(), limit))
}

/// Deletes keys whose grace period is over; how many. They have not verified since.
pub fn prune(node: &Node) -> Result<usize, OperationError> {
    let now = now(node);
    let over = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
    let snapshot = node.published.load_full();
    let due: Vec<KeyId> =
        snapshot.api_keys().filter(|key| over(key.grace_until)).map(|key| key.id).collect();
    if due.is_empty() {
        return Ok(0);
    }
    node.mutate(|tx, patch, _| {
        let mut pruned = 0;
        for id in &due {
            if let Some(key) = tx.key(*id)?.filter(|key| over(key.grace_until)) {
                tx.delete_key(*id)?;
                let (subject, before) = (Subject::key(&key.shop, *id), Some(view::key(&key)));
                let system = Caller::system();
                audit::record(tx, &system, now, Action::KeyPruned, subject, before, None)?;
                patch.push(Change::RemoveKey(key.digest));
                pruned += 1;
            }
        }
        Ok(pruned)
    })
}

/// The key `id` of `shop`; another shop's key is none.
pub(super) fn find(tx: &WriteTx, shop: &ShopId, id: KeyId) -> Result<KeyRecord, OperationError> {
    let found = tx.key(id)?.filter(|key| key.shop == *shop);
    found.ok_or(OperationError::NotFound(Resource::Key))
}

/// Stores `new` in place of `old`, unless they are the same.
pub(super) fn change_key(
    tx: &mut WriteTx,
    patch: &mut Patch,
    old: &KeyRecord,
    mut new: KeyRecord,
) -> Result<KeyRecord, OperationError> {
    if new == *old {
        return Ok(new);
    }
    new.revision = old.revision.saturating_add(1);
    put_key(tx, patch, &new)?;
    Ok(new)
}

/// Records that `old` became `new`, unless they are the same.
pub(super) fn record_change(
    tx: &mut WriteTx,
    caller: &Caller,
    now: Timestamp,
    action: Action,
    old: &KeyRecord,
    new: &KeyRecord,
) -> Result<(), OperationError> {
    if new == old {
        return Ok(());
    }
    let view = if action == Action::KeyLimitsChanged {
        |key: &KeyRecord| view::limits(&key.limits)
    } else {
        view::key
    };
    let (before, after) = (Some(view(old)), Some(view(new)));
    audit::record(tx, caller, now, action, Subject::key(&new.shop, new.id), before, after)
}

/// Records a rotation, one entry about the old key: what became of it, and which is the new one.
fn record_rotation(
    tx: &mut WriteTx,
    caller: &Caller,
    now: Timestamp,
    old: &KeyRecord,
    retired: Option<&KeyRecord>,
    successor: &KeyRecord,
) -> Result<(), OperationError> {
    let subject = Subject::key(&old.shop, old.id);
    let after = serde_json::json!({
        "replaced_by": successor.id,
        "start": successor.start,
        "grace_until": retired.and_then(|key| key.grace_until),
    });
    let (before, after) = (Some(view::rotated_key(old)), Some(after));
    audit::record(tx, caller, now, Action::KeyRotated, subject, before, after)
}

pub(super) fn put_key(
    tx: &mut WriteTx,
    patch: &mut Patch,
    key: &KeyRecord,
) -> Result<(), OperationError> {
    tx.put_key(key)?;
    patch.push(Change::PutKey(compile_key(key)));
    Ok(())
}

/// Ends the old key of a rotation, now or when its grace is over. A key that is in use without
/// grace stays countable for nobody: it is deleted. The old key as it is then, if it is.
fn retire(
    tx: &mut WriteTx,
    patch: &mut Patch,
    old: &KeyRecord,
    successor: &KeyRecord,
    grace: Duration,
    now: Timestamp,
) -> Result<Option<KeyRecord>, OperationError> {
    if grace.is_zero() {
        tx.delete_key(old.id)?;
        patch.push(Change::RemoveKey(old.digest));
        return Ok(None);
    }
    require_room(tx, &old.shop)?;
    let mut retired = old.clone();
    retired.grace_until = Some(now + grace);
    retired.replaced_by = Some(successor.id);
    change_key(tx, patch, old, retired).map(Some)
}

fn require_room(tx: &WriteTx, shop: &ShopId) -> Result<(), OperationError> {
    if tx.keys_of_shop(shop, None, KEYS_PER_SHOP_MAX)?.len() < KEYS_PER_SHOP_MAX {
        return Ok(());
    }
    let message = format!("the shop has {KEYS_PER_SHOP_MAX} keys, the most there can be");
    Err(OperationError::Conflict(message))
}

fn replayed(tx: &WriteTx, made: &str) -> Result<Created<KeyRecord>, OperationError> {
    let id = KeyId::parse(made).map_err(|_| gone(Resource::Key))?;
    Ok(Created::replayed(tx.key(id)?.ok_or_else(|| gone(Resource::Key))?))
}

/// An id that no key has.
pub(super) fn free_id(node: &Node, tx: &WriteTx) -> Result<KeyId, OperationError> {
    let entropy = node.entropy.as_ref();
    let mut id = KeyId(u64::from_be_bytes(random_bytes(entropy)?));
    if tx.key(id)?.is_some() {
        // Once in 2⁶⁴ divided by the number of keys; twice means that nothing here is random.
        id = KeyId(u64::from_be_bytes(random_bytes(entropy)?));
        if tx.key(id)?.is_some() {
            return Err(EntropyError.into());
        }
    }
    Ok(id)
}

/// A new key under an id that is free.
fn mint(
    node: &Node,
    tx: &WriteTx,
    shop: ShopId,
    now: Timestamp,
) -> Result<(KeyRecord, SecretText), OperationError> {
    let id = free_id(node, tx)?;
    let secret = api_key::mint(node.entropy.as_ref())?;
    let key = KeyRecord {
        id,
        shop,
        name: String::new(),
        digest: node.pepper().digest(secret.expose().as_bytes()),
        start: secret.expose().chars().take(API_KEY_START_BYTES).collect(),
        created_at: now,
        expires_at: None,
        grace_until: None,
        replaced_by: None,
        networks: Vec::new(),
        limits: Vec::new(),
        last_used_at: None,
        revision: 1,
    };
    Ok((key, secret))
}

/// The time of last use as it is now, not as it was last written.
fn with_last_use(node: &Node, mut key: KeyRecord) -> KeyRecord {
    let snapshot = node.published.load();
    if let Some(live) = snapshot.api_key(&key.digest) {
        let at = Timestamp::from_unix_ms(live.last_used_ms.load(Ordering::Relaxed));
        if at > Timestamp::default() {
            key.last_used_at = key.last_used_at.max(Some(at));
        }
    }
    key
}
