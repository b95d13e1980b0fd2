//! How far long work is: a bar on a terminal, a line now and then elsewhere, on standard error.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work of fewer steps than this is done before anybody has read a line about it.
const QUIET_BELOW: u64 = 10_000;

/// Told in lines: every quarter.
const QUARTERS: u64 = 4;

/// What steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Records or rows.
    Records,
    /// Bytes.
    Bytes,
}

/// Tells how far the work is. Cleared when dropped.
pub(super) struct Bar {
    drawn: ProgressBar,
    is_terminal: bool,
    told: Option<(String, u64)>,
}

impl Bar {
    /// On standard error.
    pub(super) fn stderr() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target =
            if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { drawn: ProgressBar::with_draw_target(None, target), is_terminal, told: None }
    }

    /// `done` of `total` steps of `phase`; a total of zero is not known.
    pub(super) fn set(&mut self, phase: &str, unit: Unit, done: u64, total: u64) {
        if self.is_terminal {
            self.draw(phase, unit, done, total);
        } else if let Some(line) = self.line(phase, done, total) {
            // Nowhere is left to complain to if that fails.
            drop(writeln!(std::io::stderr().lock(), "{line}"));
        }
    }

    fn draw(&mut self, phase: &str, unit: Unit, done: u64, total: u64) {
        if self.told.as_ref().is_none_or(|(told, _)| told != phase) {
            self.told = Some((phase.to_owned(), 0));
            self.drawn.reset();
            let count = match unit {
                Unit::Records => "{human_pos}/{human_len}",
                Unit::Bytes => "{bytes}/{total_bytes}",
            };
            let template = if total == 0 {
                format!("{phase} {{spinner}} {}", count.split('/').next().unwrap_or_default())
            } else {
                format!("{phase} {{wide_bar}} {count} {{eta}}")
            };
            // A template that is wrong leaves the default style.
            if let Ok(style) = ProgressStyle::with_template(&template) {
                self.drawn.set_style(style);
            }
        }
        if total > 0 {
            self.drawn.set_length(total);
        }
        self.drawn.set_position(done);
    }

    /// What is worth a line: another quarter is done.
    fn line(&mut self, phase: &str, done: u64, total: u64) -> Option<String> {
        if total < QUIET_BELOW {
            return None;
        }
        let quarter = done.saturating_mul(QUARTERS) / total;
        let known = self.told.as_ref().filter(|(told, _)| told == phase).map(|(_, at)| *at);
        if known.is_some_and(|known| known >= quarter) || quarter == 0 {
            return None;
        }
        self.told = Some((phase.to_owned(), quarter));
        Some(format!("latchkey: {phase}: {} %", quarter * 100 / QUARTERS))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.drawn.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_there_is_a_line_for_each_quarter() {
        let mut bar = Bar { drawn: ProgressBar::hidden(), is_terminal: false, told: None };
        let lines = (0..=100_000).step_by(500).filter_map(|n| bar.line("applying", n, 100_000));
        let lines: Vec<String> = lines.collect();
        let expected = [25, 50, 75, 100].map(|n| format!("latchkey: applying: {n} %"));
        assert_eq!(lines, expected);
        assert_eq!(bar.line("checking", 10, 100), None);
    }
}
