//! The way in: by password and second factor, by an identity provider's word, and, while there is
//! no owner, by the one-time set-up link.
//!
//! What must never happen: that an attacker locks somebody out (see
//! `identity::throttle`); that argon2 is made to do more than it may
//! (refused attempts never reach it, and a bounded number of others does); that an answer, by its
//! text or its time, tells whether a name exists: a name that nobody has costs what another would
//! and is written down the same way. How a session is known again is [`sessions`]'.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use super::set_up::{SetUpFailure, is_open as set_up_is_open, set_up};

use super::sessions::{self, Session};
use super::{OperationError, now, operators, second_factor};
use crate::admin::audit::{Action, Subject, SubjectKind, record};
use crate::admin::caller::Caller;
use crate::admin::identity::passwords::{HashError, PASSWORD_BYTES_MAX, Standing, cost_of};
use crate::admin::identity::throttle::Attempt;
use crate::admin::identity::{Change, Index, cost};
use crate::admin::node::Node;
use crate::clock::Timestamp;
use crate::secret::SecretText;
use crate::store::{OperatorRecord, PasswordHash};

/// Somebody who has just signed in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The value of the session's cookie. It is here and nowhere else.
    pub cookie: SecretText,
    /// The session.
    pub session: Session,
}

/// Why somebody was not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInFailure {
    /// The name, the password or the code is wrong; which of them is nobody's to know.
    #[error("the name, the password or the code is wrong")]
    Wrong,
    /// The password is right, and a code of the second factor is wanted too.
    #[error("enter the code of your authenticator app, or a recovery code")]
    TotpNeeded,
    /// Too many attempts; this one was not looked at.
    #[error("too many failed attempts; try again in {retry_after_s} s")]
    Throttled {
        /// When to try again, in seconds; at least one.
        retry_after_s: u64,
    },
    /// Too many sign in at this moment; this attempt was not looked at.
    #[error("too many people are signing in at this moment; try again in a few seconds")]
    Busy,
    /// Everything is right, and the operator is disabled.
    #[error("this operator is disabled; an owner can enable it")]
    Disabled,
    /// It could not be done.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

/// Whom an identity provider vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The provider, and its name for the person.
    pub subject: crate::store::OidcSubject,
    /// What the person is called there; made into a name that nobody here has.
    pub name: String,
    /// What it may do, and where.
    pub role: crate::store::Role,
    /// The shops it sees, if it is a member.
    pub shops: std::collections::BTreeSet<crate::id::ShopId>,
}

/// Signs in by name and password, and by the code of the second factor or a recovery code if the
/// operator has one.
pub async fn password(
    node: &Arc<Node>,
    name: &str,
    password: SecretText,
    totp: Option<&str>,
    from: IpAddr,
    user_agent: &str,
) -> Result<SignedIn, SignInFailure> {
    let (name, user_agent) = (name.trim().to_owned(), user_agent.to_owned());
    let code = totp.map(str::trim).filter(|code| !code.is_empty());
    let code = code.map(|code| SecretText::new(code.to_owned()));
    blocking(node, move |node| {
        let try_in = Try { name: &name, password: &password, code: code.as_ref(), from };
        try_in.run(node, &user_agent)
    })
    .await
}

/// Signs in whom an identity provider vouches for; makes an operator of it the first time, and
/// gives it the role and shops that the provider's groups say now. Its second factor is the
/// provider's to ask for.
pub async fn vouched(
    node: &Arc<Node>,
    vouched: Vouched,
    from: IpAddr,
    user_agent: &str,
) -> Result<SignedIn, SignInFailure> {
    let user_agent = user_agent.to_owned();
    blocking(node, move |node| {
        let id = operators::from_provider(node, vouched)?;
        let begun = node.mutate(|tx, patch, _| {
            let operator = tx.operator(id)?.filter(|operator| !operator.disabled);
            let Some(operator) = operator else { return Ok(None) };
            let (cookie, begun) = sessions::begin(node, tx, patch, &operator, from, &user_agent)?;
            note_signed_in(node, tx, &operator, from, "identity provider")?;
            let session = sessions::session(node, &operator, &begun, cookie.expose(), from);
            Ok(Some(SignedIn { cookie, session }))
        })?;
        begun.ok_or(SignInFailure::Disabled)
    })
    .await
}

