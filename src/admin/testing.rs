//! A node on a temporary store, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::caller::{Caller, Via};
use super::node::{Node, OpenError};
use super::router;
use crate::clock::{ManualClock, Timestamp};
use crate::config::{self, Config, ConfigFile, Sources};
use crate::id::AdminTokenId;
use crate::metrics::Metrics;
use crate::secret::SystemEntropy;
use crate::store::Role;

/// When the tests' clock starts.
pub(super) const START: Timestamp = Timestamp::from_unix_s(1_800_000_000);

/// A configuration that keeps everything in `dir`; `more` is TOML.
pub(super) fn config(dir: &TempDir, more: &str) -> Config {
    let at = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "[store]\npath = {:?}\nmaster_key_file = {:?}\n[admin]\nsocket = {:?}\n{more}",
        at("latchkey.redb"),
        at("master.key"),
        at("admin.sock"),
    );
    let path = dir.path().join("latchkey.toml");
    std::fs::write(&path, text).unwrap();
    let sources = Sources {
        file: ConfigFile::Required(path),
        environment: BTreeMap::new(),
        overrides: Vec::new(),
    };
    config::load(&sources).unwrap()
}

/// A node, its clock and its directory.
pub(super) struct Bench {
    pub(super) node: Arc<Node>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) dir: TempDir,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// A member of the body, as text.
    pub(super) fn get(&self, pointer: &str) -> String {
        match self.json().pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => panic!("no {pointer} in {}", self.text),
        }
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// A problem of this status and code.
    #[track_caller]
    pub(super) fn problem(self, status: u16, code: &str) -> Self {
        let this = self.expect(status);
        assert_eq!(this.headers["content-type"], "application/problem+json", "{}", this.text);
        assert_eq!(this.get("/code"), code, "{}", this.text);
        assert_eq!(this.get("/status"), status.to_string());
        assert_eq!(this.get("/type"), "about:blank");
        assert!(!this.get("/title").is_empty() && !this.get("/detail").is_empty());
        this
    }

    /// The fields that a problem names.
    pub(super) fn fields(&self) -> Vec<String> {
        let json = self.json();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect()
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    pub(super) fn with(more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let node = open(config(&dir, more), &clock).unwrap();
        Self { node, clock, dir }
    }

    /// Closes the store and opens it again.
    pub(super) fn restart(self) -> Self {
        let config = Config::clone(&self.node.config.load());
        let Self { node, clock, dir } = self;
        assert!(Arc::into_inner(node).is_some(), "somebody still holds the node");
        let node = open(config, &clock).unwrap();
        Self { node, clock, dir }
    }

    /// Sends a request as the owner.
    pub(super) async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        self.send_as(Role::Owner, method, path, body).await
    }

    pub(super) async fn send_as(
        &self,
        role: Role,
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let mut request = Self::request(method, path, body);
        let via = Via::Token(AdminTokenId(1));
        let name = "test".to_owned();
        request.extensions_mut().insert(Caller { role, name, via, ..Caller::socket() });
        self.answer(request).await
    }

    /// A request from nobody in particular.
    pub(super) fn request(method: Method, path: &str, body: &str) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        request.body(Body::from(body.to_owned())).unwrap()
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Answer {
        let response = router(Arc::clone(&self.node)).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, body).await
    }

    pub(super) async fn put(&self, path: &str, body: &str) -> Answer {
        self.send(Method::PUT, path, body).await
    }

    pub(super) async fn patch(&self, path: &str, body: &str) -> Answer {
        self.send(Method::PATCH, path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, "").await
    }

    /// Creates a shop on `https://<id>.example`.
    pub(super) async fn shop(&self, id: &str) {
        let body = format!(r#"{{"id":"{id}","url":"https://{id}.example"}}"#);
        self.post("/api/v1/shops", &body).await.expect(201);
    }

    /// Creates a key: its id and its secret.
    pub(super) async fn key(&self, shop: &str) -> (String, String) {
        let made = self.post(&format!("/api/v1/shops/{shop}/keys"), "{}").await.expect(201);
        (made.get("/id"), made.get("/secret"))
    }

    /// Issues a widget token: its id and its text.
    pub(super) async fn token(&self, shop: &str, body: &str) -> (String, String) {
        let path = format!("/api/v1/shops/{shop}/widget-tokens");
        let made = self.post(&path, body).await.expect(201);
        (made.get("/id"), made.get("/token"))
    }

    /// What `explain` says of a request: its code, or `allow`.
    pub(super) async fn decide(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> String {
        let headers: serde_json::Map<String, Value> =
            headers.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
        let body = serde_json::json!({ "method": method, "path": path, "headers": headers });
        let answer = self.post("/api/v1/explain", &body.to_string()).await.expect(200);
        match answer.get("/decision").as_str() {
            "deny" => answer.get("/code"),
            other => other.to_owned(),
        }
    }

    /// What becomes of an API key on its own shop's path.
    pub(super) async fn decide_key(&self, secret: &str) -> String {
        self.decide("GET", "/api/plugin/shops/me", &[("x-shop-api-key", secret)]).await
    }

    /// What becomes of a widget token on a path that needs no scope.
    pub(super) async fn decide_token(&self, token: &str) -> String {
        self.decide("GET", "/api/widget/config", &[("x-widget-token", token)]).await
    }
}

pub(super) fn open(config: Config, clock: &Arc<ManualClock>) -> Result<Arc<Node>, OpenError> {
    let metrics = Arc::new(Metrics::new("test").unwrap());
    Node::open(config, Arc::clone(clock) as _, Arc::new(SystemEntropy::new()), metrics)
}
