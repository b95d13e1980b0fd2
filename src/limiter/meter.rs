//! The arithmetic of quotas on one 56-bit word: pure functions of word, quota and time.
//!
//! Knows nothing of cells or threads. A word means one of two things:
//!
//! * **Token bucket** (GCRA): the theoretical arrival time (TAT) in units of 1/16 µs. Two to the
//!   56 units are 142 years. The emission interval `window / limit` is rarely a whole number of
//!   units, and rounding it would shift the rate (at 200,000 a second by a percent), so times are
//!   read as positions on a lattice: charge `n` lies at `floor(n × window / limit)` units plus a
//!   remainder smaller than every gap. To charge is to add to `n`, to refund is to subtract, both
//!   exactly: `limit` charges always move the TAT by exactly one window.
//! * **Sliding window**: window number modulo 2²⁰, units in this window, units in the one before,
//!   18 bits each. A word not touched for 2²⁰ windows (12 days at one second) could be taken for
//!   a recent one when its caller comes back in that very window; the sweep that counts live
//!   cells for the metrics clears expired words long before.
//!
//! A word that has run out (`!live`) and a fresh one mean the same: the whole quota is there.

use crate::clock::Monotonic;
use crate::decision::rate_limit::{Algorithm, Charge, Quota, Standing};

/// The bits a meter may use.
pub(super) const WORD_MASK: u64 = (1 << 56) - 1;

/// Units of a TAT in a microsecond.
const UNITS_PER_US: u64 = 16;
/// A bucket refills in at most this many units (35 years); a larger burst is cut to it.
const REFILL_MAX: u64 = 1 << 54;
/// Time stands still after 107 years of uptime, so that a TAT always fits.
const NOW_MAX: u64 = WORD_MASK - REFILL_MAX - LEAD_MAX;
/// How far another thread's clock reading may be ahead of ours: 67 s. A TAT further out than the
/// quota and this allow was not written for this quota.
const LEAD_MAX: u64 = 1 << 30;

const INDEX_MASK: u64 = (1 << 20) - 1;
const COUNT_MASK: u64 = (1 << 18) - 1;
/// How many windows another thread's clock reading may be ahead of ours.
const WINDOWS_AHEAD_MAX: u64 = 64;
const WINDOW_US_MAX: u64 = 31 * 24 * 3600 * US_PER_S;
const US_PER_S: u64 = 1_000_000;

/// What came of holding a charge against a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Where the caller stands afterwards.
    pub(super) standing: Standing,
    /// The word to write; `None` when the charge is refused.
    pub(super) next: Option<u64>,
}

impl Step {
    fn refused(reset_us: u64) -> Self {
        let standing = Standing { remaining: 0, reset_us, exceeded: true };
        Self { standing, next: None }
    }

    fn passed(next: u64, remaining: u64, reset_us: u64) -> Self {
        let standing = Standing {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_us,
            exceeded: false,
        };
        Self { standing, next: Some(next) }
    }
}

/// One charge at one time, ready to be held against a word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meter {
    Bucket(Bucket),
    Window(Window),
}

impl Meter {
    /// The meter of `charge` at `now`.
    pub(super) fn of(charge: &Charge, now: Monotonic) -> Self {
        match charge.algorithm {
            Algorithm::TokenBucket => {
                Self::Bucket(Bucket::new(charge, charge.quota.burst.get(), now))
            }
            Algorithm::SlidingWindow => Self::Window(Window::new(charge, now)),
        }
    }

    /// The meter of `charge` on a word that callers with different quotas share. A TAT means the
    /// same under every quota, a window's counts do not, so it is a token bucket always; one that
    /// stands for a sliding window allows its limit at once.
    pub(super) fn shared(charge: &Charge, now: Monotonic) -> Self {
        let burst = match charge.algorithm {
            Algorithm::TokenBucket => charge.quota.burst,
            Algorithm::SlidingWindow => charge.quota.limit,
        };
        Self::Bucket(Bucket::new(charge, burst.get(), now))
    }

    /// Whether the charge exceeds even a whole quota.
    pub(super) fn is_hopeless(&self) -> bool {
        match self {
            Self::Bucket(bucket) => bucket.cost > bucket.burst,
            Self::Window(window) => window.cost > window.limit,
        }
    }

