//! The route that latchkey answers itself: a shop's server has a widget token issued with its API
//! key (spec §2.1).
//!
//! The body is optional: `{"scopes": ["search"], "lifetime_seconds": 3600}`, both members optional.
//! Answered 201 with `{"token", "expires_at", "scopes"}`. Signing and recording is the admin
//! plane's, behind [`issue`](crate::server::issue).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::decision::Admitted;
use crate::decision::denial::Code;
use crate::decision::policy::{Policies, WidgetPolicy};
use crate::decision::principal::{Mechanism, Principal};
use crate::decision::widget_token::SCOPES_BYTES_MAX;
use crate::id::{KeyId, ShopId};
use crate::server::client_body::ClientBody;
use crate::server::failure::Failure;
use crate::server::issue::{IssueError, IssueRequest, IssuedToken};
use crate::server::live;
use crate::server::log::{self, Subject};
use crate::server::message::problem::{self, LimitHeaders, Problem};
use crate::server::shared::Shared;

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 4096;
/// How long the admin plane may take: a commit to a slow disk, not one that hangs.
const ISSUE_BOUND: Duration = Duration::from_secs(10);
/// The members of the body.
const MEMBERS: [&str; 2] = ["scopes", "lifetime_seconds"];

/// An admitted request for a widget token.
#[derive(Debug)]
pub(super) struct IssueJob {
    shop: ShopId,
    key_id: KeyId,
    limit: Option<LimitHeaders>,
    policies: Arc<Policies>,
}

impl IssueJob {
    /// What `admitted` asks for.
    ///
    /// # Errors
    ///
    /// The caller is not a shop: the route table opens this route to another mechanism.
    pub(super) fn new(
        admitted: &Admitted<'_>,
        limit: Option<LimitHeaders>,
        policies: Arc<Policies>,
    ) -> Result<Self, Failure> {
        let Principal::ShopApiKey { key, shop } = admitted.principal() else {
            return Err(Failure {
                code: Code::Internal,
                detail: "This route issues widget tokens to shop API keys only.",
                reason: format!(
                    "route `{}` issues widget tokens but takes other mechanisms than \
                     shop_api_key; correct it in the configuration",
                    admitted.route().name
                ),
            });
        };
        Ok(Self { shop: shop.id, key_id: key.id, limit, policies })
    }
}

/// Why no token is issued: the code, and what the client is told.
type Refused = (Code, String);

/// Answers an admitted request for a widget token.
pub(super) async fn answer(
    job: IssueJob,
    body: Option<ClientBody>,
    shared: &Shared,
    subject: &Subject<'_>,
) -> Response<Bytes> {
    let (shop, key_id) = (job.shop, job.key_id);
    let issued = match issue(&job, body, shared).await {
        Ok(issued) => issued,
        Err((code, detail)) => {
            log::rejected(subject, code, &detail);
            live::issue(shared, subject, (&shop, key_id), code, &detail);
            shared.metrics.decision(None, Some(code));
            let problem = Problem { limit: job.limit, ..Problem::new(code, detail) };
            return problem.into_response(subject.id);
        }
    };
    shared.metrics.decision(Some(Mechanism::ShopApiKey), None);
    log::issued(subject, shop.as_str(), &key_id.to_string(), &issued.id.to_string());
    let wire = Issued {
        token: issued.token.expose(),
        expires_at: issued.expires_at,
        scopes: issued.scopes.split(' ').collect(),
    };
    // Serializing strings into memory cannot fail.
    let body = serde_json::to_vec(&wire).unwrap_or_default();
    let mut response = problem::json(StatusCode::CREATED, body.into(), subject.id);
    if let Some(limit) = job.limit {
        limit.apply(response.headers_mut());
    }
    response
}

async fn issue(
    job: &IssueJob,
    body: Option<ClientBody>,
    shared: &Shared,
) -> Result<IssuedToken, Refused> {
    let text = read(body).await?;
    let (scopes, lifetime) = parse(&text, &job.policies.widget)
        .map_err(|why| (Code::BadRequest, format!("The body is refused: {why}.")))?;
    let (reply, waiting) = oneshot::channel();
    let request = IssueRequest { shop: job.shop, key_id: job.key_id, scopes, lifetime, reply };
    let overloaded = "Widget tokens cannot be issued at the moment; try again shortly.";
    shared.issue.try_send(request).map_err(|error| match error {
        TrySendError::Full(_) | TrySendError::Closed(_) => {
            (Code::Overloaded, overloaded.to_owned())
        }
    })?;
    let Ok(Ok(outcome)) = tokio::time::timeout(ISSUE_BOUND, waiting).await else {
        return Err((Code::Overloaded, overloaded.to_owned()));
    };
    outcome.map_err(|error| match error {
        IssueError::Gone => {
            let detail = "The shop or its API key was removed or disabled meanwhile.";
            (Code::InvalidCredential, detail.to_owned())
        }
        IssueError::Store => (Code::Internal, "The token could not be recorded.".to_owned()),
    })
}

/// Reads the body, bounded; who sends it keeps the time.
async fn read(body: Option<ClientBody>) -> Result<Vec<u8>, Refused> {
    let mut text = Vec::new();
    let Some(mut body) = body else {
        return Ok(text);
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|fault| (fault.code(), fault.detail().to_owned()))?;
        let Ok(data) = frame.into_data() else {
            break;
        };
        if text.len() + data.len() > BODY_BYTES_MAX {
            let detail = format!("The body is longer than {BODY_BYTES_MAX} bytes.");
            return Err((Code::PayloadTooLarge, detail));
        }
        text.extend_from_slice(&data);
    }
    Ok(text)
}

