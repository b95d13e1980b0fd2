//! TLS through real handshakes: which certificate, which versions, whose clients; and that a
//! certificate is replaced without anybody noticing but its expiry.

use std::io::{Read as _, Write as _};

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{self, connect, get, request};
use crate::support::tls::{Authority, Client, Secure};
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

static ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];
const OWN: &str = "/api/plugin/shops/demo/products";

/// A gateway that serves TLS with the certificate `a`, for `a.example`.
struct World {
    authority: Authority,
    upstream: Upstream,
    site: Site,
    gateway: Gateway,
    key: String,
}

fn world(extra: &str) -> World {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example", "*.wild.example"]));
    authority.install("b", &authority.issue(&["b.example"]));
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), &authority.section(&["a", "b"], extra));
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &json!({}));
    World { authority, upstream, site, gateway, key }
}

impl World {
    fn client(&self) -> Client {
        self.authority.client("a.example")
    }

    /// Waits until a line of the metrics page is this one.
    fn wait_for_metric(&self, line: &str) {
        until(|| self.gateway.metrics().lines().any(|l| l == line).then_some(()));
    }

    fn handshakes(&self, outcome: &str) -> usize {
        let start = format!("latchkey_tls_handshakes_total{{outcome=\"{outcome}\"}} ");
        let metrics = self.gateway.metrics();
        let found = metrics.lines().find_map(|line| line.strip_prefix(&start));
        found.expect("a series").parse().expect("a number")
    }
}

/// Sends a request that keeps the connection, and reads its answer.
fn exchange(tls: &mut Secure, path: &str, key: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nX-Shop-API-Key: {key}\r\n\r\n");
    tls.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    loop {
        if http::parse(&answer).is_some_and(|response| !response.body.is_empty()) {
            return String::from_utf8(answer).unwrap();
        }
        let mut buffer = [0; 4096];
        let n = tls.read(&mut buffer).unwrap();
        assert!(n > 0, "cut off: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
    }
}

#[test]
fn requests_and_refusals_through_tls() {
    let w = world("");
    let client = w.client();
    for (request, outcome) in [
        (get(OWN).key(&w.key), "200 ok"),
        (get(OWN), "401 missing_credential"),
        (get(OWN).key("sk_x"), "401 invalid_credential"),
        (get("/api/plugin/shops/other/x").key(&w.key), "403 cross_tenant"),
        (get(OWN).key(&w.key).header("Origin", "https://evil.com"), "403 origin_mismatch"),
        (get("/nowhere"), "404 not_found"),
        (get("/api//search"), "400 bad_request"),
        (request("POST", OWN).key(&w.key).body(vec![b'x'; 200_000]), "200 ok"),
        (get("https://a.example/api/search/x"), "200 ok"),
        (get("http://a.example/api/search/x"), "400 bad_request"),
    ] {
        assert_eq!(client.send(w.gateway.data, &request).outcome(), outcome, "{request:?}");
    }
    let seen = w.upstream.received();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1].body.len(), 200_000);
    for seen in seen {
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("forwarded"), Some("for=127.0.0.1;host=\"a.example\";proto=https"));
    }
    let mut kept = client.connect(w.gateway.data).unwrap();
    for _ in 0..3 {
        assert!(exchange(&mut kept, OWN, &w.key).starts_with("HTTP/1.1 200"));
    }
    assert_eq!(kept.conn.alpn_protocol(), None);
    let old = Client { versions: ONLY_TLS12, ..client };
    assert_eq!(old.send(w.gateway.data, &get(OWN).key(&w.key)).outcome(), "200 ok");
}

