//! Which quotas a request is charged to, and charging them all or none.
//!
//! Holds no state: what a quota has left is known to the [`Limits`] it is given.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU32;

use arrayvec::ArrayVec;

use super::denial::Denial;
use super::jwt::VerifiedTokens;
use super::policy::{KeyBy, LimitPolicy, Policies};
use super::principal::{Mechanism, Principal, Shop};
use super::rate_limit::{Algorithm, Charge, Limits, POLICIES_MAX, Quota, QuotaOverride};
use super::request::{RequestView, client_network};
use super::route::CanonicalPath;
use super::{Admitted, Context, Facts, LimitReport, Permit, Refusal};
use crate::clock::Now;

type Charges = ArrayVec<Charge, POLICIES_MAX>;

pub(super) fn admit<'a, F: Facts, L: Limits, V: VerifiedTokens>(
    request: &RequestView<'_>,
    path: &CanonicalPath<'_>,
    permit: Permit<'a>,
    context: &Context<'a, F, L, V>,
    now: Now,
) -> Result<Admitted<'a>, Box<Refusal<'a>>> {
    let policies = context.facts.policies();
    let charges = charges(request, path, &permit.principal, context.facts);
    let charged = context.limits.charge(&charges, now.mono);
    let limit = charged.tightest.and_then(|(i, standing)| {
        let charge = charges.get(i)?;
        let policy = &policies.limits.get(usize::from(charge.policy))?.name;
        Some(LimitReport { policy, quota: charge.quota, standing })
    });
    if let (false, Some(report)) = (charged.admitted, limit) {
        let retry_after_us = report.standing.reset_us;
        let Permit { route, principal } = permit;
        return Err(Box::new(Refusal {
            denial: Denial::RateLimited { policy: report.policy, retry_after_us },
            route: Some(route),
            principal: Some(principal),
            limit,
        }));
    }
    let exceeded = |i: &usize| charged.shadow_exceeded & (1 << i) != 0;
    let shadow_exceeded = (0..charges.len())
        .filter(exceeded)
        .filter_map(|i| charges.get(i))
        .fold(0, |set, charge| set | 1 << charge.policy);
    Ok(Admitted { permit, limit, shadow_exceeded })
}

/// What a failed attempt from `client` costs, under the throttle of failed attempts. Its overflow
/// cell is the one after the last policy's.
pub(super) fn failure_charge<F: Facts>(client: IpAddr, facts: &F) -> Charge {
    Charge {
        cell: facts.cell_hasher().hash_one(("failed attempts", client_network(client))),
        policy: u16::try_from(POLICIES_MAX).unwrap_or(u16::MAX),
        quota: facts.policies().attempts.quota,
        algorithm: Algorithm::TokenBucket,
        cost: NonZeroU32::MIN,
        shadow: false,
    }
}

/// Counts a failed attempt; only a credential that is not valid is one. An expired one was
/// authentic, a missing one was no attempt.
pub(super) fn charge_failure<F: Facts, L: Limits, V: VerifiedTokens>(
    denial: &Denial<'_>,
    client: IpAddr,
    context: &Context<'_, F, L, V>,
    now: Now,
) {
    if matches!(denial, Denial::InvalidCredential { .. }) {
        context.limits.charge(&[failure_charge(client, context.facts)], now.mono);
    }
}

fn charges<F: Facts>(
    request: &RequestView<'_>,
    path: &CanonicalPath<'_>,
    principal: &Principal<'_>,
    facts: &F,
) -> Charges {
    let policies = facts.policies();
    let mut charges = matching(request, path, principal, facts, policies, false);
    // A policy on trial must not lift the limit that holds in its absence.
    if charges.iter().all(|charge| charge.shadow) {
        charges.extend(matching(request, path, principal, facts, policies, true));
    }
    charges
}

fn matching<F: Facts>(
    request: &RequestView<'_>,
    path: &CanonicalPath<'_>,
    principal: &Principal<'_>,
    facts: &F,
    policies: &Policies,
    fallback: bool,
) -> Charges {
    let mechanism = principal.mechanism();
    let applies = |policy: &LimitPolicy| {
        policy.fallback == fallback
            && policy.mechanisms.contains(mechanism)
            && policy.methods.contains(request.method)
            && policy.paths.iter().any(|p| p.matches(path).is_some())
    };
    (0u16..)
        .zip(policies.limits.iter().take(POLICIES_MAX))
        .filter(|(_, policy)| applies(policy))
        .map(|(i, policy)| charge(i, policy, request.client, principal, facts))
        .collect()
}

