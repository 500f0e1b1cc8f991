//! The process, as the kernel sees it: what Prometheus' client libraries tell of every process.

use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts, core::Collector as _};

/// Clock ticks a second of `/proc/self/stat`: fixed by the kernel's interface.
const TICKS: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// The families that could be read.
pub(super) fn gather() -> Vec<MetricFamily> {
    let mut families = Vec::new();
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        if let (Some(value), Ok(gauge)) = (value, Gauge::with_opts(Opts::new(name, help))) {
            gauge.set(value);
            families.extend(gauge.collect());
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").ok();
    let after_name = stat.as_deref().and_then(|stat| Some(stat.rsplit_once(") ")?.1));
    let fields: Vec<&str> = after_name.unwrap_or_default().split(' ').collect();
    // Numbered as in proc(5), where the state that follows the name is 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", field(23));
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", field(24).map(|pages| pages * PAGE_BYTES));
    gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        field(22).zip(boot_time()).map(|(ticks, boot)| boot + ticks / TICKS),
    );
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "Number of open file descriptors.", open);
    gauge("process_max_fds", "Maximum number of open file descriptors.", max_files());
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS);
    if let (Some(seconds), Ok(counter)) = (
        cpu,
        prometheus::Counter::with_opts(Opts::new(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
        )),
    ) {
        counter.inc_by(seconds);
        families.extend(counter.collect());
    }
    families
}

/// Seconds since the epoch.
fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_files() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
