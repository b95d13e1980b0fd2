//! What an operator may be: its name, its password, its shops, and who may make it so.
//!
//! Checks and nothing else; what is done about operators is [`operators`](super::operators)'.

use std::collections::BTreeSet;

use super::OperationError;
use super::operators::OPERATORS_MAX;
use super::validate::Faults;
use crate::admin::caller::{Caller, Permission, Why};
use crate::admin::identity::passwords::PASSWORD_BYTES_MAX;
use crate::admin::node::Node;
use crate::id::{OperatorId, ShopId};
use crate::secret::SecretText;
use crate::store::operators::folded;
use crate::store::{OperatorRecord, ReadTx, Role};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most shops of a member.
const SHOPS_MAX: usize = 1000;

/// Whoever lacks part of a role (a token with few scopes) neither gives it nor takes over who has
/// it.
pub(super) fn require_all_of(caller: &Caller, role: Role) -> Result<(), OperationError> {
    let lacks = |permission: &Permission| permission.is_of(role) && !caller.may(*permission);
    match Permission::ALL.into_iter().find(lacks) {
        Some(needed) if needed.is_of(caller.role) => {
            Err(OperationError::Forbidden { needed, why: Why::Scope })
        }
        Some(needed) => {
            Err(OperationError::Forbidden { needed, why: Why::Role { role: caller.role } })
        }
        None => Ok(()),
    }
}

/// What may be a password: long enough (NIST SP 800-63B §5.1.1.2 asks for nothing else), and not
/// what everybody tries first.
pub(super) fn fit_password(node: &Node, faults: &mut Faults, name: &str, password: &SecretText) {
    let length_min = node.config.load().admin.passwords.length_min;
    let text = password.expose();
    let chars = text.chars().count();
    let different: BTreeSet<char> = text.chars().collect();
    if chars < length_min {
        faults.add("password", format!("is too short; use at least {length_min} characters"));
    } else if text.len() > PASSWORD_BYTES_MAX {
        faults.add("password", format!("is longer than {PASSWORD_BYTES_MAX} bytes"));
    } else if different.len() < 4 || folded(text) == folded(name) {
        faults.add("password", "is the first that anybody would try; choose another");
    }
}

pub(super) fn login(faults: &mut Faults, name: &str) {
    let usable = |b: u8| b.is_ascii_alphanumeric() || b"._-@+".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || name.len() > NAME_BYTES_MAX || !name.bytes().all(usable) {
        let problem = "is not a name to sign in with: 1 to 64 letters (a to z), digits and \
                       . _ - @ +, the first a letter or digit";
        faults.add("name", problem);
    }
}

/// Members are bound to shops, nobody else is.
pub(super) fn bound(faults: &mut Faults, role: Role, shops: usize, may_be_bare: bool) {
    let member = role == Role::Member;
    if member && shops == 0 && !may_be_bare {
        faults.add("shops", "is empty; name at least one shop that the member sees");
    }
    if member && shops > SHOPS_MAX {
        faults.add("shops", format!("holds more than {SHOPS_MAX} shops"));
    }
    if !member && shops > 0 {
        faults.add("shops", "only members are bound to shops; the other roles see them all");
    }
}

pub(super) fn require_room(tx: &ReadTx) -> Result<(), OperationError> {
    if tx.operators(None, OPERATORS_MAX)?.len() < OPERATORS_MAX {
        return Ok(());
    }
    let message =
        format!("there are {OPERATORS_MAX} operators, the most there can be; delete some");
    Err(OperationError::Conflict(message))
}

pub(super) fn require_shops(tx: &ReadTx, shops: &BTreeSet<ShopId>) -> Result<(), OperationError> {
    let mut faults = Faults::default();
    for (place, shop) in shops.iter().enumerate() {
        if tx.shop(shop)?.is_none() {
            faults.add(format!("shops[{place}]"), format!("there is no shop `{shop}`"));
        }
    }
    faults.into_result()
}

pub(super) fn require_free(
    tx: &ReadTx,
    name: &str,
    own: Option<OperatorId>,
) -> Result<(), OperationError> {
    match tx.operator_named(name)? {
        Some(other) if Some(other.id) != own => {
            Err(OperationError::Conflict(format!("an operator called `{}` exists", other.name)))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether it can manage operators: an owner who can sign in.
pub(super) fn rules(one: &OperatorRecord) -> bool {
    one.role == Role::Owner && !one.disabled && (one.password.is_some() || one.oidc.is_some())
}

/// Somebody must be able to manage operators without the machine itself.
pub(super) fn require_owner_left(
    tx: &ReadTx,
    old: &OperatorRecord,
    new: Option<&OperatorRecord>,
) -> Result<(), OperationError> {
    if !rules(old) || new.is_some_and(rules) {
        return Ok(());
    }
    let others = tx.operators(None, usize::MAX)?;
    if others.iter().any(|other| other.id != old.id && rules(other)) {
        return Ok(());
    }
    let message = "this is the last owner who can sign in; make another one first";
    Err(OperationError::Conflict(message.to_owned()))
}

/// Of `shops`, those that exist.
pub(super) fn existing_shops(
    tx: &ReadTx,
    shops: BTreeSet<ShopId>,
) -> Result<BTreeSet<ShopId>, OperationError> {
    let mut kept = BTreeSet::new();
    for shop in shops {
        if tx.shop(&shop)?.is_some() {
            kept.insert(shop);
        }
    }
    Ok(kept)
}

/// A name that nobody has, made of what a provider calls somebody. Never another's: a provider's
/// word for its own subject is no word for an operator of this name.
pub(super) fn free_name(tx: &ReadTx, wanted: &str) -> Result<String, OperationError> {
    let usable = |c: &char| c.is_ascii_alphanumeric() || "._-@+".contains(*c);
    let name: String = wanted.chars().filter(usable).take(NAME_BYTES_MAX - 8).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name = if name.is_empty() { "operator" } else { name };
    if tx.operator_named(name)?.is_none() {
        return Ok(name.to_owned());
    }
    for number in 2..=OPERATORS_MAX + 1 {
        let numbered = format!("{name}-{number}");
        if tx.operator_named(&numbered)?.is_none() {
            return Ok(numbered);
        }
    }
    Err(OperationError::Conflict(format!("too many operators are called {name}")))
}
