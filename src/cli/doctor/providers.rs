//! Identity providers: does each give a usable key set, and does the server have one.

use std::time::Duration;

use super::Running;
use super::finding::{Check, Report, Status};
use super::running::Keys;
use crate::admin::{ProviderFault, issuer_sources, probe_operators_provider};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, KeySource};
use crate::jwks::{self, IssuerSource, Probe, RefreshError};

/// Longest wait for one, however long the configuration would wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What time it was where an issuer's keys came from, and here.
pub(super) struct Dated {
    /// The issuer's name.
    pub(super) issuer: String,
    /// There.
    pub(super) theirs: Timestamp,
    /// Here.
    pub(super) ours: Timestamp,
}

/// Asks every provider once; what time it was there.
pub(super) async fn check(
    config: &Config,
    server: Running<'_>,
    clock: &dyn Clock,
    report: &mut Report,
) -> Vec<Dated> {
    for secret in config.issuer_sources.iter().filter(|s| s.source == KeySource::Secret) {
        report.ok(Check::Issuer, secret.issuer.as_str(), "has a shared secret, which was read");
    }
    let mut dates = Vec::new();
    for source in issuer_sources(config) {
        let source = IssuerSource { timeout: source.timeout.min(PATIENCE), ..source };
        let name = source.issuer.as_str();
        let probed = jwks::probe(&source, clock).await;
        if let Ok(Probe { date: Some(theirs), .. }) = probed {
            let ours = clock.now().unix;
            dates.push(Dated { issuer: name.to_owned(), theirs, ours });
        }
        let keys = server.map_or(Keys::NoServer, |server| server.keys(name));
        told(name, probed, keys, report);
    }
    dates
}

/// One line about the provider that operators sign in by, if there is one. That it cannot be
/// reached stops nobody but them, and only now.
pub(super) async fn check_operators(config: &Config, clock: &dyn Clock, report: &mut Report) {
    let Some(oidc) = &config.admin.oidc else { return };
    let key = "admin.oidc";
    match probe_operators_provider(oidc, clock).await {
        Ok(keys) => {
            let issuer = &oidc.issuer;
            report.ok(
                Check::Operators,
                key,
                format!("{issuer} describes itself, with {keys} keys"),
            );
        }
        Err(fault @ ProviderFault::Unreachable(_)) => {
            let advice = "operators sign in with passwords meanwhile; check the way to it";
            report.warning(Check::Operators, key, fault.to_string(), advice);
        }
        Err(fault @ ProviderFault::Unusable(_)) => {
            let advice = "nobody can sign in by it: check admin.oidc.issuer and admin.oidc.ca_file";
            report.error(Check::Operators, key, fault.to_string(), advice);
        }
    }
}

/// One line about a provider; `keys` is what the server has.
fn told(name: &str, probed: Result<Probe, RefreshError>, keys: Keys, report: &mut Report) {
    let (status, detail, advice) = match (probed, keys) {
        (Ok(found), Keys::NoServer | Keys::Usable) => {
            report.ok(Check::Issuer, name, format!("gives {} usable keys", found.keys));
            return;
        }
        (Ok(_), Keys::None) => (
            Status::Warning,
            "gives usable keys, and the server has none".to_owned(),
            format!("run `latchkey issuer refresh {name}`"),
        ),
        (Ok(_), Keys::UnknownIssuer) => (
            Status::Warning,
            "gives usable keys, and the server does not know it".to_owned(),
            "reload the server: systemctl reload latchkey, or SIGHUP".to_owned(),
        ),
        (Err(error), Keys::Usable) => (
            Status::Warning,
            format!("gives no keys now ({error}); the server has its last good ones"),
            "mend it before they are older than its stale_max".to_owned(),
        ),
        (Err(error), Keys::NoServer | Keys::None | Keys::UnknownIssuer) => (
            Status::Error,
            format!("gives no usable keys: {error}"),
            "check its URL, its certificate (issuers.ca_file, where its authority is your own) and \
             the way to it; its JWTs get 503"
                .to_owned(),
        ),
    };
    report.add(status, Check::Issuer, name, detail, advice);
}
