//! A decision takes nothing from the heap where it matters: for an admitted API key and for a
//! JWT that was verified before.

mod world;

use std::hint::black_box;

use self::world::{Case, World};

/// Heap allocations of a thousand decisions.
fn allocations(world: &World, case: &Case) -> u64 {
    allocation_counter::measure(|| {
        for _ in 0..1000 {
            black_box(world.decide(black_box(case)));
        }
    })
    .count_total
}

#[test]
fn an_admitted_api_key_and_a_cached_jwt_allocate_nothing() {
    let world = World::new(1000);
    for case in &world.cases {
        assert_eq!(world.outcome(case), case.expected, "{}", case.name);
        let count = allocations(&world, case);
        if case.name == "api_key/allowed" || case.name.starts_with("jwt/warm/") {
            assert_eq!(count, 0, "{}: a thousand decisions", case.name);
        }
        // Seen to count: verifying a signature cannot do without the heap.
        if case.name.starts_with("jwt/cold/") {
            assert!(count >= 1000, "{}: {count}", case.name);
        }
    }
}

#[test]
fn the_counter_counts() {
    let one = || drop(black_box(Box::new(black_box(7_u64))));
    assert_eq!(allocation_counter::measure(one).count_total, 1);
    assert_eq!(allocation_counter::measure(|| {}).count_total, 0);
}
