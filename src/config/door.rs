//! What latchkey says to others about a request it has judged: `[cors]` to browsers,
//! `[forward_auth]` to proxies that ask, `[assertion]` to upstreams that want proof.
//!
//! Reads the tables; who says it is in `server`.

use std::time::Duration;

use http::HeaderName;

use super::read::Section;
use super::report::Noted;
use super::server::ServerConfig;
use super::validate::one_of;
use super::value::{self, Span, quote};

/// Longest issuer of an assertion, in bytes.
const ISSUER_BYTES_MAX: usize = 256;

/// Browsers on other origins (spec §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// How long a browser may remember a preflight's answer.
    pub max_age: Duration,
    /// Request header fields allowed besides a route's credential headers.
    pub request_headers: Vec<HeaderName>,
    /// Response header fields that scripts may read, besides `Retry-After`, `X-Request-Id` and
    /// those of limits.
    pub expose_headers: Vec<HeaderName>,
}

/// Deciding for proxies that forward requests themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuthConfig {
    /// Whose contracts are served; empty: none.
    pub contracts: Vec<Contract>,
}

/// How a proxy asks for a decision, and what it makes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Contract {
    /// nginx `auth_request`.
    Nginx,
    /// Traefik `ForwardAuth`.
    Traefik,
    /// Caddy `forward_auth`.
    Caddy,
    /// `HAProxy` `auth-request`.
    HaProxy,
    /// Envoy `ext_authz`, by HTTP.
    Envoy,
}

impl Contract {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Nginx, Self::Traefik, Self::Caddy, Self::HaProxy, Self::Envoy];

    /// Its name in the configuration and in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::HaProxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}

/// The signed assertion that upstreams get (spec §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionConfig {
    /// Whether it is added to requests.
    pub enabled: bool,
    /// Its `iss`.
    pub issuer: Box<str>,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// Age at which the key that signs is replaced.
    pub key_rotation: Duration,
}

/// Reads `[cors]`.
pub(super) fn read_cors(root: &mut Section<'_, '_>) -> Result<CorsConfig, Noted> {
    let mut t = root.table("cors");
    let max_age = t.duration("max_age", "10m", Span::PREFLIGHT);
    let default = ["content-type", "idempotency-key", "x-requested-with"];
    let request_headers = t.list("request_headers", &default, parse_header);
    let expose_headers = t.list("expose_headers", &[], parse_header);
    t.finish();
    Ok(CorsConfig {
        max_age: max_age?,
        request_headers: request_headers?,
        expose_headers: expose_headers?,
    })
}

/// Reads `[forward_auth]`.
pub(super) fn read_forward_auth(
    root: &mut Section<'_, '_>,
    server: Option<&ServerConfig>,
) -> Result<ForwardAuthConfig, Noted> {
    let mut t = root.table("forward_auth");
    let choices = Contract::ALL.map(|c| (c.as_str(), c));
    let contracts = t.list("contracts", &[], |text| one_of(text, &choices));
    if let Ok(contracts) = &contracts {
        for (i, contract) in contracts.iter().enumerate() {
            if contracts.iter().take(i).any(|earlier| earlier == contract) {
                let message = format!("\"{}\" stands twice", contract.as_str());
                t.error(&format!("contracts[{i}]"), message);
            }
        }
        if !contracts.is_empty() && server.is_some_and(|s| s.trusted_proxies.is_empty()) {
            let message = "need server.trusted_proxies: what a proxy says of the original request \
                           is taken from them alone";
            t.error("contracts", message.into());
        }
    }
    t.finish();
    Ok(ForwardAuthConfig { contracts: contracts? })
}

/// Reads `[assertion]`.
pub(super) fn read_assertion(root: &mut Section<'_, '_>) -> Result<AssertionConfig, Noted> {
    let mut t = root.table("assertion");
    let enabled = t.boolean("enabled", false);
    let issuer = t.text("issuer", "latchkey", parse_issuer);
    let lifetime = t.duration("lifetime", "30s", Span::ASSERTION);
    let key_rotation = t.duration("key_rotation", "30d", Span::LIFETIME);
    if let (Ok(lifetime), Ok(rotation)) = (lifetime, key_rotation)
        && rotation <= lifetime
    {
        let rotation = value::show_duration(rotation);
        let lifetime = value::show_duration(lifetime);
        t.error(
            "key_rotation",
            format!("\"{rotation}\" is not longer than assertion.lifetime, \"{lifetime}\""),
        );
    }
    t.finish();
    Ok(AssertionConfig {
        enabled: enabled?,
        issuer: issuer?,
        lifetime: lifetime?,
        key_rotation: key_rotation?,
    })
}

fn parse_header(text: &str) -> Result<HeaderName, String> {
    if text == "*" {
        return Err("\"*\" stands for nothing where credentials are sent; name the fields".into());
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!("{} is not the name of a header field; write e.g. \"content-type\"", quote(text))
    })
}

fn parse_issuer(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() || text.len() > ISSUER_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("{} is not 1 to {ISSUER_BYTES_MAX} bytes of text", quote(text)));
    }
    Ok(text.into())
}
