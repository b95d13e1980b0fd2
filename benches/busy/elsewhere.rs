//! Who would be on other machines, and shares the gateway's: callers and upstreams must not be kept
//! waiting for its processors, operators' browsers must not take their time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread::{JoinHandle, available_parallelism, yield_now};

use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Has the calling thread run as soon as it has something to do, or its own waiting would count as
/// the gateway's.
pub(crate) fn undisturbed() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    schedule(ThreadPriority::Crossplatform(1_u8.try_into().unwrap()), policy);
}

/// Has the calling thread run when nobody else wants to.
pub(crate) fn in_the_background() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    schedule(ThreadPriority::Min, policy);
}

fn schedule(priority: ThreadPriority, policy: ThreadSchedulePolicy) {
    static TOLD: Once = Once::new();
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, policy) {
        TOLD.call_once(|| {
            println!("not allowed to set {policy:?} ({error:?}): the figures are rough");
        });
    }
}

/// Keeps all processors from sleeping while it lives, and gives way to whoever wants one.
pub(crate) struct Awake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    pub(crate) fn keep() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                in_the_background();
                while !stop.load(Ordering::Relaxed) {
                    (0..1_000).for_each(|_| std::hint::spin_loop());
                    yield_now();
                }
            })
        };
        let threads = (0..available_parallelism().map_or(1, usize::from)).map(spin).collect();
        Self { stop, threads }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only spins");
        }
    }
}
