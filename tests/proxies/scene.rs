//! What every case stands on: latchkey, a proxy that asks it, and the API behind the proxy.

use serde_json::{Value, json};

use super::peer::{CLIENT, Kind, Peer, exchange_from};
use super::table::Note;
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, Response, get, parse};
use crate::support::idp::{Key, Provider};
use crate::support::tls::Authority;
use crate::support::until;
use crate::support::upstream::{Behaviour, Received, Upstream};

/// A path of the shop `demo`, which takes its keys.
pub(super) const OWN: &str = "/api/plugin/shops/demo/products";

/// Who calls, and the same of a key that may not be used from there.
pub(super) struct Credentials {
    pub(super) key_id: String,
    pub(super) key: String,
    /// Keys that may be used from [`CLIENT`] only, and from elsewhere only.
    pub(super) key_here: String,
    pub(super) key_elsewhere: String,
    pub(super) token_id: String,
    pub(super) token: String,
    pub(super) jwt: String,
    /// Of an issuer whose keys cannot be had.
    pub(super) jwt_away: String,
}

/// See the module documentation.
pub(super) struct Scene {
    pub(super) kind: Kind,
    pub(super) site: Site,
    pub(super) gateway: Option<Gateway>,
    pub(super) api: Upstream,
    pub(super) authority: Authority,
    pub(super) proxy: Peer,
    pub(super) who: Credentials,
    _provider: Provider,
    complaints: Vec<String>,
    notes: Vec<Note>,
}

/// A request's answer, and what the API got of it, if anything.
pub(super) struct Sent {
    pub(super) answer: Response,
    pub(super) seen: Option<Received>,
}

fn configuration(kind: Kind, provider: &Provider) -> String {
    format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
         [forward_auth]\ncontracts = [\"{}\"]\n\
         [assertion]\nenabled = true\n\
         [failed_attempts]\nlimit = 1000\n\
         [[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"latchkey\"]\n\
         algorithms = [\"ES256\"]\ndiscovery = true\nshop_claim = \"shop_id\"\n\
         [[issuers]]\nname = \"away\"\nissuer = \"https://away.example\"\n\
         audiences = [\"latchkey\"]\nalgorithms = [\"ES256\"]\n\
         jwks_url = \"http://127.0.0.1:9/jwks\"\n\
         [[limits]]\nname = \"twice\"\npaths = [\"/api/plugin/shops/{{shopId}}/twice\"]\n\
         key = \"shop\"\nlimit = 2\nwindow = \"1h\"\n\
         [[limits]]\nname = \"rest\"\npaths = [\"/*\"]\nkey = \"shop\"\nlimit = 1000\n\
         window = \"1m\"\nfallback = true\n\
         [[limits]]\nname = \"anonymous\"\npaths = [\"/api/search/*\"]\n\
         mechanisms = [\"anonymous\"]\nkey = \"address\"\nlimit = 1000\nwindow = \"1m\"\n",
        kind.name(),
        provider.issuer(),
    )
}

fn credentials(gateway: &Gateway, provider: &Provider, signer: &Key) -> Credentials {
    let (key_id, key) = gateway.key("demo", &json!({}));
    let (_, key_here) = gateway.key("demo", &json!({"networks": [format!("{CLIENT}/32")]}));
    let (_, key_elsewhere) = gateway.key("demo", &json!({"networks": ["192.0.2.0/24"]}));
    let (token_id, token) = gateway.token("demo", &json!({"scopes": ["search"]}));
    let mut claims = provider.claims();
    claims["sub"] = json!("ada lövelace");
    claims["shop_id"] = json!("demo");
    let jwt = signer.sign(&claims);
    claims["iss"] = json!("https://away.example");
    let jwt_away = signer.sign(&claims);
    Credentials { key_id, key, key_here, key_elsewhere, token_id, token, jwt, jwt_away }
}

impl Scene {
    pub(super) fn new(kind: Kind) -> Self {
        // It says what is latchkey's to say.
        let api = Upstream::start(Behaviour::Agree(
            "X-RateLimit-Limit: upstream\r\nX-Request-Id: upstream\r\n\
             Access-Control-Allow-Origin: *\r\n",
        ));
        let signer = Key::es256("k");
        let provider = Provider::start(&[&signer]);
        let mut site = Site::new(None, &configuration(kind, &provider));
        let gateway = site.start();
        site.listen_at(gateway.data);
        gateway.shop("demo").shop("other");
        let who = credentials(&gateway, &provider, &signer);
        until(|| {
            let issuers = gateway.api_ok("GET", "/issuers", &Value::Null);
            let items = issuers["items"].as_array().expect("issuers").iter();
            items.filter_map(|issuer| issuer["keys"].as_u64()).any(|n| n > 0).then_some(())
        });
        let authority = Authority::new();
        authority.install("api", &authority.issue(&["api.example"]));
        let proxy = Peer::start(kind, gateway.data, api.address, Some(&authority));
        let scene = Self {
            kind,
            site,
            gateway: Some(gateway),
            api,
            authority,
            proxy,
            who,
            _provider: provider,
            complaints: Vec::new(),
            notes: Vec::new(),
        };
        scene.wait_until_it_passes(&scene.proxy);
        scene
    }

