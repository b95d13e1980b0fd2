//! What an administrator does to a gateway that is in use: a new configuration, new certificates,
//! a new process. Its callers notice none of it.
//!
//! Several clients send one request after the other for as long as that goes on. Every request has
//! to be answered, rightly, and to arrive at the upstream once: none of them repeats any.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use h2::Reason;
use http::Request;

use crate::support::gateway::{Gateway, Site};
use crate::support::h2::H2;
use crate::support::http::{Response, connect, get, parse};
use crate::support::script::Script;
use crate::support::tls::{Authority, Client, Secure};
use crate::support::until;

const ROUNDS: usize = 10;
/// In each round; all of them 100 reloads.
const RELOADS: usize = 10;
/// Of the reloads, every so many one is of a file that is wrong.
const WRONG_EVERY: usize = 5;
/// In each round; all of them 20.
const CERTIFICATES: usize = 2;
/// Requests that every client has answered between two changes.
const BETWEEN: usize = 3;
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Two that stay on a connection, two that take a new one for each request, and one of HTTP/2.
const CLIENTS: usize = 5;

/// A configuration that differs from that of every other round in its routes and limits.
fn config(authority: &Authority, upstream: SocketAddr, round: usize) -> String {
    let tls = authority.section(&["a"], "watch_interval = \"1h\"");
    format!(
        "{tls}\n[[routes]]\nname = \"extra-{round}\"\npaths = [\"/extra-{round}/*\"]\n\
         mechanisms = [\"anonymous\"]\nupstream = \"app\"\n\
         [[routes]]\nname = \"open\"\npaths = [\"/*\"]\nmechanisms = [\"anonymous\"]\n\
         upstream = \"app\"\n\
         [[limits]]\nname = \"all-{}\"\npaths = [\"/*\"]\nkey = \"address\"\n\
         limit = {}\nwindow = \"1s\"\n\
         [upstreams.app]\nurl = \"http://{upstream}\"\nresponse_timeout = \"15s\"\n",
        round % 3,
        100_000 + round,
    )
}

/// What the clients share.
struct Load {
    gateway: SocketAddr,
    client: Client,
    /// Requests whose answer was right, by client.
    answered: [AtomicUsize; CLIENTS],
    begun: Barrier,
    done: AtomicBool,
}

impl Load {
    /// Sends until told to stop, once before anything is changed.
    fn run(&self, client: usize, mut send: impl FnMut() -> Response) {
        let _done = Done(&self.done);
        let mut send = || {
            let answer = send();
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{answer:?}");
            self.answered[client].fetch_add(1, Ordering::SeqCst);
        };
        send();
        self.begun.wait();
        while !self.done.load(Ordering::SeqCst) {
            send();
        }
    }

    /// Stays on a connection until it is told that it ends.
    fn on_kept_connections(&self, client: usize) {
        let mut kept = None;
        self.run(client, || {
            let mut tls = match kept.take() {
                Some(tls) => tls,
                None => self.client.connect(self.gateway).unwrap(),
            };
            let answer = ask(&mut tls);
            if answer.header("connection") != Some("close") {
                kept = Some(tls);
            }
            answer
        });
    }

    fn on_new_connections(&self, client: usize) {
        self.run(client, || self.client.send(self.gateway, &get("/new")));
    }

    fn in_h2(&self, client: usize) {
        let dial = || H2::secure(self.gateway, &self.client);
        let mut h2 = dial();
        self.run(client, || {
            loop {
                match h2.send_if_open(Request::get("https://a.example/h2")) {
                    Some(Ok(answer)) => return answer,
                    // Of a stream beyond those that GOAWAY names, nobody has seen anything: it
                    // crossed the announcement, and any client sends it again (RFC 9113 §6.8).
                    Some(Err(error)) => {
                        let crossed = error.is_go_away() && error.is_remote();
                        assert!(crossed && error.reason() == Some(Reason::NO_ERROR), "{error:?}");
                        h2 = dial();
                    }
                    // Told beforehand, it has sent nothing yet.
                    None => h2 = dial(),
                }
            }
        });
    }

    fn answered(&self) -> [usize; CLIENTS] {
        std::array::from_fn(|client| self.answered[client].load(Ordering::SeqCst))
    }

