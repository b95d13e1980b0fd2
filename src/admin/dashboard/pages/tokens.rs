//! Admin tokens: what programs call the admin API with.
//!
//! A token is on the page that answers its creation and nowhere else.

use askama::Template;

use super::once::Once;
use super::{Segments, may, parse, require, sent_again, snippets};
use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::admin_tokens::{self, ADMIN_TOKENS_MAX, AdminTokenFields};
use crate::clock::Timestamp;
use crate::id::AdminTokenId;
use crate::store::{AdminTokenRecord, Role};

/// A token of the list.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    revoke: String,
    name: String,
    role: &'static str,
    scopes: String,
    shops: String,
    created: Timestamp,
    expires: Option<Timestamp>,
    last_used: Option<Timestamp>,
    is_expired: bool,
}

impl Row {
    fn of(token: &AdminTokenRecord, now: Timestamp) -> Self {
        let scopes = token.scopes.as_ref();
        let shops = token.shops.as_ref();
        let join = |texts: Vec<String>| texts.join(", ");
        Self {
            id: token.id.to_string(),
            revoke: format!("/tokens/{}/revoke", token.id),
            name: token.name.clone(),
            role: token.role.as_str(),
            scopes: scopes.map_or_else(
                || "all of its role".to_owned(),
                |scopes| join(scopes.iter().cloned().collect()),
            ),
            shops: shops.map_or_else(
                || "all".to_owned(),
                |shops| join(shops.iter().map(ToString::to_string).collect()),
            ),
            created: token.created_at,
            expires: token.expires_at,
            last_used: token.last_used_at,
            is_expired: token.expires_at.is_some_and(|at| at <= now),
        }
    }
}

/// What a token's form holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TokenForm {
    name: String,
    role: String,
    expires: String,
    scopes: Vec<String>,
    /// One a line.
    shops: String,
}

impl TokenForm {
    fn blank() -> Self {
        Self {
            name: String::new(),
            role: Role::Operator.as_str().to_owned(),
            expires: String::new(),
            scopes: Vec::new(),
            shops: String::new(),
        }
    }

    fn sent(form: &Form) -> Self {
        Self {
            name: form.text("name").to_owned(),
            role: form.text("role").to_owned(),
            expires: form.text("expires_at").to_owned(),
            scopes: form.all("scopes"),
            shops: form.lines("shops").join("\n"),
        }
    }

    fn fields(&self) -> Result<AdminTokenFields, Errors> {
        let mut errors = Errors::default();
        let role = Role::parse(&self.role).map_err(|error| errors.add("role", error.to_string()));
        let expires = parse::last_day(&self.expires);
        let expires = expires.map_err(|problem| errors.add("expires_at", problem));
        let (Ok(role), Ok(expires_at)) = (role, expires) else { return Err(errors) };
        let shops: Vec<String> = self.shops.lines().map(str::to_owned).collect();
        Ok(AdminTokenFields {
            name: self.name.clone(),
            role,
            expires_at,
            scopes: Some(self.scopes.clone()).filter(|scopes| !scopes.is_empty()),
            shops: Some(shops).filter(|shops| !shops.is_empty()),
        })
    }
}

/// A permission that a token can be limited to.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    name: &'static str,
    is_ticked: bool,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    token: TokenForm,
    roles: Vec<(String, String)>,
    scopes: Vec<Scope>,
    errors: Errors,
    once: String,
    may_write: bool,
}

impl Page {
    fn returned(self, token: TokenForm, errors: Errors) -> Self {
        let scopes = scopes(&token.scopes);
        Self { token, scopes, errors, ..self }
    }
}

fn scopes(ticked: &[String]) -> Vec<Scope> {
    let scope = |permission: Permission| {
        let name = permission.as_str();
        Scope { name, is_ticked: ticked.iter().any(|ticked| ticked == name) }
    };
    Permission::ALL.into_iter().map(scope).collect()
}

async fn shown(visit: &SignedIn) -> Result<Page, Failure> {
    let found =
        visit.load(|node, caller| admin_tokens::list(node, caller, None, ADMIN_TOKENS_MAX)).await?;
    let now = visit.node().now().unix;
    let mut rows: Vec<Row> = found.items.iter().map(|token| Row::of(token, now)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    Ok(Page {
        frame: visit.frame("Admin tokens", "/tokens"),
        rows,
        token: TokenForm::blank(),
        roles: super::operators::roles(),
        scopes: scopes(&[]),
        errors: Errors::default(),
        once: Once::fresh(visit.node())?.to_string(),
        may_write: may(visit, Permission::AdminTokensWrite),
    })
}

/// `GET /tokens`
pub(super) async fn list(visit: SignedIn) -> Answer {
    page(&shown(&visit).await?)
}

/// What is said once of a new token.
#[derive(Template)]
#[template(path = "token_made.html")]
struct MadePage {
    frame: Frame,
    token: Row,
    /// `None`: the form had been sent before, and the token was shown then.
    secret: Option<String>,
    snippet: String,
}

/// `POST /tokens`
pub(super) async fn create(visit: SignedIn, form: Form) -> Answer {
    require(&visit, Permission::AdminTokensWrite)?;
    let sent = TokenForm::sent(&form);
    let again = shown(&visit).await?;
    let fields = match sent.fields() {
        Ok(fields) => fields,
        Err(errors) => return invalid_fields(&again.returned(sent, errors)),
    };
    let once = Once::sent(&form);
    let made = visit.blocking(move |node, caller| {
        let idempotency = once.bind(node, caller, &format!("admin token {fields:?}"));
        admin_tokens::create(node, caller, fields, idempotency.as_ref())
    });
    match made.await? {
        Ok(made) => {
            let listen = visit.node().config.load().admin.listen;
            let origin = visit.origin().unwrap_or_else(|| format!("http://{listen}"));
            let snippet = made.secret.as_ref().map(|secret| snippets::admin(&origin, secret));
            page(&MadePage {
                frame: visit.frame("New admin token", "/tokens"),
                token: Row::of(&made.record, visit.node().now().unix),
                snippet: snippet.unwrap_or_default(),
                secret: made.secret.map(|secret| secret.expose().to_owned()),
            })
        }
        Err(error) => invalid(sent_again(error), |errors| again.returned(sent, errors)),
    }
}

/// `POST /tokens/{token}/revoke`
pub(super) async fn revoke(
    visit: SignedIn,
    Segments(id): Segments<AdminTokenId>,
    _form: Form,
) -> Answer {
    let revoked =
        visit.blocking(move |node, caller| admin_tokens::revoke(node, caller, id)).await?;
    match revoked {
        Ok(()) => {
            let flash = Flash::good("The token is revoked: it is refused from now on.");
            Ok(visit.go("/tokens", flash))
        }
        Err(error) => {
            let again = shown(&visit).await?;
            invalid(error, |errors| Page { errors, ..again })
        }
    }
}
