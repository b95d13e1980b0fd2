//! `usage`.

use std::io::Write as _;

use serde_json::Value;

use crate::cli::args::UsageArgs;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output::{Column, Format, Output, find};

const STEPS: [Column; 4] = [
    Column("FROM", "at"),
    Column("ALLOWED", "allowed"),
    Column("REFUSED", "refused"),
    Column("LIMITED", "limited"),
];

const PARTS: [Column; 5] = [
    Column("OF", "of"),
    Column("NAME", "name"),
    Column("ALLOWED", "allowed"),
    Column("REFUSED", "refused"),
    Column("LIMITED", "limited"),
];

const SHOPS: [Column; 4] = [
    Column("SHOP", "shop"),
    Column("ALLOWED", "allowed"),
    Column("REFUSED", "refused"),
    Column("LIMITED", "limited"),
];

const NOTHING: &str = "No requests in this period.";

/// Shops asked for at once.
const PAGE: usize = 500;

/// Runs it.
pub(in crate::cli) async fn run(
    args: &UsageArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match &args.shop {
        Some(shop) => of_shop(&format!("/shops/{shop}/usage"), args, client, output).await,
        None => of_all(args, client, output).await,
    }
}

async fn of_shop(
    path: &str,
    args: &UsageArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let by = if args.by.is_some() { "&by=key" } else { "" };
    let path = format!("{path}?{}{by}", query(args));
    if args.csv {
        return csv(&path, client, output).await;
    }
    let report = client.get(&path).await?;
    if output.format() == Format::Json {
        return output.json(&report);
    }
    let total = find(&report, "total");
    if args.by.is_none() {
        let points = find(total, "points").as_array();
        return output.list(&STEPS, points.map(Vec::as_slice).unwrap_or_default(), NOTHING);
    }
    let parts = find(&report, "parts").as_array();
    let rows: Vec<Value> =
        std::iter::once(total).chain(parts.into_iter().flatten()).cloned().collect();
    let is_nothing = find(total, "points").as_array().is_none_or(Vec::is_empty);
    output.list(&PARTS, if is_nothing { &[] } else { &rows }, NOTHING)
}

async fn of_all(args: &UsageArgs, client: &Client, output: &mut Output) -> Result<(), Failure> {
    let path = format!("/usage?{}", query(args));
    let mut items: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("{path}&limit={PAGE}{cursor}")).await?;
        items.extend(find(&page, "items").as_array().into_iter().flatten().cloned());
        match find(&page, "next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    if args.csv {
        return shops_csv(&items, output);
    }
    output.list(&SHOPS, &items, "No shops.")
}

/// What the API says in CSV, as it is.
async fn csv(path: &str, client: &Client, output: &mut Output) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut keep = |piece: &[u8]| Ok(text.write_all(piece)?);
    client.download(&format!("{path}&format=csv"), &mut keep).await?;
    output.text(&String::from_utf8_lossy(&text))
}

/// The pages of all shops in one: the API has them one by one.
fn shops_csv(items: &[Value], output: &mut Output) -> Result<(), Failure> {
    // Ids and numbers need no quotes.
    let lines = items.iter().map(|item| {
        let members = SHOPS.map(|column| {
            let value = find(item, column.1);
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        });
        format!("{}\r\n", members.join(","))
    });
    let header = format!("{}\r\n", SHOPS.map(|column| column.1).join(","));
    output.text(&std::iter::once(header).chain(lines).collect::<String>())
}

fn query(args: &UsageArgs) -> String {
    let mut query = format!("resolution={}", args.resolution);
    for (name, time) in [("from", &args.from), ("to", &args.to)] {
        if let Some(time) = time {
            query = format!("{query}&{name}={time}");
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::tests::Printed;

    #[test]
    fn all_shops_are_one_table() {
        let items = [json!({"shop": "a", "allowed": 1, "refused": 2, "limited": 3})];
        let printed = Printed::default();
        shops_csv(&items, &mut printed.output(Format::Table)).unwrap();
        assert_eq!(printed.text(), "shop,allowed,refused,limited\r\na,1,2,3\r\n");
    }
}
