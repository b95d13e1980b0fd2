//! Where one HTTP/1.1 request ends and the next begins. The oracle is what the upstream received:
//! it sees a request whole and framed one way, or none of it, or one that it cannot take for
//! whole; never one that the client smuggled inside another.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::support::gateway::{Gateway, Site};
use super::support::http::{PATIENCE, connect, get, parse};

/// An upstream that reports the raw bytes of each connection, and answers each head it finds.
struct Oracle {
    seen: Receiver<String>,
    _site: Site,
    gateway: Gateway,
}

fn oracle() -> Oracle {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (report, seen) = sync_channel(4096);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let report = report.clone();
            std::thread::spawn(move || record(stream, &report));
        }
    });
    // Every request has an upstream connection of its own, and what it received is all that the
    // gateway ever sends for it.
    let site = Site::new(
        None,
        &format!(
            "[server]\nbody_timeout = \"2s\"\n[upstreams.raw]\nurl = \"http://{address}\"\n\
         [[routes]]\nname = \"raw\"\npaths = [\"/r*\"]\nmechanisms = [\"anonymous\"]\n\
         upstream = \"raw\"\n[[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\n\
         limit = 100000\nwindow = \"1s\"\n"
        ),
    );
    let gateway = site.start();
    Oracle { seen, _site: site, gateway }
}

/// Reports what arrives on a connection once it is a whole request, before it answers; and what
/// arrives after that, which is nothing, or smuggled. A request that stays incomplete is none.
fn record(mut stream: TcpStream, report: &SyncSender<String>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut answered = false;
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
        if answered || is_whole(&bytes) {
            let _ = report.send(String::from_utf8_lossy(&bytes).into_owned());
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            let _ = stream.write_all(answer);
            let _ = stream.shutdown(Shutdown::Write);
            answered = true;
            bytes.clear();
        }
    }
}

/// Whether a request is whole, for a reader that is as strict as can be.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let field = |name: &str| {
        head.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| *n == name)?.1.into())
    };
    match (field("transfer-encoding"), field("content-length")) {
        (Some("chunked"), None) => body.ends_with("0\r\n\r\n"),
        (None, Some(length)) => body.len() >= length.parse().unwrap(),
        (None, None) => true,
        both => panic!("framed in two ways: {both:?}"),
    }
}

impl Oracle {
    /// The statuses of all responses to `bytes`, of which the last ends the connection.
    fn statuses(&self, bytes: &str) -> Vec<String> {
        let mut stream = connect(self.gateway.data);
        // It may be refused before all of it is out.
        let _ = stream.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = |response: &str| response.split(' ').nth(1).unwrap_or_default().to_owned();
        text.split("HTTP/1.").skip(1).map(status).collect()
    }

    /// What the upstream received until it is asked for `/r/end`: request lines and bodies.
    fn received(&self) -> Vec<String> {
        assert_eq!(get("/r/end").send(self.gateway.data).status, 200);
        let mut all = Vec::new();
        loop {
            let text = self.seen.recv_timeout(PATIENCE).unwrap();
            if text.starts_with("GET /r/end ") {
                all.sort();
                return all;
            }
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let line = head.split(" HTTP/1.1").next().unwrap();
            all.push(format!("{line} [{}]", body.replace("\r\n", "|")));
        }
    }
}

/// A request that hides another in what some readers take for its body; `|` stands for CR LF.
const HIDDEN: &str = "GET /r/hidden HTTP/1.1|Host: a|Connection: close||";

#[test]
fn what_frames_a_body_in_two_ways_is_refused_with_all_that_follows() {
    let oracle = oracle();
    for framing in [
        // CL.TE and TE.CL.
        "Content-Length: 6|Transfer-Encoding: chunked||0||",
        "Transfer-Encoding: chunked|Content-Length: 4||5c||0||",
        "Content-Length: 0|Transfer-Encoding: chunked||0||",
        // TE.TE, one of them disguised.
        "Transfer-Encoding: chunked|Transfer-Encoding: identity||0||",
        "Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||",
        "Transfer-Encoding: xchunked||0||",
        "Transfer-Encoding: chunked, identity||0||",
        "Transfer-Encoding: chunked, chunked||0||",
        "Transfer-Encoding: ,chunked||0||",
        "Transfer-Encoding: \"chunked\"||0||",
        "Transfer-Encoding: chunked;q=1||0||",
        "Transfer-Encoding: \x0bchunked||0||",
        "Transfer-Encoding: chunked\x0c||0||",
        "Transfer-Encoding:\u{a0}chunked||0||",
        "Transfer-Encoding||0||",
        "Transfer-Encoding:||0||",
        "Transfer-Encoding : chunked||0||",
        "Transfer-Encoding\t: chunked||0||",
        " Transfer-Encoding: chunked||0||",
        "X: y\nTransfer-Encoding: chunked||0||",
        "X: y\rTransfer-Encoding: chunked||0||",
        "X: y| Transfer-Encoding: chunked||0||",
        "Transfer-Encoding:| chunked||0||",
        "Transfer_Encoding: chunked\0||0||",
        // Lengths that are none, or two.
        "Content-Length: 4|Content-Length: 4||abcd",
        "Content-Length: 4|content-length: 5||abcd",
        "Content-Length: 4, 4||abcd",
        "Content-Length: +4||abcd",
        "Content-Length: -4||abcd",
        "Content-Length: 0x4||abcd",
        "Content-Length: 4.0||abcd",
        "Content-Length: 4 4||abcd",
        "Content-Length: ||abcd",
        "Content-Length: 4\0||abcd",
        "Content-Length : 4||abcd",
        "Content-Length: 99999999999999999999||abcd",
        "Content-Length: 18446744073709551620||abcd",
        "Content\0-Length: 4||abcd",
    ] {
        let request = format!("POST /r/x HTTP/1.1|Host: a|{framing}{HIDDEN}").replace('|', "\r\n");
        let statuses = oracle.statuses(&request);
        assert_eq!(statuses, ["400"], "{framing:?}");
    }
    assert_eq!(oracle.received(), [""; 0]);
}

