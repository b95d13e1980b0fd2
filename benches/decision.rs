//! One decision of every kind, with one shop and with 100,000.
//!
//! `cargo bench --bench decision`; with a filter: `cargo bench --bench decision -- api_key`.

#[path = "../tests/world/mod.rs"]
mod world;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

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

criterion_group!(benches, decisions);
criterion_main!(benches);
