//! Backups: make, take away, verify, delete; and shops and keys as JSON lines, out and in.
//!
//! A form holds a file of a few mebibytes; what is longer is the command line's, which tells how
//! far it is.

use std::ops::ControlFlow;

use askama::Template;
use axum::http::header::{CONTENT_DISPOSITION, HeaderValue};

use super::{Segments, figures, may, require, sent_again};
use crate::admin::api::{backups as sent, transfer as exported};
use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, FileForm, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::backups::{self, Backup, BackupName, Schedule, State, Wanted};
use crate::admin::operations::transfer::{
    self, Import, ImportOptions, Imported, LineFault, Selection,
};
use crate::clock::Timestamp;
use crate::secret::SecretText;
use crate::store::backup::Header;

/// Most bytes of an import by a form.
const IMPORT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Faults of an import that a page shows; the others are counted.
const FAULTS_SHOWN: usize = 100;

/// A backup of the list.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    href: String,
    size: String,
    made: Option<Timestamp>,
    is_encrypted: bool,
    status: &'static str,
    tone: &'static str,
    problem: String,
}

impl Row {
    fn of(backup: &Backup) -> Self {
        let (status, tone, problem) = match &backup.state {
            State::Unchecked => ("Not verified", "", String::new()),
            State::Good { opened: true, .. } => ("Good", "good", String::new()),
            State::Good { opened: false, .. } => ("Checksums good", "good", String::new()),
            State::Bad { problem } => ("Of no use", "bad", problem.clone()),
        };
        Self {
            name: backup.name.as_str().to_owned(),
            href: format!("/backups/{}", backup.name.as_str()),
            size: figures::bytes(backup.bytes),
            made: backup.created_at(),
            is_encrypted: backup.header.as_ref().is_some_and(Header::is_encrypted),
            status,
            tone,
            problem,
        }
    }
}

/// When backups are made by themselves.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    interval: String,
    keep: usize,
    is_encrypted: bool,
    next: Timestamp,
    failure: Option<String>,
}

impl Plan {
    fn of(schedule: &Schedule) -> Self {
        Self {
            interval: figures::every(schedule.interval.as_secs()),
            keep: schedule.keep,
            is_encrypted: schedule.encrypted,
            next: schedule.next,
            failure: schedule.failure.as_ref().map(|(_, why)| why.clone()),
        }
    }
}

/// What became of an import.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    is_dry: bool,
    told: Vec<String>,
    faults: Vec<(u64, String)>,
    faults_total: u64,
}

impl Outcome {
    fn done(is_dry: bool, imported: &Imported) -> Self {
        let line = |what: &str, counts: transfer::Counts| {
            let [created, replaced, unchanged] =
                [counts.created, counts.replaced, counts.unchanged].map(figures::count);
            format!("{what}: {created} new, {replaced} replaced, {unchanged} as they were")
        };
        let told = vec![line("Shops", imported.shops), line("Keys", imported.keys)];
        Self { is_dry, told, ..Self::default() }
    }

    fn refused(shown: &[LineFault], total: u64) -> Self {
        let fault = |fault: &LineFault| (fault.line, fault.problem.clone());
        let faults = shown.iter().take(FAULTS_SHOWN).map(fault).collect();
        Self { faults, faults_total: total, ..Self::default() }
    }
}

#[derive(Template)]
#[template(path = "backups.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    directory: String,
    plan: Option<Plan>,
    errors: Errors,
    import_errors: Errors,
    outcome: Option<Outcome>,
    may_write: bool,
    may_export: bool,
    may_import: bool,
}

async fn shown(visit: &SignedIn) -> Result<Page, Failure> {
    let (found, schedule) = visit
        .load(|node, caller| Ok((backups::list(node, caller)?, backups::schedule(node, caller)?)))
        .await?;
    let all = Selection { shops: true, keys: true };
    Ok(Page {
        frame: visit.frame("Backups", "/backups"),
        rows: found.iter().map(Row::of).collect(),
        directory: visit.node().config.load().backup.directory.display().to_string(),
        plan: schedule.as_ref().map(Plan::of),
        errors: Errors::default(),
        import_errors: Errors::default(),
        outcome: None,
        may_write: may(visit, Permission::BackupsWrite),
        may_export: transfer::may_export(visit.caller(), all).is_ok(),
        may_import: [Permission::ShopsWrite, Permission::KeysWrite, Permission::LimitsWrite]
            .into_iter()
            .all(|permission| may(visit, permission)),
    })
}

/// `GET /backups`
pub(super) async fn list(visit: SignedIn) -> Answer {
    page(&shown(&visit).await?)
}

