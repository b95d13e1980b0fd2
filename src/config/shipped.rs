//! The words of the shipped configuration, `packaging/latchkey.toml`, by table and key.
//!
//! Its comments are written for who edits the file and serve as the reference too. What a comment
//! belongs to follows from where it stands: right above a table, right above a key, or, for the
//! lists of tables, in a line that begins with the key's name. Nothing is known here of what a key
//! may be.

/// The file as the packages install it.
const SHIPPED: &str = include_str!("../../packaging/latchkey.toml");

/// A piece of prose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// A paragraph, on one line.
    Text(String),
    /// Lines that stay as they are.
    Code(Vec<String>),
}

/// A table of the file, and what is said of it and of its keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// Its name, with `NAME` for a name of one's own and `[]` for a list: `upstreams.NAME`.
    pub(super) path: String,
    pub(super) about: Vec<Block>,
    pub(super) keys: Vec<(String, Vec<Block>)>,
}

/// The tables, in the order in which they first appear; `is_key` says whether a table (by its
/// path) has a key of that name.
pub(super) fn tables(is_key: impl Fn(&str, &str) -> bool) -> Vec<Table> {
    let mut reading = Reading::default();
    // What stands before the first heading is about the file.
    let body = SHIPPED.lines().skip_while(|line| !line.starts_with(HEADING));
    for line in body {
        reading.line(line, &is_key);
    }
    reading.tables
}

/// How a part of the file begins.
const HEADING: &str = "# --- ";

/// What has been read so far.
#[derive(Default)]
struct Reading {
    tables: Vec<Table>,
    /// Which of them the lines are in.
    current: Option<usize>,
    /// Whether that table has been there before: then its prose is about the example.
    again: bool,
    /// Prose whose owner has not appeared yet.
    pending: Vec<Block>,
    /// Whether it has to be a table: it stands under a heading.
    heading: bool,
    /// Lines like `key:   what it is`, to go to a table that has not appeared yet.
    defined: Vec<(Vec<String>, String)>,
    /// Whether a list of several lines is being passed.
    within_list: bool,
}

impl Reading {
    fn line(&mut self, line: &str, is_key: &impl Fn(&str, &str) -> bool) {
        if self.within_list {
            self.within_list = !line.starts_with("#]");
            return;
        }
        let bare = line.strip_prefix('#').unwrap_or(line);
        if let Some(title) = line.strip_prefix(HEADING) {
            self.settle();
            self.pending = vec![Block::Text(title.trim_end_matches(['-', ' ']).to_owned())];
            self.heading = true;
        } else if line.is_empty() {
            self.settle();
        } else if bare.starts_with('[') {
            self.open(bare);
        } else if let Some(key) = self.key(bare, is_key) {
            self.within_list = bare.trim_end().ends_with('[');
            self.describe(&key);
        } else if let Some(code) = bare.strip_prefix("   ").filter(|_| self.defined.is_empty()) {
            self.code(code);
        } else if let Some(text) = line.strip_prefix("# ") {
            self.text(text);
        } else if line == "#" {
            self.pending.push(Block::Text(String::new()));
        }
    }

    /// The key that a line such as `key = value` or ` key = value` is about.
    fn key(&self, bare: &str, is_key: &impl Fn(&str, &str) -> bool) -> Option<String> {
        let table = self.tables.get(self.current?)?;
        let (name, _) = bare.strip_prefix(' ').unwrap_or(bare).split_once(" = ")?;
        let shown = !bare.starts_with(' ') && !name.contains(' ');
        (shown || is_key(&table.path, name)).then(|| name.to_owned())
    }

    /// Gives the pending prose to the current table, unless a table has to come for it.
    fn settle(&mut self) {
        if self.heading {
            self.pending.push(Block::Text(String::new()));
            return;
        }
        let prose = tidy(std::mem::take(&mut self.pending));
        if let Some(table) = self.current.and_then(|at| self.tables.get_mut(at))
            && !self.again
        {
            table.about.extend(prose);
        }
    }

    /// A table begins.
    fn open(&mut self, bare: &str) {
        let path = generic(bare);
        self.heading = false;
        let prose = tidy(std::mem::take(&mut self.pending));
        let found = self.tables.iter().position(|table| table.path == path);
        self.again = found.is_some();
        self.current = Some(found.unwrap_or(self.tables.len()));
        if found.is_some() {
            return;
        }
        let mut keys = Vec::new();
        for (names, text) in std::mem::take(&mut self.defined) {
            keys.extend(names.into_iter().map(|name| (name, vec![Block::Text(text.clone())])));
        }
        self.tables.push(Table { path, about: prose, keys });
    }

