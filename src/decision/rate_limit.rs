//! Limits as the decision core sees them: which policies a request is under, what it is charged,
//! and how the tightest of them speaks in the response.
//!
//! This module does not count: the state of a quota lives behind [`Limits`], which the limiter
//! implements.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::id::Name;

/// How a quota is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Token bucket by the generic cell rate algorithm (GCRA): `burst` at once, then `limit` per
    /// `window`, evenly.
    TokenBucket,
    /// At most `limit` in any `window`, estimated from two adjacent fixed windows.
    SlidingWindow,
}

/// How much is allowed: `limit` units per `window`, and for a token bucket `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Units per window.
    pub limit: NonZeroU32,
    /// Length of the window in microseconds.
    pub window_us: NonZeroU64,
    /// Units that may be spent at once (token bucket only; at least the cost of one request).
    pub burst: NonZeroU32,
}

impl Quota {
    /// The longest window: 31 days.
    pub const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
    /// The shortest window: one second, the unit of `Retry-After` and of `w` in `RateLimit-Policy`.
    pub const WINDOW_MIN: Duration = Duration::from_secs(1);
    /// The most units per window; what a sliding window's cell can count.
    pub const LIMIT_MAX: u32 = (1 << 18) - 1;

    /// A quota whose burst is its limit; `None` outside the bounds above.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Option<Self> {
        Self::with_burst(limit, window, limit)
    }

    /// A quota with its own burst; `None` outside the bounds above.
    #[must_use]
    pub fn with_burst(limit: u32, window: Duration, burst: u32) -> Option<Self> {
        if limit > Self::LIMIT_MAX || burst > Self::LIMIT_MAX {
            return None;
        }
        if window < Self::WINDOW_MIN || window > Self::WINDOW_MAX {
            return None;
        }
        Some(Self {
            limit: NonZeroU32::new(limit)?,
            window_us: NonZeroU64::new(u64::try_from(window.as_micros()).ok()?)?,
            burst: NonZeroU32::new(burst)?,
        })
    }

    /// The window in whole seconds, rounded up: `w` of `RateLimit-Policy`.
    #[must_use]
    pub fn window_s(&self) -> u64 {
        self.window_us.get().div_ceil(1_000_000)
    }
}

/// A quota of its own for one shop or one key, by the name of the policy it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaOverride {
    /// The policy.
    pub policy: Name,
    /// The quota instead of the policy's.
    pub quota: Quota,
}

/// What one request costs under one policy, and which cell pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Names the cell: a keyed hash of policy and caller.
    pub cell: u64,
    /// The policy's position in the configuration; callers that find no free cell share one
    /// overflow cell per policy.
    pub policy: u16,
    /// The quota.
    pub quota: Quota,
    /// How it is counted.
    pub algorithm: Algorithm,
    /// Units this request costs.
    pub cost: NonZeroU32,
    /// Count and report, never refuse.
    pub shadow: bool,
}

/// Where a caller stands under one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Units left after this request (zero when refused).
    pub remaining: u32,
    /// Until the quota is whole again; on a refusal, until a request like this one passes.
    /// Microseconds.
    pub reset_us: u64,
    /// Whether the request was (or, in shadow, would have been) over the quota.
    pub exceeded: bool,
}

/// What came of charging a request under all its policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// Whether the request passes. If not, nothing was charged.
    pub admitted: bool,
    /// The tightest policy: its position in the slice of charges, and the caller's standing. On a
    /// refusal, of the refusing policies the one that refuses longest; else the one with the
    /// fewest units left, shadow policies only when there is no other. `None` without charges.
    pub tightest: Option<(usize, Standing)>,
    /// Bit `i` is set when the shadow policy of charge `i` would have refused.
    pub shadow_exceeded: u64,
}

/// The most policies one configuration may hold, and so one request may be under.
pub const POLICIES_MAX: usize = 64;

/// The state of all quotas.
pub trait Limits {
    /// Charges all of `charges` or, if any that is not shadow refuses, none.
    fn charge(&self, charges: &[Charge], now: Monotonic) -> Charged;

    /// Where the caller would stand after `charge`; charges nothing.
    fn peek(&self, charge: &Charge, now: Monotonic) -> Standing;
}
