//! An operator's second factor: enrolled by its owner with a code that proves that the app has the
//! secret, taken away by its owner with a code, or by who may change operators.
//!
//! With it come ten recovery codes, each good once in place of a code. They and the secret are
//! shown once. A code is good once too: a step that was used is not used again.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::operator_rules::require_all_of;
use super::operators::{find, grouped, own, put, subject, view};
use super::sign_in::{SignInFailure, confirm_own, is_over};
use super::{OperationError, now};
use crate::admin::audit::{Action, record};
use crate::admin::caller::{Caller, Permission};
use crate::admin::identity::{Enrolment, totp};
use crate::admin::node::Node;
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::secret::{Digest, SecretBytes, SecretText, random_bytes};
use crate::store::{OperatorRecord, TotpRecord, WriteTx};

/// How long an enrolment waits for its first code.
const ENROLMENT_LIFETIME: Duration = Duration::from_secs(600);
/// Recovery codes that come with a second factor.
const RECOVERY_CODES: usize = 10;
/// Random bytes of each: 80 bits.
const RECOVERY_BYTES: usize = 10;
/// Who the app is told that the codes are for.
const ISSUER: &str = "latchkey";

/// What an app has to be told.
#[derive(Debug, Clone)]
pub struct Enrolling {
    /// The secret, to type in.
    pub secret: SecretText,
    /// The same as an `otpauth:` link.
    pub uri: SecretText,
    /// The link as a QR code, an `svg` element; `None` if it is too long for one.
    pub qr: Option<SecretText>,
    /// Until when the first code is waited for.
    pub until: Timestamp,
}

/// Begins to enrol a second factor for the caller, who proves to know its password: whoever found
/// an open browser must not lock its owner out. Nothing changes until [`confirm`]; beginning anew
/// forgets what was begun.
pub fn begin(
    node: &Node,
    caller: &Caller,
    password: &SecretText,
) -> Result<Enrolling, OperationError> {
    let operator = own(node, caller)?;
    require_none(&operator)?;
    require_password(node, caller, &operator, password)?;
    let secret = SecretBytes::new(random_bytes(node.entropy.as_ref())?);
    let until = now(node) + ENROLMENT_LIFETIME;
    let uri = totp::uri(&secret, ISSUER, &operator.name);
    let enrolling = Enrolling { secret: totp::base32(&secret), qr: totp::qr(&uri), uri, until };
    let mut enrolments = node.identity.enrolments();
    enrolments.retain(|_, enrolment| !is_over(enrolment.until, now(node)));
    enrolments.insert(operator.id, Enrolment { secret, until });
    Ok(enrolling)
}

/// What [`begin`] began and waits for its first code, so that a page can show it again.
pub fn begun(node: &Node, caller: &Caller) -> Result<Option<Enrolling>, OperationError> {
    let operator = own(node, caller)?;
    let enrolment = node.identity.enrolments().get(&operator.id).cloned();
    let enrolment = enrolment.filter(|enrolment| !is_over(enrolment.until, now(node)));
    Ok(enrolment.map(|Enrolment { secret, until }| {
        let uri = totp::uri(&secret, ISSUER, &operator.name);
        Enrolling { secret: totp::base32(&secret), qr: totp::qr(&uri), uri, until }
    }))
}

/// Enrols what was begun, if `code` is right: the recovery codes, shown once.
pub fn confirm(
    node: &Node,
    caller: &Caller,
    code: &str,
) -> Result<Vec<SecretText>, OperationError> {
    let id = own(node, caller)?.id;
    let enrolment = node.identity.enrolments().get(&id).cloned();
    let enrolment = enrolment.filter(|enrolment| !is_over(enrolment.until, now(node)));
    let enrolment = enrolment.ok_or_else(|| {
        OperationError::Conflict("nothing waits for a code any more; begin again".to_owned())
    })?;
    let step = totp::accept(&enrolment.secret, &digits(code), now(node), None);
    let step = step.ok_or_else(wrong_code)?;
    let codes = node.mutate(|tx, patch, _| {
        let old = find(tx, id)?;
        require_none(&old)?;
        let (codes, recovery) = recovery_codes(node, id)?;
        let sealed = tx.seal_totp(id, &enrolment.secret)?;
        let at = now(node);
        let totp = TotpRecord { sealed, last_step: step, confirmed_at: at, recovery };
        let revision = old.revision.saturating_add(1);
        let new = OperatorRecord { totp: Some(totp), updated_at: at, revision, ..old.clone() };
        put(tx, patch, &new)?;
        let (before, after) = (Some(view(&old)), Some(view(&new)));
        record(tx, caller, at, Action::TotpEnrolled, subject(id), before, after)?;
        Ok(codes)
    })?;
    node.identity.enrolments().remove(&id);
    Ok(codes)
}

/// Takes the caller's own second factor away, if `code` is right.
pub fn remove(node: &Node, caller: &Caller, code: &SecretText) -> Result<(), OperationError> {
    let id = own(node, caller)?.id;
    proved(node, caller, code, |tx, patch, mut operator| {
        let before = Some(view(&operator));
        operator.totp = None;
        operator.updated_at = now(node);
        operator.revision = operator.revision.saturating_add(1);
        put(tx, patch, &operator)?;
        let after = Some(view(&operator));
        record(tx, caller, now(node), Action::TotpRemoved, subject(id), before, after)
    })
}

