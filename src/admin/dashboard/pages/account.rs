//! One's own account: password, second factor, sessions.
//!
//! What proves who somebody is stands on a page once, and never again.

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::operators::SessionRow;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, Form, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::second_factor::{self, Enrolling};
use crate::admin::operations::sign_in::SignInFailure;
use crate::admin::operations::{OperationError, Resource, operators, sessions};
use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::secret::SecretText;
use crate::store::OperatorRecord;

/// What an authenticator app has to be told.
struct Setup {
    /// The QR code, an address of its own.
    qr: Option<String>,
    secret: String,
    until: Timestamp,
}

impl Setup {
    fn of(enrolling: &Enrolling) -> Self {
        let address = |svg: &SecretText| {
            format!("data:image/svg+xml;base64,{}", STANDARD.encode(svg.expose()))
        };
        Self {
            qr: enrolling.qr.as_ref().map(address),
            secret: grouped(enrolling.secret.expose()),
            until: enrolling.until,
        }
    }
}

/// A long secret in groups of four, as it is typed in.
fn grouped(text: &str) -> String {
    let mut grouped = String::with_capacity(text.len() + text.len() / 4);
    for (i, c) in text.chars().enumerate() {
        if i > 0 && i % 4 == 0 {
            grouped.push(' ');
        }
        grouped.push(c);
    }
    grouped
}

#[derive(Template)]
#[template(path = "account.html")]
struct Page {
    frame: Frame,
    name: String,
    role: &'static str,
    shops: String,
    has_password: bool,
    password_changed: Timestamp,
    length_min: usize,
    password_errors: Errors,
    has_second_factor: bool,
    recovery_left: usize,
    setup: Option<Setup>,
    factor_errors: Errors,
    sessions: Vec<SessionRow>,
    others: bool,
}

async fn shown(visit: &SignedIn) -> Result<Page, Failure> {
    let id = visit.session.operator;
    let (operator, found) = visit
        .load(move |node, caller| {
            Ok((operators::own(node, caller)?, sessions::list(node, caller, id)?))
        })
        .await?;
    let present = Some(visit.session.id);
    let sessions: Vec<SessionRow> = found.iter().map(|s| SessionRow::of(s, present)).collect();
    Ok(Page {
        frame: visit.frame("Your account", "/account"),
        role: operator.role.as_str(),
        shops: operator.shops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        has_password: operator.password.is_some(),
        password_changed: operator.password_changed_at,
        length_min: visit.node().config.load().admin.passwords.length_min,
        password_errors: Errors::default(),
        has_second_factor: operator.totp.is_some(),
        recovery_left: recovery_left(&operator),
        setup: None,
        factor_errors: Errors::default(),
        others: sessions.iter().any(|session| !session.is_this),
        sessions,
        name: operator.name,
    })
}

fn recovery_left(operator: &OperatorRecord) -> usize {
    operator.totp.as_ref().map_or(0, |totp| totp.recovery.len())
}

/// `GET /account`
pub(super) async fn show(visit: SignedIn) -> Answer {
    page(&shown(&visit).await?)
}

/// `POST /account/password`
pub(super) async fn change_password(visit: SignedIn, form: Form) -> Answer {
    let [current, new, repeated] =
        ["current", "password", "repeated"].map(|name| SecretText::new(form.raw(name).to_owned()));
    let same = new.expose() == repeated.expose();
    let password_errors = if same {
        let keep = visit.session.id;
        let done = visit
            .load(move |node, caller| {
                Ok(operators::change_password(node, caller, &current, &new, keep))
            })
            .await?;
        match done {
            Ok(_) => {
                let told = "Your password is changed, and you are signed out elsewhere.";
                return Ok(visit.go("/account", Flash::good(told)));
            }
            Err(failure) => password_problem(failure)?,
        }
    } else {
        Errors::of("repeated", "is not the same as the new password")
    };
    let again = shown(&visit).await?;
    invalid_fields(&Page { password_errors, ..again })
}

fn password_problem(failure: SignInFailure) -> Result<Errors, Failure> {
    match failure {
        SignInFailure::Wrong => Ok(Errors::of("current", "is not your present password")),
        SignInFailure::Operation(error) => Errors::of_operation(error),
        other @ (SignInFailure::Throttled { .. }
        | SignInFailure::Busy
        | SignInFailure::TotpNeeded
        | SignInFailure::Disabled) => Ok(Errors::of("", other.to_string())),
    }
}

