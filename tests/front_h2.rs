//! HTTP/2: the rules of RFC 9113 frame by frame, what may follow a stream that breaks them, and
//! that nothing malformed reaches the upstream, whose received bytes are the oracle.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Method, Request, Version};
use serde_json::json;

use crate::support::gateway::{Gateway, Site};
use crate::support::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Exchange, GOAWAY, H2, HEADERS, PADDED, PING,
    PRIORITY_FLAG, RST_STREAM, Raw, SETTINGS, Seen, WINDOW_UPDATE, block, frame,
};
use crate::support::http::{exchange, send_raw};
use crate::support::tls::Authority;
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

const OWN: &str = "/api/plugin/shops/demo/products";

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A gateway that takes HTTP/2 on a plain listener.
struct World {
    upstream: Upstream,
    gateway: Gateway,
    key: String,
    _site: Site,
}

fn world_with(behaviour: Behaviour, extra: &str) -> World {
    let upstream = Upstream::start(behaviour);
    let site = Site::new(Some(&upstream), &format!("[server]\nh2c = true\n{extra}"));
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &json!({}));
    World { upstream, gateway, key, _site: site }
}

fn world(extra: &str) -> World {
    world_with(Behaviour::Echo, extra)
}

impl World {
    fn client(&self) -> H2 {
        H2::plain(self.gateway.data)
    }

    fn raw(&self) -> Raw {
        Raw::greeted(self.gateway.data)
    }

    fn get(&self, path: &str) -> http::request::Builder {
        Request::get(format!("http://a.example{path}")).header("x-shop-api-key", &self.key)
    }

    fn metric(&self, line: &str) -> bool {
        self.gateway.metrics().lines().any(|l| l == line)
    }

    fn wait_for_metric(&self, line: &str) {
        until(|| self.metric(line).then_some(()));
    }

    /// A header block that would be let through, but for `more` and without the `left_out`.
    fn fields<'a>(&'a self, left_out: &str, more: &[(&'a str, &'a [u8])]) -> Vec<u8> {
        let mut fields: Vec<(&str, &[u8])> = vec![
            (":method", b"POST"),
            (":scheme", b"http"),
            (":authority", b"a.example"),
            (":path", OWN.as_bytes()),
            ("x-shop-api-key", self.key.as_bytes()),
        ];
        fields.retain(|(name, _)| *name != left_out);
        let pseudo = more.iter().filter(|(name, _)| name.starts_with(':'));
        for field in pseudo {
            fields.insert(0, *field);
        }
        fields.extend(more.iter().filter(|(name, _)| !name.starts_with(':')));
        block(&fields)
    }
}

/// A request whole in one frame.
fn whole(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

#[test]
fn the_table_of_outcomes_over_tls() {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), &authority.section(&["a"], ""));
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &json!({}));
    let mut client = H2::secure(gateway.data, &authority.client("a.example"));
    let get = |path: &str| Request::get(format!("https://a.example{path}"));
    for (request, outcome) in [
        (get(OWN).header("x-shop-api-key", &key), "200 ok"),
        (get(OWN), "401 missing_credential"),
        (get(OWN).header("x-shop-api-key", "sk_x"), "401 invalid_credential"),
        (get(OWN).header("x-shop-api-key", &key).header("x-shop-api-key", &key), "400 bad_request"),
        (get("/api/plugin/shops/other/x").header("x-shop-api-key", &key), "403 cross_tenant"),
        (
            get(OWN).header("x-shop-api-key", &key).header("origin", "https://evil.com"),
            "403 origin_mismatch",
        ),
        (get("/api/widget/x"), "401 missing_credential"),
        (get("/api/search/x").header("authorization", "Bearer x"), "401 invalid_credential"),
        (get("/nowhere"), "404 not_found"),
        (get("/api/search/%2e%2e/x"), "400 bad_request"),
        (get("/api/search/x").header("host", "b.example"), "400 bad_request"),
        (Request::get("http://a.example/api/search/x"), "400 bad_request"),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(client.outcome(request), outcome, "{shown}");
    }
    let seen = upstream.last();
    assert_eq!(upstream.count(), 1);
    assert_eq!(seen.request_line(), format!("GET {OWN} HTTP/1.1"));
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        ("forwarded", "for=127.0.0.1;host=\"a.example\";proto=https"),
        ("x-auth-shop-id", "demo"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let challenged = client.send(get(OWN)).unwrap();
    assert!(challenged.header("www-authenticate").is_some());
    assert_eq!(challenged.header("content-type"), Some("application/problem+json"));
    assert_eq!(challenged.header("connection"), None);
}

