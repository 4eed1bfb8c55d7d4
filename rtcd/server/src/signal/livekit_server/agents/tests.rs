#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]
//! The dispatcher as a story: workers, rooms and time by hand, chance by number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use livekit_protocol as lk;
use lk::participant_info::Kind;
use lk::server_message::Message as Told;
use lk::worker_message::Message as Said;
use lk::{JobStatus, JobType};
use proptest::prelude::*;
use rtcd_core::ids::CallId;

use super::dispatcher::{AgentCounters, Assigned, Dispatcher, Output, Removal};
use super::news::News;
use super::worker::WorkerNumber;
use crate::limits::{AGENT_ANSWER_TIME, AGENT_DISPATCHES_MAX, AGENT_JOBS_MAX, AGENT_JOBS_TOLD_MAX, AGENT_LEAVE_TIME, METADATA_LEN_MAX};
use crate::signal::seam::{Moment, RoomFault};

struct World {
    dispatcher: Dispatcher,
    now: Moment,
    next: WorkerNumber,
    out: Vec<Output>,
}

fn call(room: &str) -> CallId {
    CallId::new(&format!("livekit/{room}")).expect("a name")
}

fn room(name: &str) -> lk::Room {
    lk::Room { sid: format!("RM_{name}"), name: name.to_owned(), metadata: "of the room".to_owned(), ..lk::Room::default() }
}

fn person(identity: &str) -> lk::ParticipantInfo {
    lk::ParticipantInfo { sid: format!("PA_{identity}"), identity: identity.to_owned(), ..lk::ParticipantInfo::default() }
}

fn named(agent_name: &str) -> lk::RegisterWorkerRequest {
    lk::RegisterWorkerRequest { agent_name: agent_name.to_owned(), ..lk::RegisterWorkerRequest::default() }
}

