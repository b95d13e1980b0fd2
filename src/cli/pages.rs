//! Manual pages and shell completions, made from the grammar.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use super::args::Cli;
use super::exit::{Exit, Failure};
use super::output::Output;

/// Prints the completion script of `shell`.
pub(super) fn completions(shell: clap_complete::Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "latchkey", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

/// Prints the manual page of the program, or writes it and one per command into `directory`.
pub(super) fn man(directory: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return output.text(&String::from_utf8_lossy(&page));
    };
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
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
        man(None, &mut printed.output(Format::Table)).unwrap();
        assert!(printed.text().contains("Exit codes"));
        let directory = tempfile::tempdir().unwrap();
        man(Some(directory.path()), &mut printed.output(Format::Table)).unwrap();
        for page in ["latchkey.1", "latchkey-serve.1", "latchkey-key-rotate.1"] {
            assert!(directory.path().join(page).is_file(), "{page}");
        }
    }
}
