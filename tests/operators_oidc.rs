//! Operators sign in by an identity provider, through the real binary, against a provider that is
//! wrong in every way a provider, a network or an attacker can be.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, get};
use crate::support::idp::{Key, unix_now};
use crate::support::openid::{
    CLIENT_ID, CLIENT_SECRET, Jar, Manners, Mood, OpenId, encoded, parameters,
};
use crate::support::secrets;

pub(crate) const HOST: &str = "latchkey.localhost";

const ROLES: &str = r#"[
    { group = "owners", role = "owner" },
    { group = "helpers", role = "operator" },
    { group = "auditors", role = "viewer" },
    { group = "a-team", role = "member", shops = ["a", "both"] },
    { group = "b-team", role = "member", shops = ["b", "both", "not-there"] },
]"#;

struct Stage {
    provider: OpenId,
    site: Site,
    gateway: Gateway,
}

/// `[admin]` for a provider whose issuer is `issuer`.
pub(crate) fn configuration(site: &Site, issuer: &str, extra: &str) -> String {
    let secret = site.path().join("client.secret");
    std::fs::write(&secret, CLIENT_SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut text = format!(
        "[admin]\npublic_url = \"http://{HOST}\"\n[admin.oidc]\nissuer = \"{issuer}\"\n\
         client_id = \"{CLIENT_ID}\"\nroles = {ROLES}\n"
    );
    if !extra.contains("public client") {
        writeln!(text, "client_secret_file = {:?}", secret.display().to_string()).unwrap();
    }
    text + extra
}

fn stage_with(extra: &str) -> Stage {
    let provider = OpenId::start();
    let site = Site::new(None, "");
    site.configure(None, &configuration(&site, &provider.issuer(), extra));
    let gateway = site.start();
    gateway.shop("a").shop("b").shop("both");
    Stage { provider, site, gateway }
}

fn stage() -> Stage {
    // A test fails to sign in more often than a person would.
    stage_with("[failed_attempts]\nlimit = 1000\n")
}

impl Stage {
    fn visit(&self, path: &str, jar: &mut Jar) -> Response {
        let request = get(path).header("Host", HOST).header("Cookie", jar.field());
        let response = self.gateway.send_admin(&request);
        jar.take(&response);
        secrets::saw(&response.body);
        response
    }

    /// To the provider: where the browser is sent.
    fn begin(&self, jar: &mut Jar) -> String {
        let begun = self.visit("/sign-in/oidc?next=%2Fshops%3Fx%3D1", jar);
        assert_eq!(begun.status, 303, "{}", begun.text());
        assert!(jar.get("latchkey-oidc").is_some(), "{begun:?}");
        begun.header("location").unwrap().to_owned()
    }

    /// And back: the path and query that the browser asks for.
    fn agree(&self, location: &str) -> String {
        let to = self.provider.agree(location);
        to.strip_prefix(&format!("http://{HOST}")).expect("our own address").to_owned()
    }

    /// A whole sign-in.
    fn sign_in(&self) -> (Response, Jar) {
        let mut jar = Jar::default();
        let location = self.begin(&mut jar);
        let callback = self.agree(&location);
        (self.visit(&callback, &mut jar), jar)
    }

    /// A sign-in that has to fail, with this status and this in its text.
    #[track_caller]
    fn refused(&self, status: u16, says: &str) {
        let (response, mut jar) = self.sign_in();
        let text = response.text().replace("<code>", "`").replace("</code>", "`");
        assert!(response.status == status && text.contains(says), "{} {text}", response.status);
        assert_eq!(jar.get("latchkey"), None);
        assert_eq!(self.visit("/about", &mut jar).status, 303);
    }

    /// A sign-in that has to succeed.
    #[track_caller]
    fn accepted(&self) -> Jar {
        let (response, jar) = self.sign_in();
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(jar.get("latchkey").is_some(), "{response:?}");
        jar
    }

    fn operators(&self) -> Vec<Value> {
        self.gateway.api_ok("GET", "/operators", &Value::Null)["items"].as_array().unwrap().clone()
    }

    fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.provider.manners());
    }
}

