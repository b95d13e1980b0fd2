//! The threads of the admin plane, which let the data plane go first.
//!
//! A dashboard that searches 100,000 shops, an import and a backup take all the time that the
//! processors have. So that no decision waits for them, they run on threads of their own:
//!
//! * `worker-…`, scheduled as the process is: decisions, and all that the data plane does.
//! * `control` and the main thread, the same: what workers wait for or are stopped without, which
//!   are key sets, the issue of widget tokens, the collecting of usage and of refusals,
//!   certificates, signals and reloads.
//! * `log`, the same: a log that is late loses lines.
//! * `admin`, nicer by [`NICER`]: both admin listeners, and what a caller asks of them that is done
//!   soon: pages, the API, `/metrics`, `/readyz`, a revocation; the jobs that clean up.
//! * `bulk`, only when a processor is idle: what takes long, which are imports, exports, backups,
//!   walks of the audit log, searches through all shops.
//!
//! A processor that runs a thread of the policy `SCHED_IDLE` counts as free, so a worker that wakes
//! up there does not look for another. The price: while workers take all processors, such a thread
//! gets hundredths of one. So everything that must get through then (a probe, a scrape, the
//! revocation of a key) is on `admin`, which has about a tenth.
//!
//! Neither is enough for work without an end. Since Linux 6.6 whoever runs may go on for a slice of
//! some milliseconds, however nice it is, before a worker that wakes up takes its place. So long
//! walks give way by themselves (`pace`), and what they write goes to the disk a little at a time.
//!
//! # What such a thread may hold
//!
//! Whoever holds a lock and is not let run keeps everybody waiting who wants it, so neither kind
//! holds one that a worker waits for:
//!
//! * Decisions read the snapshot, the limiter's cells and settings, which have no locks. Whoever
//!   publishes a snapshot also clears away the one before (`snapshot::Published`).
//! * Usage is traded in mailboxes that workers only try (`usage::Tally`); refusals are handed over
//!   through a queue (`events::Events::submit`); counters are atomic; lines of the log go through a
//!   queue, and are dropped when that is full.
//! * The status of key sets is read without a lock, and an operator's wish to fetch one anew is
//!   carried out on `control` (`jwks::Jwks`).
//! * Verified tokens are kept in shards with locks of their own, held for a look; the queues
//!   between threads have some that are held for a push. Those are instructions, not work.
//! * Writers of the store take turns, a batch of an import among them: a revocation waits for one
//!   batch at most, and so does the issue of widget tokens over the data plane, the one thing there
//!   that writes. That is some 50 ms, or seconds while workers take all processors.
//!
//! Whether it all holds is measured by `benches/busy`.

use std::io;
use std::sync::Once;

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};
use tokio::runtime::{Builder, Handle, Runtime};

use super::exit::{Exit, Failure};

/// By how much: as 1 to 9 in shares of a processor, where both want it.
const NICER: i32 = 10;

/// The nicest there is.
const NICENESS_MAX: i32 = 19;

/// Threads that answer; one may be kept from it while the other goes on.
const THREADS: usize = 2;

/// Threads that wait for the disk, or compute a little.
const BLOCKING_MAX: usize = 64;

/// Threads of bulk work: some feed somebody slow.
const BULK_MAX: usize = 32;

/// See the module documentation. Its threads end when it is dropped, whatever they do.
pub(super) struct AdminPlane {
    handle: Handle,
    bulk: Handle,
    /// Taken when this is dropped.
    runtimes: Vec<Runtime>,
}

impl AdminPlane {
    /// Starts its threads, nicer than the calling one.
    pub(super) fn start() -> Result<Self, Failure> {
        // Read now: a thread inherits the niceness of the one that starts it, and would otherwise
        // be nicer than that by so much again.
        let own = getpriority_process(None).map_err(io::Error::from);
        let nicer = own.as_ref().map_or(NICENESS_MAX, |own| (own + NICER).min(NICENESS_MAX));
        let admin = runtime("admin", THREADS, BLOCKING_MAX, move || be_nice(nicer))?;
        let bulk = runtime("bulk", 1, BULK_MAX, idle)?;
        let (handle, to_bulk) = (admin.handle().clone(), bulk.handle().clone());
        Ok(Self { handle, bulk: to_bulk, runtimes: vec![admin, bulk] })
    }

    /// Where its tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where its bulk work is done.
    pub(super) fn bulk(&self) -> &Handle {
        &self.bulk
    }
}

impl Drop for AdminPlane {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..) {
            // Dropped within another runtime, where nothing may wait.
            runtime.shutdown_background();
        }
    }
}

/// A runtime whose threads all begin with `begin`.
fn runtime(
    name: &'static str,
    threads: usize,
    blocking_max: usize,
    begin: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(blocking_max)
        .thread_name(name)
        .on_thread_start(move || tell_once(begin()))
        .enable_all()
        .build();
    runtime.map_err(|error| {
        Failure::new(Exit::Failure, format!("no threads to run the admin plane on: {error}"))
    })
}

/// Gives the calling thread, on Linux it alone, a niceness.
fn be_nice(niceness: i32) -> io::Result<()> {
    Ok(setpriority_process(None, niceness)?)
}

/// Has the calling thread run only where nobody else wants to. Where that is not to be had it is as
/// nice as can be.
fn idle() -> io::Result<()> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    // Sets the policy, then a niceness, which it may not be allowed to and which means little then:
    // what came of it is looked at.
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
    let is_idle = thread_schedule_policy().is_ok_and(|found| found == policy);
    be_nice(NICENESS_MAX)?;
    if is_idle {
        return Ok(());
    }
    Err(io::Error::other(format!("SCHED_IDLE is not to be had: {set:?}")))
}

/// It serves without as well; a filter of system calls may forbid it.
fn tell_once(done: io::Result<()>) {
    static TOLD: Once = Once::new();
    if let Err(error) = done {
        TOLD.call_once(|| {
            tracing::debug!(%error, "threads of the admin plane do not let others go first");
        });
    }
}
