//! Who is calling (README, "Behind a proxy"): whose word counts, for what, and what the upstream
//! is told. The gateway's peers are on loopback; 127.0.0.1 is the trusted proxy, 127.0.0.2 is not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::support::http::{PATIENCE, Request, Response, connect, get, parse, send_raw};
use super::support::upstream::Received;
use super::support::world::{World, world};

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
const FORWARDED: &str = "forwarding_header = \"forwarded\"\n";
const PROXY: &str = "proxy_protocol = true\n";

/// Sends `bytes` from an address that is no trusted proxy.
fn send_from_stranger(to: SocketAddr, bytes: &str) -> Response {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    parse(&answer).unwrap()
}

/// A request with `fields`, as text.
fn text(fields: &[&str]) -> String {
    let own = ["Host: own.example", "Connection: close"];
    let lines = ["GET /api/search/x HTTP/1.1"].into_iter().chain(own);
    let lines: Vec<&str> = lines.chain(fields.iter().copied()).chain(["", ""]).collect();
    lines.join("\r\n")
}

/// What the upstream is told of who is calling: addresses, host, scheme, and all of it.
fn told(received: &Received) -> [String; 4] {
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"]
        .map(|name| received.header(name).unwrap_or("nothing").to_owned())
}

#[track_caller]
fn check_told(w: &World, fields: &[&str], expected: [&str; 4]) {
    assert_eq!(send_raw(w.gateway.data, text(fields).as_bytes()).status, 200);
    assert_eq!(told(&w.upstream.last()), expected, "{fields:?}");
}

#[test]
fn an_upstream_is_told_what_a_trusted_proxy_says_and_nothing_else() {
    let w = world(TRUSTED);
    let own = "for=127.0.0.1;host=\"own.example\";proto=http";
    check_told(&w, &[], ["127.0.0.1", "own.example", "http", own]);
    check_told(
        &w,
        &[
            "X-Forwarded-For: 9.9.9.9, 192.0.2.1",
            "X-Forwarded-For: 10.0.0.5:4711",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: front.example",
            "Forwarded: for=9.9.9.9;host=evil;proto=https",
            "X-Real-IP: 9.9.9.9",
            "X_Forwarded_For: 9.9.9.9",
        ],
        [
            "192.0.2.1, 10.0.0.5, 127.0.0.1",
            "front.example",
            "https",
            "for=192.0.2.1;host=\"front.example\";proto=https, for=10.0.0.5, for=127.0.0.1",
        ],
    );
    assert!(!w.upstream.last().head.contains("9.9.9.9"));
    // What is no word about anything is left out.
    check_told(
        &w,
        &[
            "X-Forwarded-For: 9.9.9.9, unknown",
            "X-Forwarded-Proto: gopher",
            "X-Forwarded-Host: a b",
        ],
        ["127.0.0.1", "own.example", "http", own],
    );
    // The same from an untrusted peer changes nothing.
    let claims = text(&[
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: front.example",
        "Forwarded: for=192.0.2.1",
    ]);
    assert_eq!(send_from_stranger(w.gateway.data, &claims).status, 200);
    let own = "for=127.0.0.2;host=\"own.example\";proto=http";
    assert_eq!(told(&w.upstream.last()), ["127.0.0.2", "own.example", "http", own]);
}

#[test]
fn forwarded_is_read_only_if_asked_for_and_then_alone() {
    let w = world(&format!("{TRUSTED}{FORWARDED}"));
    check_told(
        &w,
        &[
            "X-Forwarded-For: 9.9.9.9",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: evil",
            "Forwarded: for=\", for=\"[2001:db8::7]:80\";proto=https;host=\"front.example:8443\"",
            "Forwarded: for=10.0.0.5;proto=http;host=inner",
        ],
        [
            "2001:db8::7, 10.0.0.5, 127.0.0.1",
            "front.example:8443",
            "https",
            "for=\"[2001:db8::7]\";host=\"front.example:8443\";proto=https, for=10.0.0.5, \
             for=127.0.0.1",
        ],
    );
    check_told(
        &w,
        &["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil"],
        ["127.0.0.1", "own.example", "http", "for=127.0.0.1;host=\"own.example\";proto=http"],
    );
}

#[test]
fn nobody_is_trusted_unasked() {
    let w = world("");
    check_told(
        &w,
        &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "Forwarded: for=192.0.2.1"],
        ["127.0.0.1", "own.example", "http", "for=127.0.0.1;host=\"own.example\";proto=http"],
    );
}

/// A proxy sends the requests of many callers over one connection; each is itself.
#[test]
fn callers_on_one_connection_are_counted_apart() {
    let w = world(&format!(
        "{TRUSTED}[[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\nlimit = 2\n\
         window = \"1h\"\n"
    ));
    let mut stream = connect(w.gateway.data);
    let mut ask = |caller: &str| {
        let request =
            format!("GET /api/search/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {caller}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0);
            bytes.extend_from_slice(&buffer[..n]);
            if let Some(response) = parse(&bytes) {
                return response.outcome();
            }
        }
    };
    for _ in 0..2 {
        assert_eq!(ask("192.0.2.1"), "200 ok");
        assert_eq!(ask("2001:db8::1, 10.0.0.9"), "200 ok");
    }
    assert_eq!(ask("192.0.2.1"), "429 rate_limited");
    assert_eq!(ask("9.9.9.9, 192.0.2.1"), "429 rate_limited");
    assert_eq!(ask("2001:db8::ffff"), "429 rate_limited");
    assert_eq!(ask("192.0.2.2"), "200 ok");
    let line = w.gateway.wait_for_log(|line| line["client"] == "2001:db8::ffff");
    assert_eq!(line["code"], "rate_limited");
}

