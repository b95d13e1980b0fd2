//! Operators: the people of the admin plane, what they may do, and their passwords.
//!
//! Two rules hold whoever asks: nobody makes another into more than the asker is, and the last
//! owner who can sign in stays. A change of what an operator may do ends its sessions. How one
//! signs in is [`sign_in`](super::sign_in)'s.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::operator_rules::{
    bound, existing_shops, fit_password, free_name, login, require_all_of, require_free,
    require_owner_left, require_room, require_shops,
};
use super::validate::Faults;
use super::{
    Created, Idempotency, OperationError, Page, Precondition, Resource, Version, gone, now,
    sessions,
};
use crate::admin::audit::{Action, Subject, SubjectKind, record};
use crate::admin::caller::{Caller, Permission, Via};
use crate::admin::identity::passwords::{HashError, Standing};
use crate::admin::identity::totp::base32_of;
use crate::admin::identity::{Change, cost};
use crate::admin::node::Node;
use crate::admin::patch::Patch;
use crate::clock::Timestamp;
use crate::id::{OperatorId, SessionId, ShopId};
use crate::secret::{Entropy, EntropyError, SecretText, random_bytes};
use crate::store::{OidcSubject, OperatorRecord, PasswordHash, ReadTx, Role, WriteTx};

/// Most operators there can be; each is held in memory.
pub const OPERATORS_MAX: usize = 1000;
/// Random bytes of a generated password: 100 bits and a little.
const GENERATED_BYTES: usize = 15;
/// Letters and digits that nobody takes for another.
pub(super) const LEGIBLE: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What an operator is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorFields {
    /// What it signs in with.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The shops it sees; only for members, who need one.
    pub shops: Vec<ShopId>,
}

/// What to change of an operator; `None`: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OperatorChange {
    /// What it signs in with.
    pub name: Option<String>,
    /// What it may do.
    pub role: Option<Role>,
    /// The shops it sees. Left out when the role changes to another than member: none.
    pub shops: Option<Vec<ShopId>>,
    /// Whether it may not sign in.
    pub disabled: Option<bool>,
}

/// Creates an operator. Without a password it can sign in once it gets one, or by an identity
/// provider.
pub fn create(
    node: &Node,
    caller: &Caller,
    fields: &OperatorFields,
    password: Option<&SecretText>,
    idempotency: Option<&Idempotency>,
) -> Result<Created<OperatorRecord>, OperationError> {
    caller.require(Permission::OperatorsWrite)?;
    require_all_of(caller, fields.role)?;
    let made = prepare(node, fields, password)?;
    node.mutate(|tx, patch, _| {
        if let Some(made) = Idempotency::replay(idempotency, tx, now(node))? {
            let id = OperatorId::parse(&made).map_err(|_| gone(Resource::Operator))?;
            let found = tx.operator(id)?.ok_or_else(|| gone(Resource::Operator))?;
            return Ok(Created::replayed(found));
        }
        require_room(tx)?;
        require_shops(tx, &made.shops)?;
        require_free(tx, &made.name, None)?;
        put(tx, patch, &made)?;
        let (subject, after) = (subject(made.id), Some(view(&made)));
        record(tx, caller, now(node), Action::OperatorCreated, subject, None, after)?;
        Idempotency::note(idempotency, tx, made.id.to_string(), now(node))?;
        Ok(Created::new(made, None))
    })
}

/// The operator `id`: for who may look at operators, and for itself.
pub fn get(node: &Node, caller: &Caller, id: OperatorId) -> Result<OperatorRecord, OperationError> {
    if caller.via != Via::Operator(id) {
        caller.require(Permission::OperatorsRead)?;
    }
    node.store.read(|tx| tx.operator(id))?.ok_or(OperationError::NotFound(Resource::Operator))
}

/// Up to `limit` operators, from the first after `after`.
pub fn list(
    node: &Node,
    caller: &Caller,
    after: Option<OperatorId>,
    limit: usize,
) -> Result<Page<OperatorRecord>, OperationError> {
    caller.require(Permission::OperatorsRead)?;
    let found = node.store.read(|tx| tx.operators(after, limit.saturating_add(1)))?;
    Ok(Page::of(found, limit))
}

