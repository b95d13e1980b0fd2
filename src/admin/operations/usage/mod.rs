//! Usage: what was counted of shops and their keys, read for plots and for export.
//!
//! Counting is the workers' and the ledger's business; here nothing changes.

pub mod export;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{OperationError, Page, Resource};
use crate::admin::caller::{Caller, Permission, Shops};
use crate::admin::ledger::step_of;
use crate::admin::node::Node;
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::{ReadTx, Steps, StoreError};
use crate::usage::{Counts, Part, Resolution};

/// Most steps that one question may span.
pub const STEPS_MAX: u64 = 5_000;

/// Most parts of a shop that are told apart; those with the most requests.
pub const PARTS_MAX: usize = 100;

/// Which time is asked about, and how finely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// How finely.
    pub resolution: Resolution,
    /// The step it begins with holds this time; `None`: as long before `to` as is usual for the
    /// resolution: 3 hours of minutes, 2 days of hours, 30 days.
    pub from: Option<Timestamp>,
    /// The step it ends with holds the moment before this time; `None`: now.
    pub to: Option<Timestamp>,
}

impl Period {
    /// The usual period of `resolution`, until now.
    #[must_use]
    pub const fn recent(resolution: Resolution) -> Self {
        Self { resolution, from: None, to: None }
    }

    /// Its first step, and the first after it.
    fn steps(self, now: Timestamp) -> Result<(u64, u64), OperationError> {
        let resolution = self.resolution;
        let step = Duration::from_secs(60 * resolution.minutes());
        // The present step counts as well; the end of one is not the beginning of the next.
        let to = match self.to {
            Some(to) => step_of(to + step - Duration::from_millis(1), resolution),
            None => step_of(now, resolution).saturating_add(1),
        };
        let from = match self.from {
            Some(from) => step_of(from, resolution),
            None => to.saturating_sub(usual_steps(resolution)),
        };
        if from >= to {
            return Err(OperationError::invalid("from", "lies after `to`"));
        }
        if to - from > STEPS_MAX {
            let problem = format!(
                "is more than {STEPS_MAX} steps of one {resolution} before `to`; ask for less, or \
                 for a coarser resolution"
            );
            return Err(OperationError::invalid("from", problem));
        }
        Ok((from, to))
    }
}

const fn usual_steps(resolution: Resolution) -> u64 {
    match resolution {
        Resolution::Minute => 180,
        Resolution::Hour => 48,
        Resolution::Day => 30,
    }
}

/// What was counted of one shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The shop.
    pub shop: ShopId,
    /// How finely.
    pub resolution: Resolution,
    /// The beginning of the first step.
    pub from: Timestamp,
    /// The end of the last step.
    pub to: Timestamp,
    /// All of it.
    pub total: Series,
    /// By credential, the one with the most requests first; empty if that was not asked for.
    pub parts: Vec<Series>,
    /// How many more parts there are.
    pub parts_left_out: usize,
}

/// What was counted of a shop or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Of what.
    pub part: Part,
    /// What people call it: the name of a key that still exists.
    pub name: Option<String>,
    /// In all of the period.
    pub sum: Counts,
    /// Step by step; those without requests are left out.
    pub points: Vec<Point>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// What was counted.
    pub counts: Counts,
}

impl Report {
    /// The points of `series`, those without requests too: as a plot wants them.
    #[must_use]
    pub fn dense(&self, series: &Series) -> Vec<Point> {
        let known: BTreeMap<Timestamp, Counts> =
            series.points.iter().map(|point| (point.at, point.counts)).collect();
        let (from, to) = (step_of(self.from, self.resolution), step_of(self.to, self.resolution));
        let at = |step| start_of(step, self.resolution);
        let point = |at| Point { at, counts: known.get(&at).copied().unwrap_or_default() };
        (from..to).map(|step| point(at(step))).collect()
    }
}

