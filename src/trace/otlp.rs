//! The spans of requests as an `ExportTraceServiceRequest` of OTLP 1, in its JSON encoding
//! (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"), and what a collector answers.
//!
//! JSON and not binary protobuf: every collector takes both on the same address, and these few
//! structures are all that latchkey ever says, so that no generated code and no second HTTP stack
//! is needed. Ids are hex, 64-bit numbers texts, enums numbers. Attributes follow the semantic
//! conventions for HTTP; what only latchkey knows begins with `latchkey.`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize, Serializer};

use super::context::{Flags, SpanId, TraceId};
use super::span::{Finished, Hop};
use crate::clock::Timestamp;
use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;
use crate::id::ShopId;
use crate::logging::redacted;
use crate::metrics::CutBy;

/// The version of the semantic conventions that the attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

const KIND_SERVER: u8 = 2;
const KIND_CLIENT: u8 = 3;
const STATUS_ERROR: u8 = 2;

/// Of a span's flags: whether its parent is of another process is known, and it is.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// Longest path that is told, in bytes.
const PATH_BYTES_MAX: usize = 2048;

/// Longest of a collector's own words that are repeated, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// Who the spans are from.
#[derive(Debug, Clone)]
pub(super) struct Resource(Vec<Attribute<'static>>);

impl Resource {
    /// This process as the service `name`; `more` is what the operator says of it, which prevails.
    pub(super) fn new(name: &str, instance: &str, more: &[(Box<str>, Box<str>)]) -> Self {
        let own = [
            ("service.name", name),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", instance),
        ];
        let is_said = |key: &str| more.iter().any(|(said, _)| **said == *key);
        let own = own.into_iter().filter(|(key, _)| !is_said(key));
        let said = more.iter().map(|(key, value)| (&**key, &**value));
        let attribute = |(key, value): (&str, &str)| Attribute {
            key: Cow::Owned(key.to_owned()),
            value: AnyValue::StringValue(Cow::Owned(value.to_owned())),
        };
        Self(own.chain(said).map(attribute).collect())
    }
}

/// The request that tells a collector of `batch`; of none, it says nothing and is valid.
pub(super) fn encode(resource: &Resource, batch: &[Finished]) -> Vec<u8> {
    let spans: Vec<Span<'_>> = batch.iter().flat_map(spans).collect();
    let scope = Scope { name: "latchkey", version: env!("CARGO_PKG_VERSION") };
    let of_scope = ScopeSpans { scope, spans, schema_url: SCHEMA_URL };
    let of_resource = ResourceSpans {
        resource: WireResource { attributes: &resource.0 },
        scope_spans: [of_scope],
        schema_url: SCHEMA_URL,
    };
    let wanted = if batch.is_empty() { vec![] } else { vec![of_resource] };
    // Serializing into memory what has only texts for keys cannot fail.
    serde_json::to_vec(&Request { resource_spans: wanted }).unwrap_or_default()
}

/// What a collector answers to what it took: how many spans it did not take after all, and why.
pub(super) fn rejected(body: &[u8]) -> (u64, String) {
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    let count = match partial.rejected_spans {
        Some(Number::Number(count)) => count,
        Some(Number::Text(text)) => text.parse().unwrap_or_default(),
        None => 0,
    };
    (count, shortened(&partial.error_message))
}

/// A collector's own words, for the log.
pub(super) fn shortened(text: &str) -> String {
    let legible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MESSAGE_CHARS_MAX).map(legible).collect()
}

/// The spans of one request: its own, and that of its exchange with the upstream.
fn spans(finished: &Finished) -> impl Iterator<Item = Span<'_>> {
    let path = path(&finished.path);
    let hop = finished.hop.as_ref().map(|hop| client(finished, hop, &path));
    [server(finished, path)].into_iter().chain(hop)
}

