//! The configuration reference: every key, with what the code knows of it and what the shipped
//! file says about it.
//!
//! Types, bounds, defaults and what leaving a key out means are what the readers of the keys say
//! while they read; what only a restart applies is `reload`'s; the words are the comments of
//! `packaging/latchkey.toml`. Nothing of it is written here, so nothing of it can drift. It is
//! rendered elsewhere, as a manual page and as text.

use super::raw::Tree;
use super::reload::needs_restart;
use super::shape::{Fact, Shape, Without};
use super::shipped::{self, Table};
use super::validate;
use super::{ConfigFile, Sources};

pub use super::shipped::Block;

/// Has a key of every table and list that is left out by default, so that all readers are asked.
/// It is full of mistakes, which here are nobody's business.
const WIDE: &str = "
[server.tls]
certificates = [{}]
[admin.tls]
certificates = [{}]
[admin.oidc]
roles = [{ role = 'member' }]
[upstreams.default.probe]
path = '/'
[upstreams.several]
urls = ['https://a']
[[routes]]
answer = 'widget_token'
[[routes]]
scopes = [{}]
[[limits]]
[[issuers]]
";

/// One table of the configuration.
#[derive(Debug, Clone)]
pub struct KeyTable {
    /// As it is written: `[server]`, `[upstreams.NAME]`, `[[routes]]`.
    pub heading: String,
    /// What it is about.
    pub about: Vec<Block>,
    /// Its keys, in the order of the shipped file.
    pub keys: Vec<Key>,
}

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its full name: `server.listen`, `upstreams.NAME.url`, `routes[].paths`.
    pub path: String,
    /// Its name within its table; of a member of an inline table, `certificates[].key_file`.
    pub name: String,
    /// What it may be, with its bounds.
    pub shape: String,
    /// What leaving it out means.
    pub left_out: LeftOut,
    /// Whether a reload is not enough to apply it.
    pub restart: Restart,
    /// The environment variable that sets it; none sets a member of a list.
    pub variable: Option<String>,
    /// What it does; nothing for members of inline tables, of which their list tells.
    pub about: Vec<Block>,
}

/// What it means to leave a key out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// This value, as TOML.
    Default(String),
    /// What the text says.
    Means(String),
    /// The list is empty.
    Empty,
    /// It has to be written.
    Refused,
}

/// What applies a change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// A reload.
    NotNeeded,
    /// A restart.
    Needed,
    /// A restart where there was no such table, or where there is none any more; else a reload.
    ForTheTable,
}

/// Every table with every key.
#[must_use]
pub fn reference() -> Vec<KeyTable> {
    let facts = facts();
    let tables = shipped::tables(|table, key| {
        let path = format!("{table}.{key}");
        facts.iter().any(|fact| fact.path == path)
    });
    tables.iter().map(|table| describe(table, &tables, &facts)).collect()
}

/// What the code knows of every key, under names with `NAME` and `[]` in place of names and
/// numbers; each key once.
fn facts() -> Vec<Fact> {
    let text = WIDE.to_owned();
    let wide = ConfigFile::Inline { name: String::new(), text };
    let mut facts: Vec<Fact> = Vec::new();
    for file in [ConfigFile::Absent, wide] {
        let sources = Sources { file, ..Sources::default() };
        // Neither text is malformed: a test reads them.
        let Ok(tree) = Tree::merge(&sources) else {
            continue;
        };
        for fact in validate::facts(&tree) {
            let fact = Fact { path: generic(&fact.path), ..fact };
            match facts.iter_mut().find(|known| known.path == fact.path) {
                Some(known) if known.shape == Shape::Unsaid => known.shape = fact.shape,
                Some(_) => {}
                None => facts.push(fact),
            }
        }
    }
    facts
}

/// `routes[1].paths` as `routes[].paths`, `upstreams.default.url` as `upstreams.NAME.url`.
fn generic(path: &str) -> String {
    let mut parts: Vec<String> = path
        .split('.')
        .map(|part| match part.split_once('[') {
            Some((name, _)) => format!("{name}[]"),
            None => part.to_owned(),
        })
        .collect();
    if let [first, name, ..] = parts.as_mut_slice()
        && first == "upstreams"
    {
        "NAME".clone_into(name);
    }
    parts.join(".")
}

fn describe(table: &Table, tables: &[Table], facts: &[Fact]) -> KeyTable {
    let prefix = format!("{}.", table.path);
    let inside = |fact: &&Fact| {
        let deeper = |other: &&Table| {
            other.path.starts_with(&prefix) && fact.path.starts_with(&format!("{}.", other.path))
        };
        fact.path.starts_with(&prefix) && !tables.iter().any(|other| deeper(&other))
    };
    let mut keys: Vec<Key> =
        facts.iter().filter(inside).map(|fact| key(fact, table, &prefix)).collect();
    let place = |key: &Key| {
        let top = key.name.split("[]").next().unwrap_or_default();
        table.keys.iter().position(|(name, _)| name == top)
    };
    keys.sort_by_key(place);
    KeyTable { heading: heading(&table.path), about: table.about.clone(), keys }
}

