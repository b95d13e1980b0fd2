//! Answers that are none, and answers that are odd but good.

use std::io::Write as _;

use super::{OK, ask, get, metric, rest, serve};
use crate::support::http::{connect, parse};
use crate::support::script::Script;

/// Each is said in answer to a request, and then the connection ends.
const BROKEN: &[&str] = &[
    "",
    "\r\n",
    "garbage\r\n\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n\
     3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",
];

fn script_of(answers: &'static [&'static str]) -> Script {
    Script::start(move |mut heard| {
        while let Some(request) = heard.request() {
            let number = request.split(['/', ' ']).nth(2).and_then(|n| n.parse::<usize>().ok());
            heard.say(answers[number.unwrap()]);
            if !answers[number.unwrap()].starts_with("HTTP/1.1 200 Stays") {
                return;
            }
        }
    })
}

#[test]
fn a_broken_answer_is_502_or_cut_and_never_looks_whole() {
    let upstream = script_of(BROKEN);
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    for (number, answer) in BROKEN.iter().enumerate() {
        for method in ["GET", "POST"] {
            let mut stream = connect(gateway.data);
            let request =
                format!("{method} /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).ok();
            // Only a response that could be taken for a whole one is parsed.
            let mut stream = connect(gateway.data);
            let close = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            stream.write_all(close.as_bytes()).unwrap();
            let got = rest(stream);
            let whole = parse(&got);
            let code = whole.as_ref().map(|w| w.json()["code"].clone());
            assert!(
                whole.as_ref().is_none_or(|w| w.status == 502 && code.unwrap() == "upstream_error"),
                "{answer:?}: {:?}",
                String::from_utf8_lossy(&got)
            );
        }
    }
    for cause in ["broken_off", "malformed", "body"] {
        let series =
            format!("latchkey_upstream_errors_total{{cause=\"{cause}\",upstream=\"app\"}}");
        assert!(metric(&gateway, &series) > 0.0, "{cause}");
    }
}

#[test]
fn a_head_without_end_is_502() {
    let upstream = Script::start(|mut heard| {
        heard.request();
        heard.say("HTTP/1.1 200 OK\r\nX: ");
        while heard.stream.write_all(&[b'a'; 16 * 1024]).is_ok() {}
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    assert_eq!(ask(&mut stream, &get("/")).outcome(), "502 upstream_error");
}

/// An answer, and what of it arrives: status, a field that has to be there or not, the body.
const ODD: &[(&str, u16, &str)] = &[
    ("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end"),
    ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
    ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
    (
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
        404,
        "no",
    ),
    ("HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", 204, ""),
    ("HTTP/1.1 204 None\r\n\r\nunasked", 204, ""),
    ("HTTP/1.1 304 Same\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n", 304, ""),
    ("HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", 599, "ok"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", 200, "ok"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n", 200, ""),
];

#[test]
fn an_odd_answer_is_an_answer() {
    const ANSWERS: [&str; ODD.len()] = {
        let mut answers = [""; ODD.len()];
        let mut i = 0;
        while i < ODD.len() {
            answers[i] = ODD[i].0;
            i += 1;
        }
        answers
    };
    let upstream = script_of(&ANSWERS);
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    for (number, (answer, status, body)) in ODD.iter().enumerate() {
        let mut stream = connect(gateway.data);
        let close = get(&format!("/{number}")).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        stream.write_all(close.as_bytes()).unwrap();
        let got = rest(stream);
        let got = parse(&got).unwrap_or_else(|| panic!("{answer:?}: {got:?}"));
        assert_eq!((got.status, got.text().as_str()), (*status, *body), "{answer:?}");
        if *status == 204 {
            assert_eq!(got.header("content-length"), None, "{answer:?}");
        }
    }
}

#[test]
fn head_has_a_length_and_no_body() {
    let upstream = Script::answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    for _ in 0..3 {
        let got = ask(&mut stream, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((got.status, got.header("content-length")), (200, Some("1000")));
        assert!(got.body.is_empty());
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn what_follows_a_whole_answer_is_nobodys_answer() {
    let upstream = Script::start(|mut heard| {
        while let Some(request) = heard.request() {
            // In one piece: what comes later cannot be told from an answer to the next request.
            let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            let more = if request.starts_with("GET /evil ") { evil } else { "" };
            heard.say(format!("{OK}{more}"));
        }
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    for _ in 0..20 {
        assert_eq!(ask(&mut stream, &get("/evil")).text(), "ok");
        assert_eq!(ask(&mut stream, &get("/good")).text(), "ok");
    }
}

#[test]
fn trace_ends_here() {
    let upstream = Script::answering(OK);
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    let got = ask(&mut stream, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(got.outcome(), "400 bad_request");
    assert_eq!(upstream.requests(), Vec::<String>::new());
}
