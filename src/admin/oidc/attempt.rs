//! A sign-in that was begun: what ties the provider's answer to the browser that asked.
//!
//! Nothing is remembered of it here. The browser keeps a cookie, and everything that must be the
//! same when it comes back (`state`, `nonce`, the PKCE verifier) is derived from the cookie under
//! the node's key: whoever has no cookie of ours can begin nothing, however many sign-ins others
//! begin, and whoever has one learns no verifier from it. That a cookie is good for one answer is
//! [`super::Oidc`]'s to see to.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;

use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::secret::{Digest, Entropy, EntropyError, Pepper, SecretText, random_bytes};

/// From the start to the provider's answer: time to find a second factor.
pub(super) const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Longest path to return to, in bytes.
const NEXT_BYTES_MAX: usize = 512;

const ID_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
const SESSION_BYTES: usize = 8;
const MAC_BYTES: usize = 32;

/// The random name of an attempt.
pub(super) type AttemptId = [u8; ID_BYTES];

/// A sign-in that was begun.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) id: AttemptId,
    /// Where to go afterwards: a path of ours, or nothing.
    pub(super) next: String,
    /// The session that the browser had when it began.
    pub(super) replaces: Option<SessionId>,
    begun: Timestamp,
    pepper: Pepper,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Attempt {
    /// Begins one; a `next` that is too long is left out.
    pub(super) fn begin(
        pepper: &Pepper,
        entropy: &dyn Entropy,
        next: &str,
        replaces: Option<SessionId>,
        now: Timestamp,
    ) -> Result<Self, EntropyError> {
        let next = if next.len() <= NEXT_BYTES_MAX { next.to_owned() } else { String::new() };
        let id = random_bytes(entropy)?;
        Ok(Self { id, next, replaces, begun: now, pepper: pepper.clone() })
    }

    /// The one that a cookie is about; `None` if the cookie is not ours, or its time is over.
    pub(super) fn of_cookie(pepper: &Pepper, cookie: &str, now: Timestamp) -> Option<Self> {
        let bytes_max = ID_BYTES + TIME_BYTES + SESSION_BYTES + NEXT_BYTES_MAX + MAC_BYTES;
        if cookie.len() > bytes_max.div_ceil(3) * 4 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (told, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        if seal(pepper, told) != Digest::from_bytes(*mac) {
            return None;
        }
        let (id, rest) = told.split_first_chunk::<ID_BYTES>()?;
        let (begun, rest) = rest.split_first_chunk::<TIME_BYTES>()?;
        let (session, next) = rest.split_first_chunk::<SESSION_BYTES>()?;
        let replaces = Some(u64::from_be_bytes(*session)).filter(|id| *id != 0).map(SessionId);
        let begun = Timestamp::from_unix_ms(u64::from_be_bytes(*begun));
        let next = String::from_utf8(next.to_vec()).ok()?;
        // A clock that was set back makes none last longer.
        let alive = begun <= now + LIFETIME && now < begun + LIFETIME;
        alive.then(|| Self { id: *id, next, replaces, begun, pepper: pepper.clone() })
    }

    /// The value of its cookie.
    pub(super) fn cookie(&self) -> SecretText {
        let mut told = self.id.to_vec();
        told.extend_from_slice(&self.begun.unix_ms().to_be_bytes());
        told.extend_from_slice(&self.replaces.map_or(0, |session| session.0).to_be_bytes());
        told.extend_from_slice(self.next.as_bytes());
        let mac = seal(&self.pepper, &told);
        told.extend_from_slice(mac.as_bytes());
        SecretText::new(URL_SAFE_NO_PAD.encode(told))
    }

    /// `state` (RFC 6749 §10.12).
    pub(super) fn state(&self) -> String {
        self.derived("state").expose().to_owned()
    }

    /// Whether the provider's answer carries our `state`, in constant time.
    pub(super) fn is_state(&self, presented: &str) -> bool {
        same(&self.state(), presented)
    }

    /// `nonce` (`OpenID` Connect Core §15.5.2).
    pub(super) fn nonce(&self) -> String {
        self.derived("nonce").expose().to_owned()
    }

    /// Whether an ID token carries our `nonce`, in constant time.
    pub(super) fn is_nonce(&self, presented: &str) -> bool {
        same(&self.nonce(), presented)
    }

    /// `code_verifier` (RFC 7636 §4.1): 43 characters.
    pub(super) fn verifier(&self) -> SecretText {
        self.derived("pkce")
    }

    /// `code_challenge` of method S256 (RFC 7636 §4.2).
    pub(super) fn challenge(&self) -> String {
        let hashed = digest::digest(&digest::SHA256, self.verifier().expose().as_bytes());
        URL_SAFE_NO_PAD.encode(hashed)
    }

    fn derived(&self, what: &str) -> SecretText {
        let message = [b"oidc sign-in\0", what.as_bytes(), b"\0", &self.id].concat();
        SecretText::new(URL_SAFE_NO_PAD.encode(self.pepper.digest(&message).as_bytes()))
    }
}

fn seal(pepper: &Pepper, told: &[u8]) -> Digest {
    pepper.digest(&[b"oidc sign-in\0cookie\0", told].concat())
}

fn same(ours: &str, presented: &str) -> bool {
    use subtle::ConstantTimeEq as _;
    ours.as_bytes().ct_eq(presented.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::{SecretBytes, SystemEntropy};

    const NOW: Timestamp = Timestamp::from_unix_s(1_800_000_000);

    fn pepper(byte: u8) -> Pepper {
        Pepper::new(&SecretBytes::new([byte; 32]))
    }

    fn begin(next: &str) -> Attempt {
        Attempt::begin(&pepper(1), &SystemEntropy::new(), next, Some(SessionId(7)), NOW).unwrap()
    }

    #[test]
    fn what_comes_back_is_what_was_begun() {
        let attempt = begin("/shops/demo?x=1");
        let cookie = attempt.cookie();
        let again = Attempt::of_cookie(&pepper(1), cookie.expose(), NOW).unwrap();
        assert_eq!((&*again.next, again.replaces), ("/shops/demo?x=1", Some(SessionId(7))));
        assert!(again.is_state(&attempt.state()) && again.is_nonce(&attempt.nonce()));
        assert_eq!(again.verifier().expose(), attempt.verifier().expose());
        assert_eq!(again.verifier().expose().len(), 43, "RFC 7636 asks for 43 at least");
        let other = begin("");
        assert!(!other.is_state(&attempt.state()) && !other.is_nonce(&attempt.nonce()));
        assert!(!attempt.is_state("") && !attempt.is_state(&attempt.nonce()));
        assert!(!cookie.expose().contains(attempt.verifier().expose()));
        assert!(begin(&"x".repeat(NEXT_BYTES_MAX + 1)).next.is_empty());
        let long = begin(&"x".repeat(NEXT_BYTES_MAX));
        assert!(Attempt::of_cookie(&pepper(1), long.cookie().expose(), NOW).is_some());
        assert!(!format!("{attempt:?}").contains(&attempt.state()));
    }

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let hashed = digest::digest(&digest::SHA256, verifier.as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(hashed);
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn cookies_that_are_not_good() {
        let cookie = begin("/x").cookie();
        let cookie = cookie.expose();
        let at = |now| Attempt::of_cookie(&pepper(1), cookie, now);
        let second = Duration::from_secs(1);
        assert!(at(NOW + LIFETIME - second).is_some());
        assert!(at(NOW + LIFETIME).is_none(), "its time is over");
        assert!(at(NOW - LIFETIME - second).is_none(), "begun in the future");
        assert!(Attempt::of_cookie(&pepper(2), cookie, NOW).is_none(), "another node's");
        for cookie in ["", "AAAA", "=", "é", &"A".repeat(96), &"A".repeat(100_000)] {
            assert!(Attempt::of_cookie(&pepper(1), cookie, NOW).is_none(), "{cookie:.20}");
        }
    }

    proptest! {
        #[test]
        fn no_changed_cookie_is_ours(at in 0usize..108, to in "[A-Za-z0-9_-]") {
            let cookie = begin("/").cookie();
            let mut changed = cookie.expose().to_owned();
            prop_assume!(at < changed.len());
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != cookie.expose());
            prop_assert!(Attempt::of_cookie(&pepper(1), &changed, NOW).is_none());
        }
    }
}