    /// Whether this quota can have written `word`.
    pub(super) fn may_have_written(&self, word: u64) -> bool {
        match self {
            Self::Bucket(bucket) => word <= bucket.units(bucket.full()) + LEAD_MAX,
            Self::Window(window) => {
                let (_, current, previous) = unpack(word);
                current <= window.limit && previous <= window.limit
            }
        }
    }

    /// Holds the charge against `word`.
    pub(super) fn step(&self, word: u64) -> Step {
        if self.is_hopeless() {
            return Step::refused(u64::MAX);
        }
        match self {
            Self::Bucket(bucket) => bucket.step(word),
            Self::Window(window) => window.step(word),
        }
    }

    /// `word` without this charge, which was made at the same `now`.
    pub(super) fn refund(&self, word: u64) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket.refund(word),
            Self::Window(window) => window.refund(word),
        }
    }
}

/// Whether something of the quota behind `word` is still spent at `now`. `window_s` is the
/// sliding window's length in seconds, zero for a token bucket.
pub(super) fn live(word: u64, window_s: u64, now: Monotonic) -> bool {
    if window_s == 0 {
        return word > units_of(now);
    }
    let (index, current, previous) = unpack(word);
    match distance(now.us() / (window_s * US_PER_S), index) {
        Distance::Ahead(_) | Distance::Same => current + previous > 0,
        Distance::Next => current > 0,
        Distance::Past => false,
    }
}

/// The seconds that a sliding window of this quota lasts: whole ones, as announced in `w` of
/// `RateLimit-Policy`.
pub(super) fn window_s(quota: &Quota) -> u64 {
    quota.window_us.get().min(WINDOW_US_MAX).div_ceil(US_PER_S)
}

fn units_of(now: Monotonic) -> u64 {
    now.us().saturating_mul(UNITS_PER_US).min(NOW_MAX)
}

/// A place on the lattice of charges: charge number and remainder. Ordered like time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    charge: u64,
    rest: u64,
}

impl Place {
    fn plus(self, units: u64) -> Self {
        Self { charge: self.charge + units, rest: self.rest }
    }

    fn minus(self, units: u64) -> Self {
        Self { charge: self.charge.saturating_sub(units), rest: self.rest }
    }
}

/// GCRA for one quota and charge at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// The window, in units. Times `limit` it stays below 2⁶⁴, which all of this rests on.
    window: u64,
    limit: u64,
    /// The smallest emission interval, in units.
    gap: u64,
    burst: u64,
    cost: u64,
    now_units: u64,
    now: Place,
}

impl Bucket {
    fn new(charge: &Charge, burst: u32, now: Monotonic) -> Self {
        let window_us = charge.quota.window_us.get();
        let window = window_us.clamp(US_PER_S, WINDOW_US_MAX) * UNITS_PER_US;
        let limit = u64::from(charge.quota.limit.get().min(Quota::LIMIT_MAX));
        let burst = u64::from(burst.min(Quota::LIMIT_MAX));
        let mut bucket = Self {
            window,
            limit,
            gap: window / limit,
            burst: burst.min(REFILL_MAX / window * limit),
            cost: u64::from(charge.cost.get()),
            now_units: units_of(now),
            now: Place { charge: 0, rest: 0 },
        };
        bucket.now = bucket.place(bucket.now_units);
        bucket
    }

    /// The place at `units`; a time whose remainder is not smaller than every gap counts as the
    /// next charge's, 1/16 µs later.
    fn place(&self, units: u64) -> Place {
        let (windows, within) = (units / self.window, units % self.window);
        let charge = ((within + 1) * self.limit).div_ceil(self.window) - 1;
        let rest = within - charge * self.window / self.limit;
        let charge = windows * self.limit + charge;
        if rest < self.gap { Place { charge, rest } } else { Place { charge: charge + 1, rest: 0 } }
    }

    fn units(&self, place: Place) -> u64 {
        let (windows, within) = (place.charge / self.limit, place.charge % self.limit);
        windows * self.window + within * self.window / self.limit + place.rest
    }

    /// The place a TAT may not pass.
    fn full(&self) -> Place {
        self.now.plus(self.burst)
    }

    fn wait_us(&self, until: Place) -> u64 {
        let units = self.units(until).saturating_sub(self.now_units);
        units.div_ceil(UNITS_PER_US)
    }

    fn step(&self, tat: u64) -> Step {
        let tat = self.place(tat).max(self.now);
        let (after, full) = (tat.plus(self.cost), self.full());
        if after > full {
            return Step::refused(self.wait_us(tat.minus(self.burst - self.cost)));
        }
        let whole = full.charge - after.charge;
        let remaining = whole.saturating_sub(u64::from(after.rest > full.rest));
        Step::passed(self.units(after), remaining, self.wait_us(after))
    }

