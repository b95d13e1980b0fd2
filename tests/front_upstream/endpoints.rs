//! Which endpoint gets a request, and when a request is sent again.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{OK, ask, get, metric, serve};
use crate::support::http::connect;
use crate::support::script::Script;
use crate::support::until;

/// An address where nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";

/// Answers one request on a connection; the next one it reads and hangs up after saying `last`.
fn forgetful(last: &'static str) -> Script {
    Script::start(move |mut heard| {
        heard.request();
        heard.say(OK);
        heard.request();
        heard.say(last);
    })
}

#[test]
fn a_connection_dropped_while_idle_costs_a_bodiless_request_nothing() {
    for (request, last, status, received) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", 200, 3),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", "", 200, 3),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", 200, 3),
        // What may have had an effect is not repeated, nor what has begun to be answered.
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", 502, 2),
        (POST, "", 502, 2),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", "", 502, 2),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "H", 502, 2),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", 502, 2),
    ] {
        let upstream = forgetful(last);
        let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
        let mut stream = connect(gateway.data);
        assert_eq!(ask(&mut stream, &get("/")).status, 200);
        assert_eq!(ask(&mut stream, request).status, status, "{request} {last:?}");
        assert_eq!(upstream.requests().len(), received, "{request} {last:?}");
        let retries = if status == 200 { 1.0 } else { 0.0 };
        assert!((metric(&gateway, "latchkey_upstream_retries_total{") - retries).abs() < 0.1);
    }
}

