//! The dashboard's frame: who gets in, what is refused, what every answer carries.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::dashboard::{
    PASSWORD, Person, between, cookie, encoded, operator, post, sign_in, url, view, violations,
};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, get, request};
use crate::support::secrets;

const PAGES: [&str; 7] = ["/", "/refusals", "/codes", "/explore", "/policies", "/api", "/about"];

fn start() -> (Site, Gateway) {
    let site = Site::new(None, "");
    let gateway = site.start();
    operator(&gateway, "ada", "owner", &[]);
    (site, gateway)
}

/// What every page of the dashboard has, whoever asks for it.
#[track_caller]
fn protected(response: &Response) {
    let policy = response.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    let text = response.text();
    for inline in [" style=", "<style", " onclick=", " onload=", "javascript:", "<script>"] {
        assert!(!text.contains(inline), "{inline} in {text}");
    }
}

#[test]
fn who_has_not_signed_in_is_sent_to_the_sign_in() {
    let (_site, gateway) = start();
    for path in PAGES {
        let answer = get(path).send(gateway.admin);
        assert_eq!(answer.status, 303, "{path}");
        protected(&answer);
        let location = answer.header("location").expect("a place to go");
        assert!(location.starts_with("/sign-in"), "{path}: {location}");
    }
    let answer = get("/refusals?code=not_found").send(gateway.admin);
    assert_eq!(answer.header("location"), Some("/sign-in?next=%2Frefusals%3Fcode%3Dnot_found"));
    for path in ["/live/overview", "/live/events", "/sign-out"] {
        let answer = get(path).send(gateway.admin);
        assert!(answer.status == 303 || answer.status == 405, "{path}: {}", answer.status);
    }
    let made_up = "A".repeat(43);
    let answer = get("/about").header("Cookie", format!("latchkey={made_up}")).send(gateway.admin);
    assert_eq!(answer.status, 303, "a session that never was");
}

#[test]
fn pages_are_shown_and_protected() {
    let (_site, gateway) = start();
    let ada = Person::sign_in(&gateway, "ada");
    for path in PAGES {
        let page = ada.get(path);
        assert_eq!(page.status, 200, "{path}");
        protected(&page);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().contains("<html lang=\"en\">") && page.text().contains("<h1>"));
        let head = ada.send(request("HEAD", path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let posted = ada.post(path, &[]);
        assert!([405, 422].contains(&posted.status), "{path}: {}", posted.status);
    }
    let missing = ada.get("/no/such/page");
    assert_eq!(missing.status, 404);
    protected(&missing);
    assert!(missing.text().contains("Sign out"), "in the frame of who asks");
    let api = ada.get("/api/v1/no-such-thing");
    assert_eq!(api.header("content-type"), Some("application/problem+json"));
    assert_eq!(ada.get("/api/v1/shops").status, 401, "the API never reads cookies");
}

#[test]
fn assets_are_kept_forever_and_found_by_their_digest_only() {
    let (_site, gateway) = start();
    let ada = Person::sign_in(&gateway, "ada");
    let page = ada.get("/").text();
    let links: Vec<&str> = page.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in &links {
        let asset = get(link).send(gateway.admin);
        assert_eq!(asset.status, 200, "{link}");
        let kept = "public, max-age=31536000, immutable";
        assert_eq!(asset.header("cache-control"), Some(kept));
        assert_eq!(asset.header("x-content-type-options"), Some("nosniff"));
        let kind = asset.header("content-type").expect("a type");
        let wanted = match link.rsplit('.').next() {
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            _ => "image/svg+xml",
        };
        assert!(kind.starts_with(wanted), "{link}: {kind}");
    }
    let name = links[0].rsplit('/').next().expect("a name");
    let other = format!("/assets/{}/{name}", "0".repeat(32));
    for gone in [&*other, "/assets/x", "/assets/x/..%2f..%2fmod.rs"] {
        let answer = get(gone).send(gateway.admin);
        assert!(answer.status == 404 || answer.status == 303, "{gone}: {}", answer.status);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{gone}");
    }
}

#[test]
fn forms_of_other_sites_and_other_sessions_are_refused() {
    let (_site, gateway) = start();
    operator(&gateway, "eve", "owner", &[]);
    let (ada, eve) = (Person::sign_in(&gateway, "ada"), Person::sign_in(&gateway, "eve"));
    let token = between(&eve.get("/").text(), "name=\"csrf\" value=\"", "\"");
    let own = between(&ada.get("/").text(), "name=\"csrf\" value=\"", "\"");
    assert_ne!(token, own);
    for body in ["", "csrf=", &encoded(&[("csrf", &token)])] {
        let answer = ada.send(post("/sign-out", body));
        assert_eq!(answer.status, 403, "{body}");
        protected(&answer);
    }
    let good = encoded(&[("csrf", &own)]);
    let host = gateway.admin.to_string();
    let same = format!("http://{host}");
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", &*format!("https://{host}")),
        ("Origin", &*format!("{same}.evil.example")),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "none"),
    ] {
        let answer = ada.send(post("/sign-out", &good).header(name, value));
        assert_eq!(answer.status, 403, "{name}: {value}");
    }
    let twice = post("/sign-out", &good).header("Origin", &same).header("Origin", &same);
    assert_eq!(ada.send(twice).status, 403, "two origins");
    let json = request("POST", "/sign-out").header("Content-Type", "application/json").body("{}");
    assert_eq!(ada.send(json).status, 400);
    let large = format!("{good}&x={}", "x".repeat(300 * 1024));
    assert_eq!(ada.send(post("/sign-out", &large)).status, 413);
    assert_eq!(ada.get("/").status, 200, "none of it signed her out");

    let meant =
        post("/sign-out", &good).header("Origin", &same).header("Sec-Fetch-Site", "same-origin");
    let answer = ada.send(meant);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")));
    assert_eq!(ada.get("/").status, 303, "the session is over, not only its cookie");
    assert_eq!(eve.get("/").status, 200, "and no other");
}

