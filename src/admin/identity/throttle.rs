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
