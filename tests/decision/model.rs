//! What must come of a scene, written from the spec alone, in its order (§5): syntax, route,
//! credential, tenant, origin, scope, limit.
//!
//! Where §2.3 lists the scope before the shop and the origin, §5's order of the codes is taken.

use super::scene::{
    ApiKeyText, AuthorizationText, Field, Jwt, JwtIssuer, JwtSigned, LEEWAY_S, SHOPS, STALE_S,
    Scene, Signer, WidgetTokenText,
};
use crate::naive::origin::Site;
use crate::naive::path;

/// A mechanism that admits, or a code that refuses.
pub(super) type Outcome = &'static str;

/// What is left to know of a caller once it is authenticated.
struct Caller {
    mechanism: Outcome,
    /// Index into [`SHOPS`].
    shop: Option<usize>,
    scopes: &'static str,
    restricted: bool,
}

/// What the scene's request must come to.
pub(super) fn outcome(scene: &Scene) -> Outcome {
    judge(scene).unwrap_or_else(|code| code)
}

fn judge(scene: &Scene) -> Result<Outcome, Outcome> {
    let segments = path::segments(&scene.path).ok_or("bad_request")?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    // §1 and §2.1: which headers count, where the shop stands, which scope is needed.
    let (takes, shop, scope): (&[&str], Option<&str>, &str) = match segments.as_slice() {
        ["api", "shops", shop, "widget-token"] if scene.method == "POST" && !shop.is_empty() => {
            (&["key"], Some(shop), "")
        }
        ["api", "plugin", "shops", shop, ..] if !shop.is_empty() => (&["key"], Some(shop), ""),
        ["api", "widget", "search", ..] => (&["widget"], None, "search"),
        ["api", "widget", "compare", ..] => (&["widget"], None, "compare"),
        ["api", "widget", ..] => (&["widget"], None, ""),
        ["api", "search", "private", ..] => (&["jwt", "anonymous"], None, "private"),
        ["api", "search", ..] => (&["jwt", "anonymous"], None, ""),
        ["api", "any", shop, ..] if !shop.is_empty() => (&["widget", "key", "jwt"], Some(shop), ""),
        _ => return Err("not_found"),
    };
    if shop.is_some_and(|shop| shop.contains(';')) {
        return Err("bad_request");
    }
    let caller = authenticate(scene, takes)?;
    // §3.3, §3.6: `me` is the caller's own; whether another exists makes no difference.
    if let Some(named) = shop {
        let own = caller.shop.ok_or("cross_tenant")?;
        if named != "me" && named != SHOPS[own] {
            return Err("cross_tenant");
        }
    }
    // A JWT may be of a shop that does not exist here; nobody may be of one that is disabled.
    let record = caller.shop.and_then(|shop| scene.shops.get(shop));
    if record.is_some_and(|shop| shop.exists && !shop.enabled) {
        return Err("shop_disabled");
    }
    if caller.restricted && scene.client != 0 {
        return Err("network_not_allowed");
    }
    if !origin_allowed(scene, &caller) {
        return Err("origin_mismatch");
    }
    if !scope.is_empty() && !caller.scopes.split(' ').any(|granted| ["*", scope].contains(&granted))
    {
        let anonymous = caller.mechanism == "anonymous";
        return Err(if anonymous { "missing_credential" } else { "insufficient_scope" });
    }
    if scene.full { Err("rate_limited") } else { Ok(caller.mechanism) }
}

/// §1: headers of other mechanisms are judged as if absent.
fn authenticate(scene: &Scene, takes: &[&str]) -> Result<Caller, Outcome> {
    let takes = |mechanism| takes.contains(&mechanism);
    let key = readable(&scene.api_key, takes("key"));
    let widget = readable(&scene.widget_token, takes("widget"));
    let jwt = readable(&scene.authorization, takes("jwt"));
    let (key, widget, jwt) = (key?, widget?, jwt?);
    let presented = [key.is_some(), widget.is_some(), jwt.is_some()];
    match presented.iter().filter(|present| **present).count() {
        0 if takes("anonymous") => {
            let scopes = "";
            return Ok(Caller { mechanism: "anonymous", shop: None, scopes, restricted: false });
        }
        0 => return Err("missing_credential"),
        1 => {}
        _ => return Err("bad_request"),
    }
    // §5: before its credentials are looked at.
    if scene.throttled {
        return Err("rate_limited");
    }
    match (key, widget, jwt) {
        (Some(key), _, _) => by_key(scene, key),
        (_, Some(widget), _) => by_widget_token(scene, widget),
        (_, _, Some(AuthorizationText::Bearer(jwt))) => by_jwt(scene, jwt),
        _ => Err("invalid_credential"),
    }
}

