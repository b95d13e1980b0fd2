//! The running gateway with two shops, `demo` and `other`, in front of an upstream that echoes.

use super::gateway::{Gateway, Site};
use super::http::Request;
use super::upstream::{Behaviour, Upstream};

/// Everything a test of one rule needs; ends with the test.
pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) upstream: Upstream,
    pub(crate) gateway: Gateway,
}

/// A world whose configuration file is `extra`.
pub(crate) fn world(extra: &str) -> World {
    world_with(Behaviour::Echo, extra)
}

/// A world whose upstream behaves like this.
pub(crate) fn world_with(behaviour: Behaviour, extra: &str) -> World {
    let upstream = Upstream::start(behaviour);
    let site = Site::new(Some(&upstream), extra);
    let gateway = site.start();
    gateway.shop("demo").shop("other");
    World { site, upstream, gateway }
}

impl World {
    /// Sends a request and says what came of it: `401 missing_credential`.
    pub(crate) fn outcome(&self, request: &Request) -> String {
        self.gateway.send(request).outcome()
    }
}
