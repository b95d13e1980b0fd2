//! What 100,000 shops and their keys cost: how long a start takes until it could serve, and how
//! much memory it holds then. Fails above 2 s or 100 MB.
//!
//! `cargo bench --bench footprint`; another number of keys: `-- 1000000`.
//!
//! The store is filled by one process and opened by another, so that no memory of the filling
//! is counted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench reports, and fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use latchkey::admin::node::Node;
use latchkey::clock::{Clock as _, SystemClock, Timestamp};
use latchkey::config::{self, Config, ConfigFile, Override, Sources};
use latchkey::id::{KeyId, ShopId};
use latchkey::metrics::Metrics;
use latchkey::secret::SystemEntropy;
use latchkey::store::{KeyRecord, ShopRecord, WriteTx};

const KEYS: u32 = 100_000;
const START_MS_MAX: u64 = 2_000;
const RSS_MB_MAX: u64 = 100;
/// Tells the process that opens where the store is.
const FOLDER: &str = "LATCHKEY_FOOTPRINT_FOLDER";

fn main() -> ExitCode {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return start(Path::new(&folder));
    }
    // `cargo test --benches` runs this too: unoptimized, to see that it works.
    let only_tested = !std::env::args().any(|argument| argument == "--bench");
    let asked = std::env::args().find_map(|argument| argument.parse().ok());
    let keys = if only_tested { 1000 } else { asked.unwrap_or(KEYS) };
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), keys);
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).env(FOLDER, folder.path()).status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Opens the store in `folder` as `latchkey serve` does, and reports.
fn start(folder: &Path) -> ExitCode {
    let clock = SystemClock::new();
    let node = open(folder);
    let start_ms = clock.now().mono.us() / 1000;
    let (shops, keys) = node.published.load().counts();
    let (rss_mb, peak_mb) = (memory_mb("VmRSS:"), memory_mb("VmHWM:"));
    println!("shops {shops}, keys {keys}");
    println!("start {start_ms} ms (at most {START_MS_MAX})");
    println!("RSS   {rss_mb} MB (at most {RSS_MB_MAX}), at its peak {peak_mb} MB");
    if start_ms < START_MS_MAX && rss_mb < RSS_MB_MAX {
        return ExitCode::SUCCESS;
    }
    println!("over the bound");
    ExitCode::FAILURE
}

fn open(folder: &Path) -> Arc<Node> {
    let clock = Arc::new(SystemClock::new());
    let entropy = Arc::new(SystemEntropy::new());
    Node::open(configuration(folder), clock, entropy, Arc::new(Metrics::new("bench").unwrap()))
        .unwrap()
}

fn configuration(folder: &Path) -> Config {
    let path = folder.join("latchkey.redb").to_str().unwrap().to_owned();
    let sources = Sources {
        file: ConfigFile::Absent,
        environment: BTreeMap::new(),
        overrides: vec![Override { flag: "--store".into(), key: "store.path".into(), value: path }],
    };
    config::load(&sources).unwrap()
}

/// `VmRSS:` or `VmHWM:` of this process, in MB of a million bytes.
fn memory_mb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024 / 1_000_000
}

/// Fills the store in `folder`, ten thousand shops to a transaction.
fn fill(folder: &Path, keys: u32) {
    let node = open(folder);
    let now = node.now().unix;
    let numbers: Vec<u32> = (0..keys).collect();
    for chunk in numbers.chunks(10_000) {
        let written: Result<(), latchkey::store::StoreError> =
            node.store.write(|tx| chunk.iter().try_for_each(|number| put(tx, *number, &node, now)));
        written.unwrap();
    }
}

fn put(
    tx: &mut WriteTx,
    number: u32,
    node: &Node,
    now: Timestamp,
) -> Result<(), latchkey::store::StoreError> {
    let shop = ShopId::parse(&format!("shop-{number}")).unwrap();
    tx.put_shop(&ShopRecord {
        id: shop,
        name: format!("The shop with the number {number}"),
        url: format!("https://shop-{number}.example"),
        widget_origins: Vec::new(),
        enabled: true,
        tokens_valid_from: Timestamp::default(),
        limits: Vec::new(),
        created_at: now,
        updated_at: now,
        revision: 1,
    })?;
    let text = format!("sk_{number:032x}");
    tx.put_key(&KeyRecord {
        id: KeyId(number.into()),
        shop,
        name: "server".into(),
        digest: node.pepper().digest(text.as_bytes()),
        start: text.chars().take(7).collect(),
        created_at: now,
        expires_at: None,
        grace_until: None,
        replaced_by: None,
        networks: Vec::new(),
        limits: Vec::new(),
        last_used_at: None,
        revision: 1,
    })
}
