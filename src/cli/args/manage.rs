//! The commands that manage what the store holds. Each is one request to the admin API.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::value::{LimitSetting, seconds};
use crate::admin::audit::Action;
use crate::clock::Timestamp;
use crate::id::{KeyId, Name, ShopId, TokenId};
use crate::store::audit::Point;

/// `shop`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum ShopCommand {
    /// Create a shop
    #[command(after_help = "Example:\n  latchkey shop create acme --url https://acme.example \
                            --widget-origin 'https://*.acme.example'")]
    Create {
        /// Its id, as it stands in /shops/{shopId}: letters, digits, - and _
        shop: ShopId,
        /// Its site; browsers are held to this origin
        #[arg(long)]
        url: String,
        /// What people call it [default: its id]
        #[arg(long)]
        name: Option<String>,
        /// A further origin its widget may run on; may be given several times
        #[arg(long = "widget-origin", value_name = "ORIGIN")]
        widget_origins: Vec<String>,
    },
    /// List shops
    List,
    /// Show a shop
    Show {
        /// Its id
        shop: ShopId,
    },
    /// Change a shop; what is not named stays as it is
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// Its id
        shop: ShopId,
        /// Its site
        #[arg(long, group = "change")]
        url: Option<String>,
        /// What people call it
        #[arg(long, group = "change")]
        name: Option<String>,
        /// An origin its widget may run on, in place of all there are; may be given several times
        #[arg(long = "widget-origin", value_name = "ORIGIN", group = "change")]
        widget_origins: Vec<String>,
        /// Take all further widget origins away
        #[arg(long, group = "change", conflicts_with = "widget_origins")]
        no_widget_origins: bool,
        /// Accept its credentials
        #[arg(long, group = "change", conflicts_with = "disable")]
        enable: bool,
        /// Refuse its credentials, with 403 `shop_disabled`
        #[arg(long, group = "change")]
        disable: bool,
    },
    /// Delete a shop, and with it its keys and tokens
    Delete {
        /// Its id
        shop: ShopId,
        /// Do it; there is no way back
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Show, set or take away a shop's own limits
    Limits {
        /// Its id
        shop: ShopId,
        /// What to change
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Show how much of each limit a shop has left, and when it is whole again
    Standing {
        /// Its id
        shop: ShopId,
    },
}

/// Limits of a shop's or a key's own.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Without a flag the limits are shown.\n\nExample:\n  latchkey shop limits \
                        acme --set widget-search=500/1m --set authenticated=1000/1m,burst=50")]
pub(in crate::cli) struct LimitArgs {
    /// A limit of its own, in place of all there are: POLICY=LIMIT/WINDOW[,burst=N]
    #[arg(long, value_name = "LIMIT")]
    pub(in crate::cli) set: Vec<LimitSetting>,
    /// Take them all away: the configured limits apply
    #[arg(long, conflicts_with = "set")]
    pub(in crate::cli) clear: bool,
}

/// `key`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Create a key; its secret is shown once
    #[command(after_help = "Example:\n  latchkey key create acme --name production \
                            --network 203.0.113.0/24")]
    Create {
        /// The shop it is for
        shop: ShopId,
        /// What people call it
        #[arg(long)]
        name: String,
        /// How long it is good for, such as 90d [default: until it is rotated or revoked]
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        expires_in: Option<u64>,
        /// A network it may be used from; may be given several times [default: any]
        #[arg(long = "network", value_name = "CIDR", value_parser = network)]
        networks: Vec<IpNet>,
    },
    /// List a shop's keys
    List {
        /// The shop
        shop: ShopId,
    },
    /// Show a key (never its secret)
    Show {
        /// The shop it is for
        shop: ShopId,
        /// Its id
        key: KeyId,
    },
    /// Change a key; what is not named stays as it is
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The shop it is for
        shop: ShopId,
        /// Its id
        key: KeyId,
        /// What people call it
        #[arg(long, group = "change")]
        name: Option<String>,
        /// When it expires, such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME", group = "change", value_parser = time)]
        expires_at: Option<Timestamp>,
        /// It does not expire
        #[arg(long, group = "change", conflicts_with = "expires_at")]
        no_expiry: bool,
        /// A network it may be used from, in place of all there are; may be given several times
        #[arg(long = "network", value_name = "CIDR", group = "change", value_parser = network)]
        networks: Vec<IpNet>,
        /// It may be used from anywhere
        #[arg(long, group = "change", conflicts_with = "networks")]
        any_network: bool,
    },
    /// Replace a key by a new one, whose secret is shown once
    ///
    /// The old key is refused at once, unless a grace period is asked for in which both verify.
    Rotate {
        /// The shop it is for
        shop: ShopId,
        /// Its id
        key: KeyId,
        /// How long the old key still verifies, such as 24h [default: not at all]
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        grace: Option<u64>,
    },
    /// Revoke a key: it is refused from now on
    Revoke {
        /// The shop it is for
        shop: ShopId,
        /// Its id
        key: KeyId,
    },
    /// Show, set or take away a key's own limits
    Limits {
        /// The shop it is for
        shop: ShopId,
        /// Its id
        key: KeyId,
        /// What to change
        #[command(flatten)]
        limits: LimitArgs,
    },
}

