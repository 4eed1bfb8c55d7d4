//! The supervisor: leases what fits, starts one process for each job, notices its end, takes over what is dead.
//!
//! A worker's process is not tied to this one: after a restart of the daemon the workers go on renewing.
//! One that was not heard of until its lease ended is killed before its job goes to the next.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use offloader_jobs::vocabulary::Vocabulary;
use offloader_jobs::{Capacity, Job, Kind, Load, Outcome, State, choose};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::app::{App, lock, random};
use crate::limits::{DRAIN, ROOM_TO_DERIVE, ROOM_TO_RECORD, STUCK_MS};
use crate::memory;
use crate::news::News;
use crate::settings::Settings;
use crate::store::jobs::{ChangeError, JobFilter};

/// What a worker may know of our environment. Not a key, not a token: those come by the job.
const ENVIRONMENT: [&str; 12] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "RUST_LOG",
    "RUST_LOG_FORMAT",
    "RUST_BACKTRACE",
    "OMP_NUM_THREADS",
    "OFFLOAD_WORKER_THREADS",
    "TZ",
];
/// How the reason for waiting begins, here and in a worker's words.
pub(crate) const NO_ROOM: &str = "no room";
/// Derived work yields to calls on the same machine.
const NICE_DERIVED: i32 = 15;
/// Captions yield to the media node, not to derived work.
const NICE_CAPTION: i32 = 5;
/// Where memory runs out, what can be made again ends before what cannot: rendering and transcripts …
const ENDS_FIRST_DERIVED: u16 = 500;
/// … then captions, then anything else.
const ENDS_FIRST_CAPTION: u16 = 300;

