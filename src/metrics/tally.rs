//! Cells that workers count in without meeting one another.
//!
//! A family on the way of a request is kept in shards, each on cache lines of its own; a thread
//! counts in its shard with one relaxed addition, takes no lock and allocates nothing. The shards
//! are added up when the metrics are read, so a reading may catch a sum between two additions.
//!
//! What is counted is the areas' business; all series of a family exist from the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::reading::Distribution;

/// More threads than this share shards, which is slower and no less right.
const SHARDS: usize = 16;

/// Of two cache lines: x86 prefetches them in pairs.
const CELLS_PER_LINE: usize = 16;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; CELLS_PER_LINE]);

/// A row of cells for every shard.
#[derive(Debug)]
struct Cells {
    lines: Box<[Line]>,
    lines_per_shard: usize,
}

impl Cells {
    fn new(count: usize) -> Self {
        let lines_per_shard = count.div_ceil(CELLS_PER_LINE);
        let lines = (0..lines_per_shard * SHARDS).map(|_| Line::default()).collect();
        Self { lines, lines_per_shard }
    }

    fn of_shard(&self, shard: usize, cell: usize) -> Option<&AtomicU64> {
        // Within its own shard's lines, or nowhere.
        let line = Some(cell / CELLS_PER_LINE).filter(|line| *line < self.lines_per_shard)?;
        self.lines.get(shard * self.lines_per_shard + line)?.0.get(cell % CELLS_PER_LINE)
    }

