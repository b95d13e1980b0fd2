//! Cells: who owns which state word, and how that changes hands without a lock.
//!
//! See the module documentation of [`super`] for the argument. Knows nothing of policies.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::meter::{self, Meter, Step, WORD_MASK};
use crate::clock::Monotonic;
use crate::decision::rate_limit::{Algorithm, Charge};

/// Cells in a bucket: two cache lines.
pub(super) const CELLS_PER_BUCKET: usize = 8;

/// A sliding window's length in seconds (31 days need 22 bits); zero for a token bucket.
const WINDOW_MASK: u64 = (1 << 22) - 1;
/// Somebody is about to take the cell over.
const MARK: u64 = 1 << 22;
/// Counts removals of the mark, so that a claim that slept through one fails.
const TURN_MASK: u64 = 31 << 23;
const TURN_ONE: u64 = 1 << 23;
/// Counts changes of hands: what was written under one lease means nothing under the next.
const LEASE_MASK: u64 = 127 << 28;
const LEASE_ONE: u64 = 1 << 28;
/// What names the owner: 29 bits of hash, and the window.
const OWNER_MASK: u64 = !(MARK | TURN_MASK | LEASE_MASK);
/// The lowest bit of the hash.
const HASH_ONE: u64 = 1 << 35;

/// Where a charge is counted: the owner's tag and the two buckets that may hold it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    owner: u64,
    first: u64,
    second: u64,
}

impl Address {
    /// The address of `charge`. The quota is part of it: a caller whose quota changes starts a
    /// cell of its own, and no word is ever read by another quota's arithmetic.
    pub(super) fn of(charge: &Charge) -> Self {
        let quota = &charge.quota;
        let shape = u64::from(quota.limit.get()) << 32 | u64::from(quota.burst.get());
        let seed = charge.cell
            ^ shape.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ quota.window_us.get().wrapping_mul(0xd6e8_feb8_6659_fd93);
        let window = match charge.algorithm {
            Algorithm::TokenBucket => 0,
            Algorithm::SlidingWindow => meter::window_s(quota) & WINDOW_MASK,
        };
        let hash = (mix(seed) & !(HASH_ONE - 1)).max(HASH_ONE);
        let place = mix(!seed);
        Self { owner: hash | window, first: place >> 32, second: place & u64::from(u32::MAX) }
    }

    /// Whether `tag` is of this address.
    pub(super) fn owns(&self, tag: u64) -> bool {
        tag & OWNER_MASK == self.owner
    }

    /// The two buckets among `count`, a power of two; the same one twice only if there is one.
    pub(super) fn buckets(&self, count: usize) -> (usize, usize) {
        let mask = count.saturating_sub(1);
        let first = usize::try_from(self.first).unwrap_or_default() & mask;
        let second = usize::try_from(self.second).unwrap_or_default() & mask;
        if first == second { (first, (first ^ 1) & mask) } else { (first, second) }
    }
}

/// Spreads every bit over all (a bijection, the finalizer of `SplitMix64`).
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The mark of `tag`'s owner and lease in its state word: eight bits, never zero, so that a
/// cell nobody has used yet bears nobody's.
fn check_of(tag: u64) -> u64 {
    let lease = (tag & LEASE_MASK) / LEASE_ONE;
    (((tag >> 56) + lease * 31) % 255 + 1) << 56
}

/// Whether something of the quota of `tag`'s owner is spent by `state`; `None` if somebody else
/// wrote it.
fn spent(tag: u64, state: u64, now: Monotonic) -> Option<bool> {
    let own = state & !WORD_MASK == check_of(tag);
    own.then(|| meter::live(state & WORD_MASK, tag & WINDOW_MASK, now))
}

/// A tag and the state word of its owner.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// Who owns the cell (owner bits zero: nobody), the turn and the mark.
    tag: AtomicU64,
    /// Eight check bits of the owner who wrote it, and the quota's whole state.
    state: AtomicU64,
}

/// What a cell is to somebody who looks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// The caller's own.
    Own,
    /// Nobody's, or its owner's quota is whole again.
    Vacant,
    /// Somebody else's, or about to be.
    Taken,
}

impl Cell {
    /// Whether the cell is `address`'s.
    pub(super) fn is_of(&self, address: &Address) -> bool {
        self.tag.load(SeqCst) & OWNER_MASK == address.owner
    }

    /// Whether a unit of the owner's quota is spent here.
    pub(super) fn is_charged(&self, now: Monotonic) -> bool {
        spent(self.tag(), self.state.load(SeqCst), now) == Some(true)
    }

    /// What the cell is to the caller at `address`.
    pub(super) fn sight(&self, address: &Address, now: Monotonic) -> Sight {
        let tag = self.tag.load(SeqCst);
        if tag & OWNER_MASK == address.owner {
            Sight::Own
        } else if self.is_taken(tag, now) {
            Sight::Taken
        } else {
            Sight::Vacant
        }
    }