#[test]
fn the_sign_in_is_bound_to_the_browser_that_opened_it() {
    let (_site, gateway) = start();
    let form = get("/sign-in").send(gateway.admin);
    protected(&form);
    let bound = cookie(&form, "latchkey-form").expect("a cookie");
    let set = form.header("set-cookie").expect("a cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let token = between(&form.text(), "name=\"csrf\" value=\"", "\"");
    let body = encoded(&[("csrf", &token), ("name", "ada"), ("password", PASSWORD)]);
    let with = |cookie: &str| post("/sign-in", &body).header("Cookie", cookie);
    assert_eq!(post("/sign-in", &body).send(gateway.admin).status, 403, "without its cookie");
    let other = format!("latchkey-form={}", "B".repeat(43));
    assert_eq!(with(&other).send(gateway.admin).status, 403, "with another's");
    let own = format!("latchkey-form={bound}");
    let foreign = with(&own).header("Origin", "https://evil.example");
    assert_eq!(foreign.send(gateway.admin).status, 403, "from another site");

    let wrong = encoded(&[("csrf", &token), ("name", "ada<b>"), ("password", "not the password")]);
    let answer = post("/sign-in", &wrong).header("Cookie", &own).send(gateway.admin);
    assert_eq!(answer.status, 422);
    let text = answer.text();
    assert!(text.contains("ada&#60;b&#62;") && !text.contains("not the password"), "{text}");
    assert!(text.contains("role=\"alert\""), "{text}");

    let next = "//evil.example/";
    for (next, location) in [("/about", "/about"), (next, "/"), ("https://evil.example/", "/")] {
        let body =
            encoded(&[("csrf", &token), ("name", "ada"), ("password", PASSWORD), ("next", next)]);
        let answer = post("/sign-in", &body).header("Cookie", &own).send(gateway.admin);
        assert_eq!((answer.status, answer.header("location")), (303, Some(location)), "{next}");
        secrets::minted(&cookie(&answer, "latchkey").expect("a session"));
    }
}

#[test]
fn a_pasted_credential_is_used_and_never_shown() {
    let (_site, gateway) = start();
    gateway.shop("red").shop("blue");
    let (_, secret) = gateway.key("red", &json!({}));
    let ada = Person::sign_in(&gateway, "ada");
    for (shop, outcome) in [("red", "upstream:default"), ("blue", "cross_tenant")] {
        let url = format!("http://x.example/api/plugin/shops/{shop}/orders");
        let command = format!("curl '{url}' -H 'X-Shop-API-Key: {secret}'");
        let page = ada.post("/explore", &[("paste", &command)]);
        assert_eq!(page.status, 200, "{}", page.text());
        protected(&page);
        secrets::saw(&page.body);
        assert!(page.text().contains(outcome), "{shop}: {}", page.text());
    }
    let broken = format!("curl --frobnicate {secret} http://x.example/");
    let page = ada.post("/explore", &[("paste", &broken)]);
    assert_eq!(page.status, 422);
    secrets::saw(&page.body);
    assert!(page.text().contains("<code>--frobnicate</code>"), "{}", page.text());
    let path = format!("/api/plugin/shops/red/x?key={secret}");
    let described = [
        ("method", "GET"),
        ("path", &path),
        ("kind", "x-shop-api-key"),
        ("credential", &secret),
        ("origin", "https://evil.example"),
    ];
    let page = ada.post("/explore", &described);
    secrets::saw(&page.body);
    assert!(page.text().contains("origin_mismatch"), "{}", page.text());
}

