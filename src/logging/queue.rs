//! The lines on their way to standard error: a bounded queue, and one thread that writes.
//!
//! Whoever logs puts a line down and goes on. A reader of standard error that is slow, or does
//! not read at all, holds up the writing thread and nobody else; lines that find the queue full
//! are dropped, counted, and said in one line when there is room again. What lines say is not
//! known here, except that no secret may be in them.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::redact::redact;

/// All lines that wait, together. A line is as long as a caller's path at most.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lines are written together up to about this.
const BATCH_BYTES: usize = 32 * 1024;
/// The wait before a descriptor that does not block is tried again.
const RETRY: Duration = Duration::from_millis(10);

thread_local! {
    /// What the writing thread itself logs: it does not wait in the queue that it empties.
    static OWN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Where lines are put down; the copies share one queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lines put down so far.
    queued: AtomicU64,
    /// Lines dropped so far.
    dropped: Arc<AtomicU64>,
    bytes: AtomicUsize,
    /// Lines written, or given up, so far.
    written: Mutex<u64>,
    progress: Condvar,
}

impl Queue {
    /// A queue of `lines_max` lines, and the thread that writes them to `sink`. When lines were
    /// dropped and there is room again, `tell` is called with how many.
    ///
    /// # Errors
    ///
    /// The system refuses the thread.
    pub(super) fn start(
        lines_max: usize,
        sink: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(lines_max);
        let state = Arc::new(State::default());
        let queue = Self { sender, state: Arc::clone(&state) };
        let writer = Writer { receiver, state, sink, tell, lines_max, told: 0 };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(queue)
    }