    /// Whether a unit of somebody's quota is still spent here.
    pub(super) fn is_live(&self, now: Monotonic) -> bool {
        self.is_taken(self.tag.load(SeqCst), now)
    }

    /// A state with foreign check bits is one whose new owner has not written it yet: taken.
    fn is_taken(&self, tag: u64, now: Monotonic) -> bool {
        tag & OWNER_MASK != 0 && spent(tag, self.state.load(SeqCst), now).unwrap_or(true)
    }

    /// Makes a vacant cell `address`'s. Fails when its owner, or another caller, was faster.
    ///
    /// First the mark, then the look at the state, then the tag: an owner that charges meanwhile
    /// either is seen in the state or sees the mark.
    pub(super) fn claim(&self, address: &Address, now: Monotonic) -> bool {
        let tag = self.tag.load(SeqCst);
        if tag & OWNER_MASK == 0 {
            return self.pass(tag, address.owner);
        }
        let marked = tag | MARK;
        if tag != marked && !self.swap_tag(tag, marked) {
            return false;
        }
        if self.is_taken(marked, now) {
            self.unmark(marked);
            return false;
        }
        self.pass(marked, address.owner)
    }

    /// Gives up a claim nobody has charged yet, in the same order; insists, because nobody takes
    /// over a cell that was claimed and never charged.
    pub(super) fn give_back(&self, address: &Address, now: Monotonic) {
        loop {
            let tag = self.tag.load(SeqCst);
            if tag & OWNER_MASK != address.owner {
                return;
            }
            let marked = tag | MARK;
            if tag != marked && !self.swap_tag(tag, marked) {
                continue;
            }
            if spent(tag, self.state.load(SeqCst), now) == Some(true) {
                return self.unmark(marked);
            }
            if self.pass(marked, 0) {
                return;
            }
        }
    }

    fn swap_tag(&self, from: u64, to: u64) -> bool {
        self.tag.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }

    /// Replaces `tag` by an unmarked one of `owner`'s with the next lease.
    fn pass(&self, tag: u64, owner: u64) -> bool {
        let lease = tag.wrapping_add(LEASE_ONE) & LEASE_MASK;
        self.swap_tag(tag, owner | lease | tag & TURN_MASK)
    }

    /// Removes the mark from `tag`, which makes the claim behind it fail.
    fn unmark(&self, tag: u64) {
        let turn = tag.wrapping_add(TURN_ONE) & TURN_MASK;
        self.swap_tag(tag, tag & (OWNER_MASK | LEASE_MASK) | turn);
    }

    /// The tag now.
    pub(super) fn tag(&self) -> u64 {
        self.tag.load(SeqCst)
    }

    /// Whether the cell has not changed hands since its tag was `tag`; breaks a claim that is
    /// under way.
    fn is_still(&self, tag: u64) -> bool {
        loop {
            let present = self.tag();
            if (present ^ tag) & (OWNER_MASK | LEASE_MASK) != 0 {
                return false;
            }
            if present & MARK == 0 {
                return true;
            }
            self.unmark(present);
        }
    }

    /// The word written under `tag`; a fresh one where the state bears another's check bits.
    fn word(&self, tag: u64, meter: &Meter) -> (u64, u64) {
        let state = self.state.load(SeqCst);
        let word = state & WORD_MASK;
        let own = state & !WORD_MASK == check_of(tag) && meter.may_have_written(word);
        (state, if own { word } else { 0 })
    }

    /// What the charge would come to.
    pub(super) fn peek(&self, meter: &Meter) -> Step {
        meter.step(self.word(self.tag(), meter).1)
    }

    /// Charges the cell unless that is refused; `None` when it has changed hands since its tag
    /// was `tag`, and what was written, if anything, means nothing to the new owner.
    pub(super) fn spend(&self, tag: u64, meter: &Meter) -> Option<Step> {
        while self.is_still(tag) {
            let (state, word) = self.word(tag, meter);
            let step = meter.step(word);
            let Some(next) = step.next else {
                return Some(step);
            };
            if self.swap_state(state, check_of(tag) | next) {
                return self.is_still(tag).then_some(step);
            }
        }
        None
    }

    /// Takes a charge back. Where the cell has changed hands the quota was whole again anyway.
    pub(super) fn refund(&self, address: &Address, meter: &Meter) {
        loop {
            let tag = self.tag();
            let state = self.state.load(SeqCst);
            if tag & OWNER_MASK != address.owner || state & !WORD_MASK != check_of(tag) {
                return;
            }
            let next = check_of(tag) | meter.refund(state & WORD_MASK);
            if self.swap_state(state, next) {
                return;
            }
        }
    }

    /// Clears a state that has run out, so that a window number never comes round to it again.
    pub(super) fn clear_expired(&self, now: Monotonic) {
        let tag = self.tag.load(SeqCst);
        let state = self.state.load(SeqCst);
        if spent(tag, state, now) == Some(false) {
            self.swap_state(state, check_of(tag));
        }
    }

    fn swap_state(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }
}

/// Neighbouring cells.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Bucket(pub(super) [Cell; CELLS_PER_BUCKET]);
