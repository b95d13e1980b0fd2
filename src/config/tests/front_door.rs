//! The keys of the front door: whom to believe, TLS, HTTP/2, routes, browsers, proxies.

use super::*;
use crate::decision::policy::Route;

#[test]
fn bounds_are_never_zero_nor_out_of_range() {
    for (key, low, high) in [
        ("server.connections_per_address_max", "1", "1000000"),
        ("server.requests_max", "1", "10000000"),
        ("server.h2.streams_max", "1", "10000"),
        ("server.h2.pending_resets_max", "1", "10000"),
        ("server.h2.local_resets_max", "1", "10000"),
        ("log.access_sample", "1", "1000000"),
        ("log.queue_lines_max", "16", "1048576"),
        ("upstreams.default.ejection.failures", "1", "10000"),
    ] {
        ends(key, low, high, "0", "10000001");
    }
    for (key, low, high) in [
        ("server.first_byte_timeout", "'1ms'", "'1h'"),
        ("server.request_timeout", "'1ms'", "'7d'"),
        ("server.tunnel_idle_timeout", "'1ms'", "'7d'"),
        ("server.h2.keep_alive_interval", "'1ms'", "'1h'"),
        ("server.h2.keep_alive_timeout", "'1ms'", "'1h'"),
        ("upstreams.default.total_timeout", "'1ms'", "'7d'"),
        ("upstreams.default.ejection.time", "'1ms'", "'1h'"),
        ("cors.max_age", "'1s'", "'1d'"),
        ("assertion.lifetime", "'5s'", "'5m'"),
        ("assertion.key_rotation", "'31s'", "'365d'"),
    ] {
        ends(key, low, high, "'0s'", "'366d'");
    }
    for (key, low, high) in [
        ("server.h2.stream_window_bytes", "'16KiB'", "'1GiB'"),
        ("server.h2.connection_window_bytes", "'64KiB'", "'1GiB'"),
        ("server.h2.send_buffer_bytes", "'16KiB'", "'64MiB'"),
    ] {
        ends(key, low, high, "0", "'2GiB'");
    }
    // A count of tries is no bound: none is none.
    ends("upstreams.default.connect_retries_max", "0", "10", "-1", "11");
}

/// Takes `low` and `high` at `key`; refuses `under`, never as "unlimited", and `over`.
#[track_caller]
pub(super) fn ends(key: &str, low: &str, high: &str, under: &str, over: &str) {
    for value in [low, high] {
        good(&format!("{key} = {value}"));
    }
    let zero = under.trim_matches('\'').trim_end_matches('s') == "0";
    let under_says = if zero { "zero never means unlimited; write " } else { " is out of range" };
    for (value, says) in [(under, under_says), (over, " is out of range; write ")] {
        let errors = load(&sources(&format!("{key} = {value}"))).unwrap_err().to_string();
        let expected = format!("latchkey.toml: {key}: ");
        assert!(errors.starts_with(&expected) && errors.contains(says), "{errors}");
        assert!(!errors.contains('\n'), "{errors}");
    }
}

#[test]
fn networks_of_proxies() {
    let config = good(
        "[server]\ntrusted_proxies = ['10.0.0.0/8', '192.0.2.7', 'fd00::/8', '::1']\n\
         forwarding_header = 'forwarded'\nproxy_protocol = true",
    );
    let shown: Vec<String> =
        config.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "::1/128"]);
    assert_eq!(config.server.forwarding_header, ForwardingHeader::Forwarded);
    assert!(config.server.proxy_protocol);
    for (network, expected) in [
        (
            "proxy.internal",
            "\"proxy.internal\" is not a network; write e.g. \"10.0.0.0/8\", \"fd00::/8\" or \
             \"::1\"",
        ),
        (
            "10.0.0.0/33",
            "\"10.0.0.0/33\" is not a network; write e.g. \"10.0.0.0/8\", \"fd00::/8\" or \"::1\"",
        ),
        ("10.1.2.3/8", "\"10.1.2.3/8\" has an address within the network; write \"10.0.0.0/8\""),
        (
            "0.0.0.0/0",
            "\"0.0.0.0/0\" is everybody: every caller could say who they are; name the proxies' \
             own networks",
        ),
        (
            "::/0",
            "\"::/0\" is everybody: every caller could say who they are; name the proxies' own \
             networks",
        ),
        (
            "::ffff:10.0.0.0/104",
            "\"::ffff:10.0.0.0/104\" is IPv4 written as IPv6; write the IPv4 network",
        ),
        ("::ffff:10.0.0.1", "\"::ffff:10.0.0.1\" is IPv4 written as IPv6; write the IPv4 network"),
    ] {
        let text = format!("[server]\ntrusted_proxies = ['{network}']");
        check_rows(&[(&text, &format!("server.trusted_proxies[0]: {expected}"))]);
    }
}

