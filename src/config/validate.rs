//! From what was written to what the program needs: the keys, their defaults and their bounds.
//!
//! Every table is read to its end before any of it is used, so that all its mistakes are found.
//! Larger tables are read by modules of their own: `server` and `tls`, `admin`, `upstream`,
//! `policies`, `issuers`, `door`, `keeping`, `traces`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::print::Effective;
use super::raw::{Place, Tree};
use super::read::Section;
use super::report::{Noted, Report};
use super::server;
use super::shape::Fact;
use super::value::{self, Span, quote};
use super::{
    Config, ConfigErrors, LogConfig, LogFormat, StoreConfig, admin, door, issuers, keeping,
    policies, traces, upstream,
};
use crate::decision::origin::Rules;
use crate::decision::policy::{AttemptPolicy, Policies, WidgetPolicy};
use crate::decision::rate_limit::Quota;
use crate::id::Name;

/// Longest path of a unix socket: `sun_path` of Linux less its final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What the scopes of a widget token may take, joined by spaces: the room a token has for them.
const SCOPES_BYTES_MAX: usize = 127;

/// The master key: the name of its credential, and of its file beside the database.
const MASTER_KEY: &str = "master.key";

/// Validates `tree`.
pub(super) fn compile(tree: &Tree) -> Result<Config, ConfigErrors> {
    let mut report = Report::default();
    let mut root = Section::root(tree, &mut report);
    let config = read_config(&mut root);
    root.finish();
    let Report { errors, lines, .. } = report;
    match config {
        Ok(config) if errors.is_empty() => {
            Ok(Config { effective: Effective::new(lines), ..config })
        }
        Ok(_) | Err(_) => Err(ConfigErrors(errors)),
    }
}

fn read_config(root: &mut Section<'_, '_>) -> Result<Config, Noted> {
    let server = server::read(root);
    let admin = admin::read(root, server.as_ref().ok());
    let store = read_store(root);
    let socket = socket_path(root, &admin, &store);
    let upstreams = upstream::read(root);
    let origin = read_origin(root);
    let widget = read_widget(root);
    let attempts = read_failed_attempts(root);
    let scopes = widget.as_ref().ok().map(|(policy, _)| &*policy.scopes);
    let (routes, limits) = policies::read(root, upstreams.as_ref().ok(), scopes);
    let issuers = issuers::read(root);
    let limiter_cells = read_one(root, "limiter", |t| t.count("cells", 65_536, (64, 1 << 24)));
    let x_ratelimit = read_one(root, "rate_limit_headers", |t| t.boolean("x_ratelimit", true));
    let jwt_cache = read_one(root, "jwt_cache", |t| t.count("entries", 65_536, (1, 1 << 24)));
    let cors = door::read_cors(root);
    let forward_auth = door::read_forward_auth(root, server.as_ref().ok());
    let assertion = door::read_assertion(root);
    let audit = keeping::read_audit(root);
    let usage = keeping::read_usage(root);
    let backup = keeping::read_backup(root, store.as_ref().map_err(|noted| *noted));
    let log = read_log(root);
    let tracing = traces::read(root);

    let (widget, widget_signing_key_rotation) = widget?;
    let (issuers, issuer_sources) = issuers?.into_iter().unzip();
    Ok(Config {
        server: server?,
        admin: admin?.at(socket?),
        store: store?,
        upstreams: upstreams?,
        policies: Arc::new(Policies {
            routes: routes?,
            limits: limits?,
            issuers,
            origin: origin?,
            widget,
            attempts: attempts?,
        }),
        issuer_sources,
        widget_signing_key_rotation,
        limiter_cells: limiter_cells?,
        x_ratelimit: x_ratelimit?,
        jwt_cache_entries: jwt_cache?,
        cors: cors?,
        forward_auth: forward_auth?,
        assertion: assertion?,
        audit: audit?,
        usage: usage?,
        backup: backup?,
        log: log?,
        tracing: tracing?,
        effective: Effective::new(Vec::new()),
    })
}

/// What is known of every key that is asked for when `tree` is read, mistakes aside.
pub(super) fn facts(tree: &Tree) -> Vec<Fact> {
    let mut report = Report { facts: Some(Vec::new()), ..Report::default() };
    let _ = read_config(&mut Section::root(tree, &mut report));
    report.facts.unwrap_or_default()
}

/// A table with one key.
fn read_one<T>(
    root: &mut Section<'_, '_>,
    table: &'static str,
    read: impl FnOnce(&mut Section<'_, '_>) -> Result<T, Noted>,
) -> Result<T, Noted> {
    let mut section = root.table(table);
    let value = read(&mut section);
    section.finish();
    value
}

/// Where the admin socket is: as written, else beside the database.
fn socket_path(
    root: &mut Section<'_, '_>,
    admin: &Result<admin::Written, Noted>,
    store: &Result<StoreConfig, Noted>,
) -> Result<PathBuf, Noted> {
    if let Some(written) = &admin.as_ref().map_err(|noted| *noted)?.socket {
        return Ok(written.clone());
    }
    let database = &store.as_ref().map_err(|noted| *noted)?.path;
    let socket = beside(database, "admin.sock");
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let message = format!(
            "is left out, and beside the database it would be longer than \
             {SOCKET_PATH_BYTES_MAX} bytes, the most a unix socket's path may have; write a \
             shorter one"
        );
        return Err(root.error_at(&Place::default(), "admin.socket", message));
    }
    Ok(socket)
}