/// `token`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Issue a widget token; it is shown once
    #[command(after_help = "Example:\n  latchkey token issue acme --scope search --lifetime 2h")]
    Issue {
        /// The shop it is for
        shop: ShopId,
        /// What it may do; may be given several times [default: everything]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it is good for, such as 2h [default: widget.lifetime]
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        lifetime: Option<u64>,
    },
    /// List a shop's widget tokens
    List {
        /// The shop
        shop: ShopId,
    },
    /// Revoke a widget token: it is refused from now on
    Revoke {
        /// The shop it is for
        shop: ShopId,
        /// Its id
        token: TokenId,
    },
    /// Revoke every widget token that the shop has been issued until now
    RevokeAll {
        /// The shop
        shop: ShopId,
    },
    /// Sign with a new key from now on; tokens signed before stay good until they expire
    RotateSigningKey,
}

/// `assertion`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum AssertionCommand {
    /// List the keys: the one that signs, the next one, and those whose turn is over
    Keys,
    /// Replace the key that signs before its time
    ///
    /// The next key signs within five minutes, when every upstream can know it; the present one
    /// stays published until the last assertion it signed has expired.
    RotateKey {
        /// Sign with a new key at once and publish no other any more, because the present one may
        /// be in other hands; upstreams refuse assertions until they fetch the key set again
        #[arg(long)]
        at_once: bool,
    },
}

/// `audit`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// List entries, the newest first
    #[command(after_help = "Example:\n  latchkey audit list --shop acme --action key.rotated \
                            --from 2027-01-01T00:00:00Z")]
    List(AuditListArgs),
    /// Write the whole log as JSON lines, to be kept elsewhere
    Export {
        /// The file to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Verify that no entry was altered, removed, moved or inserted; exits with 0 or 7
    ///
    /// That the whole database was put back to an older state shows only against a head noted
    /// before (`latchkey audit head`), or an export.
    #[command(after_help = "Example:\n  latchkey audit verify --expect \
                            \"$(ssh vault cat latchkey.head)\"")]
    Verify {
        /// A head noted before, which the log has to hold
        #[arg(long, value_name = "SEQ:MAC")]
        expect: Option<Point>,
        /// An export to verify instead of the log itself; needs the master key's file
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print where the log ends, as `audit verify --expect` takes it
    Head,
}

/// `audit list`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AuditListArgs {
    /// What was done, such as shop.created
    #[arg(long, value_parser = action)]
    pub(in crate::cli) action: Option<Action>,
    /// Who did it: an id, socket, cli, system, or a name
    #[arg(long)]
    pub(in crate::cli) actor: Option<String>,
    /// What it was done to: a kind, an id, or KIND:ID
    #[arg(long)]
    pub(in crate::cli) subject: Option<String>,
    /// The shop it was done to, or to something of
    #[arg(long)]
    pub(in crate::cli) shop: Option<ShopId>,
    /// Not before this, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) from: Option<Timestamp>,
    /// Before this
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) to: Option<Timestamp>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub(in crate::cli) limit: usize,
}

/// `issuer`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum IssuerCommand {
    /// List the identity providers, and how old their keys are
    List,
    /// Fetch an identity provider's keys now
    Refresh {
        /// Its name in the configuration
        issuer: Name,
    },
}

pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| "write it as 2027-01-31T00:00:00Z".into())
}

fn action(text: &str) -> Result<Action, String> {
    Action::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        format!("it is one of {}", all.join(", "))
    })
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let network: Result<IpNet, _> = text.parse().or_else(|_| address());
    network.map_err(|_| "write it as 203.0.113.0/24 or 203.0.113.9".into())
}
