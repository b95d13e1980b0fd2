//! From a proxy's question to the request it asks about: method, target, host and scheme as the
//! client sent them.
//!
//! Fails closed: what the question does not say, says twice or says unreadably is a [`Fault`] and
//! never a guess, since what a snippet forgets to set, a client can. Decides nothing, and does not
//! read the client address; whether that is said at all is checked here.

use std::fmt;

use http::header::{HOST, HeaderValue};
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, Method, Uri, request};

use super::ENDPOINTS;
use crate::client_address::{Caller, Scheme};
use crate::config::Contract;

/// A field of a question, and who sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    name: &'static str,
    /// The line of the snippet that sets it.
    line: &'static str,
}

/// Where a contract's question says what it asks about; `None` where the question itself is it.
#[derive(Debug)]
struct Fields {
    method: Option<Field>,
    target: Option<Field>,
    host: Field,
    scheme: Field,
    address: Field,
}

const fn field(name: &'static str, line: &'static str) -> Field {
    Field { name, line }
}

const NGINX: Fields = Fields {
    method: Some(field("X-Original-Method", "proxy_set_header X-Original-Method $request_method;")),
    target: Some(field("X-Original-URI", "proxy_set_header X-Original-URI $request_uri;")),
    host: field("X-Original-Host", "proxy_set_header X-Original-Host $host;"),
    scheme: field("X-Original-Scheme", "proxy_set_header X-Original-Scheme $scheme;"),
    address: field("X-Forwarded-For", "proxy_set_header X-Forwarded-For $remote_addr;"),
};

const TRAEFIK: Fields = Fields {
    method: Some(field("X-Forwarded-Method", "trustForwardHeader: false")),
    target: Some(field("X-Forwarded-Uri", "trustForwardHeader: false")),
    host: field("X-Forwarded-Host", "trustForwardHeader: false"),
    scheme: field("X-Forwarded-Proto", "trustForwardHeader: false"),
    address: field("X-Forwarded-For", "trustForwardHeader: false"),
};

const CADDY: Fields = Fields {
    method: Some(field("X-Forwarded-Method", "header_up X-Forwarded-Method {method}")),
    target: Some(field("X-Forwarded-Uri", "header_up X-Forwarded-Uri {uri}")),
    host: field("X-Forwarded-Host", "header_up X-Forwarded-Host {host}"),
    scheme: field("X-Forwarded-Proto", "header_up X-Forwarded-Proto {scheme}"),
    address: field("X-Forwarded-For", "header_up X-Forwarded-For {client_ip}"),
};

