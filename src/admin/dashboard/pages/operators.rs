//! Operators: who may sign in, as what, and with which sessions.
//!
//! A generated password is on the page that answers its making and nowhere else.

use askama::Template;

use super::once::Once;
use super::{Segments, may, require, sent_again};
use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::operators::{
    self, OPERATORS_MAX, OperatorChange, OperatorFields, generate_password,
};
use crate::admin::operations::{OperationError, Precondition, second_factor, sessions};
use crate::clock::Timestamp;
use crate::id::{OperatorId, SessionId, ShopId};
use crate::store::{OperatorRecord, Role, SessionRecord};

/// An operator of the list.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question that the template asks")]
struct Row {
    id: String,
    href: String,
    name: String,
    role: &'static str,
    shops: String,
    is_disabled: bool,
    has_password: bool,
    has_second_factor: bool,
    by_provider: bool,
    created: Timestamp,
    password_changed: Timestamp,
}

impl Row {
    fn of(operator: &OperatorRecord) -> Self {
        let shops: Vec<&str> = operator.shops.iter().map(ShopId::as_str).collect();
        Self {
            id: operator.id.to_string(),
            href: format!("/operators/{}", operator.id),
            name: operator.name.clone(),
            role: operator.role.as_str(),
            shops: shops.join(", "),
            is_disabled: operator.disabled,
            has_password: operator.password.is_some(),
            has_second_factor: operator.totp.is_some(),
            by_provider: operator.oidc.is_some(),
            created: operator.created_at,
            password_changed: operator.password_changed_at,
        }
    }
}

/// A session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) id: String,
    /// In a few words, and all that it says of itself.
    pub(super) browser: String,
    pub(super) agent: String,
    pub(super) address: String,
    pub(super) began: Timestamp,
    pub(super) last_seen: Timestamp,
    pub(super) is_this: bool,
}

impl SessionRow {
    pub(super) fn of(session: &SessionRecord, present: Option<SessionId>) -> Self {
        let agent = session.user_agent.trim();
        Self {
            id: session.id.to_string(),
            browser: browser(agent),
            agent: agent.to_owned(),
            address: session.address.map(|address| address.to_string()).unwrap_or_default(),
            began: session.created_at,
            last_seen: session.last_seen_at,
            is_this: present == Some(session.id),
        }
    }
}

/// `Firefox on Linux`, of what a browser calls itself; all of that, if it is none of those known.
fn browser(agent: &str) -> String {
    // Most call themselves by the names of others too: the first that is found says which it is.
    let names = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    let systems = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find = |all: &[(&str, &'static str)]| {
        all.iter().find(|(sign, _)| agent.contains(sign)).map(|(_, name)| *name)
    };
    match (find(&names), find(&systems)) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, _) if agent.is_empty() => "unknown".to_owned(),
        (None, _) => agent.to_owned(),
    }
}

/// What an operator's form holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OperatorForm {
    name: String,
    role: String,
    /// One a line.
    shops: String,
}

impl OperatorForm {
    fn blank() -> Self {
        let role = Role::Operator.as_str().to_owned();
        Self { name: String::new(), role, shops: String::new() }
    }

    fn of(operator: &OperatorRecord) -> Self {
        let shops: Vec<&str> = operator.shops.iter().map(ShopId::as_str).collect();
        Self {
            name: operator.name.clone(),
            role: operator.role.as_str().to_owned(),
            shops: shops.join("\n"),
        }
    }

    fn sent(form: &Form) -> Self {
        Self {
            name: form.text("name").to_owned(),
            role: form.text("role").to_owned(),
            shops: form.lines("shops").join("\n"),
        }
    }

    fn fields(&self) -> Result<OperatorFields, Errors> {
        let mut errors = Errors::default();
        let role = Role::parse(&self.role).map_err(|error| errors.add("role", error.to_string()));
        let shops = shops(&self.shops).map_err(|problem| errors.add("shops", problem));
        match (role, shops) {
            (Ok(role), Ok(shops)) => Ok(OperatorFields { name: self.name.clone(), role, shops }),
            _ => Err(errors),
        }
    }
}

/// Ids of shops, one a line.
pub(super) fn shops(lines: &str) -> Result<Vec<ShopId>, String> {
    let parse = |line: &str| ShopId::parse(line).map_err(|_| format!("{line} is no shop's id"));
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect()
}

/// The roles as forms offer them, the least first.
pub(super) fn roles() -> Vec<(String, String)> {
    let label = |role: Role| match role {
        Role::Member => "Member: only its own shops",
        Role::Viewer => "Viewer: sees, changes nothing",
        Role::Operator => "Operator: all shops",
        Role::Owner => "Owner: operators, backups too",
    };
    Role::ALL.into_iter().map(|role| (role.to_string(), label(role).to_owned())).collect()
}

#[derive(Template)]
#[template(path = "operators.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<Row>,
    operator: OperatorForm,
    roles: Vec<(String, String)>,
    errors: Errors,
    once: String,
    may_write: bool,
}

