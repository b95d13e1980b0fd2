//! The limiter: quotas of any number of callers in fixed memory, without a lock.
//!
//! Implements [`Limits`]. It counts; which policies a request is under, what it costs and what is
//! said about it in the response is decided elsewhere. It never reads a clock, never allocates
//! after [`Limiter::new`], and nothing survives a restart.
//!
//! # Memory
//!
//! A table of cells that never grows: 16 bytes each, eight to a bucket, two buckets per caller
//! by two parts of a keyed hash, so that nobody can aim at a bucket. A cell whose quota is whole
//! again is as good as none and is reused. A new caller takes a cell in the emptier of its
//! buckets; with 80 of 100 cells live, practically all find one. When both buckets hold only
//! live cells, none is evicted and the caller does not pass for free: it is charged to the one
//! overflow cell of the policy, under the same quota, and counted in [`Limiter::overflowed`].
//! So an attacker with many addresses can at worst make new callers share a quota.
//!
//! # Concurrency
//!
//! All of a quota is in one word, so a charge is one compare-and-swap, and two requests never
//! spend the same unit. What needs an argument is a cell changing hands, because tag and state
//! are two words:
//!
//! * A cell is handed over only when its state has run out: mark the tag, look at the state, then
//!   swap the tag. Its owner charges in the other order: swap the state, then look at the tag.
//!   All of it is sequentially consistent, so if both go on at once, either the newcomer sees the
//!   charge and gives up, or the owner sees the mark and removes it, which fails the newcomer's
//!   swap, or the owner finds the cell gone and charges again elsewhere. Removing a mark changes
//!   the tag's turn, so that a claim that slept through it fails too.
//! * After the swap the state still is the old owner's. Every change of hands is a new lease, and
//!   the state bears eight check bits of the owner and lease it was written under. A thread of
//!   the new owner takes a state with foreign bits as a whole quota and swaps in its charge, so
//!   nobody waits for the thread that claimed. Until then the cell counts as taken. A late charge
//!   under the old lease is foreign too, and the thread that made it knows it is lost.
//! * Two threads of a new caller that claim at once want the same cell; one fails and finds it
//!   claimed. Only if between their looks a cell of the two buckets runs out, or is taken by
//!   another caller, can they claim two. So before the first charge on a cell every thread looks
//!   at all others under the lease it then charges under, and gives back what was claimed and not
//!   charged. Of two cells claimed at once, at least one claimer sees both.
//!
//! The bound: a caller can exceed a quota only if a thread sleeps between two instructions while
//! its cell goes through 128 leases or 32 turns and comes back to the same owner, or while
//! the check bits of two leases agree (1 in 255) and a late charge falls between the next claim
//! and its first charge. What is lost or carried over then is that one charge, or at most one
//! burst where a claim slept.
//!
//! Charges under several policies are made one after the other after all were found to pass. If
//! one then loses its last unit to another request, those made are taken back; a request that
//! looks in between may be refused although it would have passed a moment later.

mod cell;
mod meter;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use self::cell::{Address, Bucket, CELLS_PER_BUCKET, Cell, Sight};
use self::meter::{Meter, Step};
use crate::clock::Monotonic;
use crate::decision::rate_limit::{Charge, Charged, Limits, POLICIES_MAX, Standing};

/// The most cells: 16 GiB of them.
pub const CELLS_MAX: usize = 1 << 30;

/// How often a charge looks for a cell anew after losing one to other callers. Each loss is
/// another caller's success, so more than a few in a row means a bucket under siege: overflow.
const ATTEMPTS_MAX: usize = 32;

/// The state of all quotas, shared by all workers. See the module documentation.
pub struct Limiter {
    buckets: Box<[Bucket]>,
    /// One word per policy for callers that found no cell.
    overflow: Box<[AtomicU64]>,
    overflowed: AtomicU64,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("capacity", &self.capacity())
            .field("overflowed", &self.overflowed())
            .finish_non_exhaustive()
    }
}

/// Where a charge was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payer {
    Cell,
    Overflow,
}

