//! The configuration as a person meets it: what they write, what they are told.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::LazyLock;

use http::HeaderName;
use http::uri::Authority;
use proptest::prelude::*;

use super::*;
use crate::decision::policy::{JwtAlgorithm, KeyBy, MechanismSet, Target};
use crate::decision::principal::Mechanism;
use crate::decision::rate_limit::{Algorithm, Quota};
use crate::decision::route::CanonicalPath;

mod front_door;
mod operators;
mod traces;
mod upstreams;

const SHIPPED: &str = include_str!("../../packaging/latchkey.toml");

fn sources(text: &str) -> Sources {
    Sources {
        file: ConfigFile::Inline { name: "latchkey.toml".into(), text: text.into() },
        ..Sources::default()
    }
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Sources {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    Sources { environment: variables.iter().map(pair).collect(), ..sources(text) }
}

#[track_caller]
fn good(text: &str) -> Config {
    load(&sources(text)).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[track_caller]
fn check(sources: &Sources, expected: &[&str]) {
    let errors = load(sources).map(|_| ()).unwrap_err();
    let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
    assert_eq!(lines, expected, "{sources:?}");
    assert_eq!(errors.to_string(), expected.join("\n"));
}

/// One mistake per row: what is written, and the only line that is said, without the file's name.
#[track_caller]
fn check_rows(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        check(&sources(text), &[&format!("latchkey.toml: {expected}")]);
    }
}

fn limit(more: &str) -> String {
    let base = "name = 'a'\npaths = ['/*']\nkey = 'address'";
    format!("[[limits]]\n{base}\n{more}\n")
}

fn issuer(more: &str) -> String {
    let base = "name = 'id'\nissuer = 'https://id.example'\naudiences = ['api']";
    format!("[[issuers]]\n{base}\n{more}\n")
}

#[test]
fn server_values_out_of_grammar_or_range() {
    check_rows(&[
        (
            "[server]\nlisten = 'localhost:80'",
            "server.listen: \"localhost:80\" is not an address; write IP:PORT, \
             e.g. \"127.0.0.1:8080\" or \"[::]:8080\"",
        ),
        ("[server]\nlisten = 8080", "server.listen: 8080 is not a text in quotes"),
        ("[server]\nworkers = 0", "server.workers: zero never means unlimited; write 1 to 1024"),
        ("[server]\nworkers = -1", "server.workers: -1 is out of range; write 1 to 1024"),
        ("[server]\nworkers = 1.5", "server.workers: 1.5 is not a whole number"),
        ("[server]\nworkers = '4'", "server.workers: \"4\" is not a whole number"),
        (
            "[server]\nheader_bytes_max = 100",
            "server.header_bytes_max: 100 is out of range; write \"8KiB\" to \"1MiB\"",
        ),
        (
            "[server]\nbody_bytes_max = '64MB'",
            "server.body_bytes_max: \"64MB\" is not a size; write e.g. \"16KiB\", \"64MiB\", \
             or bytes",
        ),
        (
            "[server]\nbody_bytes_max = 0",
            "server.body_bytes_max: zero never means unlimited; write \"1B\" to \"1024GiB\"",
        ),
        (
            "[server]\nhead_timeout = 10",
            "server.head_timeout: 10 is not a duration; write e.g. \"30s\", \"5m\", \"24h\"",
        ),
        (
            "[server]\nhead_timeout = '0s'",
            "server.head_timeout: zero never means unlimited; write \"1ms\" to \"1h\"",
        ),
        (
            "[server]\nhead_timeout = '-1s'",
            "server.head_timeout: \"-1s\" is not a duration; write e.g. \"30s\", \"5m\", \"24h\"",
        ),
        (
            "[server]\nhead_timeout = '18446744073709551615d'",
            "server.head_timeout: \"18446744073709551615d\" is not a duration; write e.g. \
             \"30s\", \"5m\", \"24h\"",
        ),
        (
            "[server]\nidle_timeout = '2h'",
            "server.idle_timeout: \"2h\" is out of range; write \"1ms\" to \"1h\"",
        ),
        (
            "[server]\nidle_timeout = 1979-05-27",
            "server.idle_timeout: a table is not a duration; write e.g. \"30s\", \"5m\", \"24h\"",
        ),
    ]);
}

#[test]
fn values_out_of_grammar_or_range() {
    check_rows(&[
        (
            "[admin]\nlisten = '127.0.0.1:8080'",
            "admin.listen: 127.0.0.1:8080 is taken by server.listen; give the admin plane \
             another port",
        ),
        ("[store]\npath = ''", "store.path: \"\" is not a path"),
        (
            &format!("[admin]\nsocket = '/{}'", "s".repeat(107)),
            &format!(
                "admin.socket: \"/{}…\" is longer than 107 bytes, the most a unix socket's path \
                 may have",
                "s".repeat(59)
            ),
        ),
        (
            "[store]\npath = '/x'\nmaster_key_file = '/x'",
            "store.master_key_file: is the database itself; the master key lives beside it, \
             never in it",
        ),
        ("[origin]\nscheme = 'lax'", "origin.scheme: \"lax\" is none of \"strict\", \"ignore\""),
        ("[origin]\nwww_alias = 'yes'", "origin.www_alias: \"yes\" is neither true nor false"),
        (
            "[widget]\nlifetime = '48h'",
            "widget.lifetime: \"2d\" is longer than widget.lifetime_max, \"1d\"",
        ),
        ("[widget]\nscopes = 'search'", "widget.scopes: \"search\" is not a list; write [\"…\"]"),
        (
            "[widget]\nscopes = ['*']",
            "widget.scopes[0]: `*` is what a credential holds to have every scope; name one scope",
        ),
        (
            "[widget]\nscopes = ['a b']",
            "widget.scopes[0]: \"a b\" is not a scope: 1 to 64 visible ASCII characters without \
             \" and \\",
        ),
        ("[widget]\nscopes = ['a', 'b', 'a']", "widget.scopes[2]: \"a\" stands twice"),
        (
            "[failed_attempts]\nlimit = 262144",
            "failed_attempts.limit: 262144 is out of range; write 1 to 262143",
        ),
        ("[limiter]\ncells = 1", "limiter.cells: 1 is out of range; write 64 to 16777216"),
        (
            "[log]\nlevel = 'inf'",
            "log.level: \"inf\" is not a log level; write one of off, error, warn, info, debug, \
             trace, or e.g. \"info,latchkey::server=debug\"",
        ),
        ("[log]\nformat = 'xml'", "log.format: \"xml\" is none of \"text\", \"json\""),
        ("server = 1", "server: 1 is not a table"),
        ("routes = 1", "routes: 1 is not a list of tables; write [[routes]]"),
        ("limits = [1]", "limits[0]: 1 is not a table"),
        ("upstreams = 'x'", "upstreams: \"x\" is not a table"),
    ]);
}

#[test]
fn upstreams_that_cannot_be_reached() {
    for (url, expected) in [
        (
            "http://a.example/api",
            "\"http://a.example/api\" has a path; requests keep their own, so write e.g. \
             \"http://127.0.0.1:9000\"",
        ),
        (
            "http://joe:hunter2@a.example",
            "a URL with user information is not accepted; write e.g. \"http://127.0.0.1:9000\"",
        ),
        (
            "a.example:9000",
            "\"a.example:9000\" is not an http or https URL; write e.g. \
             \"http://127.0.0.1:9000\"",
        ),
        (
            "http://a.example:99999",
            "\"http://a.example:99999\" is not an http or https URL; write e.g. \
             \"http://127.0.0.1:9000\"",
        ),
        (
            "http://a.example:",
            "\"http://a.example:\" is not an http or https URL; write e.g. \
             \"http://127.0.0.1:9000\"",
        ),
        (
            "http://",
            "\"http://\" is not an http or https URL; write e.g. \
             \"http://127.0.0.1:9000\"",
        ),
    ] {
        let text = format!("[upstreams.api]\nurl = '{url}'");
        check_rows(&[(&text, &format!("upstreams.api.url: {expected}"))]);
    }
    check_rows(&[
        (
            "[upstreams.api]",
            "upstreams.api.url: is missing; write e.g. url = \"http://127.0.0.1:9000\"",
        ),
        (
            "[upstreams.'Api 1']\nurl = 'http://a'",
            "upstreams.\"Api 1\": \"Api 1\" is not a name: 1 to 63 characters of a-z 0-9 - _, \
             the first a letter or digit",
        ),
    ]);
    let config = good("[upstreams.six]\nurl = 'http://[::1]:81/'");
    let six = &config.upstreams[&Name::parse("six").unwrap()];
    assert_eq!((six.endpoints[0].host(), six.endpoints[0].port()), ("[::1]", 81));
    assert_eq!(config.upstreams.len(), 2);
}

#[test]
fn routes_that_cannot_be_meant() {
    let route = |more: &str| format!("[[routes]]\nname = 'a'\npaths = ['/a/*']\n{more}\n");
    let key = "mechanisms = ['shop_api_key']";
    check_rows(&[
        (
            "routes = []",
            "routes: holds no route: every request would be 404; leave it out for the default \
             routes",
        ),
        (&route(""), "routes[0].mechanisms: is missing; write e.g. [\"shop_api_key\"]"),
        (
            &route("mechanisms = []"),
            "routes[0].mechanisms: is empty; write e.g. [\"shop_api_key\"]",
        ),
        (
            &route("mechanisms = ['api_key']"),
            "routes[0].mechanisms[0]: \"api_key\" is none of \"widget_token\", \"shop_api_key\", \
             \"jwt\", \"anonymous\"",
        ),
        (
            &route(&format!("{key}\nmethods = ['get']")),
            "routes[0].methods[0]: \"get\" is not a method; write e.g. \"GET\", \"POST\"",
        ),
        (
            &route(&format!("{key}\nmethods = []")),
            "routes[0].methods: is empty; leave it out for all methods",
        ),
        (
            &route(&format!("{key}\nupstream = 'defualt'")),
            "routes[0].upstream: there is no [upstreams.defualt]; did you mean `default`?",
        ),
        (
            &route(&format!("{key}\nupstream = 'x'")),
            "routes[0].upstream: there is no [upstreams.x]",
        ),
        (
            &route(&format!("{key}\nupstream = 'default'\nanswer = 'widget_token'")),
            "routes[0].upstream: stands beside `answer`; a route has one or the other",
        ),
        (
            &route(&format!("{key}\nanswer = 'widget_token'")),
            "routes[0].paths[0]: a route that answers with a widget token needs {shopId} in its \
             path",
        ),
        (
            "[[routes]]\nname = 'a'\npaths = ['/{shopId}/t']\nmechanisms = ['widget_token']\n\
             answer = 'widget_token'",
            "routes[0].mechanisms: a route that answers with a widget token takes \
             [\"shop_api_key\"] alone",
        ),
        (
            "[[routes]]\nname = 'a'\npaths = ['/a/*b']\nmechanisms = ['jwt']",
            "routes[0].paths[0]: \"/a/*b\" is not a path pattern: * may only stand at the end of \
             a path pattern",
        ),
        (
            &format!("{}{}", route(key), route(key)),
            "routes[1].name: \"a\" is already the name of number 0",
        ),
        (
            &route("mechanisms = ['widget_token']\nscopes = [{ paths = ['/a'], scope = 'serch' }]"),
            "routes[0].scopes[0].scope: \"serch\" is not in widget.scopes; did you mean `search`?",
        ),
        (
            &route("mechanisms = ['jwt']\nscopes = [{ paths = ['/a'], scop = 'x', scope = 'y' }]"),
            "routes[0].scopes[0].scop: unknown key; did you mean `scope`?",
        ),
    ]);
}

#[test]
fn routes_that_are_never_reached() {
    let table = |first: &str, second: &str| {
        let rest = "mechanisms = ['shop_api_key']";
        format!(
            "[[routes]]\nname = 'a'\n{first}\n{rest}\n[[routes]]\nname = 'b'\n{second}\n{rest}\n"
        )
    };
    for (first, second, hidden) in [
        ("paths = ['/a/*']", "paths = ['/a/b']", true),
        ("paths = ['/a/*']", "paths = ['/a']", true),
        ("paths = ['/a/*']", "paths = ['/a/b']\nmethods = ['GET']", true),
        ("paths = ['/a/b*']", "paths = ['/a/b']", true),
        ("paths = ['/a/{shopId}/*']", "paths = ['/a/{shopId}/b']", true),
        ("paths = ['/a/b']", "paths = ['/a/*']", false),
        ("paths = ['/a/*']\nmethods = ['GET']", "paths = ['/a/b']", false),
        ("paths = ['/a/*']", "paths = ['/ab']", false),
        ("paths = ['/a/b']", "paths = ['/a/{shopId}']", false),
    ] {
        let text = table(first, second);
        let result = load(&sources(&text)).map(|_| ());
        assert_eq!(result.is_err(), hidden, "{text}");
    }
    check_rows(&[(
        &table("paths = ['/x', '/a/*']", "paths = ['/y', '/a/b']"),
        "routes[1].paths[1]: \"/a/b\" is never reached: the route `a` before it takes every such \
         request; put this one first",
    )]);
}

#[test]
fn limits_that_cannot_be_meant() {
    let bad = |more: &str, expected: &str| {
        // Not the anonymous rule, which has its own test.
        let text = format!(
            "[[routes]]\nname = 'r'\npaths = ['/*']\nmechanisms = ['jwt']\n{}",
            limit(more)
        );
        check_rows(&[(&text, expected)]);
    };
    bad(
        "limit = 1\nwindow = '1 fortnight'",
        "limits[0].window: \"1 fortnight\" is not a duration; write e.g. \"30s\", \"5m\", \"24h\"",
    );
    bad("limit = 1", "limits[0].window: is missing; write e.g. \"1m\"");
    bad("window = '1m'", "limits[0].limit: is missing; write a number");
    bad(
        "limit = 0\nwindow = '1m'",
        "limits[0].limit: zero never means unlimited; write 1 to 262143",
    );
    bad(
        "limit = 1\nwindow = '32d'",
        "limits[0].window: \"32d\" is out of range; write \"1s\" to \"31d\"",
    );
    bad(
        "limit = 1\nwindow = '500ms'",
        "limits[0].window: \"500ms\" is out of range; write \"1s\" to \"31d\"",
    );
    bad(
        "limit = 9\nwindow = '1m'\nburst = 2\ncost = 3",
        "limits[0].cost: 3 is more than the burst, 2: no request would ever pass",
    );
    bad(
        "limit = 9\nwindow = '1m'\nburst = 2\nalgorithm = 'sliding-window'",
        "limits[0].burst: a sliding window has no burst; leave it out, or use \"token-bucket\"",
    );
    bad(
        "limit = 9\nwindow = '1500ms'\nalgorithm = 'sliding-window'",
        "limits[0].window: a sliding window lasts whole seconds; round it, or use \"token-bucket\"",
    );
    bad(
        "limit = 9\nwindow = '1m'\nalgorithm = 'leaky'",
        "limits[0].algorithm: \"leaky\" is none of \"token-bucket\", \"sliding-window\"",
    );
    let many: String = (0..65)
        .map(|i| limit("limit = 1\nwindow = '1m'").replace("'a'", &format!("'a{i}'")))
        .collect();
    check_rows(&[(&many, "limits: holds 65 tables; 64 is the most")]);
    let twice = limit("limit = 1\nwindow = '1m'").repeat(2);
    check_rows(&[(&twice, "limits[1].name: \"a\" is already the name of number 0")]);
}

#[test]
fn anonymous_access_needs_a_limit() {
    let route = "[[routes]]\nname = 'r'\npaths = ['/open/*']\nmethods = ['GET']\n\
                 mechanisms = ['anonymous']\n";
    let table = |paths: &str, more: &str| {
        format!(
            "{route}[[limits]]\nname = 'l'\npaths = ['{paths}']\nkey = 'address'\nlimit = 1\n\
             window = '1m'\n{more}\n"
        )
    };
    for (text, covered) in [
        (table("/open/*", ""), true),
        (table("/*", ""), true),
        (table("/ope*", ""), true),
        (table("/open/*", "methods = ['GET']"), true),
        (table("/open/*", "mechanisms = ['anonymous']"), true),
        (table("/open/*", "fallback = true"), true),
        (table("/open/x", ""), false),
        (table("/opener/*", ""), false),
        (table("/open/*", "methods = ['POST']"), false),
        (table("/open/*", "mechanisms = ['jwt']"), false),
        (table("/open/*", "shadow = true"), false),
        (
            format!("{route}limits = []\n")
                .replacen("[[routes]]", "limits = []\n[[routes]]", 1)
                .replace("\nlimits = []\n\n", "\n"),
            false,
        ),
    ] {
        let text = text.strip_suffix("limits = []\n").unwrap_or(&text);
        if covered {
            good(text);
            continue;
        }
        let expected = "routes[0].mechanisms: anonymous access to \"/open/*\" needs a limit; \
                        write a [[limits]] with paths = [\"/open/*\"], mechanisms = \
                        [\"anonymous\"], key = \"address\"";
        check_rows(&[(text, expected)]);
    }
    // A shadow policy holds nobody, and does not take the request from the fallback either.
    let shadowed = format!(
        "{}[[limits]]\nname = 's'\npaths = ['/*']\nkey = 'address'\nlimit = 1\nwindow = '1m'\n\
         shadow = true\n",
        table("/open/*", "fallback = true")
    );
    good(&shadowed);
}

#[test]
fn issuers_that_cannot_be_trusted() {
    let no_source = "write one of jwks_url, jwks_file, secret_file, or discovery = true";
    check_rows(&[
        (&issuer(""), &format!("issuers[0]: says nowhere where its keys are; {no_source}")),
        (
            &issuer("discovery = true\njwks_file = '/x'"),
            &format!("issuers[0]: says more than once where its keys are; {no_source}"),
        ),
        (
            &issuer("jwks_file = '/x'\nca_file = 'ca.pem'"),
            "issuers[0].ca_file: is of no use: no provider is asked for keys; remove it",
        ),
        (
            &issuer("jwks_url = 'http://id.example/keys'"),
            "issuers[0].jwks_url: \"http://id.example/keys\" is plain http: whoever sits between \
             could hand out keys; use https (http is for this machine only)",
        ),
        (
            &issuer("jwks_url = 'https://joe:hunter2@id.example/keys'"),
            "issuers[0].jwks_url: a URL with user information is not accepted; write e.g. \
             \"https://id.example/jwks.json\"",
        ),
        (
            &issuer("discovery = true").replace("https://id.example", "accounts"),
            "issuers[0].issuer: discovery starts at the issuer, but \"accounts\" is not an https \
             URL; write e.g. \"https://id.example/jwks.json\"",
        ),
        (
            &issuer("discovery = true\nalgorithms = ['none']"),
            "issuers[0].algorithms[0]: \"none\" is none of \"RS256\", \"RS384\", \"RS512\", \
             \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\", \"EdDSA\", \"HS256\", \
             \"HS384\", \"HS512\"",
        ),
        (
            &issuer("discovery = true\nalgorithms = ['HS256']"),
            "issuers[0].algorithms[0]: \"HS256\" is for a shared secret; an issuer with it needs \
             secret_file",
        ),
        (
            &issuer("discovery = true\nalgorithms = []"),
            "issuers[0].algorithms: is empty; write e.g. [\"RS256\"]",
        ),
        (
            &issuer("discovery = true\nstale_max = '10m'"),
            "issuers[0].stale_max: \"10m\" is not longer than refresh_interval, \"10m\": the keys \
             would be refused before they are fetched again",
        ),
        (
            &issuer("discovery = true\nscope_claim = 'https://x.example/roles'"),
            "issuers[0].scope_claim: \"https://x.example/roles\" holds dots that would separate \
             names; write it as a list, [\"https://x.example/roles\"]",
        ),
        (
            &issuer("discovery = true\nleeway = '1h'"),
            "issuers[0].leeway: \"1h\" is out of range; write \"0s\" to \"10m\"",
        ),
        (
            &(issuer("discovery = true") + &issuer("discovery = true").replace("'id'", "'b'")),
            "issuers[1].issuer: is already the issuer of \"id\"",
        ),
        (
            &(issuer("discovery = true")
                + &issuer("discovery = true").replace("id.example", "b.example")),
            "issuers[1].name: \"id\" is already the name of another issuer",
        ),
    ]);
}

#[test]
fn issuers_are_compiled() {
    let config = good(&issuer(
        "discovery = true\nscope_claim = 'realm_access.roles'\n\
         shop_claim = ['https://x.example/shop']\nleeway = '0s'\ntyp = ['at+jwt']\n\
         ca_file = 'ca.pem'",
    ));
    let issuer = &config.policies.issuers[0];
    assert_eq!(*issuer.scope_claim, ["realm_access".into(), "roles".into()]);
    assert_eq!(issuer.shop_claim, Some(vec!["https://x.example/shop".into()]));
    assert_eq!(issuer.algorithms, [JwtAlgorithm::RS256]);
    assert_eq!(issuer.leeway, Duration::ZERO);
    assert_eq!(issuer.stale_max, Duration::from_secs(86_400));
    assert_eq!(
        config.issuer_sources,
        [IssuerSourceConfig {
            issuer: Name::parse("id").unwrap(),
            iss: "https://id.example".into(),
            source: KeySource::Discovery,
            ca_file: Some("ca.pem".into()),
            refresh_interval: Duration::from_secs(600),
            cooldown: Duration::from_secs(30),
            fetch_timeout: Duration::from_secs(5),
        }]
    );
}

#[test]
fn shared_secrets_are_read_and_never_shown() {
    let secret = "hush".repeat(8);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(format!("{secret}\n").as_bytes()).unwrap();
    let path = file.path().display().to_string();
    let text = issuer(&format!("secret_file = '{path}'"));
    let config = good(&text);
    let issuer = &config.policies.issuers[0];
    assert_eq!(issuer.secret.as_ref().unwrap().expose(), secret);
    assert_eq!(issuer.algorithms, [JwtAlgorithm::HS256]);
    assert_eq!(config.issuer_sources[0].source, KeySource::Secret);
    let shown = format!("{config:?}{}", config.print());
    assert!(shown.contains(&path) && !shown.contains("hush"), "{shown}");

    check_rows(&[
        (
            &format!("{text}algorithms = ['HS256', 'HS512']"),
            &format!(
                "issuers[0].secret_file: \"{path}\" holds 32 bytes; the algorithms need a secret \
                 of 64 at least"
            ),
        ),
        (
            &format!("{text}algorithms = ['RS256']"),
            "issuers[0].algorithms[0]: \"RS256\" is for public keys; an issuer with secret_file \
             takes HS256, HS384 or HS512 only",
        ),
    ]);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file.path(), open).unwrap();
    check_rows(&[(
        &text,
        &format!(
            "issuers[0].secret_file: \"{path}\" is open to every user of this machine; \
             chmod o-rwx it"
        ),
    )]);
    let gone = text.replace(&path, "/nonexistent/secret");
    check_rows(&[(
        &gone,
        "issuers[0].secret_file: \"/nonexistent/secret\" cannot be read: No such file or \
         directory (os error 2)",
    )]);
}

