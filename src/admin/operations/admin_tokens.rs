//! Tokens for the admin plane: `lka_` and 40 lowercase hex digits.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::validate::Faults;
use super::{Created, Idempotency, OperationError, Page, Resource, gone, now};
use crate::admin::audit::{self, Action, Subject, view};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::{AdminToken, Node};
use crate::clock::Timestamp;
use crate::id::AdminTokenId;
use crate::secret::{Entropy, EntropyError, SecretText, random_bytes};
use crate::store::{AdminTokenRecord, Role, WriteTx};

/// How the text of a token begins.
pub const PREFIX: &str = "lka_";

/// Random bytes in a token: 160 bits.
const RANDOM_BYTES: usize = 20;

/// Most tokens there can be; each is held in memory.
pub const ADMIN_TOKENS_MAX: usize = 1000;

/// What a token is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTokenFields {
    /// What people call it; not empty, since this is how its owner is known.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it stops verifying; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// Creates a token. Its text is in the result and nowhere else.
pub fn create(
    node: &Node,
    caller: &Caller,
    fields: AdminTokenFields,
    idempotency: Option<&Idempotency>,
) -> Result<Created<AdminTokenRecord>, OperationError> {
    caller.require(Permission::AdminTokensWrite)?;
    let now = now(node);
    let mut faults = Faults::default();
    faults.name("name", &fields.name, false);
    faults.expiry("expires_at", fields.expires_at, now);
    faults.into_result()?;
    node.mutate_admin_tokens(
        |tx| {
            if let Some(made) = Idempotency::replay(idempotency, tx, now)? {
                return replayed(tx, &made);
            }
            if tx.admin_tokens(None, ADMIN_TOKENS_MAX)?.len() >= ADMIN_TOKENS_MAX {
                let message = format!(
                    "there are {ADMIN_TOKENS_MAX} admin tokens, the most there \
                     can be; revoke some"
                );
                return Err(OperationError::Conflict(message));
            }
            let secret = mint(node.entropy.as_ref())?;
            let AdminTokenFields { name, role, expires_at } = fields;
            let record = AdminTokenRecord {
                id: AdminTokenId(u64::from_be_bytes(random_bytes(node.entropy.as_ref())?)),
                name,
                digest: node.pepper().digest(secret.expose().as_bytes()),
                role,
                created_at: now,
                expires_at,
                last_used_at: None,
            };
            tx.put_admin_token(&record)?;
            let (subject, after) =
                (Subject::admin_token(record.id), Some(view::admin_token(&record)));
            audit::record(tx, caller, now, Action::AdminTokenCreated, subject, None, after)?;
            Idempotency::note(idempotency, tx, record.id.to_string(), now)?;
            Ok(Created::new(record, Some(secret)))
        },
        |index, created| {
            if !created.replayed {
                let token = AdminToken::new(created.record.clone());
                index.insert(created.record.digest, Arc::new(token));
            }
        },
    )
}

/// Up to `limit` tokens, from the first after `after`.
pub fn list(
    node: &Node,
    caller: &Caller,
    after: Option<AdminTokenId>,
    limit: usize,
) -> Result<Page<AdminTokenRecord>, OperationError> {
    caller.require(Permission::AdminTokensRead)?;
    let found = node.store.read(|tx| tx.admin_tokens(after, limit.saturating_add(1)))?;
    let index = node.admin_tokens.load();
    let live = |mut record: AdminTokenRecord| {
        if let Some(token) = index.get(&record.digest) {
            record.last_used_at = record.last_used_at.max(last_use(token));
        }
        record
    };
    Ok(Page::of(found.into_iter().map(live).collect(), limit))
}

/// Revokes a token. The last owner that never expires stays: whoever revokes it would lock
/// everyone out who cannot reach the unix socket.
pub fn revoke(node: &Node, caller: &Caller, id: AdminTokenId) -> Result<(), OperationError> {
    caller.require(Permission::AdminTokensWrite)?;
    let now = now(node);
    node.mutate_admin_tokens(
        |tx| {
            let Some(token) = tx.admin_token(id)? else {
                return Err(OperationError::NotFound(Resource::AdminToken));
            };
            let lasting = |t: &AdminTokenRecord| t.role == Role::Owner && t.expires_at.is_none();
            let all = tx.admin_tokens(None, usize::MAX)?;
            if lasting(&token) && !all.iter().any(|other| other.id != id && lasting(other)) {
                let message = "this is the last owner's token that does not expire; create \
                     another first";
                return Err(OperationError::Conflict(message.to_owned()));
            }
            tx.delete_admin_token(id)?;
            let (subject, before) = (Subject::admin_token(id), Some(view::admin_token(&token)));
            audit::record(tx, caller, now, Action::AdminTokenRevoked, subject, before, None)?;
            Ok(token.digest)
        },
        |index, digest| drop(index.remove(digest)),
    )
    .map(drop)
}

/// Why a bearer token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminTokenFailure {
    /// Malformed, unknown or revoked.
    Invalid,
    /// Past its expiry.
    Expired,
}

/// The token that `text` is, if it is one and has not expired. Notes that it was used.
pub fn authenticate(node: &Node, text: &str) -> Result<AdminTokenRecord, AdminTokenFailure> {
    if !is_well_formed(text) {
        return Err(AdminTokenFailure::Invalid);
    }
    let digest = node.pepper().digest(text.as_bytes());
    let index = node.admin_tokens.load();
    // `Digest` compares in constant time.
    let token = index.get(&digest).ok_or(AdminTokenFailure::Invalid)?;
    let now = now(node);
    if token.record.expires_at.is_some_and(|at| now >= at) {
        return Err(AdminTokenFailure::Expired);
    }
    token.last_used_ms.fetch_max(now.unix_ms(), Ordering::Relaxed);
    Ok(token.record.clone())
}

/// Writes when tokens were last used; how many moved.
pub fn flush_last_use(node: &Node) -> Result<usize, OperationError> {
    let index = node.admin_tokens.load_full();
    node.mutate(|tx, _, _| {
        let mut moved = 0;
        for token in index.values() {
            let Some(at) = last_use(token) else { continue };
            let stored = tx.admin_token(token.record.id)?;
            if let Some(mut record) = stored.filter(|r| r.last_used_at < Some(at)) {
                record.last_used_at = Some(at);
                tx.put_admin_token(&record)?;
                moved += 1;
            }
        }
        Ok(moved)
    })
}

fn last_use(token: &AdminToken) -> Option<Timestamp> {
    let ms = token.last_used_ms.load(Ordering::Relaxed);
    (ms > 0).then(|| Timestamp::from_unix_ms(ms))
}

fn replayed(tx: &WriteTx, made: &str) -> Result<Created<AdminTokenRecord>, OperationError> {
    let id = AdminTokenId::parse(made).map_err(|_| gone(Resource::AdminToken))?;
    Ok(Created::replayed(tx.admin_token(id)?.ok_or_else(|| gone(Resource::AdminToken))?))
}

fn mint(entropy: &dyn Entropy) -> Result<SecretText, EntropyError> {
    let bytes: [u8; RANDOM_BYTES] = random_bytes(entropy)?;
    let mut text = String::with_capacity(PREFIX.len() + 2 * RANDOM_BYTES);
    text.push_str(PREFIX);
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(SecretText::new(text))
}

fn is_well_formed(text: &str) -> bool {
    let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix(PREFIX)
        .is_some_and(|digits| digits.len() == 2 * RANDOM_BYTES && digits.bytes().all(lower_hex))
}
