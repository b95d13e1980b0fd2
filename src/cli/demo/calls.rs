//! The demo's calls: each with the answer it gets, and why.
//!
//! One table for both uses, so that what is printed is what `--check` makes. The order matters
//! nowhere: every line gives its printed answer alone, in order, and again.

use http::Method;

/// What the calls carry. All of it belongs to the demo's temporary store.
pub(super) struct Cast {
    /// A key of shop `demo`.
    pub(super) key: String,
    /// A key of shop `other`.
    pub(super) other_key: String,
    /// A widget token of shop `demo` that may do everything.
    pub(super) token: String,
    /// A widget token of shop `demo` that may only search.
    pub(super) search_token: String,
    /// A widget token of shop `demo` whose time is over.
    pub(super) expired_token: String,
    /// A JWT of the demo's identity provider.
    pub(super) jwt: String,
    /// A JWT of the demo's identity provider whose time is over.
    pub(super) expired_jwt: String,
    /// A JWT that names the demo's identity provider, signed by somebody else.
    pub(super) forged_jwt: String,
}

/// A call, and what it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Which way in it shows.
    pub(super) section: Section,
    /// The status of the answer.
    pub(super) status: u16,
    /// The `code` of the problem, or `ok`.
    pub(super) code: &'static str,
    /// What is shown.
    pub(super) why: &'static str,
    /// The method.
    pub(super) method: Method,
    /// Path and query, as they are sent.
    pub(super) target: &'static str,
    /// Headers.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body.
    pub(super) body: Option<&'static str>,
}

/// The ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Key,
    Widget,
    Jwt,
    Anonymous,
    Anything,
}

impl Section {
    /// In the order they are shown.
    pub(super) const ALL: [Self; 5] =
        [Self::Key, Self::Widget, Self::Jwt, Self::Anonymous, Self::Anything];

    /// The line above its calls.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Key => "Shop API key: a shop's own server",
            Self::Widget => "Widget token: a browser, on the shop's pages",
            Self::Jwt => "JWT: a signed-in app",
            Self::Anonymous => "Anonymous: anyone, under a strict limit",
            Self::Anything => "Whatever it carries",
        }
    }
}

