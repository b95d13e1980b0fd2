//! May this principal do this, quotas aside? Shop, network, origin, scope, in that order
//! (spec §5).
//!
//! Trusts the principal as it is and looks at no secret; quotas are `limits`'s.

use http::header::{HeaderName, ORIGIN, REFERER};

use super::denial::{Denial, OriginFault, OriginSource};
use super::origin::{OriginError, OriginRef, is_same_site, may_embed};
use super::principal::{Principal, Shop, grants};
use super::request::RequestView;
use super::{Authenticated, Classified, Facts, Permit, Refusal};

pub(super) fn authorize<'a, F: Facts>(
    request: &RequestView<'_>,
    classified: &Classified<'a, '_>,
    authenticated: Authenticated<'a>,
    facts: &'a F,
) -> Result<Permit<'a>, Box<Refusal<'a>>> {
    let principal = &authenticated.principal;
    let checked = tenant(classified.shop, principal)
        .and_then(|()| shop_enabled(principal, facts))
        .and_then(|()| network(request, principal))
        .and_then(|()| origin(request, principal, facts))
        .and_then(|()| scope(request, classified, principal));
    let Authenticated { route, principal } = authenticated;
    match checked {
        Ok(()) => Ok(Permit { route, principal }),
        Err(denial) => Err(Box::new(Refusal {
            denial,
            route: Some(route),
            principal: Some(principal),
            limit: None,
        })),
    }
}

/// The path's shop must be the principal's; `me` is the principal's own (spec §3.3). Whether the
/// path's shop exists makes no difference (spec §3.6).
fn tenant(segment: Option<&str>, principal: &Principal<'_>) -> Result<(), Denial<'static>> {
    let Some(segment) = segment else {
        return Ok(());
    };
    match principal.shop() {
        Some(own) if segment == "me" || segment == own.as_str() => Ok(()),
        Some(_) | None => Err(Denial::CrossTenant),
    }
}

/// A JWT may name a shop that the directory does not know: identity providers may have tenants
/// that hold no credentials here. One that it knows must be enabled for a JWT as for the others.
fn shop_enabled<F: Facts>(principal: &Principal<'_>, facts: &F) -> Result<(), Denial<'static>> {
    let shop = match principal {
        Principal::WidgetToken { shop, .. } | Principal::ShopApiKey { shop, .. } => Some(*shop),
        Principal::Jwt { token, .. } => token.shop.as_ref().and_then(|id| facts.shop(id)),
        Principal::Anonymous => None,
    };
    match shop {
        Some(shop) if !shop.enabled => Err(Denial::ShopDisabled),
        Some(_) | None => Ok(()),
    }
}

fn network(request: &RequestView<'_>, principal: &Principal<'_>) -> Result<(), Denial<'static>> {
    let Principal::ShopApiKey { key, .. } = principal else {
        return Ok(());
    };
    let client = request.client.to_canonical();
    if key.networks.is_empty() || key.networks.iter().any(|n| n.contains(&client)) {
        return Ok(());
    }
    Err(Denial::NetworkNotAllowed)
}

fn origin<F: Facts>(
    request: &RequestView<'_>,
    principal: &Principal<'_>,
    facts: &F,
) -> Result<(), Denial<'static>> {
    match principal {
        Principal::ShopApiKey { shop, .. } => key_origin(request, shop, facts),
        Principal::WidgetToken { shop, .. } => widget_origin(request, shop, facts),
        Principal::Jwt { .. } | Principal::Anonymous => Ok(()),
    }
}

/// Spec §3.4: `Origin`, else `Referer`, else it is a server that calls. Only `shop.url` counts.
fn key_origin<F: Facts>(
    request: &RequestView<'_>,
    shop: &Shop,
    facts: &F,
) -> Result<(), Denial<'static>> {
    let rules = facts.policies().origin;
    let same_site = |page| is_same_site(page, &shop.url, rules);
    match single(request, &ORIGIN, OriginSource::Origin, OriginRef::parse_origin)? {
        Some(page) => require(same_site(page), OriginSource::Origin),
        None => match single(request, &REFERER, OriginSource::Referer, OriginRef::parse_referer)? {
            Some(page) => require(same_site(page), OriginSource::Referer),
            None => Ok(()),
        },
    }
}

/// Spec §2.5: only `Origin` counts, against `shop.url`, the extra origins, and where the
/// configuration says so, the machine itself.
fn widget_origin<F: Facts>(
    request: &RequestView<'_>,
    shop: &Shop,
    facts: &F,
) -> Result<(), Denial<'static>> {
    let policies = facts.policies();
    let Some(page) = single(request, &ORIGIN, OriginSource::Origin, OriginRef::parse_origin)?
    else {
        return Ok(());
    };
    let allowed = may_embed(page, &shop.url, &shop.widget_origins, policies.origin)
        || (policies.widget.allow_loopback_origins && page.is_loopback());
    require(allowed, OriginSource::Origin)
}

fn require(allowed: bool, source: OriginSource) -> Result<(), Denial<'static>> {
    if allowed {
        Ok(())
    } else {
        Err(Denial::OriginMismatch { source, fault: OriginFault::Foreign })
    }
}

/// The one value of `name`, parsed; `None` if the field is absent.
pub(super) fn single<'r>(
    request: &RequestView<'r>,
    name: &HeaderName,
    source: OriginSource,
    parse: impl FnOnce(&'r str) -> Result<OriginRef<'r>, OriginError>,
) -> Result<Option<OriginRef<'r>>, Denial<'static>> {
    let mismatch = |fault| Denial::OriginMismatch { source, fault };
    let mut values = request.headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(mismatch(OriginFault::Repeated));
    }
    let text = value.to_str().map_err(|_| mismatch(OriginFault::Malformed))?;
    if text == "null" {
        return Err(mismatch(OriginFault::Opaque));
    }
    parse(text).map(Some).map_err(|_| mismatch(OriginFault::Malformed))
}

/// The first scope rule that matches says what is needed; a path no rule names needs nothing.
fn scope<'a>(
    request: &RequestView<'_>,
    classified: &Classified<'a, '_>,
    principal: &Principal<'_>,
) -> Result<(), Denial<'a>> {
    let rule = classified.route.scopes.iter().find(|rule| {
        rule.methods.contains(request.method) && rule.path.matches(classified.path).is_some()
    });
    let Some(rule) = rule else { return Ok(()) };
    if grants(principal.scopes(), &rule.scope) {
        return Ok(());
    }
    if matches!(principal, Principal::Anonymous) {
        // A caller without a credential lacks the credential before it lacks the scope.
        let expected = classified.route.mechanisms;
        return Err(Denial::MissingCredential { expected });
    }
    Err(Denial::InsufficientScope { needed: &rule.scope, mechanism: principal.mechanism() })
}
