//! Signing operators in by an identity provider: `OpenID` Connect Core 1.0, authorization code with
//! PKCE (RFC 7636).
//!
//! ```text
//! browser: /sign-in/oidc ── begin ──▶ provider ──▶ /sign-in/oidc/callback ── finish ──▶ session
//!                             │                                                │
//!                        attempt (cookie)          token → ID token → groups → role
//! ```
//!
//! [`Oidc::begin`] and [`Oidc::finish`] hold the order. What comes of it is [`Vouched`]: whom the
//! provider vouches for, and what its groups may do here. Who that is among the operators, and its
//! session, are [`sign_in`](super::operations::sign_in)'s; pages and cookies are the dashboard's.
//!
//! The cookie of an attempt is `SameSite=Lax`, since the browser comes back from another site, and
//! lives for ten minutes; it lets nobody do anything but finish the sign-in that set it.

mod attempt;
mod http;
mod provider;
mod roles;
mod token;

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;

use self::attempt::{Attempt, AttemptId};
use self::http::Fault;
use self::provider::{Known, Provider};
use self::token::IdTokenFailure;
use super::node::Node;
use super::operations::operators;
use super::operations::sign_in::Vouched;
use crate::clock::Monotonic;
use crate::config::{Config, OidcConfig};
use crate::decision::Facts as _;
use crate::decision::rate_limit::{Algorithm, Charge, Limits as _, POLICIES_MAX};
use crate::decision::request::client_network;
use crate::id::SessionId;
use crate::secret::{EntropyError, SecretText};
use crate::store::OidcSubject;

/// Where sign-ins begin.
pub(in crate::admin) const START: &str = "/sign-in/oidc";
/// Where the provider sends the browser back.
pub(in crate::admin) const CALLBACK: &str = "/sign-in/oidc/callback";
/// The cookie of an attempt.
pub(in crate::admin) const COOKIE: &str = "latchkey-oidc";
/// How long it lives, in seconds.
pub(in crate::admin) const COOKIE_AGE_S: u32 = 600;

/// Sign-ins that wait for the provider at once; beyond, they are told to try again.
const UNDER_WAY_MAX: usize = 8;
/// Attempts remembered as spent.
const SPENT_MAX: usize = 4096;
/// Longest `code` and the like, in bytes.
const PARAMETER_BYTES_MAX: usize = 4096;

/// Why nobody is signed in. Shown to whoever tried; what only the operator of latchkey should
/// know is in the log.
#[derive(Debug, thiserror::Error)]
pub(in crate::admin) enum Refusal {
    #[error("no identity provider is configured here; sign in with a password")]
    NotConfigured,
    #[error(
        "the identity provider could not be asked; the log of latchkey says why. Try again \
        in a moment, or sign in with a password"
    )]
    Unreachable,
    #[error(
        "this sign-in was not begun in this browser, was begun too long ago, or is over \
        already. Begin again; the browser has to accept cookies"
    )]
    NotBegun,
    #[error("the identity provider let nobody in (`{0}`)")]
    Denied(String),
    #[error(
        "the identity provider sent an answer that cannot be understood; the log of latchkey \
        says more. Begin again"
    )]
    Answer,
    #[error("the identity provider did not accept the code of this sign-in. Begin again")]
    Code,
    #[error(
        "the identity provider does not know this latchkey: its client id or secret is wrong. \
        An owner can mend admin.oidc"
    )]
    Client,
    #[error("the identity provider's answer cannot be trusted: {0}")]
    Token(&'static str),
    #[error(
        "the identity provider vouches for you, but none of your groups has a role here. An \
        owner can give one a role in admin.oidc.roles"
    )]
    NoRole,
    #[error(
        "the identity provider does not say what you are called. An owner can choose another \
        claim in admin.oidc.name_claim"
    )]
    NoName,
    #[error("too many sign-ins from this address have failed; try again in {0} s")]
    Throttled(u64),
    #[error("too many people are signing in at this moment; try again in a few seconds")]
    Busy,
    #[error("the system gives no randomness; try again")]
    Entropy,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        tracing::warn!(%fault, "a sign-in by the identity provider failed");
        Self::Unreachable
    }
}

