//! Upstreams: does every endpoint take a connection, with TLS if it is reached by that. No request
//! is sent.

use std::time::Duration;

use tokio::task::JoinSet;

use super::finding::{Check, Report};
use crate::config::{Config, UpstreamConfig};
use crate::server;

/// Longest wait for one, however long the configuration would wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Endpoints that are tried at once.
const AT_ONCE_MAX: usize = 32;

/// Tries every endpoint.
pub(super) async fn check(config: &Config, report: &mut Report) {
    let mut tried = Vec::new();
    let mut trying = JoinSet::new();
    for (number, (name, upstream, index)) in endpoints(config).enumerate() {
        if trying.len() == AT_ONCE_MAX {
            tried.extend(trying.join_next().await.into_iter().flatten());
        }
        let (name, upstream) = (name.to_owned(), upstream.clone());
        trying.spawn(async move { (number, name, reach(&upstream, index).await) });
    }
    while let Some(done) = trying.join_next().await {
        tried.extend(done);
    }
    tried.sort_by_key(|(number, _, _)| *number);
    for (_, name, (url, reached)) in tried {
        match reached {
            Ok(()) => report.ok(Check::Upstream, name, format!("{url} takes connections")),
            Err(why) => {
                let advice = "start it, or correct its url; requests for it get 502 or 504";
                report.error(Check::Upstream, name, format!("{url}: {why}"), advice);
            }
        }
    }
}

fn endpoints(config: &Config) -> impl Iterator<Item = (&str, &UpstreamConfig, usize)> {
    config.upstreams.iter().flat_map(|(name, upstream)| {
        (0..upstream.endpoints.len()).map(move |index| (name.as_str(), upstream, index))
    })
}

async fn reach(upstream: &UpstreamConfig, index: usize) -> (String, Result<(), String>) {
    let Some(endpoint) = upstream.endpoints.get(index) else {
        return (String::new(), Err("it is not configured".to_owned()));
    };
    let patient = UpstreamConfig {
        connect_timeout: upstream.connect_timeout.min(PATIENCE),
        ..upstream.clone()
    };
    let url = endpoint.authority.to_string();
    (url, server::reach(&patient, endpoint).await)
}
