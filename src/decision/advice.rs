//! "Why was I refused?": for every code, when it happens, and what its two readers can do.
//!
//! About codes in general; what is wrong with one request is said by its
//! [`Denial`](super::denial::Denial). Plain text, with names and commands between backticks;
//! rendered as a manual page and on the dashboard.

use super::code::Code;
use super::denial::Stage;

/// What there is to know about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// When it happens.
    pub when: &'static str,
    /// What who sent the request can do.
    pub caller: &'static str,
    /// What who runs latchkey can look at.
    pub operator: &'static str,
}

const fn advice(when: &'static str, caller: &'static str, operator: &'static str) -> Advice {
    Advice { when, caller, operator }
}

impl Code {
    /// What there is to know about it.
    #[must_use]
    pub const fn advice(self) -> Advice {
        match self {
            Self::BadRequest => BAD_REQUEST,
            Self::NotFound => NOT_FOUND,
            Self::MissingCredential => MISSING_CREDENTIAL,
            Self::InvalidCredential => INVALID_CREDENTIAL,
            Self::ExpiredCredential => EXPIRED_CREDENTIAL,
            Self::OriginMismatch => ORIGIN_MISMATCH,
            Self::CrossTenant => CROSS_TENANT,
            Self::InsufficientScope => INSUFFICIENT_SCOPE,
            Self::ShopDisabled => SHOP_DISABLED,
            Self::NetworkNotAllowed => NETWORK_NOT_ALLOWED,
            Self::RateLimited => RATE_LIMITED,
            Self::KeysUnavailable => KEYS_UNAVAILABLE,
            Self::RequestTimeout => REQUEST_TIMEOUT,
            Self::PayloadTooLarge => PAYLOAD_TOO_LARGE,
            Self::UriTooLong => URI_TOO_LONG,
            Self::HeadersTooLarge => HEADERS_TOO_LARGE,
            Self::UpstreamUnreachable => UPSTREAM_UNREACHABLE,
            Self::UpstreamError => UPSTREAM_ERROR,
            Self::UpstreamTimeout => UPSTREAM_TIMEOUT,
            Self::Overloaded => OVERLOADED,
            Self::Internal => INTERNAL,
        }
    }
}

impl Stage {
    /// What it asks.
    #[must_use]
    pub const fn question(self) -> &'static str {
        match self {
            Self::Classify => "Can the path be read in one way, and which route takes it?",
            Self::Extract => "Which credential does the request present, of those the route takes?",
            Self::Throttle => {
                "Has the address failed to authenticate too often? Only asked if a credential is \
                 presented, and before it is looked at."
            }
            Self::Authenticate => {
                "Is the credential authentic, known, current and not revoked? Failures are counted \
                 against the address."
            }
            Self::Authorize => {
                "May its bearer do this: is the shop of the path its own, is the shop enabled, the \
                 network allowed, the page the shop's, the scope granted? In this order."
            }
            Self::Admit => "Do its limits allow it now? Only here are limits charged.",
        }
    }

    /// What it may refuse with, in the order of its questions.
    #[must_use]
    pub const fn codes(self) -> &'static [Code] {
        match self {
            Self::Classify => &[Code::BadRequest, Code::NotFound],
            Self::Extract => &[Code::BadRequest, Code::MissingCredential],
            Self::Throttle | Self::Admit => &[Code::RateLimited],
            Self::Authenticate => {
                &[Code::InvalidCredential, Code::ExpiredCredential, Code::KeysUnavailable]
            }
            Self::Authorize => &[
                Code::CrossTenant,
                Code::ShopDisabled,
                Code::NetworkNotAllowed,
                Code::OriginMismatch,
                Code::InsufficientScope,
            ],
        }
    }
}

const BAD_REQUEST: Advice = advice(
    "The request is malformed, or two servers could read it differently: a path with dot \
     segments, empty segments, an encoded slash or double encoding; a credential header sent \
     twice; credentials of two mechanisms that the route both takes; a missing or contradicting \
     Host; a body whose framing is broken; CONNECT or TRACE.",
    "`detail` names what is wrong. Send the path as it is meant, encoded once, and one \
     credential, once.",
    "Clients that build paths by joining strings make `//`. If a proxy in front rewrites paths, \
     see whether it decodes them. In answer to a proxy that asks (forward-auth) the log names the \
     line that the proxy's configuration lacks.",
);

const NOT_FOUND: Advice = advice(
    "No route takes this method and path, so nobody is asked. A 404 without `code` comes from the \
     service behind latchkey.",
    "Look at the path and at the method.",
    "`latchkey config print` shows the routes in force; the first that matches path and method \
     decides. A path under `/.latchkey/` is latchkey's own: forward-auth questions are answered \
     for the contracts in `forward_auth.contracts` only.",
);