fn readable<T>(field: &Field<T>, counts: bool) -> Result<Option<&T>, Outcome> {
    match field {
        Field::Once(text) if counts => Ok(Some(text)),
        Field::Twice(_) | Field::NotAscii if counts => Err("bad_request"),
        Field::Absent | Field::Once(_) | Field::Twice(_) | Field::NotAscii => Ok(None),
    }
}

/// §3.1 and §3.2.
fn by_key(scene: &Scene, text: &ApiKeyText) -> Result<Caller, Outcome> {
    let ApiKeyText::Of(number) = text else {
        return Err("invalid_credential");
    };
    let key = &scene.keys[*number];
    if !key.exists || key.grace_until_s.is_some_and(|until| until <= scene.now_s) {
        return Err("invalid_credential");
    }
    if key.expires_s.is_some_and(|expires| expires <= scene.now_s) {
        return Err("expired_credential");
    }
    if !scene.shops.get(key.shop).is_some_and(|shop| shop.exists) {
        return Err("invalid_credential");
    }
    Ok(Caller {
        mechanism: "shop_api_key",
        shop: Some(key.shop),
        scopes: "*",
        restricted: key.restricted,
    })
}

/// §2.3.
fn by_widget_token(scene: &Scene, text: &WidgetTokenText) -> Result<Caller, Outcome> {
    let WidgetTokenText::Signed { shop, scopes, issued_s, expires_s, revoked, signer } = text
    else {
        return Err("invalid_credential");
    };
    if *signer != Signer::Known {
        return Err("invalid_credential");
    }
    if *expires_s <= scene.now_s {
        return Err("expired_credential");
    }
    let record = scene.shops.get(*shop).filter(|shop| shop.exists).ok_or("invalid_credential")?;
    if *issued_s < record.tokens_valid_from_s || *revoked {
        return Err("invalid_credential");
    }
    Ok(Caller { mechanism: "widget_token", shop: Some(*shop), scopes, restricted: false })
}

/// §4.
fn by_jwt(scene: &Scene, jwt: &Jwt) -> Result<Caller, Outcome> {
    if jwt.issuer == JwtIssuer::Stranger || jwt.signed == JwtSigned::Not {
        return Err("invalid_credential");
    }
    if jwt.issuer == JwtIssuer::Ed25519 {
        // The age is as of the time that all scenes share; some ask later.
        let since = scene.now_s - super::scene::NOW_S;
        if scene.key_set_age_s.is_none_or(|age| age + since > STALE_S) {
            return Err("keys_unavailable");
        }
        if jwt.signed == JwtSigned::ByUnknownKey {
            return Err(if scene.refreshed { "invalid_credential" } else { "needs_key" });
        }
    }
    if jwt.signed == JwtSigned::Forged || jwt.audience != "api" || jwt.subject.is_none() {
        return Err("invalid_credential");
    }
    if jwt.not_before_s.is_some_and(|nbf| scene.now_s + LEEWAY_S < nbf) {
        return Err("invalid_credential");
    }
    if jwt.expires_s + LEEWAY_S <= scene.now_s {
        return Err("expired_credential");
    }
    let shop = jwt.shop.and_then(|shop| SHOPS.iter().position(|id| *id == shop));
    Ok(Caller { mechanism: "jwt", shop, scopes: jwt.scopes, restricted: false })
}

/// §2.5, §3.4, §3.5.
fn origin_allowed(scene: &Scene, caller: &Caller) -> bool {
    let Some(shop) = caller.shop.and_then(|shop| scene.shops.get(shop)) else {
        return true;
    };
    let own_site = |page: &Site| same_site(page, &Site::parse(shop.url).unwrap());
    match caller.mechanism {
        "shop_api_key" => match (&scene.origin, &scene.referer) {
            (Field::Absent, Field::Absent) => true,
            (Field::Absent, Field::Once(referer)) => {
                let page = referer.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                Site::parse(&page).is_some_and(|page| own_site(&page))
            }
            (Field::Once(origin), _) => Site::parse(origin).is_some_and(|page| own_site(&page)),
            _ => false,
        },
        "widget_token" => match &scene.origin {
            Field::Absent => true,
            Field::Once(origin) => Site::parse(origin).is_some_and(|page| {
                let partner = page.scheme == "https"
                    && page.port == 443
                    && page.host.ends_with(".partner.example");
                own_site(&page)
                    || (shop.widget_origin.is_some() && partner)
                    || (scene.allow_loopback && page.host == "localhost")
            }),
            Field::Twice(_) | Field::NotAscii => false,
        },
        _ => true,
    }
}

/// For the shops here: either the default port on both sides, or the same written one.
fn same_site(page: &Site, shop: &Site) -> bool {
    let plain = |site: &Site| site.port == if site.scheme == "https" { 443 } else { 80 };
    let scheme = page.scheme == shop.scheme || (shop.scheme == "http" && page.scheme == "https");
    let port = if plain(shop) { plain(page) } else { page.port == shop.port };
    page.bare_host() == shop.bare_host() && scheme && port
}