#[test]
fn unknown_keys_at_every_level() {
    check_rows(&[
        ("[servr]\nlisten = 1", "servr: unknown key; did you mean `server`?"),
        (
            "zzz = 1",
            "zzz: unknown key; known here: server, admin, store, upstreams, origin, widget, \
             failed_attempts, routes, limits, issuers, limiter, rate_limit_headers, jwt_cache, \
             cors, forward_auth, assertion, audit, usage, backup, log, tracing",
        ),
        (
            "[server]\nlisten_address = '0.0.0.0:80'",
            "server.listen_address: unknown key; did you mean `listen`?",
        ),
        ("[log]\nlevle = 'info'", "log.levle: unknown key; did you mean `level`?"),
        ("[limiter]\n'a b' = 1", "limiter.\"a b\": unknown key; known here: cells"),
        (
            "[upstreams.default]\nconect_timeout = '1s'",
            "upstreams.default.conect_timeout: unknown key; did you mean `connect_timeout`?",
        ),
        (
            &issuer("discovery = true\naudience = 'x'"),
            "issuers[0].audience: unknown key; did you mean `audiences`?",
        ),
        (
            "[assertion]\nttl = '9s'",
            "assertion.ttl: unknown key; known here: enabled, issuer, lifetime, key_rotation",
        ),
    ]);
}

