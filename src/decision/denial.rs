//! Refusals: a closed set, each with its stable [`Code`] and its words (spec §5).
//!
//! A denial speaks to two audiences: [`Denial::detail`] is what the client may know,
//! [`Denial::reason`] what the operator must know. Rendering either is the shell's business.

use std::borrow::Cow;

pub use super::code::Code;
use super::policy::MechanismSet;
use super::principal::Mechanism;
use super::route::PathError;
use crate::id::Name;

/// The stages of a decision, in the only order there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Syntax of the request, and its route.
    Classify,
    /// Which credential it presents.
    Extract,
    /// Whether its address has failed too often.
    Throttle,
    /// Whether the credential is authentic, current and known.
    Authenticate,
    /// Whether its principal may do this: shop, network, origin, scope.
    Authorize,
    /// Whether its quotas allow it now.
    Admit,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Classify,
        Self::Extract,
        Self::Throttle,
        Self::Authenticate,
        Self::Authorize,
        Self::Admit,
    ];

    /// Its name in `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Extract => "extract",
            Self::Throttle => "throttle",
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Admit => "admit",
        }
    }
}

/// Why a credential's field cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialFault {
    /// The field appears more than once.
    Repeated,
    /// It holds a byte that is not visible ASCII.
    NotVisibleAscii,
}

impl CredentialFault {
    /// The fault in words, to follow "because".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "it is sent more than once",
            Self::NotVisibleAscii => "it holds a character that is not visible ASCII",
        }
    }
}

/// Why an `Origin` or `Referer` is a mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginFault {
    /// It names another site.
    Foreign,
    /// It is `null`.
    Opaque,
    /// There are several.
    Repeated,
    /// It does not parse.
    Malformed,
    /// A preflight's: neither the route nor a shop whose widgets it serves allows it.
    Unlisted,
}

impl OriginFault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "it is not one this shop allows",
            Self::Opaque => "it is `null`, as sent by sandboxed and local pages",
            Self::Repeated => "it is sent more than once",
            Self::Malformed => "it is not a valid origin",
            Self::Unlisted => "it is not one whose pages may call this route",
        }
    }
}

/// Which of the two headers spoke for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginSource {
    /// `Origin`.
    Origin,
    /// `Referer`, in the absence of `Origin`.
    Referer,
}

impl OriginSource {
    fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "Origin",
            Self::Referer => "Referer",
        }
    }
}

/// A refusal of the decision core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial<'a> {
    /// The path can be read in two ways, or not at all.
    BadPath(PathError),
    /// The presented credential field cannot be read in one way.
    BadCredentialField {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        fault: CredentialFault,
    },
    /// Credentials of several mechanisms that the route all takes.
    AmbiguousCredentials,
    /// No route takes this method and path.
    NotFound,
    /// The route's credential is absent.
    MissingCredential {
        /// What the route takes.
        expected: MechanismSet,
    },
    /// Malformed, unknown, revoked, rotated away or signed elsewhere.
    InvalidCredential {
        /// As what it was presented.
        mechanism: Mechanism,
        /// What is wrong, for the operator only.
        reason: &'static str,
    },
    /// Authentic, but past its expiry.
    ExpiredCredential {
        /// As what it was presented.
        mechanism: Mechanism,
    },
    /// The key set of the token's issuer is missing or too old.
    KeysUnavailable {
        /// The issuer.
        issuer: Name,
    },
    /// The principal's shop is not the path's shop.
    CrossTenant,
    /// The principal's shop is disabled.
    ShopDisabled,
    /// The key may not be used from the client's network.
    NetworkNotAllowed,
    /// The browser's page is not on an allowed origin.
    OriginMismatch {
        /// Which header said so.
        source: OriginSource,
        /// What is wrong with it.
        fault: OriginFault,
    },
    /// The scope the route needs is not granted.
    InsufficientScope {
        /// The scope.
        needed: &'a str,
        /// As what the credential was presented.
        mechanism: Mechanism,
    },
    /// The address failed to authenticate too often.
    TooManyFailures {
        /// Until an attempt is looked at again, microseconds.
        retry_after_us: u64,
    },
    /// Over a limit.
    RateLimited {
        /// Which.
        policy: &'a Name,
        /// Until a request like this one passes, microseconds.
        retry_after_us: u64,
    },
}

