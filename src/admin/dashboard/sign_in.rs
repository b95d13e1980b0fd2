//! Coming and going: sign-in by password and second factor, the one-time set-up, sign-out.
//!
//! What was typed is never put into a page again, but for the name.

use std::sync::Arc;

use askama::Template;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderValue, USER_AGENT};
use axum::response::Response;

use super::failure::Failure;
use super::form::{Errors, Form, invalid_fields};
use super::frame::{Flash, Frame, next_of, query_value};
use super::visit::{SignedIn, Visitor};
use super::{Answer, page, page_with};
use crate::admin::operations::sign_in::{self as operation, SetUpFailure, SignInFailure};
use crate::admin::operations::{sessions, sign_in};
use crate::admin::percent::encoded;
use crate::id::SessionId;
use crate::secret::SecretText;

/// The sign-in.
#[derive(Template)]
#[template(path = "sign-in.html")]
struct Page {
    frame: Frame,
    name: String,
    next: String,
    errors: Errors,
    /// Whether the code of the second factor is asked for, too.
    asks_code: bool,
    /// Whether operators may sign in with the configured provider.
    by_provider: bool,
    /// Takes along where to go afterwards.
    provider_query: String,
    /// Whether there is no owner yet.
    can_set_up: bool,
}

impl Page {
    fn new(visit: &Visitor, name: &str, next: &str) -> Self {
        let node = visit.node();
        Self {
            frame: visit.frame("Sign in", ""),
            name: name.to_owned(),
            next: next_of(next).unwrap_or_default().to_owned(),
            provider_query: next_of(next)
                .map_or_else(String::new, |next| format!("?next={}", encoded(next))),
            errors: Errors::default(),
            asks_code: false,
            by_provider: node.config.load().admin.oidc.is_some(),
            can_set_up: sign_in::set_up_is_open(node),
        }
    }
}

/// The form; who is signed in already goes on.
pub(super) async fn show(visit: Visitor, RawQuery(query): RawQuery) -> Answer {
    let next = query_value(query.as_deref(), "next");
    if visit.session.is_some() {
        return Ok(visit.go(next_of(&next).unwrap_or("/"), None));
    }
    page(&Page::new(&visit, "", &next))
}

/// Takes a name, a password and, where it is asked for, a code.
pub(super) async fn enter(visit: Visitor, headers: HeaderMap, form: Form) -> Answer {
    let (name, next) = (form.text("name"), form.text("next"));
    let password = SecretText::new(form.raw("password").to_owned());
    let code = form.optional("code");
    let agent = agent(&headers);
    let done = operation::password(visit.node(), name, password, code, visit.client, agent).await;
    let mut again = Page::new(&visit, name, next);
    match done {
        Ok(signed_in) => {
            replaced(&visit, visit.session.as_ref().map(|session| session.id)).await;
            let mut response = visit.go(next_of(next).unwrap_or("/"), None);
            visit.enter(&mut response, &signed_in.cookie);
            Ok(response)
        }
        Err(SignInFailure::TotpNeeded) => {
            again.asks_code = true;
            page(&again)
        }
        Err(SignInFailure::Throttled { retry_after_s }) => {
            let wait = format!("Too many failed attempts. Try again in {retry_after_s}\u{a0}s");
            again.errors.add("", wait);
            refused(&again, StatusCode::TOO_MANY_REQUESTS, retry_after_s)
        }
        Err(SignInFailure::Busy) => {
            again.errors.add("", "Many people are signing in right now. Try again in a moment");
            refused(&again, StatusCode::SERVICE_UNAVAILABLE, 2)
        }
        Err(SignInFailure::Operation(error)) => Err(error.into()),
        Err(error @ (SignInFailure::Wrong | SignInFailure::Disabled)) => {
            again.asks_code = code.is_some();
            again.errors.add("", error.to_string());
            invalid_fields(&again)
        }
    }
}

fn refused(again: &Page, status: StatusCode, seconds: u64) -> Result<Response, Failure> {
    let mut response = page_with(status, again)?;
    let name = axum::http::header::RETRY_AFTER;
    response.headers_mut().insert(name, HeaderValue::from(seconds.max(1)));
    Ok(response)
}

/// What the browser calls itself.
pub(super) fn agent(headers: &HeaderMap) -> &str {
    headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default()
}

/// Ends the session that the browser had before it signed in anew: its cookie is overwritten, so
/// nobody could sign out of it any more.
pub(super) async fn replaced(visit: &Visitor, before: Option<SessionId>) {
    let Some(before) = before else { return };
    let (node, client) = (Arc::clone(visit.node()), visit.client);
    let ending =
        tokio::task::spawn_blocking(move || sessions::replaced(&node, before, client)).await;
    if let Ok(Err(error)) = ending {
        tracing::warn!(%error, "the session that a sign-in replaces goes on for its time");
    }
}

/// Ends the session.
pub(super) async fn leave(visit: SignedIn, _: Form) -> Answer {
    let id = visit.session.id;
    visit.load(move |node, caller| sessions::sign_out(node, caller, id)).await?;
    let mut response = visit.go("/sign-in", Flash::good("You are signed out."));
    visit.leave(&mut response);
    Ok(response)
}

/// The set-up.
#[derive(Template)]
#[template(path = "setup.html")]
struct SetUp {
    frame: Frame,
    name: String,
    length_min: usize,
    errors: Errors,
    is_open: bool,
}

impl SetUp {
    fn new(visit: &Visitor, name: &str) -> Self {
        let node = visit.node();
        Self {
            frame: visit.frame("Set up", ""),
            name: name.to_owned(),
            length_min: node.config.load().admin.passwords.length_min,
            errors: Errors::default(),
            is_open: sign_in::set_up_is_open(node),
        }
    }
}

/// The form for the first owner.
pub(super) async fn show_set_up(visit: Visitor) -> Answer {
    if visit.session.is_some() {
        return Ok(visit.go("/", None));
    }
    page(&SetUp::new(&visit, ""))
}

/// Makes the first owner.
pub(super) async fn set_up(visit: Visitor, headers: HeaderMap, form: Form) -> Answer {
    let name = form.text("name");
    let mut again = SetUp::new(&visit, name);
    let (password, repeated) = (form.raw("password"), form.raw("repeated"));
    if password != repeated {
        again.errors.add("repeated", "is not the same as the password");
        return invalid_fields(&again);
    }
    let token = SecretText::new(form.text("token").to_owned());
    let password = SecretText::new(password.to_owned());
    let agent = agent(&headers);
    match operation::set_up(visit.node(), &token, name, password, visit.client, agent).await {
        Ok(signed_in) => {
            let mut response =
                visit.go("/", Flash::good("Welcome to latchkey. You are its owner."));
            visit.enter(&mut response, &signed_in.cookie);
            Ok(response)
        }
        Err(SetUpFailure::Operation(error)) => {
            again.errors = Errors::of_operation(error)?;
            invalid_fields(&again)
        }
        Err(error @ SetUpFailure::WrongToken) => {
            again.errors.add("token", error.to_string());
            invalid_fields(&again)
        }
        Err(SetUpFailure::Closed) => {
            again.is_open = false;
            invalid_fields(&again)
        }
    }
}