    /// Waits until every client has had so many more answers.
    fn go_on(&self) {
        let before = self.answered();
        until(|| {
            assert!(!self.done.load(Ordering::SeqCst), "a client has lost a request");
            let went_on = |(now, before): (&usize, &usize)| *now >= before + BETWEEN;
            self.answered().iter().zip(&before).all(went_on).then_some(())
        });
    }
}

/// Sets its flag when dropped, by a panic too.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A request with a body, on a connection that stays.
fn ask(tls: &mut Secure) -> Response {
    let request = "POST /kept HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody";
    tls.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = tls.read(&mut buffer).unwrap();
        assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
        if let Some(answer) = parse(&answer) {
            return answer;
        }
    }
}

/// Has the gateway reload, and waits until it has said what came of it.
fn reload(gateway: &Gateway, result: &str, count: usize) {
    let line = format!("latchkey_config_reloads_total{{result=\"{result}\"}} {count}");
    gateway.signal("HUP");
    until(|| gateway.metrics().lines().any(|l| l == line).then_some(()));
}

/// What does not change.
struct Made<'a> {
    site: &'a Site,
    authority: &'a Authority,
    upstream: SocketAddr,
}

/// One round's reloads and certificates, of a process that was just started.
fn change(made: &Made<'_>, gateway: &Gateway, load: &Load, round: usize) {
    let Made { site, authority, upstream } = made;
    let (mut successes, mut failures) = (0, 0);
    for reloaded in 1..=RELOADS {
        load.go_on();
        if reloaded % WRONG_EVERY == 0 {
            site.configure(None, "[[routes]]\nname = \"half\"\n");
            failures += 1;
            reload(gateway, "failure", failures);
        } else {
            let number = round * RELOADS + reloaded;
            site.configure(None, &config(authority, *upstream, number));
            successes += 1;
            reload(gateway, "success", successes);
        }
    }
    for _ in 0..CERTIFICATES {
        load.go_on();
        let fresh = authority.issue(&["a.example"]);
        authority.install("a", &fresh);
        site.configure(None, &config(authority, *upstream, round * RELOADS));
        successes += 1;
        reload(gateway, "success", successes);
        assert!(load.client.certificate(load.gateway) == fresh.der, "round {round}");
    }
    load.go_on();
}

#[test]
#[ignore = "takes most of a minute; `tests/run upgrade` runs it"]
fn reloads_certificates_and_restarts_lose_no_request() {
    let authority = Authority::new();
    authority.install("a", &authority.issue(&["a.example"]));
    let upstream = Script::answering(ANSWER);
    let mut site = Site::new(None, &config(&authority, upstream.address, 0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    site.listen_at(address);
    let quiet = [("LATCHKEY_LOG__LEVEL", "info")];
    let start = || site.start_inheriting(&[listener.as_fd()], &quiet);
    let first = start();
    let load = Load {
        gateway: address,
        client: authority.client("a.example"),
        answered: Default::default(),
        begun: Barrier::new(CLIENTS + 1),
        done: AtomicBool::new(false),
    };
    let last = std::thread::scope(|scope| {
        scope.spawn(|| load.on_kept_connections(0));
        scope.spawn(|| load.on_kept_connections(1));
        scope.spawn(|| load.on_new_connections(2));
        scope.spawn(|| load.on_new_connections(3));
        scope.spawn(|| load.in_h2(4));
        load.begun.wait();
        let _done = Done(&load.done);
        let mut gateway = first;
        let made = Made { site: &site, authority: &authority, upstream: upstream.address };
        for round in 0..ROUNDS {
            change(&made, &gateway, &load, round);
            assert!(gateway.stop().success(), "every connection ended by itself");
            gateway = start();
            load.go_on();
        }
        gateway
    });
    let answered: usize = load.answered().iter().sum();
    assert_eq!(upstream.requests().len(), answered, "none was sent twice");
    assert!(answered > CLIENTS * BETWEEN * ROUNDS * (RELOADS + CERTIFICATES), "{answered}");
    assert!(last.stop().success());
    // Nobody is refused even now: connections wait for whoever listens next.
    drop(connect(address));
}
