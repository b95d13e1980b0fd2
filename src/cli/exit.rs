//! How the program ends: its exit codes, and the error a command fails with.
//!
//! One table for all commands; `--help` prints it.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit codes. Scripts branch on them: a number never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed, for a reason without a code of its own.
    Failure = 1,
    /// The command line was not understood.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// The database or the master key cannot be used.
    Store = 4,
    /// An address to listen on is taken.
    AddressInUse = 5,
    /// The server cannot be reached, or refused the request.
    Refused = 6,
    /// A check found something wrong.
    CheckFailed = 7,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::Configuration,
        Self::Store,
        Self::AddressInUse,
        Self::Refused,
        Self::CheckFailed,
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, as `--help` says it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failure => "failed, for a reason without a code of its own",
            Self::Usage => "the command line was not understood",
            Self::Configuration => "the configuration is wrong",
            Self::Store => "the database or the master key cannot be used",
            Self::AddressInUse => "an address to listen on is taken",
            Self::Refused => "the server cannot be reached, or refused the request",
            Self::CheckFailed => {
                "a check found something wrong (doctor, audit verify, demo --check)"
            }
        }
    }

    /// The table of `--help`.
    #[must_use]
    pub fn table() -> String {
        let line = |exit: &Self| format!("  {}  {}", exit.code(), exit.meaning());
        let lines: Vec<String> = Self::ALL.iter().map(line).collect();
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What was wrong, and where. Empty: there is nothing to say (the reader of our output left).
    pub message: String,
    /// What to do, where the message does not say it already.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The same failure, saying what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Writes it to standard error; nowhere is left to complain to if that fails.
    pub fn report(&self) {
        if !self.message.is_empty() {
            let written = io::stderr().lock().write_all(format!("{self}\n").as_bytes());
            drop(written);
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "latchkey: error: {}", self.message.replace('\n', "\n  "))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// A write to standard output failed. A closed pipe (`latchkey key list | head -1`) is no error:
/// the reader has seen enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Ok, "");
        }
        Self::new(Exit::Failure, format!("the output could not be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_the_documentation_says() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
        for exit in Exit::ALL {
            assert!(Exit::table().contains(&format!("{}  {}", exit.code(), exit.meaning())));
        }
    }

    #[test]
    fn failures_say_what_and_what_to_do() {
        let failure = Failure::new(Exit::Store, "no\nfile").hint("make one");
        assert_eq!(failure.to_string(), "latchkey: error: no\n  file\n  hint: make one");
    }

    #[test]
    fn a_closed_pipe_is_silent_success() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Ok, ""));
        assert_eq!(Failure::from(io::Error::other("disk")).exit, Exit::Failure);
    }
}
