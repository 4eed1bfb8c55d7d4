//! Who is wanted where, and which worker gets which job: LiveKit's dispatch of agents as a state machine.
//!
//! It is told what workers say, what happens in rooms, what servers ask and what time it is, and answers with messages for workers. It
//! opens no socket, reads no clock and signs nothing. As with LiveKit's own server: a job is made when a room is made, somebody joins
//! or first publishes, or an agent is dispatched; where no worker takes it then, nobody is sent later; and a worker's lost connection
//! does not end the jobs it runs, whose agents have connections of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use livekit_protocol as lk;
use lk::server_message::Message as Told;
use lk::worker_message::Message as Said;
use rtcd_core::ids::CallId;

use super::job::{Job, Stage, nanoseconds};
use super::news::{News, gets_agents};
use super::token::Agent;
use super::worker::{Group, Worker, WorkerNumber, choose};
use crate::limits::{
    AGENT_ANSWER_TIME, AGENT_DISPATCHES_MAX, AGENT_ERROR_LEN_MAX, AGENT_JOBS_MAX, AGENT_JOBS_TOLD_MAX, AGENT_LEAVE_TIME,
    AGENT_MIGRATED_MAX, DISPLAY_NAME_LEN_MAX, METADATA_LEN_MAX, ROOM_TEXT_LEN_MAX,
};
use crate::signal::livekit::{attributes_len, sid_of};
use crate::signal::seam::{Moment, RoomFault};

/// Random bits.
pub type Chance = Box<dyn FnMut() -> u128 + Send>;

/// What follows.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// A worker is told something.
    Tell(WorkerNumber, Box<Told>),
    /// A worker gets a job, with a token for its agent that is still to be signed.
    Assign(WorkerNumber, Box<Assigned>),
    /// A worker has nothing to do here any more: this node is being emptied.
    Dismiss(WorkerNumber),
    /// An agent did not leave by itself.
    Remove(Box<Removal>),
}

/// A job with the agent that it sends.
#[derive(Debug, PartialEq)]
pub struct Assigned {
    /// The job.
    pub job: lk::Job,
    /// The agent.
    pub agent: Agent,
}

/// Somebody to be put out.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The room's call.
    pub call: CallId,
    /// The room.
    pub room: String,
    /// Who.
    pub identity: String,
}

/// What became of jobs and workers, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounters {
    /// Workers that registered.
    pub registered: u64,
    /// Times that a worker was asked to take a job.
    pub offered: u64,
    /// Jobs that a worker took.
    pub assigned: u64,
    /// Offers that a worker declined.
    pub declined: u64,
    /// Offers that a worker left unanswered, or whose worker went.
    pub unanswered: u64,
    /// Jobs that nobody took.
    pub untaken: u64,
    /// Jobs that ended well.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
}

impl AgentCounters {
    /// With their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("registered", self.registered),
            ("offered", self.offered),
            ("assigned", self.assigned),
            ("declined", self.declined),
            ("unanswered", self.unanswered),
            ("untaken", self.untaken),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
        ]
    }
}

/// A room in which agents may be wanted.
#[derive(Debug)]
struct Room {
    name: String,
    /// In order of asking.
    dispatches: Vec<Dispatch>,
    /// Who is in it, by identity.
    present: HashMap<String, Present>,
    /// Agents that were put in motion for it, by identity: their jobs.
    agents: HashMap<String, String>,
}

impl Room {
    fn dispatch_of(&mut self, job: &Job) -> Option<&mut Dispatch> {
        self.dispatches.iter_mut().find(|dispatch| dispatch.info.id == job.info.dispatch_id)
    }
}

#[derive(Debug)]
struct Present {
    sid: String,
    /// Workers for publishers were asked.
    published: bool,
}

#[derive(Debug)]
struct Dispatch {
    /// Its state holds no jobs.
    info: lk::AgentDispatch,
    /// Jobs that a worker took, in order; the latest.
    jobs: VecDeque<String>,
}

/// An agent that has been asked to leave.
#[derive(Debug)]
struct Leaving {
    until: std::time::Instant,
    sid: String,
    removal: Removal,
}