/// Changes an operator. Its sessions end if its role, its shops or whether it is disabled change.
pub fn change(
    node: &Node,
    caller: &Caller,
    id: OperatorId,
    change: &OperatorChange,
    condition: &Precondition,
) -> Result<OperatorRecord, OperationError> {
    caller.require(Permission::OperatorsWrite)?;
    node.mutate(|tx, patch, _| {
        let old = find(tx, id)?;
        require_all_of(caller, old.role)?;
        let role = change.role.unwrap_or(old.role);
        require_all_of(caller, role)?;
        let kept = if role == Role::Member { old.shops.clone() } else { BTreeSet::new() };
        let shops = change.shops.as_ref().map_or(kept, |shops| shops.iter().copied().collect());
        let mut new = OperatorRecord {
            name: change.name.clone().unwrap_or_else(|| old.name.clone()),
            role,
            shops,
            disabled: change.disabled.unwrap_or(old.disabled),
            ..old.clone()
        };
        if new == old {
            condition.check(Some(Version::from(&old)))?;
            return Ok(old);
        }
        let mut faults = Faults::default();
        login(&mut faults, &new.name);
        let was_bare = old.role == Role::Member && old.shops.is_empty();
        bound(&mut faults, role, new.shops.len(), was_bare && change.shops.is_none());
        faults.into_result()?;
        require_shops(tx, &new.shops)?;
        require_free(tx, &new.name, Some(id))?;
        require_owner_left(tx, &old, Some(&new))?;
        condition.check(Some(Version::from(&old)))?;
        new.updated_at = now(node);
        new.revision = old.revision.saturating_add(1);
        put(tx, patch, &new)?;
        let may_do = |o: &OperatorRecord| (o.role, o.shops.clone(), o.disabled);
        if may_do(&old) != may_do(&new) {
            sessions::end_all(tx, patch, id, None)?;
        }
        let (before, after) = (Some(view(&old)), Some(view(&new)));
        record(tx, caller, now(node), Action::OperatorChanged, subject(id), before, after)?;
        Ok(new)
    })
}

/// Deletes an operator and ends its sessions.
pub fn delete(
    node: &Node,
    caller: &Caller,
    id: OperatorId,
    condition: &Precondition,
) -> Result<(), OperationError> {
    caller.require(Permission::OperatorsWrite)?;
    node.mutate(|tx, patch, _| {
        let old = find(tx, id)?;
        require_all_of(caller, old.role)?;
        require_owner_left(tx, &old, None)?;
        condition.check(Some(Version::from(&old)))?;
        sessions::end_all(tx, patch, id, None)?;
        tx.delete_operator(id)?;
        patch.identity(Change::RemoveOperator(id));
        let before = Some(view(&old));
        record(tx, caller, now(node), Action::OperatorDeleted, subject(id), before, None)
    })
}

/// Sets another's password and ends its sessions. Its second factor stays.
pub fn reset_password(
    node: &Node,
    caller: &Caller,
    id: OperatorId,
    password: &SecretText,
    condition: &Precondition,
) -> Result<OperatorRecord, OperationError> {
    caller.require(Permission::OperatorsWrite)?;
    let old = node.store.read(|tx| tx.operator(id))?;
    let old = old.ok_or(OperationError::NotFound(Resource::Operator))?;
    require_all_of(caller, old.role)?;
    // What is written below is written only if it is like this still.
    condition.check(Some(Version::from(&old)))?;
    let hash = hash(node, &old.name, password)?;
    set_password(node, caller, &old, hash, None, Action::PasswordReset)
}

/// Sets the caller's own password, which it proves to know; its sessions end but `keep`.
pub fn change_password(
    node: &Node,
    caller: &Caller,
    current: &SecretText,
    new: &SecretText,
    keep: SessionId,
) -> Result<OperatorRecord, super::sign_in::SignInFailure> {
    use super::sign_in::{SignInFailure, confirm_own};

    let old = own(node, caller)?;
    let from = caller.address.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    if !confirm_own(node, &old, current, from)? {
        return Err(SignInFailure::Wrong);
    }
    let hash = hash(node, &old.name, new)?;
    Ok(set_password(node, caller, &old, hash, Some(keep), Action::PasswordChanged)?)
}

