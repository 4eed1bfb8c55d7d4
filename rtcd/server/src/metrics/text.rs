//! Prometheus text format 0.0.4, written by hand: names, labels, numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Histogram;

/// For the HTTP header.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page being written.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        if !labels.is_empty() {
            self.0.push('{');
            for (index, (label, text)) in labels.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let _ = write!(self.0, "{comma}{label}=\"{}\"", escape(text));
            }
            self.0.push('}');
        }
        // Rust writes "inf".
        let _ = if value == f64::INFINITY { writeln!(self.0, " +Inf") } else { writeln!(self.0, " {value}") };
    }

    /// Histograms by tenant; an empty tenant has no label.
    pub(super) fn histograms(&mut self, name: &str, help: &str, by_tenant: &BTreeMap<String, Histogram>) {
        self.head(name, "histogram", help);
        for (tenant, histogram) in by_tenant {
            let group = ("groupID", tenant.as_str());
            self.histogram(name, if tenant.is_empty() { &[] } else { std::slice::from_ref(&group) }, histogram);
        }
    }

    /// One histogram under its head.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut total = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            total += count;
            let bound = bound.to_string();
            self.sample(&format!("{name}_bucket"), &[labels, &[("le", bound.as_str())]].concat(), total as f64);
        }
        self.sample(&format!("{name}_bucket"), &[labels, &[("le", "+Inf")]].concat(), histogram.count as f64);
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, histogram.count as f64);
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Figures of this process.
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) open_fds: f64,
    pub(super) max_fds: f64,
    pub(super) resident_bytes: f64,
    pub(super) virtual_bytes: f64,
    pub(super) virtual_max_bytes: f64,
    pub(super) start_seconds: f64,
}

impl Process {
    pub(super) fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // After the command name, which may hold anything, in parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
        // Linux counts these in hundredths on every architecture we run on.
        let ticks = 100.0;
        let page = rustix::param::page_size() as f64;
        let boot = std::fs::read_to_string("/proc/stat").ok()?.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok())?;
        let limit = |of| rustix::process::getrlimit(of).current;
        Some(Self {
            cpu_seconds: (number(11)? + number(12)?) / ticks,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            max_fds: limit(rustix::process::Resource::Nofile).map_or(f64::INFINITY, |limit| limit as f64),
            resident_bytes: number(21)? * page,
            virtual_bytes: number(20)?,
            // Prometheus' own clients write "no limit" as the largest number.
            virtual_max_bytes: limit(rustix::process::Resource::As).unwrap_or(u64::MAX) as f64,
            start_seconds: boot + number(19)? / ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_the_page() {
        let mut text = Text::default();
        text.sample("x", &[("a", "q\"uote\\\n")], 1.0);
        text.sample("y", &[], f64::INFINITY);
        assert_eq!(text.into_string(), "x{a=\"q\\\"uote\\\\\\n\"} 1\ny +Inf\n");
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read().expect("linux");
        assert!(process.resident_bytes > 1e6 && process.open_fds >= 3.0 && process.max_fds >= process.open_fds);
        assert!(process.start_seconds > 1.6e9);
    }
}
