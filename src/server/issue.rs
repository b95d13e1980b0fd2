//! The messages by which the data plane has a widget token issued (spec §2.1).
//!
//! The data plane decides whether a token may be issued and with what; only the admin plane, which
//! owns the store, signs it and records it durably before the answer goes out. The channel between
//! them is bounded: when it is full the request is answered 503.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Timestamp;
use crate::id::{KeyId, ShopId, TokenId};
use crate::secret::SecretText;

/// How many requests may wait for the admin plane; see [`channel`].
pub const ISSUE_QUEUE_MAX: usize = 256;

/// The data plane's end.
pub type IssueSender = mpsc::Sender<IssueRequest>;

/// The admin plane's end.
pub type IssueReceiver = mpsc::Receiver<IssueRequest>;

/// A channel with room for [`ISSUE_QUEUE_MAX`] requests.
#[must_use]
pub fn channel() -> (IssueSender, IssueReceiver) {
    mpsc::channel(ISSUE_QUEUE_MAX)
}

/// A widget token to issue; everything in it was checked.
#[derive(Debug)]
pub struct IssueRequest {
    /// For which shop.
    pub shop: ShopId,
    /// On the authority of which API key.
    pub key_id: KeyId,
    /// Scopes, space-separated; `*` is every scope.
    pub scopes: String,
    /// How long it is to live.
    pub lifetime: Duration,
    /// Where the answer goes; nobody waits any more if it is closed.
    pub reply: oneshot::Sender<Result<IssuedToken, IssueError>>,
}

/// A token that was issued and durably recorded.
#[derive(Debug)]
pub struct IssuedToken {
    /// Its text.
    pub token: SecretText,
    /// When it stops verifying.
    pub expires_at: Timestamp,
    /// Its scopes, space-separated.
    pub scopes: String,
    /// Its public id, for the log.
    pub id: TokenId,
}

/// Why no token was issued. Says nothing a client could use; the admin plane logs the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The shop or the key is gone, or no longer good, since the decision.
    #[error("the shop or its API key was removed or disabled meanwhile")]
    Gone,
    /// The store could not record it.
    #[error("the store could not record the token")]
    Store,
}
