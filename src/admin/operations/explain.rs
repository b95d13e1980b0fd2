//! What would come of a request, stage by stage. Decides with the code and the state of real
//! requests, charges nothing, counts nothing, and repeats no credential.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method};

use super::OperationError;
use super::explanation::{
    ExplainRequest, ExplainedDecision, ExplainedLimit, ExplainedPrincipal, ExplainedStage,
    Explanation, Verdict,
};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::decision::cors::{self, Offer, Refused};
use crate::decision::credential::{X_SHOP_API_KEY, X_WIDGET_TOKEN};
use crate::decision::denial::{Denial, Stage};
use crate::decision::policy::{Policies, Route, Target};
use crate::decision::principal::{Mechanism, Principal};
use crate::decision::request::RequestView;
use crate::decision::{
    Admitted, Context, Decision, Facts as _, LimitReport, Refusal, Round, evaluate,
};
use crate::limiter::Peek;

/// Most header fields of an explained request.
const HEADERS_MAX: usize = 200;

/// Explains what would come of a request.
pub fn explain(
    node: &Node,
    caller: &Caller,
    described: &ExplainRequest,
) -> Result<Explanation, OperationError> {
    caller.require_any(Permission::Explain)?;
    Request::parse(described).map(|request| explanation(node, &request))
}

/// A request that is only talked about.
struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    client: IpAddr,
}

impl Request {
    /// Reads what was described. No message repeats a header's value.
    fn parse(described: &ExplainRequest) -> Result<Self, OperationError> {
        let method = Method::from_bytes(described.method.as_bytes())
            .map_err(|_| OperationError::invalid("method", "is not a method such as GET"))?;
        let client = match described.client.as_deref() {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(text) => text.parse().map_err(|_| {
                OperationError::invalid("client", "is not an IP address such as 192.0.2.1")
            })?,
        };
        let mut headers = HeaderMap::new();
        for (place, (name, values)) in described.headers.iter().enumerate() {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| {
                OperationError::invalid(format!("headers[{place}]"), "is not a header field's name")
            })?;
            for value in values.as_slice() {
                let value = HeaderValue::try_from(value.as_str()).map_err(|_| {
                    OperationError::invalid(format!("headers.{name}"), "holds a control character")
                })?;
                if headers.len() >= HEADERS_MAX {
                    let detail = format!("more than {HEADERS_MAX} fields");
                    return Err(OperationError::invalid("headers", detail));
                }
                headers.append(&name, value);
            }
        }
        let path = described.path.split('?').next().unwrap_or_default().to_owned();
        Ok(Self { method, path, headers, client })
    }
}

fn explanation(node: &Node, request: &Request) -> Explanation {
    let snapshot = node.published.load();
    let view = RequestView {
        method: &request.method,
        path: &request.path,
        headers: &request.headers,
        client: request.client,
    };
    if let Some(judged) = cors::preflight(&view, snapshot.policies(), &**snapshot) {
        return preflight(&judged);
    }
    let limits = Peek(&node.limiter);
    let context = Context { facts: &**snapshot, limits: &limits, verified: node.verified.as_ref() };
    match evaluate(&view, &context, node.now(), Round::First) {
        Decision::Admit(admitted) => allowed(&admitted, request, snapshot.policies()),
        Decision::Refuse(refusal) => denied(&refusal, request),
        Decision::NeedsKey { issuer, kid } => {
            let kid = if kid.is_empty() { "it does not name" } else { &*kid };
            needs_key(request, issuer.as_str(), kid)
        }
    }
}

