//! The name of a request, by which the client, the upstream and the log speak of it.

use std::cell::Cell;

use arrayvec::ArrayString;

/// Names a request: 32 hex digits, the worker's random prefix and a count.
pub(super) type RequestId = ArrayString<32>;

/// Where a worker's names come from.
#[derive(Debug)]
pub(super) struct RequestIds {
    seed: u64,
    count: Cell<u64>,
}

impl RequestIds {
    /// Names that begin with `seed`, which no other worker has.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, count: Cell::new(0) }
    }

    /// A name no other request has; never one that the client chose.
    pub(super) fn next(&self) -> RequestId {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        let id = u128::from(self.seed) << 64 | u128::from(count);
        let mut text = RequestId::new();
        for shift in (0..32).rev() {
            let digit = u32::try_from(id >> (shift * 4) & 0xf).unwrap_or_default();
            text.push(char::from_digit(digit, 16).unwrap_or('0'));
        }
        text
    }
}
