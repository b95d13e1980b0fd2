//! The working pages, without a browser: what they show to whom, and what their forms do.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use tower::ServiceExt as _;

use super::super::{cookies, router};
use crate::admin::operations::sign_in::{self, Vouched};
use crate::admin::percent::encoded;
use crate::admin::testing::Bench;
use crate::id::ShopId;
use crate::secret::SecretText;
use crate::store::{OidcSubject, ReadTx, Role};

/// What nobody may ever read as markup.
const HOSTILE: &str = "\"><script>alert('1')</script>&{{7*7}}\u{202e}";

/// Who looks at pages.
struct Person<'b> {
    bench: &'b Bench,
    cookie: String,
    csrf: String,
}

struct Shown {
    status: StatusCode,
    headers: HeaderMap,
    html: String,
}

impl Shown {
    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.html);
        self
    }

    fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }

    /// What stands between `before` and the next `<` or `"`.
    #[track_caller]
    fn after(&self, before: &str) -> String {
        let Some((_, rest)) = self.html.split_once(before) else {
            panic!("no {before:?} in {}", self.html);
        };
        rest.split(['<', '"']).next().unwrap().to_owned()
    }

    fn has(&self, text: &str) -> bool {
        self.html.contains(text)
    }
}

async fn person(bench: &Bench, role: Role) -> Person<'_> {
    enter(bench, role, BTreeSet::new()).await
}

async fn member<'b>(bench: &'b Bench, shop: &str) -> Person<'b> {
    enter(bench, Role::Member, BTreeSet::from([ShopId::parse(shop).unwrap()])).await
}

/// Signed in by an identity provider, since hashing passwords takes its time.
async fn enter(bench: &Bench, role: Role, shops: BTreeSet<ShopId>) -> Person<'_> {
    let (issuer, subject) = ("https://id.example".to_owned(), role.to_string());
    let name = role.to_string();
    let vouched = Vouched { subject: OidcSubject { issuer, subject }, name, role, shops };
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let entered = sign_in::vouched(&bench.node, vouched, from, "a test").await.unwrap();
    let csrf = entered.session.csrf.expose().to_owned();
    Person { bench, cookie: entered.cookie.expose().to_owned(), csrf }
}

impl Person<'_> {
    async fn send(&self, method: Method, path: &str, body: String) -> Shown {
        let kind = "application/x-www-form-urlencoded";
        let name = cookies::name(cookies::SESSION, false);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("host", "lk.example:8081")
            .header("cookie", format!("{name}={}", self.cookie))
            .body(Body::from(body))
            .unwrap();
        let answer = router(Arc::clone(&self.bench.node)).oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let html = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(!html.contains("<script>") && !html.contains(" style="), "{path}: {html}");
        Shown { status: parts.status, headers: parts.headers, html }
    }

    async fn get(&self, path: &str) -> Shown {
        self.send(Method::GET, path, String::new()).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Shown {
        let fields: Vec<String> = [("csrf", self.csrf.as_str())]
            .iter()
            .chain(fields)
            .map(|(k, v)| format!("{k}={}", encoded(v)))
            .collect();
        self.send(Method::POST, path, fields.join("&")).await
    }

    /// Creates a key on its page: its secret.
    async fn key(&self, shop: &str, fields: &[(&str, &str)]) -> String {
        let made = self.post(&format!("/shops/{shop}/keys"), fields).await.expect(200);
        made.after("select-all\">")
    }
}

#[tokio::test]
async fn a_shop_is_created_and_found() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    let empty = owner.get("/shops").await.expect(200);
    assert!(empty.has("No shops yet") && empty.has("href=\"/new-shop\""));
    let fields = [("name", "Bob's Bikes"), ("url", "https://bikes.example"), ("id", "")];
    let made = owner.post("/new-shop", &fields).await.expect(303);
    assert_eq!(made.location(), "/shops/bob-s-bikes");
    let list = owner.get("/shops").await.expect(200);
    assert!(list.has("Bob&#39;s Bikes") && list.has("/shops/bob-s-bikes"), "{}", list.html);
    let again = owner.post("/new-shop", &fields).await.expect(422);
    assert!(again.has("Is taken by another shop") && again.has("value=\"https://bikes.example\""));
}

