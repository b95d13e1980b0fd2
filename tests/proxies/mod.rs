//! Forward-auth through real proxies, each with the file that is shipped for it: one table of what
//! a client sees and what the API behind the proxy gets, the same for all of them. The README shows
//! it as it comes out here.
//!
//! Needs the proxies: `tests/run proxies` installs them, says where they are, and runs these tests.

mod cases;
mod doors;
mod peer;
mod questions;
mod scene;
mod table;

use std::io::Write as _;

use self::peer::Kind;
use self::table::Column;

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn nginx() {
    conforms(Kind::Nginx);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn haproxy() {
    conforms(Kind::HaProxy);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn caddy() {
    conforms(Kind::Caddy);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn traefik() {
    conforms(Kind::Traefik);
}

#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn envoy() {
    conforms(Kind::Envoy);
}

fn conforms(kind: Kind) {
    let complaints = table::column(kind).complaints();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The README's table is the one of this run, note by note. `LATCHKEY_TEST_PROXY_TABLE` names a
/// file to write it to.
#[test]
#[ignore = "needs the proxies: tests/run proxies"]
fn the_readme_shows_the_table_of_this_run() {
    let columns: Vec<&Column> = Kind::ALL.into_iter().map(table::column).collect();
    let table = table::markdown(&columns);
    let _ = writeln!(std::io::stdout(), "\n{table}");
    if let Some(file) = std::env::var_os("LATCHKEY_TEST_PROXY_TABLE") {
        std::fs::write(file, &table).expect("a file to write");
    }
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let missing: Vec<&str> = table.lines().filter(|line| !readme.contains(line)).collect();
    assert!(
        readme.contains(&table),
        "README.md shows another table (LATCHKEY_TEST_PROXY_TABLE=FILE writes this one); new:\n{}",
        missing.join("\n")
    );
}