#[test]
fn unknown_and_bad_variables_and_flags_name_themselves() {
    check(
        &with_environment("", &[("LATCHKEY_SERVER__LISTN", "x")]),
        &["LATCHKEY_SERVER__LISTN: server.listn: unknown key; did you mean `listen`?"],
    );
    check(
        &with_environment("", &[("LATCHKEY_SERVER_LISTEN", "x")]),
        &["LATCHKEY_SERVER_LISTEN: server_listen: unknown key; two underscores stand between \
             a table and its key: did you mean LATCHKEY_SERVER__LISTEN?"],
    );
    check(
        &with_environment("", &[("LATCHKEY_SERVER__WORKERS", "many")]),
        &["LATCHKEY_SERVER__WORKERS: server.workers: \"many\" is not a whole number"],
    );
    let deep = format!("LATCHKEY_{}", ["A"; 20].join("__"));
    check(
        &with_environment("", &[(&deep, "x")]),
        &[&format!("{deep}: unknown key; no key has that many levels")],
    );
    let flags = Sources {
        overrides: vec![Override {
            flag: "--listen".into(),
            key: "server.listen".into(),
            value: "nowhere".into(),
        }],
        ..Sources::default()
    };
    check(
        &flags,
        &["--listen: server.listen: \"nowhere\" is not an address; write IP:PORT, \
             e.g. \"127.0.0.1:8080\" or \"[::]:8080\""],
    );
}