fn server<'f>(finished: &'f Finished, path: Cow<'f, str>) -> Span<'f> {
    let trace = &finished.trace;
    let (method, original) = method(&finished.method);
    let pattern = finished.route.as_ref().and_then(|(_, pattern)| pattern.as_deref());
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", method);
    attributes.optional("http.request.method_original", original);
    attributes.text("url.scheme", finished.scheme);
    attributes.text("url.path", path);
    attributes.optional("http.route", pattern);
    attributes.number("http.response.status_code", finished.status.map(i64::from));
    attributes.number("http.response.body.size", i64::try_from(finished.bytes).ok());
    attributes.text("network.protocol.version", finished.protocol.trim_start_matches("HTTP/"));
    attributes.address("client.address", finished.client);
    let error = error(finished);
    attributes.optional("error.type", error.as_deref());
    attributes.text("latchkey.request_id", &*finished.request_id);
    let outcome = match (finished.code, finished.status) {
        (_, None) => "abandoned",
        (None, Some(_)) => "allowed",
        (Some(code), Some(_)) if code.status() < 500 => "refused",
        (Some(_), Some(_)) => "error",
    };
    attributes.text("latchkey.outcome", outcome);
    attributes.optional("latchkey.code", finished.code.map(Code::as_str));
    let route = finished.route.as_ref().map(|(name, _)| name.as_str());
    attributes.optional("latchkey.route", route);
    attributes.optional("latchkey.mechanism", finished.mechanism.map(Mechanism::as_str));
    attributes.optional("latchkey.shop", finished.shop.as_ref().map(ShopId::as_str));
    attributes.optional("latchkey.key_id", finished.key_id.as_deref());
    attributes.optional("latchkey.cut_by", finished.cut.map(CutBy::as_str));
    attributes.number("latchkey.decision_us", us(finished.decision));
    let remote = if trace.parent.is_some() { PARENT_IS_REMOTE } else { 0 };
    Span {
        trace_id: trace.id,
        span_id: trace.span,
        parent_span_id: trace.parent,
        flags: flags(trace.flags) | remote,
        name: pattern.map_or(method.into(), |pattern| format!("{method} {pattern}").into()),
        kind: KIND_SERVER,
        start_time_unix_nano: nanos(finished.started, Duration::ZERO),
        end_time_unix_nano: nanos(finished.started, finished.took),
        attributes: attributes.0,
        status: Status { code: error.is_some().then_some(STATUS_ERROR) },
    }
}

/// The exchange with the upstream, to the end of its response or to its failure.
fn client<'f>(finished: &'f Finished, hop: &'f Hop, path: &str) -> Span<'f> {
    let trace = &finished.trace;
    let (method, original) = method(&finished.method);
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", method);
    attributes.optional("http.request.method_original", original);
    if let Some((scheme, host, port)) = &hop.endpoint {
        attributes.text("url.full", format!("{scheme}://{host}:{port}{path}"));
        attributes.text("server.address", host.trim_start_matches('[').trim_end_matches(']'));
        attributes.number("server.port", Some(i64::from(*port)));
    }
    attributes.text("latchkey.upstream", hop.upstream.as_str());
    let resends = (hop.resends > 0).then_some(i64::from(hop.resends));
    attributes.number("http.request.resend_count", resends);
    attributes.number("latchkey.head_us", us(hop.head));
    // What is answered with a code of latchkey's own is not the upstream's status.
    let status = finished.status.filter(|_| finished.code.is_none());
    attributes.number("http.response.status_code", status.map(i64::from));
    let failed = finished.code.map(|code| Cow::Borrowed(code.as_str()));
    // To a client 4xx is an error too; to the server it is not.
    let refused = status.filter(|status| *status >= 400).map(|status| status.to_string().into());
    let error = failed.or(refused).or_else(|| error(finished));
    attributes.optional("error.type", error.as_deref());
    let end = if finished.code.is_some() { hop.after + hop.head } else { finished.took };
    Span {
        trace_id: trace.id,
        span_id: hop.span,
        parent_span_id: Some(trace.span),
        flags: flags(trace.flags),
        name: method.into(),
        kind: KIND_CLIENT,
        start_time_unix_nano: nanos(finished.started, hop.after),
        end_time_unix_nano: nanos(finished.started, end.max(hop.after)),
        attributes: attributes.0,
        status: Status { code: error.is_some().then_some(STATUS_ERROR) },
    }
}