async fn blocking<E: From<OperationError> + Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> Result<SignedIn, E> + Send + 'static,
) -> Result<SignedIn, E> {
    let node = Arc::clone(node);
    match tokio::task::spawn_blocking(move || work(&node)).await {
        Ok(done) => done,
        Err(_) => Err(OperationError::Interrupted.into()),
    }
}

/// An attempt to sign in.
struct Try<'t> {
    name: &'t str,
    password: &'t SecretText,
    code: Option<&'t SecretText>,
    from: IpAddr,
}

/// What came of an attempt whose password was right.
enum Outcome {
    In(Box<SignedIn>),
    Wrong,
    CodeNeeded,
}

impl Try<'_> {
    fn run(&self, node: &Node, user_agent: &str) -> Result<SignedIn, SignInFailure> {
        let mono = node.now().mono;
        let admitted = node.identity.throttle().admit(self.name, self.from, mono);
        let attempt = admitted.map_err(throttled)?;
        let index = node.identity.index.load_full();
        let operator = index.named(self.name).map(AsRef::as_ref);
        let standing = if attempt.known { Standing::Known } else { Standing::Unknown };
        let right = check(node, &index, self.name, operator, self.password, standing);
        let right = right.inspect_err(|_| node.identity.throttle().withdraw(&attempt))?;
        let Some(operator) = operator.filter(|_| right) else {
            self.refused(node, operator, "password");
            return Err(SignInFailure::Wrong);
        };
        if operator.disabled {
            self.refused(node, Some(operator), "disabled");
            return Err(SignInFailure::Disabled);
        }
        if operator.totp.is_some() && self.code.is_some() {
            let admitted = node.identity.throttle().admit_code(&attempt, mono);
            admitted.map_err(|wait| {
                node.identity.throttle().withdraw(&attempt);
                throttled(wait)
            })?;
        }
        let outcome = self.enter(node, operator, user_agent);
        match outcome.inspect_err(|_| node.identity.throttle().withdraw(&attempt))? {
            Outcome::In(signed_in) => {
                node.identity.throttle().succeeded(&attempt, mono);
                Ok(*signed_in)
            }
            Outcome::CodeNeeded => {
                node.identity.throttle().withdraw(&attempt);
                Err(SignInFailure::TotpNeeded)
            }
            Outcome::Wrong => {
                self.refused(node, Some(operator), "second factor");
                Err(SignInFailure::Wrong)
            }
        }
    }

    /// Begins the session, if the second factor is right and nothing has changed since the
    /// password was looked at.
    fn enter(
        &self,
        node: &Node,
        checked: &OperatorRecord,
        user_agent: &str,
    ) -> Result<Outcome, OperationError> {
        let rehashed = rehash(node, checked, self.password);
        node.mutate(|tx, patch, _| {
            let operator = tx.operator(checked.id)?;
            let same = |now: &OperatorRecord| now.password == checked.password && !now.disabled;
            let Some(mut operator) = operator.filter(same) else { return Ok(Outcome::Wrong) };
            if operator.totp.is_some() {
                let Some(code) = self.code else { return Ok(Outcome::CodeNeeded) };
                if !second_factor::spend(node, tx, &mut operator, code)? {
                    return Ok(Outcome::Wrong);
                }
            }
            if let Some(hash) = rehashed {
                operator.password = Some(hash);
            }
            if operator != *checked {
                tx.put_operator(&operator)?;
                patch.identity(Change::PutOperator(Box::new(operator.clone())));
            }
            let (cookie, begun) =
                sessions::begin(node, tx, patch, &operator, self.from, user_agent)?;
            note_signed_in(node, tx, &operator, self.from, "password")?;
            let session = sessions::session(node, &operator, &begun, cookie.expose(), self.from);
            Ok(Outcome::In(Box::new(SignedIn { cookie, session })))
        })
    }

    /// Writes down that it was refused, unless there is a flood of them. A name that nobody has is
    /// not repeated: it may be a password in the wrong field.
    fn refused(&self, node: &Node, operator: Option<&OperatorRecord>, why: &str) {
        let Some(unrecorded) = node.identity.refusals().record(node.now().mono) else { return };
        let name = operator.map_or("somebody", |operator| &operator.name).to_owned();
        let caller = Caller { name, address: Some(self.from), ..Caller::system() };
        let subject = operator.map_or_else(|| "unknown".to_owned(), |o| o.id.to_string());
        let subject = Subject::new(SubjectKind::Operator, subject);
        let mut after = json!({ "wrong": why, "address": self.from });
        if let (true, Some(members)) = (unrecorded > 0, after.as_object_mut()) {
            members.insert("unrecorded_before".to_owned(), unrecorded.into());
        }
        let action = Action::OperatorSignInRefused;
        let written = node
            .mutate(|tx, _, _| record(tx, &caller, now(node), action, subject, None, Some(after)));
        tracing::warn!(client = %self.from, why, "a sign-in was refused");
        if let Err(error) = written {
            tracing::warn!(%error, "a refused sign-in is not in the audit log");
        }
    }
}

