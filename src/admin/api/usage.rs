//! `/usage` and `/shops/{shop}/usage`, in JSON and in CSV.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, LINK, VARY};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::body::{PageQuery, Query, Segments, cursor_after};
use super::dto_usage::{ShopTotal, ShopUsage, UsageTotals};
use super::problem::{Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::usage::{self, Period, export};
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::usage::Resolution;

/// What is asked about one shop.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    resolution: Option<String>,
    from: Option<String>,
    to: Option<String>,
    by: Option<String>,
    format: Option<String>,
}

/// What is asked about all shops.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TotalsQuery {
    resolution: Option<String>,
    from: Option<String>,
    to: Option<String>,
    format: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Reads what was counted of a shop, and of its keys. Counts show within seconds; those of the
/// last `usage.flush_interval` are lost if the process is killed.
#[utoipa::path(get, path = "/shops/{shop}/usage", tag = "usage", operation_id = "getShopUsage",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("resolution" = Option<String>, Query,
            description = "`minute`, `hour` (the default) or `day`, of UTC"),
        ("from" = Option<String>, Query, description = "In the first step: an RFC 3339 \
            date-time; left out: 180 minutes, 48 hours or 30 days before `to`"),
        ("to" = Option<String>, Query, description = "The end: an RFC 3339 date-time; left out: \
            now"),
        ("by" = Option<String>, Query, description = "`key`: by credential too"),
        ("format" = Option<String>, Query, description = "`json` or `csv`, whatever is accepted"),
    ),
    responses(
        (status = 200, description = "What was counted", content(
            (ShopUsage = "application/json"), (String = "text/csv"))),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn of_shop(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    Query(query): Query<UsageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let is_csv = wants_csv(query.format.as_deref(), &headers)?;
    let period = period(
        query.resolution.as_deref(),
        query.from.as_deref(),
        query.to.as_deref(),
        Resolution::Hour,
    )?;
    let by_key = match query.by.as_deref() {
        None => false,
        Some("key") => true,
        Some(_) => return Err(Problem::bad_parameter("by", "is not `key`; leave it out")),
    };
    let read = move |node: &Node| usage::series(node, &caller, &shop, period, by_key);
    let report = blocking(&node, read).await?;
    if is_csv {
        return Ok(csv(export::report(&report), &format!("usage-{shop}.csv")));
    }
    Ok(varied(Json(ShopUsage::from(report)).into_response()))
}

/// Reads what was counted of each shop in a period.
#[utoipa::path(get, path = "/usage", tag = "usage", operation_id = "listUsage",
    params(
        ("resolution" = Option<String>, Query, description = "What `from` and `to` are rounded \
            to: `minute`, `hour` or `day` (the default), of UTC"),
        ("from" = Option<String>, Query, description = "In the first step: an RFC 3339 \
            date-time; left out: 180 minutes, 48 hours or 30 days before `to`"),
        ("to" = Option<String>, Query, description = "The end: an RFC 3339 date-time; left out: \
            now"),
        ("format" = Option<String>, Query, description = "`json` or `csv`, whatever is accepted; \
            in CSV the next page is in `Link`"),
        ("limit" = Option<u16>, Query, description = "Shops of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of shops", content(
            (UsageTotals = "application/json"), (String = "text/csv"))),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn of_all(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<TotalsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let is_csv = wants_csv(query.format.as_deref(), &headers)?;
    let TotalsQuery { resolution, from, to, limit, cursor, .. } = query;
    let period = period(resolution.as_deref(), from.as_deref(), to.as_deref(), Resolution::Day)?;
    let (limit, after) = PageQuery { limit, cursor }.parse(|text| ShopId::parse(text).ok())?;
    let read = move |node: &Node| usage::totals(node, &caller, period, after.as_ref(), limit);
    let totals = blocking(&node, read).await?;
    let last = totals.shops.items.last().filter(|_| totals.shops.more);
    let next_cursor = last.map(|(shop, _)| cursor_after(shop));
    if is_csv {
        let mut response = csv(export::totals(&totals), "usage.csv");
        // Everything but the cursor is as it was asked for.
        let link = next_cursor.map(|cursor| format!("<?cursor={cursor}>; rel=\"next\""));
        if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            response.headers_mut().insert(LINK, link);
        }
        return Ok(response);
    }
    let item = |(shop, counts): (ShopId, crate::usage::Counts)| ShopTotal {
        shop,
        allowed: counts.allowed,
        refused: counts.refused,
        limited: counts.limited,
    };
    let items = totals.shops.items.into_iter().map(item).collect();
    let body = UsageTotals { from: totals.from, to: totals.to, items, next_cursor };
    Ok(varied(Json(body).into_response()))
}

fn period(
    resolution: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
    default: Resolution,
) -> Result<Period, Problem> {
    let resolution = match resolution {
        None => default,
        Some(text) => Resolution::parse(text).ok_or_else(|| {
            Problem::bad_parameter("resolution", "is none of `minute`, `hour` and `day`")
        })?,
    };
    let time = |name, text: Option<&str>| {
        let parse = |text| {
            Timestamp::parse_rfc3339(text).ok_or_else(|| {
                let detail = "is not an RFC 3339 date-time such as 2027-01-31T00:00:00Z";
                Problem::bad_parameter(name, detail)
            })
        };
        text.map(parse).transpose()
    };
    Ok(Period { resolution, from: time("from", from)?, to: time("to", to)? })
}

/// Whether CSV is asked for: by `format`, or else by `Accept`, which has to name it.
fn wants_csv(format: Option<&str>, headers: &HeaderMap) -> Result<bool, Problem> {
    match format {
        Some("csv") => Ok(true),
        Some("json") => Ok(false),
        Some(_) => Err(Problem::bad_parameter("format", "is neither `json` nor `csv`")),
        None => {
            let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let mut ranges = accepted.flat_map(|value| value.split(','));
            Ok(ranges.any(|range| {
                let essence = range.split(';').next().unwrap_or_default().trim();
                essence.eq_ignore_ascii_case("text/csv")
            }))
        }
    }
}

fn csv(text: String, name: &str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    let essence = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    headers.insert(CONTENT_TYPE, essence);
    // Names of shops are visible ASCII without quotes.
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    if let Ok(disposition) = disposition {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    varied(response)
}

fn varied(mut response: Response) -> Response {
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}