#[test]
fn all_mistakes_at_once_each_from_its_source() {
    let text = "colour = 'red'\n[server]\nlisten = 'x'\nworkers = 0\n[server.h2]\nspeed = 9\n\
                [[limits]]\nname = 'a'\npaths = ['a', '/b*c']\nkey = 'shp'\nlimit = 1\n\
                window = '1 fortnight'\n";
    check(
        &with_environment(text, &[("LATCHKEY_LOG__LEVEL", "loud"), ("HOME", "/")]),
        &[
            "latchkey.toml: server.listen: \"x\" is not an address; write IP:PORT, \
             e.g. \"127.0.0.1:8080\" or \"[::]:8080\"",
            "latchkey.toml: server.workers: zero never means unlimited; write 1 to 1024",
            "latchkey.toml: server.h2.speed: unknown key; known here: streams_max, \
             stream_window_bytes, connection_window_bytes, send_buffer_bytes, \
             pending_resets_max, local_resets_max, keep_alive_interval, keep_alive_timeout",
            "latchkey.toml: limits[0].paths[0]: \"a\" is not a path pattern: a path pattern \
             starts with /",
            "latchkey.toml: limits[0].paths[1]: \"/b*c\" is not a path pattern: * may only stand \
             at the end of a path pattern",
            "latchkey.toml: limits[0].key: \"shp\" is none of \"shop\", \"key\", \"subject\", \
             \"address\"",
            "latchkey.toml: limits[0].window: \"1 fortnight\" is not a duration; write e.g. \
             \"30s\", \"5m\", \"24h\"",
            "LATCHKEY_LOG__LEVEL: log.level: \"loud\" is not a log level; write one of off, \
             error, warn, info, debug, trace, or e.g. \"info,latchkey::server=debug\"",
            "latchkey.toml: colour: unknown key; known here: server, admin, store, upstreams, \
             origin, widget, failed_attempts, routes, limits, issuers, limiter, \
             rate_limit_headers, jwt_cache, cors, forward_auth, assertion, audit, \
             usage, backup, log, tracing",
        ],
    );
}

