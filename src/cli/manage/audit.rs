//! `audit`.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};

use crate::admin::api::dto::AuditVerified;
use crate::admin::percent::encoded;
use crate::cli::args::{AuditCommand, AuditListArgs};
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{Column, Format, Output, find, show};
use crate::store::audit::{Point, export};
use crate::store::master_key;

const COLUMNS: [Column; 7] = [
    Column("SEQ", "seq"),
    Column("AT", "at"),
    Column("ACTOR", "who"),
    Column("FROM", "address"),
    Column("ACTION", "action"),
    Column("SUBJECT", "subject.id"),
    Column("CHANGE", "change"),
];

/// Entries asked for at once.
const PAGE: usize = 500;

const PATH: &str = "/audit";

/// Runs it.
pub(in crate::cli) async fn run(
    command: &AuditCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        AuditCommand::List(args) => list(args, client, output).await,
        AuditCommand::Export { file } => export_to(file.as_ref(), client, output).await,
        AuditCommand::Verify { expect, .. } => {
            let body = expect.map(|point| json!({ "expect": point.to_string() }));
            let path = format!("{PATH}/verify");
            let answer = client.call(Method::POST, &path, body.as_ref()).await?;
            verdict(&answer, output)
        }
        AuditCommand::Head => {
            let answer = client.get(&format!("{PATH}/head")).await?;
            match find(&answer, "expect").as_str() {
                Some(expect) => output.done(expect, &answer),
                None if output.format() == Format::Json => output.json(&answer),
                None => Err(Failure::new(Exit::CheckFailed, "the log has no end to be trusted")
                    .hint("see what is wrong with it: latchkey audit verify")),
            }
        }
    }
}

/// `audit verify --file`: without server and database, with the master key's file `key_file`.
pub(in crate::cli) fn verify_file(
    file: &Path,
    expected: Option<Point>,
    key_file: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let key = master_key::load(key_file);
    let key = key.map_err(|error| Failure::new(Exit::Store, error.to_string()))?.chain_key();
    let failed = |what: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("{}: {what}", file.display()))
    };
    let opened = File::open(file).map_err(|error| failed(&error))?;
    let report = export::verify(BufReader::new(opened), &key, expected);
    let report = AuditVerified::from(report.map_err(|error| failed(&error))?);
    let answer = serde_json::to_value(report).map_err(|error| failed(&error))?;
    verdict(&answer, output)
}

/// Says what a verification found; a failure if anything is wrong.
fn verdict(answer: &Value, output: &mut Output) -> Result<(), Failure> {
    let entries = show(find(answer, "entries"));
    if find(answer, "intact").as_bool() == Some(true) {
        let head = show(find(answer, "head.expect"));
        return output.done(&format!("intact: {entries} entries, up to {head}"), answer);
    }
    if output.format() == Format::Json {
        output.json(answer)?;
    }
    let faults = find(answer, "faults").as_array().cloned().unwrap_or_default();
    let mut lines = vec![format!("the audit log is not intact ({entries} entries):")];
    lines.extend(faults.iter().map(|fault| show(find(fault, "detail"))));
    Err(Failure::new(Exit::CheckFailed, lines.join("\n"))
        .hint("keep a copy of the database, and compare with an export or a backup made before"))
}

async fn list(args: &AuditListArgs, client: &Client, output: &mut Output) -> Result<(), Failure> {
    let mut query = String::new();
    let wanted = [
        ("action", args.action.map(|action| action.as_str().to_owned())),
        ("actor", args.actor.clone()),
        ("subject", args.subject.clone()),
        ("shop", args.shop.map(|shop| shop.to_string())),
        ("from", args.from.map(|at| at.to_string())),
        ("to", args.to.map(|at| at.to_string())),
    ];
    for (name, value) in wanted {
        if let Some(value) = value {
            query.extend(["&", name, "=", &encoded(&value)]);
        }
    }
    let mut items: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    while items.len() < args.limit {
        let limit = (args.limit - items.len()).min(PAGE);
        let page = client.get(&format!("{PATH}?limit={limit}{query}{cursor}")).await?;
        items.extend(find(&page, "items").as_array().into_iter().flatten().cloned());
        match find(&page, "next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    if output.format() == Format::Json {
        return output.json(&Value::Array(items));
    }
    let rows: Vec<Value> = items.into_iter().map(row).collect();
    output.list(&COLUMNS, &rows, "No entries. Take a filter away, if you gave one.")
}

/// An entry as a line of a table.
fn row(mut entry: Value) -> Value {
    let (label, name) = (show(find(&entry, "actor.label")), show(find(&entry, "actor.name")));
    let who = if label == name { label } else { format!("{name} ({label})") };
    let change = [("before", "was"), ("after", "is")].map(|(member, word)| {
        let value = find(&entry, member);
        let some = value.as_object().is_some_and(|members| !members.is_empty());
        some.then(|| format!("{word} {}", show(value)))
    });
    let change: Vec<String> = change.into_iter().flatten().collect();
    if let Some(members) = entry.as_object_mut() {
        members.insert("who".to_owned(), Value::String(who));
        members.insert("change".to_owned(), Value::String(change.join("; ")));
    }
    entry
}

async fn export_to(
    file: Option<&PathBuf>,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = format!("{PATH}/export");
    let Some(file) = file else {
        return client.download(&path, &mut |piece| output.bytes(piece)).await;
    };
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failure, format!("{} could not be written: {error}", file.display()))
    };
    let mut to = File::create(file).map_err(failed)?;
    client.download(&path, &mut |piece| to.write_all(piece).map_err(failed)).await?;
    to.sync_all().map_err(failed)?;
    let written = json!({ "file": file });
    output.done(&format!("Written to {}.", file.display()), &written)
}
