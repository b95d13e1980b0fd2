//! A whole request, from the bytes a client sends to the bytes it gets: wire, framing, hyper,
//! exchange, decision, answer. One connection over memory, one request after the other, with
//! 10,000 shops of one key each that take turns. What is forwarded goes to an upstream in the
//! same thread, over a loopback socket. Nothing is logged.
//!
//! `cargo bench --bench request`; with `LATCHKEY_BENCH_NO_USAGE=1` nothing is counted of shops and
//! keys, to see what that costs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking"
)]

#[path = "../tests/world/shops.rs"]
mod shops;

use std::future::{Future, ready};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::measurement::{Measurement as _, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use latchkey::clock::SystemClock;
use latchkey::config::{self, Contract, Endpoint, Scheme};
use latchkey::decision::principal::Mechanism;
use latchkey::decision::rate_limit::Quota;
use latchkey::id::Name;
use latchkey::limiter::Limiter;
use latchkey::metrics::Metrics;
use latchkey::secret::{Pepper, SecretBytes};
use latchkey::server::memory::MemoryServer;
use latchkey::server::{KeyRefresher, Settings, Shared, UpstreamStates, issue};
use latchkey::snapshot::{Published, Snapshot};
use latchkey::trace;
use latchkey::usage::Recorder;
use latchkey::verified_tokens::VerifiedTokenCache;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use self::shops::{api_key, api_key_text, policies, shop};

const SHOPS: u32 = 10_000;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// Requests that take turns, and what must come of each.
struct Case {
    name: &'static str,
    expected: &'static str,
    requests: Vec<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let search = "GET /api/search/products?q=shoes HTTP/1.1\r\n";
    let orders = "GET /api/plugin/shops/me/orders HTTP/1.1\r\n";
    let question = "GET /.latchkey/auth/nginx HTTP/1.1\r\n\
         X-Original-Method: GET\r\n\
         X-Original-URI: /api/plugin/shops/me/orders?page=2\r\n\
         X-Original-Host: api.example\r\n\
         X-Original-Scheme: https\r\n\
         X-Forwarded-For: 192.0.2.1\r\n";
    let request = |start: &str, key: Option<u32>| {
        let usual = "Host: api.example\r\nUser-Agent: curl/8.14.1\r\n\
             Accept: application/json\r\nAccept-Encoding: gzip, br\r\n";
        let key = key.map(|number| format!("X-Shop-API-Key: {}\r\n", api_key_text(number)));
        format!("{start}{usual}{}\r\n", key.unwrap_or_default()).into_bytes()
    };
    let all = |start: &str| (0..SHOPS).map(|number| request(start, Some(number))).collect();
    let case = |name, expected, requests| Case { name, expected, requests };
    vec![
        case("unknown API key", "401", vec![request(orders, Some(u32::MAX))]),
        case("limit used up", "429", vec![request(search, None)]),
        case("nginx asks", "200", all(question)),
        case("forwarded", "200", all(orders)),
    ]
}

fn requests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let server = local.block_on(&runtime, async {
        let listener = TcpListener::bind((PEER, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(serve_upstream(listener));
        MemoryServer::new(shared(address), 7)
    });
    let mut group = criterion.benchmark_group("request");
    for case in cases() {
        let mut client = Client::new(local.block_on(&runtime, async { server.connect(PEER) }));
        let first = case.requests.iter().cycle();
        // The first uses up what limit there is.
        for request in first.take(3) {
            local.block_on(&runtime, client.exchange(request));
        }
        assert_eq!(client.status(), case.expected, "{}", client.text());
        let mut turns = case.requests.iter().cycle();
        group.bench_function(case.name, |bencher| {
            bencher.iter_custom(|count| {
                local.block_on(&runtime, async {
                    let begun = WallTime.start();
                    for _ in 0..count {
                        client.exchange(turns.next().unwrap()).await;
                    }
                    WallTime.end(begun)
                })
            });
        });
        assert_eq!(client.status(), case.expected, "{}", client.text());
    }
    group.finish();
}

/// A client's end of a connection, and the last response.
struct Client {
    stream: DuplexStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    fn new(stream: DuplexStream) -> Self {
        Self { stream, buffer: vec![0; 16 * 1024], filled: 0 }
    }

    /// Sends `request` and reads the response, whole.
    async fn exchange(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.filled = 0;
        while !self.is_whole() {
            let read = self.stream.read(&mut self.buffer[self.filled..]).await.unwrap();
            assert_ne!(read, 0, "the connection ended: {}", self.text());
            self.filled += read;
        }
    }

    fn is_whole(&self) -> bool {
        let text = &self.buffer[..self.filled];
        let Some(head) = memchr::memmem::find(text, b"\r\n\r\n") else {
            return false;
        };
        let field = b"content-length: ";
        let at = memchr::memmem::find(&text[..head], field).unwrap() + field.len();
        let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
        let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        self.filled == head + 4 + length
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned()
    }

    fn status(&self) -> String {
        self.text().chars().skip("HTTP/1.1 ".len()).take(3).collect()
    }
}

/// Answers whatever ends in an empty line, as a request without a body does.
async fn serve_upstream(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) {
    let mut head = Vec::with_capacity(4096);
    while let Ok(1..) = stream.read_buf(&mut head).await {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(ANSWER).await.unwrap();
        }
    }
}

/// Has no keys.
struct NoKeys;

impl KeyRefresher for NoKeys {
    fn refresh<'a>(&'a self, _: &'a Name) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(ready(()))
    }
}

