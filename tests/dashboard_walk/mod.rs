//! The dashboard in headless Chromium, from the set-up link to the sign-out, as people walk it.

mod access;
mod every_page;
mod inspector;
mod nothing_secret;
mod states;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Pages};
use crate::support::dashboard::{PASSWORD, sign_in, url};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{get, request};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{secrets, until};

/// Hashes of passwords that cost next to nothing.
const CHEAP: &str = "[admin.passwords]\nmemory = \"64KiB\"\niterations = 1\n";

/// Where the one primary button of a form is.
const PRIMARY: &str = "main button.primary";
/// Where a secret is shown.
const SECRET: &str = "main .secret code";

/// What a page shows in its main part.
fn page(browser: &Browser) -> String {
    browser.text("main")
}

fn path(browser: &Browser) -> String {
    browser.run("return location.pathname", &[]).as_str().expect("a path").to_owned()
}

/// The secret that the page shows this once.
fn shown_once(browser: &Browser) -> String {
    assert!(page(browser).contains("this once"), "{}", page(browser));
    let secret = browser.text(SECRET);
    secrets::minted(&secret);
    secret
}

/// What becomes of a key on the data listener.
fn outcome(gateway: &Gateway, key: &str) -> String {
    gateway.send(&get("/api/plugin/shops/me/orders").key(key)).outcome()
}

fn signs_in_by_password(browser: &Browser, gateway: &Gateway, password: &str) {
    browser.open(&url(gateway, "/sign-in"));
    browser.fill(&[("name", "ada"), ("password", password)]);
    browser.press(PRIMARY);
}

#[test]
fn an_owner_sets_up_and_runs_a_shop() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), CHEAP);
    let gateway = site.start();
    let browser = Browser::start();
    set_up(&browser, &gateway);

    browser.open(&url(&gateway, "/"));
    browser.press("main .empty a.button");
    assert_eq!(path(&browser), "/new-shop", "an empty dashboard says what to do next");
    let pages = Pages::start();
    let origin = pages.origin("shop.localhost");
    browser.fill(&[("name", "Lamps & more"), ("url", &origin), ("id", "demo")]);
    browser.press(PRIMARY);
    assert_eq!(path(&browser), "/shops/demo");
    assert!(page(&browser).contains("Lamps & more"));
    keys(&browser, &gateway);
    widget(&browser, &gateway, &pages);
    refusals(&browser, &gateway);
    sign_out(&browser, &gateway);
    assert_eq!(browser.complaints(), [""; 0]);
}

/// By the printed link, once.
fn set_up(browser: &Browser, gateway: &Gateway) {
    let link = gateway.set_up_link().expect("a link");
    browser.open(&link);
    let code = link.split_once('#').expect("a fragment").1;
    let entered = browser.run("return document.getElementById('token').value", &[]);
    assert_eq!(entered, code, "the link fills the code in");
    assert!(!browser.address().contains(code), "and the address bar keeps nothing of it");
    browser.fill(&[("name", "ada"), ("password", PASSWORD), ("repeated", "something else")]);
    browser.press(PRIMARY);
    assert_eq!(path(browser), "/setup");
    let complaint = browser.text("#repeated-error");
    assert!(!complaint.is_empty());
    browser.fill(&[("token", code), ("password", PASSWORD), ("repeated", PASSWORD)]);
    browser.press(PRIMARY);
    assert_eq!((path(browser).as_str(), browser.text("h1").as_str()), ("/", "Overview"));
    assert_eq!(browser.text(".who-name bdi"), "ada");
    assert_eq!(browser.text(".who-name small"), "owner");
    assert_eq!(browser.run("return document.cookie", &[]), "", "no cookie is for scripts");

    browser.press(".who button");
    browser.open(&link);
    assert!(page(browser).contains("Set-up is closed"), "{}", page(browser));
    signs_in_by_password(browser, gateway, "seven grey horses in the sun");
    assert_eq!(path(browser), "/sign-in");
    assert!(!browser.text("main [role=alert]").is_empty());
    let left = browser.run("return document.getElementById('password').value", &[]);
    assert_eq!(left, "", "a wrong password is not sent back");
    assert!(page(browser).contains("Sign in"));
    signs_in_by_password(browser, gateway, PASSWORD);
    assert_eq!(path(browser), "/");
}

