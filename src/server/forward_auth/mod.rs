//! Forward-auth: a proxy in front asks whether a request may pass, and does the forwarding itself.
//!
//! Every proxy asks in its own way and understands its own answers, so each has an endpoint of its
//! own, `/.latchkey/auth/<contract>`; which proxy it is, is never guessed.
//!
//! | contract | it asks by | of an answer it makes |
//! |---|---|---|
//! | `nginx` | `auth_request`; `X-Original-*` | 2xx, 401, 403 what they say; of all else 500 |
//! | `traefik` | `ForwardAuth`; `X-Forwarded-*` | 2xx allows, all else goes to the client |
//! | `caddy` | `forward_auth`; `X-Forwarded-*` | the same |
//! | `haproxy` | our Lua action; `X-Original-*` | 200 allows, all else goes to the client |
//! | `envoy` | `ext_authz`; the request under a prefix | the same, but 5xx is a failure |
//!
//! [`original`] makes the request out of the question, `answer` the answer out of the decision.
//! The decision itself is made as for every other request. Neither looks at who the peer is: a
//! question is only read after the peer was found among the trusted proxies.

pub(super) mod answer;
pub mod original;

use crate::config::Contract;
use crate::decision::route::CanonicalPath;

/// The path below which no request reaches a route: what stands here is latchkey's own.
const RESERVED: &str = "/.latchkey/";

const ENDPOINTS: &str = "/.latchkey/auth/";

/// Whether `path` is below the reserved one, percent-encoded or not: patterns match what is
/// decoded, so one that takes everything would take `/%2elatchkey/` too.
pub(super) fn is_reserved(path: &str) -> bool {
    let is_encoded = || path.split('/').nth(1).is_some_and(|first| first.contains('%'));
    let decoded = || CanonicalPath::parse(path);
    path.starts_with(RESERVED)
        || (is_encoded() && decoded().is_ok_and(|path| path.as_str().starts_with(RESERVED)))
}

/// The contract whose endpoint `path` is. Envoy puts the path it asks about behind its endpoint's;
/// the others' endpoints are one path each.
pub(super) fn endpoint(path: &str) -> Option<Contract> {
    let rest = path.strip_prefix(ENDPOINTS)?;
    Contract::ALL.into_iter().find(|contract| match rest.strip_prefix(contract.as_str()) {
        Some("") => true,
        Some(behind) => *contract == Contract::Envoy && behind.starts_with('/'),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (path, contract) in [
            ("/.latchkey/auth/nginx", Some(Contract::Nginx)),
            ("/.latchkey/auth/traefik", Some(Contract::Traefik)),
            ("/.latchkey/auth/caddy", Some(Contract::Caddy)),
            ("/.latchkey/auth/haproxy", Some(Contract::HaProxy)),
            ("/.latchkey/auth/envoy", Some(Contract::Envoy)),
            ("/.latchkey/auth/envoy/", Some(Contract::Envoy)),
            ("/.latchkey/auth/envoy/../x", Some(Contract::Envoy)),
            ("/.latchkey/auth/envoyx", None),
            ("/.latchkey/auth/nginx/", None),
            ("/.latchkey/auth/nginx/x", None),
            ("/.latchkey/auth/NGINX", None),
            ("/.latchkey/auth/", None),
            ("/.latchkey/auth", None),
            ("/.latchkey/", None),
            ("//.latchkey/auth/nginx", None),
            ("/x/.latchkey/auth/nginx", None),
        ] {
            assert_eq!(endpoint(path), contract, "{path}");
        }
    }
}
