//! Who is calling, and the records a caller is checked against.
//!
//! [`Shop`] and [`ApiKey`] are the compiled forms that the snapshot holds: parsed once when they
//! were written, never on the request path.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;

use super::jwt::VerifiedJwt;
use super::origin::{Origin, OriginPattern};
use super::policy::Issuer;
use super::rate_limit::QuotaOverride;
use super::widget_token::WidgetToken;
use crate::clock::Timestamp;
use crate::id::{KeyId, ShopId};
use crate::secret::Digest;

/// The ways in. A closed set: it labels metrics and `X-Auth-Mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// `X-Widget-Token`.
    WidgetToken,
    /// `X-Shop-API-Key`.
    ShopApiKey,
    /// `Authorization: Bearer` with a signed JWT.
    Jwt,
    /// No credential, on a route that allows it.
    Anonymous,
}

impl Mechanism {
    /// All of them, in the order of spec §1.
    pub const ALL: [Self; 4] = [Self::WidgetToken, Self::ShopApiKey, Self::Jwt, Self::Anonymous];

    /// The name used in configuration, metrics, logs and `X-Auth-Mechanism`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WidgetToken => "widget_token",
            Self::ShopApiKey => "shop_api_key",
            Self::Jwt => "jwt",
            Self::Anonymous => "anonymous",
        }
    }

    /// The inverse of [`Mechanism::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == text)
    }
}

/// A tenant, as decisions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shop {
    /// Its identifier.
    pub id: ShopId,
    /// A disabled shop's credentials are authentic, but refused with 403 `shop_disabled`.
    pub enabled: bool,
    /// `shop.url`.
    pub url: Origin,
    /// Where its widgets may be embedded besides `url`.
    pub widget_origins: Vec<OriginPattern>,
    /// Widget tokens issued before this are refused ("revoke all before now").
    pub tokens_valid_from: Timestamp,
    /// Quotas of its own, by policy name.
    pub limits: Vec<QuotaOverride>,
}

/// A shop API key, as decisions see it. A revoked key is not one any more: it has no `ApiKey`.
#[derive(Debug)]
pub struct ApiKey {
    /// Its public name.
    pub id: KeyId,
    /// What is stored of the secret.
    pub digest: Digest,
    /// Its shop.
    pub shop: ShopId,
    /// From this time on: 401 `expired_credential`.
    pub expires_at: Option<Timestamp>,
    /// The key was rotated; it still verifies until this time (the end of its grace period), and
    /// from then on it is like an unknown key: 401 `invalid_credential`.
    pub grace_until: Option<Timestamp>,
    /// Networks it may be used from; empty: any.
    pub networks: Vec<IpNet>,
    /// Quotas of its own, by policy name; they win over the shop's.
    pub limits: Vec<QuotaOverride>,
    /// When it last authenticated, Unix milliseconds; zero: never. Written by the server after a
    /// decision, flushed to the store in batches. Shared by the successive versions of this key.
    pub last_used_ms: Arc<AtomicU64>,
}

/// The authenticated caller: mechanism, shop, subject, scopes.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a widget token is held inline to spare the heap")]
pub enum Principal<'a> {
    /// By a widget token.
    WidgetToken {
        /// The verified token.
        token: WidgetToken,
        /// Its shop.
        shop: &'a Shop,
    },
    /// By a shop API key.
    ShopApiKey {
        /// The key.
        key: &'a ApiKey,
        /// Its shop.
        shop: &'a Shop,
    },
    /// By a JWT.
    Jwt {
        /// What was verified of it.
        token: Arc<VerifiedJwt>,
        /// The issuer whose key verified it.
        issuer: &'a Issuer,
        /// It was verified in this evaluation, not found in the cache.
        fresh: bool,
    },
    /// By nothing.
    Anonymous,
}

impl Principal<'_> {
    /// How the caller authenticated.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        match self {
            Self::WidgetToken { .. } => Mechanism::WidgetToken,
            Self::ShopApiKey { .. } => Mechanism::ShopApiKey,
            Self::Jwt { .. } => Mechanism::Jwt,
            Self::Anonymous => Mechanism::Anonymous,
        }
    }

    /// The shop the caller is bound to, if any.
    #[must_use]
    pub fn shop(&self) -> Option<&ShopId> {
        match self {
            Self::WidgetToken { shop, .. } | Self::ShopApiKey { shop, .. } => Some(&shop.id),
            Self::Jwt { token, .. } => token.shop.as_ref(),
            Self::Anonymous => None,
        }
    }

    /// The JWT's `sub`; the other mechanisms have none.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Jwt { token, .. } => Some(&token.subject),
            Self::WidgetToken { .. } | Self::ShopApiKey { .. } | Self::Anonymous => None,
        }
    }

    /// Granted scopes, space-separated (RFC 6749 §3.3); `*` is every scope. A shop API key stands
    /// for the shop itself and has `*`.
    #[must_use]
    pub fn scopes(&self) -> &str {
        match self {
            Self::WidgetToken { token, .. } => token.scopes.as_str(),
            Self::ShopApiKey { .. } => "*",
            Self::Jwt { token, .. } => &token.scopes,
            Self::Anonymous => "",
        }
    }
}

/// Whether the space-separated `granted` holds `needed`, or `*`.
#[must_use]
pub fn grants(granted: &str, needed: &str) -> bool {
    granted.split(' ').any(|scope| scope == needed || scope == "*")
}
