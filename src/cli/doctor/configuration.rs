//! The configuration: whether it is valid, and what of it is valid and yet unwise.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::finding::{Check, Report};
use crate::config::{Config, ConfigErrors, ConfigFile, Sources};

/// What OWASP holds to be the least for argon2id, whatever the iterations.
const PASSWORD_MEMORY_MIN: u64 = 7 << 20;

/// Others may write it.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Mistakes, a line each; nothing else can be looked at.
pub(super) fn invalid(errors: &ConfigErrors, report: &mut Report) {
    for error in errors.iter() {
        let source = error.source.as_deref().unwrap_or("left out everywhere");
        let detail = if error.key.is_empty() {
            error.message.clone()
        } else {
            format!("{}: {}", error.key, error.message)
        };
        let advice = "correct it; what else there is was not looked at";
        report.error(Check::Configuration, source, detail, advice);
    }
}

/// What a valid configuration should be told.
pub(super) fn valid(config: &Config, sources: &Sources, report: &mut Report) {
    let name = match &sources.file {
        ConfigFile::Required(path) => path.display().to_string(),
        ConfigFile::Optional(path) if path.exists() => path.display().to_string(),
        ConfigFile::Optional(_) | ConfigFile::Absent => "defaults".to_owned(),
        ConfigFile::Inline { name, .. } => name.clone(),
    };
    report.ok(Check::Configuration, name, "is valid");
    if let ConfigFile::Required(path) | ConfigFile::Optional(path) = &sources.file {
        check_mode(path, report);
    }
    let admin = &config.admin;
    let behind_proxy = !admin.trusted_proxies.is_empty();
    if !admin.listen.ip().is_loopback() && admin.tls.is_none() && !behind_proxy {
        report.warning(
            Check::Configuration,
            "admin.listen",
            format!("{} is reached from elsewhere, without TLS", admin.listen),
            "passwords and admin tokens cross the network in clear: give [admin.tls] \
             certificates, or listen on 127.0.0.1",
        );
    }
    if let Some(url) = &admin.public_url
        && url.scheme() == crate::config::Scheme::Http
        && !is_loopback(url.host())
    {
        report.warning(
            Check::Configuration,
            "admin.public_url",
            format!("{url} is plain http"),
            "put TLS in front of the admin plane; browsers send its cookies in clear",
        );
    }
    if admin.passwords.memory < PASSWORD_MEMORY_MIN {
        report.warning(
            Check::Configuration,
            "admin.passwords.memory",
            format!("{} bytes make guessing cheap", admin.passwords.memory),
            "write 7MiB at least; the default is 19MiB",
        );
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_mode(path: &Path, report: &mut Report) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o7777;
    let shown = path.display().to_string();
    if mode & WRITABLE_BY_OTHERS == 0 {
        report.ok(Check::File, shown, format!("has mode {mode:04o}"));
    } else {
        let advice = format!("run `chmod o-w {shown}`: whoever writes it decides who gets in");
        report.error(Check::File, shown, format!("every user may write it ({mode:04o})"), advice);
    }
}
