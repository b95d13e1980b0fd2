//! Bodies, trailers, `Expect`: large ones at flat memory, bounded ones to the byte.

use std::io::{Read as _, Write as _};

use super::{OK, ask, config, metric, serve};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::connect;
use crate::support::script::Script;

const LARGE: usize = 1024 * 1024 * 1024;
const PIECE: usize = 64 * 1024;

fn resident_kib(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    // The most there ever was.
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn large_bodies_pass_both_ways_at_flat_memory() {
    let upstream = Script::start(|mut heard| {
        while let Some(head) = heard.until(b"\r\n\r\n") {
            if head.starts_with("PUT") {
                let mut left = LARGE - heard.unasked().len();
                heard.bytes(heard.unasked().len());
                let mut piece = vec![0; PIECE];
                while left > 0 {
                    left -= heard.stream.read(&mut piece).unwrap();
                }
                heard.say(OK);
            } else {
                heard.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
                let piece = vec![b'd'; PIECE];
                for _ in 0..LARGE / PIECE {
                    heard.say(&piece);
                }
            }
        }
    });
    let app = format!("url = \"http://{}\"", upstream.address);
    let (_site, gateway) = serve(&app, "body_bytes_max = \"1GiB\"");
    let before = resident_kib(&gateway);
    let mut stream = connect(gateway.data);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'u'; PIECE];
    for _ in 0..LARGE / PIECE {
        stream.write_all(&piece).unwrap();
    }
    assert_eq!(ask(&mut stream, "").text(), "ok");
    let close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(close.as_bytes()).unwrap();
    let (mut received, mut piece) = (0, vec![0; PIECE]);
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        received += n;
    }
    assert!(received > LARGE && received < LARGE + 2000, "{received}");
    let after = resident_kib(&gateway);
    assert!(after - before < 8 * 1024, "from {before} to {after} KiB");
    assert!(after < 50 * 1024, "{after} KiB");
}

#[test]
fn a_route_has_a_bound_of_its_own() {
    let upstream = Script::answering(OK);
    let app = format!("url = \"http://{}\"", upstream.address);
    let more = "[[routes]]\nname = \"more\"\npaths = [\"/more/*\"]\n\
                mechanisms = [\"anonymous\"]\nupstream = \"app\"\nbody_bytes_max = \"1KiB\"\n";
    let text = format!("{more}{}", config(&app, "body_bytes_max = \"10B\""));
    let text = format!("{text}\n[server]\nbody_bytes_max = \"100B\"\n");
    let site = Site::new(None, &text);
    let gateway = site.start();
    for (path, length, status) in [
        ("/", 10, 200),
        ("/", 11, 413),
        ("/", 2000, 413),
        ("/more/a", 1024, 200),
        ("/more/a", 1025, 413),
    ] {
        for chunked in [false, true] {
            let body = "x".repeat(length);
            let (framing, body) = if chunked {
                ("Transfer-Encoding: chunked".into(), format!("{length:x}\r\n{body}\r\n0\r\n\r\n"))
            } else {
                (format!("Content-Length: {length}"), body)
            };
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
            let got = ask(&mut connect(gateway.data), &request);
            assert_eq!(got.status, status, "{path} {length} {chunked}");
        }
    }
}

#[test]
fn trailers_that_are_announced_pass_and_identity_does_not() {
    let upstream = Script::start(|mut heard| {
        let head = heard.until(b"\r\n\r\n").unwrap();
        let body = heard.until(b"\r\n\r\n").unwrap();
        let seen = format!("{head}{body}").replace("\r\n", "|");
        heard.say(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum, X-Auth-Shop-Id, Content-Length\r\n\r\n\
             {:x}\r\n{seen}\r\n0\r\nX-Sum: 7\r\nX-Auth-Shop-Id: s\r\nX-Other: 1\r\n\r\n",
            seen.len()
        ));
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let send = |fields: &str| {
        let mut stream = connect(gateway.data);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{fields}\
             Connection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\nX-Auth-Shop-Id: spoofed\r\n\
             X-Unannounced: 1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        String::from_utf8(super::rest(stream)).unwrap().to_lowercase()
    };
    let got = send("Trailer: X-Sum, X-Auth-Shop-Id\r\nTE: trailers\r\n");
    assert!(got.contains("|trailer: x-sum|") && got.contains("|te: trailers|"), "{got}");
    assert!(got.contains("|0|x-sum: 6||"), "{got}");
    assert!(
        got.contains("\r\ntrailer: x-sum\r\n") && got.ends_with("0\r\nx-sum: 7\r\n\r\n"),
        "{got}"
    );
    assert!(!got.contains("spoofed") && !got.contains("x-unannounced"), "{got}");
    // Neither announced nor asked for: neither passes.
    let got = send("");
    assert!(!got.contains("x-sum") && !got.contains("|te:"), "{got}");
    assert!(got.ends_with("\r\n0\r\n\r\n"), "{got}");
}

#[test]
fn the_body_is_asked_for_when_it_is_wanted() {
    let upstream = Script::answering(OK);
    let text = config(&format!("url = \"http://{}\"", upstream.address), "");
    let text = text.replace("\"anonymous\"", "\"shop_api_key\"");
    let site = Site::new(None, &text);
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &serde_json::json!({}));
    let head = |key: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Shop-API-Key: {key}\r\nExpect: 100-continue\r\n\
             Content-Length: 4\r\n\r\n"
        )
    };
    let mut stream = connect(gateway.data);
    stream.write_all(head(&key).as_bytes()).unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(ask(&mut stream, "body").text(), "ok");
    let seen = upstream.requests().pop().unwrap();
    assert!(seen.ends_with("\r\n\r\nbody") && !seen.contains("expect"), "{seen}");
    // Who is refused is not asked.
    let mut stream = connect(gateway.data);
    stream.write_all(head("sk_00000000000000000000000000000000").as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 401");
}

#[test]
fn a_body_that_does_not_end_in_time_is_cut() {
    let upstream = Script::start(|mut heard| {
        heard.request();
        heard.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while heard.stream.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    });
    let app = format!("url = \"http://{}\"\ntotal_timeout = \"500ms\"", upstream.address);
    let (_site, gateway) = serve(&app, "");
    let mut stream = connect(gateway.data);
    stream.write_all(super::get("/").as_bytes()).unwrap();
    let got = super::rest(stream);
    assert!(got.starts_with(b"HTTP/1.1 200 ") && !got.ends_with(b"0\r\n\r\n"));
    let cut = "latchkey_upstream_errors_total{cause=\"body_timeout\",upstream=\"app\"}";
    assert!((metric(&gateway, cut) - 1.0).abs() < 0.1);
}

#[test]
fn an_early_answer_and_a_late_body_pass_each_other() {
    let upstream = Script::start(|mut heard| {
        let _ = heard.until(b"\r\n\r\n");
        // Answers at once, much; and reads on only then.
        let answer = vec![b'a'; 1_000_000];
        heard.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        let mut writer = heard.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&answer));
        heard.bytes(20_000_000);
        let _ = writing.join();
    });
    let app = format!("url = \"http://{}\"", upstream.address);
    let (_site, gateway) = serve(&app, "body_bytes_max = \"1GiB\"");
    let mut stream = connect(gateway.data);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // Nothing is read before all is sent.
    stream.write_all(&vec![b'b'; 20_000_000]).unwrap();
    assert_eq!(ask(&mut stream, "").body.len(), 1_000_000);
}
