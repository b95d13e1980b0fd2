//! The JSON of what limits leave a shop.

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::operations::standing;
use crate::decision::rate_limit::Algorithm;

/// Where a shop stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Standings {
    /// Under every limit that counts its requests together.
    pub items: Vec<Standing>,
}

/// Where a shop stands under one limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Standing {
    /// The limit's name.
    #[schema(example = "shop-me")]
    pub policy: String,
    /// Requests per window that the shop has.
    pub limit: u32,
    /// The window, in seconds.
    pub window_seconds: u64,
    /// Requests that may come at once; only where that means something (token bucket).
    pub burst: Option<u32>,
    /// Whether this is a limit of the shop's own, in place of the configuration's.
    pub own: bool,
    /// What is left now, in units; most requests cost one.
    pub left: u32,
    /// What is left when nothing was spent.
    pub whole: u32,
    /// Until all of it is there again if nothing more is spent; 0 if it is. For a sliding window
    /// at most so long.
    pub reset_seconds: u64,
}

impl From<&standing::Standing> for Standing {
    fn from(at: &standing::Standing) -> Self {
        let is_bucket = at.algorithm == Algorithm::TokenBucket;
        Self {
            policy: at.policy.to_string(),
            limit: at.quota.limit.get(),
            window_seconds: at.quota.window_s(),
            burst: is_bucket.then(|| at.quota.burst.get()),
            own: at.is_own,
            left: at.left,
            whole: at.at_once,
            reset_seconds: at.whole_in_s,
        }
    }
}
