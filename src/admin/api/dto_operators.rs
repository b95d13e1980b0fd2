//! The JSON of the admin API that speaks of operators and their sessions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::id::{OperatorId, SessionId, ShopId};
use crate::store::{OperatorRecord, Role, SessionRecord};

/// An operator: somebody who signs in to the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operator {
    /// Its public id.
    #[schema(value_type = String, example = "op_00000000000000ab")]
    pub id: OperatorId,
    /// What it signs in with.
    #[schema(example = "ada@example.com")]
    pub name: String,
    /// What it may do: `member`, `viewer`, `operator` or `owner`.
    #[schema(value_type = String, example = "operator")]
    pub role: Role,
    /// The shops that a member sees; empty for everyone else, who sees them all.
    #[schema(value_type = Vec<String>)]
    pub shops: Vec<ShopId>,
    /// It may not sign in.
    pub disabled: bool,
    /// Whether it has a password.
    pub password_set: bool,
    /// When its password was last set; `null` if it has none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub password_changed_at: Option<Timestamp>,
    /// Whether it has a second factor.
    pub second_factor: bool,
    /// The identity provider that vouches for it; `null` if none does.
    pub oidc_issuer: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Counts its changes.
    pub revision: u64,
}

impl From<OperatorRecord> for Operator {
    fn from(record: OperatorRecord) -> Self {
        let password_changed_at = record.password.is_some().then_some(record.password_changed_at);
        Self {
            id: record.id,
            name: record.name,
            role: record.role,
            shops: record.shops.into_iter().collect(),
            disabled: record.disabled,
            password_set: record.password.is_some(),
            password_changed_at,
            second_factor: record.totp.is_some(),
            oidc_issuer: record.oidc.map(|subject| subject.issuer),
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
        }
    }
}

/// What an operator or an admin token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum RoleName {
    /// What its shops need.
    Member,
    /// Looking.
    Viewer,
    /// Everything but operators, admin tokens and restoring.
    Operator,
    /// Everything.
    Owner,
}

/// An operator to create.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorCreate {
    /// What it signs in with: 1 to 64 letters, digits and `.` `_` `-` `@` `+`.
    #[schema(example = "ada@example.com", min_length = 1, max_length = 64)]
    pub name: String,
    /// What it may do: `member`, `viewer`, `operator` or `owner`.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// The shops that a member sees; nothing for everyone else.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub shops: Vec<String>,
    /// Its password; without one it cannot sign in until it gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub password: Option<String>,
}

/// What to change of an operator; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorPatch {
    /// What it signs in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    pub name: Option<String>,
    /// What it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RoleName)]
    pub role: Option<String>,
    /// The shops that a member sees, in place of all there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1000)]
    pub shops: Option<Vec<String>>,
    /// Whether it may not sign in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A password for somebody else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordReset {
    /// The password.
    #[schema(max_length = 1024)]
    pub password: String,
}

/// A session of an operator in the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorSession {
    /// Its public id.
    #[schema(value_type = String, example = "ses_00000000000000ab")]
    pub id: SessionId,
    /// Whose it is.
    #[schema(value_type = String, example = "op_00000000000000ab")]
    pub operator: OperatorId,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
    /// When it ends, however busy.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// From where it began.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What the browser called itself.
    pub user_agent: String,
}

impl From<SessionRecord> for OperatorSession {
    fn from(record: SessionRecord) -> Self {
        let SessionRecord { id, operator, created_at, last_seen_at, expires_at, .. } = record;
        let SessionRecord { address, user_agent, .. } = record;
        Self { id, operator, created_at, last_seen_at, expires_at, address, user_agent }
    }
}

/// How many sessions were ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionsRevoked {
    /// So many.
    pub ended: usize,
}
