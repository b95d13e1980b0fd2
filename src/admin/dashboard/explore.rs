//! The decision explorer: a request is described or pasted, and the decision walked stage by
//! stage, with the code and the state of real requests. What is pasted goes nowhere else: not into
//! the page, not into the log, not into an address.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::RawQuery;

use super::figures::duration;
use super::form::{Errors, Form};
use super::frame::{Frame, query_value};
use super::visit::SignedIn;
use super::{Answer, page, page_with, paste};
use crate::admin::caller::Permission;
use crate::admin::operations::events::{self, Filter};
use crate::admin::operations::explain::explain;
use crate::admin::operations::explanation::{
    ExplainRequest, ExplainedDecision, Explanation, HeaderValues, Verdict,
};
use crate::decision::policy::Policies;
use crate::decision::principal::Mechanism;
use crate::events::Refusal;

/// Header fields whose values are shown again; all others may hold a credential.
const SHOWN: [&str; 12] = [
    "accept",
    "access-control-request-headers",
    "access-control-request-method",
    "content-length",
    "content-type",
    "host",
    "origin",
    "sec-fetch-mode",
    "sec-fetch-site",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// What credentials can be presented as: the form's value, and what it is called.
pub(super) const CREDENTIALS: [(&str, &str); 4] = [
    ("none", "No credential"),
    ("x-shop-api-key", "X-Shop-API-Key"),
    ("x-widget-token", "X-Widget-Token"),
    ("authorization", "Authorization: Bearer"),
];

#[derive(Template)]
#[template(path = "explore.html")]
struct Page {
    frame: Frame,
    fields: Fields,
    errors: Errors,
    credentials: [(&'static str, &'static str); 4],
    walk: Option<Walk>,
    /// What was refused that this is about.
    about: Option<String>,
}

/// The form, without credentials.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) origin: String,
    pub(super) client: String,
    pub(super) kind: String,
    /// Whether the request came by pasting.
    pasted: bool,
}

/// The way of a request.
struct Walk {
    explanation: Explanation,
    verdict: &'static str,
    tone: &'static str,
    stages: Vec<Step>,
    branches: Vec<Branch>,
    advice: &'static str,
    /// Until it would pass.
    wait: Option<String>,
    request: Vec<(String, String)>,
}

/// A stage of it.
struct Step {
    name: &'static str,
    question: &'static str,
    tone: &'static str,
    verdict: &'static str,
    why: String,
}

/// A branch of the tree: who calls.
struct Branch {
    who: &'static str,
    credential: &'static str,
    endpoints: Vec<String>,
    taken: bool,
}

/// The form, filled in from a refusal if the query names one that is kept still.
pub(super) async fn show(visit: SignedIn, RawQuery(query): RawQuery) -> Answer {
    visit.caller().require_any(Permission::Explain)?;
    let wanted = query_value(query.as_deref(), "event").parse::<u64>().ok();
    let recent = match wanted {
        Some(_) => events::recent(visit.node(), visit.caller(), Filter::default())?,
        None => Vec::new(),
    };
    let refusal = recent.iter().find(|refusal| Some(refusal.sequence) == wanted);
    let fields = refusal.map_or_else(Fields::empty, |refusal| Fields::of(refusal));
    let about = match (wanted, refusal) {
        (None, _) => None,
        (Some(_), None) => {
            Some("That refusal is not kept any more. Describe the request yourself.".to_owned())
        }
        (Some(_), Some(refusal)) => Some(format!(
            "Refused at {} with {} {}: {} Its credential was not kept: paste it below to see \
             every stage as it is now.",
            super::figures::moment(&refusal.at),
            refusal.status,
            refusal.code.as_str(),
            super::failure::sentence(&refusal.why),
        )),
    };
    page(&Page {
        frame: visit.frame("Decision explorer", "/explore"),
        fields,
        errors: Errors::default(),
        credentials: CREDENTIALS,
        walk: None,
        about,
    })
}

impl Fields {
    fn empty() -> Self {
        Self { method: "GET".to_owned(), kind: "none".to_owned(), ..Self::default() }
    }

    /// What is known of a refused request.
    fn of(refusal: &Refusal) -> Self {
        let kind = match refusal.mechanism {
            Some(Mechanism::ShopApiKey) => "x-shop-api-key",
            Some(Mechanism::WidgetToken) => "x-widget-token",
            Some(Mechanism::Jwt) => "authorization",
            Some(Mechanism::Anonymous) | None => "none",
        };
        Self {
            method: refusal.method.to_string(),
            path: refusal.path.to_string(),
            origin: refusal.origin.as_ref().map(ToString::to_string).unwrap_or_default(),
            client: refusal.client.to_string(),
            kind: kind.to_owned(),
            ..Self::default()
        }
    }
}

