//! An upstream that says exactly the bytes it is told to, and remembers what it was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::http::PATIENCE;

/// A connection to a scripted upstream.
pub(crate) struct Heard {
    pub(crate) stream: TcpStream,
    pending: Vec<u8>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    /// The next request's head, with its body if that has a length; `None` at the end.
    pub(crate) fn request(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n")?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.parse::<usize>().ok());
        let body = self.bytes(length.unwrap_or(0))?;
        let request = format!("{head}{}", String::from_utf8_lossy(&body));
        self.log.lock().expect("no panic under the lock").push(request.clone());
        Some(request)
    }

    /// Text up to and with `mark`.
    pub(crate) fn until(&mut self, mark: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.pending.windows(mark.len()).position(|w| w == mark) {
                let rest = self.pending.split_off(at + mark.len());
                let text = std::mem::replace(&mut self.pending, rest);
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            self.more()?;
        }
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.pending.len() < count {
            self.more()?;
        }
        Some(self.pending.drain(..count).collect())
    }

    /// What has arrived and was not asked for.
    pub(crate) fn unasked(&self) -> &[u8] {
        &self.pending
    }

    pub(crate) fn say(&mut self, text: impl AsRef<[u8]>) {
        // The other side may have gone, which is what some scripts are about.
        let _ = self.stream.write_all(text.as_ref());
    }

    fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(n @ 1..) => {
                self.pending.extend_from_slice(&buffer[..n]);
                Some(())
            }
            Ok(0) | Err(_) => None,
        }
    }
}

/// See the module documentation; its threads end with the process.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Script {
    /// Follows `script` on every connection.
    pub(crate) fn start(script: impl Fn(Heard) + Send + Sync + 'static) -> Self {
        Self::start_at(&"127.0.0.1:0".parse().expect("an address"), script)
    }

    /// The same, at an address that is known.
    pub(crate) fn start_at(
        address: &SocketAddr,
        script: impl Fn(Heard) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let (log, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let (kept, counter, script) =
            (Arc::clone(&log), Arc::clone(&connections), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_nodelay(true);
                let log = Arc::clone(&kept);
                let heard = Heard { stream, pending: Vec::new(), log };
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(heard));
            }
        });
        Self { address, log, connections }
    }

    /// Answers every request with `answer`.
    pub(crate) fn answering(answer: &'static str) -> Self {
        Self::start(move |mut heard| {
            while heard.request().is_some() {
                heard.say(answer);
            }
        })
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.log.lock().expect("no panic under the lock").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