fn keys(browser: &Browser, gateway: &Gateway) {
    browser.fill(&[("name", "Server")]);
    browser.press(PRIMARY);
    let first = shown_once(browser);
    browser.run("document.querySelector('button.copy').hidden || 0", &[]);
    assert_eq!(outcome(gateway, &first), "200 ok");
    browser.press("main .actions a.button");
    assert!(!browser.text("html").contains(&first));
    browser.back();
    assert!(!browser.text("html").contains(&first), "nor does the back button show it");

    let rotate = |grace: &str| {
        browser.open(&url(gateway, "/shops/demo"));
        browser.press("main table tbody tr a");
        browser.fill(&[("grace", grace)]);
        browser.press(PRIMARY);
        shown_once(browser)
    };
    let second = rotate("1h");
    assert_eq!([&first, &second].map(|key| outcome(gateway, key)), ["200 ok", "200 ok"]);
    // The newest key is the first of the list, so this replaces the second.
    browser.open(&url(gateway, "/shops/demo"));
    let script = "return [...document.querySelectorAll('main tbody tr')].map(row => \
        [row.querySelector('code').textContent, row.querySelector('a').getAttribute('href')]);";
    let rows = browser.run(script, &[]);
    let href = |key: &str| {
        let own =
            |row: &&Value| key.starts_with(row[0].as_str().expect("a start").trim_end_matches('…'));
        let row = rows.as_array().expect("rows").iter().find(own).expect("a row");
        row[1].as_str().expect("a link").to_owned()
    };
    browser.open(&url(gateway, &href(&second)));
    browser.fill(&[("grace", "0s")]);
    browser.press(PRIMARY);
    let third = shown_once(browser);
    let all = [&first, &second, &third];
    let now = all.map(|key| outcome(gateway, key));
    assert_eq!((now[0].as_str(), now[2].as_str()), ("200 ok", "200 ok"));
    assert!(now[1].starts_with("401 "), "{}", now[1]);

    browser.open(&url(gateway, &href(&first)));
    browser.click("main details.danger summary");
    browser.press("main details.danger button.destroy");
    assert!(outcome(gateway, &first).starts_with("401 "), "{}", outcome(gateway, &first));
    assert_eq!(outcome(gateway, &third), "200 ok");
}

/// A token in a page of the shop, and in one that is not the shop's.
fn widget(browser: &Browser, gateway: &Gateway, pages: &Pages) {
    browser.open(&url(gateway, "/shops/demo/tokens"));
    browser.press(PRIMARY);
    let token = shown_once(browser);
    assert!(browser.text("main .snippet").contains(&token), "the element to paste is ready");
    let call = "const [url, token] = arguments;\
        const answer = await fetch(url, {method: 'POST', body: '{}',\
            headers: {'X-Widget-Token': token, 'Content-Type': 'application/json'}});\
        return [answer.status, await answer.text()];";
    let search = json!(format!("http://{}/api/widget/search", gateway.data));
    browser.open(&pages.origin("shop.localhost"));
    let answer = browser.run(call, &[search.clone(), json!(token)]);
    assert_eq!(answer[0], 200, "{answer}");
    assert!(answer[1].as_str().expect("text").starts_with("POST /api/widget/search"), "{answer}");
    browser.open(&pages.origin("evil.localhost"));
    let answer = browser.run(call, &[search, json!(token)]);
    assert_eq!(answer, json!({"threw": "TypeError: Failed to fetch"}));
    // What the browser said of that is right.
    let said = browser.complaints();
    assert!(said.iter().all(|line| !line.contains(&gateway.admin.to_string())), "{said:?}");
}

/// One appears while the page is open, and is explained.
fn refusals(browser: &Browser, gateway: &Gateway) {
    browser.open(&url(gateway, "/refusals"));
    until(|| browser.text("#live-state").starts_with("Live").then_some(()));
    let missing = "return [...document.querySelectorAll('#refusals tbody tr')]\
        .filter(row => row.textContent.includes('/api/plugin/shops/me/lamps')).length";
    assert_eq!(browser.run(missing, &[]), 0);
    let refused = gateway.send(&get("/api/plugin/shops/me/lamps").header("Origin", "null"));
    assert_eq!(refused.status, 401);
    until(|| (browser.run(missing, &[]) == 1).then_some(()));
    let row = browser.text("#refusals tbody tr");
    assert!(row.contains("missing_credential") && row.contains("401"), "{row}");
    browser.press("#refusals tbody tr .explain");
    assert_eq!(path(browser), "/explore");
    assert!(browser.text(".flash").contains("missing_credential"), "{}", page(browser));
    browser.press("section[aria-labelledby=describe-title] button.primary");
    assert!(browser.text("#walk").contains("missing_credential"));
    assert!(page(browser).contains("What to do"), "{}", page(browser));
    assert!(browser.text(".stages").len() > 100);
    let described = browser.run("return document.getElementById('path').value", &[]);
    assert_eq!(described, "/api/plugin/shops/me/lamps");
}

/// The session is over, wherever its cookie is.
fn sign_out(browser: &Browser, gateway: &Gateway) {
    browser.open(&url(gateway, "/shops/demo"));
    let cookies = browser.devtools("Network.getAllCookies", &json!({}));
    let cookies = cookies["cookies"].as_array().expect("cookies").clone();
    let session = cookies.iter().find(|cookie| cookie["name"] == "latchkey").expect("a session");
    assert_eq!((&session["httpOnly"], &session["sameSite"]), (&json!(true), &json!("Strict")));
    let value = session["value"].as_str().expect("a value");
    secrets::minted(value);
    let again = || {
        let cookie = format!("latchkey={value}");
        request("GET", "/shops/demo").header("Cookie", cookie).send(gateway.admin).status
    };
    assert_eq!(again(), 200);
    browser.press(".who button");
    assert_eq!(path(browser), "/sign-in");
    assert_eq!(again(), 303, "a cookie that was kept opens nothing");
    browser.back();
    until(|| (path(browser) == "/sign-in").then_some(()));
    assert!(!browser.text("html").contains("Lamps"), "nor does the back button");
    sign_in(browser, gateway, "ada");
}
