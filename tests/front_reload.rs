//! Certificates and configurations exchanged under load: nobody notices.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Request;

use crate::support::gateway::{Gateway, Site};
use crate::support::h2::H2;
use crate::support::http::{get, parse};
use crate::support::script::Script;
use crate::support::tls::{Authority, Client, Secure};
use crate::support::until;

const EXCHANGES: usize = 50;
const CHANGES: usize = 50;
/// Of the changes, every so many one is a file that cannot be used.
const WRONG_EVERY: usize = 5;
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A configuration that differs from that of every other round in much that can be reloaded.
fn config(authority: &Authority, upstream: SocketAddr, round: usize) -> String {
    let tls = authority.section(&["a"], "watch_interval = \"1h\"");
    format!(
        "[server]\nidle_timeout = \"{}s\"\nheader_count_max = {}\nrequests_max = {}\n{tls}\n\
         [[routes]]\nname = \"extra-{round}\"\npaths = [\"/extra-{round}/*\"]\n\
         mechanisms = [\"anonymous\"]\nupstream = \"app\"\n\
         [[routes]]\nname = \"open\"\npaths = [\"/*\"]\nmechanisms = [\"anonymous\"]\n\
         upstream = \"app\"\n\
         [[limits]]\nname = \"all-{round}\"\npaths = [\"/*\"]\nkey = \"address\"\n\
         limit = {}\nwindow = \"1s\"\n\
         [upstreams.app]\nurl = \"http://{upstream}\"\nresponse_timeout = \"{}s\"\n\
         idle_connections_max = {}\n",
        60 + round,
        // On both sides of where hyper is told of it.
        60 + round,
        1000 + round,
        100_000 + round,
        20 + round % 7,
        1 + round % 5,
    )
}

/// What the clients share.
struct Load {
    gateway: SocketAddr,
    client: Client,
    /// Requests whose answer was right.
    answered: AtomicUsize,
    begun: Barrier,
    done: AtomicBool,
}

impl Load {
    /// Sends until told to stop, once before the reloads begin.
    fn run(&self, mut send: impl FnMut()) {
        let mut send = || {
            send();
            self.answered.fetch_add(1, Ordering::SeqCst);
        };
        send();
        self.begun.wait();
        while !self.done.load(Ordering::SeqCst) {
            send();
        }
    }

    fn on_one_connection(&self) {
        let mut tls = self.client.connect(self.gateway).unwrap();
        self.run(|| ask(&mut tls));
    }

    fn on_new_connections(&self) {
        self.run(|| {
            let answer = self.client.send(self.gateway, &get("/new"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        });
    }

    fn in_h2(&self) {
        let mut h2 = H2::secure(self.gateway, &self.client);
        self.run(|| {
            let answer = h2.send(Request::get("https://a.example/h2")).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        });
    }
}

/// A request, sometimes with a body, on a connection that stays.
fn ask(tls: &mut Secure) {
    let request = "POST /kept HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody";
    tls.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = tls.read(&mut buffer).unwrap();
        assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
        if let Some(answer) = parse(&answer) {
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
            return;
        }
    }
}

/// Has the gateway reload, and waits until it has said what came of it.
fn reload(gateway: &Gateway, result: &str, count: usize) {
    let line = format!("latchkey_config_reloads_total{{result=\"{result}\"}} {count}");
    gateway.signal("HUP");
    until(|| gateway.metrics().lines().any(|l| l == line).then_some(()));
}

#[test]
fn a_hundred_reloads_under_load_lose_no_request() {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    let upstream = Script::answering(ANSWER);
    let site = Site::new(None, &config(&authority, upstream.address, 0));
    let gateway = site.start_with(&[("LATCHKEY_LOG__LEVEL", "info")]);
    let load = Load {
        gateway: gateway.data,
        client: authority.client("a.example"),
        answered: AtomicUsize::new(0),
        begun: Barrier::new(5),
        done: AtomicBool::new(false),
    };
    let (mut successes, mut failures) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| load.on_one_connection());
        scope.spawn(|| load.on_one_connection());
        scope.spawn(|| load.on_new_connections());
        scope.spawn(|| load.in_h2());
        load.begun.wait();
        // A reload that is not seen to is no reason to wait for the clients for ever.
        let _done = Done(&load.done);
        for round in 1..=EXCHANGES.max(CHANGES) {
            let fresh = authority.issue(&["a.example"]);
            authority.install("a", &fresh);
            successes += 1;
            reload(&gateway, "success", successes);
            assert!(load.client.certificate(gateway.data) == fresh.der, "round {round}");
            if round % WRONG_EVERY == 0 {
                site.configure(None, "[[routes]]\nname = \"half\"\n");
                failures += 1;
                reload(&gateway, "failure", failures);
            } else {
                site.configure(None, &config(&authority, upstream.address, round));
                successes += 1;
                reload(&gateway, "success", successes);
            }
            if round % WRONG_EVERY == 0 {
                site.configure(None, &config(&authority, upstream.address, round));
            }
        }
    });
    let answered = load.answered.load(Ordering::SeqCst);
    assert_eq!(upstream.requests().len(), answered);
    assert!(answered > EXCHANGES + CHANGES, "{answered}");
    assert_eq!(successes + failures, EXCHANGES + CHANGES);
    let exchanged = format!("latchkey_tls_reloads_total{{result=\"success\"}} {EXCHANGES}");
    let metrics = gateway.metrics();
    assert!(metrics.lines().any(|line| line == exchanged), "{metrics}");
}

/// Sets its flag when dropped, by a panic too.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
