//! The metrics of the process under their standard names: memory, threads, files and CPU time.

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

/// Metrics that each scrape reads from `/proc`; absent on systems without `/proc`.
pub(crate) struct ProcessMetrics {
    cpu_seconds: IntCounter,
    open_files: IntGauge,
    max_files: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    start: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    /// `None` if a name is invalid, which the tests rule out.
    pub fn new() -> Option<Self> {
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).ok();
        let cpu_seconds = IntCounter::new(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
        );
        Some(Self {
            cpu_seconds: cpu_seconds.ok()?,
            open_files: gauge("process_open_fds", "Number of open file descriptors.")?,
            max_files: gauge(
                "process_max_fds",
                "Maximum number of open file descriptors.",
            )?,
            virtual_memory: gauge(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
            )?,
            resident_memory: gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            start: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
            threads: gauge("process_threads", "Number of OS threads in the process.")?,
        })
    }

    /// The current values; empty if the system does not report them.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        let Some(()) = self.refresh() else {
            return Vec::new();
        };
        let gauges = [
            &self.max_files,
            &self.open_files,
            &self.resident_memory,
            &self.start,
            &self.threads,
            &self.virtual_memory,
        ];
        self.cpu_seconds
            .collect()
            .into_iter()
            .chain(gauges.into_iter().flat_map(|gauge| gauge.collect()))
            .collect()
    }

    /// Resident memory of the process in bytes.
    pub(crate) fn resident_bytes(&self) -> Option<f64> {
        self.refresh()?;
        Some(self.resident_memory.get() as f64)
    }

    #[cfg(target_os = "linux")]
    fn refresh(&self) -> Option<()> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let stat = ProcStat::parse(&read("/proc/self/stat")?)?;
        let ticks = i64::try_from(rustix::param::clock_ticks_per_second())
            .ok()?
            .max(1);
        let page = i64::try_from(rustix::param::page_size()).ok()?;
        self.virtual_memory.set(stat.virtual_memory);
        self.resident_memory.set(stat.resident_pages * page);
        self.threads.set(stat.threads);
        // Another thread may have added to the counter since it was read.
        let seconds = u64::try_from(stat.cpu_ticks / ticks).ok()?;
        self.cpu_seconds
            .inc_by(seconds.saturating_sub(self.cpu_seconds.get()));
        if let Some(boot) = read("/proc/stat").and_then(|text| number_after(&text, "btime")) {
            self.start.set(boot + stat.start_ticks / ticks);
        }
        if let Some(limit) =
            read("/proc/self/limits").and_then(|text| number_after(&text, "Max open files"))
        {
            self.max_files.set(limit);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files
                .set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        Some(())
    }

    #[cfg(not(target_os = "linux"))]
    fn refresh(&self) -> Option<()> {
        None
    }
}

/// Fields of `/proc/self/stat`.
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct ProcStat {
    cpu_ticks: i64,
    threads: i64,
    start_ticks: i64,
    virtual_memory: i64,
    resident_pages: i64,
}

#[cfg(target_os = "linux")]
impl ProcStat {
    /// Parses a line. The program name is in parentheses, and may contain spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The first field here is the third in proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_memory: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The number that follows a name at the start of a line.
#[cfg(target_os = "linux")]
fn number_after(text: &str, name: &str) -> Option<i64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stat_fields_after_any_program_name_are_parsed() {
        let text =
            "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 50 6 7 8 20 0 9 0 1000 4096000 250 184 1 1";
        let expected = ProcStat {
            cpu_ticks: 56,
            threads: 9,
            start_ticks: 1000,
            virtual_memory: 4_096_000,
            resident_pages: 250,
        };
        assert_eq!(ProcStat::parse(text), Some(expected));
        assert_eq!(ProcStat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn number_after_a_name_is_parsed() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024  524288  files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(
            number_after("Max open files  unlimited  unlimited", "Max open files"),
            None
        );
        assert_eq!(number_after("btime 17\n", "ctxt"), None);
    }

    #[test]
    fn metrics_of_this_process_are_plausible() {
        let metrics = ProcessMetrics::new().unwrap();
        let _file = std::fs::File::open("/proc/self/stat").unwrap();
        let families = metrics.gather();
        let value = |name: &str| {
            families
                .iter()
                .find(|family| family.name() == name)
                .unwrap()
                .get_metric()[0]
                .clone()
        };
        let gauge = |name: &str| value(name).get_gauge().get_value();
        assert!(gauge("process_resident_memory_bytes") > 1e6);
        assert!(gauge("process_virtual_memory_bytes") >= gauge("process_resident_memory_bytes"));
        assert!(gauge("process_threads") >= 2.0);
        assert!(
            gauge("process_open_fds") > 3.0
                && gauge("process_max_fds") >= gauge("process_open_fds")
        );
        let started = gauge("process_start_time_seconds");
        let now = crate::units::unix_seconds();
        assert!(started > 1.6e9 && started <= now + 2.0, "{started} {now}");
        assert!(value("process_cpu_seconds_total").get_counter().get_value() >= 0.0);
        assert_eq!(families.len(), 7);
        assert!(metrics.resident_bytes().unwrap() > 1e6);
    }
}
