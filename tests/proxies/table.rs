//! The table: its rows, what a cell says, and the notes below it.
//!
//! A cell is `✓` where the case holds in full. Where proxies may differ it says what happened, and
//! where one cannot do what the others do, a note says so: a note stands for behaviour that the
//! case has checked, never for a case that was left out.

use std::fmt::Write as _;
use std::sync::OnceLock;

use super::cases::{allowed, attacks, away, bounds, browsers, refused, wire};
use super::peer::Kind;
use super::scene::Scene;

/// What a case found.
pub(super) enum Cell {
    /// All that the row promises.
    Holds,
    /// What happened, where that is the proxy's to choose.
    Is(String),
}

/// What a proxy cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// `forwardAuth` copies fields of the answer into the request, and into nothing else.
    NothingIntoResponses,
    /// Fields are taken away one by one, by their names.
    ByNameOnly,
    /// Two fields of one name are joined before latchkey is asked.
    JoinsFields,
    /// A proxy that tells latchkey nothing of a field does not ask whether it is too long.
    NotTold,
    /// 30 s are built in.
    BuiltInTimeout,
}

impl Note {
    fn text(self) -> &'static str {
        match self {
            Self::NothingIntoResponses => {
                "Traefik puts nothing of latchkey's answer into a response of the API; refusals \
                 and preflights carry it all."
            }
            Self::ByNameOnly => {
                "It takes such fields away by their whole names: every one that latchkey or a \
                 proxy here ever sets, but not one that nobody has heard of."
            }
            Self::JoinsFields => {
                "It joins the two before it asks, which makes an unknown key: 401 instead of 400."
            }
            Self::NotTold => {
                "It tells latchkey only of the fields that a decision needs; how long the others \
                 may be is the proxy's and the API's to say."
            }
            Self::BuiltInTimeout => {
                "After 30 s, which Traefik has built in; the others after 10 s."
            }
        }
    }
}

