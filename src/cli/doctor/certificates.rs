//! Certificates: usable with their keys, and for how long.

use std::time::Duration;

use super::finding::{Check, Report, Status};
use crate::clock::Timestamp;
use crate::config::{CertificateFiles, Config, TlsConfig, TlsVersion};
use crate::tls::{self, Tls, Versions};

/// One that is valid for less is warned of.
const RENEW_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// Looks at those of both listeners and at those that upstreams are shown.
pub(super) fn check(config: &Config, now: Timestamp, report: &mut Report) {
    let listeners = [("server.tls", &config.server.tls), ("admin.tls", &config.admin.tls)];
    for (key, tls) in listeners {
        for files in tls.iter().flat_map(|tls| &tls.certificates) {
            if let Some(tls) = tls
                && is_usable(key, tls, files, now, report)
            {
                check_validity(key, files, now, report);
            }
        }
    }
    for (name, upstream) in &config.upstreams {
        if let Some(files) = upstream.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
            let key = format!("upstreams.{name}");
            if is_pair(&key, files, now, report) {
                check_validity(&key, files, now, report);
            }
        }
    }
}

/// Whether a certificate of `tls` can be served; says so if it cannot, or is doubtful.
fn is_usable(
    key: &str,
    tls: &TlsConfig,
    files: &CertificateFiles,
    now: Timestamp,
    report: &mut Report,
) -> bool {
    // At a time within its validity: how that stands has a line of its own.
    let valid = tls::validity(&files.chain_file).map(|(from, to)| now.max(from).min(to));
    let alone = TlsConfig { certificates: vec![files.clone()], ..tls.clone() };
    match valid.and_then(|at| Tls::load(&alone, Versions::Both, at)) {
        Ok(loaded) => {
            for warning in loaded.warnings() {
                let advice = "mend the file; it is looked at again without a restart";
                report.warning(Check::Certificate, key, warning, advice);
            }
            true
        }
        Err(error) => {
            let advice = "name a chain and its key in PEM, both readable by latchkey";
            report.error(Check::Certificate, key, error.to_string(), advice);
            false
        }
    }
}

/// Whether a certificate and a key are a pair, wherever they are shown.
fn is_pair(key: &str, files: &CertificateFiles, now: Timestamp, report: &mut Report) -> bool {
    let any = TlsConfig {
        certificates: Vec::new(),
        client_auth: crate::config::ClientAuth::Off,
        client_ca_file: None,
        min_version: TlsVersion::Tls12,
        handshake_timeout: Duration::from_secs(1),
        watch_interval: Duration::from_secs(1),
    };
    let mut scratch = Report::default();
    // That it names no host is of no account in a client's.
    let usable = is_usable(key, &any, files, now, &mut scratch);
    if !usable {
        report.findings.append(&mut scratch.findings);
    }
    usable
}

fn check_validity(key: &str, files: &CertificateFiles, now: Timestamp, report: &mut Report) {
    let shown = files.chain_file.display();
    let (from, to) = match tls::validity(&files.chain_file) {
        Ok(validity) => validity,
        // It was readable a moment ago.
        Err(error) => {
            report.error(Check::Certificate, key, error.to_string(), "check the file");
            return;
        }
    };
    let (status, detail, advice) = if now > to {
        (Status::Error, format!("{shown} expired at {to}"), "renew it; no client trusts it")
    } else if now < from {
        let detail = format!("{shown} is not valid before {from}");
        (Status::Error, detail, "check this machine's clock, or wait")
    } else if to.since(now) < RENEW_BEFORE {
        let days = to.since(now).as_secs() / 86_400;
        let detail = format!("{shown} expires at {to}, in {days} days");
        (Status::Warning, detail, "renew it, and see to it that it renews itself")
    } else {
        report.ok(Check::Certificate, key, format!("{shown} is valid until {to}"));
        return;
    };
    report.add(status, Check::Certificate, key, detail, advice);
}