impl App {
    /// Runs until `stop`, then lets the workers close what they have.
    pub async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        let mut news = News::default();
        while !stop.is_cancelled() {
            if let Err(error) = self.round(&mut news).await {
                tracing::warn!(error = format!("{error:#}"), "a round of the supervisor failed; the next one tries again");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(self.settings.poll()) => {}
            }
        }
        self.drain().await;
    }

    async fn round(self: &Arc<Self>, news: &mut News) -> anyhow::Result<()> {
        self.meet().await?;
        self.take_from_the_dead().await?;
        self.end_the_fenced().await?;
        self.settle_ended().await?;
        // What is wrong there must not keep our own calls from being recorded.
        if let Err(error) = self.calls_round().await {
            tracing::warn!(error = format!("{error:#}"), "jobs of Mattermost servers could not all be looked at; the next round does");
        }
        while let Some((job, previous_owner)) = self.next_job().await? {
            self.start(&job, previous_owner).await?;
        }
        self.tell_news(news).await?;
        self.clear_folders().await?;
        // Last: what is wrong with the log must not keep a call from being recorded.
        self.sign_audit_head().await.context("the head of the audit log cannot be signed: verify the log")
    }

    async fn take_from_the_dead(&self) -> anyhow::Result<()> {
        let now_ms = self.store.now_ms().await?;
        for job in self.leased().await? {
            if job.lease.as_ref().is_none_or(|lease| lease.until_ms > now_ms) {
                continue;
            }
            self.kill_worker(&job.id, job.fence);
            match self.store.change_job(&job.id, |job, now_ms| job.expire(now_ms, random())).await {
                Ok((job, ())) => {
                    self.counts.expired.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(job = %job.id, kind = job.spec.kind.name(), fence = job.fence, state = job.state.name(), "the worker's lease ended without a word");
                    self.told(&job);
                }
                // It was heard of in this very moment.
                Err(ChangeError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn leased(&self) -> anyhow::Result<Vec<Job>> {
        let filter = JobFilter { states: vec![State::Running, State::Stopping], ..JobFilter::default() };
        Ok(self.store.jobs(&filter).await?)
    }

    /// A worker of ours whose job another node has, or that ended long ago, is stuck: nobody else can end it.
    async fn end_the_fenced(&self) -> anyhow::Result<()> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let workers: Vec<(String, u64)> = lock(&self.workers).keys().cloned().collect();
        let now_ms = self.store.now_ms().await?;
        for (id, fence) in workers {
            let Some(job) = self.store.job(&id).await? else { continue };
            let over = job.fence > fence || !job.state.is_leased();
            if over && now_ms - job.updated_at_ms > STUCK_MS {
                self.kill_worker(&id, fence);
            }
        }
        Ok(())
    }

    /// Leases the most urgent waiting job that fits on this machine; tells also who had it before.
    async fn next_job(self: &Arc<Self>) -> anyhow::Result<Option<(Job, String)>> {
        let filter = JobFilter { states: vec![State::Queued], ..JobFilter::default() };
        // Until there is none: of several offloaders that want the same job one gets it, and the others want the next.
        while !self.draining.load(Ordering::Acquire) {
            let mut load = Load::default();
            let at_work: Vec<Job> = self.leased().await?.into_iter().filter(|job| self.is_home(&job.last_owner)).collect();
            at_work.iter().for_each(|job| load.add(job.spec.kind));
            let waiting = self.store.jobs(&filter).await?;
            let now_ms = self.store.now_ms().await?;
            // Not known is no reason to wait.
            let free = archive::free_bytes(&self.settings.data).unwrap_or(u64::MAX);
            let roomy = |job: &Job| free >= self.free_min(job.spec.kind);
            // What a worker found says the same.
            let silent = |job: &&Job| !roomy(job) && self.may_take(job, now_ms) && !job.error.starts_with(NO_ROOM);
            for job in waiting.iter().filter(silent) {
                self.say_no_room(job).await?;
            }
            let ready: Vec<&Job> =
                waiting.iter().filter(|job| roomy(job) && self.may_take(job, now_ms) && self.media_is_here(job)).collect();
            let ready = self.not_too_early(ready).await?;
            // Not looked at each second while nothing waits.
            let memory = if ready.is_empty() { None } else { self.memory_left(&at_work) };
            let capacity = Capacity { workers_max: self.settings.workers_max, memory };
            let without_bound = Capacity { memory: None, ..capacity };
            let Some(job) = choose(ready.iter().copied(), &Kind::ALL, capacity, load, |job| self.bytes_of(job), now_ms) else {
                self.note_no_memory(choose(ready, &Kind::ALL, without_bound, load, |_| 0, now_ms));
                return Ok(None);
            };
            if let Some(leased) = self.lease(&job.id, &self.node).await? {
                return Ok(Some(leased));
            }
        }
        Ok(None)
    }

    /// Without the publications that wait for what is still being made, or for the recording to be published before its words.
    pub(crate) async fn not_too_early<'a>(&self, ready: Vec<&'a Job>) -> anyhow::Result<Vec<&'a Job>> {
        let mut due = Vec::with_capacity(ready.len());
        for job in ready {
            let mut over = true;
            let before = (job.spec.kind == Kind::PublishTranscript).then_some(Kind::PublishRecording);
            for kind in job.spec.kind.made_by().into_iter().chain(before) {
                let first = self.store.job_by_key(&job.spec.tenant, &job.spec.follow_up_key(kind)).await?;
                over &= first.is_none_or(|first| first.state.is_final());
            }
            due.extend(over.then_some(job));
        }
        Ok(due)
    }

    /// What the disk must have free where such work begins.
    pub(crate) fn free_min(&self, kind: Kind) -> u64 {
        let times = match kind {
            // Captions write nothing.
            Kind::Caption => 0,
            Kind::Record | Kind::PublishRecording | Kind::PublishTranscript => ROOM_TO_RECORD,
            Kind::Render | Kind::Transcribe => ROOM_TO_DERIVE,
        };
        self.settings.disk_free_min().saturating_mul(times)
    }

    /// Why such work does not begin, or go on, on this machine.
    pub(crate) fn no_room(&self, kind: Kind) -> String {
        format!(
            "{NO_ROOM} on the disk of {} (less than {} MiB free): free space there, or give the offloader another OFFLOADER_DATA; \
             it begins or goes on by itself once there is room",
            self.settings.data.display(),
            self.free_min(kind) / (1024 * 1024)
        )
    }

    async fn say_no_room(&self, job: &Job) -> anyhow::Result<()> {
        let why = self.no_room(job.spec.kind);
        let (job, news) = self.store.change_job(&job.id, |job, now_ms| Ok(job.waits_for(why.clone(), now_ms))).await?;
        if news {
            self.counts.no_room.fetch_add(1, Ordering::Relaxed);
            tracing::error!(job = %job.id, kind = job.spec.kind.name(), why, "a job waits");
            self.told(&job);
        }
        Ok(())
    }

    /// Leases one job for `owner`; `None` if somebody was faster. Tells also who had it before.
    pub async fn lease(&self, id: &str, owner: &str) -> anyhow::Result<Option<(Job, String)>> {
        let change = |job: &mut Job, now_ms| {
            let previous = job.last_owner.clone();
            job.lease(owner, now_ms).map(|()| previous)
        };
        match self.store.change_job(id, change).await {
            Ok((job, previous)) => {
                tracing::info!(job = %job.id, kind = job.spec.kind.name(), attempt = job.attempt, fence = job.fence, "job leased");
                self.told(&job);
                Ok(Some((job, previous)))
            }
            Err(ChangeError::Refused(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A derived job needs the recording's folder; if it is gone it is brought back first.
    pub(crate) fn media_is_here(self: &Arc<Self>, job: &Job) -> bool {
        let id = &job.spec.recording_id;
        let dir = self.recording_dir(id);
        // Without the seal it is what was left of a capture that another node ended.
        if !job.spec.kind.is_derived() || (dir.join(archive::MANIFEST_FILE).exists() && dir.join(archive::SEAL_FILE).exists()) {
            return true;
        }
        if lock(&self.fetching).insert(id.clone()) {
            let (app, id) = (Arc::clone(self), id.clone());
            tokio::spawn(async move {
                if let Err(error) = app.fetch_recording(&id).await {
                    tracing::warn!(recording = %id, error = format!("{error:#}"), "cannot bring the recording back from the object store yet");
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                lock(&app.fetching).remove(&id);
                app.wake.notify_one();
            });
        }
        false
    }

    async fn start(self: &Arc<Self>, job: &Job, previous_owner: String) -> anyhow::Result<()> {
        if let Some(error) = self.cannot_start(job) {
            return self.end_attempt(job, Outcome::Failed { error, retry: false }).await;
        }
        if let Err(error) = self.prepare_capture(job, &previous_owner).await {
            let error = format!("cannot go on where another offloader stopped: {error:#}");
            tracing::warn!(job = %job.id, error);
            return self.end_attempt(job, Outcome::Failed { error, retry: true }).await;
        }
        match self.spawn(job) {
            Ok(child) => {
                self.counts.spawned.fetch_add(1, Ordering::Relaxed);
                let key = (job.id.clone(), job.fence);
                lock(&self.workers).extend(child.id().map(|pid| (key, pid)));
                let (app, job) = (Arc::clone(self), job.clone());
                tokio::spawn(async move { app.wait_for(child, job).await });
                Ok(())
            }
            Err(error) => {
                let error = format!("cannot start {}: {error}; set OFFLOADER_WORKER_BIN", self.settings.worker_bin.display());
                tracing::error!(job = %job.id, error);
                self.end_attempt(job, Outcome::Failed { error, retry: true }).await
            }
        }
    }

    /// Why starting a worker would be in vain.
    fn cannot_start(&self, job: &Job) -> Option<String> {
        match job.spec.kind {
            Kind::Caption | Kind::Transcribe if self.model(job.spec.kind, &Vocabulary::default()).path.is_none() => Some(
                "no speech model is configured: set OFFLOADER_MODEL_PATH and OFFLOADER_MODEL_SHA256, then restart the offloader".into(),
            ),
            Kind::Record | Kind::Caption | Kind::Transcribe | Kind::Render | Kind::PublishRecording | Kind::PublishTranscript => None,
        }
    }

    async fn end_attempt(&self, job: &Job, outcome: Outcome) -> anyhow::Result<()> {
        let changed = self.store.change_job(&job.id, |job, now_ms| job.finish(job.fence, outcome.clone(), now_ms, random())).await;
        if let Ok((job, ())) = changed {
            self.told(&job);
        }
        Ok(())
    }

    fn spawn(&self, job: &Job) -> std::io::Result<Child> {
        let mut command = Command::new(&self.settings.worker_bin);
        command.args(arguments(&job.id, job.fence)).args(["--kind", job.spec.kind.name()]);
        command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("OFFLOADER_URL", lock(&self.url).as_str());
        command.env("OFFLOADER_TOKEN", self.tokens.for_worker(&job.id, job.fence));
        // A group of its own: ctrl-C at a terminal reaches us, and we tell the workers in order.
        command.stdin(Stdio::null()).kill_on_drop(false).process_group(0);
        if let Some(log) = self.open_job_log(job) {
            command.stdout(log.try_clone()?).stderr(log);
        }
        let child = command.spawn()?;
        let nice = match job.spec.kind {
            Kind::Record | Kind::PublishRecording | Kind::PublishTranscript => None,
            Kind::Caption => Some(NICE_CAPTION),
            Kind::Render | Kind::Transcribe => Some(NICE_DERIVED),
        };
        if let (Some(nice), Some(pid)) = (nice, child.id().and_then(pid)) {
            // Only politeness: a worker that runs at our own priority works too.
            let _ = rustix::process::setpriority_process(Some(pid), nice);
        }
        let ends_first = match job.spec.kind {
            Kind::Record | Kind::PublishRecording | Kind::PublishTranscript => None,
            Kind::Caption => Some(ENDS_FIRST_CAPTION),
            Kind::Render | Kind::Transcribe => Some(ENDS_FIRST_DERIVED),
        };
        if let (Some(score), Some(pid)) = (ends_first, child.id()) {
            memory::prefer_to_end(pid, score);
        }
        Ok(child)
    }

    async fn wait_for(self: Arc<Self>, mut child: Child, job: Job) {
        let how = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        lock(&self.workers).remove(&(job.id.clone(), job.fence));
        self.flush_copies(&job).await;
        match self.store.change_job(&job.id, |row, now_ms| row.exited(job.fence, &how, now_ms, random())).await {
            Ok((job, ())) => {
                self.counts.died.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(job = %job.id, kind = job.spec.kind.name(), how, state = job.state.name(), "a worker ended without finishing its job");
                self.told(&job);
            }
            // It had finished, or its lease was gone already.
            Err(ChangeError::Refused(_)) => {}
            Err(error) => tracing::warn!(job = %job.id, error = %error, "a worker's end could not be noted; its lease will run out"),
        }
        self.wake.notify_one();
    }

    /// Ends the process of this very attempt if it runs on this machine: one that is stuck must not hold on
    /// to the recording's folder.
    pub(crate) fn kill_worker(&self, job: &str, fence: u64) {
        let child = lock(&self.workers).get(&(job.to_owned(), fence)).copied();
        let Some(raw) = child.or_else(|| orphan(&self.settings, job, fence)) else { return };
        if let Some(pid) = pid(raw) {
            tracing::warn!(job, fence, pid = raw, "killing the worker that was not heard of");
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Asks our workers to close what they have, and waits for them.
    async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        let deadline = tokio::time::Instant::now() + DRAIN;
        for raw in lock(&self.workers).values() {
            if let Some(pid) = pid(*raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        while !lock(&self.workers).is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if self.store.is_shared()
            && let Err(error) = self.store.forget_node(&self.node).await
        {
            tracing::warn!(%error, "the other offloaders could not be told that this one ends; they notice");
        }
        let left = lock(&self.workers).len();
        if left > 0 {
            tracing::warn!(left, "workers that did not end in time go on by themselves until their leases end");
        }
    }
}

fn arguments(job: &str, fence: u64) -> [String; 4] {
    ["--job".into(), job.to_owned(), "--fence".into(), fence.to_string()]
}

fn pid(raw: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(raw).ok()?)
}

/// A worker that an earlier daemon on this machine started, found by its command line.
fn orphan(settings: &Settings, job: &str, fence: u64) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let raw = process.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        is_worker(&line, settings, job, fence).then_some(raw)
    })
}

fn is_worker(command_line: &[u8], settings: &Settings, job: &str, fence: u64) -> bool {
    let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let program = settings.worker_bin.as_os_str().as_encoded_bytes();
    let arguments = arguments(job, fence);
    // A script's interpreter stands before it.
    words.iter().take(3).any(|word| *word == program)
        && words.windows(arguments.len()).any(|window| window.iter().zip(&arguments).all(|(word, argument)| *word == argument.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_of_this_very_attempt_is_ours_to_kill() {
        let settings = Settings { worker_bin: "/opt/offload-worker".into(), ..Settings::default() };
        let line = |fence: &str| format!("/opt/offload-worker\0--job\0job-1\0--fence\0{fence}\0--kind\0record\0").into_bytes();
        assert!(is_worker(&line("3"), &settings, "job-1", 3));
        assert!(!is_worker(&line("33"), &settings, "job-1", 3));
        assert!(!is_worker(&line("3"), &settings, "job-2", 3));
        assert!(!is_worker(b"vim\0--job\0job-1\0--fence\x003\0", &settings, "job-1", 3));
    }
}