#[tokio::test]
async fn errors_stand_beside_their_fields_and_the_input_stays() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    let origins = "https://a.example\nnot an origin";
    let fields =
        [("name", HOSTILE), ("url", "shop.example"), ("widget_origins", origins), ("id", "x")];
    let shown = owner.post("/new-shop", &fields).await.expect(422);
    for wanted in ["url-error", "widget_origins-error", "value=\"shop.example\"", "not an origin"] {
        assert!(shown.has(wanted), "{wanted} in {}", shown.html);
    }
    let shown = owner.post("/new-shop", &[("id", "a/b"), ("url", "a.example")]).await.expect(422);
    assert!(shown.has("id-error") && shown.has("url-error"), "{}", shown.html);
    assert_eq!(bench.node.store.read(|tx: &ReadTx| tx.shops(None, 10)).unwrap(), []);
}

#[tokio::test]
async fn what_others_wrote_is_text() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    let hostile: String = HOSTILE.chars().filter(|c| !c.is_control()).collect();
    let fields = [("name", hostile.as_str()), ("url", "https://a.example"), ("id", "a")];
    owner.post("/new-shop", &fields).await.expect(303);
    owner.key("a", &[("name", &hostile)]).await;
    for path in ["/shops", "/shops/a", "/shops/a/settings", "/shops/a/tokens", "/shops/a/limits"] {
        let shown = owner.get(path).await.expect(200);
        assert!(shown.has("&lt;script&gt;") || shown.has("&#60;script&#62;"), "{}", shown.html);
    }
    let shown = owner.get("/shops?q=%22%3E%3Cscript%3E&after=%22").await.expect(200);
    assert!(shown.has("value=\"&#34;&#62;&#60;script&#62;\""), "{}", shown.html);
}

#[tokio::test]
async fn a_secret_is_shown_once() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    let form = owner.get("/shops/demo").await.expect(200);
    let once = form.after("name=\"once\" value=\"");
    let fields = [("name", "Server"), ("once", once.as_str())];
    let made = owner.post("/shops/demo/keys", &fields).await.expect(200);
    assert_eq!(made.headers["cache-control"], "no-store");
    let secret = made.after("select-all\">");
    assert!(secret.starts_with("sk_"), "{secret}");
    for wanted in ["curl --fail", "HttpClient", "import requests", "await fetch"] {
        assert!(made.has(wanted), "{wanted}");
    }
    assert!(made.has("/api/plugin/shops/demo"));
    assert_eq!(bench.decide_key(&secret).await, "allow");
    // A reload sends the form again: nothing is made, and nothing shown.
    let again = owner.post("/shops/demo/keys", &fields).await.expect(200);
    assert!(again.has("was sent before") && !again.has(&secret));
    let list = owner.get("/shops/demo").await.expect(200);
    assert!(!list.has(&secret) && list.has("Server"));
    assert_eq!(list.html.matches("/shops/demo/keys/key_").count(), 1);
    // The same form with something else in it is no repetition.
    let other = [("name", "Other"), ("once", once.as_str())];
    let told = owner.post("/shops/demo/keys", &other).await.expect(422);
    assert!(told.has("send it again") && told.has("value=\"Other\""), "{}", told.html);
}

