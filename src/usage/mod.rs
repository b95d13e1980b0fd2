//! How much each shop, and each of its keys, was let through, refused and held back by a limit.
//!
//! Workers count in a [`Tally`] of their own, which nobody else touches: a count costs one look-up
//! in a table of fixed size, no lock, no atomic and no allocation. Whenever its table is half full,
//! a minute ends or a second has passed, a worker trades it for the empty one in its mailbox, if
//! that is to be had at once; the [`Recorder`] empties the mailboxes, and whoever owns it keeps
//! what comes of it. A count that finds no place is lost and counted as such: nothing here ever
//! waits.
//!
//! Only authenticated callers are counted, so there are as many series as there are credentials.
//! What is kept, for how long, and who may read it is not decided here.

mod recorder;
mod table;

use std::fmt;
use std::ops::AddAssign;

use crate::id::{IdError, KeyId};

pub use self::recorder::{Recorder, Tally};

/// How a request was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was admitted, whatever became of it after.
    Allowed,
    /// It was refused for another reason than a limit.
    Refused,
    /// A limit refused it.
    Limited,
}

/// What is counted of one series in one span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that were admitted.
    pub allowed: u64,
    /// Requests that were refused for another reason than a limit.
    pub refused: u64,
    /// Requests that a limit refused.
    pub limited: u64,
}

impl Counts {
    /// One request.
    #[must_use]
    pub fn one(outcome: Outcome) -> Self {
        let mut counts = Self::default();
        match outcome {
            Outcome::Allowed => counts.allowed = 1,
            Outcome::Refused => counts.refused = 1,
            Outcome::Limited => counts.limited = 1,
        }
        counts
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.allowed.saturating_add(self.refused).saturating_add(self.limited)
    }

    /// Whether there was no request.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.refused = self.refused.saturating_add(other.refused);
        self.limited = self.limited.saturating_add(other.limited);
    }
}

/// A part of a shop's traffic: by the credential it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Of all its credentials.
    Total,
    /// Its widget tokens, together.
    WidgetTokens,
    /// JWTs that name it, together.
    Jwt,
    /// This key.
    Key(KeyId),
}

impl Part {
    /// Parses what [`fmt::Display`] prints.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        match text {
            "total" => Ok(Self::Total),
            "widget_tokens" => Ok(Self::WidgetTokens),
            "jwt" => Ok(Self::Jwt),
            key => KeyId::parse(key).map(Self::Key),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.pad("total"),
            Self::WidgetTokens => f.pad("widget_tokens"),
            Self::Jwt => f.pad("jwt"),
            Self::Key(id) => id.fmt(f),
        }
    }
}

/// How finely time is divided. All divisions are of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// By minutes.
    Minute,
    /// By hours.
    Hour,
    /// By days.
    Day,
}

impl Resolution {
    /// All of them, the finest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The resolution of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resolution| resolution.as_str() == text)
    }

    /// Minutes of one step.
    #[must_use]
    pub const fn minutes(self) -> u64 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
