//! What the binary is made of may be given to others: every dependency's licence is one of those
//! that ask for nothing but to be named.
//!
//! Whether a dependency has a known weakness is no question for a test: the answer changes with
//! the day and not with the tree. Ask it with `cargo audit` or `cargo deny check advisories`.

use std::process::Command;

use serde_json::Value;

/// Licences, as SPDX names them, that go with Apache-2.0 and oblige to no more than a notice.
const ALLOWED: [&str; 8] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Where all of them come from; anything else in the lock file could change under it.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let packages = packages();
    assert!(packages.len() > 100, "{} packages are not all", packages.len());
    let bad: Vec<String> = packages
        .iter()
        .filter(|(_, licence)| !is_allowed(licence))
        .map(|(name, licence)| format!("{name}: {licence:?} is not a licence that is allowed"))
        .collect();
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
}

#[test]
fn every_dependency_is_a_release_with_a_checksum() {
    let lock = include_str!("../Cargo.lock");
    let packages: Vec<&str> = lock.split("[[package]]\n").skip(1).collect();
    assert!(packages.len() > 200, "{}", packages.len());
    for package in packages.iter().filter(|package| !package.contains("name = \"latchkey\"\n")) {
        assert!(package.contains(&format!("source = \"{SOURCE}\"")), "{package}");
        assert!(package.contains("checksum = \""), "{package}");
    }
}

#[test]
fn expressions_are_understood() {
    for good in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "(MIT OR GPL-3.0-only) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        "Apache-2.0 AND ISC",
    ] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "(MIT OR Apache-2.0) AND (GPL-3.0-only OR MPL-2.0)",
        "LGPL-2.1-or-later",
        "MIT OR",
        "(MIT",
    ] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

/// Name and version, and licence, of all that is compiled on this platform. Reads what cargo has
/// fetched to build this test.
fn packages() -> Vec<(String, String)> {
    let host = Command::new("rustc").args(["--version", "--verbose"]).output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
            (name, text(&package["license"]))
        })
        .collect()
}

/// Whether `expression` (SPDX 2.3, annex D; a slash is an old way to write OR) can be met with
/// the licences that are allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words);
    met == Some(true) && words.peek().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> Option<bool> {
    let mut met = all_of(words)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words)?;
    }
    Some(met)
}

fn all_of(words: &mut Words<'_>) -> Option<bool> {
    let mut met = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words)?;
    }
    Some(met)
}

fn one(words: &mut Words<'_>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let met = any_of(words)?;
        return words.next_if_eq(&")").map(|_| met);
    }
    // An exception only ever allows more.
    if words.next_if_eq(&"WITH").is_some() {
        words.next()?;
    }
    Some(ALLOWED.contains(&word))
}
