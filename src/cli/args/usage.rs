//! `usage`.

use clap::{Args, ValueEnum};

use super::manage::time;
use crate::clock::Timestamp;
use crate::id::ShopId;

pub(super) const EXAMPLES: &str = "\
Examples:
  latchkey usage                                    all shops, the last 30 days
  latchkey usage acme --by key                      one shop by credential
  latchkey usage acme --resolution minute           its last three hours
  latchkey usage acme --resolution day --from 2027-01-01T00:00:00Z --csv > january.csv";

/// Which counts are shown.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct UsageArgs {
    /// The shop [default: all of them, each with its sum]
    pub(in crate::cli) shop: Option<ShopId>,
    /// Tell its credentials apart: each key, widget tokens, JWTs
    #[arg(long, value_enum, requires = "shop")]
    pub(in crate::cli) by: Option<By>,
    /// How finely, in UTC
    #[arg(long, value_enum, value_name = "RESOLUTION", default_value_t = Step::Day)]
    pub(in crate::cli) resolution: Step,
    /// From when on [default: 180 minutes, 48 hours or 30 days before the end]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) from: Option<Timestamp>,
    /// Until when [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(in crate::cli) to: Option<Timestamp>,
    /// Print CSV, whatever --output says
    #[arg(long)]
    pub(in crate::cli) csv: bool,
}

/// What a shop's requests are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum By {
    /// By credential.
    Key,
}

/// How finely time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Step {
    /// By minutes.
    Minute,
    /// By hours.
    Hour,
    /// By days.
    Day,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        })
    }
}
