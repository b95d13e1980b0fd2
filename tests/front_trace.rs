//! Traces through the running binary: whose `traceparent` is taken, what the upstream is told, what
//! the log says, and spans on their way to a collector in every mood.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::collector::{Collector, Mood, secure};
use crate::support::gateway::{Gateway, Site};
use crate::support::h2::H2;
use crate::support::http::{Request, exchange, get, send_raw};
use crate::support::tls::Authority;
use crate::support::upstream::{Behaviour, Received, Upstream};
use crate::support::world::{World, world, world_with};
use crate::support::{secrets, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const FUTURE: &str = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
const PATH: &str = "/api/plugin/shops/demo/x";

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\nh2c = true\n";
const UNTRUSTED: &str = "[server]\nh2c = true\n";
/// For tests that send more than the default limits allow.
const ROOMY: &str = "[[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\n\
                     limit = 100000\nwindow = \"1m\"\n";

/// A request of the shop `demo`.
fn call(w: &World, path: &str) -> Request {
    let (_, secret) = w.gateway.key("demo", &json!({}));
    get(path).key(&secret)
}

/// The trace, the span and the flags that an upstream was told.
fn told(received: &Received) -> (String, String, u8) {
    let value = received.header("traceparent").unwrap_or_else(|| panic!("{}", received.head));
    assert_eq!(value.len(), 55, "{value}");
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, span, flags] = &*parts else { panic!("{value}") };
    let is_hex =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    assert!(*version == "00" && trace.len() == 32 && is_hex(trace), "{value}");
    assert!(span.len() == 16 && is_hex(span) && *trace != "0".repeat(32), "{value}");
    ((*trace).to_owned(), (*span).to_owned(), u8::from_str_radix(flags, 16).unwrap())
}

/// The line of the access log about the request called `id`.
fn access(gateway: &Gateway, id: &str) -> Value {
    gateway.wait_for_log(|e| e["target"] == "latchkey::access" && e["request_id"] == id)
}

/// Fields that are sent, whether their trace goes on, and what becomes of the state.
type Row = (&'static [(&'static str, &'static str)], bool, Option<&'static str>);

#[test]
fn a_trusted_proxys_trace_goes_on_and_nobody_elses() {
    let rows: [Row; 13] = [
        (&[("traceparent", PARENT), ("tracestate", STATE)], true, Some(STATE)),
        (&[("TraceParent", PARENT)], true, None),
        (&[("traceparent", FUTURE), ("tracestate", STATE)], true, Some(STATE)),
        (&[("traceparent", UNSAMPLED), ("tracestate", STATE)], true, Some(STATE)),
        (&[("traceparent", PARENT), ("tracestate", "no state")], true, None),
        (&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "a=2")], true, None),
        (&[("tracestate", STATE)], false, None),
        (&[("traceparent", PARENT), ("traceparent", PARENT), ("tracestate", STATE)], false, None),
        (&[("traceparent", PARENT), ("traceparent", ""), ("tracestate", STATE)], false, None),
        (&[("traceparent", ""), ("tracestate", STATE)], false, None),
        (&[("traceparent", "00-x"), ("tracestate", STATE)], false, None),
        (
            &[("traceparent", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
            false,
            None,
        ),
        (&[], false, None),
    ];
    for (config, trusted) in [(TRUSTED, true), (UNTRUSTED, false)] {
        let w = world(&format!("{config}[log]\naccess = true\n"));
        let (_, secret) = w.gateway.key("demo", &json!({}));
        let base = get(PATH).key(&secret);
        let mut seen = HashSet::new();
        for (fields, goes_on, state) in rows {
            for h2 in [false, true] {
                let row = (trusted, h2, fields);
                let response = if h2 {
                    let uri = format!("http://{}{PATH}", w.gateway.data);
                    let mut request = http::Request::builder().uri(uri);
                    for (name, value) in fields {
                        request = request.header(name.to_lowercase(), *value);
                    }
                    let request = request.header("x-shop-api-key", &secret);
                    H2::plain(w.gateway.data).send(request).unwrap()
                } else {
                    let with = |request: Request, (name, value): &(&str, &str)| {
                        request.header(name, value)
                    };
                    w.gateway.send(&fields.iter().fold(base.clone(), with))
                };
                assert_eq!(response.status, 200, "{row:?}");
                let received = w.upstream.last();
                let (trace, span, flags) = told(&received);
                let goes_on = goes_on && trusted;
                assert_eq!(trace == TRACE, goes_on, "{row:?}");
                assert_ne!(span, SPAN, "{row:?}");
                assert!(seen.insert(span.clone()), "{row:?}: a span of its own");
                if !goes_on {
                    assert!(seen.insert(trace.clone()), "{row:?}: a trace of its own");
                }
                // As the proxy says; else all are sampled, and their ids are random.
                let unsampled = fields.contains(&("traceparent", UNSAMPLED));
                let expected = if goes_on { u8::from(!unsampled) } else { 3 };
                assert_eq!(flags, expected, "{row:?}");
                let expected = state.filter(|_| goes_on);
                assert_eq!(received.header("tracestate"), expected, "{row:?}");
                let line = access(&w.gateway, response.header("x-request-id").unwrap());
                assert_eq!(line["trace_id"], trace, "{row:?}");
                assert_eq!(line["span_id"], span, "{row:?}");
            }
        }
    }
}