/// The operator that asks.
pub fn own(node: &Node, caller: &Caller) -> Result<OperatorRecord, OperationError> {
    let Via::Operator(id) = caller.via else {
        return Err(OperationError::NotFound(Resource::Operator));
    };
    get(node, caller, id)
}

/// A password that nobody has thought of.
pub fn generate_password(entropy: &dyn Entropy) -> Result<SecretText, EntropyError> {
    let bytes: [u8; GENERATED_BYTES] = random_bytes(entropy)?;
    Ok(grouped(&bytes))
}

/// Random bytes as people copy them: groups of four characters.
pub(super) fn grouped(bytes: &[u8]) -> SecretText {
    let text = base32_of(bytes, LEGIBLE);
    let groups: Vec<&str> =
        text.as_bytes().chunks(4).filter_map(|c| std::str::from_utf8(c).ok()).collect();
    SecretText::new(groups.join("-"))
}

/// A shop is going: no member sees it any more, not even if another of its id comes.
pub(super) fn forget_shop(
    tx: &mut WriteTx,
    patch: &mut Patch,
    shop: &ShopId,
    now: Timestamp,
) -> Result<(), OperationError> {
    for mut operator in tx.operators(None, usize::MAX)? {
        if operator.shops.remove(shop) {
            operator.updated_at = now;
            operator.revision = operator.revision.saturating_add(1);
            put(tx, patch, &operator)?;
        }
    }
    Ok(())
}

/// The operator that an identity provider vouches for: made, or brought up to date.
pub(super) fn from_provider(
    node: &Node,
    vouched: super::sign_in::Vouched,
) -> Result<OperatorId, OperationError> {
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let all = tx.operators(None, usize::MAX)?;
        let known = all.into_iter().find(|one| one.oidc.as_ref() == Some(&vouched.subject));
        let shops = existing_shops(tx, vouched.shops)?;
        let caller = Caller { name: vouched.subject.issuer.clone(), ..Caller::system() };
        if let Some(old) = known {
            let mut new = OperatorRecord { role: vouched.role, shops, ..old.clone() };
            if new != old {
                // A slip in admin.oidc.roles must not leave a node that nobody owns.
                require_owner_left(tx, &old, Some(&new))?;
                new.updated_at = now;
                new.revision = old.revision.saturating_add(1);
                put(tx, patch, &new)?;
                sessions::end_all(tx, patch, old.id, None)?;
                let (before, after) = (Some(view(&old)), Some(view(&new)));
                record(tx, &caller, now, Action::OperatorChanged, subject(old.id), before, after)?;
            }
            return Ok(old.id);
        }
        require_room(tx)?;
        let made = OperatorRecord {
            oidc: Some(vouched.subject),
            shops,
            ..blank(node, free_name(tx, &vouched.name)?, vouched.role, None)?
        };
        put(tx, patch, &made)?;
        let (subject, after) = (subject(made.id), Some(view(&made)));
        record(tx, &caller, now, Action::OperatorCreated, subject, None, after)?;
        Ok(made.id)
    })
}

/// An identity provider knows somebody who may do nothing here any more: if that is an operator,
/// its sessions end. It stays what it was, for its groups may be a slip; but nobody is let in by
/// what the provider said earlier.
pub(in crate::admin) fn no_longer_vouched(
    node: &Node,
    subject: &OidcSubject,
) -> Result<(), OperationError> {
    node.mutate(|tx, patch, _| {
        let all = tx.operators(None, usize::MAX)?;
        let Some(known) = all.into_iter().find(|one| one.oidc.as_ref() == Some(subject)) else {
            return Ok(());
        };
        let ended = sessions::end_all(tx, patch, known.id, None)?;
        if ended == 0 {
            return Ok(());
        }
        let caller = Caller { name: subject.issuer.clone(), ..Caller::system() };
        let after = Some(json!({ "sessions_ended": ended, "why": "no group has a role" }));
        let subject = self::subject(known.id);
        record(tx, &caller, now(node), Action::SessionRevoked, subject, None, after)
    })
}