#[test]
fn files_that_cannot_be_read() {
    for (text, expected) in [
        ("[server\nlisten = 1", "latchkey.toml:1:8: "),
        ("[server]\nlisten = \"é\" x\n", "latchkey.toml:2:14: "),
        ("a = 1\na = 2\n", "latchkey.toml:2:1: duplicate key"),
    ] {
        let errors = load(&sources(text)).unwrap_err().to_string();
        assert!(errors.starts_with(expected) && !errors.contains('\n'), "{errors}");
    }
    let at = |file| Sources { file, ..Sources::default() };
    let missing = PathBuf::from("/nonexistent/latchkey.toml");
    check(
        &at(ConfigFile::Required(missing.clone())),
        &["/nonexistent/latchkey.toml: cannot be read: No such file or directory (os error 2); \
           name another with --config"],
    );
    load(&at(ConfigFile::Optional(missing))).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[0xff, 0xfe]).unwrap();
    let path = file.path().to_path_buf();
    let name = path.display().to_string();
    check(&at(ConfigFile::Optional(path.clone())), &[&format!("{name}: is not UTF-8 text")]);
    file.write_all(&vec![b'#'; 1 << 20]).unwrap();
    check(
        &at(ConfigFile::Required(path)),
        &[&format!("{name}: is larger than 1 MiB; this is not a configuration")],
    );
}

#[test]
fn nesting_without_end_is_refused() {
    const DEEP: usize = 20_000;
    for text in [
        format!("a = {}", "[".repeat(DEEP)),
        format!("a = {}{}", "[".repeat(DEEP), "]".repeat(DEEP)),
        format!("a = {}1{}", "{ b = ".repeat(DEEP), " }".repeat(DEEP)),
        format!("{}a = 1", "a.".repeat(DEEP)),
        format!("[{}a]", "a.".repeat(DEEP)),
    ] {
        assert!(load(&sources(&text)).is_err());
    }
    for value in ["[".repeat(DEEP), "[".repeat(DEEP) + &"]".repeat(DEEP), "{a=".repeat(DEEP)] {
        let given = with_environment("", &[("LATCHKEY_WIDGET__SCOPES", &value)]);
        assert!(load(&given).is_err());
    }
    let mut flags = Sources::default();
    let key = "a.".repeat(DEEP);
    flags.overrides.push(Override { flag: "--x".into(), key, value: "1".into() });
    assert!(load(&flags).is_err());
}

#[test]
fn a_variable_that_is_not_text_is_refused() {
    let mut given = sources("");
    let value = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
    given.environment.insert("LATCHKEY_LOG__LEVEL".into(), value);
    check(&given, &["LATCHKEY_LOG__LEVEL: its value is not UTF-8 text"]);
}

#[test]
fn sources_in_order_of_strength() {
    let flag = |value: &str| Override {
        flag: "--listen".into(),
        key: "server.listen".into(),
        value: value.into(),
    };
    let text = "[server]\nlisten = '127.0.0.1:1'\nworkers = 3\n";
    let mut all = with_environment(text, &[("LATCHKEY_SERVER__LISTEN", "127.0.0.1:2")]);
    let config = load(&all).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.workers.get(), 3);
    all.overrides.push(flag("[::1]:3"));
    assert_eq!(load(&all).unwrap().server.listen, "[::1]:3".parse().unwrap());
    assert_eq!(load(&Sources::default()).unwrap().server.listen.port(), 8080);
    assert_eq!(good(text).server.listen.port(), 1);
}

