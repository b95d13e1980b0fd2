//! What the audit log keeps of the things that change: views without secrets and without what is
//! kept of secrets.
//!
//! Each names its members one by one, so that a record's new member is not kept before somebody
//! has thought about it. Times are texts, as everywhere in JSON.

use serde_json::{Value, json};

use crate::store::{AdminTokenRecord, KeyRecord, LimitRecord, ShopRecord, TokenRecord};

/// A shop without its own limits.
#[must_use]
pub fn shop(shop: &ShopRecord) -> Value {
    json!({
        "name": shop.name,
        "url": shop.url,
        "widget_origins": shop.widget_origins,
        "enabled": shop.enabled,
        "tokens_valid_from": shop.tokens_valid_from,
    })
}

/// An API key without its own limits.
#[must_use]
pub fn key(key: &KeyRecord) -> Value {
    json!({
        "name": key.name,
        "start": key.start,
        "expires_at": key.expires_at,
        "grace_until": key.grace_until,
        "replaced_by": key.replaced_by,
        "networks": key.networks,
    })
}

/// An API key that a rotation replaces.
#[must_use]
pub fn rotated_key(key: &KeyRecord) -> Value {
    json!({ "name": key.name, "start": key.start })
}

/// A shop's or a key's own limits, by policy.
#[must_use]
pub fn limits(limits: &[LimitRecord]) -> Value {
    let one = |limit: &LimitRecord| {
        let value =
            json!({"limit": limit.limit, "window_seconds": limit.window_s, "burst": limit.burst});
        (limit.policy.to_string(), value)
    };
    Value::Object(limits.iter().map(one).collect())
}

/// A widget token.
#[must_use]
pub fn widget_token(token: &TokenRecord) -> Value {
    json!({
        "scopes": token.scopes,
        "issued_at": token.issued_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    })
}

/// An admin token.
#[must_use]
pub fn admin_token(token: &AdminTokenRecord) -> Value {
    json!({
        "name": token.name,
        "role": token.role,
        "expires_at": token.expires_at,
        "scopes": token.scopes,
        "shops": token.shops,
    })
}
