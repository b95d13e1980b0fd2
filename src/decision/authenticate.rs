//! Is the presented credential authentic, current and known? Three-valued: nothing presented,
//! authenticated, failed; a failure never falls through to another mechanism.
//!
//! Here a credential becomes a principal of a known shop; what that may do is `authorize`'s.

use super::api_key::{self, ApiKeyFailure};
use super::credential::{Presented, bearer_token};
use super::denial::Denial;
use super::jwt::{self, JwtFailure, VerifiedTokens};
use super::policy::Route;
use super::principal::{Mechanism, Principal};
use super::rate_limit::Limits;
use super::widget_token::{self, TokenFailure};
use super::{Authenticated, Context, Facts, Round, Stop};
use crate::clock::Now;

pub(super) fn authenticate<'a, F: Facts, L: Limits, V: VerifiedTokens>(
    presented: Presented<'_>,
    route: &'a Route,
    context: &Context<'a, F, L, V>,
    now: Now,
    round: Round,
) -> Result<Authenticated<'a>, Stop<'a>> {
    let principal = match presented {
        Presented::ShopApiKey(text) => by_api_key(text, context.facts, now)?,
        Presented::WidgetToken(text) => by_widget_token(text, context.facts, now)?,
        Presented::Authorization(text) => by_jwt(text, context, now, round)?,
        Presented::Nothing => Principal::Anonymous,
    };
    Ok(Authenticated { route, principal })
}

fn by_api_key<'a, F: Facts>(
    text: &str,
    facts: &'a F,
    now: Now,
) -> Result<Principal<'a>, Denial<'static>> {
    let mechanism = Mechanism::ShopApiKey;
    let invalid = |reason| Denial::InvalidCredential { mechanism, reason };
    let find = |digest: &_| facts.api_key(digest);
    let key =
        api_key::authenticate(text, facts.pepper(), find, now.unix).map_err(
            |failure| match failure {
                ApiKeyFailure::Malformed => invalid("the API key is malformed"),
                ApiKeyFailure::Unknown => invalid("the API key is unknown or revoked"),
                ApiKeyFailure::RotatedAway => invalid("the API key was rotated, its grace is over"),
                ApiKeyFailure::Expired => Denial::ExpiredCredential { mechanism },
            },
        )?;
    let shop = facts.shop(&key.shop).ok_or(invalid("the API key's shop does not exist"))?;
    Ok(Principal::ShopApiKey { key, shop })
}

/// Spec §2.3, as far as the token itself goes.
fn by_widget_token<'a, F: Facts>(
    text: &str,
    facts: &'a F,
    now: Now,
) -> Result<Principal<'a>, Denial<'static>> {
    let mechanism = Mechanism::WidgetToken;
    let invalid = |reason| Denial::InvalidCredential { mechanism, reason };
    let find = |id| facts.signing_key(id);
    let token = widget_token::verify(text, find, now.unix).map_err(|failure| match failure {
        TokenFailure::Malformed => invalid("the widget token is malformed"),
        TokenFailure::UnknownKey => invalid("the widget token's signing key is not known here"),
        TokenFailure::BadSignature => invalid("the widget token's signature is wrong"),
        TokenFailure::Expired => Denial::ExpiredCredential { mechanism },
    })?;
    let shop = facts.shop(&token.shop).ok_or(invalid("the widget token's shop does not exist"))?;
    if token.issued_at < shop.tokens_valid_from {
        return Err(invalid("the shop's widget tokens of that time were all revoked"));
    }
    if facts.is_token_revoked(&token.id) {
        return Err(invalid("the widget token was revoked"));
    }
    Ok(Principal::WidgetToken { token, shop })
}

fn by_jwt<'a, F: Facts, L: Limits, V: VerifiedTokens>(
    authorization: &str,
    context: &Context<'a, F, L, V>,
    now: Now,
    round: Round,
) -> Result<Principal<'a>, Stop<'a>> {
    let mechanism = Mechanism::Jwt;
    let invalid = |reason| Denial::InvalidCredential { mechanism, reason };
    let token = bearer_token(authorization)
        .ok_or(invalid("the Authorization field is not `Bearer` and one token"))?;
    let facts = context.facts;
    let issuers = &facts.policies().issuers;
    let generation = facts.policies_generation();
    let found = jwt::authenticate(token, issuers, facts, context.verified, generation, now.unix);
    match found {
        Ok(authentic) => {
            let issuer = issuers
                .get(authentic.issuer_index)
                .ok_or(invalid("the bearer token's issuer is not configured"))?;
            let (token, fresh) = (authentic.token, authentic.fresh);
            Ok(Principal::Jwt { token, issuer, fresh })
        }
        Err(JwtFailure::Invalid(reason)) => Err(invalid(reason).into()),
        Err(JwtFailure::Expired) => Err(Denial::ExpiredCredential { mechanism }.into()),
        Err(JwtFailure::KeysUnavailable { issuer }) => {
            Err(Denial::KeysUnavailable { issuer }.into())
        }
        Err(JwtFailure::NeedsKey { issuer, kid }) => match round {
            Round::First => Err(Stop::NeedsKey { issuer, kid }),
            Round::AfterRefresh => {
                Err(invalid("the bearer token's key is not in its issuer's key set").into())
            }
        },
    }
}