impl Limiter {
    /// A limiter with at least `cells` cells (rounded up to a power of two, at least 8, at most
    /// [`CELLS_MAX`]) and an overflow cell for each of `policies` policies, at least one. A
    /// [`Charge::policy`] beyond them shares the last one.
    #[must_use]
    pub fn new(cells: usize, policies: usize) -> Self {
        let buckets = cells.clamp(CELLS_PER_BUCKET, CELLS_MAX);
        let buckets = buckets.div_ceil(CELLS_PER_BUCKET).next_power_of_two();
        // One more than policies: the throttle of failed attempts has an overflow cell too.
        let policies = policies.clamp(1, POLICIES_MAX + 1);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            overflow: (0..policies).map(|_| AtomicU64::new(0)).collect(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// How many cells there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buckets.len() * CELLS_PER_BUCKET
    }

    /// How many cells hold a quota that is not whole at `now`. Reads the whole table and clears
    /// what has run out: for a metrics scrape, not for a request.
    #[must_use]
    pub fn occupancy(&self, now: Monotonic) -> usize {
        let cells = self.buckets.iter().flat_map(|bucket| &bucket.0);
        cells.inspect(|cell| cell.clear_expired(now)).filter(|cell| cell.is_live(now)).count()
    }

    /// How many charges found no cell and went to an overflow cell since the start.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// The buckets that may hold `address`'s cell, in the order every thread searches them.
    fn buckets(&self, address: &Address) -> impl Iterator<Item = &Bucket> {
        let (first, second) = address.buckets(self.buckets.len());
        let second = (second != first).then_some(second);
        let indices = [Some(first), second].into_iter().flatten();
        indices.filter_map(|index| self.buckets.get(index))
    }

    fn candidates(&self, address: &Address) -> impl Iterator<Item = &Cell> {
        self.buckets(address).flat_map(|bucket| &bucket.0)
    }

    /// The caller's cell: one it has charged before one only claimed.
    fn find(&self, address: &Address, now: Monotonic) -> Option<&Cell> {
        let mut owned = self.candidates(address).filter(|c| c.is_of(address));
        let first = owned.next()?;
        if first.is_charged(now) {
            return Some(first);
        }
        Some(owned.find(|c| c.is_charged(now)).unwrap_or(first))
    }

    /// The first vacant cell of the emptier bucket; of equals, of the first.
    fn vacancy(&self, address: &Address, now: Monotonic) -> Option<&Cell> {
        let mut best: (usize, Option<&Cell>) = (0, None);
        for bucket in self.buckets(address) {
            let vacant = |cell: &&Cell| cell.sight(address, now) == Sight::Vacant;
            let mut cells = bucket.0.iter().filter(vacant);
            let first = cells.next();
            let count = usize::from(first.is_some()) + cells.count();
            if count > best.0 {
                best = (count, first);
            }
        }
        best.1
    }

    /// The caller's cell, claimed if it had none, and its tag before it was judged to be the
    /// caller's only one. `None` when every candidate is live, or others keep being faster.
    fn find_or_claim(&self, address: &Address, now: Monotonic) -> Option<(&Cell, u64)> {
        for _ in 0..ATTEMPTS_MAX {
            let found = self.find(address, now);
            let Some(cell) = found.or_else(|| self.vacancy(address, now)) else {
                // Or another of this caller's threads was faster.
                self.find(address, now)?;
                continue;
            };
            let claimed = found.is_none();
            if claimed && !cell.claim(address, now) {
                continue;
            }
            let tag = cell.tag();
            if !address.owns(tag) {
                continue;
            }
            let charged = !claimed && cell.is_charged(now);
            if charged || self.is_only(cell, address, now) {
                return Some((cell, tag));
            }
            if claimed {
                cell.give_back(address, now);
            }
        }
        None
    }

    /// Whether `cell`, claimed but not charged, is the only one the caller has. Of others those
    /// that have not been charged are given back.
    fn is_only(&self, cell: &Cell, address: &Address, now: Monotonic) -> bool {
        let mut others = 0;
        for other in self.candidates(address).filter(|c| c.is_of(address)) {
            if !std::ptr::eq(cell, other) {
                others += 1;
                other.give_back(address, now);
            }
        }
        others == 0
    }

    /// The overflow cell of the charge's policy.
    fn shared(&self, charge: &Charge) -> Option<&AtomicU64> {
        let of_policy = self.overflow.get(usize::from(charge.policy));
        of_policy.or_else(|| self.overflow.last())
    }

    /// Charges one, unless it is refused.
    fn spend(&self, charge: &Charge, now: Monotonic) -> (Step, Payer) {
        let meter = Meter::of(charge, now);
        if meter.is_hopeless() {
            return (meter.step(0), Payer::Cell);
        }
        let address = Address::of(charge);
        for _ in 0..ATTEMPTS_MAX {
            let Some((cell, tag)) = self.find_or_claim(&address, now) else {
                break;
            };
            if let Some(step) = cell.spend(tag, &meter) {
                return (step, Payer::Cell);
            }
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        (self.spend_shared(charge, now), Payer::Overflow)
    }

    fn spend_shared(&self, charge: &Charge, now: Monotonic) -> Step {
        let meter = Meter::shared(charge, now);
        let Some(shared) = self.shared(charge) else {
            return meter.step(0);
        };
        let mut word = shared.load(Ordering::SeqCst);
        loop {
            let step = meter.step(word);
            let Some(next) = step.next else {
                return step;
            };
            match shared.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return step,
                Err(changed) => word = changed,
            }
        }
    }

    fn refund(&self, charge: &Charge, payer: Payer, now: Monotonic) {
        match payer {
            Payer::Cell => {
                let address = Address::of(charge);
                if let Some(cell) = self.find(&address, now) {
                    cell.refund(&address, &Meter::of(charge, now));
                }
            }
            Payer::Overflow => {
                let meter = Meter::shared(charge, now);
                if let Some(shared) = self.shared(charge) {
                    let mut word = shared.load(Ordering::SeqCst);
                    while let Err(changed) = shared.compare_exchange(
                        word,
                        meter.refund(word),
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    ) {
                        word = changed;
                    }
                }
            }
        }
    }

    /// Where the caller would stand after each charge; charges nothing.
    fn judge(&self, charges: &[Charge], now: Monotonic) -> Tally {
        let mut tally = Tally::default();
        for (index, charge) in charges.iter().enumerate() {
            tally.note(index, charge, self.peek(charge, now));
        }
        tally
    }
}

impl Limits for Limiter {
    /// More than [`POLICIES_MAX`] charges, which no configuration makes, are refused.
    fn charge(&self, charges: &[Charge], now: Monotonic) -> Charged {
        if charges.len() > POLICIES_MAX {
            return Tally::default().refused();
        }
        // One charge is all or none by itself.
        if charges.len() > 1 {
            let foreseen = self.judge(charges, now);
            if foreseen.refusing.is_some() {
                return foreseen.charged();
            }
        }
        let mut tally = Tally::default();
        let mut payers = [None; POLICIES_MAX];
        for ((index, charge), payer) in charges.iter().enumerate().zip(&mut payers) {
            let (step, from) = self.spend(charge, now);
            *payer = step.next.map(|_| from);
            tally.note(index, charge, step.standing);
            if tally.refusing.is_some() {
                break;
            }
        }
        if tally.refusing.is_none() {
            return tally.charged();
        }
        for (charge, payer) in charges.iter().zip(payers) {
            if let Some(payer) = payer {
                self.refund(charge, payer, now);
            }
        }
        let mut settled = self.judge(charges, now);
        settled.refusing = longest(settled.refusing, tally.refusing);
        settled.charged()
    }