#[test]
fn a_new_connection_that_breaks_is_not_tried_again() {
    let upstream = Script::start(|mut heard| {
        heard.request();
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    assert_eq!(ask(&mut stream, &get("/")).outcome(), "502 upstream_error");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn dead_idle_connections_are_noticed() {
    let upstream = Script::start(|mut heard| {
        heard.request();
        heard.say(OK);
    });
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    for n in 0..10 {
        // A POST is not repeated: it goes through only on a connection that is alive.
        std::thread::park_timeout(std::time::Duration::from_millis(20));
        assert_eq!(ask(&mut stream, POST).status, 200, "{n}");
    }
    assert_eq!(upstream.requests().len(), 10);
}

#[test]
fn the_idle_time_that_the_upstream_announces_counts() {
    let upstream = Script::answering(
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0, max=5\r\nContent-Length: 2\r\n\r\nok",
    );
    let (_site, gateway) = serve(&format!("url = \"http://{}\"", upstream.address), "");
    let mut stream = connect(gateway.data);
    for _ in 0..3 {
        ask(&mut stream, &get("/"));
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn another_endpoint_is_tried_and_the_dead_one_left_out_until_it_is_back() {
    let (dead, alive) = (closed(), Script::answering(OK));
    let app = format!(
        "urls = [\"http://{dead}\", \"http://{}\"]\n[upstreams.app.ejection]\nfailures = 2\n\
         time = \"1s\"\n",
        alive.address
    );
    let (_site, gateway) = serve(&app, "");
    let mut stream = connect(gateway.data);
    for _ in 0..50 {
        assert_eq!(ask(&mut stream, POST).status, 200);
    }
    assert_eq!(alive.requests().len(), 50);
    assert!(metric(&gateway, "latchkey_upstream_ejections_total{upstream=\"app\"}") >= 1.0);
    assert!(metric(&gateway, "latchkey_upstream_retries_total{upstream=\"app\"}") >= 2.0);
    let failed = "latchkey_upstream_errors_total{cause=\"connect\",upstream=\"app\"}";
    let failures = metric(&gateway, failed);
    assert!((2.0..=6.0).contains(&failures), "{failures} of 50: it was left out");
    let back = Script::start_at(&dead, |mut heard| {
        while heard.request().is_some() {
            heard.say(OK);
        }
    });
    until(|| {
        assert_eq!(ask(&mut stream, POST).status, 200);
        (!back.requests().is_empty()).then_some(())
    });
    let healthy = "latchkey_upstream_endpoints{state=\"healthy\",upstream=\"app\"} 2";
    until(|| gateway.metrics().contains(healthy).then_some(()));
}

#[test]
fn when_all_are_left_out_all_are_tried() {
    let (one, two) = (closed(), closed());
    let app = format!(
        "urls = [\"http://{one}\", \"http://{two}\"]\n[upstreams.app.ejection]\nfailures = 1\n\
         time = \"1m\"\n"
    );
    let (_site, gateway) = serve(&app, "");
    let mut stream = connect(gateway.data);
    for _ in 0..5 {
        assert_eq!(ask(&mut stream, &get("/")).outcome(), "502 upstream_unreachable");
    }
    let both = "latchkey_upstream_endpoints{state=\"ejected\",upstream=\"app\"} 2";
    until(|| gateway.metrics().contains(both).then_some(()));
    // One is there again before its time is over: it is found, and answers for both.
    let back = Script::start_at(&one, |mut heard| {
        while heard.request().is_some() {
            heard.say(OK);
        }
    });
    for _ in 0..5 {
        assert_eq!(ask(&mut stream, &get("/")).status, 200);
    }
    assert_eq!(back.requests().len(), 5);
}

#[test]
fn without_retries_there_is_one_try() {
    let app = format!(
        "urls = [\"http://{}\", \"http://{}\"]\nconnect_retries_max = 0\n",
        closed(),
        closed()
    );
    let (_site, gateway) = serve(&app, "");
    let mut stream = connect(gateway.data);
    assert_eq!(ask(&mut stream, &get("/")).outcome(), "502 upstream_unreachable");
    let failed = "latchkey_upstream_errors_total{cause=\"connect\",upstream=\"app\"}";
    assert!((metric(&gateway, failed) - 1.0).abs() < 0.1);
}

#[test]
fn probes_leave_out_what_is_not_well() {
    let well = Arc::new(AtomicBool::new(false));
    let (asked, other) = (Arc::clone(&well), Script::answering(OK));
    let sick = Script::start(move |mut heard| {
        while let Some(request) = heard.request() {
            let bad = request.starts_with("GET /health ") && !asked.load(Ordering::SeqCst);
            heard.say(if bad { "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" } else { OK });
        }
    });
    let app = format!(
        "urls = [\"http://{}\", \"http://{}\"]\n[upstreams.app.probe]\npath = \"/health\"\n\
         interval = \"100ms\"\ntimeout = \"1s\"\nfailures = 2\nsuccesses = 2\n",
        sick.address, other.address
    );
    let (_site, gateway) = serve(&app, "");
    let unhealthy = "latchkey_upstream_endpoints{state=\"unhealthy\",upstream=\"app\"} 1";
    until(|| gateway.metrics().contains(unhealthy).then_some(()));
    let callers = |script: &Script| {
        let requests = script.requests();
        requests.iter().filter(|request| request.starts_with("GET /caller ")).count()
    };
    let mut stream = connect(gateway.data);
    for _ in 0..20 {
        assert_eq!(ask(&mut stream, &get("/caller")).status, 200);
    }
    assert_eq!((callers(&sick), callers(&other)), (0, 20));
    let probe = sick.requests().remove(0);
    assert!(probe.contains("user-agent: latchkey/") && !probe.contains("x-auth-"), "{probe}");
    well.store(true, Ordering::SeqCst);
    until(|| {
        assert_eq!(ask(&mut stream, &get("/caller")).status, 200);
        (callers(&sick) > 0).then_some(())
    });
}

#[test]
fn the_upstream_gets_its_own_host_or_the_clients() {
    let upstream = Script::answering(OK);
    for (preserve, host) in
        [(false, upstream.address.to_string()), (true, "front.example".to_owned())]
    {
        let app = format!("url = \"http://{}\"\npreserve_host = {preserve}\n", upstream.address);
        let (_site, gateway) = serve(&app, "");
        ask(&mut connect(gateway.data), &get("/"));
        let seen = upstream.requests().pop().unwrap();
        assert!(seen.contains(&format!("\r\nhost: {host}\r\n")), "{seen}");
        assert!(seen.contains("\r\nx-forwarded-host: front.example\r\n"), "{seen}");
    }
}