/// `POST /account/second-factor`
pub(super) async fn enrol(visit: SignedIn, form: Form) -> Answer {
    let password = SecretText::new(form.raw("own_password").to_owned());
    let begun =
        visit.blocking(move |node, caller| second_factor::begin(node, caller, &password)).await?;
    let again = shown(&visit).await?;
    match begun {
        Ok(enrolling) => page(&Page { setup: Some(Setup::of(&enrolling)), ..again }),
        Err(error) => {
            let factor_errors = Errors::of_operation(error)?;
            invalid_fields(&Page { factor_errors, ..again })
        }
    }
}

/// Recovery codes, shown this once.
#[derive(Template)]
#[template(path = "account_codes.html")]
struct CodesPage {
    frame: Frame,
    codes: Vec<String>,
    text: String,
    is_new_factor: bool,
}

fn codes_page(visit: &SignedIn, codes: &[SecretText], is_new_factor: bool) -> Answer {
    let codes: Vec<String> = codes.iter().map(|code| code.expose().to_owned()).collect();
    let frame = visit.frame("Recovery codes", "/account");
    page(&CodesPage { frame, text: codes.join("\n"), codes, is_new_factor })
}

/// `POST /account/second-factor/confirm`
pub(super) async fn confirm(visit: SignedIn, form: Form) -> Answer {
    let code = form.text("code").to_owned();
    let confirmed =
        visit.blocking(move |node, caller| second_factor::confirm(node, caller, &code)).await?;
    let error = match confirmed {
        Ok(codes) => return codes_page(&visit, &codes, true),
        Err(error) => error,
    };
    let factor_errors = Errors::of_operation(error)?;
    let again = shown(&visit).await?;
    // What waits for a code is shown again, so that the app need not be told anew.
    let begun = visit.load(second_factor::begun).await?;
    let setup = begun.as_ref().map(Setup::of);
    invalid_fields(&Page { setup, factor_errors, ..again })
}

/// `POST /account/second-factor/remove`
pub(super) async fn remove(visit: SignedIn, form: Form) -> Answer {
    let code = SecretText::new(form.text("code").to_owned());
    let removed =
        visit.blocking(move |node, caller| second_factor::remove(node, caller, &code)).await?;
    match removed {
        Ok(()) => {
            let flash = Flash::good("The second factor is gone. Your password alone signs in now.");
            Ok(visit.go("/account", flash))
        }
        Err(error) => refused(&visit, error).await,
    }
}

/// `POST /account/second-factor/codes`
pub(super) async fn renew(visit: SignedIn, form: Form) -> Answer {
    let code = SecretText::new(form.text("code").to_owned());
    let renewed = visit
        .blocking(move |node, caller| second_factor::renew_recovery_codes(node, caller, &code))
        .await?;
    match renewed {
        Ok(codes) => codes_page(&visit, &codes, false),
        Err(error) => refused(&visit, error).await,
    }
}

async fn refused(visit: &SignedIn, error: OperationError) -> Answer {
    let factor_errors = Errors::of_operation(error)?;
    let again = shown(visit).await?;
    invalid_fields(&Page { factor_errors, ..again })
}

/// `POST /account/end-sessions`: one of one's own, or all but this one.
pub(super) async fn end_sessions(visit: SignedIn, form: Form) -> Answer {
    let (own, present) = (visit.session.operator, visit.session.id);
    let named = form.text("session");
    if named.is_empty() {
        let keep = Some(present);
        visit.load(move |node, caller| sessions::revoke_all(node, caller, own, keep)).await?;
    } else {
        let session = SessionId::parse(named).map_err(|_| Failure::not_found())?;
        visit
            .load(move |node, caller| {
                let mine = sessions::list(node, caller, own)?;
                if !mine.iter().any(|known| known.id == session) {
                    return Err(OperationError::NotFound(Resource::Session));
                }
                sessions::revoke(node, caller, session)
            })
            .await?;
    }
    Ok(visit.go("/account", Flash::good("Signed out there: the next request is refused.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_grouped_for_typing() {
        assert_eq!(grouped("ABCDEFGHIJ"), "ABCD EFGH IJ");
        assert_eq!(grouped(""), "");
    }
}
