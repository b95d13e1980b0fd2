//! What the audit log is told: which actions there are, what they are done to, and how an entry
//! is made of them.
//!
//! [`record`] appends an entry in the transaction of the change, so that there is never one
//! without the other. Of what was and what is it keeps only the members that differ, cut to a
//! bound; members that could hold a secret are left out whatever they are called by mistake, but
//! what is passed in should hold none: views made for it ([`view`]), not records.
//!
//! Reading, verifying and pruning the log is `operations::audit`'s; how entries are chained is
//! `store::audit`'s. What happens on the data plane is not recorded here: a widget token that a
//! shop's server had issued stands in the list of tokens.

pub mod view;

use serde_json::{Map, Value};

use super::{Caller, OperationError};
use crate::clock::Timestamp;
use crate::id::{AdminTokenId, KeyId, ShopId, TokenId};
use crate::store::WriteTx;
use crate::store::audit::{AuditActor, AuditRecord, AuditSubject};

/// Longest text within `before` and `after`, in bytes; what is longer is cut.
const TEXT_BYTES_MAX: usize = 400;

/// Most items of an array or members of an object within `before` and `after`.
const ITEMS_MAX: usize = 60;

/// How deep `before` and `after` may nest.
const DEPTH_MAX: usize = 6;

/// Longest `before` or `after`, in bytes of JSON; what is longer is left out, and says so.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// Members whose names hold one of these are left out: they might hold a secret.
const SECRET_NAMES: [&str; 8] =
    ["secret", "password", "passphrase", "digest", "hash", "sealed", "totp_key", "cookie"];

/// Names that hold a word of [`SECRET_NAMES`] and no secret.
const HARMLESS_NAMES: [&str; 2] = ["password_changed_at", "password_set"];

macro_rules! actions {
    ($($variant:ident = $text:literal, $doc:literal;)*) => {
        /// What was done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $(#[doc = $doc] $variant,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The action as text, `<subject>.<what was done to it>`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

actions! {
    ShopCreated = "shop.created", "A shop was created.";
    ShopChanged = "shop.changed", "A shop was changed.";
    ShopDeleted = "shop.deleted", "A shop was deleted, with its keys and tokens.";
    ShopLimitsChanged = "shop.limits_changed", "A shop's own limits were changed.";
    KeyCreated = "key.created", "An API key was created.";
    KeyChanged = "key.changed", "An API key was changed.";
    KeyRotated = "key.rotated", "An API key was replaced by a new one.";
    KeyRevoked = "key.revoked", "An API key was revoked.";
    KeyPruned = "key.pruned", "A rotated API key was removed: its grace period was over.";
    KeyLimitsChanged = "key.limits_changed", "An API key's own limits were changed.";
    WidgetTokenIssued = "widget_token.issued", "A widget token was issued by hand.";
    WidgetTokenRevoked = "widget_token.revoked", "A widget token was revoked.";
    WidgetTokensRevoked = "widget_token.all_revoked", "Every widget token of a shop was revoked.";
    AdminTokenCreated = "admin_token.created", "An admin token was created.";
    AdminTokenRevoked = "admin_token.revoked", "An admin token was revoked.";
    SigningKeyRotated = "signing_key.rotated", "A new key signs widget tokens.";
    SigningKeyRemoved = "signing_key.removed", "A key that signed widget tokens is needed no more.";
    AssertionKeysChanged = "assertion_key.changed", "The keys that sign assertions were changed.";
    IssuerRefreshed = "issuer.refreshed", "An identity provider's key set was fetched by hand.";
    ConfigurationReloaded = "configuration.reloaded", "A changed configuration was put in force.";
    ConfigurationRefused = "configuration.refused", "A changed configuration was wrong.";
    ProcessStarted = "process.started", "The server was started.";
    ProcessStopped = "process.stopped", "The server was stopped.";
    OperatorCreated = "operator.created", "An operator was created.";
    OperatorChanged = "operator.changed", "An operator was changed.";
    OperatorDeleted = "operator.deleted", "An operator was deleted.";
    OperatorSetUp = "operator.set_up", "The first owner was made through the set-up link.";
    OperatorSignedIn = "operator.signed_in", "An operator signed in.";
    OperatorSignInRefused = "operator.sign_in_refused", "Somebody failed to sign in.";
    OperatorSignedOut = "operator.signed_out", "An operator signed out.";
    PasswordChanged = "operator.password_changed", "An operator changed the own password.";
    PasswordReset = "operator.password_reset", "An operator's password was reset by another.";
    TotpEnrolled = "operator.totp_enrolled", "An operator enrolled a second factor.";
    TotpRemoved = "operator.totp_removed", "An operator's second factor was taken away.";
    SessionRevoked = "session.revoked", "A session was ended from outside.";
    BackupCreated = "backup.created", "A backup was made.";
    BackupRestored = "backup.restored", "The store was made from a backup.";
    BackupDeleted = "backup.deleted", "A backup was deleted.";
    BackupDownloaded = "backup.downloaded", "A backup was handed out.";
    DataImported = "data.imported", "Shops and keys were imported.";
    DataExported = "data.exported", "Shops and keys were exported.";
}

impl Action {
    /// Parses `text`; `None` if it is no action.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text)
    }
}

/// What something can be done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is its `as_str`")]
pub enum SubjectKind {
    Shop,
    Key,
    WidgetToken,
    AdminToken,
    SigningKey,
    AssertionKey,
    Issuer,
    Configuration,
    Process,
    Operator,
    Session,
    Backup,
    Data,
}

impl SubjectKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Shop,
        Self::Key,
        Self::WidgetToken,
        Self::AdminToken,
        Self::SigningKey,
        Self::AssertionKey,
        Self::Issuer,
        Self::Configuration,
        Self::Process,
        Self::Operator,
        Self::Session,
        Self::Backup,
        Self::Data,
    ];

    /// The kind as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Key => "key",
            Self::WidgetToken => "widget_token",
            Self::AdminToken => "admin_token",
            Self::SigningKey => "signing_key",
            Self::AssertionKey => "assertion_key",
            Self::Issuer => "issuer",
            Self::Configuration => "configuration",
            Self::Process => "process",
            Self::Operator => "operator",
            Self::Session => "session",
            Self::Backup => "backup",
            Self::Data => "data",
        }
    }
}

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    kind: SubjectKind,
    id: String,
    shop: Option<ShopId>,
}

