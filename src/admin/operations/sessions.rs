//! Sessions of operators in the dashboard: a random cookie, of which only a digest is kept.
//!
//! A session ends when it was not used for a while, when it has lasted long enough, when its
//! operator says so or is changed in what it may do, and when there are too many. How one begins
//! is [`sign_in`](super::sign_in)'s.

use std::cmp::Reverse;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{OperationError, Page, Resource, now};
use crate::admin::audit::{Action, Subject, SubjectKind, record};
use crate::admin::caller::{Caller, Permission, Scopes, Shops, Via};
use crate::admin::identity::Change;
use crate::admin::node::Node;
use crate::admin::patch::Patch;
use crate::clock::Timestamp;
use crate::id::{OperatorId, SessionId};
use crate::secret::{Digest, SecretText, random_bytes};
use crate::store::{OperatorRecord, PRUNE_MAX, Role, SessionRecord, StoreError, WriteTx};

/// Random bytes in a cookie: 256 bits.
const COOKIE_BYTES: usize = 32;
/// Characters of a cookie: base64url of its bytes.
const COOKIE_CHARS: usize = 43;
/// Most characters of a browser's name for itself that are kept.
const USER_AGENT_CHARS_MAX: usize = 120;
/// Most sessions whose times are written in one transaction.
const TOUCH_MAX: usize = 5_000;

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its public id.
    pub id: SessionId,
    /// Whose it is.
    pub operator: OperatorId,
    /// Who asks, for operations.
    pub caller: Caller,
    /// What forms carry, so that no other site can fill them in: the same for the whole session.
    pub csrf: SecretText,
    /// When it began.
    pub signed_in_at: Timestamp,
    /// When it ends, however busy.
    pub expires_at: Timestamp,
    /// Whether its operator has a password to change.
    pub has_password: bool,
    /// Whether its operator has a second factor.
    pub has_second_factor: bool,
}

/// Whoever the cookie's value says, if it is a session that has not ended. Notes that it is used:
/// in memory, and in the store by and by.
#[must_use]
pub fn authenticate(node: &Node, cookie_value: &str, address: IpAddr) -> Option<Session> {
    let well_formed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if cookie_value.len() != COOKIE_CHARS || !cookie_value.bytes().all(well_formed) {
        return None;
    }
    let index = node.identity.index.load();
    // `Digest` compares in constant time.
    let live = index.sessions.get(&digest(node, cookie_value))?;
    let operator = index.operators.get(&live.record.operator)?;
    let now = now(node);
    let idle_timeout = node.config.load().admin.sessions.idle_timeout;
    if operator.disabled || !live.is_good(now, idle_timeout) {
        return None;
    }
    live.touch(now);
    Some(session(node, operator, &live.record, cookie_value, address))
}

/// Whether the session has not ended, for what goes on after the request that began it. Does not
/// count as using it.
#[must_use]
pub fn goes_on(node: &Node, id: SessionId) -> bool {
    let index = node.identity.index.load();
    let idle_timeout = node.config.load().admin.sessions.idle_timeout;
    index.sessions.values().find(|live| live.record.id == id).is_some_and(|live| {
        let operator = index.operators.get(&live.record.operator);
        operator.is_some_and(|operator| !operator.disabled) && live.is_good(now(node), idle_timeout)
    })
}

/// Ends the caller's own session.
pub fn sign_out(node: &Node, caller: &Caller, id: SessionId) -> Result<(), OperationError> {
    let Via::Operator(operator) = caller.via else {
        return Err(OperationError::NotFound(Resource::Session));
    };
    end(node, caller, id, Some(operator), Action::OperatorSignedOut)
}

/// Ends the session `id`, in whose browser somebody has signed in anew; one that has ended is no
/// failure.
pub fn replaced(node: &Node, id: SessionId, address: IpAddr) -> Result<(), OperationError> {
    let index = node.identity.index.load_full();
    let live = index.sessions.values().find(|live| live.record.id == id);
    let Some(operator) = live.and_then(|live| index.operators.get(&live.record.operator)) else {
        return Ok(());
    };
    match sign_out(node, &caller(operator, address), id) {
        Err(OperationError::NotFound(Resource::Session)) => Ok(()),
        ended => ended,
    }
}

/// The sessions of an operator that have not ended, the latest used first.
pub fn list(
    node: &Node,
    caller: &Caller,
    operator: OperatorId,
) -> Result<Vec<SessionRecord>, OperationError> {
    if caller.via != Via::Operator(operator) {
        caller.require(Permission::OperatorsRead)?;
    }
    if !node.identity.index.load().operators.contains_key(&operator) {
        return Err(OperationError::NotFound(Resource::Operator));
    }
    Ok(live(node, |record| record.operator == operator))
}

