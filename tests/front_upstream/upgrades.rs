//! Changing the protocol: only after the permit, only after the upstream's word, and then bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{OK, config, metric, serve};
use crate::support::gateway::Site;
use crate::support::http::{connect, parse};
use crate::support::script::Script;
use crate::support::until;

const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
const ROUTE: &str = "upgrades = [\"websocket\"]";

fn ask(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: WebSocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Agrees, and then echoes what comes until its end.
fn echo() -> Script {
    Script::start(|mut heard| {
        heard.request();
        heard.say(AGREED);
        let early = heard.unasked().to_vec();
        heard.say(&early);
        let mut from = heard.stream.try_clone().unwrap();
        std::io::copy(&mut from, &mut heard.stream).ok();
        heard.say("bye");
    })
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn bytes_pass_both_ways_once_both_sides_agree() {
    let upstream = echo();
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), ROUTE);
    let mut stream = connect(gateway.data);
    stream.write_all(ask("/chat").as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let lower = head.to_lowercase();
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: x"] {
        assert!(lower.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    let seen = upstream.requests().remove(0).to_lowercase();
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: k"] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
    }
    assert!(seen.contains("\r\nx-auth-mechanism: anonymous\r\n"), "{seen}");
    // Whatever it is, also what looks like a request.
    let sent: Vec<u8> = b"GET /second HTTP/1.1\r\n\r\n\0\xff".repeat(20_000);
    let mut reader = stream.try_clone().unwrap();
    let expected = sent.clone();
    let reading = std::thread::spawn(move || {
        let mut received = vec![0; expected.len()];
        reader.read_exact(&mut received).unwrap();
        assert!(received == expected);
        let mut last = Vec::new();
        reader.read_to_end(&mut last).unwrap();
        last
    });
    stream.write_all(&sent).unwrap();
    // Half-closed: what the upstream says after that still arrives.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(reading.join().unwrap(), b"bye");
    assert_eq!(upstream.requests().len(), 1);
    until(|| (metric(&gateway, "latchkey_connections") < 0.5).then_some(()));
}

#[test]
fn early_bytes_wait_for_the_upstreams_word_and_are_no_request() {
    const EARLY: &str = "GET /early HTTP/1.1\r\nHost: a\r\n\r\n";
    let upstream = Script::start(|mut heard| {
        heard.request();
        // Nothing more may come before the 101, however long one waits.
        heard.stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        assert!(heard.stream.read(&mut [0; 16]).is_err());
        assert_eq!(heard.unasked(), b"");
        heard.stream.set_read_timeout(None).unwrap();
        heard.say(AGREED);
        let early = heard.bytes(EARLY.len()).unwrap();
        heard.say(&early);
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), ROUTE);
    let mut stream = connect(gateway.data);
    stream.write_all(format!("{}{EARLY}", ask("/chat")).as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).unwrap();
    assert_eq!(String::from_utf8_lossy(&echoed), EARLY);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn an_upstream_that_does_not_agree_answers() {
    let upstream = Script::start(|mut heard| {
        while let Some(request) = heard.request() {
            let close = "HTTP/1.1 426 No\r\nUpgrade: other\r\nConnection: upgrade\r\n\
                         Content-Length: 2\r\n\r\nno";
            heard.say(if request.starts_with("GET /no ") { close } else { OK });
        }
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), ROUTE);
    let mut stream = connect(gateway.data);
    // And it stays a connection of HTTP, early bytes and all.
    let both = format!("{}GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ask("/"));
    stream.write_all(both.as_bytes()).unwrap();
    let answers = String::from_utf8(super::rest(stream)).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
    assert_eq!(upstream.requests().len(), 2);
    let refused = super::ask(&mut connect(gateway.data), &ask("/no"));
    assert_eq!((refused.status, refused.text().as_str()), (426, "no"));
    assert_eq!(refused.header("upgrade"), None);
}

#[test]
fn what_the_route_does_not_list_is_not_asked_for() {
    let upstream = Script::answering(OK);
    let app = format!("url = \"http://{}\"", upstream.address);
    for (route, request) in [
        ("", ask("/")),
        ("upgrades = [\"other\"]", ask("/")),
        (ROUTE, ask("/").replace("WebSocket\r", "websocket, h2c\r")),
        (ROUTE, ask("/").replace("keep-alive, Upgrade", "keep-alive")),
        (ROUTE, ask("/").replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx")),
        (ROUTE, ask("/").replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        let (_site, gateway) = serve(&app, route);
        assert_eq!(super::ask(&mut connect(gateway.data), &request).status, 200);
        let seen = upstream.requests().pop().unwrap().to_lowercase();
        assert!(!seen.contains("\r\nupgrade:") && !seen.contains("\r\nconnection:"), "{seen}");
    }
}

#[test]
fn an_upstream_that_changes_to_something_else_is_broken() {
    for answer in [
        "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let upstream = Script::answering(answer);
        let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), ROUTE);
        let got = super::ask(&mut connect(gateway.data), &ask("/"));
        assert_eq!(got.outcome(), "502 upstream_error", "{answer}");
    }
}

#[test]
fn nobody_changes_the_protocol_without_a_permit() {
    let upstream = echo();
    let text = config(&format!("url = \"http://{}\"", upstream.address), ROUTE);
    let text = text.replace("\"anonymous\"", "\"shop_api_key\"");
    let site = Site::new(None, &text);
    let gateway = site.start();
    let mut stream = connect(gateway.data);
    stream.write_all(ask("/chat").as_bytes()).unwrap();
    stream.write_all(b"early").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let refused = super::rest(stream);
    assert!(refused.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&refused));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn silence_and_the_end_of_the_server_end_a_tunnel() {
    let upstream = echo();
    let app =
        format!("url = \"http://{}\"\n[server]\ntunnel_idle_timeout = \"300ms\"", upstream.address);
    let (_site, gateway) = serve(&app, ROUTE);
    let mut stream = connect(gateway.data);
    stream.write_all(ask("/chat").as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    assert_eq!(super::rest(stream), b"");

    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), ROUTE);
    let mut stream = connect(gateway.data);
    stream.write_all(ask("/chat").as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    gateway.signal("TERM");
    assert_eq!(super::rest(stream), b"");
    assert!(gateway.stop_already_signalled().success());
}

#[test]
fn a_fault_after_a_refused_upgrade_is_answered_too() {
    let upstream = Script::answering(OK);
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    assert_eq!(super::ask(&mut stream, &ask("/")).status, 200);
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    let got = parse(&super::rest(stream)).unwrap();
    assert_eq!(got.outcome(), "400 bad_request");
}