async fn all(visit: &SignedIn) -> Result<ListPage, Failure> {
    let found =
        visit.load(|node, caller| operators::list(node, caller, None, OPERATORS_MAX)).await?;
    let mut rows: Vec<Row> = found.items.iter().map(Row::of).collect();
    rows.sort_by_cached_key(|row| row.name.to_lowercase());
    Ok(ListPage {
        frame: visit.frame("Operators", "/operators"),
        rows,
        operator: OperatorForm::blank(),
        roles: roles(),
        errors: Errors::default(),
        once: Once::fresh(visit.node())?.to_string(),
        may_write: may(visit, Permission::OperatorsWrite),
    })
}

/// `GET /operators`
pub(super) async fn list(visit: SignedIn) -> Answer {
    page(&all(&visit).await?)
}

/// What is said once of a new password.
#[derive(Template)]
#[template(path = "operator_made.html")]
struct MadePage {
    frame: Frame,
    name: String,
    href: String,
    /// `None`: the form had been sent before, and the password was shown then.
    password: Option<String>,
    is_new: bool,
}

/// `POST /operators`
pub(super) async fn create(visit: SignedIn, form: Form) -> Answer {
    require(&visit, Permission::OperatorsWrite)?;
    let sent = OperatorForm::sent(&form);
    let again = all(&visit).await?;
    let fields = match sent.fields() {
        Ok(fields) => fields,
        Err(errors) => return invalid_fields(&ListPage { operator: sent, errors, ..again }),
    };
    let once = Once::sent(&form);
    let made = visit.blocking(move |node, caller| {
        let password = generate_password(node.entropy.as_ref())?;
        let idempotency = once.bind(node, caller, &format!("operator {fields:?}"));
        let made = operators::create(node, caller, &fields, Some(&password), idempotency.as_ref())?;
        Ok((made.record, (!made.replayed).then_some(password)))
    });
    match made.await? {
        Ok((record, password)) => page(&MadePage {
            frame: visit.frame("New operator", "/operators"),
            href: format!("/operators/{}", record.id),
            name: record.name,
            password: password.map(|password| password.expose().to_owned()),
            is_new: true,
        }),
        Err(error) => {
            invalid(sent_again(error), |errors| ListPage { operator: sent, errors, ..again })
        }
    }
}

#[derive(Template)]
#[template(path = "operator.html")]
struct OnePage {
    frame: Frame,
    row: Row,
    operator: OperatorForm,
    roles: Vec<(String, String)>,
    errors: Errors,
    sessions: Vec<SessionRow>,
    farewell: Errors,
    is_self: bool,
    may_write: bool,
}

async fn one(visit: &SignedIn, id: OperatorId) -> Result<OnePage, Failure> {
    require(visit, Permission::OperatorsRead)?;
    let (record, sessions) = visit
        .load(move |node, caller| {
            Ok((operators::get(node, caller, id)?, sessions::list(node, caller, id)?))
        })
        .await?;
    let present = Some(visit.session.id);
    Ok(OnePage {
        frame: visit.frame(record.name.as_str(), "/operators"),
        row: Row::of(&record),
        operator: OperatorForm::of(&record),
        roles: roles(),
        errors: Errors::default(),
        sessions: sessions.iter().map(|session| SessionRow::of(session, present)).collect(),
        farewell: Errors::default(),
        is_self: visit.session.operator == id,
        may_write: may(visit, Permission::OperatorsWrite),
    })
}

/// `GET /operators/{operator}`
pub(super) async fn show(visit: SignedIn, Segments(id): Segments<OperatorId>) -> Answer {
    page(&one(&visit, id).await?)
}

/// `POST /operators/{operator}`
pub(super) async fn change(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    form: Form,
) -> Answer {
    let again = one(&visit, id).await?;
    let sent = OperatorForm::sent(&form);
    let fields = match sent.fields() {
        Ok(fields) => fields,
        Err(errors) => return invalid_fields(&OnePage { operator: sent, errors, ..again }),
    };
    let change = OperatorChange {
        name: Some(fields.name),
        role: Some(fields.role),
        shops: Some(fields.shops),
        disabled: None,
    };
    alter(&visit, id, change, again, sent, "Saved.").await
}

/// `POST /operators/{operator}/disable`
pub(super) async fn disable(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    _form: Form,
) -> Answer {
    switch(&visit, id, true, "Disabled: signed out everywhere, and cannot sign in.").await
}

/// `POST /operators/{operator}/enable`
pub(super) async fn enable(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    _form: Form,
) -> Answer {
    switch(&visit, id, false, "Enabled: may sign in again.").await
}

async fn switch(visit: &SignedIn, id: OperatorId, disabled: bool, done: &'static str) -> Answer {
    let again = one(visit, id).await?;
    let sent = again.operator.clone();
    let change = OperatorChange { disabled: Some(disabled), ..OperatorChange::default() };
    alter(visit, id, change, again, sent, done).await
}

