//! The process, as the system sees it, under the names that all of Prometheus' clients use.
//!
//! The library's own collector counts processor time in whole seconds; this one in ticks.

use procfs::process::{LimitValue, Stat};
use procfs::{ProcError, WithCurrentSystemInfo as _};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, IntGauge};

pub(super) struct Process {
    cpu: Counter,
    start: prometheus::Gauge,
    resident: IntGauge,
    virtual_memory: IntGauge,
    threads: IntGauge,
    open_files: IntGauge,
    open_files_max: IntGauge,
}

impl Process {
    pub(super) fn new() -> Result<Self, Error> {
        let gauge = |name: &str, help: &str| IntGauge::new(format!("process_{name}"), help);
        let process = Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Processor time in user and system mode.",
            )?,
            start: prometheus::Gauge::new(
                "process_start_time_seconds",
                "When the process was started, since the Unix epoch.",
            )?,
            resident: gauge("resident_memory_bytes", "Memory that is in RAM.")?,
            virtual_memory: gauge("virtual_memory_bytes", "Memory that is addressed.")?,
            threads: gauge("threads", "Threads.")?,
            open_files: gauge("open_fds", "Open files, connections among them.")?,
            open_files_max: gauge("max_fds", "How many files may be open.")?,
        };
        if let Ok(start) = stat().and_then(|stat| started_s(&stat)) {
            process.start.set(start);
        }
        Ok(process)
    }

    /// What cannot be read stays as it was.
    fn look(&self) {
        if let Ok(stat) = stat() {
            let used_s = seconds(stat.utime + stat.stime);
            self.cpu.inc_by((used_s - self.cpu.get()).max(0.0));
            self.resident.set(saturated(stat.rss_bytes().get()));
            self.virtual_memory.set(saturated(stat.vsize));
            self.threads.set(stat.num_threads);
        }
        let Ok(process) = procfs::process::Process::myself() else {
            return;
        };
        if let Ok(count) = process.fd_count() {
            self.open_files.set(super::set::gauge_value(count));
        }
        if let Ok(limits) = process.limits() {
            self.open_files_max.set(match limits.max_open_files.soft_limit {
                LimitValue::Value(max) => saturated(max),
                LimitValue::Unlimited => i64::MAX,
            });
        }
    }

    fn collectors(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.start,
            &self.resident,
            &self.virtual_memory,
            &self.threads,
            &self.open_files,
            &self.open_files_max,
        ]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

fn stat() -> Result<Stat, ProcError> {
    procfs::process::Process::myself()?.stat()
}

fn started_s(stat: &Stat) -> Result<f64, ProcError> {
    let boot = procfs::boot_time_secs()?;
    Ok(seconds(boot.saturating_mul(procfs::ticks_per_second()) + stat.starttime))
}

/// Ticks of the system's clock in seconds.
#[expect(clippy::cast_precision_loss, reason = "millions of years fit")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let process = Process::new().unwrap();
        let families = process.collect();
        assert_eq!(families.len(), 7);
        assert!(process.resident.get() > 1 << 20);
        assert!(process.virtual_memory.get() >= process.resident.get());
        assert!(process.threads.get() >= 1);
        assert!(process.open_files.get() >= 3);
        assert!(process.open_files_max.get() >= process.open_files.get());
        assert!(process.start.get() > 1.6e9);
    }
}