fn key(fact: &Fact, table: &Table, prefix: &str) -> Key {
    let name = fact.path.strip_prefix(prefix).unwrap_or(&fact.path).to_owned();
    let about = table.keys.iter().find(|(key, _)| *key == name);
    let restart = if needs_restart(&fact.path) {
        Restart::Needed
    } else if name == "certificates" && needs_restart(&table.path) {
        Restart::ForTheTable
    } else {
        Restart::NotNeeded
    };
    Key {
        shape: fact.shape.describe(),
        left_out: match &fact.without {
            Without::Default(value) => LeftOut::Default(value.clone()),
            Without::Means(note) => LeftOut::Means(note.clone()),
            Without::Nothing => LeftOut::Empty,
            Without::Refused => LeftOut::Refused,
        },
        restart,
        variable: (!fact.path.contains('[')).then(|| variable(&fact.path)),
        about: about.map(|(_, about)| about.clone()).unwrap_or_default(),
        path: fact.path.clone(),
        name,
    }
}

fn heading(path: &str) -> String {
    match path.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{path}]"),
    }
}

fn variable(path: &str) -> String {
    format!("LATCHKEY_{}", path.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn find(path: &str) -> Key {
        let keys = reference().into_iter().flat_map(|table| table.keys);
        keys.into_iter().find(|key| key.path == path).unwrap_or_else(|| panic!("no {path}"))
    }

    #[test]
    fn the_wide_configuration_can_be_read() {
        let text = WIDE.to_owned();
        let file = ConfigFile::Inline { name: "wide".into(), text };
        Tree::merge(&Sources { file, ..Sources::default() }).unwrap();
    }

    #[test]
    fn every_key_that_the_code_reads_is_described() {
        let tables = reference();
        let facts = facts();
        assert!(facts.len() > 150, "{}", facts.len());
        for fact in &facts {
            let keys = tables.iter().flat_map(|table| &table.keys);
            let described: Vec<&Key> = keys.filter(|key| key.path == fact.path).collect();
            let [key] = &*described else { panic!("{} is there {described:?}", fact.path) };
            let told = key.name.contains("[]") || !key.about.is_empty();
            assert!(told, "packaging/latchkey.toml says nothing about {}", key.path);
            assert_ne!(fact.shape, Shape::Unsaid, "{}", key.path);
        }
    }

    /// What is in force without any configuration: all of it is in the reference, with its value.
    #[test]
    fn every_default_in_force_is_the_one_described() {
        let mut table = String::new();
        let mut seen = 0;
        for line in load(&Sources::default()).unwrap().print().lines() {
            if line.starts_with('[') {
                let list = if line.starts_with("[[") { "[]" } else { "" };
                table = generic(&format!("{}{list}", line.trim_matches(['[', ']'])));
            }
            let Some((name, value)) = line.split_once(" = ") else { continue };
            let key = find(&format!("{table}.{name}"));
            let named = ["routes[]", "limits[]"].contains(&table.as_str()) || name == "url";
            match key.left_out {
                LeftOut::Default(default) if !named => assert_eq!(default, value, "{}", key.path),
                LeftOut::Means(_) | LeftOut::Empty if !named => panic!("{} has none", key.path),
                LeftOut::Default(_) | LeftOut::Means(_) | LeftOut::Empty | LeftOut::Refused => {}
            }
            seen += 1;
        }
        assert!(seen > 150, "{seen}");
    }

    /// A key of the shipped file that nobody reads would be found here: it describes nothing.
    #[test]
    fn every_table_has_keys_and_every_comment_a_key() {
        for table in reference() {
            assert!(!table.keys.is_empty(), "{} has no keys", table.heading);
        }
        for table in shipped::tables(|_, name| !name.contains(' ')) {
            for (name, _) in &table.keys {
                find(&format!("{}.{name}", table.path));
            }
        }
    }

    #[test]
    fn facts_are_the_codes() {
        let key = find("server.listen");
        assert_eq!(key.left_out, LeftOut::Default("\"0.0.0.0:8080\"".into()));
        assert_eq!(key.restart, Restart::Needed);
        assert_eq!(key.variable.as_deref(), Some("LATCHKEY_SERVER__LISTEN"));
        let key = find("server.h2.keep_alive_interval");
        assert_eq!(key.about, [Block::Text("Between two PINGs.".into())]);
        let key = find("upstreams.NAME.probe.path");
        assert_eq!(key.left_out, LeftOut::Means("endpoints are not probed".into()));
        assert_eq!(key.restart, Restart::NotNeeded);
        let key = find("routes[].scopes[].paths");
        assert_eq!((key.variable, key.left_out), (None, LeftOut::Refused));
        assert_eq!(find("server.tls.certificates").restart, Restart::ForTheTable);
        assert_eq!(find("limits[].limit").shape, "integer, 1 to 262143");
    }
}