/// `POST /backups`
pub(super) async fn create(visit: SignedIn, form: Form) -> Answer {
    require(&visit, Permission::BackupsWrite)?;
    let typed = form.raw("passphrase");
    let passphrase = (!typed.is_empty()).then(|| SecretText::new(typed.to_owned()));
    let wanted = Wanted { passphrase, include_master_key: false };
    let made = visit
        .at_leisure(move |node, caller| {
            backups::create(node, caller, &wanted, &mut |_| ControlFlow::Continue(()))
        })
        .await?;
    match made {
        Ok(backup) => {
            let told = format!("The backup {} is made.", backup.name.as_str());
            Ok(visit.go("/backups", Flash::good(told)))
        }
        Err(error) => {
            let again = shown(&visit).await?;
            invalid(error, |errors| Page { errors, ..again })
        }
    }
}

fn named(name: &str) -> Result<BackupName, Failure> {
    BackupName::parse(name).ok_or_else(Failure::not_found)
}

/// `GET /backups/{name}`
pub(super) async fn download(visit: SignedIn, Segments(name): Segments<String>) -> Answer {
    let name = named(&name)?;
    let (file, backup) =
        visit.load(move |node, caller| backups::download(node, caller, &name)).await?;
    Ok(sent::sent(visit.node(), file, &backup))
}

/// `POST /backups/{name}/verify`
pub(super) async fn verify(
    visit: SignedIn,
    Segments(name): Segments<String>,
    _form: Form,
) -> Answer {
    let name = named(&name)?;
    let checked = visit
        .at_leisure(move |node, caller| {
            backups::verify(node, caller, &name, None, &mut |_| ControlFlow::Continue(()))
        })
        .await??;
    let name = checked.name.as_str();
    let flash = match &checked.state {
        State::Bad { problem } => Flash::bad(format!("{name} is of no use: {problem}")),
        State::Good { opened: true, .. } => {
            Flash::good(format!("{name} is good: it was opened and read to its end."))
        }
        State::Good { opened: false, .. } | State::Unchecked => Flash::good(format!(
            "The checksums of {name} are good. Without its passphrase it was not opened."
        )),
    };
    Ok(visit.go("/backups", flash))
}

/// `POST /backups/{name}/delete`
pub(super) async fn delete(
    visit: SignedIn,
    Segments(name): Segments<String>,
    _form: Form,
) -> Answer {
    let name = named(&name)?;
    let told = format!("The backup {} is deleted.", name.as_str());
    visit.load(move |node, caller| backups::delete(node, caller, &name)).await?;
    Ok(visit.go("/backups", Flash::good(told)))
}

/// `GET /export.jsonl`
pub(super) async fn export(visit: SignedIn) -> Answer {
    let all = Selection { shops: true, keys: true };
    transfer::may_export(visit.caller(), all)?;
    let mut response = exported::exported(visit.node(), visit.caller(), all)
        .map_err(|problem| Failure::internal(&problem.into_parts().1))?;
    let name = HeaderValue::from_static("attachment; filename=\"latchkey-export.jsonl\"");
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

/// `POST /import`
pub(super) async fn import(visit: SignedIn, FileForm(form): FileForm) -> Answer {
    let text = form.raw("lines").to_owned();
    let options =
        ImportOptions { dry_run: form.text("run") != "import", replace: form.checked("replace") };
    let problem = match text.len() {
        _ if text.trim().is_empty() => {
            Some("are empty: paste JSON lines, or choose a file of them")
        }
        0..=IMPORT_BYTES_MAX => None,
        _ => Some("are more than 4 MiB: import them by `latchkey import`"),
    };
    if let Some(problem) = problem {
        let import_errors = Errors::of("lines", problem);
        let again = shown(&visit).await?;
        return invalid_fields(&Page { import_errors, ..again });
    }
    let node = std::sync::Arc::clone(visit.node());
    let done = visit
        .at_leisure(move |_, caller| {
            let turn = transfer::take_turn(&node, caller)?;
            let report = &mut |_, _, _| ControlFlow::Continue(());
            transfer::import(&turn, caller, text.as_bytes(), options, report)
        })
        .await?;
    match done {
        Ok(Import::Done(imported)) => {
            let outcome = Some(Outcome::done(options.dry_run, &imported));
            let again = shown(&visit).await?;
            page(&Page { outcome, ..again })
        }
        Ok(Import::Refused(faults)) => {
            let outcome = Some(Outcome::refused(&faults.shown, faults.total));
            let again = shown(&visit).await?;
            invalid_fields(&Page { outcome, ..again })
        }
        Err(error) => {
            let again = shown(&visit).await?;
            invalid(sent_again(error), |import_errors| Page { import_errors, ..again })
        }
    }
}
