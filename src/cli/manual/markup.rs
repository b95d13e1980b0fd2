//! The small markup that manual pages are written in, and what it becomes: roff for `man`, text
//! for a terminal without it.
//!
//! A page is a line `name(section): what it is`, then blocks with blank lines between them:
//!
//! ```text
//! ## SECTION          ### Subsection
//! * an item of a list
//! a term, the next lines say what it is; further ones go on, even with code
//! : its first paragraph
//! :     code within it
//!     code
//! ```
//!
//! In all of them `x` is something to type, *x* is stressed, and latchkey(1) is a page. Knows no
//! page.

use std::fmt::Write as _;

/// The widest line of text.
const TEXT_CHARS_MAX: usize = 80;

/// A page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) name: String,
    pub(super) section: char,
    about: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    Section(String),
    Subsection(String),
    Text(String),
    Item(String),
    Code(Vec<String>),
    Term(String, Vec<Self>),
}

/// How a part of a line is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Typed,
    Stressed,
}

impl Page {
    /// Reads `source`.
    pub(super) fn parse(source: &str) -> Self {
        let (title, body) = source.split_once('\n').unwrap_or((source, ""));
        let (reference, about) = title.split_once(": ").unwrap_or((title, ""));
        let (name, section) = reference.split_once('(').unwrap_or((reference, "7"));
        Self {
            name: name.to_owned(),
            section: section.chars().next().unwrap_or('7'),
            about: about.to_owned(),
            blocks: blocks(body),
        }
    }

    /// The page for `man`, of the program's `version` and of `date`.
    pub(super) fn roff(&self, version: &str, date: &str) -> String {
        let (name, title) = (escape(&self.name), escape(&self.name.to_uppercase()));
        let (section, about) = (self.section, inline_roff(&self.about));
        format!(
            ".TH {title} {section} {date} \"latchkey {version}\" \"latchkey manual\"\n\
             .ad l\n.SH NAME\n{name} \\- {about}\n{}",
            blocks_roff(&self.blocks)
        )
    }

    /// The page for a terminal.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{}({}): {}\n", self.name, self.section, self.about);
        text_blocks(&mut out, &self.blocks, 4);
        out
    }
}

/// Sections to append to a page of roff.
pub(super) fn sections_roff(source: &str) -> String {
    blocks_roff(&blocks(source))
}

/// `text` as markup that says just that; nothing in it can be typed or stressed.
pub(super) fn literal(text: &str) -> String {
    text.replace('*', "\\*")
}

fn blocks(body: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let mut rest = || {
            let mut more = Vec::new();
            while let Some(next) = lines.next_if(|next| !next.is_empty()) {
                more.push(next);
            }
            more
        };
        if let Some(title) = line.strip_prefix("## ") {
            found.push(Block::Section(title.to_owned()));
        } else if let Some(title) = line.strip_prefix("### ") {
            found.push(Block::Subsection(title.to_owned()));
        } else if line.starts_with("* ") {
            let mut items = vec![line.trim_start_matches("* ").to_owned()];
            for next in rest() {
                match (next.strip_prefix("* "), items.last_mut()) {
                    (Some(item), _) => items.push(item.to_owned()),
                    (None, Some(item)) => append(item, next.trim()),
                    (None, None) => {}
                }
            }
            found.extend(items.into_iter().map(Block::Item));
        } else if let Some(code) = line.strip_prefix("    ") {
            let mut code = vec![code.to_owned()];
            code.extend(rest().into_iter().map(|l| l.strip_prefix("    ").unwrap_or(l).to_owned()));
            found.push(Block::Code(code));
        } else {
            let rest = rest();
            found.push(match rest.first() {
                Some(first) if first.starts_with(':') => {
                    Block::Term(line.to_owned(), body_of(&rest))
                }
                Some(_) | None => {
                    let mut text = line.to_owned();
                    for more in rest {
                        append(&mut text, more);
                    }
                    Block::Text(text)
                }
            });
        }
    }
    found
}

/// What is said of a term: a line that begins with a colon begins a paragraph.
fn body_of(lines: &[&str]) -> Vec<Block> {
    let mut body = Vec::new();
    for line in lines {
        let Some(begun) = line.strip_prefix(':') else {
            if let Some(Block::Text(text)) = body.last_mut() {
                append(text, line.trim());
            }
            continue;
        };
        match (begun.strip_prefix("     "), body.last_mut()) {
            (Some(code), Some(Block::Code(lines))) => lines.push(code.to_owned()),
            (Some(code), _) => body.push(Block::Code(vec![code.to_owned()])),
            (None, _) => body.push(Block::Text(begun.trim().to_owned())),
        }
    }
    body
}

