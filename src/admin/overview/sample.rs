//! Readings of the metrics, turned into points.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{CodeSeries, FINE_STEP, Overview, Present, Quantiles, Requests, Span, StoreSeries};
use crate::clock::{Monotonic, Now};
use crate::decision::denial::Code;
use crate::metrics::{Distribution, Metrics, Reading};

/// Points of a quarter of an hour.
const FINE_MAX: usize = 180;

/// Points of a day.
const COARSE_MAX: usize = 1440;

/// Seconds of a coarse step.
const COARSE_S: f64 = 60.0;

/// How much of a step may be missing for it to count as over: timers are not exact.
const SLACK_S: f64 = 0.5;

/// Samples the metrics and keeps what they said.
#[derive(Debug, Default)]
pub struct Sampler(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fine: VecDeque<Point>,
    coarse: VecDeque<Point>,
    /// The readings that the next points are measured from.
    fine_from: Option<(Monotonic, Reading)>,
    coarse_from: Option<(Monotonic, Reading)>,
    cells_live: usize,
}

/// One step. Small, because there are many: `f32` holds seven digits, a plot shows three.
#[derive(Debug, Clone)]
struct Point {
    at_s: u64,
    seconds: f32,
    outcomes: [u32; 4],
    codes: [u32; Code::ALL.len()],
    latency: [f32; 3],
    decision: [f32; 3],
    commit: [f32; 3],
    commits: u32,
    store_errors: u32,
    limiter_fill: f32,
}

/// What [`Quantiles`] names.
const QUANTILES: [f64; 3] = [0.50, 0.95, 0.99];

impl Sampler {
    /// Takes a sample; to be called every [`FINE_STEP`]. `cells` are the limiter's, and of those
    /// the ones in use.
    pub fn sample(&self, metrics: &Metrics, now: Now, cells: usize, cells_live: usize) {
        let reading = metrics.read();
        let fill = share(cells_live, cells);
        let mut state = self.lock();
        state.cells_live = cells_live;
        let State { fine, coarse, fine_from, coarse_from, .. } = &mut *state;
        step(fine, FINE_MAX, fine_from, FINE_STEP.as_secs_f64(), now, &reading, fill);
        step(coarse, COARSE_MAX, coarse_from, COARSE_S, now, &reading, fill);
    }

    /// What there is of `span`. `present` is told how many cells of the limiter are in use.
    #[must_use]
    pub fn read(&self, span: Span, now: Now, present: impl FnOnce(usize) -> Present) -> Overview {
        let state = self.lock();
        let points = match span {
            Span::QuarterHour => &state.fine,
            Span::Day => &state.coarse,
        };
        let points: Vec<Point> = points.iter().cloned().collect();
        let cells_live = state.cells_live;
        drop(state);
        overview(span, now, &points, present(cells_live))
    }

    /// A panic under the lock leaves at worst one point too few.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a point if a step of `seconds` is over since the reading before.
fn step(
    points: &mut VecDeque<Point>,
    points_max: usize,
    from: &mut Option<(Monotonic, Reading)>,
    seconds: f64,
    now: Now,
    reading: &Reading,
    limiter_fill: f32,
) {
    let Some((since, before)) = from else {
        *from = Some((now.mono, reading.clone()));
        return;
    };
    let elapsed = now.mono.since(*since).as_secs_f64();
    if elapsed + SLACK_S < seconds {
        return;
    }
    let point = Point::between(before, reading, now, elapsed, limiter_fill);
    if points.len() >= points_max {
        points.pop_front();
    }
    // Plots need ascending times: after a step back of the clock, what lies ahead of it goes.
    while points.back().is_some_and(|last| last.at_s >= point.at_s) {
        points.pop_back();
    }
    points.push_back(point);
    *from = Some((now.mono, reading.clone()));
}

impl Point {
    fn between(before: &Reading, after: &Reading, now: Now, elapsed: f64, fill: f32) -> Self {
        let difference = |after: u64, before: u64| {
            u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX)
        };
        let all = |after: &[u64], before: &[u64], to: &mut [u32]| {
            for (to, (after, before)) in to.iter_mut().zip(after.iter().zip(before)) {
                *to = difference(*after, *before);
            }
        };
        let mut outcomes = [0; 4];
        all(&after.outcomes, &before.outcomes, &mut outcomes);
        let mut codes = [0; Code::ALL.len()];
        all(&after.codes, &before.codes, &mut codes);
        let commits = after.commits.since(&before.commits);
        Self {
            at_s: now.unix.unix_s(),
            seconds: narrow(elapsed),
            outcomes,
            codes,
            latency: quantiles(&after.requests.since(&before.requests), 1e3),
            decision: quantiles(&after.decisions.since(&before.decisions), 1e6),
            commit: quantiles(&commits, 1e3),
            commits: difference(commits.count(), 0),
            store_errors: difference(after.store_errors, before.store_errors),
            limiter_fill: fill,
        }
    }
}

