//! Who asks for an operation, and what it may do.
//!
//! A [`Caller`] is made by who knows: the listener of the unix socket, which trusts the file's
//! mode; the API, of an admin token; the dashboard, of a session. [`operations`](super::operations)
//! take it as their first argument, check it before anything else, and name it in the audit log;
//! nothing else checks what somebody may do.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::operations::{OperationError, Resource};
use crate::id::{AdminTokenId, OperatorId, ShopId};
use crate::store::Role;

/// One thing that can be allowed: what is done to which kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is its `as_str`")]
pub enum Permission {
    ShopsRead,
    ShopsWrite,
    KeysRead,
    KeysWrite,
    TokensRead,
    TokensWrite,
    LimitsWrite,
    Explain,
    IssuersRead,
    IssuersWrite,
    NodeRead,
    NodeWrite,
    AdminTokensRead,
    AdminTokensWrite,
    OperatorsRead,
    OperatorsWrite,
    AuditRead,
    UsageRead,
    EventsRead,
    BackupsRead,
    BackupsWrite,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::ShopsRead,
        Self::ShopsWrite,
        Self::KeysRead,
        Self::KeysWrite,
        Self::TokensRead,
        Self::TokensWrite,
        Self::LimitsWrite,
        Self::Explain,
        Self::IssuersRead,
        Self::IssuersWrite,
        Self::NodeRead,
        Self::NodeWrite,
        Self::AdminTokensRead,
        Self::AdminTokensWrite,
        Self::OperatorsRead,
        Self::OperatorsWrite,
        Self::AuditRead,
        Self::UsageRead,
        Self::EventsRead,
        Self::BackupsRead,
        Self::BackupsWrite,
    ];

    /// Its name, as an admin token's scope.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShopsRead => "shops:read",
            Self::ShopsWrite => "shops:write",
            Self::KeysRead => "keys:read",
            Self::KeysWrite => "keys:write",
            Self::TokensRead => "tokens:read",
            Self::TokensWrite => "tokens:write",
            Self::LimitsWrite => "limits:write",
            Self::Explain => "explain",
            Self::IssuersRead => "issuers:read",
            Self::IssuersWrite => "issuers:write",
            Self::NodeRead => "node:read",
            Self::NodeWrite => "node:write",
            Self::AdminTokensRead => "admin_tokens:read",
            Self::AdminTokensWrite => "admin_tokens:write",
            Self::OperatorsRead => "operators:read",
            Self::OperatorsWrite => "operators:write",
            Self::AuditRead => "audit:read",
            Self::UsageRead => "usage:read",
            Self::EventsRead => "events:read",
            Self::BackupsRead => "backups:read",
            Self::BackupsWrite => "backups:write",
        }
    }

    /// The permission of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == text)
    }

    /// The least role that has it. A member has its permissions within its shops only.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::ShopsRead
            | Self::ShopsWrite
            | Self::KeysRead
            | Self::KeysWrite
            | Self::TokensRead
            | Self::TokensWrite
            | Self::Explain
            | Self::UsageRead
            | Self::EventsRead => Role::Member,
            Self::IssuersRead | Self::NodeRead | Self::AuditRead => Role::Viewer,
            Self::LimitsWrite
            | Self::IssuersWrite
            | Self::NodeWrite
            | Self::OperatorsRead
            | Self::BackupsRead => Role::Operator,
            Self::AdminTokensRead
            | Self::AdminTokensWrite
            | Self::OperatorsWrite
            | Self::BackupsWrite => Role::Owner,
        }
    }

    /// Whether it lets its holder change something.
    #[must_use]
    pub const fn writes(self) -> bool {
        match self {
            Self::ShopsWrite
            | Self::KeysWrite
            | Self::TokensWrite
            | Self::LimitsWrite
            | Self::IssuersWrite
            | Self::NodeWrite
            | Self::AdminTokensWrite
            | Self::OperatorsWrite
            | Self::BackupsWrite => true,
            Self::ShopsRead
            | Self::KeysRead
            | Self::TokensRead
            | Self::Explain
            | Self::IssuersRead
            | Self::NodeRead
            | Self::AdminTokensRead
            | Self::OperatorsRead
            | Self::AuditRead
            | Self::UsageRead
            | Self::EventsRead
            | Self::BackupsRead => false,
        }
    }

    /// Whether `role` has it at all: a viewer looks, even where a member may write.
    #[must_use]
    pub fn is_of(self, role: Role) -> bool {
        role >= self.role() && !(role == Role::Viewer && self.writes())
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The shops that a caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shops {
    /// Every one, those to come too.
    All,
    /// These.
    Only(BTreeSet<ShopId>),
}

/// What of its role's permissions a caller has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// Every one.
    All,
    /// No more than these.
    Only(BTreeSet<Permission>),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// What people know it by.
    pub name: String,
    /// How it came.
    pub via: Via,
    /// What it sees.
    pub shops: Shops,
    /// What of its role it has.
    pub scopes: Scopes,
    /// From where, if it came over a network.
    pub address: Option<IpAddr>,
}

