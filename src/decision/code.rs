//! The stable codes of refusals and errors (spec §5), with their status and title.
//!
//! One list for the whole gateway: the decision core refuses with some of them, the shell answers
//! its own failures with the others. Holds no words about a single request: that is
//! [`Denial`](super::denial::Denial)'s business.

/// The stable codes of spec §5; clients branch on them, metrics count by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its `as_str`, described in spec §5")]
pub enum Code {
    BadRequest,
    NotFound,
    MissingCredential,
    InvalidCredential,
    ExpiredCredential,
    OriginMismatch,
    CrossTenant,
    InsufficientScope,
    ShopDisabled,
    NetworkNotAllowed,
    RateLimited,
    KeysUnavailable,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    HeadersTooLarge,
    UpstreamUnreachable,
    UpstreamError,
    UpstreamTimeout,
    Overloaded,
    Internal,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::BadRequest,
        Self::NotFound,
        Self::MissingCredential,
        Self::InvalidCredential,
        Self::ExpiredCredential,
        Self::OriginMismatch,
        Self::CrossTenant,
        Self::InsufficientScope,
        Self::ShopDisabled,
        Self::NetworkNotAllowed,
        Self::RateLimited,
        Self::KeysUnavailable,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::UpstreamUnreachable,
        Self::UpstreamError,
        Self::UpstreamTimeout,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The `code` member of the problem, and the metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NotFound => "not_found",
            Self::MissingCredential => "missing_credential",
            Self::InvalidCredential => "invalid_credential",
            Self::ExpiredCredential => "expired_credential",
            Self::OriginMismatch => "origin_mismatch",
            Self::CrossTenant => "cross_tenant",
            Self::InsufficientScope => "insufficient_scope",
            Self::ShopDisabled => "shop_disabled",
            Self::NetworkNotAllowed => "network_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::KeysUnavailable => "keys_unavailable",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    /// The status code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::MissingCredential | Self::InvalidCredential | Self::ExpiredCredential => 401,
            Self::OriginMismatch
            | Self::CrossTenant
            | Self::InsufficientScope
            | Self::ShopDisabled
            | Self::NetworkNotAllowed => 403,
            Self::NotFound => 404,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::UriTooLong => 414,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::UpstreamUnreachable | Self::UpstreamError => 502,
            Self::KeysUnavailable | Self::Overloaded => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// The `title` member: the same for every occurrence (RFC 9457 §3.1.4).
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Malformed request",
            Self::NotFound => "No such route",
            Self::MissingCredential => "Credential missing",
            Self::InvalidCredential => "Credential not valid",
            Self::ExpiredCredential => "Credential expired",
            Self::OriginMismatch => "Origin not allowed",
            Self::CrossTenant => "Another shop's resource",
            Self::InsufficientScope => "Scope not granted",
            Self::ShopDisabled => "Shop disabled",
            Self::NetworkNotAllowed => "Network not allowed",
            Self::RateLimited => "Rate limit exceeded",
            Self::KeysUnavailable => "Identity provider's keys unavailable",
            Self::RequestTimeout => "Request took too long",
            Self::PayloadTooLarge => "Request body too large",
            Self::UriTooLong => "Request target too long",
            Self::HeadersTooLarge => "Request header fields too large",
            Self::UpstreamUnreachable => "Upstream unreachable",
            Self::UpstreamError => "Upstream failed",
            Self::UpstreamTimeout => "Upstream timed out",
            Self::Overloaded => "Overloaded",
            Self::Internal => "Internal error",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_refusals() {
        let names: HashSet<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|c| (400..600).contains(&c.status())));
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, i, "{code:?} is out of place in ALL");
        }
    }
}
