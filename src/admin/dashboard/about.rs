//! What runs here: version, uptime, configuration, licences.

use askama::Template;

use super::figures::duration;
use super::frame::Frame;
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::caller::Permission;
use crate::clock::Timestamp;

#[derive(Template)]
#[template(path = "about.html")]
struct About {
    frame: Frame,
    version: &'static str,
    system: String,
    uptime: String,
    started: Timestamp,
    generation: u64,
    store: String,
    configuration: String,
}

/// The version, the configuration in force, the licences.
pub(super) async fn show(visit: SignedIn) -> Answer {
    visit.caller().require(Permission::NodeRead)?;
    let (node, now) = (visit.node(), visit.node().now());
    let up = std::time::Duration::from_micros(now.mono.us());
    let config = node.config.load_full();
    page(&About {
        frame: visit.frame("About", "/about"),
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
        uptime: duration(up.as_secs()),
        started: now.unix - up,
        generation: node.published.load().generation,
        store: config.store.path.display().to_string(),
        configuration: config.print(),
    })
}
