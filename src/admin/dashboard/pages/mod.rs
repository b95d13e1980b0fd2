//! The dashboard's working pages: shops and all that is theirs, identity providers, the audit log,
//! operators, admin tokens, one's own account, backups.
//!
//! A handler reads what was asked, calls one operation and shows what came of it. What a caller
//! may do is the operations' to check; that a page leaves a form out is a courtesy.

mod account;
mod audit;
mod backups;
mod issuers;
mod once;
mod operators;
mod parse;
mod shop;
mod shops;
mod snippets;
#[cfg(test)]
mod tests;
mod tokens;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::routing::{get, post};
use serde::de::DeserializeOwned;

use super::Site;
use super::failure::Failure;
use super::figures;
use super::visit::SignedIn;
use crate::admin::caller::Permission;
use crate::admin::operations::{FieldProblem, OperationError, Precondition, Version};
use crate::clock::Timestamp;

/// All of them.
pub(super) fn routes() -> Router<Site> {
    Router::new()
        .merge(shop_routes())
        .merge(operator_routes())
        .route("/issuers", get(issuers::show))
        .route("/issuers/{name}/refresh", post(issuers::refresh))
        .route("/audit", get(audit::show))
        .route("/audit/verify", post(audit::verify))
        .route("/audit.jsonl", get(audit::export))
        .route("/backups", get(backups::list).post(backups::create))
        .route("/backups/{name}", get(backups::download))
        .route("/backups/{name}/verify", post(backups::verify))
        .route("/backups/{name}/delete", post(backups::delete))
        .route("/export.jsonl", get(backups::export))
        .route("/import", post(backups::import))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{token}/revoke", post(tokens::revoke))
        .route("/account", get(account::show))
        .route("/account/password", post(account::change_password))
        .route("/account/second-factor", post(account::enrol))
        .route("/account/second-factor/confirm", post(account::confirm))
        .route("/account/second-factor/remove", post(account::remove))
        .route("/account/second-factor/codes", post(account::renew))
        .route("/account/end-sessions", post(account::end_sessions))
}

fn operator_routes() -> Router<Site> {
    Router::new()
        .route("/operators", get(operators::list).post(operators::create))
        .route("/operators/{operator}", get(operators::show).post(operators::change))
        .route("/operators/{operator}/enable", post(operators::enable))
        .route("/operators/{operator}/disable", post(operators::disable))
        .route("/operators/{operator}/reset-password", post(operators::reset_password))
        .route("/operators/{operator}/reset-second-factor", post(operators::reset_second_factor))
        .route("/operators/{operator}/end-sessions", post(operators::end_sessions))
        .route("/operators/{operator}/delete", post(operators::delete))
}

fn shop_routes() -> Router<Site> {
    use shop::{key, keys, limits, settings, tokens, traffic};
    Router::new()
        .route("/shops", get(shops::list))
        // Not below `/shops`: `new` is a name that a shop may have.
        .route("/new-shop", get(shops::new).post(shops::create))
        .route("/shops/{shop}", get(keys::list))
        .route("/shops/{shop}/keys", post(keys::create))
        .route("/shops/{shop}/keys/{key}", get(key::show).post(key::change))
        .route("/shops/{shop}/keys/{key}/rotate", post(key::rotate))
        .route("/shops/{shop}/keys/{key}/revoke", post(key::revoke))
        .route("/shops/{shop}/keys/{key}/limits", post(limits::put_of_key))
        .route("/shops/{shop}/keys/{key}/limits/remove", post(limits::remove_of_key))
        .route("/shops/{shop}/tokens", get(tokens::list).post(tokens::issue))
        .route("/shops/{shop}/tokens/{token}/revoke", post(tokens::revoke))
        .route("/shops/{shop}/revoke-tokens", post(tokens::revoke_all))
        .route("/shops/{shop}/limits", get(limits::show).post(limits::put_of_shop))
        .route("/shops/{shop}/limits/remove", post(limits::remove_of_shop))
        .route("/shops/{shop}/traffic", get(traffic::show))
        .route("/shops/{shop}/traffic.csv", get(traffic::csv))
        .route("/shops/{shop}/settings", get(settings::show).post(settings::change))
        .route("/shops/{shop}/enable", post(settings::enable))
        .route("/shops/{shop}/disable", post(settings::disable))
        .route("/shops/{shop}/delete", post(settings::delete))
}

/// Ids in the path; what is no id names nothing.
struct Segments<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Site> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Failure> {
        let path = Path::from_request_parts(parts, site).await;
        path.map(|Path(ids)| Self(ids)).map_err(|_| Failure::not_found())
    }
}

/// The name by which the browser reached this page, if it says one.
struct Host(Option<String>);

impl FromRequestParts<Site> for Host {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Failure> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        Ok(Self(host.map(str::to_owned)))
    }
}

/// Whether the caller has this permission for the whole node.
fn may(visit: &SignedIn, permission: Permission) -> bool {
    visit.caller().require(permission).is_ok()
}

/// Refuses a page that would be of no use to who asks for it.
fn require(visit: &SignedIn, permission: Permission) -> Result<(), OperationError> {
    visit.caller().require(permission)
}

/// The same error, its faults under the names that the form has for their fields.
fn renamed(error: OperationError, name: impl Fn(&str) -> String) -> OperationError {
    let OperationError::Invalid(problems) = error else { return error };
    let rename = |problem: FieldProblem| FieldProblem { field: name(&problem.field), ..problem };
    OperationError::Invalid(problems.into_iter().map(rename).collect())
}

/// The same error, where a form was sent again with something else in it: it comes back, good for
/// another sending.
fn sent_again(error: OperationError) -> OperationError {
    if !matches!(error, OperationError::IdempotencyConflict) {
        return error;
    }
    let message = "this form was sent before with something else in it, and that was made; send \
         it again to make this too";
    OperationError::Conflict(message.to_owned())
}

/// A version as a form carries it.
fn seen(version: Version) -> String {
    format!("{}.{}", version.created_at.unix_ms(), version.revision)
}

/// That nobody has changed what a form was filled in from. A form that does not say what that was
/// is none of ours, and overwrites nothing.
fn unchanged_since(seen: &str) -> Result<Precondition, Failure> {
    let (created, revision) = seen.split_once('.').unwrap_or_default();
    let (Ok(created), Ok(revision)) = (created.parse(), revision.parse()) else {
        return Err(Failure::bad_form("It does not say which version of the thing it changes."));
    };
    let created_at = Timestamp::from_unix_ms(created);
    Ok(Precondition::unchanged_since(Version { created_at, revision }))
}
