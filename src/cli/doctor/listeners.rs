//! Addresses to listen on: free, or answered by the server that runs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Running;
use super::finding::{Check, Report};
use crate::cli::start::{ensure_free, reachable};
use crate::config::Config;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at both.
pub(super) async fn check(config: &Config, server: Running<'_>, report: &mut Report) {
    let listeners =
        [("server.listen", config.server.listen), ("admin.listen", config.admin.listen)];
    for (key, address) in listeners {
        if address.port() == 0 {
            report.ok(Check::Listener, key, format!("{address}: any port that is free"));
        } else if server.is_some() {
            check_answered(key, address, report).await;
        } else {
            check_free(key, address, report);
        }
    }
}

async fn check_answered(key: &str, address: SocketAddr, report: &mut Report) {
    let address = reachable(address);
    let why = match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => {
            report.ok(Check::Listener, key, format!("{address} is answered"));
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    report.error(
        Check::Listener,
        key,
        format!("a server runs, but not on {address}: {why}"),
        "restart it if the address was changed; else look into its log",
    );
}

fn check_free(key: &str, address: SocketAddr, report: &mut Report) {
    match ensure_free(key, address) {
        Ok(()) => report.ok(Check::Listener, key, format!("{address} is free")),
        Err(failure) => {
            let advice = failure.hint.unwrap_or_default();
            report.error(Check::Listener, key, failure.message, advice);
        }
    }
}
