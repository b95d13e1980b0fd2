//! What keeps the admin plane busy: browsers, an import, backups.

use std::fmt;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::elsewhere::in_the_background;
use super::filled;
use super::http::{Request, connect, get, request};
use super::site::{PASSWORD, Site, succeeded};

/// What a thread does until it is told to stop.
type Job = Box<dyn Fn(&AtomicBool, &Counts) + Send>;

/// Browsers that load one page after the other.
const BROWSERS: u32 = 3;
/// Open pages that hear of every refusal.
const LISTENERS: u32 = 4;

/// What was done in an interval.
#[derive(Default)]
pub(crate) struct Done {
    pages: u64,
    /// Bytes that those who listen to refusals got.
    heard: u64,
    imported: u64,
    imports: u64,
    backups: u64,
}

impl Done {
    pub(crate) fn add(&mut self, other: &Self) {
        self.pages += other.pages;
        self.heard += other.heard;
        self.imported += other.imported;
        self.imports += other.imports;
        self.backups += other.backups;
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, heard, imported, imports, backups } = self;
        write!(
            f,
            "{pages} pages by {BROWSERS} browsers, {imported} keys imported ({imports} whole \
             files), {backups} backups, {heard} bytes of refusals to {LISTENERS} listeners"
        )
    }
}

/// What the work needs, made once.
pub(crate) struct Work {
    cookie: Arc<str>,
    shops: u32,
    /// Files made so far.
    files: Arc<AtomicU64>,
}

impl Work {
    /// Signs in, and imports the keys once, so that all intervals find the same store.
    pub(crate) fn prepare(site: &Site, shops: u32) -> Self {
        let this = Self { cookie: sign_in(site.admin).into(), shops, files: Arc::default() };
        let counts = Counts::default();
        import(&site.socket(), &file(shops, 0), &AtomicBool::new(false), &counts);
        assert_eq!(counts.imported.load(Ordering::Relaxed), u64::from(shops));
        this
    }

    /// Begins all of it.
    pub(crate) fn begin(&self, site: &Site) -> UnderWay {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let mut threads = Vec::new();
        let mut spawn = |work: Job| {
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            threads.push(std::thread::spawn(move || {
                in_the_background();
                work(&stop, &counts);
            }));
        };
        for browser in 0..BROWSERS {
            let (admin, cookie, shops) = (site.admin, Arc::clone(&self.cookie), self.shops);
            spawn(Box::new(move |stop, counts| {
                browse(admin, &cookie, browser, shops, stop, counts);
            }));
        }
        for _ in 0..LISTENERS {
            let (admin, cookie) = (site.admin, Arc::clone(&self.cookie));
            spawn(Box::new(move |stop, counts| listen(admin, &cookie, stop, counts)));
        }
        let (socket, files, shops) = (site.socket(), Arc::clone(&self.files), self.shops);
        // Made before the interval; another one only if the import ends before it.
        let next = move || file(shops, files.fetch_add(1, Ordering::Relaxed) + 1);
        let first = next();
        spawn(Box::new(move |stop, counts| {
            import(&socket, &first, stop, counts);
            while !stop.load(Ordering::Relaxed) {
                import(&socket, &next(), stop, counts);
            }
        }));
        let socket = site.socket();
        spawn(Box::new(move |stop, counts| {
            while !stop.load(Ordering::Relaxed) {
                back_up(&socket);
                counts.backups.fetch_add(1, Ordering::Relaxed);
            }
        }));
        UnderWay { stop, counts, threads }
    }
}

#[derive(Default)]
struct Counts {
    pages: AtomicU64,
    heard: AtomicU64,
    imported: AtomicU64,
    imports: AtomicU64,
    backups: AtomicU64,
}

/// Work that goes on.
pub(crate) struct UnderWay {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl UnderWay {
    /// What was done until now; returns when all of it has ended.
    pub(crate) fn finish(self) -> Done {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { pages, heard, imported, imports, backups } = &*self.counts;
        let done = Done {
            pages: count(pages),
            heard: count(heard),
            imported: count(imported),
            imports: count(imports),
            backups: count(backups),
        };
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the work went through");
        }
        done
    }
}

