//! What a request's fields cost to read: origins and how they are compared, credentials, who is
//! calling, and what a browser on another origin may do.
//!
//! `cargo bench --bench parsing`; with a filter: `cargo bench --bench parsing -- origin`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

#[path = "../tests/world/shops.rs"]
mod shops;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName, ORIGIN, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use ipnet::IpNet;
use latchkey::client_address::Caller;
use latchkey::decision::api_key::is_well_formed;
use latchkey::decision::cors::{self, Sharing};
use latchkey::decision::credential::bearer_token;
use latchkey::decision::origin::{Origin, OriginPattern, OriginRef, Rules, may_embed};
use latchkey::decision::request::RequestView;
use latchkey::secret::{Pepper, SecretBytes};
use latchkey::server::front::proxy_protocol;
use latchkey::snapshot::Snapshot;

use self::shops::{api_key, api_key_text, policies, shop};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A page's `Origin` or `Referer` is parsed, and held against a shop's own site and its widget's.
fn origins(criterion: &mut Criterion) {
    let site = Origin::parse("https://shop.example").unwrap();
    let extra = ["https://*.stores.example", "https://checkout.example:8443"];
    let extra = extra.map(|text| OriginPattern::parse(text).unwrap());
    let embeds = |page| may_embed(page, &site, &extra, Rules::default());
    let mut group = criterion.benchmark_group("origin");
    for (name, text, expected) in [
        ("the same", "https://shop.example", true),
        ("with www.", "https://www.shop.example", true),
        ("wildcard", "https://a.north.stores.example", true),
        ("refused", "https://shop.example.evil.example", false),
    ] {
        let ask = |text| OriginRef::parse_origin(text).is_ok_and(embeds);
        assert_eq!(ask(text), expected, "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| ask(black_box(text))));
    }
    let referer = "https://shop.example/products/shoes?colour=red&page=2#reviews";
    let ask = |text| OriginRef::parse_referer(text).is_ok_and(embeds);
    assert!(ask(referer), "the referer");
    group.bench_function("Referer", |bencher| bencher.iter(|| ask(black_box(referer))));
    group.finish();
}

fn credentials(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("credential");
    let key = api_key_text(7);
    assert!(is_well_formed(&key), "{key}");
    group.bench_function("API key: form", |bencher| {
        bencher.iter(|| is_well_formed(black_box(&key)));
    });
    let pepper = Pepper::new(&SecretBytes::new([7; 32]));
    group.bench_function("API key: digest", |bencher| {
        bencher.iter(|| pepper.digest(black_box(key.as_bytes())));
    });
    let authorization = format!("Bearer {}", "e".repeat(600));
    assert!(bearer_token(&authorization).is_some(), "{authorization}");
    group.bench_function("Authorization", |bencher| {
        bencher.iter(|| bearer_token(black_box(&authorization)).map(str::len));
    });
    group.finish();
}

/// Who is calling, by what trusted proxies say.
fn callers(criterion: &mut Criterion) {
    let trusted: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
    let client: IpAddr = [203, 0, 113, 7].into();
    let mut group = criterion.benchmark_group("caller");
    for hops in [1, 8] {
        let chain = |entry: fn(IpAddr) -> String| -> String {
            let proxies = (1..hops).map(|n| IpAddr::from([10, 0, 0, 1 + n]));
            let entries: Vec<_> = std::iter::once(client).chain(proxies).map(entry).collect();
            entries.join(", ")
        };
        let plain = chain(|address| address.to_string());
        let ask = |list: &str| {
            let (list, scheme, host) = ([list.as_bytes()], [&b"https"[..]], [&b"api.example"[..]]);
            let (list, scheme, host) = (list.into_iter(), scheme.into_iter(), host.into_iter());
            Caller::from_x_forwarded(PEER, &trusted, list, scheme, host)
        };
        assert_eq!(ask(&plain).address, client, "{plain}");
        group.bench_function(format!("X-Forwarded-For, {hops} hops"), |bencher| {
            bencher.iter(|| ask(black_box(&plain)));
        });
        let tagged = chain(|address| format!("for={address};proto=https;host=api.example"));
        let ask =
            |list: &str| Caller::from_forwarded(PEER, &trusted, [list.as_bytes()].into_iter());
        assert_eq!(ask(&tagged).address, client, "{tagged}");
        group.bench_function(format!("Forwarded, {hops} hops"), |bencher| {
            bencher.iter(|| ask(black_box(&tagged)));
        });
    }
    let one = b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n";
    let mut two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    two.extend([203, 0, 113, 7, 10, 0, 0, 1, 220, 4, 1, 187]);
    for (name, header) in [("PROXY, version 1", &one[..]), ("PROXY, version 2", &two)] {
        let source = proxy_protocol::parse(header).unwrap().unwrap().source;
        assert_eq!(source.unwrap().ip(), client, "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| proxy_protocol::parse(black_box(header)));
        });
    }
    group.finish();
}

/// Whether a page's script may read an answer, and what its browser is told before.
fn sharing(criterion: &mut Criterion) {
    const SHOPS: u32 = 100_000;
    let policies = policies();
    let pepper = Pepper::new(&SecretBytes::new([7; 32]));
    let mut snapshot = Snapshot::new(Arc::new(policies.clone()), pepper.clone());
    for number in 0..SHOPS {
        snapshot.put_shop(shop(number));
        snapshot.put_api_key(api_key(number, &pepper));
    }
    let mut group = criterion.benchmark_group(format!("{SHOPS} shops"));
    for (name, page, shared) in [
        ("a shop's page", "https://www.shop-77777.example", true),
        ("another page", "https://evil.example", false),
    ] {
        let headers = browser(page);
        let view = |method| RequestView {
            method,
            path: "/api/widget/search",
            headers: &headers,
            client: PEER,
        };
        let read = || cors::sharing(black_box(&view(&Method::GET)), &policies, &snapshot);
        assert_eq!(read() == Sharing::Shared, shared, "{name}");
        group.bench_function(format!("sharing: {name}"), |bencher| bencher.iter(read));
        let options = view(&Method::OPTIONS);
        let allowed = || cors::preflight(black_box(&options), &policies, &snapshot);
        assert_eq!(allowed().unwrap().is_ok(), shared, "{name}");
        group.bench_function(format!("preflight: {name}"), |bencher| bencher.iter(allowed));
    }
    group.finish();
}

/// What a browser sends on `page`.
fn browser(page: &str) -> HeaderMap {
    let fields: [(HeaderName, &str); 4] = [
        (HOST, "api.example"),
        (USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (ORIGIN, page),
        (ACCESS_CONTROL_REQUEST_METHOD, "GET"),
    ];
    fields.map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).into_iter().collect()
}

criterion_group!(benches, origins, credentials, callers, sharing);
criterion_main!(benches);