#[test]
fn whom_the_provider_vouches_for_is_signed_in() {
    let stage = stage();
    let mut jar = Jar::default();
    let begun = stage.visit("/sign-in/oidc?next=%2Fshops%3Fx%3D1", &mut jar);
    let cookie = begun.header("set-cookie").unwrap().to_owned();
    for part in ["; Path=/", "; Max-Age=600", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let location = begun.header("location").unwrap();
    let asked = parameters(location.split_once('?').unwrap().1);
    assert_eq!(asked["redirect_uri"], format!("http://{HOST}/sign-in/oidc/callback"));
    assert_eq!(asked["scope"], "openid profile email");
    for secret in ["code_challenge", "state", "nonce"] {
        assert!(!cookie.contains(&asked[secret]), "{secret} stands in the cookie");
    }
    let callback = stage.agree(location);
    let back = stage.visit(&callback, &mut jar);
    let page = back.text();
    assert_eq!(back.status, 200, "{page}");
    assert!(page.contains(r#"http-equiv="refresh" content="0;url=/shops?x=1""#), "{page}");
    assert_eq!(back.header("cache-control"), Some("no-store"));
    let strict = |(_, v): &&(String, String)| v.starts_with("latchkey=");
    let session = back.headers.iter().find(strict).unwrap();
    assert!(session.1.contains("SameSite=Strict") && session.1.contains("HttpOnly"), "{session:?}");
    assert_eq!(jar.get("latchkey-oidc"), None, "the attempt is over");
    secrets::minted(jar.get("latchkey").unwrap());
    let about = stage.visit("/about", &mut jar);
    assert_eq!(about.status, 200);
    assert!(about.text().contains("ada"), "{}", about.text());
    let operators = stage.operators();
    assert_eq!(operators.len(), 1, "{operators:?}");
    assert_eq!((&operators[0]["name"], &operators[0]["role"]), (&json!("ada"), &json!("owner")));

    // The same person again, with less to do; somebody else owns the node now.
    let boss = json!({"name": "boss", "role": "owner", "password": "a long local password"});
    stage.gateway.api_ok("POST", "/operators", &boss);
    stage.manners(|m| m.claims["groups"] = json!(["b-team", "a-team"]));
    let mut again = stage.accepted();
    let mut operators = stage.operators();
    operators.retain(|operator| operator["name"] != "boss");
    assert_eq!(operators.len(), 1);
    assert_eq!(operators[0]["role"], "member");
    assert_eq!(operators[0]["shops"], json!(["a", "b", "both"]), "those that there are");
    assert_eq!(stage.visit("/about", &mut jar).status, 303, "the session with the old role ended");
    assert_eq!(stage.visit("/shops", &mut again).status, 200);
}

/// Whatever is wrong with a token, nobody is signed in and nobody is made.
#[test]
fn id_tokens_that_are_not_taken() {
    type Change = fn(&mut Value);
    type Tamper = fn(String) -> String;
    let stage = stage();
    let changes: [(&str, Change); 17] = [
        ("`nonce`", |c| c["nonce"] = json!("another")),
        ("`required_claims`", |c| c["nonce"] = json!(null)),
        ("`nonce`", |c| c["nonce"] = json!(["x"])),
        ("`aud`", |c| c["aud"] = json!("another client")),
        ("`aud`", |c| c["aud"] = json!(null)),
        ("`azp`", |c| c["aud"] = json!([CLIENT_ID, "another client"])),
        ("`azp`", |c| c["azp"] = json!("another client")),
        ("`iss`", |c| c["iss"] = json!("http://127.0.0.1:1")),
        ("`iss`", |c| c["iss"] = json!(format!("{}/", c["iss"].as_str().unwrap()))),
        ("`iss`", |c| c["iss"] = json!(null)),
        ("`sub`", |c| c["sub"] = json!(null)),
        ("`sub`", |c| c["sub"] = json!("")),
        ("expired", |c| c["exp"] = json!(unix_now() - 3600)),
        ("`exp`", |c| c["exp"] = json!(null)),
        ("`required_claims`", |c| c["iat"] = json!(null)),
        ("`iat`", |c| c["iat"] = json!(unix_now() + 3600)),
        ("`nbf`", |c| c["nbf"] = json!(unix_now() + 3600)),
    ];
    for (says, change) in changes {
        stage.manners(|m| m.change = Box::new(change));
        stage.refused(502, says);
    }
    stage.manners(|m| m.change = Box::new(|_| {}));
    let tampers: [(&str, Tamper); 5] = [
        ("signature", |token| {
            let (signed, _) = token.rsplit_once('.').unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 64]))
        }),
        ("signature", |token| {
            // Somebody else's groups under this signature.
            let parts: Vec<_> = token.split('.').collect();
            let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
            let claims = String::from_utf8(claims).unwrap().replace("staff", "owner");
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims), parts[2])
        }),
        ("`alg`", |token| {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
            format!("{header}.{}.AA", token.split('.').nth(1).unwrap())
        }),
        ("`alg`", |token| {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"one"}"#);
            format!("{header}.{}.AA", token.split('.').nth(1).unwrap())
        }),
        ("base64url", |_| "no token".to_owned()),
    ];
    for (says, tamper) in tampers {
        stage.manners(|m| m.tamper = tamper);
        stage.refused(502, says);
    }
    stage.manners(|m| {
        m.tamper = |token| token;
        // A key of the same name that the provider does not publish.
        m.published = Some(vec![Key::es256("one").jwk()]);
    });
    // What was learnt first still holds.
    stage.accepted();
    stage.manners(|m| m.signer = Key::es256("one"));
    stage.refused(502, "signature");
    assert_eq!(stage.operators().len(), 1);
}

