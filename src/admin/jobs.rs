//! What has to happen without anybody asking: times of last use reach the store, what has expired
//! goes, signing keys take turns, key sets stay fresh, what workers count is kept.
//!
//! [`tick`] is most of it, synchronous and safe at any time; [`run`] calls it on a schedule, where
//! it may have to wait for whoever is in a hurry. [`serve_workers`] is what the data plane waits
//! for or loses by: it is run where nothing keeps it from running.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::key_sets::{self, WeakSink};
use super::ledger;
use super::listener::stopped;
use super::node::Node;
use super::operations::{
    Idempotency, OperationError, admin_tokens, assertion_keys, audit, backups, keys, sessions,
    signing_keys,
};
use super::overview;
use crate::clock::Timestamp;
use crate::id::KeyId;
use crate::jwks::Jwks;
use crate::store::{PRUNE_MAX, StoreError};

/// From one [`tick`] to the next.
pub const TICK_INTERVAL: Duration = Duration::from_secs(10);

/// From one collection of what workers count to the next.
const COLLECT_INTERVAL: Duration = Duration::from_secs(1);

/// Samples of the metrics from one look at the limiter's table to the next.
const OCCUPANCY_TURNS: u64 = 6;

/// Most keys whose times are written in one transaction, to bound what it holds in memory.
const TOUCH_MAX: usize = 5_000;

/// Most rounds of pruning in one tick; the rest waits for the next.
const PRUNE_ROUNDS_MAX: usize = 20;

/// Widget tokens stay listed for this long after they expired, and revoked ones are remembered:
/// a clock that ran ahead and is set right must not bring them back.
const TOKENS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A time of use noted this long before the last flush may have been missed by it.
const FLUSH_OVERLAP: Duration = Duration::from_secs(1);

/// What a series of ticks remembers.
#[derive(Debug, Default)]
pub struct Progress {
    /// When times of last use were last flushed, Unix milliseconds.
    flushed_ms: AtomicU64,
}

/// Something that may be due.
type Job<'j> = &'j dyn Fn() -> Result<(), OperationError>;

/// Does what is due. Every job is tried even when one fails; failures are logged, and the next
/// tick tries again.
pub fn tick(node: &Node, progress: &Progress) {
    let config = node.config.load_full();
    let rotation = config.widget_signing_key_rotation;
    let probe = || if node.is_writable() { Ok(()) } else { signing_keys::probe(node) };
    let jobs: [(&str, Job<'_>); 9] = [
        ("the store still refuses writes", &probe),
        ("times of last use are not stored", &|| flush_last_use(node, progress)),
        ("signing keys are not rotated", &|| signing_keys::maintain(node, rotation)),
        ("keys that sign assertions are not rotated", &|| {
            assertion_keys::maintain(node, &config.assertion)
        }),
        ("rotated keys are not pruned", &|| keys::prune(node).map(drop)),
        ("expired widget tokens are not pruned", &|| prune_tokens(node)),
        ("ended sessions are not pruned", &|| sessions::prune(node).map(drop)),
        ("idempotency keys are not pruned", &|| prune_idempotency(node)),
        ("old audit entries are not pruned", &|| audit::prune(node).map(drop)),
    ];
    for (failure, job) in jobs {
        if let Err(error) = job() {
            tracing::warn!(%error, "{failure}");
        }
    }
}

/// Writes the times of last use that moved since the last call.
pub fn flush_last_use(node: &Node, progress: &Progress) -> Result<(), OperationError> {
    let now = node.now().unix;
    // After a step back of the wall clock the last flush lies ahead: then from now on.
    let since = Timestamp::from_unix_ms(progress.flushed_ms.load(Ordering::Relaxed)).min(now);
    let since_ms = (since - FLUSH_OVERLAP).unix_ms();
    let snapshot = node.published.load_full();
    let used: Vec<(KeyId, Timestamp)> = snapshot
        .api_keys()
        .map(|key| (key.id, key.last_used_ms.load(Ordering::Relaxed)))
        .filter(|(_, ms)| *ms > 0 && *ms >= since_ms)
        .map(|(id, ms)| (id, Timestamp::from_unix_ms(ms)))
        .collect();
    for batch in used.chunks(TOUCH_MAX) {
        node.store.write::<_, StoreError>(|tx| tx.touch_keys(batch))?;
    }
    admin_tokens::flush_last_use(node)?;
    sessions::flush_last_seen(node)?;
    progress.flushed_ms.store(now.unix_ms(), Ordering::Relaxed);
    Ok(())
}

fn prune_tokens(node: &Node) -> Result<(), OperationError> {
    let before = node.now().unix - TOKENS_KEPT;
    let mut pruned = 0;
    for _ in 0..PRUNE_ROUNDS_MAX {
        let round = node.store.write::<_, StoreError>(|tx| tx.prune_tokens(before))?;
        pruned += round;
        if round < PRUNE_MAX {
            break;
        }
    }
    if pruned > 0 {
        node.published.patch(|snapshot| snapshot.prune_revoked(before));
    }
    Ok(())
}

fn prune_idempotency(node: &Node) -> Result<(), OperationError> {
    let before = node.now().unix - Idempotency::RETENTION;
    for _ in 0..PRUNE_ROUNDS_MAX {
        if node.store.write::<_, StoreError>(|tx| tx.prune_idempotency(before))? < PRUNE_MAX {
            break;
        }
    }
    Ok(())
}

/// Keeps key sets fresh and takes over what workers count and tell, until `shutdown` becomes true.
pub async fn serve_workers(node: Arc<Node>, shutdown: watch::Receiver<bool>) {
    let key_sets = keep_key_sets(Arc::clone(&node), shutdown.clone());
    let usage = keep_usage(Arc::clone(&node), shutdown);
    let events = node.events.run();
    tokio::join!(key_sets, usage, events);
}

/// Runs the jobs until `shutdown` becomes true; then writes the times of last use once more.
pub async fn run(node: Arc<Node>, mut shutdown: watch::Receiver<bool>) {
    let overview = keep_overview(Arc::clone(&node), shutdown.clone());
    let backups = keep_backups(Arc::clone(&node), shutdown.clone());
    let progress = Arc::new(Progress::default());
    let ticks = async {
        let mut interval = tokio::time::interval(TICK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = stopped(&mut shutdown) => break,
            }
            let (node, progress) = (Arc::clone(&node), Arc::clone(&progress));
            run_blocking(move || tick(&node, &progress)).await;
        }
    };
    tokio::join!(ticks, overview, backups);
    run_blocking(move || {
        if let Err(error) = flush_last_use(&node, &progress) {
            tracing::warn!(%error, "times of last use are not stored");
        }
    })
    .await;
}