fn of_kind(kind: JobType) -> lk::RegisterWorkerRequest {
    lk::RegisterWorkerRequest { r#type: kind.into(), ..lk::RegisterWorkerRequest::default() }
}

fn wanted(agent_name: &str) -> lk::RoomAgentDispatch {
    lk::RoomAgentDispatch { agent_name: agent_name.to_owned(), metadata: format!("for {agent_name}"), ..lk::RoomAgentDispatch::default() }
}

fn accepts(job: &lk::Job) -> lk::AvailabilityResponse {
    lk::AvailabilityResponse {
        job_id: job.id.clone(),
        available: true,
        participant_identity: format!("agent-{}", job.id),
        participant_name: "Helper".to_owned(),
        ..lk::AvailabilityResponse::default()
    }
}

fn status(job: &lk::Job) -> JobStatus {
    job.state.as_ref().expect("a state").status()
}

impl World {
    fn new() -> Self {
        let mut drawn = 0_u128;
        // Ids differ, and the first of those who could be chosen is.
        let chance = Box::new(move || {
            drawn += 1;
            drawn
        });
        let now = Moment { instant: Instant::now(), unix_ms: 1_000_000 };
        Self { dispatcher: Dispatcher::new(chance), now, next: 1, out: Vec::new() }
    }

    fn worker(&mut self, request: lk::RegisterWorkerRequest) -> WorkerNumber {
        let number = self.next;
        self.next += 1;
        let id = self.dispatcher.handle_register(number, "key".to_owned(), request).expect("registers");
        assert!(id.starts_with("AW_"));
        number
    }

    fn says(&mut self, worker: WorkerNumber, said: Said) {
        self.dispatcher.handle_message(self.now, worker, said).expect("understood");
        self.collect();
    }

    fn tell(&mut self, news: News) {
        self.dispatcher.handle_news(self.now, news);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.dispatcher.poll() {
            self.out.push(output);
        }
    }

    fn opens(&mut self, name: &str, wanted: Vec<lk::RoomAgentDispatch>) {
        self.tell(News::Opened { call: call(name), room: Box::new(room(name)), wanted });
    }

    fn joins(&mut self, name: &str, participant: lk::ParticipantInfo) {
        self.tell(News::Joined { call: call(name), room: Box::new(room(name)), participant: Box::new(participant) });
    }

    fn publishes(&mut self, name: &str, participant: lk::ParticipantInfo) {
        let participant = Box::new(lk::ParticipantInfo { is_publisher: true, ..participant });
        self.tell(News::Published { call: call(name), room: Box::new(room(name)), participant });
    }

    fn leaves(&mut self, name: &str, identity: &str, replaced: bool) {
        let sid = person(identity).sid;
        self.tell(News::Left { call: call(name), identity: identity.to_owned(), sid, replaced });
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += i64::try_from(time.as_millis()).expect("small");
        self.dispatcher.handle_time(self.now);
        self.collect();
    }

    /// Offers since the last look, nothing else having been said.
    fn offers(&mut self) -> Vec<(WorkerNumber, lk::Job)> {
        let offer = |output| match output {
            Output::Tell(worker, told) => match *told {
                Told::Availability(offer) => (worker, offer.job.expect("a job")),
                other => panic!("no offer: {other:?}"),
            },
            other => panic!("no offer: {other:?}"),
        };
        self.out.drain(..).map(offer).collect()
    }

    fn offer(&mut self) -> (WorkerNumber, lk::Job) {
        let mut offers = self.offers();
        assert_eq!(offers.len(), 1, "{offers:?}");
        offers.remove(0)
    }

    /// The offer that stands is taken.
    fn assigned(&mut self) -> (WorkerNumber, Assigned) {
        let (worker, job) = self.offer();
        self.says(worker, Said::Availability(accepts(&job)));
        match self.out.pop() {
            Some(Output::Assign(to, assigned)) if to == worker && self.out.is_empty() => (worker, *assigned),
            other => panic!("not assigned: {other:?}"),
        }
    }

    /// A room, and an agent named `helper` that has joined it.
    fn at_work(&mut self) -> (WorkerNumber, lk::Job, String) {
        let worker = self.worker(named("helper"));
        self.opens("r", vec![wanted("helper")]);
        let (_, assigned) = self.assigned();
        let identity = assigned.agent.identity;
        let agent = lk::ParticipantInfo { kind: Kind::Agent.into(), ..person(&identity) };
        self.joins("r", agent);
        assert!(self.out.is_empty(), "agents get no agents");
        (worker, assigned.job, identity)
    }

    fn updates(&mut self, worker: WorkerNumber, job: &lk::Job, status: JobStatus, error: &str) {
        let update = lk::UpdateJobStatus { job_id: job.id.clone(), status: status.into(), error: error.to_owned() };
        self.says(worker, Said::UpdateJob(update));
    }

    /// All jobs that servers are told of.
    fn jobs(&self, name: &str) -> Vec<lk::Job> {
        let dispatches = self.dispatcher.list(&call(name), "").expect("a room");
        dispatches.into_iter().flat_map(|dispatch| dispatch.state.expect("a state").jobs).collect()
    }

    fn terminated(&mut self) -> Vec<(WorkerNumber, String)> {
        let termination = |output| match output {
            Output::Tell(worker, told) => match *told {
                Told::Termination(termination) => (worker, termination.job_id),
                other => panic!("no termination: {other:?}"),
            },
            other => panic!("no termination: {other:?}"),
        };
        self.out.drain(..).map(termination).collect()
    }
}

#[test]
fn a_room_gets_the_agents_without_a_name_and_a_named_room_only_those_named() {
    let mut world = World::new();
    let any = world.worker(named(""));
    let helper = world.worker(named("helper"));
    world.opens("plain", Vec::new());
    let (worker, job) = world.offer();
    assert_eq!(
        (worker, job.r#type(), job.agent_name.as_str(), job.room.as_ref().expect("a room").name.as_str()),
        (any, JobType::JtRoom, "", "plain")
    );
    assert!(job.id.starts_with("AJ_") && job.dispatch_id.starts_with("AD_") && status(&job) == JobStatus::JsRunning);
    world.opens("named", vec![wanted("helper"), wanted("nobody")]);
    let (worker, job) = world.offer();
    assert_eq!((worker, job.agent_name.as_str(), job.metadata.as_str()), (helper, "helper", "for helper"));
    let listed = world.dispatcher.list(&call("named"), "").expect("a room");
    assert_eq!(listed.iter().map(|dispatch| dispatch.agent_name.as_str()).collect::<Vec<_>>(), ["helper", "nobody"]);
    assert!(world.jobs("named").is_empty(), "told of when it is taken");
}

#[test]
fn a_worker_that_takes_a_job_gets_it_with_an_agent_as_it_answered() {
    let mut world = World::new();
    let permission = lk::ParticipantPermission { can_subscribe: true, hidden: true, ..lk::ParticipantPermission::default() };
    let worker = world.worker(lk::RegisterWorkerRequest { allowed_permissions: Some(permission.clone()), ..named("helper") });
    world.opens("r", vec![wanted("helper")]);
    let (_, job) = world.offer();
    let answer = lk::AvailabilityResponse {
        participant_metadata: "m".to_owned(),
        participant_attributes: [("a".to_owned(), "b".to_owned())].into(),
        ..accepts(&job)
    };
    world.says(worker, Said::Availability(answer));
    let [Output::Assign(to, assigned)] = &world.out[..] else { panic!("{:?}", world.out) };
    let agent = &assigned.agent;
    assert_eq!((*to, &assigned.job.id, agent.api_key.as_str(), agent.room.as_str()), (worker, &job.id, "key", "r"));
    assert_eq!((agent.agent_name.as_str(), agent.name.as_str(), agent.metadata.as_str()), ("helper", "Helper", "m"));
    assert_eq!((agent.attributes["a"].as_str(), &agent.permission), ("b", &permission));
    assert_eq!(assigned.job.state.as_ref().expect("a state").participant_identity, agent.identity);
    assert_eq!(assigned.job.room.as_ref().expect("a room").metadata, "of the room", "all of it");
    let [told] = &world.jobs("r")[..] else { panic!("one job") };
    assert_eq!((status(told), told.metadata.as_str()), (JobStatus::JsRunning, "for helper"));
    assert_eq!(told.room.as_ref().expect("a room").metadata, "", "who is told of many gets the name alone");
    // Who names no identity is given one.
    world.out.clear();
    world.opens("s", vec![wanted("helper")]);
    let (_, job) = world.offer();
    world.says(worker, Said::Availability(lk::AvailabilityResponse { participant_identity: String::new(), ..accepts(&job) }));
    let [Output::Assign(_, assigned)] = &world.out[..] else { panic!("{:?}", world.out) };
    assert_eq!(assigned.agent.identity, format!("agent-{}", job.id));
}

#[test]
fn jobs_of_people_are_made_when_they_come_and_when_they_first_publish_and_never_for_agents() {
    let mut world = World::new();
    let publisher = world.worker(of_kind(JobType::JtPublisher));
    let participant = world.worker(of_kind(JobType::JtParticipant));
    world.opens("r", Vec::new());
    world.joins("r", person("ann"));
    let (worker, job) = world.offer();
    assert_eq!(
        (worker, job.r#type(), job.participant.expect("of somebody").identity.as_str()),
        (participant, JobType::JtParticipant, "ann")
    );
    world.publishes("r", person("ann"));
    let (worker, job) = world.offer();
    assert_eq!((worker, job.r#type(), job.participant.expect("of somebody").identity.as_str()), (publisher, JobType::JtPublisher, "ann"));
    world.publishes("r", person("ann"));
    assert!(world.out.is_empty(), "once for each stay");
    world.leaves("r", "ann", false);
    world.joins("r", person("ann"));
    world.publishes("r", person("ann"));
    assert_eq!(world.offers().iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [participant, publisher]);
    let permitted = |agent, recorder| {
        #[expect(deprecated, reason = "older tokens say it here")]
        let permission = lk::ParticipantPermission { agent, recorder, ..lk::ParticipantPermission::default() };
        lk::ParticipantInfo { permission: Some(permission), ..person("bot") }
    };
    let of_kind = |kind: Kind| lk::ParticipantInfo { kind: kind.into(), ..person("bot") };
    for other in [of_kind(Kind::Agent), of_kind(Kind::Egress), permitted(true, false), permitted(false, true)] {
        world.joins("r", other.clone());
        world.publishes("r", other);
        world.leaves("r", "bot", false);
        assert!(world.out.is_empty());
    }
    // A person who comes by telephone is one.
    world.joins("r", of_kind(Kind::Sip));
    assert_eq!(world.offer().0, participant);
}

#[test]
fn an_agent_that_is_wanted_later_comes_for_the_room_and_for_who_is_there() {
    let mut world = World::new();
    world.opens("r", Vec::new());
    for kind in [JobType::JtRoom, JobType::JtPublisher, JobType::JtParticipant] {
        world.worker(lk::RegisterWorkerRequest { r#type: kind.into(), ..named("helper") });
    }
    let present = vec![
        person("ann"),
        lk::ParticipantInfo { is_publisher: true, ..person("bob") },
        lk::ParticipantInfo { is_publisher: true, kind: Kind::Agent.into(), ..person("other") },
    ];
    let dispatch = lk::AgentDispatch { id: "AD_x".to_owned(), agent_name: "helper".to_owned(), ..lk::AgentDispatch::default() };
    world.tell(News::Dispatched { call: call("r"), room: Box::new(room("r")), participants: present, dispatch: Box::new(dispatch) });
    let offers = world.offers();
    let told: Vec<_> = offers.iter().map(|(_, job)| (job.r#type(), job.participant.as_ref().map(|who| who.identity.as_str()))).collect();
    let [ann, bob] = [Some("ann"), Some("bob")];
    assert_eq!(told, [(JobType::JtRoom, None), (JobType::JtParticipant, ann), (JobType::JtPublisher, bob), (JobType::JtParticipant, bob)]);
    assert!(offers.iter().all(|(_, job)| job.dispatch_id == "AD_x"));
    world.joins("r", person("eve"));
    assert_eq!(world.offer().1.dispatch_id, "AD_x", "and for who comes");
}

#[test]
fn workers_of_another_deployment_are_others_and_each_namespace_sends_one() {
    let mut world = World::new();
    let production = world.worker(lk::RegisterWorkerRequest { deployment: "production".to_owned(), ..named("helper") });
    let first = world.worker(lk::RegisterWorkerRequest { namespace: Some("a".to_owned()), ..named("helper") });
    let _like_it = world.worker(lk::RegisterWorkerRequest { namespace: Some("a".to_owned()), ..named("helper") });
    let second = world.worker(lk::RegisterWorkerRequest { namespace: Some("b".to_owned()), ..named("helper") });
    world.opens("r", vec![wanted("helper")]);
    assert_eq!(world.offers().iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [first, second]);
    world.opens("s", vec![lk::RoomAgentDispatch { deployment: "production".to_owned(), ..wanted("helper") }]);
    let (worker, job) = world.offer();
    assert_eq!((worker, job.deployment.as_str()), (production, "production"));
}

#[test]
fn who_declines_is_silent_or_goes_is_followed_by_the_next_and_none_is_asked_twice() {
    let mut world = World::new();
    let workers: Vec<_> = (0..5).map(|_| world.worker(named("helper"))).collect();
    world.opens("r", vec![wanted("helper")]);
    let (first, job) = world.offer();
    world.says(first, Said::Availability(lk::AvailabilityResponse { job_id: job.id.clone(), ..lk::AvailabilityResponse::default() }));
    let (second, again) = world.offer();
    assert_eq!(again.id, job.id);
    // Somebody else's answer is none.
    world.says(first, Said::Availability(accepts(&job)));
    assert!(world.out.is_empty());
    world.pass(AGENT_ANSWER_TIME - Duration::from_millis(1));
    assert!(world.out.is_empty());
    world.pass(Duration::from_millis(1));
    let (third, _) = world.offer();
    world.says(second, Said::Availability(accepts(&job)));
    assert!(world.out.is_empty(), "it answered too late");
    world.dispatcher.handle_gone(world.now, third);
    world.collect();
    let (fourth, _) = world.offer();
    let long = lk::AvailabilityResponse { participant_metadata: "x".repeat(METADATA_LEN_MAX + 1), ..accepts(&job) };
    world.says(fourth, Said::Availability(long));
    let (fifth, assigned) = world.assigned();
    assert_eq!(assigned.job.id, job.id);
    let mut asked = vec![first, second, third, fourth, fifth];
    asked.sort_unstable();
    assert_eq!(asked, workers);
    // One that nobody takes is forgotten, and is not made up for when somebody comes.
    world.opens("s", vec![wanted("helper")]);
    for _ in 0..4 {
        let (worker, job) = world.offer();
        world.says(worker, Said::Availability(lk::AvailabilityResponse { job_id: job.id, ..lk::AvailabilityResponse::default() }));
    }
    world.worker(named("helper"));
    world.pass(AGENT_ANSWER_TIME);
    assert!(world.out.is_empty() && world.jobs("s").is_empty());
    let counters =
        AgentCounters { registered: 6, offered: 9, assigned: 1, declined: 6, unanswered: 2, untaken: 1, ..AgentCounters::default() };
    assert_eq!(world.dispatcher.counters(), counters);
    assert_eq!(world.dispatcher.live_jobs(), 1);
}

#[test]
fn a_worker_that_is_full_is_not_asked_and_one_that_wants_no_agent_ends_the_job() {
    let mut world = World::new();
    let worker = world.worker(named("helper"));
    let full = lk::UpdateWorkerStatus { status: Some(lk::WorkerStatus::WsFull.into()), ..lk::UpdateWorkerStatus::default() };
    world.says(worker, Said::UpdateWorker(full));
    world.opens("r", vec![wanted("helper")]);
    assert!(world.out.is_empty());
    let free = lk::UpdateWorkerStatus { status: Some(lk::WorkerStatus::WsAvailable.into()), load: 0.9, ..full };
    world.says(worker, Said::UpdateWorker(free));
    world.opens("s", vec![wanted("helper")]);
    let (_, job) = world.offer();
    let ends = lk::AvailabilityResponse { job_id: job.id, terminate: true, ..lk::AvailabilityResponse::default() };
    world.says(worker, Said::Availability(ends));
    assert!(world.out.is_empty() && world.dispatcher.live_jobs() == 0);
    assert_eq!(world.jobs("s").iter().map(status).collect::<Vec<_>>(), [JobStatus::JsSuccess]);
}

#[test]
fn a_job_ends_as_its_worker_says_and_an_agent_that_leaves_ends_its_own() {
    let mut world = World::new();
    let (worker, job, _) = world.at_work();
    world.updates(worker + 1, &job, JobStatus::JsFailed, "of nobody");
    world.updates(worker, &job, JobStatus::JsRunning, "");
    assert_eq!(status(&world.jobs("r")[0]), JobStatus::JsRunning);
    world.updates(worker, &job, JobStatus::JsFailed, &"x".repeat(5000));
    let state = world.jobs("r")[0].state.clone().expect("a state");
    assert_eq!((state.status(), state.error.len()), (JobStatus::JsFailed, 1024));
    assert!(state.ended_at >= state.started_at && state.started_at > 0);

    let mut world = World::new();
    let (worker, job, identity) = world.at_work();
    world.leaves("r", &identity, false);
    assert_eq!(world.terminated(), [(worker, job.id.clone())]);
    let state = world.jobs("r")[0].state.clone().expect("a state");
    assert_eq!((state.status(), state.error.as_str()), (JobStatus::JsFailed, "agent worker left the room"));
    // Its worker knows better, once.
    world.updates(worker, &job, JobStatus::JsSuccess, "");
    world.updates(worker, &job, JobStatus::JsFailed, "again");
    let state = world.jobs("r")[0].state.clone().expect("a state");
    assert_eq!((state.status(), state.error.as_str()), (JobStatus::JsSuccess, ""));
    assert!(world.out.is_empty() && world.dispatcher.live_jobs() == 0);
}

#[test]
fn an_agent_that_connects_anew_is_still_at_work() {
    let mut world = World::new();
    let (_, job, identity) = world.at_work();
    world.leaves("r", &identity, true);
    world.joins("r", lk::ParticipantInfo { kind: Kind::Agent.into(), ..person(&identity) });
    assert!(world.out.is_empty());
    assert_eq!(status(&world.jobs("r")[0]), JobStatus::JsRunning);
    world.leaves("r", &identity, false);
    assert_eq!(world.terminated().len(), 1, "{}", job.id);
}

#[test]
fn a_deleted_dispatch_ends_its_jobs_and_who_does_not_leave_is_put_out() {
    for leaves in [true, false] {
        let mut world = World::new();
        let (worker, job, identity) = world.at_work();
        world.joins("r", person("ann"));
        assert_eq!(world.dispatcher.handle_delete(world.now, &call("r"), "AD_none"), Err(RoomFault::NoDispatch));
        assert_eq!(world.dispatcher.handle_delete(world.now, &call("s"), &job.dispatch_id), Err(RoomFault::NoRoom));
        let deleted = world.dispatcher.handle_delete(world.now, &call("r"), &job.dispatch_id).expect("is there");
        world.collect();
        let state = deleted.state.expect("a state");
        assert!(state.deleted_at >= state.created_at && state.jobs.iter().map(status).eq([JobStatus::JsSuccess]));
        assert_eq!(world.terminated(), [(worker, job.id)]);
        assert_eq!(world.dispatcher.list(&call("r"), ""), Ok(Vec::new()));
        world.joins("r", person("bob"));
        assert!(world.out.is_empty(), "nobody is sent any more");
        if leaves {
            world.leaves("r", &identity, false);
        }
        world.pass(AGENT_LEAVE_TIME - Duration::from_millis(1));
        assert!(world.out.is_empty());
        world.pass(Duration::from_millis(1));
        let removal = Removal { call: call("r"), room: "r".to_owned(), identity };
        let expected = if leaves { Vec::new() } else { vec![Output::Remove(Box::new(removal))] };
        assert_eq!(std::mem::take(&mut world.out), expected);
        world.pass(AGENT_LEAVE_TIME);
        assert!(world.out.is_empty(), "once");
    }
    // While a worker is asked, its answer comes to nothing.
    let mut world = World::new();
    world.worker(named("helper"));
    world.opens("r", vec![wanted("helper")]);
    let (worker, job) = world.offer();
    world.dispatcher.handle_delete(world.now, &call("r"), &job.dispatch_id).expect("is there");
    world.says(worker, Said::Availability(accepts(&job)));
    assert!(world.out.is_empty() && world.dispatcher.live_jobs() == 0);
}

#[test]
fn the_end_of_a_room_ends_its_jobs_and_no_others() {
    let mut world = World::new();
    let (worker, job, _) = world.at_work();
    world.opens("s", vec![wanted("helper")]);
    let (_, other) = world.assigned();
    world.tell(News::Ended { call: call("r") });
    assert_eq!(world.terminated(), [(worker, job.id.clone())]);
    assert_eq!(world.dispatcher.list(&call("r"), ""), Err(RoomFault::NoRoom));
    world.updates(worker, &job, JobStatus::JsSuccess, "");
    assert_eq!(status(&world.jobs("s")[0]), JobStatus::JsRunning);
    assert_eq!((world.dispatcher.live_jobs(), other.agent.room.as_str()), (1, "s"));
    // A room of that name is another one.
    world.opens("r", Vec::new());
    assert!(world.jobs("r").is_empty());
}

#[test]
fn a_worker_that_lost_its_connection_takes_its_jobs_up_again_and_its_agents_stay_meanwhile() {
    let mut world = World::new();
    let (worker, job, _) = world.at_work();
    world.dispatcher.handle_gone(world.now, worker);
    world.collect();
    assert!(world.out.is_empty());
    assert_eq!(status(&world.jobs("r")[0]), JobStatus::JsRunning);
    let other = world.worker(named("other"));
    let stranger = world.next;
    world.next += 1;
    world.dispatcher.handle_register(stranger, "another key".to_owned(), named("helper")).expect("registers");
    let back = world.worker(named("helper"));
    let migrated = lk::MigrateJobRequest { job_ids: vec![job.id.clone(), "AJ_none".to_owned()] };
    for number in [other, stranger, back, other] {
        world.says(number, Said::MigrateJob(migrated.clone()));
    }
    world.dispatcher.handle_delete(world.now, &call("r"), &job.dispatch_id).expect("is there");
    world.collect();
    assert_eq!(world.terminated(), [(back, job.id)]);
}

#[test]
fn a_lost_workers_agent_that_leaves_has_failed() {
    let mut world = World::new();
    let (worker, _, identity) = world.at_work();
    world.dispatcher.handle_gone(world.now, worker);
    world.leaves("r", &identity, false);
    assert!(world.out.is_empty(), "there is nobody to tell");
    assert_eq!(status(&world.jobs("r")[0]), JobStatus::JsFailed);
    assert_eq!(world.dispatcher.live_jobs(), 0);
}

#[test]
fn a_worker_tries_itself_out_on_itself_alone() {
    let mut world = World::new();
    let (worker, other) = (world.worker(named("")), world.worker(named("")));
    for participant in [None, Some(person("ann"))] {
        let kind = if participant.is_some() { JobType::JtPublisher } else { JobType::JtRoom };
        let simulated = lk::SimulateJobRequest { room: Some(room("anywhere")), participant, ..lk::SimulateJobRequest::default() };
        world.says(other, Said::SimulateJob(simulated));
        let (number, assigned) = world.assigned();
        assert_eq!((number, assigned.job.r#type(), assigned.agent.room.as_str()), (other, kind, "anywhere"));
        world.updates(other, &assigned.job, JobStatus::JsSuccess, "");
    }
    let simulated = lk::SimulateJobRequest { room: Some(room("anywhere")), ..lk::SimulateJobRequest::default() };
    world.says(worker, Said::SimulateJob(simulated));
    let (number, job) = world.offer();
    world.says(number, Said::Availability(lk::AvailabilityResponse { job_id: job.id, ..lk::AvailabilityResponse::default() }));
    assert!(world.out.is_empty(), "nobody else is asked");
    assert_eq!(world.dispatcher.live_jobs(), 0);
    let nameless = Said::SimulateJob(lk::SimulateJobRequest { room: Some(room("")), ..lk::SimulateJobRequest::default() });
    assert!(world.dispatcher.handle_message(world.now, worker, nameless).is_err());
    assert!(world.dispatcher.handle_message(world.now, worker, Said::Register(named("again"))).is_err());
    world.says(worker, Said::Ping(lk::WorkerPing { timestamp: 7 }));
    let pong = lk::WorkerPong { last_timestamp: 7, timestamp: world.now.unix_ms };
    assert_eq!(world.out, [Output::Tell(worker, Box::new(Told::Pong(pong)))]);
}

#[test]
fn a_node_that_is_emptied_sends_idle_workers_away_and_keeps_those_at_work() {
    let mut world = World::new();
    let (busy, job, _) = world.at_work();
    let idle = world.worker(named("helper"));
    world.dispatcher.handle_drain(true);
    world.pass(Duration::from_secs(1));
    assert_eq!(std::mem::take(&mut world.out), [Output::Dismiss(idle)]);
    world.dispatcher.handle_gone(world.now, idle);
    world.opens("s", vec![wanted("helper")]);
    assert!(world.out.is_empty(), "no more jobs");
    world.updates(busy, &job, JobStatus::JsSuccess, "");
    world.pass(Duration::from_secs(1));
    assert_eq!(std::mem::take(&mut world.out), [Output::Dismiss(busy)]);
    world.dispatcher.handle_drain(false);
    world.opens("t", vec![wanted("helper")]);
    assert_eq!(world.offer().0, busy, "a drain that was taken back");
}

#[test]
fn what_is_kept_is_bounded() {
    let mut world = World::new();
    let worker = world.worker(of_kind(JobType::JtParticipant));
    world.opens("r", Vec::new());
    for number in 0..AGENT_JOBS_TOLD_MAX + 10 {
        world.joins("r", person(&format!("p{number}")));
        let (_, assigned) = world.assigned();
        world.updates(worker, &assigned.job, JobStatus::JsSuccess, "");
    }
    // The one that goes on is told of however many end.
    world.joins("r", person("last"));
    world.assigned();
    let told = world.jobs("r");
    assert!(told.len() <= AGENT_JOBS_TOLD_MAX + 1, "{}", told.len());
    assert_eq!(told.last().map(status), Some(JobStatus::JsRunning));
    assert_eq!(told.first().and_then(|job| job.participant.clone()).expect("of somebody").identity, "p10");

    for number in 0..AGENT_DISPATCHES_MAX + 5 {
        let dispatch = Box::new(lk::AgentDispatch { id: format!("AD_{number}"), ..lk::AgentDispatch::default() });
        world.tell(News::Dispatched { call: call("r"), room: Box::new(room("r")), participants: Vec::new(), dispatch });
    }
    assert_eq!(world.dispatcher.list(&call("r"), "").expect("a room").len(), AGENT_DISPATCHES_MAX);
    assert!(matches!(world.dispatcher.check_room_for(&call("r")), Err(RoomFault::TooMuch(_))));
    assert_eq!(world.dispatcher.check_room_for(&call("none")), Err(RoomFault::NoRoom));
}

#[test]
fn no_more_jobs_than_the_node_can_hold_are_made() {
    let mut world = World::new();
    let worker = world.worker(named(""));
    for _ in 0..AGENT_JOBS_MAX {
        let simulated = lk::SimulateJobRequest { room: Some(room("r")), ..lk::SimulateJobRequest::default() };
        world.dispatcher.handle_message(world.now, worker, Said::SimulateJob(simulated)).expect("understood");
        while world.dispatcher.poll().is_some() {}
    }
    world.opens("s", Vec::new());
    assert!(world.out.is_empty() && world.dispatcher.live_jobs() == AGENT_JOBS_MAX);
    world.dispatcher.handle_gone(world.now, worker);
    assert_eq!(world.dispatcher.live_jobs(), 0, "and the place of those that went is free");
}

/// What may happen, with numbers that choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Register(u8),
    Gone(u8),
    Answer(u8, u8),
    Update(u8, u8),
    Migrate(u8),
    Simulate(u8),
    Open(u8),
    End(u8),
    Join(u8, u8),
    Leave(u8, u8, bool),
    Publish(u8, u8),
    Dispatch(u8),
    Delete(u8, u8),
    Pass(u8),
    Drain(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u8>().prop_map(Step::Register),
        1 => any::<u8>().prop_map(Step::Gone),
        9 => (any::<u8>(), any::<u8>()).prop_map(|(which, how)| Step::Answer(which, how)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(which, how)| Step::Update(which, how)),
        1 => any::<u8>().prop_map(Step::Migrate),
        1 => any::<u8>().prop_map(Step::Simulate),
        3 => any::<u8>().prop_map(Step::Open),
        1 => any::<u8>().prop_map(Step::End),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(room, who)| Step::Join(room, who)),
        2 => (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(room, who, replaced)| Step::Leave(room, who, replaced)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(room, who)| Step::Publish(room, who)),
        3 => any::<u8>().prop_map(Step::Dispatch),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(room, which)| Step::Delete(room, which)),
        2 => any::<u8>().prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Drain),
    ]
}

/// A world whose steps are checked as they are done.
struct Watched {
    world: World,
    workers: BTreeSet<WorkerNumber>,
    /// What each that ever was does.
    groups: BTreeMap<WorkerNumber, (JobType, &'static str)>,
    rooms: BTreeSet<u8>,
    /// Offers that were made, in order.
    offered: Vec<(WorkerNumber, lk::Job)>,
    /// Who has each job that was assigned.
    has: BTreeMap<String, WorkerNumber>,
    agents: Vec<String>,
    dispatches: u32,
}

impl Watched {
    fn new() -> Self {
        let world = World::new();
        let (workers, rooms) = (BTreeSet::new(), BTreeSet::new());
        Self {
            world,
            workers,
            groups: BTreeMap::new(),
            rooms,
            offered: Vec::new(),
            has: BTreeMap::new(),
            agents: Vec::new(),
            dispatches: 0,
        }
    }

    fn room(room: u8) -> (u8, String) {
        (room % 3, format!("r{}", room % 3))
    }

    /// A person, or an agent that was sent.
    fn who(&self, who: u8) -> lk::ParticipantInfo {
        match self.agents.get(usize::from(who)) {
            Some(identity) => lk::ParticipantInfo { kind: Kind::Agent.into(), ..person(identity) },
            None => person(&format!("p{}", who % 4)),
        }
    }

    fn some_worker(&self, which: u8) -> Option<WorkerNumber> {
        let at = usize::from(which) % self.workers.len().max(1);
        self.workers.iter().nth(at).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Register(of) => {
                let kind = [JobType::JtRoom, JobType::JtPublisher, JobType::JtParticipant][usize::from(of % 3)];
                let name = ["", "helper"][usize::from(of / 3 % 2)];
                let worker = self.world.worker(lk::RegisterWorkerRequest { r#type: kind.into(), ..named(name) });
                self.workers.insert(worker);
                self.groups.insert(worker, (kind, name));
            }
            Step::Gone(which) => {
                let Some(worker) = self.some_worker(which) else { return };
                self.workers.remove(&worker);
                self.world.dispatcher.handle_gone(self.world.now, worker);
            }
            Step::Answer(which, how) => {
                let at = usize::from(which) % self.offered.len().max(1);
                let Some((worker, job)) = self.offered.get(at).cloned() else { return };
                let worker =
                    if how % 8 == 7 { self.some_worker(which) } else { Some(worker).filter(|worker| self.workers.contains(worker)) };
                let answer = match how % 8 {
                    0 => lk::AvailabilityResponse { available: false, ..accepts(&job) },
                    1 => lk::AvailabilityResponse { terminate: true, ..accepts(&job) },
                    2 => lk::AvailabilityResponse { participant_name: "x".repeat(1000), ..accepts(&job) },
                    _ => accepts(&job),
                };
                let Some(worker) = worker else { return };
                self.world.dispatcher.handle_message(self.world.now, worker, Said::Availability(answer)).expect("understood");
            }
            Step::Update(which, how) => {
                let at = usize::from(which) % self.has.len().max(1);
                let Some((job, worker)) = self.has.iter().nth(at) else { return };
                let status = [JobStatus::JsRunning, JobStatus::JsSuccess, JobStatus::JsFailed][usize::from(how % 3)];
                let update = lk::UpdateJobStatus { job_id: job.clone(), status: status.into(), error: String::new() };
                self.world.dispatcher.handle_message(self.world.now, *worker, Said::UpdateJob(update)).expect("understood");
            }
            Step::Migrate(which) => {
                let Some(worker) = self.some_worker(which) else { return };
                let job_ids: Vec<String> = self.has.keys().cloned().collect();
                let migrated = Said::MigrateJob(lk::MigrateJobRequest { job_ids: job_ids.clone() });
                self.world.dispatcher.handle_message(self.world.now, worker, migrated).expect("understood");
                // Jobs whose worker is gone are this one's now, if it does the same.
                for job in job_ids {
                    let before = self.has[&job];
                    if !self.workers.contains(&before) && self.groups[&before] == self.groups[&worker] {
                        self.has.insert(job, worker);
                    }
                }
            }
            Step::Simulate(which) => {
                let Some(worker) = self.some_worker(which) else { return };
                let simulated = lk::SimulateJobRequest { room: Some(room("any")), ..lk::SimulateJobRequest::default() };
                self.world.dispatcher.handle_message(self.world.now, worker, Said::SimulateJob(simulated)).expect("understood");
            }
            Step::Open(at) => {
                let (number, name) = Self::room(at);
                if self.rooms.insert(number) {
                    self.world.opens(&name, if at > 127 { vec![wanted("helper")] } else { Vec::new() });
                }
            }
            Step::End(at) => {
                let (number, name) = Self::room(at);
                self.rooms.remove(&number);
                self.world.tell(News::Ended { call: call(&name) });
            }
            Step::Join(at, who) => {
                let who = self.who(who);
                self.world.joins(&Self::room(at).1, who);
            }
            Step::Leave(at, who, replaced) => {
                let who = self.who(who);
                self.world.leaves(&Self::room(at).1, &who.identity, replaced);
            }
            Step::Publish(at, who) => {
                let who = self.who(who);
                self.world.publishes(&Self::room(at).1, who);
            }
            Step::Dispatch(at) => {
                let name = Self::room(at).1;
                self.dispatches += 1;
                let dispatch =
                    lk::AgentDispatch { id: format!("AD_{}", self.dispatches), agent_name: "helper".to_owned(), ..Default::default() };
                let participants = vec![person("p0"), lk::ParticipantInfo { is_publisher: true, ..person("p1") }];
                self.world.tell(News::Dispatched {
                    call: call(&name),
                    room: Box::new(room(&name)),
                    participants,
                    dispatch: Box::new(dispatch),
                });
            }
            Step::Delete(at, which) => {
                let call = call(&Self::room(at).1);
                let listed = self.world.dispatcher.list(&call, "").unwrap_or_default();
                let Some(dispatch) = listed.get(usize::from(which) % listed.len().max(1)) else { return };
                let deleted = self.world.dispatcher.handle_delete(self.world.now, &call, &dispatch.id).expect("is there");
                let over = |job: &lk::Job| matches!(status(job), JobStatus::JsSuccess | JobStatus::JsFailed);
                assert!(deleted.state.expect("a state").jobs.iter().all(over), "nothing of it goes on");
            }
            Step::Pass(time) => self.world.pass(Duration::from_millis(u64::from(time) * 100)),
            Step::Drain(draining) => self.world.dispatcher.handle_drain(draining),
        }
    }

    /// Whatever is said is said to somebody who is there and whom it concerns.
    fn check(&mut self) {
        self.world.collect();
        for output in std::mem::take(&mut self.world.out) {
            match output {
                Output::Tell(worker, told) => {
                    assert!(self.workers.contains(&worker), "a worker that is gone is told {told:?}");
                    match *told {
                        Told::Availability(offer) => {
                            let job = offer.job.expect("a job");
                            assert!(!self.has.contains_key(&job.id), "somebody has it");
                            let again = self.offered.iter().any(|(asked, known)| *asked == worker && known.id == job.id);
                            assert!(!again, "nobody is asked twice");
                            self.offered.push((worker, job));
                        }
                        Told::Termination(termination) => assert_eq!(self.has.remove(&termination.job_id), Some(worker)),
                        other => panic!("{other:?}"),
                    }
                }
                Output::Assign(worker, assigned) => {
                    assert!(self.workers.contains(&worker));
                    let last = self.offered.iter().rev().find(|(_, job)| job.id == assigned.job.id).expect("it was offered");
                    assert_eq!(last.0, worker, "to whom it was offered last");
                    self.agents.push(assigned.agent.identity);
                    assert!(self.has.insert(assigned.job.id, worker).is_none(), "once");
                }
                Output::Dismiss(worker) => assert!(self.workers.contains(&worker)),
                Output::Remove(removal) => assert!(self.agents.contains(&removal.identity), "agents alone are put out"),
            }
        }
        for number in &self.rooms {
            for job in self.world.jobs(&format!("r{number}")) {
                assert!(status(&job) != JobStatus::JsRunning || self.has.contains_key(&job.id), "what goes on was assigned");
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_jobs_go_to_who_is_there_and_nothing_outlives_its_room(steps in proptest::collection::vec(step(), 1..150)) {
        let mut watched = Watched::new();
        for step in steps {
            watched.take(step);
            watched.check();
        }
        for number in 0..3 {
            watched.take(Step::End(number));
            watched.check();
        }
        for worker in std::mem::take(&mut watched.workers) {
            watched.world.dispatcher.handle_gone(watched.world.now, worker);
        }
        watched.check();
        prop_assert!(watched.world.dispatcher.is_empty());
    }
}
