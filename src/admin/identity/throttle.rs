//! How often somebody may try to sign in.
//!
//! Three things are counted, each forgotten an hour after its last failure: failures of one
//! account from one address, of one address whatever the account, and of one account whatever the
//! address. What follows from them:
//!
//! * After some failures an address waits before it may try the same account again, and later any
//!   account: a second, two, four, up to a quarter of an hour. An attempt before its time is
//!   refused without looking at the password, and counts for nothing.
//! * Failures from elsewhere never make an address wait. When an account is under attack, an
//!   address that it has not been seen at has one attempt at once rather than five, so whoever
//!   owns the account gets in from anywhere by being right the first time.
//! * An address from which the account was signed in to before is spared all but its own failures
//!   with this account, and waits half a minute at most. So nobody can lock the owner out.
//! * Wrong codes of a second factor are held against the account, from wherever they come: who
//!   tries them knows the password already.
//!
//! A name that nobody has is counted as any other. An attempt counts as failed from the moment it
//! is let in until it is known to have been right: attempts at the same time do not slip by.
//! Everything is in memory, of bounded size, and gone after a restart.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Monotonic;
use crate::decision::request::client_network;
use crate::store::operators::folded;

/// Most entries of each kind.
const ENTRIES_MAX: usize = 8192;
/// Longest name that is told from others, in bytes; no operator has a longer one.
const NAME_BYTES_MAX: usize = 64;
/// After this without a failure, the failures before are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// So many failures of an account, from wherever, are an attack on it.
const ATTACK: u32 = 20;

/// How failures turn into waiting.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// So many cost nothing.
    free: u32,
    /// The longest wait.
    wait_max: Duration,
}

/// The first wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(15 * 60);

const PAIR: Rule = Rule { free: 5, wait_max: LONG };
const PAIR_UNDER_ATTACK: Rule = Rule { free: 1, wait_max: LONG };
const PAIR_KNOWN: Rule = Rule { free: 10, wait_max: Duration::from_secs(30) };
const ADDRESS: Rule = Rule { free: 20, wait_max: LONG };
const CODES: Rule = Rule { free: 10, wait_max: LONG };
const CODES_KNOWN: Rule = Rule { free: 10, wait_max: Duration::from_secs(5 * 60) };

/// Failures, and the time of the last.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    failures: u32,
    last: Monotonic,
}

impl Counter {
    fn standing(self, now: Monotonic) -> u32 {
        if now.since(self.last) >= FORGOTTEN_AFTER { 0 } else { self.failures }
    }

    /// How long until another attempt; zero: now.
    fn wait(self, rule: Rule, now: Monotonic) -> Duration {
        let Some(beyond) = self.standing(now).checked_sub(rule.free) else {
            return Duration::ZERO;
        };
        let doubled = 1_u32.checked_shl(beyond).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(doubled).min(rule.wait_max);
        wait.saturating_sub(now.since(self.last))
    }

    fn count(&mut self, now: Monotonic) {
        *self = Self { failures: self.standing(now).saturating_add(1), last: now };
    }

    fn take_back(&mut self) {
        self.failures = self.failures.saturating_sub(1);
    }
}

