//! How much memory is left for workers, of the machine and of the control group (cgroup v2) that a container or a service lives in, and
//! how much their work takes.

use std::path::Path;
use std::sync::atomic::Ordering;

use offloader_jobs::order::{ModelOrder, RecordParams};
use offloader_jobs::{Job, Kind};

use crate::app::{App, lock};

const MIB: u64 = 1 << 20;
/// A recogniser's worker beside its model: 160 MiB for twelve minutes and for four hours (docs/recording-cost.md).
const SPEECH: u64 = 160 * MIB;
/// A film's worker beside its pictures.
const FILM: u64 = 100 * MIB;
/// Pictures that x264 looks ahead and back at, at its usual presets: with [`FILM`] 155 MiB for 1280 × 720, of which 138 were measured.
const FILM_PICTURES: u64 = 40;

impl App {
    /// Bytes of memory that a job's worker takes when it is at work, estimated from above; 0 of what is small.
    pub(crate) fn bytes_of(&self, job: &Job) -> u64 {
        // What cannot be read is refused when it is started.
        let params: RecordParams = serde_json::from_str(&job.spec.params).unwrap_or_default();
        match job.spec.kind {
            Kind::Record | Kind::PublishRecording | Kind::PublishTranscript => 0,
            Kind::Caption => speech(&self.model(Kind::Caption, &params.vocabulary)),
            Kind::Transcribe => speech(&self.transcript_model(&params)),
            Kind::Render => {
                let picture = Self::picture(&params);
                FILM + FILM_PICTURES * u64::from(picture.width) * u64::from(picture.height) * 3 / 2
            }
        }
    }

    /// What is left when all that is at work here has what it takes; `None` where the system does not tell.
    pub(crate) fn memory_left(&self, at_work: &[Job]) -> Option<u64> {
        let free = available()?;
        let workers = lock(&self.workers);
        let still_to_take = at_work.iter().map(|job| {
            let held = workers.get(&(job.id.clone(), job.fence)).map_or(0, |pid| resident(*pid));
            self.bytes_of(job).saturating_sub(held)
        });
        Some(free.saturating_sub(still_to_take.sum()))
    }

    /// Counts and tells once that this job would go if there were more memory; `None`: none would.
    pub(crate) fn note_no_memory(&self, waiting: Option<&Job>) {
        let Some(job) = waiting else {
            self.short_of_memory.store(false, Ordering::Relaxed);
            return;
        };
        if !self.short_of_memory.swap(true, Ordering::Relaxed) {
            self.counts.no_memory.fetch_add(1, Ordering::Relaxed);
            let mib = self.bytes_of(job) / MIB;
            tracing::warn!(job = %job.id, kind = job.spec.kind.name(), mib, "a job waits until there is so much memory, or until nothing else is at work here");
        }
    }
}

fn speech(model: &ModelOrder) -> u64 {
    let file = model.path.as_ref().and_then(|path| std::fs::metadata(path).ok());
    // Weights, and a third of them again to work in: 3.9 GB for the largest model, which has 2.9 (whisper.cpp's README).
    SPEECH + file.map_or(0, |file| file.len() / 3 * 4)
}

/// Bytes that can be used without anything being pushed out; `None` where the system does not tell.
fn available() -> Option<u64> {
    available_in(Path::new("/"))
}

/// What a process holds, in bytes; 0 if it is gone.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kib_of(&status, "VmRSS:").unwrap_or(0) * 1024
}

/// Should memory run out all the same, the kernel ends this process before the ones that record: what is derived can be made again.
/// 0 to 1000, as in `proc_pid_oom_score_adj(5)`. Only a wish.
pub(crate) fn prefer_to_end(pid: u32, score: u16) {
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
}

fn available_in(root: &Path) -> Option<u64> {
    let machine = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let machine = kib_of(&machine, "MemAvailable:")? * 1024;
    Some(group(root).map_or(machine, |group| group.min(machine)))
}

/// The least that is left in our group and those around it.
fn group(root: &Path) -> Option<u64> {
    let own = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let top = root.join("sys/fs/cgroup");
    let mut folder = top.join(path);
    let mut least = None;
    loop {
        if let Some(left) = left_in(&folder) {
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
        if folder == top || !folder.pop() {
            return least;
        }
    }
}

/// `None` without a limit.
fn left_in(group: &Path) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    // Files that were read and can be read again count as used.
    let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = statistics.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

fn kib_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_least_of_machine_and_groups_is_left() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(available_in(root), None);
        write(root, "proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   4000 kB\n");
        assert_eq!(available_in(root), Some(4000 * 1024), "without groups");
        write(root, "proc/self/cgroup", "4:memory:/old\n0::/site.slice/offloader.service\n");
        write(root, "sys/fs/cgroup/site.slice/offloader.service/memory.max", "max\n");
        assert_eq!(available_in(root), Some(4000 * 1024), "without a limit");
        write(root, "sys/fs/cgroup/site.slice/memory.max", "3000000\n");
        write(root, "sys/fs/cgroup/site.slice/memory.current", "2500000\n");
        assert_eq!(available_in(root), Some(500_000), "a group around ours");
        write(root, "sys/fs/cgroup/site.slice/memory.stat", "anon 1\ninactive_file 400000\n");
        assert_eq!(available_in(root), Some(900_000), "what was only read can go");
        write(root, "sys/fs/cgroup/site.slice/offloader.service/memory.max", "1000\n");
        write(root, "sys/fs/cgroup/site.slice/offloader.service/memory.current", "2000\n");
        assert_eq!(available_in(root), Some(0));
    }

    #[test]
    fn this_machine_and_a_process_tell() {
        assert!(available().is_some_and(|bytes| bytes > 0));
        assert!(resident(std::process::id()) > 1 << 20);
        assert_eq!(resident(u32::MAX), 0);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        prefer_to_end(child.id(), 500);
        let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(score.trim(), "500");
    }
}
