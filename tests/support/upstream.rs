//! A real upstream that remembers the bytes it was sent: the oracle of what passed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the upstream does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers 200 with the request's head as text.
    Echo,
    /// Answers 200 with these header lines (each ended by CRLF) and an empty body.
    Fields(&'static str),
    /// Answers 200 with these header lines and the request's body; agrees to whatever protocol a
    /// request wants to change to, and then sends back what it gets.
    Agree(&'static str),
    /// Closes the connection without an answer.
    HangUp,
    /// Announces 100 bytes, sends ten, closes.
    CutBody,
    /// Reads and never answers.
    Silent,
    /// Answers with more than all buffers on the way hold, for as long as somebody takes it.
    Flood,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// All values of a field, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
            .collect()
    }

    /// The one value of a field; panics when it is repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers(name);
        assert!(values.len() <= 1, "{name} is repeated in {}", self.head);
        values.first().copied()
    }

    pub(crate) fn request_line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }
}

/// A running upstream; its threads end with the process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve(stream, behaviour, &log));
            }
        });
        Self { address, received }
    }

    /// One that somebody else runs.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, received: Arc::default() }
    }

    /// Everything received so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic under the lock").clone()
    }

    /// How many requests arrived so far.
    pub(crate) fn count(&self) -> usize {
        self.received().len()
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Received {
        self.received().pop().expect("a request reached the upstream")
    }
}

fn serve(mut stream: TcpStream, behaviour: Behaviour, log: &Mutex<Vec<Received>>) {
    let mut pending = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut pending) {
        let echo = request.head.clone();
        let body = if echo.starts_with("HEAD ") { "" } else { &echo };
        let wanted = wanted_protocol(&request);
        let sent = request.body.clone();
        log.lock().expect("no panic under the lock").push(request);
        let answer = match behaviour {
            Behaviour::Echo => format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-RateLimit-Limit: upstream\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                echo.len()
            ),
            Behaviour::Fields(lines) => {
                format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n")
            }
            Behaviour::Agree(lines) => {
                if let Some(protocol) = wanted {
                    tunnel(&mut stream, &protocol, &pending);
                    return;
                }
                let length = sent.len();
                let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {length}\r\n\r\n");
                if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&sent).is_err() {
                    return;
                }
                continue;
            }
            Behaviour::HangUp => return,
            Behaviour::CutBody => {
                let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789";
                let _ = stream.write_all(cut.as_bytes());
                return;
            }
            Behaviour::Silent => continue,
            Behaviour::Flood => {
                let mut piece = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
                while stream.write_all(&piece).is_ok() {
                    piece = vec![b'x'; 64 * 1024];
                }
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The protocol that a request wants to change to (RFC 9110 §7.8).
fn wanted_protocol(request: &Received) -> Option<String> {
    let nominated = request.headers("connection").concat().to_ascii_lowercase();
    let wanted = request.headers("upgrade").first().map(|&wanted| wanted.to_owned());
    wanted.filter(|_| nominated.contains("upgrade"))
}

/// Changes to `protocol`, for RFC 6455's own example of a key, and sends back what comes.
fn tunnel(stream: &mut TcpStream, protocol: &str, early: &[u8]) {
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    let _ = stream.write_all(agreed.as_bytes());
    let _ = stream.write_all(early);
    if let Ok(mut from) = stream.try_clone() {
        let _ = std::io::copy(&mut from, stream);
    }
}

/// Reads one request with its body; `None` at the end of the connection.
fn read_request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<Received> {
    let head_end = loop {
        if let Some(at) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        read_more(stream, pending)?;
    };
    let head = String::from_utf8_lossy(&pending[..head_end]).into_owned();
    pending.drain(..head_end + 4);
    let mut request = Received { head, body: Vec::new() };
    if request.header("transfer-encoding").is_some() {
        request.body = read_chunks(stream, pending)?;
    } else if let Some(length) = request.header("content-length") {
        let length: usize = length.parse().ok()?;
        while pending.len() < length {
            read_more(stream, pending)?;
        }
        request.body = pending.drain(..length).collect();
    }
    Some(request)
}

fn read_chunks(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(at) = pending.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            read_more(stream, pending)?;
        };
        let size = std::str::from_utf8(&pending[..line_end]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        while pending.len() < line_end + 2 + size + 2 {
            read_more(stream, pending)?;
        }
        body.extend_from_slice(&pending[line_end + 2..line_end + 2 + size]);
        pending.drain(..line_end + 2 + size + 2);
        if size == 0 {
            return Some(body);
        }
    }
}

fn read_more(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(n) if n > 0 => {
            pending.extend_from_slice(&buffer[..n]);
            Some(())
        }
        Ok(_) | Err(_) => None,
    }
}