#[test]
fn variables_of_every_kind() {
    let config = load(&with_environment(
        "",
        &[
            ("LATCHKEY_SERVER__WORKERS", "7"),
            ("LATCHKEY_SERVER__BODY_BYTES_MAX", "1048576"),
            ("LATCHKEY_ORIGIN__WWW_ALIAS", "false"),
            ("LATCHKEY_WIDGET__SCOPES", "[\"a\", b]"),
            ("LATCHKEY_UPSTREAMS__API__URL", "http://10.0.0.1"),
            ("LATCHKEY_STORE__PATH", "/data/007"),
            ("LATCHKEY_MASTER_KEY_FILE", "/run/key"),
            ("LATCHKEY_LIMITS", "[{name=all,paths=[\"/*\"],key=address,limit=5,window=\"1m\"}]"),
            // Not ours: the command line's, and those that Kubernetes sets for a service.
            ("LATCHKEY_CONFIG", "/etc/latchkey/latchkey.toml"),
            ("LATCHKEY_SERVICE_HOST", "10.0.0.1"),
            ("LATCHKEY_SERVICE_PORT_HTTP", "8080"),
            ("LATCHKEY_PORT", "tcp://10.0.0.1:8080"),
            ("LATCHKEY_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("LATCHKEY_ADMIN_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
        ],
    ))
    .unwrap();
    assert_eq!(config.server.workers.get(), 7);
    assert_eq!(config.server.body_bytes_max, 1 << 20);
    assert!(!config.policies.origin.www_alias);
    assert_eq!(*config.policies.widget.scopes, ["a".into(), "b".into()]);
    assert_eq!(config.store.path, PathBuf::from("/data/007"));
    assert_eq!(config.store.master_key_file, PathBuf::from("/run/key"));
    assert_eq!(config.admin.socket, PathBuf::from("/data/admin.sock"));
    assert_eq!(config.policies.limits.len(), 1);
    assert_eq!(config.upstreams.len(), 2);
}

#[test]
fn variables_that_may_hold_secrets_are_not_kept() {
    for (name, kept) in [
        ("LATCHKEY_SERVER__LISTEN", true),
        ("LATCHKEY_TYPO", true),
        ("CREDENTIALS_DIRECTORY", true),
        ("LATCHKEY_ADMIN_TOKEN", false),
        ("LATCHKEY_CONFIG", false),
        ("AWS_SECRET_ACCESS_KEY", false),
    ] {
        assert_eq!(raw::is_read(name.as_ref()), kept, "{name}");
    }
}

#[test]
fn the_master_key_may_be_a_systemd_credential() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let credentials = ("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap());
    let key_of = |variables: &[(&str, &str)]| {
        let config = load(&with_environment("[store]\npath = '/d/x.redb'", variables)).unwrap();
        (config.store.master_key_file, config.store.master_key_creatable)
    };
    let beside = PathBuf::from("/d/master.key");
    assert_eq!(key_of(&[]), (beside.clone(), true));
    assert_eq!(key_of(&[credentials]), (beside, true));
    std::fs::write(&path, "x").unwrap();
    assert_eq!(key_of(&[credentials]), (path, false));
    let said = ("LATCHKEY_MASTER_KEY_FILE", "/said");
    assert_eq!(key_of(&[credentials, said]), ("/said".into(), true));
}

#[test]
fn every_file_may_be_a_credential() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (name, text) in [
        ("shared", "x".repeat(32)),
        ("passphrase", "a long passphrase".to_owned()),
        ("key", "not looked into here".to_owned()),
    ] {
        std::fs::write(path(name), text).unwrap();
        // As systemd leaves them to a service that runs as another user.
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o440)).unwrap();
    }
    let credentials = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())];
    let text = "[store]\nmaster_key_file = 'credential:key'\n\
                [backup]\npassphrase_file = 'credential:passphrase'\n\
                [server.tls]\ncertificates = [\
                { chain_file = '/c.pem', key_file = 'credential:key' }]\n";
    let config = load(&with_environment(text, &credentials)).unwrap();
    assert_eq!(config.store.master_key_file, path("key"));
    assert!(!config.store.master_key_creatable, "it is read-only");
    assert_eq!(config.backup.passphrase_file, Some(path("passphrase")));
    assert_eq!(config.server.tls.as_ref().unwrap().certificates[0].key_file, path("key"));
    assert!(config.print().contains("\"credential:passphrase\""), "{}", config.print());

    let mistake = |text: &str, variables: &[(&str, &str)]| {
        load(&with_environment(text, variables)).unwrap_err().to_string()
    };
    let missing = "[backup]\npassphrase_file = 'credential:gone'";
    for variables in [&credentials[..], &[]] {
        let told = mistake(missing, variables);
        assert!(told.contains("backup.passphrase_file: \"credential:gone\" cannot"), "{told}");
        assert!(told.contains("LoadCredential=gone:"), "{told}");
    }
    for name in ["", "..", "../shared", "/etc/passwd", "a:b"] {
        let text = format!("[backup]\npassphrase_file = 'credential:{name}'");
        let told = mistake(&text, &credentials);
        assert!(told.contains("names no credential"), "{told}");
    }
    // What is no file is no credential either.
    let told = mistake("[backup]\ndirectory = ''\n", &credentials);
    assert!(told.contains("backup.directory"), "{told}");
    let config = with_environment("[backup]\ndirectory = 'credential:key'", &credentials);
    assert_eq!(load(&config).unwrap().backup.directory, PathBuf::from("credential:key"));
}

#[test]
fn every_default() {
    let config = load(&Sources::default()).unwrap();
    let seconds = Duration::from_secs;
    let cores = std::thread::available_parallelism().unwrap();
    let number = |n| NonZeroUsize::new(n).unwrap();
    assert_eq!(
        config.server,
        ServerConfig {
            listen: "0.0.0.0:8080".parse().unwrap(),
            workers: cores,
            trusted_proxies: Vec::new(),
            forwarding_header: ForwardingHeader::XForwardedFor,
            proxy_protocol: false,
            h2c: false,
            connections_max: number(10_000),
            connections_per_address_max: number(1000),
            requests_max: number(10_000),
            header_bytes_max: 16 << 10,
            header_count_max: 100,
            body_bytes_max: 64 << 20,
            first_byte_timeout: seconds(10),
            head_timeout: seconds(10),
            idle_timeout: seconds(75),
            body_timeout: seconds(30),
            request_timeout: seconds(600),
            tunnel_idle_timeout: seconds(300),
            drain_timeout: seconds(30),
            h2: H2Config {
                streams_max: 100,
                stream_window_bytes: 256 << 10,
                connection_window_bytes: 1 << 20,
                send_buffer_bytes: 256 << 10,
                pending_resets_max: 20,
                local_resets_max: 100,
                keep_alive_interval: seconds(30),
                keep_alive_timeout: seconds(10),
            },
            tls: None,
        }
    );
    assert_eq!(config.admin.listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.admin.socket, PathBuf::from("/var/lib/latchkey/admin.sock"));
    assert_eq!(
        config.store,
        StoreConfig {
            path: "/var/lib/latchkey/latchkey.redb".into(),
            master_key_file: "/var/lib/latchkey/master.key".into(),
            master_key_creatable: true,
        }
    );
    let upstream = UpstreamConfig {
        endpoints: vec![Endpoint {
            scheme: Scheme::Http,
            authority: Authority::from_static("127.0.0.1:9000"),
        }],
        http2: false,
        tls: None,
        preserve_host: false,
        connect_timeout: seconds(2),
        response_timeout: seconds(30),
        body_timeout: seconds(30),
        total_timeout: seconds(3600),
        idle_timeout: seconds(60),
        idle_connections_max: number(64),
        connect_retries_max: 1,
        ejection: EjectionConfig { failures: NonZeroU32::new(5).unwrap(), time: seconds(10) },
        probe: None,
    };
    let default = Name::parse("default").unwrap();
    assert_eq!(config.upstreams, BTreeMap::from([(default, upstream)]));
    let policies = &config.policies;
    assert_eq!(policies.origin, crate::decision::origin::Rules::default());
    assert_eq!(policies.widget.lifetime, seconds(86_400));
    assert_eq!(policies.widget.lifetime_max, seconds(86_400));
    let scopes = ["search", "suggestions", "compare", "analytics"].map(Box::from);
    assert_eq!(*policies.widget.scopes, scopes);
    assert!(!policies.widget.allow_loopback_origins);
    assert_eq!(config.widget_signing_key_rotation, seconds(30 * 86_400));
    assert_eq!(policies.attempts.quota, Quota::new(20, seconds(60)).unwrap());
    assert!(policies.issuers.is_empty() && config.issuer_sources.is_empty());
    assert_eq!(config.limiter_cells, number(65_536));
    assert!(config.x_ratelimit);
    assert_eq!(config.jwt_cache_entries, number(65_536));
    assert_eq!(config.log, LogConfig::new("info", LogFormat::Text));
}