#[tokio::test]
async fn keys_are_changed_rotated_and_revoked() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    let first = owner.key("demo", &[("name", "Server"), ("networks", "127.0.0.0/8")]).await;
    let page = owner.get("/shops/demo").await.expect(200);
    let key = format!("/shops/demo/keys/{}", page.after("/shops/demo/keys/"));

    let seen = owner.get(&key).await.after("name=\"revision\" value=\"");
    let wrong = [
        ("name", "Server"),
        ("expires_at", "2001-01-01"),
        ("networks", "everywhere"),
        ("revision", &seen),
    ];
    let shown = owner.post(&key, &wrong).await.expect(422);
    assert!(shown.has("expires_at-error") && shown.has("networks-error"), "{}", shown.html);
    let right =
        [("name", "Cron"), ("expires_at", "2030-01-31"), ("networks", ""), ("revision", &seen)];
    owner.post(&key, &right).await.expect(303);
    let late = [("name", "Late"), ("expires_at", ""), ("networks", ""), ("revision", &seen)];
    let told = owner.post(&key, &late).await.expect(422);
    assert!(told.has("Somebody else changed") && told.has("<bdi>Cron</bdi>"), "{}", told.html);
    let shown = owner.get(&key).await.expect(200);
    assert!(shown.has("Cron") && shown.has("value=\"2030-01-31\"") && shown.has("anywhere"));

    let custom = [("grace", "other"), ("custom", "91d")];
    assert!(owner.post(&format!("{key}/rotate"), &custom).await.expect(422).has("custom-error"));
    let made = owner.post(&format!("{key}/rotate"), &[("grace", "1h")]).await.expect(200);
    let second = made.after("select-all\">");
    assert!(made.has("is accepted for another 1 hour"));
    for secret in [&first, &second] {
        assert_eq!(bench.decide_key(secret).await, "allow");
    }
    let shown = owner.get(&key).await.expect(200);
    assert!(shown.has("Rotated, in grace") && !shown.has("/rotate\""), "{}", shown.html);

    owner.post(&format!("{key}/revoke"), &[]).await.expect(303);
    assert_ne!(bench.decide_key(&first).await, "allow");
    assert_eq!(bench.decide_key(&second).await, "allow");
    owner.get(&key).await.expect(404);
}

#[tokio::test]
async fn tokens_are_issued_and_revoked() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    let form = owner.get("/shops/demo/tokens").await.expect(200);
    assert!(form.has("No widget tokens yet") && form.has("value=\"search\""));
    let wrong = [("lifetime", "forever"), ("scopes", "search")];
    let shown = owner.post("/shops/demo/tokens", &wrong).await.expect(422);
    assert!(shown.has("lifetime-error") && shown.has("value=\"search\" checked"), "{}", shown.html);
    owner.post("/shops/demo/tokens", &[("lifetime", "9999d")]).await.expect(422);
    owner.post("/shops/demo/tokens", &[("scopes", "everything")]).await.expect(422);
    let asked = [("lifetime", "2h"), ("scopes", "search"), ("scopes", "compare")];
    let made = owner.post("/shops/demo/tokens", &asked).await.expect(200);
    let token = made.after("select-all\">");
    assert!(made.has("search compare") && made.has("data-token=&#34;"), "{}", made.html);
    assert_eq!(bench.decide_token(&token).await, "allow");
    let list = owner.get("/shops/demo/tokens").await.expect(200);
    assert!(!list.has(&token));
    let revoke = format!("/shops/demo/tokens/{}", list.after("action=\"/shops/demo/tokens/"));
    owner.post(&revoke, &[]).await.expect(303);
    assert_ne!(bench.decide_token(&token).await, "allow");

    let (_, token) = bench.token("demo", "{}").await;
    let shown = owner.post("/shops/demo/revoke-tokens", &[("confirm", "nodemo")]).await;
    assert!(shown.expect(422).has("confirm-error"));
    assert_eq!(bench.decide_token(&token).await, "allow");
    owner.post("/shops/demo/revoke-tokens", &[("confirm", "demo")]).await.expect(303);
    assert_ne!(bench.decide_token(&token).await, "allow");
}