#[test]
fn nothing_else_in_a_request_says_which_trace_it_is_of() {
    let w = world(TRUSTED);
    let base = call(&w, PATH);
    for fields in [
        &[("Trace_Parent", PARENT), ("X-B3-TraceId", TRACE), ("uber-trace-id", TRACE)][..],
        &[("X-Request-Id", TRACE), ("X-Trace-Id", TRACE), ("b3", PARENT)],
    ] {
        let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
        assert_eq!(w.gateway.send(&fields.iter().fold(base.clone(), with)).status, 200);
        assert_ne!(told(&w.upstream.last()).0, TRACE);
    }
    // A field that a client has removed on the way is there again.
    let nominating = base.clone().header("traceparent", PARENT);
    let mut bytes = nominating.bytes("a");
    let close = b"Connection: close\r\n";
    let at = memchr::memmem::find(&bytes, close).unwrap();
    let nominated = b"Connection: close, traceparent, tracestate\r\n";
    bytes.splice(at..at + close.len(), nominated.iter().copied());
    let response = send_raw(w.gateway.data, &bytes);
    assert_eq!(response.status, 200);
    assert_eq!(told(&w.upstream.last()).0, TRACE);
}

#[test]
fn everybodys_trace_goes_on_where_that_is_wanted_but_nobody_elses_flag_counts() {
    let config = |ratio: &str| {
        format!("{UNTRUSTED}[tracing]\npropagate = \"always\"\nsample_ratio = {ratio}\n")
    };
    for (ratio, sampled) in [("0.0", 0), ("1", 1)] {
        let w = world(&config(ratio));
        let base = call(&w, PATH).header("tracestate", STATE);
        for parent in [PARENT, UNSAMPLED] {
            assert_eq!(w.gateway.send(&base.clone().header("traceparent", parent)).status, 200);
            let received = w.upstream.last();
            let (trace, _, flags) = told(&received);
            assert_eq!((&*trace, flags), (TRACE, sampled), "{ratio} {parent}");
            assert_eq!(received.header("tracestate"), Some(STATE));
        }
        assert_eq!(w.gateway.send(&base).status, 200);
        assert_eq!(told(&w.upstream.last()).2, 2 | sampled);
    }
}

