//! The decision core: may this caller do this?
//!
//! [`evaluate`] takes a request through the stages in the only order there is. Each stage
//! produces a value that only it can construct and that the next one requires, so that no stage
//! can be skipped; the last such value, [`Admitted`], is what the data plane needs to forward.
//!
//! The core is pure: no I/O, no clock, no logging, no randomness. What it cannot know it is given
//! ([`Facts`], [`rate_limit::Limits`], [`jwt::VerifiedTokens`], the time); what it cannot do it
//! returns as data ([`Decision::NeedsKey`]).

pub mod advice;
pub mod api_key;
pub mod cors;
pub mod credential;
pub mod denial;
pub mod jwt;
pub mod origin;
pub mod policy;
pub mod principal;
pub mod rate_limit;
pub mod request;
pub mod route;
pub mod widget_token;

mod authenticate;
mod authorize;
mod code;
mod limits;

use std::hash::RandomState;

use http::Method;

pub use self::limits::charge_of_shop;

use self::credential::Presented;
use self::denial::Denial;
use self::jwt::{KeySets, VerifiedTokens};
use self::policy::{Policies, Route};
use self::principal::{ApiKey, Mechanism, Principal, Shop};
use self::rate_limit::{Limits, Quota, Standing};
use self::request::RequestView;
use self::route::{CanonicalPath, PathError};
use self::widget_token::SigningKey;
use crate::clock::Now;
use crate::id::{Name, ShopId, TokenId};
use crate::secret::{Digest, Pepper};

/// What the core must know of the world; the snapshot implements it.
pub trait Facts: KeySets {
    /// The compiled configuration.
    fn policies(&self) -> &Policies;
    /// The generation of the compiled configuration.
    fn policies_generation(&self) -> u64;
    /// The key under which secrets are digested.
    fn pepper(&self) -> &Pepper;
    /// Keys the hashes that name limiter cells, so that nobody can aim at another's cell.
    fn cell_hasher(&self) -> &RandomState;
    /// The API key with this digest.
    fn api_key(&self, digest: &Digest) -> Option<&ApiKey>;
    /// The shop with this id.
    fn shop(&self, id: &ShopId) -> Option<&Shop>;
    /// The widget-token signing key with this number.
    fn signing_key(&self, id: u32) -> Option<&SigningKey>;
    /// Whether the widget token with this id was revoked.
    fn is_token_revoked(&self, id: &TokenId) -> bool;
}

/// Everything a decision is made from, besides the request and the time.
#[derive(Debug)]
pub struct Context<'a, F, L, V> {
    /// What is known.
    pub facts: &'a F,
    /// The state of all quotas.
    pub limits: &'a L,
    /// The cache of verified JWTs.
    pub verified: &'a V,
}

/// Whether this evaluation may still ask for a key it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// An unknown key is a reason to ask: [`Decision::NeedsKey`].
    First,
    /// The issuer was asked: an unknown key is an invalid credential.
    AfterRefresh,
}

/// What came of a request.
#[derive(Debug)]
pub enum Decision<'a> {
    /// It may pass.
    Admit(Admitted<'a>),
    /// It may not.
    Refuse(Refusal<'a>),
    /// Not decidable without a key of `issuer` that the key set does not hold: ask for it, then
    /// evaluate once more with [`Round::AfterRefresh`].
    NeedsKey {
        /// Whose key.
        issuer: Name,
        /// Which key; empty if the token names none.
        kid: Box<str>,
    },
}

/// Proof that a request passed every stage. Only [`evaluate`] makes one.
#[derive(Debug)]
pub struct Admitted<'a> {
    permit: Permit<'a>,
    limit: Option<LimitReport<'a>>,
    shadow_exceeded: u64,
}

impl<'a> Admitted<'a> {
    /// The route it takes.
    #[must_use]
    pub fn route(&self) -> &'a Route {
        self.permit.route
    }

    /// Who it comes from.
    #[must_use]
    pub fn principal(&self) -> &Principal<'a> {
        &self.permit.principal
    }

    /// The tightest of its limits; `None` if it is under none.
    #[must_use]
    pub fn limit(&self) -> Option<LimitReport<'a>> {
        self.limit
    }

    /// Shadow policies that would have refused it: bit `i` is `Policies::limits[i]`.
    #[must_use]
    pub fn shadow_exceeded(&self) -> u64 {
        self.shadow_exceeded
    }
}

/// A refusal, and what was known when it was made.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// Why.
    pub denial: Denial<'a>,
    /// The route, once classified.
    pub route: Option<&'a Route>,
    /// The caller, once authenticated.
    pub principal: Option<Principal<'a>>,
    /// The limit that refused.
    pub limit: Option<LimitReport<'a>>,
}

impl Refusal<'_> {
    /// The mechanism it is about: the principal's, or the one the refused credential was presented
    /// as; `None` where no credential was looked at.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        let principal = self.principal.as_ref().map(Principal::mechanism);
        principal.or_else(|| self.denial.mechanism())
    }
}

