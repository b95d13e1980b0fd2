//! Structured logs to standard error: a line for people, or a JSON object, per event.
//!
//! What is logged is decided where it happens; this module sets up where it goes. An event is
//! formatted on its caller's thread and put into a bounded queue; a thread of its own masks what
//! looks like a secret and writes. So a slow reader of standard error loses lines, which are
//! counted, and holds up no request.

mod journal;
mod queue;
mod redact;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry};

use self::journal::Levelled;
use self::queue::Queue;
use crate::config::{LogConfig, LogFormat};

/// How long the end of the process waits for who reads standard error to take something more.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a panic does: it may be a worker's, whose other requests wait with it.
const PANIC_PATIENCE: Duration = Duration::from_millis(100);

/// Why logging is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a list of levels and directives.
    #[error("log.level: {0}; write e.g. \"info\" or \"info,latchkey::server=debug\"")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// This process has a logger already.
    #[error("logging is set up already")]
    AlreadySet(#[from] TryInitError),
    /// The system refused the thread that writes.
    #[error("the log cannot be written: {0}")]
    Thread(#[from] io::Error),
    /// The logger this handle speaks of is gone.
    #[error("the level cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// `text` as the log would have it: what looks like a secret is masked. For what leaves this
/// machine by another way.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    match redact::redact(text.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
    }
}

/// The process's logger: its level can be changed while it runs, and what it has not written yet
/// is written when this is dropped.
pub struct LogHandle {
    levels: reload::Handle<Targets, Registry>,
    queue: Queue,
}

impl LogHandle {
    /// Takes over `config.level`; format and queue stay as they are until a restart.
    ///
    /// # Errors
    ///
    /// [`LogError::Level`]; the level stays as it was.
    pub fn apply(&self, config: &LogConfig) -> Result<(), LogError> {
        let targets: Targets = config.level.parse()?;
        Ok(self.levels.reload(targets)?)
    }

    /// How many lines were dropped because standard error was not read, to be read at any time.
    #[must_use]
    pub fn dropped_lines(&self) -> Arc<AtomicU64> {
        self.queue.dropped()
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.queue.flush(PATIENCE);
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogHandle")
    }
}

/// Sets up the logger of this process, panics included.
///
/// # Errors
///
/// [`LogError::Level`], [`LogError::Thread`], or [`LogError::AlreadySet`] the second time.
pub fn init(config: &LogConfig) -> Result<LogHandle, LogError> {
    let (targets, levels) = reload::Layer::new(config.level.parse::<Targets>()?);
    let queue = Queue::start(config.queue_lines_max.get(), io::stderr(), tell_dropped)?;
    let format = tracing_subscriber::fmt::layer().with_writer(Levelled::new(queue.clone()));
    let format = match config.format {
        // Colours are for terminals, not for files and journals.
        LogFormat::Text => format.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => format.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(targets).with(format).try_init()?;
    let panicked = queue.clone();
    // The usual hook would write to standard error itself, past the queue and the masks.
    std::panic::set_hook(Box::new(move |info| {
        tell_panic(info);
        panicked.flush(PANIC_PATIENCE);
    }));
    Ok(LogHandle { levels, queue })
}

fn tell_dropped(lines: u64) {
    tracing::warn!(
        target: "latchkey::log",
        lines,
        "log lines were dropped: standard error was not read in time; \
         see log.queue_lines_max and latchkey_log_lines_dropped_total"
    );
}

fn tell_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        target: "latchkey::panic",
        thread = thread.name(),
        location = info.location().map(tracing::field::display),
        reason = reason(info),
        backtrace = backtrace(),
        "a bug in latchkey: it panicked; please report this line"
    );
}

/// What `panic!` was given.
fn reason<'a>(info: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    let payload = info.payload();
    let literal = payload.downcast_ref::<&'static str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Where it happened, if the environment asks for it (`RUST_BACKTRACE`).
fn backtrace() -> Option<String> {
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    captured.then(|| backtrace.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn every_level_the_configuration_accepts_is_a_filter() {
        for (text, target, level, enabled) in [
            ("info", "latchkey", Level::INFO, true),
            ("info", "latchkey", Level::DEBUG, false),
            ("off", "latchkey", Level::ERROR, false),
            ("warn,latchkey::server=debug", "latchkey::server", Level::DEBUG, true),
            ("warn,latchkey::server=debug", "latchkey::store", Level::INFO, false),
            ("info,latchkey=trace", "latchkey", Level::TRACE, true),
        ] {
            let targets: Targets = text.parse().unwrap();
            assert_eq!(targets.would_enable(target, &level), enabled, "{text}");
        }
    }

    #[test]
    fn the_level_changes_while_the_process_runs() {
        let mut config = LogConfig::new("info", LogFormat::Json);
        let handle = init(&config).unwrap();
        assert!(!tracing::enabled!(Level::DEBUG));
        config.level = "debug".into();
        handle.apply(&config).unwrap();
        assert!(tracing::enabled!(Level::DEBUG));
        config.level = "nonsense=nonsense".into();
        assert!(matches!(handle.apply(&config), Err(LogError::Level(_))));
        assert!(tracing::enabled!(Level::DEBUG));
        assert!(matches!(
            init(&LogConfig { level: "info".into(), ..config }),
            Err(LogError::AlreadySet(_))
        ));
        handle.apply(&LogConfig::new("off", LogFormat::Json)).unwrap();
    }
}
