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