#[test]
fn refusals_are_listed_and_explained() {
    let (_site, gateway) = start();
    gateway.shop("red");
    let ada = Person::sign_in(&gateway, "ada");
    assert!(ada.get("/refusals").text().contains("Nothing was refused"));
    let hostile = "/api/widget/%3Cscript%3E?token=not-shown";
    assert_eq!(gateway.send(&get(hostile)).status, 401);
    let page = crate::support::until(|| {
        let page = ada.get("/refusals").text();
        page.contains("missing_credential</code>").then_some(page)
    });
    assert!(!page.contains("not-shown"), "{page}");
    let sequence = between(&page, "/explore?event=", "\"");
    let explained = ada.get(&format!("/explore?event={sequence}")).text();
    assert!(explained.contains("value=\"/api/widget/%3Cscript%3E\""), "{explained}");
    assert!(ada.get("/explore?event=999999").text().contains("not kept any more"));
    let filtered = ada.get("/refusals?code=rate_limited").text();
    assert!(!filtered.contains("/explore?event="), "{filtered}");
}

#[test]
fn members_and_viewers_see_what_they_may() {
    let (_site, gateway) = start();
    gateway.shop("red").shop("blue");
    operator(&gateway, "mia", "member", &["red"]);
    operator(&gateway, "vic", "viewer", &[]);
    let mia = Person::sign_in(&gateway, "mia");
    let home = mia.get("/").text();
    assert!(home.contains("/shops/red") && !home.contains("/shops/blue"), "{home}");
    assert!(!home.contains("href=\"/operators\"") && !home.contains("href=\"/policies\""));
    for path in ["/policies", "/about", "/live/overview"] {
        let answer = mia.get(path);
        assert_eq!(answer.status, 403, "{path}");
        protected(&answer);
    }
    let vic = Person::sign_in(&gateway, "vic");
    for path in PAGES {
        assert_eq!(vic.get(path).status, 200, "{path}");
    }
    assert!(!vic.get("/").text().contains("href=\"/operators\""));
}

#[test]
fn without_a_dashboard_there_is_the_api() {
    let site = Site::new(None, "[admin]\ndashboard = false");
    let gateway = site.start();
    assert_eq!(get("/").send(gateway.admin).status, 404);
    assert_eq!(get("/sign-in").send(gateway.admin).outcome(), "404 not_found");
    assert_eq!(get("/livez").send(gateway.admin).status, 200);
}

#[test]
fn another_name_is_not_answered() {
    let (_site, gateway) = start();
    let answer = get("/sign-in").header("Host", "evil.example").send(gateway.admin);
    assert_eq!(answer.status, 421, "{}", answer.text());
    assert!(!answer.text().contains("csrf"));
}

/// In both schemes, at both widths.
#[test]
fn the_frames_pages_are_accessible() {
    let (_site, gateway) = start();
    gateway.shop("red");
    let browser = Browser::start();
    let refused = get("/api/plugin/shops/me");
    (0..3).for_each(|_| assert_eq!(gateway.send(&refused).status, 401));
    let mut complaints = Vec::new();
    let mut look = |path: &str| {
        for (width, dark) in [(1280, false), (1280, true), (360, false), (360, true)] {
            view(&browser, width, dark);
            browser.open(&url(&gateway, path));
            let found = violations(&browser);
            complaints.extend(found.into_iter().map(|v| format!("{path} {width} {dark}: {v}")));
        }
    };
    for path in ["/sign-in", "/setup", "/no/such/page"] {
        look(path);
    }
    sign_in(&browser, &gateway, "ada");
    for path in PAGES {
        look(path);
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn who_signs_in_again_in_the_same_browser_has_one_session() {
    let (_site, gateway) = start();
    operator(&gateway, "bob", "viewer", &[]);
    let first = Person::sign_in(&gateway, "ada");
    let elsewhere = Person::sign_in(&gateway, "ada");
    // As another, from a form that was open still.
    let wrong = first.post("/sign-in", &[("name", "bob"), ("password", "not this one")]);
    assert_eq!(wrong.status, 422);
    assert_eq!(first.get("/about").status, 200, "who is not let in loses nothing");
    let again = first.post("/sign-in", &[("name", "bob"), ("password", PASSWORD)]);
    assert_eq!(again.status, 303, "{}", again.text());
    let value = cookie(&again, "latchkey").expect("a session's cookie");
    secrets::minted(&value);
    let bob = get("/about").header("Cookie", format!("latchkey={value}")).send(gateway.admin);
    assert_eq!(bob.status, 200);
    assert_eq!(first.get("/about").status, 303, "the browser has another session now");
    assert_eq!(elsewhere.get("/about").status, 200, "another browser's goes on");
}