#[test]
fn every_default_of_the_front_door() {
    let config = load(&Sources::default()).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(
        config.cors,
        CorsConfig {
            max_age: seconds(600),
            request_headers: ["content-type", "idempotency-key", "x-requested-with"]
                .map(HeaderName::from_static)
                .to_vec(),
            expose_headers: Vec::new(),
        }
    );
    assert_eq!(config.forward_auth, ForwardAuthConfig { contracts: Vec::new() });
    assert_eq!(
        config.assertion,
        AssertionConfig {
            enabled: false,
            issuer: "latchkey".into(),
            lifetime: seconds(30),
            key_rotation: seconds(30 * 86_400),
        }
    );
    for route in &config.policies.routes {
        assert_eq!(route.body_bytes_max, None);
        assert!(route.upgrades.is_empty() && route.origins.is_empty());
    }
}

/// Spec §1: who answers which path, for which mechanisms, under which scope.
#[test]
fn the_default_routes() {
    let config = load(&Sources::default()).unwrap();
    let routes = &config.policies.routes;
    for (method, path, route) in [
        ("POST", "/api/plugin/shops/me/widget-token", "widget-token"),
        ("POST", "/api/shops/demo/widget-token", "widget-token"),
        ("GET", "/api/plugin/shops/me/widget-token", "plugin"),
        ("GET", "/api/plugin/shops/me", "plugin"),
        ("GET", "/api/widget/search", "widget"),
        ("GET", "/api/search", "search"),
        ("GET", "/api/other", ""),
    ] {
        let canonical = CanonicalPath::parse(path).unwrap();
        let method = method.parse().unwrap();
        let found = routes.iter().find(|r| {
            r.methods.contains(&method) && r.paths.iter().any(|p| p.matches(&canonical).is_some())
        });
        assert_eq!(found.map_or("", |r| r.name.as_str()), route, "{method} {path}");
    }
    let takes = |i: usize| routes[i].mechanisms.iter().collect::<Vec<_>>();
    assert_eq!(takes(0), [Mechanism::ShopApiKey]);
    assert_eq!(routes[0].target, Target::IssueWidgetToken);
    assert_eq!(takes(1), [Mechanism::WidgetToken]);
    let scopes: Vec<_> = routes[1].scopes.iter().map(|s| &*s.scope).collect();
    assert_eq!(scopes, ["search", "suggestions", "compare", "analytics"]);
    assert_eq!(takes(2), [Mechanism::ShopApiKey]);
    assert_eq!(takes(3), [Mechanism::Jwt, Mechanism::Anonymous]);
}

/// Spec §7, row by row.
#[test]
fn the_default_limits() {
    let config = load(&Sources::default()).unwrap();
    let rows: Vec<_> = config
        .policies
        .limits
        .iter()
        .map(|l| (l.name.as_str(), l.quota.limit.get(), l.quota.window_s(), l.key_by, l.fallback))
        .collect();
    assert_eq!(
        rows,
        [
            ("products-sync", 100, 60, KeyBy::Shop, false),
            ("shop-me", 60, 60, KeyBy::Shop, false),
            ("verification-data", 20, 60, KeyBy::Shop, false),
            ("verify-create", 5, 300, KeyBy::Shop, false),
            ("verify-delete", 5, 300, KeyBy::Shop, false),
            ("widget-search", 200, 60, KeyBy::Shop, false),
            ("widget-suggestions", 300, 60, KeyBy::Shop, false),
            ("widget-compare", 10, 60, KeyBy::Shop, false),
            ("widget-analytics", 500, 60, KeyBy::Shop, false),
            ("authenticated", 100, 60, KeyBy::Shop, true),
            ("search-anonymous", 30, 60, KeyBy::Address, false),
            ("search-jwt", 300, 60, KeyBy::Subject, false),
        ]
    );
}

#[test]
fn a_limit_left_short() {
    let config = good(&limit("limit = 7\nwindow = '1m'"));
    let [limit] = &*config.policies.limits else {
        panic!("one limit replaces the whole table");
    };
    assert_eq!(limit.mechanisms, MechanismSet::all());
    assert_eq!(limit.quota, Quota::new(7, Duration::from_secs(60)).unwrap());
    assert_eq!(limit.algorithm, Algorithm::TokenBucket);
    assert_eq!(limit.cost.get(), 1);
    assert!(!limit.shadow && !limit.fallback);
    // A shorter list of scopes does not break the default routes.
    good("[widget]\nscopes = []");
}

