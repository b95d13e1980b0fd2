//! A real `OpenID` provider, oidc-provider for Node.js: programs call with its access tokens, and
//! operators sign in by it.
//!
//! Needs the provider: `tests/run oidc` installs it, says where it is, and runs these tests.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::operators_oidc::{HOST, configuration};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, get, request};
use crate::support::openid::{CLIENT_ID, CLIENT_SECRET, Jar, encoded};
use crate::support::secrets;
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

const PATH: &str = "/api/search/products";

/// The provider; ended when dropped.
struct Peer {
    child: Child,
    /// It says more in the end, and would die of nobody's listening.
    _output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Peer {
    /// One with new keys, whose names begin with `kid`; at a port of its own if that is 0.
    fn start(port: u16, kid: &str) -> Self {
        let folder = std::env::var("LATCHKEY_TEST_OIDC_PROVIDER").expect("tests/run oidc sets it");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oidc/provider.mjs");
        let mut child = Command::new("node")
            .args([script, &folder, &port.to_string(), kid])
            .env("CLIENT_ID", CLIENT_ID)
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("REDIRECT_URI", format!("http://{HOST}/sign-in/oidc/callback"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node");
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        let address = said.trim().strip_prefix("http://").expect("the provider starts");
        Self { address: address.parse().unwrap(), _output: output, child }
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A program's access token: a JWT signed by `alg`, or an opaque one.
    fn token(&self, alg: Option<&str>) -> String {
        let asked = match alg {
            Some(alg) => format!("&resource=urn:alg:{alg}&scope=search"),
            None => String::new(),
        };
        let client = STANDARD.encode(format!("{}:{}", encoded(CLIENT_ID), encoded(CLIENT_SECRET)));
        let answer = request("POST", "/token")
            .header("Authorization", format!("Basic {client}"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials{asked}"))
            .send(self.address);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A person's way through the provider's pages, who signs in as `login` and agrees; where the
    /// browser is sent in the end.
    fn agree(&self, location: &str, login: &str) -> String {
        let own = self.issuer();
        let mut jar = Jar::default();
        let mut at = location.to_owned();
        let mut response = self.visit(&get(self.path(&at)), &mut jar);
        for _ in 0..20 {
            if let Some(to) = response.header("location") {
                at = if to.starts_with('/') { format!("{own}{to}") } else { to.to_owned() };
                if !at.starts_with(&own) {
                    return at;
                }
                response = self.visit(&get(self.path(&at)), &mut jar);
                continue;
            }
            let page = response.text();
            let action = between(&page, "action=\"", "\"").expect("a form");
            let prompt = between(&page, "name=\"prompt\" value=\"", "\"").expect("a prompt");
            let form = format!("prompt={prompt}&login={}&password=any", encoded(login));
            let call = request("POST", self.path(action))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form);
            response = self.visit(&call, &mut jar);
        }
        panic!("the provider leads nowhere: {at}");
    }

    fn path<'u>(&self, url: &'u str) -> &'u str {
        url.strip_prefix(&self.issuer()).unwrap_or(url)
    }

    fn visit(&self, call: &crate::support::http::Request, jar: &mut Jar) -> Response {
        let response = call.clone().header("Cookie", jar.field()).send(self.address);
        jar.take(&response);
        assert!(response.status < 400, "{} {}", response.status, response.text());
        response
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

fn issuer(peer: &Peer) -> String {
    format!(
        "[[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"shops\"]\n\
         algorithms = [\"RS256\", \"ES256\", \"EdDSA\"]\ndiscovery = true\ntyp = [\"at+jwt\"]\n\
         shop_claim = \"shop_id\"\ncooldown = \"1s\"\n[failed_attempts]\nlimit = 1000\n",
        peer.issuer()
    )
}

#[test]
#[ignore = "needs the provider: tests/run oidc"]
fn programs_call_with_its_access_tokens() {
    let peer = Peer::start(0, "one");
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), &issuer(&peer));
    let gateway = site.start();
    gateway.shop("a");
    let outcome = |token: &str| gateway.send(&get(PATH).bearer(token)).outcome();
    let first = peer.token(Some("ES256"));
    until(|| (outcome(&first) == "200 ok").then_some(()));
    for alg in ["RS256", "ES256", "EdDSA"] {
        assert_eq!(outcome(&peer.token(Some(alg))), "200 ok", "{alg}");
        let at_the_api = upstream.last();
        assert_eq!(at_the_api.header("x-auth-mechanism"), Some("jwt"));
        assert_eq!(at_the_api.header("x-auth-subject"), Some(CLIENT_ID));
        assert_eq!(at_the_api.header("x-auth-shop-id"), Some("a"));
        assert_eq!(at_the_api.header("x-auth-scopes"), Some("search"));
    }
    assert_eq!(outcome(&peer.token(None)), "401 invalid_credential", "an opaque token");

    // The same provider with other keys: the first token signed by one of them brings them here.
    let port = peer.address.port();
    drop(peer);
    let peer = Peer::start(port, "two");
    let second = peer.token(Some("RS256"));
    until(|| (outcome(&second) == "200 ok").then_some(()));
    // Those it does not publish any more are good for nothing.
    assert_eq!(outcome(&first), "401 invalid_credential");
}

/// Signs in at `gateway` as `login`: the last answer, and the cookies.
fn sign_in(gateway: &Gateway, peer: &Peer, login: &str) -> (Response, Jar) {
    let mut jar = Jar::default();
    let begun = open(gateway, "/sign-in/oidc", &mut jar);
    assert_eq!(begun.status, 303, "{}", begun.text());
    let back = peer.agree(begun.header("location").unwrap(), login);
    let callback = back.strip_prefix(&format!("http://{HOST}")).expect("our own address");
    (open(gateway, callback, &mut jar), jar)
}

fn open(gateway: &Gateway, path: &str, jar: &mut Jar) -> Response {
    let request = get(path).header("Host", HOST).header("Cookie", jar.field());
    let response = gateway.send_admin(&request);
    jar.take(&response);
    secrets::saw(&response.body);
    response
}

#[test]
#[ignore = "needs the provider: tests/run oidc"]
fn operators_sign_in_by_it() {
    secrets::minted(CLIENT_SECRET);
    let peer = Peer::start(0, "one");
    let site = Site::new(None, "");
    site.configure(None, &configuration(&site, &peer.issuer(), ""));
    let gateway = site.start();
    gateway.shop("a").shop("b");

    let (response, mut jar) = sign_in(&gateway, &peer, "ada:owners");
    assert_eq!(response.status, 200, "{}", response.text());
    let about = open(&gateway, "/about", &mut jar);
    assert!(about.status == 200 && about.text().contains("ada"), "{}", about.text());
    assert_eq!(open(&gateway, "/operators", &mut jar).status, 200);

    let (response, mut jar) = sign_in(&gateway, &peer, "mona:a-team");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(open(&gateway, "/shops/a", &mut jar).status, 200);
    assert_eq!(open(&gateway, "/shops/b", &mut jar).status, 404);

    let (response, mut jar) = sign_in(&gateway, &peer, "eve:strangers");
    assert_eq!(response.status, 403, "{}", response.text());
    assert_eq!(open(&gateway, "/about", &mut jar).status, 303);

    let operators = gateway.api_ok("GET", "/operators", &Value::Null);
    let known = operators["items"].as_array().unwrap().iter();
    let mut known: Vec<_> =
        known.map(|o| (o["name"].as_str().unwrap(), o["role"].as_str().unwrap())).collect();
    known.sort_unstable();
    assert_eq!(known, [("ada", "owner"), ("mona", "member")]);

    // With a secret that is not the client's, nobody gets in, and the page says why.
    std::fs::write(site.path().join("client.secret"), "another").unwrap();
    drop(gateway);
    let gateway = site.start();
    let (response, _) = sign_in(&gateway, &peer, "ada:owners");
    let text = response.text();
    assert!(
        response.status == 502 && text.contains("client id or secret"),
        "{} {text}",
        response.status
    );
}