/// The body, as sent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    scopes: Option<Vec<String>>,
    lifetime_seconds: Option<u64>,
}

/// The response.
#[derive(Serialize)]
struct Issued<'a> {
    token: &'a str,
    expires_at: Timestamp,
    scopes: Vec<&'a str>,
}

/// Scopes, space-separated, and lifetime; what is wrong with the body otherwise.
fn parse(text: &[u8], policy: &WidgetPolicy) -> Result<(String, Duration), String> {
    let asked = if text.trim_ascii().is_empty() { Asked::default() } else { members(text)? };
    let scopes = match &asked.scopes {
        None => "*".to_owned(),
        Some(scopes) => scope_list(scopes, policy)?,
    };
    let max_s = policy.lifetime_max.as_secs();
    let lifetime = match asked.lifetime_seconds {
        None => policy.lifetime,
        Some(0) => return Err("`lifetime_seconds` is 0; leave it out for the default".to_owned()),
        Some(s) if s > max_s => return Err(format!("`lifetime_seconds` is more than {max_s}")),
        Some(s) => Duration::from_secs(s),
    };
    Ok((scopes, lifetime))
}

fn members(text: &[u8]) -> Result<Asked, String> {
    let error = match serde_json::from_slice::<Asked>(text) {
        Ok(asked) => return Ok(asked),
        Err(error) => error,
    };
    let Ok(tree) = serde_json::from_slice::<serde_json::Value>(text) else {
        return Err(format!("it is not JSON: {error}"));
    };
    let Some(object) = tree.as_object() else {
        return Err("it is not a JSON object".to_owned());
    };
    let Some(unknown) = object.keys().find(|key| !MEMBERS.contains(&key.as_str())) else {
        return Err(error.to_string());
    };
    let near = MEMBERS.iter().max_by(|a, b| {
        let nearness = |member| strsim::jaro_winkler(member, unknown);
        nearness(a).total_cmp(&nearness(b))
    });
    let shown: String = unknown.chars().take(64).collect();
    Err(match near.filter(|near| strsim::jaro_winkler(near, unknown) > 0.6) {
        Some(near) => format!("unknown member `{shown}`; `{near}` was probably meant"),
        None => format!("unknown member `{shown}`; known are `scopes` and `lifetime_seconds`"),
    })
}

fn scope_list(scopes: &[String], policy: &WidgetPolicy) -> Result<String, String> {
    let mut list = String::new();
    for scope in scopes {
        if scope != "*" && !policy.scopes.iter().any(|known| **known == **scope) {
            let shown: String = scope.chars().take(64).collect();
            return Err(format!(
                "unknown scope `{shown}`; known are {} and `*`",
                policy.scopes.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ")
            ));
        }
        if list.split(' ').any(|known| known == scope) {
            continue;
        }
        if !list.is_empty() {
            list.push(' ');
        }
        list.push_str(scope);
    }
    if list.is_empty() {
        return Err("`scopes` is empty; leave it out for all scopes".to_owned());
    }
    if list.len() > SCOPES_BYTES_MAX {
        return Err(format!("`scopes` has more than {SCOPES_BYTES_MAX} characters in all"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> WidgetPolicy {
        WidgetPolicy {
            lifetime: Duration::from_secs(3600),
            lifetime_max: Duration::from_secs(7200),
            scopes: vec!["search".into(), "compare".into()],
            allow_loopback_origins: false,
        }
    }

    #[test]
    fn bodies() {
        let hour = 3600;
        for (text, scopes, lifetime_s) in [
            ("", "*", hour),
            (" \r\n", "*", hour),
            ("{}", "*", hour),
            (r#"{"scopes":["search"]}"#, "search", hour),
            (
                r#"{"scopes":["search","compare","search"],"lifetime_seconds":7200}"#,
                "search compare",
                7200,
            ),
            (r#"{"scopes":["*"],"lifetime_seconds":1}"#, "*", 1),
            (r#"{"scopes":null,"lifetime_seconds":null}"#, "*", hour),
        ] {
            let parsed = parse(text.as_bytes(), &policy());
            assert_eq!(parsed, Ok((scopes.to_owned(), Duration::from_secs(lifetime_s))), "{text}");
        }
    }

    #[test]
    fn bodies_that_are_refused_say_why() {
        for (text, why) in [
            ("x", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}{}", "not JSON"),
            (r#"{"scope":["search"]}"#, "`scopes` was probably meant"),
            (r#"{"lifetime":1}"#, "`lifetime_seconds` was probably meant"),
            (r#"{"qqq":1}"#, "known are"),
            (r#"{"lifetime_seconds":0}"#, "is 0"),
            (r#"{"lifetime_seconds":7201}"#, "more than 7200"),
            (r#"{"lifetime_seconds":-1}"#, "invalid value"),
            (r#"{"lifetime_seconds":"1"}"#, "invalid type"),
            (r#"{"lifetime_seconds":1,"lifetime_seconds":2}"#, "duplicate"),
            (r#"{"scopes":"search"}"#, "invalid type"),
            (r#"{"scopes":[]}"#, "is empty"),
            (r#"{"scopes":[""]}"#, "unknown scope"),
            (r#"{"scopes":["search compare"]}"#, "unknown scope"),
            (r#"{"scopes":["nope"]}"#, "known are `search`, `compare` and `*`"),
        ] {
            let error = parse(text.as_bytes(), &policy()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
