//! Tokens for the admin plane: `lka_` and 40 lowercase hex digits.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::validate::Faults;
use super::{Created, Idempotency, OperationError, Page, Resource, gone, now, shops};
use crate::admin::audit::{self, Action, Subject, view};
use crate::admin::caller::{Caller, Permission, Scopes};
use crate::admin::node::{AdminToken, Node};
use crate::admin::patch::Patch;
use crate::clock::Timestamp;
use crate::id::{AdminTokenId, ShopId};
use crate::secret::{Entropy, EntropyError, SecretText, random_bytes};
use crate::store::{AdminTokenRecord, Role, WriteTx};

/// How the text of a token begins.
pub const PREFIX: &str = "lka_";

/// Random bytes in a token: 160 bits.
const RANDOM_BYTES: usize = 20;

/// Most tokens there can be; each is held in memory.
pub const ADMIN_TOKENS_MAX: usize = 1000;

/// Most shops that a token names.
const SHOPS_MAX: usize = 1000;

/// What a token is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTokenFields {
    /// What people call it; not empty, since this is how its owner is known.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it stops verifying; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// The names of the permissions that it has of its role; `None`: all of them.
    pub scopes: Option<Vec<String>>,
    /// The shops that it sees; `None`: all of them. A member's token names its shops.
    pub shops: Option<Vec<String>>,
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
    let bounds = Bounds::of(&mut faults, &fields);
    faults.into_result()?;
    bounds.require_of(caller, fields.role)?;
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
            let Bounds { scopes, shops } = bounds;
            for shop in shops.iter().flatten() {
                shops::find(tx, shop)?;
            }
            let AdminTokenFields { name, role, expires_at, .. } = fields;
            let record = AdminTokenRecord {
                id: AdminTokenId(u64::from_be_bytes(random_bytes(node.entropy.as_ref())?)),
                name,
                digest: node.pepper().digest(secret.expose().as_bytes()),
                role,
                created_at: now,
                expires_at,
                last_used_at: None,
                scopes: scopes.map(|scopes| scopes.iter().map(ToString::to_string).collect()),
                shops,
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

/// What a token has of its role, and of the shops.
struct Bounds {
    scopes: Option<BTreeSet<Permission>>,
    shops: Option<BTreeSet<ShopId>>,
}

impl Bounds {
    fn of(faults: &mut Faults, fields: &AdminTokenFields) -> Self {
        let mut scopes = fields.scopes.as_ref().map(|_| BTreeSet::new());
        for (place, text) in fields.scopes.iter().flatten().enumerate() {
            let field = format!("scopes[{place}]");
            match Permission::parse(text) {
                Some(scope) if scope.is_of(fields.role) => {
                    scopes.get_or_insert_default().insert(scope)
                }
                Some(scope) => {
                    let problem =
                        format!("`{scope}` is nothing that the role `{}` has", fields.role);
                    faults.add(field, problem);
                    break;
                }
                None => {
                    let all = Permission::ALL.map(Permission::as_str).join(", ");
                    faults.add(field, format!("is no permission; there are {all}"));
                    break;
                }
            };
        }
        if fields.scopes.as_ref().is_some_and(Vec::is_empty) {
            faults.add("scopes", "is empty; name what the token may do, or leave it out");
        }
        let mut shops = fields.shops.as_ref().map(|_| BTreeSet::new());
        for (place, text) in fields.shops.iter().flatten().enumerate().take(SHOPS_MAX + 1) {
            match ShopId::parse(text) {
                Ok(shop) if place < SHOPS_MAX => drop(shops.get_or_insert_default().insert(shop)),
                Ok(_) => faults.add("shops", format!("holds more than {SHOPS_MAX} shops")),
                Err(error) => faults.add(format!("shops[{place}]"), error.to_string()),
            }
        }
        let bare = fields.shops.as_ref().is_none_or(Vec::is_empty);
        if bare && (fields.shops.is_some() || fields.role == Role::Member) {
            faults.add("shops", "names no shop; name those that the token sees");
        }
        Self { scopes, shops }
    }

    /// Nobody gives away what it does not have: not a token of few scopes, by way of another.
    fn require_of(&self, caller: &Caller, role: Role) -> Result<(), OperationError> {
        let given = |permission: &Permission| {
            let scoped = self.scopes.as_ref().is_none_or(|scopes| scopes.contains(permission));
            scoped && permission.is_of(role)
        };
        let lacking = |permission: &Permission| given(permission) && !caller.may(*permission);
        match Permission::ALL.into_iter().find(lacking) {
            Some(needed) => caller.require_any(needed),
            None => Ok(()),
        }
    }
}

/// What of its role a token has. A name that this build does not know allows nothing.
#[must_use]
pub fn scopes(token: &AdminTokenRecord) -> Scopes {
    let known = |names: &BTreeSet<String>| {
        Scopes::Only(names.iter().filter_map(|name| Permission::parse(name)).collect())
    };
    token.scopes.as_ref().map_or(Scopes::All, known)
}

/// A shop is going: no token sees it any more, not even if another of its id comes.
pub(super) fn forget_shop(
    tx: &mut WriteTx,
    patch: &mut Patch,
    shop: &ShopId,
) -> Result<(), OperationError> {
    for mut token in tx.admin_tokens(None, usize::MAX)? {
        if token.shops.as_mut().is_some_and(|shops| shops.remove(shop)) {
            tx.put_admin_token(&token)?;
            patch.admin_token(token);
        }
    }
    Ok(())
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
            let whole = |t: &AdminTokenRecord| t.scopes.is_none() && t.shops.is_none();
            let lasting =
                |t: &AdminTokenRecord| t.role == Role::Owner && t.expires_at.is_none() && whole(t);
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
