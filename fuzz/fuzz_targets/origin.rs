//! Whatever a browser claims: on the shop's site only if a plain reader finds the same host.
//!
//! Input: what the browser says, then optionally a newline and a shop's URL.

#![no_main]

use latchkey::decision::origin::{
    Origin, OriginPattern, OriginRef, Rules, is_same_site, may_embed,
};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/naive/origin.rs"]
mod naive;

use naive::Site;

fuzz_target!(|input: &str| {
    let (page, shop) = input.split_once('\n').unwrap_or((input, "https://shop.example"));
    let Ok(shop) = Origin::parse(shop) else {
        return;
    };
    // A shop's URL, shown and read again, is the same one.
    assert_eq!(Origin::parse(&shop.to_string()).as_ref(), Ok(&shop));
    let own = Site::parse(&shop.to_string()).expect("the plain reader reads what is canonical");
    let Ok(parsed) = OriginRef::parse_origin(page) else {
        let cut: String = page.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        if let Ok(referer) = OriginRef::parse_referer(page) {
            let plain = Site::parse(cut.split(['?', '#']).next().unwrap_or_default());
            check(referer, plain, &shop, &own);
        }
        return;
    };
    check(parsed, Site::parse(page), &shop, &own);
    let extra = OriginPattern::parse("*.partner.example").expect("a pattern");
    let rules = Rules::default();
    if may_embed(parsed, &shop, &[extra], rules) && !is_same_site(parsed, &shop, rules) {
        let host = Site::parse(page).expect("read by both").host;
        assert!(host.ends_with(".partner.example"), "{page:?}");
    }
});

/// `plain` is what the plain reader makes of the text that `parsed` was read from.
fn check(parsed: OriginRef<'_>, plain: Option<Site>, shop: &Origin, own: &Site) {
    let site = plain.expect("the strict reader accepts nothing that the plain one refuses");
    for ignore_scheme in [false, true] {
        if is_same_site(parsed, shop, Rules { www_alias: true, ignore_scheme }) {
            assert_eq!(site.bare_host(), own.bare_host());
            assert!(ignore_scheme || site.scheme == own.scheme || own.scheme == "http");
        }
        if is_same_site(parsed, shop, Rules { www_alias: false, ignore_scheme }) {
            assert_eq!(site.host, own.host);
        }
    }
}