fn allowed(admitted: &Admitted<'_>, request: &Request, policies: &Policies) -> Explanation {
    let (route, principal) = (admitted.route(), admitted.principal());
    let passed = Passed { request, route: Some(route), principal: Some(principal) };
    let stages = Stage::ALL.map(|stage| match stage {
        Stage::Admit => stage_of(stage, Verdict::Passed, limits_why(admitted.limit())),
        Stage::Classify
        | Stage::Extract
        | Stage::Throttle
        | Stage::Authenticate
        | Stage::Authorize => stage_of(stage, Verdict::Passed, passed.why(stage)),
    });
    let shadow = |(i, _): &(usize, _)| admitted.shadow_exceeded() & (1 << i) != 0;
    let shadow_exceeded = policies.limits.iter().enumerate().take(64).filter(shadow);
    Explanation {
        decision: ExplainedDecision::Allow,
        target: Some(target(&route.target)),
        shadow_exceeded: shadow_exceeded.map(|(_, limit)| limit.name.to_string()).collect(),
        limit: admitted.limit().map(limit),
        ..explained(ExplainedDecision::Allow, Some(route), Some(principal), stages.into())
    }
}

fn denied(refusal: &Refusal<'_>, request: &Request) -> Explanation {
    let denial = &refusal.denial;
    let (route, principal) = (refusal.route, refusal.principal.as_ref());
    let passed = Passed { request, route, principal };
    let stages = Stage::ALL.map(|stage| match stage.cmp(&denial.stage()) {
        std::cmp::Ordering::Less => stage_of(stage, Verdict::Passed, passed.why(stage)),
        std::cmp::Ordering::Equal => stage_of(stage, Verdict::Refused, sentence(&denial.reason())),
        std::cmp::Ordering::Greater => not_reached(stage, denial.stage()),
    });
    let code = denial.code();
    Explanation {
        status: Some(code.status()),
        code: Some(code.as_str().to_owned()),
        detail: Some(denial.detail().into_owned()),
        reason: Some(denial.reason().into_owned()),
        challenge: denial.challenge().map(std::borrow::Cow::into_owned),
        retry_after_seconds: denial.retry_after_us().map(|us| us.div_ceil(1_000_000).max(1)),
        mechanism: principal
            .map(Principal::mechanism)
            .or_else(|| presented_as(denial))
            .map(|mechanism| mechanism.as_str().to_owned()),
        limit: refusal.limit.map(limit),
        ..explained(ExplainedDecision::Deny, route, principal, stages.into())
    }
}

fn needs_key(request: &Request, issuer: &str, kid: &str) -> Explanation {
    let passed = Passed { request, route: None, principal: None };
    let why = format!(
        "The token of issuer `{issuer}` was signed by a key ({kid}) that the key set does not \
         hold. The issuer would be asked for it, then the request decided."
    );
    let stages = Stage::ALL.map(|stage| match stage.cmp(&Stage::Authenticate) {
        std::cmp::Ordering::Less => stage_of(stage, Verdict::Passed, passed.why(stage)),
        std::cmp::Ordering::Equal => stage_of(stage, Verdict::Undecided, why.clone()),
        std::cmp::Ordering::Greater => not_reached(stage, Stage::Authenticate),
    });
    Explanation {
        mechanism: Some(Mechanism::Jwt.as_str().to_owned()),
        reason: Some(why.clone()),
        ..explained(ExplainedDecision::NeedsKey, None, None, stages.into())
    }
}

/// A preflight has a route and an origin, and nothing that the other stages could look at.
fn preflight(judged: &Result<Offer<'_>, Refused<'_>>) -> Explanation {
    let takes = |route: &Route| {
        let why = format!("A browser asks whether a page may send what `{}` takes.", route.name);
        (Verdict::Passed, why)
    };
    let refused = |denial: &Denial<'_>| (Verdict::Refused, sentence(&denial.reason()));
    let allows = "The route, or a shop whose widgets it serves, allows the page's origin.";
    let nobody = "There is no route that could allow it.";
    let (classify, authorize) = match judged {
        Ok(offer) => (takes(offer.route), (Verdict::Passed, allows.to_owned())),
        Err(Refused { route: Some(route), denial }) => (takes(route), refused(denial)),
        Err(Refused { route: None, denial }) => {
            (refused(denial), (Verdict::NotReached, nobody.to_owned()))
        }
    };
    let why = "A preflight carries no credential and costs no quota.";
    let stages = Stage::ALL.map(|stage| match stage {
        Stage::Classify => stage_of(stage, classify.0, classify.1.clone()),
        Stage::Authorize => stage_of(stage, authorize.0, authorize.1.clone()),
        Stage::Extract | Stage::Throttle | Stage::Authenticate | Stage::Admit => {
            stage_of(stage, Verdict::NotReached, why.to_owned())
        }
    });
    let (route, denial) = match judged {
        Ok(offer) => (Some(offer.route), None),
        Err(refused) => (refused.route, Some(&refused.denial)),
    };
    let decision = denial.map_or(ExplainedDecision::Allow, |_| ExplainedDecision::Deny);
    Explanation {
        status: Some(denial.map_or(204, |denial| denial.code().status())),
        code: denial.map(|denial| denial.code().as_str().to_owned()),
        detail: denial.map(|denial| denial.detail().into_owned()),
        reason: denial.map(|denial| denial.reason().into_owned()),
        target: Some("latchkey".to_owned()),
        ..explained(decision, route, None, stages.into())
    }
}

