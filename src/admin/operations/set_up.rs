//! The one-time way to the first owner: a token that `serve` shows once, when there is no owner who
//! could sign in. Members or viewers by an identity provider may be there before.
//!
//! It is 192 random bits, kept as a digest and only in memory, good for an hour, once, and while
//! no owner exists. A restart makes a new one. The link carries it in its fragment, which a
//! browser keeps to itself: it reaches no log of a proxy and no other site.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::operator_rules::{require_free, require_room, rules};
use super::operators::{self, OperatorFields};
use super::sessions;
use super::sign_in::{SignedIn, is_over};
use super::{OperationError, now};
use crate::admin::audit::{Action, Subject, SubjectKind, record};
use crate::admin::caller::Caller;
use crate::admin::identity::{Change, SetUp};
use crate::admin::node::Node;
use crate::secret::{Digest, EntropyError, SecretText, random_bytes};
use crate::store::Role;

/// How long a token is good for.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// Random bytes in a token: 192 bits.
const TOKEN_BYTES: usize = 24;

/// Why the first owner was not made.
#[derive(Debug, thiserror::Error)]
pub enum SetUpFailure {
    /// There is an owner, or no token, or it has expired.
    #[error(
        "set-up is over: there is an owner already, or the link has expired; a restart of \
         latchkey shows a new one while there is no owner"
    )]
    Closed,
    /// The token is not the one.
    #[error("this is not the set-up code; it stands in the link that `latchkey serve` printed")]
    WrongToken,
    /// The input is not acceptable, or it could not be done.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

/// Makes the token, unless there is an owner. One made before is good no more.
pub fn open(node: &Node) -> Result<Option<SecretText>, EntropyError> {
    let mut set_up = node.identity.set_up();
    if is_owned(node) {
        *set_up = None;
        return Ok(None);
    }
    let bytes: [u8; TOKEN_BYTES] = random_bytes(node.entropy.as_ref())?;
    let token = SecretText::new(URL_SAFE_NO_PAD.encode(bytes));
    let digest = digest(node, token.expose());
    *set_up = Some(SetUp { digest, until: now(node) + LIFETIME });
    Ok(Some(token))
}

/// Whether the first owner can be made now.
#[must_use]
pub fn is_open(node: &Node) -> bool {
    let good = |set_up: &SetUp| !is_over(set_up.until, now(node));
    let good = node.identity.set_up().as_ref().is_some_and(good);
    good && !is_owned(node)
}

/// Whether there is an owner who can sign in.
fn is_owned(node: &Node) -> bool {
    node.identity.index.load().operators.values().any(|one| rules(one))
}

/// Makes the first owner and signs it in.
pub async fn set_up(
    node: &Arc<Node>,
    token: &SecretText,
    name: &str,
    password: SecretText,
    from: IpAddr,
    user_agent: &str,
) -> Result<SignedIn, SetUpFailure> {
    let node = Arc::clone(node);
    let (token, name, user_agent) = (token.clone(), name.to_owned(), user_agent.to_owned());
    let work = move || make_first(&node, &token, &name, &password, from, &user_agent);
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(SetUpFailure::Operation(OperationError::Interrupted)))
}

fn make_first(
    node: &Node,
    token: &SecretText,
    name: &str,
    password: &SecretText,
    from: IpAddr,
    user_agent: &str,
) -> Result<SignedIn, SetUpFailure> {
    require_token(node, token)?;
    let fields =
        OperatorFields { name: name.trim().to_owned(), role: Role::Owner, shops: Vec::new() };
    // Nobody who lacks the token gets here, so a hash is computed for nobody else.
    let made = operators::prepare(node, &fields, Some(password))?;
    let signed_in = node.mutate(|tx, patch, _| {
        if tx.operators(None, usize::MAX)?.iter().any(rules) {
            return Ok(None);
        }
        require_room(tx)?;
        require_free(tx, &made.name, None)?;
        tx.put_operator(&made)?;
        patch.identity(Change::PutOperator(Box::new(made.clone())));
        let (cookie, begun) = sessions::begin(node, tx, patch, &made, from, user_agent)?;
        let caller = Caller { address: Some(from), ..sessions::caller(&made, from) };
        let subject = Subject::new(SubjectKind::Operator, made.id);
        let after = Some(operators::view(&made));
        record(tx, &caller, now(node), Action::OperatorSetUp, subject, None, after)?;
        let session = sessions::session(node, &made, &begun, cookie.expose(), from);
        Ok(Some(SignedIn { cookie, session }))
    })?;
    *node.identity.set_up() = None;
    signed_in.ok_or(SetUpFailure::Closed)
}

fn require_token(node: &Node, token: &SecretText) -> Result<(), SetUpFailure> {
    if !is_open(node) {
        return Err(SetUpFailure::Closed);
    }
    let given = digest(node, token.expose().trim());
    // `Digest` compares in constant time.
    match node.identity.set_up().as_ref() {
        Some(set_up) if set_up.digest == given => Ok(()),
        Some(_) => Err(SetUpFailure::WrongToken),
        None => Err(SetUpFailure::Closed),
    }
}

fn digest(node: &Node, token: &str) -> Digest {
    node.pepper().digest(format!("set-up\0{token}").as_bytes())
}
