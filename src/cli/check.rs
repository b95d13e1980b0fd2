//! `config check`, `config print`, `config reference` and `healthcheck`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};

use super::args::{ConfigCommand, HealthcheckArgs};
use super::certificates;
use super::collector;
use super::exit::{Exit, Failure};
use super::http::exchange;
use super::manual;
use super::output::{Format, Output};
use super::start::{self, reachable};
use crate::config::{AdminConfig, Sources};

/// `config check`, `config print` and `config reference`.
pub(super) fn config(
    command: &ConfigCommand,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check => {
            let config = start::load(sources)?;
            certificates::load(&config)?;
            certificates::check_upstreams(&config)?;
            certificates::check_providers(&config)?;
            collector::check(&config)?;
            output.done("ok: the configuration is valid", &json!({"valid": true}))
        }
        ConfigCommand::Print => output.text(&start::load(sources)?.print()),
        ConfigCommand::Reference { key } => match output.format() {
            Format::Json => output.json(&manual::configuration_json(key)),
            Format::Table => output.text(&manual::configuration(key)?),
        },
    }
}

/// `healthcheck`.
pub(super) fn health(
    args: &HealthcheckArgs,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    let at = match args.admin {
        Some(address) => Listener::Tcp(address),
        None => Listener::of(&start::load(sources)?.admin),
    };
    let waited = Duration::from_secs(args.timeout);
    let answer = start::runtime()?
        .block_on(async { tokio::time::timeout(waited, at.ask()).await })
        .unwrap_or_else(|_| Err(format!("no answer within {} s", waited.as_secs())));
    let refuse = |message: String| Failure::new(Exit::Refused, message);
    let answer = answer.map_err(|error| {
        refuse(format!("the server on {at} is not there: {error}"))
            .hint("is it running, and is this its admin.listen? name another with --admin")
    })?;
    let said = String::from_utf8_lossy(answer.body()).trim().to_owned();
    if answer.status().is_success() {
        return output.done("ready", &json!({"ready": true}));
    }
    Err(refuse(format!("the server on {at} is not ready: {said}")))
}

/// Where a server is asked for its health.
enum Listener {
    Tcp(SocketAddr),
    Socket(PathBuf),
}

impl Listener {
    /// The one that `config` names. One that speaks TLS has a certificate for names that are not
    /// asked for here, so its socket is asked instead.
    fn of(config: &AdminConfig) -> Self {
        match config.tls {
            None => Self::Tcp(reachable(config.listen)),
            Some(_) => Self::Socket(config.socket.clone()),
        }
    }

    async fn ask(&self) -> Result<Response<Bytes>, String> {
        let request = Request::get("/readyz").header(header::HOST, "localhost");
        let request = request.body(Full::default()).map_err(|e| e.to_string())?;
        let answer = match self {
            Self::Tcp(address) => {
                exchange(TcpStream::connect(address).await.map_err(|e| e.to_string())?, request)
                    .await
            }
            Self::Socket(path) => {
                exchange(UnixStream::connect(path).await.map_err(|e| e.to_string())?, request).await
            }
        };
        answer.map_err(|e| e.to_string())
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Printed;
    use crate::config::ConfigFile;

    fn sources(text: &str) -> Sources {
        let (name, text) = ("latchkey.toml".to_owned(), text.to_owned());
        Sources { file: ConfigFile::Inline { name, text }, ..Sources::default() }
    }

    #[test]
    fn a_valid_configuration_is_said_to_be_and_can_be_printed() {
        let printed = Printed::default();
        let mut output = printed.output(Format::Table);
        config(&ConfigCommand::Check, &sources(""), &mut output).unwrap();
        assert_eq!(printed.text(), "ok: the configuration is valid\n");
        config(&ConfigCommand::Print, &sources("[log]\nlevel = \"warn\""), &mut output).unwrap();
        assert!(printed.text().contains("level = \"warn\"  # latchkey.toml"));
    }

    #[test]
    fn every_mistake_is_said_at_once() {
        let printed = Printed::default();
        let text = "[server]\nlisten = 1\nworker = 2\n[log]\nlevel = \"loud\"";
        let failure =
            config(&ConfigCommand::Check, &sources(text), &mut printed.output(Format::Table))
                .unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        for key in ["server.listen", "server.worker", "log.level"] {
            assert!(failure.message.contains(key), "{}", failure.message);
        }
    }

    #[test]
    fn health_of_nobody() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let args = HealthcheckArgs { admin: Some(address), timeout: 5 };
        let mut output = Printed::default().output(Format::Table);
        let failure = health(&args, &Sources::default(), &mut output).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains(&address.to_string()));
    }
}
