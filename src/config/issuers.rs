//! The identity providers: what decides, and where their keys come from.
//!
//! The only secret the configuration touches is an HMAC issuer's, read from its file here and
//! kept in a type that does not print.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::Section;
use super::report::Noted;
use super::secret_file;
use super::validate::{one_of, parse_name, parse_path};
use super::value::{self, Span, quote};
use super::{IssuerSourceConfig, KeySource};
use crate::decision::policy::{Issuer, JwtAlgorithm};
use crate::secret::SecretText;

/// The most issuers.
const ISSUERS_MAX: usize = 32;

/// Longest claim, audience or issuer, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Reads `[[issuers]]`.
pub(super) fn read(root: &mut Section<'_, '_>) -> Result<Vec<(Issuer, IssuerSourceConfig)>, Noted> {
    let items = root.items("issuers", ISSUERS_MAX)?;
    let mut issuers: Vec<(Issuer, IssuerSourceConfig)> = Vec::with_capacity(items.len());
    let mut all = Ok(());
    for (i, item) in items.iter().enumerate() {
        let mut t = root.item("issuers", i, item);
        let issuer = read_issuer(&mut t);
        if let Ok((issuer, _)) = &issuer {
            check_distinct(&mut t, issuer, &issuers);
        }
        t.finish();
        match issuer {
            Ok(issuer) => issuers.push(issuer),
            Err(noted) => all = Err(noted),
        }
    }
    all.map(|()| issuers)
}

fn check_distinct(
    t: &mut Section<'_, '_>,
    issuer: &Issuer,
    earlier: &[(Issuer, IssuerSourceConfig)],
) {
    for (earlier, _) in earlier {
        let name = earlier.name.as_str();
        if earlier.name == issuer.name {
            t.error("name", format!("{} is already the name of another issuer", quote(name)));
        }
        if earlier.iss == issuer.iss {
            t.error("issuer", format!("is already the issuer of {}", quote(name)));
        }
    }
}

fn read_issuer(t: &mut Section<'_, '_>) -> Result<(Issuer, IssuerSourceConfig), Noted> {
    let name = t.text_required("name", "write e.g. name = \"id\"", parse_name);
    let hint = "write the tokens' iss, e.g. issuer = \"https://id.example\"";
    let iss = t.text_required("issuer", hint, parse_claim);
    let hint = "write e.g. audiences = [\"https://api.example\"]";
    let audiences = t.list_required("audiences", hint, parse_claim);
    let source = read_source(t, iss.as_deref().ok());
    let ca_file = read_ca_file(t, source.as_ref().ok());
    let algorithms = read_algorithms(t, source.as_ref().ok());
    let secret = read_secret(t, source.as_ref().ok(), algorithms.as_deref().ok());
    let leeway = t.duration("leeway", "60s", Span::LEEWAY);
    let required_claims = t.list("required_claims", &[], parse_claim);
    let typ = t.list("typ", &[], parse_claim);
    let scope_claim = t.names("scope_claim", "scope", parse_claim_path);
    let shop_claim = t.names_optional("shop_claim", "bound to no shop", parse_claim_path);
    let refresh_interval = t.duration("refresh_interval", "10m", Span::LIFETIME);
    let cooldown = t.duration("cooldown", "30s", Span::TIMEOUT);
    let fetch_timeout = t.duration("fetch_timeout", "5s", Span::TIMEOUT);
    let stale_max = t.duration("stale_max", "24h", Span::LIFETIME);
    if let (Ok(interval), Ok(max)) = (refresh_interval, stale_max) {
        check_stale_max(t, interval, max);
    }
    let (name, iss) = (name?, iss?);
    let issuer_source = IssuerSourceConfig {
        issuer: name.clone(),
        iss: iss.clone(),
        source: source?.key_source(),
        ca_file: ca_file?,
        refresh_interval: refresh_interval?,
        cooldown: cooldown?,
        fetch_timeout: fetch_timeout?,
    };
    let issuer = Issuer {
        name,
        iss,
        audiences: audiences?,
        algorithms: algorithms?,
        secret: secret?,
        leeway: leeway?,
        required_claims: required_claims?,
        typ: typ?,
        scope_claim: scope_claim?,
        shop_claim: shop_claim?,
        stale_max: stale_max?,
    };
    Ok((issuer, issuer_source))
}

fn check_stale_max(t: &mut Section<'_, '_>, interval: Duration, stale_max: Duration) {
    if stale_max <= interval {
        let (max, interval) = (value::show_duration(stale_max), value::show_duration(interval));
        t.error(
            "stale_max",
            format!(
                "\"{max}\" is not longer than refresh_interval, \"{interval}\": the keys would \
                 be refused before they are fetched again"
            ),
        );
    }
}

/// Where keys come from, as written.
enum Written {
    Url(String),
    Discovery,
    JwksFile(PathBuf),
    SecretFile(PathBuf),
}

