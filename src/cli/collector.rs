//! The collector of traces that a configuration names: made before the configuration is put in
//! force, so that a file that is wrong is told then and not when the first span is due.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::exit::{Exit, Failure};
use crate::config::Config;
use crate::trace::Collector;

/// The collector that `config` names, if it names one. Speaks to nobody yet.
pub(super) async fn load(config: &Config) -> Result<Option<Arc<Collector>>, Failure> {
    let config = config.clone();
    let made = spawn_blocking(move || check(&config)).await;
    made.map_err(|error| Failure::new(Exit::Failure, error.to_string()))?
}

/// The same. Blocks on files.
pub(super) fn check(config: &Config) -> Result<Option<Arc<Collector>>, Failure> {
    let made = config.tracing.otlp.as_ref().map(Collector::new).transpose();
    let made = made.map_err(|fault| Failure::new(Exit::Configuration, fault.to_string()))?;
    Ok(made.map(Arc::new))
}