/// The form, and what came of the request.
pub(super) async fn walk(visit: SignedIn, form: Form) -> Answer {
    let fields = Fields {
        method: form.optional("method").unwrap_or("GET").to_owned(),
        // What follows decides nothing, may be a credential, and is not put into the page again.
        path: form.text("path").split(['?', '#']).next().unwrap_or_default().to_owned(),
        host: form.text("host").to_owned(),
        origin: form.text("origin").to_owned(),
        client: form.text("client").to_owned(),
        kind: form.optional("kind").unwrap_or("none").to_owned(),
        pasted: form.checked("paste"),
    };
    let described = if fields.pasted {
        let client = form.optional("client").map(str::to_owned);
        paste::parse(form.raw("paste"), client).map_err(|problem| Errors::of("paste", problem))
    } else {
        described(&fields, &form)
    };
    let answered = match described {
        Err(errors) => Err(errors),
        Ok(described) => match visit.decided(&described) {
            Ok(explanation) => {
                let policies = visit.node().published.load_full().shared_policies().clone();
                Ok(Walk::new(explanation, &described, &policies))
            }
            Err(error) => Err(renamed(Errors::of_operation(error)?, fields.pasted)),
        },
    };
    let (errors, walk) = match answered {
        Ok(walk) => (Errors::default(), Some(walk)),
        Err(errors) => (errors, None),
    };
    let status = if walk.is_some() { 200 } else { 422 };
    let shown = Page {
        frame: visit.frame("Decision explorer", "/explore"),
        fields,
        errors,
        credentials: CREDENTIALS,
        walk,
        about: None,
    };
    let status = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    page_with(status, &shown)
}

impl SignedIn {
    fn decided(
        &self,
        described: &ExplainRequest,
    ) -> Result<Explanation, crate::admin::operations::OperationError> {
        explain(self.node(), self.caller(), described)
    }
}

/// What is wrong with a pasted request is wrong with what was pasted.
fn renamed(errors: Errors, pasted: bool) -> Errors {
    if !pasted || errors.get("client").is_some() {
        return errors;
    }
    Errors::of("paste", errors.others([]).join(" "))
}

/// The request that the form's fields describe.
fn described(fields: &Fields, form: &Form) -> Result<ExplainRequest, Errors> {
    let mut errors = Errors::default();
    if fields.path.is_empty() {
        errors.add("path", "is missing; give a path such as `/api/plugin/shops/me`");
    } else if !fields.path.starts_with('/') {
        errors.add("path", "does not begin with `/`");
    }
    let mut headers = BTreeMap::new();
    let secret = form.text("credential");
    let mut put = |name: &str, value: String| {
        headers.insert(name.to_owned(), HeaderValues::One(value));
    };
    if !fields.host.is_empty() {
        put("host", fields.host.clone());
    }
    if !fields.origin.is_empty() {
        put("origin", fields.origin.clone());
    }
    match fields.kind.as_str() {
        "none" if !secret.is_empty() => {
            errors.add("kind", "says that there is no credential; choose what it is");
        }
        "none" => {}
        "authorization" => {
            let token = secret.strip_prefix("Bearer ").unwrap_or(secret);
            put("authorization", format!("Bearer {token}"));
        }
        "x-shop-api-key" | "x-widget-token" => put(&fields.kind, secret.to_owned()),
        _ => errors.add("kind", "is not one of the choices"),
    }
    if fields.kind != "none" && secret.is_empty() {
        errors.add("credential", "is missing; it is not kept from one time to the next");
    }
    if let Err(problem) = paste::fields(form.raw("headers"), &mut headers) {
        errors.add("headers", problem);
    }
    let client = Some(fields.client.clone()).filter(|client| !client.is_empty());
    let (method, path) = (fields.method.clone(), fields.path.clone());
    if errors.is_empty() {
        Ok(ExplainRequest { method, path, headers, client })
    } else {
        Err(errors)
    }
}

impl Walk {
    fn new(explanation: Explanation, described: &ExplainRequest, policies: &Policies) -> Self {
        let (verdict, tone) = match explanation.decision {
            ExplainedDecision::Allow => ("Allowed", "good"),
            ExplainedDecision::Deny => ("Refused", "bad"),
            ExplainedDecision::NeedsKey => ("Not decided yet", "warn"),
        };
        let stages = explanation.stages.iter().map(|stage| Step {
            name: name_of(&stage.stage),
            question: question_of(&stage.stage),
            tone: match stage.verdict {
                Verdict::Passed => "good",
                Verdict::Refused => "bad",
                Verdict::Undecided => "warn",
                Verdict::NotReached => "",
            },
            verdict: match stage.verdict {
                Verdict::Passed => "passed",
                Verdict::Refused => "refused",
                Verdict::Undecided => "undecided",
                Verdict::NotReached => "not reached",
            },
            // Which stage that was is to be seen: it is the one before that did not pass.
            why: match stage.verdict {
                Verdict::NotReached => String::new(),
                Verdict::Passed | Verdict::Refused | Verdict::Undecided => stage.why.clone(),
            },
        });
        Self {
            verdict,
            tone,
            stages: stages.collect(),
            branches: branches(&explanation, policies),
            advice: explanation.code.as_deref().map_or("", advice),
            wait: explanation.retry_after_seconds.map(duration),
            request: understood(described),
            explanation,
        }
    }
}

