//! Refusals, as they happen, for whoever is looking.
//!
//! Workers publish; listeners read from a bounded channel, and are told how many they missed if
//! they are slow. The last ones are kept, so that a listener that comes back, or comes late, has
//! something to begin with. Nobody who is refused can make this expensive: only so many refusals
//! in a second are described at all, fewer while nobody listens; how many were left out is said.
//!
//! A refusal holds no credential, no query string and no body. Who may see which is not decided
//! here.

mod channel;
mod pace;

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;
use crate::id::{Name, ShopId};

pub use self::channel::{Events, Item, LISTENERS_MAX, Listener, RECENT_MAX, TooManyListeners};

/// Longest text of a refusal's fields, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;

/// A request that did not go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among the refusals since the start, from 1. Given when it is published.
    pub sequence: u64,
    /// How many before it were not described, because there were too many at once.
    pub skipped: u64,
    /// When.
    pub at: Timestamp,
    /// The request's name, as the client and the log know it.
    pub request_id: Box<str>,
    /// The trace it is of, as the log and the upstream know it.
    pub trace_id: Option<Box<str>>,
    /// The method.
    pub method: Box<str>,
    /// The path, without its query.
    pub path: Box<str>,
    /// The route, if one takes it.
    pub route: Option<Name>,
    /// The status of the answer.
    pub status: u16,
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub why: Box<str>,
    /// The client address.
    pub client: IpAddr,
    /// The shop of the caller, if it is known who that is.
    pub shop: Option<ShopId>,
    /// The public name of the credential: a key id or a widget token id.
    pub key_id: Option<Box<str>>,
    /// As what a credential was presented, if one was looked at.
    pub mechanism: Option<Mechanism>,
    /// The `Origin` that the browser sent.
    pub origin: Option<Box<str>>,
}

/// A refusal that others look at too.
pub type SharedRefusal = Arc<Refusal>;

/// `text`, cut to [`TEXT_BYTES_MAX`].
#[must_use]
pub fn bounded(text: &str) -> Box<str> {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(&*bounded("short"), "short");
        let long = "ä".repeat(TEXT_BYTES_MAX);
        assert_eq!(bounded(&long).len(), TEXT_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(bounded(&odd).len(), TEXT_BYTES_MAX - 1);
    }
}
