//! Through real sockets: raw clients, a raw upstream that keeps every byte it gets.

mod ending;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::issue::{IssueReceiver, IssuedToken};
use super::*;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::{self, Endpoint, Scheme, UpstreamConfig};
use crate::decision::jwt::KeySet;
use crate::decision::origin::{Origin, Rules};
use crate::decision::policy::{
    AttemptPolicy, Issuer, JwtAlgorithm, KeyBy, LimitPolicy, MechanismSet, Policies, Route, Target,
    WidgetPolicy,
};
use crate::decision::principal::{ApiKey, Mechanism, Shop};
use crate::decision::rate_limit::{Algorithm, Quota};
use crate::decision::route::{MethodSet, PathPattern};
use crate::id::{KeyId, Name, ShopId, TokenId};
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::secret::{MasterKey, SecretText};
use crate::snapshot::{Published, Snapshot};
use crate::trace;
use crate::verified_tokens::VerifiedTokenCache;

const KEY: &str = "sk_0123456789abcdef0123456789abcdef";
/// Longer than anything here takes; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what is to happen after a timeout.
const SHORT: Duration = Duration::from_millis(60);
/// For what is not to happen.
const LONG: Duration = Duration::from_secs(30);

/// The public key of RFC 7517 appendix A.1.
const KEY_SET: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "old", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// What the upstream does with a connection.
type Script = dyn Fn(TcpStream, &SyncSender<String>) + Send + Sync;

