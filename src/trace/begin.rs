//! Which trace a request is of, whether it is recorded, and where new identifiers come from.
//!
//! A caller's `traceparent` is a claim like any other: whoever may make it chooses what a request
//! is called in everybody's traces, and with the sampled flag who pays for recording it (W3C Trace
//! Context, "Denial of service"). So the flag is followed only when a trusted proxy sent it; for
//! everybody else the share that is configured decides, by bits of our own that no caller knows.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use super::context::{Flags, Parent, SpanId, TraceId};
use crate::config::{Propagate, SampleRatio, TracingConfig};

/// What the configuration says about traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whose `traceparent` is taken.
    pub propagate: Propagate,
    /// The share of the traces begun here that are sampled.
    pub sample_ratio: SampleRatio,
    /// Whether spans go to a collector.
    pub is_exported: bool,
}

impl Policy {
    /// The policy that `config` asks for.
    #[must_use]
    pub fn from_config(config: &TracingConfig) -> Self {
        Self {
            propagate: config.propagate,
            sample_ratio: config.sample_ratio,
            is_exported: config.otlp.is_some(),
        }
    }
}

/// A request's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// latchkey's own span in it: the request as a whole.
    pub span: SpanId,
    /// The caller's span; `None`: the trace begins here, and the caller's `tracestate` is not of
    /// it.
    pub parent: Option<SpanId>,
    /// For the upstream.
    pub flags: Flags,
    /// Whether its spans go to a collector.
    pub is_recorded: bool,
}

impl Trace {
    /// What whoever is called from the span `span` of this trace is told.
    #[must_use]
    pub fn parent_of_next(&self, span: SpanId) -> Parent {
        Parent { trace: self.id, span, flags: self.flags }
    }
}

/// A worker's source of identifiers: a count under a keyed hash (`SipHash`, whose key the system's
/// generator made). That costs some nanoseconds and no system call, and who has seen any number
/// of them cannot tell the next, as with a plain generator.
#[derive(Debug, Default)]
pub struct Ids {
    key: RandomState,
    count: Cell<u64>,
}

impl Ids {
    fn random(&self) -> u64 {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        self.key.hash_one(count)
    }

    /// A span's.
    pub fn span(&self) -> SpanId {
        SpanId::from_random(self.random())
    }

