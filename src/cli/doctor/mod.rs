//! `doctor`: looks at everything a gateway needs and says, line by line, what is well, what is
//! doubtful, what is broken, and what to do about it.
//!
//! Changes nothing: no file is made or written, no key set kept, no request sent to an upstream.
//! It asks a server that runs what only that can know, and looks for itself at everything else.

mod backups;
mod certificates;
mod clock;
mod collector;
mod configuration;
mod files;
mod finding;
mod listeners;
mod providers;
mod running;
mod space;
mod store;
mod upstreams;

use serde_json::json;

use self::finding::{Report, Status};
use self::running::Server;
use super::args::DoctorArgs;
use super::exit::{Exit, Failure};
use super::output::{Format, Output};
use super::start;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, Config, Sources};

/// `doctor`.
pub(super) fn run(args: DoctorArgs, sources: &Sources, output: &mut Output) -> Result<(), Failure> {
    let mut report = Report::default();
    match config::load(sources) {
        Ok(config) => {
            configuration::valid(&config, sources, &mut report);
            start::runtime()?.block_on(examine(&config, &mut report));
        }
        Err(errors) => configuration::invalid(&errors, &mut report),
    }
    print(&report, output)?;
    conclude(&report, args.strict)
}

/// Every check, in the order of the lines.
async fn examine(config: &Config, report: &mut Report) {
    let system = SystemClock::new();
    let started = system.now();
    let server = running::look_for(config, report).await;
    let server = server.as_ref();
    files::check(config, report);
    store::check(config, server, report);
    certificates::check(config, started.unix, report);
    listeners::check(config, server, report).await;
    upstreams::check(config, report).await;
    let dates = providers::check(config, server, &system, report).await;
    providers::check_operators(config, &system, report).await;
    backups::check(config, server, started.unix, report);
    collector::check(config, &system, report).await;
    space::check(config, server, report);
    clock::check(started, system.now(), &dates, report);
}

fn print(report: &Report, output: &mut Output) -> Result<(), Failure> {
    let [ok, warnings, errors] = report.counts();
    if output.format() == Format::Json {
        let checks: Vec<_> = report.findings.iter().map(finding::Finding::to_json).collect();
        return output.json(&json!({
            "status": report.worst().as_str(),
            "ok": ok, "warnings": warnings, "errors": errors,
            "checks": checks,
        }));
    }
    for finding in &report.findings {
        output.text(&finding.to_lines())?;
    }
    output.line(&format!("\n{ok} ok, {warnings} warnings, {errors} errors"))
}

fn conclude(report: &Report, strict: bool) -> Result<(), Failure> {
    let message = match report.worst() {
        Status::Ok => return Ok(()),
        Status::Warning if !strict => return Ok(()),
        Status::Warning => "there are warnings, and --strict was given",
        Status::Error => "there are errors; each line above says what to do",
    };
    Err(Failure::new(Exit::CheckFailed, message))
}

/// What a check of a running server may be asked for.
type Running<'s> = Option<&'s Server>;