#[tokio::test]
async fn limits_are_set_and_removed() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    let wrong = [("policy", "shop-me"), ("limit", "0"), ("window", "1m"), ("burst", "x")];
    let shown = owner.post("/shops/demo/limits", &wrong).await.expect(422);
    assert!(shown.has("burst-error") && shown.has("value=\"1m\""), "{}", shown.html);
    let none = [("policy", "shop-me"), ("limit", "0"), ("window", "1m"), ("burst", "")];
    assert!(owner.post("/shops/demo/limits", &none).await.expect(422).has("limit-error"));
    let right = [("policy", "shop-me"), ("limit", "7"), ("window", "2m"), ("burst", "")];
    owner.post("/shops/demo/limits", &right).await.expect(303);
    assert!(owner.get("/shops/demo/limits").await.expect(200).has("7 in 2 minutes"));
    owner.post("/shops/demo/limits/remove", &[("policy", "shop-me")]).await.expect(303);
    assert!(!owner.get("/shops/demo/limits").await.expect(200).has("7 in 2 minutes"));
    owner.post("/shops/demo/limits/remove", &[("policy", "shop-me")]).await.expect(404);
}

#[tokio::test]
async fn deletion_needs_the_name() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    for wrong in ["", "Demo", "demo2"] {
        let shown = owner.post("/shops/demo/delete", &[("confirm", wrong)]).await.expect(422);
        assert!(shown.has("confirm-error"));
    }
    owner.get("/shops/demo").await.expect(200);
    let gone = owner.post("/shops/demo/delete", &[("confirm", "demo")]).await.expect(303);
    assert_eq!(gone.location(), "/shops");
    owner.get("/shops/demo").await.expect(404);
}

#[tokio::test]
async fn members_see_their_shops_and_nothing_else() {
    let bench = Bench::new();
    for shop in ["mine", "theirs"] {
        bench.shop(shop).await;
    }
    let (key, _) = bench.key("theirs").await;
    let member = member(&bench, "mine").await;
    let list = member.get("/shops").await.expect(200);
    assert!(list.has("/shops/mine") && !list.has("theirs") && !list.has("/new-shop"));
    for path in ["", "/tokens", "/limits", "/settings", &format!("/keys/{key}")] {
        member.get(&format!("/shops/theirs{path}")).await.expect(404);
    }
    member.get(&format!("/shops/mine/keys/{key}")).await.expect(404);
    member.get("/new-shop").await.expect(403);
    member.post("/shops/theirs/keys", &[("name", "x")]).await.expect(404);
    member.post("/shops/theirs/delete", &[("confirm", "theirs")]).await.expect(404);
    member.post("/shops/mine/delete", &[("confirm", "mine")]).await.expect(403);
    let secret = member.key("mine", &[]).await;
    assert_eq!(bench.decide_key(&secret).await, "allow");
}

#[tokio::test]
async fn viewers_change_nothing() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (key, secret) = bench.key("demo").await;
    let viewer = person(&bench, Role::Viewer).await;
    let before = bench.node.published.load().generation;
    for path in ["/shops/demo", "/shops/demo/tokens", "/shops/demo/limits", "/shops/demo/settings"]
    {
        let shown = viewer.get(path).await.expect(200);
        assert_eq!(shown.html.matches("<form method=\"post\"").count(), 1, "{}", shown.html);
    }
    let key = format!("/shops/demo/keys/{key}");
    let posts: &[(&str, &[(&str, &str)])] = &[
        ("/new-shop", &[("id", "new"), ("url", "https://new.example")]),
        ("/shops/demo/keys", &[]),
        ("/shops/demo/tokens", &[]),
        ("/shops/demo/revoke-tokens", &[("confirm", "demo")]),
        ("/shops/demo/limits", &[("policy", "shop-me"), ("limit", "1"), ("window", "1m")]),
        (
            "/shops/demo/settings",
            &[("name", "x"), ("url", "https://x.example"), ("revision", "1.1")],
        ),
        ("/shops/demo/disable", &[]),
        ("/shops/demo/delete", &[("confirm", "demo")]),
        (&key, &[("name", "x"), ("revision", "1.1")]),
        (&format!("{key}/rotate"), &[("grace", "0s")]),
        (&format!("{key}/revoke"), &[]),
    ];
    for (path, fields) in posts {
        viewer.post(path, fields).await.expect(403);
    }
    assert_eq!(bench.node.published.load().generation, before);
    assert_eq!(bench.decide_key(&secret).await, "allow");
}

