//! What the audit log holds of the process itself: its start and stop, and what became of its
//! configuration.
//!
//! Nothing here starts, stops or reloads anything; who does says so. None of it is a change of the
//! store, so none waits for the entry: where it cannot be written, the caller warns.

use serde_json::{Value, json};

use super::{OperationError, now};
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::config::Config;

/// Most faults of a refused configuration that are kept.
const FAULTS_MAX: usize = 20;

/// Records that the server is up.
pub fn started(node: &Node) -> Result<(), OperationError> {
    let after = json!({ "version": env!("CARGO_PKG_VERSION") });
    append(node, Action::ProcessStarted, process(), None, Some(after))
}

/// Records that the server has stopped as it was told to; a killed one leaves no such entry.
pub fn stopped(node: &Node) -> Result<(), OperationError> {
    append(node, Action::ProcessStopped, process(), None, None)
}

/// Records that a configuration from `source` was wrong and changed nothing.
pub fn refused(node: &Node, source: &str, faults: &[String]) -> Result<(), OperationError> {
    let kept: Vec<&String> = faults.iter().take(FAULTS_MAX).collect();
    let after = json!({ "faults": kept });
    let subject = Subject::new(SubjectKind::Configuration, source);
    append(node, Action::ConfigurationRefused, subject, None, Some(after))
}

/// Records what differs between the configuration before and the one now in force; nothing, if
/// nothing does. Each new value says where it stands. The caller has its turn among writers.
pub(in crate::admin) fn record_reload(
    node: &Node,
    old: &Config,
    new: &Config,
) -> Result<(), OperationError> {
    let differences = old.effective.differences(&new.effective);
    if differences.is_empty() {
        return Ok(());
    }
    let line = |path: &str, value: Option<String>| value.map(|value| format!("{path} = {value}"));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for difference in differences {
        before.extend(line(&difference.path, difference.old));
        after.extend(line(&difference.path, difference.new));
    }
    let (before, after) = (Some(json!({ "values": before })), Some(json!({ "values": after })));
    let subject = Subject::new(SubjectKind::Configuration, "configuration");
    append(node, Action::ConfigurationReloaded, subject, before, after)
}

fn process() -> Subject {
    Subject::new(SubjectKind::Process, "latchkey")
}

fn append(
    node: &Node,
    action: Action,
    subject: Subject,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<(), OperationError> {
    let (now, system) = (now(node), Caller::system());
    node.store.write(|tx| audit::record(tx, &system, now, action, subject, before, after))
}