/// An upstream that follows a script and reports what it was sent.
struct Upstream {
    address: SocketAddr,
    seen: Receiver<String>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    fn new(script: impl Fn(TcpStream, &SyncSender<String>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (report, seen) = sync_channel(64);
        let script: Arc<Script> = Arc::new(script);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (script, report) = (Arc::clone(&script), report.clone());
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                thread::spawn(move || script(stream, &report));
            }
        });
        Self { address, seen, connections }
    }

    /// Answers every request with `response`.
    fn answering(response: &'static str) -> Self {
        Self::new(move |mut stream, report| {
            while let Some(message) = read_message(&mut stream) {
                report.send(message).unwrap();
                if stream.write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    fn saw(&self) -> String {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

/// Reads a head; `None` when there is none.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) if head.is_empty() => return None,
            _ => break,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Reads a whole message, raw; `None` when there is none.
fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut message = read_head(stream)?;
    if field(&message, "transfer-encoding").is_some() {
        let mut byte = [0];
        while !message.ends_with("\r\n0\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => message.push(char::from(byte[0])),
                _ => return Some(message + "<broken off>"),
            }
        }
    } else if let Some(length) = field(&message, "content-length") {
        let mut body = vec![0; length.parse().unwrap()];
        match stream.read_exact(&mut body) {
            Ok(()) => message.push_str(&String::from_utf8_lossy(&body)),
            Err(_) => message.push_str("<broken off>"),
        }
    }
    Some(message)
}

/// A running data plane.
struct Gateway {
    running: Option<Running>,
    address: SocketAddr,
    shared: Arc<Shared>,
    keys: Arc<NoKeys>,
    issue: Mutex<Option<IssueReceiver>>,
}

/// Counts the keys it was asked for and has none.
#[derive(Default)]
struct NoKeys(AtomicUsize, Mutex<Option<Receiver<()>>>);

impl KeyRefresher for NoKeys {
    fn refresh<'a>(&'a self, _: &'a Name) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        // What no task of a worker may do: have the others wait.
        if let Some(release) = self.1.lock().unwrap().take() {
            release.recv().unwrap();
        }
        Box::pin(std::future::ready(()))
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn route(text: &str, path: &str, mechanisms: &[Mechanism], target: Target) -> Route {
    Route {
        name: name(text),
        paths: vec![PathPattern::parse(path).unwrap()],
        methods: MethodSet::all(),
        mechanisms: mechanisms.iter().copied().collect(),
        scopes: Vec::new(),
        target,
        body_bytes_max: None,
        upgrades: Vec::new(),
        origins: Vec::new(),
    }
}

fn issuer() -> Issuer {
    Issuer {
        name: name("main"),
        iss: "https://id.example".into(),
        audiences: vec!["shop".into()],
        algorithms: vec![JwtAlgorithm::ES256],
        secret: None,
        leeway: Duration::ZERO,
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: vec!["scope".into()],
        shop_claim: None,
        stale_max: LONG,
    }
}

fn policies(quota: u32) -> Policies {
    let app = || Target::Upstream(name("app"));
    let key = [Mechanism::ShopApiKey];
    let limit = LimitPolicy {
        name: name("all"),
        paths: vec![PathPattern::parse("/*").unwrap()],
        methods: MethodSet::all(),
        mechanisms: MechanismSet::all(),
        key_by: KeyBy::Address,
        quota: Quota::new(quota, Duration::from_secs(60)).unwrap(),
        algorithm: Algorithm::TokenBucket,
        cost: NonZeroU32::MIN,
        shadow: false,
        fallback: false,
    };
    Policies {
        routes: vec![
            route("issue", "/shops/{shopId}/widget-token", &key, Target::IssueWidgetToken),
            route("plugin", "/shops/{shopId}/*", &key, app()),
            route("open", "/open/*", &[Mechanism::Anonymous], app()),
            route("search", "/search", &[Mechanism::Jwt, Mechanism::Anonymous], app()),
            route("nowhere", "/nowhere", &[Mechanism::Anonymous], Target::Upstream(name("gone"))),
        ],
        limits: vec![limit],
        issuers: vec![issuer()],
        origin: Rules { www_alias: true, ignore_scheme: false },
        widget: WidgetPolicy {
            lifetime: Duration::from_secs(3600),
            lifetime_max: Duration::from_secs(7200),
            scopes: vec!["search".into()],
            allow_loopback_origins: false,
        },
        attempts: AttemptPolicy { quota: Quota::new(1000, Duration::from_secs(60)).unwrap() },
    }
}

fn settings(upstream: SocketAddr) -> Settings {
    let defaults = config::load(&config::Sources::default()).unwrap();
    let mut settings = Settings::from_config(&defaults);
    let app = settings.upstreams.remove(&name("default")).unwrap();
    let app = UpstreamConfig {
        endpoints: vec![Endpoint {
            scheme: Scheme::Http,
            authority: upstream.to_string().parse().unwrap(),
        }],
        connect_timeout: PATIENCE,
        response_timeout: LONG,
        body_timeout: LONG,
        idle_timeout: LONG,
        idle_connections_max: NonZeroUsize::new(8).unwrap(),
        ..app
    };
    settings.upstreams.insert(name("app"), app);
    settings.server = ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        workers: NonZeroUsize::MIN,
        connections_max: NonZeroUsize::new(100).unwrap(),
        header_bytes_max: 8192,
        header_count_max: 32,
        body_bytes_max: 100_000,
        head_timeout: LONG,
        idle_timeout: LONG,
        body_timeout: LONG,
        drain_timeout: LONG,
        ..settings.server
    };
    settings
}

impl Gateway {
    fn new(upstream: SocketAddr) -> Self {
        Self::with(upstream, |_, _| {})
    }

    fn with(
        upstream: SocketAddr,
        tweak: impl FnOnce(&mut ServerConfig, &mut UpstreamConfig),
    ) -> Self {
        let mut settings = settings(upstream);
        tweak(&mut settings.server, settings.upstreams.get_mut(&name("app")).unwrap());
        Self::start(&settings, policies(10_000))
    }

    fn start(settings: &Settings, policies: Policies) -> Self {
        Self::start_on(None, settings, policies)
    }

    /// On a listener that was handed over, if one was.
    fn start_on(inherited: Option<TcpListener>, settings: &Settings, policies: Policies) -> Self {
        let pepper = MasterKey::parse(&"A".repeat(43)).unwrap().pepper();
        let digest = pepper.digest(KEY.as_bytes());
        let mut snapshot = Snapshot::new(Arc::new(policies), pepper);
        let shop = ShopId::parse("demo").unwrap();
        snapshot.put_shop(Shop {
            id: shop,
            enabled: true,
            url: Origin::parse("https://demo.example").unwrap(),
            widget_origins: Vec::new(),
            tokens_valid_from: Timestamp::from_unix_s(0),
            limits: Vec::new(),
        });
        snapshot.put_api_key(ApiKey {
            id: KeyId(7),
            digest,
            shop,
            expires_at: None,
            grace_until: None,
            networks: Vec::new(),
            limits: Vec::new(),
            last_used_ms: Arc::default(),
        });
        let set = KeySet::parse(KEY_SET, SystemClock::new().now().unix).unwrap();
        snapshot.put_key_set(name("main"), set);
        let (issue, requests) = issue::channel();
        let keys = Arc::new(NoKeys::default());
        let metrics = Arc::new(Metrics::new("test").unwrap());
        let shared = Arc::new(Shared {
            snapshot: Arc::new(Published::new(snapshot)),
            limiter: Arc::new(Limiter::new(1024, 1)),
            verified: Arc::new(VerifiedTokenCache::new(NonZeroUsize::MIN)),
            metrics: Arc::clone(&metrics),
            keys: Arc::clone(&keys) as Arc<dyn KeyRefresher>,
            issue,
            clock: Arc::new(SystemClock::new()),
            upstreams: UpstreamStates::default(),
            usage: Arc::default(),
            events: Arc::default(),
            spans: trace::channel(NonZeroUsize::MIN, &metrics).0,
            settings: ArcSwap::from_pointee(settings.clone()),
            tls: None,
        });
        let for_server = Arc::clone(&shared);
        let server = match inherited {
            Some(listener) => Server::inherit(listener, &settings.server, for_server),
            None => Server::bind(&settings.server, for_server),
        };
        let running = server.unwrap().start().unwrap();
        let address = running.local_addr();
        Self { running: Some(running), address, shared, keys, issue: Mutex::new(Some(requests)) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `request` on a connection of its own.
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The response to `request`, and everything until the connection ends.
    fn ask_and_close(&self, request: &str) -> String {
        read_all(self.send(request))
    }

    /// Whether so many decisions about anonymous callers ended so.
    fn counted(&self, code: &str, outcome: &str, count: u32) -> bool {
        let line = format!(
            "latchkey_decisions_total{{code=\"{code}\",mechanism=\"anonymous\",\
             outcome=\"{outcome}\"}} {count}"
        );
        self.shared.metrics.render().lines().any(|l| l == line)
    }
}

fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let end = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    match end {
        Ok(_) => text,
        Err(error) => text + &format!("<{:?}>", error.kind()),
    }
}

#[track_caller]
fn problem(response: &str, status: u16, code: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    let body: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {response}"));
    assert_eq!(field(head, "content-type"), Some("application/problem+json"));
    assert_eq!(body["code"], code, "{response}");
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"].as_str(), field(head, "x-request-id"), "{response}");
    assert_eq!(field(head, "retry-after").is_some(), matches!(status, 429 | 503), "{response}");
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn an_upstream_gets_exactly_this() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nRateLimit: \"u\";r=1;t=1\r\nX-RateLimit-Limit: 1\r\n\
         X-Request-Id: theirs\r\nX-Kept: yes\r\n\r\nok",
    );
    let gateway = Gateway::new(upstream.address);
    let mut stream = gateway.send(
        "POST /shops/me/a%20b?x=1&y=%2F..//{}| HTTP/1.1\r\nhOST: front.example:8000\r\n\
         X-Shop-API-Key: sk_0123456789abcdef0123456789abcdef\r\nX_Auth_Shop_Id: other\r\n\
         x-auth-scopes: all\r\nX.Forwarded.For: 1.2.3.4\r\nConnection: keep-alive, X-Drop\r\n\
         X-Drop: 1\r\nTE: trailers\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\
         Authorization: Basic eA==\r\n\r\nabc",
    );
    let response = read_message(&mut stream).unwrap();
    let id = field(&response, "x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    let mut seen: Vec<String> = upstream.saw().lines().map(str::to_owned).collect();
    let body = seen.pop().unwrap();
    assert_eq!(seen.remove(0), "POST /shops/me/a%20b?x=1&y=%2F..//{}| HTTP/1.1");
    seen.sort_unstable();
    let trace = seen.remove(seen.iter().position(|l| l.starts_with("traceparent: ")).unwrap());
    assert!(trace.len() == 13 + 55 && trace.starts_with("traceparent: 00-"), "{trace}");
    let address = upstream.address;
    assert_eq!(
        seen,
        [
            String::new(),
            "authorization: Basic eA==".to_owned(),
            "connection: te".to_owned(),
            "content-length: 3".to_owned(),
            "forwarded: for=127.0.0.1;host=\"front.example:8000\";proto=http".to_owned(),
            format!("host: {address}"),
            "te: trailers".to_owned(),
            "x-auth-key-id: key_0000000000000007".to_owned(),
            "x-auth-mechanism: shop_api_key".to_owned(),
            "x-auth-scopes: *".to_owned(),
            "x-auth-shop-id: demo".to_owned(),
            "x-auth-subject: -".to_owned(),
            "x-forwarded-for: 127.0.0.1".to_owned(),
            "x-forwarded-host: front.example:8000".to_owned(),
            "x-forwarded-proto: http".to_owned(),
            format!("x-request-id: {id}"),
        ]
    );
    assert_eq!(body, "abc");
    assert!(response.starts_with("HTTP/1.1 200 Fine\r\n") && response.ends_with("\r\n\r\nok"));
    assert_eq!(field(&response, "x-kept"), Some("yes"));
    assert_eq!(field(&response, "ratelimit-policy"), Some("\"all\";q=10000;w=60"));
    assert_eq!(field(&response, "ratelimit"), Some("\"all\";r=9999;t=1"));
    assert_eq!(field(&response, "x-ratelimit-limit"), Some("10000"));
    for gone in ["x-hop", "keep-alive"] {
        assert_eq!(field(&response, gone), None, "{response}");
    }
    assert_eq!(response.matches("ratelimit:").count(), 1);
    let used = gateway.shared.snapshot.load();
    let used = used.api_keys().next().unwrap().last_used_ms.load(Ordering::Relaxed);
    assert!(gateway.shared.clock.now().unix.unix_ms() - used < 10_000);
}

/// Requests that two parsers could read in two ways; `|` stands for CR LF, `@` for `Host: a|`.
const AMBIGUOUS: &[&str] = &[
    "POST /open HTTP/1.1|@Content-Length: 3|Transfer-Encoding: chunked||0||",
    "POST /open HTTP/1.1|@Transfer-Encoding: chunked|Content-Length: 3||0||",
    "POST /open HTTP/1.1|@Content-Length: 3|Content-Length: 3||abc",
    "POST /open HTTP/1.1|@Content-Length: 3|Content-Length: 4||abc",
    "POST /open HTTP/1.1|@Content-Length: 3, 3||abc",
    "POST /open HTTP/1.1|@Content-Length: +3||abc",
    "POST /open HTTP/1.1|@Transfer-Encoding: gzip, chunked||0||",
    "POST /open HTTP/1.1|@Transfer-Encoding: identity||",
    "POST /open HTTP/1.1|@Transfer-Encoding : chunked||0||",
    "POST /open HTTP/1.1|@Transfer-Encoding: \x0bchunked||0||",
    "POST /open HTTP/1.0|@Transfer-Encoding: chunked||0||",
    "GET /open HTTP/1.1|@X: a| b||",
    "GET /open HTTP/1.1|@X: a\nY: b||",
    "GET /open HTTP/1.1\nHost: a\n\n",
    "GET /open HTTP/1.1|@X: a\rY: b||",
    "GET /open HTTP/1.1|@X: \0||",
    "GET /open#x HTTP/1.1|@|",
    "GET /open HTTP/1.1|@@|",
    "GET /open HTTP/1.1|Host: a/b||",
    "GET /open HTTP/1.1||",
    "GET http://b/open HTTP/1.1|@|",
    "GET https://a/open HTTP/1.1|@|",
    "GET * HTTP/1.1|@|",
    "OPTIONS * HTTP/1.1|@|",
    "CONNECT a:80 HTTP/1.1|@|",
    "GET open HTTP/1.1|@|",
    "GET /open/../x HTTP/1.1|@|",
    "GET /open//x HTTP/1.1|@|",
    "GET /open/%2e%2e HTTP/1.1|@|",
    "GET  /open HTTP/1.1|@|",
    "GET /open HTTP/1.1 |@|",
    "PRI * HTTP/2.0||SM||",
    "\x16\x03\x01\x02\x00\x01\x00\n",
    "GET /open HTTP/1.1|@X-Shop-API-Key : x||",
    "GET /shops/me/x HTTP/1.1|@X-Shop-API-Key: a|X-Shop-API-Key: a||",
    // Hyper's own refusals look like ours.
    "GET http://[/open HTTP/1.1|@|",
    "GET /open\"<>\\^` HTTP/1.1|@|",
];

#[test]
fn what_could_be_read_two_ways_never_reaches_the_upstream() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    for row in AMBIGUOUS {
        let mut stream = gateway.send(&row.replace('@', "Host: a|").replace('|', "\r\n"));
        // The other end may have closed already; a refusal goes out either way.
        stream.shutdown(Shutdown::Write).ok();
        let response = read_message(&mut stream).unwrap_or_else(|| panic!("{row:?}: nothing"));
        problem(&response, 400, "bad_request");
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 0);
    // Nothing of it cost any quota.
    let response =
        gateway.ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(response.contains("r=9999;"), "{response}");
}

#[test]
fn chunks_are_framed_anew() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    for method in ["POST", "GET"] {
        let mut stream = gateway.send(&format!(
            "{method} /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\
             Trailer: X-Auth-Subject\r\n\r\n\
             005;ext=\"v\"\r\nhello\r\n0\r\nX-Auth-Subject: root\r\n\r\n"
        ));
        assert!(read_message(&mut stream).unwrap().ends_with("ok"));
        let seen = upstream.saw();
        assert_eq!(field(&seen, "transfer-encoding"), Some("chunked"));
        assert_eq!(field(&seen, "content-length"), None);
        assert_eq!(field(&seen, "trailer"), None);
        assert!(seen.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{seen}");
    }
    for broken in
        ["5\r\nhelloX", "5\nhello\r\n0\r\n\r\n", "x\r\n", "-1\r\n\r\n", "5\r\nhello\r\n0\r\nA\n\n"]
    {
        let response = gateway.ask_and_close(&format!(
            "POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n{broken}"
        ));
        problem(&response, 400, "bad_request");
    }
    // Of the broken ones the upstream saw nothing, or a request that it could not take for whole.
    gateway.ask_and_close("GET /open/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    loop {
        let seen = upstream.saw();
        if seen.starts_with("GET /open/last ") {
            break;
        }
        assert!(seen.ends_with("<broken off>"), "{seen}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_up_to_the_first_fault() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    let good = "GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n";
    let other = "POST /else HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx";
    let responses = gateway
        .ask_and_close(&format!("{good}{other}\r\n{good}GET / HTTP/1.1\r\nHost : a\r\n\r\n{good}"));
    let statuses: Vec<&str> =
        responses.split("HTTP/1.1 ").skip(1).map(|r| r.split(' ').next().unwrap()).collect();
    assert_eq!(statuses, ["200", "404", "200", "400"], "{responses}");
    assert!(!responses.contains('<'), "{responses}");
    assert_eq!(upstream.seen.iter().take(2).count(), 2);
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
    assert!(gateway.counted("ok", "allowed", 2));
}

#[test]
fn bounds_of_a_request() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with(upstream.address, |server, _| server.body_bytes_max = 10);
    let fields = "A: b\r\n".repeat(32);
    let long = "x".repeat(9000);
    let announced = |length: u64, more: &str| {
        format!("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{more}\r\n")
    };
    for (request, status, code) in [
        (format!("GET /open HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431, "headers_too_large"),
        (format!("GET /open HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET /open?{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "uri_too_long"),
        (announced(11, ""), 413, "payload_too_large"),
        (announced(999_999_999_999_999_999, "Expect: 100-continue\r\n"), 413, "payload_too_large"),
    ] {
        problem(&gateway.ask_and_close(&request), status, code);
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 0);
    let response = gateway.ask_and_close(
        "POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         6\r\n123456\r\n5\r\n12345\r\n0\r\n\r\n",
    );
    problem(&response, 413, "payload_too_large");
    assert!(upstream.saw().ends_with("<broken off>"));
    let mut stream =
        gateway.send("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert!(read_message(&mut stream).unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn clients_that_dawdle() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with(upstream.address, |server, _| {
        server.first_byte_timeout = SHORT;
        server.head_timeout = SHORT;
        server.idle_timeout = SHORT;
        server.body_timeout = SHORT;
    });
    assert_eq!(gateway.ask_and_close(""), "");
    problem(&gateway.ask_and_close("GET /open HTTP/1.1\r\nHo"), 408, "request_timeout");
    let twice = gateway.ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\n\r\nG");
    let (first, second) = twice.split_once("ok").unwrap();
    assert!(first.starts_with("HTTP/1.1 200"));
    problem(second, 408, "request_timeout");
    let idle = gateway.ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(idle.ends_with("\r\n\r\nok"), "{idle}");
    let body =
        gateway.ask_and_close("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    problem(&body, 408, "request_timeout");
    assert_eq!(field(&body, "connection"), Some("close"));
    upstream.saw();
    upstream.saw();
    assert!(upstream.saw().ends_with("<broken off>"));
}

#[test]
fn bodies_stream_both_ways() {
    let upstream = Upstream::new(|mut stream, _| {
        read_head(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        // Echo of the chunked framing as it comes.
        let mut bytes = [0; 1024];
        let mut all = Vec::new();
        while !all.ends_with(b"\r\n0\r\n\r\n") {
            let n = stream.read(&mut bytes).unwrap();
            all.extend(&bytes[..n]);
            stream.write_all(&bytes[..n]).unwrap();
        }
    });
    let gateway = Gateway::new(upstream.address);
    let mut stream =
        gateway.send("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"));
    for word in ["first", "again"] {
        stream.write_all(format!("5\r\n{word}\r\n").as_bytes()).unwrap();
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, *format!("5\r\n{word}\r\n").as_bytes());
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut end = [0; 5];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}

#[test]
fn large_bodies_arrive_whole() {
    let upstream = Upstream::new(|mut stream, report| {
        let request = read_message(&mut stream).unwrap();
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        write!(stream, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{body}").unwrap();
        report.send(String::new()).unwrap();
    });
    let gateway = Gateway::new(upstream.address);
    let body: String = (0..99_999u32).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let response = gateway.ask_and_close(&format!(
        "POST /open HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let (head, echo) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(echo == body);
}

#[test]
fn responses_without_a_body() {
    let upstream = Upstream::new(|mut stream, _| {
        while let Some(request) = read_message(&mut stream) {
            let response = match request.split(' ').nth(1).unwrap() {
                "/open/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "/open/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/open/304" => {
                    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n"
                }
                _ => {
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
                     HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                }
            };
            stream.write_all(response.as_bytes()).unwrap();
        }
    });
    let gateway = Gateway::new(upstream.address);
    let mut stream = gateway.connect();
    for (line, status, length) in [
        ("HEAD /open/head", "200", Some("1234")),
        ("GET /open/204", "204", None),
        ("GET /open/304", "304", None),
        ("HEAD /nothing", "404", None),
    ] {
        write!(stream, "{line} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = read_head(&mut stream).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {head}");
        if length.is_some() {
            assert_eq!(field(&head, "content-length"), length, "{line}: {head}");
        }
    }
    write!(stream, "GET /open/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let last = read_all(stream);
    assert!(last.starts_with("HTTP/1.1 200") && last.ends_with("\r\n\r\nok"), "{last}");
}

#[test]
fn a_body_is_asked_for_only_once_it_is_wanted() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    let head = "HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = gateway.send(&format!("POST /open {head}"));
    assert_eq!(read_head(&mut stream).unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ab").unwrap();
    assert!(read_message(&mut stream).unwrap().ends_with("ok"));
    let seen = upstream.saw();
    assert_eq!(field(&seen, "expect"), None);
    assert!(seen.ends_with("\r\n\r\nab"));
    let mut stream = gateway.send(&format!("POST /shops/demo/x {head}"));
    let response = read_message(&mut stream).unwrap();
    problem(&response, 401, "missing_credential");
}

#[test]
fn upstreams_that_fail() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let get = "GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    problem(&Gateway::new(closed).ask_and_close(get), 502, "upstream_unreachable");
    for (answer, status, code) in [
        ("", 502, "upstream_error"),
        ("HTTP/1.1 200 O", 502, "upstream_error"),
        ("garbage\r\n\r\n", 502, "upstream_error"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            502,
            "upstream_error",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            502,
            "upstream_error",
        ),
    ] {
        let upstream = Upstream::new(move |mut stream, _| {
            read_message(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let gateway = Gateway::new(upstream.address);
        problem(&gateway.ask_and_close(get), status, code);
    }
    let gateway = Gateway::new(closed);
    let nowhere = get.replace("/open", "/nowhere");
    problem(&gateway.ask_and_close(&nowhere), 502, "upstream_unreachable");
}

#[test]
fn failures_say_whose_request_it_was() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::new(closed);
    for (path, key, whose) in [
        ("/shops/me/x", KEY, (Some("demo"), Some("key_0000000000000007"), "plugin")),
        ("/open", "", (None, None, "open")),
        ("/nowhere", "", (None, None, "nowhere")),
    ] {
        let key = if key.is_empty() { String::new() } else { format!("X-Shop-API-Key: {key}\r\n") };
        let call = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{key}Connection: close\r\n\r\n");
        problem(&gateway.ask_and_close(&call), 502, "upstream_unreachable");
        let events = gateway.shared.events.recent();
        let event = events.last().unwrap();
        let shop = event.shop.as_ref().map(ShopId::as_str);
        let told = (shop, event.key_id.as_deref(), event.route.as_ref().unwrap().as_str());
        assert_eq!(told, whose, "{path}");
        let mechanism = if shop.is_some() { Mechanism::ShopApiKey } else { Mechanism::Anonymous };
        assert_eq!(event.mechanism, Some(mechanism));
    }
}

#[test]
fn upstreams_that_hang() {
    let upstream = Upstream::new(|mut stream, _| {
        read_message(&mut stream);
        // Until the gateway gives up.
        assert!(read_message(&mut stream).is_none());
    });
    let gateway = Gateway::with(upstream.address, |_, app| app.response_timeout = SHORT);
    let response =
        gateway.ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    problem(&response, 504, "upstream_timeout");
    assert!(gateway.counted("upstream_timeout", "error", 1));
}

#[test]
fn a_truncated_response_never_looks_whole() {
    for (head, version) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "1.0"),
    ] {
        for hangs in [false, true] {
            let upstream = Upstream::new(move |mut stream, _| {
                read_message(&mut stream);
                stream.write_all(head.as_bytes()).unwrap();
                if hangs {
                    read_message(&mut stream);
                }
            });
            let gateway = Gateway::with(upstream.address, |_, app| app.body_timeout = SHORT);
            let response =
                gateway.ask_and_close(&format!("GET /open HTTP/{version}\r\nHost: a\r\n\r\n"));
            // Broken off before anything was passed on, which a fast upstream manages.
            if !hangs && response.contains(" 502 ") {
                problem(&response, 502, "upstream_error");
                continue;
            }
            assert!(response.contains(" 200 OK\r\n"), "{response}");
            assert!(!response.contains("\r\n0\r\n\r\n"), "{response}");
            assert!(response.ends_with("<ConnectionReset>"), "{response}");
        }
    }
}

#[test]
fn more_connections_than_there_are_places() {
    let upstream = Upstream::answering(OK);
    let gateway =
        Gateway::with(upstream.address, |server, _| server.connections_max = NonZeroUsize::MIN);
    let mut first = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(read_message(&mut first).unwrap().ends_with("ok"));
    let response = gateway.ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    problem(&response, 503, "overloaded");
    first.write_all(b"GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_all(first).ends_with("ok"));
    // The place is free once the worker has seen the close.
    let mut tries = 0;
    while !gateway
        .ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .ends_with("ok")
    {
        tries += 1;
        assert!(tries < 1000);
    }
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    let (release, held) = sync_channel::<()>(0);
    let held = Mutex::new(held);
    let upstream = Upstream::new(move |mut stream, report| {
        while let Some(message) = read_message(&mut stream) {
            report.send(message).unwrap();
            held.lock().unwrap().recv().unwrap();
            if stream.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let mut gateway = Gateway::new(upstream.address);
    let idle = gateway.connect();
    let mut used = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.saw();
    release.send(()).unwrap();
    read_message(&mut used).unwrap();
    let busy = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.saw();
    let running = gateway.running.take().unwrap();
    let drain = thread::spawn(move || running.drain(PATIENCE));
    assert_eq!(read_all(idle), "");
    assert_eq!(read_all(used), "");
    release.send(()).unwrap();
    let response = read_all(busy);
    assert_eq!(field(&response, "connection"), Some("close"), "{response}");
    assert!(response.ends_with("ok"));
    assert_eq!(drain.join().unwrap(), 0);
    assert!(TcpStream::connect(gateway.address).is_err());
}

#[test]
fn a_drain_cuts_what_does_not_finish() {
    let upstream = Upstream::new(|mut stream, report| {
        report.send(read_message(&mut stream).unwrap()).unwrap();
        read_message(&mut stream);
    });
    let mut gateway = Gateway::new(upstream.address);
    let busy = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.saw();
    assert_eq!(gateway.running.as_ref().unwrap().connections(), 1);
    assert_eq!(gateway.running.take().unwrap().drain(SHORT), 1);
    assert!(!read_all(busy).contains("HTTP/1.1 200"));
}

#[test]
fn limits_speak_and_refuse() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&settings(upstream.address), policies(1));
    let get = "GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(gateway.ask_and_close(get).ends_with("ok"));
    let refused = gateway.ask_and_close(get);
    problem(&refused, 429, "rate_limited");
    assert_eq!(field(&refused, "ratelimit-policy"), Some("\"all\";q=1;w=60"));
    let after: u64 = field(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((59..=60).contains(&after), "{refused}");
    assert_eq!(field(&refused, "ratelimit"), Some(&*format!("\"all\";r=0;t={after}")));
    assert!(gateway.counted("rate_limited", "refused", 1));
}

fn issue_request(body: &str) -> String {
    format!(
        "POST /shops/me/widget-token HTTP/1.1\r\nHost: a\r\nX-Shop-API-Key: {KEY}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn widget_tokens_are_issued_over_the_channel() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    let mut requests = gateway.issue.lock().unwrap().take().unwrap();
    let admin = thread::spawn(move || {
        let request = requests.blocking_recv().unwrap();
        let asked = (request.shop.to_string(), request.key_id, request.scopes, request.lifetime);
        let issued = IssuedToken {
            token: SecretText::new("lkw1_x".to_owned()),
            expires_at: Timestamp::from_unix_s(1_700_000_000),
            scopes: "search".to_owned(),
            id: TokenId(5),
        };
        request.reply.send(Ok(issued)).unwrap();
        asked
    });
    let response =
        gateway.ask_and_close(&issue_request(r#"{"scopes":["search"],"lifetime_seconds":60}"#));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{response}");
    assert_eq!(field(head, "cache-control"), Some("no-store"));
    assert!(field(head, "ratelimit").is_some());
    assert_eq!(
        body,
        r#"{"token":"lkw1_x","expires_at":"2023-11-14T22:13:20Z","scopes":["search"]}"#
    );
    let asked = admin.join().unwrap();
    assert_eq!(asked, ("demo".to_owned(), KeyId(7), "search".to_owned(), Duration::from_secs(60)));
    // The receiver is gone now.
    problem(&gateway.ask_and_close(&issue_request("")), 503, "overloaded");
    problem(&gateway.ask_and_close(&issue_request("{\"scope\":1}")), 400, "bad_request");
    let long = " ".repeat(5000);
    problem(&gateway.ask_and_close(&issue_request(&long)), 413, "payload_too_large");
    let other = issue_request("").replace("/me/", "/other/");
    problem(&gateway.ask_and_close(&other), 403, "cross_tenant");
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn settings_take_effect_while_serving() {
    let (one, two) = (Upstream::answering(OK), Upstream::answering(OK));
    let gateway = Gateway::new(one.address);
    let mut stream = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(read_message(&mut stream).unwrap().contains("x-ratelimit-limit"));
    one.saw();
    let mut next = settings(two.address);
    next.x_ratelimit = false;
    gateway.shared.settings.store(Arc::new(next));
    stream.write_all(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(!read_message(&mut stream).unwrap().contains("x-ratelimit-limit"));
    two.saw();
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let upstream = Upstream::new(|mut stream, report| {
        read_message(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 16384]).is_ok() {}
        report.send(String::new()).unwrap();
    });
    let gateway = Gateway::with(upstream.address, |server, _| server.body_timeout = SHORT);
    let stream = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    // The upstream is rid of its endless response when the client is.
    upstream.saw();
    drop(stream);
}

#[test]
fn an_upstream_is_spared_what_the_client_does_not_wait_for() {
    let upstream = Upstream::new(|mut stream, report| {
        report.send(read_message(&mut stream).unwrap()).unwrap();
        assert!(read_message(&mut stream).is_none());
        report.send("end".to_owned()).unwrap();
    });
    let gateway = Gateway::new(upstream.address);
    let stream = gateway.send("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.saw();
    drop(stream);
    assert_eq!(upstream.saw(), "end");
}

#[test]
fn workers_share_a_port_and_the_bound_on_connections() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with(upstream.address, |server, _| {
        server.workers = NonZeroUsize::new(3).unwrap();
        server.connections_max = NonZeroUsize::new(8).unwrap();
    });
    let get = "GET /open HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut open: Vec<TcpStream> = (0..8).map(|_| gateway.send(get)).collect();
    let ids: std::collections::BTreeSet<String> = open
        .iter_mut()
        .map(|s| field(&read_message(s).unwrap(), "x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 8);
    problem(&gateway.ask_and_close(get), 503, "overloaded");
    drop(open);
}

/// A request with a JWT whose key is not known.
fn unknown_key() -> String {
    let text = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let header = text(r#"{"alg":"ES256","kid":"new"}"#);
    let claims = text(r#"{"iss":"https://id.example","aud":"shop","sub":"a","exp":9999999999}"#);
    let token = format!("{header}.{claims}.{}", text(&"x".repeat(64)));
    format!(
        "GET /search HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

#[test]
fn a_key_that_is_not_known_is_asked_for_once() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    let response = gateway.ask_and_close(&unknown_key());
    problem(&response, 401, "invalid_credential");
    let challenge = field(&response, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert_eq!(gateway.keys.0.load(Ordering::SeqCst), 1);
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 0);
}
