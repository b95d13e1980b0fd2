//! The JSON of usage.

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::operations::usage;
use crate::clock::Timestamp;
use crate::id::ShopId;

/// What was counted of a shop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShopUsage {
    /// The shop.
    #[schema(value_type = String, example = "demo")]
    pub shop: ShopId,
    /// `minute`, `hour` or `day`, of UTC.
    #[schema(example = "hour")]
    pub resolution: &'static str,
    /// The beginning of the first step.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// The end of the last step.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// All of its requests.
    pub total: UsageSeries,
    /// By credential, the one with the most requests first; empty without `by=key`.
    pub parts: Vec<UsageSeries>,
    /// Credentials beyond the first 100, which are not listed.
    pub parts_left_out: usize,
}

/// What was counted of a shop, or of one of its credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageSeries {
    /// `total`, a key's id, `widget_tokens` or `jwt`.
    #[schema(example = "total")]
    pub of: String,
    /// The key's name.
    pub name: Option<String>,
    /// Requests that were admitted in all of the period.
    pub allowed: u64,
    /// Requests that were refused for another reason than a limit.
    pub refused: u64,
    /// Requests that a limit refused.
    pub limited: u64,
    /// Step by step; those without requests are left out.
    pub points: Vec<UsagePoint>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsagePoint {
    /// When it begins.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Requests that were admitted.
    pub allowed: u64,
    /// Requests that were refused for another reason than a limit.
    pub refused: u64,
    /// Requests that a limit refused.
    pub limited: u64,
}

/// What was counted of one of many shops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShopTotal {
    /// The shop.
    #[schema(value_type = String, example = "demo")]
    pub shop: ShopId,
    /// Requests that were admitted.
    pub allowed: u64,
    /// Requests that were refused for another reason than a limit.
    pub refused: u64,
    /// Requests that a limit refused.
    pub limited: u64,
}

/// What was counted of many shops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageTotals {
    /// The beginning of the period.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// The shops in the order of their ids, those without requests too.
    pub items: Vec<ShopTotal>,
    /// Of the page after this one; `null` on the last.
    pub next_cursor: Option<String>,
}

impl From<usage::Report> for ShopUsage {
    fn from(report: usage::Report) -> Self {
        Self {
            shop: report.shop,
            resolution: report.resolution.as_str(),
            from: report.from,
            to: report.to,
            total: report.total.into(),
            parts: report.parts.into_iter().map(UsageSeries::from).collect(),
            parts_left_out: report.parts_left_out,
        }
    }
}

impl From<usage::Series> for UsageSeries {
    fn from(series: usage::Series) -> Self {
        let point = |point: usage::Point| UsagePoint {
            at: point.at,
            allowed: point.counts.allowed,
            refused: point.counts.refused,
            limited: point.counts.limited,
        };
        Self {
            of: series.part.to_string(),
            name: series.name,
            allowed: series.sum.allowed,
            refused: series.sum.refused,
            limited: series.sum.limited,
            points: series.points.into_iter().map(point).collect(),
        }
    }
}
