//! Shops: create, replace, change, read, delete.
//!
//! Deleting one takes its keys, tokens and limits along. JWTs that name it
//! are the identity provider's.

use super::validate::Faults;
use super::{
    Created, Idempotency, OperationError, Page, Precondition, Resource, Version, admin_tokens,
    gone, now, operators,
};
use crate::admin::audit::{self, Action, Subject, view};
use crate::admin::caller::{Caller, Permission, Shops};
use crate::admin::node::{Node, Turn};
use crate::admin::patch::{Change, Patch};
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::snapshot::compile_shop;
use crate::store::{FoundShops, SearchBudget, ShopRecord, Words, WriteTx};

/// What a shop is made of, or replaced by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopFields {
    /// What people call it; may be empty.
    pub name: String,
    /// Its site.
    pub url: String,
    /// Further origins its widget may run on.
    pub widget_origins: Vec<String>,
    /// Whether its credentials are accepted.
    pub enabled: bool,
}

impl ShopFields {
    /// Every fault of them, whatever exists already.
    pub(in crate::admin) fn validate(&self) -> Result<(), OperationError> {
        let mut faults = Faults::default();
        faults.name("name", &self.name, true);
        faults.url("url", &self.url);
        faults.widget_origins("widget_origins", &self.widget_origins);
        faults.into_result()
    }

    fn write_to(self, shop: &mut ShopRecord) {
        let Self { name, url, widget_origins, enabled } = self;
        *shop = ShopRecord { name, url, widget_origins, enabled, ..shop.clone() };
    }
}

/// What is to be changed of a shop; `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `ShopFields`")]
pub struct ShopChanges {
    pub name: Option<String>,
    pub url: Option<String>,
    pub widget_origins: Option<Vec<String>>,
    pub enabled: Option<bool>,
}

/// Creates a shop; a conflict if there is one of this id.
pub fn create(
    node: &Node,
    caller: &Caller,
    id: ShopId,
    fields: ShopFields,
    idempotency: Option<&Idempotency>,
) -> Result<Created<ShopRecord>, OperationError> {
    caller.require(Permission::ShopsWrite)?;
    fields.validate()?;
    let now = now(node);
    node.mutate(|tx, patch, turn| {
        if let Some(made) = Idempotency::replay(idempotency, tx, now)? {
            let made = ShopId::parse(&made).map_err(|_| gone(Resource::Shop))?;
            let shop = tx.shop(&made)?.ok_or_else(|| gone(Resource::Shop))?;
            return Ok(Created::replayed(shop));
        }
        if tx.shop(&id)?.is_some() {
            return Err(OperationError::Conflict(format!("there already is a shop `{id}`")));
        }
        let shop = new_shop(id, fields, now, turn);
        put_shop(tx, patch, &shop)?;
        record_created(tx, caller, &shop)?;
        Idempotency::note(idempotency, tx, id.to_string(), now)?;
        Ok(Created::new(shop, None))
    })
}

/// Creates a shop or replaces its fields; its limits, keys and tokens stay. Whether it is new is
/// the second value. Replacing a shop by itself changes nothing.
pub fn put(
    node: &Node,
    caller: &Caller,
    id: ShopId,
    fields: ShopFields,
    condition: &Precondition,
) -> Result<(ShopRecord, bool), OperationError> {
    caller.require_in(Permission::ShopsWrite, &id)?;
    fields.validate()?;
    let now = now(node);
    node.mutate(|tx, patch, turn| {
        if let Some(old) = tx.shop(&id)? {
            condition.check(Some(Version::from(&old)))?;
            let mut shop = old.clone();
            fields.write_to(&mut shop);
            let shop = change_shop(tx, patch, &old, shop, now)?;
            record_change(tx, caller, Action::ShopChanged, &old, &shop)?;
            return Ok((shop, false));
        }
        caller.require(Permission::ShopsWrite)?;
        condition.check(None)?;
        let shop = new_shop(id, fields, now, turn);
        put_shop(tx, patch, &shop)?;
        record_created(tx, caller, &shop)?;
        Ok((shop, true))
    })
}

/// Changes some fields of a shop.
pub fn patch(
    node: &Node,
    caller: &Caller,
    id: ShopId,
    changes: ShopChanges,
    condition: &Precondition,
) -> Result<ShopRecord, OperationError> {
    caller.require_in(Permission::ShopsWrite, &id)?;
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let old = find(tx, &id)?;
        let fields = ShopFields {
            name: changes.name.unwrap_or_else(|| old.name.clone()),
            url: changes.url.unwrap_or_else(|| old.url.clone()),
            widget_origins: changes.widget_origins.unwrap_or_else(|| old.widget_origins.clone()),
            enabled: changes.enabled.unwrap_or(old.enabled),
        };
        fields.validate()?;
        condition.check(Some(Version::from(&old)))?;
        let mut shop = old.clone();
        fields.write_to(&mut shop);
        let shop = change_shop(tx, patch, &old, shop, now)?;
        record_change(tx, caller, Action::ShopChanged, &old, &shop)?;
        Ok(shop)
    })
}

/// Reads a shop.
pub fn get(node: &Node, caller: &Caller, id: &ShopId) -> Result<ShopRecord, OperationError> {
    caller.require_in(Permission::ShopsRead, id)?;
    node.store.read(|tx| tx.shop(id))?.ok_or(OperationError::NotFound(Resource::Shop))
}

