//! What pages say of keys, codes and metrics, from the code that has them.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::markup::{Page, literal};
use crate::cli::exit::{Exit, Failure};
use crate::clock::Timestamp;
use crate::config::{self, Block, Key, KeyTable, LeftOut, Restart};
use crate::decision::denial::{Code, Stage};
use crate::id::Name;
use crate::metrics::Metrics;

/// Puts what is known where `source` has a line for it.
pub(super) fn fill(source: &str) -> Result<String, Failure> {
    let mut filled = String::with_capacity(source.len());
    for line in source.lines() {
        match line {
            "@keys@" => filled.push_str(&keys("")),
            "@codes@" => filled.push_str(&codes()),
            "@stages@" => filled.push_str(&stages()),
            "@metrics@" => filled.push_str(&metrics()?),
            line => filled.push_str(line),
        }
        filled.push('\n');
    }
    Ok(filled)
}

/// The reference of the keys that begin with `prefix`, as text.
pub(in crate::cli) fn configuration(prefix: &str) -> Result<String, Failure> {
    let keys = keys(prefix);
    if keys.is_empty() {
        let failure = Failure::new(Exit::Usage, format!("no key begins with `{prefix}`"));
        return Err(failure.hint("`latchkey config reference` prints them all"));
    }
    let title = "latchkey.toml(5): every key of the configuration";
    let text = Page::parse(&format!("{title}\n\n{keys}")).text();
    Ok(text.split_once("\n\n").map(|(_, keys)| keys.to_owned()).unwrap_or_default())
}

/// The same for programs.
pub(in crate::cli) fn configuration_json(prefix: &str) -> Value {
    let keys = config::reference().into_iter().flat_map(|table| table.keys);
    let keys = keys.filter(|key| matches(&key.path, prefix)).map(|key| {
        let default = match &key.left_out {
            LeftOut::Default(value) => Some(value.clone()),
            LeftOut::Empty => Some("[]".to_owned()),
            LeftOut::Means(_) | LeftOut::Refused => None,
        };
        let note = match &key.left_out {
            LeftOut::Means(note) => Some(note.clone()),
            LeftOut::Default(_) | LeftOut::Empty | LeftOut::Refused => None,
        };
        json!({
            "key": key.path,
            "type": key.shape,
            "default": default,
            "left_out": note,
            "required": key.left_out == LeftOut::Refused,
            "needs_restart": key.restart == Restart::Needed,
            "variable": key.variable,
            "description": plain(&key.about),
        })
    });
    keys.collect()
}

/// Whether `path` is `prefix`, in it, or begins so: as headings, files and complaints write it,
/// `[[issuers]]`, `issuers.name`, `issuers[0].name` or `upstreams.search.url`.
fn matches(path: &str, prefix: &str) -> bool {
    const ANY: &str = "NAME";
    let wanted = prefix.trim_matches(['[', ']']).split('.').map(without_index);
    let last = wanted.clone().count();
    let mut parts = path.split('.').map(without_index);
    (1..).zip(wanted).all(|(number, wanted)| match parts.next() {
        Some(part) if number == last => part.starts_with(wanted) || part == ANY,
        Some(part) => part == wanted || part == ANY,
        None => false,
    })
}

fn without_index(part: &str) -> &str {
    part.split_once('[').map_or(part, |(name, _)| name)
}

fn keys(prefix: &str) -> String {
    let mut out = String::new();
    for table in config::reference() {
        let keys: Vec<&Key> = table.keys.iter().filter(|key| matches(&key.path, prefix)).collect();
        if !keys.is_empty() {
            out.push_str(&table_of_keys(&table, &keys));
        }
    }
    out
}

fn table_of_keys(table: &KeyTable, keys: &[&Key]) -> String {
    let mut out = format!("### {}\n", table.heading);
    for block in &table.about {
        // Writing into a String does not fail, here and below.
        let _ = match block {
            Block::Text(text) => writeln!(out, "{}\n", literal(text)),
            Block::Code(lines) => writeln!(out, "    {}\n", lines.join("\n    ")),
        };
    }
    for key in keys {
        let _ = writeln!(out, "`{}`\n: *{}.* {}", key.name, capital(&key.shape), facts(key));
        for block in &key.about {
            let _ = match block {
                Block::Text(text) => writeln!(out, ": {}", literal(text)),
                Block::Code(lines) => writeln!(out, ":     {}", lines.join("\n:     ")),
            };
        }
        out.push('\n');
    }
    out
}

