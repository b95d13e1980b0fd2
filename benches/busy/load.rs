//! The load: who calls, when, and how long it took.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;
use serde_json::json;

use super::elsewhere::undisturbed;
use super::filled;
use super::site::Site;

/// Kept connections. A request takes one that waits for no answer.
pub(crate) const CONNECTIONS: usize = 32;

/// Requests that take turns.
const REQUESTS: u32 = 20_000;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// A request, and the status of its answer.
pub(crate) struct Call {
    bytes: Vec<u8>,
    expected: &'static [u8],
}

/// A request that was answered.
pub(crate) struct Sample {
    /// When it should have been sent.
    pub(crate) due: Instant,
    /// From then until its answer was whole.
    pub(crate) took: Duration,
    /// From then until it was sent.
    pub(crate) late: Duration,
}

/// Requests of all kinds, in an order that is always the same; `widgets` shops have a token.
pub(crate) fn requests(site: &Site, shops: u32, widgets: u32) -> Vec<Call> {
    let issue = |number| {
        let path = format!("/shops/shop-{number}/widget-tokens");
        let token = site.api("POST", &path, &json!({}));
        token["token"].as_str().unwrap().to_owned()
    };
    let tokens: Vec<String> = (0..widgets.min(shops)).map(issue).collect();
    // A full cycle of residues: every shop takes its turn, in no order.
    (0..REQUESTS).map(|n| call(n, n.wrapping_mul(40_503) % shops, &tokens)).collect()
}

fn call(number: u32, shop: u32, tokens: &[String]) -> Call {
    let orders = "/api/plugin/shops/me/orders";
    // The 25 of each hundred, counted on.
    let token = (number / 100 * 25 + number % 25) as usize % tokens.len();
    let (path, credential, expected): (_, _, &[u8]) = match number % 100 {
        0..68 => (orders, format!("X-Shop-API-Key: {}", filled::secret(shop)), b"200"),
        68..93 => {
            let token = format!(
                "X-Widget-Token: {}\r\nOrigin: https://shop-{token}.example",
                tokens[token]
            );
            ("/api/widget/search?q=shoes", token, b"200")
        }
        93..98 => ("/api/search/products?q=shoes", "Accept-Language: en".to_owned(), b"200"),
        _ => (orders, format!("X-Shop-API-Key: {}", filled::secret(u32::MAX - number)), b"401"),
    };
    let [_, _, c, d] = number.to_be_bytes();
    let bytes = format!(
        "GET {path} HTTP/1.1\r\nHost: api.example\r\nUser-Agent: curl/8.14.1\r\n\
         Accept: application/json\r\nX-Forwarded-For: 192.168.{c}.{d}\r\n{credential}\r\n\r\n"
    );
    Call { bytes: bytes.into_bytes(), expected }
}

/// A load under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Load {
    /// Sends `calls` to `to`, in turn and again, so many in a second.
    pub(crate) fn start(to: SocketAddr, calls: Vec<Call>, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let run = move || Generator::new(to, calls).run(per_second, &told);
        let thread = std::thread::Builder::new().name("generator".into()).spawn(run).unwrap();
        Self { stop, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load went through")
    }
}

/// A connection, and what it waits for.
struct Connection {
    stream: TcpStream,
    pending: Option<Pending>,
    answer: Vec<u8>,
}

struct Pending {
    due: Instant,
    sent: Instant,
    expected: &'static [u8],
}

struct Generator {
    connections: Vec<Connection>,
    calls: Vec<Call>,
    samples: Vec<Sample>,
    buffer: Vec<u8>,
}

impl Generator {
    fn new(to: SocketAddr, calls: Vec<Call>) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(to).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            Connection { stream, pending: None, answer: Vec::with_capacity(4096) }
        };
        let connections = (0..CONNECTIONS).map(connect).collect();
        Self { connections, calls, samples: Vec::with_capacity(1 << 18), buffer: vec![0; 1 << 14] }
    }

    fn run(mut self, per_second: u32, stop: &AtomicBool) -> Vec<Sample> {
        undisturbed();
        // Or the system wakes it up to 50 us late.
        set_current_timer_slack(NonZeroU64::new(1)).unwrap();
        let begun = Instant::now();
        let pace = Duration::from_secs(1) / per_second;
        let mut number: u32 = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = begun + pace * number;
            if Instant::now() >= due && self.send(number, due) {
                number += 1;
            } else {
                self.wait(due);
                self.receive();
            }
        }
        self.samples
    }

    /// Sends a request on a connection that waits for nothing; `false` if there is none.
    fn send(&mut self, number: u32, due: Instant) -> bool {
        // In turn, so that all of them, and all workers behind them, have the same share.
        let first = number as usize % CONNECTIONS;
        let turns = (first..CONNECTIONS).chain(0..first);
        let free = turns.into_iter().find(|at| self.connections[*at].pending.is_none());
        let Some(at) = free else { return false };
        let connection = &mut self.connections[at];
        let call = &self.calls[number as usize % self.calls.len()];
        let sent = Instant::now();
        connection.stream.write_all(&call.bytes).unwrap();
        connection.pending = Some(Pending { due, sent, expected: call.expected });
        true
    }

    /// Until an answer comes, or the next request is due.
    fn wait(&self, due: Instant) {
        let is_due_at = due.saturating_duration_since(Instant::now());
        // With all connections taken, only an answer helps.
        let patience = if is_due_at.is_zero() { Duration::from_millis(1) } else { is_due_at };
        let timeout = Timespec::try_from(patience).unwrap();
        let waiting = self.connections.iter().filter(|c| c.pending.is_some());
        let mut polled: Vec<PollFd<'_>> =
            waiting.map(|c| PollFd::from_borrowed_fd(c.stream.as_fd(), PollFlags::IN)).collect();
        poll(&mut polled, Some(&timeout)).unwrap();
    }

    fn receive(&mut self) {
        let Self { connections, samples, buffer, .. } = self;
        for connection in connections.iter_mut().filter(|c| c.pending.is_some()) {
            match connection.stream.read(buffer) {
                Ok(0) => panic!("the gateway closed a connection"),
                Ok(read) => connection.answer.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            if !is_whole(&connection.answer) {
                continue;
            }
            let now = Instant::now();
            let Some(Pending { due, sent, expected }) = connection.pending.take() else { continue };
            let answer = std::mem::take(&mut connection.answer);
            let status = answer.get(b"HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3));
            assert_eq!(status, Some(expected), "{}", String::from_utf8_lossy(&answer));
            samples.push(Sample { due, took: now - due, late: sent - due });
            connection.answer = answer;
            connection.answer.clear();
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = memchr::memmem::find(answer, b"\r\n\r\n") else { return false };
    let field = b"content-length: ";
    let at = memchr::memmem::find(&answer[..head], field).expect("a length") + field.len();
    let digits = answer[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    answer.len() >= head + 4 + length
}

/// Starts an upstream that answers whatever ends in an empty line.
pub(crate) fn serve_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = "upstream".to_owned();
            std::thread::Builder::new().name(name).spawn(move || answer(stream)).unwrap();
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    undisturbed();
    let _ = stream.set_nodelay(true);
    let mut head = Vec::with_capacity(4096);
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..read]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}