fn overview(span: Span, now: Now, points: &[Point], now_is: Present) -> Overview {
    let rate = |of: fn(&Point) -> u32| points.iter().map(|p| per_second(of(p), p)).collect();
    let quantiles = |of: fn(&Point) -> &[f32; 3]| {
        let mut series = Quantiles::default();
        for point in points {
            let [p50, p95, p99] = of(point).map(|value| (!value.is_nan()).then(|| round(value)));
            series.p50.push(p50);
            series.p95.push(p95);
            series.p99.push(p99);
        }
        series
    };
    Overview {
        at: now.unix,
        span: span.as_str(),
        step_seconds: span.step_s(),
        times: points.iter().map(|point| point.at_s).collect(),
        requests: Requests {
            allowed: rate(|p| p.outcomes[0]),
            refused: rate(|p| p.outcomes[1]),
            error: rate(|p| p.outcomes[2]),
            abandoned: rate(|p| p.outcomes[3]),
        },
        latency_ms: quantiles(|p| &p.latency),
        decision_us: quantiles(|p| &p.decision),
        refusals: refusals(points),
        limiter_fill: points.iter().map(|point| round(point.limiter_fill)).collect(),
        store: StoreSeries {
            commits: rate(|p| p.commits),
            commit_ms: quantiles(|p| &p.commit),
            errors: points.iter().map(|point| u64::from(point.store_errors)).collect(),
        },
        now: now_is,
    }
}

fn refusals(points: &[Point]) -> Vec<CodeSeries> {
    let series = Code::ALL.iter().enumerate().map(|(column, code)| {
        let count = |point: &Point| point.codes.get(column).copied().unwrap_or_default();
        CodeSeries {
            code: code.as_str(),
            total: points.iter().map(|point| u64::from(count(point))).sum(),
            per_second: points.iter().map(|point| per_second(count(point), point)).collect(),
        }
    });
    let mut series: Vec<CodeSeries> = series.filter(|series| series.total > 0).collect();
    series.sort_by(|a, b| b.total.cmp(&a.total).then(a.code.cmp(b.code)));
    series
}

fn quantiles(of: &Distribution, unit: f64) -> [f32; 3] {
    QUANTILES.map(|quantile| of.quantile(quantile).map_or(f32::NAN, |s| narrow(s * unit)))
}

fn per_second(count: u32, point: &Point) -> f64 {
    if point.seconds > 0.0 {
        let rate = f64::from(count) / f64::from(point.seconds);
        (rate * 1000.0).round() / 1000.0
    } else {
        0.0
    }
}