async fn alter(
    visit: &SignedIn,
    id: OperatorId,
    change: OperatorChange,
    again: OnePage,
    sent: OperatorForm,
    done: &'static str,
) -> Answer {
    let changed = visit
        .blocking(move |node, caller| {
            operators::change(node, caller, id, &change, &Precondition::none())
        })
        .await?;
    match changed {
        Ok(_) => Ok(visit.go(&format!("/operators/{id}"), Flash::good(done))),
        Err(error) => invalid(error, |errors| OnePage { operator: sent, errors, ..again }),
    }
}

/// `POST /operators/{operator}/reset-password`
pub(super) async fn reset_password(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    _form: Form,
) -> Answer {
    let (record, password) = visit
        .load(move |node, caller| {
            let password = generate_password(node.entropy.as_ref())?;
            let record =
                operators::reset_password(node, caller, id, &password, &Precondition::none())?;
            Ok((record, password))
        })
        .await?;
    page(&MadePage {
        frame: visit.frame("New password", "/operators"),
        href: format!("/operators/{id}"),
        name: record.name,
        password: Some(password.expose().to_owned()),
        is_new: false,
    })
}

/// `POST /operators/{operator}/reset-second-factor`
pub(super) async fn reset_second_factor(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    _form: Form,
) -> Answer {
    visit.load(move |node, caller| second_factor::reset(node, caller, id)).await?;
    let flash = Flash::good("The second factor is gone. The password alone signs in now.");
    Ok(visit.go(&format!("/operators/{id}"), flash))
}

/// `POST /operators/{operator}/end-sessions`
pub(super) async fn end_sessions(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    form: Form,
) -> Answer {
    let one = form.text("session");
    let keep = (visit.session.operator == id).then_some(visit.session.id);
    if one.is_empty() {
        visit.load(move |node, caller| sessions::revoke_all(node, caller, id, keep)).await?;
    } else {
        let session = SessionId::parse(one).map_err(|_| Failure::not_found())?;
        visit
            .load(move |node, caller| {
                let of_operator = sessions::list(node, caller, id)?;
                if !of_operator.iter().any(|known| known.id == session) {
                    let session = crate::admin::operations::Resource::Session;
                    return Err(OperationError::NotFound(session));
                }
                sessions::revoke(node, caller, session)
            })
            .await?;
    }
    let flash = Flash::good("Signed out there: the next request is refused.");
    Ok(visit.go(&format!("/operators/{id}"), flash))
}

/// `POST /operators/{operator}/delete`
pub(super) async fn delete(
    visit: SignedIn,
    Segments(id): Segments<OperatorId>,
    form: Form,
) -> Answer {
    let again = one(&visit, id).await?;
    require(&visit, Permission::OperatorsWrite)?;
    if form.text("confirm") != again.row.name {
        let farewell = Errors::of("confirm", "does not match: write the operator's name");
        return invalid_fields(&OnePage { farewell, ..again });
    }
    let name = again.row.name.clone();
    let gone = visit
        .blocking(move |node, caller| operators::delete(node, caller, id, &Precondition::none()))
        .await?;
    match gone {
        Ok(()) => Ok(visit.go("/operators", Flash::good(format!("{name} is deleted.")))),
        Err(error) => invalid(error, |errors| OnePage { errors, ..again }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shops_are_read_line_by_line() {
        let read = |text| shops(text).map(|ids| ids.len());
        assert_eq!(read("a\n\n b \n"), Ok(2));
        assert_eq!(read(""), Ok(0));
        assert_eq!(read("a\nb/c"), Err("b/c is no shop's id".to_owned()));
    }

    #[test]
    fn a_form_names_every_fault() {
        let form =
            OperatorForm { role: "king".into(), shops: "a b".into(), ..OperatorForm::blank() };
        let errors = form.fields().unwrap_err();
        assert!(errors.get("role").is_some() && errors.get("shops").is_some());
        assert_eq!(OperatorForm::blank().fields().unwrap().role, Role::Operator);
        assert_eq!(roles().len(), Role::ALL.len());
    }

    #[test]
    fn browsers_have_short_names() {
        let mozilla = |rest: &str| browser(&format!("Mozilla/5.0 ({rest}"));
        for (rest, name) in [
            ("X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            ("Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome on Windows"),
            ("Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
            ("Macintosh; Intel Mac OS X 10_15) Version/18 Safari/605.1.15", "Safari on macOS"),
            ("iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1", "Safari on iPhone"),
            ("Linux; Android 15) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
            ("X11; CrOS x86_64) Chrome/140.0 Safari/537.36", "Chrome on ChromeOS"),
            ("unheard of) Firefox/1", "Firefox"),
        ] {
            assert_eq!(mozilla(rest), name, "{rest}");
        }
        assert_eq!(browser("curl/8.0 on Linux"), "curl/8.0 on Linux");
        assert_eq!(browser(""), "unknown");
    }
}
