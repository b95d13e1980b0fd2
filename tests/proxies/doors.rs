//! latchkey as the gateway behind a proxy that only passes connections on: the PROXY header says
//! who calls, and nothing that a client says does.

use std::process::Command;

use serde_json::json;

use super::peer::{CLIENT, Kind, Peer, Shipped};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, get};
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

const CONFIG: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\nproxy_protocol = true\n";

/// Where the stream module is that Debian packages apart.
fn stream_module() -> String {
    std::env::var("LATCHKEY_TEST_NGINX_STREAM")
        .expect("LATCHKEY_TEST_NGINX_STREAM names no module; `tests/run proxies` does")
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn haproxy_says_who_calls() {
    the_client_is_who_connects(Kind::HaProxy, |shipped, latchkey, command| {
        let bind = format!("bind {}\n", shipped.front);
        let config = shipped.write(
            "haproxy-gateway.cfg",
            &[("bind :80\n", &bind), ("127.0.0.1:8080", latchkey)],
            &[],
        );
        command.arg("-f").arg(config);
    });
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn nginx_says_who_calls() {
    the_client_is_who_connects(Kind::Nginx, |shipped, latchkey, command| {
        let listen = format!("listen {};", shipped.front);
        let config = shipped.write(
            "nginx-stream.conf",
            &[("listen 80;", &listen), ("127.0.0.1:8080", latchkey)],
            &[],
        );
        let beside = format!("include {};\n", config.display());
        let beside = match stream_module().as_str() {
            "" => beside,
            module => format!("load_module {module};\n{beside}"),
        };
        shipped.nginx_main("", &beside, command);
    });
}

fn the_client_is_who_connects(
    kind: Kind,
    configure: impl FnOnce(&Shipped<'_>, &str, &mut Command),
) {
    let api = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&api), CONFIG);
    let gateway = site.start();
    gateway.shop("demo");
    let (_, here) = gateway.key("demo", &json!({"networks": [format!("{CLIENT}/32")]}));
    let (_, elsewhere) =
        gateway.key("demo", &json!({"networks": ["192.0.2.0/24", "127.0.0.1/32"]}));
    let latchkey = gateway.data.to_string();
    let proxy = Peer::run(kind, |shipped, command| configure(&shipped, &latchkey, command));
    until(|| proxy.send(&get("/api/search/x")).filter(|answer| answer.status == 200));
    let own = "/api/plugin/shops/demo/x";
    let spoofed = |request: Request| {
        request
            .header("X-Forwarded-For", "192.0.2.7")
            .header("X-Forwarded-Host", "spoofed.example")
            .header("Forwarded", "for=192.0.2.7")
            .header("X-Real-IP", "192.0.2.7")
            .header("X-Auth-Shop-Id", "spoofed")
            .header("Connection", "x-forwarded-for")
    };
    for (request, right) in [
        (get(own).key(&here), "200 ok"),
        (spoofed(get(own).key(&here)), "200 ok"),
        (get(own).key(&elsewhere), "403 network_not_allowed"),
        (spoofed(get(own).key(&elsewhere)), "403 network_not_allowed"),
        (get(own), "401 missing_credential"),
    ] {
        let answer = proxy.send(&request);
        let answer = answer.unwrap_or_else(|| panic!("{request:?}: {}", proxy.last_words()));
        assert_eq!(answer.outcome(), right, "{request:?}");
        if right == "200 ok" {
            let seen = api.last();
            assert_eq!(seen.header("x-forwarded-for"), Some(CLIENT.to_string().as_str()));
            assert!(!seen.head.contains("192.0.2.7") && !seen.head.contains("spoofed"));
        }
    }
    gateway.wait_for_log(|line| {
        line["client"] == json!(CLIENT.to_string()) && line["code"] == "network_not_allowed"
    });
    down_and_back(&site, gateway, &proxy, &get(own).key(&here));
}

fn down_and_back(site: &Site, gateway: Gateway, proxy: &Peer, good: &Request) {
    let environment = gateway.data.to_string();
    gateway.stop();
    // There is nobody to answer.
    assert!(proxy.send(good).is_none_or(|answer| answer.status >= 500));
    let _gateway = site.start_with(&[("LATCHKEY_SERVER__LISTEN", &environment)]);
    until(|| proxy.send(good).filter(|answer| answer.status == 200));
}
