//! The rules of the source that no compiler holds: who may import whom, what the decision core
//! may not touch, how long things may get, what may not be in the tree.
//!
//! Works on text with comments and literals blanked, which is enough for code that rustfmt has
//! formatted. Each check is a function from text to complaints, and has a test that it complains.

use std::fs;
use std::path::{Path, PathBuf};

/// Which top-level modules each may import. `server` and `admin` never know each other.
const LAYERS: [(&str, &[&str]); 24] = [
    ("id", &[]),
    ("secret", &[]),
    ("clock", &[]),
    ("jose", &[]),
    ("pace", &[]),
    ("https", &[]),
    ("decision", &["id", "secret", "clock", "jose"]),
    ("assertion", &["id", "secret", "clock", "decision"]),
    ("usage", &["id", "clock"]),
    ("events", &["id", "clock", "decision"]),
    ("store", &["id", "secret", "clock", "pace", "usage"]),
    ("config", &["id", "secret", "clock", "decision"]),
    ("metrics", &["id", "secret", "clock", "decision", "usage"]),
    ("logging", &["id", "secret", "clock", "decision", "config"]),
    ("snapshot", &["id", "secret", "clock", "decision", "assertion", "store", "config"]),
    ("limiter", &["id", "secret", "clock", "decision", "store", "config"]),
    ("verified_tokens", &["id", "secret", "clock", "decision", "store", "config"]),
    ("jwks", &["id", "secret", "clock", "decision", "config", "metrics", "jose", "https"]),
    ("tls", &["id", "secret", "clock", "config", "metrics"]),
    ("client_address", &[]),
    ("trace", &["id", "secret", "clock", "decision", "config", "metrics", "logging", "https"]),
    (
        "server",
        &[
            "id",
            "secret",
            "clock",
            "https",
            "jose",
            "decision",
            "assertion",
            "config",
            "metrics",
            "logging",
            "snapshot",
            "limiter",
            "verified_tokens",
            "jwks",
            "tls",
            "client_address",
            "usage",
            "events",
            "trace",
        ],
    ),
    (
        "admin",
        &[
            "id",
            "secret",
            "clock",
            "pace",
            "https",
            "jose",
            "decision",
            "assertion",
            "store",
            "config",
            "metrics",
            "logging",
            "snapshot",
            "limiter",
            "verified_tokens",
            "jwks",
            "tls",
            "client_address",
            "usage",
            "events",
        ],
    ),
    (
        "cli",
        &[
            "id",
            "secret",
            "clock",
            "https",
            "jose",
            "decision",
            "assertion",
            "store",
            "config",
            "metrics",
            "logging",
            "snapshot",
            "limiter",
            "verified_tokens",
            "jwks",
            "tls",
            "client_address",
            "usage",
            "events",
            "trace",
            "server",
            "admin",
        ],
    ),
];

/// What `decision` may not mention: whole paths, or any path that starts or ends so.
const IMPURE: [&str; 24] = [
    "tokio",
    "hyper",
    "hyper_util",
    "redb",
    "tracing",
    "prometheus",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "Instant::now",
    "SystemTime::now",
    "SystemClock",
    "SystemEntropy",
    "SystemRandom",
    "RandomState::new",
    "ring::rand",
    "println",
    "async",
    "await",
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;

/// Packages that would be a second crypto library, or openssl.
const FOREIGN_CRYPTO: [&str; 14] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "openssl",
    "openssl-sys",
    "native-tls",
    "boring",
    "rsa",
    "p256",
    "p384",
    "ed25519-dalek",
    "sha1",
    "sha2",
    "md-5",
    "rustls-openssl",
];

/// What may stand at the top of the repository, besides dotfiles.
const TOP_LEVEL: [&str; 12] = [
    "src",
    "benches",
    "fuzz",
    "tests",
    "packaging",
    "target",
    "Cargo.toml",
    "Cargo.lock",
    "askama.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
];

#[test]
fn modules_import_only_what_their_layer_allows() {
    complain(sources("src").iter().flat_map(|file| layering(&file.module(), &file.code)));
}

#[test]
fn the_decision_core_is_pure() {
    let files = sources("src/decision");
    assert!(files.len() > 10, "the decision core was not found");
    complain(files.iter().flat_map(|file| file.say(impurities(&file.code))));
}

#[test]
fn nothing_is_waved_through() {
    let files = ["src", "tests", "benches", "fuzz/fuzz_targets"].map(sources);
    complain(files.iter().flatten().flat_map(|file| file.say(waved_through(&file.blanked))));
}

