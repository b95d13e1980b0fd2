//! Upstreams and callers that mean harm, or only have a bad day.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Response;

use super::{OK, ask, config, get, metric, rest, serve};
use crate::support::gateway::Site;
use crate::support::http::{connect, parse};
use crate::support::script::Script;
use crate::support::until;

const CHUNKED: &str = "POST /in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n0\r\n\r\n";

#[test]
fn a_body_in_chunks_is_not_lost_on_a_connection_that_speaks_1_0() {
    const KEPT: &str = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Script::start(|mut heard| {
        while let Some(head) = heard.until(b"\r\n\r\n") {
            if head.contains("chunked") {
                let body = heard.until(b"0\r\n\r\n").unwrap();
                assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n");
                heard.say("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
                return;
            }
            heard.say(KEPT);
        }
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    assert_eq!(ask(&mut stream, &get("/")).text(), "ok");
    assert_eq!(ask(&mut stream, CHUNKED).text(), "whole");
}

#[test]
fn a_flood_of_interim_responses_ends() {
    let upstream = Script::start(|mut heard| {
        heard.request();
        let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(4000);
        while heard.stream.write_all(flood.as_bytes()).is_ok() {}
    });
    // Not its time is over, but the patience with it: that would be 504.
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    assert_eq!(ask(&mut stream, &get("/")).outcome(), "502 upstream_error");
}

#[test]
fn a_caller_that_withholds_its_body_is_no_fault_of_the_upstreams() {
    let upstream = Script::start(|mut heard| {
        while let Some(head) = heard.until(b"\r\n\r\n") {
            if head.starts_with("POST") {
                heard.bytes(10);
            }
            heard.say(OK);
        }
    });
    let app = format!(
        "url = \"http://{}\"\nresponse_timeout = \"300ms\"\n[upstreams.app.ejection]\n\
         failures = 1\n[server]\nbody_timeout = \"1s\"",
        upstream.address
    );
    let (_site, gateway) = serve(&app, "");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    for part in ["", "half"] {
        let mut stream = connect(gateway.data);
        stream.write_all(format!("{head}{part}").as_bytes()).unwrap();
        let got = parse(&rest(stream)).unwrap();
        assert_eq!(got.outcome(), "408 request_timeout", "{part:?}");
    }
    let failed = "latchkey_upstream_errors_total{cause=\"timeout\",upstream=\"app\"}";
    assert!(metric(&gateway, failed) < 0.5);
    assert!(metric(&gateway, "latchkey_upstream_ejections_total{upstream=\"app\"}") < 0.5);
    // Who sends on and on is not the upstream's fault either, and does not go on for ever.
    let hungry = Script::start(|mut heard| {
        heard.until(b"never");
    });
    let app = format!("url = \"http://{}\"\ntotal_timeout = \"500ms\"", hungry.address);
    let (_other, endless) = serve(&app, "");
    let mut stream = connect(endless.data);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").unwrap();
    let mut writer = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            std::thread::park_timeout(Duration::from_millis(30));
        }
    });
    let got = parse(&rest(stream)).unwrap();
    assert_eq!(got.outcome(), "408 request_timeout");
    // One that takes its time is waited for, and then the upstream has its own.
    let mut stream = connect(gateway.data);
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::park_timeout(Duration::from_millis(700));
    assert_eq!(ask(&mut stream, "0123456789").text(), "ok");
}

#[test]
fn an_upstream_that_takes_a_body_and_says_nothing_is_given_up() {
    let upstream = Script::start(|mut heard| {
        heard.request();
        heard.until(b"never");
    });
    let app = format!("url = \"http://{}\"\nresponse_timeout = \"300ms\"", upstream.address);
    let (_site, gateway) = serve(&app, "body_bytes_max = \"1GiB\"");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let got = ask(&mut connect(gateway.data), post);
    assert_eq!(got.outcome(), "504 upstream_timeout");
}