/// How a caller came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// With this admin token.
    Token(AdminTokenId),
    /// Signed in as this operator.
    Operator(OperatorId),
    /// Through the unix socket, whose file mode let it in.
    Socket,
    /// Within the process: the command line on a store that no server has open.
    InProcess,
    /// Nobody: what latchkey does by itself.
    System,
}

impl Caller {
    /// Whoever may open the unix socket owns the node.
    #[must_use]
    pub fn socket() -> Self {
        Self::owner("socket", Via::Socket)
    }

    /// Whoever may open the store owns the node.
    #[must_use]
    pub fn in_process() -> Self {
        Self::owner("command line", Via::InProcess)
    }

    /// What latchkey does by itself.
    #[must_use]
    pub fn system() -> Self {
        Self::owner("latchkey", Via::System)
    }

    fn owner(name: &str, via: Via) -> Self {
        Self {
            role: Role::Owner,
            name: name.to_owned(),
            via,
            shops: Shops::All,
            scopes: Scopes::All,
            address: None,
        }
    }

    /// The caller in records and logs.
    #[must_use]
    pub fn label(&self) -> String {
        match self.via {
            Via::Token(id) => id.to_string(),
            Via::Operator(id) => id.to_string(),
            Via::Socket => "socket".to_owned(),
            Via::InProcess => "cli".to_owned(),
            Via::System => "system".to_owned(),
        }
    }

    /// Whether it has `permission`, be it within its shops only.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        let in_scope = match &self.scopes {
            Scopes::All => true,
            Scopes::Only(scopes) => scopes.contains(&permission),
        };
        in_scope && permission.is_of(self.role)
    }

    /// Whether it sees `shop`.
    #[must_use]
    pub fn sees(&self, shop: &ShopId) -> bool {
        match &self.shops {
            Shops::All => true,
            Shops::Only(shops) => shops.contains(shop),
        }
    }

    /// It has `permission`, and over every shop.
    pub fn require(&self, permission: Permission) -> Result<(), OperationError> {
        self.require_any(permission)?;
        match self.shops {
            Shops::All => Ok(()),
            Shops::Only(_) => Err(OperationError::Forbidden {
                needed: permission,
                why: Why::Everything { role: self.role },
            }),
        }
    }

    /// It has `permission`, be it within its shops only: who asks this looks at them next.
    pub fn require_any(&self, permission: Permission) -> Result<(), OperationError> {
        if self.may(permission) {
            return Ok(());
        }
        let why =
            if permission.is_of(self.role) { Why::Scope } else { Why::Role { role: self.role } };
        Err(OperationError::Forbidden { needed: permission, why })
    }

    /// It has `permission` over `shop`; a shop that it does not see is none.
    pub fn require_in(&self, permission: Permission, shop: &ShopId) -> Result<(), OperationError> {
        self.require_any(permission)?;
        if self.sees(shop) { Ok(()) } else { Err(OperationError::NotFound(Resource::Shop)) }
    }
}

