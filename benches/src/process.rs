//! CPU time and memory of another process with its children.

use std::fs;

use anyhow::Context as _;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Exact run time of all threads, also of those that ended, ns (the kernel's CPU clock of the process).
    total_ns: u64,
    /// User mode, clock ticks: coarse, for the split only.
    user_ticks: u64,
    /// Kernel mode, clock ticks.
    system_ticks: u64,
}

impl Cpu {
    /// Of a process and all its descendants.
    pub(crate) fn of(root: u32) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in tree(root)? {
            // A child may end in between.
            let Ok(stat) = Stat::of(pid) else { continue };
            let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
            let time = clock_gettime(clock)?;
            sum.total_ns += u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?;
            sum.user_ticks += stat.user_ticks;
            sum.system_ticks += stat.system_ticks;
        }
        Ok(sum)
    }

    /// `(total, user share of it)` since `before`.
    pub(crate) fn since(self, before: Self) -> (f64, f64) {
        let user = self.user_ticks.saturating_sub(before.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(before.system_ticks) as f64;
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        (self.total_ns.saturating_sub(before.total_ns) as f64, share)
    }
}

/// What this thread has used, ns.
pub(crate) fn own_thread_ns() -> anyhow::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("a malformed stat file")?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        Ok(Self { parent: u32::try_from(number(1))?, user_ticks: number(11), system_ticks: number(12) })
    }
}

/// What each thread of a process has used whose name begins so, ns.
pub(crate) fn threads_ns(pid: u32, prefix: &str) -> anyhow::Result<Vec<u64>> {
    let mut threads: Vec<(String, u64)> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = entry?.path();
        // A thread may end in between.
        let read = |file: &str| fs::read_to_string(folder.join(file));
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        if name.starts_with(prefix) {
            threads.push((name, times.split(' ').next().context("a malformed schedstat file")?.parse()?));
        }
    }
    threads.sort();
    Ok(threads.into_iter().map(|(_, ns)| ns).collect())
}

/// A process and its descendants.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid).ok()?.parent)))
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(found)
}

/// Resident memory of a process tree's own, KiB: without the programs' text, which grows with what is run for the first time.
pub(crate) fn resident_kib(root: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in tree(root)? {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        if let Some(line) = status.lines().find_map(|line| line.strip_prefix("RssAnon:")) {
            sum += line.trim().trim_end_matches("kB").trim().parse::<f64>()?;
        }
    }
    anyhow::ensure!(sum > 0.0, "the server has ended");
    Ok(sum)
}

/// Where and how a server runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) cpu: usize,
    /// The clients' CPU too, for who is to have more than one.
    pub(crate) beside: Option<usize>,
    /// Ahead of everything else, so that other work blurs latency less. Not for who is driven to its limit: the kernel parks such a
    /// process for some milliseconds of each second in which others want its CPU, and that would be taken for the limit.
    pub(crate) realtime: bool,
}

/// A command pinned to its CPUs: real-time, else with as much weight as may be had, where that is allowed.
pub(crate) fn pinned(program: &std::path::Path, place: Place) -> std::process::Command {
    let allowed = |program: &str, arguments: &[&str]| {
        let mut attempt = std::process::Command::new(program);
        attempt.args(arguments).arg("true").stderr(std::process::Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    let mut words = Vec::new();
    if place.realtime && allowed("chrt", &["-r", "10"]) {
        words.extend(["chrt", "-r", "10"]);
    } else if !place.realtime && nix::unistd::geteuid().is_root() {
        // The thread that starts it may be real-time itself, which is inherited.
        words.extend(["chrt", "-o", "0", "nice", "-n", "-15"]);
    }
    words.extend(["taskset", "-c"]);
    let mut command = std::process::Command::new(words.remove(0));
    let cpus: Vec<String> = std::iter::once(place.cpu).chain(place.beside).map(|cpu| cpu.to_string()).collect();
    command.args(words).arg(cpus.join(",")).arg(program);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_found_by_name() -> anyhow::Result<()> {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("busy-1".to_owned()).spawn(move || {
            let start = std::time::Instant::now();
            while start.elapsed() < std::time::Duration::from_millis(5) {}
            let _ = wait.recv();
        })?;
        let mut found = Vec::new();
        while found.first().is_none_or(|ns| *ns == 0) {
            found = threads_ns(std::process::id(), "busy-")?;
        }
        assert_eq!(found.len(), 1);
        assert!(threads_ns(std::process::id(), "nobody")?.is_empty());
        drop(done);
        assert!(thread.join().is_ok());
        Ok(())
    }

    #[test]
    fn a_tree_has_its_children_and_their_cpu() -> anyhow::Result<()> {
        let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
        let own = std::process::id();
        let found = tree(own)?;
        let cpu = Cpu::of(own)?;
        let kib = resident_kib(own)?;
        child.kill()?;
        child.wait()?;
        assert!(found.contains(&own) && found.contains(&child.id()), "{found:?}");
        assert!(cpu.total_ns > 0 && kib > 0.0);
        Ok(())
    }
}
