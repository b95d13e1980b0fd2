//! The bounds of the data listener (README, "Bounds"), each run into over raw sockets, each seen
//! in the metrics. Nothing sleeps: whoever waits, waits for what the gateway does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::support::http::{PATIENCE, Response, connect, parse};
use super::support::until;
use super::support::upstream::Behaviour;
use super::support::world::{World, world, world_with};

const GET: &str = "GET /api/search/x HTTP/1.1\r\nHost: a\r\n\r\n";

/// A world whose `[server]` has these bounds, and search without a limit worth mentioning.
fn bounded(server: &str) -> World {
    world(&config(server))
}

fn config(server: &str) -> String {
    format!(
        "[server]\n{server}\n[[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\n\
         limit = 100000\nwindow = \"1s\"\n"
    )
}

/// Reads one response off a connection that stays open.
fn read_response(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "ended within {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(response) = parse(&bytes) {
            return response;
        }
    }
}

/// Everything until the connection ends.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&bytes)),
    }
    bytes
}

fn say(stream: &mut TcpStream, text: impl AsRef<[u8]>) {
    stream.write_all(text.as_ref()).unwrap();
}

/// Sends a request and reads its response; the connection stays.
fn ask(stream: &mut TcpStream, text: &str) -> Response {
    say(stream, text);
    read_response(stream)
}

/// A connection that is certainly open: a request went over it.
fn open(w: &World) -> TcpStream {
    let mut stream = connect(w.gateway.data);
    assert_eq!(ask(&mut stream, GET).status, 200);
    stream
}

/// A connection from another address of this machine.
fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How often a bound was hit.
fn hits(w: &World, bound: &str) -> u32 {
    metric(w, &format!("latchkey_bounds_hit_total{{bound=\"{bound}\"}}"))
}

