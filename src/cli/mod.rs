//! The command line: `serve`, `demo`, and everything an operator types.
//!
//! Commands that manage something are one request to the admin API each, over the unix socket of
//! a running server or in this process (`client`); no command knows the store. Results go to
//! standard output through `output`, errors and logs to standard error. This is the top of the
//! crate: it puts the parts together and decides nothing about requests.

mod admin_plane;
mod args;
mod backup;
mod certificates;
mod check;
mod client;
mod collector;
mod demo;
mod doctor;
mod exit;
mod explain;
mod follow;
mod gateway;
mod http;
mod manage;
mod manual;
mod output;
mod pages;
mod password;
mod progress;
mod serve;
mod service;
mod start;
mod transfer;

use std::ffi::OsString;
use std::io::Write as _;

use clap::Parser as _;

use self::args::{
    AuditCommand, BackupCommand, Cli, Command, OperatorCommand, OperatorTokenCommand, ShopCommand,
};
use self::client::{Client, Missing};
use self::output::Output;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Sources;

pub use self::exit::{Exit, Failure};

/// Runs the command line `words`, the program's name first.
///
/// # Errors
///
/// The [`Failure`] to report and to end with.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return answer_usage(&error),
    };
    let mut output = Output::stdout(cli.global.output);
    dispatch(&cli, &mut output)
}

fn dispatch(cli: &Cli, output: &mut Output) -> Result<(), Failure> {
    let mut overrides = cli.global.overrides();
    if let Command::Serve(serve) = &cli.command {
        overrides.extend(serve.overrides());
    }
    let sources = || Sources::of_process(cli.global.config_file(), overrides);
    match &cli.command {
        Command::Serve(_) => serve::run(&sources()),
        Command::Demo(args) => demo::run(args, output),
        Command::Completions { shell } => pages::completions(*shell, output),
        Command::Man(args) => pages::man(args, output),
        Command::Config(command) => check::config(command, &sources(), output),
        Command::Healthcheck(args) => check::health(args, &sources(), output),
        Command::Audit(AuditCommand::Verify { expect, file: Some(file) }) => {
            let config = start::load(&sources())?;
            manage::verify_audit_file(file, *expect, &config.store.master_key_file, output)
        }
        Command::Doctor(args) => doctor::run(*args, &sources(), output),
        Command::Verify(args) | Command::Backup(BackupCommand::Verify(args)) => {
            backup::verify(args, &sources(), output)
        }
        Command::Restore(args) => backup::restore(args, &sources(), output),
        Command::Shop(_)
        | Command::Key(_)
        | Command::Token(_)
        | Command::Operator(_)
        | Command::Issuer(_)
        | Command::Assertion(_)
        | Command::Audit(_)
        | Command::Usage(_)
        | Command::Backup(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Explain(_) => manage(&cli.command, &sources(), output),
    }
}

/// The commands that are requests to the admin API.
fn manage(command: &Command, sources: &Sources, output: &mut Output) -> Result<(), Failure> {
    let config = start::load(sources)?;
    start::runtime()?.block_on(async {
        let client = Client::connect(config, missing(command)).await?;
        let now = SystemClock::new().now().unix;
        match command {
            Command::Shop(command) => manage::shop(command, &client, output).await,
            Command::Key(command) => manage::key(command, &client, output, now).await,
            Command::Token(command) => manage::token(command, &client, output).await,
            Command::Operator(command) => manage::operator(command, &client, output, now).await,
            Command::Issuer(command) => manage::issuer(command, &client, output).await,
            Command::Assertion(command) => manage::assertion(command, &client, output).await,
            Command::Audit(command) => manage::audit(command, &client, output).await,
            Command::Usage(args) => manage::usage(args, &client, output).await,
            Command::Backup(command) => backup::run(command, &client, output).await,
            Command::Import(args) => transfer::import(args, &client, output).await,
            Command::Export(args) => transfer::export(args, &client, output).await,
            Command::Explain(args) => explain::run(args, &client, output).await,
            Command::Serve(_)
            | Command::Demo(_)
            | Command::Completions { .. }
            | Command::Man(_)
            | Command::Config(_)
            | Command::Doctor(_)
            | Command::Verify(_)
            | Command::Restore(_)
            | Command::Healthcheck(_) => Ok(()),
        }
    })
}

/// Whether `command` may be the one that makes the database.
fn missing(command: &Command) -> Missing {
    match command {
        Command::Shop(ShopCommand::Create { .. })
        | Command::Operator(
            OperatorCommand::Create { .. }
            | OperatorCommand::Token(OperatorTokenCommand::Create { .. }),
        )
        | Command::Import(_) => Missing::Create,
        Command::Shop(_)
        | Command::Operator(_)
        | Command::Key(_)
        | Command::Token(_)
        | Command::Issuer(_)
        | Command::Assertion(_)
        | Command::Audit(_)
        | Command::Usage(_)
        | Command::Backup(_)
        | Command::Verify(_)
        | Command::Restore(_)
        | Command::Export(_)
        | Command::Explain(_)
        | Command::Serve(_)
        | Command::Demo(_)
        | Command::Completions { .. }
        | Command::Man(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Healthcheck(_) => Missing::Refuse,
    }
}

/// Prints clap's answer: help and version are results, everything else is a mistake.
fn answer_usage(error: &clap::Error) -> Result<(), Failure> {
    let text = error.render().ansi().to_string();
    if error.use_stderr() {
        // Nowhere is left to complain to if that fails.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
        return Err(Failure::new(Exit::Usage, ""));
    }
    Output::stdout(output::Format::Table).text(&text)
}