#[test]
fn answers_that_are_not_taken() {
    let stage = stage();
    let with = |change: &dyn Fn(String) -> String| {
        let mut jar = Jar::default();
        let location = stage.begin(&mut jar);
        let callback = stage.agree(&location);
        stage.visit(&change(callback), &mut jar)
    };
    let set = |name: &'static str, value: Option<&'static str>| {
        move |callback: String| {
            let (path, query) = callback.split_once('?').unwrap();
            let mut fields = parameters(query);
            fields.remove(name);
            fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
            let fields = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
            format!("{path}?{}", fields.collect::<Vec<_>>().join("&"))
        }
    };
    for (change, status, says) in [
        (&set("state", Some("another")) as &dyn Fn(String) -> String, 400, "not begun"),
        (&set("state", None), 400, "not begun"),
        (&set("state", Some("")), 400, "not begun"),
        (&set("code", Some("another")), 502, "the code"),
        (&set("code", Some("")), 502, "understood"),
        (&set("code", None), 502, "understood"),
        (&set("iss", Some("http://127.0.0.1:1")), 502, "`iss`"),
        (&set("iss", None), 502, "`iss`"),
        (&set("error", Some("access_denied")), 403, "`access_denied`"),
        (&set("error", Some("<script>alert(1)</script>")), 403, "`?`"),
        (&|callback| format!("{callback}&code=again"), 502, "understood"),
        (&|callback| format!("{callback}&state=again"), 502, "understood"),
        (&|callback| callback.split_once('?').unwrap().0.to_owned(), 400, "not begun"),
    ] {
        let response = with(change);
        let text = response.text().replace("<code>", "`").replace("</code>", "`");
        assert!(response.status == status && text.contains(says), "{says}: {text}");
        assert!(!text.contains("<script>alert"), "{text}");
    }
    assert!(stage.operators().is_empty());
}

/// A finished sign-in cannot be finished again, nor in another browser.
#[test]
fn an_answer_is_for_one_browser_and_once() {
    let stage = stage();
    let (mut mine, mut other) = (Jar::default(), Jar::default());
    let callback = stage.agree(&stage.begin(&mut mine));
    // An attacker has the victim's browser finish the attacker's sign-in, with no cookie or with
    // that of a sign-in of its own.
    assert_eq!(stage.visit(&callback, &mut other).status, 400);
    stage.begin(&mut other);
    assert_eq!(stage.visit(&callback, &mut other).status, 400);
    assert_eq!(other.get("latchkey"), None);
    let kept = mine.clone();
    assert_eq!(stage.visit(&callback, &mut mine).status, 200);
    let again = stage.visit(&callback, &mut kept.clone());
    assert_eq!(again.status, 400, "{}", again.text());
    assert_eq!(stage.visit(&callback, &mut mine).status, 400, "its cookie is gone");
    // A cookie that is not ours is none.
    let mut forged = Jar(vec![("latchkey-oidc".to_owned(), "A".repeat(96))]);
    assert_eq!(stage.visit(&callback, &mut forged).status, 400);
    assert_eq!(stage.operators().len(), 1);
}