#[test]
fn switched_off_the_fields_pass_as_they_come() {
    let w = world(&format!("{TRUSTED}[log]\naccess = true\n[tracing]\npropagate = \"off\"\n"));
    let base = call(&w, PATH);
    let twice = base.clone().header("traceparent", "any").header("traceparent", PARENT);
    let response = w.gateway.send(&twice.header("tracestate", "no state"));
    assert_eq!(response.status, 200);
    let received = w.upstream.last();
    assert_eq!(received.headers("traceparent"), ["any", PARENT]);
    assert_eq!(received.headers("tracestate"), ["no state"]);
    let line = access(&w.gateway, response.header("x-request-id").unwrap());
    assert_eq!((&line["trace_id"], &line["span_id"]), (&Value::Null, &Value::Null));
    assert_eq!(w.gateway.send(&base).status, 200);
    assert_eq!(w.upstream.last().headers("traceparent"), [""; 0]);
    // A reload switches them on.
    w.site.configure(Some(&w.upstream), TRUSTED);
    w.gateway.signal("HUP");
    until(|| {
        w.gateway.send(&base);
        w.upstream.last().header("traceparent").map(|_| ())
    });
}

#[test]
fn every_line_about_a_request_says_its_trace() {
    let config =
        format!("{TRUSTED}[forward_auth]\ncontracts = [\"nginx\"]\n[log]\naccess = true\n");
    let w = world_with(Behaviour::HangUp, &config);
    let about = |target: &'static str, message: &'static str, id: &str| {
        let id = id.to_owned();
        w.gateway.wait_for_log(move |event| {
            event["target"] == target && event["message"] == message && event["request_id"] == id
        })
    };
    let same = |lines: &[Value]| {
        for line in lines {
            assert_eq!(line["trace_id"], TRACE, "{line}");
            assert_eq!(line["span_id"], lines[0]["span_id"], "{line}");
            assert_eq!(line["span_id"].as_str().unwrap().len(), 16, "{line}");
        }
    };
    let id_of = |request: Request, status: u16| {
        let response = w.gateway.send(&request.header("traceparent", PARENT));
        assert_eq!(response.status, status);
        response.header("x-request-id").unwrap().to_owned()
    };
    let refusal = "latchkey::refusal";
    let ended = |id: &str| about("latchkey::access", "request ended", id);
    // Refused by the decision, and before it.
    for (request, status) in [(get(PATH), 401), (get("/nowhere"), 404), (get("/a%00b"), 400)] {
        let id = id_of(request, status);
        same(&[about(refusal, "request refused", &id), ended(&id)]);
    }
    // Admitted, and failed by the upstream.
    let id = id_of(call(&w, PATH), 502);
    same(&[about("latchkey::server", "admitted request failed", &id), ended(&id)]);
    // A question is of the trace that the proxy says.
    let question = |request: Request| {
        request
            .header("X-Original-URI", PATH)
            .header("X-Original-Method", "GET")
            .header("X-Original-Host", "demo.example")
            .header("X-Original-Scheme", "https")
            .header("X-Forwarded-For", "192.0.2.1")
    };
    let id = id_of(question(get("/.latchkey/auth/nginx")), 401);
    let asked = about("latchkey::server", "a proxy asks", &id);
    same(&[asked, about(refusal, "request refused", &id), ended(&id)]);
    let (_, secret) = w.gateway.key("demo", &json!({}));
    let id = id_of(question(get("/.latchkey/auth/nginx")).key(&secret), 200);
    same(&[ended(&id)]);
    // A response that breaks off.
    let w = world_with(Behaviour::CutBody, &config);
    let request = call(&w, PATH).header("traceparent", PARENT);
    exchange(w.gateway.data, &request.bytes("a"));
    let broken = w.gateway.wait_for_log(|event| {
        event["message"].as_str().is_some_and(|m| m.starts_with("upstream broke off a response"))
    });
    assert_eq!(broken["trace_id"], TRACE, "{broken}");
}

/// The spans of the request called `id`: its own, and that of its exchange, if there is one.
fn spans_of(collector: &Collector, id: &str) -> (Value, Option<Value>) {
    let server = |spans: &[Value]| {
        let found = spans.iter().find(|span| span["attributes"]["latchkey.request_id"] == id);
        found.cloned()
    };
    let spans = collector.wait(|spans| server(spans).is_some());
    let own = server(&spans).unwrap();
    let mut below = spans
        .iter()
        .filter(|span| span["traceId"] == own["traceId"] && span["parentSpanId"] == own["spanId"]);
    let hop = below.next().cloned();
    assert!(below.next().is_none(), "{spans:#?}");
    (own, hop)
}

