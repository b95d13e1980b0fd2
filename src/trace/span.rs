//! What is recorded of a request that is sampled, and the bounded queue in which it waits for the
//! exporter.
//!
//! Workers never wait for room: what there is none for is dropped and counted.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::mpsc;

use super::begin::Trace;
use super::context::SpanId;
use crate::clock::Timestamp;
use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;
use crate::id::{Name, ShopId};
use crate::metrics::{CutBy, Metrics, SpanOutcome};

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its place in its trace.
    pub trace: Trace,
    /// Its name in logs and responses.
    pub request_id: Box<str>,
    /// When its head was read.
    pub started: Timestamp,
    /// Until the end of its response.
    pub took: Duration,
    /// What the decisions took of that.
    pub decision: Duration,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `HTTP/1.1`, say.
    pub protocol: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: Box<str>,
    /// The route it took, and the pattern of it that matched.
    pub route: Option<(Name, Option<Box<str>>)>,
    /// The client address.
    pub client: IpAddr,
    /// Of the response; `None`: it got none.
    pub status: Option<u16>,
    /// Why the response is not the upstream's.
    pub code: Option<Code>,
    /// As what its credential was presented.
    pub mechanism: Option<Mechanism>,
    /// The caller's shop.
    pub shop: Option<ShopId>,
    /// The public name of its credential.
    pub key_id: Option<Box<str>>,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Who ended the response before it was whole.
    pub cut: Option<CutBy>,
    /// The exchange with its upstream, if it came to one.
    pub hop: Option<Hop>,
}

/// A request's exchange with its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its span, which the upstream was told.
    pub span: SpanId,
    /// The upstream's name.
    pub upstream: Name,
    /// Scheme, host and port of the endpoint that was tried last.
    pub endpoint: Option<(&'static str, Box<str>, u16)>,
    /// How often it was tried again.
    pub resends: u32,
    /// When it began, from the start of the request.
    pub after: Duration,
    /// Until the head of the response, or the failure.
    pub head: Duration,
}

impl Finished {
    /// How many spans it makes.
    #[must_use]
    pub fn spans(&self) -> u64 {
        1 + u64::from(self.hop.is_some())
    }
}

/// The workers' end of the queue.
#[derive(Debug, Clone)]
pub struct Spans {
    sender: mpsc::Sender<Finished>,
    metrics: Arc<Metrics>,
}

/// The exporter's end.
pub type Received = mpsc::Receiver<Finished>;

/// A queue with room for so many requests; memory is taken as they come.
#[must_use]
pub fn channel(max: NonZeroUsize, metrics: &Arc<Metrics>) -> (Spans, Received) {
    let (sender, receiver) = mpsc::channel(max.get());
    (Spans { sender, metrics: Arc::clone(metrics) }, receiver)
}

impl Spans {
    /// Hands a request over, or drops it: there is no room, or nobody exports any more.
    pub fn offer(&self, finished: Finished) {
        let spans = finished.spans();
        if self.sender.try_send(finished).is_err() {
            self.metrics.trace_spans(SpanOutcome::Dropped, spans);
        }
    }
}
