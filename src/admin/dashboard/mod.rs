//! The dashboard: what operators see in a browser.
//!
//! Pages are rendered here, from templates in `templates/`; what they show and do comes from the
//! same [`operations`](super::operations) that the API and the command line call, and who may do
//! what is checked there and nowhere else. Everything works without script, except what is live.
//! Nothing is fetched from anywhere but this listener.
//!
//! # To add a page
//!
//! ```text
//! // templates/kettles.html
//! {% extends "layout.html" %}{% import "ui.html" as ui %}
//! {% block main %}
//! <form method="post" action="/kettles">
//!   {{ ui::csrf(frame) }}
//!   {{ ui::field(name="name", label="Name", value=name, errors=errors) }}
//!   <button class="primary">Boil</button>
//! </form>
//! {% endblock %}
//!
//! // kettles.rs
//! #[derive(Template)]
//! #[template(path = "kettles.html")]
//! struct Kettles { frame: Frame, name: String, errors: Errors }
//!
//! pub(super) async fn show(visit: SignedIn) -> Answer {
//!     page(&Kettles { frame: visit.frame("Kettles", "/kettles"), .. })
//! }
//!
//! pub(super) async fn boil(visit: SignedIn, form: Form) -> Answer {
//!     let name = form.text("name").to_owned();
//!     match visit.blocking(move |node, caller| kettles::boil(node, caller, &name)).await {
//!         Ok(kettle) => Ok(visit.go("/kettles", Flash::good(format!("{kettle} boils.")))),
//!         Err(error) => invalid(error, |errors| Kettles { errors, .. }), // again, with status 422
//!     }
//! }
//! ```
//!
//! Then a route in [`pages`] and, if it has a place there, an item in `frame::NAV`. [`SignedIn`]
//! sends whoever has no session to the sign-in; [`Form`] is only to be had from this site's own
//! pages, with the session's token. A [`Failure`] becomes a page with the right status. A path
//! in a link is made with `percent::encoded`.
//!
//! # Defences
//!
//! * The policy in `shell` lets a page run only this listener's own scripts and styles, none of
//!   them inline, and be in no frame. Templates escape everything; none uses `safe`.
//! * A form is taken only with the token of its session, and only where `Origin` and
//!   `Sec-Fetch-Site` do not speak of another site. Before there is a session, its place is taken
//!   by a random value in a cookie of its own.
//! * Pages are never cached; assets, whose address holds their digest, forever.

mod assets;
mod cookies;
mod failure;
mod form;
mod frame;
mod shell;
#[cfg(test)]
mod tests;
mod visit;

mod about;
mod api_page;
mod codes;
mod explore;
mod figures;
mod overview;
mod pages;
mod paste;
mod policies;
mod provider;
mod refusals;
mod sign_in;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{any, get, post};

use self::assets::Assets;
use self::failure::Failure;
use super::node::Node;
use super::oidc;

/// What every page stands on.
#[derive(Debug, Clone)]
struct Site {
    node: Arc<Node>,
    assets: Arc<Assets>,
}

/// What a handler returns.
type Answer = Result<Response, Failure>;

/// The dashboard over `node`: its pages, and whatever else no other router knows.
pub(super) fn router(node: Arc<Node>) -> Router {
    let site = Site { node, assets: Arc::new(Assets::new()) };
    pages()
        .route("/{*path}", any(shell::not_found))
        .method_not_allowed_fallback(shell::method_not_allowed)
        .layer(from_fn_with_state(site.clone(), shell::shell))
        .route("/assets/{digest}/{*name}", get(assets::serve))
        .with_state(site)
}

/// Every page.
fn pages() -> Router<Site> {
    Router::new()
        .route("/", get(overview::show))
        .route("/live/overview", get(overview::live))
        .route("/live/events", get(refusals::stream))
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .route(oidc::START, get(provider::begin))
        .route(oidc::CALLBACK, get(provider::finish))
        .route("/setup", get(sign_in::show_set_up).post(sign_in::set_up))
        .route("/sign-out", post(sign_in::leave))
        .route("/explore", get(explore::show).post(explore::walk))
        .route("/refusals", get(refusals::show))
        .route("/codes", get(codes::show))
        .route("/policies", get(policies::show))
        .route("/api", get(api_page::show))
        .route("/about", get(about::show))
        .merge(pages::routes())
}

/// A page.
fn page(template: &impl Template) -> Answer {
    page_with(StatusCode::OK, template)
}

/// A page with a status of its own.
fn page_with(status: StatusCode, template: &impl Template) -> Answer {
    let html = template.render().map_err(|error| Failure::internal(&error))?;
    Ok((status, Html(html)).into_response())
}
