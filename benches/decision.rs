//! One decision of every kind, with one shop and with 100,000; and one assertion.
//!
//! `cargo bench --bench decision`; with a filter: `cargo bench --bench decision -- api_key`.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

#[path = "../tests/world/mod.rs"]
mod world;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use latchkey::assertion::{AssertionKey, Assertions, Settings, Statement};
use latchkey::clock::Timestamp;
use latchkey::decision::principal::Principal;
use latchkey::secret::SecretBytes;

use self::world::World;

fn decisions(criterion: &mut Criterion) {
    for shops in [1, 100_000] {
        let world = World::new(shops);
        let mut group = criterion.benchmark_group(format!("{shops} shops"));
        for case in &world.cases {
            assert_eq!(world.outcome(case), case.expected, "{}", case.name);
            group.bench_function(case.name, |bencher| {
                bencher.iter(|| black_box(world.decide(black_box(case))));
            });
        }
        group.finish();
    }
}

/// What an assertion adds to a forwarded request, where assertions are on.
fn assertions(criterion: &mut Criterion) {
    let now = Timestamp::from_unix_s(1_800_000_000);
    let key = AssertionKey::new(&SecretBytes::new([7; 32]), now).expect("a seed");
    let mut assertions = Assertions::default();
    let lifetime = Duration::from_secs(30);
    assertions.set_settings(Some(Settings { issuer: "latchkey".into(), lifetime }));
    assertions.set_keys([key]);
    let statement = Statement {
        principal: &Principal::Anonymous,
        audience: "default",
        request_id: "000102030405060708090a0b0c0d0e0f",
        method: "GET",
        path: "/api/search/products",
        query: Some("q=shoes&page=2"),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    criterion.bench_function("assertion", |bencher| {
        bencher.iter(|| {
            let signer = assertions.signer(now).expect("assertions are on");
            signer.sign(black_box(&statement)).expect("claims are JSON")
        });
    });
}

criterion_group!(benches, decisions, assertions);
criterion_main!(benches);
