//! The threads of the admin plane, which let the data plane go first.
//!
//! A dashboard that searches 100,000 shops, an import and a backup take all the time that the
//! processors have. So that no decision waits for them, their threads are nicer than the others by
//! [`NICER`], and there are never more than [`BLOCKING_MAX`] and a few of them:
//!
//! | threads | niceness | what runs there |
//! |---|---|---|
//! | `worker-…` | the process's | decisions, and all that the data plane does |
//! | `control`, and the main thread | the process's | what workers wait for or are stopped without: \
//!   key sets, the issue of widget tokens, the collecting of usage and of refusals, certificates, \
//!   signals and reloads |
//! | `log` | the process's | a log that is late loses lines |
//! | `admin` | nicer | both admin listeners and whatever a caller asks of them (pages, the API, \
//!   imports, exports, backups, password hashes, `/metrics`, `/readyz`), scheduled backups, and \
//!   the jobs that clean up |
//!
//! Readiness and metrics are among the latter, because they are one listener's; nicer is not idle:
//! with workers on all processors the admin plane still gets about a tenth of the time, which
//! answers a probe within milliseconds.
//!
//! # What a nicer thread may hold
//!
//! Whoever holds a lock and is not let run keeps everybody waiting who wants it, so a nicer thread
//! holds none that a worker waits for:
//!
//! * Decisions read the snapshot, the limiter's cells and settings, which have no locks. Whoever
//!   publishes a snapshot also clears away the one before (`snapshot::Published`).
//! * Usage is traded in mailboxes that workers only try (`usage::Tally`); refusals are handed over
//!   through a queue (`events::Events::submit`); counters are atomic; lines of the log go through a
//!   queue, and are dropped when that is full.
//! * The status of key sets is read without a lock, and an operator's wish to fetch one anew is
//!   carried out on `control` (`jwks::Jwks`).
//! * Verified tokens are kept in shards with locks of their own, held for a look; the queues between
//!   threads have some that are held for a push. Those are instructions, not work.
//! * Writers of the store take turns, and the issue of widget tokens over the data plane has to
//!   wait for its turn behind one batch of an import at most. Nothing else of the data plane writes.
//!
//! Whether it all holds is measured by `benches/busy`.

use std::sync::Once;

use rustix::io;
use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};

use super::exit::{Exit, Failure};

/// By how much: as 1 to 9 in shares of a processor, where both want it.
const NICER: i32 = 10;

/// The nicest there is.
const NICENESS_MAX: i32 = 19;

/// Threads that answer; one may be kept from it while the other goes on.
const THREADS: usize = 2;

/// Threads that wait for the disk, compute, or feed somebody slow.
const BLOCKING_MAX: usize = 64;

/// See the module documentation. Its threads end when it is dropped, whatever they do.
pub(super) struct AdminPlane {
    handle: Handle,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
}

impl AdminPlane {
    /// Starts its threads, nicer than the calling one.
    pub(super) fn start() -> Result<Self, Failure> {
        // Read now: a thread inherits the niceness of the one that starts it, and would otherwise
        // be nicer than that by so much again.
        let niceness = getpriority_process(None).map(|own| (own + NICER).min(NICENESS_MAX));
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_name("admin")
            .on_thread_start(move || step_back(niceness))
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| {
            Failure::new(Exit::Failure, format!("no threads to run the admin plane on: {error}"))
        })?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where its tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for AdminPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropped within another runtime, where nothing may wait.
            runtime.shutdown_background();
        }
    }
}

/// Gives the calling thread its niceness. It serves without as well; a filter of system calls may
/// forbid it.
fn step_back(niceness: io::Result<i32>) {
    static TOLD: Once = Once::new();
    // On Linux this is the calling thread's alone.
    let lowered = niceness.and_then(|niceness| setpriority_process(None, niceness));
    if let Err(error) = lowered {
        TOLD.call_once(|| {
            tracing::debug!(%error, "the admin plane's threads are not nicer than the others");
        });
    }
}