/// Counters by what they count, at most [`ENTRIES_MAX`].
#[derive(Debug)]
struct Counters<K>(HashMap<K, Counter>);

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Counters<K> {
    fn get(&self, key: &K) -> Counter {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn count(&mut self, key: &K, now: Monotonic) {
        if !self.0.contains_key(key) {
            make_room(&mut self.0, |counter| counter.last, now);
        }
        self.0.entry(key.clone()).or_default().count(now);
    }

    fn take_back(&mut self, key: &K) {
        if let Some(counter) = self.0.get_mut(key) {
            counter.take_back();
        }
    }
}

/// Room for one more: what is forgotten goes, or else the oldest. Each entry stands for a hash
/// that was computed, which takes longer than this does.
fn make_room<K: Hash + Eq + Clone, V>(
    entries: &mut HashMap<K, V>,
    at: impl Fn(&V) -> Monotonic,
    now: Monotonic,
) {
    if entries.len() < ENTRIES_MAX {
        return;
    }
    entries.retain(|_, entry| now.since(at(entry)) < FORGOTTEN_AFTER);
    if entries.len() >= ENTRIES_MAX {
        let oldest = entries.iter().min_by_key(|(_, entry)| at(entry)).map(|(key, _)| key.clone());
        oldest.map(|key| entries.remove(&key));
    }
}

type Pair = (String, IpAddr);

/// An attempt that was let in. It is a failure until it is said to be something else.
#[derive(Debug, Clone)]
pub(in crate::admin) struct Attempt {
    account: String,
    address: IpAddr,
    /// The account was signed in to from this address before.
    pub(in crate::admin) known: bool,
}

/// What has been tried.
#[derive(Debug, Default)]
pub(in crate::admin) struct Throttle {
    pairs: Counters<Pair>,
    addresses: Counters<IpAddr>,
    accounts: Counters<String>,
    codes: Counters<String>,
    codes_known: Counters<Pair>,
    /// Since when an account was last signed in to from an address.
    known: HashMap<Pair, Monotonic>,
}

impl Throttle {
    /// Lets an attempt in and counts it, or says how long to wait.
    pub(in crate::admin) fn admit(
        &mut self,
        name: &str,
        from: IpAddr,
        now: Monotonic,
    ) -> Result<Attempt, Duration> {
        let attempt = self.attempt(name, from);
        let pair = attempt.pair();
        let wait = if attempt.known {
            self.pairs.get(&pair).wait(PAIR_KNOWN, now)
        } else {
            let attacked = self.accounts.get(&attempt.account).standing(now) >= ATTACK;
            let rule = if attacked { PAIR_UNDER_ATTACK } else { PAIR };
            let of_address = self.addresses.get(&attempt.address).wait(ADDRESS, now);
            self.pairs.get(&pair).wait(rule, now).max(of_address)
        };
        if !wait.is_zero() {
            return Err(wait);
        }
        self.pairs.count(&pair, now);
        if !attempt.known {
            self.addresses.count(&attempt.address, now);
            self.accounts.count(&attempt.account, now);
        }
        Ok(attempt)
    }

    /// Lets a code be tried after the password was right, and counts it; or says how long to wait.
    pub(in crate::admin) fn admit_code(
        &mut self,
        attempt: &Attempt,
        now: Monotonic,
    ) -> Result<(), Duration> {
        let pair = attempt.pair();
        let wait = if attempt.known {
            self.codes_known.get(&pair).wait(CODES_KNOWN, now)
        } else {
            self.codes.get(&attempt.account).wait(CODES, now)
        };
        if !wait.is_zero() {
            return Err(wait);
        }
        if attempt.known {
            self.codes_known.count(&pair, now);
        } else {
            self.codes.count(&attempt.account, now);
        }
        Ok(())
    }

    /// It was right in everything: its own failures are forgotten, and its address is known. What
    /// else failed from the address stands: an attacker may have an account too.
    pub(in crate::admin) fn succeeded(&mut self, attempt: &Attempt, now: Monotonic) {
        self.withdraw(attempt);
        let pair = attempt.pair();
        self.pairs.0.remove(&pair);
        self.codes_known.0.remove(&pair);
        self.codes.take_back(&attempt.account);
        self.knows(pair, now);
    }

    /// It was neither right nor wrong: nobody looked, or only the code is missing.
    pub(in crate::admin) fn withdraw(&mut self, attempt: &Attempt) {
        self.pairs.take_back(&attempt.pair());
        if !attempt.known {
            self.addresses.take_back(&attempt.address);
            self.accounts.take_back(&attempt.account);
        }
    }

    /// Notes where an account was signed in to before the start.
    pub(in crate::admin) fn remember(&mut self, name: &str, from: IpAddr, now: Monotonic) {
        let pair = self.attempt(name, from).pair();
        self.knows(pair, now);
    }

    fn attempt(&self, name: &str, from: IpAddr) -> Attempt {
        // Longer names are nobody's; one counter serves for all of them.
        let account = if name.len() > NAME_BYTES_MAX { String::new() } else { folded(name) };
        let address = client_network(from);
        let known = self.known.contains_key(&(account.clone(), address));
        Attempt { account, address, known }
    }

    fn knows(&mut self, pair: Pair, now: Monotonic) {
        if self.known.len() >= ENTRIES_MAX && !self.known.contains_key(&pair) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| pair.clone());
            oldest.map(|pair| self.known.remove(&pair));
        }
        self.known.insert(pair, now);
    }
}

