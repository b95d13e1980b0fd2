//! What the connections of one worker share. Nothing in it is ever locked: a worker is one thread.

use std::cell::RefCell;
use std::sync::Arc;

use super::places::Places;
use super::request_id::RequestIds;
use super::shared::Shared;
use super::upstream::Upstreams;
use crate::trace;
use crate::usage::Tally;

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 16 * 1024;

/// See the module documentation.
pub(super) struct Local {
    pub(super) shared: Arc<Shared>,
    /// Where sockets are read into, before the bytes go to their connection.
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) upstreams: Upstreams,
    pub(super) ids: RequestIds,
    /// Of traces and spans.
    pub(super) traces: trace::Ids,
    /// What is counted of shops and keys.
    pub(super) usage: RefCell<Tally>,
    /// Of all workers.
    pub(super) places: Arc<Places>,
}

impl Local {
    /// A worker that has no connection yet; `seed` is the prefix of its request ids.
    pub(super) fn new(shared: Arc<Shared>, places: Arc<Places>, seed: u64) -> Self {
        let usage = RefCell::new(Tally::new(&shared.usage));
        Self {
            shared,
            scratch: RefCell::new(vec![0; READ_BYTES].into()),
            upstreams: Upstreams::new(seed),
            ids: RequestIds::new(seed),
            traces: trace::Ids::default(),
            usage,
            places,
        }
    }
}