    /// How many lines were dropped, to be read at any time.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.state.dropped)
    }

    /// Puts a line down, or drops it; never waits.
    fn put(&self, line: &[u8]) {
        let own = OWN.with_borrow_mut(|own| own.as_mut().map(|own| own.extend_from_slice(line)));
        if own.is_some() {
            return;
        }
        let state = &self.state;
        let waiting = state.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = waiting.saturating_add(line.len()) <= QUEUE_BYTES_MAX;
        if fits && self.sender.try_send(line.to_vec()).is_ok() {
            state.queued.fetch_add(1, Ordering::Release);
        } else {
            state.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was put down before is written, at most for `bound`.
    pub(super) fn flush(&self, bound: Duration) {
        let target = self.state.queued.load(Ordering::Acquire);
        let written = self.state.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Either way nothing is left to do.
        drop(self.state.progress.wait_timeout_while(written, bound, |w| *w < target));
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes one line, which comes in one piece. Never fails: tracing would complain of an error on
/// standard error, and wait for it.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W, T> {
    receiver: Receiver<Vec<u8>>,
    state: Arc<State>,
    sink: W,
    tell: T,
    lines_max: usize,
    /// How many dropped lines were told of.
    told: u64,
}

impl<W: Write, T: Fn(u64)> Writer<W, T> {
    /// Writes until nobody can log any more.
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut next = None;
        let mut since_told = 0;
        while let Some(line) = next.take().or_else(|| self.receiver.recv().ok()) {
            let lines = self.gather(line, &mut batch);
            if write_all(&mut self.sink, &batch).is_err() {
                // The reader is gone: what it did not get is lost, and it may be replaced.
                self.state.dropped.fetch_add(lines, Ordering::Relaxed);
            }
            batch.clear();
            batch.shrink_to(4 * BATCH_BYTES);
            since_told += lines;
            next = self.receiver.try_recv().ok();
            // When all that waited is out; or, while there is always more, once for every queue.
            // Who drops a line later fills the queue first, so this is come by again.
            if next.is_none() || since_told > self.lines_max as u64 {
                self.tell();
                since_told = 0;
            }
            let mut written = self.state.written.lock().unwrap_or_else(PoisonError::into_inner);
            *written += lines;
            drop(written);
            self.state.progress.notify_all();
        }
    }

    /// Puts `line`, and as many of those that wait as fit, into `batch`; returns how many.
    fn gather(&self, line: Vec<u8>, batch: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        let mut next = Some(line);
        while let Some(line) = next {
            self.state.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            batch.extend_from_slice(&redact(&line));
            lines += 1;
            next = if batch.len() < BATCH_BYTES { self.receiver.try_recv().ok() } else { None };
        }
        lines
    }

    /// Says how many lines were dropped since it was said last.
    fn tell(&mut self) {
        let dropped = self.state.dropped.load(Ordering::Relaxed);
        if dropped == self.told {
            return;
        }
        OWN.set(Some(Vec::new()));
        (self.tell)(dropped - self.told);
        let said = OWN.take().unwrap_or_default();
        if write_all(&mut self.sink, &redact(&said)).is_ok() {
            self.told = dropped;
        }
    }
}

/// Writes all of it; waits even where the descriptor does not, for then somebody else who holds
/// it made it so.
fn write_all(sink: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A sink whose every write waits for a word; what was written, in order.
    struct Slow {
        go: mpsc::Receiver<io::Result<usize>>,
        out: Arc<Mutex<Vec<u8>>>,
        begun: mpsc::SyncSender<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.try_send(());
            let n = self.go.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.out.lock().unwrap().extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        queue: Queue,
        go: Option<mpsc::SyncSender<io::Result<usize>>>,
        begun: mpsc::Receiver<()>,
        out: Arc<Mutex<Vec<u8>>>,
        told: Arc<Mutex<Vec<u64>>>,
    }

    impl Bench {
        fn new(lines_max: usize) -> Self {
            let (go, word) = mpsc::sync_channel(64);
            let (begin, begun) = mpsc::sync_channel(64);
            let out = Arc::new(Mutex::new(Vec::new()));
            let told = Arc::new(Mutex::new(Vec::new()));
            let sink = Slow { go: word, out: Arc::clone(&out), begun: begin };
            let tell = Arc::clone(&told);
            let queue = Queue::start(lines_max, sink, move |n| tell.lock().unwrap().push(n));
            Self { queue: queue.unwrap(), go: Some(go), begun, out, told }
        }

        fn put(&self, text: &str) {
            assert_eq!(Line(&self.queue).write(text.as_bytes()).unwrap(), text.len());
        }

        fn text(&self) -> String {
            String::from_utf8(self.out.lock().unwrap().clone()).unwrap()
        }

        fn dropped(&self) -> u64 {
            self.queue.dropped().load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed() {
        let mut bench = Bench::new(4);
        bench.put("first\n");
        bench.begun.recv().unwrap();
        for i in 0..10 {
            bench.put(&format!("line {i}\n"));
        }
        assert_eq!(bench.dropped(), 6);
        assert_eq!(bench.text(), "");
        // It comes back.
        bench.go = None;
        bench.queue.flush(LONG);
        assert_eq!(bench.text(), "first\nline 0\nline 1\nline 2\nline 3\n");
        assert_eq!(*bench.told.lock().unwrap(), [6]);
        bench.put("again\n");
        bench.queue.flush(LONG);
        assert_eq!(*bench.told.lock().unwrap(), [6]);
        assert_eq!(bench.dropped(), 6);
    }

    #[test]
    fn what_it_says_of_lines_it_dropped_is_not_dropped_itself() {
        let (go, word) = mpsc::sync_channel(64);
        let (begin, begun) = mpsc::sync_channel(64);
        let out = Arc::new(Mutex::new(Vec::new()));
        let sink = Slow { go: word, out: Arc::clone(&out), begun: begin };
        let itself: Arc<Mutex<Option<Queue>>> = Arc::default();
        let tell = Arc::clone(&itself);
        let queue = Queue::start(1, sink, move |n| {
            let queue = tell.lock().unwrap().clone().unwrap();
            // As tracing does; the queue is as full as it can be.
            while queue.sender.try_send(b"more\n".to_vec()).is_ok() {}
            Line(&queue).write_all(format!("{n} dropped\n").as_bytes()).unwrap();
        });
        let queue = queue.unwrap();
        *itself.lock().unwrap() = Some(queue.clone());
        queue.put(b"first\n");
        begun.recv().unwrap();
        (0..3).for_each(|_| queue.put(b"line\n"));
        drop(go);
        queue.flush(LONG);
        let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("first\nline\n2 dropped\n"), "{text}");
    }

    #[test]
    fn the_bytes_that_wait_are_bounded() {
        let mut bench = Bench::new(1024);
        bench.put("first\n");
        bench.begun.recv().unwrap();
        let long = "x".repeat(QUEUE_BYTES_MAX / 4);
        for _ in 0..6 {
            bench.put(&long);
        }
        assert_eq!(bench.dropped(), 2);
        bench.go = None;
        bench.queue.flush(LONG);
        assert_eq!(bench.text().len(), 6 + 4 * long.len());
        bench.put(&long);
        bench.queue.flush(LONG);
        assert_eq!(bench.dropped(), 2);
    }

    #[test]
    fn short_writes_and_a_descriptor_that_does_not_block_lose_nothing() {
        let bench = Bench::new(4);
        bench.put("sk_0123456789abcdef0123456789abcdef\n");
        let go = bench.go.as_ref().unwrap();
        let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
        go.send(Ok(3)).unwrap();
        for kind in kinds {
            go.send(Err(kind.into())).unwrap();
        }
        go.send(Ok(100)).unwrap();
        bench.queue.flush(LONG);
        assert_eq!(bench.text(), "sk_0123…\n");
        assert_eq!(bench.dropped(), 0);
    }

    #[test]
    fn what_a_closed_pipe_does_not_take_counts_as_dropped() {
        let bench = Bench::new(4);
        bench.put("a\n");
        let go = bench.go.as_ref().unwrap();
        go.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        bench.queue.flush(LONG);
        assert_eq!(bench.dropped(), 1);
        bench.put("b\n");
        go.send(Ok(9)).unwrap();
        bench.queue.flush(LONG);
        assert_eq!(bench.text(), "b\n");
    }

    #[test]
    fn a_flush_ends_even_if_nobody_reads() {
        let bench = Bench::new(4);
        bench.put("a\n");
        bench.queue.flush(Duration::from_millis(1));
        assert_eq!(bench.text(), "");
    }
}
