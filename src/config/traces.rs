//! `[tracing]`: whose `traceparent` is taken, and where spans go.
//!
//! Reads the tables, and the file of header fields for a collector; speaks to nobody.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;
use http::header::{HeaderName, HeaderValue};
use http::{Uri, header};

use super::read::Section;
use super::report::Noted;
use super::secret_file::read_secret_file;
use super::shape::Shape;
use super::validate::parse_path;
use super::value::{self, Span, is_loopback, quote};

/// Where a collector takes traces by HTTP, below its address.
const TRACES: &str = "/v1/traces";

/// The most header fields of [`read_otlp_headers`], and the most of `resource`.
const HEADERS_MAX: usize = 16;
const RESOURCE_MAX: usize = 32;

/// The longest name or value of `resource`, and `service_name`.
const TEXT_CHARS_MAX: usize = 256;

/// Whose `traceparent` is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagate {
    /// Everybody's.
    Always,
    /// That of trusted proxies; everybody else's requests begin traces of their own.
    Trusted,
    /// Nobody's: the fields pass as all others do, and requests have no trace.
    Off,
}

/// A share of all traces, from none to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRatio {
    /// In 2^-56.
    of: u64,
}

impl SampleRatio {
    /// All of them.
    pub const ALL: Self = Self { of: 1 << 56 };

    /// From a number between 0 and 1.
    #[must_use]
    pub fn new(ratio: f64) -> Option<Self> {
        // The bounds, and what is not a number, are out of it; between them nothing is lost that
        // counts.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and 2^56"
        )]
        let of = (ratio * (1u64 << 56) as f64) as u64;
        (0.0..=1.0).contains(&ratio).then_some(Self { of })
    }

    /// Whether what has these 56 random bits is in the share.
    #[must_use]
    pub const fn takes(self, randomness: u64) -> bool {
        randomness >= (1 << 56) - self.of
    }
}

/// Traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracingConfig {
    /// Whose `traceparent` is taken.
    pub propagate: Propagate,
    /// The share of the traces begun here that are sampled.
    pub sample_ratio: SampleRatio,
    /// Where spans go; `None`: nowhere, none are recorded.
    pub otlp: Option<OtlpConfig>,
    /// Requests whose spans wait to be sent; those of further ones are dropped.
    pub queue_max: NonZeroUsize,
}

/// A collector that takes OTLP by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// The URL that spans are sent to.
    pub endpoint: String,
    /// A file of header fields that every request to it has, for [`read_otlp_headers`].
    pub headers_file: Option<PathBuf>,
    /// The authorities that are trusted; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// What spans say who they are from.
    pub service_name: Box<str>,
    /// What else they say of that: names and values.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// One exchange with it.
    pub timeout: Duration,
    /// The longest a span waits for others to be sent with.
    pub interval: Duration,
    /// Requests that are told of at once.
    pub batch_max: NonZeroUsize,
}

/// Reads `[tracing]`.
pub(super) fn read(root: &mut Section<'_, '_>) -> Result<TracingConfig, Noted> {
    let mut t = root.table("tracing");
    let choices =
        [("always", Propagate::Always), ("trusted", Propagate::Trusted), ("off", Propagate::Off)];
    let propagate = t.choice("propagate", "trusted", &choices);
    let sample_ratio = t.or_default("sample_ratio", &Shape::Number((0.0, 1.0)), 1.0, read_ratio);
    let (otlp, queue_max) = read_otlp(&mut t);
    if let (Ok(Propagate::Off), Ok(Some(_))) = (&propagate, &otlp) {
        let message = "\"off\" leaves no traces to send to tracing.otlp.endpoint; write \
                       \"trusted\", or leave the endpoint out";
        t.error("propagate", message.into());
    }
    t.finish();
    Ok(TracingConfig {
        propagate: propagate?,
        sample_ratio: sample_ratio?,
        otlp: otlp?,
        queue_max: queue_max?,
    })
}

type Otlp = (Result<Option<OtlpConfig>, Noted>, Result<NonZeroUsize, Noted>);