#[test]
fn what_needs_trusted_proxies_says_so() {
    check_rows(&[
        (
            "[server]\nproxy_protocol = true",
            "server.proxy_protocol: needs trusted_proxies: a PROXY header is taken from them alone",
        ),
        (
            "[forward_auth]\ncontracts = ['nginx']",
            "forward_auth.contracts: need server.trusted_proxies: what a proxy says of the \
             original request is taken from them alone",
        ),
        (
            "[server]\nforwarding_header = 'X-Forwarded-For'",
            "server.forwarding_header: \"X-Forwarded-For\" is none of \"x-forwarded-for\", \
             \"forwarded\"",
        ),
    ]);
    let trusted = "[server]\ntrusted_proxies = ['::1']\n[forward_auth]\n";
    let all = "contracts = ['nginx', 'traefik', 'caddy', 'haproxy', 'envoy']";
    let config = good(&format!("{trusted}{all}"));
    assert_eq!(config.forward_auth.contracts, Contract::ALL);
    check_rows(&[
        (
            &format!("{trusted}contracts = ['apache']"),
            "forward_auth.contracts[0]: \"apache\" is none of \"nginx\", \"traefik\", \"caddy\", \
             \"haproxy\", \"envoy\"",
        ),
        (
            &format!("{trusted}contracts = ['envoy', 'nginx', 'envoy']"),
            "forward_auth.contracts[2]: \"envoy\" stands twice",
        ),
    ]);
}

const CERTIFICATES: &str = "certificates = [{ chain_file = 'a.pem', key_file = 'a.key' }]";

fn tls(more: &str) -> String {
    format!("[server.tls]\n{CERTIFICATES}\n{more}")
}

#[test]
fn tls_that_would_not_be() {
    check_rows(&[
        // Half a table is not taken for a plain listener.
        (
            "[server.tls]\nmin_version = '1.3'",
            "server.tls.certificates: is missing; write [{ chain_file = \"…\", \
             key_file = \"…\" }], or [] for a plain listener",
        ),
        (
            "[server.tls]\ncertificates = []\nclient_auth = 'required'\nclient_ca_file = 'x'",
            "server.tls.client_auth: needs certificates: without them the listener is plain",
        ),
        (
            &tls("client_auth = 'optional'"),
            "server.tls.client_ca_file: is missing; client_auth needs the roots of clients' \
             certificates",
        ),
        (
            &tls("client_ca_file = 'x'"),
            "server.tls.client_ca_file: is of no use while client_auth is \"off\"; write \
             \"optional\" or \"required\" there, or leave this out",
        ),
        (&tls("client_auth = true"), "server.tls.client_auth: true is not a text in quotes"),
        (
            &tls("min_version = '1.1'"),
            "server.tls.min_version: \"1.1\" is none of \"1.2\", \"1.3\"",
        ),
        (
            &tls("watch_interval = '0s'"),
            "server.tls.watch_interval: zero never means unlimited; write \"1ms\" to \"1h\"",
        ),
        (
            &tls("handshake_timeout = '2h'"),
            "server.tls.handshake_timeout: \"2h\" is out of range; write \"1ms\" to \"1h\"",
        ),
        (
            "[server.tls]\ncertificates = [{ chain_file = 'a.pem' }]",
            "server.tls.certificates[0].key_file: is missing; write the path of a PEM file",
        ),
        (
            "[[server.tls.certificates]]\nchain_file = ''\nkey_file = 'k'",
            "server.tls.certificates[0].chain_file: \"\" is not a path",
        ),
        (
            "[server.tls]\ncertificates = [{ chain_file = 'a', key_file = 'b', name = 'x' }]",
            "server.tls.certificates[0].name: unknown key; known here: chain_file, key_file",
        ),
        ("[server.tls]\ncertificates = ['a']", "server.tls.certificates[0]: \"a\" is not a table"),
        ("server.tls = true", "server.tls: true is not a table"),
        ("server.h2 = 1", "server.h2: 1 is not a table"),
        (
            &format!("[server]\nh2c = true\n{}", tls("")),
            "server.h2c: is for plain connections; with certificates callers agree on HTTP/2 in \
             the TLS handshake; leave it out",
        ),
    ]);
}