const MISSING_CREDENTIAL: Advice = advice(
    "The route needs a credential and the request carries none in the header of a mechanism that \
     the route takes. A credential of another mechanism counts as none.",
    "Send the header that `detail` and `WWW-Authenticate` name: `X-Shop-API-Key`, \
     `X-Widget-Token` or `Authorization: Bearer`.",
    "If the client does send it, something in between removes it: a proxy that drops headers, or \
     a redirect to another host. The log has the route that took the request.",
);

const INVALID_CREDENTIAL: Advice = advice(
    "The credential is malformed, unknown, revoked, rotated away after its grace period, signed \
     by somebody else, or for another audience. Which of these is not told to the caller.",
    "Get a new one: a key from the dashboard, a widget token from the shop's own server, a JWT \
     from the identity provider. Look for white space, quotes, or a key of another environment.",
    "The log and the live refusals have the reason, for a JWT the claim or header that is wrong. \
     `latchkey explain` with the credential walks through its checks. An address that fails often \
     gets 429 instead (`[failed_attempts]`).",
);

const EXPIRED_CREDENTIAL: Advice = advice(
    "The credential is authentic, and its time is over.",
    "Renew it. Widget tokens and JWTs are meant to expire: fetch the next one before `expires_at` \
     or `exp`.",
    "If it should not have expired yet, compare clocks: `latchkey doctor` looks at this one. JWTs \
     are forgiven `issuers.leeway`, widget tokens live for `widget.lifetime`, keys for as long as \
     they were created for.",
);

const ORIGIN_MISMATCH: Advice = advice(
    "A browser's page is not on the shop's site: `Origin`, or for an API key without it \
     `Referer`, names another scheme, host or port than the shop's URL; or it is `null`, sent \
     twice, or does not parse. A widget may be on the shop's extra origins too.",
    "Call from a page of the shop's site. A server needs to send neither header.",
    "`latchkey shop show` prints the URL and the extra origins, which are changed by `latchkey \
     shop update`. `origin.www_alias` and `origin.scheme` say what counts as the same site; \
     `widget.allow_loopback_origins` lets developers in on their own machine.",
);

const CROSS_TENANT: Advice = advice(
    "The path names another shop than the credential is bound to, whether that shop exists or \
     not.",
    "Use the id of the credential's own shop, or `me`.",
    "`latchkey explain` says which shop the credential is bound to. A JWT is bound by \
     `issuers.shop_claim`; without it, it may not go where the path names a shop.",
);

const INSUFFICIENT_SCOPE: Advice = advice(
    "The route asks for a scope on this path that the credential was not given.",
    "Ask for a credential with the scope that `detail` names.",
    "The scopes a path needs are in its route (`scopes`); a widget token gets its own when it is \
     issued, a JWT from `issuers.scope_claim`.",
);

const SHOP_DISABLED: Advice = advice(
    "The shop is switched off; its credentials are still good and will work again.",
    "Ask the operator.",
    "`latchkey shop show` says so, the audit log says who did it: `latchkey audit list`. Switch \
     it on with `latchkey shop update SHOP --enable`.",
);

const NETWORK_NOT_ALLOWED: Advice = advice(
    "The API key may be used from certain networks only, and the client's address is in none of \
     them; or somebody who is no trusted proxy asks a forward-auth question.",
    "Call from a network that the key was made for, or ask the operator to add yours.",
    "The log has the address the caller was taken for. If it is a proxy's, \
     `server.trusted_proxies` does not name that proxy, or its header is not the one in \
     `server.forwarding_header`.",
);

const RATE_LIMITED: Advice = advice(
    "A limit is used up, or the address has failed to authenticate too often. `RateLimit-Policy` \
     and `RateLimit` name the limit and where the caller stands.",
    "Wait as many seconds as `Retry-After` says: then one request passes. Spread requests out \
     instead of retrying at once.",
    "`latchkey shop limits` shows a shop's limits and changes them for this shop alone; \
     `[[limits]]` changes them for all. `latchkey_limited_total` counts by policy. A new limit can \
     be tried with `shadow = true`.",
);

const KEYS_UNAVAILABLE: Advice = advice(
    "The keys of the token's issuer have never been fetched, or not for `issuers.stale_max`: \
     whether the token is good cannot be known.",
    "Try again after `Retry-After`. The token may well be good.",
    "`latchkey issuer list` shows the key sets, their age and the last error; `latchkey issuer \
     refresh` asks the provider now; `latchkey doctor` says what stands in between.",
);

const REQUEST_TIMEOUT: Advice = advice(
    "The request did not arrive in time: its head within `server.head_timeout`, progress of its \
     body within `server.body_timeout`, all of it within `server.request_timeout`.",
    "Send the request without pauses; upload large bodies over a better line or in parts.",
    "`latchkey_bounds_hit_total` counts by bound. Many of these from many addresses at once is a \
     slow-request attack that is being held off.",
);