#[test]
fn a_response_cut_short_does_not_look_whole_through_tls() {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    let upstream = Upstream::start(Behaviour::CutBody);
    let site = Site::new(Some(&upstream), &authority.section(&["a"], ""));
    let gateway = site.start();
    let mut tls = authority.client("a.example").connect(gateway.data).unwrap();
    tls.write_all(b"GET /api/search/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Neither the end of the body nor a `close_notify`.
    assert!(tls.read_to_end(&mut answer).is_err(), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn names_versions_and_what_is_no_handshake() {
    let w = world("min_version = \"1.3\"\nhandshake_timeout = \"200ms\"");
    let a = w.client().certificate(w.gateway.data);
    let b = w.authority.client("b.example").certificate(w.gateway.data);
    assert_ne!(a, b);
    assert_eq!(w.authority.client("x.wild.example").certificate(w.gateway.data), a);
    assert!(w.authority.client("c.example").connect(w.gateway.data).is_err());
    assert!(Authority::new().client("a.example").connect(w.gateway.data).is_err());
    let old = Client { versions: ONLY_TLS12, ..w.client() };
    assert!(old.connect(w.gateway.data).is_err());
    let strange = Client { alpn: vec!["spdy/3"], ..w.client() };
    assert!(strange.connect(w.gateway.data).is_err());
    let plain = http::exchange(w.gateway.data, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    // Somebody who says nothing holds nobody up, and not for long.
    let mut silent = connect(w.gateway.data);
    assert_eq!(w.client().send(w.gateway.data, &get(OWN).key(&w.key)).outcome(), "200 ok");
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
    let mut gone = connect(w.gateway.data);
    gone.write_all(&[0x16, 0x03]).unwrap();
    drop(gone);
    for (outcome, at_least) in [
        ("completed", 4),
        ("refused_by_client", 2),
        ("incompatible", 2),
        ("not_tls", 1),
        ("timed_out", 1),
        ("closed", 1),
    ] {
        until(|| (w.handshakes(outcome) >= at_least).then_some(()));
    }
}

#[test]
fn clients_with_and_without_certificates() {
    for (auth, none, strange) in [("optional", true, false), ("required", false, false)] {
        let authority = Authority::new();
        authority.install("a", &authority.issue(&["a.example"]));
        let extra = format!(
            "client_auth = \"{auth}\"\nclient_ca_file = \"{}\"",
            authority.path("ca.pem").display()
        );
        let upstream = Upstream::start(Behaviour::Echo);
        let site = Site::new(Some(&upstream), &authority.section(&["a"], &extra));
        let gateway = site.start();
        let good = authority.issue(&["client.example"]);
        let expired = authority.issue_with(&["client.example"], |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        let stranger = Authority::new().issue(&["client.example"]);
        for versions in [ONLY_TLS12, ONLY_TLS13] {
            for (identity, expected) in [
                (None, none),
                (Some(stranger.clone()), strange),
                (Some(expired.clone()), false),
                (Some(good.clone()), true),
            ] {
                let client = Client { versions, identity, ..authority.client("a.example") };
                assert_eq!(!client.is_refused(gateway.data), expected, "{auth}");
            }
        }
        let refused = "latchkey_tls_handshakes_total{outcome=\"client_certificate\"} ";
        let count = if none { 4 } else { 6 };
        until(|| gateway.metrics().contains(&format!("{refused}{count}")).then_some(()));
        let client = Client { identity: Some(good), ..authority.client("a.example") };
        let answer = client.send(gateway.data, &get(OWN));
        assert_eq!(answer.outcome(), "401 missing_credential");
        let id = answer.json()["request_id"].clone();
        let line = gateway.wait_for_log(|line| line["request_id"] == id);
        assert_eq!(line["client_certificate"], "dns:client.example", "{line}");
    }
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    authority.install("b", &authority.issue(&["a.example"]));
    std::fs::copy(authority.path("b.key"), authority.path("a.key")).unwrap();
    let site = Site::new(None, &authority.section(&["a"], ""));
    for args in [&["serve"][..], &["config", "check"]] {
        let output = site.cli(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        for word in ["a.key", "a.pem", "not the key"] {
            assert!(text.contains(word), "{text}");
        }
    }
    assert!(!site.database().exists(), "nothing half-made");
}

#[test]
fn expired_certificates_are_served_with_a_warning_and_a_gauge() {
    let authority = Authority::new();
    authority.install(
        "a",
        &authority.issue_with(&["a.example"], |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }),
    );
    let site = Site::new(None, &authority.section(&["a"], ""));
    let gateway = site.start();
    let expiry = "latchkey_tls_certificate_expiry_timestamp_seconds{certificate=\"0\"} 1577836800";
    assert!(gateway.metrics().lines().any(|line| line == expiry));
    gateway.wait_for_log(|line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains("expired"))
    });
}

#[test]
fn sighup_takes_new_certificates_or_keeps_the_old_ones() {
    let w = world("watch_interval = \"1h\"");
    let client = w.client();
    let mut kept = client.connect(w.gateway.data).unwrap();
    let first = client.certificate(w.gateway.data);
    w.authority.install("a", &w.authority.issue(&["a.example"]));
    assert_eq!(client.certificate(w.gateway.data), first, "nobody has asked for it");
    w.gateway.signal("HUP");
    w.wait_for_metric("latchkey_tls_reloads_total{result=\"success\"} 1");
    w.wait_for_metric("latchkey_config_reloads_total{result=\"success\"} 1");
    let second = client.certificate(w.gateway.data);
    assert_ne!(second, first);

    std::fs::write(w.authority.path("a.key"), "no key").unwrap();
    w.gateway.signal("HUP");
    w.wait_for_metric("latchkey_config_reloads_total{result=\"failure\"} 1");
    w.wait_for_metric("latchkey_tls_reloads_total{result=\"failure\"} 1");
    w.gateway.wait_for_log(|line| line["error"].as_str().is_some_and(|e| e.contains("a.key")));
    assert_eq!(client.certificate(w.gateway.data), second);
    assert!(exchange(&mut kept, OWN, &w.key).starts_with("HTTP/1.1 200"), "the first connection");

    w.authority.install("a", &w.authority.issue(&["a.example"]));
    let stricter = w.authority.section(&["a"], "min_version = \"1.3\"");
    w.site.configure(Some(&w.upstream), &stricter);
    w.gateway.signal("HUP");
    w.wait_for_metric("latchkey_tls_reloads_total{result=\"success\"} 2");
    assert_ne!(client.certificate(w.gateway.data), second);
    assert!(Client { versions: ONLY_TLS12, ..client }.connect(w.gateway.data).is_err());
}

#[test]
fn files_that_change_are_noticed_and_bad_ones_told_once() {
    let w = world("watch_interval = \"20ms\"");
    let client = w.client();
    let first = client.certificate(w.gateway.data);
    std::fs::write(w.authority.path("b.pem"), "no certificate").unwrap();
    w.wait_for_metric("latchkey_tls_reloads_total{result=\"failure\"} 1");
    assert_eq!(client.certificate(w.gateway.data), first);
    let b = w.authority.issue(&["b.example"]);
    w.authority.install("b", &b);
    let new = w.authority.issue(&["a.example"]);
    w.authority.install("a", &new);
    until(|| (client.certificate(w.gateway.data) == new.der).then_some(()));
    assert_eq!(w.authority.client("b.example").certificate(w.gateway.data), b.der);
    // Old and new files between the two renames may have been met, but never twice.
    let told = |line: &&String| line.contains("b.pem") && line.contains("no certificate");
    assert_eq!(w.gateway.log_lines().iter().filter(told).count(), 1);
}

#[test]
fn a_stop_closes_idle_connections_in_good_order() {
    let w = world("");
    let mut idle = w.client().connect(w.gateway.data).unwrap();
    assert!(exchange(&mut idle, OWN, &w.key).starts_with("HTTP/1.1 200"));
    let mut silent = connect(w.gateway.data);
    w.gateway.signal("TERM");
    let mut rest = Vec::new();
    // An end without a `close_notify` would be an error.
    assert_eq!(idle.read_to_end(&mut rest).unwrap(), 0);
    match silent.read(&mut [0; 16]) {
        Ok(read) => assert_eq!(read, 0),
        // The system ends what no worker had accepted yet.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert!(w.gateway.stop_already_signalled().success());
}