/// What the metrics say of spans: exported, dropped, failed.
fn counted(gateway: &Gateway) -> [u64; 3] {
    let metrics = gateway.metrics();
    ["exported", "dropped", "failed"].map(|outcome| {
        let name = format!("latchkey_trace_spans_total{{outcome=\"{outcome}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    })
}

#[test]
fn spans_reach_the_collector_and_hang_together() {
    let collector = Collector::start();
    let resource = "service_name = \"gate\"\nresource = [\"deployment.environment.name=test\"]";
    let config = format!("{TRUSTED}[log]\naccess = true\n{}", collector.section(resource));
    let w = world(&config);
    let (key_id, secret) = w.gateway.key("demo", &json!({}));
    let request = get(&format!("{PATH}?page=7")).key(&secret).header("traceparent", PARENT);
    let response = w.gateway.send(&request.header("X-Forwarded-For", "192.0.2.9"));
    assert_eq!(response.status, 200);
    let id = response.header("x-request-id").unwrap();
    let (own, hop) = spans_of(&collector, id);
    let hop = hop.expect("the exchange with the upstream");
    assert_eq!(own["traceId"], TRACE);
    assert_eq!(own["parentSpanId"], SPAN);
    assert_eq!((&own["kind"], &hop["kind"]), (&json!(2), &json!(3)));
    assert_eq!((&own["flags"], &hop["flags"]), (&json!(0x301), &json!(0x101)));
    assert_eq!(own["name"], "GET /api/plugin/shops/{shopId}/*");
    // The upstream is called from the span of the exchange, the log speaks of the request's.
    let (trace, span, _) = told(&w.upstream.last());
    assert_eq!((json!(trace), json!(span)), (hop["traceId"].clone(), hop["spanId"].clone()));
    let line = access(&w.gateway, id);
    assert_eq!((&line["trace_id"], &line["span_id"]), (&own["traceId"], &own["spanId"]));
    for (name, expected) in [
        ("http.request.method", json!("GET")),
        ("url.scheme", json!("http")),
        ("url.path", json!(PATH)),
        ("http.route", json!("/api/plugin/shops/{shopId}/*")),
        ("http.response.status_code", json!(200)),
        ("http.response.body.size", json!(response.body.len())),
        ("network.protocol.version", json!("1.1")),
        ("client.address", json!("192.0.2.9")),
        ("latchkey.outcome", json!("allowed")),
        ("latchkey.mechanism", json!("shop_api_key")),
        ("latchkey.shop", json!("demo")),
        ("latchkey.key_id", json!(key_id)),
        ("latchkey.code", Value::Null),
        ("error.type", Value::Null),
    ] {
        assert_eq!(own["attributes"][name], expected, "{name}: {own:#}");
    }
    let upstream = w.upstream.address;
    for (name, expected) in [
        ("url.full", json!(format!("http://{upstream}{PATH}"))),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(upstream.port())),
        ("latchkey.upstream", json!("default")),
        ("http.response.status_code", json!(200)),
        ("http.request.resend_count", Value::Null),
    ] {
        assert_eq!(hop["attributes"][name], expected, "{name}: {hop:#}");
    }
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time(&own, "startTimeUnixNano") <= time(&hop, "startTimeUnixNano"));
    assert!(time(&hop, "endTimeUnixNano") <= time(&own, "endTimeUnixNano"));
    // Refused: no exchange.
    let refused = w.gateway.send(&get(PATH).header("traceparent", PARENT));
    let (own, hop) = spans_of(&collector, refused.header("x-request-id").unwrap());
    assert_eq!(hop, None);
    assert_eq!(own["attributes"]["latchkey.code"], "missing_credential");
    assert_eq!(own["attributes"]["latchkey.outcome"], "refused");
    assert_eq!(
        (&own["status"], &own["attributes"]["http.response.status_code"]),
        (&json!({}), &json!(401))
    );
    // Not sampled: not sent, however many there are.
    for _ in 0..5 {
        w.gateway.send(&get(PATH).header("traceparent", UNSAMPLED));
    }
    let last = w.gateway.send(&get("/last"));
    spans_of(&collector, last.header("x-request-id").unwrap());
    let came = collector.came();
    assert_eq!(came.iter().map(|delivery| delivery.spans.len()).sum::<usize>(), 4);
    let resource = &came[0].resource;
    assert_eq!(resource["service.name"], "gate");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    until(|| (counted(&w.gateway) == [4, 0, 0]).then_some(()));
    secrets::assert_none_leaked();
}

#[test]
fn a_failed_exchange_and_one_that_was_tried_again() {
    let collector = Collector::start();
    let config = format!("{TRUSTED}{}", collector.section(""));
    let w = world_with(Behaviour::HangUp, &config);
    let response = w.gateway.send(&call(&w, PATH));
    assert_eq!(response.status, 502);
    let (own, hop) = spans_of(&collector, response.header("x-request-id").unwrap());
    let hop = hop.unwrap();
    for span in [&own, &hop] {
        assert_eq!(span["attributes"]["error.type"], "upstream_error", "{span:#}");
        assert_eq!(span["status"], json!({"code": 2}), "{span:#}");
    }
    assert_eq!(own["attributes"]["latchkey.outcome"], "error");
    assert_eq!(hop["attributes"]["http.response.status_code"], Value::Null);
    // Nobody listens at either.
    let site = Site::new(
        None,
        &format!(
            "{config}[upstreams.two]\nurls = [\"http://127.0.0.1:9\", \"http://127.0.0.1:19\"]\n\
             [[routes]]\nname = \"two\"\npaths = [\"/two\"]\nmechanisms = [\"shop_api_key\"]\n\
             upstream = \"two\"\n"
        ),
    );
    let gateway = site.start();
    let (_, secret) = gateway.shop("demo").key("demo", &json!({}));
    let response = gateway.send(&get("/two").key(&secret));
    assert_eq!(response.status, 502);
    let (_, hop) = spans_of(&collector, response.header("x-request-id").unwrap());
    let attributes = &hop.unwrap()["attributes"];
    assert!(matches!(attributes["server.port"].as_u64(), Some(9 | 19)));
    assert_eq!(attributes["http.request.resend_count"], 1);
    assert_eq!(attributes["error.type"], "upstream_unreachable");
}

#[test]
fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let collector = Collector::start();
    let w = world(&format!("{TRUSTED}{}", collector.section("")));
    let busy = |status| Mood::Says(status, "Retry-After: 0\r\n", "busy");
    collector.acts(&[busy(429), busy(503), Mood::HangsUp], Mood::Takes);
    let refused = w.gateway.send(&get(PATH));
    spans_of(&collector, refused.header("x-request-id").unwrap());
    until(|| (counted(&w.gateway) == [1, 0, 0]).then_some(()));
    let came = collector.came();
    assert_eq!(came.len(), 4);
    assert!(came.windows(2).all(|two| two[0].spans == two[1].spans));
    // What it says is wrong stays wrong.
    collector.acts(&[Mood::Says(400, "", "no such field")], Mood::Takes);
    w.gateway.send(&get(PATH));
    until(|| (counted(&w.gateway) == [1, 0, 1]).then_some(()));
    let told = w.gateway.wait_for_log(|event| {
        event["message"]
            .as_str()
            .is_some_and(|m| m.starts_with("the collector does not take spans"))
    });
    assert_eq!(told["why"], "it answers 400: no such field");
    assert_eq!(collector.came().len(), 5);
    let partial = "{\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"too old\"}}";
    collector.acts(&[Mood::Says(200, "Content-Type: application/json\r\n", partial)], Mood::Takes);
    w.gateway.send(&get(PATH));
    until(|| (counted(&w.gateway) == [1, 0, 2]).then_some(()));
    w.gateway.send(&get(PATH));
    w.gateway.wait_for_log(|event| event["message"] == "the collector takes spans again");
}

