//! Who may sign in and who is: what is held in memory of operators and their sessions, and what
//! guards the way in.
//!
//! The store has the truth; [`Index`] is what of it every request needs, replaced as a whole like
//! the snapshot is. [`passwords`] hashes, [`throttle`] says who may try, [`totp`] is codes. What
//! an operator can do about any of it is [`operations`](super::operations)'.

pub(super) mod passwords;
pub(super) mod refusals;
pub(super) mod throttle;
pub(super) mod totp;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::passwords::{Cost, Passwords};
use self::refusals::Refusals;
use self::throttle::Throttle;
use crate::clock::{Now, Timestamp};
use crate::config::{Config, PasswordsConfig};
use crate::id::OperatorId;
use crate::secret::{Digest, SecretBytes};
use crate::store::operators::{TOTP_BYTES, folded};
use crate::store::{OperatorRecord, ReadTx, SessionRecord, StoreError};

/// A session, as cookies are held against it.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) record: SessionRecord,
    /// When it was last used, Unix milliseconds; zero: not since the start.
    last_seen_ms: AtomicU64,
}

impl LiveSession {
    /// When it was last used.
    pub(super) fn last_seen_at(&self) -> Timestamp {
        let ms = self.last_seen_ms.load(Ordering::Relaxed);
        self.record.last_seen_at.max(Timestamp::from_unix_ms(ms))
    }

    /// Notes that it is used now.
    pub(super) fn touch(&self, now: Timestamp) {
        self.last_seen_ms.fetch_max(now.unix_ms(), Ordering::Relaxed);
    }

    /// Whether it has not ended by itself.
    pub(super) fn is_good(&self, now: Timestamp, idle_timeout: Duration) -> bool {
        now < self.record.expires_at && now < self.last_seen_at() + idle_timeout
    }
}

/// Operators and sessions, as the store has them.
#[derive(Debug, Default, Clone)]
pub(super) struct Index {
    pub(super) operators: HashMap<OperatorId, Arc<OperatorRecord>>,
    names: HashMap<String, OperatorId>,
    pub(super) sessions: HashMap<Digest, Arc<LiveSession>>,
}

impl Index {
    /// The operator of this name, in whatever case.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<OperatorRecord>> {
        self.operators.get(self.names.get(&folded(name))?)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::PutOperator(record) => {
                self.remove_operator(record.id);
                self.names.insert(folded(&record.name), record.id);
                self.operators.insert(record.id, Arc::new(*record));
            }
            Change::RemoveOperator(id) => self.remove_operator(id),
            Change::PutSession(record) => {
                let last_seen_ms = AtomicU64::new(0);
                let session = LiveSession { record, last_seen_ms };
                self.sessions.insert(session.record.digest, Arc::new(session));
            }
            Change::RemoveSession(digest) => drop(self.sessions.remove(&digest)),
        }
    }

    fn remove_operator(&mut self, id: OperatorId) {
        if let Some(old) = self.operators.remove(&id) {
            self.names.remove(&folded(&old.name));
        }
    }
}

/// What a committed transaction changes in the [`Index`].
#[derive(Debug)]
pub(super) enum Change {
    PutOperator(Box<OperatorRecord>),
    RemoveOperator(OperatorId),
    PutSession(SessionRecord),
    RemoveSession(Digest),
}

/// The one-time way to the first operator.
#[derive(Debug)]
pub(super) struct SetUp {
    pub(super) digest: Digest,
    pub(super) until: Timestamp,
}

/// A second factor that waits for its first code.
#[derive(Debug, Clone)]
pub(super) struct Enrolment {
    pub(super) secret: SecretBytes<TOTP_BYTES>,
    pub(super) until: Timestamp,
}

/// All of it.
pub(super) struct Identity {
    pub(super) index: ArcSwap<Index>,
    pub(super) passwords: Passwords,
    throttle: Mutex<Throttle>,
    refusals: Mutex<Refusals>,
    set_up: Mutex<Option<SetUp>>,
    enrolments: Mutex<HashMap<OperatorId, Enrolment>>,
}

impl Identity {
    /// With what the store holds; `key` is the one passwords are hashed under.
    pub(super) fn load(
        tx: &ReadTx,
        config: &Config,
        key: SecretBytes<32>,
        now: Now,
    ) -> Result<Self, StoreError> {
        let mut index = Index::default();
        let mut throttle = Throttle::default();
        for operator in tx.operators(None, usize::MAX)? {
            index.apply(Change::PutOperator(Box::new(operator)));
        }
        for session in tx.sessions()? {
            let operator = index.operators.get(&session.operator);
            if let (Some(operator), Some(from)) = (operator, session.address) {
                throttle.remember(&operator.name, from, now.mono);
            }
            index.apply(Change::PutSession(session));
        }
        let PasswordsConfig { concurrent_max, waiting_max, .. } = &config.admin.passwords;
        Ok(Self {
            index: ArcSwap::from_pointee(index),
            passwords: Passwords::new(key, concurrent_max.get(), waiting_max.get()),
            throttle: Mutex::new(throttle),
            refusals: Mutex::default(),
            set_up: Mutex::default(),
            enrolments: Mutex::default(),
        })
    }

    /// Puts the changes of a committed transaction in force. Called under the writers' lock.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut next = Index::clone(&self.index.load());
        for change in changes {
            next.apply(change);
        }
        self.index.store(Arc::new(next));
    }

    pub(super) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_up(&self) -> MutexGuard<'_, Option<SetUp>> {
        self.set_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enrolments(&self) -> MutexGuard<'_, HashMap<OperatorId, Enrolment>> {
        self.enrolments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a new hash costs.
pub(super) fn cost(config: &Config) -> Cost {
    let passwords = &config.admin.passwords;
    let memory_kib = u32::try_from(passwords.memory / 1024).unwrap_or(u32::MAX);
    Cost { memory_kib, iterations: passwords.iterations.get() }
}
