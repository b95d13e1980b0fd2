//! What was counted of shops and keys, between the workers and the store.
//!
//! [`Ledger::collect`] takes what workers handed over, [`Ledger::flush`] writes it in transactions
//! of bounded size, [`prune`] keeps the store's part within its bounds. What is not written
//! yet is lost with the process if it is killed: at most what was counted since the last flush, a
//! minute by default. A store that refuses makes it wait, up to [`WAITING_MAX`]; what comes then is
//! lost, and counted as lost. It serves reads, so that what was counted a second ago shows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::node::Node;
use super::operations::OperationError;
use crate::clock::Timestamp;
use crate::config::UsageConfig;
use crate::id::ShopId;
use crate::store::{PRUNE_MAX, ReadTx, Steps, StoreError};
use crate::usage::{Counts, Part, Resolution};

/// Most counts that wait for the store: of one series in one minute each. Some 40 MB.
const WAITING_MAX: usize = 200_000;

/// Most series written in one transaction, to bound how long other writers wait.
const SERIES_MAX: usize = 500;

/// Most rounds of pruning at once; the rest waits for the next time.
const PRUNE_ROUNDS_MAX: usize = 50;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Waiting>);

/// What is not in the store yet.
#[derive(Debug, Default)]
struct Waiting {
    series: BTreeMap<(ShopId, Part), Steps>,
    counts: usize,
}

impl Waiting {
    /// Adds to a series; `false` if there is no place.
    fn add(&mut self, shop: ShopId, part: Part, minute: u64, counts: Counts) -> bool {
        let is_full = self.counts >= WAITING_MAX;
        let steps = match self.series.entry((shop, part)) {
            Entry::Occupied(series) => series.into_mut(),
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(series) => series.insert(Steps::new()),
        };
        match steps.entry(minute) {
            Entry::Occupied(mut sum) => *sum.get_mut() += counts,
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(sum) => {
                sum.insert(counts);
                self.counts += 1;
            }
        }
        true
    }

    /// The first series, no more than [`SERIES_MAX`], and how many counts they are.
    fn first(&self) -> Vec<(&(ShopId, Part), &Steps)> {
        self.series.iter().take(SERIES_MAX).collect()
    }

    fn remove_first(&mut self, series: usize) {
        for _ in 0..series {
            if let Some((_, steps)) = self.series.pop_first() {
                self.counts = self.counts.saturating_sub(steps.len());
            }
        }
    }
}

impl Ledger {
    /// Takes what the workers of `node` handed over.
    pub(super) fn collect(&self, node: &Node) {
        let mut waiting = self.lock();
        node.usage.drain(|minute, shop, part, counts| {
            if !waiting.add(*shop, Part::Total, minute, counts) {
                node.usage.lose(counts.total());
                return;
            }
            // Without its part the total is right all the same.
            waiting.add(*shop, part, minute, counts);
        });
        let waits = waiting.counts;
        drop(waiting);
        node.metrics.usage(waits, node.usage.lost());
    }

    /// Writes what waits; all of it, or what comes before the first failure.
    pub(super) fn flush(&self, node: &Node) -> Result<(), OperationError> {
        loop {
            // Held while it is written: whoever reads finds a count here or in the store.
            let mut waiting = self.lock();
            let batch = waiting.first();
            if batch.is_empty() {
                return Ok(());
            }
            node.store.write::<_, StoreError>(|tx| {
                for ((shop, part), steps) in &batch {
                    // Whoever was deleted meanwhile has no use for it.
                    tx.add_usage(shop, *part, steps)?;
                }
                Ok(())
            })?;
            let written = batch.len();
            waiting.remove_first(written);
        }
    }

    /// What `read` finds of `shop` in the store, and what waits for it: nothing twice and nothing
    /// missing.
    pub(super) fn read<T>(
        &self,
        node: &Node,
        shop: &ShopId,
        read: impl FnOnce(&ReadTx) -> Result<T, StoreError>,
    ) -> Result<(T, BTreeMap<Part, Steps>), OperationError> {
        let waiting = self.lock();
        let waits = waiting
            .series
            .range((*shop, Part::Total)..)
            .take_while(|((of, _), _)| of == shop)
            .map(|((_, part), steps)| (*part, steps.clone()))
            .collect();
        let read = node.store.read(read)?;
        Ok((read, waits))
    }

    /// Forgets what waits of `shop`, which was deleted.
    pub(super) fn forget(&self, shop: &ShopId) {
        let mut waiting = self.lock();
        let gone: Vec<(ShopId, Part)> = waiting
            .series
            .range((*shop, Part::Total)..)
            .take_while(|((of, _), _)| of == shop)
            .map(|(series, _)| *series)
            .collect();
        for series in gone {
            let steps = waiting.series.remove(&series).map_or(0, |steps| steps.len());
            waiting.counts = waiting.counts.saturating_sub(steps);
        }
    }