/// What every explanation has.
fn explained(
    decision: ExplainedDecision,
    route: Option<&Route>,
    principal: Option<&Principal<'_>>,
    stages: Vec<ExplainedStage>,
) -> Explanation {
    Explanation {
        decision,
        status: None,
        code: None,
        detail: None,
        reason: None,
        challenge: None,
        retry_after_seconds: None,
        route: route.map(|route| route.name.to_string()),
        target: None,
        mechanism: principal.map(|principal| principal.mechanism().as_str().to_owned()),
        principal: principal.map(describe),
        stages,
        limit: None,
        shadow_exceeded: Vec::new(),
    }
}

fn stage_of(stage: Stage, verdict: Verdict, why: String) -> ExplainedStage {
    ExplainedStage { stage: stage.as_str().to_owned(), verdict, why }
}

fn not_reached(stage: Stage, ended: Stage) -> ExplainedStage {
    let why = format!("The stage `{}` ended the decision.", ended.as_str());
    stage_of(stage, Verdict::NotReached, why)
}

/// Why a stage let the request on.
struct Passed<'a> {
    request: &'a Request,
    route: Option<&'a Route>,
    principal: Option<&'a Principal<'a>>,
}

impl Passed<'_> {
    fn why(&self, stage: Stage) -> String {
        let Request { method, path, client, .. } = self.request;
        match stage {
            Stage::Classify => match self.route {
                Some(route) => format!("The route `{}` takes {method} {path}.", route.name),
                None => format!("A route takes {method} {path}."),
            },
            Stage::Extract => match self.presented().as_slice() {
                [] => "It presents no credential, which the route allows.".to_owned(),
                fields => format!("It presents its credential in {}.", fields.join(", ")),
            },
            Stage::Throttle if self.presented().is_empty() => {
                "Without a credential there is no attempt to throttle.".to_owned()
            }
            Stage::Throttle => format!("{client} has not failed to authenticate too often."),
            Stage::Authenticate => self.principal.map_or_else(String::new, authentic),
            Stage::Authorize => self.principal.map_or_else(String::new, authorized),
            Stage::Admit => limits_why(None),
        }
    }

    /// The fields that hold a credential the route takes.
    fn presented(&self) -> Vec<&'static str> {
        let fields = [
            (Mechanism::WidgetToken, &X_WIDGET_TOKEN, "X-Widget-Token"),
            (Mechanism::ShopApiKey, &X_SHOP_API_KEY, "X-Shop-API-Key"),
            (Mechanism::Jwt, &AUTHORIZATION, "Authorization"),
        ];
        fields
            .into_iter()
            .filter(|(mechanism, name, _)| {
                self.route.is_none_or(|route| route.mechanisms.contains(*mechanism))
                    && self.request.headers.contains_key(*name)
            })
            .map(|(_, _, shown)| shown)
            .collect()
    }
}