fn facts(key: &Key) -> String {
    let left_out = match &key.left_out {
        LeftOut::Default(value) => format!("Default: `{value}`."),
        LeftOut::Means(note) => format!("If left out: {}.", literal(note)),
        LeftOut::Empty => "Default: `[]`.".to_owned(),
        LeftOut::Refused => "Required.".to_owned(),
    };
    let restart = match key.restart {
        Restart::NotNeeded => "",
        Restart::Needed => " Needs a restart.",
        Restart::ForTheTable => " The first needs a restart, and so does leaving out the last.",
    };
    left_out + restart
}

fn plain(about: &[Block]) -> String {
    let text = about.iter().map(|block| match block {
        Block::Text(text) => text.clone(),
        Block::Code(lines) => lines.join("\n"),
    });
    text.collect::<Vec<_>>().join("\n")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

fn codes() -> String {
    let mut out = String::new();
    for code in Code::ALL {
        let advice = code.advice();
        let _ = writeln!(
            out,
            "### {} {}\n*{}.* {}\n\n*Who sent it:* {}\n\n*Who runs latchkey:* {}\n",
            code.status(),
            code.as_str(),
            code.title(),
            advice.when,
            advice.caller,
            advice.operator
        );
    }
    out
}

fn stages() -> String {
    let mut out = String::new();
    for stage in Stage::ALL {
        let codes = stage.codes().iter();
        let codes: Vec<String> =
            codes.map(|code| format!("{} `{}`", code.status(), code.as_str())).collect();
        let (name, codes) = (stage.as_str(), codes.join(", "));
        let _ = writeln!(out, "`{name}`\n: {} Refuses with {codes}.\n", stage.question());
    }
    out
}

/// A metric, read from the text that Prometheus would get.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    /// Its labels, with the values that are known beforehand.
    labels: Vec<(String, Vec<String>)>,
}

/// Stands for a name of the configuration.
const NAMED: &str = "name";

fn metrics() -> Result<String, Failure> {
    let failure = |error| Failure::new(Exit::Failure, format!("the metrics: {error}"));
    let metrics = Metrics::new(VERSION_LABEL).map_err(|error| failure(error.to_string()))?;
    let name = Name::parse(NAMED).map_err(|error| failure(error.to_string()))?;
    // Whatever is there only when it is configured is described too.
    metrics.configure(std::slice::from_ref(&name), &[(name.clone(), Duration::ZERO)]);
    metrics.certificates(&[Timestamp::MAX]);
    metrics.admin_certificates(&[Timestamp::MAX]);
    metrics.backup_schedule(Some(Duration::ZERO), None);
    let upstream = metrics.upstream(&name);
    let mut out = String::new();
    for family in families(&metrics.render()) {
        let Family { name, kind, help, labels } = family;
        let _ = writeln!(out, "`{name}`\n: *{}.* {}", capital(&kind), literal(&help));
        for (label, values) in labels {
            let values = match values.as_slice() {
                _ if label == "certificate" => "its place in the configuration, from 0".to_owned(),
                [one] if one == NAMED => "a name of the configuration".to_owned(),
                [one] if one == VERSION_LABEL => "the version".to_owned(),
                values => format!("`{}`", values.join("`, `")),
            };
            let _ = writeln!(out, ": Label `{label}`: {values}.");
        }
        out.push('\n');
    }
    drop(upstream);
    Ok(out)
}

/// Stands for the version.
const VERSION_LABEL: &str = "VERSION";

fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, help, ..Family::default() });
        } else if let Some(family) = families.last_mut() {
            if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
                kind.clone_into(&mut family.kind);
            } else {
                note_labels(family, line);
            }
        }
    }
    families
}

/// Adds the labels of a sample, `name{label="value",…} 1`; no value of ours holds a quote.
fn note_labels(family: &mut Family, sample: &str) {
    let within = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
    let pairs = within.map(|(pairs, _)| pairs).unwrap_or_default();
    for pair in pairs.split(',') {
        let Some((label, value)) = pair.split_once('=').filter(|(label, _)| *label != "le") else {
            continue;
        };
        let value = value.trim_matches('"').to_owned();
        match family.labels.iter_mut().find(|(known, _)| known == label) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => family.labels.push((label.to_owned(), vec![value])),
        }
    }
}
