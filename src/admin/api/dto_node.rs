//! The JSON of the admin API that speaks of the node itself: signing keys, issuers, limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::id::Name;

/// A key that signs widget tokens, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningKey {
    /// Its number.
    pub id: u32,
    /// Whether it is the one that signs.
    pub signs: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Since when it only verifies.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retired_at: Option<Timestamp>,
    /// The latest expiry of any token it signed.
    #[schema(value_type = String, format = DateTime)]
    pub last_expiry: Timestamp,
}

/// What a key that signs assertions is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AssertionKeyTurn {
    /// It is published, and will sign.
    Next,
    /// It signs.
    Current,
    /// It signed, and stays published until the last assertion it signed has expired.
    Over,
}

/// A key that signs assertions, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssertionKey {
    /// Its name in the key set at `/.latchkey/jwks.json`.
    pub kid: String,
    /// What it is good for now.
    pub turn: AssertionKeyTurn,
    /// When it was made, and so published.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// From when on it signs, until the next one does.
    #[schema(value_type = String, format = DateTime)]
    pub signs_from: Timestamp,
}

/// How to replace the key that signs assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AssertionKeyRotate {
    /// A new key signs at once and every other is withdrawn, for a key that may be in other
    /// hands: upstreams refuse assertions until they fetch the key set again. Otherwise the next
    /// key signs within five minutes, when every upstream can know it.
    pub at_once: bool,
}

/// An identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issuer {
    /// Its name in the configuration.
    #[schema(value_type = String, example = "main")]
    pub name: Name,
    /// The value of `iss`.
    pub iss: String,
    /// Where its keys are: `jwks_url`, `discovery`, `file` or `secret`.
    pub source: String,
    /// Whether its tokens can be checked now.
    pub usable: bool,
    /// Usable keys of the set in use.
    pub keys: usize,
    /// Members of the set that are not used.
    pub skipped: usize,
    /// When the set in use was fetched.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fetched_at: Option<Timestamp>,
    /// Why the last fetch failed; `null` if it did not.
    pub last_error: Option<String>,
    /// Failed fetches since the last good one.
    pub failures: u32,
    /// When the next fetch is due.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_refresh: Option<Timestamp>,
}

/// What a refresh of an issuer's key set brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuerRefreshed {
    /// The issuer, after the refresh.
    pub issuer: Issuer,
    /// Whether a set was fetched; not within the cool-down.
    pub fetched: bool,
}

/// A limit of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Its name, for overrides.
    #[schema(value_type = String, example = "widget-search")]
    pub name: Name,
    /// Requests per window.
    pub limit: u32,
    /// The window, in seconds.
    pub window_seconds: u64,
    /// Requests at once.
    pub burst: u32,
    /// `token-bucket` or `sliding-window`.
    pub algorithm: String,
    /// Units one request costs.
    pub cost: u32,
    /// Counts and reports, never refuses.
    pub shadow: bool,
}

/// What runs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// latchkey's version.
    pub version: String,
    /// How many shops there are.
    pub shops: usize,
    /// How many API keys there are.
    pub keys: usize,
    /// The generation of the state decisions are made from.
    pub generation: u64,
    /// The names of the routes, in order.
    #[schema(value_type = Vec<String>)]
    pub routes: Vec<Name>,
    /// The limits, in order.
    pub policies: Vec<Policy>,
    /// Scopes a widget token may have.
    pub widget_scopes: Vec<String>,
    /// The caller's role.
    pub role: String,
}