#[test]
fn requests_share_a_connection_and_bodies_stream() {
    let w = world("");
    let mut client = w.client();
    let body: Vec<u8> = (0..700_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let post = || {
        let request = Request::post(format!("http://a.example{OWN}"));
        request.header("x-shop-api-key", &w.key).header("cookie", "a=1").header("cookie", "b=2")
    };
    let mut all = Vec::new();
    for announced in [true, false] {
        let request = if announced { post().header("content-length", body.len()) } else { post() };
        let mut begun = client.begin(request.body(()).unwrap(), false);
        send_all(&mut begun, &body);
        all.push(begun);
    }
    all.push(client.begin(w.get(OWN).body(()).unwrap(), true));
    for begun in all {
        assert_eq!(client.finish(begun).unwrap().status, 200);
    }
    let received = w.upstream.received();
    assert_eq!(received.len(), 3);
    for seen in &received[..] {
        let is_get = seen.request_line().starts_with("GET");
        assert_eq!(seen.body, if is_get { &[][..] } else { &body });
        assert_eq!(seen.headers("cookie"), if is_get { vec![] } else { vec!["a=1; b=2"] });
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    }
    let framings = received.iter().filter(|r| r.header("transfer-encoding").is_some()).count();
    assert_eq!(framings, 1, "a length that was announced is told");
    assert!(w.metric("latchkey_h2_resets_total{cause=\"client\"} 0"));
}

fn send_all(begun: &mut Exchange, body: &[u8]) {
    // h2 buffers what the window does not take yet.
    begun.body.send_data(Bytes::copy_from_slice(body), true).unwrap();
}

#[test]
fn head_has_no_body() {
    let w = world("");
    let mut client = w.client();
    for (request, status) in [(w.get(OWN), 200), (w.get("/nowhere"), 404)] {
        let head = client.send(request.method(Method::HEAD)).unwrap();
        assert_eq!((head.status, head.body.len()), (status, 0));
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
    }
}

#[test]
fn prior_knowledge_is_for_those_who_have_it() {
    let w = world("");
    // HTTP/1.1 is spoken beside it, however slowly its first bytes come.
    let one = format!("GET {OWN} HTTP/1.1\r\nHost: a\r\nX-Shop-API-Key: {}\r\n", w.key);
    let closing = format!("{one}Connection: close\r\n\r\n");
    assert_eq!(send_raw(w.gateway.data, closing.as_bytes()).outcome(), "200 ok");
    for begun in ["P", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"] {
        let answer = exchange(w.gateway.data, format!("{begun} {closing}").as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut slow = crate::support::http::connect(w.gateway.data);
    for byte in
        closing.replace("GET", "PUT").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n").bytes()
    {
        slow.write_all(&[byte]).unwrap();
    }
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut slow, &mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    // Where it was not asked for, the preface is no request.
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend(frame(SETTINGS, 0, 0, &[]));
    let answer = exchange(gateway.data, &preface);
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn frames_that_break_the_rules_end_the_connection() {
    let w = world("");
    let good = w.fields("", &[]);
    let head = |flags: u8, stream: u32| frame(HEADERS, flags, stream, &good);
    let open = head(END_HEADERS, 1);
    let setting = |id: u16, value: u32| {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend(value.to_be_bytes());
        frame(SETTINGS, 0, 0, &payload)
    };
    let window = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let padded = |kind: u8, stream: u32| frame(kind, PADDED | END_HEADERS, stream, &[200, 1, 2, 3]);
    for (what, bytes, code) in [
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        ("HEADERS on stream 0", head(END_HEADERS, 0), PROTOCOL_ERROR),
        ("HEADERS on an even stream", head(END_HEADERS, 2), PROTOCOL_ERROR),
        ("an oversized frame", frame(DATA, 0, 1, &vec![0; 16_385]), FRAME_SIZE_ERROR),
        ("an oversized HEADERS", frame(HEADERS, 4, 1, &vec![0; 16_385]), FRAME_SIZE_ERROR),
        ("padding beyond HEADERS", padded(HEADERS, 1), PROTOCOL_ERROR),
        ("padding beyond DATA", [open.clone(), padded(DATA, 1)].concat(), PROTOCOL_ERROR),
        ("WINDOW_UPDATE by nothing", window(0, 0), PROTOCOL_ERROR),
        ("WINDOW_UPDATE on an idle stream", window(1, 1), PROTOCOL_ERROR),
        ("WINDOW_UPDATE of odd length", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), FRAME_SIZE_ERROR),
        ("a window over its bound", window(0, 0x7fff_ffff), FLOW_CONTROL_ERROR),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), PROTOCOL_ERROR),
        ("SETTINGS of odd length", frame(SETTINGS, 0, 0, &[0; 5]), FRAME_SIZE_ERROR),
        ("SETTINGS acknowledged with more", frame(SETTINGS, ACK, 0, &[0; 6]), FRAME_SIZE_ERROR),
        ("ENABLE_PUSH of 2", setting(2, 2), PROTOCOL_ERROR),
        ("a window of 2 GiB", setting(4, 0x8000_0000), FLOW_CONTROL_ERROR),
        ("frames of 100 bytes", setting(5, 100), PROTOCOL_ERROR),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("PING of odd length", frame(PING, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        (
            "RST_STREAM of odd length",
            [open.clone(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            FRAME_SIZE_ERROR,
        ),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("PUSH_PROMISE", frame(5, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("CONTINUATION of nothing", frame(CONTINUATION, 4, 1, &good), PROTOCOL_ERROR),
        (
            "a frame within a header block",
            [head(0, 1), frame(PING, 0, 0, &[0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "CONTINUATION of another stream",
            [head(0, 1), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            PROTOCOL_ERROR,
        ),
        ("a header block of garbage", whole(1, &[0xff; 20]), COMPRESSION_ERROR),
        ("an index of nothing", whole(1, &[0x80]), COMPRESSION_ERROR),
    ] {
        let mut raw = w.raw();
        raw.write(&bytes);
        let seen = raw.seen();
        // h2 calls some errors of size and of flow control protocol errors; RFC 9113 §5.4 lets it.
        let general = Seen::GoAway(PROTOCOL_ERROR);
        assert!(seen == Seen::GoAway(code) || seen == general, "{what}: {seen:?}");
        assert_eq!(raw.seen(), Seen::Closed, "{what}");
    }
    assert_eq!(w.upstream.received().iter().filter(|r| !r.body.is_empty()).count(), 0);
    until(|| {
        w.gateway
            .metrics()
            .contains("latchkey_h2_goaways_total{cause=\"protocol\"} 3")
            .then_some(())
    });
}

#[test]
fn what_is_unknown_is_ignored_and_pings_are_answered() {
    let w = world("");
    let mut raw = w.raw();
    raw.write(&frame(0xfa, 0xff, 0, b"unknown"));
    raw.write(&frame(0xfa, 0xff, 9, b"unknown"));
    raw.write(&frame(SETTINGS, 0, 0, &[0xff, 0xff, 0, 0, 0, 1]));
    raw.write(&frame(2, 0, 1, &[0, 0, 0, 0, 7]));
    raw.write(&frame(PING, 0, 0, b"latchkey"));
    let pong = std::iter::from_fn(|| raw.read()).find(|frame| frame.kind == PING).unwrap();
    assert_eq!((pong.flags, pong.payload.as_slice()), (ACK, b"latchkey".as_slice()));
    // A block in pieces, with padding and a priority.
    let block = w.fields("", &[]);
    let (first, rest) = block.split_at(7);
    let payload = [&[3, 0, 0, 0, 0, 15][..], first, &[0, 0, 0]].concat();
    raw.write(&frame(HEADERS, END_STREAM | PADDED | PRIORITY_FLAG, 1, &payload));
    raw.write(&frame(CONTINUATION, 0, 1, &[]));
    raw.write(&frame(CONTINUATION, END_HEADERS, 1, rest));
    assert_eq!(raw.seen(), Seen::Response(1, true));
    assert_eq!(w.upstream.count(), 1);
}

#[test]
fn nothing_malformed_reaches_the_upstream() {
    let w = world("");
    let with = |more: &[(&str, &[u8])]| whole(1, &w.fields("", more));
    let without = |name: &str, more: &[(&str, &[u8])]| whole(1, &w.fields(name, more));
    let late = {
        let mut fields = w.fields(":path", &[]);
        fields.extend(block(&[(":path", OWN.as_bytes())]));
        whole(1, &fields)
    };
    for (what, bytes) in [
        ("an upper-case name", with(&[("X-Upper", b"a")])),
        ("an empty name", with(&[("", b"a")])),
        ("a name with a space", with(&[("a b", b"a")])),
        ("a name with a colon", with(&[("a:b", b"a")])),
        ("a name with a line feed", with(&[("a\n", b"a")])),
        ("a value with CR LF", with(&[("x", b"a\r\nx-auth-shop-id: other")])),
        ("a value with LF", with(&[("x", b"a\nb")])),
        ("a value with NUL", with(&[("x", b"a\0b")])),
        ("a value that begins with a space", with(&[("x", b" a")])),
        ("a value that ends with a tab", with(&[("x", b"a\t")])),
        ("no :method", without(":method", &[])),
        ("no :scheme", without(":scheme", &[])),
        ("no :path", without(":path", &[])),
        ("an empty :path", without(":path", &[(":path", b"")])),
        ("a :path without slash", without(":path", &[(":path", b"api")])),
        ("a :path with a space", without(":path", &[(":path", b"/api/search/x HTTP/1.1")])),
        ("a :path with CR LF", without(":path", &[(":path", b"/api/search/x\r\nA: b")])),
        ("a :path of bytes", without(":path", &[(":path", b"/api/search/\xc3\xa9")])),
        ("a :path that is a URL", without(":path", &[(":path", b"http://b/api/search/x")])),
        ("asterisk form", without(":path", &[(":path", b"*")])),
        ("two :path", with(&[(":path", b"/api/search/x")])),
        ("two :method", with(&[(":method", b"GET")])),
        ("two :scheme", with(&[(":scheme", b"http")])),
        ("two :authority", with(&[(":authority", b"b.example")])),
        ("a late :path", late),
        ("an unknown pseudo field", with(&[(":other", b"a")])),
        (":status", with(&[(":status", b"200")])),
        (":protocol", with(&[(":protocol", b"websocket")])),
        ("a :scheme of another kind", without(":scheme", &[(":scheme", b"ftp")])),
        ("no host at all", without(":authority", &[])),
        ("user information", without(":authority", &[(":authority", b"u@a.example")])),
        ("an authority with a path", without(":authority", &[(":authority", b"a.example/x")])),
        ("another Host", with(&[("host", b"b.example")])),
        ("two Host", without(":authority", &[("host", b"a"), ("host", b"a")])),
        ("a method with a space", without(":method", &[(":method", b"GET /x")])),
        ("CONNECT", without(":method", &[(":method", b"CONNECT")])),
        ("Connection", with(&[("connection", b"close")])),
        ("Keep-Alive", with(&[("keep-alive", b"timeout=5")])),
        ("Proxy-Connection", with(&[("proxy-connection", b"keep-alive")])),
        ("Transfer-Encoding", with(&[("transfer-encoding", b"chunked")])),
        ("Upgrade", with(&[("upgrade", b"websocket")])),
        ("TE", with(&[("te", b"gzip")])),
        ("a length without a body", with(&[("content-length", b"5")])),
        ("a length with a sign", with(&[("content-length", b"+0")])),
        ("two lengths", with(&[("content-length", b"0"), ("content-length", b"0")])),
        ("two other lengths", with(&[("content-length", b"0"), ("content-length", b"1")])),
        ("a list of lengths", with(&[("content-length", b"0, 0")])),
        (
            "a stream that depends on itself",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITY_FLAG,
                1,
                &[&[0, 0, 0, 1, 15][..], &w.fields("", &[])].concat(),
            ),
        ),
        (
            "trailers that are pseudo fields",
            [
                frame(HEADERS, END_HEADERS, 1, &w.fields("", &[("content-length", b"1")])),
                whole(1, &block(&[(":path", b"/x")])),
            ]
            .concat(),
        ),
        ("many fields", with(&[("x", b"a".as_slice()); 120])),
    ] {
        let mut raw = w.raw();
        raw.write(&bytes);
        let seen = raw.seen();
        let refused = match seen {
            Seen::Response(1, ok) => !ok,
            Seen::Reset(1, code) | Seen::GoAway(code) => code == PROTOCOL_ERROR,
            Seen::Response(..) | Seen::Reset(..) | Seen::Closed => false,
        };
        assert!(refused, "{what}: {seen:?}");
        assert_eq!(w.upstream.count(), 0, "{what}: {:?}", w.upstream.received());
    }
    let mut client = w.client();
    assert_eq!(client.outcome(w.get(OWN)), "200 ok");
}

#[test]
fn bodies_that_are_not_as_announced_do_not_look_whole() {
    let w = world("");
    let data = |flags: u8, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let head = |length: &'static [u8]| {
        frame(HEADERS, END_HEADERS, 1, &w.fields("", &[("content-length", length)]))
    };
    for (what, bytes) in [
        ("short", [head(b"10"), data(END_STREAM, b"12345")].concat()),
        ("long", [head(b"3"), data(END_STREAM, b"12345")].concat()),
        ("long at once", [head(b"0"), data(0, b"12345")].concat()),
        ("short, ended by trailers", [head(b"10"), data(0, b"1"), whole(1, &[])].concat()),
    ] {
        let mut raw = w.raw();
        raw.write(&bytes);
        assert_eq!(raw.seen(), Seen::Reset(1, PROTOCOL_ERROR), "{what}");
    }
    assert_eq!(w.upstream.count(), 0, "{:?}", w.upstream.received());
    // After the end there is no more.
    let mut raw = w.raw();
    raw.write(&[whole(1, &w.fields("", &[])), data(0, b"x")].concat());
    let seen = raw.seen();
    let told =
        [Seen::Reset(1, STREAM_CLOSED), Seen::GoAway(STREAM_CLOSED), Seen::GoAway(PROTOCOL_ERROR)];
    assert!(told.contains(&seen) || seen == Seen::Response(1, true), "{seen:?}");
    assert!(w.upstream.received().iter().all(|r| r.body.is_empty()));
}

#[test]
fn too_many_and_too_long_fields() {
    let w = world("");
    let long = vec![b'a'; 12_000];
    let block = w.fields("", &[("x", &long), ("y", &long)]);
    let (first, rest) = block.split_at(10_000);
    let mut raw = w.raw();
    raw.write(&frame(HEADERS, END_STREAM, 1, first));
    raw.write(&frame(CONTINUATION, END_HEADERS, 1, rest));
    assert_eq!(raw.seen(), Seen::Response(1, false), "431");
    let mut client = w.client();
    let mut many = w.get(OWN);
    for _ in 0..110 {
        many = many.header("x", "a");
    }
    assert_eq!(client.outcome(many), "431 headers_too_large");
    assert_eq!(client.outcome(w.get(OWN)), "200 ok", "the connection goes on");
    assert_eq!(w.upstream.count(), 1);
}

#[test]
fn floods_end_in_goaway() {
    let w = world("[server.h2]\npending_resets_max = 20\nlocal_resets_max = 50\n");
    let block = w.fields("", &[]);
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());

    // Opened to be reset, in one go.
    let mut raw = w.raw();
    for stream in (1..4000).step_by(2) {
        if !raw.write(&[frame(HEADERS, END_HEADERS, stream, &block), reset(stream)].concat()) {
            break;
        }
    }
    assert_eq!(last(&mut raw), Some(ENHANCE_YOUR_CALM));
    w.wait_for_metric("latchkey_h2_goaways_total{cause=\"flood\"} 1");

    // Streams in error, again and again.
    let mut raw = w.raw();
    let malformed = w.fields(":path", &[]);
    for stream in (1..4000).step_by(2) {
        if !raw.write(&whole(stream, &malformed)) {
            break;
        }
    }
    assert_eq!(last(&mut raw), Some(ENHANCE_YOUR_CALM));
    w.wait_for_metric("latchkey_h2_goaways_total{cause=\"flood\"} 2");

    // A header block without end.
    let mut raw = w.raw();
    raw.write(&frame(HEADERS, 0, 1, &block));
    let piece = frame(CONTINUATION, 0, 1, &crate::support::h2::block(&[("x", &[b'a'; 16_000])]));
    let sent = (0..10_000).take_while(|_| raw.write(&piece)).count();
    assert!(sent < 10_000, "160 MB of one header block were taken");
    let mut raw = w.raw();
    raw.write(&frame(HEADERS, 0, 1, &block));
    let sent = (0..100_000).take_while(|_| raw.write(&frame(CONTINUATION, 0, 1, &[]))).count();
    assert!(sent < 100_000, "as many empty pieces were taken");

    // More streams than are allowed at a time.
    let quiet = world_with(Behaviour::Silent, "[server.h2]\nstreams_max = 3\n");
    let block = quiet.fields("", &[]);
    let mut raw = quiet.raw();
    for stream in [1, 3, 5, 7] {
        raw.write(&whole(stream, &block));
    }
    assert_eq!(raw.seen(), Seen::Reset(7, 7), "REFUSED_STREAM");
    assert_eq!(w.client().outcome(w.get(OWN)), "200 ok");
}

/// The code of the last GOAWAY before the end.
fn last(raw: &mut Raw) -> Option<u32> {
    let mut code = None;
    loop {
        match raw.seen() {
            Seen::GoAway(new) => code = Some(new),
            Seen::Closed => return code,
            Seen::Response(..) | Seen::Reset(..) => {}
        }
    }
}

#[test]
fn requests_given_up_one_by_one_end_the_connection_too() {
    let w = world_with(Behaviour::Silent, "[server.h2]\nlocal_resets_max = 5\n");
    let block = w.fields("", &[]);
    let mut raw = w.raw();
    for (count, stream) in (1..=6).zip((1..).step_by(2)) {
        raw.write(&whole(stream, &block));
        until(|| (w.upstream.count() >= count).then_some(()));
        raw.write(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        w.wait_for_metric(&format!("latchkey_h2_resets_total{{cause=\"client\"}} {count}"));
    }
    assert_eq!(raw.seen(), Seen::GoAway(0));
    w.wait_for_metric("latchkey_h2_goaways_total{cause=\"flood\"} 1");
}

#[test]
fn floods_of_questions_are_answered_or_ended_but_cost_no_memory() {
    let w = world("");
    for question in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[0; 8])] {
        let mut raw = w.raw();
        let many = question.repeat(1000);
        // The answers are not read: at some point the questions are not either.
        raw.write_until_blocked(&many, 64 << 20);
    }
    let resident = w.gateway.resident_kib();
    assert!(resident < 100_000, "{resident} KiB");
    assert_eq!(w.client().outcome(w.get(OWN)), "200 ok");
}

#[test]
fn times() {
    let w = world(
        "first_byte_timeout = \"50ms\"\nidle_timeout = \"150ms\"\nbody_timeout = \"150ms\"\n",
    );
    // Nothing at all: closed silently.
    let mut silent = Raw::silent(w.gateway.data);
    assert_eq!(silent.read(), None);
    // A connection without a request.
    let mut idle = w.raw();
    assert_eq!(idle.seen(), Seen::GoAway(0));
    assert_eq!(last(&mut idle), None, "no answer to the PING, and closed all the same");
    w.wait_for_metric("latchkey_h2_goaways_total{cause=\"idle\"} 1");
    // A header block that stops.
    let mut stopped = w.raw();
    stopped.write(&frame(HEADERS, 0, 1, &w.fields("", &[])));
    assert!(last(&mut stopped).is_some());
    // A body that stops: 408, and the upstream sees no whole request.
    let before = w.upstream.count();
    let mut client = w.client();
    let post = Request::post(format!("http://a.example{OWN}")).header("x-shop-api-key", &w.key);
    let mut begun = client.begin(post.body(()).unwrap(), false);
    begun.body.send_data(Bytes::from_static(b"some"), false).unwrap();
    assert_eq!(client.finish(begun).unwrap().outcome(), "408 request_timeout");
    assert_eq!(w.upstream.count(), before);
}

#[test]
fn a_body_is_to_be_whole_in_time_however_it_trickles() {
    let w = world("request_timeout = \"300ms\"\n");
    let mut client = w.client();
    let post = Request::post(format!("http://a.example{OWN}")).header("x-shop-api-key", &w.key);
    let mut begun = client.begin(post.body(()).unwrap(), false);
    let step = Duration::from_millis(10);
    // No more can be sent once the stream is answered and reset.
    until(|| {
        std::thread::park_timeout(step);
        begun.body.send_data(Bytes::from_static(b"x"), false).is_err().then_some(())
    });
    assert_eq!(client.finish(begun).unwrap().outcome(), "408 request_timeout");
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let w = world("body_timeout = \"200ms\"\n");
    // No window for any response, and PINGs are answered.
    let mut raw = Raw::greeted_with(w.gateway.data, &[0, 4, 0, 0, 0, 0]);
    raw.write(&whole(1, &w.fields("", &[])));
    assert_eq!(raw.seen(), Seen::Response(1, true));
    assert_eq!(raw.seen(), Seen::Closed);
    w.wait_for_metric("latchkey_h2_goaways_total{cause=\"stalled\"} 1");
}

#[test]
fn a_broken_response_is_a_reset_of_its_stream_alone() {
    let w = world_with(Behaviour::CutBody, "");
    let mut client = w.client();
    for _ in 0..2 {
        let begun = client.begin(w.get(OWN).body(()).unwrap(), true);
        let error = client.finish(begun).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    }
    w.wait_for_metric("latchkey_h2_resets_total{cause=\"upstream\"} 2");
    assert_eq!(client.outcome(w.get("/nowhere")), "404 not_found");
}

#[test]
fn a_stop_lets_requests_finish_and_says_goaway() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "[server]\nh2c = true\n");
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &json!({}));
    let mut client = H2::plain(gateway.data);
    let post = Request::post(format!("http://a.example{OWN}")).version(Version::HTTP_2);
    let post = post.header("x-shop-api-key", &key).body(()).unwrap();
    let mut begun = client.begin(post, false);
    begun.body.send_data(Bytes::from_static(b"first "), false).unwrap();
    let in_flight = "latchkey_requests_in_flight 1";
    until(|| gateway.metrics().lines().any(|l| l == in_flight).then_some(()));
    gateway.signal("TERM");
    gateway.wait_for_log(|line| line["message"] == "stopping; requests under way may finish");
    begun.body.send_data(Bytes::from_static(b"last"), true).unwrap();
    assert_eq!(client.finish(begun).unwrap().status, 200);
    assert_eq!(upstream.last().body, b"first last");
    assert!(gateway.stop_already_signalled().success());
    assert!(client.ended().is_none_or(|reason| reason == Reason::NO_ERROR));
}