/// Why a request ended as an error, in a word. A refusal is none: it is what latchkey is for.
fn error(finished: &Finished) -> Option<Cow<'_, str>> {
    if let Some(cut) = finished.cut {
        return Some(Cow::Owned(format!("cut_by_{}", cut.as_str())));
    }
    let status = finished.status.filter(|status| *status >= 500)?;
    Some(match finished.code {
        Some(code) => Cow::Borrowed(code.as_str()),
        None => Cow::Owned(status.to_string()),
    })
}

/// A method as the conventions want it: one of a closed set; and else what it was.
fn method(method: &Method) -> (&'static str, Option<&str>) {
    const KNOWN: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    match KNOWN.into_iter().find(|known| *known == method.as_str()) {
        Some(known) => (known, None),
        None => ("_OTHER", Some(method.as_str())),
    }
}

/// A path as it is told: as the log has it, and not endless.
fn path(path: &str) -> Cow<'_, str> {
    let end = (0..=PATH_BYTES_MAX.min(path.len())).rev().find(|at| path.is_char_boundary(*at));
    redacted(path.get(..end.unwrap_or_default()).unwrap_or_default())
}

fn flags(flags: Flags) -> u32 {
    u32::from(flags.bits()) | PARENT_IS_KNOWN
}

fn us(time: Duration) -> Option<i64> {
    i64::try_from(time.as_micros()).ok()
}

/// Nanoseconds since the epoch, `after` `start`. Starts are exact to a millisecond, what lies
/// between two times of one request to a nanosecond.
fn nanos(start: Timestamp, after: Duration) -> u128 {
    u128::from(start.unix_ms()) * 1_000_000 + after.as_nanos()
}

#[derive(Default)]
struct Attributes<'f>(Vec<Attribute<'f>>);

impl<'f> Attributes<'f> {
    fn text(&mut self, key: &'static str, value: impl Into<Cow<'f, str>>) {
        let value = AnyValue::StringValue(value.into());
        self.0.push(Attribute { key: key.into(), value });
    }

    fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value.to_owned());
        }
    }

    fn number(&mut self, key: &'static str, value: Option<i64>) {
        if let Some(value) = value {
            self.0.push(Attribute { key: key.into(), value: AnyValue::IntValue(value) });
        }
    }

    fn address(&mut self, key: &'static str, value: IpAddr) {
        self.text(key, value.to_string());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'f> {
    resource_spans: Vec<ResourceSpans<'f>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'f> {
    resource: WireResource<'f>,
    scope_spans: [ScopeSpans<'f>; 1],
    schema_url: &'static str,
}

#[derive(Serialize)]
struct WireResource<'f> {
    attributes: &'f [Attribute<'static>],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScopeSpans<'f> {
    scope: Scope,
    spans: Vec<Span<'f>>,
    schema_url: &'static str,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[expect(clippy::struct_field_names, reason = "the names are OTLP's")]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'f> {
    #[serde(serialize_with = "text")]
    trace_id: TraceId,
    #[serde(serialize_with = "text")]
    span_id: SpanId,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_text")]
    parent_span_id: Option<SpanId>,
    flags: u32,
    name: Cow<'f, str>,
    kind: u8,
    #[serde(serialize_with = "text")]
    start_time_unix_nano: u128,
    #[serde(serialize_with = "text")]
    end_time_unix_nano: u128,
    attributes: Vec<Attribute<'f>>,
    status: Status,
}

#[derive(Debug, Clone, Serialize)]
struct Attribute<'f> {
    key: Cow<'f, str>,
    value: AnyValue<'f>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'f> {
    StringValue(Cow<'f, str>),
    #[serde(serialize_with = "text")]
    IntValue(i64),
}

#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

fn text<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature is serde's"
)]
fn optional_text<S: Serializer>(value: &Option<SpanId>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

/// What a collector answers; members that are not known are none of ours.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: Option<PartialSuccess>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    rejected_spans: Option<Number>,
    error_message: String,
}

