//! The dashboard, as people use it: signed in over HTTP, or in a browser.
//!
//! Operators are made through the unix socket. A [`Person`] speaks HTTP as a browser would,
//! without its script; [`sign_in`] takes a [`Browser`] through the page. [`violations`] asks
//! axe-core (vendored beside this file, with its licence) what is wrong with the page a browser
//! shows.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::browser::Browser;
use super::gateway::Gateway;
use super::http::{Request, Response, get, request};
use super::secrets;

/// The password of every operator that tests make.
pub(crate) const PASSWORD: &str = "seven grey horses in the rain";

/// Rules of axe-core that hold for whole pages, and are asked: WCAG 2.2 A and AA, and what is good
/// practice besides.
const AXE: &str = include_str!("axe/axe.min.js");

/// Makes an operator; `shops` are a member's.
pub(crate) fn operator(gateway: &Gateway, name: &str, role: &str, shops: &[&str]) {
    let made = json!({"name": name, "role": role, "password": PASSWORD, "shops": shops});
    gateway.api_ok("POST", "/operators", &made);
}

/// Somebody who is signed in, over HTTP.
pub(crate) struct Person {
    admin: SocketAddr,
    cookie: String,
    csrf: String,
}

impl Person {
    /// Signs in by the form, as a browser without script does.
    pub(crate) fn sign_in(gateway: &Gateway, name: &str) -> Self {
        let form = get("/sign-in").send(gateway.admin);
        let bound = cookie(&form, "latchkey-form").expect("a cookie that binds the form");
        let token = between(&form.text(), "name=\"csrf\" value=\"", "\"");
        let body = encoded(&[("csrf", &token), ("name", name), ("password", PASSWORD)]);
        let entered = post("/sign-in", &body)
            .header("Cookie", format!("latchkey-form={bound}"))
            .send(gateway.admin);
        assert_eq!(entered.status, 303, "{}", entered.text());
        let value = cookie(&entered, "latchkey").expect("a session's cookie");
        secrets::minted(&value);
        let mut this =
            Self { admin: gateway.admin, cookie: format!("latchkey={value}"), csrf: String::new() };
        let page = this.get("/");
        assert_eq!(page.status, 200, "{}", page.text());
        this.csrf = between(&page.text(), "name=\"csrf\" value=\"", "\"");
        this
    }

    /// The session's cookie, which is a secret.
    pub(crate) fn session(&self) -> &str {
        self.cookie.trim_start_matches("latchkey=")
    }

    /// Opens a page.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(get(path))
    }

    /// Sends a form, with its token.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("csrf", self.csrf.as_str())];
        all.extend(fields);
        self.send(post(path, &encoded(&all)))
    }

    /// Sends anything, with the session's cookie.
    pub(crate) fn send(&self, request: Request) -> Response {
        request.header("Cookie", &self.cookie).send(self.admin)
    }
}

/// A form on its way, without a cookie.
pub(crate) fn post(path: &str, body: &str) -> Request {
    request("POST", path).header("Content-Type", "application/x-www-form-urlencoded").body(body)
}

/// Fields as a form sends them.
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        text.bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect::<String>()
    };
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    pairs.join("&")
}

/// The value of a cookie that an answer sets.
pub(crate) fn cookie(response: &Response, name: &str) -> Option<String> {
    let set = response.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case("set-cookie"));
    let pairs = set.filter_map(|(_, value)| value.split(';').next()?.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.next()
}

/// What stands between `before` and the next `after`.
#[track_caller]
pub(crate) fn between(text: &str, before: &str, after: &str) -> String {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split(after).next().unwrap_or_default().to_owned()
}

/// The address of a page.
pub(crate) fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.admin)
}

/// Takes a browser through the sign-in.
pub(crate) fn sign_in(browser: &Browser, gateway: &Gateway, name: &str) {
    browser.open(&url(gateway, "/sign-in"));
    let script = "document.getElementById('name').value = arguments[0];\
        document.getElementById('password').value = arguments[1];\
        document.querySelector('main form').requestSubmit();";
    browser.run(script, &[json!(name), json!(PASSWORD)]);
    super::until(|| {
        let at = browser.run("return location.pathname + ' ' + document.readyState;", &[]);
        (at == "/ complete").then_some(())
    });
}

/// The code that an authenticator app shows now (RFC 6238) for a secret as it is typed in.
pub(crate) fn code_now(secret: &str) -> String {
    let digit = |c| u64::try_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c)?).ok();
    let (mut key, mut bits, mut held) = (Vec::new(), 0_u64, 0);
    for value in secret.chars().filter_map(digit) {
        (bits, held) = (bits << 5 | value, held + 5);
        if held >= 8 {
            held -= 8;
            key.push((bits >> held & 0xff) as u8);
        }
    }
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = ring::hmac::sign(&key, &(since / 30).to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 15);
    let word: [u8; 4] = tag[at..at + 4].try_into().expect("four bytes");
    format!("{:06}", (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000)
}

/// The width of the window, in CSS pixels, and the scheme that the reader prefers.
pub(crate) fn view(browser: &Browser, width: u32, dark: bool) {
    let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    browser.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    let scheme = if dark { "dark" } else { "light" };
    // Nothing moves: a colour on its way from one scheme to the other is none that is read.
    let features = json!([
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]);
    browser.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
}

/// What is wrong with the page that the browser shows: what axe-core finds, and whether the page
/// is wider than the window or a table wider than its place, unless that says how to scroll it.
pub(crate) fn violations(browser: &Browser) -> Vec<String> {
    browser.run(AXE, &[]);
    let script = "const found = await axe.run(document, {resultTypes: ['violations']});\
        const all = found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.html).join(' ')}`);\
        const wide = document.documentElement.scrollWidth;\
        if (wide > innerWidth) all.push(`the page is ${wide} wide, the window ${innerWidth}`);\
        for (const table of document.querySelectorAll('.table:not([tabindex])')) {\
            const [wide, place] = [table.scrollWidth, table.clientWidth];\
            if (wide > place) all.push(`a table is ${wide} wide in a place of ${place}`);\
        }\
        return all;";
    let found = browser.run(script, &[]);
    let Value::Array(found) = found else { panic!("axe-core did not run: {found}") };
    found.iter().map(|violation| violation.as_str().unwrap_or("?").to_owned()).collect()
}
