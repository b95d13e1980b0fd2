//! Every page of the dashboard, empty and with content, for every role: an [`Inspector`] finds
//! fault with none.

use serde_json::{Value, json};

use super::inspector::Inspector;
use super::{CHEAP, PRIMARY, SECRET, page, path, states};
use crate::support::dashboard::{PASSWORD, code_now, operator, sign_in, url, view, violations};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::get;
use crate::support::idp::{Key, Provider};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{secrets, until};

#[test]
fn without_anything() {
    let site = Site::new(None, CHEAP);
    let gateway = site.start();
    let mut at = Inspector::new(&gateway, "empty");
    at.open("/sign-in");
    at.open("/setup");
    at.press(PRIMARY, "setup-faults");
    operator(&gateway, "ada", "owner", &[]);
    at.open("/sign-in?next=/audit");
    at.browser.fill(&[("name", "ada"), ("password", "seven grey horses")]);
    at.press(PRIMARY, "sign-in-wrong");
    at.open("/no/such/page");
    at.open("/setup");
    sign_in(&at.browser, &gateway, "ada");
    for path in [
        "/",
        "/shops",
        "/new-shop",
        "/refusals",
        "/codes",
        "/explore",
        "/policies",
        "/issuers",
        "/audit",
        "/operators",
        "/tokens",
        "/account",
        "/backups",
        "/api",
        "/about",
    ] {
        at.open(path);
    }
    at.open("/shops?q=nothing-like-it");
    at.open("/audit?action=shop.deleted");
    at.open("/explore?event=999999");
    gateway.shop("bare");
    for part in ["", "/tokens", "/limits", "/traffic", "/settings"] {
        at.open(&format!("/shops/bare{part}"));
    }
    at.open("/no/such/page");
    assert!(at.seen > 25, "{}", at.seen);
}

/// A configuration with everything that pages tell of.
fn configuration(site: &Site, provider: &Provider) -> String {
    let backups = site.path().join("backups");
    format!(
        "{CHEAP}[usage]\nflush_interval = \"1s\"\n[backup]\ndirectory = \"{}\"\n\
         interval = \"1d\"\n[[issuers]]\nname = \"main\"\nissuer = \"{}\"\n\
         audiences = [\"latchkey\"]\nalgorithms = [\"ES256\"]\ndiscovery = true\n\
         [[issuers]]\nname = \"broken\"\nissuer = \"http://127.0.0.1:9\"\n\
         audiences = [\"latchkey\", \"https://a-rather-long-audience.example/with/a/path\"]\n\
         algorithms = [\"EdDSA\", \"RS256\", \"PS512\"]\ndiscovery = true\n",
        backups.display(),
        provider.issuer()
    )
}

/// Shops, keys, tokens, operators, backups, limits, traffic: the key of shop `demo` that is live.
fn populate(gateway: &Gateway) -> String {
    gateway.shop("demo");
    let long = json!({
        "id": "a-shop-with-a-rather-long-id-that-goes-on-and-on-until-it-ends",
        "name": "A shop whose name is as long as anybody would want to give one, and then some",
        "url": "https://a-shop-with-a-rather-long-name.of-a-subdomain.somewhere.example",
        "widget_origins": ["https://*.shop.example", "https://another-long-origin.shop.example"],
    });
    gateway.api_ok("POST", "/shops", &long);
    for i in 0..60 {
        gateway.shop(&format!("shop-{i:02}"));
    }
    gateway.api_ok("PATCH", "/shops/shop-03", &json!({"enabled": false}));
    let (_, live) = gateway.key("demo", &json!({"name": "Production"}));
    let (revoked, _) = gateway.key("demo", &json!({"name": "Old deployment of last summer"}));
    gateway.api_ok("DELETE", &format!("/shops/demo/keys/{revoked}"), &Value::Null);
    let networks = json!({"networks": ["192.0.2.0/24", "2001:db8:aaaa:bbbb::/64"]});
    let (rotated, _) = gateway.key("demo", &networks);
    let rotate = format!("/shops/demo/keys/{rotated}/rotate");
    gateway.api_ok("POST", &rotate, &json!({"grace_seconds": 3600}));
    let few = json!({"authenticated": {"limit": 3, "window_seconds": 3600}});
    gateway.api_ok("PUT", "/shops/demo/limits", &few);
    for _ in 0..3 {
        gateway.token("demo", &Value::Null);
    }
    let (token, _) = gateway.token("demo", &Value::Null);
    gateway.api_ok("DELETE", &format!("/shops/demo/widget-tokens/{token}"), &Value::Null);
    operator(gateway, "mona", "member", &["demo"]);
    operator(gateway, "a-rather-long-name-of-an-operator@mail.example", "viewer", &[]);
    let admin = json!({"name": "Deployment", "role": "operator", "scopes": ["shops:read"]});
    gateway.api_ok("POST", "/admin-tokens", &admin);
    for path in ["/api/plugin/shops/me", "/api/plugin/shops/demo/orders", "/nowhere"] {
        (0..5).for_each(|_| drop(gateway.send(&get(path).key(&live))));
        gateway.send(&get(path).header("Origin", "https://evil.example"));
        gateway.send(&get(path).key("sk_nonsense"));
    }
    live
}

