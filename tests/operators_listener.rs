//! The admin listener as a network meets it: over TLS, behind proxies, under strange names, and
//! with more connections than one caller should have.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::gateway::Site;
use crate::support::http::{connect, get};
use crate::support::tls::Authority;
use crate::support::until;

fn secured(authority: &Authority, extra: &str) -> Site {
    authority.install("a", &authority.issue(&["admin.example"]));
    let section = authority.section_of("admin.tls", &["a"], extra);
    Site::new(None, &section)
}

#[test]
fn the_admin_plane_speaks_tls() {
    let authority = Authority::new();
    let site = secured(&authority, "watch_interval = \"20ms\"\nhandshake_timeout = \"1s\"");
    let gateway = site.start();
    let mut client = authority.client("admin.example");
    client.alpn = vec!["h2", "http/1.1"];
    let tls = client.connect(gateway.admin).unwrap();
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "and nothing else");
    drop(tls);
    assert_eq!(client.send(gateway.admin, &get("/livez")).status, 200);
    let metrics = client.send(gateway.admin, &get("/metrics")).text();
    let expiry = "latchkey_admin_tls_certificate_expiry_timestamp_seconds{certificate=\"0\"} ";
    assert!(metrics.lines().any(|line| line.starts_with(expiry)), "{metrics}");
    let page = client.send(gateway.admin, &get("/sign-in"));
    assert_eq!(page.status, 200, "the certificate's name is a name of ours");
    let cookies = page.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    for (_, cookie) in cookies {
        assert!(cookie.starts_with("__Host-") && cookie.ends_with("; Secure"), "{cookie}");
    }
    // Who does not speak TLS gets no answer; who says nothing is not waited for.
    let mut plain = connect(gateway.admin);
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1"), "{}", String::from_utf8_lossy(&answer));
    let mut silent = connect(gateway.admin);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    // The health check finds its way.
    site.cli_ok(&["healthcheck"]);

    let old = client.certificate(gateway.admin);
    authority.install("a", &authority.issue(&["admin.example"]));
    until(|| (client.certificate(gateway.admin) != old).then_some(()));
    std::fs::write(authority.path("a.pem"), "rubbish").unwrap();
    gateway.wait_for_log(|line| {
        line["message"] == "new certificates cannot be used; the old ones stay in force"
    });
    assert_eq!(client.send(gateway.admin, &get("/livez")).status, 200);
}

#[test]
fn certificates_that_cannot_be_used_are_told_at_the_start() {
    let authority = Authority::new();
    let site = secured(&authority, "");
    std::fs::remove_file(authority.path("a.key")).unwrap();
    let output = site.cli(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("a.key"), "{said}");
}

/// Another site's DNS may lead a browser here; it gets no page.
#[test]
fn pages_are_for_names_that_are_known() {
    let site = Site::new(None, "[admin]\npublic_url = \"https://latchkey.example\"\n");
    let gateway = site.start();
    for (host, status) in [
        ("latchkey.example", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("localhost:7", 200),
        ("evil.example", 421),
        ("latchkey.example.evil.example", 421),
        ("latchkey.example:8081", 421),
        ("", 421),
    ] {
        let page = gateway.send_admin(&get("/sign-in").header("Host", host));
        assert_eq!(page.status, status, "{host}: {}", page.text());
        let live = gateway.send_admin(&get("/livez").header("Host", host));
        assert_eq!(live.status, 200, "probes come under any name");
        let api = gateway.send_admin(&get("/api/v1/info").header("Host", host));
        assert_eq!(api.status, 401, "a token is asked for, not a name");
    }
}

/// Failed attempts are counted by the address behind the trusted proxies, which nobody else can
/// choose.
#[test]
fn addresses_behind_proxies() {
    for (trusted, expected) in [("[]", 429), ("[\"127.0.0.0/8\"]", 401)] {
        let extra = format!("[admin]\ntrusted_proxies = {trusted}\n[failed_attempts]\nlimit = 2\n");
        let site = Site::new(None, &extra);
        let gateway = site.start();
        let ask = |n: usize| {
            let forwarded = format!("198.51.100.{n}");
            let token = format!("lka_{}", "A".repeat(40));
            let request = get("/api/v1/info").bearer(&token);
            gateway.send_admin(&request.header("X-Forwarded-For", forwarded)).status
        };
        assert_eq!([ask(1), ask(2)], [401, 401]);
        assert_eq!(ask(3), expected, "{trusted}");
    }
}

/// One caller takes a part of the places and not all; when it leaves they are free again.
#[test]
fn no_caller_has_every_place() {
    let site = Site::new(None, "");
    let gateway = site.start();
    let mut held: Vec<TcpStream> = Vec::new();
    // Each has had an answer, so each has its place.
    while held.len() < 64 {
        let mut stream = connect(gateway.admin);
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "number {}", held.len());
        held.push(stream);
    }
    let mut refused = connect(gateway.admin);
    let read = refused.read(&mut [0; 1]);
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(held);
    until(|| {
        let mut stream = TcpStream::connect(gateway.admin).ok()?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        stream.read(&mut [0; 1024]).ok().filter(|n| *n > 0)
    });
}
