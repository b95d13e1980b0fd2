//! Where sessions come from: the seam to the operations that keep them.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::config::Config;

/// Who has signed in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// As whom.
    pub(super) caller: Caller,
    /// What its forms have to carry.
    pub(super) csrf: String,
}

/// The session that a request's cookie names.
pub(super) fn of_request(_: &Node, _: &HeaderMap, _: IpAddr) -> Option<Session> {
    None
}

/// Whether browsers reach the dashboard by https.
pub(super) fn is_secure(config: &Config) -> bool {
    let by_https = public_origin(config).is_some_and(|origin| origin.starts_with("https://"));
    config.admin.tls.is_some() || by_https
}

/// Where browsers reach the dashboard, if that was configured.
pub(super) fn public_origin(config: &Config) -> Option<String> {
    config.admin.public_url.as_ref().map(ToString::to_string)
}
