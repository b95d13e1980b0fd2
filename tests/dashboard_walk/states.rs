//! What pages come to show while they are used, and names as nobody expects them.

use serde_json::{Value, json};

use super::inspector::Inspector;
use super::{CHEAP, PRIMARY, page};
use crate::support::dashboard::{PASSWORD, Person, operator, sign_in, url};
use crate::support::gateway::Site;
use crate::support::http::get;
use crate::support::until;

/// Lists whose rows open, forms that ask once more, an operation of the API.
pub(super) fn unfolded(at: &mut Inspector<'_>) {
    for (path, name) in [
        ("/?span=15m", "overview-as-table"),
        ("/api", "operations-opened"),
        ("/audit", "audit-opened"),
        ("/audit?action=shop.limits_changed", "audit-before-and-after"),
        ("/backups", "backups-opened"),
        ("/shops/demo/tokens", "tokens-opened"),
        ("/shops/demo/traffic?by=minute", "traffic-as-table"),
        ("/shops/demo/settings", "deletion-by-name"),
        ("/tokens", "permissions-opened"),
        ("/explore", "explore-opened"),
    ] {
        at.unfold(path, name);
    }
    at.open("/audit?shop=no/shop");
}

/// Refusals that arrive, sessions elsewhere, a change by somebody else, an import, a file that is
/// no backup.
pub(super) fn refused_meanwhile(at: &mut Inspector<'_>, site: &Site) {
    at.browser.open(&url(at.gateway, "/refusals"));
    until(|| at.browser.text("#live-state").starts_with("Live").then_some(()));
    let path = format!("/api/widget/{}", "a-rather-long-segment/".repeat(6));
    for _ in 0..3 {
        at.gateway.send(&get(&path).header("Origin", "https://somewhere-else.shop.example"));
    }
    until(|| page(&at.browser).contains("a-rather-long-segment").then_some(()));
    at.look("refusals-arriving");
    at.open("/refusals?code=rate_limited");

    drop(Person::sign_in(at.gateway, "ada"));
    at.open("/account");

    at.browser.open(&url(at.gateway, "/shops/demo/settings"));
    let renamed = json!({"name": "Renamed by somebody else"});
    at.gateway.api_ok("PATCH", "/shops/demo", &renamed);
    at.browser.fill(&[("name", "Renamed here")]);
    at.press(PRIMARY, "changed-by-somebody-else");

    let line = r#"{"type":"shop/1","id":"imported","url":"https://imported.example"}"#;
    let check = "form[action='/import'] button[value=check]";
    at.send("/backups", &[("lines", line)], check, "import-checked");
    let faulty = "{\n".repeat(120);
    at.send("/backups", &[("lines", &faulty)], check, "import-many-faults");
    let junk = site.path().join("backups/latchkey-20260101T000000Z-000000.lkbackup");
    std::fs::write(&junk, "no backup").expect("a file");
    at.open("/backups");
    std::fs::remove_file(&junk).expect("it was there");
}

/// Names from right to left, of pictures, and as long as they may be.
#[test]
fn names_as_nobody_expects_them() {
    let site = Site::new(None, CHEAP);
    let gateway = site.start();
    operator(&gateway, "ada", "owner", &[]);
    for (id, name) in [
        ("rtl", "متجر المصابيح <b>الجميلة</b>"),
        ("pictures", "💡 Lamps 🛍️ & “more” 家"),
        ("long", &"Anunbrokennameofonehundredcharacters".repeat(3)[..100]),
    ] {
        let url = format!("https://{}.example", id.repeat(6));
        gateway.api_ok("POST", "/shops", &json!({"id": id, "name": name, "url": url}));
        let key = json!({"name": name, "networks": ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:0/112"]});
        let (key, _) = gateway.key(id, &key);
        let limit = json!({"authenticated": {"limit": 200_000, "window_seconds": 86_400}});
        gateway.api_ok("PUT", &format!("/shops/{id}/keys/{key}/limits"), &limit);
    }
    let mut at = Inspector::new(&gateway, "names");
    sign_in(&at.browser, &gateway, "ada");
    for path in ["/shops", "/shops/rtl", "/shops/pictures", "/shops/long", "/shops/long/settings"] {
        at.open(path);
    }
    for (shop, name) in [("rtl", "key-rtl"), ("long", "key-long")] {
        at.browser.open(&url(&gateway, &format!("/shops/{shop}")));
        at.press("main tbody a", name);
    }
    at.open("/audit");
    let operators = "form[action='/operators'] button.primary";
    let fields = [("name", "ملك 👑"), ("role", "viewer")];
    at.browser.open(&url(&gateway, "/operators"));
    at.browser.fill(&fields);
    at.browser.press(operators);
    at.look_at_secret("operator-made");
}

/// The sign-in, where it does not let anybody in.
#[test]
fn signing_in_as_it_may_go() {
    let site = Site::new(None, CHEAP);
    let gateway = site.start();
    operator(&gateway, "ada", "owner", &[]);
    operator(&gateway, "olga", "viewer", &[]);
    let all = gateway.api_ok("GET", "/operators", &Value::Null);
    let mut all = all["items"].as_array().expect("operators").iter();
    let olga = &all.find(|operator| operator["name"] == "olga").expect("olga")["id"];
    let path = format!("/operators/{}", olga.as_str().expect("an id"));
    gateway.api_ok("PATCH", &path, &json!({"disabled": true}));
    let mut at = Inspector::new(&gateway, "entry");
    at.open("/sign-in");
    at.browser.fill(&[("name", "olga"), ("password", PASSWORD)]);
    at.press(PRIMARY, "sign-in-disabled");
    at.browser.open(&url(&gateway, "/sign-in"));
    until(|| {
        at.browser.fill(&[("name", "ada"), ("password", "seven grey horses")]);
        at.browser.press(PRIMARY);
        page(&at.browser).contains("Too many").then_some(())
    });
    at.look("sign-in-throttled");
}