#[test]
fn tls_as_written() {
    for text in ["", "[server.tls]", "[server.tls]\ncertificates = []\nmin_version = '1.3'"] {
        assert_eq!(good(text).server.tls, None, "{text}");
    }
    let files = |name: &str| CertificateFiles {
        chain_file: format!("{name}.pem").into(),
        key_file: format!("{name}.key").into(),
    };
    let mut expected = TlsConfig {
        certificates: vec![files("a")],
        client_auth: ClientAuth::Off,
        client_ca_file: None,
        min_version: TlsVersion::Tls12,
        handshake_timeout: Duration::from_secs(10),
        watch_interval: Duration::from_secs(10),
    };
    assert_eq!(good(&tls("")).server.tls, Some(expected.clone()));
    expected.certificates.push(files("b"));
    expected.client_auth = ClientAuth::Required;
    expected.client_ca_file = Some("ca.pem".into());
    expected.min_version = TlsVersion::Tls13;
    let config = good(
        "[server.tls]\nclient_auth = 'required'\nclient_ca_file = 'ca.pem'\nmin_version = '1.3'\n\
         [[server.tls.certificates]]\nchain_file = 'a.pem'\nkey_file = 'a.key'\n\
         [[server.tls.certificates]]\nchain_file = 'b.pem'\nkey_file = 'b.key'\n",
    );
    assert_eq!(config.server.tls, Some(expected.clone()));
    let again = good(&config.print());
    assert_eq!(again.server.tls, Some(expected));
    let variable = "[{chain_file=\"a.pem\",key_file=\"a.key\"}]";
    let config = load(&with_environment("", &[("LATCHKEY_SERVER__TLS__CERTIFICATES", variable)]));
    assert_eq!(config.unwrap().server.tls.unwrap().certificates, [files("a")]);
}

/// The example of TLS stands in prose, because it is no default; it is true all the same.
#[test]
fn the_shipped_example_of_tls_parses() {
    let above = SHIPPED.split("[server.tls]").next().unwrap().rsplit("# --- ").next().unwrap();
    let example: Vec<&str> = above.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
    let config = good(&format!("[server.tls]\n{}", example.join("\n")));
    let tls = config.server.tls.unwrap();
    assert_eq!(tls.certificates.len(), 2);
    assert_eq!(tls.client_auth, ClientAuth::Required);
}

/// A route `r` that takes API keys; `more` goes into it.
fn route(more: &str) -> String {
    format!(
        "[[routes]]\nname = 'r'\npaths = ['/{{shopId}}/r']\nmechanisms = ['shop_api_key']\n{more}\n"
    )
}

fn first(text: &str) -> Route {
    good(text).policies.routes[0].clone()
}

#[test]
fn routes_that_would_take_too_much() {
    let origin = "write e.g. \"https://app.example\" or \"https://*.example.com\"";
    for (more, expected) in [
        (
            "body_bytes_max = 0",
            "body_bytes_max: zero never means unlimited; write \"1B\" to \"1024GiB\"".to_owned(),
        ),
        (
            "upgrades = ['web socket']",
            "upgrades[0]: \"web socket\" is not a protocol; write e.g. \"websocket\"".into(),
        ),
        ("upgrades = ['']", "upgrades[0]: \"\" is not a protocol; write e.g. \"websocket\"".into()),
        (
            "upgrades = ['a/b/c']",
            "upgrades[0]: \"a/b/c\" is not a protocol; write e.g. \"websocket\"".into(),
        ),
        ("upgrades = ['H2C']", "upgrades[0]: \"H2C\" would carry requests past every check".into()),
        (
            "upgrades = ['websocket', 'HTTP/2.0']",
            "upgrades[1]: \"HTTP/2.0\" would carry requests past every check".into(),
        ),
        (
            "upgrades = ['tls/1.0']",
            "upgrades[0]: \"tls/1.0\" would carry requests past every check".into(),
        ),
        (
            "upgrades = ['websocket']\nanswer = 'widget_token'",
            "upgrades: needs an upstream to upgrade to; this route is answered by latchkey itself"
                .into(),
        ),
        (
            "origins = ['*']",
            format!(
                "origins[0]: \"*\" is not an origin: the host is not a valid host name or \
                 address; {origin}"
            ),
        ),
        (
            "origins = ['https://a.example', 'https://*.com']",
            format!(
                "origins[1]: \"https://*.com\" is not an origin: the host is not a valid host \
                 name or address; {origin}"
            ),
        ),
        (
            "origins = ['https://a.example/app']",
            format!(
                "origins[0]: \"https://a.example/app\" is not an origin: an origin is only \
                 scheme, host and port: no user, path, query or fragment; {origin}"
            ),
        ),
        (
            "origins = ['null://x']",
            format!(
                "origins[0]: \"null://x\" is not an origin: an origin starts with http:// or \
                 https://; {origin}"
            ),
        ),
    ] {
        check_rows(&[(&route(more), &format!("routes[0].{expected}"))]);
    }
}