fn charge<F: Facts>(
    index: u16,
    policy: &LimitPolicy,
    client: IpAddr,
    principal: &Principal<'_>,
    facts: &F,
) -> Charge {
    let mut hasher = facts.cell_hasher().build_hasher();
    policy.name.hash(&mut hasher);
    hash_caller(policy.key_by, client, principal, &mut hasher);
    let mut quota = policy.quota;
    if let Principal::ShopApiKey { shop, .. } | Principal::WidgetToken { shop, .. } = principal
        && let Some(own) = find_override(&shop.limits, policy)
    {
        quota = own;
    }
    if let Principal::ShopApiKey { key, .. } = principal
        && let Some(own) = find_override(&key.limits, policy)
    {
        // A quota of the key's own is counted apart from what the shop's other keys share.
        quota = own;
        key.id.hash(&mut hasher);
    }
    finish(index, policy, quota, hasher)
}

/// What a request of `shop` costs under the policy at `index`, if there the shop's requests share
/// one cell: for who wants to know how much is left, not for a request.
pub fn charge_of_shop<F: Facts>(index: u16, shop: &Shop, facts: &F) -> Option<Charge> {
    let policy = facts.policies().limits.get(usize::from(index))?;
    let shared = matches!(policy.key_by, KeyBy::Shop | KeyBy::Subject);
    let of_shops = [Mechanism::ShopApiKey, Mechanism::WidgetToken];
    if !shared || !of_shops.into_iter().any(|m| policy.mechanisms.contains(m)) {
        return None;
    }
    let mut hasher = facts.cell_hasher().build_hasher();
    policy.name.hash(&mut hasher);
    hash_shop(shop, &mut hasher);
    let quota = find_override(&shop.limits, policy).unwrap_or(policy.quota);
    Some(finish(index, policy, quota, hasher))
}

/// The charge to the cell that `hasher` has the policy and the caller of.
fn finish(index: u16, policy: &LimitPolicy, quota: Quota, mut hasher: impl Hasher) -> Charge {
    // A changed quota starts a new cell: the old one's state means nothing under the new rates.
    (quota, policy.algorithm).hash(&mut hasher);
    Charge {
        cell: hasher.finish(),
        policy: index,
        quota,
        algorithm: policy.algorithm,
        cost: policy.cost,
        shadow: policy.shadow,
    }
}

fn find_override(overrides: &[QuotaOverride], policy: &LimitPolicy) -> Option<Quota> {
    overrides.iter().find(|o| o.policy == policy.name).map(|o| o.quota)
}

/// Hashes what names the caller under `key_by`; where the principal lacks it, the next attribute
/// down, so that every request is charged to somebody.
fn hash_caller(
    key_by: KeyBy,
    client: IpAddr,
    principal: &Principal<'_>,
    hasher: &mut impl std::hash::Hasher,
) {
    match (key_by, principal) {
        (
            KeyBy::Shop | KeyBy::Subject,
            Principal::ShopApiKey { shop, .. } | Principal::WidgetToken { shop, .. },
        ) => hash_shop(shop, hasher),
        (KeyBy::Shop, Principal::Jwt { token, .. }) if token.shop.is_some() => {
            ("shop", token.shop).hash(hasher);
        }
        (KeyBy::Key, Principal::ShopApiKey { key, .. }) => ("key", key.id).hash(hasher),
        (KeyBy::Key, Principal::WidgetToken { token, .. }) => ("token", token.id).hash(hasher),
        (KeyBy::Shop | KeyBy::Key | KeyBy::Subject, Principal::Jwt { token, issuer, .. }) => {
            ("subject", &issuer.name, &token.subject).hash(hasher);
        }
        (KeyBy::Address, _) | (_, Principal::Anonymous) => {
            ("address", client_network(client)).hash(hasher);
        }
    }
}

fn hash_shop(shop: &Shop, hasher: &mut impl std::hash::Hasher) {
    ("shop", Some(shop.id)).hash(hasher);
}