    /// Adds to this thread's shard; wraps, so that a gauge may count down where it did not count
    /// up.
    fn add(&self, cell: usize, n: u64) {
        // A thread that is ending has lost its number; any shard will do.
        let shard = SHARD.try_with(|shard| *shard).unwrap_or_default();
        if let Some(cell) = self.of_shard(shard, cell) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn sum(&self, cell: usize) -> u64 {
        let cells = (0..SHARDS).filter_map(|shard| self.of_shard(shard, cell));
        cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

/// How a family is called, and the labels of each of its series.
#[derive(Debug)]
pub(super) struct Family {
    name: String,
    help: String,
    desc: Desc,
    rows: Vec<Vec<LabelPair>>,
}

impl Family {
    /// A family with one series for each of `rows`, which give `labels` their values.
    pub(super) fn new<const N: usize>(
        name: String,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = [&'static str; N]>,
    ) -> Result<Self, prometheus::Error> {
        let variable = labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(name.clone(), help.to_owned(), variable, [].into())?;
        let rows = rows.into_iter().map(|values| {
            let mut pairs: Vec<LabelPair> =
                labels.iter().zip(values).map(|(name, value)| pair(name, value)).collect();
            pairs.sort_by(|a, b| a.name().cmp(b.name()));
            pairs
        });
        Ok(Self { name, help: help.to_owned(), desc, rows: rows.collect() })
    }

    fn gather(
        &self,
        kind: MetricType,
        fill: impl Fn(usize, &mut proto::Metric),
    ) -> Vec<MetricFamily> {
        let metrics = self.rows.iter().enumerate().map(|(row, labels)| {
            let mut metric = proto::Metric::from_label(labels.clone());
            fill(row, &mut metric);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.name.clone());
        family.set_help(self.help.clone());
        family.set_field_type(kind);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// The counters of a family, by the number of their row.
#[derive(Debug, Clone)]
pub(super) struct Tally(Arc<Series>);

/// A gauge that goes up and down with what is held.
#[derive(Debug, Clone)]
pub(super) struct Level(Arc<Series>);

#[derive(Debug)]
struct Series {
    family: Family,
    cells: Cells,
}

impl Series {
    fn new(family: Family) -> Arc<Self> {
        let cells = Cells::new(family.rows.len());
        Arc::new(Self { family, cells })
    }
}

impl Tally {
    pub(super) fn new(family: Family) -> Self {
        Self(Series::new(family))
    }

    /// Counts one more of `row`; one that does not exist counts nowhere.
    pub(super) fn inc(&self, row: usize) {
        self.add(row, 1);
    }

    /// What `row` stands at.
    pub(super) fn read(&self, row: usize) -> u64 {
        self.0.cells.sum(row)
    }

    /// Counts `n` more of `row`.
    pub(super) fn add(&self, row: usize, n: u64) {
        self.0.cells.add(row, n);
    }
}

impl Collector for Tally {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.family.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.family.gather(MetricType::COUNTER, |row, metric| {
            let mut counter = proto::Counter::default();
            counter.set_value(float(self.0.cells.sum(row)));
            metric.set_counter(counter);
        })
    }
}

impl Level {
    pub(super) fn new(family: Family) -> Self {
        Self(Series::new(family))
    }

    /// Holds the gauge of `row` up by one until the result is dropped.
    pub(super) fn hold(&self, row: usize) -> Held {
        self.0.cells.add(row, 1);
        Held { series: Arc::clone(&self.0), row }
    }
}

impl Collector for Level {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.family.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.family.gather(MetricType::GAUGE, |row, metric| {
            let mut gauge = proto::Gauge::default();
            // Ups and downs of different shards may be read apart: never below zero.
            let level = u64::try_from(self.0.cells.sum(row).cast_signed()).unwrap_or_default();
            gauge.set_value(float(level));
            metric.set_gauge(gauge);
        })
    }
}

/// Holds a gauge up by one until it is dropped.
#[derive(Debug)]
pub struct Held {
    series: Arc<Series>,
    row: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.series.cells.add(self.row, 1u64.wrapping_neg());
    }
}

/// The histograms of a family, of durations, by the number of their row.
#[derive(Debug, Clone)]
pub(super) struct Times(Arc<TimesInner>);

#[derive(Debug)]
struct TimesInner {
    family: Family,
    /// The buckets' upper bounds, ascending.
    bounds: Box<[Duration]>,
    /// For each row: its buckets, the one without a bound, and the sum in nanoseconds.
    cells: Cells,
}

impl Times {
    pub(super) fn new(family: Family, bounds_ns: &[u64]) -> Self {
        let bounds: Box<[Duration]> = bounds_ns.iter().copied().map(Duration::from_nanos).collect();
        let cells = Cells::new(family.rows.len() * (bounds.len() + 2));
        Self(Arc::new(TimesInner { family, bounds, cells }))
    }

    /// Counts a duration under `row`. Returns the number of its bucket among those of the row,
    /// of which there is one more than bounds.
    pub(super) fn observe(&self, row: usize, took: Duration) -> usize {
        let TimesInner { bounds, cells, .. } = &*self.0;
        let first = row * (bounds.len() + 2);
        let bucket = bounds.partition_point(|bound| *bound < took);
        cells.add(first + bucket, 1);
        cells.add(first + bounds.len() + 1, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        bucket
    }

    /// What was counted under `row`.
    pub(super) fn read(&self, row: usize) -> Distribution {
        let TimesInner { bounds, cells, .. } = &*self.0;
        let first = row * (bounds.len() + 2);
        Distribution {
            bounds: bounds.iter().map(Duration::as_secs_f64).collect(),
            counts: (0..=bounds.len()).map(|bucket| cells.sum(first + bucket)).collect(),
        }
    }
}

impl Collector for Times {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.family.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let TimesInner { family, bounds, cells } = &*self.0;
        family.gather(MetricType::HISTOGRAM, |row, metric| {
            let first = row * (bounds.len() + 2);
            let mut count = 0;
            let buckets = bounds.iter().enumerate().map(|(i, bound)| {
                count += cells.sum(first + i);
                let mut bucket = proto::Bucket::default();
                bucket.set_cumulative_count(count);
                bucket.set_upper_bound(bound.as_secs_f64());
                bucket
            });
            let buckets = buckets.collect();
            let mut histogram = proto::Histogram::default();
            histogram.set_sample_count(count + cells.sum(first + bounds.len()));
            let sum = Duration::from_nanos(cells.sum(first + bounds.len() + 1));
            histogram.set_sample_sum(sum.as_secs_f64());
            histogram.set_bucket(buckets);
            metric.set_histogram(histogram);
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "the text format knows nothing but floats")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(rows: usize) -> Family {
        let rows = ["a", "b", "c"].into_iter().take(rows).map(|value| [value]);
        Family::new("latchkey_x".into(), "X.", ["of"], rows).unwrap()
    }

    #[test]
    fn what_many_threads_count_adds_up() {
        let (tally, level) = (Tally::new(family(3)), Level::new(family(3)));
        let times = Times::new(family(2), &[10, 100]);
        let held: Vec<Held> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..SHARDS + 3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            tally.inc(2);
                            drop(level.hold(1));
                            times.observe(1, Duration::from_nanos(100));
                            times.observe(1, Duration::from_nanos(101));
                        }
                        level.hold(1)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let threads = held.len() as u64;
        let metrics = |collector: &dyn Collector| collector.collect().remove(0).take_metric();
        assert!((metrics(&tally)[2].get_counter().get_value() - 1e3 * float(threads)).abs() < 0.1);
        assert!(metrics(&tally)[0].get_counter().get_value().abs() < 0.1);
        assert!((metrics(&level)[1].get_gauge().get_value() - float(threads)).abs() < 0.1);
        // Dropped on another thread than the one that made them.
        drop(held);
        assert!(metrics(&level)[1].get_gauge().get_value().abs() < 0.1);
        let times = metrics(&times);
        let histogram = times[1].get_histogram();
        assert_eq!(histogram.get_sample_count(), 2000 * threads);
        let counts: Vec<u64> =
            histogram.get_bucket().iter().map(proto::Bucket::cumulative_count).collect();
        assert_eq!(counts, [0, 1000 * threads]);
        assert!((histogram.get_sample_sum() - 201e-6 * float(threads)).abs() < 1e-9);
    }

    #[test]
    fn a_row_that_does_not_exist_counts_nowhere() {
        let tally = Tally::new(family(3));
        tally.inc(CELLS_PER_LINE);
        tally.inc(usize::MAX);
        for metric in tally.collect()[0].get_metric() {
            assert!(metric.get_counter().get_value().abs() < 0.1);
        }
    }
}
