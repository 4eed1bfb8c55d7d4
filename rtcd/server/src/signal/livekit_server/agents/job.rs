//! One job: a piece of work that a worker is offered, takes, and ends.

use std::collections::BTreeSet;
use std::time::Instant;

use livekit_protocol as lk;
use rtcd_core::ids::CallId;

use super::worker::{Group, WorkerNumber};
use crate::signal::seam::Moment;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A worker is asked whether it takes it.
    Offered {
        /// Which.
        worker: WorkerNumber,
        /// Then another one is asked.
        until: Instant,
    },
    /// A worker has it. `None`: its connection is lost, which does not end its agent.
    Running {
        /// Which.
        worker: Option<WorkerNumber>,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Job {
    /// Its room. `None`: a worker tries itself out, in whatever room it named.
    pub(super) call: Option<CallId>,
    pub(super) group: Group,
    /// As workers see it, its state included.
    pub(super) info: lk::Job,
    pub(super) stage: Stage,
    /// Workers that did not take it.
    pub(super) asked: BTreeSet<WorkerNumber>,
    /// The key of the worker that has it.
    pub(super) api_key: String,
    /// Where it is over: nothing more is to be said of it. Otherwise its worker may still tell how it ended.
    pub(super) settled: bool,
}

impl Job {
    /// The worker that has it or is asked.
    pub(super) fn worker(&self) -> Option<WorkerNumber> {
        match self.stage {
            Stage::Offered { worker, .. } => Some(worker),
            Stage::Running { worker } => worker,
        }
    }

    pub(super) fn state(&mut self) -> &mut lk::JobState {
        self.info.state.get_or_insert_default()
    }

    /// Its state as it changes now.
    pub(super) fn set_status(&mut self, now: Moment, status: lk::JobStatus, error: &str) {
        let at = nanoseconds(now);
        let ended = matches!(status, lk::JobStatus::JsSuccess | lk::JobStatus::JsFailed);
        let state = self.state();
        state.status = status.into();
        error.clone_into(&mut state.error);
        state.updated_at = at;
        if ended {
            state.ended_at = at;
        }
    }

    /// What servers are told of it: of room and participant only what names them.
    pub(super) fn shorten(&mut self) {
        if let Some(room) = self.info.room.take() {
            self.info.room = Some(lk::Room { sid: room.sid, name: room.name, ..lk::Room::default() });
        }
        if let Some(participant) = self.info.participant.take() {
            self.info.participant = Some(lk::ParticipantInfo {
                sid: participant.sid,
                identity: participant.identity,
                name: participant.name,
                ..lk::ParticipantInfo::default()
            });
        }
        // They stand in the dispatch.
        self.info.metadata = String::new();
        self.info.attributes.clear();
    }
}

/// LiveKit's times of jobs and dispatches.
pub(super) fn nanoseconds(now: Moment) -> i64 {
    now.unix_ms.saturating_mul(1_000_000)
}
