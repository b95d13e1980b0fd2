//! Answers that take their time: progress as lines of JSON, and bytes as they are made.
//!
//! Whoever asks with `Accept: application/x-ndjson` is told how far the work is; its last line is
//! `done` with the result, or `failed` with the problem. The work ends when nobody listens any
//! more.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::problem::{Problem, ProblemBody};
use crate::admin::node::Node;
use crate::clock::Monotonic;

/// Lines of JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// From one line of progress to the next.
const INTERVAL: Duration = Duration::from_millis(100);

/// Pieces that wait to be sent.
const QUEUE: usize = 8;

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;

/// How long a piece may wait to be sent: whoever takes less than a kilobyte in a second would keep
/// the turn to export or to make a backup, and what the store holds for it, for days.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// A line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<T: Serialize> {
    Progress { phase: &'static str, done: u64, total: u64 },
    Done { result: T },
    Failed { problem: ProblemBody },
}

/// Whether the caller wants to hear of progress.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut essences = accepts.flat_map(|text| text.split(',')).filter_map(|e| e.split(';').next());
    essences.any(|essence| essence.trim().eq_ignore_ascii_case(NDJSON))
}

/// Tells the listener how far the work is.
pub(super) struct Listener {
    node: Arc<Node>,
    to: Option<mpsc::Sender<io::Result<Bytes>>>,
    told: Option<Monotonic>,
}

impl Listener {
    /// Nobody listens, and the work goes on all the same.
    pub(super) fn nobody(node: &Arc<Node>) -> Self {
        Self { node: Arc::clone(node), to: None, told: None }
    }

    /// Tells it, unless it was told just now; the work goes on unless the listener left.
    pub(super) fn progress(
        &mut self,
        phase: &'static str,
        done: u64,
        total: u64,
    ) -> ControlFlow<()> {
        let Some(to) = &self.to else { return ControlFlow::Continue(()) };
        if to.is_closed() {
            return ControlFlow::Break(());
        }
        let now = self.node.now().mono;
        if done == total || self.told.is_none_or(|told| now.since(told) >= INTERVAL) {
            self.told = Some(now);
            // A listener that is slow misses some.
            drop(to.try_send(Ok(line(&Event::<()>::Progress { phase, done, total }))));
        }
        ControlFlow::Continue(())
    }
}

/// Does `work` on a thread that may block, and answers with its progress and its result.
pub(super) fn follow<T: Serialize>(
    node: &Arc<Node>,
    work: impl FnOnce(&mut Listener) -> Result<T, Problem> + Send + 'static,
) -> Response {
    let (to, from) = mpsc::channel(QUEUE);
    let mut listener = Listener { node: Arc::clone(node), to: Some(to.clone()), told: None };
    drop(node.bulk().spawn_blocking(move || {
        let last = match work(&mut listener) {
            Ok(result) => line(&Event::Done { result }),
            Err(problem) => line(&Event::<()>::Failed { problem: problem.into_body() }),
        };
        // Nobody listens: the log and the list tell what became of it.
        drop(to.blocking_send(Ok(last)));
    }));
    answer(from, NDJSON)
}

/// Answers with what `work` writes, as it writes it. A failure cuts the answer off.
pub(super) fn stream(
    node: &Node,
    content_type: &'static str,
    work: impl FnOnce(&mut dyn Write) -> Result<(), Problem> + Send + 'static,
) -> Response {
    let (to, from) = mpsc::channel(QUEUE);
    drop(node.bulk().spawn_blocking(move || {
        let pieces = Pieces { to: to.clone(), patience: PIECE_TIMEOUT };
        let mut pieces = io::BufWriter::with_capacity(PIECE_BYTES, pieces);
        let done = work(&mut pieces).is_ok() && pieces.flush().is_ok();
        // What is left in the buffer is not tried again.
        let (Pieces { patience, .. }, _) = pieces.into_parts();
        if !done {
            let cut = Err(io::Error::other("it could not be finished"));
            // The answer ends all the same when the last sender goes.
            drop(Handle::current().block_on(tokio::time::timeout(patience, to.send(cut))));
        }
    }));
    answer(from, content_type)
}

fn answer(from: mpsc::Receiver<io::Result<Bytes>>, content_type: &'static str) -> Response {
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(from)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn line<T: Serialize>(event: &Event<T>) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Sends what is written, on a thread that may block.
struct Pieces {
    to: mpsc::Sender<io::Result<Bytes>>,
    /// With whoever takes nothing.
    patience: Duration,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sending = self.to.send(Ok(Bytes::copy_from_slice(bytes)));
        let sent = Handle::current().block_on(tokio::time::timeout(self.patience, sending));
        match sent {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => {
                tracing::warn!("an answer is cut off: its reader takes it too slowly");
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_not_waited_for() {
        let (to, mut from) = mpsc::channel(QUEUE);
        let patience = Duration::from_millis(1);
        let mut pieces = Pieces { to, patience };
        let writing = tokio::task::spawn_blocking(move || {
            let written = (0..=QUEUE).map(|_| pieces.write(b"piece").map_err(|e| e.kind()));
            written.collect::<Vec<_>>()
        });
        let mut written = writing.await.unwrap();
        assert_eq!(written.pop(), Some(Err(io::ErrorKind::TimedOut)));
        assert!(written.iter().all(|piece| *piece == Ok(5)), "{written:?}");
        // What was sent before is there still, and then it ends.
        for _ in 0..QUEUE {
            assert_eq!(from.recv().await.unwrap().unwrap(), "piece");
        }
        assert!(from.recv().await.is_none());
    }

    #[tokio::test]
    async fn who_leaves_is_not_waited_for_either() {
        let (to, from) = mpsc::channel(QUEUE);
        drop(from);
        let mut pieces = Pieces { to, patience: PIECE_TIMEOUT };
        let written = tokio::task::spawn_blocking(move || pieces.write(b"piece")).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