/// The request as it was understood, without what may be a credential.
fn understood(described: &ExplainRequest) -> Vec<(String, String)> {
    let path = described.path.split('?').next().unwrap_or_default();
    let client = described.client.as_deref().unwrap_or("127.0.0.1");
    let mut lines = vec![
        ("Request".to_owned(), format!("{} {path}", described.method)),
        ("Client address".to_owned(), client.to_owned()),
    ];
    for (name, values) in &described.headers {
        for value in values.as_slice() {
            let shown = if SHOWN.contains(&name.as_str()) {
                value.clone()
            } else {
                format!("({} characters, not shown)", value.chars().count())
            };
            lines.push((name.clone(), shown));
        }
    }
    lines
}

/// Who can be calling, with the paths that are configured for it. The branch that the request
/// took is the one of its mechanism; of a request that presented nothing, its route's.
fn branches(explanation: &Explanation, policies: &Policies) -> Vec<Branch> {
    let route =
        policies.routes.iter().find(|r| explanation.route.as_deref() == Some(r.name.as_str()));
    let taken = |mechanism: Mechanism| match &explanation.mechanism {
        Some(name) => name == mechanism.as_str(),
        None => route.is_some_and(|route| route.mechanisms.contains(mechanism)),
    };
    Mechanism::ALL
        .map(|mechanism| {
            let (who, credential) = match mechanism {
                Mechanism::WidgetToken => {
                    ("A browser (embedded widget)", "X-Widget-Token, signed by latchkey, expires")
                }
                Mechanism::ShopApiKey => {
                    ("A shop's server", "X-Shop-API-Key, valid until rotated; Origin is checked")
                }
                Mechanism::Jwt => {
                    ("A signed-in app", "Authorization: Bearer, signed by an identity provider")
                }
                Mechanism::Anonymous => ("Anyone", "No credential, under a strict limit"),
            };
            let takes = policies.routes.iter().filter(|r| r.mechanisms.contains(mechanism));
            let paths = takes.flat_map(|route| route.paths.iter().map(ToString::to_string));
            let mut endpoints: Vec<String> = paths.collect();
            endpoints.dedup();
            Branch { who, credential, endpoints, taken: taken(mechanism) }
        })
        .into()
}

fn name_of(stage: &str) -> &'static str {
    match stage {
        "classify" => "Route",
        "extract" => "Credential",
        "throttle" => "Failed attempts",
        "authenticate" => "Authentic?",
        "authorize" => "Allowed?",
        _ => "Limits",
    }
}

fn question_of(stage: &str) -> &'static str {
    match stage {
        "classify" => "Can the request be read in one way only, and which route takes it?",
        "extract" => "Which credential does it present, of those the route takes?",
        "throttle" => "Has this address presented bad credentials too often?",
        "authenticate" => "Is the credential authentic, known and current?",
        "authorize" => "Is it for this shop, from this network, page and with this scope?",
        _ => "Do all limits allow it now?",
    }
}

/// What to do about a refusal.
fn advice(code: &str) -> &'static str {
    match code {
        "bad_request" => {
            "Send one credential, in one header field, and a path without encoded slashes or dots."
        }
        "not_found" => {
            "Compare method and path with the routes, which are listed under Policies and stand as \
             `[[routes]]` in latchkey.toml."
        }
        "missing_credential" => {
            "The caller forgot the header, or a proxy on the way removed it. Send the one that \
             the tree names for this route."
        }
        "invalid_credential" => {
            "Look the key up under its shop: it may have been revoked or rotated, or belong to \
             another environment. Create or rotate it there."
        }
        "expired_credential" => {
            "Issue a new widget token, or let the app refresh its JWT. Keys with an expiry are \
             replaced by rotating them."
        }
        "origin_mismatch" => {
            "Set the shop's URL to the page's origin, or add the origin to those the shop allows. \
             API keys do not belong into pages: use a widget token there."
        }
        "cross_tenant" => "Use the id of the key's own shop in the path, or `me`.",
        "insufficient_scope" => "Issue a token that has the scope the path needs.",
        "shop_disabled" => "Enable the shop again.",
        "network_not_allowed" => {
            "Add the caller's network to the key's, or call from one that it has."
        }
        "rate_limited" => {
            "Let the caller wait as long as Retry-After says, or give the shop or the key a \
             higher limit."
        }
        "keys_unavailable" => "Refresh the identity provider's keys; its page says what is wrong.",
        _ => "",
    }
}
