//! The first page: how the node fares, plotted and kept up to date by script; the last values as
//! figures and tables without.

use askama::Template;
use axum::Json;
use axum::extract::RawQuery;
use axum::response::IntoResponse as _;

use super::figures::{count, decimal, duration, percent};
use super::frame::{Frame, query_value};
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::caller::{Caller, Permission, Shops};
use crate::admin::operations::overview;
use crate::admin::overview::{IssuerState, Overview, Quantiles, Span};

/// Steps that the table of requests has.
const ROWS_MAX: usize = 12;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    span: &'static str,
    data: Overview,
    tiles: Vec<Tile>,
    rows: Vec<Row>,
    cells: String,
}

/// A figure, and the name under which the script keeps it up to date.
struct Tile {
    name: &'static str,
    label: &'static str,
    value: String,
    unit: &'static str,
}

/// A step, in words.
struct Row {
    at: crate::clock::Timestamp,
    allowed: String,
    refused: String,
    error: String,
    p50: String,
    p99: String,
}

/// For who does not look at the node as a whole: what there is to go to.
#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    frame: Frame,
    shops: Vec<String>,
}

/// The overview of the node; for a member, its shops.
pub(super) async fn show(visit: SignedIn, RawQuery(query): RawQuery) -> Answer {
    let frame = visit.frame("Overview", "/");
    if !sees_node(visit.caller()) {
        let shops = match &visit.caller().shops {
            Shops::All => Vec::new(),
            Shops::Only(shops) => shops.iter().map(ToString::to_string).collect(),
        };
        return page(&Home { frame, shops });
    }
    let span = span_of(query.as_deref());
    let data = overview::read(visit.node(), visit.caller(), span)?;
    let cells = count(data.now.limiter_cells);
    page(&Page { frame, span: span.as_str(), tiles: tiles(&data), rows: rows(&data), cells, data })
}

/// The same as JSON, for the page's script.
pub(super) async fn live(visit: SignedIn, RawQuery(query): RawQuery) -> Answer {
    let span = span_of(query.as_deref());
    let data = overview::read(visit.node(), visit.caller(), span)?;
    Ok(Json(data).into_response())
}

fn sees_node(caller: &Caller) -> bool {
    caller.may(Permission::NodeRead) && caller.shops == Shops::All
}

fn span_of(query: Option<&str>) -> Span {
    Span::parse(&query_value(query, "span")).unwrap_or(Span::QuarterHour)
}

fn tiles(data: &Overview) -> Vec<Tile> {
    let requests = &data.requests;
    let last = |series: &Vec<f64>| series.last().copied().unwrap_or_default();
    let all = last(&requests.allowed) + last(&requests.refused) + last(&requests.error);
    let refused = if all > 0.0 { last(&requests.refused) / all } else { 0.0 };
    let latency = latest(&data.latency_ms.p95).map_or_else(String::new, decimal);
    let tile = |name, label, value, unit| Tile { name, label, value, unit };
    vec![
        tile("requests", "Requests", decimal(all), "/s"),
        tile("refused", "Refused", percent(refused), ""),
        tile("latency", "95 % within", latency, "ms"),
        tile("limiter", "Limiter fill", percent(latest_fill(data)), ""),
        tile("shops", "Shops", count(data.now.shops), ""),
        tile("keys", "API keys", count(data.now.api_keys), ""),
    ]
}

fn latest_fill(data: &Overview) -> f64 {
    data.limiter_fill.last().copied().unwrap_or_default()
}

/// The last value there is.
fn latest(series: &[Option<f64>]) -> Option<f64> {
    series.last().copied().flatten()
}

fn rows(data: &Overview) -> Vec<Row> {
    let at = |series: &[f64], i: usize| decimal(series.get(i).copied().unwrap_or_default());
    let of = |quantile: &[Option<f64>], i: usize| {
        quantile.get(i).copied().flatten().map_or_else(|| "–".to_owned(), decimal)
    };
    let Quantiles { p50, p99, .. } = &data.latency_ms;
    let steps = data.times.iter().enumerate().rev().take(ROWS_MAX);
    steps
        .map(|(i, time)| Row {
            at: crate::clock::Timestamp::from_unix_s(*time),
            allowed: at(&data.requests.allowed, i),
            refused: at(&data.requests.refused, i),
            error: at(&data.requests.error, i),
            p50: of(p50, i),
            p99: of(p99, i),
        })
        .collect()
}

/// How an identity provider's keys are, in words.
fn state_of(issuer: &IssuerState) -> String {
    let age = issuer.age_seconds.map(|age| format!(", fetched {} ago", duration(age)));
    let plural = if issuer.keys == 1 { "" } else { "s" };
    format!("{} key{plural}{}", issuer.keys, age.unwrap_or_default())
}
