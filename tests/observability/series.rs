//! That the number of series does not depend on what callers send, nor on how many shops there are.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::prometheus_series;
use crate::support::gateway::Site;
use crate::support::http::{connect, get, request};
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

const SHOPS: usize = 10_000;
const REQUESTS: usize = 100_000;
const CLIENTS: usize = 4;
/// Requests that are under way on a connection at once.
const PIPELINED: usize = 50;

fn secret(shop: usize) -> String {
    format!("sk_{:032x}", shop.wrapping_mul(0x9e37_79b9) + 1)
}

fn records() -> String {
    let mut text = String::new();
    for shop in 0..SHOPS {
        let id = format!("shop-{shop}");
        writeln!(text, r#"{{"type":"shop/1","id":"{id}","url":"https://{id}.example"}}"#).unwrap();
        let secret = secret(shop);
        writeln!(text, r#"{{"type":"key/1","shop":"{id}","secret":"{secret}"}}"#).unwrap();
    }
    text
}

/// Numbers without end from a seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn of<'t>(&mut self, items: &[&'t str]) -> &'t str {
        items[self.below(items.len())]
    }

    fn word(&mut self) -> String {
        format!("{:x}", self.next())
    }
}

/// A request of no two alike: method, path, host, headers, credential.
fn anything(random: &mut Random) -> String {
    let own = random.word().to_uppercase();
    let method = match random.below(8) {
        0 => own.as_str(),
        _ => random.of(&["GET", "GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    };
    let shop = random.below(SHOPS + SHOPS / 10);
    let (a, b) = (random.word(), random.word());
    let path = match random.below(8) {
        0..=2 => format!("/api/plugin/shops/shop-{shop}/{a}"),
        3 => format!("/api/plugin/shops/{a}/{b}"),
        4 => format!("/api/widget/{a}"),
        5 => format!("/api/search/{a}?{b}"),
        6 => format!("/{a}/{b}"),
        _ => format!("/api/%2e%2e/{a}"),
    };
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {a}.example\r\nX-{b}: {a}\r\n");
    let credential = match random.below(6) {
        0 | 1 => format!("X-Shop-API-Key: {}\r\n", secret(shop)),
        2 => format!("X-Shop-API-Key: sk_{:032x}\r\n", random.next()),
        3 => format!("X-Widget-Token: {a}{b}\r\n"),
        4 => format!("Authorization: Bearer {a}.{b}.{a}\r\n"),
        _ => String::new(),
    };
    text += &credential;
    if random.below(3) == 0 {
        write!(text, "Origin: https://{b}.example\r\n").unwrap();
    }
    if method == "POST" || method == "PUT" || method == "PATCH" {
        text += "Content-Length: 0\r\n";
    }
    text + "User-Agent: " + &b + "\r\n\r\n"
}

/// Sends `count` requests and reads their responses; how many had which status.
fn ask(address: SocketAddr, seed: u64, count: usize) -> Vec<u16> {
    let mut random = Random(seed);
    let mut statuses = Vec::new();
    let mut stream = connect(address);
    while statuses.len() < count {
        let batch: String = (0..PIPELINED).map(|_| anything(&mut random)).collect();
        // Whoever is refused for good has its connection closed: what was read counts.
        let sent = stream.write_all(batch.as_bytes());
        let answered = responses(&mut stream, PIPELINED);
        if sent.is_err() || answered.len() < PIPELINED {
            stream = connect(address);
        }
        assert!(!answered.is_empty(), "no answer to any of\n{batch}");
        statuses.extend(answered);
    }
    statuses
}

/// The statuses of up to `count` responses, all of announced length.
fn responses(stream: &mut TcpStream, count: usize) -> Vec<u16> {
    let (mut statuses, mut bytes, mut at) = (Vec::new(), Vec::new(), 0);
    let mut buffer = [0; 16 * 1024];
    while statuses.len() < count {
        if let Some(end) = bytes[at..].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[at..at + end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if bytes.len() >= at + end + 4 + length {
                statuses.push(head[9..12].parse().unwrap());
                at += end + 4 + length;
                continue;
            }
        }
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            Ok(_) | Err(_) => break,
        }
    }
    statuses
}

#[test]
#[ignore = "a hundred thousand requests take half a minute: tests/run observability"]
fn series_do_not_depend_on_shops_or_callers() {
    let upstream = Upstream::start(Behaviour::Fields(""));
    let config = "[failed_attempts]\nlimit = 250000\n\
                  [[limits]]\nname = \"shops\"\npaths = [\"/api/plugin/*\"]\nkey = \"shop\"\n\
                  limit = 20\nwindow = \"1h\"\n\
                  [[limits]]\nname = \"rest\"\npaths = [\"/*\"]\nkey = \"address\"\n\
                  limit = 250000\nwindow = \"1s\"\nfallback = true\n";
    let site = Site::new(Some(&upstream), config);
    let gateway = site.start_with(&[("LATCHKEY_LOG__LEVEL", "info,latchkey::refusal=warn")]);
    gateway.send(&get("/api/search/x"));
    gateway.send(&request("POST", "/nowhere"));
    let before = prometheus_series(&gateway.metrics());
    assert!(before.len() > 300, "{}", before.len());
    let file = site.path().join("shops.jsonl");
    fs::write(&file, records()).unwrap();
    site.cli_ok(&["import", &file.display().to_string()]);
    let info = gateway.api_ok("GET", "/info", &serde_json::Value::Null);
    assert_eq!(info["keys"], SHOPS);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let address = gateway.data;
            let seed = client as u64;
            std::thread::spawn(move || ask(address, seed, REQUESTS / CLIENTS))
        })
        .collect();
    let statuses: Vec<u16> = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
    assert!(statuses.len() >= REQUESTS);
    // It was not all the same, and much of it went through.
    let kinds: BTreeSet<u16> = statuses.iter().copied().collect();
    for status in [200, 400, 401, 403, 404] {
        assert!(kinds.contains(&status), "no {status} among {kinds:?}");
    }
    until(|| gateway.metrics().contains("latchkey_connections 0\n").then_some(()));
    let after = prometheus_series(&gateway.metrics());
    let more: Vec<_> = after.difference(&before).collect();
    let fewer: Vec<_> = before.difference(&after).collect();
    assert!(more.is_empty() && fewer.is_empty(), "more: {more:?}\nfewer: {fewer:?}");
    let decided = gateway.metrics();
    assert!(decided.contains(&format!("latchkey_shops {SHOPS}\n")), "{decided}");
}
