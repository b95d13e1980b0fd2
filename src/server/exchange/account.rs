//! What a request cost and how it ended, kept from its head to the end of its response.
//!
//! It is told what happens and decides nothing. When it is dropped, the request has ended: the
//! metrics count it, the access log, if it is on and this request is in the sample, gets its line,
//! and the exporter its spans, if its trace is recorded.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, Response, Version, request};

use super::reply::Source;
use crate::clock::{Monotonic, Now, Timestamp};
use crate::decision::Decision;
use crate::decision::denial::Code;
use crate::decision::policy::Route;
use crate::decision::principal::{Mechanism, Principal};
use crate::decision::route::CanonicalPath;
use crate::id::{Name, ShopId};
use crate::metrics::{CutBy, Ended, Example, Protocol};
use crate::server::conn::InFlight;
use crate::server::log::{self, Access, Subject};
use crate::server::request_id::RequestId;
use crate::trace::{Finished, Hop, Trace};
use crate::usage::{Outcome, Part};

/// See the module documentation.
pub(in crate::server) struct Account {
    in_flight: InFlight,
    id: RequestId,
    started: Monotonic,
    protocol: Protocol,
    is_head: bool,
    /// Of the response; `None` until there is one.
    status: Option<u16>,
    /// Why it is not the upstream's.
    code: Option<Code>,
    mechanism: Option<Mechanism>,
    decision: Duration,
    upstream: Option<Duration>,
    bytes: u64,
    is_whole: bool,
    cut: bool,
    record: Option<Box<Record>>,
    /// The client address.
    client: IpAddr,
    trace: Option<Trace>,
}

/// What only the access log and the exporter want to know.
struct Record {
    method: Method,
    path: Box<str>,
    route: Option<Name>,
    shop: Option<ShopId>,
    key_id: Option<String>,
    /// Whether it is in the sample of the access log.
    logged: bool,
    /// There if its trace is recorded.
    span: Option<Span>,
}

/// What only the exporter wants to know.
struct Span {
    trace: Trace,
    started: Timestamp,
    pattern: Option<Box<str>>,
    hop: Option<Hop>,
}

impl Account {
    /// The account of a request whose head was just read.
    pub(super) fn open(
        in_flight: InFlight,
        id: RequestId,
        trace: Option<Trace>,
        parts: &request::Parts,
        client: IpAddr,
    ) -> Self {
        let shared = &in_flight.conn().local.shared;
        let now = shared.clock.now();
        let access = shared.settings.load().access;
        let logged = access.is_some_and(|sample| in_sample(&id, sample));
        let recorded = trace.filter(|trace| trace.is_recorded);
        let record = (logged || recorded.is_some()).then(|| Record {
            method: parts.method.clone(),
            path: parts.uri.path().into(),
            route: None,
            shop: None,
            key_id: None,
            logged,
            span: recorded.map(|trace| Span { trace, started: now.unix, pattern: None, hop: None }),
        });
        Self {
            id,
            started: now.mono,
            protocol: match parts.version {
                Version::HTTP_09 | Version::HTTP_10 => Protocol::Http10,
                Version::HTTP_2 => Protocol::Http2,
                _ => Protocol::Http11,
            },
            is_head: parts.method == Method::HEAD,
            status: None,
            code: None,
            mechanism: None,
            decision: Duration::ZERO,
            upstream: None,
            bytes: 0,
            is_whole: false,
            cut: false,
            record: record.map(Box::new),
            client,
            trace,
            in_flight,
        }
    }

    /// A proxy asked, about the request in `parts`.
    pub(super) fn about(&mut self, parts: &request::Parts) {
        if let Some(record) = &mut self.record {
            record.method = parts.method.clone();
            record.path = parts.uri.path().into();
        }
    }

    /// The client address.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    /// Its place in its trace.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// A decision was made; there are two when a key was missing at first.
    pub(super) fn decided(&mut self, took: Duration, decision: &Decision<'_>, now: Now) {
        self.decision += took;
        match decision {
            Decision::NeedsKey { .. } => {}
            Decision::Refuse(refusal) => {
                self.mechanism = refusal.mechanism();
                self.named(refusal.route, refusal.principal.as_ref());
                let is_limit = refusal.denial.code() == Code::RateLimited;
                let outcome = if is_limit { Outcome::Limited } else { Outcome::Refused };
                self.count(refusal.principal.as_ref(), outcome, now);
            }
            Decision::Admit(admitted) => {
                self.mechanism = Some(admitted.principal().mechanism());
                self.named(Some(admitted.route()), Some(admitted.principal()));
                self.count(Some(admitted.principal()), Outcome::Allowed, now);
            }
        }
    }

    /// Counts the request for its shop. Only who is authenticated is counted: others could make
    /// as many series as they liked. Here and not at the end, so that whoever has an answer is
    /// counted.
    fn count(&self, principal: Option<&Principal<'_>>, outcome: Outcome, now: Now) {
        let Some((principal, shop)) = principal.and_then(|p| Some((p, p.shop()?))) else {
            return;
        };
        let part = match principal {
            Principal::ShopApiKey { key, .. } => Part::Key(key.id),
            Principal::WidgetToken { .. } => Part::WidgetTokens,
            Principal::Jwt { .. } | Principal::Anonymous => Part::Jwt,
        };
        let usage = &self.in_flight.conn().local.usage;
        usage.borrow_mut().count(shop, part, outcome, now);
    }

    fn named(&mut self, route: Option<&Route>, principal: Option<&Principal<'_>>) {
        if let Some(record) = &mut self.record {
            record.route = route.map(|route| route.name.clone());
            record.shop = principal.and_then(Principal::shop).copied();
            record.key_id = principal.and_then(log::key_id);
            if let Some(span) = &mut record.span {
                span.pattern = route.and_then(|route| pattern(route, &record.path));
            }
        }
    }

