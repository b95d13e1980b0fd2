//! `[admin]`: where operators come in, how they sign in, and how long they stay.
//!
//! Names files and does not keep what is in them; addresses are not bound and providers not asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::issuers::parse_claim_path;
use super::read::Section;
use super::report::{Noted, collect_all};
use super::secret_file::{self, parse_secret_file};
use super::server::{ServerConfig, parse_address, parse_network};
use super::tls::{self, TlsConfig};
use super::validate::{parse_path, parse_socket};
use super::value::{self, Span, quote};
use crate::decision::origin::Origin;
use crate::id::ShopId;

/// The most groups that are given roles, and the most shops of one.
const ROLES_MAX: usize = 256;

/// Longest name of a client or of a group, in bytes.
const NAME_BYTES_MAX: usize = 256;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The admin plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where the dashboard, the admin API, metrics and health checks listen.
    pub listen: SocketAddr,
    /// The unix socket of the command line.
    pub socket: PathBuf,
    /// Whether there is a dashboard.
    pub dashboard: bool,
    /// Where browsers reach the admin plane; `None`: where it listens.
    pub public_url: Option<Origin>,
    /// Peers whose `X-Forwarded-For` is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS, never with certificates of clients; `None`: the listener is plain.
    pub tls: Option<TlsConfig>,
    /// How long operators stay signed in.
    pub sessions: SessionsConfig,
    /// What verifying a password may take.
    pub passwords: PasswordsConfig,
    /// The identity provider operators may sign in with; `None`: passwords only.
    pub oidc: Option<OidcConfig>,
}

impl AdminConfig {
    /// The admin plane at `listen` and `socket`, everything else as it is by default.
    #[must_use]
    pub fn new(listen: SocketAddr, socket: PathBuf) -> Self {
        Self {
            listen,
            socket,
            dashboard: true,
            public_url: None,
            trusted_proxies: Vec::new(),
            tls: None,
            sessions: SessionsConfig::default(),
            passwords: PasswordsConfig::default(),
            oidc: None,
        }
    }
}

/// How long operators stay signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsConfig {
    /// A session that is not used for this long ends.
    pub idle_timeout: Duration,
    /// A session ends after this, however busy it is.
    pub lifetime: Duration,
    /// Sessions of one operator; a further one ends the one that was idle longest.
    pub per_operator_max: NonZeroUsize,
}

/// The defaults of `[admin.sessions]`.
impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(3600),
            lifetime: Duration::from_secs(12 * 3600),
            per_operator_max: NonZeroUsize::MIN.saturating_add(19),
        }
    }
}

/// What verifying a password may take: the parameters of argon2id (RFC 9106), and how many are
/// computed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordsConfig {
    /// Memory of one hash, in bytes.
    pub memory: u64,
    /// Passes over it.
    pub iterations: NonZeroU32,
    /// Hashes computed at once.
    pub concurrent_max: NonZeroUsize,
    /// Sign-ins that wait for one; beyond, they are told to try again.
    pub waiting_max: NonZeroUsize,
    /// Shortest new password, in characters.
    pub length_min: usize,
}

/// The defaults of `[admin.passwords]`.
impl Default for PasswordsConfig {
    fn default() -> Self {
        Self {
            memory: 19 * MIB,
            iterations: NonZeroU32::MIN.saturating_add(1),
            concurrent_max: NonZeroUsize::MIN.saturating_add(1),
            waiting_max: NonZeroUsize::MIN.saturating_add(31),
            length_min: 12,
        }
    }
}

/// The identity provider operators may sign in with (`OpenID` Connect, authorization code and
/// PKCE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// The exact value of `iss`; discovery starts from it.
    pub issuer: String,
    /// What the provider calls this latchkey.
    pub client_id: Box<str>,
    /// The file that holds the client's secret, for [`super::read_secret_file`]; `None`: a public
    /// client.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for; `openid` is among them.
    pub scopes: Vec<Box<str>>,
    /// The path of the claim that names the operator.
    pub name_claim: Vec<Box<str>>,
    /// The path of the claim that lists the operator's groups.
    pub groups_claim: Vec<Box<str>>,
    /// The provider's roots; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Which groups may do what, in the order written; never empty.
    pub roles: Vec<GroupRole>,
}

/// What the members of a group may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRole {
    /// The group, as the provider names it.
    pub group: Box<str>,
    /// What its members may do.
    pub role: RoleGrant,
}

