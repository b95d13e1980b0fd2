//! What checks find: a line each, for people and for scripts.

use serde_json::{Value, json};

use crate::cli::output::show;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// Well.
    Ok,
    /// It works, and may not for long, or not as meant.
    Warning,
    /// It does not work.
    Error,
}

impl Status {
    /// As it is printed.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What is looked at. Scripts branch on the names: none ever changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The configuration as a whole.
    Configuration,
    /// A server that runs.
    Server,
    /// A file's mode.
    File,
    /// The database.
    Store,
    /// The master key.
    MasterKey,
    /// A certificate and its key.
    Certificate,
    /// An address, or the unix socket.
    Listener,
    /// An endpoint of an upstream.
    Upstream,
    /// An identity provider.
    Issuer,
    /// The identity provider that operators sign in by.
    Operators,
    /// Backups by schedule.
    Backup,
    /// The collector of traces.
    Collector,
    /// Free space.
    Disk,
    /// How many files may be open.
    OpenFiles,
    /// The time.
    Clock,
}

impl Check {
    /// Its name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Server => "server",
            Self::File => "file",
            Self::Store => "store",
            Self::MasterKey => "master_key",
            Self::Certificate => "certificate",
            Self::Listener => "listener",
            Self::Upstream => "upstream",
            Self::Issuer => "issuer",
            Self::Operators => "operators",
            Self::Backup => "backup",
            Self::Collector => "collector",
            Self::Disk => "disk",
            Self::OpenFiles => "open_files",
            Self::Clock => "clock",
        }
    }
}

/// A line.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    check: Check,
    /// Which of several.
    subject: String,
    status: Status,
    /// What was found.
    detail: String,
    /// What to do; there unless all is well.
    advice: Option<String>,
}

impl Finding {
    /// For scripts.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "check": self.check.as_str(),
            "subject": self.subject,
            "status": self.status.as_str(),
            "detail": self.detail,
            "advice": self.advice,
        })
    }

    /// For people. What was found may quote files and other machines: no control character of
    /// theirs reaches the terminal.
    pub(super) fn to_lines(&self) -> String {
        let (status, check) = (self.status.as_str(), self.check.as_str());
        let legible = |text: &str| show(&Value::from(text));
        let subject = legible(&self.subject);
        let found = format!("{status:<7}  {check:<13}  {subject}: {}\n", legible(&self.detail));
        match &self.advice {
            None => found,
            Some(advice) => format!("{found}{:26}do: {}\n", "", legible(advice)),
        }
    }
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// All is well.
    pub(super) fn ok(
        &mut self,
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) {
        let (subject, detail) = (subject.into(), detail.into());
        let status = Status::Ok;
        self.findings.push(Finding { check, subject, status, detail, advice: None });
    }

    /// It works; `advice` says how to make sure that it goes on.
    pub(super) fn warning(
        &mut self,
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Status::Warning, check, subject, detail, advice);
    }

    /// It does not work; `advice` says how to make it.
    pub(super) fn error(
        &mut self,
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Status::Error, check, subject, detail, advice);
    }

    /// A line of any status that says what to do.
    pub(super) fn add(
        &mut self,
        status: Status,
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let (subject, detail) = (subject.into(), detail.into());
        self.findings.push(Finding { check, subject, status, detail, advice: Some(advice.into()) });
    }

    /// The worst there is.
    pub(super) fn worst(&self) -> Status {
        self.findings.iter().map(|f| f.status).max().unwrap_or(Status::Ok)
    }

    /// How many are well, doubtful, broken.
    pub(super) fn counts(&self) -> [usize; 3] {
        [Status::Ok, Status::Warning, Status::Error]
            .map(|status| self.findings.iter().filter(|f| f.status == status).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_and_what_to_do_and_obey_no_file_name() {
        let mut report = Report::default();
        report.ok(Check::Clock, "this machine", "fine");
        report.warning(Check::File, "/a\u{1b}[2J", "open", "close it");
        let lines: Vec<String> = report.findings.iter().map(Finding::to_lines).collect();
        assert_eq!(lines[0], "ok       clock          this machine: fine\n");
        assert_eq!(
            lines[1],
            "warning  file           /a?[2J: open\n                          do: close it\n"
        );
        assert_eq!(report.worst(), Status::Warning);
        assert_eq!(report.counts(), [1, 1, 0]);
        assert_eq!(report.findings[1].to_json()["advice"], "close it");
    }
}