    /// A panic under the lock leaves at worst one count with its total and without its part.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes from the store what is kept for longer than `config` says, and what is too much.
pub(super) fn prune(node: &Node, config: &UsageConfig) -> Result<(), OperationError> {
    let now = node.now().unix;
    for resolution in Resolution::ALL {
        let kept = match resolution {
            Resolution::Minute => config.minutes_kept,
            Resolution::Hour => config.hours_kept,
            Resolution::Day => config.days_kept,
        };
        let before = step_of(now - kept, resolution);
        for _ in 0..PRUNE_ROUNDS_MAX {
            let prune = |tx: &mut crate::store::WriteTx| tx.prune_usage(resolution, before);
            if node.store.write::<_, StoreError>(prune)? < PRUNE_MAX {
                break;
            }
        }
    }
    prune_excess(node, config)
}

/// Removes the finest and oldest rows while there are more than `rows_max`.
fn prune_excess(node: &Node, config: &UsageConfig) -> Result<(), OperationError> {
    let rows_max = u64::try_from(config.rows_max.get()).unwrap_or(u64::MAX);
    let mut removed: BTreeMap<Resolution, usize> = BTreeMap::new();
    let mut rows = node.store.read(ReadTx::usage_rows)?;
    for _ in 0..PRUNE_ROUNDS_MAX {
        let excess = usize::try_from(rows.saturating_sub(rows_max)).unwrap_or(usize::MAX);
        if excess == 0 {
            break;
        }
        let count = excess.min(PRUNE_MAX);
        let gone = node.store.write::<_, StoreError>(|tx| tx.prune_usage_rows(count))?;
        for (resolution, count) in gone {
            *removed.entry(resolution).or_default() += count;
            node.metrics.usage_dropped(resolution, count as u64);
        }
        rows = node.store.read(ReadTx::usage_rows)?;
    }
    node.metrics.usage_rows(rows);
    for (resolution, rows) in removed {
        tracing::warn!(
            rows,
            resolution = resolution.as_str(),
            "usage.rows_max is reached: the oldest rows of usage go before their time; raise it, \
             or keep them for less long"
        );
    }
    Ok(())
}

/// The step that `at` lies in, since the epoch.
pub(super) fn step_of(at: Timestamp, resolution: Resolution) -> u64 {
    at.unix_s() / 60 / resolution.minutes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::testing::{Bench, START};
    use crate::usage::{Outcome, Tally};

    const MINUTE: u64 = START.unix_s() / 60;

    fn shop(id: &str) -> ShopId {
        ShopId::parse(id).unwrap()
    }

    /// A worker that decided so many requests of `id`, and has ended.
    fn requests(bench: &Bench, id: &str, count: u64) {
        let mut tally = Tally::new(&bench.node.usage);
        let now = bench.node.now();
        (0..count).for_each(|_| tally.count(&shop(id), Part::Jwt, Outcome::Allowed, now));
        drop(tally);
        bench.node.ledger.collect(&bench.node);
    }

    fn stored(bench: &Bench, id: &str, part: Part, resolution: Resolution) -> Vec<(u64, u64)> {
        let around = MINUTE / resolution.minutes();
        let steps = (around.saturating_sub(10_000), around + 10_000);
        let read = bench.node.store.read(|tx| tx.usage_by_part(&shop(id), resolution, steps));
        let steps = read.unwrap().remove(&part).unwrap_or_default();
        steps.into_iter().map(|(step, counts)| (step, counts.total())).collect()
    }

    #[tokio::test]
    async fn what_workers_count_is_stored_and_survives() {
        let bench = Bench::new();
        bench.shop("one").await;
        requests(&bench, "one", 3);
        requests(&bench, "one", 2);
        requests(&bench, "nobody", 9);
        assert_eq!(stored(&bench, "one", Part::Total, Resolution::Minute), []);
        bench.node.ledger.flush(&bench.node).unwrap();
        bench.node.ledger.flush(&bench.node).unwrap();
        let bench = bench.restart();
        for part in [Part::Total, Part::Jwt] {
            assert_eq!(stored(&bench, "one", part, Resolution::Minute), [(MINUTE, 5)]);
            assert_eq!(stored(&bench, "one", part, Resolution::Hour), [(MINUTE / 60, 5)]);
            assert_eq!(stored(&bench, "one", part, Resolution::Day), [(MINUTE / 1440, 5)]);
        }
        assert_eq!(stored(&bench, "nobody", Part::Total, Resolution::Minute), []);
        requests(&bench, "one", 1);
        bench.node.ledger.flush(&bench.node).unwrap();
        assert_eq!(stored(&bench, "one", Part::Total, Resolution::Minute), [(MINUTE, 6)]);
    }

    #[tokio::test]
    async fn a_clock_set_back_counts_where_it_stands() {
        let bench = Bench::new();
        bench.shop("one").await;
        requests(&bench, "one", 1);
        bench.clock.step_to(START - Duration::from_secs(3600));
        requests(&bench, "one", 2);
        bench.clock.step_to(START);
        requests(&bench, "one", 4);
        bench.node.ledger.flush(&bench.node).unwrap();
        let found = stored(&bench, "one", Part::Total, Resolution::Minute);
        assert_eq!(found, [(MINUTE - 60, 2), (MINUTE, 5)]);
    }

    #[tokio::test]
    async fn what_is_old_goes_by_its_resolution() {
        let bench = Bench::with("[usage]\nminutes_kept = \"1h\"\nhours_kept = \"2d\"\n");
        bench.shop("one").await;
        requests(&bench, "one", 1);
        bench.node.ledger.flush(&bench.node).unwrap();
        let config = bench.node.config.load_full();
        let lengths = |bench: &Bench| {
            prune(&bench.node, &config.usage).unwrap();
            Resolution::ALL.map(|resolution| stored(bench, "one", Part::Total, resolution).len())
        };
        assert_eq!(lengths(&bench), [1, 1, 1]);
        bench.clock.advance(Duration::from_secs(2 * 3600));
        assert_eq!(lengths(&bench), [0, 1, 1]);
        bench.clock.advance(Duration::from_secs(3 * 86_400));
        assert_eq!(lengths(&bench), [0, 0, 1]);
    }

    #[tokio::test]
    async fn too_many_rows_are_removed_and_said() {
        let bench = Bench::with("[usage]\nrows_max = 10000\n");
        bench.shop("one").await;
        let mut config = bench.node.config.load().usage.clone();
        config.rows_max = std::num::NonZeroUsize::new(7).unwrap();
        for _ in 0..4 {
            requests(&bench, "one", 1);
            bench.node.ledger.flush(&bench.node).unwrap();
            bench.clock.advance(Duration::from_secs(3600));
        }
        prune(&bench.node, &config).unwrap();
        let rows = bench.node.store.read(ReadTx::usage_rows).unwrap();
        assert!(rows <= 7, "{rows}");
        assert!(!stored(&bench, "one", Part::Total, Resolution::Day).is_empty());
        let text = bench.node.metrics.render();
        assert!(text.contains("latchkey_usage_rows_dropped_total{resolution=\"minute\"}"));
        assert!(text.contains(&format!("latchkey_usage_rows {rows}\n")), "{text}");
    }

    #[tokio::test]
    async fn readers_see_what_waits_once() {
        let bench = Bench::new();
        bench.shop("one").await;
        requests(&bench, "one", 3);
        let total = |bench: &Bench| {
            let read = |tx: &ReadTx| {
                let steps = (MINUTE, MINUTE + 1);
                tx.usage(&shop("one"), Part::Total, Resolution::Minute, steps)
            };
            let (stored, waits) = bench.node.ledger.read(&bench.node, &shop("one"), read).unwrap();
            let sum = |steps: &Steps| steps.values().map(Counts::total).sum::<u64>();
            (sum(&stored), waits.get(&Part::Total).map_or(0, sum))
        };
        assert_eq!(total(&bench), (0, 3));
        bench.node.ledger.flush(&bench.node).unwrap();
        assert_eq!(total(&bench), (3, 0));
        requests(&bench, "one", 2);
        bench.node.ledger.forget(&shop("one"));
        assert_eq!(total(&bench), (3, 0));
        assert_eq!(bench.node.ledger.lock().counts, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        let one = Counts::one(Outcome::Allowed);
        for n in 0..WAITING_MAX as u64 {
            assert!(waiting.add(shop("one"), Part::Total, n, one));
        }
        assert!(!waiting.add(shop("one"), Part::Total, u64::MAX, one));
        assert!(!waiting.add(shop("two"), Part::Total, 1, one));
        assert!(waiting.add(shop("one"), Part::Total, 1, one));
        waiting.remove_first(1);
        assert_eq!(waiting.counts, 0);
    }

    #[tokio::test]
    async fn deleting_a_shop_forgets_it() {
        let bench = Bench::new();
        bench.shop("one").await;
        requests(&bench, "one", 3);
        bench.node.ledger.flush(&bench.node).unwrap();
        requests(&bench, "one", 3);
        bench.delete("/api/v1/shops/one").await.expect(204);
        bench.shop("one").await;
        bench.node.ledger.flush(&bench.node).unwrap();
        for resolution in Resolution::ALL {
            assert_eq!(stored(&bench, "one", Part::Total, resolution), []);
        }
    }
}
