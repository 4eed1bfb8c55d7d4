//! One part of the system as a child process: started, watched, started again when it dies, ended in order.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

/// A part that lived at least this long before it died is started again at once; otherwise the pause doubles.
const HEALTHY_AFTER: Duration = Duration::from_secs(20);
/// Longest pause between two starts: an operator who mends a setting should not wait long.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// After this long a part is told a second time: a media node with people in calls then ends them at once instead of draining.
const HURRY_AFTER: Duration = Duration::from_secs(3);
/// How long a part may take to end after SIGTERM before it is killed: a worker closes and syncs its open segments.
const END_MAX: Duration = Duration::from_secs(15);

/// What to start.
pub(crate) struct Part {
    /// Short name; also the log's name.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its settings.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Part {
    /// Runs the part until `stop` turns true; starts it again whenever it ends by itself.
    pub(crate) async fn supervise(self, logs: PathBuf, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut pause = Duration::from_millis(250);
        loop {
            let born = Instant::now();
            let mut child = self.start(&logs)?;
            let ended = tokio::select! {
                status = child.wait() => status?,
                () = told_to_stop(&mut stop) => return self.end(child).await,
            };
            if born.elapsed() > HEALTHY_AFTER {
                pause = Duration::from_millis(250);
            }
            eprintln!(
                "{} ended ({ended}); starting it again in {} ms. Its log: {}",
                self.name,
                pause.as_millis(),
                self.log(&logs).display()
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told_to_stop(&mut stop) => return Ok(()),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn log(&self, logs: &Path) -> PathBuf {
        logs.join(format!("{}.log", self.name))
    }

    fn start(&self, logs: &Path) -> anyhow::Result<Child> {
        let path = self.log(logs);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        // `setpriv --pdeathsig` (util-linux, on every Debian) ends the part when `conclave up` itself is killed, so
        // that no orphan keeps a port. Its own process group keeps a terminal's ctrl-C for us alone: we end the parts in order.
        Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(&self.program)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}; build it with `./x build`", self.program.display()))
    }

    async fn end(&self, mut child: Child) -> anyhow::Result<()> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // Already gone is as good as ended.
        let tell = || pid.map(|pid| kill_process(pid, Signal::TERM));
        tell();
        if tokio::time::timeout(HURRY_AFTER, child.wait()).await.is_err() {
            tell();
        }
        if tokio::time::timeout(END_MAX, child.wait()).await.is_err() {
            eprintln!("{} did not end within {} s and is killed", self.name, END_MAX.as_secs());
            child.kill().await?;
        }
        Ok(())
    }
}

/// Returns once the parts are to end; also when whoever could say so is gone.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await;
}