impl Denial<'_> {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::BadPath(_) | Self::BadCredentialField { .. } | Self::AmbiguousCredentials => {
                Code::BadRequest
            }
            Self::NotFound => Code::NotFound,
            Self::MissingCredential { .. } => Code::MissingCredential,
            Self::InvalidCredential { .. } => Code::InvalidCredential,
            Self::ExpiredCredential { .. } => Code::ExpiredCredential,
            Self::KeysUnavailable { .. } => Code::KeysUnavailable,
            Self::CrossTenant => Code::CrossTenant,
            Self::ShopDisabled => Code::ShopDisabled,
            Self::NetworkNotAllowed => Code::NetworkNotAllowed,
            Self::OriginMismatch { .. } => Code::OriginMismatch,
            Self::InsufficientScope { .. } => Code::InsufficientScope,
            Self::TooManyFailures { .. } | Self::RateLimited { .. } => Code::RateLimited,
        }
    }

    /// As what the refused credential was presented, where one was looked at.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        match self {
            Self::InvalidCredential { mechanism, .. }
            | Self::ExpiredCredential { mechanism }
            | Self::InsufficientScope { mechanism, .. } => Some(*mechanism),
            Self::KeysUnavailable { .. } => Some(Mechanism::Jwt),
            Self::BadPath(_)
            | Self::BadCredentialField { .. }
            | Self::AmbiguousCredentials
            | Self::NotFound
            | Self::MissingCredential { .. }
            | Self::CrossTenant
            | Self::ShopDisabled
            | Self::NetworkNotAllowed
            | Self::OriginMismatch { .. }
            | Self::TooManyFailures { .. }
            | Self::RateLimited { .. } => None,
        }
    }

    /// The stage that refused.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::BadPath(_) | Self::NotFound => Stage::Classify,
            Self::BadCredentialField { .. }
            | Self::AmbiguousCredentials
            | Self::MissingCredential { .. } => Stage::Extract,
            Self::TooManyFailures { .. } => Stage::Throttle,
            Self::InvalidCredential { .. }
            | Self::ExpiredCredential { .. }
            | Self::KeysUnavailable { .. } => Stage::Authenticate,
            Self::CrossTenant
            | Self::ShopDisabled
            | Self::NetworkNotAllowed
            | Self::OriginMismatch { .. }
            | Self::InsufficientScope { .. } => Stage::Authorize,
            Self::RateLimited { .. } => Stage::Admit,
        }
    }

    /// What the client may know: what was wrong and what to do, nothing about what exists.
    #[must_use]
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::BadPath(error) => format!("The request is refused because {error}.").into(),
            Self::BadCredentialField { field, fault } => {
                format!("The {field} header is refused because {}.", fault.as_str()).into()
            }
            Self::AmbiguousCredentials => {
                "The request presents credentials of several kinds; send only one.".into()
            }
            Self::NotFound => "No route takes this method and path.".into(),
            Self::MissingCredential { expected } => missing_detail(*expected).into(),
            Self::InvalidCredential { mechanism, .. } => invalid_detail(*mechanism).into(),
            Self::ExpiredCredential { mechanism } => expired_detail(*mechanism).into(),
            Self::KeysUnavailable { .. } => {
                "The token cannot be checked now: the keys of its issuer are not available. \
                 Try again later."
                    .into()
            }
            Self::CrossTenant => "The credential does not belong to the shop in the path.".into(),
            Self::ShopDisabled => "The shop is disabled.".into(),
            Self::NetworkNotAllowed => {
                "The API key may not be used from this network address.".into()
            }
            Self::OriginMismatch { source, fault } => {
                format!("The {} header is refused: {}.", source.as_str(), fault.as_str()).into()
            }
            Self::InsufficientScope { needed, .. } => {
                format!("The credential lacks the scope `{needed}` that this path needs.").into()
            }
            Self::TooManyFailures { .. } => {
                "Too many failed attempts to authenticate from this address; wait as long as \
                 Retry-After says."
                    .into()
            }
            Self::RateLimited { policy, .. } => {
                format!("The limit `{policy}` is used up; wait as long as Retry-After says.").into()
            }
        }
    }

    /// What the operator must know, for the log; holds no secret.
    #[must_use]
    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::InvalidCredential { reason, .. } => Cow::Borrowed(*reason),
            Self::KeysUnavailable { issuer } => {
                format!("the key set of issuer `{issuer}` is missing or stale").into()
            }
            Self::BadPath(_)
            | Self::BadCredentialField { .. }
            | Self::AmbiguousCredentials
            | Self::NotFound
            | Self::MissingCredential { .. }
            | Self::ExpiredCredential { .. }
            | Self::CrossTenant
            | Self::ShopDisabled
            | Self::NetworkNotAllowed
            | Self::OriginMismatch { .. }
            | Self::InsufficientScope { .. }
            | Self::TooManyFailures { .. }
            | Self::RateLimited { .. } => self.detail(),
        }
    }

    /// How long to wait before the same request can pass, microseconds; only where the wait is
    /// known.
    #[must_use]
    pub fn retry_after_us(&self) -> Option<u64> {
        match self {
            Self::TooManyFailures { retry_after_us } | Self::RateLimited { retry_after_us, .. } => {
                Some(*retry_after_us)
            }
            Self::KeysUnavailable { .. } => Some(KEYS_RETRY_AFTER_US),
            Self::BadPath(_)
            | Self::BadCredentialField { .. }
            | Self::AmbiguousCredentials
            | Self::NotFound
            | Self::MissingCredential { .. }
            | Self::InvalidCredential { .. }
            | Self::ExpiredCredential { .. }
            | Self::CrossTenant
            | Self::ShopDisabled
            | Self::NetworkNotAllowed
            | Self::OriginMismatch { .. }
            | Self::InsufficientScope { .. } => None,
        }
    }

    /// The `WWW-Authenticate` value of a 401, and of a Bearer 403 (RFC 9110 §11.6.1, RFC 6750
    /// §3). The two header mechanisms have no registered scheme; theirs is named after the header
    /// to send.
    #[must_use]
    pub fn challenge(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::MissingCredential { expected } => Some(missing_challenge(*expected)),
            Self::InvalidCredential { mechanism, .. } | Self::ExpiredCredential { mechanism } => {
                Some(invalid_challenge(*mechanism))
            }
            Self::InsufficientScope { needed, mechanism: Mechanism::Jwt } => Some(
                format!(
                    "Bearer realm=\"latchkey\", error=\"insufficient_scope\", scope=\"{needed}\""
                )
                .into(),
            ),
            Self::InsufficientScope { .. }
            | Self::BadPath(_)
            | Self::BadCredentialField { .. }
            | Self::AmbiguousCredentials
            | Self::NotFound
            | Self::KeysUnavailable { .. }
            | Self::CrossTenant
            | Self::ShopDisabled
            | Self::NetworkNotAllowed
            | Self::OriginMismatch { .. }
            | Self::TooManyFailures { .. }
            | Self::RateLimited { .. } => None,
        }
    }
}