fn append(text: &mut String, more: &str) {
    text.push(' ');
    text.push_str(more);
}

/// The parts of a line by their style.
fn parts(line: &str) -> Vec<(Style, String)> {
    let mut parts: Vec<(Style, String)> = vec![(Style::Plain, String::new())];
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let current = parts.last().map_or(Style::Plain, |(style, _)| *style);
        let toggled = match (c, current) {
            ('`', Style::Typed) | ('*', Style::Stressed) => Some(Style::Plain),
            ('`', Style::Plain) => Some(Style::Typed),
            ('*', Style::Plain) => Some(Style::Stressed),
            _ => None,
        };
        if let Some(style) = toggled {
            parts.push((style, String::new()));
            continue;
        }
        let escaped = c == '\\' && current != Style::Typed;
        let c = if escaped { chars.next_if_eq(&'*').unwrap_or(c) } else { c };
        if let Some((_, text)) = parts.last_mut() {
            text.push(c);
        }
    }
    parts.retain(|(_, text)| !text.is_empty());
    parts
}

fn blocks_roff(blocks: &[Block]) -> String {
    let mut out = String::new();
    // A paragraph right under a heading needs no macro of its own.
    let mut fresh = false;
    for block in blocks {
        // Writing into a String does not fail.
        let _ = match block {
            Block::Section(title) => writeln!(out, ".SH {}", argument(title)),
            Block::Subsection(title) => writeln!(out, ".SS {}", argument(title)),
            Block::Text(text) if fresh => writeln!(out, "{}", inline_roff(text)),
            Block::Text(text) => writeln!(out, ".PP\n{}", inline_roff(text)),
            Block::Item(text) => writeln!(out, ".IP \\(bu 2\n{}", inline_roff(text)),
            Block::Code(lines) => {
                let start = if fresh { "" } else { ".PP\n" };
                writeln!(out, "{start}.in +4n\n.EX\n{}.EE\n.in", code_roff(lines))
            }
            Block::Term(term, body) => {
                let body = term_roff(body);
                writeln!(out, ".TP\n{}\n{body}", inline_roff(term).replace('\n', " "))
            }
        };
        fresh = matches!(block, Block::Section(_) | Block::Subsection(_));
    }
    out
}

fn term_roff(body: &[Block]) -> String {
    let mut paragraphs = Vec::new();
    for block in body {
        paragraphs.push(match block {
            Block::Code(lines) => format!(".EX\n{}.EE", code_roff(lines)),
            Block::Text(text)
            | Block::Item(text)
            | Block::Section(text)
            | Block::Subsection(text)
            | Block::Term(text, _) => inline_roff(text),
        });
    }
    paragraphs.join("\n.IP\n")
}

fn code_roff(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [guard(&escape(line)), "\n".to_owned()]).collect()
}

/// One sentence per line, as roff has it.
fn inline_roff(text: &str) -> String {
    let mut line = String::new();
    for (style, part) in parts(text) {
        match style {
            Style::Plain => line.push_str(&references(&escape(&part))),
            // What is to be copied is not broken.
            Style::Typed => {
                line.extend(["\\fB\\%", &escape(&part).replace(' ', " \\%"), "\\fR"]);
            }
            Style::Stressed => line.extend(["\\fI", &escape(&part), "\\fR"]),
        }
    }
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some((sentence, after)) = rest.split_once(". ") {
        let ends = after.starts_with(|c: char| c.is_ascii_uppercase() || c == '\\');
        out.push_str(if out.ends_with('\n') { guarded(sentence) } else { "" });
        out.push_str(sentence);
        out.push_str(if ends { ".\n" } else { ". " });
        rest = after;
    }
    out.push_str(if out.ends_with('\n') { guarded(rest) } else { "" });
    out.push_str(rest);
    guard(&out)
}

/// What keeps a line that begins with a control character from being taken for a request.
fn guarded(line: &str) -> &'static str {
    if line.starts_with(['.', '\'']) { "\\&" } else { "" }
}

fn guard(line: &str) -> String {
    format!("{}{line}", guarded(line))
}

/// An argument of a macro.
fn argument(text: &str) -> String {
    format!("\"{}\"", escape(text).replace('"', "\\(dq"))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '`' => out.push_str("\\(ga"),
            '\'' => out.push_str("\\(aq"),
            c => out.push(c),
        }
    }
    out
}

