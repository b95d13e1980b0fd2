//! A shop's traffic over time: drawn, as a table, and as CSV.
//!
//! What was counted is `operations::usage`'s to know. The drawing is made here, of whole numbers,
//! so that it needs no script.

use std::time::Duration;

use askama::Template;
use axum::extract::Query;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use axum::response::IntoResponse as _;
use serde::Deserialize;

use super::super::{Segments, figures};
use super::{Head, Tab, find};
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::frame::Frame;
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::usage::{self, Period, Point, Report, Series};
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::usage::{Counts, Part, Resolution};

/// How the traffic is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Minute,
    Hour,
    Day,
    Month,
}

impl By {
    const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Month];

    fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|by| by.as_str() == text).unwrap_or(Self::Hour)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Minute => "3 hours",
            Self::Hour => "2 days",
            Self::Day => "30 days",
            Self::Month => "12 months",
        }
    }

    /// What a column of the drawing stands for.
    const fn each(self) -> &'static str {
        match self {
            Self::Minute => "each minute",
            Self::Hour => "each hour",
            Self::Day => "each day",
            Self::Month => "each month",
        }
    }

    fn period(self, now: Timestamp) -> Period {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        match self {
            Self::Minute => Period::recent(Resolution::Minute),
            Self::Hour => Period::recent(Resolution::Hour),
            Self::Day => Period::recent(Resolution::Day),
            Self::Month => Period { resolution: Resolution::Day, from: Some(now - YEAR), to: None },
        }
    }

    /// What of a time tells one step from the next.
    fn label(self, at: Timestamp) -> String {
        let text = at.to_string();
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
        match self {
            Self::Minute | Self::Hour => format!("{} {}", part(0, 10), part(11, 16)),
            Self::Day => part(0, 10),
            Self::Month => part(0, 7),
        }
    }
}

/// Which time is wanted.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct TrafficQuery {
    #[serde(default)]
    by: String,
}

/// One step of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    label: String,
    counts: Counts,
}

/// The steps of a series; of months, the sums of their days.
fn steps(by: By, points: &[Point]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for point in points {
        let label = by.label(point.at);
        match steps.last_mut().filter(|last| last.label == label) {
            Some(last) => last.counts += point.counts,
            None => steps.push(Step { label, counts: point.counts }),
        }
    }
    steps
}

/// A rectangle of the drawing.
#[derive(Debug, PartialEq, Eq)]
struct Bar {
    x: u64,
    y: u64,
    width: u64,
    height: u64,
    /// `allowed`, `limited` or `refused`.
    kind: &'static str,
}

/// A column of the drawing and what it says when it is pointed at.
#[derive(Debug, PartialEq, Eq)]
struct Column {
    title: String,
    bars: Vec<Bar>,
}

/// The drawing.
#[derive(Debug, PartialEq, Eq)]
struct Plot {
    columns: Vec<Column>,
    top: String,
    half: String,
    first: String,
    last: String,
}

/// The drawing's size, in its own units.
const WIDTH: u64 = 7200;
const HEIGHT: u64 = 2000;

impl Plot {
    fn of(steps: &[Step]) -> Self {
        let most = steps.iter().map(|step| step.counts.total()).max().unwrap_or(0).max(1);
        let top = round_up(most);
        let count = u64::try_from(steps.len()).unwrap_or(1).max(1);
        let pitch = (WIDTH / count).max(4);
        let width = (pitch * 4 / 5).clamp(3, 400);
        let column = |(i, step): (u64, &Step)| Column {
            title: said(step),
            bars: bars(step.counts, top, i * pitch + (pitch - width) / 2, width),
        };
        let label = |step: Option<&Step>| step.map(|s| s.label.clone()).unwrap_or_default();
        Self {
            columns: (0..).zip(steps).map(column).collect(),
            top: figures::count(top),
            half: figures::count(top / 2),
            first: label(steps.first()),
            last: label(steps.last()),
        }
    }
}

fn said(step: &Step) -> String {
    let [allowed, limited, refused] =
        [step.counts.allowed, step.counts.limited, step.counts.refused].map(figures::count);
    format!("{}: {allowed} allowed, {limited} limited, {refused} refused", step.label)
}

/// The outcomes of a step upon each other, the allowed ones at the bottom.
fn bars(counts: Counts, top: u64, x: u64, width: u64) -> Vec<Bar> {
    let mut y = HEIGHT;
    let mut bars = Vec::new();
    let stacked =
        [(counts.allowed, "allowed"), (counts.limited, "limited"), (counts.refused, "refused")];
    for (count, kind) in stacked {
        let scaled = u128::from(count) * u128::from(HEIGHT) / u128::from(top.max(1));
        // What there is shows, however little.
        let height = u64::try_from(scaled).unwrap_or(HEIGHT).max(u64::from(count > 0) * 12).min(y);
        if height > 0 {
            y -= height;
            bars.push(Bar { x, y, width, height, kind });
        }
    }
    bars
}

/// The next even number of one digit and zeros, for an axis.
fn round_up(most: u64) -> u64 {
    let mut unit: u64 = 1;
    while most / unit >= 10 {
        unit = unit.saturating_mul(10);
    }
    let digit = most.div_ceil(unit);
    (digit + digit % 2).saturating_mul(unit)
}

/// A credential's share.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    name: String,
    href: Option<String>,
    counts: Counts,
}