#[test]
fn groups_decide_and_names_decide_nothing() {
    let stage = stage();
    let local = json!({"name": "ada", "role": "viewer", "password": "a long local password"});
    let local = stage.gateway.api_ok("POST", "/operators", &local);
    stage.accepted();
    let operators = stage.operators();
    let theirs = operators.iter().find(|o| o["id"] != local["id"]).unwrap();
    assert_eq!(theirs["name"], "ada-2", "the local operator of that name is not taken over");
    assert_eq!(operators.iter().find(|o| o["id"] == local["id"]).unwrap()["role"], "viewer");

    for groups in [json!([]), json!(["strangers"]), json!("Owners"), json!(7), json!(null)] {
        stage.manners(|m| m.claims["groups"] = groups.clone());
        stage.refused(403, "none of your groups");
    }
    // A slip in the roles does not leave a node that nobody owns.
    stage.manners(|m| m.claims["groups"] = json!(["auditors"]));
    stage.refused(409, "last owner");
    let boss = json!({"name": "boss", "role": "owner", "password": "a long local password"});
    stage.gateway.api_ok("POST", "/operators", &boss);
    for (groups, role) in [
        (json!(["auditors", "a-team"]), "viewer"),
        (json!("helpers"), "operator"),
        (json!(["helpers", "owners", 7, null]), "owner"),
    ] {
        stage.manners(|m| m.claims["groups"] = groups.clone());
        stage.accepted();
        let operators = stage.operators();
        let theirs = operators.iter().find(|o| o["id"] == theirs["id"]).unwrap();
        assert_eq!(theirs["role"], role, "{groups}");
    }
    // Another person of the same name, and one whose name is an attack.
    stage.manners(|m| m.claims["sub"] = json!("ada-2"));
    stage.accepted();
    stage.manners(|m| {
        m.claims["sub"] = json!("mallory");
        m.claims["preferred_username"] = json!("<b>\"Ada\" \u{202e}\n");
    });
    let mut jar = stage.accepted();
    assert!(!stage.visit("/about", &mut jar).text().contains("<b>\""));
    stage.manners(|m| m.claims["preferred_username"] = json!("  "));
    stage.refused(403, "what you are called");
    let operators = stage.operators();
    assert_eq!(operators.len(), 5, "{operators:?}");

    let mallory = operators.iter().find(|o| o["name"] == "bAda").unwrap();
    stage.manners(|m| m.claims["preferred_username"] = json!("mallory"));
    let path = format!("/operators/{}", mallory["id"].as_str().unwrap());
    stage.gateway.api_ok("PATCH", &path, &json!({"disabled": true}));
    stage.refused(403, "disabled");
}

/// Thin ID tokens: the rest is at the user information endpoint, and about the same person.
#[test]
fn who_is_given_no_role_any_more_does_not_stay_by_an_older_one() {
    let stage = stage();
    let mut here = stage.accepted();
    let mut there = stage.accepted();
    // Somebody else of the same provider.
    stage.manners(|m| m.claims["sub"] = json!("bob"));
    let mut bob = stage.accepted();
    stage.manners(|m| {
        m.claims["sub"] = json!("ada-1");
        m.claims["groups"] = json!(["strangers"]);
    });
    for jar in [&mut here, &mut there] {
        assert_eq!(stage.visit("/about", jar).status, 200);
    }
    stage.refused(403, "none of your groups");
    for jar in [&mut here, &mut there] {
        assert_eq!(stage.visit("/about", jar).status, 303, "it is signed out");
    }
    assert_eq!(stage.visit("/about", &mut bob).status, 200);
    // Again: there is nothing left to end, and nothing to be written of it.
    stage.refused(403, "none of your groups");
    let audit = stage.gateway.api_ok("GET", "/audit?action=session.revoked", &Value::Null);
    assert_eq!(audit["items"].as_array().unwrap().len(), 1, "{audit}");
    assert_eq!(audit["items"][0]["after"]["sessions_ended"], 2);
}

#[test]
fn user_information_completes() {
    let stage = stage();
    stage.manners(|m| {
        m.claims = json!({"sub": "ada-1"});
        m.userinfo = Some(json!({
            "sub": "ada-1", "preferred_username": "ada", "groups": ["auditors"],
        }));
    });
    stage.accepted();
    assert_eq!(stage.operators()[0]["role"], "viewer");
    stage.manners(|m| m.userinfo = Some(json!({"sub": "bob", "groups": ["owners"]})));
    stage.refused(502, "`sub`");
    stage.manners(|m| m.userinfo = Some(json!({"groups": ["owners"]})));
    stage.refused(502, "`sub`");
    stage.manners(|m| m.userinfo = None);
    stage.refused(403, "groups");
    stage.manners(|m| {
        m.claims = json!({"sub": "ada-1", "groups": ["auditors"]});
        m.userinfo = Some(json!({
            "sub": "ada-1", "preferred_username": "ada", "groups": ["owners"],
        }));
    });
    stage.accepted();
    assert_eq!(stage.operators()[0]["role"], "viewer", "the ID token's word stands");
}