/// Sets the names of pages, such as `latchkey(1)`, as names. `text` is escaped already.
fn references(text: &str) -> String {
    let mut out = String::new();
    for (i, word) in text.split(' ').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let reference = word.split_once('(').filter(|(name, rest)| {
            let section = rest.starts_with(|c: char| c.is_ascii_digit());
            section && rest.get(1..).is_some_and(|r| r.starts_with(')')) && !name.is_empty()
        });
        match reference {
            Some((name, rest)) => {
                let _ = write!(out, "\\fB{name}\\fR({rest}");
            }
            None => out.push_str(word),
        }
    }
    out
}

fn text_blocks(out: &mut String, blocks: &[Block], indent: usize) {
    for block in blocks {
        match block {
            Block::Section(title) => {
                out.push('\n');
                wrap(out, title, 0);
            }
            Block::Subsection(title) => {
                out.push('\n');
                wrap(out, title, 2);
            }
            Block::Text(text) => {
                out.push('\n');
                wrap(out, text, indent);
            }
            Block::Item(text) => {
                let mut item = String::new();
                wrap(&mut item, text, indent + 2);
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                out.push_str(item.trim_start());
            }
            Block::Code(lines) => {
                out.push('\n');
                for line in lines {
                    let _ = writeln!(out, "{}{line}", " ".repeat(indent + 4));
                }
            }
            Block::Term(term, body) => {
                out.push('\n');
                wrap(out, term, indent);
                let mut inner = String::new();
                text_blocks(&mut inner, body, indent + 4);
                out.push_str(inner.trim_start_matches('\n'));
            }
        }
    }
}

/// Writes `text` in lines of at most [`TEXT_CHARS_MAX`], each after `indent` blanks.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let plain: String = parts(text).into_iter().map(|(_, part)| part).collect();
    let mut width = 0;
    for word in plain.split_whitespace() {
        let length = word.chars().count();
        if width == 0 || width + 1 + length > TEXT_CHARS_MAX {
            out.push_str(if width == 0 { "" } else { "\n" });
            out.push_str(&" ".repeat(indent));
            width = indent;
        } else {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
a-page(7): shows what there is

## FIRST
One sentence. Another with `a-command 'x'` and *stress*,
on two lines; see latchkey(1) and e.g. this.

* an item
  of two lines
* .another

    some code \\n
    .more

## SECOND
### Inner
a `term`
: What it is.
: More of it
  and more.
:     code
: 2 \\* 3
";

    #[test]
    fn roff_is_what_man_takes() {
        let page = Page::parse(SOURCE);
        assert_eq!((page.name.as_str(), page.section), ("a-page", '7'));
        let roff = page.roff("1.2.3", "2026-01-02");
        let expected = "\
.TH A\\-PAGE 7 2026-01-02 \"latchkey 1.2.3\" \"latchkey manual\"
.ad l
.SH NAME
a\\-page \\- shows what there is
.SH \"FIRST\"
One sentence.
Another with \\fB\\%a\\-command \\%\\(aqx\\(aq\\fR and \\fIstress\\fR, on two lines; \
see \\fBlatchkey\\fR(1) and e.g. this.
.IP \\(bu 2
an item of two lines
.IP \\(bu 2
\\&.another
.PP
.in +4n
.EX
some code \\en
\\&.more
.EE
.in
.SH \"SECOND\"
.SS \"Inner\"
.TP
a \\fB\\%term\\fR
What it is.
.IP
More of it and more.
.IP
.EX
code
.EE
.IP
2 * 3
";
        assert_eq!(roff, expected);
    }

    #[test]
    fn text_is_wrapped_and_indented() {
        let text = Page::parse(SOURCE).text();
        assert!(text.starts_with("a-page(7): shows what there is\n\nFIRST\n\n    One"), "{text}");
        assert!(text.contains("\n    - an item of two lines\n    - .another\n"), "{text}");
        assert!(text.contains("\n  Inner\n\n    a term\n        What it is.\n"), "{text}");
        assert!(text.contains("\n\n        2 * 3\n"), "{text}");
        let long = Page::parse(&format!("x(7): y\n\n{}", "word ".repeat(100))).text();
        assert!(long.lines().all(|line| line.chars().count() <= TEXT_CHARS_MAX), "{long}");
    }

    #[test]
    fn literal_text_stays_as_it_is() {
        let text = "/a/* and /b*";
        assert_eq!(parts(&literal(text)), [(Style::Plain, text.to_owned())]);
        assert_eq!(parts("`/a/*`"), [(Style::Typed, "/a/*".to_owned())]);
    }
}
