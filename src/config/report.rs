//! What reading the configuration has found: mistakes, what there is to print, and what there is
//! to know of each key.
//!
//! Knows no key and judges nothing.

use super::ConfigError;
use super::print::Line;
use super::raw::Place;
use super::shape::Fact;

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Mistakes, in the order of reading.
    pub(super) errors: Vec<ConfigError>,
    /// The effective configuration, in the order of reading.
    pub(super) lines: Vec<Line>,
    /// What is known of the keys that were asked for, in the order of asking, where that is wanted.
    pub(super) facts: Option<Vec<Fact>>,
}

impl Report {
    /// Notes a mistake.
    pub(super) fn error(&mut self, place: &Place, key: &str, message: String) -> Noted {
        self.errors.push(ConfigError { source: place.name.clone(), key: key.to_owned(), message });
        Noted(())
    }
}

/// Proof that a mistake has been noted: what was asked for cannot be had, and the reader of the
/// configuration will be told why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted(());

/// All of `results`, or that at least one is a mistake. Looks at every one of them, so that all
/// mistakes are found.
pub(super) fn collect_all<T>(
    results: impl IntoIterator<Item = Result<T, Noted>>,
) -> Result<Vec<T>, Noted> {
    let all: Vec<_> = results.into_iter().collect();
    all.into_iter().collect()
}