fn authentic(principal: &Principal<'_>) -> String {
    match principal {
        Principal::ShopApiKey { key, shop } => {
            let grace = key.grace_until.map_or_else(String::new, |until| {
                format!(" It was rotated, and verifies until its grace is over at {until}.")
            });
            format!("The API key {} of shop `{}` is authentic and current.{grace}", key.id, shop.id)
        }
        Principal::WidgetToken { token, shop } => format!(
            "The widget token {} of shop `{}` is authentic, not revoked, and expires at {}.",
            token.id, shop.id, token.expires_at
        ),
        Principal::Jwt { token, issuer, .. } => format!(
            "A key of issuer `{}` signed the token of subject `{}`, which expires at {}.",
            issuer.name, token.subject, token.expires_at
        ),
        Principal::Anonymous => "There is nothing to authenticate: the caller is anonymous.".into(),
    }
}

fn authorized(principal: &Principal<'_>) -> String {
    match principal {
        Principal::ShopApiKey { shop, .. } => format!(
            "The path is shop `{}`'s or nobody's, the shop is enabled, and the key's networks, \
             the page's origin and the scopes allow it.",
            shop.id
        ),
        Principal::WidgetToken { shop, .. } => format!(
            "The shop `{}` is enabled, the page's origin may embed its widget, and the token has \
             the scope the path needs.",
            shop.id
        ),
        Principal::Jwt { .. } => {
            "The token's shop, if the path names one, and its scopes allow it.".to_owned()
        }
        Principal::Anonymous => "The path names no shop and needs no scope.".to_owned(),
    }
}

fn limits_why(report: Option<LimitReport<'_>>) -> String {
    match report {
        None => "No limit applies to it.".to_owned(),
        Some(report) => format!(
            "The tightest limit, `{}`, allows {} per {} s; {} would be left.",
            report.policy,
            report.quota.limit,
            report.quota.window_s(),
            report.standing.remaining
        ),
    }
}

/// As what a refused credential was presented.
fn presented_as(denial: &Denial<'_>) -> Option<Mechanism> {
    match denial {
        Denial::InvalidCredential { mechanism, .. }
        | Denial::ExpiredCredential { mechanism }
        | Denial::InsufficientScope { mechanism, .. } => Some(*mechanism),
        Denial::KeysUnavailable { .. } => Some(Mechanism::Jwt),
        Denial::BadPath(_)
        | Denial::BadCredentialField { .. }
        | Denial::AmbiguousCredentials
        | Denial::NotFound
        | Denial::MissingCredential { .. }
        | Denial::CrossTenant
        | Denial::ShopDisabled
        | Denial::NetworkNotAllowed
        | Denial::OriginMismatch { .. }
        | Denial::TooManyFailures { .. }
        | Denial::RateLimited { .. } => None,
    }
}

fn describe(principal: &Principal<'_>) -> ExplainedPrincipal {
    let credential_id = match principal {
        Principal::ShopApiKey { key, .. } => Some(key.id.to_string()),
        Principal::WidgetToken { token, .. } => Some(token.id.to_string()),
        Principal::Jwt { .. } | Principal::Anonymous => None,
    };
    let issuer = match principal {
        Principal::Jwt { issuer, .. } => Some(issuer.name.to_string()),
        Principal::ShopApiKey { .. } | Principal::WidgetToken { .. } | Principal::Anonymous => None,
    };
    let scopes = principal.scopes().split(' ').filter(|scope| !scope.is_empty());
    ExplainedPrincipal {
        shop: principal.shop().map(ToString::to_string),
        credential_id,
        issuer,
        subject: principal.subject().map(str::to_owned),
        scopes: scopes.map(str::to_owned).collect(),
    }
}

fn limit(report: LimitReport<'_>) -> ExplainedLimit {
    ExplainedLimit {
        policy: report.policy.to_string(),
        limit: report.quota.limit.get(),
        window_seconds: report.quota.window_s(),
        remaining: report.standing.remaining,
        reset_seconds: report.standing.reset_us.div_ceil(1_000_000),
    }
}

fn target(target: &Target) -> String {
    match target {
        Target::Upstream(name) => format!("upstream:{name}"),
        Target::IssueWidgetToken => "latchkey".to_owned(),
    }
}

/// With a capital at its start and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(char::to_uppercase);
    let mut sentence: String = first.into_iter().flatten().chain(chars).collect();
    sentence.push('.');
    sentence
}
