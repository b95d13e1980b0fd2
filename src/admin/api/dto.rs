//! The JSON of the admin API. Requests refuse unknown members; responses hold no secret except
//! where a member says so.
//!
//! These are wire types: records are `store`'s, and nothing here knows a rule.

use std::collections::{BTreeMap, BTreeSet};

pub use super::dto_audit::{
    AuditActor, AuditEntry, AuditFault, AuditHead, AuditSubject, AuditVerified, AuditVerify,
};
pub use super::dto_node::{
    AssertionKey, AssertionKeyRotate, AssertionKeyTurn, Info, Issuer, IssuerRefreshed, Policy,
    SigningKey,
};

pub use super::dto_operators::{
    Operator, OperatorCreate, OperatorPatch, OperatorSession, PasswordReset, RoleName,
    SessionsRevoked,
};

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::id::{AdminTokenId, KeyId, ShopId, TokenId};
use crate::store::{AdminTokenRecord, KeyRecord, LimitRecord, Role, ShopRecord, TokenRecord};

/// Limits of a shop's or a key's own, by the name of the configured limit they replace.
pub type Limits = BTreeMap<String, Limit>;

/// A limit of a shop's or a key's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests per window.
    #[schema(minimum = 1, maximum = 262_143)]
    pub limit: u32,
    /// The window, in seconds; at most 31 days.
    #[schema(minimum = 1, maximum = 2_678_400)]
    pub window_seconds: u64,
    /// Requests that may come at once (token bucket only); as many as `limit` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 262_143)]
    pub burst: Option<u32>,
}

pub(super) fn limits(records: &[LimitRecord]) -> Limits {
    let limit =
        |r: &LimitRecord| Limit { limit: r.limit, window_seconds: r.window_s, burst: r.burst };
    records.iter().map(|r| (r.policy.to_string(), limit(r))).collect()
}

/// A shop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shop {
    /// Its id, as it stands in paths.
    #[schema(value_type = String, example = "demo")]
    pub id: ShopId,
    /// What people call it.
    pub name: String,
    /// Its site.
    #[schema(example = "https://shop.example")]
    pub url: String,
    /// Further origins its widget may run on.
    pub widget_origins: Vec<String>,
    /// Whether its credentials are accepted.
    pub enabled: bool,
    /// Widget tokens issued before this are refused.
    #[schema(value_type = String, format = DateTime)]
    pub tokens_valid_from: Timestamp,
    /// Limits of its own.
    pub limits: Limits,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Counts its changes.
    pub revision: u64,
}

impl From<ShopRecord> for Shop {
    fn from(record: ShopRecord) -> Self {
        Self {
            limits: limits(&record.limits),
            id: record.id,
            name: record.name,
            url: record.url,
            widget_origins: record.widget_origins,
            enabled: record.enabled,
            tokens_valid_from: record.tokens_valid_from,
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
        }
    }
}

/// A shop to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShopCreate {
    /// 1 to 63 letters, digits, `-` or `_`, the first a letter or digit; not `me`.
    #[schema(example = "demo", min_length = 1, max_length = 63)]
    pub id: String,
    /// What people call it.
    #[serde(default)]
    #[schema(max_length = 100)]
    pub name: String,
    /// Its site: scheme, host, optional port.
    #[schema(example = "https://shop.example", max_length = 300)]
    pub url: String,
    /// Further origins its widget may run on, such as `https://*.example.com`.
    #[serde(default)]
    #[schema(max_items = 50)]
    pub widget_origins: Vec<String>,
    /// Whether its credentials are accepted.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A shop to create or to replace; what is left out gets its default. Its limits, keys and tokens
/// stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShopPut {
    /// What people call it.
    #[serde(default)]
    #[schema(max_length = 100)]
    pub name: String,
    /// Its site: scheme, host, optional port.
    #[schema(example = "https://shop.example", max_length = 300)]
    pub url: String,
    /// Further origins its widget may run on.
    #[serde(default)]
    #[schema(max_items = 50)]
    pub widget_origins: Vec<String>,
    /// Whether its credentials are accepted.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// What to change of a shop; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShopPatch {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub name: Option<String>,
    /// Its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 300)]
    pub url: Option<String>,
    /// Further origins its widget may run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 50)]
    pub widget_origins: Option<Vec<String>>,
    /// Whether its credentials are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Whether a key verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// It does.
    Active,
    /// It was rotated and still does, until `grace_until`.
    Grace,
    /// It was rotated and does not any more.
    Rotated,
    /// It has expired.
    Expired,
}

/// A shop API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its public name.
    #[schema(value_type = String, example = "key_00000000000000ab")]
    pub id: KeyId,
    /// Its shop.
    #[schema(value_type = String, example = "demo")]
    pub shop: ShopId,
    /// What people call it.
    pub name: String,
    /// The secret's first characters, to recognize it by.
    #[schema(example = "sk_3f9a")]
    pub start: String,
    /// Whether it verifies.
    pub status: KeyStatus,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it stops verifying; `null`: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// After a rotation: until when it still verifies.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub grace_until: Option<Timestamp>,
    /// After a rotation: the key that took its place.
    #[schema(value_type = Option<String>)]
    pub replaced_by: Option<KeyId>,
    /// Networks it may be used from; empty: any.
    #[schema(value_type = Vec<String>)]
    pub networks: Vec<ipnet::IpNet>,
    /// Limits of its own.
    pub limits: Limits,
    /// When it last verified.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// Counts its changes.
    pub revision: u64,
}

