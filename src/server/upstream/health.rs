//! Whether an endpoint is fit for requests, as all workers know it: atomics, read by every one of
//! them without waiting.
//!
//! Says nothing of connections; who counts what as a failure is the pool's and the probe's.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::config::EjectionConfig;

/// The longest time out of service, in units of the configured one.
const TIMES_MAX: u32 = 10;

/// What is known of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// In a row.
    failures: AtomicU32,
    /// Zero when it is in service.
    ejected_until_us: AtomicU64,
    /// Ejections since it last answered.
    ejections: AtomicU32,
    /// Its probes fail.
    unhealthy: AtomicBool,
}

/// How an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// Fit for requests.
    Healthy,
    /// Left out for its failures, for some time.
    Ejected,
    /// Left out until its probes succeed.
    Unhealthy,
}

impl Health {
    /// How it is; reads the clock only when that matters.
    pub(super) fn fitness(&self, now: impl FnOnce() -> Monotonic) -> Fitness {
        if self.unhealthy.load(Ordering::Relaxed) {
            return Fitness::Unhealthy;
        }
        let until = self.ejected_until_us.load(Ordering::Relaxed);
        if until != 0 && now().us() < until { Fitness::Ejected } else { Fitness::Healthy }
    }

    /// It answered: whatever it was left out for is over.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
            self.ejected_until_us.store(0, Ordering::Relaxed);
        }
    }

    /// It failed. Returns for how long it is left out, if it is from now on. One that comes back
    /// has to answer first: until then a single further failure ejects it again, for longer.
    pub(super) fn failed(&self, config: &EjectionConfig, now: Monotonic) -> Option<Duration> {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if failures < config.failures.get() {
            return None;
        }
        let until = self.ejected_until_us.load(Ordering::Relaxed);
        if now.us() < until {
            return None;
        }
        let repeat = self.ejections.load(Ordering::Relaxed);
        let times = 1u32.checked_shl(repeat).unwrap_or(TIMES_MAX).min(TIMES_MAX);
        let time = config.time.saturating_mul(times);
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let new = now.us().saturating_add(time_us).max(1);
        // Another worker that sees the same failures ejects it once only.
        self.ejected_until_us
            .compare_exchange(until, new, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        self.ejections.store(repeat.saturating_add(1).min(31), Ordering::Relaxed);
        Some(time)
    }

    /// What its probes say; returns whether that is news.
    pub(super) fn probed(&self, well: bool) -> bool {
        self.unhealthy.swap(!well, Ordering::Relaxed) == well
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const CONFIG: EjectionConfig =
        EjectionConfig { failures: NonZeroU32::new(3).unwrap(), time: Duration::from_secs(10) };

    fn at(s: u64) -> Monotonic {
        Monotonic::from_us(s * 1_000_000)
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time() {
        let health = Health::default();
        assert_eq!(health.failed(&CONFIG, at(1)), None);
        assert_eq!(health.failed(&CONFIG, at(1)), None);
        health.succeeded();
        assert_eq!(health.failed(&CONFIG, at(1)), None);
        assert_eq!(health.failed(&CONFIG, at(1)), None);
        assert_eq!(health.failed(&CONFIG, at(1)), Some(Duration::from_secs(10)));
        assert_eq!(health.fitness(|| at(10)), Fitness::Ejected);
        // Those under way when it was ejected do not prolong it.
        assert_eq!(health.failed(&CONFIG, at(2)), None);
        assert_eq!(health.fitness(|| at(11)), Fitness::Healthy);
        let mut now = 11;
        for seconds in [20, 40, 80, 100, 100] {
            assert_eq!(health.failed(&CONFIG, at(now)), Some(Duration::from_secs(seconds)));
            now += seconds;
            assert_eq!(health.fitness(|| at(now - 1)), Fitness::Ejected);
            assert_eq!(health.fitness(|| at(now)), Fitness::Healthy);
        }
        health.succeeded();
        assert_eq!(health.failed(&CONFIG, at(now)), None);
    }

    #[test]
    fn an_answer_ends_an_ejection() {
        let health = Health::default();
        for _ in 0..3 {
            health.failed(&CONFIG, at(1));
        }
        assert_eq!(health.fitness(|| at(2)), Fitness::Ejected);
        health.succeeded();
        assert_eq!(health.fitness(|| at(2)), Fitness::Healthy);
    }

    #[test]
    fn probes_speak_for_themselves() {
        let health = Health::default();
        assert!(!health.probed(true));
        assert!(health.probed(false));
        assert!(!health.probed(false));
        health.succeeded();
        assert_eq!(health.fitness(|| at(0)), Fitness::Unhealthy);
        assert!(health.probed(true));
        assert_eq!(health.fitness(|| at(0)), Fitness::Healthy);
    }
}