#[test]
fn a_provider_in_trouble() {
    let provider = OpenId::start();
    provider.manners().discovery = Mood::Says(500, String::new());
    let site = Site::new(None, "");
    site.configure(None, &configuration(&site, &provider.issuer(), ""));
    let stage = Stage { gateway: site.start(), provider, site };
    let mut jar = Jar::default();
    let begun = stage.visit("/sign-in/oidc", &mut jar);
    assert_eq!(begun.status, 503, "{}", begun.text());
    assert!(begun.text().contains("with a password"), "{}", begun.text());
    assert_eq!(stage.visit("/sign-in", &mut jar).status, 200, "passwords still do");
    assert_eq!(stage.visit("/sign-in/oidc", &mut jar).status, 503);
    assert_eq!(stage.provider.discoveries(), 1, "it is not asked again and again");
}

#[test]
fn token_endpoints_in_trouble() {
    let stage = stage();
    for (status, body, expected, says) in [
        (500, "{}", 503, "could not be asked"),
        (302, "{}", 503, "could not be asked"),
        (400, "{\"error\":\"invalid_client\"}", 502, "client id or secret"),
        (400, "<html>", 502, "the code"),
        (200, "<html>", 503, "could not be asked"),
        (200, "[]", 503, "could not be asked"),
        (200, "{\"access_token\":\"x\"}", 502, "no ID token"),
        (200, "{\"id_token\":7}", 502, "no ID token"),
        (200, "{\"id_token\":\"\"}", 502, "base64url"),
    ] {
        stage.manners(|m| m.token = Mood::Says(status, body.to_owned()));
        stage.refused(expected, says);
    }
    let huge = format!("{{\"id_token\":\"{}\"}}", "A".repeat(300_000));
    stage.manners(|m| m.token = Mood::Says(200, huge));
    stage.refused(503, "could not be asked");
    let long = format!("{{\"id_token\":\"{}\"}}", "A".repeat(100_000));
    stage.manners(|m| m.token = Mood::Says(200, long));
    stage.refused(502, "64 KiB");
    stage.manners(|m| m.token = Mood::Silent);
    stage.refused(503, "could not be asked");
    stage.manners(|m| m.token = Mood::Well);
    stage.accepted();
}

#[test]
fn discovery_documents_that_are_not_taken() {
    type Change = fn(&mut Value);
    let changes: [Change; 5] = [
        |d| d["issuer"] = json!("http://127.0.0.1:1"),
        |d| d["issuer"] = json!(format!("{}/", d["issuer"].as_str().unwrap())),
        |d| d["token_endpoint"] = json!(null),
        |d| d["authorization_endpoint"] = json!("javascript:alert(1)"),
        |d| d["code_challenge_methods_supported"] = json!(["plain"]),
    ];
    for change in changes {
        let provider = OpenId::start();
        provider.manners().document = Box::new(change);
        let site = Site::new(None, "");
        site.configure(None, &configuration(&site, &provider.issuer(), ""));
        let stage = Stage { gateway: site.start(), provider, site };
        assert_eq!(stage.visit("/sign-in/oidc", &mut Jar::default()).status, 503);
        drop(stage.site);
    }
}

/// A provider that has changed its keys since.
#[test]
fn new_keys_are_fetched() {
    let stage = stage();
    stage.accepted();
    stage.manners(|m| m.signer = Key::ed25519("two"));
    // Keys that were fetched a moment ago are not fetched again: the first comes too early.
    let (response, _) = stage.sign_in();
    assert!([200, 502].contains(&response.status), "{}", response.text());
    if response.status == 502 {
        assert!(response.text().contains("is not the provider"), "{}", response.text());
    }
}

#[test]
fn public_clients_and_throttling() {
    let stage = stage_with("# public client\n[failed_attempts]\nlimit = 3\n");
    stage.manners(|m| m.public_client = true);
    stage.accepted();
    stage.manners(|m| m.claims["groups"] = json!([]));
    for _ in 0..3 {
        stage.refused(403, "groups");
    }
    stage.refused(429, "try again in");
    stage.manners(|m| m.claims["groups"] = json!(["owners"]));
    stage.refused(429, "try again in");
}

/// Who begins at another address is sent to the one that the provider knows.
#[test]
fn sign_ins_begin_at_the_public_address() {
    let stage = stage();
    let elsewhere = stage.gateway.send_admin(&get("/sign-in/oidc?next=%2Fabout"));
    assert_eq!(elsewhere.status, 303);
    let to = elsewhere.header("location").unwrap();
    assert_eq!(to, format!("http://{HOST}/sign-in/oidc?moved=1&next=%2Fabout"));
    let again = stage.gateway.send_admin(&get("/sign-in/oidc?moved=1"));
    assert_eq!(again.status, 421, "not in circles");
    assert!(again.text().contains("admin.public_url"), "{}", again.text());
}