/// A record of valid input, its password hashed; not stored yet.
pub(super) fn prepare(
    node: &Node,
    fields: &OperatorFields,
    password: Option<&SecretText>,
) -> Result<OperatorRecord, OperationError> {
    let mut faults = Faults::default();
    login(&mut faults, &fields.name);
    let shops: BTreeSet<ShopId> = fields.shops.iter().copied().collect();
    bound(&mut faults, fields.role, shops.len(), false);
    if let Some(password) = password {
        fit_password(node, &mut faults, &fields.name, password);
    }
    faults.into_result()?;
    let hash = password.map(|password| hash(node, &fields.name, password)).transpose()?;
    Ok(OperatorRecord { shops, ..blank(node, fields.name.clone(), fields.role, hash)? })
}

fn blank(
    node: &Node,
    name: String,
    role: Role,
    password: Option<PasswordHash>,
) -> Result<OperatorRecord, OperationError> {
    let now = now(node);
    Ok(OperatorRecord {
        id: OperatorId(u64::from_be_bytes(random_bytes(node.entropy.as_ref())?)),
        name,
        role,
        shops: BTreeSet::new(),
        password,
        password_changed_at: now,
        totp: None,
        oidc: None,
        disabled: false,
        created_at: now,
        updated_at: now,
        revision: 1,
    })
}

/// An operator in the audit log.
pub(super) fn view(operator: &OperatorRecord) -> Value {
    json!({
        "name": operator.name,
        "role": operator.role,
        "shops": operator.shops,
        "disabled": operator.disabled,
        "password_set": operator.password.is_some(),
        "second_factor": operator.totp.is_some(),
        "oidc": operator.oidc,
    })
}

pub(super) fn subject(id: OperatorId) -> Subject {
    Subject::new(SubjectKind::Operator, id)
}

pub(super) fn put(
    tx: &mut WriteTx,
    patch: &mut Patch,
    operator: &OperatorRecord,
) -> Result<(), OperationError> {
    tx.put_operator(operator)?;
    patch.identity(Change::PutOperator(Box::new(operator.clone())));
    Ok(())
}

pub(super) fn find(tx: &ReadTx, id: OperatorId) -> Result<OperatorRecord, OperationError> {
    tx.operator(id)?.ok_or(OperationError::NotFound(Resource::Operator))
}

fn set_password(
    node: &Node,
    caller: &Caller,
    seen: &OperatorRecord,
    hash: PasswordHash,
    keep: Option<SessionId>,
    action: Action,
) -> Result<OperatorRecord, OperationError> {
    node.mutate(|tx, patch, _| {
        let mut operator = find(tx, seen.id)?;
        // Whoever was allowed by what it was: nothing of that may have changed since.
        if operator.revision != seen.revision {
            let message = "this operator was changed at the same time; try again";
            return Err(OperationError::Conflict(message.to_owned()));
        }
        let before = Some(view(&operator));
        operator.password = Some(hash);
        operator.password_changed_at = now(node);
        operator.updated_at = now(node);
        operator.revision = operator.revision.saturating_add(1);
        put(tx, patch, &operator)?;
        sessions::end_all(tx, patch, operator.id, keep)?;
        let after = Some(view(&operator));
        record(tx, caller, now(node), action, subject(operator.id), before, after)?;
        Ok(operator)
    })
}

fn hash(node: &Node, name: &str, password: &SecretText) -> Result<PasswordHash, OperationError> {
    let mut faults = Faults::default();
    fit_password(node, &mut faults, name, password);
    faults.into_result()?;
    let (entropy, wanted) = (node.entropy.as_ref(), cost(&node.config.load()));
    let password = password.expose().as_bytes();
    let hashed = node.identity.passwords.hash(entropy, password, wanted, Standing::Known);
    hashed.map_err(|error| match error {
        HashError::Busy => OperationError::Busy,
        HashError::Entropy(error) => error.into(),
        HashError::Unusable => OperationError::PasswordUnusable,
    })
}
