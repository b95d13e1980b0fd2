//! The commands that manage operators and admin tokens. Each is one request to the admin API, or,
//! where an operator is named rather than numbered, two.

use clap::{Args, Subcommand};

use super::value::{RoleName, seconds};
use crate::id::{AdminTokenId, SessionId, ShopId};

/// `operator`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum OperatorCommand {
    /// Create an operator, who signs in to the dashboard
    #[command(after_help = "Examples:\n  latchkey operator create ada --role owner\n  \
                            latchkey operator create bob --role member --shop acme --generate")]
    Create {
        /// What it signs in with: letters, digits and . _ - @ +
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleName,
        /// A shop that a member sees; may be given several times
        #[arg(long = "shop", value_name = "SHOP")]
        shops: Vec<ShopId>,
        /// Where its password comes from
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List operators
    List,
    /// Set an operator's password, and end its sessions
    ResetPassword {
        /// Its name or id
        operator: String,
        /// Where its password comes from
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Take an operator's second factor away: it lost its app and its recovery codes
    ResetTotp {
        /// Its name or id
        operator: String,
    },
    /// Change what an operator may do, and end its sessions
    SetRole {
        /// Its name or id
        operator: String,
        /// What it may do
        #[arg(value_enum)]
        role: RoleName,
        /// A shop that a member sees, in place of all there are; may be given several times
        #[arg(long = "shop", value_name = "SHOP")]
        shops: Vec<ShopId>,
    },
    /// Keep an operator from signing in, and end its sessions
    Disable {
        /// Its name or id
        operator: String,
    },
    /// Let a disabled operator sign in again
    Enable {
        /// Its name or id
        operator: String,
    },
    /// Delete an operator, and end its sessions
    Delete {
        /// Its name or id
        operator: String,
        /// Do it; there is no way back
        #[arg(long, required = true)]
        yes: bool,
    },
    /// List or end sessions in the dashboard
    Sessions {
        /// Whose; its name or id [default: everyone's]
        operator: Option<String>,
        /// What to do with them [default: list them]
        #[command(subcommand)]
        command: Option<SessionsCommand>,
    },
    /// Manage the tokens of the admin API
    #[command(subcommand)]
    Token(OperatorTokenCommand),
}

/// Where a password comes from: without a flag it is asked for at the terminal.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct PasswordArgs {
    /// Read the password from standard input, the first line of it
    #[arg(long, conflicts_with = "generate")]
    pub(in crate::cli) password_stdin: bool,
    /// Make one up, and show it once
    #[arg(long)]
    pub(in crate::cli) generate: bool,
}

/// `operator sessions`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum SessionsCommand {
    /// End a session, or all of an operator
    Revoke {
        /// Its id
        #[arg(required_unless_present = "all_of")]
        session: Option<SessionId>,
        /// An operator, by name or id: end all of its sessions
        #[arg(long, value_name = "OPERATOR", conflicts_with = "session")]
        all_of: Option<String>,
    },
}

/// `operator token`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum OperatorTokenCommand {
    /// Create a token; it is shown once
    #[command(
        after_help = "Examples:\n  latchkey operator token create --name ci --role operator \
                            --expires-in 90d\n  latchkey operator token create --name rotation \
                            --role member --shop acme --scope keys:read --scope keys:write"
    )]
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleName,
        /// What it may do of that, such as keys:read; may be given several times [default: all]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// A shop that it sees; may be given several times [default: all]
        #[arg(long = "shop", value_name = "SHOP")]
        shops: Vec<ShopId>,
        /// How long it is good for, such as 90d [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        expires_in: Option<u64>,
    },
    /// List the tokens
    List,
    /// Revoke a token: it is refused from now on
    Revoke {
        /// Its id
        token: AdminTokenId,
    },
}