impl Key {
    /// The key of `record`, as it stands at `now`.
    #[must_use]
    pub fn at(record: KeyRecord, now: Timestamp) -> Self {
        let status = match (record.grace_until, record.expires_at) {
            (Some(until), _) if now >= until => KeyStatus::Rotated,
            (_, Some(at)) if now >= at => KeyStatus::Expired,
            (Some(_), _) => KeyStatus::Grace,
            (None, _) => KeyStatus::Active,
        };
        Self {
            limits: limits(&record.limits),
            id: record.id,
            shop: record.shop,
            name: record.name,
            start: record.start,
            status,
            created_at: record.created_at,
            expires_at: record.expires_at,
            grace_until: record.grace_until,
            replaced_by: record.replaced_by,
            networks: record.networks,
            last_used_at: record.last_used_at,
            revision: record.revision,
        }
    }
}

/// A key that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyCreated {
    /// The key.
    #[serde(flatten)]
    pub key: Key,
    /// The secret, shown this once; `null` when the request was a repetition.
    pub secret: Option<String>,
}

/// A key to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyCreate {
    /// What people call it.
    #[serde(default)]
    #[schema(max_length = 100)]
    pub name: String,
    /// When it stops verifying; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Networks or addresses it may be used from; any when empty.
    #[serde(default)]
    #[schema(max_items = 50)]
    pub networks: Vec<String>,
}

/// What to change of a key; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPatch {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub name: Option<String>,
    /// When it stops verifying; `null`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Option<String>>,
    /// Networks or addresses it may be used from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 50)]
    pub networks: Option<Vec<String>>,
}

/// How to rotate a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotate {
    /// For how long the old key still verifies; at most 90 days. 0: it is refused at once.
    #[serde(default)]
    #[schema(maximum = 7_776_000)]
    pub grace_seconds: u64,
}

/// A widget token, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WidgetToken {
    /// Its public name.
    #[schema(value_type = String, example = "wt_000000000000000000000000000000ab")]
    pub id: TokenId,
    /// Its shop.
    #[schema(value_type = String, example = "demo")]
    pub shop: ShopId,
    /// Its scopes; `*` is every scope.
    pub scopes: Vec<String>,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// When it stops verifying.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When it was revoked by its id.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// Who had it issued.
    pub issued_by: String,
}

impl From<TokenRecord> for WidgetToken {
    fn from(record: TokenRecord) -> Self {
        Self {
            id: record.id,
            shop: record.shop,
            scopes: record.scopes.split(' ').map(str::to_owned).collect(),
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            revoked_at: record.revoked_at,
            issued_by: record.issued_by,
        }
    }
}

/// A widget token that was just issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WidgetTokenCreated {
    /// What is kept of it.
    #[serde(flatten)]
    pub widget_token: WidgetToken,
    /// The token, shown this once; `null` when the request was a repetition.
    pub token: Option<String>,
}

/// A widget token to issue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WidgetTokenCreate {
    /// Its scopes; every scope when empty.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// For how long it verifies; as the configuration says when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub lifetime_seconds: Option<u64>,
}

/// All widget tokens of a shop were revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WidgetTokensRevoked {
    /// Tokens issued before this are refused; those issued from now on are not.
    #[schema(value_type = String, format = DateTime)]
    pub tokens_valid_from: Timestamp,
}

/// An admin token, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdminToken {
    /// Its public name.
    #[schema(value_type = String, example = "adm_00000000000000ab")]
    pub id: AdminTokenId,
    /// What people call it.
    pub name: String,
    /// What it may do: `member`, `viewer`, `operator` or `owner`.
    #[schema(value_type = String, example = "operator")]
    pub role: Role,
    /// What it may do of that, such as `keys:read`; `null`: everything.
    pub scopes: Option<BTreeSet<String>>,
    /// The shops that it sees; `null`: all of them.
    #[schema(value_type = Option<Vec<String>>)]
    pub shops: Option<BTreeSet<ShopId>>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it stops verifying; `null`: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it last verified.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

impl From<AdminTokenRecord> for AdminToken {
    fn from(record: AdminTokenRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            role: record.role,
            scopes: record.scopes,
            shops: record.shops,
            created_at: record.created_at,
            expires_at: record.expires_at,
            last_used_at: record.last_used_at,
        }
    }
}

/// An admin token that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdminTokenCreated {
    /// What is kept of it.
    #[serde(flatten)]
    pub admin_token: AdminToken,
    /// The token, shown this once; `null` when the request was a repetition.
    pub secret: Option<String>,
}

/// An admin token to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTokenCreate {
    /// What people will know it by.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do: `member`, `viewer`, `operator` or `owner`.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// What it may do of that, such as `keys:read`; everything when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The shops that it sees; all of them when left out. A member's token names its shops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1000)]
    pub shops: Option<Vec<String>>,
    /// When it stops verifying; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the order of their ids.
    pub items: Vec<T>,
    /// Where the next page starts, for `?cursor=`; `null` on the last page.
    pub next_cursor: Option<String>,
}

fn yes() -> bool {
    true
}

/// A member that is there, `null` or not: `Some`.
#[expect(clippy::option_option, reason = "left out, null and a value are three things")]
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}