#[test]
fn with_content() {
    let upstream = Upstream::start(Behaviour::Echo);
    let provider = Provider::start(&[&Key::es256("the-first-key")]);
    let site = Site::new(Some(&upstream), "");
    site.configure(Some(&upstream), &configuration(&site, &provider));
    let gateway = site.start();
    operator(&gateway, "ada", "owner", &[]);
    let live = populate(&gateway);
    let mut at = Inspector::new(&gateway, "full");
    sign_in(&at.browser, &gateway, "ada");
    for path in ["/backups", "/backups"] {
        at.browser.open(&url(&gateway, path));
        at.browser.press("form[action='/backups'] button.primary");
    }
    until(|| {
        at.browser.open(&url(&gateway, "/shops/demo/traffic"));
        page(&at.browser).contains("Allowed").then_some(())
    });
    for path in [
        "/",
        "/?span=24h",
        "/shops",
        "/shops?q=rather",
        "/new-shop",
        "/refusals",
        "/codes",
        "/policies",
        "/issuers",
        "/audit",
        "/operators",
        "/tokens",
        "/account",
        "/backups",
        "/about",
        "/shops/a-shop-with-a-rather-long-id-that-goes-on-and-on-until-it-ends/settings",
        "/shops/demo",
        "/shops/demo/tokens",
        "/shops/demo/limits",
        "/shops/demo/traffic",
        "/shops/demo/traffic?by=day",
        "/shops/demo/settings",
        "/shops/shop-03",
    ] {
        at.open(path);
    }
    first_links(&mut at);
    explored(&mut at, &live);
    shown_once(&mut at);
    states::unfolded(&mut at);
    states::refused_meanwhile(&mut at, &site);
    faults_of_forms(&mut at);
    on_a_phone(&mut at);
    second_factor(&mut at);
    assert!(at.seen > 50, "{}", at.seen);
    drop(at);
    gateway.metrics();
}

/// Pages that lists lead to, and what verifying says.
fn first_links(at: &mut Inspector<'_>) {
    let key = ["main tbody tr:nth-child(1) a", "main tbody tr:nth-child(3) a"];
    for (i, link) in key.iter().enumerate() {
        at.browser.open(&url(at.gateway, "/shops/demo"));
        at.press(link, &format!("key-{i}"));
    }
    at.browser.open(&url(at.gateway, "/operators"));
    at.press("main tbody tr:nth-child(1) a", "operator-1");
    at.browser.open(&url(at.gateway, "/operators"));
    at.press("main tbody tr:nth-child(3) a", "operator-3");
    at.browser.open(&url(at.gateway, "/shops"));
    at.press("nav.pages a[rel=next]", "shops-second-page");
    at.browser.open(&url(at.gateway, "/audit"));
    at.press("form[action='/audit/verify'] button", "audit-verified");
    at.browser.open(&url(at.gateway, "/backups"));
    at.press("form[action$='/verify'] button", "backup-verified");
    at.browser.open(&url(at.gateway, "/refusals"));
    at.press("#refusals tbody a[href^='/explore']", "refusal-explained");
}

fn explored(at: &mut Inspector<'_>, key: &str) {
    let base = "curl http://x.example/api";
    let known = format!("-H 'X-Shop-API-Key: {key}'");
    for (paste, name) in [
        (&*format!("{base}/plugin/shops/me {known}"), "explored"),
        (&*format!("{base}/plugin/shops/me -H 'X-Shop-API-Key: sk_none'"), "explored-401"),
        (&*format!("{base}/plugin/shops/shop-01/orders {known}"), "explored-403"),
        (&*format!("{base}/plugin/shops/demo/orders {known}"), "explored-429"),
        ("curl http://x.example/nowhere", "explored-404"),
        ("curl --frobnicate", "explore-fault-of-paste"),
    ] {
        let button = "section[aria-labelledby=paste-title] button";
        at.send("/explore", &[("paste", paste)], button, name);
    }
    let described = [("path", "no path"), ("kind", "x-shop-api-key"), ("client", "nobody")];
    let button = "section[aria-labelledby=describe-title] button.primary";
    at.send("/explore", &described, button, "explore-faults");
}

/// Pages that show something once.
fn shown_once(at: &mut Inspector<'_>) {
    for (path, fields, name) in [
        ("/shops/demo", &[("name", "Made here")][..], "key-made"),
        ("/shops/demo/tokens", &[], "widget-token-made"),
        ("/tokens", &[("name", "Robot"), ("role", "viewer")], "admin-token-made"),
        ("/operators", &[("name", "olga"), ("role", "operator")], "operator-made"),
    ] {
        at.browser.open(&url(at.gateway, path));
        at.browser.fill(fields);
        at.browser.press(PRIMARY);
        secrets::minted(&at.browser.text(SECRET));
        at.look_at_secret(name);
    }
    at.browser.press("main .actions a.button");
    at.press("form[action$='/disable'] button", "operator-disabled");
}

