//! Usage as CSV (RFC 4180): a line for each step, or each shop.
//!
//! What is exported is what [`series`](super::series) and [`totals`](super::totals) read.

use std::borrow::Cow;

use csv::{Terminator, WriterBuilder};

use super::{Report, Series, Totals};
use crate::usage::Counts;

/// The lines of one shop: of its parts if the report tells them apart, and of all of it.
#[must_use]
pub fn report(report: &Report) -> String {
    let header = ["time", "shop", "of", "name", "allowed", "refused", "limited"];
    let shop = report.shop.as_str();
    let lines = std::iter::once(&report.total).chain(&report.parts).flat_map(|series: &Series| {
        let (of, name) = (series.part.to_string(), series.name.as_deref().unwrap_or_default());
        series.points.iter().map(move |point| {
            let [allowed, refused, limited] = numbers(point.counts);
            let (time, name) = (point.at.to_string(), inert(name).into_owned());
            [time, shop.to_owned(), of.clone(), name, allowed, refused, limited]
        })
    });
    table(header, lines)
}

/// The lines of all shops in a page.
#[must_use]
pub fn totals(totals: &Totals) -> String {
    let header = ["shop", "from", "to", "allowed", "refused", "limited"];
    let lines = totals.shops.items.iter().map(|(shop, counts)| {
        let [allowed, refused, limited] = numbers(*counts);
        let (from, to) = (totals.from.to_string(), totals.to.to_string());
        [shop.to_string(), from, to, allowed, refused, limited]
    });
    table(header, lines)
}

fn numbers(counts: Counts) -> [String; 3] {
    [counts.allowed, counts.refused, counts.limited].map(|count| count.to_string())
}

/// `name` so that no spreadsheet takes it for a formula: keys are named by people.
fn inert(name: &str) -> Cow<'_, str> {
    if name.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return format!("'{name}").into();
    }
    name.into()
}

fn table<const N: usize>(header: [&str; N], lines: impl Iterator<Item = [String; N]>) -> String {
    let mut writer =
        WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::<u8>::new());
    // Writing lines of one length to memory cannot fail.
    let _ = writer.write_record(header);
    for line in lines {
        let _ = writer.write_record(&line);
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Point;
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{KeyId, ShopId};
    use crate::usage::{Part, Resolution};

    #[test]
    fn names_are_quoted_and_inert() {
        let at = Timestamp::from_unix_s(1_800_000_000);
        let counts = Counts { allowed: 1, refused: 2, limited: 3 };
        let series = |part, name: Option<&str>| Series {
            part,
            name: name.map(str::to_owned),
            sum: counts,
            points: vec![Point { at, counts }],
        };
        let names = ["a,\"b\"\nc", "=1+1", "plain"];
        let key = |(name, id)| series(Part::Key(KeyId(id)), Some(name));
        let text = report(&Report {
            shop: ShopId::parse("demo").unwrap(),
            resolution: Resolution::Hour,
            from: at,
            to: at,
            total: series(Part::Total, None),
            parts: names.into_iter().zip(1..).map(key).collect(),
            parts_left_out: 0,
        });
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], "time,shop,of,name,allowed,refused,limited");
        assert_eq!(lines[1], "2027-01-15T08:00:00Z,demo,total,,1,2,3");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let read: Vec<String> = reader.records().map(|r| r.unwrap()[3].to_owned()).collect();
        assert_eq!(read, ["", "a,\"b\"\nc", "'=1+1", "plain"]);
    }
}
