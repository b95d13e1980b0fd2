//! Manual pages and shell completions, made from the grammar.

use std::fs;

use clap::CommandFactory as _;

use super::args::{Cli, ManArgs};
use super::exit::{Exit, Failure};
use super::manual;
use super::output::Output;

/// Prints the completion script of `shell`.
pub(super) fn completions(shell: clap_complete::Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "latchkey", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

/// Prints a manual page, or writes them all into a directory.
pub(super) fn man(args: &ManArgs, output: &mut Output) -> Result<(), Failure> {
    let Some(directory) = &args.dir else {
        let sheet = manual::find(&args.page)?;
        return output.text(if args.text { &sheet.text } else { &sheet.roff });
    };
    let sheets = manual::sheets()?;
    let write = |sheet: manual::Sheet| fs::write(directory.join(sheet.file), sheet.roff);
    let written =
        fs::create_dir_all(directory).and_then(|()| sheets.into_iter().try_for_each(write));
    written.map_err(|error| {
        let message =
            format!("the manual pages could not be written to {}: {error}", directory.display());
        Failure::new(Exit::Failure, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use crate::cli::output::tests::Printed;

    #[test]
    fn every_shell_has_a_script() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let printed = Printed::default();
            completions(*shell, &mut printed.output(Format::Table)).unwrap();
            assert!(printed.text().contains("healthcheck"), "{shell}");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let printed = Printed::default();
        let page = |page: &str| ManArgs { page: page.to_owned(), ..ManArgs::default() };
        man(&page("latchkey"), &mut printed.output(Format::Table)).unwrap();
        assert!(printed.text().contains("EXIT STATUS"));
        let directory = tempfile::tempdir().unwrap();
        let all = ManArgs { dir: Some(directory.path().to_owned()), ..page("latchkey") };
        man(&all, &mut printed.output(Format::Table)).unwrap();
        for page in ["latchkey.1", "latchkey-key-rotate.1", "latchkey.toml.5"] {
            assert!(directory.path().join(page).is_file(), "{page}");
        }
    }

    #[test]
    fn pages_are_found_by_what_people_call_them() {
        let say = |page: &str, text: bool| {
            let printed = Printed::default();
            let args = ManArgs { page: page.to_owned(), text, dir: None };
            man(&args, &mut printed.output(Format::Table)).map(|()| printed.text())
        };
        for page in ["refusals", "latchkey-refusals", "latchkey-refusals.7"] {
            assert!(say(page, true).unwrap().starts_with("latchkey-refusals(7): "), "{page}");
        }
        assert!(say("key rotate", false).unwrap().contains(".TH latchkey-key-rotate 1"));
        assert!(say("serve", true).unwrap().contains("Usage: latchkey serve"));
        let failure = say("nonsense", true).unwrap_err().to_string();
        assert!(failure.contains("latchkey-upgrade, latchkey.toml, and"), "{failure}");
    }
}
