//! The working pages of the dashboard in the running binary, by plain HTTP as a browser without
//! script would use them.

use serde_json::json;

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, Response, request};
use crate::support::secrets;
use crate::support::upstream::{Behaviour, Upstream};

const PASSWORD: &str = "correct horse battery staple";

/// Somebody who has signed in.
struct Person<'g> {
    gateway: &'g Gateway,
    cookies: String,
    csrf: String,
}

/// What stands between `before` and the next quote or tag.
#[track_caller]
fn after(html: &str, before: &str) -> String {
    let Some((_, rest)) = html.split_once(before) else { panic!("no {before:?} in {html}") };
    rest.split(['<', '"']).next().unwrap().to_owned()
}

fn cookie(response: &Response) -> String {
    let set = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"));
    let pairs: Vec<&str> = set.map(|(_, value)| value.split(';').next().unwrap()).collect();
    pairs.join("; ")
}

fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn form(path: &str, cookies: &str, fields: &[(&str, &str)]) -> Request {
    let pairs: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={}", encoded(v))).collect();
    request("POST", path)
        .header("cookie", cookies)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(pairs.join("&"))
}

impl<'g> Person<'g> {
    /// Makes an operator through the admin socket, and signs it in on the page.
    fn enter(gateway: &'g Gateway, name: &str, role: &str, shops: &[&str]) -> Self {
        let mut operator = json!({"name": name, "role": role, "password": PASSWORD});
        if !shops.is_empty() {
            operator["shops"] = json!(shops);
        }
        gateway.api_ok("POST", "/operators", &operator);
        let page = request("GET", "/sign-in").send(gateway.admin);
        let csrf = after(&page.text(), "name=\"csrf\" value=\"");
        let fields = [("csrf", csrf.as_str()), ("name", name), ("password", PASSWORD)];
        let entered = form("/sign-in", &cookie(&page), &fields).send(gateway.admin);
        assert_eq!(entered.status, 303, "{}", entered.text());
        let mut this = Self { gateway, cookies: cookie(&entered), csrf: String::new() };
        this.csrf = after(&this.get("/shops").text(), "name=\"csrf\" value=\"");
        this
    }

    fn get(&self, path: &str) -> Response {
        request("GET", path).header("cookie", &self.cookies).send(self.gateway.admin)
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("csrf", self.csrf.as_str())];
        all.extend(fields);
        form(path, &self.cookies, &all).send(self.gateway.admin)
    }
}

/// What becomes of a key on the data listener.
fn use_key(gateway: &Gateway, secret: &str) -> u16 {
    let call = request("GET", "/api/plugin/shops/me").header("x-shop-api-key", secret);
    gateway.send(&call).status
}

#[test]
fn a_key_made_in_the_dashboard_works_until_it_is_revoked() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    let owner = Person::enter(&gateway, "ada", "owner", &[]);
    let shop = [("name", "Demo"), ("url", "https://demo.example"), ("id", "demo")];
    assert_eq!(owner.post("/new-shop", &shop).status, 303);
    let page = owner.get("/shops/demo").text();
    let once = after(&page, "name=\"once\" value=\"");
    let fields = [("name", "Server"), ("once", once.as_str())];
    let made = owner.post("/shops/demo/keys", &fields);
    assert_eq!((made.status, made.header("cache-control")), (200, Some("no-store")));
    let secret = after(&made.text(), "select-all\">");
    secrets::minted(&secret);
    assert_eq!(use_key(&gateway, &secret), 200);
    // Neither a reload nor any page shows it again.
    assert!(!owner.post("/shops/demo/keys", &fields).text().contains(&secret));
    let page = owner.get("/shops/demo").text();
    let key = format!("/shops/demo/keys/{}", after(&page, "/shops/demo/keys/"));
    for path in ["/shops/demo", &key, "/audit", "/audit.jsonl", "/export.jsonl", "/shops"] {
        assert!(!owner.get(path).text().contains(&secret), "{path}");
    }
    let rotated = owner.post(&format!("{key}/rotate"), &[("grace", "1h")]);
    let next = after(&rotated.text(), "select-all\">");
    secrets::minted(&next);
    assert_eq!([&secret, &next].map(|s| use_key(&gateway, s)), [200, 200]);
    assert_eq!(owner.post(&format!("{key}/revoke"), &[]).status, 303);
    assert_eq!([&secret, &next].map(|s| use_key(&gateway, s)), [401, 200]);
    // Deleting the shop takes its name.
    assert_eq!(owner.post("/shops/demo/delete", &[("confirm", "dem")]).status, 422);
    assert_eq!(use_key(&gateway, &next), 200);
    assert_eq!(owner.post("/shops/demo/delete", &[("confirm", "demo")]).status, 303);
    assert_eq!(use_key(&gateway, &next), 401);
}

#[test]
fn members_and_viewers_do_no_more_than_they_may() {
    let site = Site::new(None, "");
    let gateway = site.start();
    gateway.shop("mine").shop("theirs");
    let (key, secret) = gateway.key("theirs", &json!({}));
    let member = Person::enter(&gateway, "mona", "member", &["mine"]);
    assert_eq!(member.get("/shops/mine").status, 200);
    for path in ["/shops/theirs", "/shops/theirs/traffic", &format!("/shops/theirs/keys/{key}")] {
        assert_eq!(member.get(path).status, 404, "{path}");
    }
    assert_eq!(member.post("/shops/theirs/keys", &[]).status, 404);
    assert_eq!(member.get("/operators").status, 403);
    let viewer = Person::enter(&gateway, "vera", "viewer", &[]);
    assert_eq!(viewer.get("/shops/theirs").status, 200);
    let revoke = format!("/shops/theirs/keys/{key}/revoke");
    assert_eq!(viewer.post(&revoke, &[]).status, 403);
    assert_eq!(viewer.post("/shops/theirs/delete", &[("confirm", "theirs")]).status, 403);
    assert_ne!(use_key(&gateway, &secret), 401, "nothing was changed");
    // Without the session's token, nobody does anything.
    let sent = form(&revoke, &member.cookies, &[("csrf", "x")]).send(gateway.admin);
    assert_eq!(sent.status, 403);
}
