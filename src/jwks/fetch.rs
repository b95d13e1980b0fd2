//! One fetch of one issuer's key set: over HTTP(S), by discovery, or from a file.
//!
//! Every read is bounded in bytes; the caller bounds the time. Redirects are not followed: where
//! keys come from is configuration, not the provider's momentary wish.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{ACCEPT, DATE, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::{IssuerSource, KeySource, RefreshError};
use crate::clock::Timestamp;
use crate::decision::jwt::KeySet;
use crate::https::{AGENT, Connector, Trust, connector, with_causes};

/// What was fetched.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) text: String,
    /// What time it is where it came from, if that said so.
    pub(super) date: Option<Timestamp>,
}

/// The issuer's key set, unparsed. Holds no connection and no roots afterwards: the next time is
/// minutes later, and a file of roots may be another then.
pub(super) async fn fetch(source: &IssuerSource) -> Result<Document, RefreshError> {
    let ca_file = source.ca_file.as_deref();
    match &source.source {
        KeySource::JwksUrl(url) => get(url, ca_file).await,
        KeySource::Discovery(issuer_url) => {
            let url = discovery_url(issuer_url);
            let document = get(&url, ca_file).await?;
            let jwks_url = jwks_url(&document.text, &url, &source.iss)?;
            get(&jwks_url, ca_file).await
        }
        KeySource::File(path) => Ok(Document { text: read(path.clone()).await?, date: None }),
    }
}

async fn get(url: &str, ca_file: Option<&Path>) -> Result<Document, RefreshError> {
    let uri = parse_url(url)?;
    let failed = |why: &dyn std::error::Error| RefreshError::Unreachable {
        url: url.into(),
        why: with_causes(why),
    };
    let client = client(url, uri.scheme() == Some(&Scheme::HTTPS), ca_file).await?;
    let request = Request::get(uri)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT)
        .body(Empty::new())
        .map_err(|e| failed(&e))?;
    let response = client.request(request).await.map_err(|e| failed(&e))?;
    if response.status() != StatusCode::OK {
        return Err(RefreshError::Status { url: url.into(), status: response.status().as_u16() });
    }
    let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
    let date = date.and_then(Timestamp::parse_http_date);
    let body = Limited::new(response.into_body(), KeySet::BYTES_MAX);
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(e) if e.is::<LengthLimitError>() => {
            return Err(RefreshError::TooLong { from: url.into() });
        }
        Err(e) => return Err(failed(e.as_ref())),
    };
    let text = String::from_utf8(bytes.into());
    let text = text.map_err(|_| RefreshError::NotUtf8 { from: url.into() })?;
    Ok(Document { text, date })
}

/// Asks `url`, trusting the authorities of `ca_file` or else the system's.
async fn client(
    url: &str,
    is_secure: bool,
    ca_file: Option<&Path>,
) -> Result<Client<Connector, Empty<Bytes>>, RefreshError> {
    let ca_file = ca_file.map(Path::to_owned);
    let making = tokio::task::spawn_blocking(move || {
        connector(match &ca_file {
            _ if !is_secure => Trust::Nobody,
            Some(file) => Trust::File(file),
            None => Trust::System,
        })
    });
    let made = making.await.map_err(|_| RefreshError::Stopped)?;
    let made = made.map_err(|why| RefreshError::Roots { url: url.into(), why: why.to_string() })?;
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(made))
}

/// `<issuer>/.well-known/openid-configuration` (`OpenID` Connect Discovery 1.0 §4).
fn discovery_url(issuer_url: &str) -> String {
    let base = issuer_url.strip_suffix('/').unwrap_or(issuer_url);
    format!("{base}/.well-known/openid-configuration")
}

/// `jwks_uri` of a discovery document whose `issuer` is the configured one (§4.3): a document
/// that speaks of another issuer is not ours. Never from `https` down to `http`.
fn jwks_url(document: &str, url: &str, iss: &str) -> Result<String, RefreshError> {
    let bad = |why| RefreshError::Discovery { url: url.into(), why };
    let document: Value =
        serde_json::from_str(document).map_err(|_| bad("the document is not JSON"))?;
    match document.get("issuer").and_then(Value::as_str) {
        None => return Err(bad("the document has no `issuer`")),
        Some(issuer) if issuer != iss => {
            return Err(bad("its `issuer` is not the configured `iss`"));
        }
        Some(_) => {}
    }
    let jwks_uri = document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .ok_or_else(|| bad("the document has no `jwks_uri`"))?;
    let target = parse_url(jwks_uri).map_err(|_| bad("its `jwks_uri` is not an http(s) URL"))?;
    let secure = parse_url(url)?.scheme() == Some(&Scheme::HTTPS);
    if secure && target.scheme() != Some(&Scheme::HTTPS) {
        return Err(bad("its `jwks_uri` is http although the document came by https"));
    }
    Ok(jwks_uri.to_owned())
}

/// An absolute `http` or `https` URL without user information. A refused one is not repeated:
/// what does not parse may hold a password.
fn parse_url(url: &str) -> Result<Uri, RefreshError> {
    let uri: Uri = url.parse().map_err(|_| RefreshError::BadUrl)?;
    let known = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    if known && plain { Ok(uri) } else { Err(RefreshError::BadUrl) }
}

async fn read(path: PathBuf) -> Result<String, RefreshError> {
    let reading = tokio::task::spawn_blocking(move || read_file(&path));
    reading.await.unwrap_or(Err(RefreshError::Stopped))
}

fn read_file(path: &Path) -> Result<String, RefreshError> {
    use std::io::Read as _;

    let failed =
        |why: std::io::Error| RefreshError::File { path: path.to_owned(), why: why.to_string() };
    // Opening a pipe would wait for a writer, for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let limit = u64::try_from(KeySet::BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(failed)?;
    let from = || path.display().to_string().into();
    if bytes.len() > KeySet::BYTES_MAX {
        return Err(RefreshError::TooLong { from: from() });
    }
    String::from_utf8(bytes).map_err(|_| RefreshError::NotUtf8 { from: from() })
}