fn shared(upstream: SocketAddr) -> Arc<Shared> {
    let pepper = Pepper::new(&SecretBytes::new([7; 32]));
    let mut policies = policies();
    let month = Duration::from_secs(30 * 24 * 3600);
    for limit in &mut policies.limits {
        if limit.mechanisms.contains(Mechanism::Anonymous) {
            limit.quota = Quota::new(1, month).unwrap();
        }
    }
    let limits = policies.limits.len();
    let mut snapshot = Snapshot::new(Arc::new(policies), pepper.clone());
    for number in 0..SHOPS {
        snapshot.put_shop(shop(number));
        snapshot.put_api_key(api_key(number, &pepper));
    }
    let metrics = Arc::new(Metrics::new("bench").unwrap());
    Arc::new(Shared {
        snapshot: Arc::new(Published::new(snapshot)),
        limiter: Arc::new(Limiter::new(1 << 16, limits)),
        verified: Arc::new(VerifiedTokenCache::new(NonZeroUsize::MIN)),
        metrics: Arc::clone(&metrics),
        keys: Arc::new(NoKeys),
        issue: issue::channel().0,
        upstreams: UpstreamStates::default(),
        usage: recorder(),
        events: Arc::default(),
        spans: trace::channel(NonZeroUsize::MIN, &metrics).0,
        clock: Arc::new(SystemClock::new()),
        settings: ArcSwap::from_pointee(settings(upstream)),
        tls: None,
    })
}

/// Counts as a gateway does, with somebody who collects.
fn recorder() -> Arc<Recorder> {
    let recorder = Arc::new(Recorder::new(std::env::var_os("LATCHKEY_BENCH_NO_USAGE").is_none()));
    let collected = Arc::downgrade(&recorder);
    std::thread::spawn(move || {
        while let Some(recorder) = collected.upgrade() {
            recorder.drain(|_, _, _, _| {});
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    recorder
}

/// The default settings, with an upstream, and with nginx as a trusted proxy.
fn settings(upstream: SocketAddr) -> Settings {
    let config = config::load(&config::Sources::default());
    let mut settings = Settings::from_config(&config.unwrap_or_else(|errors| panic!("{errors}")));
    for known in settings.upstreams.values_mut() {
        let authority = upstream.to_string().parse().unwrap();
        known.endpoints = vec![Endpoint { scheme: Scheme::Http, authority }];
    }
    settings.server.trusted_proxies = vec![PEER.into()];
    settings.forward_auth.contracts = vec![Contract::Nginx];
    settings
}

criterion_group!(benches, requests);
criterion_main!(benches);
