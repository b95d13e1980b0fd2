//! Connections: TLS and HTTP/2, changes of protocol, reuse on both sides of the proxy.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::super::peer::{CLIENT, Peer, connect_from};
use super::super::scene::{OWN, Scene, outcome};
use super::super::table::Cell;
use super::allowed::addressed;
use crate::support::gateway::Gateway;
use crate::support::h2::H2;
use crate::support::http::{Response, get, parse, request};

/// So many questions, and far fewer connections.
const QUESTIONS: usize = 24;

/// The lines to switch on are on in all other cases.
pub(in super::super) fn as_shipped(scene: &mut Scene) -> Cell {
    let plain = Peer::start(scene.kind, scene.gateway().data, scene.api.address, None);
    scene.wait_until_it_passes(&plain);
    for (what, request, right) in [
        ("key", get(OWN).key(&scene.who.key.clone()), "200"),
        ("no key", get(OWN), "401 missing_credential"),
    ] {
        let got = plain.send(&request).map(|answer| outcome(&answer));
        scene.check(what, "outcome", got.as_deref(), Some(right));
    }
    Cell::Holds
}

pub(in super::super) fn websocket(scene: &mut Scene) -> Cell {
    let key = scene.who.key.clone();
    let mine = format!("X-Shop-API-Key: {key}\r\n");
    let what = "no key";
    let before = scene.api.count();
    let head = begin(scene, "Upgrade", "websocket", "").1;
    if !head.starts_with("HTTP/1.1 401 ") {
        scene.complain(what, format!("is answered {head}"));
    }
    let seen = scene.seen_since(what, before);
    scene.check_unseen(what, seen.as_ref());

    let what = "key";
    let before = scene.api.count();
    let (mut stream, head) = begin(scene, "Upgrade", "websocket", &mine);
    let seen = scene.seen_since(what, before);
    if !head.starts_with("HTTP/1.1 101 ") {
        scene.complain(what, format!("is answered {head}"));
        return Cell::Holds;
    }
    let shop = seen.as_ref().and_then(|seen| seen.headers("x-auth-shop-id").first().copied());
    scene.check(what, "x-auth-shop-id", shop, Some("demo"));
    let secret = seen.as_ref().and_then(|seen| seen.headers("x-shop-api-key").first().copied());
    scene.check(what, "credential", secret, None);
    let sent = b"\x82\x05\0\xffGET / HTTP/1.1\r\n\r\n".repeat(500);
    let mut back = vec![0; sent.len()];
    let passed = stream.write_all(&sent).and_then(|()| stream.read_exact(&mut back));
    if passed.is_err() || back != sent {
        scene.complain(what, "bytes do not pass");
    }

    // Behind a tunnel that carries HTTP nobody asks about requests any more.
    for (nominated, protocol) in [
        ("Upgrade, HTTP2-Settings", "h2c"),
        ("Upgrade", "h2c"),
        ("upgrade", "H2C, websocket"),
        ("keep-alive, Upgrade", "TLS/1.0"),
    ] {
        let (_stream, head) = begin(scene, nominated, protocol, &mine);
        if head.starts_with("HTTP/1.1 101 ") {
            scene.complain(protocol, "changes the protocol");
        }
    }
    Cell::Holds
}