#[test]
fn failures_are_held_against_the_caller_and_not_the_proxy() {
    let w = world(&format!("[failed_attempts]\nlimit = 3\nwindow = \"1h\"\n{TRUSTED}"));
    let (_, key) = w.gateway.key("demo", &json!({}));
    let call = |caller: &str, key: &str| {
        w.outcome(&get("/api/plugin/shops/me/x").key(key).header("X-Forwarded-For", caller))
    };
    let bad = format!("sk_{}", "0".repeat(32));
    for _ in 0..3 {
        assert_eq!(call("192.0.2.1", &bad), "401 invalid_credential");
    }
    assert_eq!(call("192.0.2.1", &key), "429 rate_limited");
    assert_eq!(call("192.0.2.2, 192.0.2.1", &key), "429 rate_limited");
    assert_eq!(call("192.0.2.2", &key), "200 ok");
    assert_eq!(w.outcome(&get("/api/plugin/shops/me/x").key(&key)), "200 ok");
}

#[test]
fn a_keys_networks_are_those_of_the_caller() {
    let w = world(TRUSTED);
    let (_, key) = w.gateway.key("demo", &json!({"networks": ["192.0.2.0/24"]}));
    let call = |fields: &[&str]| {
        let base: Request = get("/api/plugin/shops/me/x").key(&key);
        let request = fields.iter().fold(base, |r, value| r.header("X-Forwarded-For", value));
        w.outcome(&request)
    };
    assert_eq!(call(&["192.0.2.9"]), "200 ok");
    assert_eq!(call(&["192.0.2.9", "10.1.1.1"]), "200 ok");
    assert_eq!(call(&["192.0.2.9", "198.51.100.1"]), "403 network_not_allowed");
    assert_eq!(call(&["192.0.2.9, 198.51.100.1"]), "403 network_not_allowed");
    assert_eq!(call(&["192.0.2.9", "unknown"]), "403 network_not_allowed");
    assert_eq!(call(&[]), "403 network_not_allowed");
    let request = format!(
        "GET /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         X-Shop-API-Key: {key}\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n"
    );
    let answer = send_from_stranger(w.gateway.data, &request);
    assert_eq!(answer.outcome(), "403 network_not_allowed");
}

/// A header of version 2 for `192.0.2.7:1`, with a record nobody knows.
fn binary_header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0, 1, 0, 80, 0xee, 0, 1, 7]);
    header
}

#[test]
fn the_proxy_protocol_names_the_peer() {
    let w = world(&format!("{TRUSTED}{PROXY}"));
    let request = text(&["X-Forwarded-For: 198.51.100.1"]);
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 80\r\n".to_vec(), "2001:db8::7"),
        (binary_header(), "192.0.2.7"),
        // Who is named is a trusted proxy itself: its word about the caller counts.
        (b"PROXY TCP4 10.0.0.3 127.0.0.1 1 80\r\n".to_vec(), "198.51.100.1, 10.0.0.3"),
        // The peer speaks for itself, and is trusted.
        (b"PROXY UNKNOWN\r\n".to_vec(), "198.51.100.1, 127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "198.51.100.1, 127.0.0.1"),
    ] {
        let whole = [header, request.clone().into_bytes()].concat();
        assert_eq!(send_raw(w.gateway.data, &whole).status, 200);
        assert_eq!(told(&w.upstream.last())[0], expected);
        // In pieces, split where it hurts.
        let mut stream = connect(w.gateway.data);
        for byte in &whole {
            stream.write_all(std::slice::from_ref(byte)).unwrap();
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(parse(&answer).unwrap().status, 200);
        assert_eq!(told(&w.upstream.last())[0], expected);
    }
    // Others are served as they are, and cannot name anybody.
    assert_eq!(send_from_stranger(w.gateway.data, &request).status, 200);
    assert_eq!(told(&w.upstream.last())[0], "127.0.0.2");
    let claim = format!("PROXY TCP4 192.0.2.7 127.0.0.1 1 80\r\n{request}");
    assert_eq!(send_from_stranger(w.gateway.data, &claim).outcome(), "400 bad_request");
}

#[test]
fn without_its_proxy_header_a_trusted_proxy_is_not_served() {
    let w = world(&format!("{TRUSTED}{PROXY}"));
    let mut bent = binary_header();
    bent[12] = 0x31;
    for bytes in [
        text(&[]).into_bytes(),
        format!("PROXY TCP4 192.0.2.7 127.0.0.1 1\r\n{}", text(&[])).into_bytes(),
        bent,
        b"\x16\x03\x01\x02\0\x01\0\x01".to_vec(),
    ] {
        let mut stream = connect(w.gateway.data);
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        // Closed or reset, never answered.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    w.gateway.wait_for_log(|line| line.to_string().contains("server.proxy_protocol"));
    assert_eq!(w.upstream.count(), 0);
}
