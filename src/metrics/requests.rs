//! Requests of the data listener, as a whole.

use prometheus::Error;

use super::Metrics;
use super::set::Set;
use super::tally::{Held, Level};

#[derive(Debug)]
pub(super) struct Requests {
    in_flight: Level,
}

impl Requests {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self { in_flight: set.level("requests_in_flight", "Requests being answered.")? })
    }
}

impl Metrics {
    /// Counts a request as in flight until the result is dropped.
    #[must_use]
    pub fn request(&self) -> Held {
        self.requests.in_flight.hold(0)
    }
}