/// See the module.
pub struct Dispatcher {
    chance: Chance,
    workers: BTreeMap<WorkerNumber, Worker>,
    rooms: HashMap<CallId, Room>,
    /// Those that are offered or run, by id.
    jobs: HashMap<String, Job>,
    /// Those that are over and still told of.
    ended: HashMap<String, Job>,
    leaving: Vec<Leaving>,
    draining: bool,
    counters: AgentCounters,
    out: VecDeque<Output>,
}

impl Dispatcher {
    /// Without workers and rooms.
    #[must_use]
    pub fn new(chance: Chance) -> Self {
        Self {
            chance,
            workers: BTreeMap::new(),
            rooms: HashMap::new(),
            jobs: HashMap::new(),
            ended: HashMap::new(),
            leaving: Vec::new(),
            draining: false,
            counters: AgentCounters::default(),
            out: VecDeque::new(),
        }
    }

    /// Told: a connection's first message, and whose key its token has. Gives the worker's id.
    ///
    /// # Errors
    /// What is wrong with it; the connection is to be closed.
    pub fn handle_register(
        &mut self,
        number: WorkerNumber,
        api_key: String,
        request: lk::RegisterWorkerRequest,
    ) -> Result<String, &'static str> {
        let id = self.new_id("AW_");
        let worker = Worker::new(id.clone(), api_key, request)?;
        tracing::info!(worker = id, kind = worker.group.kind.as_str_name(), "a worker of agents has registered");
        self.workers.insert(number, worker);
        self.counters.registered += 1;
        Ok(id)
    }

    /// Told: what a registered worker says.
    ///
    /// # Errors
    /// It breaks the protocol; the connection is to be closed.
    pub fn handle_message(&mut self, now: Moment, number: WorkerNumber, said: Said) -> Result<(), &'static str> {
        match said {
            Said::Register(_) => return Err("a worker registers once; open another connection"),
            Said::Availability(answer) => self.handle_answer(now, number, answer),
            Said::UpdateWorker(update) => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.update(&update);
                }
            }
            Said::UpdateJob(update) => self.handle_job_update(now, number, &update),
            Said::Ping(ping) => {
                let pong = lk::WorkerPong { last_timestamp: ping.timestamp, timestamp: now.unix_ms };
                self.out.push_back(Output::Tell(number, Box::new(Told::Pong(pong))));
            }
            Said::SimulateJob(simulated) => self.handle_simulated(now, number, simulated)?,
            Said::MigrateJob(migrated) => self.handle_migrated(number, &migrated),
        }
        Ok(())
    }

    /// Told: a worker's connection is gone. Its agents stay; what it was asked is asked of another.
    pub fn handle_gone(&mut self, now: Moment, number: WorkerNumber) {
        let Some(worker) = self.workers.remove(&number) else { return };
        let of_it = self.jobs.iter().filter(|(_, job)| job.worker() == Some(number)).map(|(id, _)| id.clone());
        let of_it: Vec<String> = of_it.collect();
        tracing::info!(worker = worker.id, jobs = of_it.len(), "a worker of agents has gone");
        for id in of_it {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            match job.stage {
                Stage::Offered { .. } => {
                    self.counters.unanswered += 1;
                    self.offer(now, &id);
                }
                Stage::Running { .. } if job.call.is_none() => drop(self.jobs.remove(&id)),
                Stage::Running { .. } => job.stage = Stage::Running { worker: None },
            }
        }
    }

    /// Told: what happened in a room.
    pub fn handle_news(&mut self, now: Moment, news: News) {
        match news {
            News::Opened { call, room, wanted } => {
                self.rooms.insert(
                    call.clone(),
                    Room { name: room.name.clone(), dispatches: Vec::new(), present: HashMap::new(), agents: HashMap::new() },
                );
                // Where none is named, those without a name come, to every room.
                let wanted = if wanted.is_empty() { vec![lk::RoomAgentDispatch::default()] } else { wanted };
                for one in wanted {
                    let dispatch = lk::AgentDispatch {
                        id: self.new_id("AD_"),
                        agent_name: one.agent_name,
                        room: room.name.clone(),
                        metadata: one.metadata,
                        restart_policy: one.restart_policy,
                        deployment: one.deployment,
                        attributes: one.attributes,
                        state: None,
                    };
                    self.dispatch(now, &call, dispatch, &room, &[]);
                }
            }
            News::Joined { call, room, participant } => {
                let Some(known) = self.rooms.get_mut(&call) else { return };
                known.present.insert(participant.identity.clone(), Present { sid: participant.sid.clone(), published: false });
                self.launch_for(now, &call, lk::JobType::JtParticipant, &room, &participant);
            }
            News::Published { call, room, participant } => {
                let present = self.rooms.get_mut(&call).and_then(|known| known.present.get_mut(&participant.identity));
                let first =
                    present.is_some_and(|present| present.sid == participant.sid && !std::mem::replace(&mut present.published, true));
                if first {
                    self.launch_for(now, &call, lk::JobType::JtPublisher, &room, &participant);
                }
            }
            News::Dispatched { call, room, participants, dispatch } => self.dispatch(now, &call, *dispatch, &room, &participants),
            News::Left { call, identity, sid, replaced } => self.handle_left(now, &call, &identity, &sid, replaced),
            News::Ended { call } => self.handle_ended(now, &call),
        }
    }

    /// Told: the time, about once a second.
    pub fn handle_time(&mut self, now: Moment) {
        let late = self.jobs.iter().filter(|(_, job)| matches!(job.stage, Stage::Offered { until, .. } if until <= now.instant));
        for id in late.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.counters.unanswered += 1;
            self.offer(now, &id);
        }
        let due = self.leaving.extract_if(.., |leaving| leaving.until <= now.instant).collect::<Vec<_>>();
        for leaving in due {
            let room = self.rooms.get(&leaving.removal.call);
            if room.and_then(|room| room.present.get(&leaving.removal.identity)).is_some_and(|present| present.sid == leaving.sid) {
                tracing::info!(call = ?leaving.removal.call, "an agent whose dispatch was deleted did not leave and is put out");
                self.out.push_back(Output::Remove(Box::new(leaving.removal)));
            }
        }
        if self.draining {
            let busy: BTreeSet<WorkerNumber> = self.jobs.values().filter_map(Job::worker).collect();
            let idle = self.workers.keys().filter(|number| !busy.contains(number));
            self.out.extend(idle.map(|number| Output::Dismiss(*number)));
        }
    }

    /// Told: the node takes nobody new, or does again. Workers without jobs are sent away to connect elsewhere; those whose agents are in
    /// rooms stay as long as these. Heeded when the time is told.
    pub fn handle_drain(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Told: an agent is no longer wanted. Its jobs end.
    ///
    /// # Errors
    /// There is no such room or dispatch.
    pub fn handle_delete(&mut self, now: Moment, call: &CallId, id: &str) -> Result<lk::AgentDispatch, RoomFault> {
        let room = self.rooms.get(call).ok_or(RoomFault::NoRoom)?;
        let at = room.dispatches.iter().position(|dispatch| dispatch.info.id == id).ok_or(RoomFault::NoDispatch)?;
        for job in self.jobs_of(call, Some(id)) {
            let identity = self.jobs.get(&job).and_then(|job| job.info.state.as_ref()).map(|state| state.participant_identity.clone());
            self.terminate(now, &job, lk::JobStatus::JsSuccess, "");
            // Nobody's, while its worker is only asked.
            let Some(identity) = identity else { continue };
            let Some(room) = self.rooms.get(call) else { continue };
            let Some(present) = room.present.get(&identity) else { continue };
            let removal = Removal { call: call.clone(), room: room.name.clone(), identity };
            self.leaving.push(Leaving { until: now.instant + AGENT_LEAVE_TIME, sid: present.sid.clone(), removal });
        }
        let mut dispatch = self.rooms.get_mut(call).ok_or(RoomFault::NoRoom)?.dispatches.remove(at);
        dispatch.info.state.get_or_insert_default().deleted_at = nanoseconds(now);
        let told = self.told(&dispatch);
        dispatch.jobs.iter().for_each(|job| drop(self.ended.remove(job)));
        Ok(told)
    }

    /// The dispatches of a room, with their jobs; of this id, or all.
    ///
    /// # Errors
    /// There is no such room.
    pub fn list(&self, call: &CallId, id: &str) -> Result<Vec<lk::AgentDispatch>, RoomFault> {
        let room = self.rooms.get(call).ok_or(RoomFault::NoRoom)?;
        let wanted = room.dispatches.iter().filter(|dispatch| id.is_empty() || dispatch.info.id == id);
        Ok(wanted.map(|dispatch| self.told(dispatch)).collect())
    }

    /// Whether one more agent may be wanted in a room.
    ///
    /// # Errors
    /// There is no such room, or it has too many.
    pub fn check_room_for(&self, call: &CallId) -> Result<(), RoomFault> {
        match self.rooms.get(call).ok_or(RoomFault::NoRoom)?.dispatches.len() >= AGENT_DISPATCHES_MAX {
            true => Err(RoomFault::TooMuch("the number of agents of one room")),
            false => Ok(()),
        }
    }

    /// Asked: what follows, one after the other.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// A new id.
    pub fn new_id(&mut self, prefix: &str) -> String {
        sid_of(prefix, (self.chance)())
    }

    /// Registered workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Jobs that are offered or run.
    #[must_use]
    pub fn live_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Nothing of rooms and jobs is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.jobs.is_empty() && self.ended.is_empty() && self.leaving.is_empty()
    }

    /// For metrics.
    #[must_use]
    pub fn counters(&self) -> AgentCounters {
        self.counters
    }

    /// An agent is wanted in a room from now on.
    fn dispatch(&mut self, now: Moment, call: &CallId, mut info: lk::AgentDispatch, room: &lk::Room, present: &[lk::ParticipantInfo]) {
        let Some(known) = self.rooms.get_mut(call) else { return };
        if known.dispatches.len() >= AGENT_DISPATCHES_MAX {
            return;
        }
        info.state = Some(lk::AgentDispatchState { created_at: nanoseconds(now), ..lk::AgentDispatchState::default() });
        let id = info.id.clone();
        known.dispatches.push(Dispatch { info, jobs: VecDeque::new() });
        self.launch(now, call, &id, lk::JobType::JtRoom, room, None);
        for participant in present.iter().filter(|participant| gets_agents(participant)) {
            if participant.is_publisher {
                self.launch(now, call, &id, lk::JobType::JtPublisher, room, Some(participant));
            }
            self.launch(now, call, &id, lk::JobType::JtParticipant, room, Some(participant));
        }
    }

    /// Somebody is there for whom agents may be wanted.
    fn launch_for(&mut self, now: Moment, call: &CallId, kind: lk::JobType, room: &lk::Room, participant: &lk::ParticipantInfo) {
        if !gets_agents(participant) {
            return;
        }
        let Some(known) = self.rooms.get(call) else { return };
        let dispatches: Vec<String> = known.dispatches.iter().map(|dispatch| dispatch.info.id.clone()).collect();
        for dispatch in dispatches {
            self.launch(now, call, &dispatch, kind, room, Some(participant));
        }
    }

    /// A job for each group of workers that serve the dispatch: workers of different namespaces do different things.
    fn launch(
        &mut self,
        now: Moment,
        call: &CallId,
        dispatch: &str,
        kind: lk::JobType,
        room: &lk::Room,
        participant: Option<&lk::ParticipantInfo>,
    ) {
        if self.draining {
            return;
        }
        let Some(known) = self.rooms.get(call) else { return };
        let Some(info) = known.dispatches.iter().map(|known| &known.info).find(|info| info.id == dispatch) else { return };
        let serves = |group: &&Group| group.kind == kind && group.agent_name == info.agent_name && group.deployment == info.deployment;
        let groups: BTreeSet<Group> = self.workers.values().map(|worker| &worker.group).filter(serves).cloned().collect();
        let info = lk::Job {
            dispatch_id: info.id.clone(),
            r#type: kind.into(),
            room: Some(room.clone()),
            participant: participant.cloned(),
            metadata: info.metadata.clone(),
            attributes: info.attributes.clone(),
            ..lk::Job::default()
        };
        for group in groups {
            self.start(now, Some(call.clone()), group, info.clone(), None);
        }
    }

    /// A new job. `only`: for this worker and no other.
    fn start(&mut self, now: Moment, call: Option<CallId>, group: Group, info: lk::Job, only: Option<WorkerNumber>) {
        if self.live_jobs() >= AGENT_JOBS_MAX {
            tracing::warn!(?call, "no agent is sent: {AGENT_JOBS_MAX} jobs of agents go on already");
            self.counters.untaken += 1;
            return;
        }
        let id = self.new_id("AJ_");
        #[expect(deprecated, reason = "older workers read it")]
        let info = lk::Job {
            id: id.clone(),
            agent_name: group.agent_name.clone(),
            namespace: group.namespace.clone(),
            deployment: group.deployment.clone(),
            ..info
        };
        let job = Job {
            call,
            group,
            info,
            stage: Stage::Running { worker: None },
            asked: BTreeSet::new(),
            api_key: String::new(),
            settled: false,
        };
        self.jobs.insert(id.clone(), job);
        match only {
            Some(worker) => self.ask(now, &id, worker),
            None => self.offer(now, &id),
        }
    }

    /// Asks the next worker. Where there is none the job is given up.
    fn offer(&mut self, now: Moment, id: &str) {
        // 53 bits: all that the number holds.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let chance = ((self.chance)() >> 75) as f64 / (1_u64 << 53) as f64;
        let Some(job) = self.jobs.get_mut(id) else { return };
        if let Stage::Offered { worker, .. } = job.stage {
            job.asked.insert(worker);
        }
        let next = if job.call.is_some() && !self.draining { choose(self.workers.iter(), &job.group, &job.asked, chance) } else { None };
        match next {
            Some(worker) => self.ask(now, id, worker),
            None => {
                let (call, kind) = (job.call.clone(), job.group.kind.as_str_name());
                tracing::info!(?call, job = id, kind, asked = job.asked.len(), "no worker takes a job: no agent is sent");
                self.counters.untaken += 1;
                self.jobs.remove(id);
            }
        }
    }

    fn ask(&mut self, now: Moment, id: &str, number: WorkerNumber) {
        let (Some(job), Some(worker)) = (self.jobs.get_mut(id), self.workers.get(&number)) else { return };
        job.stage = Stage::Offered { worker: number, until: now.instant + AGENT_ANSWER_TIME };
        job.api_key.clone_from(&worker.api_key);
        let at = nanoseconds(now);
        job.info.state = Some(lk::JobState {
            status: lk::JobStatus::JsRunning.into(),
            worker_id: worker.id.clone(),
            started_at: at,
            updated_at: at,
            ..lk::JobState::default()
        });
        self.counters.offered += 1;
        let offer = lk::AvailabilityRequest { job: Some(job.info.clone()), resuming: false };
        self.out.push_back(Output::Tell(number, Box::new(Told::Availability(offer))));
    }

    /// A worker takes a job or not.
    fn handle_answer(&mut self, now: Moment, number: WorkerNumber, answer: lk::AvailabilityResponse) {
        let Some(job) = self.jobs.get_mut(&answer.job_id) else { return };
        // Too late, or of somebody else.
        if !matches!(job.stage, Stage::Offered { worker, .. } if worker == number) {
            return;
        }
        let id = answer.job_id.clone();
        if answer.terminate {
            self.counters.declined += 1;
            job.set_status(now, lk::JobStatus::JsSuccess, "");
            job.shorten();
            self.remember(&id);
            return self.end(&id, true);
        }
        if !answer.available {
            self.counters.declined += 1;
            return self.offer(now, &id);
        }
        let Some(worker) = self.workers.get(&number) else { return };
        if is_too_long(&answer) {
            tracing::warn!(
                worker = worker.id,
                job = id,
                "an agent's identity, name, metadata or attributes exceed limits: another worker is asked"
            );
            self.counters.declined += 1;
            return self.offer(now, &id);
        }
        let identity = if answer.participant_identity.is_empty() { format!("agent-{id}") } else { answer.participant_identity };
        job.stage = Stage::Running { worker: Some(number) };
        job.state().participant_identity.clone_from(&identity);
        let agent = Agent {
            api_key: worker.api_key.clone(),
            room: job.info.room.as_ref().map(|room| room.name.clone()).unwrap_or_default(),
            agent_name: worker.group.agent_name.clone(),
            identity: identity.clone(),
            name: answer.participant_name,
            metadata: answer.participant_metadata,
            attributes: answer.participant_attributes,
            permission: worker.permission.clone(),
        };
        tracing::info!(call = ?job.call, worker = worker.id, job = id, "a worker takes a job");
        self.out.push_back(Output::Assign(number, Box::new(Assigned { job: job.info.clone(), agent })));
        self.counters.assigned += 1;
        job.shorten();
        if let Some(room) = job.call.as_ref().and_then(|call| self.rooms.get_mut(call)) {
            room.agents.insert(identity, id.clone());
        }
        self.remember(&id);
    }

    /// A job that a worker took is told of to servers from now on.
    fn remember(&mut self, id: &str) {
        let Some(job) = self.jobs.get(id) else { return };
        let room = job.call.as_ref().and_then(|call| self.rooms.get_mut(call));
        if let Some(dispatch) = room.and_then(|room| room.dispatch_of(job)) {
            dispatch.jobs.push_back(id.to_owned());
        }
    }

    /// A job is over. Servers are told of the latest; nobody asks for one that a worker only tried out. `settled`: how it ended is known.
    fn end(&mut self, id: &str, settled: bool) {
        let Some(job) = self.jobs.remove(id) else { return };
        let Some(room) = job.call.as_ref().and_then(|call| self.rooms.get_mut(call)) else { return };
        room.agents.retain(|_, job| job != id);
        let Some(dispatch) = room.dispatch_of(&job) else { return };
        self.ended.insert(id.to_owned(), Job { settled, ..job });
        if dispatch.jobs.iter().filter(|id| self.ended.contains_key(*id)).count() > AGENT_JOBS_TOLD_MAX
            && let Some(oldest) = dispatch.jobs.iter().position(|id| self.ended.contains_key(id))
            && let Some(oldest) = dispatch.jobs.remove(oldest)
        {
            self.ended.remove(&oldest);
        }
    }

    /// A worker says how a job goes.
    fn handle_job_update(&mut self, now: Moment, number: WorkerNumber, update: &lk::UpdateJobStatus) {
        let Some(worker) = self.workers.get(&number) else { return };
        let ended = matches!(update.status(), lk::JobStatus::JsSuccess | lk::JobStatus::JsFailed);
        let error: String = update.error.chars().take(AGENT_ERROR_LEN_MAX).collect();
        if let Some(job) = self.jobs.get_mut(&update.job_id) {
            if job.stage == (Stage::Running { worker: Some(number) }) {
                job.set_status(now, update.status(), &error);
                if ended {
                    self.count_end(update.status());
                    self.end(&update.job_id, true);
                }
            }
        } else if let Some(job) = self.ended.get_mut(&update.job_id) {
            // The agent had left; how its job ended only the worker knows.
            if ended && !job.settled && job.info.state.as_ref().is_some_and(|state| state.worker_id == worker.id) {
                job.set_status(now, update.status(), &error);
                job.settled = true;
            }
        }
    }

    /// A job of a worker's own making, by which it is tried out.
    fn handle_simulated(&mut self, now: Moment, number: WorkerNumber, simulated: lk::SimulateJobRequest) -> Result<(), &'static str> {
        let Some(worker) = self.workers.get(&number) else { return Ok(()) };
        let Some(room) = simulated.room.filter(|room| !room.name.is_empty() && room.name.len() <= ROOM_TEXT_LEN_MAX) else {
            return Err("a job that is simulated needs a room with a name of at most 256 bytes");
        };
        let kind = if simulated.participant.is_some() { lk::JobType::JtPublisher } else { lk::JobType::JtRoom };
        let info = lk::Job { r#type: kind.into(), room: Some(room), participant: simulated.participant, ..lk::Job::default() };
        let group = worker.group.clone();
        self.start(now, None, group, info, Some(number));
        Ok(())
    }

    /// A worker that connected again names the jobs that it still runs.
    fn handle_migrated(&mut self, number: WorkerNumber, migrated: &lk::MigrateJobRequest) {
        let Some(worker) = self.workers.get(&number) else { return };
        for id in migrated.job_ids.iter().take(AGENT_MIGRATED_MAX) {
            if let Some(job) = self.jobs.get_mut(id)
                && job.stage == (Stage::Running { worker: None })
                && job.group == worker.group
                && job.api_key == worker.api_key
            {
                job.stage = Stage::Running { worker: Some(number) };
                job.state().worker_id.clone_from(&worker.id);
            }
        }
    }

    fn handle_left(&mut self, now: Moment, call: &CallId, identity: &str, sid: &str, replaced: bool) {
        let Some(room) = self.rooms.get_mut(call) else { return };
        if room.present.get(identity).is_some_and(|present| present.sid == sid) {
            room.present.remove(identity);
        }
        self.leaving.retain(|leaving| leaving.sid != sid);
        // An agent that lost its connection and comes with a new one is still at work.
        if replaced {
            return;
        }
        if let Some(job) = room.agents.remove(identity) {
            self.terminate(now, &job, lk::JobStatus::JsFailed, "agent worker left the room");
        }
    }

    /// A room is over: so is all that was wanted there.
    fn handle_ended(&mut self, now: Moment, call: &CallId) {
        let Some(room) = self.rooms.remove(call) else { return };
        self.leaving.retain(|leaving| leaving.removal.call != *call);
        for job in self.jobs_of(call, None) {
            self.terminate(now, &job, lk::JobStatus::JsSuccess, "");
        }
        let told = room.dispatches.iter().flat_map(|dispatch| &dispatch.jobs);
        told.for_each(|job| drop(self.ended.remove(job)));
    }

    /// Ends a job from here.
    fn terminate(&mut self, now: Moment, id: &str, status: lk::JobStatus, error: &str) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        match job.stage {
            // Its worker's answer will be of a job that nobody knows.
            Stage::Offered { .. } => drop(self.jobs.remove(id)),
            Stage::Running { worker } => {
                job.set_status(now, status, error);
                self.count_end(status);
                if let Some(worker) = worker {
                    let termination = lk::JobTermination { job_id: id.to_owned() };
                    self.out.push_back(Output::Tell(worker, Box::new(Told::Termination(termination))));
                }
                self.end(id, status == lk::JobStatus::JsSuccess);
            }
        }
    }

    fn count_end(&mut self, status: lk::JobStatus) {
        match status {
            lk::JobStatus::JsFailed => self.counters.failed += 1,
            lk::JobStatus::JsSuccess | lk::JobStatus::JsPending | lk::JobStatus::JsRunning => self.counters.succeeded += 1,
        }
    }

    /// Ids of a room's jobs that are not over; of one dispatch, or all.
    fn jobs_of(&self, call: &CallId, dispatch: Option<&str>) -> Vec<String> {
        let of = |job: &Job| job.call.as_ref() == Some(call) && dispatch.is_none_or(|dispatch| job.info.dispatch_id == dispatch);
        self.jobs.iter().filter(|(_, job)| of(job)).map(|(id, _)| id.clone()).collect()
    }

    /// As servers are told of it.
    fn told(&self, dispatch: &Dispatch) -> lk::AgentDispatch {
        let mut info = dispatch.info.clone();
        let jobs = dispatch.jobs.iter().filter_map(|id| self.jobs.get(id).or_else(|| self.ended.get(id))).map(|job| lk::Job {
            metadata: dispatch.info.metadata.clone(),
            attributes: dispatch.info.attributes.clone(),
            ..job.info.clone()
        });
        info.state.get_or_insert_default().jobs = jobs.collect();
        info
    }
}

/// A token with it would be refused at the door.
fn is_too_long(answer: &lk::AvailabilityResponse) -> bool {
    answer.participant_identity.len() > ROOM_TEXT_LEN_MAX
        || answer.participant_name.len() > DISPLAY_NAME_LEN_MAX
        || answer.participant_metadata.len() > METADATA_LEN_MAX
        || attributes_len(&answer.participant_attributes) > METADATA_LEN_MAX
}
