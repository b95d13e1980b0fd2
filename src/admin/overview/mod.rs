//! How the node fared lately: its metrics, sampled every few seconds and kept in memory.
//!
//! Two rings of fixed length: every [`FINE_STEP`] for a quarter of an hour, every minute for a
//! day. Nothing of it survives a restart; Prometheus is for that. It counts nothing itself: what
//! it draws is the difference between two readings of the metrics.

mod sample;

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;

pub use self::sample::Sampler;

/// From one fine sample to the next.
pub const FINE_STEP: Duration = Duration::from_secs(5);

/// How far back, and how finely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 15 minutes by 5 seconds.
    QuarterHour,
    /// 24 hours by minutes.
    Day,
}

impl Span {
    /// Both.
    pub const ALL: [Self; 2] = [Self::QuarterHour, Self::Day];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuarterHour => "15m",
            Self::Day => "24h",
        }
    }

    /// The span of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|span| span.as_str() == text)
    }

    /// From one point to the next, in seconds.
    #[must_use]
    pub const fn step_s(self) -> u32 {
        match self {
            Self::QuarterHour => 5,
            Self::Day => 60,
        }
    }
}

/// What is drawn. Every list of a series has one entry for each of `times`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Overview {
    /// When it was read.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `15m` or `24h`.
    pub span: &'static str,
    /// From one point to the next.
    pub step_seconds: u32,
    /// The end of each step, in Unix seconds, ascending.
    pub times: Vec<u64>,
    /// Requests in a second, by how they ended.
    pub requests: Requests,
    /// Milliseconds from the end of a request's head to the end of its response, upstream
    /// included; `null` where no request ended.
    pub latency_ms: Quantiles,
    /// Microseconds that decisions took; `null` where none was made.
    pub decision_us: Quantiles,
    /// Refusals and failures in a second by code, the most frequent first; codes that did not
    /// occur are left out.
    pub refusals: Vec<CodeSeries>,
    /// How full the limiter's table is, from 0 to 1.
    pub limiter_fill: Vec<f64>,
    /// The store.
    pub store: StoreSeries,
    /// What holds at present.
    pub now: Present,
}

/// In a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Requests {
    /// Answered by an upstream, or by latchkey's own routes.
    pub allowed: Vec<f64>,
    /// Refused with a status of 4xx.
    pub refused: Vec<f64>,
    /// Ended by a status of 5xx of latchkey's own.
    pub error: Vec<f64>,
    /// The client left before there was a response.
    pub abandoned: Vec<f64>,
}

/// The value that half, 95 of 100 and 99 of 100 stay below, as far as the histogram tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Quantiles {
    /// The median.
    pub p50: Vec<Option<f64>>,
    /// 95 of 100.
    pub p95: Vec<Option<f64>>,
    /// 99 of 100.
    pub p99: Vec<Option<f64>>,
}

/// One code.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CodeSeries {
    /// The code, as in the problems that clients get.
    pub code: &'static str,
    /// How often in all of the span.
    pub total: u64,
    /// In a second.
    pub per_second: Vec<f64>,
}

/// How the store fared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct StoreSeries {
    /// Commits in a second.
    pub commits: Vec<f64>,
    /// Milliseconds until a commit was on the disk; `null` where there was none.
    pub commit_ms: Quantiles,
    /// Reads and writes that failed, in each step.
    pub errors: Vec<u64>,
}

/// What holds at present.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Present {
    /// Shops.
    pub shops: usize,
    /// API keys.
    pub api_keys: usize,
    /// Whether the store took the last write.
    pub store_writable: bool,
    /// Cells of the limiter.
    pub limiter_cells: usize,
    /// Cells in use, at the last sample.
    pub limiter_cells_live: usize,
    /// Identity providers and their keys.
    pub issuers: Vec<IssuerState>,
}

/// An identity provider's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct IssuerState {
    /// Its name in the configuration.
    pub name: String,
    /// Whether its JWTs are accepted now.
    pub usable: bool,
    /// Usable keys.
    pub keys: usize,
    /// How old the key set is; `null` if it was never fetched, or is none.
    pub age_seconds: Option<u64>,
    /// Why the last fetch failed.
    pub last_error: Option<String>,
}