impl From<EntropyError> for Refusal {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

/// Where a browser is sent to sign in, and what it keeps.
#[derive(Debug)]
pub(in crate::admin) struct Begun {
    /// The provider's address.
    pub(in crate::admin) location: String,
    /// The value of [`COOKIE`].
    pub(in crate::admin) cookie: SecretText,
}

/// What the provider has the browser bring back (RFC 6749 §4.1.2, RFC 9207).
#[derive(Debug, Default, Deserialize)]
pub(in crate::admin) struct Returned {
    code: Option<SecretParameter>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// A parameter that is not shown.
#[derive(Deserialize)]
#[serde(transparent)]
struct SecretParameter(String);

impl std::fmt::Debug for SecretParameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Whom the provider vouches for, and where the browser was going.
#[derive(Debug)]
pub(in crate::admin) struct Finished {
    pub(in crate::admin) vouched: Vouched,
    /// A path of ours, or nothing.
    pub(in crate::admin) next: String,
    /// The session that the browser had before.
    pub(in crate::admin) replaces: Option<SessionId>,
}

/// Sign-ins by the configured provider.
#[derive(Debug)]
pub(in crate::admin) struct Oidc {
    provider: Provider,
    under_way: Semaphore,
    /// Attempts that have been answered; a second answer comes too late.
    spent: Mutex<HashMap<AttemptId, Monotonic>>,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
            spent: Mutex::default(),
        }
    }
}

impl Oidc {
    /// Begins a sign-in that ends at `next`, a path of ours, in a browser that has the session
    /// `replaces`.
    pub(in crate::admin) async fn begin(
        &self,
        node: &Node,
        next: &str,
        replaces: Option<SessionId>,
    ) -> Result<Begun, Refusal> {
        let config = node.config.load_full();
        let (oidc, redirect_uri) = settings(&config)?;
        let _place = self.under_way.try_acquire().map_err(|_| Refusal::Busy)?;
        let known = self.known(node, oidc).await?;
        let now = node.now().unix;
        let attempt = Attempt::begin(node.pepper(), node.entropy.as_ref(), next, replaces, now)?;
        let fields = [
            ("response_type", "code"),
            ("client_id", &oidc.client_id),
            ("redirect_uri", &redirect_uri),
            ("scope", &oidc.scopes.join(" ")),
            ("state", &attempt.state()),
            ("nonce", &attempt.nonce()),
            ("code_challenge", &attempt.challenge()),
            ("code_challenge_method", "S256"),
        ];
        let endpoint = &known.metadata.authorization_endpoint;
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let location = format!("{endpoint}{separator}{}", http::form(&fields));
        Ok(Begun { location, cookie: attempt.cookie() })
    }

    /// Finishes the sign-in that `cookie` is about, by what the browser brings back.
    pub(in crate::admin) async fn finish(
        &self,
        node: &Arc<Node>,
        returned: &Returned,
        cookie: Option<&str>,
        client: IpAddr,
    ) -> Result<Finished, Refusal> {
        let attempts = attempts_of(node, client);
        let standing = node.limiter.peek(&attempts, node.now().mono);
        if standing.exceeded {
            return Err(Refusal::Throttled(standing.reset_us.div_ceil(1_000_000).max(1)));
        }
        let finished = self.finish_unthrottled(node, returned, cookie).await;
        finished.inspect_err(|refusal| {
            tracing::warn!(%client, %refusal, "a sign-in by the identity provider was refused");
            // Without one of our cookies nobody was asked and nothing can be guessed; any page
            // can make a browser come here so, and must not shut its address out.
            let harmless =
                matches!(refusal, Refusal::NotBegun | Refusal::NotConfigured | Refusal::Busy);
            if !harmless {
                node.limiter.charge(&[attempts], node.now().mono);
            }
        })
    }

