//! The keys of an upstream: where it is, how it is verified, when it is left out.

use super::*;

fn upstream(more: &str) -> String {
    format!("[upstreams.a]\n{more}")
}

fn only(config: &Config) -> &UpstreamConfig {
    &config.upstreams[&Name::parse("a").unwrap()]
}

#[test]
fn one_url_or_several() {
    let many = (0..65).map(|i| format!("'http://h{i}'")).collect::<Vec<_>>().join(",");
    check_rows(&[
        (
            &upstream("url = 'http://b'\nurls = ['http://c']"),
            "upstreams.a.urls: stands beside `url`; an upstream has one or the other",
        ),
        (
            &upstream("urls = []"),
            "upstreams.a.urls: is empty; write e.g. [\"http://10.0.0.1:9000\", \
             \"http://10.0.0.2:9000\"]",
        ),
        (
            &upstream("urls = ['http://b', 'https://c']"),
            "upstreams.a.urls[1]: has another scheme than the first; the endpoints of an upstream \
             are all http or all https",
        ),
        (
            &upstream("urls = ['http://b', 'http://c', 'HTTP://B:80/']"),
            "upstreams.a.urls[2]: \"B:80\" stands twice",
        ),
        (
            &upstream("urls = ['http://b', 'ftp://c']"),
            "upstreams.a.urls[1]: \"ftp://c\" is not an http or https URL; write e.g. \
             \"http://127.0.0.1:9000\"",
        ),
        (&upstream(&format!("urls = [{many}]")), "upstreams.a.urls: holds 65 URLs; 64 is the most"),
    ]);
    let config = good(&upstream("urls = ['https://b', 'https://b:81', 'https://[::1]']"));
    let ports: Vec<_> = only(&config).endpoints.iter().map(|e| (e.host(), e.port())).collect();
    assert_eq!(ports, [("b", 443), ("b", 81), ("[::1]", 443)]);
    assert!(only(&config).endpoints.iter().all(|e| e.scheme == Scheme::Https));
    // The default upstream's own url gives way, from whatever source, and is not printed.
    let name = Name::parse("default").unwrap();
    let written = sources("[upstreams.default]\nurls = ['http://b', 'http://c']");
    let variable = with_environment("", &[("LATCHKEY_UPSTREAMS__DEFAULT__URLS", "[\"http://b\"]")]);
    for (given, count) in [(written, 2), (variable, 1)] {
        let config = load(&given).unwrap();
        assert_eq!(config.upstreams[&name].endpoints.len(), count);
        assert_eq!(good(&config.print()).upstreams, config.upstreams);
    }
}

#[test]
fn upstreams_by_https() {
    let plain = |key: &str| {
        let text = upstream(&format!("url = 'http://b'\n{key} = 'x'"));
        let expected = format!("upstreams.a.{key}: is for https; this upstream is reached by http");
        check_rows(&[(&text, &expected)]);
    };
    for key in ["ca_file", "server_name", "client_chain_file", "client_key_file"] {
        plain(key);
    }
    let secure = |more: &str| upstream(&format!("url = 'https://b'\n{more}"));
    check_rows(&[
        (
            &secure("client_chain_file = 'x'"),
            "upstreams.a.client_key_file: is missing; client_chain_file needs its key",
        ),
        (
            &secure("client_key_file = 'x'"),
            "upstreams.a.client_chain_file: is missing; client_key_file needs its certificate",
        ),
        (&secure("ca_file = ''"), "upstreams.a.ca_file: \"\" is not a path"),
        (
            &secure("server_name = 'a b'"),
            "upstreams.a.server_name: \"a b\" is not a host name or an address; write e.g. \
             \"api.internal\"",
        ),
        (
            &upstream("url = 'https://b-.internal'"),
            "upstreams.a.url: \"b-.internal\" cannot be the name in a certificate; write that \
             name as server_name",
        ),
        (
            &upstream("urls = ['https://b', 'https://-c']"),
            "upstreams.a.urls[1]: \"-c\" cannot be the name in a certificate; write that name as \
             server_name",
        ),
    ]);
    good(&upstream("url = 'https://b-.internal'\nserver_name = 'b.internal'"));
    good(&upstream("url = 'https://[::1]:9443'"));
    let config = good(&secure(
        "http2 = true\nca_file = 'ca.pem'\nserver_name = 'api.internal'\npreserve_host = true\n\
         client_chain_file = 'c.pem'\nclient_key_file = 'c.key'\nconnect_retries_max = 0",
    ));
    let expected = UpstreamTlsConfig {
        ca_file: Some("ca.pem".into()),
        server_name: Some("api.internal".try_into().unwrap()),
        client: Some(CertificateFiles { chain_file: "c.pem".into(), key_file: "c.key".into() }),
    };
    let a = only(&config);
    assert_eq!(a.tls.as_ref(), Some(&expected));
    assert!(a.http2 && a.preserve_host && a.connect_retries_max == 0);
    let bare = good(&secure(""));
    let expected = UpstreamTlsConfig { ca_file: None, server_name: None, client: None };
    assert_eq!(only(&bare).tls, Some(expected));
}

#[test]
fn probes() {
    let probe = |more: &str| upstream(&format!("url = 'http://b'\n[upstreams.a.probe]\n{more}"));
    check_rows(&[
        (
            &probe("interval = '1s'"),
            "upstreams.a.probe.path: is missing; write e.g. path = \"/health\"",
        ),
        (
            &probe("path = 'health'"),
            "upstreams.a.probe.path: \"health\" is not a path; write e.g. \"/health\"",
        ),
        (
            &probe("path = '/a b'"),
            "upstreams.a.probe.path: \"/a b\" is not a path; write e.g. \"/health\"",
        ),
        (
            &probe("path = '/a#b'"),
            "upstreams.a.probe.path: \"/a#b\" is not a path; write e.g. \"/health\"",
        ),
        (
            &probe("path = '/'\nfailures = 0"),
            "upstreams.a.probe.failures: zero never means unlimited; write 1 to 1000",
        ),
        (
            &probe("path = '/'\nsucesses = 1"),
            "upstreams.a.probe.sucesses: unknown key; did you mean `successes`?",
        ),
        (&upstream("url = 'http://b'\nprobe = 1"), "upstreams.a.probe: 1 is not a table"),
        (
            &upstream("url = 'http://b'\n[upstreams.a.ejection]\nafter = 1"),
            "upstreams.a.ejection.after: unknown key; known here: failures, time",
        ),
    ]);
    assert_eq!(only(&good(&probe(""))).probe, None);
    let config = good(&probe("path = '/up?deep=1'"));
    let expected = ProbeConfig {
        path: "/up?deep=1".parse().unwrap(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        failures: NonZeroU32::new(3).unwrap(),
        successes: NonZeroU32::new(2).unwrap(),
    };
    assert_eq!(only(&config).probe.as_ref(), Some(&expected));
    assert_eq!(only(&good(&config.print())).probe, Some(expected));
}