#[tokio::test]
async fn a_form_without_the_sessions_token_does_nothing() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    for csrf in ["", "csrf=", "csrf=wrong"] {
        let sent = owner.send(Method::POST, "/shops/demo/disable", csrf.to_owned()).await;
        sent.expect(403);
    }
    assert!(!owner.get("/shops/demo").await.has("This shop is disabled"));
    owner.post("/shops/demo/disable", &[]).await.expect(303);
    assert!(owner.get("/shops/demo").await.has("This shop is disabled"));
    owner.post("/shops/demo/enable", &[]).await.expect(303);
}

#[tokio::test]
async fn operators_are_made_changed_and_deleted() {
    let bench = Bench::new();
    bench.shop("mine").await;
    let owner = person(&bench, Role::Owner).await;
    let wrong = [("name", "a b"), ("role", "member"), ("shops", "mine")];
    assert!(owner.post("/operators", &wrong).await.expect(422).has("name-error"));
    let wrong = [("name", "mona"), ("role", "king"), ("shops", "")];
    assert!(owner.post("/operators", &wrong).await.expect(422).has("role-error"));
    let right = [("name", "mona"), ("role", "member"), ("shops", "mine")];
    let made = owner.post("/operators", &right).await.expect(200);
    let password = made.after("select-all\">");
    let entered = sign_in::password(
        &bench.node,
        "mona",
        SecretText::new(password.clone()),
        None,
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        "a test",
    );
    let mona = entered.await.unwrap().session.operator;
    let list = owner.get("/operators").await.expect(200);
    assert!(list.has("mona") && !list.has(&password));

    let page = format!("/operators/{mona}");
    let shown = owner.get(&page).await.expect(200);
    assert!(shown.has("a test") && shown.has("mine"), "{}", shown.html);
    let reset = owner.post(&format!("{page}/reset-password"), &[]).await.expect(200);
    assert_ne!(reset.after("select-all\">"), password);
    assert!(owner.get(&page).await.has("Not signed in anywhere"));
    owner.post(&format!("{page}/disable"), &[]).await.expect(303);
    assert!(owner.get(&page).await.has("Disabled"));
    owner.post(&format!("{page}/enable"), &[]).await.expect(303);
    owner.post(&format!("{page}/delete"), &[("confirm", "mo")]).await.expect(422);
    owner.post(&format!("{page}/delete"), &[("confirm", "mona")]).await.expect(303);
    owner.get(&page).await.expect(404);
}

#[tokio::test]
async fn admin_tokens_are_made_and_revoked() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    let wrong = [("name", ""), ("role", "viewer"), ("expires_at", "2001-01-01")];
    let shown = owner.post("/tokens", &wrong).await.expect(422);
    assert!(shown.has("name-error") && shown.has("expires_at-error"), "{}", shown.html);
    let right = [("name", "Monitor"), ("role", "viewer"), ("scopes", "node:read")];
    let made = owner.post("/tokens", &right).await.expect(200);
    let secret = made.after("select-all\">");
    assert!(secret.starts_with("lka_"));
    let list = owner.get("/tokens").await.expect(200);
    assert!(list.has("Monitor") && list.has("node:read") && !list.has(&secret));
    let revoke = format!("/tokens/{}", list.after("action=\"/tokens/"));
    owner.post(&revoke, &[]).await.expect(303);
    assert!(owner.get("/tokens").await.has("No admin tokens yet"));
}

#[tokio::test]
async fn the_account_has_its_sessions_and_second_factor() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    let other = person(&bench, Role::Owner).await;
    let shown = owner.get("/account").await.expect(200);
    assert!(shown.has("This one") && shown.has("identity provider"), "{}", shown.html);
    let session = shown.after("name=\"session\" value=\"");
    owner.post("/account/end-sessions", &[("session", &session)]).await.expect(303);
    other.get("/account").await.expect(303);
    owner.get("/account").await.expect(200);

    let enrolling = owner.post("/account/second-factor", &[]).await;
    assert!([200, 422].contains(&enrolling.status.as_u16()), "{}", enrolling.html);
    let wrong = [("current", "a"), ("password", "b"), ("repeated", "c")];
    owner.post("/account/password", &wrong).await.expect(422);
}

