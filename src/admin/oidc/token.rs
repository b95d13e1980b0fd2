//! From the code that the browser brings to a person: the token request, the ID token
//! (`OpenID` Connect Core §3.1.3) and, for claims that it lacks, the user information endpoint.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Refusal;
use super::attempt::Attempt;
use super::http::{Fault, form};
use super::provider::{ClientAuth, Known, STALE_MAX};
use super::roles::at;
use crate::admin::percent::encoded;
use crate::clock::Timestamp;
use crate::config::{self, OidcConfig};
use crate::decision::jwt::{self, JwtFailure};
use crate::decision::policy::{Issuer, JwtAlgorithm};
use crate::id::Name;
use crate::secret::SecretText;

/// Longest ID token, in bytes: some thousand groups.
const ID_TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Tolerated clock skew.
const LEEWAY: Duration = Duration::from_secs(60);

/// The algorithms that an ID token may be signed with: the asymmetric ones.
const ALGORITHMS: [JwtAlgorithm; 9] = [
    JwtAlgorithm::RS256,
    JwtAlgorithm::RS384,
    JwtAlgorithm::RS512,
    JwtAlgorithm::PS256,
    JwtAlgorithm::PS384,
    JwtAlgorithm::PS512,
    JwtAlgorithm::ES256,
    JwtAlgorithm::ES384,
    JwtAlgorithm::EdDSA,
];

/// What the token endpoint answered.
pub(super) struct Tokens {
    id_token: SecretText,
    access_token: Option<SecretText>,
}

/// Exchanges the code.
pub(super) async fn exchange(
    known: &Known,
    attempt: &Attempt,
    code: &str,
    redirect_uri: &str,
) -> Result<Tokens, Refusal> {
    let config = &known.config;
    let secret = client_secret(config).await?;
    let verifier = attempt.verifier();
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier.expose()),
    ];
    let authorization = match (&secret, known.metadata.client_auth) {
        (Some(secret), ClientAuth::Basic) => {
            // RFC 6749 §2.3.1: both are encoded as in a form first.
            let pair = format!("{}:{}", encoded(&config.client_id), encoded(secret.expose()));
            Some(SecretText::new(format!("Basic {}", STANDARD.encode(pair))))
        }
        (Some(secret), ClientAuth::Post) => {
            fields.push(("client_id", &config.client_id));
            fields.push(("client_secret", secret.expose()));
            None
        }
        (None, _) => {
            fields.push(("client_id", &config.client_id));
            None
        }
    };
    let url = &known.metadata.token_endpoint;
    let authorization = authorization.as_ref().map(SecretText::expose);
    let answer = known.client.post(url, authorization, form(&fields)).await?;
    if answer.status.is_client_error() {
        let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let code = said.get("error").and_then(Value::as_str).unwrap_or_default();
        let status = answer.status.as_u16();
        tracing::warn!(status, error = shown(code), "the identity provider refused a code");
        return Err(if code == "invalid_client" { Refusal::Client } else { Refusal::Code });
    }
    let mut members = answer.object()?;
    let mut take = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => Some(SecretText::new(text)),
        Some(_) | None => None,
    };
    let access_token = take("access_token");
    let id_token = take("id_token").ok_or(Refusal::Token("there is no ID token in its answer"))?;
    Ok(Tokens { id_token, access_token })
}

async fn client_secret(config: &OidcConfig) -> Result<Option<SecretText>, Refusal> {
    let Some(file) = config.client_secret_file.clone() else {
        return Ok(None);
    };
    // Read each time: one that was replaced is in force at once.
    let read = tokio::task::spawn_blocking(move || config::read_secret_file(&file)).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    read.map(Some).map_err(|why| {
        tracing::error!(why, "admin.oidc.client_secret_file cannot be used");
        Refusal::Client
    })
}

/// Somebody, as the provider's tokens say.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) subject: String,
    pub(super) claims: Map<String, Value>,
}

