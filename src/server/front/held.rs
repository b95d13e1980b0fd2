//! What a wire holds between two polls: bytes not handed over yet, and what it waits for.
//!
//! What the bytes mean, and what happens when the time is over, is the wire's to say.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use tokio::time::Sleep;

/// A connection's buffer larger than this is given back when it is empty.
const BUFFER_KEPT: usize = 4096;

/// What was read and not handed over yet.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.at += n;
        if self.is_empty() {
            self.at = 0;
            if self.bytes.capacity() > BUFFER_KEPT {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        }
    }

    /// Hands over at most `bound` bytes; returns how many.
    pub(super) fn give(&mut self, cursor: &mut ReadBufCursor<'_>, bound: usize) -> usize {
        let unread = self.unread();
        let n = unread.len().min(bound).min(cursor.remaining());
        cursor.put_slice(unread.get(..n).unwrap_or_default());
        self.consume(n);
        n
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Request,
    Head,
    Body,
    Linger,
    Write,
}

/// A timer that is set when there is something to wait for.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Wait>,
}

impl Timer {
    /// Ready when `wait` has lasted `bound`; starts with the first call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wait: Wait, bound: Duration) -> Poll<()> {
        let armed = self.armed.replace(wait) == Some(wait);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !armed {
                    sleep.set(tokio::time::sleep(bound));
                }
                sleep
            }
            empty => empty.insert(Box::pin(tokio::time::sleep(bound))),
        };
        sleep.as_mut().poll(cx)
    }

    /// Whether it runs.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }
}