#[test]
fn chunks_arrive_framed_anew_or_not_whole() {
    let oracle = oracle();
    for (chunks, expected) in [
        ("4|abcd|0||", Some("4|abcd|0||")),
        ("4|ab|0|0||", None),
        ("4;a=b|abcd|0;c||", Some("4|abcd|0||")),
        ("4;a=\"x;y\"|abcd|0||", Some("4|abcd|0||")),
        ("0004|abcd|0000||", Some("4|abcd|0||")),
        ("A|0123456789|0||", Some("A|0123456789|0||")),
        ("a|0123456789|0||", Some("A|0123456789|0||")),
        ("2|ab|2|cd|0||", Some("2|ab|2|cd|0||")),
        ("4|abcd|0|X-Auth-Subject: root|Content-Length: 9||", Some("4|abcd|0||")),
        // Broken.
        ("4|abcde|0||", None),
        ("4\nabcd\n0\n\n", None),
        ("4|abcd\n0||", None),
        ("4 |abcd|0||", None),
        (" 4|abcd|0||", None),
        ("0x4|abcd|0||", None),
        ("+4|abcd|0||", None),
        ("-1|abcd|0||", None),
        ("4\0|abcd|0||", None),
        ("|4|abcd|0||", None),
        ("ffffffffffffffff|abcd|0||", None),
        ("10000000000000004|abcd|0||", None),
        ("4;a=b\n|abcd|0||", None),
        ("4|abcd|0|X: y\n\n", None),
        ("g|abcd|0||", None),
    ] {
        let request = format!("POST /r/x HTTP/1.1|Host: a|Transfer-Encoding: chunked||{chunks}");
        let statuses = oracle.statuses(&format!("{request}{HIDDEN}").replace('|', "\r\n"));
        let received = oracle.received();
        if let Some(body) = expected {
            assert_eq!(statuses, ["200", "200"], "{chunks:?}");
            let at = received.iter().position(|r| r.starts_with("POST")).unwrap();
            let got = received[at].to_uppercase();
            // However the data is cut, it is the same, and ends once.
            let data = |text: &str| {
                let lines = text.split('|').map(str::to_uppercase).collect::<Vec<_>>();
                lines.iter().skip(1).step_by(2).cloned().collect::<String>()
            };
            let got = got.trim_start_matches("POST /R/X [").trim_end_matches(']');
            assert_eq!(data(got), data(body), "{chunks:?}");
            assert!(got.ends_with("|0||") && !got.contains("ROOT"), "{chunks:?}: {got}");
            assert_eq!(received.len(), 2, "{received:?}");
        } else {
            assert!(statuses == ["400"] || statuses == ["413"], "{chunks:?}: {statuses:?}");
            assert_eq!(received, [""; 0], "{chunks:?}");
        }
    }
}

#[test]
fn what_is_piped_behind_a_request_is_a_request_of_its_own() {
    let oracle = oracle();
    let bytes = "POST /r/1 HTTP/1.1|Host: a|Content-Length: 5||GET /|\
                 GET http://a/r/2 HTTP/1.1|Host: a||\
                 POST /r/3 HTTP/1.1|Host: a|Transfer-Encoding: chunked||0||\
                 GET /r/4 HTTP/1.1|Host: a|Content-Length: 0||\
                 GET /r/5 HTTP/1.0|Host: a||";
    let statuses = oracle.statuses(&bytes.replace('|', "\r\n"));
    assert_eq!(statuses, ["200"; 5]);
    let received = oracle.received();
    let lines: Vec<_> = received.iter().map(|r| r.split(" [").next().unwrap()).collect();
    assert_eq!(lines, ["GET /r/2", "GET /r/4", "GET /r/5", "POST /r/1", "POST /r/3"]);
    assert_eq!(received[3], "POST /r/1 [GET /]");
    // A refusal ends the connection: nothing behind it is looked at.
    let bytes = format!("GET /r/a HTTP/1.1|Host: a||GET /r/b HTTP/1.1|Host : a||{HIDDEN}");
    assert_eq!(oracle.statuses(&bytes.replace('|', "\r\n")), ["200", "400"]);
    assert_eq!(oracle.received(), ["GET /r/a []"]);
}

/// A body that the gateway did not take is never read as the next request.
#[test]
fn a_body_left_unread_is_no_request() {
    let oracle = oracle();
    let hidden = HIDDEN.replace('|', "\r\n");
    let refused = format!(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let statuses = oracle.statuses(&format!("{refused}{hidden}"));
    assert!(statuses == ["404"] || statuses == ["404", "200"], "{statuses:?}");
    let received = oracle.received();
    assert_eq!(received.len(), statuses.len() - 1, "{received:?}");
    let mut stream = connect(oracle.gateway.data);
    let expecting = "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\
                     Expect: 100-continue\r\n\r\n";
    stream.write_all(expecting.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while parse(&answer).is_none() {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "{answer:?}");
        answer.extend_from_slice(&buffer[..n]);
    }
    assert_eq!(parse(&answer).unwrap().outcome(), "404 not_found");
    let _ = stream.write_all(hidden.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(oracle.received(), [""; 0]);
}
