//! How the process fares, as the service manager shows it, and its signs of life.
//!
//! A sign of life is sent only after every worker has answered: a process that has a stuck worker
//! leaves part of its callers without an answer, and is better started again.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::manager::{Line, Manager};
use crate::admin::{self, Node};
use crate::cli::gateway::Gateway;
use crate::server::Pulse;

/// Between two looks at whether there is something new to say.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// Characters of a refusal that are shown; the log has all of it.
const REFUSAL_CHARS_MAX: usize = 200;

/// What the manager is told of a gateway.
#[derive(Debug)]
pub(in crate::cli) struct Standing {
    manager: Arc<Manager>,
    node: Arc<Node>,
    /// Where it serves.
    serving: String,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Why the last reload was refused.
    refusal: Option<String>,
    /// The line that was told last.
    line: String,
}

impl Standing {
    /// That of `gateway`, whose owner's socket is `socket`.
    pub(in crate::cli) fn new(manager: Arc<Manager>, gateway: &Gateway, socket: &Path) -> Self {
        let node = Arc::clone(gateway.node());
        let scheme = if node.config.load().server.tls.is_some() { "https" } else { "http" };
        let (data, admin) = (gateway.data_address(), gateway.admin_address());
        let socket = socket.display();
        let serving = format!("{scheme} on {data}, admin on {admin} and {socket}");
        Self { manager, node, serving, said: Mutex::default() }
    }

    /// Tells `line`, and how things are.
    pub(in crate::cli) fn tell(&self, line: Line) {
        self.refresh(vec![line]);
    }

    /// The last reload was refused, or was not (`None`).
    pub(in crate::cli) fn reloaded(&self, refusal: Option<&str>) {
        let shown = refusal.map(|why| why.chars().take(REFUSAL_CHARS_MAX).collect());
        self.said().refusal = shown;
        self.tell(Line::Ready);
    }

    /// Tells `lines` and, if it is not what was told last, how things are.
    fn refresh(&self, mut lines: Vec<Line>) {
        let line = self.line();
        let mut said = self.said();
        if said.line != line {
            said.line.clone_from(&line);
            lines.push(Line::Status(line));
        }
        drop(said);
        if !lines.is_empty() {
            self.manager.tell(&lines);
        }
    }

    fn line(&self) -> String {
        if self.node.is_draining() {
            return "stopping; requests under way may finish".to_owned();
        }
        let (shops, keys) = self.node.published.load().counts();
        let mut line = format!("{}; {shops} shops, {keys} keys", self.serving);
        if let Some(why) = admin::degraded(&self.node) {
            line = format!("degraded ({why}): {line}");
        }
        if let Some(why) = &self.said().refusal {
            line = format!("{line}; the last reload was refused: {why}");
        }
        line
    }

    /// A panic under the lock leaves it whole: each change is one step.
    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps telling the manager, if there is one, until dropped.
pub(in crate::cli) async fn attend(standing: Arc<Standing>, pulse: Pulse) {
    if standing.manager.is_there() {
        tokio::join!(watch(&standing.manager, pulse), look(&standing));
    }
}

async fn look(standing: &Standing) {
    loop {
        tokio::time::sleep(LOOK_PAUSE).await;
        standing.refresh(Vec::new());
    }
}

async fn watch(manager: &Manager, mut pulse: Pulse) {
    let Some(pause) = manager.pause() else {
        return;
    };
    loop {
        sign_of_life(manager, &mut pulse, pause).await;
        tokio::time::sleep(pause).await;
    }
}

/// Waits for the workers, however long it takes, and then tells the manager.
async fn sign_of_life(manager: &Manager, pulse: &mut Pulse, pause: Duration) {
    let asked = pulse.ask();
    if tokio::time::timeout(pause, asked).await.is_err() {
        let workers = pulse.silent();
        tracing::error!(
            ?workers,
            "workers do not answer; the service manager gets no sign of life until they do"
        );
        pulse.ask().await;
    }
    manager.tell(&[Line::Watchdog]);
}
