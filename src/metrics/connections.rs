//! Connections of the data listener.

use prometheus::Error;

use super::Metrics;
use super::set::Set;
use super::tally::{Held, Level, Tally};

#[derive(Debug)]
pub(super) struct Connections {
    open: Level,
    accepted: Tally,
}

impl Connections {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            open: set.level("connections", "Open connections on the data listener.")?,
            accepted: set.tally(
                "connections_accepted_total",
                "Connections that the system handed over to the data listener.",
                [],
                [[]],
            )?,
        })
    }
}

impl Metrics {
    /// Counts a connection that was accepted, as open until the result is dropped.
    #[must_use]
    pub fn connection(&self) -> Held {
        self.connections.accepted.inc(0);
        self.connections.open.hold(0)
    }
}
