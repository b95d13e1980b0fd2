//! OpenMetrics, as two readers see it that are not ours: the parser of Prometheus' client for
//! Python, and Prometheus, which keeps the exemplars.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::scene::Scene;
use crate::support::http::{Response, get};
use crate::support::idp::unix_now;
use crate::support::until;
use crate::support::world::world;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Reads either form and tells every sample, every unit and every exemplar as JSON.
const READER: &str = "
import json, sys
text = sys.stdin.read()
if sys.argv[1] == 'openmetrics':
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
else:
    from prometheus_client.parser import text_string_to_metric_families as read
samples, families, exemplars = {}, {}, []
for family in read(text):
    families[family.name] = [family.type, getattr(family, 'unit', ''), family.documentation]
    for sample in family.samples:
        labels = dict(sample.labels)
        if 'le' in labels:
            labels['le'] = repr(float(labels['le']))
        samples[sample.name + json.dumps(labels, sort_keys=True)] = repr(float(sample.value))
        if sample.exemplar:
            exemplars.append([sample.name, labels, sample.exemplar.labels,
                              sample.exemplar.value, float(sample.exemplar.timestamp)])
json.dump({'samples': samples, 'families': families, 'exemplars': exemplars}, sys.stdout)
";

fn parsed(form: &str, text: &str) -> Value {
    let python = std::env::var("LATCHKEY_TEST_PROMETHEUS_CLIENT").unwrap_or_else(|_| {
        panic!("LATCHKEY_TEST_PROMETHEUS_CLIENT names no folder; `tests/run observability` does")
    });
    let mut child = Command::new("python3")
        .args(["-c", READER, form])
        .env("PYTHONPATH", python)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{form}: {complaint}\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_form_is_what_was_asked_for() {
    let w = world("");
    let ask = |accept: Option<&str>| -> Response {
        let request = get("/metrics");
        let request = accept.into_iter().fold(request, |r, accept| r.header("Accept", accept));
        w.gateway.send_admin(&request)
    };
    for (accept, expected) in [
        (None, "text/plain; version=0.0.4"),
        (Some("*/*"), "text/plain; version=0.0.4"),
        (Some("text/plain;q=0.9, application/openmetrics-text;q=0.5"), "text/plain; version=0.0.4"),
        (Some(OPEN_METRICS), "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ] {
        let response = ask(accept);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("Content-Type"), Some(expected), "{accept:?}");
        assert_eq!(response.header("Vary"), Some("accept"));
        let is_open = expected.contains("openmetrics");
        assert_eq!(response.text().ends_with("\n# EOF\n"), is_open, "{accept:?}");
    }
    // Several fields are one list.
    let both = get("/metrics").header("Accept", "text/plain;q=0.1").header("Accept", OPEN_METRICS);
    assert!(w.gateway.send_admin(&both).text().ends_with("# EOF\n"));
}

#[test]
fn an_exemplar_names_a_request_that_was() {
    let w = world("");
    let response = w.gateway.send(&get("/api/search/x"));
    let id = response.header("X-Request-Id").unwrap();
    // A request has ended a moment after its response was read.
    let text = until(|| {
        let text = w.gateway.send_admin(&get("/metrics").header("Accept", OPEN_METRICS)).text();
        text.contains("# {request_id=").then_some(text)
    });
    let mut lines = text.lines().filter(|line| line.contains("# {"));
    let line = lines.next().unwrap();
    let start = "latchkey_request_duration_seconds_bucket{outcome=\"allowed\",le=\"";
    assert!(line.starts_with(start), "{line}");
    assert!(line.contains(&format!(" 1 # {{request_id=\"{id}\"}} ")), "{line}");
    assert_eq!(lines.next(), None);
    let at: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a time of these days")]
    let now = unix_now() as f64;
    assert!((now - at).abs() < 60.0, "{line}");
    // Who does not ask for them gets none.
    assert!(!w.gateway.metrics().contains(id));
}

#[test]
#[ignore = "needs Prometheus' client for Python: tests/run observability"]
fn another_parser_reads_the_same_in_both_forms() {
    let w = world(
        "[[issuers]]\nname = \"id\"\nissuer = \"http://127.0.0.1:9\"\naudiences = [\"a\"]\n\
         jwks_url = \"http://127.0.0.1:9/keys\"\n",
    );
    let (_, secret) = w.gateway.key("demo", &json!({}));
    for request in [
        get("/api/plugin/shops/demo/x").key(&secret),
        get("/api/plugin/shops/demo/x"),
        get("/nowhere"),
        get("/api/search/x"),
    ] {
        w.gateway.send(&request);
    }
    until(|| w.gateway.metrics().contains("latchkey_connections 0\n").then_some(()));
    let ask = |accept| w.gateway.send_admin(&get("/metrics").header("Accept", accept)).text();
    let open = parsed("openmetrics", &ask(OPEN_METRICS));
    let text = parsed("text", &ask("text/plain"));
    let samples = |read: &Value| -> BTreeMap<String, String> {
        // What moves by itself from one reading to the next.
        let moves = |name: &str| {
            ["process_", "latchkey_jwks_", "latchkey_store_", "latchkey_usage_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        let all = read["samples"].as_object().unwrap().iter();
        let value = |(name, value): (&String, &Value)| {
            let value = if moves(name) { "moves" } else { value.as_str().unwrap() };
            (name.clone(), value.to_owned())
        };
        all.map(value).collect()
    };
    let (open_samples, text_samples) = (samples(&open), samples(&text));
    assert!(open_samples.len() > 300, "{}", open_samples.len());
    assert_eq!(open_samples, text_samples);
    let families = open["families"].as_object().unwrap();
    for (name, expected) in [
        ("latchkey_request_duration_seconds", json!(["histogram", "seconds"])),
        ("latchkey_response_body_bytes", json!(["counter", "bytes"])),
        ("latchkey_decisions", json!(["counter", ""])),
        ("latchkey_build", json!(["info", ""])),
        ("process_resident_memory_bytes", json!(["gauge", "bytes"])),
        ("latchkey_limiter_cells", json!(["gauge", ""])),
    ] {
        let found = families.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(json!([found[0], found[1]]), expected, "{name}");
    }
    for (name, family) in families {
        let help = family[2].as_str().unwrap();
        assert!(help.ends_with('.') && help.len() > 5, "{name}: {help}");
        assert_ne!(family[0], "unknown", "{name}");
    }
    let exemplars = open["exemplars"].as_array().unwrap();
    assert!(!exemplars.is_empty());
    for exemplar in exemplars {
        assert_eq!(exemplar[0], "latchkey_request_duration_seconds_bucket");
        let within: f64 = exemplar[1]["le"].as_str().unwrap().parse().unwrap();
        assert!(exemplar[3].as_f64().unwrap() <= within, "{exemplar}");
    }
}

#[test]
#[ignore = "needs a running Prometheus, and some seconds of load: tests/run observability"]
fn prometheus_keeps_the_exemplars() {
    let scene = Scene::start();
    let query = "latchkey_request_duration_seconds_bucket{outcome=\"allowed\"}";
    let (start, end) = ((unix_now() - 600).to_string(), (unix_now() + 600).to_string());
    let parameters = [("query", query), ("start", start.as_str()), ("end", end.as_str())];
    let seen = until(|| {
        let answer = scene.prometheus.api("query_exemplars", &parameters);
        let series = answer["data"].as_array()?.clone();
        let exemplars: Vec<Value> =
            series.iter().flat_map(|s| s["exemplars"].as_array().unwrap().clone()).collect();
        (exemplars.len() >= 3).then_some(exemplars)
    });
    // Allowed requests have reached the upstream, which was told their names.
    let received = scene.upstream.received();
    let known: Vec<&str> =
        received.iter().filter_map(|request| request.header("X-Request-Id")).collect();
    let kept: Vec<&str> =
        seen.iter().map(|exemplar| exemplar["labels"]["request_id"].as_str().unwrap()).collect();
    assert!(kept.iter().all(|id| known.contains(id)), "{kept:?} not among {}", known.len());
}