const HAPROXY: Fields = Fields {
    method: Some(field("X-Original-Method", r#"["x-original-method"] = { txn.sf:method() },"#)),
    target: Some(field("X-Original-URI", r#"["x-original-uri"] = { txn.sf:pathq() },"#)),
    host: field("X-Original-Host", r#"["x-original-host"] = { txn.sf:req_hdr("host") },"#),
    scheme: field("X-Original-Scheme", r#"["x-original-scheme"] = { scheme },"#),
    address: field("X-Forwarded-For", r#"["x-forwarded-for"] = { txn.sf:src() },"#),
};

const ENVOY: Fields = Fields {
    method: None,
    target: None,
    host: field("Host", "path_prefix: /.latchkey/auth/envoy"),
    scheme: field("X-Forwarded-Proto", "- exact: x-forwarded-proto"),
    address: field("X-Forwarded-For", "- exact: x-forwarded-for"),
};

const fn fields_of(contract: Contract) -> &'static Fields {
    match contract {
        Contract::Nginx => &NGINX,
        Contract::Traefik => &TRAEFIK,
        Contract::Caddy => &CADDY,
        Contract::HaProxy => &HAPROXY,
        Contract::Envoy => &ENVOY,
    }
}

/// The configuration for this proxy as it is shipped.
pub(in crate::server) const fn snippet(contract: Contract) -> &'static str {
    match contract {
        Contract::Nginx => "packaging/proxies/nginx.conf",
        Contract::Traefik => "packaging/proxies/traefik-latchkey.yml",
        Contract::Caddy => "packaging/proxies/Caddyfile",
        Contract::HaProxy => "packaging/proxies/latchkey.lua",
        Contract::Envoy => "packaging/proxies/envoy.yaml",
    }
}

/// Why a question cannot be answered. What it displays is for the operator: it names the header
/// and the line of the snippet that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    contract: Contract,
    field: Field,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Missing,
    Repeated,
    Malformed(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contract, field, what } = self;
        write!(f, "the question of the proxy ({}) cannot be read: ", contract.as_str())?;
        match what {
            What::Missing => write!(f, "{} is missing", field.name)?,
            What::Repeated => write!(f, "{} is there more than once", field.name)?,
            What::Malformed(why) => write!(f, "{} {why}", field.name)?,
        }
        write!(f, "; in {} it is set by `{}`", snippet(*contract), field.line)
    }
}

/// Makes the request that is asked about out of the question: method, target and `Host` are
/// replaced, all other fields stay. Returns the scheme.
///
/// `caller` is what was read of the question's addresses. One that is not behind any proxy is a
/// fault: the last entry names no address, and the client would share the limits, and the
/// permissions, of the proxy.
///
/// # Errors
///
/// The field that is missing, repeated or malformed, and the line of the snippet that sets it.
pub fn restore(
    contract: Contract,
    parts: &mut request::Parts,
    caller: &Caller,
) -> Result<Scheme, Fault> {
    let fields = fields_of(contract);
    let headers = &parts.headers;
    let reader = Reader { contract, headers };
    let scheme = reader.scheme(fields.scheme)?;
    let host = reader.only(fields.host)?.clone();
    reader.present(fields.address)?;
    if caller.proxies.is_empty() {
        return Err(reader.malformed(fields.address, "does not end in an address"));
    }
    let method = match fields.method {
        Some(field) => reader.method(field)?,
        None => parts.method.clone(),
    };
    let target = match fields.target {
        Some(field) => reader.target(field)?,
        None => reader.behind_endpoint(&parts.uri, fields.host)?,
    };
    parts.method = method;
    parts.uri = target;
    parts.headers.insert(HOST, host);
    Ok(scheme)
}

/// Looks at a question's fields.
struct Reader<'a> {
    contract: Contract,
    headers: &'a HeaderMap,
}

impl<'a> Reader<'a> {
    fn fault(&self, field: Field, what: What) -> Fault {
        Fault { contract: self.contract, field, what }
    }

    fn malformed(&self, field: Field, why: &'static str) -> Fault {
        self.fault(field, What::Malformed(why))
    }

    /// At least one value; several are one list.
    fn present(&self, field: Field) -> Result<(), Fault> {
        let there = self.headers.contains_key(field.name);
        if there { Ok(()) } else { Err(self.fault(field, What::Missing)) }
    }

    /// The one value.
    fn only(&self, field: Field) -> Result<&'a HeaderValue, Fault> {
        let mut values = self.headers.get_all(field.name).iter();
        let value = values.next().filter(|value| !value.is_empty());
        let value = value.ok_or(self.fault(field, What::Missing))?;
        match values.next() {
            None => Ok(value),
            Some(_) => Err(self.fault(field, What::Repeated)),
        }
    }

    fn method(&self, field: Field) -> Result<Method, Fault> {
        let value = self.only(field)?;
        Method::from_bytes(value.as_bytes())
            .map_err(|_| self.malformed(field, "is not the name of a method"))
    }

    fn target(&self, field: Field) -> Result<Uri, Fault> {
        let value = self.only(field)?;
        origin_form(value.as_bytes()).map_err(|why| self.malformed(field, why))
    }

    /// What stands behind the endpoint in the question's own target.
    fn behind_endpoint(&self, uri: &Uri, field: Field) -> Result<Uri, Fault> {
        let whole = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let endpoint = whole.strip_prefix(ENDPOINTS);
        let target = endpoint.and_then(|rest| rest.strip_prefix(self.contract.as_str()));
        origin_form(target.unwrap_or_default().as_bytes()).map_err(|why| self.malformed(field, why))
    }

    fn scheme(&self, field: Field) -> Result<Scheme, Fault> {
        match self.only(field)?.as_bytes() {
            // Traefik speaks of a WebSocket by the scheme of its URL.
            b"http" | b"ws" => Ok(Scheme::Http),
            b"https" | b"wss" => Ok(Scheme::Https),
            _ => Err(self.malformed(field, "is neither http nor https")),
        }
    }
}

/// A target in origin form (RFC 9112 §3.2.1), byte for byte; the same bytes that the front lets
/// pass in a request line.
fn origin_form(target: &[u8]) -> Result<Uri, &'static str> {
    if target.first() != Some(&b'/') {
        return Err("does not begin with /");
    }
    if !target.iter().all(|b| matches!(b, 0x21..=0x7e) && *b != b'#') {
        return Err("holds a character that must be percent-encoded");
    }
    let mut parts = Parts::default();
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| "is not a path")?);
    Uri::from_parts(parts).map_err(|_| "is not a path")
}

