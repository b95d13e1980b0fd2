//! The configuration: defaults < `latchkey.toml` < `LATCHKEY_*` < flags, validated as a whole.
//!
//! Two kinds of types, as there are two questions. What was written, and where, is `raw`: the
//! merged tree of figment, read key by key. What the program needs is [`Config`]: parsed,
//! bounded, with every default filled in. [`load`] goes from the first to the second and reports
//! every mistake at once, each with its source and key, because nobody wants to fix a file one
//! message at a time.
//!
//! Unknown keys are mistakes at every level; zero never means unlimited. This module does not
//! apply a configuration, does not watch its file, and never prints a secret: it knows secrets
//! only by the names of the files that hold them. The one it reads, an HMAC issuer's, is kept in
//! a type that does not print.

mod admin;
mod credential;
mod door;
mod issuers;
mod keeping;
mod policies;
mod print;
mod raw;
mod read;
mod reference;
mod reload;
mod report;
mod scalar;
mod secret_file;
mod server;
mod shape;
mod shipped;
mod tls;
mod traces;
mod typed;
mod upstream;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::credential::Credentials;
use crate::decision::policy::Policies;
use crate::id::Name;

pub use admin::{AdminConfig, GroupRole, OidcConfig, PasswordsConfig, RoleGrant, SessionsConfig};
pub use door::{AssertionConfig, Contract, CorsConfig, ForwardAuthConfig};
pub use keeping::{AuditConfig, BackupConfig, UsageConfig};
pub use print::{Difference, Effective};
pub use reference::{Block, Key, KeyTable, LeftOut, Restart, reference};
pub use reload::restart_needed;
pub use secret_file::read_secret_file;
pub use server::{ForwardingHeader, H2Config, ServerConfig};
pub use tls::{CertificateFiles, ClientAuth, TlsConfig, TlsVersion};
pub use traces::{OtlpConfig, Propagate, SampleRatio, TracingConfig, read_otlp_headers};
pub use upstream::{EjectionConfig, Endpoint, ProbeConfig, UpstreamConfig, UpstreamTlsConfig};
pub use value::parse_duration;

pub use crate::decision::origin::Scheme;

/// Where a configuration comes from, weakest source first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: ConfigFile,
    /// The environment: names that begin with `LATCHKEY_`, and systemd's
    /// `CREDENTIALS_DIRECTORY`; others are not looked at.
    pub environment: BTreeMap<OsString, OsString>,
    /// Values given on the command line.
    pub overrides: Vec<Override>,
}

impl Sources {
    /// The sources of this process: `file`, its environment, and what flags say. Credentials that
    /// it was not handed are those of the service that runs, where it may read them.
    #[must_use]
    pub fn of_process(file: ConfigFile, overrides: Vec<Override>) -> Self {
        let read = std::env::vars_os().filter(|(name, _)| raw::is_read(name));
        let mut environment: BTreeMap<OsString, OsString> = read.collect();
        if let Some(directory) = Credentials::of_the_unit() {
            environment.entry(raw::CREDENTIALS.into()).or_insert(directory.into());
        }
        Self { file, environment, overrides }
    }
}

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConfigFile {
    /// None: defaults, environment and flags only.
    #[default]
    Absent,
    /// It was asked for, so it has to be there.
    Required(PathBuf),
    /// A text instead of a file (the demo's, a test's).
    Inline {
        /// What messages call it.
        name: String,
        /// TOML.
        text: String,
    },
    /// Read if it is there (the standard place, when no file was asked for).
    Optional(PathBuf),
}