#[tokio::test]
async fn the_audit_log_is_read_filtered_verified_and_exported() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    let fields = [("name", "Old"), ("url", "https://a.example"), ("id", "a")];
    owner.post("/new-shop", &fields).await.expect(303);
    let seen = owner.get("/shops/a/settings").await.after("name=\"revision\" value=\"");
    let fields = [("name", "New"), ("url", "https://a.example"), ("revision", &seen)];
    owner.post("/shops/a/settings", &fields).await.expect(303);
    let shown = owner.get("/audit").await.expect(200);
    for wanted in ["shop.created", "shop.changed", "<bdi>Old</bdi></del>", "<bdi>New</bdi></ins>"] {
        assert!(shown.has(wanted), "{wanted} in {}", shown.html);
    }
    let found = owner.get("/audit?action=shop.created&shop=a").await.expect(200);
    assert!(!found.has("<bdi>New</bdi></ins>") && found.has("href=\"/shops/a\""));
    assert!(owner.get("/audit?shop=b").await.expect(200).has("Nothing found"));
    assert!(owner.get("/audit?shop=b%2Fc&from=soon").await.expect(200).has("from-error"));
    assert!(owner.post("/audit/verify", &[]).await.expect(200).has("The log is intact"));
    let file = owner.get("/audit.jsonl").await.expect(200);
    assert!(file.has("shop.created"));
}

#[tokio::test]
async fn traffic_is_told_or_said_to_be_none() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    for by in ["minute", "hour", "day", "month", "x"] {
        let shown = owner.get(&format!("/shops/demo/traffic?by={by}")).await.expect(200);
        assert!(shown.has("No requests in this time"), "{}", shown.html);
    }
    let file = owner.get("/shops/demo/traffic.csv?by=day").await.expect(200);
    assert!(file.html.starts_with("from,allowed,limited,refused\r\n"));
    assert!(file.headers["content-disposition"].to_str().unwrap().contains("demo-day.csv"));
}

#[tokio::test]
async fn identity_providers_are_shown_as_they_fare() {
    let bench = Bench::with(
        "[[issuers]]\nname = \"main\"\nissuer = \"https://id.example\"\naudiences = [\"api\"]\n\
         algorithms = [\"EdDSA\"]\njwks_url = \"https://id.example/jwks\"\n",
    );
    let owner = person(&bench, Role::Owner).await;
    let shown = owner.get("/issuers").await.expect(200);
    for wanted in ["https://id.example/jwks", "No keys yet", "/issuers/main/refresh"] {
        assert!(shown.has(wanted), "{wanted} in {}", shown.html);
    }
    owner.post("/issuers/main/refresh", &[]).await.expect(303);
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    assert!(owner.get("/issuers").await.expect(200).has("No identity providers"));
}

#[tokio::test]
async fn pages_of_the_node_are_not_for_members() {
    let bench = Bench::new();
    bench.shop("mine").await;
    let member = member(&bench, "mine").await;
    for path in ["/issuers", "/audit", "/audit.jsonl", "/operators", "/tokens"] {
        member.get(path).await.expect(403);
    }
    member.post("/audit/verify", &[]).await.expect(403);
    member.post("/operators", &[("name", "x"), ("role", "owner")]).await.expect(403);
    member.post("/tokens", &[("name", "x"), ("role", "owner")]).await.expect(403);
    member.get("/account").await.expect(200);
    let viewer = person(&bench, Role::Viewer).await;
    viewer.get("/operators").await.expect(403);
    viewer.get("/tokens").await.expect(403);
    viewer.post("/issuers/main/refresh", &[]).await.expect(403);
}