fn metric(w: &World, series: &str) -> u32 {
    let text = w.gateway.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

#[track_caller]
fn check_overloaded(answer: &[u8]) {
    let answer = parse(answer).unwrap();
    assert_eq!(answer.outcome(), "503 overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn connections_in_all() {
    let w = bounded("connections_max = 2");
    let first = open(&w);
    let mut second = open(&w);
    for _ in 0..3 {
        check_overloaded(&read_all(&mut connect(w.gateway.data)));
    }
    assert_eq!(hits(&w, "connections"), 3);
    assert_eq!(ask(&mut second, GET).status, 200);
    drop(first);
    until(|| (metric(&w, "latchkey_connections") == 1).then_some(()));
    open(&w);
}

#[test]
fn connections_of_one_address() {
    let w = bounded("connections_per_address_max = 2");
    let first = open(&w);
    let mut second = open(&w);
    for _ in 0..3 {
        check_overloaded(&read_all(&mut connect(w.gateway.data)));
    }
    assert_eq!(hits(&w, "connections_per_address"), 3);
    let mut other = connect_from([127, 0, 0, 2], w.gateway.data);
    assert_eq!(ask(&mut other, GET).status, 200);
    assert_eq!(ask(&mut second, GET).status, 200);
    drop(first);
    until(|| (metric(&w, "latchkey_connections") == 2).then_some(()));
    open(&w);
}

#[test]
fn connections_of_one_address_behind_a_trusted_proxy() {
    let w = bounded(
        "connections_per_address_max = 1\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true",
    );
    let behind = |source: &str| {
        let family = if source.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
        let mut stream = connect(w.gateway.data);
        say(&mut stream, format!("PROXY {} {source} {} 1 2\r\n{GET}", family.0, family.1));
        stream
    };
    let mut first = behind("2001:db8::1");
    assert_eq!(read_response(&mut first).status, 200);
    // One who has an address of a /64 has them all.
    check_overloaded(&read_all(&mut behind("2001:db8::ffff")));
    assert_eq!(hits(&w, "connections_per_address"), 1);
    let mut others = ["2001:db8:0:1::1", "192.0.2.1"].map(behind);
    assert!(others.iter_mut().all(|stream| read_response(stream).status == 200));
    // The proxy itself is exempt, whether it names itself or says nothing.
    let mut own = ["PROXY UNKNOWN\r\n", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"].map(|header| {
        let mut stream = connect(w.gateway.data);
        say(&mut stream, header);
        stream
    });
    assert!(own.iter_mut().all(|stream| ask(stream, GET).status == 200));
}

#[test]
fn requests_in_flight() {
    let w = bounded("requests_max = 1\nworkers = 2");
    let in_flight = || metric(&w, "latchkey_requests_in_flight");
    let mut first = connect(w.gateway.data);
    say(&mut first, "POST /api/search/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    until(|| (in_flight() == 1).then_some(()));
    // Refused before a byte of the body is read.
    let mut second = connect(w.gateway.data);
    let announced = "POST /api/search/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n";
    let answer = ask(&mut second, announced);
    assert_eq!(answer.outcome(), "503 overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(ask(&mut connect(w.gateway.data), GET).outcome(), "503 overloaded");
    assert_eq!(hits(&w, "requests"), 2);
    assert_eq!(w.upstream.count(), 0);
    say(&mut first, "bc");
    assert_eq!(read_response(&mut first).status, 200);
    until(|| (in_flight() == 0).then_some(()));
    assert_eq!(ask(&mut first, GET).status, 200);
}

#[test]
fn the_first_byte() {
    let w = bounded("first_byte_timeout = \"100ms\"\nidle_timeout = \"1h\"\nhead_timeout = \"1h\"");
    assert_eq!(read_all(&mut connect(w.gateway.data)), b"");
    let mut empty_lines = connect(w.gateway.data);
    say(&mut empty_lines, "\r\n");
    assert_eq!(ask(&mut empty_lines, GET).status, 200);
    assert_eq!(hits(&w, "first_byte_timeout"), 1);
    assert_eq!(hits(&w, "idle_timeout"), 0);
}

#[test]
fn the_proxy_header_comes_in_time_or_not_at_all() {
    let w = bounded(
        "first_byte_timeout = \"100ms\"\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true",
    );
    for begun in ["", "PROXY TCP4 192.0.2.1 "] {
        let mut stream = connect(w.gateway.data);
        say(&mut stream, begun);
        assert_eq!(read_all(&mut stream), b"", "{begun}");
    }
    assert_eq!(hits(&w, "first_byte_timeout"), 2);
    let mut silent = connect(w.gateway.data);
    say(&mut silent, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert_eq!(read_all(&mut silent), b"");
    assert_eq!(hits(&w, "first_byte_timeout"), 3);
}

#[test]
fn a_head() {
    let w = bounded("head_timeout = \"100ms\"");
    let mut stream = connect(w.gateway.data);
    say(&mut stream, "GET /api/search/x HTTP/1.1\r\nHo");
    assert_eq!(parse(&read_all(&mut stream)).unwrap().outcome(), "408 request_timeout");
    assert_eq!(hits(&w, "head_timeout"), 1);
}

#[test]
fn between_requests() {
    let w = bounded("idle_timeout = \"100ms\"\nfirst_byte_timeout = \"1h\"");
    assert_eq!(read_all(&mut open(&w)), b"");
    assert_eq!(hits(&w, "idle_timeout"), 1);
    assert_eq!(hits(&w, "first_byte_timeout"), 0);
}

#[test]
fn the_progress_of_a_body() {
    let w = bounded("body_timeout = \"100ms\"");
    for framing in ["Content-Length: 9\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab"] {
        let mut stream = connect(w.gateway.data);
        say(&mut stream, format!("POST /api/search/x HTTP/1.1\r\nHost: a\r\n{framing}"));
        let answer = parse(&read_all(&mut stream)).unwrap();
        assert_eq!(answer.outcome(), "408 request_timeout", "{framing}");
    }
    assert_eq!(hits(&w, "body_timeout"), 2);
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn taking_a_response() {
    let w = world_with(Behaviour::Flood, &config("body_timeout = \"100ms\""));
    let mut stream = connect(w.gateway.data);
    say(&mut stream, GET);
    // Nothing is read until the gateway has given up.
    until(|| (hits(&w, "body_timeout") == 1).then_some(()));
    let mut bytes = Vec::new();
    assert!(stream.read_to_end(&mut bytes).is_err(), "what was cut does not look whole");
}

/// Bytes that keep coming extend no bound but the one between two of them.
#[test]
fn a_whole_request() {
    let w = bounded("request_timeout = \"300ms\"\nhead_timeout = \"1h\"\nbody_timeout = \"1h\"");
    let post = "POST /api/search/x HTTP/1.1\r\nHost: a\r\n";
    for begun in [
        "GET /api/search/x HTTP/1.1\r\nA: ".to_owned(),
        format!("{post}Content-Length: 99999\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n1869F\r\n"),
    ] {
        let mut stream = connect(w.gateway.data);
        say(&mut stream, &begun);
        let answer = drip(&mut stream);
        assert_eq!(answer.outcome(), "408 request_timeout", "{begun}");
    }
    assert_eq!(hits(&w, "request_timeout"), 3);
    assert_eq!(w.upstream.count(), 0);
    // The wait for a next request is no part of one, nor is a response.
    let mut stream = open(&w);
    stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&mut stream, GET).status, 200);
}

/// Sends byte after byte, as fast as nothing comes back, until something does.
fn drip(stream: &mut TcpStream) -> Response {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..5000 {
        // The gateway may have closed.
        let _ = stream.write(b"x");
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}, after {bytes:?}"),
        }
        if let Some(response) = parse(&bytes) {
            return response;
        }
    }
    panic!("it takes whatever comes, however long");
}

#[test]
fn bytes_and_fields_of_a_head() {
    let w = bounded("header_bytes_max = \"8KiB\"\nheader_count_max = 8");
    let send = |text: String| {
        let mut stream = connect(w.gateway.data);
        // It may close before all of it is out.
        let _ = stream.write_all(text.as_bytes());
        parse(&read_all(&mut stream)).unwrap().outcome()
    };
    let long = "x".repeat(8192);
    let fields = "A: b\r\n".repeat(8);
    let get = "GET /api/search/x HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(send(format!("{get}A: {long}\r\n\r\n")), "431 headers_too_large");
    assert_eq!(send(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), "414 uri_too_long");
    assert_eq!((hits(&w, "header_bytes"), hits(&w, "header_count")), (2, 0));
    assert_eq!(send(format!("{get}{fields}\r\n")), "431 headers_too_large");
    assert_eq!((hits(&w, "header_bytes"), hits(&w, "header_count")), (2, 1));
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn bytes_of_a_body_where_the_route_says_and_where_not() {
    let route = |name: &str, max: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\npaths = [\"/{name}\"]\nmechanisms = [\"anonymous\"]\n\
             {max}\n"
        )
    };
    let w = world(&format!(
        "{}{}{}{}",
        config("body_bytes_max = \"10B\""),
        route("plain", ""),
        route("small", "body_bytes_max = \"5B\""),
        route("large", "body_bytes_max = \"20B\""),
    ));
    let mut refused = 0;
    for (path, max) in [("plain", 10), ("small", 5), ("large", 20)] {
        for length in [max, max + 1] {
            let body = "x".repeat(length);
            let chunked =
                format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
            for framing in [format!("Content-Length: {length}\r\n\r\n{body}"), chunked] {
                let mut stream = connect(w.gateway.data);
                let head = format!("POST /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
                say(&mut stream, head + &framing);
                let answer = parse(&read_all(&mut stream)).unwrap();
                let expected = if length > max { "413 payload_too_large" } else { "200 ok" };
                assert_eq!(answer.outcome(), expected, "{path} {framing}");
                refused += u32::from(length > max);
            }
        }
    }
    assert_eq!(hits(&w, "body_bytes"), refused);
    let lengths: Vec<_> = w.upstream.received().iter().map(|r| r.body.len()).collect();
    assert_eq!(lengths, [10, 10, 5, 5, 20, 20]);
}

/// Refused for a bound of its route, a request costs its shop nothing.
#[test]
fn an_announced_body_over_the_bound_costs_no_quota() {
    let w = world(
        "[[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"shop\"\nlimit = 5\nwindow = \"1h\"\n\
         [[routes]]\nname = \"plugin\"\npaths = [\"/plugin/{shopId}\"]\n\
         mechanisms = [\"shop_api_key\"]\nbody_bytes_max = \"5B\"\n",
    );
    let (_, key) = w.gateway.key("demo", &json!({}));
    let mut stream = connect(w.gateway.data);
    for _ in 0..10 {
        let mut stream = connect(w.gateway.data);
        say(
            &mut stream,
            format!(
                "POST /plugin/me HTTP/1.1\r\nHost: a\r\nX-Shop-API-Key: {key}\r\n\
             Content-Length: 6\r\n\r\n"
            ),
        );
        assert_eq!(read_response(&mut stream).outcome(), "413 payload_too_large");
    }
    let get = format!("GET /plugin/me HTTP/1.1\r\nHost: a\r\nX-Shop-API-Key: {key}\r\n\r\n");
    let answer = ask(&mut stream, &get);
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("4"));
}
