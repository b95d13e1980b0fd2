//! What is known of the provider: its endpoints, by discovery (`OpenID` Connect Discovery 1.0), and
//! its keys. Asked for when somebody signs in, kept for a while, asked for anew when it is old, or
//! when a token names a key that is not there.
//!
//! A provider that cannot be reached keeps nothing from starting; nobody signs in with it
//! meanwhile, and whoever tries does not make latchkey ask again and again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::http::{Client, Fault, check_url};
use crate::clock::{Clock, Monotonic};
use crate::config::OidcConfig;
use crate::decision::jwt::KeySet;

/// What was learnt is asked for again after this long.
const FRESH: Duration = Duration::from_secs(3600);

/// When that fails, the old serves until it is this old.
pub(super) const STALE_MAX: Duration = Duration::from_secs(24 * 3600);

/// After a failure, nobody asks for this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// From one fetch for an unknown key to the next.
const KEYS_COOLDOWN: Duration = Duration::from_secs(30);

/// How the client proves itself at the token endpoint (`OpenID` Connect Core §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// In `Authorization`.
    Basic,
    /// In the form.
    Post,
}

/// A provider, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) userinfo_endpoint: Option<String>,
    jwks_uri: String,
    pub(super) client_auth: ClientAuth,
    /// Answers to the browser carry `iss` (RFC 9207).
    pub(super) names_itself: bool,
}

impl Metadata {
    /// Reads a discovery document that has to be about `issuer` (§4.3).
    fn read(document: &Map<String, Value>, issuer: &str) -> Result<Self, MetadataError> {
        match document.get("issuer").and_then(Value::as_str) {
            None => return Err(MetadataError::Why("the document has no `issuer`")),
            Some(named) if named != issuer => {
                return Err(MetadataError::Why("its `issuer` is not admin.oidc.issuer"));
            }
            Some(_) => {}
        }
        let optional = |name: &'static str| -> Result<Option<String>, MetadataError> {
            let Some(url) = document.get(name).and_then(Value::as_str) else { return Ok(None) };
            check_url(name, url, issuer).map_err(MetadataError::Fault)?;
            Ok(Some(url.to_owned()))
        };
        let required = |name: &'static str, missing: &'static str| {
            optional(name)?.ok_or(MetadataError::Why(missing))
        };
        let lists = |name: &str, value: &str| {
            let list = document.get(name).and_then(Value::as_array);
            list.map(|list| list.iter().any(|entry| entry.as_str() == Some(value)))
        };
        if lists("code_challenge_methods_supported", "S256") == Some(false) {
            return Err(MetadataError::Why("it does not support PKCE with S256"));
        }
        if lists("response_types_supported", "code") == Some(false) {
            return Err(MetadataError::Why("it does not support the authorization code flow"));
        }
        let method = "token_endpoint_auth_methods_supported";
        let basic = lists(method, "client_secret_basic").unwrap_or(true);
        let post = lists(method, "client_secret_post").unwrap_or(false);
        let named = "authorization_response_iss_parameter_supported";
        Ok(Self {
            authorization_endpoint: required(
                "authorization_endpoint",
                "the document has no `authorization_endpoint`",
            )?,
            token_endpoint: required("token_endpoint", "the document has no `token_endpoint`")?,
            userinfo_endpoint: optional("userinfo_endpoint")?,
            jwks_uri: required("jwks_uri", "the document has no `jwks_uri`")?,
            client_auth: if post && !basic { ClientAuth::Post } else { ClientAuth::Basic },
            names_itself: document.get(named) == Some(&Value::Bool(true)),
        })
    }
}

/// What is wrong with a discovery document.
#[derive(Debug)]
enum MetadataError {
    Why(&'static str),
    Fault(Fault),
}

/// What is known of a provider, all of it learnt under one configuration.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: OidcConfig,
    pub(super) client: Client,
    pub(super) metadata: Metadata,
    pub(super) keys: Arc<KeySet>,
    learnt: Monotonic,
    keys_learnt: Monotonic,
}

/// A failure that is remembered for [`RETRY_AFTER`].
#[derive(Debug, Clone)]
struct Failed {
    config: OidcConfig,
    at: Monotonic,
    why: Arc<Fault>,
}

#[derive(Debug, Default)]
struct Memory {
    known: Option<Arc<Known>>,
    failed: Option<Failed>,
}

/// The keeper of what is known. One question is under way at a time; whoever waits gets its
/// answer.
#[derive(Debug, Default)]
pub(super) struct Provider(Mutex<Memory>);

impl Provider {
    /// What is known of the provider that `config` names; asked for, if it is not known or old.
    pub(super) async fn known(
        &self,
        config: &OidcConfig,
        clock: &dyn Clock,
    ) -> Result<Arc<Known>, Arc<Fault>> {
        let mut memory = self.0.lock().await;
        let now = clock.now().mono;
        let known = memory.known.clone().filter(|known| known.config == *config);
        if let Some(known) = known.as_ref().filter(|known| now.since(known.learnt) < FRESH) {
            return Ok(Arc::clone(known));
        }
        let usable = known.filter(|known| now.since(known.learnt) < STALE_MAX);
        let failed = memory
            .failed
            .as_ref()
            .filter(|failed| failed.config == *config && now.since(failed.at) < RETRY_AFTER);
        if let Some(failed) = failed {
            return usable.ok_or_else(|| Arc::clone(&failed.why));
        }
        match learn(config, clock).await {
            Ok(learnt) => {
                let learnt = Arc::new(learnt);
                *memory = Memory { known: Some(Arc::clone(&learnt)), failed: None };
                Ok(learnt)
            }
            Err(why) => {
                tracing::warn!(%why, "the operators' identity provider could not be asked");
                let why = Arc::new(why);
                let at = clock.now().mono;
                let failed = Failed { config: config.clone(), at, why: Arc::clone(&why) };
                memory.failed = Some(failed);
                usable.ok_or(why)
            }
        }
    }

