//! Passwords: argon2id (RFC 9106), with a key that the database alone does not give away.
//!
//! A hash costs memory and time on purpose, so a bounded number is computed at once and a bounded
//! number waits; whoever comes beyond that is told to try again. Parameters are kept with each
//! hash: they can be raised, and a password is hashed anew when it is next seen. What may be a
//! password, and who may try one how often, is decided elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::secret::{Entropy, EntropyError, SecretBytes, random_bytes};
use crate::store::PasswordHash;

/// Bytes of a salt (RFC 9106 §3.1 recommends 16).
const SALT_BYTES: usize = 16;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Longest password, in bytes: hashing it must not cost more than argon2 itself.
pub(in crate::admin) const PASSWORD_BYTES_MAX: usize = 1024;
/// Most memory that a stored hash may ask for, in KiB: a damaged record must not take it all.
const MEMORY_KIB_MAX: u32 = 4 << 20;
/// Most passes that a stored hash may ask for.
const ITERATIONS_MAX: u32 = 1 << 16;

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) struct Cost {
    /// Memory, in KiB.
    pub(in crate::admin) memory_kib: u32,
    /// Passes over it.
    pub(in crate::admin) iterations: u32,
}

/// Why a password was not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum HashError {
    /// As many are being hashed and are waiting as may be.
    Busy,
    /// There was no salt to be had.
    Entropy(EntropyError),
    /// What is stored is no hash, or asks for more than there may be.
    Unusable,
}

/// Whose password it is, as far as the order of waiting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Standing {
    /// Somebody who signed in from there before, or who is signed in: goes first, and may take
    /// every place.
    Known,
    /// Anybody: may take half of the places to wait, so that a crowd does not shut out the others.
    Unknown,
}

/// Hashes passwords and checks them, a bounded number at once.
pub(in crate::admin) struct Passwords {
    key: SecretBytes<32>,
    gate: Gate,
    computed: AtomicU64,
}

impl Passwords {
    /// With a key derived from the master key.
    pub(in crate::admin) fn new(
        key: SecretBytes<32>,
        running_max: usize,
        waiting_max: usize,
    ) -> Self {
        Self { key, gate: Gate::new(running_max, waiting_max), computed: AtomicU64::new(0) }
    }

    /// What to keep of `password`.
    pub(in crate::admin) fn hash(
        &self,
        entropy: &dyn Entropy,
        password: &[u8],
        cost: Cost,
        standing: Standing,
    ) -> Result<PasswordHash, HashError> {
        let salt: [u8; SALT_BYTES] = random_bytes(entropy).map_err(HashError::Entropy)?;
        let _place = self.gate.enter(standing)?;
        let hash = self.compute(password, &salt, cost)?;
        Ok(PasswordHash::new(format!(
            "$argon2id$v=19$m={},t={},p=1${}${}",
            cost.memory_kib,
            cost.iterations,
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(hash),
        )))
    }

    /// Whether `password` is what `kept` was made of.
    pub(in crate::admin) fn verify(
        &self,
        password: &[u8],
        kept: &PasswordHash,
        standing: Standing,
    ) -> Result<bool, HashError> {
        let kept = Parsed::of(kept).ok_or(HashError::Unusable)?;
        let _place = self.gate.enter(standing)?;
        let hash = self.compute(password, &kept.salt, kept.cost)?;
        Ok(hash.as_slice().ct_eq(&kept.hash).into())
    }

    /// Costs what [`Self::verify`] costs and says no: for a name that nobody has.
    pub(in crate::admin) fn refuse(
        &self,
        password: &[u8],
        cost: Cost,
        standing: Standing,
    ) -> Result<bool, HashError> {
        let _place = self.gate.enter(standing)?;
        let hash = self.compute(password, &[0; SALT_BYTES], cost)?;
        let never: bool = hash.as_slice().ct_eq(&[0; HASH_BYTES]).into();
        Ok(never & false)
    }

