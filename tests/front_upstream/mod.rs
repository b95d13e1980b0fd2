//! Between the permit and the upstream, through the running binary: what is sent, when it is sent
//! again, and what becomes of broken answers.

mod answers;
mod attack;
mod bodies;
mod endpoints;
mod secured;
mod upgrades;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, parse};

/// A complete answer.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Everything open, everything to the upstream `app`; `app` is its table, `route` more of the
/// route's.
fn config(app: &str, route: &str) -> String {
    format!(
        "[[routes]]\nname = \"open\"\npaths = [\"/*\"]\nmechanisms = [\"anonymous\"]\n\
         upstream = \"app\"\n{route}\n\
         [[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\nlimit = 200000\n\
         window = \"1s\"\n[upstreams.app]\n{app}\n"
    )
}

fn serve(app: &str, route: &str) -> (Site, Gateway) {
    // One worker: what is pooled is pooled once.
    let site = Site::new(None, &config(app, route));
    let gateway = site.start_with(&[("LATCHKEY_SERVER__WORKERS", "1")]);
    (site, gateway)
}

/// Sends on a connection that stays open, and reads one response.
fn ask(stream: &mut TcpStream, request: &str) -> Response {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(response) = parse(&bytes) {
            let announced = response.header("content-length").and_then(|n| n.parse().ok());
            let bodiless = request.starts_with("HEAD ") || matches!(response.status, 204 | 304);
            if bodiless || announced.is_none_or(|length: usize| response.body.len() == length) {
                return response;
            }
        }
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..n]);
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: front.example\r\n\r\n")
}

/// Everything that comes back until the connection ends, however it ends.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
    bytes
}

/// The value of a series.
fn metric(gateway: &Gateway, series: &str) -> f64 {
    let metrics = gateway.metrics();
    let line = metrics.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|v| v.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}