/// JSON of protobuf has 64-bit numbers as texts, and readers take both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::trace::testing::finished;

    /// The spans of `finished` as a collector reads them, attributes as plain members.
    fn told(finished: Finished) -> Vec<Value> {
        let resource = Resource::new("latchkey", "i", &[]);
        let body = encode(&resource, &[finished]);
        let request: Value = serde_json::from_slice(&body).unwrap();
        let mut spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
        for span in spans.as_array_mut().unwrap() {
            span["attributes"] = plain(&span["attributes"]);
        }
        spans.as_array().unwrap().clone()
    }

    fn plain(attributes: &Value) -> Value {
        let member = |attribute: &Value| {
            let value = attribute["value"].as_object().unwrap();
            assert_eq!(value.len(), 1, "{attribute}");
            (attribute["key"].as_str().unwrap().to_owned(), value.values().next().unwrap().clone())
        };
        Value::Object(attributes.as_array().unwrap().iter().map(member).collect())
    }

    #[test]
    fn a_request_that_was_forwarded() {
        let [server, client] = &*told(finished()) else { panic!("two spans") };
        assert_eq!(
            *server,
            json!({
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": "0000000000000007",
                "parentSpanId": "00f067aa0ba902b7",
                "flags": 0x303,
                "name": "GET /api/shops/{shopId}/*",
                "kind": 2,
                "startTimeUnixNano": "1700000000123000000",
                "endTimeUnixNano": "1700000000128000001",
                "status": {},
                "attributes": {
                    "http.request.method": "GET",
                    "url.scheme": "https",
                    "url.path": "/api/shops/demo/x",
                    "http.route": "/api/shops/{shopId}/*",
                    "http.response.status_code": "200",
                    "http.response.body.size": "42",
                    "network.protocol.version": "2",
                    "client.address": "192.0.2.7",
                    "latchkey.request_id": "ab",
                    "latchkey.outcome": "allowed",
                    "latchkey.route": "shops",
                    "latchkey.mechanism": "shop_api_key",
                    "latchkey.shop": "demo",
                    "latchkey.key_id": "k1",
                    "latchkey.decision_us": "3",
                },
            })
        );
        assert_eq!(
            *client,
            json!({
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": "0000000000000008",
                "parentSpanId": "0000000000000007",
                "flags": 0x103,
                "name": "GET",
                "kind": 3,
                "startTimeUnixNano": "1700000000123050000",
                "endTimeUnixNano": "1700000000128000001",
                "status": {},
                "attributes": {
                    "http.request.method": "GET",
                    "url.full": "http://[::1]:9000/api/shops/demo/x",
                    "server.address": "::1",
                    "server.port": "9000",
                    "latchkey.upstream": "default",
                    "latchkey.head_us": "4000",
                    "http.response.status_code": "200",
                },
            })
        );
    }

    #[test]
    fn what_is_an_error_and_what_is_not() {
        let upstream_failed =
            Finished { status: Some(502), code: Some(Code::UpstreamError), ..finished() };
        let refused =
            Finished { status: Some(403), code: Some(Code::CrossTenant), hop: None, ..finished() };
        let upstream_said = |status| Finished { status: Some(status), ..finished() };
        let cut = Finished { cut: Some(CutBy::Upstream), ..finished() };
        let left = Finished { status: None, cut: Some(CutBy::Downstream), ..finished() };
        // The request, its outcome and error; the exchange's error and status.
        let none = Value::Null;
        for (finished, outcome, error, hop_error, hop_status) in [
            (upstream_failed, "error", json!("upstream_error"), json!("upstream_error"), &none),
            (refused, "refused", none.clone(), none.clone(), &none),
            (upstream_said(404), "allowed", none.clone(), json!("404"), &json!("404")),
            (upstream_said(503), "allowed", json!("503"), json!("503"), &json!("503")),
            (cut, "allowed", json!("cut_by_upstream"), json!("cut_by_upstream"), &json!("200")),
            (left, "abandoned", json!("cut_by_downstream"), json!("cut_by_downstream"), &none),
        ] {
            let spans = told(finished.clone());
            assert_eq!(spans.len() as u64, finished.spans());
            let server = &spans[0];
            let told = &server["attributes"];
            assert_eq!(told["latchkey.outcome"], outcome, "{server}");
            assert_eq!(told["error.type"], error, "{server}");
            assert_eq!(server["status"] == json!({"code": 2}), error != none, "{server}");
            if let Some(client) = spans.get(1) {
                assert_eq!(client["attributes"]["error.type"], hop_error, "{client}");
                assert_eq!(client["status"] == json!({"code": 2}), hop_error != none, "{client}");
                let status = &client["attributes"]["http.response.status_code"];
                assert_eq!(status, hop_status, "{client}");
            }
        }
    }

    #[test]
    fn a_failed_exchange_ends_with_its_failure() {
        let failed =
            Finished { status: Some(504), code: Some(Code::UpstreamTimeout), ..finished() };
        let end = &told(failed)[1]["endTimeUnixNano"];
        assert_eq!(*end, "1700000000127050000");
    }

    #[test]
    fn what_callers_choose_is_bounded_and_masked() {
        let long = format!("/{}é", "x".repeat(PATH_BYTES_MAX - 2));
        let key = "sk_0123456789abcdef0123456789abcdef";
        let mut asked = finished();
        asked.method = Method::from_bytes(b"BREW").unwrap();
        asked.route = None;
        asked.path = long.clone().into();
        let [server, client] = &*told(asked.clone()) else { panic!("two spans") };
        assert_eq!(server["name"], "_OTHER");
        assert_eq!(server["attributes"]["http.request.method_original"], "BREW");
        assert_eq!(server["attributes"]["url.path"], long.trim_end_matches('é'));
        assert_eq!(client["name"], "_OTHER");
        asked.path = format!("/x/{key}/y").into();
        for span in told(asked) {
            let text = span.to_string();
            assert!(text.contains("sk_0123…/y") && !text.contains(key), "{text}");
        }
    }

    #[test]
    fn the_first_span_of_a_trace_has_no_parent() {
        let mut first = finished();
        first.trace.parent = None;
        let server = &told(first)[0];
        assert!(server.get("parentSpanId").is_none(), "{server}");
        assert_eq!(server["flags"], 0x103);
    }

    #[test]
    fn who_they_are_from() {
        let more = [("deployment.environment.name", "test"), ("service.version", "mine")]
            .map(|(key, value)| (key.into(), value.into()));
        let resource = Resource::new("gate", "i1", &more);
        let body = encode(&resource, &[finished()]);
        let request: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            plain(&request["resourceSpans"][0]["resource"]["attributes"]),
            json!({
                "service.name": "gate",
                "service.instance.id": "i1",
                "deployment.environment.name": "test",
                "service.version": "mine",
            })
        );
        assert_eq!(encode(&resource, &[]), br#"{"resourceSpans":[]}"#);
    }

    #[test]
    fn what_a_collector_did_not_take() {
        for (body, expected) in [
            ("", (0, "")),
            ("{}", (0, "")),
            (r#"{"partialSuccess":{}}"#, (0, "")),
            (r#"{"partialSuccess":null}"#, (0, "")),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"a\nb"}}"#, (3, "a b")),
            (r#"{"partialSuccess":{"rejectedSpans":2}, "more": 1}"#, (2, "")),
            (r#"{"partialSuccess":{"errorMessage":"only a warning"}}"#, (0, "only a warning")),
            (r#"{"partialSuccess":{"rejectedSpans":"-1"}}"#, (0, "")),
            ("<html>", (0, "")),
        ] {
            let (count, message) = rejected(body.as_bytes());
            assert_eq!((count, &*message), expected, "{body}");
        }
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), MESSAGE_CHARS_MAX);
    }
}
