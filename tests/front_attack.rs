//! What somebody who means harm does at the front door: takes places and keeps them, breaks off at
//! every stage, names himself what he is not, and asks in ways that two readers read differently.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use http::Request;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;
use socket2::SockRef;

use crate::support::gateway::{Gateway, Site};
use crate::support::h2::{
    DATA, END_HEADERS, END_STREAM, H2, HEADERS, Raw, SETTINGS, Seen, WINDOW_UPDATE, block, frame,
};
use crate::support::http::{connect, get, request, send_raw};
use crate::support::tls::{Authority, Client, Secure};
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::world::{World, world};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const OPEN: &str = "/api/search/x";
/// A route for everything, and a limit that nobody reaches.
const ALL: &str = "[[routes]]\nname = \"all\"\npaths = [\"/*\"]\nmechanisms = [\"anonymous\"]\n\
                   upstream = \"default\"\n\
                   [[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\n\
                   limit = 100000\nwindow = \"1s\"\n";

fn metric(gateway: &Gateway, series: &str) -> u32 {
    let text = gateway.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// Waits until no connection and no request has a place.
fn wait_until_empty(gateway: &Gateway) {
    for series in ["latchkey_requests_in_flight", "latchkey_connections"] {
        until(|| (metric(gateway, series) == 0).then_some(()));
    }
}

/// The header block of a request for `path`.
fn asking(method: &str, path: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut fields: Vec<(&str, &[u8])> = vec![
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"a.example"),
        (":path", path.as_bytes()),
    ];
    fields.extend(more);
    block(&fields)
}

fn whole(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

#[test]
fn a_response_that_is_not_taken_keeps_no_place_however_busy_its_connection_is() {
    let w = world("[server]\nh2c = true\nbody_timeout = \"300ms\"\n");
    // No window for any response; answers without a body need none.
    let mut raw = Raw::greeted_with(w.gateway.data, &[0, 4, 0, 0, 0, 0]);
    raw.write(&whole(1, &asking("GET", "/nowhere", &[])));
    assert_eq!(raw.seen(), Seen::Response(1, false));
    assert_eq!(metric(&w.gateway, "latchkey_requests_in_flight"), 1);
    let mut busy = (3..).step_by(2);
    let reset = until(|| {
        let stream = busy.next()?;
        raw.write(&whole(stream, &asking("HEAD", "/nowhere", &[])));
        Some(raw.seen()).filter(|seen| *seen != Seen::Response(stream, false))
    });
    assert_eq!(reset, Seen::Reset(1, 8), "CANCEL, and nothing else ends");
    until(|| (metric(&w.gateway, "latchkey_requests_in_flight") == 0).then_some(()));
    let hits = "latchkey_bounds_hit_total{bound=\"body_timeout\"}";
    assert_eq!(metric(&w.gateway, hits), 1);
}

#[test]
fn what_is_reserved_is_so_in_every_spelling() {
    let w = world(&format!("[server]\nh2c = true\n{ALL}"));
    let mut client = H2::plain(w.gateway.data);
    for path in [
        "/.latchkey/x",
        "/%2elatchkey/x",
        "/%2Elatchkey/jwks.json",
        "/.latchke%79/auth/nginx",
        "/%2e%6c%61%74%63%68%6b%65%79/auth/envoy/x",
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            assert_eq!(w.outcome(&request(method, path)), "404 not_found", "{method} {path}");
        }
        let asked = Request::get(format!("http://a.example{path}"));
        assert_eq!(client.outcome(asked), "404 not_found", "{path}");
    }
    for path in ["/%2elatchkey%2fx", "//.latchkey/x", "/./.latchkey/x", "/%252elatchkey/x"] {
        assert_eq!(w.outcome(&get(path)), "400 bad_request", "{path}");
    }
    assert_eq!(w.upstream.count(), 0, "{:?}", w.upstream.received());
    for path in ["/.latchkey", "/.latchkeys/x", "/x/.latchkey/x", "/%2elatchkeys"] {
        assert_eq!(w.outcome(&get(path)), "200 ok", "{path}");
    }
}