/// Reads `[tracing.otlp]`.
fn read_otlp(tracing: &mut Section<'_, '_>) -> Otlp {
    let mut t = tracing.table("otlp");
    let endpoint = t.text_optional("endpoint", "spans go nowhere", parse_endpoint);
    let headers_file = t.text_optional("headers_file", "no further header fields", |text| {
        let path = parse_path(text)?;
        read_otlp_headers(&path).map(|_| path)
    });
    if let (Ok(Some(endpoint)), Ok(Some(_))) = (&endpoint, &headers_file)
        && !is_private(endpoint)
    {
        let message = "needs an endpoint with https (or on this machine): plain http would show \
                       its secrets to everybody on the way";
        t.error("headers_file", message.into());
    }
    let ca_file = t.text_optional("ca_file", "the system's roots", parse_path);
    let service_name = t.text("service_name", "latchkey", parse_text);
    let resource = t.list("resource", &[], parse_attribute);
    if let Ok(resource) = &resource {
        if resource.len() > RESOURCE_MAX {
            let count = resource.len();
            t.error("resource", format!("holds {count} members; {RESOURCE_MAX} is the most"));
        }
        for (i, (name, _)) in resource.iter().enumerate() {
            if resource.iter().take(i).any(|(earlier, _)| earlier == name) {
                t.error(&format!("resource[{i}]"), format!("{} stands twice", quote(name)));
            }
        }
    }
    let timeout = t.duration("timeout", "10s", Span::TIMEOUT);
    let interval = t.duration("interval", "5s", Span::TIMEOUT);
    let batch_max = t.count("batch_max", 512, (1, 10_000));
    let queue_max = t.count("queue_max", 4096, (1, 1 << 20));
    t.finish();
    let otlp = || {
        let (headers_file, ca_file) = (headers_file?, ca_file?);
        let (service_name, resource) = (service_name?, resource?);
        let (timeout, interval, batch_max) = (timeout?, interval?, batch_max?);
        Ok(endpoint?.map(|endpoint| OtlpConfig {
            endpoint,
            headers_file,
            ca_file,
            service_name,
            resource,
            timeout,
            interval,
            batch_max,
        }))
    };
    (otlp(), queue_max)
}

fn read_ratio(written: &Value) -> Result<SampleRatio, String> {
    let ratio = written.to_num().map(|number| match number.to_f64() {
        Some(ratio) => ratio,
        #[expect(clippy::cast_precision_loss, reason = "0 and 1 are exact, the rest is refused")]
        None => value::integer(written).unwrap_or(-1) as f64,
    });
    let ratio = ratio.ok_or_else(|| format!("{} is not a number", value::show(written)))?;
    SampleRatio::new(ratio)
        .ok_or_else(|| format!("{} is out of range; write 0.0 to 1.0", value::show(written)))
}

/// The URL of a collector: its address, or the whole of where it takes traces.
fn parse_endpoint(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "write e.g. \"http://127.0.0.1:4318\"";
    if text.contains('@') {
        // Not repeated: what stands before an @ may be a password.
        return Err(format!(
            "a URL with user information is not accepted; put credentials into headers_file and \
             {EXAMPLE}"
        ));
    }
    let not_url = || format!("{} is not an http or https URL; {EXAMPLE}", quote(text));
    let uri: Uri = text.parse().map_err(|_| not_url())?;
    let is_sound = uri.authority().is_some_and(|a| !a.host().is_empty() && value::is_port_sound(a));
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_sound || !is_http || text.contains(['?', '#']) {
        return Err(not_url());
    }
    let base = text.trim_end_matches('/');
    Ok(if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") })
}

/// Whether nobody but this machine and the collector sees what is sent to `endpoint`.
fn is_private(endpoint: &str) -> bool {
    let uri: Option<Uri> = endpoint.parse().ok();
    let is_local = |uri: &Uri| uri.host().is_some_and(is_loopback);
    uri.is_some_and(|uri| uri.scheme_str() == Some("https") || is_local(&uri))
}

fn parse_text(text: &str) -> Result<Box<str>, String> {
    let is_legible = !text.is_empty() && !text.chars().any(char::is_control);
    if !is_legible || text.chars().count() > TEXT_CHARS_MAX {
        return Err(format!(
            "{} is not a text of 1 to {TEXT_CHARS_MAX} characters without control characters",
            quote(text)
        ));
    }
    Ok(text.into())
}

fn parse_attribute(text: &str) -> Result<(Box<str>, Box<str>), String> {
    let split = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
    let (name, value) = split.ok_or_else(|| {
        format!("{} is not name=value, e.g. \"deployment.environment.name=shop\"", quote(text))
    })?;
    Ok((parse_text(name)?, parse_text(value)?))
}

/// The header fields in the file `path`, one on a line, as in `Authorization: Bearer …`; empty
/// lines and such that begin with `#` are skipped. Their values do not print.
///
/// # Errors
///
/// What is wrong with the file, or in which line, without repeating it.
pub fn read_otlp_headers(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    const OURS: [HeaderName; 8] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::UPGRADE,
    ];
    let text = read_secret_file(path)?;
    let mut fields = Vec::new();
    for (i, line) in text.expose().lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let shown = || format!("{}, line {}", quote(&path.display().to_string()), i + 1);
        let field = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        let Some((name, value)) = field else {
            return Err(format!("{}: is not a header field; write Name: value", shown()));
        };
        if OURS.contains(&name) {
            return Err(format!("{}: {name} is latchkey's to set", shown()));
        }
        fields.push((name, value));
    }
    if fields.len() > HEADERS_MAX {
        let shown = quote(&path.display().to_string());
        return Err(format!("{shown} holds {} fields; {HEADERS_MAX} is the most", fields.len()));
    }
    Ok(fields)
}