/// Up to `limit` of the shops that the caller sees, from the first after `after`.
pub fn list(
    node: &Node,
    caller: &Caller,
    after: Option<&ShopId>,
    limit: usize,
) -> Result<Page<ShopRecord>, OperationError> {
    caller.require_any(Permission::ShopsRead)?;
    let wanted = limit.saturating_add(1);
    let found = node.store.read(|tx| match &caller.shops {
        Shops::All => tx.shops(after, wanted),
        Shops::Only(ids) => {
            let rest = ids.iter().filter(|id| after.is_none_or(|after| *id > after));
            let found = rest.filter_map(|id| tx.shop(id).transpose());
            found.take(wanted).collect()
        }
    })?;
    Ok(Page::of(found, limit))
}

/// What one search may cost: all of 100,000 shops in one call, unless very many of them have to
/// be read closely.
const SEARCH_BUDGET: SearchBudget = SearchBudget { looked_at_max: 200_000, decoded_max: 50_000 };

/// Up to `limit` of the shops that the caller sees and that `words` mean, from the first after
/// `after`; fewer, with more to come, where there is too much to look at in one call.
pub fn search(
    node: &Node,
    caller: &Caller,
    words: &Words,
    after: Option<&ShopId>,
    limit: usize,
) -> Result<FoundShops, OperationError> {
    caller.require_any(Permission::ShopsRead)?;
    let found = node.store.read(|tx| match &caller.shops {
        Shops::All => tx.search_shops(words, after, limit, SEARCH_BUDGET),
        Shops::Only(ids) => {
            let rest = ids.iter().filter(|id| after.is_none_or(|after| *id > after));
            let found = rest.filter_map(|id| tx.shop(id).transpose());
            let meant = found.filter(|shop| shop.as_ref().map_or(true, |s| words.match_shop(s)));
            let mut shops = meant.take(limit.saturating_add(1)).collect::<Result<Vec<_>, _>>()?;
            let more = shops.len() > limit;
            shops.truncate(limit);
            let next = shops.last().filter(|_| more).map(|shop| shop.id);
            Ok(FoundShops { shops, next })
        }
    })?;
    Ok(found)
}

/// Deletes a shop with its keys and tokens. A shop created under the same id later starts empty,
/// and refuses widget tokens of this one.
pub fn delete(
    node: &Node,
    caller: &Caller,
    id: &ShopId,
    condition: &Precondition,
) -> Result<(), OperationError> {
    caller.require(Permission::ShopsWrite)?;
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let old = find(tx, id)?;
        condition.check(Some(Version::from(&old)))?;
        tx.delete_shop(id)?;
        operators::forget_shop(tx, patch, id, now)?;
        admin_tokens::forget_shop(tx, patch, id)?;
        let (subject, before) = (Subject::shop(id), Some(view::shop(&old)));
        audit::record(tx, caller, now, Action::ShopDeleted, subject, before, None)?;
        patch.push(Change::RemoveShop(*id));
        Ok(())
    })?;
    node.ledger.forget(id);
    Ok(())
}

/// The shop `id` in a transaction.
pub(super) fn find(tx: &WriteTx, id: &ShopId) -> Result<ShopRecord, OperationError> {
    tx.shop(id)?.ok_or(OperationError::NotFound(Resource::Shop))
}

/// Stores `new` in place of `old`, unless they are the same.
pub(super) fn change_shop(
    tx: &mut WriteTx,
    patch: &mut Patch,
    old: &ShopRecord,
    mut new: ShopRecord,
    now: Timestamp,
) -> Result<ShopRecord, OperationError> {
    if new == *old {
        return Ok(new);
    }
    new.updated_at = now;
    new.revision = old.revision.saturating_add(1);
    put_shop(tx, patch, &new)?;
    Ok(new)
}

/// Records that `old` became `new`, unless they are the same.
pub(super) fn record_change(
    tx: &mut WriteTx,
    caller: &Caller,
    action: Action,
    old: &ShopRecord,
    new: &ShopRecord,
) -> Result<(), OperationError> {
    if new == old {
        return Ok(());
    }
    let view = if action == Action::ShopLimitsChanged {
        |shop: &ShopRecord| view::limits(&shop.limits)
    } else {
        view::shop
    };
    let (before, after) = (Some(view(old)), Some(view(new)));
    audit::record(tx, caller, new.updated_at, action, Subject::shop(&new.id), before, after)
}

fn record_created(
    tx: &mut WriteTx,
    caller: &Caller,
    shop: &ShopRecord,
) -> Result<(), OperationError> {
    let (subject, after) = (Subject::shop(&shop.id), Some(view::shop(shop)));
    audit::record(tx, caller, shop.created_at, Action::ShopCreated, subject, None, after)
}

pub(super) fn put_shop(
    tx: &mut WriteTx,
    patch: &mut Patch,
    shop: &ShopRecord,
) -> Result<(), OperationError> {
    let compiled = compile_shop(shop).map_err(|fault| {
        OperationError::invalid("url", format!("{}: {}", fault.text, fault.error))
    })?;
    tx.put_shop(shop)?;
    patch.push(Change::PutShop(compiled));
    Ok(())
}

/// A shop without limits, whose widget tokens are those issued from now on: a deleted shop of the
/// same id may have left some that have not expired.
fn new_shop(id: ShopId, fields: ShopFields, now: Timestamp, turn: &Turn) -> ShopRecord {
    let ShopFields { name, url, widget_origins, enabled } = fields;
    ShopRecord {
        id,
        name,
        url,
        widget_origins,
        enabled,
        tokens_valid_from: now.max(turn.after_last_issued()),
        limits: Vec::new(),
        created_at: now,
        updated_at: now,
        revision: 1,
    }
}