#[test]
fn no_question_is_about_what_is_reserved() {
    let w = world(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [forward_auth]\ncontracts = [\"nginx\", \"envoy\"]\n{ALL}"
    ));
    for path in ["/.latchkey/auth/nginx", "/%2elatchkey/jwks.json", "/.latchkey/x", "/x"] {
        let nginx = get("/.latchkey/auth/nginx")
            .header("X-Original-Method", "GET")
            .header("X-Original-URI", path)
            .header("X-Original-Host", "a")
            .header("X-Original-Scheme", "http");
        let envoy =
            get(&format!("/.latchkey/auth/envoy{path}")).header("X-Forwarded-Proto", "http");
        for asked in [nginx, envoy] {
            let answer = w.gateway.send(&asked.header("X-Forwarded-For", "192.0.2.1"));
            let told = answer.header("x-auth-status").unwrap_or_default();
            let denied = answer.status == 404 || (answer.status == 403 && told == "404");
            assert_eq!(denied, path != "/x", "{path}: {answer:?}");
        }
    }
}

#[test]
fn what_a_question_says_is_taken_by_the_letter_or_not_at_all() {
    let w = world(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[forward_auth]\ncontracts = [\"nginx\"]\n",
    );
    let names = ["X-Original-Method", "X-Original-URI", "X-Original-Host", "X-Original-Scheme"];
    let asked = |values: [&str; 4]| {
        let asked = get("/.latchkey/auth/nginx").header("X-Forwarded-For", "192.0.2.1");
        let asked = names.iter().zip(values).fold(asked, |q, (name, value)| q.header(name, value));
        w.gateway.send(&asked)
    };
    for (values, status) in [
        (["GET", OPEN, "a", "http"], 200),
        // No route takes it: methods are what they are, letter by letter.
        (["get", OPEN, "a", "http"], 200),
        (["GET", "http://a/api/search/x", "a", "http"], 400),
        (["GET", "//a/api/search/x", "a", "http"], 400),
        (["GET", "/api/search/x#/y", "a", "http"], 400),
        (["GET", "/api/search/x /y", "a", "http"], 400),
        (["GET", "/api/search/x, /y", "a", "http"], 400),
        (["GET", "/api/search/\u{e9}", "a", "http"], 400),
        (["GET", "/api/search/%2e%2e/x", "a", "http"], 400),
        (["GET", "/api/search/..%2fx", "a", "http"], 400),
        (["GET", "/api\\search", "a", "http"], 400),
        (["GET", "*", "a", "http"], 400),
        (["GET", "", "a", "http"], 400),
        (["GET, GET", OPEN, "a", "http"], 400),
        (["GET /y", OPEN, "a", "http"], 400),
        (["CONNECT", OPEN, "a", "http"], 400),
        (["TRACE", OPEN, "a", "http"], 400),
        (["GET", OPEN, "a, b", "http"], 400),
        (["GET", OPEN, "u@a", "http"], 400),
        (["GET", OPEN, "a", "http, https"], 400),
        (["GET", OPEN, "a", "HTTP"], 400),
        (["GET", OPEN, "a", "ftp"], 400),
    ] {
        let answer = asked(values);
        let told = answer.header("x-auth-status").map_or(answer.status, |s| s.parse().unwrap());
        assert_eq!(told, status, "{values:?}: {}", answer.text());
    }
}

/// A handshake behind a PROXY header for `client`, with these protocols offered.
fn proxied(address: SocketAddr, from: &str, client: &Client) -> std::io::Result<Secure> {
    let mut tcp = connect(address);
    tcp.write_all(format!("PROXY TCP4 {from} 127.0.0.1 1 443\r\n").as_bytes())?;
    let connection = ClientConnection::new(client.config(), client.server_name());
    let mut tls = StreamOwned::new(connection.unwrap(), tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

fn behind_a_proxy(server: &str) -> (World, Client) {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    let w = world(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n{server}\n{}",
        authority.section(&["a"], "handshake_timeout = \"300ms\"")
    ));
    let client = authority.client("a.example");
    (w, client)
}

#[test]
fn a_proxy_header_then_tls_then_http2_names_the_client() {
    let (w, client) = behind_a_proxy("connections_per_address_max = 1");
    let client = Client { alpn: vec!["h2"], ..client };
    let spoofed: [(&str, &[u8]); 4] = [
        ("x-forwarded-for", b"198.51.100.9"),
        ("forwarded", b"for=198.51.100.9"),
        ("x-auth-shop-id", b"demo"),
        ("x_auth_shop_id", b"demo"),
    ];
    let fields = [
        &[
            (":method", b"GET".as_slice()),
            (":scheme", b"https"),
            (":authority", b"a.example"),
            (":path", OPEN.as_bytes()),
        ][..],
        &spoofed[..],
    ];
    let bytes =
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &whole(1, &block(&fields.concat()))].concat();
    let mut tls = proxied(w.gateway.data, "192.0.2.7", &client).unwrap();
    tls.write_all(&bytes).unwrap();
    until(|| (w.upstream.count() == 1).then_some(()));
    let seen = w.upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7"));
    let forwarded = "for=192.0.2.7;host=\"a.example\";proto=https";
    assert_eq!(seen.header("forwarded"), Some(forwarded));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-auth-shop-id"), Some("-"));
    assert_eq!(seen.header("x_auth_shop_id"), None);
    // The one place of this address is taken, before any handshake; another address has its own.
    assert!(proxied(w.gateway.data, "192.0.2.7", &client).is_err());
    let bound = "latchkey_bounds_hit_total{bound=\"connections_per_address\"}";
    assert_eq!(metric(&w.gateway, bound), 1);
    assert!(proxied(w.gateway.data, "192.0.2.8", &client).is_ok());
    drop(tls);
    wait_until_empty(&w.gateway);
    assert!(proxied(w.gateway.data, "192.0.2.7", &client).is_ok());
}

/// Sends `bytes` in part, and breaks off with a reset.
fn break_off(address: SocketAddr, bytes: &[u8]) {
    let mut stream = connect(address);
    // The other side may have had enough.
    let _ = stream.write_all(bytes);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends `bytes` in part, and nothing more; reads whatever comes until the end.
fn half_close(address: SocketAddr, bytes: &[u8]) {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
}

/// Every so many bytes of `all`, and its end.
fn cuts(all: &[u8], step: usize) -> impl Iterator<Item = &[u8]> {
    (0..all.len()).step_by(step).chain([all.len()]).map(|at| &all[..at])
}

#[test]
fn whoever_breaks_off_gives_his_places_back() {
    let w = world(
        "[server]\nh2c = true\nconnections_per_address_max = 4\nrequests_max = 4\n\
         [[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\nlimit = 100000\n\
         window = \"1s\"\n",
    );
    let one = format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789");
    let question = "POST /.latchkey/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789";
    let two = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS, 1, &asking("POST", OPEN, &[])),
        &frame(DATA, 0, 1, b"12345"),
        &whole(3, &asking("GET", OPEN, &[])),
        &frame(DATA, END_STREAM, 1, b"6789"),
    ]
    .concat();
    for bytes in [one.as_bytes(), question.as_bytes(), &two] {
        for part in cuts(bytes, 11) {
            break_off(w.gateway.data, part);
            until(|| (metric(&w.gateway, "latchkey_connections") < 3).then_some(()));
            half_close(w.gateway.data, part);
            until(|| (metric(&w.gateway, "latchkey_connections") < 3).then_some(()));
        }
    }
    wait_until_empty(&w.gateway);
    let held: Vec<TcpStream> = (0..4).map(|_| connect(w.gateway.data)).collect();
    until(|| (metric(&w.gateway, "latchkey_connections") == 4).then_some(()));
    assert_eq!(w.outcome(&get(OPEN)), "503 overloaded");
    drop(held);
    wait_until_empty(&w.gateway);
    assert_eq!(w.outcome(&get(OPEN)), "200 ok");
}

