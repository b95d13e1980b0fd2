//! Who may not: members elsewhere, viewers who write, pages of other origins.

use serde_json::{Value, json};

use super::{CHEAP, page, path};
use crate::support::browser::{Browser, Pages};
use crate::support::dashboard::{operator, sign_in, url};
use crate::support::gateway::{Gateway, Site};

/// Sends a form by script from the page that is open: its status, and where it led.
const POST: &str = "const [path, fields] = arguments;\
    const csrf = document.querySelector('input[name=csrf]').value;\
    const body = new URLSearchParams({csrf, ...fields});\
    const answer = await fetch(path, {method: 'POST', body, redirect: 'manual'});\
    return answer.type === 'opaqueredirect' ? 303 : answer.status;";

/// The status of a page, asked for by script.
const STATUS: &str = "return (await fetch(arguments[0], {redirect: 'manual'})).status;";

/// Puts a form of another site's making into the page that is open, and sends it there.
const FORGE: &str = "const [to, fields] = arguments;\
    const form = document.createElement('form');\
    Object.assign(form, {method: 'post', action: to});\
    for (const [name, value] of Object.entries(fields)) {\
        const field = document.createElement('input');\
        Object.assign(field, {type: 'hidden', name, value});\
        form.append(field);\
    }\
    const button = document.createElement('button');\
    button.id = 'forge'; button.textContent = 'Win';\
    form.append(button);\
    (document.body || document.documentElement).append(form);";

fn start() -> (Site, Gateway, Browser) {
    let site = Site::new(None, CHEAP);
    let gateway = site.start();
    gateway.shop("mine").shop("theirs");
    (site, gateway, Browser::start())
}

fn is_enabled(gateway: &Gateway, shop: &str) -> bool {
    gateway.api_ok("GET", &format!("/shops/{shop}"), &Value::Null)["enabled"] == true
}

/// Pages about the whole node.
const NODE: [&str; 6] = ["/policies", "/issuers", "/operators", "/tokens", "/backups", "/about"];

#[test]
fn a_member_sees_its_shop_and_no_other() {
    let (_site, gateway, browser) = start();
    let (key, _) = gateway.key("theirs", &json!({}));
    operator(&gateway, "mona", "member", &["mine"]);
    sign_in(&browser, &gateway, "mona");
    browser.open(&url(&gateway, "/shops"));
    let listed = page(&browser);
    assert!(listed.contains("mine") && !listed.contains("theirs"), "{listed}");
    browser.open(&url(&gateway, "/shops?q=theirs"));
    assert!(!page(&browser).contains("theirs.example"), "{}", page(&browser));
    let links = "return [...document.querySelectorAll('nav a, main a')]\
        .map(link => link.getAttribute('href'))";
    let links = browser.run(links, &[]);
    for node in NODE {
        assert!(!links.as_array().expect("links").contains(&json!(node)), "{node}: {links}");
        assert_eq!(browser.run(STATUS, &[json!(node)]), 403, "{node}");
    }
    let theirs = ["", "/tokens", "/limits", "/traffic", "/traffic.csv", "/settings"];
    let theirs = theirs.map(|part| format!("/shops/theirs{part}"));
    for path in theirs.iter().chain([&format!("/shops/theirs/keys/{key}")]) {
        assert_eq!(browser.run(STATUS, &[json!(path)]), 404, "{path}");
    }
    let own = format!("/shops/mine/keys/{key}");
    assert_eq!(browser.run(STATUS, &[json!(own)]), 404, "a key of another shop under the own one");
    browser.open(&url(&gateway, "/shops/theirs"));
    assert_eq!(browser.text(".failure .status"), "404");
    let nowhere = page(&browser);
    browser.open(&url(&gateway, "/shops/nowhere"));
    assert_eq!(page(&browser), nowhere, "a shop of others is as good as none");
    for (path, fields) in [
        ("/shops/theirs/disable", json!({})),
        ("/shops/theirs/keys", json!({"name": "x"})),
        ("/shops/theirs/delete", json!({"confirm": "theirs"})),
        ("/shops/theirs/tokens", json!({})),
    ] {
        assert_eq!(browser.run(POST, &[json!(path), fields]), 404, "{path}");
    }
    let made = browser.run(POST, &[json!("/new-shop"), json!({"url": "https://x.example"})]);
    assert_eq!(made, 403);
    let delete = [json!("/shops/mine/delete"), json!({"confirm": "mine"})];
    assert_eq!(browser.run(POST, &delete), 403);
    assert!(is_enabled(&gateway, "theirs"));
}

