//! Why was I refused? Every code there is, when it happens and what to do about it.
//!
//! The words are [`Code::advice`]'s, as in the manual; nothing here is about a single refusal.

use askama::Template;

use super::frame::Frame;
use super::visit::SignedIn;
use super::{Answer, page};
use crate::decision::advice::Advice;
use crate::decision::denial::Code;

#[derive(Template)]
#[template(path = "codes.html")]
struct Codes {
    frame: Frame,
    codes: Vec<Row>,
}

/// A code, as it is explained.
struct Row {
    name: &'static str,
    status: u16,
    title: &'static str,
    when: &'static str,
    for_sender: &'static str,
    for_operator: &'static str,
}

/// Every code.
pub(super) async fn show(visit: SignedIn) -> Answer {
    let row = |code: Code| {
        let Advice { when, caller, operator } = code.advice();
        Row {
            name: code.as_str(),
            status: code.status(),
            title: code.title(),
            when,
            for_sender: caller,
            for_operator: operator,
        }
    };
    let codes = Code::ALL.map(row).into();
    page(&Codes { frame: visit.frame("Refusal codes", "/refusals"), codes })
}