#[test]
fn routes_as_written() {
    let written = first(&route(
        "body_bytes_max = '10MiB'\nupgrades = ['WebSocket', 'mqtt/5', 'websocket']\n\
         origins = ['https://app.example', 'https://*.example.com:8443']",
    ));
    assert_eq!(written.body_bytes_max, Some(10 << 20));
    assert_eq!(*written.upgrades, ["mqtt/5".into(), "websocket".into()]);
    let origins: Vec<String> = written.origins.iter().map(ToString::to_string).collect();
    assert_eq!(origins, ["https://app.example", "https://*.example.com:8443"]);
    good(&route("answer = 'widget_token'\nupgrades = []"));
}

#[test]
fn browsers_and_upstreams_are_told() {
    check_rows(&[
        (
            "[cors]\nrequest_headers = ['content type']",
            "cors.request_headers[0]: \"content type\" is not the name of a header field; write \
             e.g. \"content-type\"",
        ),
        (
            "[cors]\nexpose_headers = ['x', '*']",
            "cors.expose_headers[1]: \"*\" stands for nothing where credentials are sent; name \
             the fields",
        ),
        ("[assertion]\nissuer = ''", "assertion.issuer: \"\" is not 1 to 256 bytes of text"),
        (
            "[assertion]\nlifetime = '5m'\nkey_rotation = '60s'",
            "assertion.key_rotation: \"1m\" is not longer than assertion.lifetime, \"5m\"",
        ),
        ("[assertion]\nenabled = 1", "assertion.enabled: 1 is neither true nor false"),
    ]);
    let config = good(
        "[cors]\nrequest_headers = ['X-Trace-Id']\nexpose_headers = ['ETag']\nmax_age = '2h'\n\
         [assertion]\nenabled = true\nissuer = 'edge'\nlifetime = '1m'\nkey_rotation = '1d'\n\
         [log]\naccess = true\naccess_sample = 100\nqueue_lines_max = 64",
    );
    assert_eq!(config.cors.request_headers, [HeaderName::from_static("x-trace-id")]);
    assert_eq!(config.cors.expose_headers, [HeaderName::from_static("etag")]);
    assert!(config.assertion.enabled && &*config.assertion.issuer == "edge");
    assert!(config.log.access);
    assert_eq!((config.log.access_sample.get(), config.log.queue_lines_max.get()), (100, 64));
    let again = good(&config.print());
    assert_eq!(
        (again.cors, again.assertion, again.log),
        (config.cors, config.assertion, config.log)
    );
}

#[test]
fn all_mistakes_of_the_front_door_at_once() {
    let text = "[server]\nproxy_protocol = true\nh2c = 3\n[server.h2]\nstreams_max = 0\n\
                [server.tls]\nclient_auth = 'maybe'\n[upstreams.a]\nurls = ['x']\nhttp2 = 'no'\n\
                [upstreams.a.probe]\ntimeout = '0s'\n[cors]\nmax_age = '2d'\n\
                [forward_auth]\ncontracts = ['iis']\n[log]\naccess_sample = 0\n";
    let errors = load(&sources(text)).unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "server.proxy_protocol",
            "server.h2c",
            "server.h2.streams_max",
            "server.tls.certificates",
            "server.tls.client_auth",
            "upstreams.a.urls[0]",
            "upstreams.a.http2",
            "upstreams.a.probe.path",
            "upstreams.a.probe.timeout",
            "cors.max_age",
            "forward_auth.contracts[0]",
            "log.access_sample",
        ]
    );
}
