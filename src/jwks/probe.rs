//! One fetch of a key set, within its bound and never without a usable key: what every refresh
//! makes, and what whoever only wants to know asks for.
//!
//! Keeps nothing and tells nobody.

use super::fetch::{Document, fetch};
use super::{IssuerSource, RefreshError};
use crate::clock::{Clock, Timestamp};
use crate::decision::jwt::KeySet;

/// What one fetch gave, outside any schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Usable keys; at least one.
    pub keys: usize,
    /// What time it is where they came from, if that said so.
    pub date: Option<Timestamp>,
}

/// Asks `source` for its key set once and keeps nothing of it.
///
/// # Errors
///
/// [`RefreshError`]: what a running server would meet.
pub async fn probe(source: &IssuerSource, clock: &dyn Clock) -> Result<Probe, RefreshError> {
    let (document, set) = fetch_set(source, clock).await?;
    Ok(Probe { keys: set.len(), date: document.date })
}

/// One fetch within its bound: what came, and what it says; never without a usable key.
pub(super) async fn fetch_set(
    source: &IssuerSource,
    clock: &dyn Clock,
) -> Result<(Document, KeySet), RefreshError> {
    let document = tokio::time::timeout(source.timeout, fetch(source))
        .await
        .map_err(|_| RefreshError::Timeout { after: source.timeout })??;
    let set = KeySet::parse(&document.text, clock.now().unix)?;
    if set.is_empty() {
        return Err(RefreshError::NoUsableKeys {
            skipped: set.skipped().len(),
            first: set.skipped().first().map(|s| s.reason),
        });
    }
    Ok((document, set))
}
