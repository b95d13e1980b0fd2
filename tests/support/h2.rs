//! HTTP/2: a client that is in order, and one that sends whatever frames it is told to.

use std::future::poll_fn;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;

use super::http::{PATIENCE, Response, connect};
use super::tls;

/// A client of one connection.
pub(crate) struct H2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A request under way.
pub(crate) struct Exchange {
    response: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
}

impl H2 {
    /// Over a plain connection, with prior knowledge.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self::build(&h2::client::Builder::new(), async move || {
            tokio::net::TcpStream::connect(address).await.expect("a connection")
        })
    }

    /// Through TLS, by ALPN.
    pub(crate) fn secure(address: SocketAddr, client: &tls::Client) -> Self {
        Self::secure_on(connect(address), client)
    }

    /// The same on a connection that is made already.
    pub(crate) fn secure_on(stream: TcpStream, client: &tls::Client) -> Self {
        let client = tls::Client { alpn: vec!["h2", "http/1.1"], ..client.clone() };
        Self::build(&h2::client::Builder::new(), async move || {
            stream.set_nonblocking(true).expect("no blocking");
            let tcp = tokio::net::TcpStream::from_std(stream).expect("a connection");
            let connector = tokio_rustls::TlsConnector::from(client.config());
            let tls = connector.connect(client.server_name(), tcp).await.expect("a handshake");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
            tls
        })
    }

    fn build<S>(builder: &h2::client::Builder, dial: impl AsyncFnOnce() -> S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (send, connection) = runtime.block_on(async {
            builder.handshake(dial().await).await.expect("an HTTP/2 connection")
        });
        let ended = runtime.spawn(connection);
        Self { runtime, send, ended }
    }

    /// Sends the head of a request.
    pub(crate) fn begin(&mut self, request: Request<()>, ends: bool) -> Exchange {
        let (response, body) = self.runtime.block_on(async {
            poll_fn(|cx| self.send.poll_ready(cx)).await.expect("room for a stream");
            self.send.send_request(request, ends).expect("a request")
        });
        Exchange { response, body }
    }

    /// Waits for the head of a response.
    pub(crate) fn head(&self, exchange: Exchange) -> Result<http::Response<RecvStream>, h2::Error> {
        let patient = async { tokio::time::timeout(PATIENCE, exchange.response).await };
        self.runtime.block_on(patient).expect("no patience left")
    }

    /// Waits for a whole response.
    pub(crate) fn finish(&self, exchange: Exchange) -> Result<Response, h2::Error> {
        let head = self.head(exchange)?;
        let (parts, mut body) = head.into_parts();
        let mut bytes = Vec::new();
        let read = async {
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                bytes.extend_from_slice(&data);
            }
            Ok::<_, h2::Error>(())
        };
        let patient = async { tokio::time::timeout(PATIENCE, read).await };
        self.runtime.block_on(patient).expect("no patience left")?;
        let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
        let headers = parts.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
        Ok(Response { status: parts.status.as_u16(), headers, body: bytes })
    }

    /// Sends a request without a body and waits for its response.
    pub(crate) fn send(&mut self, request: http::request::Builder) -> Result<Response, h2::Error> {
        let exchange = self.begin(request.body(()).expect("a request"), true);
        self.finish(exchange)
    }

    /// The same; `None` if the server has said that this connection takes no more requests, so
    /// that this one was not sent.
    pub(crate) fn send_if_open(
        &mut self,
        request: http::request::Builder,
    ) -> Option<Result<Response, h2::Error>> {
        let request = request.body(()).expect("a request");
        let sent = self.runtime.block_on(async {
            poll_fn(|cx| self.send.poll_ready(cx)).await.ok()?;
            self.send.send_request(request, true).ok()
        });
        let (response, body) = sent?;
        Some(self.finish(Exchange { response, body }))
    }

    /// `status code` of what comes back; `reset CODE` if nothing does.
    pub(crate) fn outcome(&mut self, request: http::request::Builder) -> String {
        match self.send(request) {
            Ok(response) => response.outcome(),
            Err(error) => format!("reset {:?}", error.reason().expect("a reason")),
        }
    }

    /// How the connection ended; waits for it.
    pub(crate) fn ended(self) -> Option<Reason> {
        let patient = async { tokio::time::timeout(PATIENCE, self.ended).await };
        let ended = self.runtime.block_on(patient).expect("no patience left");
        ended.expect("no panic").err().and_then(|error| error.reason())
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY_FLAG: u8 = 0x20;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block, every field a literal without Huffman coding (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for part in [name.as_bytes(), value] {
            let length = part.len();
            if length < 127 {
                bytes.push(u8::try_from(length).expect("short"));
            } else {
                let mut rest = length - 127;
                bytes.push(127);
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128 + 128).expect("a byte"));
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).expect("a byte"));
            }
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

/// What a peer makes of what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A response on this stream, 200 or not.
    Response(u32, bool),
    /// `RST_STREAM` with its code.
    Reset(u32, u32),
    /// GOAWAY with its code.
    GoAway(u32),
    /// The end of the connection.
    Closed,
}

/// A connection on which anything can be sent.
pub(crate) struct Raw {
    tcp: TcpStream,
}

impl Raw {
    /// Nothing is said yet.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        Self { tcp: connect(address) }
    }

    /// The preface and empty settings are exchanged.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        Self::greeted_with(address, &[])
    }

    pub(crate) fn greeted_with(address: SocketAddr, settings: &[u8]) -> Self {
        let mut raw = Self::silent(address);
        raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.write(&frame(SETTINGS, 0, 0, settings));
        let greeting = raw.read().expect("settings");
        assert_eq!((greeting.kind, greeting.flags), (SETTINGS, 0));
        raw.write(&frame(SETTINGS, ACK, 0, &[]));
        raw
    }

    /// Sends bytes; the other side may have closed already.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.tcp.write_all(bytes).is_ok()
    }

    /// Sends `bytes` again and again, until the other side takes no more or `max` are sent.
    pub(crate) fn write_until_blocked(&mut self, bytes: &[u8], max: usize) {
        let patience = std::time::Duration::from_millis(500);
        self.tcp.set_write_timeout(Some(patience)).expect("a timeout");
        let mut sent = 0;
        while sent < max && self.write(bytes) {
            sent += bytes.len();
        }
    }

    /// The next frame; `None` at the end.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.fill(&mut payload)?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.tcp.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) => {
                let kind = error.kind();
                let gone = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(gone.contains(&kind), "no answer: {error}");
                None
            }
        }
    }

    /// Reads on until something is decided.
    pub(crate) fn seen(&mut self) -> Seen {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        while let Some(frame) = self.read() {
            match frame.kind {
                // 0x88 is `:status: 200` (RFC 7541 appendix A).
                HEADERS => return Seen::Response(frame.stream, frame.payload[0] == 0x88),
                RST_STREAM => return Seen::Reset(frame.stream, number(&frame.payload)),
                GOAWAY => return Seen::GoAway(number(&frame.payload[4..8])),
                _ => {}
            }
        }
        Seen::Closed
    }
}