/// A row: what it promises, and what holds it to that.
type Row = (&'static str, fn(&mut Scene) -> Cell);

/// In the order in which they run: the last ones stop latchkey.
const ROWS: &[Row] = &[
    ("the file as it is, and with every line switched on that it offers", wire::as_shipped),
    ("key, widget token, JWT, anonymous: all `X-Auth-*` at the API, no credential", allowed::known),
    ("`X-Auth-Assertion` at the API, good for this request", allowed::proven),
    ("200: limit headers and request id at the client", allowed::told),
    ("HEAD, POST, PUT, chunked bodies: whole at the API", allowed::bodies),
    ("401 with its challenge, as latchkey says it, byte for byte", refused::challenged),
    ("403, likewise", refused::forbidden),
    ("400 and 404, likewise", refused::unroutable),
    ("429 with `Retry-After` and limit headers, likewise", refused::limited),
    ("503 `keys_unavailable` with `Retry-After`, likewise", refused::unavailable),
    ("401 to HEAD: no body", refused::head),
    ("a credential sent twice", refused::twice),
    ("preflights answered, from the shop's pages and from elsewhere", browsers::preflights),
    ("a page reads its refusal", browsers::refusal),
    ("a page reads its 200", browsers::success),
    ("a shop's server gets widget tokens issued", browsers::issue),
    ("WebSocket, when admitted; no other protocol", wire::websocket),
    ("HTTP/2 through TLS: allowed, refused, spoofed", wire::http2),
    ("a connection goes on after a refusal", wire::kept_alive),
    ("questions carry no body and share connections to latchkey", wire::shared),
    ("spoofed `X-Auth-*`, `X_Auth_*`, `X.Auth.*`", attacks::identity),
    ("spoofed `X-Forwarded-*`, `X-Original-*`, `Forwarded`, `X-Real-IP`", attacks::forwarded),
    ("spoofed path, method and other names of that kind", attacks::overrides),
    ("fields that `Connection` names", attacks::nominated),
    ("latchkey's own paths from outside", attacks::reserved),
    ("TRACE, CONNECT", attacks::methods),
    ("`/../`, `/./`, `%2e%2e`", attacks::dots),
    ("`//`", attacks::slashes),
    ("`%2f`, `%5c`", attacks::encoded_slashes),
    ("`..;/`", attacks::parameters),
    ("`%2570`, `%61`", attacks::encodings),
    ("`%00`, `%zz`, `%ff`", attacks::unreadable),
    ("raw bytes, blanks, fragments, whole URLs for a path", attacks::raw),
    ("odd but plain: passed on as sent", attacks::plain),
    ("6 KB of header fields", bounds::fields_6k),
    ("12 KB", bounds::fields_12k),
    ("24 KB", bounds::fields_24k),
    ("96 KB", bounds::fields_96k),
    ("150 header fields", bounds::many_fields),
    ("a credential of 9 KB", bounds::credential),
    ("a path of 3 KB", bounds::path_3k),
    ("a path of 6 KB", bounds::path_6k),
    ("a path of 12 KB", bounds::path_12k),
    ("a query of 6 KB", bounds::query_6k),
    ("a query of 24 KB", bounds::query_24k),
    ("latchkey is down", away::down),
    ("something else answers in its place: 500, 302, garbage", away::impostor),
    ("latchkey is back", away::back),
    ("latchkey hangs", away::hung),
    ("no credential in the proxy's log", away::discreet),
];

/// What came out for one proxy.
pub(super) struct Column {
    kind: Kind,
    results: Vec<Outcome>,
    last_words: String,
}

struct Outcome {
    row: &'static str,
    cell: Cell,
    notes: Vec<Note>,
    complaints: Vec<String>,
}

/// Runs all rows for a proxy, once in this process.
pub(super) fn column(kind: Kind) -> &'static Column {
    static COLUMNS: [OnceLock<Column>; 5] = [const { OnceLock::new() }; 5];
    let at = Kind::ALL.iter().position(|k| *k == kind).expect("one of them");
    COLUMNS[at].get_or_init(|| {
        let mut scene = Scene::new(kind);
        let results = ROWS
            .iter()
            .map(|&(row, run)| {
                let cell = run(&mut scene);
                let (notes, complaints) = scene.take();
                Outcome { row, cell, notes, complaints }
            })
            .collect();
        Column { kind, results, last_words: scene.last_words() }
    })
}

impl Column {
    /// What did not hold.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        for Outcome { row, complaints, .. } in &self.results {
            all.extend(complaints.iter().map(|what| format!("{:?}: {row}: {what}", self.kind)));
        }
        if !all.is_empty() {
            all.push(format!("--- {:?} wrote:\n{}", self.kind, self.last_words));
        }
        all
    }
}

/// The table with its notes, as it stands in the README.
pub(super) fn markdown(columns: &[&Column]) -> String {
    let mut used: Vec<Note> = Vec::new();
    let titles: Vec<&str> = columns.iter().map(|column| column.kind.title()).collect();
    let mut text = format!("| through | {} |\n|---{}|\n", titles.join(" | "), "|---".repeat(5));
    for (at, (row, _)) in ROWS.iter().enumerate() {
        let cells: Vec<String> =
            columns.iter().map(|column| column.results[at].text(&mut used)).collect();
        let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
    }
    text.push('\n');
    for (at, note) in used.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", at + 1, note.text());
    }
    text
}

impl Outcome {
    fn text(&self, used: &mut Vec<Note>) -> String {
        if !self.complaints.is_empty() {
            return "✗".to_owned();
        }
        let mut text = match &self.cell {
            Cell::Holds => "✓".to_owned(),
            Cell::Is(what) => what.clone(),
        };
        for note in &self.notes {
            let at = used.iter().position(|known| known == note).unwrap_or_else(|| {
                used.push(*note);
                used.len() - 1
            });
            let _ = write!(text, " <sup>{}</sup>", at + 1);
        }
        text
    }
}
