//! A shop's widget tokens: issue, list, revoke.

use askama::Template;
use axum::extract::Query;
use serde::Deserialize;

use super::super::once::Once;
use super::super::{Segments, figures, parse, renamed, sent_again, snippets};
use super::{Head, Tab, find, may_in};
use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::widget_tokens::{self, IssueRequest};
use crate::clock::Timestamp;
use crate::decision::policy::WidgetPolicy;
use crate::id::{ShopId, TokenId};
use crate::store::{ShopRecord, TokenRecord};

/// Tokens on one page.
const PAGE: usize = 50;

/// What part of the list is wanted.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct ListQuery {
    #[serde(default)]
    after: String,
}

/// A token of the list.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    revoke_href: String,
    scopes: String,
    issued: Timestamp,
    issued_by: String,
    expires: Timestamp,
    status: &'static str,
    tone: &'static str,
    /// Whether revoking it would change anything.
    is_live: bool,
}

impl Row {
    fn of(token: &TokenRecord, shop: &ShopRecord, now: Timestamp) -> Self {
        let (status, tone) = if token.revoked_at.is_some() {
            ("Revoked", "bad")
        } else if token.issued_at < shop.tokens_valid_from {
            ("Revoked with all", "bad")
        } else if token.expires_at <= now {
            ("Expired", "")
        } else {
            ("Active", "good")
        };
        let scopes = if token.scopes == "*" { "every scope" } else { token.scopes.as_str() };
        Self {
            id: token.id.to_string(),
            revoke_href: format!("/shops/{}/tokens/{}/revoke", shop.id, token.id),
            scopes: scopes.to_owned(),
            issued: token.issued_at,
            issued_by: token.issued_by.clone(),
            expires: token.expires_at,
            status,
            tone,
            is_live: status == "Active",
        }
    }
}

/// A scope that a token may have, and whether its box is ticked.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    name: String,
    is_ticked: bool,
}

#[derive(Template)]
#[template(path = "shop_tokens.html")]
struct Page {
    frame: Frame,
    head: Head,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
    scopes: Vec<Scope>,
    lifetime: String,
    lifetime_help: String,
    errors: Errors,
    once: String,
    farewell: Errors,
    may_write: bool,
}

async fn shown(
    visit: &SignedIn,
    shop: &ShopRecord,
    after: Option<TokenId>,
) -> Result<Page, Failure> {
    let id = shop.id;
    let found =
        visit.load(move |node, caller| widget_tokens::list(node, caller, &id, after, PAGE)).await?;
    let now = visit.node().now().unix;
    let policies = visit.node().published.load().shared_policies();
    let head = Head::of(shop, Tab::Tokens);
    let next = found.items.last().filter(|_| found.more);
    Ok(Page {
        frame: visit.frame(format!("Widget tokens of {}", head.title), "/shops"),
        next: next.map(|last| format!("{}/tokens?after={}", head.base, last.id)),
        head,
        rows: found.items.iter().map(|token| Row::of(token, shop, now)).collect(),
        is_first: after.is_none(),
        scopes: scopes(&policies.widget, &[]),
        lifetime: String::new(),
        lifetime_help: lifetime_help(&policies.widget),
        errors: Errors::default(),
        once: Once::fresh(visit.node())?.to_string(),
        farewell: Errors::default(),
        may_write: may_in(visit, Permission::TokensWrite, &shop.id),
    })
}

fn lifetime_help(policy: &WidgetPolicy) -> String {
    let [usual, max] = [policy.lifetime, policy.lifetime_max];
    let [usual, max] = [usual, max].map(|length| figures::exact_length(length.as_secs()));
    format!("Such as 30m or 12h; at most {max}. Empty: {usual}.")
}

fn scopes(policy: &WidgetPolicy, ticked: &[String]) -> Vec<Scope> {
    let scope = |name: &str| Scope {
        name: name.to_owned(),
        is_ticked: ticked.iter().any(|ticked| ticked == name),
    };
    policy.scopes.iter().map(|name| scope(name)).collect()
}

/// `GET /shops/{shop}/tokens`
pub(in super::super) async fn list(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let shop = find(&visit, id).await?;
    page(&shown(&visit, &shop, TokenId::parse(&query.after).ok()).await?)
}

/// What is said once of a new token.
#[derive(Template)]
#[template(path = "shop_token_made.html")]
struct MadePage {
    frame: Frame,
    head: Head,
    token: Row,
    /// `None`: the form had been sent before, and the token was shown then.
    secret: Option<String>,
    snippet: String,
}

/// `POST /shops/{shop}/tokens`
pub(in super::super) async fn issue(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    form: Form,
) -> Answer {
    let shop = find(&visit, id).await?;
    let (asked, written) = (form.all("scopes"), form.text("lifetime").to_owned());
    let mut again = shown(&visit, &shop, None).await?;
    let policies = visit.node().published.load().shared_policies();
    again.scopes = scopes(&policies.widget, &asked);
    again.lifetime.clone_from(&written);
    let lifetime = match Some(&written).filter(|text| !text.is_empty()).map(|t| parse::duration(t))
    {
        None => None,
        Some(Ok(lifetime)) => Some(lifetime),
        Some(Err(problem)) => {
            return invalid_fields(&Page { errors: Errors::of("lifetime", problem), ..again });
        }
    };
    let once = Once::sent(&form);
    let made = visit.blocking(move |node, caller| {
        let described = format!("token {id} {asked:?} {lifetime:?}");
        let request = IssueRequest {
            shop: id,
            scopes: asked,
            lifetime,
            issued_by: caller.label(),
            authority: None,
            idempotency: once.bind(node, caller, &described),
        };
        widget_tokens::issue(node, caller, request)
    });
    match made.await? {
        Ok(made) => page(&MadePage {
            frame: visit.frame("New widget token", "/shops"),
            head: Head::of(&shop, Tab::Tokens),
            token: Row::of(&made.record, &shop, visit.node().now().unix),
            snippet: made.secret.as_ref().map(snippets::widget).unwrap_or_default(),
            secret: made.secret.map(|secret| secret.expose().to_owned()),
        }),
        Err(error) => {
            let form_field = |field: &str| field.trim_end_matches("_seconds").to_owned();
            invalid(renamed(sent_again(error), form_field), |errors| Page { errors, ..again })
        }
    }
}

/// `POST /shops/{shop}/tokens/{token}/revoke`
pub(in super::super) async fn revoke(
    visit: SignedIn,
    Segments((shop, token)): Segments<(ShopId, TokenId)>,
    _form: Form,
) -> Answer {
    visit.load(move |node, caller| widget_tokens::revoke(node, caller, &shop, token)).await?;
    let flash = Flash::good("The token is revoked: it is refused from now on.");
    Ok(visit.go(&format!("/shops/{shop}/tokens"), flash))
}

/// `POST /shops/{shop}/revoke-tokens`
pub(in super::super) async fn revoke_all(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    form: Form,
) -> Answer {
    let shop = find(&visit, id).await?;
    if form.text("confirm") != shop.id.as_str() {
        let again = shown(&visit, &shop, None).await?;
        let farewell = Errors::of("confirm", "does not match: write the shop's id");
        return invalid_fields(&Page { farewell, ..again });
    }
    visit.load(move |node, caller| widget_tokens::revoke_all(node, caller, &id)).await?;
    let flash =
        Flash::good("Every token issued until now is revoked. Tokens issued from now on are good.");
    Ok(visit.go(&format!("/shops/{id}/tokens"), flash))
}
