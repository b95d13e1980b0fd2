//! The keys of traces.

use super::front_door::ends;
use super::*;

fn otlp(more: &str) -> String {
    format!("[tracing.otlp]\nendpoint = 'http://127.0.0.1:4318'\n{more}")
}

fn exported(more: &str) -> OtlpConfig {
    good(&otlp(more)).tracing.otlp.unwrap()
}

/// A file of header fields, closed to others.
fn headers(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn by_default_trusted_proxies_are_believed_and_nothing_is_sent() {
    let tracing = good("").tracing;
    assert_eq!(tracing.propagate, Propagate::Trusted);
    assert_eq!(tracing.sample_ratio, SampleRatio::ALL);
    assert_eq!(tracing.otlp, None);
    assert_eq!(tracing.queue_max.get(), 4096);
    let otlp = exported("");
    assert_eq!(otlp.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!((&*otlp.service_name, &*otlp.resource), ("latchkey", &[][..]));
    assert_eq!((otlp.timeout, otlp.interval), (Duration::from_secs(10), Duration::from_secs(5)));
    assert_eq!(otlp.batch_max.get(), 512);
}

#[test]
fn bounds() {
    for (key, low, high) in
        [("tracing.otlp.batch_max", "1", "10000"), ("tracing.otlp.queue_max", "1", "1048576")]
    {
        ends(key, low, high, "0", "10000001");
    }
    for key in ["tracing.otlp.timeout", "tracing.otlp.interval"] {
        ends(key, "'1ms'", "'1h'", "'0s'", "'366d'");
    }
}

#[test]
fn shares() {
    let ratio =
        |text: &str| good(&format!("[tracing]\nsample_ratio = {text}")).tracing.sample_ratio;
    let top = (1u64 << 56) - 1;
    for (text, takes) in [
        ("0.0", [false, false, false]),
        ("0", [false, false, false]),
        ("0.5", [false, true, true]),
        ("1.0", [true, true, true]),
        ("1", [true, true, true]),
        ("1e-9", [false, false, true]),
    ] {
        let found = [0, 1 << 55, top].map(|randomness| ratio(text).takes(randomness));
        assert_eq!(found, takes, "{text}");
    }
    for ratio in [f64::NAN, f64::INFINITY, -0.1, 1.000_001] {
        assert_eq!(SampleRatio::new(ratio), None);
    }
    let said = with_environment("", &[("LATCHKEY_TRACING__SAMPLE_RATIO", "0.5")]);
    assert_eq!(load(&said).unwrap().tracing.sample_ratio, ratio("0.5"));
    let range =
        |shown: &str| format!("tracing.sample_ratio: {shown} is out of range; write 0.0 to 1.0");
    check_rows(&[
        ("[tracing]\nsample_ratio = 1.5", &range("1.5")),
        ("[tracing]\nsample_ratio = -1", &range("-1")),
        ("[tracing]\nsample_ratio = 2", &range("2")),
        ("[tracing]\nsample_ratio = nan", &range("NaN")),
        ("[tracing]\nsample_ratio = '0.5'", "tracing.sample_ratio: \"0.5\" is not a number"),
        ("[tracing]\nsample_ratio = true", "tracing.sample_ratio: true is not a number"),
    ]);
}

#[test]
fn addresses_of_collectors() {
    for (text, endpoint) in [
        ("http://a:1", "http://a:1/v1/traces"),
        ("http://a:1/", "http://a:1/v1/traces"),
        ("https://a/otlp", "https://a/otlp/v1/traces"),
        ("https://a/otlp/v1/traces", "https://a/otlp/v1/traces"),
        ("https://a/v1/traces/", "https://a/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ] {
        let config = good(&format!("[tracing.otlp]\nendpoint = '{text}'"));
        assert_eq!(config.tracing.otlp.unwrap().endpoint, endpoint);
    }
    let not_url = |shown: &str| {
        format!(
            "tracing.otlp.endpoint: \"{shown}\" is not an http or https URL; write e.g. \
             \"http://127.0.0.1:4318\""
        )
    };
    for text in ["", "a:4318", "127.0.0.1:4318", "grpc://a", "http://", "http://a:0", "http://a?b"]
    {
        let row = format!("[tracing.otlp]\nendpoint = '{text}'");
        check_rows(&[(&row, &not_url(text))]);
    }
    let said = load(&sources("[tracing.otlp]\nendpoint = 'http://me:hunter2@a'")).unwrap_err();
    let said = said.to_string();
    assert!(said.contains("user information") && !said.contains("hunter2"), "{said}");
    check_rows(&[(
        "tracing.propagate = 'off'\ntracing.otlp.endpoint = 'http://a'",
        "tracing.propagate: \"off\" leaves no traces to send to tracing.otlp.endpoint; write \
         \"trusted\", or leave the endpoint out",
    )]);
}

#[test]
fn what_spans_say_of_who_they_are_from() {
    let written = exported("resource = ['a.b = c=d ', 'e=f']\nservice_name = 'é'");
    let resource: Vec<_> =
        written.resource.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(resource, [("a.b", "c=d"), ("e", "f")]);
    assert_eq!(&*written.service_name, "é");
    let long = "x".repeat(257);
    let many: Vec<String> = (0..33).map(|n| format!("'k{n}=v'")).collect();
    for (more, says) in [
        ("resource = ['a']".to_owned(), "resource[0]: \"a\" is not name=value"),
        ("resource = ['=a']".to_owned(), "resource[0]: \"\" is not a text of 1 to 256"),
        ("resource = ['a=']".to_owned(), "resource[0]: \"\" is not a text of 1 to 256"),
        ("resource = ['a=b', 'a=c']".to_owned(), "resource[1]: \"a\" stands twice"),
        (format!("resource = [{}]", many.join(",")), "resource: holds 33 members; 32 is the most"),
        ("service_name = ''".to_owned(), "service_name: \"\" is not a text of 1 to 256"),
        ("service_name = \"a\\nb\"".to_owned(), "service_name: \"a\\nb\" is not a text of 1"),
        (format!("service_name = '{long}'"), "characters without control characters"),
    ] {
        let errors = load(&sources(&otlp(&more))).unwrap_err().to_string();
        assert!(errors.contains(says) && !errors.contains('\n'), "{errors}");
    }
}

#[test]
fn files_of_header_fields() {
    let file = headers("# c\n\n Authorization:  Bearer a:b \r\nx-org: 7\nx-org: 8\n");
    let fields = read_otlp_headers(file.path()).unwrap();
    let shown: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(shown, [("authorization", "Bearer a:b"), ("x-org", "7"), ("x-org", "8")]);
    assert!(!format!("{fields:?}").contains("Bearer"));
    let path = file.path().display().to_string();
    let config = exported(&format!("headers_file = '{path}'"));
    assert_eq!(config.headers_file.unwrap().display().to_string(), path);
    // Secrets do not go out in the clear.
    let far = |url: &str| format!("[tracing.otlp]\nendpoint = '{url}'\nheaders_file = '{path}'");
    for url in ["https://otel.example", "http://localhost:1", "http://127.0.0.9", "http://[::1]"] {
        good(&far(url));
    }
    check_rows(&[(
        &far("http://otel.example"),
        "tracing.otlp.headers_file: needs an endpoint with https (or on this machine): plain http \
         would show its secrets to everybody on the way",
    )]);
    let many = (0..17).map(|n| format!("x-{n}: 1")).collect::<Vec<_>>().join("\n");
    for (text, says) in [
        ("", " is empty"),
        ("hunter2", ", line 1: is not a header field; write Name: value"),
        ("a: b\nb c: hunter2", ", line 2: is not a header field"),
        ("a: hunter2\u{7f}", ", line 1: is not a header field"),
        ("Host: a", ", line 1: host is latchkey's to set"),
        ("content-type: a", ", line 1: content-type is latchkey's to set"),
        (&many, " holds 17 fields; 16 is the most"),
    ] {
        let file = headers(text);
        let said = read_otlp_headers(file.path()).unwrap_err();
        assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
    }
    let file = headers("a: b");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let row = otlp(&format!("headers_file = '{}'", file.path().display()));
    let said = load(&sources(&row)).unwrap_err().to_string();
    assert!(said.contains("headers_file: ") && said.contains("chmod o-rwx"), "{said}");
}

#[test]
fn whose_word_is_taken() {
    for (text, propagate) in
        [("always", Propagate::Always), ("trusted", Propagate::Trusted), ("off", Propagate::Off)]
    {
        let config = good(&format!("[tracing]\npropagate = '{text}'"));
        assert_eq!(config.tracing.propagate, propagate);
    }
    check_rows(&[(
        "[tracing]\npropagate = 'yes'",
        "tracing.propagate: \"yes\" is none of \"always\", \"trusted\", \"off\"",
    )]);
}