#[cfg(test)]
mod tests {
    use std::iter::empty;
    use std::path::Path;

    use http::Request;

    use super::*;

    /// A question as each proxy asks it, with `changed` in place of what it has under that name;
    /// an empty value takes the field away.
    fn question(contract: Contract, changed: &[(&str, &str)]) -> request::Parts {
        let fields = fields_of(contract);
        let mut said: Vec<(&str, &str)> = vec![
            ("Host", "api.example"),
            (fields.scheme.name, "https"),
            (fields.address.name, "192.0.2.1"),
        ];
        if contract != Contract::Envoy {
            said.push((fields.host.name, "api.example"));
        }
        said.extend(fields.method.map(|f| (f.name, "POST")));
        said.extend(fields.target.map(|f| (f.name, "/a%2Fb/../c?x=/&y")));
        let mut request = if contract == Contract::Envoy {
            Request::post("/.latchkey/auth/envoy/a%2Fb/../c?x=/&y")
        } else {
            Request::get(format!("/.latchkey/auth/{}", contract.as_str()))
        };
        for (name, value) in said {
            if !changed.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                request = request.header(name, value);
            }
        }
        for (name, value) in changed.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn ask(contract: Contract, parts: &mut request::Parts) -> Result<Scheme, Fault> {
        let said: Vec<_> = parts.headers.get_all("x-forwarded-for").iter().cloned().collect();
        let said = said.iter().map(HeaderValue::as_bytes);
        let (peer, trusted) = ("10.0.0.1".parse().unwrap(), ["10.0.0.0/8".parse().unwrap()]);
        let caller = Caller::from_x_forwarded(peer, &trusted, said, empty(), empty());
        restore(contract, parts, &caller)
    }

    #[test]
    fn every_contract_restores_the_request_byte_for_byte() {
        for contract in Contract::ALL {
            let mut parts = question(contract, &[("X-Shop-API-Key", "k"), ("Origin", "https://a")]);
            assert_eq!(ask(contract, &mut parts), Ok(Scheme::Https), "{contract:?}");
            assert_eq!(parts.method, Method::POST, "{contract:?}");
            assert_eq!(parts.uri.to_string(), "/a%2Fb/../c?x=/&y", "{contract:?}");
            assert_eq!(parts.uri.path(), "/a%2Fb/../c", "{contract:?}");
            assert_eq!(parts.headers[HOST], "api.example", "{contract:?}");
            assert_eq!(parts.headers["x-shop-api-key"], "k");
            assert_eq!(parts.headers["origin"], "https://a");
        }
    }

