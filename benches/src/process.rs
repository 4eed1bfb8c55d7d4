//! CPU time and memory of another process, from /proc.

use std::fs;

use anyhow::Context as _;

/// CPU used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Exact run time of all threads, ns (scheduler).
    pub(crate) total_ns: u64,
    /// User mode, clock ticks: coarse, for the split only.
    user_ticks: u64,
    /// Kernel mode, clock ticks.
    system_ticks: u64,
}

impl Cpu {
    /// Of a process, all threads that live.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut total_ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path().join("schedstat");
            // A thread may end in between.
            let Ok(text) = fs::read_to_string(path) else { continue };
            total_ns += text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("a malformed stat file")?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse().ok()).unwrap_or_default();
        Ok(Self { total_ns, user_ticks: ticks(11), system_ticks: ticks(12) })
    }

    /// `(total, user share of it)` since `before`.
    pub(crate) fn since(self, before: Self) -> (f64, f64) {
        let user = (self.user_ticks - before.user_ticks) as f64;
        let system = (self.system_ticks - before.system_ticks) as f64;
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        ((self.total_ns - before.total_ns) as f64, share)
    }
}

/// Resident memory of its own, KiB: without the program's text, which grows with what is run for the first time.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// A command pinned to one CPU, real-time where that is allowed, so that other work blurs latency less.
pub(crate) fn pinned(program: &std::path::Path, cpu: usize) -> std::process::Command {
    let realtime = std::process::Command::new("chrt")
        .args(["-r", "10", "true"])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = if realtime {
        let mut command = std::process::Command::new("chrt");
        command.args(["-r", "10", "taskset", "-c"]);
        command
    } else {
        let mut command = std::process::Command::new("taskset");
        command.arg("-c");
        command
    };
    command.arg(cpu.to_string()).arg(program);
    command
}

/// Pins this thread, real-time where that is allowed.
pub(crate) fn pin_here(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
    let tid = nix::unistd::gettid();
    let _ = std::process::Command::new("chrt").args(["-r", "-p", "10", &tid.to_string()]).stderr(std::process::Stdio::null()).status();
}