/// The example without the # of its `#key` lines; `keep` says which tables are taken.
fn uncommented(keep: impl Fn(&str) -> bool) -> String {
    let mut table = String::new();
    let mut text = String::new();
    for line in SHIPPED.lines() {
        let bare = line.strip_prefix('#').filter(|l| !l.starts_with(' ') || l.starts_with("    {"));
        let line = bare.unwrap_or(line);
        if line.starts_with('[') {
            line.clone_into(&mut table);
        }
        if !line.starts_with('#') && keep(&table) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Tables that are no defaults.
fn is_example(table: &str) -> bool {
    table == "[[issuers]]" || table == "[admin.oidc]" || table.starts_with("[upstreams.search")
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let default = load(&Sources::default()).unwrap();
    let as_shipped = good(SHIPPED);
    let spelled = uncommented(|table| !is_example(table));
    let spelled_out = good(&spelled);
    for config in [&as_shipped, &spelled_out] {
        // The number of cores is the machine's; the rest of the debug text is the same.
        let mut config = config.clone();
        config.server.workers = default.server.workers;
        config.effective = default.effective.clone();
        assert_eq!(format!("{config:?}"), format!("{default:?}"));
    }
    // Every key the program knows is in the example, with a comment before it.
    for line in default.print().lines() {
        let key = line.trim_start_matches("# ").split([' ', ':']).next().unwrap();
        assert!(
            SHIPPED.contains(&format!("#{key} = ")) || SHIPPED.contains(key),
            "{key} is not in the example"
        );
    }
}

#[test]
fn the_shipped_examples_parse() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(&[b'x'; 32]).unwrap();
    let path = secret.path().display().to_string();
    let text = uncommented(|_| true)
        .replace("/etc/latchkey/shared.secret", &path)
        .replace("/etc/latchkey/oidc.secret", &path)
        .replace("[admin]\n", "[admin]\npublic_url = 'https://latchkey.example'\n");
    let config = good(&text);
    assert_eq!(config.issuer_sources.len(), 4);
    let search = &config.upstreams[&Name::parse("search").unwrap()];
    assert!(search.endpoints.len() == 2 && search.tls.is_some() && search.probe.is_some());
    let parsed = good(&text.replace("shop_claim = \"shop_id\"", ""));
    assert_eq!(parsed.policies.issuers[0].shop_claim, None);
    let oidc = parsed.admin.oidc.as_ref().unwrap();
    let spelled = (&oidc.scopes, &oidc.name_claim, &oidc.groups_claim);
    let short = good(operators::OIDC).admin.oidc.unwrap();
    assert_eq!(spelled, (&short.scopes, &short.name_claim, &short.groups_claim));
    assert_eq!(oidc.roles.len(), 2);
    // What the example calls a default is one.
    let short = issuer("discovery = true");
    let (written, left_out) = (&parsed.policies.issuers[0], &good(&short).policies.issuers[0]);
    assert_eq!(written.scope_claim, left_out.scope_claim);
    assert_eq!(written.algorithms, left_out.algorithms);
    assert_eq!(written.leeway, left_out.leeway);
    assert_eq!(written.stale_max, left_out.stale_max);
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let text = uncommented(|table| !is_example(table))
        + &issuer("discovery = true\nscope_claim = ['a.b', \"c\\\"d\\\\\"]");
    let mut given = with_environment(&text, &[("LATCHKEY_SERVER__WORKERS", "7")]);
    given.overrides.push(Override {
        flag: "--log-level".into(),
        key: "log.level".into(),
        value: "debug".into(),
    });
    let config = load(&given).unwrap();
    let printed = config.print();
    assert!(printed.contains("workers = 7  # LATCHKEY_SERVER__WORKERS\n"), "{printed}");
    assert!(printed.contains("level = \"debug\"  # --log-level\n"), "{printed}");
    assert!(printed.contains("listen = \"0.0.0.0:8080\"  # latchkey.toml\n"), "{printed}");
    assert!(printed.contains("[upstreams.default]\n"), "{printed}");
    let mut again = good(&printed);
    again.effective = config.effective.clone();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));

    let default = load(&Sources::default()).unwrap().print();
    assert!(!default.contains("  # "), "{default}");
    good(&default);
}

#[test]
fn a_socket_beside_a_far_database_has_to_be_named() {
    let text = format!("[store]\npath = '/{}/x.redb'\n", "d".repeat(100));
    let expected = "admin.socket: is left out, and beside the database it would be longer than \
                    107 bytes, the most a unix socket's path may have; write a shorter one";
    check(&sources(&text), &[expected]);
    good(&(text + "[admin]\nsocket = '/run/a.sock'"));
}

#[test]
fn restarts_are_asked_for_only_where_needed() {
    let old = good("");
    for (text, expected) in [
        ("", &[][..]),
        ("[log]\nlevel = 'debug'\naccess = true\naccess_sample = 9", &[]),
        ("[log]\nqueue_lines_max = 99", &["log.queue_lines_max"]),
        ("[server]\nh2c = true", &[]),
        ("[server]\ntrusted_proxies = ['::1']\nproxy_protocol = true\nrequests_max = 9", &[]),
        ("[server.h2]\nstreams_max = 9\n[cors]\nmax_age = '1h'", &[]),
        ("[server.tls]\ncertificates = [{ chain_file = 'a', key_file = 'b' }]", &["server.tls"]),
        ("[server.tls]\ncertificates = []", &[]),
        ("[assertion]\nenabled = true", &[]),
        ("[upstreams.default]\nurls = ['https://a']\nhttp2 = true", &[]),
        ("[upstreams.b]\nurl = 'http://b'", &[]),
        ("[server]\nlisten = '0.0.0.0:80'", &["server.listen"]),
        ("[server]\nworkers = 1000\nconnections_max = 9\nidle_timeout = '9s'", &["server.workers"]),
        ("[limiter]\ncells = 100\n[log]\nformat = 'json'", &["limiter.cells", "log.format"]),
        ("[admin]\ndashboard = false", &["admin.dashboard"]),
        ("[admin]\npublic_url = 'https://a'\ntrusted_proxies = ['::1']", &[]),
        ("[admin.tls]\ncertificates = [{ chain_file = 'a', key_file = 'b' }]", &["admin.tls"]),
        ("[admin.sessions]\nlifetime = '2h'\n[admin.passwords]\nmemory = '64MiB'", &[]),
        (
            "[admin.passwords]\nconcurrent_max = 1\nwaiting_max = 1",
            &["admin.passwords.concurrent_max", "admin.passwords.waiting_max"],
        ),
        ("[audit]\nretention = '1d'\n[backup]\ninterval = '1d'\ndirectory = '/b'", &[]),
        ("[usage]\nrows_max = 10000\nflush_interval = '1s'", &[]),
        ("[usage]\nenabled = false", &[]),
        ("[tracing]\npropagate = 'always'\nsample_ratio = 0.1", &[]),
        ("[tracing.otlp]\nendpoint = 'http://[::1]:1'\nbatch_max = 9", &[]),
        ("[tracing.otlp]\nqueue_max = 9", &["tracing.otlp.queue_max"]),
        ("[store]\npath = '/d/x.redb'", &["admin.socket", "store.path", "store.master_key_file"]),
    ] {
        assert_eq!(restart_needed(&old, &good(text)), expected, "{text}");
    }
}

/// Words that lead somewhere, so that random text gets past the parser.
fn fragment() -> impl Strategy<Value = String> {
    static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let lines = SHIPPED.lines().map(|l| l.trim_start_matches('#').to_owned());
        lines.filter(|l| l.contains(['=', '['])).collect()
    });
    prop_oneof![
        4 => (0..WORDS.len()).prop_map(|i| WORDS[i].clone()),
        1 => "[a-z_]{1,12} = (-?[0-9]{1,20}|'[^'\n]{0,12}'|\\[\\]|\\{\\}|true|1979-05-27)",
        1 => "\\[{1,2}[a-z.]{1,16}\\]{1,2}",
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        lines in prop::collection::vec(fragment(), 0..12),
        variable in "LATCHKEY_[A-Z_]{0,24}",
        value in "[\\[\\]{}=,\"a-z0-9.]{0,40}",
        key in "[a-z.]{0,16}",
    ) {
        let mut given = with_environment(&lines.join("\n"), &[(&variable, &value)]);
        given.overrides.push(Override { flag: "--x".into(), key, value });
        match load(&given) {
            Ok(config) => {
                let again = load(&sources(&config.print()));
                prop_assert!(again.is_ok(), "{}", again.unwrap_err());
            }
            Err(errors) => {
                prop_assert!(errors.iter().count() > 0);
                prop_assert!(errors.iter().all(|e| !e.message.is_empty()));
            }
        }
    }
}