#[test]
fn a_collector_that_hangs_costs_no_request_anything_and_a_bounded_memory() {
    let collector = Collector::start();
    collector.acts(&[], Mood::Hangs);
    let extra = "queue_max = 50\nbatch_max = 10\ntimeout = \"1h\"";
    let w = world(&format!("{TRUSTED}{}{ROOMY}", collector.section(extra)));
    let request = call(&w, PATH);
    for _ in 0..20 {
        assert_eq!(w.gateway.send(&request).status, 200);
    }
    // One batch hangs, fifty wait; the others are gone, and counted.
    for _ in 0..300 {
        assert_eq!(w.gateway.send(&request).status, 200);
    }
    let [exported, dropped, failed] = counted(&w.gateway);
    assert_eq!((exported, failed), (0, 0));
    assert!((2 * 250..=2 * 270).contains(&dropped), "{dropped}");
    assert_eq!(collector.came().len(), 1);
    // Nor does it keep the process from ending, for long.
    assert!(w.gateway.stop().success());
}

#[test]
fn a_collector_that_is_gone_is_told_of_once_and_found_again_by_a_reload() {
    let nobody = "[tracing.otlp]\nendpoint = \"http://127.0.0.1:9\"\ninterval = \"1ms\"\n";
    let w = world(&format!("{TRUSTED}{nobody}"));
    for _ in 0..50 {
        assert_eq!(w.gateway.send(&call(&w, PATH)).status, 200);
    }
    let collector = Collector::start();
    w.site.configure(Some(&w.upstream), &format!("{TRUSTED}{}", collector.section("")));
    w.gateway.signal("HUP");
    let line = "latchkey_config_reloads_total{result=\"success\"} 1";
    until(|| w.gateway.metrics().lines().any(|l| l == line).then_some(()));
    assert!(w.gateway.log_lines().iter().all(|line| !line.contains("needs a restart")));
    // And switched off again: nobody is told, and nothing is wrong.
    w.site.configure(Some(&w.upstream), TRUSTED);
    w.gateway.signal("HUP");
    let line = "latchkey_config_reloads_total{result=\"success\"} 2";
    until(|| w.gateway.metrics().lines().any(|l| l == line).then_some(()));
    let before = counted(&w.gateway);
    for _ in 0..20 {
        assert_eq!(w.gateway.send(&call(&w, PATH)).status, 200);
    }
    assert_eq!(counted(&w.gateway)[1], before[1], "what is not recorded is not dropped");
}

