//! A client that sends exactly the bytes it is told and reads one response.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// No answer within this is a failure of the test, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A response, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The one value of a field; panics when it is repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, v)| v.as_str());
        assert!(found.next().is_none(), "{name} is repeated in {self:?}");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a UTF-8 body")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}) in {self:?}: {}", self.text()))
    }

    /// `status code` of a problem, `status ok` of anything below 400.
    pub(crate) fn outcome(&self) -> String {
        let code = if self.status < 400 {
            "ok".to_owned()
        } else {
            self.json()["code"].as_str().unwrap_or("no code").to_owned()
        };
        format!("{} {code}", self.status)
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

pub(crate) fn request(method: &str, target: &str) -> Request {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

pub(crate) fn get(target: &str) -> Request {
    request("GET", target)
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Takes a field away again.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn key(self, secret: &str) -> Self {
        self.header("X-Shop-API-Key", secret)
    }

    pub(crate) fn widget(self, token: &str) -> Self {
        self.header("X-Widget-Token", token)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json").body(value.to_string())
    }

    /// The names of its fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            out.extend(format!("Host: {host}\r\n").bytes());
        }
        for (name, value) in &self.headers {
            out.extend(name.bytes().chain(*b": "));
            out.extend(value);
            out.extend(b"\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" || self.method == "PUT" {
            out.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
        }
        out.extend(b"Connection: close\r\n\r\n");
        out.extend(&self.body);
        out
    }

    /// Sends to `address` on a connection of its own.
    pub(crate) fn send(&self, address: SocketAddr) -> Response {
        send_raw(address, &self.bytes(&address.to_string()))
    }

    /// Sends to `address` and reads a response of announced length, for servers that leave the
    /// connection open. What goes wrong is the caller's to judge.
    pub(crate) fn try_send(
        &self,
        address: SocketAddr,
        patience: Duration,
    ) -> std::io::Result<Response> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&self.bytes(&address.to_string()))?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while !is_whole(&bytes) {
            match stream.read(&mut buffer)? {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        parse(&bytes).ok_or_else(|| std::io::Error::other("the answer is cut off"))
    }

    /// Sends through a unix socket.
    pub(crate) fn send_unix(&self, socket: &Path) -> Response {
        self.try_send_unix(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()))
    }

    pub(crate) fn try_send_unix(&self, socket: &Path) -> std::io::Result<Response> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&self.bytes("localhost"))?;
        let bytes = read_all(&mut stream)?;
        parse(&bytes).ok_or_else(|| std::io::Error::other("the answer is cut off"))
    }
}

/// Sends `bytes` as they are and reads one response, until the other side closes.
pub(crate) fn send_raw(address: SocketAddr, bytes: &[u8]) -> Response {
    let answer = exchange(address, bytes);
    parse(&answer).unwrap_or_else(|| {
        let (sent, got) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&answer));
        panic!("no whole response to {sent:?}, but {got:?}")
    })
}

/// Sends `bytes` as they are and returns everything that comes back.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The other side may refuse early and close: what it said still counts.
    let _ = stream.write_all(bytes);
    read_all(&mut stream).unwrap_or_else(|e| panic!("{address}: {e}"))
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Ends the sending side, so that the peer sees the end of the request.
pub(crate) fn finish(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
}

pub(crate) fn read_all(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            // A reset after an early answer leaves the answer standing.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset && !bytes.is_empty() => {
                return Ok(bytes);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether `bytes` hold a response's head and as much of a body as it announces.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(head_end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    length.is_some_and(|length| bytes.len() >= head_end + 4 + length)
}

/// Parses one response; `None` if it is cut off.
pub(crate) fn parse(bytes: &[u8]) -> Option<Response> {
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<Option<_>>()?;
    let rest = &bytes[head_end + 4..];
    if status == 100 {
        return parse(rest);
    }
    let mut response = Response { status, headers, body: Vec::new() };
    response.body = match (response.header("transfer-encoding"), response.header("content-length"))
    {
        (Some(_), _) => dechunk(rest)?,
        (None, Some(length)) => {
            let length: usize = length.parse().ok()?;
            // An answer to HEAD announces a length and sends nothing.
            if rest.is_empty() { Vec::new() } else { rest.get(..length)?.to_vec() }
        }
        (None, None) => rest.to_vec(),
    };
    Some(response)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