/// The role that a group gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleGrant {
    /// Everything.
    Owner,
    /// Everything but operators, admin tokens and restoring.
    Operator,
    /// Looking.
    Viewer,
    /// Its shops, of which there is one at least.
    Member(BTreeSet<ShopId>),
}

/// `[admin]` as written; where its socket is depends on the store.
pub(super) struct Written {
    listen: SocketAddr,
    /// The socket, if it is named.
    pub(super) socket: Option<PathBuf>,
    dashboard: bool,
    public_url: Option<Origin>,
    trusted_proxies: Vec<IpNet>,
    tls: Option<TlsConfig>,
    sessions: SessionsConfig,
    passwords: PasswordsConfig,
    oidc: Option<OidcConfig>,
}

impl Written {
    /// The admin plane with its socket at `socket`.
    pub(super) fn at(self, socket: PathBuf) -> AdminConfig {
        AdminConfig {
            listen: self.listen,
            socket,
            dashboard: self.dashboard,
            public_url: self.public_url,
            trusted_proxies: self.trusted_proxies,
            tls: self.tls,
            sessions: self.sessions,
            passwords: self.passwords,
            oidc: self.oidc,
        }
    }
}

/// Reads `[admin]` with the tables in it.
pub(super) fn read(
    root: &mut Section<'_, '_>,
    server: Option<&ServerConfig>,
) -> Result<Written, Noted> {
    let mut t = root.table("admin");
    let listen = t.text("listen", "127.0.0.1:8081", parse_address);
    if let (Ok(listen), Some(server)) = (listen, server)
        && listen.port() != 0
        && listen.port() == server.listen.port()
        && (listen.ip() == server.listen.ip()
            || listen.ip().is_unspecified()
            || server.listen.ip().is_unspecified())
    {
        t.error(
            "listen",
            format!("{listen} is taken by server.listen; give the admin plane another port"),
        );
    }
    let socket = t.text_optional("socket", "admin.sock beside the database", parse_socket);
    let dashboard = t.boolean("dashboard", true);
    let public_url = t.text_optional("public_url", "where it listens", parse_public_url);
    let trusted_proxies = t.list("trusted_proxies", &[], parse_network);
    let tls = tls::read_without_clients(&mut t);
    let sessions = read_sessions(&mut t);
    let passwords = read_passwords(&mut t);
    let oidc = read_oidc(&mut t);
    if let (Ok(Some(_)), Ok(None)) = (&oidc, &public_url) {
        let message = "is missing; admin.oidc needs it: the provider sends browsers back there";
        t.error("public_url", message.into());
    }
    t.finish();
    Ok(Written {
        listen: listen?,
        socket: socket?,
        dashboard: dashboard?,
        public_url: public_url?,
        trusted_proxies: trusted_proxies?,
        tls: tls?,
        sessions: sessions?,
        passwords: passwords?,
        oidc: oidc?,
    })
}

fn read_sessions(admin: &mut Section<'_, '_>) -> Result<SessionsConfig, Noted> {
    let mut t = admin.table("sessions");
    let idle_timeout = t.duration("idle_timeout", "1h", Span::LIFETIME);
    let lifetime = t.duration("lifetime", "12h", Span::LIFETIME);
    if let (Ok(idle), Ok(lifetime)) = (idle_timeout, lifetime)
        && idle > lifetime
    {
        let (idle, lifetime) = (value::show_duration(idle), value::show_duration(lifetime));
        let message = format!("\"{idle}\" is longer than admin.sessions.lifetime, \"{lifetime}\"");
        t.error("idle_timeout", message);
    }
    let per_operator_max = t.count("per_operator_max", 20, (1, 1000));
    t.finish();
    Ok(SessionsConfig {
        idle_timeout: idle_timeout?,
        lifetime: lifetime?,
        per_operator_max: per_operator_max?,
    })
}

fn read_passwords(admin: &mut Section<'_, '_>) -> Result<PasswordsConfig, Noted> {
    let mut t = admin.table("passwords");
    let memory = t.bytes("memory", "19MiB", (64 * KIB, GIB));
    let iterations = t.integer("iterations", 2, (1, 64));
    let concurrent_max = t.count("concurrent_max", 2, (1, 64));
    let waiting_max = t.count("waiting_max", 32, (1, 1024));
    let length_min = t.count("length_min", 12, (8, 128));
    t.finish();
    Ok(PasswordsConfig {
        memory: memory?,
        iterations: iterations?,
        concurrent_max: concurrent_max?,
        waiting_max: waiting_max?,
        length_min: length_min?.get(),
    })
}