impl Written {
    fn key_source(self) -> KeySource {
        match self {
            Self::Url(url) => KeySource::JwksUrl(url),
            Self::Discovery => KeySource::Discovery,
            Self::JwksFile(path) => KeySource::File(path),
            Self::SecretFile(_) => KeySource::Secret,
        }
    }
}

fn read_source(t: &mut Section<'_, '_>, iss: Option<&str>) -> Result<Written, Noted> {
    const NOTE: &str = "keys come from elsewhere";
    let url = t.text_optional("jwks_url", NOTE, value::parse_provider_url);
    let jwks_file = t.text_optional("jwks_file", NOTE, parse_path);
    let secret_file = t.text_optional("secret_file", NOTE, parse_path);
    let discovery = t.boolean("discovery", false);
    if let Ok(true) = discovery
        && let Some(Err(message)) = iss.map(value::parse_provider_url)
    {
        t.error("issuer", format!("discovery starts at the issuer, but {message}"));
    }
    let sources: Vec<Written> = [
        url?.map(Written::Url),
        jwks_file?.map(Written::JwksFile),
        secret_file?.map(Written::SecretFile),
        discovery?.then_some(Written::Discovery),
    ]
    .into_iter()
    .flatten()
    .collect();
    let count = sources.len();
    let mut sources = sources.into_iter();
    if let (Some(source), 1) = (sources.next(), count) {
        return Ok(source);
    }
    let message = match count {
        0 => "says nowhere where its keys are",
        _ => "says more than once where its keys are",
    };
    let choices = "write one of jwks_url, jwks_file, secret_file, or discovery = true";
    Err(t.error_here(format!("{message}; {choices}")))
}

fn read_ca_file(
    t: &mut Section<'_, '_>,
    source: Option<&Written>,
) -> Result<Option<PathBuf>, Noted> {
    let ca_file = t.text_optional("ca_file", "the system's roots", parse_path)?;
    match source {
        Some(Written::JwksFile(_) | Written::SecretFile(_)) if ca_file.is_some() => {
            let message = "is of no use: no provider is asked for keys; remove it";
            Err(t.error("ca_file", message.into()))
        }
        _ => Ok(ca_file),
    }
}

fn read_algorithms(
    t: &mut Section<'_, '_>,
    source: Option<&Written>,
) -> Result<Vec<JwtAlgorithm>, Noted> {
    let symmetric = source.map(|s| matches!(s, Written::SecretFile(_)));
    let default = if symmetric == Some(true) { "HS256" } else { "RS256" };
    let choices = JwtAlgorithm::ALL.map(|a| (a.as_str(), a));
    let algorithms = t.list("algorithms", &[default], |text| {
        let algorithm = one_of(text, &choices)?;
        match symmetric {
            Some(false) if algorithm.is_symmetric() => Err(format!(
                "\"{text}\" is for a shared secret; an issuer with it needs secret_file"
            )),
            Some(true) if !algorithm.is_symmetric() => Err(format!(
                "\"{text}\" is for public keys; an issuer with secret_file takes HS256, HS384 \
                 or HS512 only"
            )),
            Some(_) | None => Ok(algorithm),
        }
    })?;
    if algorithms.is_empty() {
        let message = format!("is empty; write e.g. [\"{default}\"]");
        return Err(t.error("algorithms", message));
    }
    Ok(algorithms)
}

/// The HMAC secret, if the issuer has one.
fn read_secret(
    t: &mut Section<'_, '_>,
    source: Option<&Written>,
    algorithms: Option<&[JwtAlgorithm]>,
) -> Result<Option<SecretText>, Noted> {
    let Some(Written::SecretFile(path)) = source else {
        return Ok(None);
    };
    read_secret_file(path, algorithms.unwrap_or_default())
        .map(Some)
        .map_err(|message| t.error("secret_file", message))
}

fn read_secret_file(path: &Path, algorithms: &[JwtAlgorithm]) -> Result<SecretText, String> {
    let secret = secret_file::read_secret_file(path)?;
    // RFC 7518 §3.2: a key is at least as long as the hash.
    let bytes_min = if algorithms.contains(&JwtAlgorithm::HS512) {
        64
    } else if algorithms.contains(&JwtAlgorithm::HS384) {
        48
    } else {
        32
    };
    let length = secret.expose().len();
    if length < bytes_min {
        let shown = quote(&path.display().to_string());
        return Err(format!(
            "{shown} holds {length} bytes; the algorithms need a secret of {bytes_min} at least"
        ));
    }
    Ok(secret)
}

fn parse_claim(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("{} is not 1 to {TEXT_BYTES_MAX} bytes of text", quote(text)));
    }
    Ok(text.into())
}

/// A claim by its path.
pub(super) fn parse_claim_path(names: &[&str]) -> Result<Vec<Box<str>>, String> {
    names.iter().map(|name| parse_claim(name)).collect()
}