    /// The upstream that was asked at `sent` answered, or failed to, after so long.
    pub(super) fn upstream(&mut self, sent: Monotonic, took: Duration, hop: Option<Hop>) {
        self.upstream = Some(took);
        let span = self.record.as_mut().and_then(|record| record.span.as_mut());
        if let (Some(span), Some(hop)) = (span, hop) {
            span.hop = Some(Hop { after: sent.since(self.started), head: took, ..hop });
        }
    }

    /// There is a response.
    pub(super) fn answered(&mut self, response: &Response<Source>) {
        self.status = Some(response.status().as_u16());
        self.code = response.extensions().get::<Code>().copied();
        self.in_flight.offered(true);
    }

    /// The connection asks for more: what it was handed before is taken.
    pub(super) fn asked(&self) {
        self.in_flight.offered(false);
    }

    /// So much of its body was handed to the connection.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.in_flight.offered(true);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Nothing of the response is missing.
    pub(super) fn whole(&mut self) {
        self.is_whole = true;
        self.in_flight.complete();
    }

    /// The upstream broke the response off.
    pub(super) fn broken(&mut self) {
        self.cut = true;
        self.in_flight.abort();
    }

    fn cut_by(&self) -> Option<CutBy> {
        if self.cut {
            return Some(CutBy::Upstream);
        }
        // A response to HEAD has no body to hand over.
        let whole = self.is_whole || (self.is_head && self.status.is_some());
        (!whole).then_some(CutBy::Downstream)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let shared = &self.in_flight.conn().local.shared;
        let now = shared.clock.now();
        let took = now.mono.since(self.started);
        let cut = self.cut_by();
        let ended = Ended {
            protocol: self.protocol,
            status: self.status,
            code: self.code,
            took,
            bytes: self.bytes,
            cut,
        };
        shared.metrics.request_ended(&ended, Example { request_id: &self.id, at: now.unix });
        let Some(record) = self.record.take() else {
            return;
        };
        if record.logged {
            self.log(&record, took, cut);
        }
        self.export(*record, took, cut);
    }
}

impl Account {
    fn log(&self, record: &Record, took: Duration, cut: Option<CutBy>) {
        log::access(&Access {
            subject: Subject {
                client: self.client,
                certificate: self.in_flight.conn().certificate.as_deref(),
                id: &self.id,
                trace: self.trace(),
                method: record.method.as_str(),
                path: &record.path,
                origin: None,
            },
            protocol: self.protocol.as_str(),
            status: self.status,
            code: self.code,
            mechanism: self.mechanism,
            route: record.route.as_ref(),
            shop: record.shop.as_ref(),
            key_id: record.key_id.as_deref(),
            bytes: self.bytes,
            cut,
            decision: self.decision,
            upstream: self.upstream,
            total: took,
        });
    }

    /// Hands the request to the exporter, if its trace is recorded.
    fn export(&self, record: Record, took: Duration, cut: Option<CutBy>) {
        let Some(span) = record.span else {
            return;
        };
        let conn = self.in_flight.conn();
        conn.local.shared.spans.offer(Finished {
            trace: span.trace,
            request_id: self.id.as_str().into(),
            started: span.started,
            took,
            decision: self.decision,
            scheme: conn.scheme.as_str(),
            protocol: self.protocol.as_str(),
            method: record.method,
            path: record.path,
            route: record.route.map(|name| (name, span.pattern)),
            client: self.client,
            status: self.status,
            code: self.code,
            mechanism: self.mechanism,
            shop: record.shop,
            key_id: record.key_id.map(String::into_boxed_str),
            bytes: self.bytes,
            cut,
            hop: span.hop,
        });
    }
}

/// The pattern of `route` that `path` matches.
fn pattern(route: &Route, path: &str) -> Option<Box<str>> {
    let path = CanonicalPath::parse(path).ok()?;
    let found = route.paths.iter().find(|pattern| pattern.matches(&path).is_some());
    found.map(|pattern| pattern.to_string().into_boxed_str())
}

/// Whether the request called `id` is among the one of `sample` that are logged. By its name, and
/// mixed: a caller who takes turns between two paths is not seen on one of them only.
fn in_sample(id: &RequestId, sample: NonZeroU32) -> bool {
    let number = u128::from_str_radix(id, 16).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
    let (high, low) = ((number >> 64) as u64, number as u64);
    // The finalizer of SplitMix64.
    let mut mixed = (high ^ low).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31).is_multiple_of(u64::from(sample.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_id::RequestIds;

    #[test]
    fn one_of_so_many_is_in_the_sample() {
        let ids = RequestIds::new(0x1234_5678_9abc_def0);
        let ids: Vec<RequestId> = (0..10_000).map(|_| ids.next()).collect();
        for (sample, expected) in [(1u32, 10_000usize..=10_000), (10, 900..=1100), (100, 60..=140)]
        {
            let sample = NonZeroU32::new(sample).unwrap();
            let taken = |ids: &[RequestId]| ids.iter().filter(|id| in_sample(id, sample)).count();
            assert!(expected.contains(&taken(&ids)), "{sample}: {}", taken(&ids));
            // The same ones every time.
            assert_eq!(taken(&ids), taken(&ids));
        }
        // Every other request is as good as any: no pattern of a caller's hides one half.
        let sample = NonZeroU32::new(2).unwrap();
        let even = ids.iter().step_by(2).filter(|id| in_sample(id, sample)).count();
        assert!((2200..=2800).contains(&even), "{even}");
    }
}
