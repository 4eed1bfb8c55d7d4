//! What workers of a job write, both of their outputs: one bounded file for each kind of work, on the machine that does it.
//!
//! Workers hold the file themselves, so that neither they nor their words depend on this process. A full one is copied aside and
//! emptied under their hands; they append.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use offloader_jobs::{Job, Kind};

use super::jobs::TENANT;
use super::runner;
use crate::app::{App, lock};
use crate::limits::JOB_LOG_BYTES_MAX;
use crate::settle::remove_dir;

/// Kinds of work whose words belong to a job, in the order in which they are done.
fn kinds(of: runner::Kind) -> [Kind; 3] {
    match of {
        runner::Kind::Recording => [Kind::Record, Kind::Render, Kind::PublishRecording],
        runner::Kind::Transcribing => [Kind::Record, Kind::Transcribe, Kind::PublishTranscript],
    }
}

impl App {
    fn job_logs(&self) -> PathBuf {
        self.settings.data.join("job-logs")
    }

    fn job_log(&self, recording_id: &str, kind: Kind) -> PathBuf {
        self.job_logs().join(recording_id).join(format!("{}.log", kind.name()))
    }

    /// Where a worker of this job writes; `None`: as everything does.
    pub(crate) fn open_job_log(&self, job: &Job) -> Option<File> {
        if self.calls.is_none() || job.spec.tenant != TENANT || job.spec.recording_id.is_empty() {
            return None;
        }
        let path = self.job_log(&job.spec.recording_id, job.spec.kind);
        let open = || {
            path.parent().map_or(Ok(()), crate::keys::private_dir)?;
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path)
        };
        open().inspect_err(|error| tracing::warn!(job = %job.id, %error, "no log for this job; its worker writes to ours")).ok()
    }

    /// What was written for a job, on this machine.
    pub(super) async fn read_job_log(&self, recording_id: &str, of: runner::Kind) -> io::Result<Vec<u8>> {
        let paths: Vec<PathBuf> = kinds(of).map(|kind| self.job_log(recording_id, kind)).into();
        tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            for path in paths.iter().flat_map(|path| [aside(path), path.clone()]) {
                match File::open(&path) {
                    Ok(file) => drop(file.take(2 * JOB_LOG_BYTES_MAX).read_to_end(&mut text)?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(text)
        })
        .await?
    }

    /// Keeps logs within their bounds, and only those of jobs that are there; passes on what is new where that is wanted.
    pub(super) async fn tend_job_logs(&self, pass_on: bool) -> anyhow::Result<()> {
        let mut folders = match tokio::fs::read_dir(self.job_logs()).await {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        while let Some(folder) = folders.next_entry().await? {
            let Ok(recording_id) = folder.file_name().into_string() else { continue };
            for kind in Kind::ALL {
                let path = self.job_log(&recording_id, kind);
                if pass_on {
                    self.pass_on(&path);
                }
                if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > JOB_LOG_BYTES_MAX) {
                    set_aside(&path)?;
                    lock(&self.passed_on).remove(&path);
                }
            }
            if !self.store.is_of_calls_job(&recording_id).await? {
                remove_dir(&folder.path()).await?;
                lock(&self.passed_on).retain(|path, _| !path.starts_with(folder.path()));
            }
        }
        Ok(())
    }

    /// What is new in a worker's log goes to our own output (`jobs.docker.output_logs`).
    fn pass_on(&self, path: &Path) {
        let Ok(mut file) = File::open(path) else { return };
        let mut passed = lock(&self.passed_on);
        let at = passed.entry(path.to_owned()).or_default();
        let mut new = Vec::new();
        let read = file.seek(SeekFrom::Start(*at)).and_then(|_| file.take(JOB_LOG_BYTES_MAX).read_to_end(&mut new));
        if read.is_ok() {
            *at += new.len() as u64;
            // Whoever cannot be told is not told.
            let _ = io::stderr().write_all(&new);
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The last of a full log goes aside, and it begins anew.
fn set_aside(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(JOB_LOG_BYTES_MAX)))?;
    let mut last = Vec::new();
    (&mut file).take(JOB_LOG_BYTES_MAX).read_to_end(&mut last)?;
    let mut old = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(aside(path))?;
    old.write_all(&last)?;
    file.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_under_a_workers_hands_stays_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.log");
        let mut worker = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let line = "x".repeat(1023) + "\n";
        for n in 0..5 {
            for _ in 0..(JOB_LOG_BYTES_MAX / 1024 + 10) {
                worker.write_all(line.as_bytes()).unwrap();
            }
            worker.write_all(format!("end of {n}\n").as_bytes()).unwrap();
            set_aside(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
            let old = std::fs::read_to_string(aside(&path)).unwrap();
            assert!(old.len() as u64 == JOB_LOG_BYTES_MAX && old.ends_with(&format!("end of {n}\n")));
        }
        worker.write_all(b"goes on\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "goes on\n");
    }
}
