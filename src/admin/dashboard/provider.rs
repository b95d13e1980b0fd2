//! Coming by an identity provider: to it, and back from it.
//!
//! How the provider is spoken to is [`oidc`]'s, who somebody is among the operators
//! [`sign_in`]'s; here are the addresses, the cookies and what a person is told.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, RawQuery};
use axum::http::header::{HeaderMap, HeaderValue, LOCATION};
use axum::response::Response;

use super::failure::Failure;
use super::frame::{next_of, query_value};
use super::sign_in::{agent, replaced};
use super::visit::Visitor;
use super::{Answer, cookies};
use crate::admin::oidc::{self, Refusal, Returned};
use crate::admin::operations::sign_in::{self, SignInFailure};
use crate::admin::percent::encoded;
use crate::admin::{cookie, plain};

/// Sends the browser to the provider.
///
/// By a link and not by a form: a form's target may be this site alone, and browsers hold the
/// redirects after it to that as well. There is nothing to forge: whoever is led here ends at the
/// provider's own page, as itself.
pub(super) async fn begin(visit: Visitor, RawQuery(query): RawQuery) -> Answer {
    let next = query_value(query.as_deref(), "next");
    let next = next_of(&next).unwrap_or_default();
    let node = visit.node();
    let config = node.config.load_full();
    if let Some(public) = config.admin.public_url.as_ref().filter(|url| !visit.is_at(url)) {
        // The provider sends the browser back there, and the cookie has to be there then.
        if !query_value(query.as_deref(), "moved").is_empty() {
            return Err(Failure::elsewhere(&public.to_string()));
        }
        let next = encoded(next);
        return Ok(visit.go(&format!("{public}{}?moved=1&next={next}", oidc::START), None));
    }
    let replaces = visit.session.as_ref().map(|session| session.id);
    let begun = node.oidc.begin(node, next, replaces).await?;
    let location = HeaderValue::try_from(begun.location).map_err(|_| Refusal::Unreachable)?;
    let mut response = visit.go("/", None);
    response.headers_mut().insert(LOCATION, location);
    visit.remember_attempt(&mut response, Some(&begun.cookie));
    Ok(response)
}

/// Takes what the provider had the browser bring, and begins a session.
pub(super) async fn finish(
    visit: Visitor,
    headers: HeaderMap,
    returned: Result<Query<Returned>, QueryRejection>,
) -> Answer {
    let Query(returned) = returned.map_err(|_| Refusal::Answer)?;
    let node = visit.node();
    let held = cookie::cookie(&headers, &cookies::name(oidc::COOKIE, visit.is_secure()));
    let finished = node.oidc.finish(node, &returned, held, visit.client).await?;
    let agent = agent(&headers);
    let signed_in = sign_in::vouched(node, finished.vouched, visit.client, agent).await;
    let signed_in = signed_in.map_err(failure)?;
    let to = next_of(&finished.next).unwrap_or("/");
    replaced(&visit, finished.replaces).await;
    let mut response: Response = plain::onward(to, "You are signed in");
    visit.enter(&mut response, &signed_in.cookie);
    visit.remember_attempt(&mut response, None);
    Ok(response)
}

fn failure(error: SignInFailure) -> Failure {
    match error {
        SignInFailure::Operation(error) => error.into(),
        SignInFailure::Throttled { retry_after_s } => {
            Failure::throttled(Refusal::Throttled(retry_after_s).to_string(), retry_after_s)
        }
        SignInFailure::Busy => Refusal::Busy.into(),
        SignInFailure::Disabled | SignInFailure::Wrong | SignInFailure::TotpNeeded => {
            Failure::not_let_in(&error.to_string())
        }
    }
}
