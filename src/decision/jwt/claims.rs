//! The claims of a token (RFC 7519 §4): what they must say for the token to be meant for us.
//!
//! [`Claims`] may be parsed before the signature is known to be good, because `iss` chooses the
//! key; nothing but `iss` can be read of it until a [`Signed`] proves the signature.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::policy::Issuer;
use super::json::{ObjectError, parse_object};
use super::{JwtFailure, Signed, TokenDigest, VerifiedJwt};
use crate::clock::Timestamp;
use crate::id::ShopId;

/// The longest `sub`, in bytes (`OpenID` Connect Core §2).
const SUBJECT_BYTES_MAX: usize = 255;

/// The last second of the year 9999; a later time is a mistake, not a lifetime.
const NUMERIC_DATE_S_MAX: u64 = 253_402_300_799;

/// A claims set, of which nothing is believed yet.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Parses the decoded payload.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, JwtFailure> {
        parse_object(payload).map(Self).map_err(|e| {
            JwtFailure::Invalid(match e {
                ObjectError::NotJson => "the claims are not JSON",
                ObjectError::NotAnObject => "the claims are not a JSON object",
                ObjectError::RepeatedMember => "a claim occurs twice",
            })
        })
    }

    /// `iss`, to choose the issuer whose key must have signed.
    pub(super) fn unverified_iss(&self) -> Result<&str, JwtFailure> {
        match self.0.get("iss") {
            None => invalid("the claim `iss` is missing"),
            Some(Value::String(iss)) => Ok(iss),
            Some(_) => invalid("the claim `iss` is not a string"),
        }
    }

    /// Judges the claims of a token that `issuer` has signed. Time comes last, so that only a
    /// token which was good once is [`JwtFailure::Expired`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a proof is spent by the stage that requires it"
    )]
    pub(super) fn accept(
        &self,
        signed: Signed,
        issuer: &Issuer,
        digest: TokenDigest,
        generation: u64,
        now: Timestamp,
    ) -> Result<VerifiedJwt, JwtFailure> {
        let Signed { key_fingerprint } = signed;
        self.check_audience(issuer)?;
        let subject = self.subject()?;
        self.check_required(issuer)?;
        let scopes = self.scopes(issuer)?;
        let shop = self.shop(issuer)?;
        let expires_at = self
            .time("exp", "the claim `exp` is not a date (a number of seconds)")?
            .ok_or(JwtFailure::Invalid("the claim `exp` is missing"))?;
        let not_before = self.time("nbf", "the claim `nbf` is not a date (a number of seconds)")?;
        let issued_at = self.time("iat", "the claim `iat` is not a date (a number of seconds)")?;
        if issued_at.is_some_and(|iat| is_ahead(iat, issuer.leeway, now)) {
            return invalid("the claim `iat` lies in the future");
        }
        if not_before.is_some_and(|nbf| is_ahead(nbf, issuer.leeway, now)) {
            return invalid("not valid yet (the claim `nbf`)");
        }
        if is_past(expires_at, issuer.leeway, now) {
            return Err(JwtFailure::Expired);
        }
        Ok(VerifiedJwt {
            issuer: issuer.name.clone(),
            subject: subject.into(),
            scopes,
            shop,
            expires_at,
            not_before,
            key_fingerprint,
            generation,
            digest,
        })
    }

    /// All of them. Whoever asks has a verdict of [`Claims::accept`].
    pub(super) fn into_members(self) -> Map<String, Value> {
        self.0
    }

    /// `aud` names us (RFC 7519 §4.1.3).
    fn check_audience(&self, issuer: &Issuer) -> Result<(), JwtFailure> {
        let ours = |text: &str| issuer.audiences.iter().any(|a| **a == *text);
        let named = match self.0.get("aud") {
            None => return invalid("the claim `aud` is missing"),
            Some(Value::String(audience)) => ours(audience),
            Some(Value::Array(audiences)) => {
                if !audiences.iter().all(Value::is_string) {
                    return invalid("the claim `aud` holds something other than strings");
                }
                audiences.iter().filter_map(Value::as_str).any(ours)
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                return invalid("the claim `aud` is neither a string nor an array");
            }
        };
        if named {
            Ok(())
        } else {
            invalid("the claim `aud` names none of the configured audiences")
        }
    }

    /// `sub`, which travels in a header to the upstream: what a header value cannot carry
    /// unchanged is refused.
    fn subject(&self) -> Result<&str, JwtFailure> {
        let subject = match self.0.get("sub") {
            None => return invalid("the claim `sub` is missing"),
            Some(Value::String(subject)) => subject.as_str(),
            Some(_) => return invalid("the claim `sub` is not a string"),
        };
        if subject.is_empty() {
            invalid("the claim `sub` is empty")
        } else if subject.len() > SUBJECT_BYTES_MAX {
            invalid("the claim `sub` is longer than 255 bytes")
        } else if subject.chars().any(char::is_control) || subject.trim() != subject {
            invalid("the claim `sub` holds control characters or outer white space")
        } else {
            Ok(subject)
        }
    }

    fn check_required(&self, issuer: &Issuer) -> Result<(), JwtFailure> {
        let present = |name: &str| self.0.get(name).is_some_and(|v| !v.is_null());
        if issuer.required_claims.iter().all(|name| present(name)) {
            Ok(())
        } else {
            invalid("a claim that the issuer's `required_claims` names is missing")
        }
    }

    /// The granted scopes, each a `scope-token` of RFC 6749 §3.3, joined by single spaces; none
    /// if the claim is absent or null.
    fn scopes(&self, issuer: &Issuer) -> Result<Box<str>, JwtFailure> {
        let not_scopes = "the scope claim is neither a string nor an array of strings";
        let Some(claim) = self.at(&issuer.scope_claim, not_scopes)? else {
            return Ok("".into());
        };
        let mut scopes: Vec<&str> = Vec::new();
        match claim {
            Value::Null => {}
            Value::String(text) => scopes.extend(text.split(' ').filter(|s| !s.is_empty())),
            Value::Array(entries) => {
                for entry in entries {
                    scopes.push(entry.as_str().ok_or(JwtFailure::Invalid(not_scopes))?);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => return invalid(not_scopes),
        }
        if !scopes.iter().all(|s| is_scope_token(s)) {
            return invalid("a scope is empty or holds characters that RFC 6749 does not allow");
        }
        Ok(scopes.join(" ").into())
    }

    /// The shop the token is bound to; a claim that is there and names none is refused, for it
    /// was meant as a restriction.
    fn shop(&self, issuer: &Issuer) -> Result<Option<ShopId>, JwtFailure> {
        let not_a_shop = "the shop claim is not a shop id";
        let Some(path) = &issuer.shop_claim else {
            return Ok(None);
        };
        let Some(claim) = self.at(path, not_a_shop)? else {
            return Ok(None);
        };
        claim
            .as_str()
            .and_then(|text| ShopId::parse(text).ok())
            .map(Some)
            .ok_or(JwtFailure::Invalid(not_a_shop))
    }

    /// The value at a path of member names; `None` if a member on the way is absent, `reason` if
    /// one is no object.
    fn at(&self, path: &[Box<str>], reason: &'static str) -> Result<Option<&Value>, JwtFailure> {
        let Some((last, way)) = path.split_last() else {
            return Ok(None);
        };
        let mut members = &self.0;
        for name in way {
            match members.get(&**name) {
                None => return Ok(None),
                Some(Value::Object(inner)) => members = inner,
                Some(_) => return invalid(reason),
            }
        }
        Ok(members.get(&**last))
    }

    /// A `NumericDate` (RFC 7519 §2), which may be fractional; `reason` if it is none.
    fn time(&self, name: &str, reason: &'static str) -> Result<Option<Timestamp>, JwtFailure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => numeric_date(value).map(Some).ok_or(JwtFailure::Invalid(reason)),
        }
    }
}

