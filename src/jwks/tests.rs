//! Refreshes against a small provider on the loopback interface; no test waits for real time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::clock::ManualClock;
use crate::jose::TokenSigner;

const AT: Timestamp = Timestamp::from_unix_s(1_700_000_000);
const COOLDOWN: Duration = Duration::from_secs(30);

/// An identity provider: answers by path, counts what it is asked, waits for `gate` if closed.
struct Provider {
    address: SocketAddr,
    answers: Mutex<HashMap<String, (u16, Vec<u8>)>>,
    hits: AtomicUsize,
    gate: Semaphore,
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            answers: Mutex::default(),
            hits: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let serving = Arc::clone(&provider);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let provider = Arc::clone(&serving);
                let service = service_fn(move |request: Request<Incoming>| {
                    let provider = Arc::clone(&provider);
                    async move { Ok::<_, Infallible>(provider.answer(&request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        provider
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        self.hits.fetch_add(1, Ordering::Relaxed);
        let _open = self.gate.acquire().await.unwrap();
        let answers = self.answers.lock().unwrap();
        let (status, body) = answers.get(request.uri().path()).cloned().unwrap_or((404, vec![]));
        Response::builder()
            .status(status)
            .header("location", "/elsewhere")
            .body(Full::from(body))
            .unwrap()
    }

    fn put(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// From now on every answer waits for [`Provider::open`].
    fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open(&self) {
        self.gate.add_permits(1);
    }
}

/// Remembers the last set of each issuer, and reports every refresh.
struct Sink {
    published: Mutex<HashMap<Name, (KeySet, String)>>,
    refreshed: mpsc::Sender<Result<usize, RefreshError>>,
}

impl KeySink for Sink {
    fn publish(&self, issuer: &Name, set: KeySet, source_json: &str) {
        let entry = (set, source_json.to_owned());
        self.published.lock().unwrap().insert(issuer.clone(), entry);
    }

    fn refreshed(&self, _issuer: &Name, result: Result<usize, &RefreshError>) {
        // A full channel means that the test does not look.
        drop(self.refreshed.try_send(result.map_err(Clone::clone)));
    }
}

struct World {
    jwks: Arc<Jwks>,
    sink: Arc<Sink>,
    clock: Arc<ManualClock>,
    events: mpsc::Receiver<Result<usize, RefreshError>>,
}

fn idp() -> Name {
    Name::parse("idp").unwrap()
}

fn source(source: KeySource) -> IssuerSource {
    IssuerSource {
        issuer: idp(),
        iss: "https://idp.example".into(),
        source,
        ca_file: None,
        refresh_interval: Duration::from_secs(300),
        cooldown: COOLDOWN,
        timeout: Duration::from_secs(5),
    }
}

fn jwks_of(kids: &[&str]) -> String {
    let jwk = |kid: &&str| TokenSigner::generate(kid, Algorithm::EdDSA).unwrap().jwk().clone();
    json!({ "keys": kids.iter().map(jwk).collect::<Vec<_>>() }).to_string()
}

impl World {
    /// A keeper of one source, not yet running.
    fn new(from: KeySource) -> Self {
        let (refreshed, events) = mpsc::channel(64);
        let published = Mutex::default();
        let sink = Arc::new(Sink { published, refreshed });
        let clock = Arc::new(ManualClock::at(AT));
        let jwks = Arc::new(Jwks::new(vec![source(from)], sink.clone(), clock.clone()));
        Self { jwks, sink, clock, events }
    }

    /// The same, running; the outcome is that of the first fetch.
    async fn run(from: KeySource) -> (Self, Outcome) {
        let world = Self::new(from);
        tokio::spawn(Arc::clone(&world.jwks).run(pending()));
        let first = world.refresh(RefreshReason::Operator).await;
        (world, first)
    }

    async fn refresh(&self, reason: RefreshReason) -> Outcome {
        self.jwks.refresh(&idp(), reason).await
    }

    /// The kids of the published set; empty if none was ever published.
    fn kids(&self) -> Vec<String> {
        let published = self.sink.published.lock().unwrap();
        let keys = published.get(&idp()).map(|(set, _)| set.keys()).unwrap_or_default();
        keys.iter().filter_map(|k| k.kid()).map(ToOwned::to_owned).collect()
    }

    fn status(&self) -> IssuerStatus {
        self.jwks.status().remove(0)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with whole outcomes")]
fn fetched(keys: usize, skipped: usize) -> Outcome {
    Ok(Refreshed::Fetched { keys, skipped })
}

#[tokio::test]
async fn by_url_by_discovery_by_file() {
    let provider = Provider::start().await;
    let json = jwks_of(&["a", "b"]);
    provider.put("/jwks", 200, json.clone());
    for (base, path) in [
        ("/", "/.well-known/openid-configuration"),
        ("/tenant", "/tenant/.well-known/openid-configuration"),
    ] {
        let document = json!({"issuer": "https://idp.example", "jwks_uri": provider.url("/jwks")});
        provider.put(path, 200, document.to_string());
        let (world, first) = World::run(KeySource::Discovery(provider.url(base))).await;
        assert_eq!((first, world.kids()), (fetched(2, 0), vec!["a".into(), "b".into()]));
    }
    let (world, first) = World::run(KeySource::JwksUrl(provider.url("/jwks"))).await;
    assert_eq!(first, fetched(2, 0));
    assert_eq!(world.sink.published.lock().unwrap()[&idp()].1, json);
    let status = world.status();
    assert_eq!((status.last_success, status.last_error, status.keys), (Some(AT), None, 2));
    assert_eq!(status.next_refresh, Some(AT + Duration::from_secs(300)));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &json).unwrap();
    let (world, first) = World::run(KeySource::File(file.path().to_owned())).await;
    assert_eq!((first, world.kids().len()), (fetched(2, 0), 2));
    std::fs::write(file.path(), jwks_of(&["c"])).unwrap();
    assert_eq!(world.refresh(RefreshReason::Operator).await, fetched(1, 0));
    assert_eq!(world.kids(), ["c"]);
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_last_good_set() {
    let provider = Provider::start().await;
    provider.put("/jwks", 200, jwks_of(&["good"]));
    let (world, first) = World::run(KeySource::JwksUrl(provider.url("/jwks"))).await;
    assert_eq!(first, fetched(1, 0));
    let long = format!("{}{}", jwks_of(&["x"]), " ".repeat(KeySet::BYTES_MAX));
    let rows: [(u16, Vec<u8>, &str); 10] = [
        (500, jwks_of(&["x"]).into(), "answered 500"),
        (302, vec![], "answered 302"),
        (404, vec![], "answered 404"),
        (206, jwks_of(&["x"]).into(), "answered 206"),
        (200, long.into(), "longer than 256 KiB"),
        (200, b"<html>".to_vec(), "not JSON"),
        (200, b"{}".to_vec(), "not a key set"),
        (200, b"{\"keys\":[]}".to_vec(), "none of the set's 0 keys"),
        (200, br#"{"keys":[{"kty":"oct","k":"AA"}]}"#.to_vec(), "the first: it holds secret"),
        (200, vec![0xff], "not UTF-8"),
    ];
    for (failures, (status, body, message)) in (1..).zip(rows) {
        provider.put("/jwks", status, body);
        let error = world.refresh(RefreshReason::Operator).await.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(world.kids(), ["good"]);
        let now = world.status();
        assert_eq!((now.failures, now.last_success, now.keys), (failures, Some(AT), 1));
        assert_eq!(now.last_error, Some(error));
    }
    provider.put("/jwks", 200, jwks_of(&["new"]));
    assert_eq!(world.refresh(RefreshReason::Operator).await, fetched(1, 0));
    assert_eq!((world.kids(), world.status().failures), (vec!["new".to_owned()], 0));
}

#[tokio::test]
async fn discovery_documents_of_another_or_of_none() {
    let provider = Provider::start().await;
    let jwks = provider.url("/jwks");
    provider.put("/jwks", 200, jwks_of(&["a"]));
    let iss = "https://idp.example";
    let rows = [
        ("nothing".to_owned(), "not JSON"),
        (json!({"jwks_uri": jwks}).to_string(), "no `issuer`"),
        (json!({"issuer": 7, "jwks_uri": jwks}).to_string(), "no `issuer`"),
        (json!({"issuer": format!("{iss}/"), "jwks_uri": jwks}).to_string(), "not the configured"),
        (json!({"issuer": "https://evil.example", "jwks_uri": jwks}).to_string(), "not the conf"),
        (json!({"issuer": iss}).to_string(), "no `jwks_uri`"),
        (json!({"issuer": iss, "jwks_uri": "/jwks"}).to_string(), "not an http(s) URL"),
        (json!({"issuer": iss, "jwks_uri": "file:///etc/passwd"}).to_string(), "not an http(s)"),
    ];
    for (document, message) in rows {
        provider.put("/.well-known/openid-configuration", 200, document.clone());
        let (world, first) = World::run(KeySource::Discovery(provider.url(""))).await;
        let error = first.unwrap_err().to_string();
        assert!(error.contains(message), "{document}: {error}");
        assert!(world.kids().is_empty());
    }
}

#[tokio::test]
async fn sources_that_cannot_be_reached() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let provider = Provider::start().await;
    let directory = tempfile::tempdir().unwrap();
    let url = |text: String| KeySource::JwksUrl(text);
    let rows = [
        (url(format!("http://{closed}/")), "refused"),
        // Plain text where TLS is expected.
        (url(format!("https://{}/", provider.address)), "https://"),
        (url("idp.example/jwks".into()), "not an absolute"),
        (url("ftp://idp.example/".into()), "not an absolute"),
        (url("https://user:hunter2@idp.example/".into()), "not an absolute"),
        (url(String::new()), "not an absolute"),
        (KeySource::File("/nonexistent/jwks.json".into()), "/nonexistent/jwks.json"),
        (KeySource::File(directory.path().to_owned()), "not a regular file"),
    ];
    for (source, message) in rows {
        let (_, first) = World::run(source.clone()).await;
        let error = first.unwrap_err().to_string();
        assert!(error.contains(message), "{source:?}: {error}");
        assert!(!error.contains("hunter2"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_times_out() {
    // The kernel accepts, nobody answers; the paused clock jumps as soon as all are waiting.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (world, first) = World::run(KeySource::JwksUrl(url)).await;
    let after = Duration::from_secs(5);
    assert_eq!(first, Err(RefreshError::Timeout { after }));
    assert_eq!(world.status().failures, 1);
}

#[tokio::test]
async fn unknown_kids_refresh_once_per_cooldown() {
    let provider = Provider::start().await;
    provider.put("/jwks", 200, jwks_of(&["a"]));
    let (world, _) = World::run(KeySource::JwksUrl(provider.url("/jwks"))).await;
    provider.put("/jwks", 200, jwks_of(&["b"]));
    // The first fetch was by schedule: a key that appeared just after it is found at once.
    assert_eq!(world.refresh(RefreshReason::UnknownKid).await, fetched(1, 0));
    assert_eq!((world.kids(), provider.hits()), (vec!["b".to_owned()], 2));
    for _ in 0..10 {
        let again = world.refresh(RefreshReason::UnknownKid).await;
        assert_eq!(again, Ok(Refreshed::CoolingDown));
    }
    world.clock.advance(COOLDOWN.checked_sub(Duration::from_millis(1)).unwrap());
    let again = world.refresh(RefreshReason::UnknownKid).await;
    assert_eq!((again, provider.hits()), (Ok(Refreshed::CoolingDown), 2));
    // An operator is not subject to it.
    assert_eq!(world.refresh(RefreshReason::Operator).await, fetched(1, 0));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.refresh(RefreshReason::UnknownKid).await, fetched(1, 0));
    assert_eq!(provider.hits(), 4);
    // A step of the wall clock neither shortens nor lengthens it.
    world.clock.step_to(Timestamp::MAX);
    let again = world.refresh(RefreshReason::UnknownKid).await;
    assert_eq!(again, Ok(Refreshed::CoolingDown));
}

/// Yields until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn concurrent_callers_share_one_fetch() {
    let provider = Provider::start().await;
    provider.put("/jwks", 200, jwks_of(&["a"]));
    let (world, _) = World::run(KeySource::JwksUrl(provider.url("/jwks"))).await;
    provider.close();
    let mut callers = JoinSet::new();
    for index in 0..100 {
        let jwks = Arc::clone(&world.jwks);
        let reason = match index % 3 {
            0 => RefreshReason::Operator,
            1 => RefreshReason::Scheduled,
            _ => RefreshReason::UnknownKid,
        };
        callers.spawn(async move { jwks.refresh(&idp(), reason).await });
    }
    // One gives up; the fetch is not its own to break off.
    let jwks = Arc::clone(&world.jwks);
    let gone = tokio::spawn(async move { jwks.refresh(&idp(), RefreshReason::UnknownKid).await });
    let waiting = || world.jwks.lanes[0].state().waiters.len();
    until(|| waiting() == 101 && provider.hits() == 2).await;
    gone.abort();
    provider.open();
    for outcome in callers.join_all().await {
        assert_eq!(outcome, fetched(1, 0));
    }
    assert_eq!((provider.hits(), waiting()), (2, 0));
}

#[tokio::test]
async fn waiting_is_bounded_and_ends() {
    let provider = Provider::start().await;
    provider.put("/jwks", 200, jwks_of(&["a"]));
    provider.close();
    let world = World::new(KeySource::JwksUrl(provider.url("/jwks")));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(Arc::clone(&world.jwks).run(async move { drop(stopped.await) }));
    let mut callers = JoinSet::new();
    for _ in 0..WAITERS_MAX {
        let jwks = Arc::clone(&world.jwks);
        callers.spawn(async move { jwks.refresh(&idp(), RefreshReason::Operator).await });
    }
    until(|| world.jwks.lanes[0].state().waiters.len() == WAITERS_MAX && provider.hits() == 1)
        .await;
    assert_eq!(world.refresh(RefreshReason::UnknownKid).await, Err(RefreshError::Busy));
    let stranger = Name::parse("stranger").unwrap();
    let unknown = world.jwks.refresh(&stranger, RefreshReason::Operator).await;
    assert_eq!(unknown, Err(RefreshError::UnknownIssuer));
    drop(stop);
    running.await.unwrap();
    for outcome in callers.join_all().await {
        assert_eq!(outcome, Err(RefreshError::Stopped));
    }
    assert_eq!(world.refresh(RefreshReason::Operator).await, Err(RefreshError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_and_successes_repeated() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut world = World::new(KeySource::File(file.path().to_owned()));
    tokio::spawn(Arc::clone(&world.jwks).run(pending()));
    for failures in 1..=8_u32 {
        assert!(world.events.recv().await.unwrap().is_err());
        let status = world.status();
        let delay = next_delay(failures, Duration::from_secs(300));
        assert_eq!((status.failures, status.next_refresh), (failures, Some(AT + delay)));
    }
    std::fs::write(file.path(), jwks_of(&["a"])).unwrap();
    for _ in 0..3 {
        assert_eq!(world.events.recv().await, Some(Ok(1)));
        assert_eq!(world.status().next_refresh, Some(AT + Duration::from_secs(300)));
    }
}

#[test]
fn delays() {
    let interval = Duration::from_secs(300);
    let delays: Vec<u64> = (0..10).map(|n| next_delay(n, interval).as_secs()).collect();
    assert_eq!(delays, [300, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(next_delay(u32::MAX, interval), RETRY_MAX);
    assert_eq!(next_delay(5, Duration::from_secs(3)).as_secs(), 3);
    assert_eq!(next_delay(0, Duration::ZERO), RETRY_MIN);
}