#[test]
fn files_functions_and_lines_are_short() {
    complain(sources("src").iter().filter(|file| !file.is_for_tests()).flat_map(|file| {
        let mut complaints = long_functions(&file.code);
        let lines = lines_without_tests(&file.blanked);
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{lines} lines without its tests"));
        }
        file.say(complaints)
    }));
    let all = ["src", "tests", "benches", "fuzz/fuzz_targets"].map(sources);
    complain(all.iter().flatten().flat_map(|file| file.say(long_lines(&file.text))));
}

#[test]
fn the_overview_knows_every_module() {
    let lib = read("src/lib.rs");
    let modules: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 10, "src/lib.rs declares {modules:?}");
    let prose: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    let told = |module: &str| prose.contains(&format!("[`{module}`]"));
    let untold = modules.into_iter().filter(|module| !told(module));
    complain(untold.map(|module| format!("src/lib.rs does not say what `{module}` is for")));
}

#[test]
fn every_dependency_is_used() {
    let manifest = read("Cargo.toml");
    let src: String = sources("src").into_iter().map(|file| file.blanked).collect();
    let outside = ["tests", "benches"].map(sources);
    let outside: String = outside.into_iter().flatten().map(|file| file.blanked).collect();
    complain(unused(&manifest, "[dependencies]", &src));
    complain(unused(&manifest, "[dev-dependencies]", &(src + &outside)));
}

#[test]
fn there_is_one_crypto_library() {
    let lock = read("Cargo.lock");
    assert!(lock.contains("name = \"ring\""), "Cargo.lock was not read");
    complain(foreign_crypto(&lock));
}

#[test]
fn the_repository_keeps_its_shape() {
    let entries = fs::read_dir(root()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strange = names.filter(|n| !n.starts_with('.') && !TOP_LEVEL.contains(&n.as_str()));
    complain(strange.map(|name| format!("{name}: not a place that DESIGN knows")));
}

/// A source file.
struct Source {
    path: PathBuf,
    text: String,
    /// Without comments and literals.
    blanked: String,
    /// And without what only tests see.
    code: String,
}

impl Source {
    /// `["decision", "jwt"]` for `src/decision/jwt/mod.rs`.
    fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src").unwrap_or(&self.path).with_extension("");
        let parts = inside.iter().map(|part| part.to_str().unwrap().to_owned());
        parts.filter(|part| part != "mod").collect()
    }

    fn is_for_tests(&self) -> bool {
        matches!(self.path.file_stem().and_then(|s| s.to_str()), Some("tests" | "testing"))
    }

    fn say(&self, complaints: Vec<String>) -> Vec<String> {
        complaints.into_iter().map(|c| format!("{}: {c}", self.path.display())).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All Rust files below `folder`.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let blanked = blank(&text);
                let code = without_tests(&blanked);
                let path = path.strip_prefix(root()).unwrap().to_owned();
                found.push(Source { path, text, blanked, code });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn complain(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Complains of imports that the table does not allow to `module`.
fn layering(module: &[String], code: &str) -> Vec<String> {
    let Some(top) = module.first().filter(|top| !["lib", "main"].contains(&top.as_str())) else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == top) else {
        return vec![format!("{top}: not in the table of layers")];
    };
    let imported = paths(code).into_iter().filter_map(|path| {
        let ups = path.iter().take_while(|part| *part == "super").count();
        let at_top = path.first().is_some_and(|first| first == "crate" || first == "latchkey");
        let target = if at_top { path.get(1) } else { path.get(ups) };
        let reaches_top = at_top || (ups > 0 && ups == module.len());
        target.filter(|_| reaches_top).cloned()
    });
    imported
        .filter(|target| LAYERS.iter().any(|(name, _)| name == target))
        .filter(|target| target != top && !allowed.contains(&target.as_str()))
        .map(|target| format!("{} imports {target}", module.join("::")))
        .collect()
}

/// Complains of what a pure core has no business with.
fn impurities(code: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for path in paths(code) {
        let path = format!("::{}::", path.join("::"));
        let found = IMPURE.iter().filter(|word| path.contains(&format!("::{word}::")));
        complaints.extend(found.map(|word| format!("mentions {word}")));
    }
    complaints
}

/// Complains of ways around the compiler's checks.
fn waved_through(blanked: &str) -> Vec<String> {
    let forbidden = ["#[allow", "#![allow", "todo!", "unimplemented!", "dbg!", "unsafe "];
    let found = forbidden.iter().filter(|word| blanked.contains(*word));
    found.map(|word| format!("contains `{word}`")).collect()
}

fn long_lines(text: &str) -> Vec<String> {
    let long = text.lines().zip(1..).filter(|(line, _)| line.chars().count() > LINE_CHARS_MAX);
    long.map(|(_, number)| format!("line {number} is longer than {LINE_CHARS_MAX}")).collect()
}

/// Complains of functions that are too long, signature and braces included.
fn long_functions(code: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let body = &code[at..];
        let lines = body[..item_end(body)].lines().count();
        if lines > FUNCTION_LINES_MAX {
            let name = body[3..].split(['(', '<']).next().unwrap_or_default();
            complaints.push(format!("fn {name} has {lines} lines"));
        }
    }
    complaints
}

fn lines_without_tests(blanked: &str) -> usize {
    let tests = blanked.find("#[cfg(test)]\nmod tests {");
    blanked[..tests.unwrap_or(blanked.len())].lines().count()
}

/// Complains of dependencies in `section` of the manifest that `code` never names.
fn unused(manifest: &str, section: &str, code: &str) -> Vec<String> {
    let names = manifest.lines().skip_while(|line| *line != section).skip(1);
    let names = names.take_while(|line| !line.starts_with('['));
    let names: Vec<&str> = names.filter_map(|line| line.split_once(" = ")).map(|d| d.0).collect();
    assert!(!names.is_empty(), "{section} was not found");
    // A word alone may be anything; `name::…` is the package.
    let used = paths(code).into_iter().filter(|path| path.len() > 1);
    let roots: Vec<String> = used.filter_map(|path| path.into_iter().next()).collect();
    let unused = names.into_iter().filter(|name| !roots.contains(&name.replace('-', "_")));
    unused.map(|name| format!("{section} {name} is not used")).collect()
}

fn foreign_crypto(lock: &str) -> Vec<String> {
    let found = FOREIGN_CRYPTO.iter().filter(|name| lock.contains(&format!("name = \"{name}\"\n")));
    found
        .map(|name| format!("Cargo.lock holds {name}, and ring is the one crypto library"))
        .collect()
}

/// Every path of the code, groups expanded: `use a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    // Prefixes of the groups we are in, with the depth of braces at which each ends.
    let mut groups: Vec<(Vec<String>, usize)> = Vec::new();
    let (mut current, mut depth): (Vec<String>, usize) = (Vec::new(), 0);
    for (i, token) in tokens.iter().enumerate() {
        let joined = i > 0 && tokens[i - 1] == "::";
        match token.as_str() {
            "::" => {}
            "{" => {
                depth += 1;
                if joined && !current.is_empty() {
                    groups.push((std::mem::take(&mut current), depth));
                }
            }
            word if word.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                if !joined || current.is_empty() {
                    found.push(std::mem::take(&mut current));
                    current = groups.last().map(|(prefix, _)| prefix.clone()).unwrap_or_default();
                }
                current.push(word.to_owned());
            }
            other => {
                found.push(std::mem::take(&mut current));
                if other == "}" {
                    if groups.last().is_some_and(|(_, ends)| *ends == depth) {
                        groups.pop();
                    }
                    depth = depth.saturating_sub(1);
                }
            }
        }
    }
    found.push(current);
    found.retain(|path| !path.is_empty());
    found
}

