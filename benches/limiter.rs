//! What it costs to charge a request: one policy and three, one hot cell and 100,000, one thread
//! and two.
//!
//! `cargo bench --bench limiter`

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use latchkey::clock::Monotonic;
use latchkey::decision::rate_limit::{Algorithm, Charge, Limits as _, Quota};
use latchkey::limiter::Limiter;

const CALLERS: u64 = 100_000;

/// A charge of `caller` under policy `policy`, which no bench uses up.
fn charge(caller: u64, policy: u16, algorithm: Algorithm) -> Charge {
    // Cells are named by a keyed hash; a multiplication by an odd number spreads as well here.
    let spread = (caller + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Charge {
        cell: spread.rotate_left(u32::from(policy) * 16),
        policy,
        quota: Quota::new(Quota::LIMIT_MAX, Duration::from_secs(1)).unwrap(),
        algorithm,
        cost: NonZeroU32::MIN,
        shadow: false,
    }
}

/// A clock of a bench's own: ten microseconds pass between two charges.
struct Ticks(u64);

impl Ticks {
    fn next(&mut self) -> Monotonic {
        self.0 += 10;
        Monotonic::from_us(self.0)
    }
}

fn charges(criterion: &mut Criterion) {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow] {
        let mut group = criterion.benchmark_group(format!("{algorithm:?}"));
        for policies in [1, 3] {
            let limiter = Limiter::new(1 << 18, 3);
            let mut ticks = Ticks(0);
            let hot: Vec<_> = (0..policies).map(|policy| charge(7, policy, algorithm)).collect();
            group.bench_function(format!("{policies} policies, one caller"), |bencher| {
                bencher.iter(|| limiter.charge(black_box(&hot), ticks.next()));
            });
            let callers: Vec<Vec<_>> = (0..CALLERS)
                .map(|caller| {
                    (0..policies).map(|policy| charge(caller, policy, algorithm)).collect()
                })
                .collect();
            let mut turns = callers.iter().cycle();
            group.bench_function(format!("{policies} policies, {CALLERS} callers"), |bencher| {
                bencher.iter(|| limiter.charge(black_box(turns.next().unwrap()), ticks.next()));
            });
        }
        group.finish();
    }
}

/// The same cell, charged by another thread all the while.
fn contention(criterion: &mut Criterion) {
    let limiter = Limiter::new(1 << 10, 1);
    let hot = [charge(7, 0, Algorithm::TokenBucket)];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ticks = Ticks(0);
            while !done.load(Ordering::Relaxed) {
                black_box(limiter.charge(&hot, ticks.next()));
            }
        });
        let mut ticks = Ticks(0);
        criterion.bench_function("TokenBucket/1 policies, one caller, two threads", |bencher| {
            bencher.iter(|| limiter.charge(black_box(&hot), ticks.next()));
        });
        done.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, charges, contention);
criterion_main!(benches);