    /// Listening is not yet serving.
    pub(super) fn wait_until_it_passes(&self, proxy: &Peer) {
        let ready = get("/api/search/ready");
        let mut last = None;
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(|| {
                last = proxy.send(&ready);
                last.as_ref().filter(|answer| answer.status == 200).map(|_| ())
            });
        }));
        assert!(
            passed.is_ok(),
            "{:?} never let a request pass: {last:?}\n{}\n--- latchkey:\n{}",
            self.kind,
            proxy.last_words(),
            self.gateway.as_ref().map(Gateway::log_lines).unwrap_or_default().join("\n")
        );
    }

    /// Sends a request through the proxy.
    pub(super) fn send(&mut self, what: &str, request: &Request) -> Option<Sent> {
        let before = self.api.count();
        let Some(answer) = self.proxy.send(request) else {
            self.complain(what, "no whole answer");
            return None;
        };
        let seen = self.seen_since(what, before);
        Some(Sent { answer, seen })
    }

    /// Sends bytes; no answer at all is one too.
    pub(super) fn send_bytes(&mut self, what: &str, bytes: &[u8]) -> Option<Sent> {
        let before = self.api.count();
        let answer = exchange_from(CLIENT, self.proxy.address, bytes).ok();
        let answer = answer.filter(|answer| !answer.is_empty());
        let seen = self.seen_since(what, before);
        let Some(answer) = answer else {
            self.check(what, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
            return None;
        };
        let parsed = parse(&answer);
        if parsed.is_none() {
            self.complain(what, format!("the answer is {:?}", String::from_utf8_lossy(&answer)));
        }
        Some(Sent { answer: parsed?, seen })
    }

    /// The one request that the API got since it had `before`.
    pub(super) fn seen_since(&mut self, what: &str, before: usize) -> Option<Received> {
        let seen = self.api.received().split_off(before);
        if seen.len() > 1 {
            self.complain(what, format!("the API got {} requests", seen.len()));
        }
        seen.into_iter().next()
    }

    pub(super) fn complain(&mut self, what: &str, how: impl AsRef<str>) {
        self.complaints.push(format!("{what}: {}", how.as_ref()));
    }

    pub(super) fn check(&mut self, what: &str, of: &str, got: Option<&str>, right: Option<&str>) {
        if got != right {
            self.complain(what, format!("{of} is {got:?} instead of {right:?}"));
        }
    }

    /// That the API got nothing of it.
    pub(super) fn check_unseen(&mut self, what: &str, seen: Option<&Received>) {
        self.check(what, "at the API", seen.map(|seen| seen.head.as_str()), None);
    }

    /// The one value of a field at the API.
    pub(super) fn one(&mut self, what: &str, seen: &Received, field: &str) -> Option<String> {
        let values = seen.headers(field);
        if values.len() > 1 {
            self.complain(what, format!("{field} at the API is {values:?}"));
        }
        values.first().map(|&value| value.to_owned())
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The notes and complaints of the case that just ran.
    pub(super) fn take(&mut self) -> (Vec<Note>, Vec<String>) {
        (std::mem::take(&mut self.notes), std::mem::take(&mut self.complaints))
    }

    pub(super) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("latchkey runs")
    }

    pub(super) fn last_words(&self) -> String {
        self.proxy.last_words()
    }
}

/// `401 missing_credential`; the status alone of what is no problem.
pub(super) fn outcome(answer: &Response) -> String {
    match problem(answer)["code"].as_str() {
        Some(code) => format!("{} {code}", answer.status),
        None => answer.status.to_string(),
    }
}

/// The status for a cell: in italics where it is not latchkey's answer.
pub(super) fn told(answer: &Response) -> String {
    let is_latchkeys = problem(answer)["code"].is_string();
    if is_latchkeys || answer.status == 200 {
        answer.status.to_string()
    } else {
        format!("_{}_", answer.status)
    }
}

pub(super) fn problem(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

pub(super) fn values(answer: &Response, field: &str) -> Vec<String> {
    let of_field = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
    of_field.map(|(_, value)| value.clone()).collect()
}
