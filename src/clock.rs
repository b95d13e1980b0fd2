//! Time as an argument: the only file that reads a clock.
//!
//! Everything that depends on time takes a [`Now`]; tests hand it one from a [`ManualClock`].
//! Limits run on the monotonic half, so that a step of the wall clock neither frees nor blocks a
//! caller; expiry runs on the wall half, because that is what a token's `exp` speaks of.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// A point of wall-clock time: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last representable point; nothing is later.
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// From seconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_unix_s(s: u64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Parses an RFC 3339 date-time; `None` if it is not one or lies before 1970.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let ms = parsed.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).ok().map(Self)
    }

    /// Parses the date of an HTTP header field (RFC 9110 §5.6.7); `None` if it is not one or lies
    /// before 1970.
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        u64::try_from(parsed.unix_timestamp()).ok().map(Self::from_unix_s)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturating: a time past the end of time is the end of time.
    fn add(self, rhs: Duration) -> Self {
        let ms = u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Saturating at the Unix epoch.
    fn sub(self, rhs: Duration) -> Self {
        let ms = u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(ms))
    }
}

/// RFC 3339 in UTC with whole seconds, as people and JSON read it.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.unix_s()).unwrap_or(i64::MAX);
        match OffsetDateTime::from_unix_timestamp(seconds).map(|at| at.format(&Rfc3339)) {
            Ok(Ok(text)) => f.pad(&text),
            Ok(Err(_)) | Err(_) => f.pad("never"),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse_rfc3339(&text)
            .ok_or_else(|| serde::de::Error::custom("not an RFC 3339 date-time after 1970"))
    }
}

/// A point of monotonic time: nanoseconds since the clock was made, enough for 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// From microseconds since the clock was made.
    #[must_use]
    pub const fn from_us(us: u64) -> Self {
        Self(us.saturating_mul(1000))
    }

    /// Whole microseconds since the clock was made.
    #[must_use]
    pub const fn us(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall-clock time, for expiry.
    pub unix: Timestamp,
    /// Monotonic time, for limits and durations.
    pub mono: Monotonic,
}

/// Since the machine was started, as service managers count it; for nothing else.
#[must_use]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(time).unwrap_or_default()
}

/// Where time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic half starts now.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "reading the clock is not a default")]
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads time")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads time")]
    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mono = self.started.elapsed();
        Now {
            unix: Timestamp(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)),
            mono: Monotonic(u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}

/// A clock that moves only when told to, for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
    unix_ms: AtomicU64,
    mono_us: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `unix`.
    #[must_use]
    pub fn at(unix: Timestamp) -> Self {
        Self { unix_ms: AtomicU64::new(unix.0), mono_us: AtomicU64::new(0) }
    }

    /// Moves both halves forward.
    pub fn advance(&self, by: Duration) {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.mono_us.fetch_add(us, Ordering::Relaxed);
        self.unix_ms.fetch_add(us / 1000, Ordering::Relaxed);
    }

    /// Steps the wall half to `unix`, as an administrator or NTP would; the monotonic half stays.
    pub fn step_to(&self, unix: Timestamp) {
        self.unix_ms.store(unix.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        Now {
            unix: Timestamp(self.unix_ms.load(Ordering::Relaxed)),
            mono: Monotonic::from_us(self.mono_us.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trip() {
        let at = Timestamp::from_unix_s(1_700_000_000);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::parse_rfc3339(&at.to_string()), Some(at));
        assert_eq!(Timestamp::parse_rfc3339("1969-12-31T23:59:59Z"), None);
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
        assert_eq!(Timestamp::MAX.to_string(), "never");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::default() - Duration::from_secs(1), Timestamp::default());
        assert_eq!(Timestamp::from_unix_s(1).since(Timestamp::from_unix_s(5)), Duration::ZERO);
    }
}