impl Attempt {
    fn pair(&self) -> Pair {
        (self.account.clone(), self.address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOME: &str = "192.0.2.1";

    fn at(s: u64) -> Monotonic {
        Monotonic::from_us(s * 1_000_000)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The attacker's address number `i`.
    fn other(i: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + i).to_be_bytes())
    }

    fn fails(throttle: &mut Throttle, name: &str, from: IpAddr, s: u64) -> bool {
        throttle.admit(name, from, at(s)).is_ok()
    }

    fn signs_in(throttle: &mut Throttle, name: &str, from: IpAddr, s: u64) -> Result<(), Duration> {
        let attempt = throttle.admit(name, from, at(s))?;
        throttle.succeeded(&attempt, at(s));
        Ok(())
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let mut throttle = Throttle::default();
        for _ in 0..5 {
            assert!(fails(&mut throttle, "ada", ip(HOME), 0), "the first five cost nothing");
        }
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            let refused = throttle.admit("ada", ip(HOME), at(now)).unwrap_err();
            assert_eq!(refused, Duration::from_secs(wait));
            assert!(throttle.admit("ADA", ip(HOME), at(now + wait - 1)).is_err());
            now += wait;
            assert!(fails(&mut throttle, "ada", ip(HOME), now));
        }
        assert!(fails(&mut throttle, "ada", ip(HOME), now + 3600), "forgotten after an hour");
    }

    /// What is refused counts for nothing: asking again and again does not prolong the wait.
    #[test]
    fn impatience_costs_nothing() {
        let mut throttle = Throttle::default();
        while fails(&mut throttle, "ada", ip(HOME), 0) {}
        for _ in 0..1000 {
            assert_eq!(throttle.admit("ada", ip(HOME), at(0)).unwrap_err().as_secs(), 1);
        }
        assert!(signs_in(&mut throttle, "ada", ip(HOME), 1).is_ok());
    }

    #[test]
    fn an_attack_does_not_lock_out_whoever_owns_the_account() {
        let mut throttle = Throttle::default();
        signs_in(&mut throttle, "ada", ip(HOME), 0).unwrap();
        let mut tried = 0;
        // A hundred addresses, for a day, as fast as they are let.
        for s in (0..86_400).step_by(10) {
            for i in 0..100 {
                tried += u32::from(fails(&mut throttle, "ada", other(i), s));
            }
            // From where she was before she is never made to wait.
            signs_in(&mut throttle, "Ada", ip(HOME), s).unwrap();
        }
        // From a new place she gets in by being right the first time.
        signs_in(&mut throttle, "ada", ip("198.51.100.7"), 86_400).unwrap();
        assert!(tried < 100 * 120, "{tried} passwords tried in a day from a hundred addresses");
    }

    #[test]
    fn an_address_is_slowed_down_over_all_accounts() {
        let mut throttle = Throttle::default();
        let names: Vec<String> = (0..86_400).map(|i| format!("name{i}")).collect();
        let mut tried = 0;
        for (s, name) in (0..).zip(&names) {
            tried += u32::from(fails(&mut throttle, name, ip(HOME), s));
        }
        assert!((100..140).contains(&tried), "{tried} attempts in a day from one address");
        // Having an account of its own does not wipe the slate.
        let mut throttle = Throttle::default();
        for _ in 0..20 {
            assert!(
                fails(&mut throttle, "x", other(1), 0)
                    || fails(&mut throttle, "y", other(1), 0)
                    || fails(&mut throttle, "z", other(1), 0)
                    || fails(&mut throttle, "w", other(1), 0)
            );
        }
        assert!(signs_in(&mut throttle, "mallory", other(1), 0).is_err());
        signs_in(&mut throttle, "mallory", other(2), 0).unwrap();
        assert!(throttle.admit("ada", other(1), at(0)).is_err());
    }

