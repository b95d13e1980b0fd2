//! The pages of commands: what clap makes of the grammar, but for what it sets badly.
//!
//! Examples and exit codes of the help become sections of their own, names between backticks are
//! set as names, and every page says what to read next.

use super::markup::{literal, sections_roff};
use super::{DATE, Sheet, VERSION};
use crate::cli::exit::Failure;

/// What latchkey(1) has besides the grammar.
pub(super) const PROGRAM: &str = include_str!("../../../packaging/man/latchkey.1.txt");

/// What the page of every other command ends with.
const SEE_ALSO: &str = "## SEE ALSO\nlatchkey(1), latchkey.toml(5)\n";

/// Adds the pages of `command` and of all below it.
pub(super) fn add(command: &clap::Command, sheets: &mut Vec<Sheet>) -> Result<(), Failure> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add(below, sheets)?;
    }
    // Every page belongs to the same program.
    let page = clap_mangen::Man::new(command.clone())
        .date(DATE)
        .source(format!("latchkey {VERSION}"))
        .manual("latchkey manual");
    let mut roff = Vec::new();
    page.render(&mut roff)?;
    let roff = grammar(&String::from_utf8_lossy(&roff));
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let help = help.map(|text| sections(&text.to_string())).unwrap_or_default();
    let is_program = command.get_display_name().is_none_or(|name| name == "latchkey");
    let more = if is_program { PROGRAM } else { SEE_ALSO };
    let roff = roff + &sections_roff(&(help + more));
    let text = command.clone().render_long_help().to_string();
    sheets.push(Sheet { file: page.get_filename(), roff, text });
    Ok(())
}

/// What `roff` says of the grammar, without what comes after it.
fn grammar(roff: &str) -> String {
    let end = |title| roff.find(&format!("\n.SH {title}\n")).unwrap_or(roff.len());
    let end = end("EXTRA").min(end("VERSION"));
    let kept = roff.get(..end).unwrap_or(roff).replace("\n.br\n\n.br\n", "\n.sp\n");
    let mut out = String::with_capacity(kept.len());
    for line in kept.lines() {
        if line.starts_with(".TH ") {
            out.push_str(line.trim_end());
            out.push_str("\n.ad l\n");
            continue;
        }
        let paired = line.matches('`').count().is_multiple_of(2);
        if line.starts_with('.') || !paired {
            out.push_str(line.trim_end());
        } else {
            let parts = line.trim_end().split('`').enumerate();
            let set = |(i, part): (usize, &str)| match i % 2 {
                0 => part.to_owned(),
                _ => format!("\\fB\\%{part}\\fR"),
            };
            out.extend(parts.map(set));
        }
        out.push('\n');
    }
    out
}

/// The help that follows the options, as markup: what stands indented under a title is a section,
/// the rest are notes.
fn sections(help: &str) -> String {
    let (mut sections, mut notes) = (String::new(), String::new());
    for block in help.split("\n\n") {
        let (title, below) = block.split_once('\n').unwrap_or((block, ""));
        let indented = !below.is_empty() && below.lines().all(|line| line.starts_with("  "));
        match title.strip_suffix(':').filter(|_| indented) {
            Some(title) => {
                let title = title.to_uppercase().replace("EXIT CODES", "EXIT STATUS");
                let code: Vec<String> = below.lines().map(|line| format!("  {line}")).collect();
                sections.extend(["## ", &title, "\n", &code.join("\n"), "\n\n"]);
            }
            None => notes.extend([&*literal(block), "\n\n"]),
        }
    }
    if !notes.is_empty() {
        sections.extend(["## NOTES\n", &notes]);
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_becomes_sections_and_notes() {
        let help = "Examples:\n  a\n  b\n\nA *note*\nof two lines.\n\nExit codes:\n  0  done";
        let expected = "## EXAMPLES\n    a\n    b\n\n## EXIT STATUS\n    0  done\n\n\
                        ## NOTES\nA \\*note\\*\nof two lines.\n\n";
        assert_eq!(sections(help), expected);
    }

    #[test]
    fn names_are_set_as_names_and_what_clap_adds_is_gone() {
        let roff = ".TH x 1 \n.SH NAME\nx \\- y (`z`)\n.br\n\n.br\nq\n.SH EXTRA\nold\n\
                    .SH VERSION\nv1\n";
        let expected = ".TH x 1\n.ad l\n.SH NAME\nx \\- y (\\fB\\%z\\fR)\n.sp\nq\n";
        assert_eq!(grammar(roff), expected);
    }
}