/// Signs in by the form; the session's cookie.
fn sign_in(admin: SocketAddr) -> String {
    let form = get("/sign-in").send(admin);
    let cookie = |response: &super::http::Response| {
        let set = response.headers.iter().filter(|(k, _)| k.eq_ignore_ascii_case("set-cookie"));
        let mut pairs = set.filter_map(|(_, value)| value.split(';').next());
        pairs.next().expect("a cookie").to_owned()
    };
    let page = form.text();
    let token = page.split_once("name=\"csrf\" value=\"").expect("a token").1;
    let token = token.split('"').next().unwrap_or_default();
    let password = PASSWORD.replace(' ', "+");
    let entered = request("POST", "/sign-in")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Cookie", cookie(&form))
        .body(format!("csrf={token}&name=ada&password={password}"))
        .send(admin);
    assert_eq!(entered.status, 303, "{}", entered.text());
    cookie(&entered)
}

/// Loads pages until told to stop.
fn browse(
    admin: SocketAddr,
    cookie: &str,
    browser: u32,
    shops: u32,
    stop: &AtomicBool,
    counts: &Counts,
) {
    let mut turn = browser;
    while !stop.load(Ordering::Relaxed) {
        let shop = turn.wrapping_mul(7919) % shops;
        for path in [
            "/".to_owned(),
            format!("/shops?q=number+{shop}"),
            format!("/shops/shop-{shop}"),
            format!("/shops/shop-{shop}/traffic"),
            "/refusals".to_owned(),
        ] {
            let page = get(&path).header("Cookie", cookie).send(admin);
            assert_eq!(page.status, 200, "{path}: {}", page.text());
            counts.pages.fetch_add(1, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        turn += BROWSERS;
    }
}

/// Listens to refusals until told to stop.
fn listen(admin: SocketAddr, cookie: &str, stop: &AtomicBool, counts: &Counts) {
    let call = get("/live/events").header("Cookie", cookie);
    let mut stream = connect(admin);
    stream.write_all(&call.bytes("localhost")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 16 * 1024];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("nothing is told of refusals any more"),
            Ok(read) => {
                counts.heard.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A file of a second key for every shop: always the same keys, by another name in every file, so
/// that each replaces what the one before brought, and all intervals find a store of one size.
fn file(shops: u32, number: u64) -> Vec<u8> {
    let line = |shop: u32| {
        let secret = filled::secret(shops + shop);
        format!(
            "{{\"type\":\"key/1\",\"shop\":\"shop-{shop}\",\"name\":\"import {number}\",\
             \"secret\":\"{secret}\"}}\n"
        )
    };
    (0..shops).map(line).collect::<String>().into_bytes()
}

/// Imports `file`; told to stop, leaves, upon which the import ends too.
fn import(socket: &Path, file: &[u8], stop: &AtomicBool, counts: &Counts) {
    let call = request("POST", "/api/v1/import?replace=true")
        .header("Content-Type", "application/x-ndjson")
        .header("Accept", "application/x-ndjson")
        .body(file);
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(&call.bytes("localhost")).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let head = lines.next().unwrap().unwrap();
    // The turn of an import that was left is given back within a batch.
    if head.starts_with("HTTP/1.1 409") {
        return;
    }
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut before = 0;
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap_or_default();
        assert_ne!(event["event"], "failed", "{event}");
        if event["phase"] == "applying" {
            let done = event["done"].as_u64().unwrap();
            counts.imported.fetch_add(done - before, Ordering::Relaxed);
            before = done;
        }
        if event["event"] == "done" {
            counts.imports.fetch_add(1, Ordering::Relaxed);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Makes a backup, and deletes it again.
fn back_up(socket: &Path) {
    let made = last_line(socket, request("POST", "/api/v1/backups"));
    let name = made["result"]["name"].as_str().unwrap();
    let path = format!("/api/v1/backups/{name}");
    succeeded("a backup's end", &request("DELETE", &path).send_unix(socket));
}

/// Sends `call` and hears of its progress, so that it may take its time; the last line.
fn last_line(socket: &Path, call: Request) -> Value {
    let response = call.header("Accept", "application/x-ndjson").send_unix(socket);
    succeeded("work", &response);
    let text = response.text();
    let last: Value = serde_json::from_str(text.trim_end().lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "done", "{last}");
    last
}
