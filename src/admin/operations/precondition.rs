//! What has to hold for a change to be made: that nobody else changed the thing since its caller
//! saw it (RFC 9110 §13).
//!
//! Checked within the transaction that makes the change, so that of two who saw the same only one
//! writes. How versions are spelt is `api`'s.

use super::OperationError;
use crate::clock::Timestamp;
use crate::store::{KeyRecord, OperatorRecord, ShopRecord};

/// A state of a shop, a key or an operator. One that is made anew under an old id is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// When it was made.
    pub created_at: Timestamp,
    /// The count of its changes.
    pub revision: u64,
}

impl From<&ShopRecord> for Version {
    fn from(shop: &ShopRecord) -> Self {
        Self { created_at: shop.created_at, revision: shop.revision }
    }
}

impl From<&KeyRecord> for Version {
    fn from(key: &KeyRecord) -> Self {
        Self { created_at: key.created_at, revision: key.revision }
    }
}

impl From<&OperatorRecord> for Version {
    fn from(operator: &OperatorRecord) -> Self {
        Self { created_at: operator.created_at, revision: operator.revision }
    }
}

/// Some states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Whatever there is.
    Any,
    /// One of these.
    Of(Vec<Version>),
}

impl Versions {
    fn hold(&self, current: Option<Version>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(versions), Some(current)) => versions.contains(&current),
        }
    }
}

/// What has to hold for a change to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The thing is in one of these states.
    pub matches: Option<Versions>,
    /// It is in none of these.
    pub matches_none: Option<Versions>,
}

impl Precondition {
    /// Nothing has to hold.
    #[must_use]
    pub const fn none() -> Self {
        Self { matches: None, matches_none: None }
    }

    /// That the thing is as `version` still, as for a form that was filled in from it.
    #[must_use]
    pub fn unchanged_since(version: Version) -> Self {
        Self { matches: Some(Versions::Of(vec![version])), matches_none: None }
    }

    /// Refuses the change of what is `current` (`None`: not there).
    pub(super) fn check(&self, current: Option<Version>) -> Result<(), OperationError> {
        let matches = self.matches.as_ref().is_none_or(|wanted| wanted.hold(current));
        let clashes = self.matches_none.as_ref().is_some_and(|unwanted| unwanted.hold(current));
        if matches && !clashes { Ok(()) } else { Err(OperationError::PreconditionFailed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(created: u64, revision: u64) -> Version {
        Version { created_at: Timestamp::from_unix_ms(created), revision }
    }

    #[test]
    fn a_table_of_conditions() {
        let now = Some(version(1, 2));
        let of = |versions: &[(u64, u64)]| {
            Some(Versions::Of(versions.iter().map(|(c, r)| version(*c, *r)).collect()))
        };
        let any = || Some(Versions::Any);
        for (matches, matches_none, current, holds) in [
            (None, None, now, true),
            (None, None, None, true),
            (any(), None, now, true),
            (any(), None, None, false),
            (of(&[(1, 2)]), None, now, true),
            (of(&[(1, 1), (1, 2)]), None, now, true),
            (of(&[(1, 1)]), None, now, false),
            (of(&[(2, 2)]), None, now, false),
            (of(&[]), None, now, false),
            (of(&[(1, 2)]), None, None, false),
            (None, any(), now, false),
            (None, any(), None, true),
            (None, of(&[(1, 2)]), now, false),
            (None, of(&[(1, 1)]), now, true),
            (any(), of(&[(1, 2)]), now, false),
        ] {
            let condition = Precondition { matches, matches_none };
            assert_eq!(condition.check(current).is_ok(), holds, "{condition:?} {current:?}");
        }
    }
}