    #[test]
    fn what_is_missing_repeated_or_unreadable_is_named_with_the_line_that_sets_it() {
        for contract in Contract::ALL {
            let fields = fields_of(contract);
            let all = [fields.method, fields.target, Some(fields.scheme), Some(fields.address)];
            for field in all.into_iter().flatten().chain(
                // An Envoy question without a host never gets as far as this.
                (contract != Contract::Envoy).then_some(fields.host),
            ) {
                let mut parts = question(contract, &[(field.name, "")]);
                let error = ask(contract, &mut parts).unwrap_err().to_string();
                assert!(error.contains(&format!("{} is missing", field.name)), "{error}");
                assert!(error.contains(field.line), "{error}");
                assert!(error.contains(snippet(contract)), "{error}");
                if field == fields.address {
                    continue;
                }
                let mut parts = question(contract, &[(field.name, "http"), (field.name, "http")]);
                let error = ask(contract, &mut parts).unwrap_err().to_string();
                assert!(error.contains(&format!("{} is there more than once", field.name)));
            }
        }
    }

    #[test]
    fn malformed_questions() {
        let nginx = Contract::Nginx;
        for (name, value, why) in [
            ("X-Original-Method", "GE T", "not the name of a method"),
            ("X-Original-Method", "GET/", "not the name of a method"),
            ("X-Original-URI", "http://a/b", "does not begin with /"),
            ("X-Original-URI", "*", "does not begin with /"),
            ("X-Original-URI", "a", "does not begin with /"),
            ("X-Original-URI", "/a#b", "must be percent-encoded"),
            ("X-Original-URI", "/a b", "must be percent-encoded"),
            ("X-Original-URI", "/\u{e9}", "must be percent-encoded"),
            ("X-Original-URI", "/<", "is not a path"),
            ("X-Original-Scheme", "HTTPS", "neither http nor https"),
            ("X-Original-Scheme", "ftp", "neither http nor https"),
        ] {
            let mut parts = question(nginx, &[(name, value)]);
            let error = ask(nginx, &mut parts).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{name}: {value}: {error}");
        }
        for target in ["/.latchkey/auth/envoy", "/.latchkey/auth/envoy?x"] {
            let mut parts = question(Contract::Envoy, &[]);
            parts.uri = target.parse().unwrap();
            let error = ask(Contract::Envoy, &mut parts).unwrap_err().to_string();
            assert!(error.contains("path_prefix: /.latchkey/auth/envoy"), "{error}");
        }
    }

    #[test]
    fn another_spelling_of_a_field_says_nothing() {
        let nginx = Contract::Nginx;
        for spelling in ["X_Original_URI", "X.Original.URI", "X-Original_URI", "X-Forwarded-Uri"] {
            let mut parts = question(nginx, &[(spelling, "/spoofed")]);
            ask(nginx, &mut parts).unwrap();
            assert_eq!(parts.uri.path(), "/a%2Fb/../c", "{spelling}");
        }
    }

    #[test]
    fn odd_targets_come_through_as_they_were_sent() {
        for target in ["/", "//", "//a//b", "/a?", "/?a?b", "/a;b=%00", "/%zz", "/a|b\"{}"] {
            let mut parts = question(Contract::Caddy, &[("X-Forwarded-Uri", target)]);
            ask(Contract::Caddy, &mut parts).unwrap();
            assert_eq!(parts.uri.path_and_query().unwrap().as_str(), target);
        }
    }

    #[test]
    fn a_websocket_has_a_scheme_too() {
        for (said, scheme) in [("ws", Scheme::Http), ("wss", Scheme::Https)] {
            let mut parts = question(Contract::Traefik, &[("X-Forwarded-Proto", said)]);
            assert_eq!(ask(Contract::Traefik, &mut parts), Ok(scheme));
        }
    }

    #[test]
    fn the_lines_that_faults_name_stand_in_the_shipped_snippets() {
        for contract in Contract::ALL {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(snippet(contract));
            let text = std::fs::read_to_string(&path).unwrap();
            let fields = fields_of(contract);
            for field in [fields.method, fields.target].into_iter().flatten().chain([
                fields.host,
                fields.scheme,
                fields.address,
            ]) {
                let found = text.lines().any(|line| line.trim() == field.line);
                assert!(found, "{}: no line `{}`", path.display(), field.line);
            }
        }
    }
}