fn share(shop: &ShopId, series: &Series) -> Share {
    let (name, href) = match series.part {
        Part::Total => ("Everything".to_owned(), None),
        Part::WidgetTokens => ("Widget tokens".to_owned(), Some(format!("/shops/{shop}/tokens"))),
        Part::Jwt => ("JWTs".to_owned(), None),
        Part::Key(id) => {
            let named = series.name.clone().filter(|name| !name.trim().is_empty());
            (named.unwrap_or_else(|| id.to_string()), Some(format!("/shops/{shop}/keys/{id}")))
        }
    };
    // A key that has been deleted has no page and no name any more.
    let href = href.filter(|_| !matches!(series.part, Part::Key(_)) || series.name.is_some());
    Share { name, href, counts: series.sum }
}

#[derive(Template)]
#[template(path = "shop_traffic.html")]
struct Page {
    frame: Frame,
    head: Head,
    choices: Vec<(&'static str, &'static str, bool)>,
    by: &'static str,
    each: &'static str,
    is_recorded: bool,
    total: Counts,
    plot: Plot,
    steps: Vec<Step>,
    shares: Vec<Share>,
    left_out: usize,
}

async fn report(visit: &SignedIn, shop: ShopId, by: By) -> Result<Report, Failure> {
    visit
        .load(move |node, caller| {
            usage::series(node, caller, &shop, by.period(node.now().unix), true)
        })
        .await
}

/// `GET /shops/{shop}/traffic`
pub(in super::super) async fn show(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    Query(query): Query<TrafficQuery>,
) -> Answer {
    let shop = find(&visit, id).await?;
    let by = By::parse(&query.by);
    let report = report(&visit, id, by).await?;
    let all = steps(by, &report.dense(&report.total));
    let head = Head::of(&shop, Tab::Traffic);
    page(&Page {
        frame: visit.frame(format!("Traffic of {}", head.title), "/shops"),
        head,
        choices: By::ALL.map(|b| (b.as_str(), b.title(), b == by)).into(),
        by: by.as_str(),
        each: by.each(),
        is_recorded: visit.node().config.load().usage.enabled,
        total: report.total.sum,
        plot: Plot::of(&all),
        // The newest first, and those without requests only in the drawing.
        steps: all.into_iter().rev().filter(|step| !step.counts.is_zero()).collect(),
        shares: report.parts.iter().map(|series| share(&id, series)).collect(),
        left_out: report.parts_left_out,
    })
}

/// `GET /shops/{shop}/traffic.csv`
pub(in super::super) async fn csv(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    Query(query): Query<TrafficQuery>,
) -> Answer {
    let by = By::parse(&query.by);
    let report = report(&visit, id, by).await?;
    let text = written(&steps(by, &report.dense(&report.total)));
    let name = format!("attachment; filename=\"{id}-{}.csv\"", by.as_str());
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (
            CONTENT_DISPOSITION,
            HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("attachment")),
        ),
    ];
    Ok((headers, text).into_response())
}

/// RFC 4180. Labels are dates, so that nothing needs quotes.
fn written(steps: &[Step]) -> String {
    let line = |step: &Step| {
        let Counts { allowed, refused, limited } = step.counts;
        format!("{},{allowed},{limited},{refused}\r\n", step.label)
    };
    let lines: String = steps.iter().map(line).collect();
    format!("from,allowed,limited,refused\r\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(allowed: u64, limited: u64, refused: u64) -> Counts {
        Counts { allowed, refused, limited }
    }

    fn step(label: &str, counts: Counts) -> Step {
        Step { label: label.to_owned(), counts }
    }

    #[test]
    fn days_add_up_to_months() {
        let at = |day: &str| Timestamp::parse_rfc3339(&format!("{day}T00:00:00Z")).unwrap();
        let point = |day: &str| Point { at: at(day), counts: counts(1, 2, 3) };
        let points = ["2027-01-30", "2027-01-31", "2027-02-01"].map(point);
        assert_eq!(
            steps(By::Month, &points),
            [step("2027-01", counts(2, 4, 6)), step("2027-02", counts(1, 2, 3))]
        );
        assert_eq!(steps(By::Day, &points).len(), 3);
        assert_eq!(By::Hour.label(at("2027-01-30")), "2027-01-30 00:00");
        assert_eq!(By::parse("century"), By::Hour);
    }

    #[test]
    fn columns_stay_within_the_drawing() {
        for most in [0, 1, 9, 10, 11, 99, 12_345, u64::MAX / 4] {
            let steps: Vec<Step> = (0..180).map(|_| step("x", counts(most, 1, most))).collect();
            let plot = Plot::of(&steps);
            assert_eq!(plot.columns.len(), 180);
            for bar in plot.columns.iter().flat_map(|column| &column.bars) {
                assert!(bar.x + bar.width <= WIDTH && bar.y + bar.height <= HEIGHT, "{bar:?}");
            }
        }
        assert_eq!(Plot::of(&[]).columns, []);
        let some = [1, 2, 9, 10, 11, 95, 101].map(round_up);
        assert_eq!(some, [2, 2, 10, 20, 20, 100, 200]);
    }

    #[test]
    fn csv_has_a_head_and_a_line_a_step() {
        let text = written(&[step("2027-01", counts(1, 2, 3))]);
        assert_eq!(text, "from,allowed,limited,refused\r\n2027-01,1,2,3\r\n");
    }
}
