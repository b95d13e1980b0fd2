//! The first page, and what runs here.

use askama::Template;

use super::frame::Frame;
use super::visit::SignedIn;
use super::{Answer, page};

/// The overview.
#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    shops: usize,
    keys: usize,
}

/// What runs here.
#[derive(Template)]
#[template(path = "about.html")]
struct About {
    frame: Frame,
    version: &'static str,
    configuration: String,
}

/// How the node fares.
pub(super) async fn overview(visit: SignedIn) -> Answer {
    let (shops, keys) = visit.node().published.load().counts();
    page(&Overview { frame: visit.frame("Overview", "/"), shops, keys })
}

/// The version, the configuration in force, the licences.
pub(super) async fn about(visit: SignedIn) -> Answer {
    let configuration = visit.node().config.load().print();
    let version = env!("CARGO_PKG_VERSION");
    page(&About { frame: visit.frame("About", "/about"), version, configuration })
}