#[test]
fn an_upstream_that_does_not_read_a_body_is_given_up() {
    let upstream = Script::start(|mut heard| {
        heard.until(b"\r\n\r\n");
        std::thread::park_timeout(Duration::from_secs(20));
    });
    let app = format!("url = \"http://{}\"\nresponse_timeout = \"500ms\"", upstream.address);
    let (_site, gateway) = serve(&app, "body_bytes_max = \"1GiB\"");
    let mut stream = connect(gateway.data);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n").unwrap();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&vec![b'x'; 90_000_000]));
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 504");
    drop(rest(stream));
    let _ = writing.join();
}

#[test]
fn nobody_gets_the_answer_to_a_request_that_was_given_up() {
    let upstream = Script::start(|mut heard| {
        while let Some(request) = heard.request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            if path.starts_with("/slow") {
                std::thread::park_timeout(Duration::from_millis(150));
            }
            let length = path.len();
            heard.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}"));
        }
    });
    let app = format!("url = \"http://{}\"\nresponse_timeout = \"50ms\"", upstream.address);
    let (_site, gateway) = serve(&app, "");
    let mut kept = connect(gateway.data);
    for n in 0..10 {
        // Given up by the gateway, and by the caller.
        let late = ask(&mut kept, &get(&format!("/slow/a{n}")));
        assert_eq!(late.outcome(), "504 upstream_timeout");
        let mut gone = connect(gateway.data);
        gone.write_all(get(&format!("/slow/b{n}")).as_bytes()).unwrap();
        gone.shutdown(Shutdown::Both).unwrap();
        for k in 0..5 {
            let path = format!("/fast/{n}/{k}");
            assert_eq!(ask(&mut kept, &get(&path)).text(), path);
            std::thread::park_timeout(Duration::from_millis(40));
        }
    }
}

#[test]
fn bytes_after_an_answer_without_a_body_are_nobodys_answer() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let upstream = Script::start(move |mut heard| {
        while let Some(request) = heard.request() {
            if request.starts_with("HEAD") {
                heard.say(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{evil}",
                    evil.len()
                ));
            } else if request.starts_with("GET /204") {
                heard.say(format!("HTTP/1.1 204 None\r\n\r\n{evil}"));
            } else if request.starts_with("GET /304") {
                heard.say(format!("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n{evil}"));
            } else {
                heard.say(OK);
            }
        }
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    for _ in 0..10 {
        for request in ["HEAD / HTTP/1.1", "GET /204 HTTP/1.1", "GET /304 HTTP/1.1"] {
            ask(&mut stream, &format!("{request}\r\nHost: a\r\n\r\n"));
            assert_eq!(ask(&mut stream, &get("/good")).text(), "ok", "{request}");
        }
    }
}

#[test]
fn a_response_cannot_take_our_own_fields_away() {
    let upstream = Script::answering(
        "HTTP/1.1 200 OK\r\nConnection: x-request-id, content-length, x-hop\r\nX-Hop: 1\r\n\
         X-Request-Id: forged\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok",
    );
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    let got = ask(&mut stream, &get("/"));
    assert_eq!(got.text(), "ok");
    let id = got.header("x-request-id").unwrap();
    assert!(id != "forged" && id.len() == 32, "{id}");
    assert_eq!((got.header("x-hop"), got.header("access-control-allow-origin")), (None, None));
    assert_eq!(ask(&mut stream, &get("/")).text(), "ok");
}