    /// How many hashes have been computed.
    #[cfg(test)]
    pub(in crate::admin) fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    fn compute(
        &self,
        password: &[u8],
        salt: &[u8],
        cost: Cost,
    ) -> Result<Zeroizing<[u8; HASH_BYTES]>, HashError> {
        self.computed.fetch_add(1, Ordering::Relaxed);
        let unusable = |_| HashError::Unusable;
        let params = Params::new(cost.memory_kib, cost.iterations, 1, Some(HASH_BYTES));
        let params = params.map_err(unusable)?;
        let key = self.key.expose();
        let argon2 = Argon2::new_with_secret(key, Algorithm::Argon2id, Version::V0x13, params);
        let mut hash = Zeroizing::new([0; HASH_BYTES]);
        let hashed = argon2.map_err(unusable)?.hash_password_into(password, salt, hash.as_mut());
        hashed.map_err(unusable)?;
        Ok(hash)
    }
}

/// What `kept` cost.
pub(in crate::admin) fn cost_of(kept: &PasswordHash) -> Option<Cost> {
    Parsed::of(kept).map(|parsed| parsed.cost)
}

struct Parsed {
    cost: Cost,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Parsed {
    fn of(kept: &PasswordHash) -> Option<Self> {
        let rest = kept.as_str().strip_prefix("$argon2id$v=19$m=")?;
        let (memory_kib, rest) = rest.split_once(",t=")?;
        let (iterations, rest) = rest.split_once(",p=1$")?;
        let (salt, hash) = rest.split_once('$')?;
        let cost =
            Cost { memory_kib: memory_kib.parse().ok()?, iterations: iterations.parse().ok()? };
        let salt = STANDARD_NO_PAD.decode(salt).ok()?;
        let hash = STANDARD_NO_PAD.decode(hash).ok()?;
        let usable = cost.memory_kib <= MEMORY_KIB_MAX
            && (1..=ITERATIONS_MAX).contains(&cost.iterations)
            && salt.len() == SALT_BYTES
            && hash.len() == HASH_BYTES;
        usable.then_some(Self { cost, salt, hash })
    }
}

/// Lets a bounded number in at once, and a bounded number wait.
struct Gate {
    running_max: usize,
    waiting_max: usize,
    crowd: Mutex<Crowd>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Crowd {
    running: usize,
    waiting_known: usize,
    waiting_unknown: usize,
}

impl Crowd {
    fn waiting(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Known => &mut self.waiting_known,
            Standing::Unknown => &mut self.waiting_unknown,
        }
    }
}

/// A place among those that run; free again when dropped.
struct Place<'g>(&'g Gate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.left.notify_all();
    }
}