const PAYLOAD_TOO_LARGE: Advice = advice(
    "The body is longer than the route takes, by its `Content-Length` or while it was read.",
    "Send less, or in parts.",
    "`routes.body_bytes_max` bounds one route, `server.body_bytes_max` the others.",
);

const URI_TOO_LONG: Advice = advice(
    "The first line of the request alone is longer than `server.header_bytes_max`.",
    "Put what is long into the body of a POST.",
    "The bound is one for the line and all header fields together.",
);

const HEADERS_TOO_LARGE: Advice = advice(
    "The header fields are more than `server.header_count_max` or longer than \
     `server.header_bytes_max`.",
    "Send fewer or shorter ones; a browser's cookies may be what is long.",
    "Raise the bound if the requests are legitimate: it is memory per connection.",
);

const UPSTREAM_UNREACHABLE: Advice = advice(
    "The request was allowed, but no connection to the service behind latchkey came about: name, \
     address, TLS, or all endpoints are left out for their failures.",
    "Nothing is wrong with the request. Try again later.",
    "`latchkey doctor` tries every endpoint; the log names the endpoint and the error; \
     `latchkey_upstream_errors_total` counts by cause.",
);

const UPSTREAM_ERROR: Advice = advice(
    "The service behind latchkey closed the connection before it answered, or gave an answer that \
     is not valid HTTP.",
    "The request may have had an effect: before a retry, find out.",
    "Look at the service's own log under the same `X-Request-Id`. If it happens to requests after \
     a pause, the service closes idle connections sooner than `upstreams.NAME.idle_timeout`.",
);

const UPSTREAM_TIMEOUT: Advice = advice(
    "The service behind latchkey did not take a connection within \
     `upstreams.NAME.connect_timeout`, or did not begin its answer within \
     `upstreams.NAME.response_timeout`.",
    "The request may have had an effect: before a retry, find out.",
    "Is the service slow, or the timeout short? `latchkey_upstream_request_duration_seconds` shows \
     how long answers take.",
);

const OVERLOADED: Advice = advice(
    "All connections (`server.connections_max`, or those of one address) or all requests in flight \
     (`server.requests_max`) are taken.",
    "Try again after `Retry-After`.",
    "`latchkey_bounds_hit_total` says which bound. Requests pile up when the service behind is \
     slow; a single address that opens too many connections is stopped by \
     `server.connections_per_address_max`.",
);

const INTERNAL: Advice = advice(
    "latchkey could not do its own part: a token could not be recorded because the disk refuses, \
     or a proof could not be signed.",
    "Try again later; give the operator the `request_id`.",
    "The log has the error under that `request_id`. `latchkey doctor` looks at database, disk and \
     clock.",
);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::decision::denial::{Denial, OriginFault, OriginSource};
    use crate::decision::policy::MechanismSet;
    use crate::decision::principal::Mechanism;
    use crate::decision::route::PathError;
    use crate::id::Name;

    #[test]
    fn every_code_has_words_of_its_own() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            let Advice { when, caller, operator } = code.advice();
            for text in [when, caller, operator] {
                assert!(text.ends_with('.') && text.is_ascii(), "{code:?}: {text}");
                assert!(text.matches('`').count().is_multiple_of(2), "{code:?}: {text}");
                assert!(!text.contains("  "), "{code:?}: {text}");
            }
            assert!(seen.insert(when), "{code:?}");
        }
    }

    #[test]
    fn every_refusal_is_one_of_its_stage() {
        let name = Name::parse("id").unwrap();
        let mechanism = Mechanism::Jwt;
        let denials = [
            Denial::BadPath(PathError::DotSegment),
            Denial::NotFound,
            Denial::AmbiguousCredentials,
            Denial::MissingCredential { expected: MechanismSet::all() },
            Denial::TooManyFailures { retry_after_us: 1 },
            Denial::InvalidCredential { mechanism, reason: "x" },
            Denial::ExpiredCredential { mechanism },
            Denial::KeysUnavailable { issuer: name.clone() },
            Denial::CrossTenant,
            Denial::ShopDisabled,
            Denial::NetworkNotAllowed,
            Denial::OriginMismatch { source: OriginSource::Origin, fault: OriginFault::Foreign },
            Denial::InsufficientScope { needed: "x", mechanism },
            Denial::RateLimited { policy: &name, retry_after_us: 1 },
        ];
        for denial in &denials {
            assert!(denial.stage().codes().contains(&denial.code()), "{denial:?}");
        }
        for stage in Stage::ALL {
            for code in stage.codes() {
                let made = denials.iter().any(|d| d.stage() == stage && d.code() == *code);
                assert!(made, "{stage:?} never refuses with {code:?}");
            }
        }
    }
}