    #[test]
    fn neighbours_share_an_ipv6_network_and_no_more() {
        let mut throttle = Throttle::default();
        let here: Vec<IpAddr> = (0..30).map(|i| ip(&format!("2001:db8::{i}"))).collect();
        assert_eq!(here.iter().filter(|a| fails(&mut throttle, "ada", **a, 0)).count(), 5);
        assert!(fails(&mut throttle, "ada", ip("2001:db8:0:1::1"), 0));
    }

    /// Attempts at the same time are counted when they begin.
    #[test]
    fn attempts_at_once_do_not_slip_by() {
        let mut throttle = Throttle::default();
        let begun: Vec<_> = (0..100).map(|_| throttle.admit("ada", ip(HOME), at(0))).collect();
        assert_eq!(begun.iter().filter(|one| one.is_ok()).count(), 5);
        for attempt in begun.into_iter().flatten() {
            throttle.withdraw(&attempt);
        }
        assert!(fails(&mut throttle, "ada", ip(HOME), 0), "nobody looked: nothing was wrong");
    }

    #[test]
    fn codes_are_held_against_the_account_but_not_where_it_is_known() {
        let mut throttle = Throttle::default();
        signs_in(&mut throttle, "ada", ip(HOME), 0).unwrap();
        let mut tried = 0;
        for i in 0..1000 {
            let attempt = throttle.admit("ada", other(i), at(1)).unwrap();
            tried += u32::from(throttle.admit_code(&attempt, at(1)).is_ok());
        }
        assert_eq!(tried, 10, "whoever knows the password has ten codes, whatever its addresses");
        let attempt = throttle.admit("ada", ip(HOME), at(1)).unwrap();
        assert!(attempt.known && throttle.admit_code(&attempt, at(1)).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let mut throttle = Throttle::default();
        for i in 0..20_000 {
            let name = format!("name{i}");
            let attempt = throttle.admit(&name, other(i), at(u64::from(i))).unwrap();
            let _ = throttle.admit_code(&attempt, at(u64::from(i)));
            if i % 2 == 0 {
                throttle.succeeded(&attempt, at(u64::from(i)));
            }
        }
        let Throttle { pairs, addresses, accounts, codes, codes_known, known } = &throttle;
        let sizes = [pairs.0.len(), addresses.0.len(), accounts.0.len(), codes.0.len()];
        assert!(sizes.iter().all(|size| *size <= ENTRIES_MAX), "{sizes:?}");
        assert!(codes_known.0.len() <= ENTRIES_MAX && known.len() <= ENTRIES_MAX);
        let long = "x".repeat(1 << 16);
        assert!(fails(&mut throttle, &long, ip(HOME), 20_000));
        assert!(throttle.pairs.0.keys().all(|(name, _)| name.len() <= NAME_BYTES_MAX));
    }

    proptest! {
        /// Whatever an attacker does from elsewhere, the owner gets in from where it was before,
        /// at once; and no address tries one account more often than the waits allow.
        #[test]
        fn nobody_is_locked_out(
            steps in proptest::collection::vec((0_u32..6, 0_u64..120, any::<bool>()), 1..300),
        ) {
            let mut throttle = Throttle::default();
            signs_in(&mut throttle, "ada", ip(HOME), 0).unwrap();
            let (mut now, mut tried) = (0, [0_u32; 6]);
            for (from, pause, also_right) in steps {
                now += pause;
                if fails(&mut throttle, "ada", other(from), now) {
                    tried[usize::try_from(from).unwrap()] += 1;
                }
                if also_right {
                    let _ = signs_in(&mut throttle, "mallory", other(from), now);
                }
                prop_assert!(signs_in(&mut throttle, "ada", ip(HOME), now).is_ok());
            }
            for tried in tried {
                // Five at once, then waits of 1, 2, 4, … seconds, or starting anew after an hour.
                let rounds = now / 3600 + 1;
                let most = rounds * (5 + 1 + u64::from((now + 2).ilog2()) + now / 900);
                prop_assert!(u64::from(tried) <= most, "{tried} > {most} in {now} s");
            }
        }
    }
}