impl Call {
    fn new(
        section: Section,
        (status, code): (u16, &'static str),
        why: &'static str,
        target: &'static str,
    ) -> Self {
        let (method, headers, body) = (Method::GET, Vec::new(), None);
        Self { section, status, code, why, method, target, headers, body }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn post(self, body: &'static str) -> Self {
        Self { method: Method::POST, body: Some(body), ..self }.with("Content-Type", JSON)
    }

    /// The line that says what the answer is.
    pub(super) fn expectation(&self) -> String {
        format!("# {} {}: {}", self.status, self.code, self.why)
    }

    /// The line to paste into a shell, for a server at `base` (`http://127.0.0.1:8080`).
    pub(super) fn curl(&self, base: &str) -> String {
        let mut words = vec!["curl -si".to_owned()];
        // Without it curl tidies the path up before sending it, and nothing is left to refuse.
        if self.target.contains("/../") {
            words.push("--path-as-is".to_owned());
        }
        for (name, value) in &self.headers {
            words.push(format!("-H {}", quote(&format!("{name}: {value}"))));
        }
        // Data makes it a POST.
        words.extend(self.body.map(|body| format!("-d {}", quote(body))));
        let url = format!("{base}{}", self.target);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:.-_%".contains(&b);
        words.push(if url.bytes().all(plain) { url } else { quote(&url) });
        words.join(" ")
    }
}

const KEY: &str = "X-Shop-API-Key";
const TOKEN: &str = "X-Widget-Token";
const JSON: &str = "application/json";
const OK: (u16, &str) = (200, "ok");
const MISSING: (u16, &str) = (401, "missing_credential");
const INVALID: (u16, &str) = (401, "invalid_credential");
const EXPIRED: (u16, &str) = (401, "expired_credential");
const FOREIGN: (u16, &str) = (403, "origin_mismatch");

/// The site of shop `demo`.
pub(super) const SHOP_URL: &str = "https://shop.example";
/// Under a limit of one call in thirty days, which the demo uses up before it prints anything.
pub(super) const USED_UP: &str = "/api/search/limited";

/// All calls, section by section.
pub(super) fn all(cast: &Cast) -> Vec<Call> {
    let mut calls = key_calls(cast);
    calls.extend(widget_calls(cast));
    calls.extend(jwt_calls(cast));
    calls.extend(anonymous_calls());
    calls.extend(other_calls(cast));
    calls
}

fn key_calls(cast: &Cast) -> Vec<Call> {
    let call = |answer, why, target| Call::new(Section::Key, answer, why, target);
    let products = "/api/plugin/shops/demo/products";
    vec![
        call(OK, "a key on its own shop's path", products).with(KEY, &cast.key),
        call(OK, "`me` stands for the key's shop", "/api/plugin/shops/me").with(KEY, &cast.key),
        call(OK, "a page of the shop's own site", products)
            .with(KEY, &cast.key)
            .with("Origin", SHOP_URL),
        call((201, "ok"), "a shop's server issues a widget token for its pages", ISSUE)
            .with(KEY, &cast.key)
            .post(r#"{"scopes":["search"]}"#),
        call(MISSING, "no key", products),
        call(INVALID, "no such key", products).with(KEY, UNKNOWN_KEY),
        call(INVALID, "not a key at all", products).with(KEY, "hello"),
        call((403, "cross_tenant"), "a key of shop other on shop demo's path", products)
            .with(KEY, &cast.other_key),
        call(FOREIGN, "a page of another site", products)
            .with(KEY, &cast.key)
            .with("Origin", "https://evil.example"),
        call(FOREIGN, "a name that only ends like the shop's", products)
            .with(KEY, &cast.key)
            .with("Origin", "https://not-shop.example"),
    ]
}

const ISSUE: &str = "/api/plugin/shops/demo/widget-token";
const UNKNOWN_KEY: &str = "sk_00000000000000000000000000000000";

fn widget_calls(cast: &Cast) -> Vec<Call> {
    let call = |answer, why, target| Call::new(Section::Widget, answer, why, target);
    let (search, compare) = ("/api/widget/search?q=shoes", "/api/widget/compare");
    vec![
        call(OK, "a token of shop demo, on the shop's page", search)
            .with(TOKEN, &cast.token)
            .with("Origin", SHOP_URL),
        call(OK, "a token for searching only, searching", search).with(TOKEN, &cast.search_token),
        call(MISSING, "no token", search),
        call(INVALID, "not a token that latchkey signed", search).with(TOKEN, "lkw1_AAAA"),
        call(EXPIRED, "a token whose time is over", search).with(TOKEN, &cast.expired_token),
        call((403, "insufficient_scope"), "a token for searching only, comparing", compare)
            .with(TOKEN, &cast.search_token),
        call(FOREIGN, "a token of shop demo on another site's page", search)
            .with(TOKEN, &cast.token)
            .with("Origin", "https://evil.example"),
        call(MISSING, "a shop API key does not open the widget's routes", search)
            .with(KEY, &cast.key),
    ]
}

fn jwt_calls(cast: &Cast) -> Vec<Call> {
    let call = |answer, why, token: &str| {
        let call = Call::new(Section::Jwt, answer, why, "/api/search/items");
        call.with("Authorization", &format!("Bearer {token}"))
    };
    vec![
        call(OK, "signed by the demo's identity provider", &cast.jwt),
        call(INVALID, "signed by somebody else", &cast.forged_jwt),
        call(INVALID, "not a JWT: a bad credential never counts as none", "hello"),
        call(EXPIRED, "its time is over", &cast.expired_jwt),
    ]
}

fn anonymous_calls() -> Vec<Call> {
    let call = |answer, why, target| Call::new(Section::Anonymous, answer, why, target);
    vec![
        call(OK, "no credential, within the limit", "/api/search/items"),
        call((429, "rate_limited"), "over a limit of one call in 30 days", USED_UP),
    ]
}

fn other_calls(cast: &Cast) -> Vec<Call> {
    let call = |answer, why, target| Call::new(Section::Anything, answer, why, target);
    let bad = (400, "bad_request");
    vec![
        call(bad, "a path that two servers could read differently", DOTS).with(KEY, &cast.key),
        call(bad, "an encoded slash", "/api/search/a%2Fb"),
        call((404, "not_found"), "a path that no route takes", "/admin"),
    ]
}

const DOTS: &str = "/api/plugin/shops/other/../demo/products";

/// `text` as one word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::decision::denial::Code;

    fn cast() -> Cast {
        let text = |name: &str| name.to_owned();
        Cast {
            key: text("sk_k"),
            other_key: text("sk_o"),
            token: text("lkw1_t"),
            search_token: text("lkw1_s"),
            expired_token: text("lkw1_e"),
            jwt: text("j"),
            expired_jwt: text("je"),
            forged_jwt: text("jf"),
        }
    }

    #[test]
    fn every_call_is_well_formed() {
        for call in all(&cast()) {
            let code = Code::ALL.iter().find(|c| c.as_str() == call.code);
            match code {
                Some(code) => assert_eq!(code.status(), call.status, "{call:?}"),
                None => assert!(call.code == "ok" && call.status < 300, "{call:?}"),
            }
            assert!(!call.expectation().contains('\n') && !call.curl("http://x").contains('\n'));
            assert!(call.target.parse::<http::Uri>().is_ok(), "{call:?}");
        }
    }

    #[test]
    fn every_way_in_is_shown_open_and_shut() {
        let calls = all(&cast());
        for section in Section::ALL {
            let of = || calls.iter().filter(|c| c.section == section);
            assert!(of().any(|c| c.status >= 400), "{section:?}");
            assert!(of().any(|c| c.status < 300) || section == Section::Anything, "{section:?}");
        }
        let codes: HashSet<&str> = calls.iter().map(|c| c.code).collect();
        for code in [
            "ok",
            "bad_request",
            "not_found",
            "missing_credential",
            "invalid_credential",
            "expired_credential",
            "origin_mismatch",
            "cross_tenant",
            "insufficient_scope",
            "rate_limited",
        ] {
            assert!(codes.contains(code), "{code}");
        }
        assert!(calls.iter().any(|c| c.status == 201));
    }

    #[test]
    fn lines_to_paste() {
        let calls = all(&cast());
        let foreign = calls.iter().find(|c| c.code == "cross_tenant").unwrap();
        assert_eq!(
            (foreign.expectation().as_str(), foreign.curl("http://127.0.0.1:8080").as_str()),
            (
                "# 403 cross_tenant: a key of shop other on shop demo's path",
                "curl -si -H 'X-Shop-API-Key: sk_o' \
                 http://127.0.0.1:8080/api/plugin/shops/demo/products"
            )
        );
        let line = |target| calls.iter().find(|c| c.target == target).unwrap().curl("http://h");
        assert!(line(DOTS).starts_with("curl -si --path-as-is -H"), "{}", line(DOTS));
        assert!(
            line("/api/widget/search?q=shoes").ends_with(" 'http://h/api/widget/search?q=shoes'")
        );
        assert!(line(ISSUE).contains(r#" -d '{"scopes":["search"]}' "#), "{}", line(ISSUE));
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
