//! Forward-auth through real proxies, each with the snippet that is shipped for it: one table of
//! what a client sees and what the API behind the proxy gets, the same for all of them.
//!
//! Needs the proxies: `tests/run proxies` installs them, says where they are, and runs these tests.

mod peer;
mod questions;
mod table;

use serde_json::json;

use self::peer::{CLIENT, Kind, Peer};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, Response, get};
use crate::support::until;
use crate::support::upstream::{Behaviour, Received, Upstream};

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn nginx() {
    conforms(Kind::Nginx);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn traefik() {
    conforms(Kind::Traefik);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn caddy() {
    conforms(Kind::Caddy);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn haproxy() {
    conforms(Kind::HaProxy);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn envoy() {
    conforms(Kind::Envoy);
}

/// latchkey, a proxy that asks it, and the API behind the proxy.
struct Scene {
    kind: Kind,
    site: Site,
    gateway: Option<Gateway>,
    api: Upstream,
    proxy: Peer,
    key_id: String,
    key: String,
    /// A key that may be used from [`CLIENT`] only, and one that may be used from elsewhere only.
    key_here: String,
    key_elsewhere: String,
    token: String,
    complaints: Vec<String>,
}

fn conforms(kind: Kind) {
    let mut scene = Scene::new(kind);
    table::run(&mut scene);
    let complaints = std::mem::take(&mut scene.complaints);
    assert!(
        complaints.is_empty(),
        "\n{kind:?}:\n{}\n--- {kind:?} wrote:\n{}\n",
        complaints.join("\n"),
        scene.proxy.last_words()
    );
}

impl Scene {
    fn new(kind: Kind) -> Self {
        // It says what is latchkey's to say.
        let api = Upstream::start(Behaviour::Fields(
            "X-RateLimit-Limit: upstream\r\nAccess-Control-Allow-Origin: *\r\n",
        ));
        let mut site = Site::new(
            None,
            &format!(
                "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
                 [forward_auth]\ncontracts = [\"{}\"]\n\
                 [failed_attempts]\nlimit = 1000\n\
                 [[limits]]\nname = \"twice\"\npaths = [\"/api/plugin/shops/{{shopId}}/twice\"]\n\
                 key = \"shop\"\nlimit = 2\nwindow = \"1h\"\n\
                 [[limits]]\nname = \"rest\"\npaths = [\"/*\"]\nkey = \"shop\"\nlimit = 1000\n\
                 window = \"1m\"\nfallback = true\n\
                 [[limits]]\nname = \"anonymous\"\npaths = [\"/api/search/*\"]\n\
                 mechanisms = [\"anonymous\"]\nkey = \"address\"\nlimit = 1000\nwindow = \"1m\"\n",
                kind.name()
            ),
        );
        let gateway = site.start();
        site.listen_at(gateway.data);
        gateway.shop("demo").shop("other");
        let (key_id, key) = gateway.key("demo", &json!({}));
        let (_, key_here) = gateway.key("demo", &json!({"networks": [format!("{CLIENT}/32")]}));
        let (_, key_elsewhere) = gateway.key("demo", &json!({"networks": ["192.0.2.0/24"]}));
        let (_, token) = gateway.token("demo", &json!({"scopes": ["search"]}));
        let proxy = Peer::start(kind, gateway.data, api.address);
        let scene = Self {
            kind,
            site,
            gateway: Some(gateway),
            api,
            proxy,
            key_id,
            key,
            key_here,
            key_elsewhere,
            token,
            complaints: Vec::new(),
        };
        scene.wait_until_it_passes();
        scene
    }

    /// Listening is not yet serving.
    fn wait_until_it_passes(&self) {
        let ready = get("/api/search/ready");
        let mut last = None;
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(|| {
                last = self.proxy.send(&ready);
                last.as_ref().filter(|answer| answer.status == 200).map(|_| ())
            });
        }));
        assert!(
            passed.is_ok(),
            "{:?} never let a request pass: {last:?}\n{}\n--- latchkey:\n{}",
            self.kind,
            self.proxy.last_words(),
            self.gateway.as_ref().map(Gateway::log_lines).unwrap_or_default().join("\n")
        );
    }

    /// Sends a request; what the client got, and what the API got of it, if anything.
    fn send(&mut self, name: &str, request: &Request) -> Option<(Response, Option<Received>)> {
        let before = self.api.count();
        let Some(answer) = self.proxy.send(request) else {
            self.complain(name, "no whole answer");
            return None;
        };
        let seen = self.api.received().split_off(before);
        if seen.len() > 1 {
            self.complain(name, format!("the API got {} requests", seen.len()));
        }
        Some((answer, seen.into_iter().next()))
    }

    fn complain(&mut self, name: &str, what: impl AsRef<str>) {
        self.complaints.push(format!("{name}: {}", what.as_ref()));
    }

    fn check(&mut self, name: &str, what: &str, got: Option<&str>, expected: Option<&str>) {
        if got != expected {
            self.complain(name, format!("{what} is {got:?} instead of {expected:?}"));
        }
    }
}