    async fn finish_unthrottled(
        &self,
        node: &Arc<Node>,
        returned: &Returned,
        cookie: Option<&str>,
    ) -> Result<Finished, Refusal> {
        let config = node.config.load_full();
        let (oidc, redirect_uri) = settings(&config)?;
        let attempt = cookie
            .and_then(|cookie| Attempt::of_cookie(node.pepper(), cookie, node.now().unix))
            .filter(|attempt| returned.state.as_deref().is_some_and(|s| attempt.is_state(s)))
            .ok_or(Refusal::NotBegun)?;
        let _place = self.under_way.try_acquire().map_err(|_| Refusal::Busy)?;
        self.spend(attempt.id, node.now().mono)?;
        let known = self.known(node, oidc).await?;
        check_sender(returned.iss.as_deref(), &known)?;
        if let Some(error) = &returned.error {
            return Err(Refusal::Denied(token::shown(error).to_owned()));
        }
        let code = returned.code.as_ref().map(|code| code.0.as_str());
        let code = code.filter(|code| !code.is_empty() && code.len() <= PARAMETER_BYTES_MAX);
        let code = code.ok_or(Refusal::Answer)?;
        let tokens = token::exchange(&known, &attempt, code, &redirect_uri).await?;
        let mut person = match token::judge(&known, &tokens, &attempt, node.now().unix) {
            Ok(person) => person,
            Err(IdTokenFailure::Invalid(why)) => return Err(Refusal::Token(why)),
            Err(IdTokenFailure::NeedsKey) => {
                let clock = node.clock.as_ref();
                let renewed = self.provider.with_new_keys(&known, clock).await?;
                let again = token::judge(&renewed, &tokens, &attempt, node.now().unix);
                again.map_err(|failure| match failure {
                    IdTokenFailure::Invalid(why) => Refusal::Token(why),
                    IdTokenFailure::NeedsKey => {
                        Refusal::Token("the key that signed the ID token is not the provider's")
                    }
                })?
            }
        };
        token::complete(&known, &tokens, &mut person).await?;
        let vouched = match vouched(oidc, &person) {
            Err(Refusal::NoRole) => {
                end_sessions(node, oidc, &person).await;
                return Err(Refusal::NoRole);
            }
            judged => judged?,
        };
        Ok(Finished { vouched, next: attempt.next, replaces: attempt.replaces })
    }

    async fn known(&self, node: &Node, oidc: &OidcConfig) -> Result<Arc<Known>, Refusal> {
        let known = self.provider.known(oidc, node.clock.as_ref()).await;
        known.map_err(|_| Refusal::Unreachable)
    }

    /// Notes that an attempt is answered.
    fn spend(&self, id: AttemptId, now: Monotonic) -> Result<(), Refusal> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        // Once more than its life: a clock that was set back makes none last longer than that.
        let kept: Duration = attempt::LIFETIME * 2;
        spent.retain(|_, at| now.since(*at) < kept);
        if spent.contains_key(&id) {
            return Err(Refusal::NotBegun);
        }
        if spent.len() >= SPENT_MAX {
            return Err(Refusal::Busy);
        }
        spent.insert(id, now);
        Ok(())
    }
}

/// Why a provider is of no use now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderFault {
    /// It does not answer.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// What it answers cannot be used.
    #[error("the provider cannot be used: {0}")]
    Unusable(String),
}

/// Asks the provider once for its description, which has to be about the configured issuer, and
/// for its keys: how many there are. Keeps nothing.
pub(crate) async fn probe(
    config: &OidcConfig,
    clock: &dyn crate::clock::Clock,
) -> Result<usize, ProviderFault> {
    provider::learn(config, clock).await.map(|known| known.keys.len()).map_err(|fault| {
        let text = fault.to_string();
        match fault {
            Fault::Network { .. } | Fault::Timeout { .. } => ProviderFault::Unreachable(text),
            Fault::Url { .. }
            | Fault::Downgrade { .. }
            | Fault::Roots(_)
            | Fault::TooLong { .. }
            | Fault::Status { .. }
            | Fault::Content { .. } => ProviderFault::Unusable(text),
        }
    })
}

