//! The clock: a plausible year, no step while we looked, and what time others have.

use std::time::Duration;

use super::finding::{Check, Report, Status};
use super::providers::Dated;
use crate::clock::{Now, Timestamp};

/// Before this version was made: 2026-01-01.
const EARLIEST: Timestamp = Timestamp::from_unix_s(1_767_225_600);
/// 2100-01-01.
const LATEST: Timestamp = Timestamp::from_unix_s(4_102_444_800);

/// A wall clock that went otherwise than time did was set meanwhile.
const STEP: Duration = Duration::from_secs(1);

/// A difference that answers' ways and whole seconds do not explain.
const APART: Duration = Duration::from_secs(10);
/// JWTs are forgiven about this much (`leeway`); beyond, good ones are refused.
const FAR_APART: Duration = Duration::from_secs(60);

/// Looks at it.
pub(super) fn check(started: Now, ended: Now, dates: &[Dated], report: &mut Report) {
    const HERE: &str = "this machine";
    let advice = "set it, and let it be kept: systemd-timesyncd, chrony or ntpd";
    let now = ended.unix;
    if now < EARLIEST || now > LATEST {
        report.error(Check::Clock, HERE, format!("it is said to be {now}"), advice);
    } else if apart(ended.unix, started.unix + ended.mono.since(started.mono)) > STEP {
        let detail = "the clock was set while this was running";
        report.warning(Check::Clock, HERE, detail, advice);
    } else {
        report.ok(Check::Clock, HERE, format!("it is {now}"));
    }
    for Dated { issuer, theirs, ours } in dates {
        let by = apart(*ours, *theirs);
        let detail = format!("its clock and ours are {} s apart", by.as_secs());
        let status = match by {
            by if by > FAR_APART => Status::Error,
            by if by > APART => Status::Warning,
            _ => Status::Ok,
        };
        if status == Status::Ok {
            report.ok(Check::Clock, issuer, detail);
        } else {
            let advice = format!("whichever is wrong, JWTs will be refused: {advice}");
            report.add(status, Check::Clock, issuer, detail, advice);
        }
    }
}

fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    fn statuses(clock: &ManualClock, later: impl FnOnce(), dates: &[Dated]) -> [usize; 3] {
        let mut report = Report::default();
        let started = clock.now();
        later();
        check(started, clock.now(), dates, &mut report);
        report.counts()
    }

    #[test]
    fn years_steps_and_other_peoples_clocks() {
        let good = EARLIEST + Duration::from_secs(1000);
        let dated = |by: u64| Dated {
            issuer: "id".into(),
            theirs: good + Duration::from_secs(by),
            ours: good,
        };
        for (start, step, dates, expected) in [
            (good, 0, vec![], [1, 0, 0]),
            (good, 30, vec![], [0, 1, 0]),
            (Timestamp::from_unix_s(5), 0, vec![], [0, 0, 1]),
            (LATEST + Duration::from_secs(1), 0, vec![], [0, 0, 1]),
            (good, 0, vec![dated(10), dated(11), dated(61)], [2, 1, 1]),
        ] {
            let clock = ManualClock::at(start);
            let later = || {
                clock.advance(Duration::from_secs(3));
                clock.step_to(start + Duration::from_secs(3 + step));
            };
            assert_eq!(statuses(&clock, later, &dates), expected, "{start} {step}");
        }
    }
}