impl Subject {
    /// What belongs to no shop.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "ids are small, and most are `Copy`")]
    pub fn new(kind: SubjectKind, id: impl ToString) -> Self {
        Self { kind, id: id.to_string(), shop: None }
    }

    /// A shop.
    #[must_use]
    pub fn shop(id: &ShopId) -> Self {
        Self { kind: SubjectKind::Shop, id: id.to_string(), shop: Some(*id) }
    }

    /// A shop's API key.
    #[must_use]
    pub fn key(shop: &ShopId, id: KeyId) -> Self {
        Self { kind: SubjectKind::Key, id: id.to_string(), shop: Some(*shop) }
    }

    /// A shop's widget token.
    #[must_use]
    pub fn widget_token(shop: &ShopId, id: TokenId) -> Self {
        Self { kind: SubjectKind::WidgetToken, id: id.to_string(), shop: Some(*shop) }
    }

    /// An admin token.
    #[must_use]
    pub fn admin_token(id: AdminTokenId) -> Self {
        Self::new(SubjectKind::AdminToken, id)
    }
}

/// Appends an entry: `caller` did `action` to `subject`. Of `before` and `after` it keeps what
/// differs.
pub fn record(
    tx: &mut WriteTx,
    caller: &Caller,
    now: Timestamp,
    action: Action,
    subject: Subject,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<(), OperationError> {
    tx.append_audit(&entry(caller, now, action, subject, before, after))?;
    Ok(())
}

/// The entry that [`record`] appends.
#[must_use]
pub fn entry(
    caller: &Caller,
    now: Timestamp,
    action: Action,
    subject: Subject,
    before: Option<Value>,
    after: Option<Value>,
) -> AuditRecord {
    let (before, after) = difference(before.map(clean), after.map(clean));
    let Subject { kind, id, shop } = subject;
    AuditRecord {
        at: now,
        actor: AuditActor {
            label: cut(&caller.label()),
            name: cut(&caller.name),
            role: caller.role,
        },
        address: caller.address,
        action: action.as_str().to_owned(),
        subject: AuditSubject { kind: kind.as_str().to_owned(), id: cut(&id), shop },
        before: before.map(bounded),
        after: after.map(bounded),
    }
}

/// The members that differ, where there is both a before and an after.
fn difference(before: Option<Value>, after: Option<Value>) -> (Option<Value>, Option<Value>) {
    match (before, after) {
        (Some(Value::Object(mut before)), Some(Value::Object(mut after))) => {
            let same = |name: &String, value: &Value, other: &Map<String, Value>| {
                other.get(name).is_some_and(|theirs| theirs == value)
            };
            let old = before.clone();
            before.retain(|name, value| !same(name, value, &after));
            after.retain(|name, value| !same(name, value, &old));
            (Some(Value::Object(before)), Some(Value::Object(after)))
        }
        other => other,
    }
}

/// Without members that might hold a secret, texts cut, no deeper and no longer than is kept.
fn clean(value: Value) -> Value {
    clean_at(value, DEPTH_MAX)
}

fn clean_at(value: Value, depth: usize) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => Value::String(cut(&text)),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::String("…".to_owned()),
        Value::Array(items) => {
            let items = items.into_iter().take(ITEMS_MAX);
            Value::Array(items.map(|item| clean_at(item, depth - 1)).collect())
        }
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(name, _)| !may_be_secret(name));
            let cleaned = kept.take(ITEMS_MAX);
            cleaned.map(|(name, value)| (cut(&name), clean_at(value, depth - 1))).collect()
        }
    }
}