/// Asks for a change of protocol; the stream, and the head of the answer.
fn begin(scene: &Scene, nominated: &str, protocol: &str, fields: &str) -> (TcpStream, String) {
    let mut stream = connect_from(CLIENT, scene.proxy.address).expect("a connection");
    let ask = format!(
        "GET {OWN} HTTP/1.1\r\nHost: api.example\r\nConnection: {nominated}\r\n\
         Upgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    );
    let _ = stream.write_all(ask.as_bytes());
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    (stream, String::from_utf8_lossy(&head).into_owned())
}

pub(in super::super) fn http2(scene: &mut Scene) -> Cell {
    let stream = connect_from(CLIENT, scene.proxy.secure).expect("a connection");
    let mut h2 = H2::secure_on(stream, &scene.authority.client("api.example"));
    let ask = |target: &str| http::Request::get(format!("https://api.example{target}"));
    let key = scene.who.key.clone();
    for (what, request, right) in [
        ("no key", ask(OWN), "401 missing_credential"),
        ("key", ask(OWN).header("x-shop-api-key", &key), "200"),
        (
            "spoofed",
            ask(OWN)
                .header("x-shop-api-key", &key)
                .header("x-auth-shop-id", "spoofed")
                .header("x_auth_shop_id", "spoofed")
                .header("x-auth-mechanism", "spoofed")
                .header("x-forwarded-for", "192.0.2.7")
                .header("x-forwarded-proto", "spoofed"),
            "200",
        ),
        (
            "spoofed, no key",
            ask(OWN)
                .header("x-original-uri", "/api/search/x")
                .header("x-forwarded-uri", "/api/search/x"),
            "401 missing_credential",
        ),
        ("dots", ask("/api/search/../plugin/shops/demo/products"), "4"),
    ] {
        let before = scene.api.count();
        let answer = match h2.send(request) {
            Ok(answer) => answer,
            Err(error) => {
                scene.complain(what, format!("no answer: {error}"));
                continue;
            }
        };
        let seen = scene.seen_since(what, before);
        let got = outcome(&answer);
        let is_right = if right == "4" { got.starts_with('4') } else { got == right };
        if !is_right {
            scene.complain(what, format!("outcome is {got} instead of {right}"));
        }
        let Some(seen) = seen else { continue };
        if right != "200" || seen.head.contains("spoofed") {
            scene.complain(what, format!("the API got {}", seen.head));
        }
        let shop = scene.one(what, &seen, "x-auth-shop-id");
        scene.check(what, "x-auth-shop-id", shop.as_deref(), Some("demo"));
        addressed(scene, what, &seen, "https");
    }
    Cell::Holds
}

/// A refused request with a body, and an allowed one behind it.
pub(in super::super) fn kept_alive(scene: &mut Scene) -> Cell {
    let what = "on one connection";
    let mut stream = connect_from(CLIENT, scene.proxy.address).expect("a connection");
    let key = scene.who.key.clone();
    let head = format!("POST {OWN} HTTP/1.1\r\nHost: api.example\r\n");
    let refused = format!("{head}Content-Length: 10\r\n\r\n0123456789");
    let allowed = format!("{head}X-Shop-API-Key: {key}\r\nContent-Length: 2\r\n\r\nok");
    let before = scene.api.count();
    for (text, right) in [
        (&refused, "401 missing_credential"),
        (&allowed, "200"),
        (&refused, "401 missing_credential"),
        (&allowed, "200"),
    ] {
        let written = stream.write_all(text.as_bytes());
        let got = written.ok().and_then(|()| next(&mut stream)).map(|answer| outcome(&answer));
        scene.check(what, "outcome", got.as_deref(), Some(right));
    }
    let seen: Vec<_> = scene.api.received().split_off(before);
    if seen.len() != 2 || seen.iter().any(|seen| seen.body != b"ok") {
        scene.complain(what, format!("the API got {seen:?}"));
    }
    Cell::Holds
}

/// The next response on a connection that goes on.
fn next(stream: &mut TcpStream) -> Option<Response> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            Ok(_) | Err(_) => return None,
        }
        if let Some(answer) = parse(&bytes) {
            return Some(answer);
        }
    }
}

/// A question with a body of this length would cost its connection.
pub(in super::super) fn shared(scene: &mut Scene) -> Cell {
    let what = "connections";
    let request = request("POST", OWN).key(&scene.who.key.clone()).body(vec![b'x'; 100_000]);
    let before = accepted(scene.gateway());
    for _ in 0..QUESTIONS {
        let got = scene.send(what, &request).map(|sent| outcome(&sent.answer));
        scene.check(what, "outcome", got.as_deref(), Some("200"));
    }
    let more = accepted(scene.gateway()) - before;
    // A few, of as many threads.
    if more > QUESTIONS / 3 {
        scene.complain(what, format!("{more} for {QUESTIONS} questions"));
    }
    Cell::Holds
}

fn accepted(gateway: &Gateway) -> usize {
    let metrics = gateway.metrics();
    let name = "latchkey_connections_accepted_total ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.parse().ok()).expect("a count")
}