/// Makes new recovery codes for the caller in place of all there are, if `code` is right.
pub fn renew_recovery_codes(
    node: &Node,
    caller: &Caller,
    code: &SecretText,
) -> Result<Vec<SecretText>, OperationError> {
    proved(node, caller, code, |tx, patch, mut operator| {
        let (codes, recovery) = recovery_codes(node, operator.id)?;
        if let Some(totp) = &mut operator.totp {
            totp.recovery = recovery;
        }
        operator.updated_at = now(node);
        operator.revision = operator.revision.saturating_add(1);
        put(tx, patch, &operator)?;
        let after = Some(serde_json::json!({ "recovery_codes": "renewed" }));
        let subject = subject(operator.id);
        record(tx, caller, now(node), Action::TotpEnrolled, subject, None, after)?;
        Ok(codes)
    })
}

/// Takes another's second factor away: it has lost its app and its recovery codes.
pub fn reset(node: &Node, caller: &Caller, id: OperatorId) -> Result<(), OperationError> {
    caller.require(Permission::OperatorsWrite)?;
    node.mutate(|tx, patch, _| {
        let old = find(tx, id)?;
        require_all_of(caller, old.role)?;
        if old.totp.is_none() {
            return Ok(());
        }
        let revision = old.revision.saturating_add(1);
        let new = OperatorRecord { totp: None, updated_at: now(node), revision, ..old.clone() };
        put(tx, patch, &new)?;
        let (before, after) = (Some(view(&old)), Some(view(&new)));
        record(tx, caller, now(node), Action::TotpRemoved, subject(id), before, after)
    })
}

/// Whether `code` is a good code of the operator's second factor or one of its recovery codes. If
/// it is, it is used up: in `operator`, for the caller to store.
pub(super) fn spend(
    node: &Node,
    tx: &WriteTx,
    operator: &mut OperatorRecord,
    code: &SecretText,
) -> Result<bool, OperationError> {
    let id = operator.id;
    let Some(totp) = &mut operator.totp else { return Ok(false) };
    let text = digits(code.expose());
    if totp::is_code(&text) {
        let secret = tx.totp_secret(id, totp)?;
        let step = totp::accept(&secret, &text, now(node), Some(totp.last_step));
        if let Some(step) = step {
            totp.last_step = step;
        }
        return Ok(step.is_some());
    }
    let given = recovery_digest(node, id, code.expose());
    // `Digest` compares in constant time.
    let place = totp.recovery.iter().position(|kept| *kept == given);
    if let Some(place) = place {
        totp.recovery.remove(place);
    }
    Ok(place.is_some())
}

/// Does `work` if `code` is right. Throttled as sign-ins are: whoever found an open browser may
/// try codes here.
fn proved<T>(
    node: &Node,
    caller: &Caller,
    code: &SecretText,
    work: impl FnOnce(
        &mut WriteTx,
        &mut crate::admin::patch::Patch,
        OperatorRecord,
    ) -> Result<T, OperationError>,
) -> Result<T, OperationError> {
    let operator = own(node, caller)?;
    let from = caller.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mono = node.now().mono;
    let wait = |wait: Duration| OperationError::TooMany { wait };
    let attempt = node.identity.throttle().admit(&operator.name, from, mono).map_err(wait)?;
    let admitted = node.identity.throttle().admit_code(&attempt, mono);
    admitted.map_err(|time| {
        node.identity.throttle().withdraw(&attempt);
        wait(time)
    })?;
    let done = node.mutate(|tx, patch, _| {
        let mut operator = find(tx, operator.id)?;
        if operator.totp.is_none() {
            return Err(OperationError::Conflict("there is no second factor".to_owned()));
        }
        if !spend(node, tx, &mut operator, code)? {
            return Err(wrong_code());
        }
        work(tx, patch, operator)
    })?;
    node.identity.throttle().succeeded(&attempt, mono);
    Ok(done)
}

fn require_password(
    node: &Node,
    caller: &Caller,
    operator: &OperatorRecord,
    password: &SecretText,
) -> Result<(), OperationError> {
    let from = caller.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match confirm_own(node, operator, password, from) {
        Ok(true) => Ok(()),
        Ok(false) | Err(SignInFailure::Wrong) => {
            Err(OperationError::invalid("own_password", "is not your present password"))
        }
        Err(SignInFailure::Throttled { retry_after_s }) => {
            Err(OperationError::TooMany { wait: Duration::from_secs(retry_after_s) })
        }
        Err(SignInFailure::Busy) => Err(OperationError::Busy),
        Err(SignInFailure::Operation(error)) => Err(error),
        Err(error @ (SignInFailure::TotpNeeded | SignInFailure::Disabled)) => {
            Err(OperationError::Conflict(error.to_string()))
        }
    }
}

fn require_none(operator: &OperatorRecord) -> Result<(), OperationError> {
    if operator.totp.is_none() {
        return Ok(());
    }
    let message = "there is a second factor already; remove it first";
    Err(OperationError::Conflict(message.to_owned()))
}

fn wrong_code() -> OperationError {
    OperationError::invalid("code", "is wrong, or was used before; wait for the next one")
}

/// Apps show codes in groups.
fn digits(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

fn recovery_codes(
    node: &Node,
    id: OperatorId,
) -> Result<(Vec<SecretText>, Vec<Digest>), OperationError> {
    let mut codes = Vec::with_capacity(RECOVERY_CODES);
    for _ in 0..RECOVERY_CODES {
        let bytes: [u8; RECOVERY_BYTES] = random_bytes(node.entropy.as_ref())?;
        codes.push(grouped(&bytes));
    }
    let digests = codes.iter().map(|code| recovery_digest(node, id, code.expose())).collect();
    Ok((codes, digests))
}

/// Case, spaces and dashes do not matter.
fn recovery_digest(node: &Node, id: OperatorId, code: &str) -> Digest {
    let plain = code.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = plain.map(|c| c.to_ascii_lowercase()).collect();
    node.pepper().digest(format!("recovery\0{id}\0{plain}").as_bytes())
}
