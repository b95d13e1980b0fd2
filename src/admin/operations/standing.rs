//! How much of each limit a shop has left. It looks and charges nothing.
//!
//! Only limits that count all of a shop's requests together have one answer for a shop; those by
//! credential, subject or address have as many as there are of those, and are not told of here.

use super::{OperationError, Resource};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::decision::policy::LimitPolicy;
use crate::decision::rate_limit::{self, Algorithm, Charge, Limits as _, Quota};
use crate::decision::{Facts as _, charge_of_shop};
use crate::id::{Name, ShopId};
use crate::limiter::Peek;

/// Where a shop stands under one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The limit.
    pub policy: Name,
    /// The quota that counts for the shop.
    pub quota: Quota,
    /// How it is counted.
    pub algorithm: Algorithm,
    /// Whether the quota is the shop's own.
    pub is_own: bool,
    /// Units that may be spent now.
    pub left: u32,
    /// Units that may be spent at once when the quota is whole.
    pub at_once: u32,
    /// Until it is whole again, if nothing more is spent: seconds, rounded up; zero if it is. For a
    /// sliding window at most so long.
    pub whole_in_s: u64,
}

/// Until the quota is whole, if the request that was foreseen is not made. `at` tells it as it is
/// after that request, or, where that is refused, until it would pass.
fn whole_us(charge: &Charge, at: rate_limit::Standing) -> u64 {
    let (quota, cost) = (&charge.quota, u64::from(charge.cost.get()));
    let window_us = quota.window_us.get();
    let takes_us = |units: u64| units.saturating_mul(window_us) / u64::from(quota.limit.get());
    match (charge.algorithm, at.exceeded) {
        (Algorithm::TokenBucket, false) => at.reset_us.saturating_sub(takes_us(cost)),
        (Algorithm::TokenBucket, true) => {
            let burst = u64::from(quota.burst.get());
            at.reset_us.saturating_add(takes_us(burst.saturating_sub(cost)))
        }
        (Algorithm::SlidingWindow, false) => at.reset_us,
        // What was spent in this window counts until the end of the next.
        (Algorithm::SlidingWindow, true) => window_us.saturating_mul(2),
    }
}

/// Where the shop `id` stands under every limit that counts its requests together, in the order
/// of the configuration.
pub fn of_shop(node: &Node, caller: &Caller, id: &ShopId) -> Result<Vec<Standing>, OperationError> {
    caller.require_in(Permission::ShopsRead, id)?;
    let snapshot = node.published.load();
    let shop = snapshot.shop(id).ok_or(OperationError::NotFound(Resource::Shop))?;
    let now = node.now().mono;
    let limits = Peek(&node.limiter);
    let standing = |(index, policy): (u16, &LimitPolicy)| {
        let charge = charge_of_shop(index, shop, &**snapshot)?;
        let (quota, at) = (charge.quota, limits.peek(&charge, now));
        let at_once = match policy.algorithm {
            Algorithm::TokenBucket => quota.burst.get(),
            Algorithm::SlidingWindow => quota.limit.get(),
        };
        // What is told is what would be left after one more request.
        let after = if at.exceeded { 0 } else { policy.cost.get() };
        let left = at.remaining.saturating_add(after).min(at_once);
        let whole_us = whole_us(&charge, at);
        let whole_in_s = if left < at_once { whole_us.div_ceil(1_000_000) } else { 0 };
        Some(Standing {
            policy: policy.name.clone(),
            quota,
            algorithm: policy.algorithm,
            is_own: quota != policy.quota,
            left,
            at_once,
            whole_in_s,
        })
    };
    Ok((0u16..).zip(&snapshot.policies().limits).filter_map(standing).collect())
}