#[test]
fn what_is_left_is_sent_at_the_end() {
    let collector = Collector::start();
    let address = collector.address;
    let section = format!("[tracing.otlp]\nendpoint = \"http://{address}\"\ninterval = \"1h\"\n");
    let w = world(&format!("{TRUSTED}{section}"));
    let request = call(&w, PATH);
    for _ in 0..7 {
        assert_eq!(w.gateway.send(&request).status, 200);
    }
    assert_eq!(collector.came().len(), 0);
    assert!(w.gateway.stop().success());
    let [delivery] = &*collector.came() else { panic!("{:?}", collector.came()) };
    assert_eq!(delivery.spans.len(), 14);
}

#[test]
fn a_collector_behind_tls_with_a_secret() {
    let authority = Authority::new();
    authority.install("localhost", &authority.issue(&["localhost"]));
    let chain = CertificateDer::pem_file_iter(authority.path("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path("localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let server = Arc::new(server);
    let collector = Collector::start_with(move |stream| secure(&server, stream));
    let secret = "otlp-secret-0123456789abcdef0123456789abcdef";
    secrets::minted(secret);
    let headers = authority.path("otlp.headers");
    std::fs::write(
        &headers,
        format!("# of the collector\nAuthorization: Bearer {secret}\nX-Org: 7\n"),
    )
    .unwrap();
    let closed = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(&headers, closed).unwrap();
    let port = collector.address.port();
    let section = |ca: &str| {
        format!(
            "[tracing.otlp]\nendpoint = \"https://localhost:{port}/otlp/\"\ninterval = \"20ms\"\n\
             headers_file = \"{}\"\nca_file = \"{}\"\n",
            headers.display(),
            authority.path(ca).display(),
        )
    };
    let w = world(&format!("{TRUSTED}{}", section("ca.pem")));
    let refused = w.gateway.send(&get(PATH));
    spans_of(&collector, refused.header("x-request-id").unwrap());
    let head = &collector.came()[0].head;
    assert!(head.starts_with("POST /otlp/v1/traces HTTP/1.1\r\n"), "{head}");
    let has = |line: &str| head.lines().any(|l| l.eq_ignore_ascii_case(line));
    assert!(has(&format!("authorization: Bearer {secret}")) && has("x-org: 7"), "{head}");
    assert!(has(&format!("host: localhost:{port}")), "{head}");
    // A file that is wrong is no reason to go on without it: the old configuration stays.
    w.site.configure(Some(&w.upstream), &format!("{TRUSTED}{}", section("none.pem")));
    w.gateway.signal("HUP");
    w.gateway.wait_for_log(|event| {
        event["error"].as_str().is_some_and(|e| e.starts_with("tracing.otlp.ca_file: "))
    });
    let refused = w.gateway.send(&get(PATH));
    spans_of(&collector, refused.header("x-request-id").unwrap());
    let output = w.site.cli(&["config", "check"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    // Who is not who it should be gets nothing.
    let other = Authority::new();
    let mut site = section("ca.pem");
    site = site.replace(
        &authority.path("ca.pem").display().to_string(),
        &other.path("ca.pem").display().to_string(),
    );
    w.site.configure(Some(&w.upstream), &format!("{TRUSTED}{site}"));
    let before = collector.came().len();
    let output = w.site.cli(&["doctor", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|c| c["check"] == "collector");
    let check = check.unwrap();
    assert_eq!(check["status"], "warning", "{check}");
    assert!(check["detail"].as_str().unwrap().contains("certificate"), "{check}");
    assert_eq!(collector.came().len(), before);
    drop(w);
    secrets::assert_none_leaked();
}

#[test]
fn the_doctor_asks_the_collector() {
    let collector = Collector::start();
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), &collector.section(""));
    let check = || {
        let output = site.cli(&["doctor", "--output", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["check"] == "collector").unwrap()
    };
    let found = check();
    assert_eq!((&found["status"], &found["detail"]), (&json!("ok"), &json!("takes spans")));
    assert_eq!(found["subject"], format!("http://{}/v1/traces", collector.address));
    assert_eq!(collector.came()[0].spans.len(), 0);
    for (mood, detail) in [
        (Mood::Says(401, "", "who are you"), "it answers 401: who are you"),
        (Mood::Says(503, "", ""), "it answers 503"),
    ] {
        collector.acts(&[], mood);
        let found = check();
        assert_eq!((&found["status"], &found["detail"]), (&json!("warning"), &json!(detail)));
    }
}

#[test]
fn the_share_that_is_sampled_is_the_share_that_is_sent() {
    let collector = Collector::start();
    let w = world(&format!(
        "{UNTRUSTED}[tracing]\nsample_ratio = 0.3\n{}{ROOMY}",
        collector.section("")
    ));
    let request = call(&w, PATH).header("traceparent", PARENT);
    let mut sampled = 0;
    for _ in 0..400 {
        assert_eq!(w.gateway.send(&request).status, 200);
        sampled += usize::from(told(&w.upstream.last()).2 & 1);
    }
    assert!((70..=170).contains(&sampled), "{sampled}");
    let spans = collector.wait(|spans| spans.len() >= 2 * sampled);
    assert_eq!(spans.len(), 2 * sampled);
}
