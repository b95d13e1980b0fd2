//! Whether a busy admin plane moves the data plane: the p99 of requests while 100,000 shops lie in
//! the store and nothing else happens, and while dashboard pages are loaded as fast as they come,
//! a file of 100,000 keys is imported and backups are made, all at once. An interval sees the file
//! read and about half of it applied. Fails when the second is more than a tenth above the first.
//!
//! `cargo bench --bench busy`; another number of shops, and of rounds: `-- 20000 3`; another build
//! of the gateway, to compare: `LATCHKEY_BENCH_BINARY=/usr/bin/latchkey`.
//!
//! * The gateway is the real binary, its store on the disk that holds the temporary folder
//!   (`TMPDIR`).
//! * The load is open: 1,000 requests a second, each sent at its own time whether or not others
//!   were answered, and timed from when it should have been sent, so that a stall counts for
//!   everyone it keeps waiting. 68 of 100 bring an API key (every shop takes its turn), 25 a
//!   widget token, 5 nothing, 2 a key that nobody has. The upstream answers at once.
//! * Quiet and busy intervals alternate, and each busy one is compared with the quiet one before
//!   it: what else happens on the machine comes and goes slower than that. The median of their
//!   ratios counts.
//! * Generator (one thread), upstream (a thread per connection) and gateway share the machine. So
//!   that its figures are the gateway's and not their own, the first two have real-time priority,
//!   and whoever plays an operator's browser runs when nobody else wants to: they would all be
//!   elsewhere. That takes root, or the figures are rough.
//! * A processor that has nothing to do sleeps and takes its time to wake up, so a quiet gateway
//!   may be the slower one. `-- awake` keeps processors awake in quiet intervals, by threads that
//!   give way to everybody: what is left is what sharing them costs. That is told, not bounded.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench reports, and fails by panicking"
)]

mod elsewhere;
#[path = "../filled.rs"]
mod filled;
#[path = "../../tests/support/http.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod http;
mod load;
mod site;
mod work;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::elsewhere::Awake;
use self::load::{Load, Sample};
use self::site::Site;
use self::work::{Done, Work};

/// How much of everything.
struct Size {
    shops: u32,
    /// Shops whose widget tokens call.
    widgets: u32,
    per_second: u32,
    rounds: u32,
    interval: Duration,
}

const FULL: Size = Size {
    shops: 100_000,
    widgets: 250,
    per_second: 1_000,
    rounds: 9,
    interval: Duration::from_secs(8),
};

/// To see that it works: unoptimized, in `cargo test --benches`.
const SMALL: Size = Size {
    shops: 1_000,
    widgets: 20,
    per_second: 100,
    rounds: 1,
    interval: Duration::from_millis(500),
};

/// How much the p99 may move.
const RATIO_MAX: f64 = 1.1;

fn main() -> ExitCode {
    let asks = |what: &str| std::env::args().any(|argument| argument == what);
    let (only_tested, awake) = (!asks("--bench"), asks("awake"));
    let mut size = if only_tested { SMALL } else { FULL };
    let mut asked = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    size.shops = asked.next().unwrap_or(size.shops);
    size.rounds = asked.next().unwrap_or(size.rounds);
    let upstream = load::serve_upstream();
    let site = Site::start(size.shops, upstream);
    let work = Work::prepare(&site, size.shops);
    let requests = load::requests(&site, size.shops, size.widgets);
    println!(
        "{} shops; {} requests a second over {} connections, {} rounds of {} s and {} s",
        size.shops,
        size.per_second,
        load::CONNECTIONS,
        size.rounds,
        size.interval.as_secs_f32(),
        size.interval.as_secs_f32()
    );
    let load = Load::start(site.data, requests, size.per_second);
    sleep(size.interval);
    let mut rounds = Vec::new();
    for _ in 0..size.rounds {
        rounds.push(round(&site, &work, awake, size.interval));
    }
    let samples = load.stop();
    report(&rounds, &samples, !only_tested && !awake)
}

/// From when to when.
type Interval = (Instant, Instant);

/// A quiet interval, and the busy one after it.
struct Round {
    quiet: Interval,
    busy: Interval,
    done: Done,
}

fn round(site: &Site, work: &Work, awake: bool, interval: Duration) -> Round {
    let pass = || {
        let begun = Instant::now();
        sleep(interval);
        (begun, Instant::now())
    };
    let kept = awake.then(Awake::keep);
    let quiet = pass();
    drop(kept);
    let under_way = work.begin(site);
    let busy = pass();
    // What is under way ends in neither interval.
    let done = under_way.finish();
    Round { quiet, busy, done }
}

/// What a quiet or busy interval came to, microseconds.
struct Figures {
    p50: f64,
    p99: f64,
    sent_late_p99: f64,
}

impl Figures {
    fn of(samples: &[Sample], (begun, ended): Interval) -> Self {
        let within = samples.iter().filter(|s| s.due >= begun && s.due < ended);
        let (mut took, mut late): (Vec<Duration>, Vec<Duration>) =
            within.map(|s| (s.took, s.late)).unzip();
        Self {
            p50: percentile(&mut took, 0.5),
            p99: percentile(&mut took, 0.99),
            sent_late_p99: percentile(&mut late, 0.99),
        }
    }
}

fn percentile(times: &mut [Duration], part: f64) -> f64 {
    assert!(!times.is_empty(), "no request in an interval");
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list of some thousand"
    )]
    let at = (times.len() as f64 * part) as usize;
    times[at.min(times.len() - 1)].as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Half a second of a debug build says nothing, and is not bounded.
fn report(rounds: &[Round], samples: &[Sample], is_bounded: bool) -> ExitCode {
    let figures: Vec<(Figures, Figures)> = rounds
        .iter()
        .map(|round| (Figures::of(samples, round.quiet), Figures::of(samples, round.busy)))
        .collect();
    println!("round   quiet p50     p99   late |  busy p50     p99   late |  ratio of p99");
    for (number, (quiet, busy)) in (1..).zip(&figures) {
        println!(
            "{number:>5}   {:>6.0} us {:>4.0} us {:>6.0} | {:>6.0} us {:>4.0} us {:>6.0} | {:>6.3}",
            quiet.p50,
            quiet.p99,
            quiet.sent_late_p99,
            busy.p50,
            busy.p99,
            busy.sent_late_p99,
            busy.p99 / quiet.p99,
        );
    }
    let of = |pick: fn(&(Figures, Figures)) -> f64| median(figures.iter().map(pick).collect());
    println!(
        "median  {:>6.0} us {:>4.0} us        | {:>6.0} us {:>4.0} us",
        of(|(quiet, _)| quiet.p50),
        of(|(quiet, _)| quiet.p99),
        of(|(_, busy)| busy.p50),
        of(|(_, busy)| busy.p99),
    );
    let mut all = Done::default();
    for round in rounds {
        all.add(&round.done);
    }
    println!("meanwhile, in {} busy intervals: {all}", rounds.len());
    let ratio = of(|(quiet, busy)| busy.p99 / quiet.p99);
    println!("p99 busy / p99 quiet: {ratio:.3}, the median of rounds");
    if is_bounded && ratio > RATIO_MAX {
        println!("over the bound, which is {RATIO_MAX}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