    /// The trace of a request with these values of `traceparent`; `None` when that is nobody's
    /// business here.
    pub fn begin<'h>(
        &self,
        policy: &Policy,
        values: impl Iterator<Item = &'h [u8]>,
        is_trusted: impl FnOnce() -> bool,
    ) -> Option<Trace> {
        if policy.propagate == Propagate::Off {
            return None;
        }
        let claimed = Parent::of(values).map(|parent| (parent, is_trusted()));
        let taken =
            claimed.filter(|(_, is_trusted)| *is_trusted || policy.propagate == Propagate::Always);
        let (id, parent, flags) = if let Some((parent, is_trusted)) = taken {
            let sampled = if is_trusted {
                parent.flags.sampled
            } else {
                // Not by the id: that is the caller's choice.
                policy.sample_ratio.takes(self.random() >> 8)
            };
            (parent.trace, Some(parent.span), Flags { sampled, ..parent.flags })
        } else {
            let id = TraceId::from_random(self.random(), self.random());
            let sampled = policy.sample_ratio.takes(id.randomness());
            (id, None, Flags { sampled, random: true })
        };
        let is_recorded = policy.is_exported && flags.sampled;
        Some(Trace { id, span: self.span(), parent, flags, is_recorded })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    const RANDOM: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";

    fn policy(propagate: Propagate, ratio: f64) -> Policy {
        let sample_ratio = SampleRatio::new(ratio).unwrap();
        Policy { propagate, sample_ratio, is_exported: true }
    }

    fn begin(ids: &Ids, policy: &Policy, value: Option<&str>, is_trusted: bool) -> Option<Trace> {
        ids.begin(policy, value.into_iter().map(str::as_bytes), || is_trusted)
    }

    #[test]
    fn whose_word_is_taken() {
        use Propagate::{Always, Off, Trusted};
        let ids = Ids::default();
        for (propagate, ratio, value, is_trusted, continued, sampled) in [
            (Trusted, 0.0, Some(SAMPLED), true, true, true),
            (Trusted, 1.0, Some(UNSAMPLED), true, true, false),
            (Trusted, 0.0, Some(SAMPLED), false, false, false),
            (Trusted, 1.0, Some(UNSAMPLED), false, false, true),
            (Trusted, 1.0, None, true, false, true),
            (Trusted, 0.0, None, false, false, false),
            (Trusted, 1.0, Some("nonsense"), true, false, true),
            (Always, 0.0, Some(SAMPLED), true, true, true),
            // Nobody else's flag has a say, neither way.
            (Always, 0.0, Some(SAMPLED), false, true, false),
            (Always, 1.0, Some(UNSAMPLED), false, true, true),
            (Always, 0.0, None, false, false, false),
        ] {
            let row = (propagate, ratio, value, is_trusted);
            let trace = begin(&ids, &policy(propagate, ratio), value, is_trusted).unwrap();
            let is_theirs = trace.id.to_string() == TRACE;
            let parent = trace.parent.map(|span| span.to_string());
            let theirs = continued.then(|| SPAN.to_owned());
            assert_eq!((is_theirs, parent), (continued, theirs), "{row:?}");
            assert_eq!(trace.flags.sampled, sampled, "{row:?}");
            assert_eq!(trace.is_recorded, sampled, "{row:?}");
            // Said of our own ids, and of others' only as they say.
            assert_eq!(trace.flags.random, !continued, "{row:?}");
            assert_ne!(trace.span.to_string(), SPAN);
        }
        assert_eq!(begin(&ids, &policy(Off, 1.0), Some(SAMPLED), true), None);
        let random = begin(&ids, &policy(Trusted, 1.0), Some(RANDOM), true).unwrap();
        assert_eq!(random.flags.bits(), 2);
    }

    #[test]
    fn nothing_is_recorded_for_nobody() {
        let policy = Policy { is_exported: false, ..policy(Propagate::Trusted, 1.0) };
        let trace = begin(&Ids::default(), &policy, Some(SAMPLED), true).unwrap();
        assert!(trace.flags.sampled && !trace.is_recorded);
    }

    #[test]
    fn the_share_that_is_sampled() {
        let ids = Ids::default();
        for (value, is_trusted) in [(None, false), (Some(SAMPLED), false)] {
            for (ratio, expected) in
                [(0.0, 0..=0), (0.1, 800..=1200), (0.5, 4700..=5300), (1.0, 10_000..=10_000)]
            {
                let policy = policy(Propagate::Always, ratio);
                let count = (0..10_000)
                    .filter(|_| begin(&ids, &policy, value, is_trusted).unwrap().flags.sampled)
                    .count();
                assert!(expected.contains(&count), "{ratio}: {count}");
            }
        }
    }

    #[test]
    fn identifiers_differ_between_and_within_workers() {
        let workers = [Ids::default(), Ids::default()];
        let policy = policy(Propagate::Trusted, 1.0);
        let mut seen = HashSet::new();
        for ids in &workers {
            for _ in 0..10_000 {
                let trace = begin(ids, &policy, None, false).unwrap();
                assert!(seen.insert(trace.id.to_string()) && seen.insert(trace.span.to_string()));
            }
        }
        // Each bit of what level 2 calls random is set about as often as not.
        for bit in 0..56 {
            let set = (0..2000)
                .filter(|_| {
                    let trace = begin(&workers[0], &policy, None, false).unwrap();
                    trace.id.randomness() >> bit & 1 == 1
                })
                .count();
            assert!((850..=1150).contains(&set), "bit {bit}: {set}");
        }
    }
}
