//! What may happen to a job, and what becomes of it.

use crate::limits::{ATTEMPTS_MAX, ERROR_BYTES_MAX, HEALTHY_MS, HELD_MS, LEASE_MS, failures_max};
use crate::{Job, Kind, Lease, State, backoff_ms, blocked_ms};

/// Something that may not happen to this job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Written with another fence than the latest lease's.
    #[error("stale fence: another attempt has this job, or nobody; stop working on it")]
    Stale,
    /// Not waiting, or not yet.
    #[error("the job is not waiting for a worker")]
    NotWaiting,
    /// The lease has not run out.
    #[error("the lease has not run out")]
    NotExpired,
    /// It has ended.
    #[error("the job has ended")]
    Ended,
}

/// How a worker's attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is done.
    Done {
        /// What came of it, as JSON.
        result: String,
    },
    /// Given back without blame: the worker was told to end by its machine.
    Released,
    /// It cannot be done now (no room on the disk, the server that is to get it is away): waits for as long as that takes.
    Blocked {
        /// What is missing and what to do.
        error: String,
    },
    /// It went wrong.
    Failed {
        /// What happened and what to do.
        error: String,
        /// Trying again may help.
        retry: bool,
    },
}

impl Job {
    /// A worker takes it.
    pub fn lease(&mut self, owner: &str, now_ms: i64) -> Result<(), Refused> {
        if self.state != State::Queued || self.run_after_ms > now_ms {
            return Err(Refused::NotWaiting);
        }
        self.state = State::Running;
        // What went wrong before is in the log.
        self.error.clear();
        self.attempt += 1;
        self.fence += 1;
        owner.clone_into(&mut self.last_owner);
        self.lease = Some(Lease { owner: owner.to_owned(), since_ms: now_ms, until_ms: now_ms + LEASE_MS });
        self.updated_at_ms = now_ms;
        Ok(())
    }

    /// Its worker is alive. Tells whether it was asked to stop.
    pub fn renew(&mut self, fence: u64, progress: f32, stats: &str, now_ms: i64) -> Result<bool, Refused> {
        self.owned(fence)?;
        if let Some(lease) = &mut self.lease {
            // Never earlier than promised, even if the store's clock was set back.
            lease.until_ms = lease.until_ms.max(now_ms + LEASE_MS);
        }
        if progress.is_finite() {
            self.progress = progress.clamp(0.0, 1.0);
        }
        if !stats.is_empty() {
            stats.clone_into(&mut self.stats);
        }
        self.updated_at_ms = now_ms;
        Ok(self.state == State::Stopping)
    }

    /// Its worker notes where the next attempt may go on.
    pub fn note_checkpoint(&mut self, fence: u64, checkpoint: &str, now_ms: i64) -> Result<(), Refused> {
        self.owned(fence)?;
        checkpoint.clone_into(&mut self.checkpoint);
        self.updated_at_ms = now_ms;
        Ok(())
    }

    /// Its worker says how it ended.
    pub fn finish(&mut self, fence: u64, outcome: Outcome, now_ms: i64, random: u32) -> Result<(), Refused> {
        self.owned(fence)?;
        let blocked = std::mem::take(&mut self.blocked);
        match outcome {
            Outcome::Done { result } => {
                self.result = result;
                self.error.clear();
                self.progress = 1.0;
                self.end(State::Done, now_ms);
            }
            Outcome::Released => self.again(String::new(), 0, now_ms),
            Outcome::Blocked { error } => {
                // An attempt that had no room is not one of those that are counted: a full disk ends no recording.
                self.attempt -= 1;
                self.blocked = blocked.saturating_add(1);
                self.again(error, blocked_ms(self.spec.kind, self.blocked), now_ms);
            }
            Outcome::Failed { error, retry: true } => self.fail(error, now_ms, random),
            Outcome::Failed { error, retry: false } => {
                self.error = bounded(error);
                self.end(State::Failed, now_ms);
            }
        }
        Ok(())
    }

    /// Nothing was heard of its worker until the lease ran out.
    pub fn expire(&mut self, now_ms: i64, random: u32) -> Result<(), Refused> {
        match &self.lease {
            Some(lease) if self.state.is_leased() && lease.until_ms <= now_ms => {}
            _ => return Err(Refused::NotExpired),
        }
        self.fail("the worker was not heard of until its lease ended".into(), now_ms, random);
        Ok(())
    }

    /// Its worker's process ended without a word.
    pub fn exited(&mut self, fence: u64, how: &str, now_ms: i64, random: u32) -> Result<(), Refused> {
        self.owned(fence)?;
        self.fail(format!("the worker process ended without finishing: {how}"), now_ms, random);
        Ok(())
    }

    /// Somebody wants it to end.
    pub fn stop(&mut self, reason: &str, now_ms: i64) {
        match self.state {
            State::Queued => {
                self.error = bounded(format!("stopped while it waited: {reason}"));
                self.end(self.stopped_state(), now_ms);
            }
            State::Running => {
                self.state = State::Stopping;
                self.updated_at_ms = now_ms;
            }
            State::Stopping | State::Done | State::Failed => {}
        }
    }