#[test]
fn whoever_breaks_off_before_http_gives_his_places_back() {
    let (w, client) = behind_a_proxy("connections_per_address_max = 1");
    let mut hello = Vec::new();
    let mut connection = ClientConnection::new(client.config(), client.server_name()).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let bytes = [b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443\r\n", &hello[..]].concat();
    for part in cuts(&bytes, 23) {
        break_off(w.gateway.data, part);
        wait_until_empty(&w.gateway);
        half_close(w.gateway.data, part);
        wait_until_empty(&w.gateway);
    }
    // Who says hello and no more is not waited for.
    let mut slow = connect(w.gateway.data);
    slow.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    wait_until_empty(&w.gateway);
    assert!(proxied(w.gateway.data, "192.0.2.7", &client).is_ok());
}

#[test]
fn a_stop_waits_for_nobody_who_has_not_asked_yet() {
    let (w, client) = behind_a_proxy("drain_timeout = \"10m\"\nfirst_byte_timeout = \"1h\"\n");
    let h2 = Client { alpn: vec!["h2"], ..client.clone() };
    let mut held = vec![connect(w.gateway.data), connect(w.gateway.data), connect(w.gateway.data)];
    held[1].write_all(b"PROXY TCP4 192.").unwrap();
    held[2].write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443\r\n\x16\x03\x01").unwrap();
    let idle = proxied(w.gateway.data, "192.0.2.7", &client).unwrap();
    let mut greeted = proxied(w.gateway.data, "192.0.2.7", &h2).unwrap();
    greeted.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    let silent = proxied(w.gateway.data, "192.0.2.7", &h2).unwrap();
    let World { gateway, site: _site, upstream: _upstream } = w;
    // None of them closes.
    assert!(gateway.stop().success());
    drop((held, idle, greeted, silent));
}

#[test]
fn http2_passes_no_bound() {
    let w = world(&format!(
        "[server]\nh2c = true\nrequests_max = 1\nbody_bytes_max = \"1KiB\"\n\
         [[routes]]\nname = \"small\"\npaths = [\"/small\"]\nmechanisms = [\"anonymous\"]\n\
         upstream = \"default\"\nbody_bytes_max = \"10B\"\n{ALL}"
    ));
    let hits = |bound: &str| {
        metric(&w.gateway, &format!("latchkey_bounds_hit_total{{bound=\"{bound}\"}}"))
    };
    let mut client = H2::plain(w.gateway.data);
    let post = |path: &str| Request::post(format!("http://a.example{path}"));
    for (path, length) in [("/small", 11), ("/x", 1025)] {
        for announced in [true, false] {
            let request = post(path);
            let request =
                if announced { request.header("content-length", length) } else { request };
            let mut begun = client.begin(request.body(()).unwrap(), false);
            begun.body.send_data(vec![b'x'; length].into(), true).unwrap();
            let answer = client.finish(begun).unwrap();
            assert_eq!(answer.outcome(), "413 payload_too_large", "{path} {announced}");
        }
    }
    assert_eq!(hits("body_bytes"), 4);
    let mut first = client.begin(post("/x").body(()).unwrap(), false);
    until(|| (metric(&w.gateway, "latchkey_requests_in_flight") == 1).then_some(()));
    assert_eq!(client.outcome(post("/x")), "503 overloaded");
    assert_eq!(hits("requests"), 1);
    first.body.send_data("x".into(), true).unwrap();
    assert_eq!(client.finish(first).unwrap().status, 200);
    until(|| (metric(&w.gateway, "latchkey_requests_in_flight") == 0).then_some(()));
    let many = (0..101).fold(post("/x"), |request, _| request.header("x", "a"));
    assert_eq!(client.outcome(many), "431 headers_too_large");
    assert_eq!(hits("header_count"), 1);
    let long = post("/x").header("x", "a".repeat(20_000));
    assert_eq!(client.send(long).unwrap().status, 431);
    assert_eq!(w.upstream.received().iter().filter(|r| r.body != b"x").count(), 0);
}

#[test]
fn what_connection_names_takes_no_word_of_latchkeys_away() {
    let w = world("");
    let (_, key) = w.gateway.key("demo", &json!({}));
    let options = "content-length, host, x-auth-shop-id, x-forwarded-for, forwarded, \
                   x-request-id, x-shop-api-key, transfer-encoding, close";
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = format!(
        "POST /api/plugin/shops/demo/x HTTP/1.1\r\nHost: a\r\nX-Shop-API-Key: {key}\r\n\
         Connection: {options}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(send_raw(w.gateway.data, text.as_bytes()).outcome(), "200 ok");
    let seen = w.upstream.last();
    assert_eq!(w.upstream.count(), 1, "{:?}", w.upstream.received());
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.header("x-auth-shop-id"), Some("demo"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    for name in ["host", "forwarded", "x-request-id"] {
        assert!(seen.header(name).is_some(), "{name}");
    }
}

#[test]
fn streams_in_error_keep_no_place() {
    let upstream = Upstream::start(Behaviour::Silent);
    let slow = format!(
        "[server]\nh2c = true\n{}\n[upstreams.slow]\nurl = \"http://{}\"\n\
         response_timeout = \"1h\"\n",
        ALL.replace("\"default\"", "\"slow\""),
        upstream.address
    );
    let site = Site::new(None, &slow);
    let gateway = site.start();
    let mut raw = Raw::greeted(gateway.data);
    raw.write(&whole(1, &asking("GET", "/x", &[])));
    raw.write(&frame(HEADERS, END_HEADERS, 3, &asking("POST", "/x", &[])));
    until(|| (metric(&gateway, "latchkey_requests_in_flight") == 2).then_some(()));
    // Errors of the client's making that its stream is reset for.
    let beyond = 0x7fff_ffffu32.to_be_bytes();
    for (stream, left) in [(1, 1), (3, 0)] {
        raw.write(&frame(WINDOW_UPDATE, 0, stream, &beyond));
        assert_eq!(raw.seen(), Seen::Reset(stream, 3), "FLOW_CONTROL_ERROR");
        until(|| (metric(&gateway, "latchkey_requests_in_flight") == left).then_some(()));
    }
}

#[test]
fn half_a_preface_is_not_waited_for() {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    let w = world(&format!(
        "[server]\nfirst_byte_timeout = \"1h\"\nhead_timeout = \"1h\"\n\
         idle_timeout = \"200ms\"\n{}",
        authority.section(&["a"], "")
    ));
    let client = Client { alpn: vec!["h2"], ..authority.client("a.example") };
    for part in [1, PREFACE.len() - 1, PREFACE.len()] {
        let mut tls = client.connect(w.gateway.data).unwrap();
        tls.write_all(&PREFACE[..part]).unwrap();
        let mut answer = Vec::new();
        let _ = tls.read_to_end(&mut answer);
    }
    wait_until_empty(&w.gateway);
}

/// Starts `site` with logs as text; the process, its data listener, and the rest of its log.
fn start_in_text(site: &Site) -> (Child, SocketAddr, BufReader<ChildStderr>) {
    let mut command = site.command(&["serve"]);
    command.env("LATCHKEY_LOG__FORMAT", "text").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it did not become ready");
        if let Some((_, rest)) = line.split_once(" data=") {
            let address = rest.split_whitespace().next().unwrap().parse().unwrap();
            return (child, address, log);
        }
    }
}

#[test]
fn nobody_writes_lines_of_his_own_into_the_log() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(
        Some(&upstream),
        "[server]\nh2c = true\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [forward_auth]\ncontracts = [\"nginx\"]\n[log]\naccess = true\n",
    );
    let (mut child, address, mut log) = start_in_text(&site);
    let nasty = "/x\u{9b}31m\u{202e}\u{2028}\u{85}forged".as_bytes();
    for path in [nasty, b"/\x1b[31m", b"/a\nforged", b"/\xff\xfe", b"/\"forged=\"1"] {
        let mut raw = Raw::greeted(address);
        let mut fields = block(&[
            (":method", b"GET"),
            (":scheme", b"http"),
            (":authority", b"a"),
            (":path", path),
        ]);
        fields.extend(block(&[("x-forwarded-for", nasty)]));
        raw.write(&whole(1, &fields));
        raw.seen();
    }
    for field in ["X-Original-URI", "X-Original-Method", "X-Original-Host", "X-Original-Scheme"] {
        let asked = get("/.latchkey/auth/nginx").header(field, nasty).header(field, b"\xff\t\"");
        asked.header("X-Forwarded-For", nasty).send(address);
    }
    let method = "GE!#$%&'*+-.^_`|~T";
    request(method, "/%1b%0aforged").header("Host", nasty).send(address);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut text = Vec::new();
    log.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.contains("request refused"), "{text}");
    for line in text.lines() {
        let bad = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
        assert!(!line.contains(bad), "{line:?}");
        assert!(line.starts_with("20") && !line.contains(" forged=\"1"), "{line:?}");
    }
}