/// A value given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The flag, as a person types it: `--listen`.
    pub flag: String,
    /// The key it sets: `server.listen`.
    pub key: String,
    /// Its value, as in an environment variable.
    pub value: String,
}

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data plane.
    pub server: ServerConfig,
    /// The admin plane.
    pub admin: AdminConfig,
    /// The embedded store.
    pub store: StoreConfig,
    /// Upstreams by name; every name a route uses is here.
    pub upstreams: BTreeMap<Name, UpstreamConfig>,
    /// What decisions need.
    pub policies: Arc<Policies>,
    /// Where the keys of each issuer in `policies` come from, in the same order.
    pub issuer_sources: Vec<IssuerSourceConfig>,
    /// Age at which the key that signs widget tokens is replaced.
    pub widget_signing_key_rotation: Duration,
    /// Cells of the limiter: quotas (callers × policies) that can be live at once.
    pub limiter_cells: NonZeroUsize,
    /// Whether responses carry `X-RateLimit-*` besides `RateLimit-Policy` and `RateLimit`.
    pub x_ratelimit: bool,
    /// Verified JWTs kept.
    pub jwt_cache_entries: NonZeroUsize,
    /// What browsers on other origins may do.
    pub cors: CorsConfig,
    /// Deciding for other proxies.
    pub forward_auth: ForwardAuthConfig,
    /// The proof that upstreams get.
    pub assertion: AssertionConfig,
    /// What is kept of changes and sign-ins.
    pub audit: AuditConfig,
    /// What is counted of requests.
    pub usage: UsageConfig,
    /// Copies of the store.
    pub backup: BackupConfig,
    /// Logging.
    pub log: LogConfig,
    /// Traces.
    pub tracing: TracingConfig,
    /// What was read, for [`Config::print`].
    pub effective: Effective,
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The database file.
    pub path: PathBuf,
    /// The file that holds the master key.
    pub master_key_file: PathBuf,
    /// Whether a missing master key may be made on first start; not when systemd hands it over
    /// as a credential, which is read-only.
    pub master_key_creatable: bool,
}

/// Where an issuer's keys come from, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSourceConfig {
    /// The issuer's name in the configuration.
    pub issuer: Name,
    /// The exact value of `iss`; discovery starts from it.
    pub iss: Box<str>,
    /// Where its keys are.
    pub source: KeySource,
    /// Whom to trust by https, in PEM form; the system's authorities if there is none.
    pub ca_file: Option<PathBuf>,
    /// Between two scheduled fetches.
    pub refresh_interval: Duration,
    /// The least time between two fetches for an unknown `kid`.
    pub cooldown: Duration,
    /// A whole fetch.
    pub fetch_timeout: Duration,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set at this URL (https, or http on loopback).
    JwksUrl(String),
    /// `jwks_uri` of the document at `{iss}/.well-known/openid-configuration`.
    Discovery,
    /// A JWK set in this file.
    File(PathBuf),
    /// An HMAC secret, already in [`crate::decision::policy::Issuer::secret`]: nothing to fetch.
    Secret,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`info`), or directives (`info,latchkey::server=debug`).
    pub level: String,
    /// How events are written.
    pub format: LogFormat,
    /// Whether requests are logged.
    pub access: bool,
    /// One of so many requests is.
    pub access_sample: NonZeroU32,
    /// Lines that wait for a slow reader of standard error; more are dropped and counted.
    pub queue_lines_max: NonZeroUsize,
}

impl LogConfig {
    /// Events of `level` and above in `format`; requests are not logged.
    #[must_use]
    pub fn new(level: &str, format: LogFormat) -> Self {
        Self {
            level: level.to_owned(),
            format,
            access: false,
            access_sample: NonZeroU32::MIN,
            queue_lines_max: NonZeroUsize::MIN.saturating_add(8191),
        }
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// Everything that is wrong with a configuration; one line each when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes, in the order of the keys; never empty.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written: a file, a variable, a flag; `None` for what was left out everywhere.
    pub source: Option<String>,
    /// The key, `limits[2].window`; empty for a file that cannot be read at all.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl ConfigError {
    /// A mistake of a source as a whole.
    fn of_source(source: &str, message: String) -> Self {
        Self { source: Some(source.to_owned()), key: String::new(), message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads and validates the configuration that `sources` amount to.
///
/// # Errors
///
/// Every mistake found, at once: unreadable or malformed file, unknown keys, bad values.
pub fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
    let tree = raw::Tree::merge(sources).map_err(ConfigErrors)?;
    validate::compile(&tree)
}

impl Config {
    /// The effective configuration as TOML, defaults filled in; a comment after each value that
    /// is not the default says where it came from. Holds no secret.
    #[must_use]
    pub fn print(&self) -> String {
        self.effective.render()
    }
}

#[cfg(test)]
mod tests;