#[test]
fn a_viewer_reads_and_writes_nothing() {
    let (_site, gateway, browser) = start();
    let (key, _) = gateway.key("mine", &json!({}));
    let (token, _) = gateway.token("mine", &Value::Null);
    operator(&gateway, "vic", "viewer", &[]);
    sign_in(&browser, &gateway, "vic");
    let own_affairs = ["/sign-out", "/explore", "/audit/verify"];
    let key_page = format!("/shops/mine/keys/{key}");
    let shop = ["", "/tokens", "/limits", "/traffic", "/settings"];
    let shop = shop.map(|part| format!("/shops/mine{part}"));
    let others = ["/", "/shops", "/refusals", "/explore", "/policies", "/issuers", "/audit"];
    let pages = shop.iter().map(String::as_str).chain(others).chain([key_page.as_str()]);
    for path in pages {
        browser.open(&url(&gateway, path));
        assert!(!page(&browser).contains("not allowed"), "{path}");
        let forms = "return [...document.querySelectorAll('form[method=post]')]\
            .map(form => form.getAttribute('action'))";
        let forms = browser.run(forms, &[]);
        let strange = |form: &&Value| !own_affairs.contains(&form.as_str().expect("an action"));
        let strange: Vec<&Value> =
            forms.as_array().expect("forms").iter().filter(strange).collect();
        assert!(strange.is_empty(), "{path}: {strange:?}");
    }
    let before = gateway.api_ok("GET", "/shops/mine/keys", &Value::Null);
    for (path, fields) in [
        ("/new-shop".to_owned(), json!({"url": "https://new.example", "id": "new"})),
        ("/shops/mine/disable".to_owned(), json!({})),
        ("/shops/mine/delete".to_owned(), json!({"confirm": "mine"})),
        ("/shops/mine/keys".to_owned(), json!({"name": "x"})),
        (format!("{key_page}/revoke"), json!({})),
        (format!("{key_page}/rotate"), json!({"grace": "0s"})),
        ("/shops/mine/tokens".to_owned(), json!({})),
        (format!("/shops/mine/tokens/{token}/revoke"), json!({})),
        ("/shops/mine/revoke-tokens".to_owned(), json!({"confirm": "mine"})),
        ("/tokens".to_owned(), json!({"name": "x", "role": "owner"})),
        ("/operators".to_owned(), json!({"name": "eve", "role": "owner"})),
        ("/backups".to_owned(), json!({})),
    ] {
        assert_eq!(browser.run(POST, &[json!(path), fields]), 403, "{path}");
    }
    assert!(is_enabled(&gateway, "mine"));
    assert_eq!(gateway.api_ok("GET", "/shops/mine/keys", &Value::Null), before);
    assert_eq!(gateway.api("GET", "/shops/new", &Value::Null).status, 404);
    let tokens = gateway.api_ok("GET", "/admin-tokens", &Value::Null);
    assert_eq!(tokens["items"], json!([]));
    let operators = gateway.api_ok("GET", "/operators", &Value::Null);
    assert_eq!(operators["items"].as_array().expect("operators").len(), 1);
}

/// With the right token, even: as if it had leaked.
#[test]
fn a_page_of_another_origin_sends_no_form() {
    let (_site, gateway, browser) = start();
    operator(&gateway, "ada", "owner", &[]);
    sign_in(&browser, &gateway, "ada");
    let csrf = browser.run("return document.querySelector('input[name=csrf]').value", &[]);
    let pages = Pages::start();
    let target = json!(url(&gateway, "/shops/mine/disable"));
    // Another site, to which browsers do not send the cookie; and another port of this very
    // address, which is the same site, so that they do.
    for (host, led_to) in [("evil.localhost", ""), ("127.0.0.1", "403")] {
        browser.open(&pages.origin(host));
        browser.run(FORGE, &[target.clone(), json!({"csrf": csrf})]);
        browser.press("#forge");
        let shown = page(&browser);
        assert!(is_enabled(&gateway, "mine"), "{host}: {shown}");
        assert!(path(&browser) == "/sign-in" || shown.starts_with("403"), "{host}: {shown}");
        assert!(shown.contains(led_to), "{host}: {shown}");
        // Nor does a script read anything.
        browser.open(&pages.origin(host));
        let read = "const answer = await fetch(arguments[0], {credentials: 'include'});\
            return answer.text();";
        let read = browser.run(read, &[json!(url(&gateway, "/shops"))]);
        assert_eq!(read, json!({"threw": "TypeError: Failed to fetch"}), "{host}");
    }
    // On this site's own page, a token that is not the session's.
    browser.open(&url(&gateway, "/shops/mine/settings"));
    let spoil = "document.querySelectorAll('input[name=csrf]')\
        .forEach(field => { field.value = arguments[0]; });";
    for wrong in [String::new(), "A".repeat(43)] {
        browser.open(&url(&gateway, "/shops/mine/settings"));
        browser.run(spoil, &[json!(wrong)]);
        browser.press("form[action$='/disable'] button");
        assert!(page(&browser).starts_with("403"), "{}", page(&browser));
        assert!(is_enabled(&gateway, "mine"));
    }
    browser.open(&url(&gateway, "/shops/mine/settings"));
    browser.press("form[action$='/disable'] button");
    assert!(!is_enabled(&gateway, "mine"), "the same form, as it is, works");
}
