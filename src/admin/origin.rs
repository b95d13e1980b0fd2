//! How a request reached the admin plane: from which client address, under which origin, and
//! whether by https.
//!
//! A browser can be led here under any name that an attacker's DNS points at this machine (DNS
//! rebinding). Pages are served only under names that are known to be meant: `admin.public_url`,
//! an address literal, `localhost`, and over TLS whatever name the browser found in the
//! certificate. The API and the metrics are not for browsers and do not ask.
//!
//! Decides nothing about who may do what: nobody is trusted for where a request comes from.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::plain;
use crate::client_address::{Caller, Scheme};
use crate::config::AdminConfig;
use crate::decision::origin::{Origin, Scheme as OriginScheme};

/// How a request reached the admin plane; the listener puts it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::admin) struct Reached {
    /// Whether the browser came by https: to us, or to a proxy under an https public URL.
    pub(in crate::admin) https: bool,
    /// The origin under which the browser sees us; `None` under a name that is not known.
    pub(in crate::admin) origin: Option<Origin>,
    /// The client address behind `admin.trusted_proxies`.
    pub(in crate::admin) client: IpAddr,
}

impl Reached {
    /// What `headers` say that came from `peer`, over TLS if `is_tls`.
    pub(in crate::admin) fn of(
        config: &AdminConfig,
        peer: IpAddr,
        is_tls: bool,
        headers: &HeaderMap,
    ) -> Self {
        let values = |name: &'static str| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let caller = Caller::from_x_forwarded(
            peer,
            &config.trusted_proxies,
            values("x-forwarded-for"),
            values("x-forwarded-proto"),
            values("x-forwarded-host"),
        );
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().filter(|_| hosts.next().is_none());
        let host = host.and_then(|host| host.to_str().ok());
        let host = caller.host.as_deref().or(host);
        if let (Some(public), Some(host)) = (&config.public_url, host)
            && origin_of(public.scheme(), host).as_ref() == Some(public)
        {
            let https = public.scheme() == OriginScheme::Https;
            return Self { https, origin: Some(public.clone()), client: caller.address };
        }
        let https = is_tls || caller.scheme == Some(Scheme::Https);
        let scheme = if https { OriginScheme::Https } else { OriginScheme::Http };
        let origin = host.and_then(|host| origin_of(scheme, host));
        // Over TLS the browser has found the name in a certificate of ours.
        let origin = origin.filter(|origin| is_tls || is_local(origin.host()));
        Self { https, origin, client: caller.address }
    }
}

fn origin_of(scheme: OriginScheme, host: &str) -> Option<Origin> {
    let scheme = match scheme {
        OriginScheme::Http => "http",
        OriginScheme::Https => "https",
    };
    // What stands in `Host` is an authority and nothing else.
    let is_authority = !host.contains(['/', '?', '#', '@']);
    Origin::parse(&format!("{scheme}://{host}")).ok().filter(|_| is_authority)
}

/// Whether no DNS server has a say in where this host leads.
fn is_local(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

/// Refuses what came under a name that is not known.
pub(in crate::admin) async fn require_known(request: Request, next: Next) -> Response {
    let known = request.extensions().get::<Reached>().is_some_and(|r| r.origin.is_some());
    if known {
        return next.run(request).await;
    }
    plain::page(
        StatusCode::MISDIRECTED_REQUEST,
        "This name is not known here",
        "latchkey does not know that it is reached under this name, so it does not answer: \
         another site could have led your browser here. Open it by its address, or have the \
         operator set admin.public_url to what stands in the address bar. Behind a proxy, the \
         proxy has to pass Host on as it came.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(public_url: Option<&str>) -> AdminConfig {
        let mut config = AdminConfig::new("127.0.0.1:8081".parse().unwrap(), "admin.sock".into());
        config.public_url = public_url.map(|url| Origin::parse(url).unwrap());
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        config
    }

    fn reached(
        public_url: Option<&str>,
        peer: &str,
        is_tls: bool,
        fields: &[(&'static str, &str)],
    ) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let found = Reached::of(&admin(public_url), peer.parse().unwrap(), is_tls, &headers);
        let origin = found.origin.map_or("none".to_owned(), |origin| origin.to_string());
        format!("{} {origin} {}", if found.https { "https" } else { "http" }, found.client)
    }

    #[test]
    fn names_that_are_meant() {
        let public = Some("https://latchkey.example");
        for (public_url, is_tls, host, expected) in [
            (None, false, "127.0.0.1:8081", "http http://127.0.0.1:8081"),
            (None, false, "[::1]:8081", "http http://[::1]:8081"),
            (None, false, "192.0.2.9", "http http://192.0.2.9"),
            (None, false, "localhost:8081", "http http://localhost:8081"),
            (None, false, "a.localhost", "http http://a.localhost"),
            (None, false, "LOCALHOST", "http http://localhost"),
            (None, false, "evil.example", "http none"),
            (None, false, "localhost.evil.example", "http none"),
            (None, false, "127.0.0.1.evil.example", "http none"),
            (None, false, "evil@localhost", "http none"),
            (None, false, "localhost/@evil.example", "http none"),
            (None, false, "", "http none"),
            (None, true, "latchkey.example", "https https://latchkey.example"),
            (None, true, "127.0.0.1:8443", "https https://127.0.0.1:8443"),
            (public, false, "latchkey.example", "https https://latchkey.example"),
            (public, false, "Latchkey.Example:443", "https https://latchkey.example"),
            (public, false, "latchkey.example:80", "http none"),
            (public, false, "evil.example", "http none"),
            (public, false, "localhost:8081", "http http://localhost:8081"),
            (public, true, "localhost:8081", "https https://localhost:8081"),
        ] {
            let found = reached(public_url, "192.0.2.1", is_tls, &[("host", host)]);
            assert_eq!(found, format!("{expected} 192.0.2.1"), "{public_url:?} {is_tls} {host}");
        }
        assert_eq!(reached(None, "::ffff:192.0.2.1", false, &[]), "http none 192.0.2.1");
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(reached(None, "192.0.2.1", false, &twice), "http none 192.0.2.1");
    }

    #[test]
    fn proxies_are_believed_if_they_are_trusted() {
        let fields = [
            ("host", "127.0.0.1:8081"),
            ("x-forwarded-for", "198.51.100.7, 203.0.113.5, 10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "latchkey.example"),
        ];
        let public = Some("https://latchkey.example");
        for (public_url, peer, expected) in [
            (public, "10.0.0.1", "https https://latchkey.example 203.0.113.5"),
            (None, "10.0.0.1", "https none 203.0.113.5"),
            (public, "192.0.2.1", "http http://127.0.0.1:8081 192.0.2.1"),
        ] {
            assert_eq!(reached(public_url, peer, false, &fields), expected, "{peer}");
        }
    }
}