fn note_signed_in(
    node: &Node,
    tx: &mut crate::store::WriteTx,
    operator: &OperatorRecord,
    from: IpAddr,
    by: &str,
) -> Result<(), OperationError> {
    let caller = sessions::caller(operator, from);
    let subject = Subject::new(SubjectKind::Operator, operator.id);
    let after = json!({ "by": by, "address": from });
    record(tx, &caller, now(node), Action::OperatorSignedIn, subject, None, Some(after))
}

fn throttled(wait: Duration) -> SignInFailure {
    let retry_after_s = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
    SignInFailure::Throttled { retry_after_s }
}

/// Whether the password is right. Costs the same whether there is such an operator or not.
fn check(
    node: &Node,
    index: &Index,
    name: &str,
    operator: Option<&OperatorRecord>,
    password: &SecretText,
    standing: Standing,
) -> Result<bool, SignInFailure> {
    let password = password.expose().as_bytes();
    if password.len() > PASSWORD_BYTES_MAX {
        return Ok(false);
    }
    let passwords = &node.identity.passwords;
    let kept = operator.and_then(|operator| operator.password.as_ref());
    let checked = if let Some(kept) = kept {
        passwords.verify(password, kept, standing)
    } else {
        let cost = pretended(node, index, name).and_then(cost_of);
        let cost = cost.unwrap_or_else(|| self::cost(&node.config.load()));
        passwords.refuse(password, cost, standing)
    };
    checked.map_err(|error| match error {
        HashError::Busy => SignInFailure::Busy,
        HashError::Entropy(error) => OperationError::from(error).into(),
        HashError::Unusable => SignInFailure::Operation(OperationError::PasswordUnusable),
    })
}

/// Somebody's hash to cost as much as, for a name without one: after the parameters were raised
/// some passwords still cost what they did, and names that nobody has must do so as often.
fn pretended<'i>(node: &Node, index: &'i Index, name: &str) -> Option<&'i PasswordHash> {
    let mut hashes: Vec<_> = index
        .operators
        .values()
        .filter_map(|operator| Some((operator.id, operator.password.as_ref()?)))
        .collect();
    hashes.sort_by_key(|(id, _)| *id);
    let folded = crate::store::operators::folded(name);
    let pick = node.pepper().digest(format!("pretended\0{folded}").as_bytes()).prefix();
    let count = u64::try_from(hashes.len()).ok().filter(|count| *count > 0)?;
    hashes.get(usize::try_from(pick % count).ok()?).map(|(_, hash)| *hash)
}

/// The password hashed anew, if what it costs has been configured otherwise since.
fn rehash(node: &Node, operator: &OperatorRecord, password: &SecretText) -> Option<PasswordHash> {
    let wanted = cost(&node.config.load());
    if operator.password.as_ref().and_then(cost_of) == Some(wanted) {
        return None;
    }
    let password = password.expose().as_bytes();
    let hashed =
        node.identity.passwords.hash(node.entropy.as_ref(), password, wanted, Standing::Known);
    // Next time, then.
    hashed.ok()
}

/// Whether the caller's own password is `password`; throttled like a sign-in, since whoever found
/// an open browser may try it here.
pub(super) fn confirm_own(
    node: &Node,
    operator: &OperatorRecord,
    password: &SecretText,
    from: IpAddr,
) -> Result<bool, SignInFailure> {
    let mono = node.now().mono;
    let admitted = node.identity.throttle().admit(&operator.name, from, mono);
    let attempt: Attempt = admitted.map_err(throttled)?;
    let index = node.identity.index.load_full();
    let right = check(node, &index, &operator.name, Some(operator), password, Standing::Known);
    let right = right.inspect_err(|_| node.identity.throttle().withdraw(&attempt))?;
    if right {
        node.identity.throttle().withdraw(&attempt);
    }
    Ok(right)
}

/// Whether the time has come by which something is over.
pub(super) fn is_over(until: Timestamp, now: Timestamp) -> bool {
    now >= until
}
