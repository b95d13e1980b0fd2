//! latchkey stopped, replaced, hanging and back: nobody gets through without its word.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::peer::{CLIENT, Kind, connect_from};
use super::super::scene::{OWN, Scene, Sent, outcome};
use super::super::table::{Cell, Note};
use crate::support::http::{get, parse, read_all};
use crate::support::until;

/// Answers that are no yes.
const ANSWERS: [&str; 6] = [
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\
     Connection: close\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 200",
    "220 mail.example ESMTP\r\n",
    "",
];

pub(in super::super) fn down(scene: &mut Scene) -> Cell {
    if let Some(gateway) = scene.gateway.take() {
        gateway.stop();
    }
    closed(scene, "down", &[503, 502, 500])
}

pub(in super::super) fn impostor(scene: &mut Scene) -> Cell {
    let address = scene.site.listen_address();
    let mut said = Vec::new();
    for answer in ANSWERS {
        let _impostor = Impostor::start(address, answer);
        let what = format!("{answer:.12?}");
        // What is a no stays one, whoever says it.
        let Cell::Is(word) = closed(scene, &what, &[500, 502, 503, 403, 404, 302]) else {
            continue;
        };
        said.push(word);
    }
    said.sort();
    said.dedup();
    Cell::Is(said.join(", "))
}

/// The same statuses for who has a key and who has none, and nothing at the API.
fn closed(scene: &mut Scene, what: &str, right: &[u16]) -> Cell {
    let mut said = Vec::new();
    for request in [get(OWN).key(&scene.who.key.clone()), get("/api/search/x")] {
        let Some(Sent { answer, seen }) = scene.send(what, &request) else { continue };
        scene.check_unseen(what, seen.as_ref());
        if !right.contains(&answer.status) {
            scene.complain(what, format!("is answered {}", outcome(&answer)));
        }
        said.push(answer.status.to_string());
    }
    said.dedup();
    Cell::Is(said.join(", "))
}

pub(in super::super) fn back(scene: &mut Scene) -> Cell {
    scene.gateway = Some(scene.site.start());
    let own = get(OWN).key(&scene.who.key.clone());
    until(|| scene.proxy.send(&own).filter(|answer| answer.status == 200));
    for (what, request, right) in
        [("key", own, "200"), ("no key", get(OWN), "401 missing_credential")]
    {
        let Some(Sent { answer, .. }) = scene.send(what, &request) else { continue };
        scene.check(what, "outcome", Some(&outcome(&answer)), Some(right));
    }
    Cell::Holds
}

/// It takes connections and says nothing.
pub(in super::super) fn hung(scene: &mut Scene) -> Cell {
    let what = "key";
    let before = scene.api.count();
    let request = get(OWN).key(&scene.who.key.clone());
    scene.gateway().signal("STOP");
    #[expect(clippy::disallowed_methods, reason = "a proxy's patience is real time")]
    let started = Instant::now();
    let answer = connect_from(CLIENT, scene.proxy.address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&request.bytes("api.example"))?;
        read_all(&mut stream)
    });
    let took = started.elapsed();
    scene.gateway().signal("CONT");
    let seen = scene.seen_since(what, before);
    scene.check_unseen(what, seen.as_ref());
    let Some(answer) = answer.ok().and_then(|bytes| parse(&bytes)) else {
        scene.complain(what, format!("no answer within {took:?}"));
        return Cell::Holds;
    };
    if !matches!(answer.status, 500 | 502 | 503 | 504) {
        scene.complain(what, format!("is answered {}", outcome(&answer)));
    }
    if scene.kind == Kind::Traefik {
        scene.note(Note::BuiltInTimeout);
        if took < Duration::from_secs(29) {
            scene.complain(what, format!("it gave up after {took:?}"));
        }
    }
    until(|| scene.proxy.send(&request).filter(|answer| answer.status == 200));
    Cell::Is(answer.status.to_string())
}

/// What the proxy logs holds nobody's credential.
pub(in super::super) fn discreet(scene: &mut Scene) -> Cell {
    let log = scene.proxy.log();
    let who = &scene.who;
    let secrets =
        [&who.key, &who.key_here, &who.key_elsewhere, &who.token, &who.jwt, &who.jwt_away];
    let told = log.lines().find(|line| secrets.iter().any(|secret| line.contains(secret.as_str())));
    if let Some(line) = told.map(str::to_owned) {
        scene.complain("log", line);
    }
    Cell::Holds
}

/// Something else at latchkey's address; gone when dropped.
struct Impostor {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(address: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let mut buffer = [0; 16 * 1024];
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, ends, thread: Some(thread) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