/// Why a caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its role does not have the permission.
    Role {
        /// The role.
        role: Role,
    },
    /// Its token's scopes leave the permission out.
    Scope,
    /// This is about more than its shops.
    Everything {
        /// Its role.
        role: Role,
    },
}

/// A refusal, for people.
pub(super) fn refusal(needed: Permission, why: Why) -> String {
    match why {
        Why::Role { role } => {
            let least =
                if needed.writes() { needed.role().max(Role::Operator) } else { needed.role() };
            format!(
                "this needs `{needed}`, which begins with the role `{least}`; yours is `{role}`"
            )
        }
        Why::Scope => format!("this needs `{needed}`, which is not among the token's scopes"),
        Why::Everything { role } => {
            format!("this is about more than single shops; as `{role}` you see yours only")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, shops: &[&str], scopes: Scopes) -> Caller {
        let shops = if role == Role::Member {
            Shops::Only(shops.iter().map(|shop| ShopId::parse(shop).unwrap()).collect())
        } else {
            Shops::All
        };
        Caller { role, shops, scopes, ..Caller::socket() }
    }

    #[test]
    fn roles_and_what_they_may() {
        use Permission as P;
        let own = ShopId::parse("own").unwrap();
        let other = ShopId::parse("other").unwrap();
        for permission in P::ALL {
            let owner = caller(Role::Owner, &[], Scopes::All);
            assert!(
                owner.require(permission).is_ok() && owner.require_in(permission, &own).is_ok()
            );
            let operator = caller(Role::Operator, &[], Scopes::All);
            let only_owner = matches!(
                permission,
                P::AdminTokensRead | P::AdminTokensWrite | P::OperatorsWrite | P::BackupsWrite
            );
            assert_eq!(operator.require(permission).is_ok(), !only_owner, "{permission}");
            let viewer = caller(Role::Viewer, &[], Scopes::All);
            let hidden =
                matches!(permission, P::AdminTokensRead | P::OperatorsRead | P::BackupsRead);
            let looks = !permission.writes() && !hidden;
            assert_eq!(viewer.require(permission).is_ok(), looks, "{permission}");
            let member = caller(Role::Member, &["own"], Scopes::All);
            let within = matches!(
                permission,
                P::ShopsRead
                    | P::ShopsWrite
                    | P::KeysRead
                    | P::KeysWrite
                    | P::TokensRead
                    | P::TokensWrite
                    | P::UsageRead
                    | P::EventsRead
                    | P::Explain
            );
            assert_eq!(member.require_in(permission, &own).is_ok(), within, "{permission}");
            assert!(member.require_in(permission, &other).is_err(), "{permission}");
            assert!(member.require(permission).is_err(), "{permission}");
        }
    }

    #[test]
    fn scopes_only_take_away() {
        let scopes = Scopes::Only([Permission::ShopsRead, Permission::OperatorsWrite].into());
        let operator = caller(Role::Operator, &[], scopes);
        for permission in Permission::ALL {
            assert_eq!(operator.may(permission), permission == Permission::ShopsRead);
        }
    }

    #[test]
    fn names_go_both_ways() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(permission));
        }
        assert_eq!(Permission::parse("shops"), None);
    }

    #[test]
    fn refusals_say_what_is_needed() {
        let viewer = caller(Role::Viewer, &[], Scopes::All);
        let said = |permission| viewer.require(permission).unwrap_err().to_string();
        assert!(said(Permission::KeysWrite).contains("`keys:write`"));
        assert!(said(Permission::KeysWrite).contains("`operator`"), "a viewer is above a member");
        assert!(said(Permission::OperatorsWrite).contains("`owner`"));
    }
}
