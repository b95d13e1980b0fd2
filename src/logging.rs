//! Structured logs to standard error: a line for people, or a JSON object, per event.
//!
//! What is logged is decided where it happens; this module only sets up where it goes. It writes
//! as it is called, on the caller's thread.

use std::fmt;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry};

use crate::config::{LogConfig, LogFormat};

/// Why logging is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a list of levels and directives.
    #[error("log.level: {0}; write e.g. \"info\" or \"info,latchkey::server=debug\"")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// This process has a logger already.
    #[error("logging is set up already")]
    AlreadySet(#[from] TryInitError),
    /// The logger this handle speaks of is gone.
    #[error("the level cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// The process's logger, to change its level while it runs.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Takes over `config.level`; the format stays as it is until a restart.
    ///
    /// # Errors
    ///
    /// [`LogError::Level`]; the level stays as it was.
    pub fn apply(&self, config: &LogConfig) -> Result<(), LogError> {
        let targets: Targets = config.level.parse()?;
        Ok(self.0.reload(targets)?)
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogHandle")
    }
}

/// Sets up the logger of this process.
///
/// # Errors
///
/// [`LogError::Level`], or [`LogError::AlreadySet`] the second time.
pub fn init(config: &LogConfig) -> Result<LogHandle, LogError> {
    let (targets, handle) = reload::Layer::new(config.level.parse::<Targets>()?);
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let format = match config.format {
        // Colours are for terminals, not for files and journals.
        LogFormat::Text => {
            format.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        LogFormat::Json => format.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(targets).with(format).try_init()?;
    Ok(LogHandle(handle))
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
