//! A latchkey that has everything to tell, under load, and the Prometheus that scrapes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::prometheus::Prometheus;
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, get, request};
use crate::support::idp::{Key, Provider};
use crate::support::tls::Authority;
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

/// The job's name, as the rules have it.
pub(super) const JOB: &str = "latchkey";

/// Two gateways: one under load, and one that has certificates and is left alone.
pub(super) struct Scene {
    pub(super) prometheus: Prometheus,
    stop: Arc<AtomicBool>,
    load: Option<JoinHandle<()>>,
    pub(super) upstream: Upstream,
    _provider: Provider,
    _authority: Authority,
    _sites: [Site; 2],
    _secure: Gateway,
}

impl Scene {
    pub(super) fn start() -> Self {
        let upstream = Upstream::start(Behaviour::Echo);
        let key = Key::ed25519("one");
        let provider = Provider::start(&[&key]);
        let busy_site = Site::new(Some(&upstream), &config(&provider));
        let gateway = busy_site.start();
        let busy = gateway.admin;
        let authority = Authority::new();
        authority.install("a", &authority.issue(&["a.example"]));
        let sections =
            authority.section(&["a"], "") + &authority.section_of("admin.tls", &["a"], "");
        let secure_site = Site::new(Some(&upstream), &sections);
        let secure = secure_site.start();
        let prometheus = Prometheus::start(&format!(
            "  - job_name: {JOB}\n    static_configs:\n      - targets: [\"{busy}\"]\n\
             \x20 - job_name: secure\n    scheme: https\n    tls_config:\n      ca_file: {}\n\
             \x20     server_name: a.example\n    static_configs:\n      - targets: [\"{}\"]\n\
             \x20   relabel_configs:\n      - target_label: job\n        replacement: {JOB}\n",
            authority.path("ca.pem").display(),
            secure.admin,
        ));
        gateway.shop("demo").shop("other");
        let requests = requests(&gateway, &provider, &key);
        let stop = Arc::new(AtomicBool::new(false));
        let load = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || load(&gateway, &requests, &stop)
        });
        Self {
            prometheus,
            stop,
            load: Some(load),
            upstream,
            _provider: provider,
            _authority: authority,
            _sites: [busy_site, secure_site],
            _secure: secure,
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A gateway whose load failed is known to have failed by what Prometheus lacks.
        let _ = self.load.take().map(JoinHandle::join);
    }
}

/// Limits that are met, one in shadow mode, an issuer that is there and one that is not, backups.
fn config(provider: &Provider) -> String {
    format!(
        "[failed_attempts]\nlimit = 250000\n[backup]\ninterval = \"1h\"\n\
         [[limits]]\nname = \"tight\"\npaths = [\"/api/plugin/*\"]\nkey = \"shop\"\nlimit = 5\n\
         window = \"1s\"\n\
         [[limits]]\nname = \"tried\"\npaths = [\"/api/widget/*\"]\nkey = \"shop\"\nlimit = 1\n\
         window = \"1h\"\nshadow = true\n\
         [[limits]]\nname = \"rest\"\npaths = [\"/*\"]\nkey = \"address\"\nlimit = 250000\n\
         window = \"1s\"\nfallback = true\n\
         [[issuers]]\nname = \"here\"\nissuer = \"{}\"\naudiences = [\"latchkey\"]\n\
         algorithms = [\"EdDSA\"]\ndiscovery = true\n\
         [[issuers]]\nname = \"gone\"\nissuer = \"http://127.0.0.1:9\"\n\
         audiences = [\"latchkey\"]\nalgorithms = [\"EdDSA\"]\n\
         jwks_url = \"http://127.0.0.1:9/keys\"\n",
        provider.issuer()
    )
}

/// One request of every kind of end.
fn requests(gateway: &Gateway, provider: &Provider, key: &Key) -> Vec<Request> {
    let (_, secret) = gateway.key("demo", &json!({}));
    let (_, token) = gateway.token("demo", &json!({"scopes": ["search"]}));
    let claims = provider.claims();
    let mut elsewhere = claims.clone();
    elsewhere["iss"] = json!("http://127.0.0.1:9");
    let search = |token: &str| get("/api/search/x").bearer(token);
    until(|| (search(&key.sign(&claims)).send(gateway.data).status == 200).then_some(()));
    vec![
        get("/api/plugin/shops/demo/x").key(&secret),
        get("/api/plugin/shops/other/x").key(&secret),
        get("/api/plugin/shops/demo/x"),
        get("/api/plugin/shops/demo/x").key("sk_00000000000000000000000000000000"),
        get("/api/widget/search").widget(&token),
        get("/api/widget/compare").widget(&token),
        search(&key.sign(&claims)),
        search(&key.sign(&elsewhere)),
        search("not.a.token"),
        get("/api/search/x"),
        get("/nowhere"),
        request("HEAD", "/api/search/x"),
    ]
}

/// Sends them all again and again, and changes something now and then, until `stop`.
fn load(gateway: &Gateway, requests: &[Request], stop: &AtomicBool) {
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for request in requests {
            let response = gateway.send(request);
            assert!(response.status < 500 || response.status == 503, "{}", response.outcome());
        }
        // For the store's sake, and without end: keys would reach their bound.
        gateway.api_ok("PATCH", "/shops/other", &json!({"name": format!("other {turn}")}));
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
