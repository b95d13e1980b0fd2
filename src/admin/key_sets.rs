//! Key sets: from the configuration to their keeper, and from it into the snapshot and the store.
//!
//! It fetches nothing (`jwks` does) and judges no key (`decision::jwt` does).

use std::sync::{Arc, Weak};

use super::node::Node;
use crate::config::{Config, KeySource as ConfiguredSource};
use crate::decision::jwt::KeySet;
use crate::id::Name;
use crate::jwks::{IssuerSource, KeySink, KeySource, RefreshError};
use crate::store::{KeySetRecord, Store, StoreError};

/// What has to be fetched under `config`; an issuer with a shared secret has no key set.
pub(crate) fn sources(config: &Config) -> Vec<IssuerSource> {
    let source = |configured: &crate::config::IssuerSourceConfig| {
        let source = match &configured.source {
            ConfiguredSource::JwksUrl(url) => KeySource::JwksUrl(url.clone()),
            ConfiguredSource::Discovery => KeySource::Discovery(configured.iss.to_string()),
            ConfiguredSource::File(path) => KeySource::File(path.clone()),
            ConfiguredSource::Secret => return None,
        };
        Some(IssuerSource {
            issuer: configured.issuer.clone(),
            iss: configured.iss.clone(),
            source,
            ca_file: configured.ca_file.clone(),
            refresh_interval: configured.refresh_interval,
            cooldown: configured.cooldown,
            timeout: configured.fetch_timeout,
        })
    };
    config.issuer_sources.iter().filter_map(source).collect()
}

/// Where the keys of `issuer` come from under `config`, as text; `None` if from nowhere.
pub(super) fn source_of(config: &Config, issuer: &Name) -> Option<String> {
    sources(config).into_iter().find(|s| s.issuer == *issuer).map(|s| source_text(&s.source))
}

fn source_text(source: &KeySource) -> String {
    match source {
        KeySource::JwksUrl(url) => format!("url {url}"),
        KeySource::Discovery(issuer) => format!("discovery {issuer}"),
        KeySource::File(path) => format!("file {}", path.display()),
    }
}

impl Node {
    /// Publishes at once; the store follows on a thread that may block. A key set that could not
    /// be stored serves all the same, until a restart. One that comes from elsewhere than the
    /// configuration in force says, because it was fetched before a reload, is dropped.
    pub(super) fn publish_key_set(&self, issuer: &Name, set: KeySet, json: &str, source: String) {
        let record = KeySetRecord {
            issuer: issuer.clone(),
            jwks: json.to_owned(),
            source,
            fetched_at: set.fetched_at(),
        };
        let mut current = false;
        // Patches take turns, and a reload stores its configuration before its patch: either it
        // is seen here, or its patch comes later and removes what is put now.
        self.published.patch(|snapshot| {
            current = source_of(&self.config.load(), issuer).as_ref() == Some(&record.source);
            if current {
                snapshot.put_key_set(issuer.clone(), set);
            }
        });
        if !current {
            return;
        }
        let store = Arc::clone(&self.store);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || keep(&store, &record))),
            Err(_) => keep(&store, &record),
        }
    }
}

/// Stores the set unless a later one is there: two threads may come in either order.
fn keep(store: &Store, record: &KeySetRecord) {
    let kept = store.write::<_, StoreError>(|tx| {
        let later =
            |s: &KeySetRecord| s.issuer == record.issuer && s.fetched_at > record.fetched_at;
        if tx.key_sets()?.iter().any(later) { Ok(()) } else { tx.put_key_set(record) }
    });
    if let Err(error) = kept {
        tracing::warn!(issuer = %record.issuer, %error, "the key set is not stored");
    }
}

/// A sink for the keeper of `sources`. It does not keep its node alive: the node holds the keeper
/// that holds the sink.
#[derive(Debug)]
pub(super) struct WeakSink {
    pub(super) node: Weak<Node>,
    pub(super) sources: Vec<IssuerSource>,
}

impl KeySink for WeakSink {
    fn publish(&self, issuer: &Name, set: KeySet, source_json: &str) {
        let source = self.sources.iter().find(|s| s.issuer == *issuer);
        if let (Some(node), Some(source)) = (self.node.upgrade(), source) {
            node.publish_key_set(issuer, set, source_json, source_text(&source.source));
        }
    }

    fn refreshed(&self, issuer: &Name, result: Result<usize, &RefreshError>) {
        if let Some(node) = self.node.upgrade() {
            node.metrics.jwks_refresh(issuer.as_str(), result.is_ok());
        }
    }
}