/// Words, `::`, and single other characters.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, tail) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(token.to_owned());
        }
        rest = tail;
    }
    tokens
}

/// `blanked` without the items under `#[cfg(test)]`.
fn without_tests(blanked: &str) -> String {
    let mut code = String::new();
    let mut rest = blanked;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        code.push_str(before);
        rest = &after[item_end(after)..];
    }
    code + rest
}

/// Where the item at the start of `code` ends: at its closing brace, or its semicolon.
fn item_end(code: &str) -> usize {
    let (mut braces, mut brackets) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' if braces <= 1 => return at + 1,
            '}' => braces -= 1,
            ';' if braces == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// `text` with comments and the insides of literals replaced by blanks; lines stay lines.
fn blank(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = blanked.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            quoted_length(rest, '"')
        } else if first == '\'' && is_char_literal(rest) {
            quoted_length(rest, '\'')
        } else if let Some(length) = raw_string_length(rest).filter(|_| !after_word) {
            length
        } else {
            blanked.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        blanked.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    blanked
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Whether the `'` at the start opens a character, not a lifetime.
fn is_char_literal(text: &str) -> bool {
    let mut characters = text.chars().skip(1);
    matches!((characters.next(), characters.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

fn raw_string_length(text: &str) -> Option<usize> {
    let opening = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = opening.len() - opening.trim_start_matches('#').len();
    let inside = opening[hashes..].strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&closing)? + closing.len();
    Some(text.len() - inside.len() + end)
}

mod the_checks_can_fail {
    use super::*;

    fn module(text: &str) -> Vec<String> {
        text.split("::").map(str::to_owned).collect()
    }

    fn code(text: &str) -> String {
        without_tests(&blank(text))
    }

    #[test]
    fn layering_complains() {
        for (from, text, complaints) in [
            ("decision", "use crate::store::Store;", 1),
            ("decision::jwt", "use crate::{clock::Now, snapshot::{A, B}};", 2),
            ("decision::jwt", "fn f() { crate::config::load(); }", 1),
            ("decision::jwt", "use super::super::server::X;", 1),
            ("decision::jwt", "use super::policy::X; use super::super::clock::Now;", 0),
            ("server::proxy", "use crate::admin::Node; use crate::store::Store;", 2),
            ("admin", "use crate::{\n    server,\n    store,\n};", 1),
            ("cli", "use crate::{admin, server, store};", 0),
            ("secret", "use crate::clock::Now;", 1),
            ("unheard_of", "", 1),
            ("decision", "// use crate::store;\nconst A: &str = \"crate::store::X\";", 0),
            ("decision", "const A: &str = r#\"crate::\"store::X\"#; use crate::clock::A;", 0),
            ("decision", "#[cfg(test)]\nmod tests { use crate::store::Store; fn f() {} }", 0),
            ("decision", "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::store::S;", 1),
            ("decision", "const Q: char = '\"'; use crate::store::S; const R: char = '\"';", 1),
            ("decision", "fn f<'a>(x: &'a str) { crate::store::g::<'a>(x) }", 1),
        ] {
            let found = layering(&module(from), &code(text));
            assert_eq!(found.len(), complaints, "{from}: {text}: {found:?}");
        }
    }

    #[test]
    fn impurities_are_found() {
        for text in [
            "use tokio::sync::Mutex;",
            "use std::{collections::HashMap, fs};",
            "use std::net::{IpAddr, TcpStream};",
            "fn f() { std::env::var(x); }",
            "async fn f() {}",
            "fn f() { g().await }",
            "fn f() { std::time::Instant::now(); }",
            "fn f() { RandomState::new(); }",
            "fn f() { std::hash::RandomState::new(); }",
            "use ring::rand::SecureRandom;",
            "fn f() { tracing::info!(); }",
        ] {
            assert!(!impurities(&code(text)).is_empty(), "{text}");
        }
        for text in [
            "use std::net::IpAddr; use std::hash::RandomState;",
            "/// Reads no clock: std::time::Instant::now().\nfn f() {}",
            "fn f(env: &str) { thread(env) }",
            "#[cfg(test)]\nmod tests { use std::fs; }",
        ] {
            assert_eq!(impurities(&code(text)), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn shortcuts_are_found() {
        // Assembled here, so that this file does not find itself.
        let marked = |word: &str| format!("#[{word}(dead_code)]\nfn f() {{}}");
        assert_eq!(waved_through(&marked("allow")).len(), 1);
        assert_eq!(waved_through(&marked("expect")).len(), 0);
        let call = |word: &str| format!("fn f() {{ {word}!() }}");
        assert_eq!(waved_through(&call("todo")).len(), 1);
        let block = |word: &str| format!("fn f() {{ {word} {{ g() }} }}");
        assert_eq!(waved_through(&block("unsafe")).len(), 1);
        assert_eq!(
            waved_through(&blank("// unsafe { }\nconst A: &str = \"unsafe { }\";")).len(),
            0
        );
    }

    #[test]
    fn long_things_are_found() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(long_functions(&function(70)), Vec::<String>::new());
        assert_eq!(long_functions(&function(71)), ["fn f has 71 lines"]);
        let short = format!("trait T {{\n    fn f();\n}}\n{}", function(69));
        assert_eq!(long_functions(&short), Vec::<String>::new());
        assert_eq!(long_lines(&"é".repeat(100)).len(), 0);
        assert_eq!(long_lines(&"é".repeat(101)).len(), 1);
        let file = format!("{}#[cfg(test)]\nmod tests {{\n}}\n", "a\n".repeat(501));
        assert_eq!(lines_without_tests(&file), 501);
    }

    #[test]
    fn unused_dependencies_are_found() {
        let manifest = "[dependencies]\nused-one = \"1\"\nidle = { version = \"1\" }\n\n[x]\n";
        let code = "use used_one::A; fn idle() { a::idle::b() }";
        assert_eq!(unused(manifest, "[dependencies]", code), ["[dependencies] idle is not used"]);
    }

    #[test]
    fn foreign_crypto_is_found() {
        let package = |name: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\n");
        assert_eq!(foreign_crypto(&package("openssl-sys")).len(), 1);
        assert_eq!(foreign_crypto(&(package("ring") + &package("rsa-like"))).len(), 0);
    }

    #[test]
    fn files_know_their_module() {
        for (path, module) in [
            ("src/id.rs", "id"),
            ("src/decision/mod.rs", "decision"),
            ("src/decision/jwt/claims.rs", "decision::jwt::claims"),
        ] {
            let (text, blanked, code) = Default::default();
            let source = Source { path: path.into(), text, blanked, code };
            assert_eq!(source.module().join("::"), module);
        }
    }
}
