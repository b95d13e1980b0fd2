//! Identity providers: where their keys come from, how old they are, and which there are.
//!
//! Providers are the configuration's; only fetching their keys now can be asked for.

use askama::Template;

use super::{Segments, figures, may, require};
use crate::admin::api::issuers as listed;
use crate::admin::caller::Permission;
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::node::Node;
use crate::clock::Timestamp;
use crate::config::KeySource;
use crate::decision::jwt::{KeySet, KeySets as _, SkippedKey, VerifyingKey};
use crate::decision::policy;
use crate::id::Name;

/// A key of a provider's.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    kid: String,
    algorithms: String,
}

/// A key that cannot be used, and why.
#[derive(Debug, PartialEq, Eq)]
struct Skipped {
    kid: String,
    why: String,
}

/// A provider.
#[derive(Debug, PartialEq, Eq)]
struct Provider {
    name: String,
    iss: String,
    audiences: String,
    /// Where its keys come from, as a sentence says it.
    source: &'static str,
    /// The address or the file, if it has one.
    location: String,
    /// Whether it has a key set at all.
    has_set: bool,
    fetched: Option<Timestamp>,
    next: Option<Timestamp>,
    trusted_for: String,
    is_usable: bool,
    failures: u32,
    last_error: Option<String>,
    keys: Vec<Key>,
    skipped: Vec<Skipped>,
    refresh: String,
}

#[derive(Template)]
#[template(path = "issuers.html")]
struct Page {
    frame: Frame,
    providers: Vec<Provider>,
    may_refresh: bool,
}

/// `GET /issuers`
pub(super) async fn show(visit: SignedIn) -> Answer {
    require(&visit, Permission::IssuersRead)?;
    page(&Page {
        providers: providers(visit.node()),
        may_refresh: may(&visit, Permission::IssuersWrite),
        frame: visit.frame("Identity providers", "/issuers"),
    })
}

/// `POST /issuers/{name}/refresh`
pub(super) async fn refresh(
    visit: SignedIn,
    Segments(name): Segments<Name>,
    _form: crate::admin::dashboard::form::Form,
) -> Answer {
    require(&visit, Permission::IssuersWrite)?;
    let flash = match listed::fetch(visit.node(), visit.caller(), &name).await {
        Ok(true) => Flash::good(format!("The keys of {name} were fetched.")),
        Ok(false) => Flash::good(format!("The keys of {name} were fetched moments ago.")),
        Err(problem) => Flash::bad(problem.into_parts().1),
    };
    Ok(visit.go("/issuers", flash))
}

fn providers(node: &Node) -> Vec<Provider> {
    let config = node.config.load();
    let snapshot = node.published.load();
    let fared = listed::all(node);
    let provider = |issuer: &policy::Issuer| {
        let fares = fared.iter().find(|fares| fares.name == issuer.name);
        let source = config.issuer_sources.iter().find(|source| source.issuer == issuer.name);
        let (source, location) = source_of(source.map(|source| &source.source));
        let set = snapshot.key_set(&issuer.name);
        Provider {
            name: issuer.name.to_string(),
            iss: issuer.iss.to_string(),
            audiences: issuer.audiences.join(", "),
            source,
            location,
            has_set: issuer.secret.is_none(),
            fetched: set.map(KeySet::fetched_at),
            next: fares.and_then(|fares| fares.next_refresh),
            trusted_for: figures::exact_length(issuer.stale_max.as_secs()),
            is_usable: fares.is_some_and(|fares| fares.usable),
            failures: fares.map_or(0, |fares| fares.failures),
            last_error: fares.and_then(|fares| fares.last_error.clone()),
            keys: set.map(|set| keys(set, issuer)).unwrap_or_default(),
            skipped: set.map(skipped).unwrap_or_default(),
            refresh: format!("/issuers/{}/refresh", issuer.name),
        }
    };
    config.policies.issuers.iter().map(provider).collect()
}

fn source_of(source: Option<&KeySource>) -> (&'static str, String) {
    match source {
        Some(KeySource::JwksUrl(url)) => ("a key set at a fixed address", url.clone()),
        Some(KeySource::Discovery) => ("OpenID discovery", String::new()),
        Some(KeySource::File(path)) => ("a file", path.display().to_string()),
        Some(KeySource::Secret) | None => ("a shared secret of the configuration", String::new()),
    }
}

/// The keys, each with those of the provider's algorithms that it can verify.
fn keys(set: &KeySet, issuer: &policy::Issuer) -> Vec<Key> {
    let key = |key: &VerifyingKey| {
        let fits = issuer.algorithms.iter().filter(|algorithm| key.fits(**algorithm));
        let fits: Vec<&str> = fits.map(|algorithm| algorithm.as_str()).collect();
        Key {
            kid: key.kid().unwrap_or("(without a name)").to_owned(),
            algorithms: if fits.is_empty() {
                "none that the configuration allows".to_owned()
            } else {
                fits.join(", ")
            },
        }
    };
    set.keys().iter().map(key).collect()
}

fn skipped(set: &KeySet) -> Vec<Skipped> {
    let one = |key: &SkippedKey| Skipped {
        kid: key.kid.as_deref().map_or_else(|| format!("number {}", key.index + 1), str::to_owned),
        why: key.reason.to_string(),
    };
    set.skipped().iter().map(one).collect()
}