/// Every session that has not ended, the latest used first.
pub fn list_all(node: &Node, caller: &Caller) -> Result<Vec<SessionRecord>, OperationError> {
    caller.require(Permission::OperatorsRead)?;
    Ok(live(node, |_| true))
}

/// Up to `limit` sessions that have not ended, of `operator` or of everyone, in the order of their
/// ids, from the first after `after`.
pub fn page(
    node: &Node,
    caller: &Caller,
    operator: Option<OperatorId>,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Page<SessionRecord>, OperationError> {
    let mut found = match operator {
        Some(operator) => list(node, caller, operator)?,
        None => list_all(node, caller)?,
    };
    found.retain(|record| Some(record.id) > after);
    found.sort_by_key(|record| record.id);
    Ok(Page::of(found, limit))
}

/// Ends a session: one's own, or, for who may change operators, anybody's.
pub fn revoke(node: &Node, caller: &Caller, id: SessionId) -> Result<(), OperationError> {
    let own = match caller.via {
        _ if caller.require(Permission::OperatorsWrite).is_ok() => None,
        Via::Operator(operator) => Some(operator),
        Via::Token(_) | Via::Socket | Via::InProcess | Via::System => {
            caller.require(Permission::OperatorsWrite)?;
            None
        }
    };
    end(node, caller, id, own, Action::SessionRevoked)
}

/// Ends every session of an operator but `keep`; how many.
pub fn revoke_all(
    node: &Node,
    caller: &Caller,
    operator: OperatorId,
    keep: Option<SessionId>,
) -> Result<usize, OperationError> {
    if caller.via != Via::Operator(operator) {
        caller.require(Permission::OperatorsWrite)?;
    }
    node.mutate(|tx, patch, _| {
        if tx.operator(operator)?.is_none() {
            return Err(OperationError::NotFound(Resource::Operator));
        }
        let ended = end_all(tx, patch, operator, keep)?;
        if ended > 0 {
            let after = serde_json::json!({ "sessions_ended": ended });
            let subject = Subject::new(SubjectKind::Operator, operator);
            record(tx, caller, now(node), Action::SessionRevoked, subject, None, Some(after))?;
        }
        Ok(ended)
    })
}

/// Writes when sessions were last used. Called by the jobs, not by requests.
pub fn flush_last_seen(node: &Node) -> Result<(), OperationError> {
    let index = node.identity.index.load_full();
    let moved: Vec<(Digest, Timestamp)> = index
        .sessions
        .values()
        .map(|live| (live, live.last_seen_at()))
        .filter(|(live, at)| *at > live.record.last_seen_at)
        .map(|(live, at)| (live.record.digest, at))
        .collect();
    for batch in moved.chunks(TOUCH_MAX) {
        node.store.write::<_, StoreError>(|tx| tx.touch_sessions(batch))?;
    }
    Ok(())
}

/// Removes sessions that ended by themselves; how many.
pub fn prune(node: &Node) -> Result<usize, OperationError> {
    let (at, index) = (now(node), node.identity.index.load_full());
    let idle_timeout = node.config.load().admin.sessions.idle_timeout;
    let ended = index.sessions.values().filter(|live| {
        !live.is_good(at, idle_timeout) || !index.operators.contains_key(&live.record.operator)
    });
    let ended: Vec<Digest> = ended.take(PRUNE_MAX).map(|live| live.record.digest).collect();
    if ended.is_empty() {
        return Ok(0);
    }
    node.mutate(|tx, patch, _| {
        for digest in &ended {
            tx.delete_session(digest)?;
            patch.identity(Change::RemoveSession(*digest));
        }
        Ok(ended.len())
    })
}

/// Begins a session, within the transaction that found its operator worthy: its cookie, and what
/// is kept of it. If the operator has too many, the one that was idle longest goes.
pub(super) fn begin(
    node: &Node,
    tx: &mut WriteTx,
    patch: &mut Patch,
    operator: &OperatorRecord,
    from: IpAddr,
    user_agent: &str,
) -> Result<(SecretText, SessionRecord), OperationError> {
    let now = now(node);
    let settings = node.config.load().admin.sessions.clone();
    let bytes: [u8; COOKIE_BYTES] = random_bytes(node.entropy.as_ref())?;
    let cookie = SecretText::new(URL_SAFE_NO_PAD.encode(bytes));
    let index = node.identity.index.load();
    let mut own: Vec<_> =
        index.sessions.values().filter(|live| live.record.operator == operator.id).collect();
    own.sort_by_key(|live| Reverse(live.last_seen_at()));
    for live in own.iter().skip(settings.per_operator_max.get() - 1) {
        tx.delete_session(&live.record.digest)?;
        patch.identity(Change::RemoveSession(live.record.digest));
    }
    let record = SessionRecord {
        id: SessionId(u64::from_be_bytes(random_bytes(node.entropy.as_ref())?)),
        operator: operator.id,
        digest: digest(node, cookie.expose()),
        created_at: now,
        last_seen_at: now,
        expires_at: now + settings.lifetime,
        address: Some(from),
        user_agent: shortened(user_agent),
    };
    tx.put_session(&record)?;
    patch.identity(Change::PutSession(record.clone()));
    Ok((cookie, record))
}

/// Ends every session of an operator but `keep`, within a transaction; how many.
pub(super) fn end_all(
    tx: &mut WriteTx,
    patch: &mut Patch,
    operator: OperatorId,
    keep: Option<SessionId>,
) -> Result<usize, OperationError> {
    let mut ended = 0;
    for record in tx.sessions()? {
        if record.operator == operator && Some(record.id) != keep {
            tx.delete_session(&record.digest)?;
            patch.identity(Change::RemoveSession(record.digest));
            ended += 1;
        }
    }
    Ok(ended)
}

/// A session as requests know it.
pub(super) fn session(
    node: &Node,
    operator: &OperatorRecord,
    record: &SessionRecord,
    cookie_value: &str,
    address: IpAddr,
) -> Session {
    let proof = node.pepper().digest(format!("csrf\0{cookie_value}").as_bytes());
    Session {
        id: record.id,
        operator: operator.id,
        caller: caller(operator, address),
        csrf: SecretText::new(URL_SAFE_NO_PAD.encode(proof.as_bytes())),
        signed_in_at: record.created_at,
        expires_at: record.expires_at,
        has_password: operator.password.is_some(),
        has_second_factor: operator.totp.is_some(),
    }
}

/// An operator as the one who asks.
pub(super) fn caller(operator: &OperatorRecord, address: IpAddr) -> Caller {
    let shops = match operator.role {
        Role::Member => Shops::Only(operator.shops.clone()),
        Role::Viewer | Role::Operator | Role::Owner => Shops::All,
    };
    Caller {
        role: operator.role,
        name: operator.name.clone(),
        via: Via::Operator(operator.id),
        shops,
        scopes: Scopes::All,
        address: Some(address),
    }
}

fn digest(node: &Node, cookie_value: &str) -> Digest {
    node.pepper().digest(format!("session\0{cookie_value}").as_bytes())
}

fn live(node: &Node, wanted: impl Fn(&SessionRecord) -> bool) -> Vec<SessionRecord> {
    let (now, index) = (now(node), node.identity.index.load());
    let idle_timeout = node.config.load().admin.sessions.idle_timeout;
    let good = index.sessions.values().filter(|live| live.is_good(now, idle_timeout));
    let mut found: Vec<SessionRecord> = good
        .filter(|live| wanted(&live.record))
        .map(|live| SessionRecord { last_seen_at: live.last_seen_at(), ..live.record.clone() })
        .collect();
    found.sort_by_key(|record| (Reverse(record.last_seen_at), record.id));
    found
}

/// Ends the session `id` if it is `own`'s; anybody's, if that is nobody.
fn end(
    node: &Node,
    caller: &Caller,
    id: SessionId,
    own: Option<OperatorId>,
    action: Action,
) -> Result<(), OperationError> {
    node.mutate(|tx, patch, _| {
        let index = node.identity.index.load();
        let live = index.sessions.values().find(|live| live.record.id == id);
        let live = live.filter(|live| own.is_none_or(|own| own == live.record.operator));
        let live = live.ok_or(OperationError::NotFound(Resource::Session))?;
        tx.delete_session(&live.record.digest)?;
        patch.identity(Change::RemoveSession(live.record.digest));
        let before = serde_json::json!({ "operator": live.record.operator });
        let subject = Subject::new(SubjectKind::Session, id);
        record(tx, caller, now(node), action, subject, Some(before), None)
    })
}

/// What a browser calls itself, without what could not be shown.
fn shortened(user_agent: &str) -> String {
    user_agent.chars().filter(|c| !c.is_control()).take(USER_AGENT_CHARS_MAX).collect()
}
