//! A request to explain and its explanation, as JSON and as pages are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The method.
    #[schema(example = "GET")]
    pub method: String,
    /// The path, still encoded; a query is allowed and ignored.
    #[schema(example = "/api/plugin/shops/me")]
    pub path: String,
    /// The header fields. Never repeated in the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderValues>,
    /// The client address; `127.0.0.1` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.1")]
    pub client: Option<String>,
}

/// The value of a header field, or its values where it is sent more than once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum HeaderValues {
    /// Sent once.
    One(String),
    /// Sent several times.
    Many(Vec<String>),
}

/// Says how many, not which: they may be credentials.
impl std::fmt::Debug for HeaderValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} values]", self.as_slice().len())
    }
}

impl HeaderValues {
    /// The values, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// What came of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedDecision {
    /// It would pass.
    Allow,
    /// It would be refused.
    Deny,
    /// Its issuer would be asked for the key that signed it first.
    NeedsKey,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It let the request on.
    Passed,
    /// It refused it.
    Refused,
    /// It cannot be decided without another key.
    Undecided,
    /// An earlier one ended it.
    NotReached,
}

/// A stage of the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedStage {
    /// `classify`, `extract`, `throttle`, `authenticate`, `authorize` or `admit`.
    pub stage: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, for the operator.
    pub why: String,
}

/// The caller, as far as it was authenticated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedPrincipal {
    /// Its shop.
    pub shop: Option<String>,
    /// The API key's or the widget token's public name.
    pub credential_id: Option<String>,
    /// The issuer of its JWT.
    pub issuer: Option<String>,
    /// The subject of its JWT.
    pub subject: Option<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
}

/// Where the caller would stand under its tightest limit. Nothing was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedLimit {
    /// The limit's name.
    pub policy: String,
    /// Requests per window that apply to this caller.
    pub limit: u32,
    /// The window, in seconds.
    pub window_seconds: u64,
    /// What would be left after this request.
    pub remaining: u32,
    /// Seconds until the quota is whole; on a refusal, until the request would pass.
    pub reset_seconds: u64,
}

/// A decision, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What came of it.
    pub decision: ExplainedDecision,
    /// The status the client would get; `null` where the route's answer decides.
    pub status: Option<u16>,
    /// The code of the refusal.
    pub code: Option<String>,
    /// What the client would be told.
    pub detail: Option<String>,
    /// What only the operator may know.
    pub reason: Option<String>,
    /// `WWW-Authenticate` of the refusal.
    pub challenge: Option<String>,
    /// `Retry-After` of the refusal.
    pub retry_after_seconds: Option<u64>,
    /// The route.
    pub route: Option<String>,
    /// Who would answer: `upstream:<name>` or `latchkey`.
    pub target: Option<String>,
    /// How the caller authenticated.
    pub mechanism: Option<String>,
    /// The caller.
    pub principal: Option<ExplainedPrincipal>,
    /// Every stage, in order.
    pub stages: Vec<ExplainedStage>,
    /// The tightest limit.
    pub limit: Option<ExplainedLimit>,
    /// Limits that only watch and would have refused.
    pub shadow_exceeded: Vec<String>,
}
