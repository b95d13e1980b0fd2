//! A collector of traces that takes OTLP by HTTP, and takes nothing that its schema does not know.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::{http::PATIENCE, secrets, until};

/// What it does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes it.
    Takes,
    /// Answers this status, with these header lines (each ended by CRLF) and this body.
    Says(u16, &'static str, &'static str),
    /// Says nothing.
    Hangs,
    /// Closes the connection.
    HangsUp,
}

/// A request for it.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) head: String,
    pub(crate) spans: Vec<Value>,
    /// What was said of who they are from, by name.
    pub(crate) resource: Value,
}

#[derive(Debug)]
struct State {
    next: VecDeque<Mood>,
    then: Mood,
    /// What came, whether or not it was taken.
    came: Vec<Delivery>,
}

/// A running collector; its threads end with the process.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::start_with(|stream| Some(Box::new(stream)))
    }

    /// One whose connections are first handed to `wrap`.
    pub(crate) fn start_with(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn ReadWrite>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let state = State { next: VecDeque::new(), then: Mood::Takes, came: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (shared, wrap) = (Arc::clone(&state), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, wrap) = (Arc::clone(&shared), Arc::clone(&wrap));
                std::thread::spawn(move || {
                    if let Some(stream) = wrap(stream) {
                        serve(stream, &state);
                    }
                });
            }
        });
        Self { address, state }
    }

    /// `[tracing.otlp]` that names it, `extra` in it; spans are sent at once.
    pub(crate) fn section(&self, extra: &str) -> String {
        let address = self.address;
        format!("[tracing.otlp]\nendpoint = \"http://{address}\"\ninterval = \"20ms\"\n{extra}\n")
    }

    /// Acts so from now on, and first as `next` says.
    pub(crate) fn acts(&self, next: &[Mood], then: Mood) {
        let mut state = self.state.lock().expect("no panic under the lock");
        (state.next, state.then) = (next.to_vec().into(), then);
    }

    /// Everything that came so far.
    pub(crate) fn came(&self) -> Vec<Delivery> {
        self.state.lock().expect("no panic under the lock").came.clone()
    }

    /// All spans that came, attributes as plain members, once `enough` says so.
    pub(crate) fn wait(&self, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        until(|| {
            let spans: Vec<Value> = self.came().into_iter().flat_map(|d| d.spans).collect();
            enough(&spans).then_some(spans)
        })
    }
}