/// How a limit speaks in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReport<'a> {
    /// The policy's name.
    pub policy: &'a Name,
    /// The quota that applied: the policy's or an override.
    pub quota: Quota,
    /// Where the caller stands.
    pub standing: Standing,
}

/// A request with a canonical path and a route.
#[derive(Debug)]
struct Classified<'a, 'p> {
    route: &'a Route,
    path: &'p CanonicalPath<'p>,
    /// The segment at `{shopId}`.
    shop: Option<&'p str>,
}

/// An authenticated caller on its route.
#[derive(Debug)]
struct Authenticated<'a> {
    route: &'a Route,
    principal: Principal<'a>,
}

/// An authenticated caller who may do this, quotas aside.
#[derive(Debug)]
struct Permit<'a> {
    route: &'a Route,
    principal: Principal<'a>,
}

/// Why a stage ends the evaluation.
enum Stop<'a> {
    Denied(Denial<'a>),
    NeedsKey { issuer: Name, kid: Box<str> },
}

impl<'a> From<Denial<'a>> for Stop<'a> {
    fn from(denial: Denial<'a>) -> Self {
        Self::Denied(denial)
    }
}

/// Decides `request` at `now`. Allocates nothing for an admitted API key or cached JWT whose path
/// holds no percent-encoding.
#[must_use]
pub fn evaluate<'a, F: Facts, L: Limits, V: VerifiedTokens>(
    request: &RequestView<'_>,
    context: &Context<'a, F, L, V>,
    now: Now,
    round: Round,
) -> Decision<'a> {
    let path = match CanonicalPath::parse(request.path) {
        Ok(path) => path,
        Err(error) => return refuse(Denial::BadPath(error), None),
    };
    let classified = match classify(request.method, &path, context.facts.policies()) {
        Ok(classified) => classified,
        Err(denial) => return refuse(denial, None),
    };
    let route = classified.route;
    let presented = match credential::extract(request, route.mechanisms) {
        Ok(presented) => presented,
        Err(denial) => return refuse(denial, Some(route)),
    };
    if let Err(denial) = throttle(request, presented, context, now) {
        return refuse(denial, Some(route));
    }
    let authenticated = match authenticate::authenticate(presented, route, context, now, round) {
        Ok(authenticated) => authenticated,
        Err(Stop::NeedsKey { issuer, kid }) => return Decision::NeedsKey { issuer, kid },
        Err(Stop::Denied(denial)) => {
            limits::charge_failure(&denial, request.client, context, now);
            return refuse(denial, Some(route));
        }
    };
    let permit = match authorize::authorize(request, &classified, authenticated, context.facts) {
        Ok(permit) => permit,
        Err(refusal) => return Decision::Refuse(*refusal),
    };
    match limits::admit(request, &path, permit, context, now) {
        Ok(admitted) => Decision::Admit(admitted),
        Err(refusal) => Decision::Refuse(*refusal),
    }
}

fn refuse<'a>(denial: Denial<'a>, route: Option<&'a Route>) -> Decision<'a> {
    Decision::Refuse(Refusal { denial, route, principal: None, limit: None })
}

/// The route that a request takes, if any; decides nothing about it.
#[must_use]
pub fn route<'a>(method: &Method, path: &str, policies: &'a Policies) -> Option<&'a Route> {
    let path = CanonicalPath::parse(path).ok()?;
    classify(method, &path, policies).ok().map(|classified| classified.route)
}

/// The first route that matches path and method.
fn classify<'a, 'p>(
    method: &Method,
    path: &'p CanonicalPath<'p>,
    policies: &'a Policies,
) -> Result<Classified<'a, 'p>, Denial<'a>> {
    for route in policies.routes.iter().filter(|r| r.methods.contains(method)) {
        let Some(matched) = route.paths.iter().find_map(|p| p.matches(path)) else {
            continue;
        };
        if matched.shop.is_some_and(|segment| segment.contains(';')) {
            return Err(Denial::BadPath(PathError::ShopParameter));
        }
        return Ok(Classified { route, path, shop: matched.shop });
    }
    Err(Denial::NotFound)
}

/// Refuses a credential unseen when its address has failed too often. A request without one is
/// no attempt.
fn throttle<F: Facts, L: Limits, V: VerifiedTokens>(
    request: &RequestView<'_>,
    presented: Presented<'_>,
    context: &Context<'_, F, L, V>,
    now: Now,
) -> Result<(), Denial<'static>> {
    if presented == Presented::Nothing {
        return Ok(());
    }
    let charge = limits::failure_charge(request.client, context.facts);
    let standing = context.limits.peek(&charge, now.mono);
    if standing.exceeded {
        return Err(Denial::TooManyFailures { retry_after_us: standing.reset_us });
    }
    Ok(())
}
