//! Whether the workers still get to what they are asked: a question to all of them, and what each
//! of them answered last.
//!
//! A worker answers between two of its tasks, so one that is stuck in a task, or gone, does not.
//! It costs nothing while nobody asks. What follows from silence is the asker's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// The answer of a worker that has ended because it was told to: it answers every question.
const ENDED: u64 = u64::MAX;

#[derive(Debug)]
struct Answers {
    /// By worker: the number of the last question it answered.
    last: Vec<AtomicU64>,
    one_more: Notify,
}

/// Asks the workers. Only one may ask at a time.
#[derive(Debug, Clone)]
pub struct Pulse {
    question: watch::Sender<u64>,
    answers: Arc<Answers>,
}

impl Pulse {
    /// A pulse of so many workers.
    pub(super) fn new(workers: usize) -> Self {
        let last = (0..workers).map(|_| AtomicU64::new(0)).collect();
        let answers = Arc::new(Answers { last, one_more: Notify::new() });
        Self { question: watch::Sender::new(0), answers }
    }

    /// The part of the worker `index`.
    pub(super) fn beat(&self, index: usize) -> Beat {
        Beat { index, question: self.question.subscribe(), answers: Arc::clone(&self.answers) }
    }

    /// Asks all workers; returns when all have answered. May be dropped and asked again.
    pub async fn ask(&mut self) {
        self.question.send_modify(|number| *number += 1);
        while !self.silent().is_empty() {
            self.answers.one_more.notified().await;
        }
    }

    /// The workers that have not answered the last question.
    #[must_use]
    pub fn silent(&self) -> Vec<usize> {
        let number = *self.question.borrow();
        let silent = |(_, last): &(usize, &AtomicU64)| last.load(Ordering::Acquire) < number;
        self.answers.last.iter().enumerate().filter(silent).map(|(index, _)| index).collect()
    }
}

/// A worker's part.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    index: usize,
    question: watch::Receiver<u64>,
    answers: Arc<Answers>,
}

impl Beat {
    /// Answers until nobody asks any more.
    pub(super) async fn answer(mut self) {
        while self.question.changed().await.is_ok() {
            let number = *self.question.borrow_and_update();
            self.say(number);
        }
    }

    /// The worker has done all it had to.
    pub(super) fn end(&self) {
        self.say(ENDED);
    }

    fn say(&self, number: u64) {
        if let Some(last) = self.answers.last.get(self.index) {
            last.store(number, Ordering::Release);
        }
        self.answers.one_more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_have_to_answer_and_who_has_ended_does_not() {
        let mut pulse = Pulse::new(3);
        let stuck = pulse.beat(1);
        let ended = pulse.beat(2);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(pulse.beat(0).answer());
        local
            .run_until(async {
                let day = Duration::from_secs(86_400);
                assert!(tokio::time::timeout(day, pulse.ask()).await.is_err());
                assert_eq!(pulse.silent(), [1, 2]);
                ended.end();
                assert!(tokio::time::timeout(day, pulse.ask()).await.is_err());
                assert_eq!(pulse.silent(), [1]);
                tokio::task::spawn_local(stuck.answer());
                pulse.ask().await;
                assert!(pulse.silent().is_empty());
                pulse.ask().await;
            })
            .await;
    }

    #[tokio::test]
    async fn no_workers_are_all_well() {
        Pulse::new(0).ask().await;
    }
}