#[test]
fn trailer_fields_that_control_browsers_or_speak_for_us_end_here() {
    const NAMES: [&str; 9] = [
        "Set-Cookie",
        "Access-Control-Allow-Origin",
        "Strict-Transport-Security",
        "Content-Security-Policy",
        "Clear-Site-Data",
        "RateLimit",
        "X-RateLimit-Remaining",
        "Retry-After",
        "X-Request-Id",
    ];
    let trailer = NAMES.join(", ");
    let fields = NAMES.join(": x\r\n");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {trailer}, X-Sum\r\n\r\n\
         2\r\nok\r\n0\r\n{fields}: x\r\nX-Sum: 1\r\n\r\n"
    );
    let upstream = Script::start(move |mut heard| {
        while heard.request().is_some() {
            heard.say(&answer);
        }
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let got = String::from_utf8(rest(stream)).unwrap().to_lowercase();
    assert!(got.contains("\r\ntrailer: x-sum\r\n"), "{got}");
    assert!(got.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{got}");
}

#[test]
fn a_change_of_protocol_says_nothing_of_a_body() {
    let upstream = Script::start(|mut heard| {
        heard.request();
        heard.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Content-Length: 5\r\n\r\nhello",
        );
        // And so does one that says goodbye at once.
        let _ = heard.stream.shutdown(Shutdown::Write);
        heard.until(b"never");
    });
    let app = format!("url = \"http://{}\"", upstream.address);
    let (_site, gateway) = serve(&app, "upgrades = [\"websocket\"]");
    let mut stream = connect(gateway.data);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"hello") {
        let mut piece = [0; 1024];
        let n = stream.read(&mut piece).unwrap();
        got.extend_from_slice(&piece[..n]);
    }
    let got = String::from_utf8(got).unwrap().to_lowercase();
    assert!(got.starts_with("http/1.1 101 ") && got.ends_with("\r\n\r\nhello"), "{got}");
    assert!(!got.contains("content-length"), "{got}");
}

/// What an HTTP/2 upstream does with a request.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Move {
    Answer,
    Reset(Reason),
    /// Says goodbye, to this request too.
    GoAway,
    /// Says goodbye, having taken the request in.
    Abort,
    TwoLengths,
    OddLength,
}

/// An HTTP/2 upstream that does `moves` in turn, and from then on answers with what it was asked.
fn h2_upstream(moves: &'static [Move]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(h2_connection(tcp, moves, Arc::clone(&counter)));
            }
        });
    });
    (address, received)
}

async fn h2_connection(
    tcp: tokio::net::TcpStream,
    moves: &'static [Move],
    counter: Arc<AtomicUsize>,
) {
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let turn = counter.fetch_add(1, Ordering::SeqCst);
        let response = Response::builder();
        let response = match moves.get(turn).copied().unwrap_or(Move::Answer) {
            Move::Reset(reason) => {
                respond.send_reset(reason);
                continue;
            }
            Move::GoAway => {
                respond.send_reset(Reason::REFUSED_STREAM);
                connection.graceful_shutdown();
                continue;
            }
            Move::Abort => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                continue;
            }
            Move::TwoLengths => {
                response.header("content-length", "2").header("content-length", "3")
            }
            Move::OddLength => response.header("content-length", "+2"),
            Move::Answer => response,
        };
        let text = format!("{} {}", request.method(), request.uri());
        let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
        // The other side may have reset it.
        let body =
            if matches!(moves.get(turn), None | Some(Move::Answer)) { text } else { "ok".into() };
        let _ = send.send_data(Bytes::from(body), true);
    }
}