fn may_be_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !HARMLESS_NAMES.contains(&name.as_str()) && SECRET_NAMES.iter().any(|word| name.contains(word))
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let kept = (0..=TEXT_BYTES_MAX).rev().find_map(|end| text.get(..end));
    format!("{}…", kept.unwrap_or_default())
}

fn bounded(value: Value) -> Value {
    let bytes = value.to_string().len();
    if bytes <= VALUE_BYTES_MAX {
        return value;
    }
    serde_json::json!({ "left_out": format!("{bytes} bytes") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn actions_name_their_subject_and_are_spelt_one_way() {
        for action in Action::ALL {
            let text = action.as_str();
            assert_eq!(Action::parse(text), Some(*action));
            let (subject, verb) = text.split_once('.').unwrap();
            let known = SubjectKind::ALL.iter().any(|kind| kind.as_str() == subject);
            assert!(known && !verb.is_empty(), "{text}");
        }
        let distinct: std::collections::BTreeSet<_> =
            Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(distinct.len(), Action::ALL.len());
        assert_eq!(Action::parse("shop.exploded"), None);
    }

    #[test]
    fn only_what_differs_is_kept() {
        let old = json!({"name": "a", "url": "u", "gone": 1});
        let new = json!({"name": "b", "url": "u", "come": 2});
        let (before, after) = difference(Some(old.clone()), Some(new));
        assert_eq!(before, Some(json!({"name": "a", "gone": 1})));
        assert_eq!(after, Some(json!({"name": "b", "come": 2})));
        assert_eq!(difference(None, Some(old.clone())), (None, Some(old)));
    }

    #[test]
    fn what_might_be_secret_is_left_out_at_any_depth() {
        let value = json!({
            "name": "n", "digest": "x", "Password_Hash": "x", "client_secret": "x",
            "list": [{"totp_key": "x", "id": 1}], "password_set": true,
        });
        let expected = json!({"name": "n", "list": [{"id": 1}], "password_set": true});
        assert_eq!(clean(value), expected);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "\\PC{0,900}".prop_map(Value::from),
        ];
        leaf.prop_recursive(9, 400, 80, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..80).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{0,9}", inner, 0..80)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded(value in any_json()) {
            let kept = bounded(clean(value));
            prop_assert!(kept.to_string().len() <= VALUE_BYTES_MAX);
        }
    }
}