    /// The same with keys that were fetched just now, unless they were a moment ago: a token names
    /// one that `known` lacks.
    pub(super) async fn with_new_keys(
        &self,
        known: &Arc<Known>,
        clock: &dyn Clock,
    ) -> Result<Arc<Known>, Fault> {
        let mut memory = self.0.lock().await;
        let latest = memory.known.as_ref().filter(|latest| latest.config == known.config);
        let latest = Arc::clone(latest.unwrap_or(known));
        if clock.now().mono.since(latest.keys_learnt) < KEYS_COOLDOWN {
            return Ok(latest);
        }
        let keys = fetch_keys(&latest.client, &latest.metadata, clock).await?;
        let renewed = Arc::new(Known {
            config: latest.config.clone(),
            client: latest.client.clone(),
            metadata: latest.metadata.clone(),
            keys: Arc::new(keys),
            learnt: latest.learnt,
            keys_learnt: clock.now().mono,
        });
        memory.known = Some(Arc::clone(&renewed));
        Ok(renewed)
    }
}

pub(super) async fn learn(config: &OidcConfig, clock: &dyn Clock) -> Result<Known, Fault> {
    let ca_file = config.ca_file.clone();
    let client = tokio::task::spawn_blocking(move || Client::new(ca_file.as_deref())).await;
    let client = client.map_err(|error| Fault::Roots(error.to_string()))??;
    let base = config.issuer.strip_suffix('/').unwrap_or(&config.issuer);
    let url = format!("{base}/.well-known/openid-configuration");
    let answer = client.get(&url, None).await?;
    let metadata = Metadata::read(&answer.object()?, &config.issuer).map_err(|why| match why {
        MetadataError::Why(why) => answer.content(why),
        MetadataError::Fault(fault) => fault,
    })?;
    let keys = Arc::new(fetch_keys(&client, &metadata, clock).await?);
    let now = clock.now().mono;
    Ok(Known { config: config.clone(), client, metadata, keys, learnt: now, keys_learnt: now })
}

async fn fetch_keys(
    client: &Client,
    metadata: &Metadata,
    clock: &dyn Clock,
) -> Result<KeySet, Fault> {
    let answer = client.get(&metadata.jwks_uri, None).await?;
    let keys = KeySet::parse(answer.text()?, clock.now().unix);
    let keys = keys.map_err(|_| answer.content("it is no key set"))?;
    if keys.is_empty() {
        return Err(answer.content("none of its keys can be used"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://idp.example";

    fn read(change: impl FnOnce(&mut Map<String, Value>)) -> Result<Metadata, MetadataError> {
        let document = json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://idp.example/authorize?tenant=1",
            "token_endpoint": "https://idp.example/token",
            "jwks_uri": "https://keys.example/jwks",
        });
        let Value::Object(mut document) = document else { panic!("an object") };
        change(&mut document);
        Metadata::read(&document, ISSUER)
    }

    #[test]
    fn documents() {
        let plain = read(|_| {}).unwrap();
        assert_eq!(plain.client_auth, ClientAuth::Basic);
        assert!(!plain.names_itself && plain.userinfo_endpoint.is_none());
        for (name, value, good) in [
            ("issuer", json!("https://idp.example/"), false),
            ("issuer", json!("https://IDP.example"), false),
            ("issuer", json!(null), false),
            ("authorization_endpoint", json!("http://idp.example/authorize"), false),
            ("authorization_endpoint", json!("javascript:alert(1)"), false),
            ("token_endpoint", json!("http://idp.example/token"), false),
            ("token_endpoint", json!(7), false),
            ("jwks_uri", json!("http://idp.example/jwks"), false),
            ("userinfo_endpoint", json!("http://idp.example/userinfo"), false),
            ("userinfo_endpoint", json!("https://idp.example/userinfo"), true),
            ("code_challenge_methods_supported", json!(["plain"]), false),
            ("code_challenge_methods_supported", json!(["plain", "S256"]), true),
            ("response_types_supported", json!(["id_token"]), false),
        ] {
            let found = read(|document| {
                document.insert(name.to_owned(), value.clone());
            });
            assert_eq!(found.is_ok(), good, "{name}: {value}");
        }
        for (methods, expected) in [
            (json!(["client_secret_post"]), ClientAuth::Post),
            (json!(["client_secret_post", "client_secret_basic"]), ClientAuth::Basic),
            (json!(["private_key_jwt"]), ClientAuth::Basic),
        ] {
            let found = read(|document| {
                document.insert("token_endpoint_auth_methods_supported".to_owned(), methods);
            });
            assert_eq!(found.unwrap().client_auth, expected);
        }
    }
}
