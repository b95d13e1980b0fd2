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

#[path = "filled.rs"]
mod filled;

use std::path::Path;
use std::process::{Command, ExitCode};

use latchkey::clock::{Clock as _, SystemClock};

use self::filled::{fill, open};

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

/// Opens the store in `folder`, and reports.
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

/// `VmRSS:` or `VmHWM:` of this process, in MB of a million bytes.
fn memory_mb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024 / 1_000_000
}