/// The provider, and where it sends browsers back.
fn settings(config: &Config) -> Result<(&OidcConfig, String), Refusal> {
    let oidc = config.admin.oidc.as_ref().ok_or(Refusal::NotConfigured)?;
    let public = config.admin.public_url.as_ref().ok_or(Refusal::NotConfigured)?;
    Ok((oidc, format!("{public}{CALLBACK}")))
}

/// Whether the answer is this provider's (RFC 9207): another one's code must not be sent to it.
fn check_sender(iss: Option<&str>, known: &Known) -> Result<(), Refusal> {
    match iss {
        Some(iss) if iss != known.config.issuer => {
            Err(Refusal::Token("the answer is another provider's (`iss`)"))
        }
        None if known.metadata.names_itself => {
            Err(Refusal::Token("the answer does not say whose it is (`iss`)"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whoever the provider's groups give no role any more is not to stay by what they gave before.
async fn end_sessions(node: &Arc<Node>, oidc: &OidcConfig, person: &token::Person) {
    let subject = subject(oidc, person);
    let this = Arc::clone(node);
    let ending =
        tokio::task::spawn_blocking(move || operators::no_longer_vouched(&this, &subject)).await;
    if let Ok(Err(error)) = ending {
        tracing::error!(%error, "the sessions of an operator without a role were not ended");
    }
}

fn subject(oidc: &OidcConfig, person: &token::Person) -> OidcSubject {
    OidcSubject { issuer: oidc.issuer.clone(), subject: person.subject.clone() }
}

fn vouched(oidc: &OidcConfig, person: &token::Person) -> Result<Vouched, Refusal> {
    let groups = roles::groups(roles::at(&person.claims, &oidc.groups_claim));
    let granted = roles::granted(&oidc.roles, &groups).ok_or(Refusal::NoRole)?;
    let name = roles::at(&person.claims, &oidc.name_claim).and_then(|name| name.as_str());
    let name = name.map(str::trim).filter(|name| !name.is_empty()).ok_or(Refusal::NoName)?;
    Ok(Vouched {
        subject: subject(oidc, person),
        name: name.to_owned(),
        role: granted.role,
        shops: granted.shops,
    })
}

/// A failed attempt of an address, counted apart from those by password.
fn attempts_of(node: &Node, client: IpAddr) -> Charge {
    let snapshot = node.published.load();
    Charge {
        cell: snapshot.cell_hasher().hash_one(("oidc attempts", client_network(client))),
        policy: u16::try_from(POLICIES_MAX).unwrap_or(u16::MAX),
        quota: snapshot.policies().attempts.quota,
        algorithm: Algorithm::TokenBucket,
        cost: NonZeroU32::MIN,
        shadow: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_began_shuts_nobody_out() {
        let bench = crate::admin::testing::Bench::with(concat!(
            "public_url = \"https://latchkey.example\"\n[admin.oidc]\n",
            "issuer = \"https://idp.example\"\nclient_id = \"latchkey\"\n",
            "roles = [{ group = \"owners\", role = \"owner\" }]\n",
        ));
        let client = IpAddr::from([192, 0, 2, 1]);
        let oidc = Oidc::default();
        let charge = attempts_of(&bench.node, client);
        for _ in 0..1000 {
            let refused = oidc.finish(&bench.node, &Returned::default(), None, client).await;
            assert!(matches!(refused, Err(Refusal::NotBegun)), "{refused:?}");
        }
        assert!(!bench.node.limiter.peek(&charge, bench.node.now().mono).exceeded);
    }

    #[test]
    fn an_attempt_is_answered_once() {
        let oidc = Oidc::default();
        let at = |seconds: u64| Monotonic::from_us(seconds * 1_000_000);
        oidc.spend([1; 32], at(0)).unwrap();
        assert!(matches!(oidc.spend([1; 32], at(1199)), Err(Refusal::NotBegun)));
        oidc.spend([1; 32], at(1200)).unwrap();
        for n in 0..SPENT_MAX - 1 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            oidc.spend(id, at(1300)).unwrap();
        }
        assert!(matches!(oidc.spend([9; 32], at(1300)), Err(Refusal::Busy)));
        oidc.spend([9; 32], at(2500)).unwrap();
    }
}