    fn peek(&self, charge: &Charge, now: Monotonic) -> Standing {
        let meter = Meter::of(charge, now);
        let address = Address::of(charge);
        if let Some(cell) = self.find(&address, now) {
            return cell.peek(&meter).standing;
        }
        let mut candidates = self.candidates(&address);
        if meter.is_hopeless() || candidates.any(|c| c.sight(&address, now) != Sight::Taken) {
            return meter.step(0).standing;
        }
        let word = self.shared(charge).map_or(0, |w| w.load(Ordering::SeqCst));
        Meter::shared(charge, now).step(word).standing
    }
}

/// A limiter that tells, but does not count: `explain` asks what would happen.
#[derive(Debug, Clone, Copy)]
pub struct Peek<'a>(pub &'a Limiter);

impl Limits for Peek<'_> {
    fn charge(&self, charges: &[Charge], now: Monotonic) -> Charged {
        if charges.len() > POLICIES_MAX {
            return Tally::default().refused();
        }
        self.0.judge(charges, now).charged()
    }

    fn peek(&self, charge: &Charge, now: Monotonic) -> Standing {
        self.0.peek(charge, now)
    }
}

type Place = Option<(usize, Standing)>;

/// The standings of a request, gathered into what is said about it.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    refusing: Place,
    tightest: Place,
    tightest_shadow: Place,
    shadow_exceeded: u64,
}

impl Tally {
    fn note(&mut self, index: usize, charge: &Charge, standing: Standing) {
        let place = Some((index, standing));
        if charge.shadow {
            if standing.exceeded {
                self.shadow_exceeded |= 1 << (index % POLICIES_MAX);
            }
            self.tightest_shadow = tightest(self.tightest_shadow, place);
        } else if standing.exceeded {
            self.refusing = longest(self.refusing, place);
        } else {
            self.tightest = tightest(self.tightest, place);
        }
    }

    fn charged(self) -> Charged {
        Charged {
            admitted: self.refusing.is_none(),
            tightest: self.refusing.or(self.tightest).or(self.tightest_shadow),
            shadow_exceeded: self.shadow_exceeded,
        }
    }

    fn refused(self) -> Charged {
        Charged { admitted: false, ..self.charged() }
    }
}

/// The one that refuses longer; on a tie the first.
fn longest(a: Place, b: Place) -> Place {
    match (a, b) {
        (Some(x), Some(y)) if y.1.reset_us > x.1.reset_us => Some(y),
        (Some(x), _) => Some(x),
        (None, b) => b,
    }
}

/// The one with fewer units left, of equals the one that takes longer; on a tie the first.
fn tightest(a: Place, b: Place) -> Place {
    let rank = |s: Standing| (s.remaining, std::cmp::Reverse(s.reset_us));
    match (a, b) {
        (Some(x), Some(y)) if rank(y.1) < rank(x.1) => Some(y),
        (Some(x), _) => Some(x),
        (None, b) => b,
    }
}