impl Gate {
    fn new(running_max: usize, waiting_max: usize) -> Self {
        let crowd = Mutex::new(Crowd::default());
        Self { running_max, waiting_max, crowd, left: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_run(&self, crowd: &Crowd, standing: Standing) -> bool {
        let first = standing == Standing::Known || crowd.waiting_known == 0;
        crowd.running < self.running_max && first
    }

    fn may_wait(&self, crowd: &Crowd, standing: Standing) -> bool {
        match standing {
            Standing::Known => crowd.waiting_known + crowd.waiting_unknown < self.waiting_max,
            Standing::Unknown => crowd.waiting_unknown < self.waiting_max.div_ceil(2),
        }
    }

    /// Waits for a place, if there is room to wait.
    fn enter(&self, standing: Standing) -> Result<Place<'_>, HashError> {
        let mut crowd = self.lock();
        if !self.may_run(&crowd, standing) {
            if !self.may_wait(&crowd, standing) {
                return Err(HashError::Busy);
            }
            *crowd.waiting(standing) += 1;
            while crowd.running >= self.running_max
                || (standing == Standing::Unknown && crowd.waiting_known > 0)
            {
                crowd = self.left.wait(crowd).unwrap_or_else(PoisonError::into_inner);
            }
            *crowd.waiting(standing) -= 1;
            // One that waited behind this one may be able to go too.
            self.left.notify_all();
        }
        crowd.running += 1;
        Ok(Place(self))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::secret::SystemEntropy;

    const CHEAP: Cost = Cost { memory_kib: 8, iterations: 1 };

    fn passwords(key: u8) -> Passwords {
        Passwords::new(SecretBytes::new([key; 32]), 1, 1)
    }

    #[test]
    fn a_password_is_known_again_and_nothing_else_is() {
        let (passwords, entropy) = (passwords(1), SystemEntropy::new());
        let hash =
            |text: &str| passwords.hash(&entropy, text.as_bytes(), CHEAP, Standing::Known).unwrap();
        let kept = hash("correct horse");
        assert!(kept.as_str().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
        assert_eq!(cost_of(&kept), Some(CHEAP));
        assert_ne!(kept, hash("correct horse"), "salted");
        for (text, right) in [("correct horse", true), ("correct horse ", false), ("", false)] {
            assert_eq!(passwords.verify(text.as_bytes(), &kept, Standing::Unknown), Ok(right));
        }
        // The database without the master key is of no use.
        let other = self::passwords(2);
        assert_eq!(other.verify(b"correct horse", &kept, Standing::Known), Ok(false));
        assert_eq!(format!("{kept:?}"), "[password hash]");
        assert_eq!(passwords.refuse(b"", CHEAP, Standing::Known), Ok(false));
    }

    #[test]
    fn a_hash_of_before_verifies_after_the_parameters_were_raised() {
        let (passwords, entropy) = (passwords(1), SystemEntropy::new());
        let old = passwords.hash(&entropy, b"x", CHEAP, Standing::Known).unwrap();
        let more = Cost { memory_kib: 16, iterations: 2 };
        let new = passwords.hash(&entropy, b"x", more, Standing::Known).unwrap();
        for kept in [&old, &new] {
            assert_eq!(passwords.verify(b"x", kept, Standing::Known), Ok(true));
        }
        assert_eq!((cost_of(&old), cost_of(&new)), (Some(CHEAP), Some(more)));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let passwords = passwords(1);
        let good = passwords.hash(&SystemEntropy::new(), b"x", CHEAP, Standing::Known).unwrap();
        let text = good.as_str();
        let bad = [
            String::new(),
            text.replace("argon2id", "argon2i"),
            text.replace("m=8", "m=99999999999"),
            text.replace("m=8", "m=8388608"),
            text.replace("t=1", "t=0"),
            text.replace("p=1", "p=2"),
            format!("{text}AA"),
            text.split_at(text.len() - 4).0.to_owned(),
        ];
        for bad in bad {
            let verified = passwords.verify(b"x", &PasswordHash::new(bad.clone()), Standing::Known);
            assert_eq!(verified, Err(HashError::Unusable), "{bad}");
        }
        assert_eq!(passwords.computed(), 1, "and costs nothing");
    }

    /// As many run at once as may; as many wait as may, strangers in half of the places; the rest
    /// is told at once. Who is known goes first. No clock: every thread is met at a gate.
    #[test]
    fn so_many_at_once_and_so_many_wait() {
        let gate = Gate::new(2, 4);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let order = Mutex::new(Vec::new());
        let waiting = |known, unknown| {
            while {
                let crowd = gate.lock();
                (crowd.waiting_known, crowd.waiting_unknown) != (known, unknown)
            } {
                thread::yield_now();
            }
        };
        let (go, hold) = sync_channel::<()>(0);
        let hold = Mutex::new(hold);
        let work = |standing: Standing| {
            let place = gate.enter(standing);
            let Ok(_place) = place else { return };
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            order.lock().unwrap().push(standing);
            let _ = hold.lock().unwrap().recv();
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| work(Standing::Unknown));
            }
            while inside.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            for (number, standing) in [Standing::Unknown, Standing::Unknown].into_iter().enumerate()
            {
                scope.spawn(move || work(standing));
                waiting(0, number + 1);
            }
            assert!(matches!(gate.enter(Standing::Unknown), Err(HashError::Busy)));
            for number in 0..2 {
                scope.spawn(|| work(Standing::Known));
                waiting(number + 1, 2);
            }
            assert!(matches!(gate.enter(Standing::Known), Err(HashError::Busy)), "all is full");
            for _ in 0..6 {
                go.send(()).unwrap();
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 2);
        let order = order.into_inner().unwrap();
        assert_eq!(order[2..4], [Standing::Known; 2], "who is known goes first: {order:?}");
        assert_eq!(order.len(), 6);
        assert!(gate.enter(Standing::Unknown).is_ok(), "every place is free again");
    }

    #[test]
    fn a_panic_gives_its_place_back() {
        let gate = Gate::new(1, 1);
        thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _place = gate.enter(Standing::Known);
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
        });
        assert!(gate.enter(Standing::Known).is_ok());
    }
}
