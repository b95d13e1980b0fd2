//! A proxy's question becomes the request it asks about only if each thing is said once and
//! legibly; and then that request is what was said, and nothing else.
//!
//! Input: a byte that chooses the contract, then lines; the first byte of each names the field,
//! and the first line is the question's own target.

#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use ipnet::IpNet;
use latchkey::client_address::Caller;
use latchkey::config::Contract;
use latchkey::server::forward_auth::original::restore;
use libfuzzer_sys::fuzz_target;

const FIELDS: [&str; 10] = [
    "host",
    "x-original-method",
    "x-original-uri",
    "x-original-host",
    "x-original-scheme",
    "x-forwarded-method",
    "x-forwarded-uri",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-for",
];

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    let contract = Contract::ALL[usize::from(*choice) % Contract::ALL.len()];
    let mut lines = rest.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let own = [b"/.latchkey/auth/", contract.as_str().as_bytes(), target].concat();
    let Ok(uri) = Uri::try_from(own.as_slice()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((field, value)) = line.split_first() else {
            continue;
        };
        let field = HeaderName::from_static(FIELDS[usize::from(*field) % FIELDS.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(field, value);
        }
    }
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().expect("a network")];
    let values = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let none = || std::iter::empty::<&[u8]>();
    let caller = Caller::from_x_forwarded(proxy, &trusted, values, none(), none());
    let mut request = Request::new(());
    *request.method_mut() = Method::DELETE;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    let mut parts = request.into_parts().0;
    match restore(contract, &mut parts, &caller) {
        Ok(_) => {
            assert!(!caller.proxies.is_empty(), "nobody is named");
            let (method, target, host) = said(contract);
            let only = |name: &str| {
                let mut values = headers.get_all(name).iter();
                let value = values.next().expect("it is said").as_bytes().to_vec();
                assert!(values.next().is_none(), "{name} is said twice");
                value
            };
            assert_eq!(parts.headers["host"].as_bytes(), only(host));
            let restored = parts.uri.path_and_query().expect("a target").as_str().as_bytes();
            assert!(restored.starts_with(b"/") && parts.uri.authority().is_none());
            match (method, target) {
                (Some(method), Some(target)) => {
                    assert_eq!(parts.method.as_str().as_bytes(), only(method));
                    assert_eq!(restored, only(target));
                }
                _ => {
                    assert_eq!(parts.method, Method::DELETE);
                    let whole = uri.path_and_query().expect("a target").as_str().as_bytes();
                    assert!(whole.ends_with(restored));
                }
            }
            // `Host` is what was said of it, once, however often the question's own was there.
            let own = headers.get_all("host").iter().count();
            assert_eq!(parts.headers.len(), headers.len() - own + 1);
        }
        Err(fault) => {
            let told = fault.to_string();
            assert!(told.contains("packaging/proxies/") && !told.contains('\n'), "{told}");
            assert_eq!((&parts.method, &parts.uri), (&Method::DELETE, &uri));
        }
    }
});

/// Where a contract says method, target and host (the table of the shipped snippets).
fn said(contract: Contract) -> (Option<&'static str>, Option<&'static str>, &'static str) {
    match contract {
        Contract::Nginx | Contract::HaProxy => {
            (Some("x-original-method"), Some("x-original-uri"), "x-original-host")
        }
        Contract::Traefik | Contract::Caddy => {
            (Some("x-forwarded-method"), Some("x-forwarded-uri"), "x-forwarded-host")
        }
        Contract::Envoy => (None, None, "host"),
    }
}