#[tokio::test]
async fn backups_are_made_verified_taken_and_deleted() {
    let dir = tempfile::TempDir::new().unwrap();
    let bench = Bench::with(&format!("[backup]\ndirectory = {:?}\n", dir.path()));
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    assert!(owner.get("/backups").await.expect(200).has("No backups yet"));
    owner.post("/backups", &[("passphrase", "short")]).await.expect(422);
    owner.post("/backups", &[("passphrase", "")]).await.expect(303);
    let list = owner.get("/backups").await.expect(200);
    let name = list.after("href=\"/backups/");
    owner.post(&format!("/backups/{name}/verify"), &[]).await.expect(303);
    assert!(owner.get("/backups").await.has("badge good"));
    let viewer = person(&bench, Role::Viewer).await;
    viewer.get("/backups").await.expect(403);
    viewer.get(&format!("/backups/{name}")).await.expect(403);
    viewer.get("/export.jsonl").await.expect(403);
    owner.post(&format!("/backups/{name}/delete"), &[]).await.expect(303);
    owner.get(&format!("/backups/{name}")).await.expect(404);
    owner.get("/backups/..%2Flatchkey.redb").await.expect(404);
}

#[tokio::test]
async fn an_import_tells_its_faults_by_line_and_changes_nothing() {
    let bench = Bench::new();
    let owner = person(&bench, Role::Owner).await;
    assert!(owner.post("/import", &[("lines", " ")]).await.expect(422).has("lines-error"));
    // As much as a file may hold, every byte of it escaped, is no more than a form of this kind.
    let most = "!".repeat(2 * 1024 * 1024);
    assert!(owner.post("/import", &[("lines", &most)]).await.expect(422).has("Line 1"));
    let more = "x".repeat(4 * 1024 * 1024 + 1);
    assert!(owner.post("/import", &[("lines", &more)]).await.expect(422).has("lines-error"));
    owner.post("/import", &[("lines", &more.repeat(2))]).await.expect(413);
    owner.post("/new-shop", &[("name", &most)]).await.expect(413);
    let good = r#"{"type":"shop/1","id":"new","name":"New","url":"https://new.example"}"#;
    let bad = format!("{good}\n{{\"type\":\"shop/1\"}}\nnonsense");
    let told = owner.post("/import", &[("lines", &bad), ("run", "import")]).await.expect(422);
    assert!(told.has("Line 2:") && told.has("Line 3:"), "{}", told.html);
    owner.get("/shops/new").await.expect(404);
    let told = owner.post("/import", &[("lines", good), ("run", "check")]).await.expect(200);
    assert!(told.has("nothing was changed yet") && told.has("1 new"), "{}", told.html);
    owner.get("/shops/new").await.expect(404);
    owner.post("/import", &[("lines", good), ("run", "import")]).await.expect(200);
    owner.get("/shops/new").await.expect(200);
    let file = owner.get("/export.jsonl").await.expect(200);
    assert!(file.has("\"new\""), "{}", file.html);
}

#[tokio::test]
async fn who_is_late_overwrites_nothing_and_loses_nothing() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let owner = person(&bench, Role::Owner).await;
    let page = owner.get("/shops/demo/settings").await.expect(200);
    let seen = page.after("name=\"revision\" value=\"");
    let site = "https://demo.example";
    let fields = |name, seen| [("name", name), ("url", site), ("revision", seen)];
    owner.post("/shops/demo/settings", &fields("First", &seen)).await.expect(303);
    let told = owner.post("/shops/demo/settings", &fields("Second", &seen)).await.expect(422);
    assert!(told.has("<bdi>First</bdi>") && told.has("value=\"Second\""), "{}", told.html);
    assert!(owner.get("/shops").await.has("First"));
    // The form that came back knows what is stored, and may replace it.
    let seen = told.after("name=\"revision\" value=\"");
    owner.post("/shops/demo/settings", &fields("Second", &seen)).await.expect(303);
    assert!(owner.get("/shops").await.has("Second"));
    owner.post("/shops/demo/settings", &fields("Third", "")).await.expect(400);
    assert!(owner.get("/shops?q=seco").await.expect(200).has("/shops/demo"));
    assert!(owner.get("/shops?q=nothing").await.expect(200).has("Nothing found"));
}