/// Whether `exp` has come: "on or after" it a token is no more (RFC 7519 §4.1.4).
pub(super) fn is_past(expires_at: Timestamp, leeway: Duration, now: Timestamp) -> bool {
    now >= expires_at + leeway
}

/// Whether a time that must have come is still to come.
pub(super) fn is_ahead(time: Timestamp, leeway: Duration, now: Timestamp) -> bool {
    now + leeway < time
}

/// Rounded down to a millisecond; before 1970 is 1970, after 9999 is `None`.
fn numeric_date(value: &Value) -> Option<Timestamp> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(seconds) = number.as_u64() {
        return (seconds <= NUMERIC_DATE_S_MAX).then(|| Timestamp::from_unix_s(seconds));
    }
    let seconds = number.as_f64()?;
    if seconds < 0.0 {
        return Some(Timestamp::default());
    }
    let since_1970 = Duration::try_from_secs_f64(seconds).ok()?;
    (since_1970.as_secs() <= NUMERIC_DATE_S_MAX).then(|| Timestamp::default() + since_1970)
}

/// `1*( %x21 / %x23-5B / %x5D-7E )` (RFC 6749 §3.3).
fn is_scope_token(text: &str) -> bool {
    let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    !text.is_empty() && text.bytes().all(allowed)
}

fn invalid<T>(reason: &'static str) -> Result<T, JwtFailure> {
    Err(JwtFailure::Invalid(reason))
}
