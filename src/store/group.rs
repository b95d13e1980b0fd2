//! Group commit: writes that wait for one another share one trip to the disk.
//!
//! A disk confirms a few hundred commits in a second; shops may ask for more widget tokens than
//! that. Whoever gets to write takes along all that queue behind it. Each write keeps its own
//! outcome: one that returns an error is taken back alone.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};

use super::error::StoreError;
use super::write::WriteTx;
use super::{Store, Writer};

/// Most writes that share one commit, to bound how long the first of them waits.
const GROUP_MAX: usize = 256;

/// A write in the queue. Given an error instead of a transaction it only reports that.
pub(super) type Job = Box<dyn FnOnce(Result<&mut WriteTx, StoreError>) -> Done + Send>;

/// A write that ran, and has yet to hear of its commit.
pub(super) struct Done {
    failed: bool,
    reply: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

impl Store {
    /// As [`Store::write`], but many at once share a commit: for frequent small writes. Returns
    /// when `f`'s changes are on the disk.
    ///
    /// `f` may run on the thread of another writer; it must not call the store.
    pub fn write_grouped<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut WriteTx) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (to, from) = sync_channel(1);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(job(f, to));
        let mut writer = self.lock_writer();
        loop {
            if let Ok(result) = from.try_recv() {
                return result;
            }
            // Not answered and not in the queue: the write that shared its commit panicked.
            if !self.write_group(&mut writer) {
                return Err(self.closed());
            }
        }
    }

    /// Runs and commits the longest-waiting writes; `false` if none waits.
    fn write_group(&self, writer: &mut Writer) -> bool {
        let jobs: Vec<Job> = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let len = queue.len().min(GROUP_MAX);
            queue.drain(..len).collect()
        };
        let waited = !jobs.is_empty();
        let begun = self.recover(writer).and_then(|()| self.begin_write(writer));
        match begun {
            Ok(tx) => self.run_group(writer, WriteTx::new(Arc::clone(&self.context), tx), jobs),
            Err(error) => {
                for job in jobs {
                    let done = job(Err(error.clone()));
                    (done.reply)(Ok(()));
                }
            }
        }
        waited
    }

    fn run_group(&self, writer: &mut Writer, mut tx: WriteTx, jobs: Vec<Job>) {
        let mut done = Vec::with_capacity(jobs.len());
        let mut taken_back = Ok(());
        for job in jobs {
            let mark = tx.changes();
            let ran = job(Ok(&mut tx));
            if ran.failed && taken_back.is_ok() {
                taken_back = tx.take_back(mark);
            }
            done.push(ran);
        }
        let result = taken_back.and_then(|()| self.commit(writer, tx));
        for ran in done {
            (ran.reply)(result.clone());
        }
    }
}

/// A job that runs `f` and tells `to` how it ended.
fn job<T: Send + 'static>(
    f: impl FnOnce(&mut WriteTx) -> Result<T, StoreError> + Send + 'static,
    to: SyncSender<Result<T, StoreError>>,
) -> Job {
    Box::new(move |tx| {
        let result = tx.and_then(f);
        Done {
            failed: result.is_err(),
            reply: Box::new(move |committed| {
                // Its own error says more than that of a commit it has no part in. Nobody
                // listens only if the waiting thread is gone, and its interest with it.
                let _ = to.send(result.and_then(|value| committed.map(|()| value)));
            }),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::super::testing::{self, Bench, shop, token};
    use super::*;
    use crate::id::TokenId;

    type Put<T> = fn(&mut WriteTx) -> Result<T, StoreError>;

    /// Queues `jobs` while the writer is busy, so that they form one group; their results.
    fn together<T: Send + 'static>(
        bench: &Bench,
        jobs: Vec<Put<T>>,
    ) -> Vec<std::thread::Result<Result<T, StoreError>>> {
        std::thread::scope(|scope| {
            let busy = bench.store.lock_writer();
            let mut threads = Vec::new();
            for (n, job) in jobs.into_iter().enumerate() {
                threads.push(scope.spawn(move || bench.store.write_grouped(job)));
                while bench.store.queue.lock().unwrap().len() <= n {
                    std::thread::yield_now();
                }
            }
            drop(busy);
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        })
    }

    fn bench() -> Bench {
        let bench = Bench::in_memory();
        bench.store.write(|tx| tx.put_shop(&shop("one"))).unwrap();
        bench
    }

    fn stored(bench: &Bench, id: u128) -> bool {
        bench.store.read(|tx| tx.token(TokenId(id))).unwrap().is_some()
    }

    fn commits(bench: &Bench) -> u64 {
        let tx = bench.store.begin_write(&mut bench.store.lock_writer()).unwrap();
        super::super::write::commit_number(&tx, bench.store.path()).unwrap()
    }

    #[test]
    fn a_group_is_one_commit_and_each_has_its_own_outcome() {
        let bench = bench();
        let before = commits(&bench);
        let results = together(
            &bench,
            vec![
                |tx| tx.put_token(&token(1, "one", 9)).map(|()| 1),
                |tx| {
                    tx.put_token(&token(1, "one", 99))?;
                    tx.put_token(&token(2, "one", 9))?;
                    tx.put_token(&token(3, "missing", 9)).map(|()| 2)
                },
                |tx| tx.put_token(&token(4, "one", 9)).map(|()| 4),
            ],
        );
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!((&results[0], &results[2]), (&Ok(1), &Ok(4)));
        assert!(matches!(results[1], Err(StoreError::NoSuchShop { .. })));
        assert_eq!(commits(&bench), before + 1);
        let bench = bench.reopen();
        assert_eq!([1, 2, 3, 4].map(|id| stored(&bench, id)), [true, false, false, true]);
        let found = bench.store.read(|tx| tx.token(TokenId(1))).unwrap();
        assert_eq!(found, Some(token(1, "one", 9)));
    }

    #[test]
    fn a_commit_that_fails_fails_its_whole_group() {
        let bench = bench();
        let before = testing::dump(&bench.store);
        bench.disk.fail(0, u64::MAX);
        let put: Put<()> = |tx| tx.put_token(&token(1, "one", 9));
        let results = together(&bench, vec![put, put, put]);
        assert!(results.into_iter().all(|result| result.unwrap().is_err()));
        bench.disk.heal();
        assert!(testing::dump(&bench.store) == before);
        bench.store.write_grouped(put).unwrap();
        assert!(stored(&bench, 1));
    }

    #[test]
    fn a_panic_leaves_no_trace_and_nobody_waiting() {
        let bench = bench();
        let results = together(
            &bench,
            vec![|tx| tx.put_token(&token(1, "one", 9)), |_| panic!("a defect"), |tx| {
                tx.put_token(&token(2, "one", 9))
            }],
        );
        // Only the thread that ran the group panics; the others learn that theirs did not happen.
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
        assert!(results.iter().flatten().all(Result::is_err));
        assert!(!stored(&bench, 1) && !stored(&bench, 2));
        bench.store.write_grouped(|tx| tx.put_token(&token(1, "one", 9))).unwrap();
    }

    #[test]
    fn many_threads_at_once_each_find_their_own() {
        let bench = bench();
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                let (store, start) = (&bench.store, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..20 {
                        let id = u128::from(thread * 100 + n);
                        let put = move |tx: &mut WriteTx| tx.put_token(&token(id, "one", 9));
                        store.write_grouped(put).unwrap();
                        assert!(store.read(|tx| tx.token(TokenId(id))).unwrap().is_some());
                    }
                });
            }
        });
    }
}
