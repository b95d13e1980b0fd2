//! A server that runs: is there one, and what does it say of itself.
//!
//! Asked through the unix socket, whose owner this command is run by.

use std::io;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use serde_json::Value;
use tokio::net::UnixStream;

use super::finding::{Check, Report};
use crate::cli::http::exchange;
use crate::cli::output::{find, show};
use crate::config::Config;

/// What a server said.
pub(super) struct Server {
    /// Whether its store takes writes.
    pub(super) is_writable: bool,
    /// How many files it may open, if it said so.
    pub(super) open_files_max: Option<u64>,
    /// Its identity providers, as `GET /issuers` lists them.
    issuers: Vec<Value>,
}

impl Server {
    /// What it has of the issuer `name`.
    pub(super) fn keys(&self, name: &str) -> Keys {
        let issuer = self.issuers.iter().find(|i| find(i, "name").as_str() == Some(name));
        match issuer.map(|issuer| find(issuer, "usable").as_bool()) {
            None => Keys::UnknownIssuer,
            Some(Some(true)) => Keys::Usable,
            Some(Some(false) | None) => Keys::None,
        }
    }
}

/// What a server has of an issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// No server runs.
    NoServer,
    /// It does not know the issuer.
    UnknownIssuer,
    /// None that it can use.
    None,
    /// Usable ones.
    Usable,
}

/// Finds out whether a server runs.
pub(super) async fn look_for(config: &Config, report: &mut Report) -> Option<Server> {
    let socket = &config.admin.socket;
    let shown = socket.display().to_string();
    match UnixStream::connect(socket).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.ok(Check::Server, shown, "no server runs");
            return None;
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            report.ok(Check::Server, shown, "no server runs; the next start replaces this socket");
            return None;
        }
        Err(error) => {
            let advice = "run this as the user latchkey runs as, or as a member of its group";
            report.error(Check::Server, shown, format!("cannot be connected to: {error}"), advice);
            return None;
        }
    }
    match ask(config).await {
        Ok((server, version)) => {
            said(&shown, &version, report);
            Some(server)
        }
        Err(error) => {
            let advice = "look into the server's log; restart it if it hangs";
            report.error(Check::Server, shown, format!("gives no usable answer: {error}"), advice);
            None
        }
    }
}

fn said(socket: &str, version: &str, report: &mut Report) {
    let own = env!("CARGO_PKG_VERSION");
    if version == own {
        report.ok(Check::Server, socket, format!("latchkey {version} runs"));
    } else {
        report.warning(
            Check::Server,
            socket,
            format!("latchkey {version} runs, and this is {own}"),
            "restart the server to run the installed version",
        );
    }
}

async fn ask(config: &Config) -> Result<(Server, String), String> {
    let ready: Value = json(&get(config, "/readyz").await?)?;
    let info: Value = json(&get(config, "/api/v1/info").await?)?;
    let issuers: Value = json(&get(config, "/api/v1/issuers").await?)?;
    let metrics = get(config, "/metrics").await?;
    let metrics = String::from_utf8_lossy(&metrics);
    let server = Server {
        is_writable: find_text(&ready, "store") == "writable",
        open_files_max: gauge(&metrics, "process_max_fds"),
        issuers: find(&issuers, "items").as_array().cloned().unwrap_or_default(),
    };
    Ok((server, find_text(&info, "version")))
}

fn find_text(value: &Value, member: &str) -> String {
    show(find(value, member))
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))
}

fn gauge(metrics: &str, name: &str) -> Option<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

async fn get(config: &Config, path: &str) -> Result<Bytes, String> {
    let stream = UnixStream::connect(&config.admin.socket).await.map_err(|e| e.to_string())?;
    let request = Request::get(path).header(header::HOST, "latchkey").body(Full::default());
    let answer = exchange(stream, request.map_err(|e| e.to_string())?).await;
    let answer = answer.map_err(|error| format!("{path}: {error}"))?;
    // `/readyz` answers 503 while the server drains, and says so.
    if answer.status().is_success() || path == "/readyz" {
        return Ok(answer.into_body());
    }
    Err(format!("{path}: status {}", answer.status().as_u16()))
}