fn read_oidc(admin: &mut Section<'_, '_>) -> Result<Option<OidcConfig>, Noted> {
    let mut t = admin.table("oidc");
    if t.is_empty() {
        t.left_out("issuer", "operators sign in by password");
        return Ok(None);
    }
    let hint = "write e.g. issuer = \"https://idp.example\"";
    let issuer = t.text_required("issuer", hint, parse_issuer);
    let client_id = t.text_required("client_id", "write e.g. \"latchkey\"", parse_text);
    let secret = t.text_optional("client_secret_file", "a public client", |text| {
        parse_secret_file(text, secret_file::BYTES_MIN)
    });
    let scopes = t.list("scopes", &["openid", "profile", "email"], value::parse_scope);
    if let Ok(scopes) = &scopes
        && scopes.iter().all(|scope| &**scope != "openid")
    {
        let message = "lack \"openid\", without which the provider names nobody";
        t.error("scopes", message.into());
    }
    let name_claim = t.names("name_claim", "preferred_username", parse_claim_path);
    let groups_claim = t.names("groups_claim", "groups", parse_claim_path);
    let ca_file = t.text_optional("ca_file", "the system's roots", parse_path);
    let roles = read_roles(&mut t);
    t.finish();
    Ok(Some(OidcConfig {
        issuer: issuer?,
        client_id: client_id?,
        client_secret_file: secret?,
        scopes: scopes?,
        name_claim: name_claim?,
        groups_claim: groups_claim?,
        ca_file: ca_file?,
        roles: roles?,
    }))
}

fn read_roles(oidc: &mut Section<'_, '_>) -> Result<Vec<GroupRole>, Noted> {
    let items = oidc.inline_items("roles", ROLES_MAX)?;
    if items.is_empty() {
        let hint = "write e.g. [{ group = \"latchkey-owners\", role = \"owner\" }]; without any, \
                    nobody could sign in";
        return Err(oidc.missing("roles", hint));
    }
    collect_all(items.iter().enumerate().map(|(i, item)| {
        let mut t = oidc.inline_item("roles", i, item);
        let role = read_role(&mut t);
        t.finish();
        role
    }))
}

fn read_role(t: &mut Section<'_, '_>) -> Result<GroupRole, Noted> {
    let group = t.text_required("group", "write the group's name", parse_text);
    let hint = "write \"owner\", \"operator\", \"viewer\" or \"member\"";
    let choices = [
        ("owner", Some(RoleGrant::Owner)),
        ("operator", Some(RoleGrant::Operator)),
        ("viewer", Some(RoleGrant::Viewer)),
        ("member", None),
    ];
    let role = t.choice_required("role", hint, &choices)?;
    let Some(role) = role else {
        let hint = "write the ids of the group's shops, e.g. [\"demo\"]";
        let shops = t.list_required("shops", hint, |text| {
            ShopId::parse(text).map_err(|e| format!("{} is {e}", quote(text)))
        });
        let role = RoleGrant::Member(shops?.into_iter().collect());
        return Ok(GroupRole { group: group?, role });
    };
    if t.has("shops") {
        let message = "are for \"member\"; the other roles see every shop";
        return Err(t.error("shops", message.into()));
    }
    Ok(GroupRole { group: group?, role })
}

fn parse_public_url(text: &str) -> Result<Origin, String> {
    const EXAMPLE: &str = "write e.g. \"https://latchkey.example\"";
    if text.contains('@') {
        // Not repeated: what stands before an @ may be a password.
        return Err(format!("a URL with user information is not accepted; {EXAMPLE}"));
    }
    Origin::parse(text).map_err(|e| format!("{}: {e}; {EXAMPLE}", quote(text)))
}

/// The issuer of `OpenID` Connect Core §2: no query, no fragment.
fn parse_issuer(text: &str) -> Result<String, String> {
    let issuer = value::parse_provider_url(text)?;
    if issuer.contains('?') {
        return Err(format!("{} has a query; an issuer has none", quote(text)));
    }
    Ok(issuer)
}

fn parse_text(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("{} is not 1 to {NAME_BYTES_MAX} bytes of text", quote(text)));
    }
    Ok(text.into())
}
