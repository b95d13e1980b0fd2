//! Long work that gives way.
//!
//! A thread that computes for milliseconds on end keeps others from its processor for as long: a
//! niceness, and even the policy `SCHED_IDLE`, only says what the scheduler does when it looks
//! again, and that may be a tick later (4 ms). So a walk through everything says every few
//! microseconds that it would rather let others go first, which costs it less than a hundredth.

/// Gives the processor to whoever waits for it, once in `steps` calls: for
/// [`Iterator::inspect`].
pub(crate) fn pace<T>(steps: u32) -> impl FnMut(&T) {
    let mut left = steps;
    move |_| {
        left = left.saturating_sub(1);
        if left == 0 {
            left = steps;
            std::thread::yield_now();
        }
    }
}