fn read_store(root: &mut Section<'_, '_>) -> Result<StoreConfig, Noted> {
    let mut t = root.table("store");
    let path = t.text("path", "/var/lib/latchkey/latchkey.redb", parse_path);
    let credentials = t.credentials();
    let credential = credentials.find(MASTER_KEY);
    let note = match &credential {
        Some(_) => "the systemd credential master.key",
        None => "master.key beside the database",
    };
    let key_file = t.text_optional("master_key_file", note, parse_path);
    if let (Ok(path), Ok(Some(key_file))) = (&path, &key_file)
        && path == key_file
    {
        t.error(
            "master_key_file",
            "is the database itself; the master key lives beside it, never in it".into(),
        );
    }
    t.finish();
    let (path, key_file) = (path?, key_file?);
    let master_key_file = key_file.or(credential).unwrap_or_else(|| beside(&path, MASTER_KEY));
    let master_key_creatable = !credentials.has(&master_key_file);
    Ok(StoreConfig { path, master_key_file, master_key_creatable })
}

fn read_origin(root: &mut Section<'_, '_>) -> Result<Rules, Noted> {
    let mut t = root.table("origin");
    let www_alias = t.boolean("www_alias", true);
    let ignore_scheme = t.choice("scheme", "strict", &[("strict", false), ("ignore", true)]);
    t.finish();
    Ok(Rules { www_alias: www_alias?, ignore_scheme: ignore_scheme? })
}

fn read_widget(root: &mut Section<'_, '_>) -> Result<(WidgetPolicy, Duration), Noted> {
    let mut t = root.table("widget");
    let lifetime = t.duration("lifetime", "24h", Span::LIFETIME);
    let lifetime_max = t.duration("lifetime_max", "24h", Span::LIFETIME);
    if let (Ok(lifetime), Ok(max)) = (lifetime, lifetime_max)
        && lifetime > max
    {
        let (lifetime, max) = (value::show_duration(lifetime), value::show_duration(max));
        t.error(
            "lifetime",
            format!("\"{lifetime}\" is longer than widget.lifetime_max, \"{max}\""),
        );
    }
    let default = ["search", "suggestions", "compare", "analytics"];
    let scopes = t.list("scopes", &default, value::parse_scope);
    if let Ok(scopes) = &scopes {
        let bytes = scopes.iter().map(|s| s.len() + 1).sum::<usize>().saturating_sub(1);
        if bytes > SCOPES_BYTES_MAX {
            t.error(
                "scopes",
                format!("take {bytes} bytes together; a token has room for {SCOPES_BYTES_MAX}"),
            );
        }
        for (i, scope) in scopes.iter().enumerate() {
            if scopes.iter().take(i).any(|earlier| earlier == scope) {
                t.error(&format!("scopes[{i}]"), format!("{} stands twice", quote(scope)));
            }
        }
    }
    let allow_loopback_origins = t.boolean("allow_loopback_origins", false);
    let rotation = t.duration("signing_key_rotation", "30d", Span::LIFETIME);
    t.finish();
    let policy = WidgetPolicy {
        lifetime: lifetime?,
        lifetime_max: lifetime_max?,
        scopes: scopes?,
        allow_loopback_origins: allow_loopback_origins?,
    };
    Ok((policy, rotation?))
}

fn read_failed_attempts(root: &mut Section<'_, '_>) -> Result<AttemptPolicy, Noted> {
    let mut t = root.table("failed_attempts");
    let limit = t.integer("limit", 20, (1, Quota::LIMIT_MAX));
    let window = t.duration("window", "1m", policies::WINDOW);
    let quota = policies::quota(&mut t, limit, window, limit);
    t.finish();
    Ok(AttemptPolicy { quota: quota? })
}

fn read_log(root: &mut Section<'_, '_>) -> Result<LogConfig, Noted> {
    let mut t = root.table("log");
    let level = t.text("level", "info", value::parse_log_level);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = t.choice("format", "text", &formats);
    let access = t.boolean("access", false);
    let access_sample = t.integer("access_sample", 1, (1, 1_000_000));
    let queue_lines_max = t.count("queue_lines_max", 8192, (16, 1 << 20));
    t.finish();
    Ok(LogConfig {
        level: level?,
        format: format?,
        access: access?,
        access_sample: access_sample?,
        queue_lines_max: queue_lines_max?,
    })
}

/// The value that `text` names among `choices`.
pub(super) fn one_of<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| quote(name)).collect();
        format!("{} is none of {}", quote(text), names.join(", "))
    })
}

/// A name of the configuration.
pub(super) fn parse_name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|e| format!("{} is {e}", quote(text)))
}

/// A path of the file system.
pub(super) fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err(format!("{} is not a path", quote(text)));
    }
    Ok(PathBuf::from(text))
}

/// The path of a unix socket.
pub(super) fn parse_socket(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "{} is longer than {SOCKET_PATH_BYTES_MAX} bytes, the most a unix socket's path \
             may have",
            quote(text)
        ));
    }
    parse_path(text)
}

/// The file `name` in the folder of the database.
pub(super) fn beside(database: &Path, name: &str) -> PathBuf {
    database.with_file_name(name)
}