/// Collects what workers count every second, or when one of them has much of it, and stores it
/// every `usage.flush_interval`; once more at the end, when all workers have ended.
async fn keep_usage(node: Arc<Node>, mut shutdown: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(COLLECT_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flushed = node.now().mono;
    loop {
        let is_last = tokio::select! {
            () = stopped(&mut shutdown) => true,
            _ = interval.tick() => false,
            () = node.usage.filled() => false,
        };
        let now = node.now().mono;
        let is_due = now.since(flushed) >= node.config.load().usage.flush_interval;
        if is_due {
            flushed = now;
        }
        let this = Arc::clone(&node);
        run_blocking(move || {
            this.ledger.collect(&this);
            if is_due || is_last {
                flush_usage(&this);
            }
        })
        .await;
        if is_last {
            return;
        }
    }
}

/// Stores what was counted, and removes what is too old.
pub(super) fn flush_usage(node: &Node) {
    let config = node.config.load_full();
    let flushed = node.ledger.flush(node).and_then(|()| ledger::prune(node, &config.usage));
    if let Err(error) = flushed {
        tracing::warn!(%error, "usage is not stored; it waits for the next time");
    }
}

/// Samples the metrics.
async fn keep_overview(node: Arc<Node>, mut shutdown: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(overview::FINE_STEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cells_live = 0;
    for turn in 0u64.. {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = interval.tick() => {}
        }
        // Reads all of the limiter's table, which moves slowly: not every time.
        if turn.is_multiple_of(OCCUPANCY_TURNS) {
            let this = Arc::clone(&node);
            let read = move || this.limiter.occupancy(this.now().mono);
            cells_live = tokio::task::spawn_blocking(read).await.unwrap_or(cells_live);
        }
        node.overview.sample(&node.metrics, node.now(), node.limiter.capacity(), cells_live);
    }
}

/// Makes backups when they are due. Apart from [`tick`]: one of a large store takes minutes, and
/// nothing else waits for it.
async fn keep_backups(node: Arc<Node>, mut shutdown: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stopped(&mut shutdown) => break,
        }
        let (bulk, node) = (node.bulk(), Arc::clone(&node));
        run_on(&bulk, move || {
            if let Err(error) = backups::maintain(&node) {
                tracing::error!(%error, "the scheduled backup was not made");
            }
        })
        .await;
    }
}

/// Keeps the key sets of the configuration in force; a reload that changes where keys come from
/// starts anew.
async fn keep_key_sets(node: Arc<Node>, mut shutdown: watch::Receiver<bool>) {
    let mut reloads = node.reloads.subscribe();
    while !*shutdown.borrow() {
        let sources = key_sets::sources(&node.config.load());
        let sink = Arc::new(WeakSink { node: Arc::downgrade(&node), sources: sources.clone() });
        let jwks = Arc::new(Jwks::new(sources.clone(), sink, Arc::clone(&node.clock)));
        node.jwks.store(Some(Arc::clone(&jwks)));
        let stop = async {
            loop {
                tokio::select! {
                    () = stopped(&mut shutdown) => break,
                    changed = reloads.changed() => {
                        if changed.is_err() || key_sets::sources(&node.config.load()) != sources {
                            break;
                        }
                    }
                }
            }
        };
        jwks.run(stop).await;
    }
}

/// Runs `job` on a thread that may block. One that panics has been reported by the panic hook,
/// and must not end the jobs after it.
async fn run_blocking(job: impl FnOnce() + Send + 'static) {
    run_on(&Handle::current(), job).await;
}

async fn run_on(threads: &Handle, job: impl FnOnce() + Send + 'static) {
    if threads.spawn_blocking(job).await.is_err() {
        tracing::error!("a background job ended early");
    }
}
