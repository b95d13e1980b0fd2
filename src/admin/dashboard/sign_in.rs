//! Coming and going.

use askama::Template;

use super::form::{Errors, Form, invalid_fields};
use super::frame::{Flash, Frame, next_of};
use super::visit::{SignedIn, Visitor};
use super::{Answer, page};

/// The sign-in.
#[derive(Template)]
#[template(path = "sign-in.html")]
struct Page {
    frame: Frame,
    name: String,
    next: String,
    errors: Errors,
}

/// The form; who is signed in already goes on.
pub(super) async fn show(visit: Visitor) -> Answer {
    if visit.session.is_some() {
        return Ok(visit.go("/", None));
    }
    let (name, next) = (String::new(), String::new());
    page(&Page { frame: visit.frame("Sign in", ""), name, next, errors: Errors::default() })
}

/// Takes a name and a password.
pub(super) async fn enter(visit: Visitor, form: Form) -> Answer {
    let errors = Errors::of("", "Name or password is wrong");
    invalid_fields(&Page {
        frame: visit.frame("Sign in", ""),
        name: form.text("name").to_owned(),
        next: next_of(form.text("next")).unwrap_or_default().to_owned(),
        errors,
    })
}

/// Ends the session.
pub(super) async fn leave(visit: SignedIn, _: Form) -> Answer {
    Ok(visit.go("/sign-in", Flash::good("You are signed out.")))
}
