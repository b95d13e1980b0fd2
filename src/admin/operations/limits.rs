//! Limits of its own for a shop or a key, by the name of the configured policy they replace.
//!
//! The policies themselves are the configuration's; here nothing is counted.

use std::time::Duration;

use super::validate::Faults;
use super::{OperationError, Precondition, Resource, Version, keys, now, shops};
use crate::admin::audit::Action;
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::decision::policy::{LimitPolicy, Policies};
use crate::decision::rate_limit::{Algorithm, Quota};
use crate::id::{KeyId, Name, ShopId};
use crate::store::{KeyRecord, LimitRecord, ShopRecord};

/// An override that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitFields {
    /// The policy it replaces.
    pub policy: String,
    /// Requests per window.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// Requests at once; `None`: as many as `limit`.
    pub burst: Option<u32>,
}

/// Which overrides a deletion takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// That of this policy.
    Of(String),
}

/// Replaces all overrides of a shop.
pub fn put_of_shop(
    node: &Node,
    caller: &Caller,
    id: &ShopId,
    limits: &[LimitFields],
    condition: &Precondition,
) -> Result<ShopRecord, OperationError> {
    caller.require_in(Permission::LimitsWrite, id)?;
    let limits = validate(node, limits)?;
    edit_shop(node, caller, id, condition, |of_shop| {
        *of_shop = limits;
        Ok(())
    })
}

/// Takes overrides of a shop away.
pub fn delete_of_shop(
    node: &Node,
    caller: &Caller,
    id: &ShopId,
    which: &Which,
    condition: &Precondition,
) -> Result<ShopRecord, OperationError> {
    caller.require_in(Permission::LimitsWrite, id)?;
    edit_shop(node, caller, id, condition, |limits| remove(limits, which))
}

/// Replaces all overrides of a key.
pub fn put_of_key(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: KeyId,
    limits: &[LimitFields],
    condition: &Precondition,
) -> Result<KeyRecord, OperationError> {
    caller.require_in(Permission::LimitsWrite, shop)?;
    let limits = validate(node, limits)?;
    edit_key(node, caller, (shop, id), condition, |of_key| {
        *of_key = limits;
        Ok(())
    })
}

/// Takes overrides of a key away.
pub fn delete_of_key(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    id: KeyId,
    which: &Which,
    condition: &Precondition,
) -> Result<KeyRecord, OperationError> {
    caller.require_in(Permission::LimitsWrite, shop)?;
    edit_key(node, caller, (shop, id), condition, |limits| remove(limits, which))
}

fn edit_shop(
    node: &Node,
    caller: &Caller,
    id: &ShopId,
    condition: &Precondition,
    edit: impl FnOnce(&mut Vec<LimitRecord>) -> Result<(), OperationError>,
) -> Result<ShopRecord, OperationError> {
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let old = shops::find(tx, id)?;
        let mut new = old.clone();
        edit(&mut new.limits)?;
        condition.check(Some(Version::from(&old)))?;
        let new = shops::change_shop(tx, patch, &old, new, now)?;
        shops::record_change(tx, caller, Action::ShopLimitsChanged, &old, &new)?;
        Ok(new)
    })
}

fn edit_key(
    node: &Node,
    caller: &Caller,
    (shop, id): (&ShopId, KeyId),
    condition: &Precondition,
    edit: impl FnOnce(&mut Vec<LimitRecord>) -> Result<(), OperationError>,
) -> Result<KeyRecord, OperationError> {
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let old = keys::find(tx, shop, id)?;
        let mut new = old.clone();
        edit(&mut new.limits)?;
        condition.check(Some(Version::from(&old)))?;
        let new = keys::change_key(tx, patch, &old, new)?;
        keys::record_change(tx, caller, now, Action::KeyLimitsChanged, &old, &new)?;
        Ok(new)
    })
}

fn remove(limits: &mut Vec<LimitRecord>, which: &Which) -> Result<(), OperationError> {
    let before = limits.len();
    match which {
        Which::All => {
            limits.clear();
            return Ok(());
        }
        Which::Of(policy) => limits.retain(|limit| limit.policy.as_str() != policy),
    }
    if limits.len() == before { Err(OperationError::NotFound(Resource::Limit)) } else { Ok(()) }
}

fn validate(node: &Node, limits: &[LimitFields]) -> Result<Vec<LimitRecord>, OperationError> {
    let policies = node.published.load().shared_policies();
    let mut faults = Faults::default();
    let records = validate_with(&policies, limits, &mut faults);
    faults.into_result()?;
    Ok(records)
}

/// The overrides that `limits` ask for, by policy; what is wrong with them goes to `faults`.
pub(super) fn validate_with(
    policies: &Policies,
    limits: &[LimitFields],
    faults: &mut Faults,
) -> Vec<LimitRecord> {
    let mut records: Vec<LimitRecord> = Vec::new();
    for fields in limits {
        if let Some(record) = validate_one(policies, fields, faults) {
            if records.iter().any(|r| r.policy == record.policy) {
                faults.add(fields.policy.as_str(), "is overridden twice");
            }
            records.push(record);
        }
    }
    records.sort_by(|a, b| a.policy.cmp(&b.policy));
    records
}

fn validate_one(
    policies: &Policies,
    fields: &LimitFields,
    faults: &mut Faults,
) -> Option<LimitRecord> {
    let place = fields.policy.as_str();
    let Some(policy) = policies.limits.iter().find(|p| p.name.as_str() == place) else {
        let names: Vec<&str> = policies.limits.iter().map(|p| p.name.as_str()).collect();
        let problem = format!("is no limit of the configuration; there are {}", names.join(", "));
        faults.add(place, problem);
        return None;
    };
    if fields.limit == 0 || fields.limit > Quota::LIMIT_MAX {
        faults.add(format!("{place}.limit"), format!("is not from 1 to {}", Quota::LIMIT_MAX));
    }
    let field = format!("{place}.window_seconds");
    faults.within(&field, fields.window, Quota::WINDOW_MIN, Quota::WINDOW_MAX);
    if let Some(burst) = fields.burst {
        if policy.algorithm == Algorithm::SlidingWindow {
            let problem = "means nothing for a sliding window; leave it out";
            faults.add(format!("{place}.burst"), problem);
        }
        if burst == 0 || burst > Quota::LIMIT_MAX {
            faults.add(format!("{place}.burst"), format!("is not from 1 to {}", Quota::LIMIT_MAX));
        }
    }
    affordable(policy, fields, faults);
    let name: Name = policy.name.clone();
    let window_s = fields.window.as_secs();
    Some(LimitRecord { policy: name, limit: fields.limit, window_s, burst: fields.burst })
}

/// A quota that cannot pay for one request would refuse for ever.
fn affordable(policy: &LimitPolicy, fields: &LimitFields, faults: &mut Faults) {
    let cost = policy.cost.get();
    let (member, at_once) = match policy.algorithm {
        Algorithm::TokenBucket => match fields.burst {
            Some(burst) => ("burst", burst),
            None => ("limit", fields.limit),
        },
        Algorithm::SlidingWindow => ("limit", fields.limit),
    };
    if at_once > 0 && at_once < cost {
        let field = format!("{}.{member}", fields.policy);
        faults.add(field, format!("is below {cost}, what one request costs"));
    }
}
