//! The manual: a page per command, made from the grammar, and pages about the whole.
//!
//! The latter are written in `packaging/man/`; what a page says of keys, codes and metrics is
//! filled in from the code that has them, so that it cannot say anything else. Prints nothing.

mod command;
mod fill;
mod markup;
#[cfg(test)]
mod tests;

use clap::CommandFactory as _;

use self::markup::Page;
use super::args::Cli;
use super::exit::{Exit, Failure};

pub(super) use self::fill::{configuration, configuration_json};

/// The day on which the pages were last worked over.
const DATE: &str = "2026-11-23";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pages about the whole, as they are written.
const WRITTEN: [&str; 6] = [
    include_str!("../../../packaging/man/latchkey.toml.5.txt"),
    include_str!("../../../packaging/man/latchkey-metrics.7.txt"),
    include_str!("../../../packaging/man/latchkey-proxies.7.txt"),
    include_str!("../../../packaging/man/latchkey-refusals.7.txt"),
    include_str!("../../../packaging/man/latchkey-security.7.txt"),
    include_str!("../../../packaging/man/latchkey-upgrade.7.txt"),
];

/// A page, ready to be written.
pub(super) struct Sheet {
    /// `latchkey.toml.5`
    pub(super) file: String,
    pub(super) roff: String,
    pub(super) text: String,
}

/// Every page.
pub(super) fn sheets() -> Result<Vec<Sheet>, Failure> {
    let mut sheets = Vec::new();
    for source in WRITTEN {
        let page = Page::parse(&fill::fill(source)?);
        let file = format!("{}.{}", page.name, page.section);
        sheets.push(Sheet { file, roff: page.roff(VERSION, DATE), text: page.text() });
    }
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    command::add(&program, &mut sheets)?;
    sheets.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(sheets)
}

/// The page that somebody calls `name`: `latchkey-refusals`, `refusals`, `key rotate`.
pub(super) fn find(name: &str) -> Result<Sheet, Failure> {
    let wanted = name.replace(' ', "-");
    let mut sheets = sheets()?;
    let stem = |sheet: &Sheet| sheet.file.rsplit_once('.').map(|(stem, _)| stem.to_owned());
    let found = sheets.iter().position(|sheet| {
        let full = format!("latchkey-{wanted}");
        sheet.file == wanted || stem(sheet).is_some_and(|stem| stem == wanted || stem == full)
    });
    if let Some(at) = found {
        return Ok(sheets.swap_remove(at));
    }
    let about = sheets.iter().filter(|sheet| !sheet.file.ends_with(".1")).filter_map(stem);
    let about: Vec<String> = about.collect();
    let failure = Failure::new(Exit::Usage, format!("there is no manual page `{name}`"));
    Err(failure.hint(format!("there are {}, and one per command", about.join(", "))))
}