    /// The pending prose is about `key`, if nothing has been said of it yet.
    fn describe(&mut self, key: &str) {
        let prose = tidy(std::mem::take(&mut self.pending));
        let Some(table) = self.current.and_then(|at| self.tables.get_mut(at)) else {
            return;
        };
        match table.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, said)) if said.is_empty() => *said = prose,
            Some(_) => {}
            None => table.keys.push((key.to_owned(), prose)),
        }
    }

    fn code(&mut self, line: &str) {
        match self.pending.last_mut() {
            Some(Block::Code(lines)) => lines.push(line.to_owned()),
            Some(Block::Text(_)) | None => self.pending.push(Block::Code(vec![line.to_owned()])),
        }
    }

    fn text(&mut self, text: &str) {
        // Definitions are in the prose under a heading, before its table.
        if self.heading
            && let Some((names, words)) = definition(text)
        {
            self.defined.push((names, words));
            return;
        }
        if let Some((_, words)) = self.defined.last_mut()
            && text.starts_with("   ")
        {
            words.push(' ');
            words.push_str(text.trim_start());
            return;
        }
        match self.pending.last_mut() {
            Some(Block::Text(paragraph)) if !paragraph.is_empty() => {
                paragraph.push(' ');
                paragraph.push_str(text);
            }
            Some(Block::Text(_) | Block::Code(_)) | None => {
                self.pending.push(Block::Text(text.to_owned()));
            }
        }
    }
}

/// The names and the words of `name, name:   words`.
fn definition(text: &str) -> Option<(Vec<String>, String)> {
    let (names, words) = text.split_once(": ")?;
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let names: Vec<&str> = names.split(", ").collect();
    let named = names.iter().all(|name| is_name(name));
    named.then(|| (names.into_iter().map(ToOwned::to_owned).collect(), sentence(words.trim())))
}

/// `words` as a sentence of its own, unless it begins with a value.
fn sentence(words: &str) -> String {
    let mut chars = words.chars();
    match chars.next() {
        Some(first) if first.is_ascii_lowercase() && !words.starts_with("true ") => {
            format!("{}{}", first.to_ascii_uppercase(), chars.as_str())
        }
        Some(_) | None => words.to_owned(),
    }
}

/// Without the marks of where paragraphs end.
fn tidy(blocks: Vec<Block>) -> Vec<Block> {
    blocks.into_iter().filter(|block| *block != Block::Text(String::new())).collect()
}

/// The path of a line that opens a table.
fn generic(line: &str) -> String {
    let name = line.trim_matches(['[', ']']);
    if line.starts_with("[[") {
        return format!("{name}[]");
    }
    match name.split('.').collect::<Vec<_>>().as_slice() {
        ["upstreams", _] => "upstreams.NAME".to_owned(),
        ["upstreams", _, rest @ ..] => format!("upstreams.NAME.{}", rest.join(".")),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(path: &str) -> Table {
        tables(|_, key| key == "public_url").into_iter().find(|table| table.path == path).unwrap()
    }

    fn said(table: &Table, key: &str) -> String {
        let about = table.keys.iter().find(|(name, _)| name == key);
        format!("{:?}", about.unwrap_or_else(|| panic!("no {key}")).1)
    }

    #[test]
    fn comments_go_to_what_they_stand_above() {
        let h2 = table("server.h2");
        assert_eq!(said(&h2, "keep_alive_interval"), "[Text(\"Between two PINGs.\")]");
        let server = table("server");
        let about = [Block::Text("The data plane: what callers connect to.".into())];
        assert_eq!(server.about, about);
        let tls = table("server.tls");
        assert!(matches!(&tls.about[2], Block::Code(lines) if lines.len() > 3), "{:?}", tls.about);
        assert!(said(&table("admin"), "public_url").contains("DNS"));
    }

    #[test]
    fn definitions_go_to_the_keys_they_name() {
        let limits = table("limits[]");
        assert!(said(&limits, "algorithm").contains("in any window"));
        assert_eq!(said(&limits, "methods"), said(&limits, "mechanisms"));
        let about = format!("{:?}", limits.about);
        assert!(about.contains("the tightest speaks") && !about.contains("shadow"), "{about}");
        assert_eq!(definition("Default: backups"), None);
        assert_eq!(definition("a, b:  c d"), Some((vec!["a".into(), "b".into()], "C d".into())));
    }

    #[test]
    fn examples_of_a_table_add_their_keys_to_it() {
        let issuers = table("issuers[]");
        assert!(said(&issuers, "jwks_file").contains("on this machine"));
        assert!(said(&table("upstreams.NAME.probe"), "timeout").contains("whole probe"));
        let about = format!("{:?}", issuers.about);
        assert!(!about.contains("shared secret"), "{about}");
    }
}