/// Why an ID token is not taken.
pub(super) enum IdTokenFailure {
    /// Its key is not in the set.
    NeedsKey,
    /// It will not do.
    Invalid(&'static str),
}

/// Judges the ID token: signature, issuer, audience, times, and that it was made for `attempt`.
pub(super) fn judge(
    known: &Known,
    tokens: &Tokens,
    attempt: &Attempt,
    now: Timestamp,
) -> Result<Person, IdTokenFailure> {
    let token = tokens.id_token.expose();
    if token.len() > ID_TOKEN_BYTES_MAX {
        return Err(IdTokenFailure::Invalid("the ID token is longer than 64 KiB"));
    }
    let issuer = issuer(&known.config).ok_or(IdTokenFailure::Invalid("it has no issuer"))?;
    let judged = jwt::claims(token, &issuer, &known.keys, now);
    let (verified, claims) = judged.map_err(|failure| match failure {
        JwtFailure::Invalid(why) => IdTokenFailure::Invalid(why),
        JwtFailure::Expired => IdTokenFailure::Invalid("the ID token has expired"),
        JwtFailure::NeedsKey { .. } => IdTokenFailure::NeedsKey,
        JwtFailure::KeysUnavailable { .. } => {
            IdTokenFailure::Invalid("the provider's keys are too old to be trusted")
        }
    })?;
    let nonce = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
    if !attempt.is_nonce(nonce) {
        return Err(IdTokenFailure::Invalid("the ID token is not for this sign-in (`nonce`)"));
    }
    check_party(&claims, &known.config.client_id).map_err(IdTokenFailure::Invalid)?;
    Ok(Person { subject: verified.subject.into(), claims })
}

/// Of several audiences, `azp` says for whom the token is (§3.1.3.7, 3 to 5).
fn check_party(claims: &Map<String, Value>, client_id: &str) -> Result<(), &'static str> {
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|list| list.len() > 1);
    match claims.get("azp") {
        Some(Value::String(party)) if party == client_id => Ok(()),
        Some(_) => Err("the ID token is for another client (`azp`)"),
        None if several => Err("the ID token is for several clients and has no `azp`"),
        None => Ok(()),
    }
}

fn issuer(config: &OidcConfig) -> Option<Issuer> {
    Some(Issuer {
        name: Name::parse("operators").ok()?,
        iss: config.issuer.as_str().into(),
        audiences: vec![config.client_id.clone()],
        algorithms: ALGORITHMS.to_vec(),
        secret: None,
        leeway: LEEWAY,
        required_claims: vec!["iat".into(), "nonce".into()],
        typ: Vec::new(),
        scope_claim: Vec::new(),
        shop_claim: None,
        stale_max: STALE_MAX,
    })
}

/// Adds what the user information endpoint says, if the ID token does not say who it is and in
/// which groups. Its word adds to that of the ID token and replaces none of it.
pub(super) async fn complete(
    known: &Known,
    tokens: &Tokens,
    person: &mut Person,
) -> Result<(), Refusal> {
    let config = &known.config;
    let told = |path| at(&person.claims, path).is_some();
    if told(&config.name_claim) && told(&config.groups_claim) {
        return Ok(());
    }
    let (Some(url), Some(token)) = (&known.metadata.userinfo_endpoint, &tokens.access_token) else {
        return Ok(());
    };
    let answer = known.client.get(url, Some(token.expose())).await?;
    let members = match answer.object() {
        Ok(members) => members,
        // Signed answers are not asked for, and not understood.
        Err(fault @ (Fault::Content { .. } | Fault::Status { .. })) => {
            tracing::warn!(%fault, "the user information of an operator is not used");
            return Ok(());
        }
        Err(fault) => return Err(fault.into()),
    };
    // §5.3.2: otherwise it may be about somebody else.
    if members.get("sub").and_then(Value::as_str) != Some(&person.subject) {
        return Err(Refusal::Token("the user information is about somebody else (`sub`)"));
    }
    for (name, value) in members {
        person.claims.entry(name).or_insert(value);
    }
    Ok(())
}

/// An error code of RFC 6749, or that it is something else: what a provider sends is not repeated
/// unless it is harmless.
pub(super) fn shown(code: &str) -> &str {
    let harmless = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if !code.is_empty() && code.len() <= 64 && code.bytes().all(harmless) { code } else { "?" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parties() {
        for (claims, good) in [
            (json!({"aud": "us"}), true),
            (json!({"aud": ["us"]}), true),
            (json!({"aud": ["us", "them"]}), false),
            (json!({"aud": ["us", "them"], "azp": "us"}), true),
            (json!({"aud": ["us", "them"], "azp": "them"}), false),
            (json!({"aud": "us", "azp": "them"}), false),
            (json!({"aud": "us", "azp": 7}), false),
        ] {
            let Value::Object(members) = &claims else { panic!("an object") };
            assert_eq!(check_party(members, "us").is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn codes_that_are_repeated() {
        for (code, expected) in [
            ("invalid_grant", "invalid_grant"),
            ("", "?"),
            ("<script>", "?"),
            ("a b", "?"),
            ("A", "?"),
        ] {
            assert_eq!(shown(code), expected);
        }
    }
}