/// What was counted of `shop`; `by_part` by its credentials too.
pub fn series(
    node: &Node,
    caller: &Caller,
    shop: &ShopId,
    period: Period,
    by_part: bool,
) -> Result<Report, OperationError> {
    caller.require_in(Permission::UsageRead, shop)?;
    let steps = period.steps(node.now().unix)?;
    let resolution = period.resolution;
    let read = |tx: &ReadTx| {
        if tx.shop(shop)?.is_none() {
            return Ok(None);
        }
        let mut found =
            if by_part { tx.usage_by_part(shop, resolution, steps)? } else { BTreeMap::new() };
        if !by_part {
            found.insert(Part::Total, tx.usage(shop, Part::Total, resolution, steps)?);
        }
        Ok(Some(found))
    };
    let (found, waits) = node.ledger.read(node, shop, read)?;
    let mut found = found.ok_or(OperationError::NotFound(Resource::Shop))?;
    for (part, minutes) in waits {
        if by_part || part == Part::Total {
            add_minutes(found.entry(part).or_default(), &minutes, resolution, steps);
        }
    }
    let total = found.remove(&Part::Total).unwrap_or_default();
    let total = Series::new(Part::Total, &total, resolution);
    let mut parts: Vec<Series> = found
        .iter()
        .map(|(part, steps)| Series::new(*part, steps, resolution))
        .filter(|series| !series.points.is_empty())
        .collect();
    parts.sort_by(|a, b| b.sum.total().cmp(&a.sum.total()).then(a.part.cmp(&b.part)));
    let parts_left_out = parts.len().saturating_sub(PARTS_MAX);
    parts.truncate(PARTS_MAX);
    name_keys(node, &mut parts)?;
    let (from, to) = (start_of(steps.0, resolution), start_of(steps.1, resolution));
    Ok(Report { shop: *shop, resolution, from, to, total, parts, parts_left_out })
}

/// What was counted of each shop in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// The beginning of the first step.
    pub from: Timestamp,
    /// The end of the last step.
    pub to: Timestamp,
    /// The shops in the order of their ids, those without requests too.
    pub shops: Page<(ShopId, Counts)>,
}

/// What was counted of up to `limit` of the shops that the caller sees, from the first after
/// `after`.
pub fn totals(
    node: &Node,
    caller: &Caller,
    period: Period,
    after: Option<&ShopId>,
    limit: usize,
) -> Result<Totals, OperationError> {
    caller.require_any(Permission::UsageRead)?;
    let steps = period.steps(node.now().unix)?;
    let resolution = period.resolution;
    let wanted = limit.saturating_add(1);
    let shops: Vec<ShopId> = node.store.read(|tx| match &caller.shops {
        Shops::All => Ok(tx.shops(after, wanted)?.into_iter().map(|shop| shop.id).collect()),
        Shops::Only(ids) => {
            let rest = ids.iter().filter(|id| after.is_none_or(|after| *id > after));
            let found = rest.filter_map(|id| tx.shop(id).transpose()).take(wanted);
            found.map(|shop| shop.map(|shop| shop.id)).collect()
        }
    })?;
    let page = Page::of(shops, limit);
    let mut items = Vec::with_capacity(page.items.len());
    for shop in page.items {
        let read = |tx: &ReadTx| tx.usage(&shop, Part::Total, resolution, steps);
        let (mut found, waits) = node.ledger.read(node, &shop, read)?;
        if let Some(minutes) = waits.get(&Part::Total) {
            add_minutes(&mut found, minutes, resolution, steps);
        }
        items.push((shop, sum(&found)));
    }
    Ok(Totals {
        from: start_of(steps.0, resolution),
        to: start_of(steps.1, resolution),
        shops: Page { items, more: page.more },
    })
}

impl Series {
    fn new(part: Part, steps: &Steps, resolution: Resolution) -> Self {
        let point = |(step, counts): (&u64, &Counts)| {
            (!counts.is_zero()).then(|| Point { at: start_of(*step, resolution), counts: *counts })
        };
        Self { part, name: None, sum: sum(steps), points: steps.iter().filter_map(point).collect() }
    }
}

/// Gives keys the names they have now.
fn name_keys(node: &Node, parts: &mut [Series]) -> Result<(), StoreError> {
    node.store.read(|tx| {
        for series in parts {
            if let Part::Key(id) = series.part {
                series.name = tx.key(id)?.map(|key| key.name);
            }
        }
        Ok(())
    })
}

fn add_minutes(to: &mut Steps, minutes: &Steps, resolution: Resolution, steps: (u64, u64)) {
    for (minute, counts) in minutes {
        let step = minute / resolution.minutes();
        if (steps.0..steps.1).contains(&step) {
            *to.entry(step).or_default() += *counts;
        }
    }
}

fn sum(steps: &Steps) -> Counts {
    let mut sum = Counts::default();
    for counts in steps.values() {
        sum += *counts;
    }
    sum
}

fn start_of(step: u64, resolution: Resolution) -> Timestamp {
    Timestamp::from_unix_s(step.saturating_mul(60 * resolution.minutes()))
}