/// To six decimals: `f32` has no more, and JSON would print the noise.
fn round(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

#[expect(clippy::cast_possible_truncation, reason = "seven digits are enough to draw")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[expect(clippy::cast_precision_loss, reason = "a share of it is wanted")]
fn share(of: usize, all: usize) -> f32 {
    if all == 0 { 0.0 } else { (of as f32 / all as f32).min(1.0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};
    use crate::decision::principal::Mechanism;
    use crate::metrics::{Ended, Example, Protocol};

    fn present(cells_live: usize) -> Present {
        Present {
            shops: 0,
            api_keys: 0,
            store_writable: true,
            limiter_cells: 8,
            limiter_cells_live: cells_live,
            issuers: Vec::new(),
        }
    }

    struct Bench {
        sampler: Sampler,
        metrics: Metrics,
        clock: ManualClock,
    }

    impl Bench {
        fn new() -> Self {
            let clock = ManualClock::at(Timestamp::from_unix_s(1_800_000_000));
            let metrics = Metrics::new("0").unwrap();
            let bench = Self { sampler: Sampler::default(), metrics, clock };
            bench.sample();
            bench
        }

        fn sample(&self) {
            self.sampler.sample(&self.metrics, self.clock.now(), 8, 2);
        }

        fn requests(&self, count: u64, ms: u64) {
            for _ in 0..count {
                let took = Duration::from_millis(ms);
                let (protocol, status) = (Protocol::Http11, Some(200));
                let ended = Ended { protocol, status, code: None, took, bytes: 0, cut: None };
                let at = self.clock.now().unix;
                self.metrics.request_ended(&ended, Example { request_id: "a", at });
            }
        }

        fn tick(&self) {
            self.clock.advance(FINE_STEP);
            self.sample();
        }

        fn read(&self, span: Span) -> Overview {
            self.sampler.read(span, self.clock.now(), present)
        }
    }

    #[track_caller]
    fn near(values: &[f64], expected: &[f64]) {
        assert_eq!(values.len(), expected.len(), "{values:?}");
        let near = values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(near, "{values:?} is not {expected:?}");
    }

    #[test]
    fn points_are_differences() {
        let bench = Bench::new();
        assert!(bench.read(Span::QuarterHour).times.is_empty());
        bench.requests(50, 3);
        bench.metrics.decision(Some(Mechanism::Jwt), Some(Code::RateLimited));
        bench.metrics.store_commit_duration(Duration::from_millis(3));
        bench.tick();
        bench.tick();
        bench.requests(5, 300);
        bench.metrics.store_error();
        bench.tick();
        let overview = bench.read(Span::QuarterHour);
        assert_eq!(overview.times, [1_800_000_005, 1_800_000_010, 1_800_000_015]);
        near(&overview.requests.allowed, &[10.0, 0.0, 1.0]);
        near(&overview.requests.refused, &[0.0; 3]);
        near(&overview.limiter_fill, &[0.25; 3]);
        assert_eq!(overview.store.errors, [0, 0, 1]);
        near(&overview.store.commits, &[0.2, 0.0, 0.0]);
        assert_eq!(overview.refusals.len(), 1);
        assert_eq!((overview.refusals[0].code, overview.refusals[0].total), ("rate_limited", 1));
        let latency = &overview.latency_ms;
        assert!(latency.p50[0].is_some_and(|ms| (1.0..=5.0).contains(&ms)), "{latency:?}");
        assert_eq!((latency.p50[1], latency.p99[1]), (None, None));
        assert!(latency.p99[2].is_some_and(|ms| (250.0..=500.0).contains(&ms)), "{latency:?}");
        assert_eq!(overview.now.limiter_cells_live, 2);
    }

    #[test]
    fn rings_are_bounded_and_minutes_sum_up() {
        let bench = Bench::new();
        for _ in 0..2 * 12 * 60 {
            bench.requests(5, 1);
            bench.tick();
        }
        let (fine, coarse) = (bench.read(Span::QuarterHour), bench.read(Span::Day));
        assert_eq!((fine.times.len(), coarse.times.len()), (FINE_MAX, 120));
        near(&fine.requests.allowed, &[1.0; FINE_MAX]);
        near(&coarse.requests.allowed, &[1.0; 120]);
        assert!(coarse.times.windows(2).all(|pair| pair[1] - pair[0] == 60));
        let state = bench.sampler.lock();
        assert!(state.fine.capacity() <= 2 * FINE_MAX);
    }

    #[test]
    fn times_ascend_even_when_the_clock_is_set_back() {
        let bench = Bench::new();
        (0..10).for_each(|_| bench.tick());
        bench.clock.step_to(Timestamp::from_unix_s(1_800_000_020));
        bench.tick();
        let times = bench.read(Span::QuarterHour).times;
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        assert_eq!(times.last(), Some(&1_800_000_025));
    }
}
