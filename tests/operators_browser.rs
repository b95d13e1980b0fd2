//! Signing in by an identity provider in headless Chromium: what cookies a browser sends on its way
//! from another site is for a browser to say.

use std::net::TcpListener;

use serde_json::Value;

use crate::operators_oidc::configuration;
use crate::support::browser::Browser;
use crate::support::gateway::Site;
use crate::support::openid::OpenId;
use crate::support::until;

#[test]
fn a_person_signs_in_by_the_provider() {
    let provider = OpenId::start();
    provider.manners().asks_first = true;
    let site = Site::new(None, "");
    // The provider sends the browser back to an address that is known before the start.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let url = format!("http://latchkey.localhost:{}", address.port());
    let text = configuration(&site, &provider.issuer(), "");
    let text = text.replace("http://latchkey.localhost\"", &format!("{url}\""));
    site.configure(None, &text);
    drop(free);
    let gateway = site.start_with(&[("LATCHKEY_ADMIN__LISTEN", &address.to_string())]);

    let browser = Browser::start();
    browser.open(&format!("{url}/about"));
    let page = browser.address();
    assert!(page.starts_with(&format!("{url}/sign-in?next=")), "{page}");
    browser.click("a[href^=\"/sign-in/oidc\"]");
    until(|| browser.address().starts_with(&provider.issuer()).then_some(()));
    // From the provider's own page: for the browser, the other site leads here.
    browser.click("#agree");
    until(|| (browser.address() == format!("{url}/about")).then_some(()));
    let shown = browser.run("return document.querySelector('.who-name').textContent", &[]);
    assert!(shown.as_str().unwrap_or_default().contains("ada"), "{shown}");
    let seen = browser.run("return document.cookie", &[]);
    assert_eq!(seen, "", "no cookie is for scripts");
    let operators = gateway.api_ok("GET", "/operators", &Value::Null);
    assert_eq!(operators["items"][0]["role"], "owner");

    // The address with the code is not where the back button leads.
    browser.back();
    until(|| browser.address().starts_with(&provider.issuer()).then_some(()));

    // One who may not is told so, on a page.
    provider.manners().claims["groups"] = serde_json::json!([]);
    browser.open(&format!("{url}/sign-in/oidc"));
    browser.click("#agree");
    until(|| browser.address().contains("/sign-in/oidc/callback").then_some(()));
    let shown = browser.run("return document.body.textContent", &[]);
    assert!(shown.as_str().unwrap_or_default().contains("none of your groups"), "{shown}");
}