/// What a connection is.
pub(crate) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn serve(mut stream: Box<dyn ReadWrite>, state: &Mutex<State>) {
    while let Some((head, body)) = read(&mut *stream) {
        secrets::saw(&body);
        let delivery = check(head, &body);
        let mood = {
            let mut state = state.lock().expect("no panic under the lock");
            state.came.push(delivery);
            state.next.pop_front().unwrap_or(state.then)
        };
        let (status, fields, said) = match mood {
            Mood::Takes => (200, "Content-Type: application/json\r\n", "{\"partialSuccess\":{}}"),
            Mood::Says(status, fields, said) => (status, fields, said),
            Mood::Hangs => {
                // Until the other side gives up.
                let _ = stream.read(&mut [0; 64]);
                return;
            }
            Mood::HangsUp => return,
        };
        let length = said.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{said}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A request, its body by the length it announces; `None` at the end.
fn read(stream: &mut dyn ReadWrite) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut more = |bytes: &mut Vec<u8>| match stream.read(&mut buffer) {
        Ok(n) if n > 0 => {
            bytes.extend_from_slice(&buffer[..n]);
            Some(())
        }
        Ok(_) | Err(_) => None,
    };
    let end = loop {
        if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break at;
        }
        more(&mut bytes)?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head of text");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.expect("a length").expect("a number");
    while bytes.len() < end + 4 + length {
        more(&mut bytes)?;
    }
    assert_eq!(bytes.len(), end + 4 + length, "nothing is sent before the answer");
    Some((head, bytes.split_off(end + 4)))
}

/// Reads a request as `ExportTraceServiceRequest` (opentelemetry-proto, trace/v1) in JSON.
fn check(head: String, body: &[u8]) -> Delivery {
    assert!(head.starts_with("POST /") && head.contains("/v1/traces HTTP/1.1\r\n"), "{head}");
    let is_json = |line: &str| line.eq_ignore_ascii_case("content-type: application/json");
    assert!(head.lines().any(is_json), "{head}");
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let mut spans = Vec::new();
    let mut resource = Value::Null;
    for of_resource in list(&members(&request, &["resourceSpans"])["resourceSpans"]) {
        let of_resource = members(of_resource, &["resource", "scopeSpans", "schemaUrl"]);
        resource = attributes(&members(&of_resource["resource"], &["attributes"])["attributes"]);
        for of_scope in list(&of_resource["scopeSpans"]) {
            let of_scope = members(of_scope, &["scope", "spans", "schemaUrl"]);
            let scope = members(&of_scope["scope"], &["name", "version"]);
            assert_eq!(scope["name"], "latchkey");
            spans.extend(list(&of_scope["spans"]).iter().map(span));
        }
    }
    Delivery { head, spans, resource }
}

/// A span as it should be, its attributes as plain members.
fn span(value: &Value) -> Value {
    let known = [
        "traceId",
        "spanId",
        "parentSpanId",
        "flags",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "status",
    ];
    let members = members(value, &known);
    let hex = |name: &str, length: usize| {
        let text = members[name].as_str().unwrap_or_else(|| panic!("{name}: {value}"));
        let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        assert!(text.len() == length && is_hex && text.bytes().any(|b| b != b'0'), "{value}");
    };
    hex("traceId", 32);
    hex("spanId", 16);
    if members.contains_key("parentSpanId") {
        hex("parentSpanId", 16);
    }
    let time =
        |name: &str| members[name].as_str().expect("a text").parse::<u64>().expect("a number");
    assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"), "{value}");
    assert!(matches!(members["kind"].as_u64(), Some(2 | 3)), "{value}");
    assert!(members["flags"].as_u64().is_some_and(|flags| flags <= 0x3ff), "{value}");
    assert!(!members["name"].as_str().expect("a name").is_empty());
    let status = self::members(&members["status"], &["code"]);
    assert!(status.get("code").is_none_or(|code| *code == 2), "{value}");
    let mut span = value.clone();
    span["attributes"] = attributes(&members["attributes"]);
    span
}

/// Attributes as plain members; numbers as numbers.
fn attributes(value: &Value) -> Value {
    let mut plain = Map::new();
    for attribute in list(value) {
        let attribute = members(attribute, &["key", "value"]);
        let value = members(&attribute["value"], &["stringValue", "intValue"]);
        let value = match (value.get("stringValue"), value.get("intValue")) {
            (Some(Value::String(text)), None) => Value::from(text.clone()),
            (None, Some(Value::String(digits))) => {
                Value::from(digits.parse::<i64>().expect("64 bits"))
            }
            other => panic!("{other:?}"),
        };
        let key = attribute["key"].as_str().expect("a name").to_owned();
        assert_eq!(plain.insert(key, value), None, "{attribute:?} stands twice");
    }
    Value::Object(plain)
}

fn members<'v>(value: &'v Value, known: &[&str]) -> &'v Map<String, Value> {
    let members = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for name in members.keys() {
        assert!(known.contains(&name.as_str()), "unknown member {name} in {value}");
    }
    members
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// A connection of TLS as `config` says, once its handshake is done.
pub(crate) fn secure(
    config: &Arc<rustls::ServerConfig>,
    stream: TcpStream,
) -> Option<Box<dyn ReadWrite>> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let session = rustls::ServerConnection::new(Arc::clone(config)).ok()?;
    let mut stream = rustls::StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    Some(Box::new(stream))
}
