//! Backups by schedule: one every interval, the newest of them kept.
//!
//! When the next is due follows from the newest file, not from when the process started: a restart
//! neither skips one nor makes one too many. Only files that the schedule made are ever deleted.

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::folder;
use super::{Wanted, encryption, lock, make, remove};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::operations::{OperationError, now};
use crate::clock::{Monotonic, Timestamp};
use crate::metrics::BackupKind;

/// From a failure to the next attempt, if the interval is not shorter.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// How the attempts since the start went.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failure: Option<Failure>,
}

impl Attempts {
    /// The last failure, whatever else is known.
    #[cfg(test)]
    pub(super) fn failure_for_tests(&self) -> Option<(Timestamp, String)> {
        self.failure.as_ref().map(|failure| (failure.at, failure.problem.clone()))
    }
}

#[derive(Debug, Clone)]
struct Failure {
    at: Timestamp,
    at_mono: Monotonic,
    problem: String,
}

/// The schedule and how it fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// From one backup to the next.
    pub interval: Duration,
    /// How many are kept.
    pub keep: usize,
    /// Whether they are encrypted.
    pub encrypted: bool,
    /// Whether the master key is in them.
    pub include_master_key: bool,
    /// When the newest was made.
    pub last: Option<Timestamp>,
    /// When the next is due.
    pub next: Timestamp,
    /// When the last attempt failed and why, if none succeeded since.
    pub failure: Option<(Timestamp, String)>,
}

/// The schedule; `None` if there is none.
pub fn schedule(node: &Node, caller: &Caller) -> Result<Option<Schedule>, OperationError> {
    caller.require(Permission::BackupsRead)?;
    let config = node.config.load();
    let Some(interval) = config.backup.interval else { return Ok(None) };
    let now = now(node);
    let last = last_scheduled(&config.backup.directory, now)?;
    let failure = lock(&node.backups.schedule).failure.clone();
    Ok(Some(Schedule {
        interval,
        keep: config.backup.keep.get(),
        encrypted: config.backup.passphrase_file.is_some(),
        include_master_key: config.backup.include_master_key,
        last,
        next: last.map_or(now, |last| last + interval),
        failure: failure.map(|failure| (failure.at, failure.problem)),
    }))
}

/// Makes a backup if one is due, and deletes those that are too many. Whether one was made.
pub fn maintain(node: &Node) -> Result<bool, OperationError> {
    let config = node.config.load_full();
    let Some(interval) = config.backup.interval else {
        node.metrics.backup_schedule(None, None);
        return Ok(false);
    };
    if !may_try(node, interval) {
        return Ok(false);
    }
    let result = make_if_due(node, interval).and_then(|made| {
        prune(node, config.backup.keep.get())?;
        Ok(made)
    });
    let failure = result.as_ref().err().map(|error| {
        let clocks = node.now();
        Failure { at: clocks.unix, at_mono: clocks.mono, problem: error.to_string() }
    });
    lock(&node.backups.schedule).failure = failure;
    result
}

/// Not at once after a failure: the disk is full still.
fn may_try(node: &Node, interval: Duration) -> bool {
    let failed_at = lock(&node.backups.schedule).failure.as_ref().map(|failure| failure.at_mono);
    failed_at.is_none_or(|at| node.now().mono.since(at) >= RETRY.min(interval))
}

fn make_if_due(node: &Node, interval: Duration) -> Result<bool, OperationError> {
    let now = now(node);
    let newest = last_scheduled(&node.config.load().backup.directory, now)?;
    node.metrics.backup_schedule(Some(interval), newest);
    if newest.is_some_and(|newest| now < newest + interval) {
        return Ok(false);
    }
    let include_master_key = node.config.load().backup.include_master_key;
    let wanted = Wanted { passphrase: None, include_master_key };
    let caller = Caller::system();
    let encryption = encryption(node, &caller, &wanted)?;
    let go_on = &mut |_| ControlFlow::Continue(());
    let backup = make(node, &caller, BackupKind::Scheduled, encryption, go_on)?;
    tracing::info!(name = backup.name.as_str(), bytes = backup.bytes, "a backup was made");
    Ok(true)
}

/// When the newest of `directory` was made that the schedule made and that does not lie ahead:
/// after a step back of the clock those that do say nothing.
pub fn last_scheduled(
    directory: &Path,
    now: Timestamp,
) -> Result<Option<Timestamp>, OperationError> {
    let found = folder::list_scheduled(directory)?;
    let made = found.iter().filter_map(|found| found.header.as_ref().ok());
    Ok(made.map(crate::store::backup::Header::created_at).filter(|at| *at <= now).max())
}

fn prune(node: &Node, keep: usize) -> Result<(), OperationError> {
    let mut found = folder::list_scheduled(&node.config.load().backup.directory)?;
    found.sort_by_key(|found| {
        Reverse(found.header.as_ref().ok().map(crate::store::backup::Header::created_at))
    });
    for old in found.into_iter().skip(keep) {
        remove(node, &Caller::system(), &old.name)?;
    }
    Ok(())
}
