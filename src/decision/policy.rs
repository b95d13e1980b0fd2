//! Compiled policies: what the configuration says, in the form decisions need it.
//!
//! Built by `config::validate`, immutable afterwards. Nothing here parses on the request path.

use std::num::NonZeroU32;
use std::time::Duration;

use super::origin::{OriginPattern, Rules};
use super::principal::Mechanism;
use super::rate_limit::{Algorithm, Quota};
use super::route::{MethodSet, PathPattern};
use crate::id::Name;
use crate::secret::SecretText;

/// A small set of mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MechanismSet(u8);

impl MechanismSet {
    /// The set of all mechanisms.
    #[must_use]
    pub fn all() -> Self {
        Mechanism::ALL.into_iter().collect()
    }

    /// The set of all but [`Mechanism::Anonymous`].
    #[must_use]
    pub fn authenticated() -> Self {
        Mechanism::ALL.into_iter().filter(|m| *m != Mechanism::Anonymous).collect()
    }

    /// Whether `mechanism` is in the set.
    #[must_use]
    pub fn contains(self, mechanism: Mechanism) -> bool {
        self.0 & (1 << mechanism as u8) != 0
    }

    /// Whether the set has no member.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, in the order of spec §1.
    pub fn iter(self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL.into_iter().filter(move |m| self.contains(*m))
    }
}

impl FromIterator<Mechanism> for MechanismSet {
    fn from_iter<I: IntoIterator<Item = Mechanism>>(members: I) -> Self {
        Self(members.into_iter().fold(0, |set, m| set | 1 << m as u8))
    }
}

/// Who answers an admitted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The upstream of this name.
    Upstream(Name),
    /// latchkey itself: issues a widget token for the caller's shop (spec §2.1).
    IssueWidgetToken,
}

/// A scope needed on part of a route; the first rule that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRule {
    /// Which paths.
    pub path: PathPattern,
    /// Which methods.
    pub methods: MethodSet,
    /// The scope the principal must have been granted.
    pub scope: Box<str>,
}

/// A rule of the route table; the first route that matches path and method is the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name, for logs and `explain`.
    pub name: Name,
    /// Which paths.
    pub paths: Vec<PathPattern>,
    /// Which methods.
    pub methods: MethodSet,
    /// Which mechanisms authenticate it.
    pub mechanisms: MechanismSet,
    /// Which scopes it needs where.
    pub scopes: Vec<ScopeRule>,
    /// Who answers.
    pub target: Target,
    /// Bytes of a request's body; `None`: as many as anywhere.
    pub body_bytes_max: Option<u64>,
    /// Protocols a client may upgrade to, in lower case; only where an upstream answers.
    pub upgrades: Vec<Box<str>>,
    /// Browsers' origins allowed besides those of shops.
    pub origins: Vec<OriginPattern>,
}

/// Whose requests share a quota. Where the principal lacks the attribute, the next one down
/// counts, so that a request under a policy always is somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyBy {
    /// The shop; without one, the subject.
    Shop,
    /// The credential itself: key id, token id; without one, the subject.
    Key,
    /// Issuer and subject; without one, the client address.
    Subject,
    /// The client address, IPv6 by /64.
    Address,
}

/// A limit: which requests, whose, how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Its name, in headers, metrics-free reports and overrides.
    pub name: Name,
    /// Which paths.
    pub paths: Vec<PathPattern>,
    /// Which methods.
    pub methods: MethodSet,
    /// Whose credentials.
    pub mechanisms: MechanismSet,
    /// Whose requests share a cell.
    pub key_by: KeyBy,
    /// How much.
    pub quota: Quota,
    /// How it is counted.
    pub algorithm: Algorithm,
    /// Units one request costs.
    pub cost: NonZeroU32,
    /// Count and report, never refuse.
    pub shadow: bool,
    /// Applies only where no enforced policy without this mark does.
    pub fallback: bool,
}

/// Rules for widget tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WidgetPolicy {
    /// Lifetime where none is asked for.
    pub lifetime: Duration,
    /// The longest lifetime that may be asked for.
    pub lifetime_max: Duration,
    /// Scopes a token may carry, besides `*`.
    pub scopes: Vec<Box<str>>,
    /// Loopback origins may embed any shop's widget (development).
    pub allow_loopback_origins: bool,
}

/// Throttle of failed attempts, per client address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptPolicy {
    /// Failed attempts allowed per window.
    pub quota: Quota,
}

/// Signature algorithms that can be configured (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the JWA identifiers")]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

impl JwtAlgorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::HS256,
        Self::HS384,
        Self::HS512,
    ];

    /// The `alg` value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// The inverse of [`JwtAlgorithm::as_str`]; `none` and everything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }

    /// Whether it is an HMAC, keyed by a shared secret.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// An identity provider whose JWTs are accepted: the part of its configuration that decides.
/// Where its keys come from is the business of `jwks`.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Its name in configuration, metrics and the admin API.
    pub name: Name,
    /// The exact value of `iss`.
    pub iss: Box<str>,
    /// `aud` must hold one of these; never empty.
    pub audiences: Vec<Box<str>>,
    /// Allowed algorithms; asymmetric ones only, or with `secret` HMAC ones only.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The shared secret of an HMAC issuer; such an issuer has no key set.
    pub secret: Option<SecretText>,
    /// Tolerated clock skew for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// Claims that must be present besides `iss`, `aud`, `exp` and `sub`.
    pub required_claims: Vec<Box<str>>,
    /// The `typ` a token must carry, compared without case and without a leading `application/`;
    /// empty: any (RFC 8725 §3.11).
    pub typ: Vec<Box<str>>,
    /// The claim that holds scopes, as a space-separated string or an array of strings; a path of
    /// member names. Typically `scope`, `scp`, or `realm_access` / `roles`.
    pub scope_claim: Vec<Box<str>>,
    /// The claim that holds the shop id; `None`: tokens of this issuer are bound to no shop.
    pub shop_claim: Option<Vec<Box<str>>>,
    /// A key set not refreshed for this long is no longer trusted: 503 `keys_unavailable`.
    pub stale_max: Duration,
}

/// Everything the configuration says about decisions.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The route table, in order.
    pub routes: Vec<Route>,
    /// Limits; at most [`super::rate_limit::POLICIES_MAX`].
    pub limits: Vec<LimitPolicy>,
    /// Identity providers.
    pub issuers: Vec<Issuer>,
    /// How origins are compared.
    pub origin: Rules,
    /// Widget tokens.
    pub widget: WidgetPolicy,
    /// Throttle of failed attempts.
    pub attempts: AttemptPolicy,
}
