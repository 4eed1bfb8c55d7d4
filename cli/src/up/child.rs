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
/// Pause before a part is started again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
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
    /// Runs the part until `stop` turns true; starts it again whenever it ends by itself. An error is that of the very first
    /// start, which an operator can do something about at once.
    pub(crate) async fn supervise(self, logs: PathBuf, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        self.supervise_telling(logs, stop, |text| eprintln!("{text}")).await
    }

    async fn supervise_telling(self, logs: PathBuf, mut stop: watch::Receiver<bool>, tell: impl Fn(String)) -> anyhow::Result<()> {
        let mut pause = PAUSE_MIN;
        let mut started = Some(self.start(&logs)?);
        loop {
            let born = Instant::now();
            let what = match started.take().map_or_else(|| self.start(&logs), Ok) {
                Ok(mut child) => tokio::select! {
                    status = child.wait() => status.map_or_else(|error| format!("is lost ({error})"), |status| format!("ended ({status})")),
                    () = told_to_stop(&mut stop) => return self.end(child).await,
                },
                // A full disk, too many processes, a program that is just being replaced: passes, and a part given up does not.
                Err(error) => format!("could not be started ({error:#})"),
            };
            if born.elapsed() > HEALTHY_AFTER {
                pause = PAUSE_MIN;
            }
            tell(format!("{} {what}; starting it again in {} ms. Its log: {}", self.name, pause.as_millis(), self.log(&logs).display()));
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
        // Somebody who cleans up while we run takes the folder along.
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::sync::mpsc;

    use super::*;

    /// A part whose program is this shell text.
    fn stub(dir: &Path, text: &str) -> Part {
        let program = dir.join("stub");
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Part { name: "stub", program, environment: vec![("HERE", dir.display().to_string())] }
    }

    #[tokio::test]
    async fn part_whose_restart_fails_is_told_of_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        // At its first life it takes the folder of its log away and leaves something else there: the next start cannot write its log.
        let part = stub(dir.path(), "test -e $HERE/second && exec sleep 1000; touch $HERE/second; rm -r $HERE/logs; touch $HERE/logs");
        let (stop, stopping) = watch::channel(false);
        let (tell, mut told) = mpsc::unbounded_channel();
        let running = tokio::spawn(part.supervise_telling(logs.clone(), stopping, move |text| tell.send(text).unwrap()));
        let mut next = async || tokio::time::timeout(Duration::from_secs(60), told.recv()).await.unwrap().unwrap();
        assert!(next().await.starts_with("stub ended"));
        let text = next().await;
        assert!(text.starts_with("stub could not be started (cannot make"), "{text}");
        // What was in the way goes, the folder is made anew, and the part lives.
        std::fs::remove_file(&logs).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !logs.join("stub.log").exists() {
            assert!(Instant::now() < deadline, "it was given up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.send(true).unwrap();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn part_that_cannot_be_started_at_all_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::write(&logs, "").unwrap();
        let (_stop, stopping) = watch::channel(false);
        let error = stub(dir.path(), "true").supervise(logs, stopping).await.unwrap_err();
        assert!(format!("{error:#}").contains("logs"), "{error:#}");
    }
}