/// What is wrong stands beside its field.
fn faults_of_forms(at: &mut Inspector<'_>) {
    let settings = "/shops/demo/settings";
    for (path, fields, button, name) in [
        ("/new-shop", &[("url", "nowhere"), ("id", "DEMO!")][..], PRIMARY, "new-shop-faults"),
        ("/shops/demo", &[("networks", "everywhere")], PRIMARY, "key-faults"),
        ("/shops/demo/tokens", &[("lifetime", "long")], PRIMARY, "widget-token-faults"),
        (
            "/shops/demo/limits",
            &[("limit", "no"), ("window", "x")],
            "main details button",
            "limit-faults",
        ),
        (settings, &[("url", "ftp://x"), ("widget_origins", "x")], PRIMARY, "settings-faults"),
        (settings, &[("confirm", "dem")], "main details.danger button", "delete-fault"),
        ("/operators", &[("name", "ada"), ("shops", "nowhere")], PRIMARY, "operator-faults"),
        ("/tokens", &[("name", ""), ("role", "member")], PRIMARY, "admin-token-faults"),
        (
            "/account",
            &[("password", "short")],
            "form[action$='/password'] button",
            "password-faults",
        ),
        (
            "/backups",
            &[("lines", "{\"kind\": 1}\n")],
            "form[action='/import'] button",
            "import-faults",
        ),
    ] {
        at.send(path, fields, button, name);
    }
    at.browser.open(&url(at.gateway, settings));
    let spoil = "document.querySelectorAll('input[name=csrf]').forEach(f => { f.value = 'x'; });";
    at.browser.run(spoil, &[]);
    at.press(PRIMARY, "stale-form");
    at.open("/sign-out");
}

/// The menu, opened.
fn on_a_phone(at: &mut Inspector<'_>) {
    at.browser.open(&url(at.gateway, "/shops/demo"));
    for dark in [false, true] {
        view(&at.browser, 360, dark);
        if !dark {
            at.browser.click(".menu-button");
        }
        let found = violations(&at.browser);
        at.faults.extend(found.iter().map(|v| format!("the menu: {v}")));
        let menu = "return document.getElementById('menu').matches(':popover-open')";
        assert_eq!(at.browser.run(menu, &[]), true, "the menu is open");
        if at.pictures.is_some() {
            at.picture("menu", 360, dark);
        }
    }
}

/// Enrolment, its codes, and the step of the sign-in that asks for one.
fn second_factor(at: &mut Inspector<'_>) {
    at.browser.open(&url(at.gateway, "/account"));
    at.browser.fill(&[("own_password", PASSWORD)]);
    at.browser.press("form[action='/account/second-factor'] button");
    let secret = at.browser.text("main .steps code.select-all");
    at.look_at_secret("second-factor-setup");
    at.browser.fill(&[("code", "000000")]);
    at.browser.press("form[action$='/confirm'] button");
    at.look_at_secret("second-factor-fault");
    at.browser.fill(&[("code", &code_now(&secret))]);
    at.browser.press("form[action$='/confirm'] button");
    secrets::minted(&secret);
    let codes = at
        .browser
        .run("return [...document.querySelectorAll('.codes li')].map(c => c.textContent)", &[]);
    let codes: Vec<String> = serde_json::from_value(codes).expect("codes");
    assert_eq!(codes.len(), 10);
    for code in &codes {
        secrets::minted(code);
    }
    at.look_at_secret("recovery-codes");
    at.open("/account");
    at.browser.fill(&[("code", "no code")]);
    at.press("form[action$='/codes'] button", "recovery-codes-fault");
    at.browser.press(".who button");
    at.browser.fill(&[("name", "ada"), ("password", PASSWORD)]);
    at.press(PRIMARY, "sign-in-code");
    at.browser.fill(&[("password", PASSWORD), ("code", "123")]);
    at.press(PRIMARY, "sign-in-code-wrong");
    at.browser.fill(&[("password", PASSWORD), ("code", &codes[3])]);
    at.press(PRIMARY, "sign-in-by-recovery-code");
    assert_eq!(path(&at.browser), "/");
}

/// Whoever may little.
#[test]
fn for_members_and_viewers() {
    let site = Site::new(None, CHEAP);
    let gateway = site.start();
    gateway.shop("demo");
    let (key, _) = gateway.key("demo", &json!({"name": "Production"}));
    gateway.token("demo", &Value::Null);
    operator(&gateway, "mona", "member", &["demo"]);
    operator(&gateway, "vic", "viewer", &[]);
    let shop =
        ["", "/tokens", "/limits", "/traffic", "/settings"].map(|s| format!("/shops/demo{s}"));
    for (name, state) in [("mona", "member"), ("vic", "viewer")] {
        let mut at = Inspector::new(&gateway, state);
        sign_in(&at.browser, &gateway, name);
        let key = format!("/shops/demo/keys/{key}");
        let pages =
            ["/", "/shops", "/about", "/operators", "/refusals", "/account", "/issuers", &key];
        for path in pages {
            at.open(path);
        }
        for path in &shop {
            at.open(path);
        }
        at.open("/shops/theirs");
    }
}