    fn refund(&self, tat: u64) -> u64 {
        self.units(self.place(tat).minus(self.cost))
    }
}

/// The sliding window for one quota and charge at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    length_us: u64,
    limit: u64,
    cost: u64,
    index: u64,
    elapsed_us: u64,
}

/// How a word's window lies to the present one.
enum Distance {
    /// That many windows later: another thread read its clock after us.
    Ahead(u64),
    Same,
    /// The present one is the next.
    Next,
    Past,
}

fn distance(present: u64, index: u64) -> Distance {
    match present.wrapping_sub(index) & INDEX_MASK {
        0 => Distance::Same,
        1 => Distance::Next,
        past if past > INDEX_MASK - WINDOWS_AHEAD_MAX => Distance::Ahead(INDEX_MASK + 1 - past),
        _ => Distance::Past,
    }
}

fn unpack(word: u64) -> (u64, u64, u64) {
    (word >> 36 & INDEX_MASK, word >> 18 & COUNT_MASK, word & COUNT_MASK)
}

fn pack(index: u64, current: u64, previous: u64) -> u64 {
    (index & INDEX_MASK) << 36 | (current & COUNT_MASK) << 18 | (previous & COUNT_MASK)
}

impl Window {
    fn new(charge: &Charge, now: Monotonic) -> Self {
        let length_us = window_s(&charge.quota) * US_PER_S;
        Self {
            length_us,
            limit: u64::from(charge.quota.limit.get().min(Quota::LIMIT_MAX)),
            cost: u64::from(charge.cost.get()),
            index: now.us() / length_us,
            elapsed_us: now.us() % length_us,
        }
    }

    fn step(&self, word: u64) -> Step {
        let (index, current, previous) = unpack(word);
        if current + previous == 0 {
            // Fresh; its window number says nothing.
            return self.hold(0, 0);
        }
        match distance(self.index, index) {
            Distance::Same => self.hold(current, previous),
            Distance::Next => self.hold(0, current),
            Distance::Past => self.hold(0, 0),
            Distance::Ahead(windows) => {
                // Time never runs back for a cell: for it, now is the start of its window.
                let start = Self { index: self.index + windows, elapsed_us: 0, ..*self };
                let mut step = start.hold(current, previous);
                let ahead_us = windows * self.length_us - self.elapsed_us;
                step.standing.reset_us = step.standing.reset_us.saturating_add(ahead_us);
                step
            }
        }
    }

    /// Counts `previous` by the part of its window that the sliding one still covers. Everything
    /// is multiplied by the window's length, so nothing is rounded.
    fn hold(&self, current: u64, previous: u64) -> Step {
        let rest_us = self.length_us - self.elapsed_us;
        let after = current + self.cost;
        let spent = previous * rest_us + after * self.length_us;
        let Some(left) = (self.limit * self.length_us).checked_sub(spent) else {
            return Step::refused(self.wait_us(current, previous));
        };
        let next = pack(self.index, after, previous);
        Step::passed(next, left / self.length_us, rest_us + self.length_us)
    }

    /// The smallest wait after which the charge passes: in this window when enough of the
    /// previous one has slid out, else in the next, where this one slides out.
    fn wait_us(&self, current: u64, previous: u64) -> u64 {
        let rest_us = self.length_us - self.elapsed_us;
        match self.limit.checked_sub(current + self.cost) {
            Some(room) => rest_us.saturating_sub(self.coverable_us(room, previous)),
            None => rest_us + self.length_us - self.coverable_us(self.limit - self.cost, current),
        }
    }

    /// The longest rest of a window with `count` units that costs at most `room` units.
    fn coverable_us(&self, room: u64, count: u64) -> u64 {
        (room * self.length_us / count.max(1)).min(self.length_us)
    }

    fn refund(&self, word: u64) -> u64 {
        let (index, current, previous) = unpack(word);
        match distance(self.index, index) {
            Distance::Same => pack(index, current.saturating_sub(self.cost), previous),
            // Meanwhile the window has ended.
            Distance::Ahead(1) => pack(index, current, previous.saturating_sub(self.cost)),
            Distance::Ahead(_) | Distance::Next | Distance::Past => word,
        }
    }
}
