//! Who would be on other machines, and shares the gateway's: callers and upstreams must not be kept
//! waiting for its processors, operators' browsers must not take their time.

use std::sync::Once;

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
