//! What tests of this module tell of.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;

use super::begin::Trace;
use super::context::{Flags, SpanId, TraceId};
use super::span::{Finished, Hop};
use crate::clock::Timestamp;
use crate::decision::principal::Mechanism;
use crate::id::{Name, ShopId};

/// A request that was forwarded and answered with 200.
pub(super) fn finished() -> Finished {
    Finished {
        trace: Trace {
            id: TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap(),
            span: SpanId::new(7).unwrap(),
            parent: SpanId::new(0x00f0_67aa_0ba9_02b7),
            flags: Flags { sampled: true, random: true },
            is_recorded: true,
        },
        request_id: "ab".into(),
        started: Timestamp::from_unix_ms(1_700_000_000_123),
        took: Duration::from_nanos(5_000_001),
        decision: Duration::from_micros(3),
        scheme: "https",
        protocol: "HTTP/2",
        method: Method::GET,
        path: "/api/shops/demo/x".into(),
        route: Some((Name::parse("shops").unwrap(), Some("/api/shops/{shopId}/*".into()))),
        client: IpAddr::from([192, 0, 2, 7]),
        status: Some(200),
        code: None,
        mechanism: Some(Mechanism::ShopApiKey),
        shop: Some(ShopId::parse("demo").unwrap()),
        key_id: Some("k1".into()),
        bytes: 42,
        cut: None,
        hop: Some(Hop {
            span: SpanId::new(8).unwrap(),
            upstream: Name::parse("default").unwrap(),
            endpoint: Some(("http", "[::1]".into(), 9000)),
            resends: 0,
            after: Duration::from_micros(50),
            head: Duration::from_millis(4),
        }),
    }
}
