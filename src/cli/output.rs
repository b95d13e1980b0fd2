//! What commands print: tables for people, JSON for scripts. The only place that writes to
//! standard output.

use std::io::{self, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde_json::Value;

use super::exit::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts: what the admin API answered.
    Json,
}

/// Widest table, in characters.
const WIDTH_MAX: u16 = 100;

/// Where results go.
pub(super) struct Output {
    format: Format,
    sink: Box<dyn Write + Send>,
}

/// A column of a table: its heading, and the member of each item that it shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) &'static str);

impl Output {
    /// To standard output.
    pub(super) fn stdout(format: Format) -> Self {
        Self::to(format, Box::new(io::stdout()))
    }

    /// To `sink`.
    pub(super) fn to(format: Format, sink: Box<dyn Write + Send>) -> Self {
        Self { format, sink }
    }

    /// How results are printed.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes `text` as it is, and makes sure that it has gone out.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.sink.write_all(text.as_bytes())?;
        Ok(self.sink.flush()?)
    }

    /// Writes a piece of something long as it is.
    pub(super) fn bytes(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.sink.write_all(piece)?;
        Ok(self.sink.flush()?)
    }

    /// Writes a line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// Writes `value` as JSON, indented.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&format!("{value:#}"))
    }

    /// Writes a list; `empty` says what to do when there is nothing in it.
    pub(super) fn list(
        &mut self,
        columns: &[Column],
        items: &[Value],
        empty: &str,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(&Value::Array(items.to_vec())),
            Format::Table if items.is_empty() => self.line(empty),
            Format::Table => self.text(&table(columns, items)),
        }
    }

    /// Writes one item, a member per line.
    pub(super) fn item(&mut self, columns: &[Column], item: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(item),
            Format::Table => {
                let width = columns.iter().map(|c| c.0.len()).max().unwrap_or_default();
                for Column(heading, member) in columns {
                    let value = show(find(item, member));
                    self.line(&format!("{heading:width$}  {value}"))?;
                }
                Ok(())
            }
        }
    }

    /// Writes what was done: `text` for people, the API's answer for scripts.
    pub(super) fn done(&mut self, text: &str, answer: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json if answer.is_null() => Ok(()),
            Format::Json => self.json(answer),
            Format::Table => self.line(text),
        }
    }
}

fn table(columns: &[Column], items: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH_MAX);
    table.set_header(columns.iter().map(|c| c.0));
    for item in items {
        table.add_row(columns.iter().map(|c| show(find(item, c.1))));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        // What names an item is there to be copied: it stays in one piece.
        if i == 0 {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// The member of `item` at the dotted path `member`.
pub(super) fn find<'v>(item: &'v Value, member: &str) -> &'v Value {
    let found = member.split('.').try_fold(item, |value, name| value.get(name));
    found.unwrap_or(&Value::Null)
}

/// `value` as a person reads it. Control characters are taken out: a name may hold what another
/// operator typed, and a terminal obeys escape sequences.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let pairs = members.iter().map(|(name, value)| format!("{name}={}", show(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;

    /// What was printed.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Printed {
        pub(in crate::cli) fn output(&self, format: Format) -> Output {
            Output::to(format, Box::new(self.clone()))
        }

        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const COLUMNS: [Column; 3] =
        [Column("SHOP", "id"), Column("NAME", "name"), Column("ON", "state.enabled")];

    fn items() -> Vec<Value> {
        vec![
            json!({"id": "demo", "name": "Demo", "state": {"enabled": true}}),
            json!({"id": "other", "name": "", "state": {"enabled": false}}),
        ]
    }

    #[test]
    fn lists_are_tables_without_borders() {
        let printed = Printed::default();
        printed.output(Format::Table).list(&COLUMNS, &items(), "none").unwrap();
        assert_eq!(printed.text(), "SHOP   NAME  ON\ndemo   Demo  yes\nother  -     no\n");
    }

    #[test]
    fn json_is_the_answer_itself() {
        let printed = Printed::default();
        printed.output(Format::Json).list(&COLUMNS, &items(), "none").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&printed.text()).unwrap(), json!(items()));
    }

    #[test]
    fn empty_lists_say_what_to_do() {
        let printed = Printed::default();
        printed.output(Format::Table).list(&COLUMNS, &[], "No shops. Make one.").unwrap();
        printed.output(Format::Json).list(&COLUMNS, &[], "No shops.").unwrap();
        assert_eq!(printed.text(), "No shops. Make one.\n[]\n");
    }

    #[test]
    fn wide_values_wrap_within_the_width() {
        let wide = vec![json!({"id": "x", "name": "word ".repeat(60), "state": {}})];
        let printed = Printed::default();
        printed.output(Format::Table).list(&COLUMNS, &wide, "").unwrap();
        let text = printed.text();
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|l| l.chars().count() <= WIDTH_MAX.into()), "{text}");
    }

    #[test]
    fn ids_are_never_broken() {
        let id = "wt_".to_owned() + &"0".repeat(32);
        let item = json!({"id": id, "name": "a".repeat(90), "state": {"enabled": "b".repeat(90)}});
        let printed = Printed::default();
        printed.output(Format::Table).list(&COLUMNS, &[item], "").unwrap();
        assert!(printed.text().contains(&id), "{}", printed.text());
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(show(&json!("a\u{1b}[2Jb\nc")), "a?[2Jb?c");
    }
}