    /// It is not to be taken before [`Job::let_go`].
    pub fn hold(&mut self) {
        self.run_after_ms = HELD_MS;
    }

    /// Whether it is kept back.
    pub fn is_held(&self) -> bool {
        self.state == State::Queued && self.run_after_ms == HELD_MS
    }

    /// Its turn has come.
    pub fn let_go(&mut self, now_ms: i64) -> Result<(), Refused> {
        if !self.is_held() {
            return Err(Refused::NotWaiting);
        }
        self.run_after_ms = now_ms;
        self.updated_at_ms = now_ms;
        Ok(())
    }

    /// More is wanted of a capture that has not been asked to end.
    pub fn extend(&mut self, params: String, now_ms: i64) -> Result<(), Refused> {
        match self.state {
            State::Queued | State::Running => {
                self.spec.params = params;
                self.updated_at_ms = now_ms;
                Ok(())
            }
            State::Stopping | State::Done | State::Failed => Err(Refused::Ended),
        }
    }

    /// Waits, and this is why. True if that is news.
    pub fn waits_for(&mut self, why: String, now_ms: i64) -> bool {
        let why = bounded(why);
        let news = self.state == State::Queued && self.error != why;
        if news {
            self.error = why;
            self.updated_at_ms = now_ms;
        }
        news
    }

    /// It ended, but what had to follow (sealing, storing) cannot be done.
    pub fn spoil(&mut self, error: String, now_ms: i64) {
        self.error = bounded(error);
        self.end(State::Failed, now_ms);
    }

    /// Whether the job is given up when the attempt that runs fails, as far as it has got.
    pub fn is_last_try(&self) -> bool {
        self.failures + 1 >= failures_max(self.spec.kind) || self.attempt >= ATTEMPTS_MAX
    }

    /// Whether the attempt that fails now got further than those before it.
    fn got_on(&self, now_ms: i64) -> bool {
        match self.spec.kind {
            // The call goes on meanwhile: nobody has to go back to what was captured, or captioned, of it.
            Kind::Record | Kind::Caption => self.lease.as_ref().is_some_and(|lease| now_ms - lease.since_ms >= HEALTHY_MS),
            // Without a checkpoint everything begins anew, and ends at the same place.
            Kind::Render | Kind::Transcribe | Kind::PublishRecording | Kind::PublishTranscript => self.checkpoint != self.failed_checkpoint,
        }
    }

    /// A stopped recording is a whole one; a stopped rendering is none.
    fn stopped_state(&self) -> State {
        if self.spec.kind.is_derived() { State::Failed } else { State::Done }
    }

    fn owned(&self, fence: u64) -> Result<(), Refused> {
        if self.state.is_final() && fence == self.fence {
            return Err(Refused::Ended);
        }
        if self.state.is_leased() && fence == self.fence { Ok(()) } else { Err(Refused::Stale) }
    }

    fn fail(&mut self, error: String, now_ms: i64, random: u32) {
        if self.got_on(now_ms) {
            self.failures = 0;
        }
        self.blocked = 0;
        self.checkpoint.clone_into(&mut self.failed_checkpoint);
        self.failures += 1;
        if self.failures >= failures_max(self.spec.kind) {
            self.give_up(&error, now_ms);
        } else {
            let wait = backoff_ms(self.spec.kind, self.failures, random);
            self.again(error, wait, now_ms);
        }
    }

    fn again(&mut self, error: String, wait_ms: i64, now_ms: i64) {
        self.error = bounded(error);
        if self.state == State::Stopping {
            // A stop is never lost: nobody has to take it only to be told.
            self.end(self.stopped_state(), now_ms);
        } else if self.attempt >= ATTEMPTS_MAX {
            let error = std::mem::take(&mut self.error);
            self.give_up(if error.is_empty() { "each machine that had it gave it back" } else { &error }, now_ms);
        } else {
            self.state = State::Queued;
            self.lease = None;
            self.run_after_ms = now_ms + wait_ms;
            self.updated_at_ms = now_ms;
        }
    }

    fn give_up(&mut self, error: &str, now_ms: i64) {
        let failures = if self.failures > 1 { format!(", the last {} without getting on", self.failures) } else { String::new() };
        self.error = bounded(format!("given up after {} attempts{failures}: {error}", self.attempt));
        self.end(State::Failed, now_ms);
    }

    fn end(&mut self, state: State, now_ms: i64) {
        self.state = state;
        self.lease = None;
        self.updated_at_ms = now_ms;
    }
}

impl Job {
    /// Asked for with the same key: is it the same thing?
    pub fn same_request(&self, kind: Kind, call_id: &str) -> bool {
        self.spec.kind == kind && self.spec.call_id == call_id
    }
}

fn bounded(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
    error
}