#[test]
fn what_an_upstream_has_refused_to_look_at_is_sent_again() {
    const REFUSED: Move = Move::Reset(Reason::REFUSED_STREAM);
    let get = get("/x");
    let post = "POST /x HTTP/1.1\r\nHost: front.example\r\nContent-Length: 0\r\n\r\n";
    let body = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let cases: &[(&'static [Move], &str, u16, usize)] = &[
        (&[REFUSED], &get, 200, 2),
        (&[Move::GoAway], &get, 200, 2),
        (&[REFUSED], post, 200, 2),
        (&[REFUSED], body, 502, 1),
        (&[REFUSED, REFUSED], &get, 502, 2),
        (&[Move::Abort], &get, 502, 1),
        (&[Move::Reset(Reason::CANCEL)], &get, 502, 1),
        (&[Move::Reset(Reason::INTERNAL_ERROR)], &get, 502, 1),
        (&[Move::Reset(Reason::NO_ERROR)], &get, 502, 1),
        (&[Move::TwoLengths], &get, 502, 1),
        (&[Move::OddLength], &get, 502, 1),
    ];
    for (moves, request, status, times) in cases {
        let (address, received) = h2_upstream(moves);
        let app = format!("url = \"http://{address}\"\nhttp2 = true\npreserve_host = true");
        let (_site, gateway) = serve(&app, "");
        let got = ask(&mut connect(gateway.data), request);
        assert_eq!(got.status, *status, "{moves:?} {request}: {}", got.text());
        assert_eq!(received.load(Ordering::SeqCst), *times, "{moves:?} {request}");
        if *status == 200 {
            // The caller's `Host` is preserved however often it is sent.
            assert!(got.text().ends_with("http://front.example/x"), "{}", got.text());
        }
    }
}

#[test]
fn the_check_looks_at_the_files_of_upstreams_too() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.pem");
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    for file in [missing, empty] {
        let file = file.display();
        let site = Site::new(
            None,
            &config(&format!("url = \"https://localhost:1\"\nca_file = \"{file}\""), ""),
        );
        for command in [&["config", "check"][..], &["serve"]] {
            let output = site.cli(command);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{command:?} {told}");
            assert!(told.contains("upstreams.app") && told.contains(".pem"), "{told}");
        }
        assert!(!site.database().exists(), "a wrong file leaves no database behind");
    }
}

#[test]
fn an_upstream_that_is_gone_leaves_no_series() {
    let upstream = Script::answering(OK);
    let app = format!("url = \"http://{}\"", upstream.address);
    let more =
        format!("{}[upstreams.old]\nurl = \"http://{}\"\n", config(&app, ""), upstream.address);
    let old = "[[routes]]\nname = \"old\"\npaths = [\"/old/*\"]\nmechanisms = [\"anonymous\"]\n\
               upstream = \"old\"\n";
    let site = Site::new(None, &format!("{old}{more}"));
    let gateway = site.start();
    for _ in 0..20 {
        assert_eq!(ask(&mut connect(gateway.data), &get("/old/a")).text(), "ok");
    }
    assert!(gateway.metrics().contains("upstream=\"old\""));
    site.configure(None, &config(&app, ""));
    gateway.signal("HUP");
    until(|| (!gateway.metrics().contains("upstream=\"old\"")).then_some(()));
    for _ in 0..20 {
        assert_eq!(ask(&mut connect(gateway.data), &get("/old/a")).text(), "ok");
    }
    assert!(!gateway.metrics().contains("upstream=\"old\""));
}

#[test]
fn a_failure_is_told_with_its_request_and_its_endpoint_and_no_query() {
    let broken = Script::start(|mut heard| {
        let _ = heard.stream.read(&mut [0; 4096]);
        heard.say("garbage\r\n\r\n");
        heard.until(b"never");
    });
    for (scheme, said) in [("http", "invalid HTTP"), ("https", "begins with http://")] {
        let (_site, gateway) = serve(&format!("url = \"{scheme}://{}\"", broken.address), "");
        let request = "POST /orders?k=hush HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        let id = ask(&mut connect(gateway.data), request).json()["request_id"].clone();
        let line = gateway.wait_for_log(|line| line["message"] == "admitted request failed");
        let reason = line["reason"].as_str().unwrap();
        assert_eq!((&line["method"], &line["path"]), (&"POST".into(), &"/orders".into()), "{line}");
        assert_eq!(line["request_id"], id);
        let whose = format!("upstream `app` at {}: ", broken.address);
        assert!(reason.starts_with(&whose) && reason.contains(said), "{reason}");
        assert!(!gateway.log_lines().join("").contains("hush"));
    }
}
