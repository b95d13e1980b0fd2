//! What can be done to a [`Node`]: each operation is one store transaction and one
//! patch of the snapshot, and is done when it returns.
//!
//! Each takes who asks, and checks first whether it may. All of it blocks on the disk;
//! asynchronous callers go through `spawn_blocking`. How a result is spelt in JSON is theirs.

pub mod admin_tokens;
pub mod assertion_keys;
pub mod audit;
pub mod backups;
pub mod configuration;
pub mod events;
pub mod explain;
pub mod explanation;
pub mod issuers;
pub mod keys;
pub mod limits;
mod operator_rules;
pub mod operators;
pub mod overview;
mod precondition;
mod pruning;
pub mod second_factor;
pub mod sessions;
pub mod set_up;
pub mod shops;
pub mod sign_in;
pub mod signing_keys;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod transfer;
pub mod usage;
mod validate;
pub mod widget_tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::caller::{Permission, Why, refusal};
use super::node::Node;
use crate::clock::Timestamp;
use crate::secret::{EntropyError, SecretText};
use crate::store::{IdempotencyRecord, StoreError, WriteTx};

pub use self::precondition::{Precondition, Version, Versions};
pub use self::pruning::Pruning;
pub use self::validate::FieldProblem;

/// What there was none of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is its `as_str`")]
pub enum Resource {
    Shop,
    Key,
    WidgetToken,
    AdminToken,
    Issuer,
    Limit,
    Backup,
    Operator,
    Session,
}

impl Resource {
    /// The resource, as a person calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Key => "API key",
            Self::WidgetToken => "widget token",
            Self::AdminToken => "admin token",
            Self::Issuer => "issuer",
            Self::Limit => "limit override",
            Self::Backup => "backup",
            Self::Operator => "operator",
            Self::Session => "session",
        }
    }
}

/// Why an operation was not done. It left no trace.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// It names something that does not exist.
    #[error("there is no such {}", .0.as_str())]
    NotFound(Resource),
    /// Whoever asks may not.
    #[error("{}", refusal(*needed, *why))]
    Forbidden {
        /// What it takes.
        needed: Permission,
        /// What is in the way.
        why: Why,
    },
    /// What exists is in the way.
    #[error("{0}")]
    Conflict(String),
    /// Its input is not acceptable; every fault at once.
    #[error("{}", validate::summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// It was to be made only if nobody had changed the thing since, and somebody had.
    #[error("it was changed since; read it again and decide anew")]
    PreconditionFailed,
    /// The same idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new one")]
    IdempotencyConflict,
    /// Too many wrong attempts; this one was not looked at.
    #[error("too many failed attempts; try again in {} s", wait.as_secs().saturating_add(1))]
    TooMany {
        /// How long to wait.
        wait: Duration,
    },
    /// As many passwords are being hashed as may be.
    #[error("too many passwords are being checked at this moment; try again in a few seconds")]
    Busy,
    /// A password cannot be hashed, or a stored hash cannot be read.
    #[error("the password cannot be checked; reset it: latchkey operator reset-password")]
    PasswordUnusable,
    /// It ended before its time; the log says more.
    #[error("the operation failed; the log says more")]
    Interrupted,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody more can listen to refusals now.
    #[error(transparent)]
    TooManyListeners(#[from] events::NoPlace),
    /// A file or folder of the machine is not to be used.
    #[error("{0}")]
    Files(String),
    /// There is no randomness to make a secret from.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl OperationError {
    /// One fault of the input.
    #[must_use]
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldProblem { field: field.into(), problem: problem.into() }])
    }
}

/// What a creation made. The secret is here and nowhere else.
#[derive(Debug, Clone)]
pub struct Created<T> {
    /// What was made.
    pub record: T,
    /// Its secret, if it has one and was made just now.
    pub secret: Option<SecretText>,
    /// It had been made by an earlier request with the same idempotency key.
    pub replayed: bool,
}

impl<T> Created<T> {
    fn new(record: T, secret: Option<SecretText>) -> Self {
        Self { record, secret, replayed: false }
    }

    fn replayed(record: T) -> Self {
        Self { record, secret: None, replayed: true }
    }
}

/// An idempotency key, bound to who uses it and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the principal and the key.
    pub key: [u8; 32],
    /// Digest of the request.
    pub fingerprint: [u8; 32],
}

impl Idempotency {
    /// How long a repetition is recognized.
    pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

    /// What the same request made before, by the text it was noted under.
    fn replay(
        this: Option<&Self>,
        tx: &WriteTx,
        now: Timestamp,
    ) -> Result<Option<String>, OperationError> {
        let Some(this) = this else { return Ok(None) };
        let found = tx.idempotency(&this.key)?;
        match found.filter(|made| made.created_at + Self::RETENTION > now) {
            None => Ok(None),
            Some(made) if made.fingerprint == this.fingerprint => Ok(Some(made.resource)),
            Some(_) => Err(OperationError::IdempotencyConflict),
        }
    }

    /// Notes what was made, in the transaction that makes it.
    fn note(
        this: Option<&Self>,
        tx: &mut WriteTx,
        resource: String,
        now: Timestamp,
    ) -> Result<(), OperationError> {
        let Some(this) = this else { return Ok(()) };
        let made = IdempotencyRecord { fingerprint: this.fingerprint, resource, created_at: now };
        Ok(tx.put_idempotency(&this.key, &made)?)
    }
}

/// What an idempotency key made exists no more.
fn gone(resource: Resource) -> OperationError {
    OperationError::Conflict(format!(
        "the {} that this Idempotency-Key made has been deleted since; use a new one",
        resource.as_str()
    ))
}

/// One page of a list, and whether more follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of their ids.
    pub items: Vec<T>,
    /// Whether there are items after the last of these.
    pub more: bool,
}

impl<T> Page<T> {
    /// Of up to `limit + 1` items, the first `limit`.
    fn of(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

/// The turn at work that takes so much that it is done once at a time, however many ask.
#[derive(Debug)]
struct OneAtATime(Taken);

/// Whether somebody has the turn.
pub(in crate::admin) type Taken = Arc<AtomicBool>;

impl OneAtATime {
    /// Takes the turn; a conflict with `message` if somebody has it.
    fn take(taken: &Taken, message: &str) -> Result<Self, OperationError> {
        if taken.swap(true, Ordering::AcqRel) {
            return Err(OperationError::Conflict(message.to_owned()));
        }
        Ok(Self(Arc::clone(taken)))
    }
}

impl Drop for OneAtATime {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What operations have in common: reading the present time of `node` for records.
fn now(node: &Node) -> Timestamp {
    node.now().unix
}