/// A key set that went missing comes back with the next successful fetch; half a minute is the
/// default cool-down between fetches.
const KEYS_RETRY_AFTER_US: u64 = 30_000_000;

fn missing_detail(expected: MechanismSet) -> String {
    let headers: Vec<&str> = expected
        .iter()
        .map(|m| match m {
            Mechanism::WidgetToken => "`X-Widget-Token: <token>`",
            Mechanism::ShopApiKey => "`X-Shop-API-Key: sk_<32 hex digits>`",
            Mechanism::Jwt => "`Authorization: Bearer <token>`",
            Mechanism::Anonymous => "no credential",
        })
        .collect();
    format!("The request carries no credential; this route takes {}.", headers.join(" or "))
}

fn invalid_detail(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::WidgetToken => {
            "The widget token is malformed, revoked, or from another environment; issue a new one."
        }
        Mechanism::ShopApiKey => "The shop API key is malformed, unknown, revoked or rotated away.",
        Mechanism::Jwt | Mechanism::Anonymous => {
            "The bearer token is malformed or was not issued for this service."
        }
    }
}

fn expired_detail(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::WidgetToken => "The widget token has expired; issue a new one.",
        Mechanism::ShopApiKey => "The shop API key has expired; create a new one.",
        Mechanism::Jwt | Mechanism::Anonymous => "The bearer token has expired; get a new one.",
    }
}

fn challenge_scheme(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::WidgetToken => "X-Widget-Token realm=\"latchkey\"",
        Mechanism::ShopApiKey => "X-Shop-API-Key realm=\"latchkey\"",
        Mechanism::Jwt | Mechanism::Anonymous => "Bearer realm=\"latchkey\"",
    }
}

fn missing_challenge(expected: MechanismSet) -> Cow<'static, str> {
    let schemes: Vec<&str> =
        expected.iter().filter(|m| *m != Mechanism::Anonymous).map(challenge_scheme).collect();
    schemes.join(", ").into()
}

fn invalid_challenge(mechanism: Mechanism) -> Cow<'static, str> {
    match mechanism {
        Mechanism::WidgetToken | Mechanism::ShopApiKey => challenge_scheme(mechanism).into(),
        Mechanism::Jwt | Mechanism::Anonymous => {
            "Bearer realm=\"latchkey\", error=\"invalid_token\"".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_401_has_a_challenge() {
        for mechanism in [Mechanism::WidgetToken, Mechanism::ShopApiKey, Mechanism::Jwt] {
            let expected = [mechanism].into_iter().collect();
            for denial in [
                Denial::MissingCredential { expected },
                Denial::InvalidCredential { mechanism, reason: "x" },
                Denial::ExpiredCredential { mechanism },
            ] {
                assert_eq!(denial.code().status(), 401);
                assert!(!denial.challenge().unwrap().is_empty());
            }
        }
        let bare = Denial::MissingCredential { expected: [Mechanism::Jwt].into_iter().collect() };
        assert_eq!(bare.challenge().unwrap(), "Bearer realm=\"latchkey\"", "RFC 6750 §3.1");
    }

    #[test]
    fn the_reason_of_an_invalid_credential_is_not_for_the_client() {
        let denial =
            Denial::InvalidCredential { mechanism: Mechanism::ShopApiKey, reason: "revoked" };
        assert_eq!(denial.reason(), "revoked");
        let other =
            Denial::InvalidCredential { mechanism: Mechanism::ShopApiKey, reason: "unknown" };
        assert_eq!(denial.detail(), other.detail());
    }
}
