//! LiveKit's agents at the program itself: workers on `/agent`, dispatch by servers, agents that join and leave.
#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]

mod common;

use common::keep_talking;
use common::livekit::{
    Answer, Client, KEY, KEYS, Worker, admin_token, agent_token, done, http, server_token, ticket, token, token_for, twirp,
};
use common::program::Program;
use common::soon;
use livekit_protocol as lk;
use lk::server_message::Message as Told;
use lk::signal_request::Message as Asked;
use lk::signal_response::Message as Said;
use lk::worker_message::Message as Work;
use lk::{JobStatus, JobType};
use prost::Message as _;
use rtc_client::Participant;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

async fn dispatch_service(program: &Program, token: &str, method: &str, body: Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let line = format!("POST /twirp/livekit.AgentDispatchService/{method}");
    http(&program.url, &line, &headers, body.to_string().as_bytes()).await
}

async fn dispatched(program: &Program, method: &str, body: Value) -> Value {
    let answer = dispatch_service(program, &token_for(&body), method, body).await;
    assert_eq!(answer.status, 200, "{method}: {}", answer.text());
    answer.json()
}

fn fails(answer: &Answer, status: u16, code: &str, msg: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert!(answer.json()["msg"].as_str().is_some_and(|said| said.contains(msg)), "{}", answer.text());
}

fn named(agent_name: &str) -> lk::RegisterWorkerRequest {
    lk::RegisterWorkerRequest { agent_name: agent_name.to_owned(), ..lk::RegisterWorkerRequest::default() }
}

async fn leaves(client: &mut Client) -> lk::LeaveRequest {
    client.find("a leave request", |said| if let Said::Leave(leave) = said { Some(leave) } else { None }).await
}

#[tokio::test]
async fn a_worker_registers_with_its_grant_and_within_bounds() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    for (token, text) in [(ticket("r", "ann"), "permissions denied"), (server_token(), "permissions denied"), ("x".to_owned(), "invalid")] {
        let (status, said) = Client::open(url, "/agent", &token).await.err().expect("refused");
        assert!(status == 401 && said.contains(text), "{status} {said}");
    }
    let bearer = format!("Bearer {}", agent_token());
    let plain = http(url, "GET /agent", &[("Authorization", &bearer)], b"").await;
    assert!(plain.status == 404 && plain.text().contains("WebSocket"), "{plain:?}");

    let (mut worker, answer) = Worker::register(url, named("helper")).await;
    let info = answer.server_info.expect("who answers");
    assert!(answer.worker_id.starts_with("AW_") && info.agent_protocol == 1 && !info.node_id.is_empty() && !info.version.is_empty());
    worker.say(Work::Ping(lk::WorkerPing { timestamp: 7 })).await;
    let Told::Pong(pong) = worker.next().await else { panic!("no pong") };
    assert!(pong.last_timestamp == 7 && pong.timestamp > 0);
    let (_, page) = program.get("/metrics").await;
    assert!(
        page.contains("\nconclave_rtcd_agent_workers 1\n") && page.contains("conclave_rtcd_agent_total{name=\"registered\"} 1\n"),
        "{page}"
    );

    // Who speaks JSON is answered so.
    let mut client = Client::open(url, "/agent", &agent_token()).await.expect("opens");
    client.raw(Message::Text(r#"{"register":{"type":"JT_ROOM","agentName":"json","version":"1.9.0"}}"#.into())).await;
    let Some(Message::Text(text)) = client.next_raw().await else { panic!("no text") };
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert!(answer["register"]["workerId"].as_str().is_some_and(|id| id.starts_with("AW_")), "{answer}");

    let register = |request| lk::WorkerMessage { message: Some(Work::Register(request)) };
    let twice = lk::WorkerMessage { message: Some(Work::Register(named("a"))) };
    let frame = |message: lk::WorkerMessage| Message::Binary(message.encode_to_vec().into());
    for (frames, why) in [
        (vec![Message::Text("nonsense".into())], "no WorkerMessage"),
        (vec![Message::Binary(vec![0xff; 9].into())], "no WorkerMessage"),
        (vec![frame(lk::WorkerMessage { message: Some(Work::UpdateWorker(lk::UpdateWorkerStatus::default())) })], "registers first"),
        (vec![frame(register(lk::RegisterWorkerRequest { r#type: 9, ..named("") }))], "job type"),
        (vec![frame(register(named(&"x".repeat(257))))], "agent name"),
        (vec![frame(register(lk::RegisterWorkerRequest { deployment: "a_b".to_owned(), ..named("") }))], "deployment"),
        (vec![frame(twice.clone()), frame(twice)], "registers once"),
    ] {
        let mut client = Client::open(url, "/agent", &agent_token()).await.expect("opens");
        for frame in frames {
            client.raw(frame).await;
        }
        let (code, reason) = client.closed().await.expect("says why");
        assert!(code == 1008 && reason.contains(why), "{code} {reason:?} instead of {why:?}");
    }
    // A frame that is too long ends its connection, and nothing else.
    let mut client = Client::open(url, "/agent", &agent_token()).await.expect("opens");
    client.raw(frame(register(lk::RegisterWorkerRequest { version: "x".repeat(300 * 1024), ..named("") }))).await;
    // What lies unread when a socket is closed resets the connection: then the reason may not arrive.
    if let Some((code, reason)) = client.closed().await {
        assert!(code == 1009 && reason.contains("256 KiB"), "{code} {reason}");
    }
    worker.say(Work::Ping(lk::WorkerPing { timestamp: 8 })).await;
    assert!(matches!(worker.next().await, Told::Pong(_)));
}

#[tokio::test]
async fn every_room_gets_an_agent_that_joins_with_its_jobs_token_and_ends_with_the_room() {
    let program = Program::start(&[KEYS, ("RTCD_RTC_DEPARTURETIMEOUTS", "1")]).await;
    let url = &program.url;
    let permission = lk::ParticipantPermission { can_subscribe: true, can_publish_data: true, ..lk::ParticipantPermission::default() };
    let request = lk::RegisterWorkerRequest { allowed_permissions: Some(permission), ..named("") };
    let (mut worker, _) = Worker::register(url, request).await;
    let (mut ann, _) = Client::join(url, &ticket("r", "ann")).await;
    let job = worker.offered().await;
    assert_eq!((job.r#type(), job.room.as_ref().expect("a room").name.as_str()), (JobType::JtRoom, "r"));
    let answer = lk::AvailabilityResponse {
        participant_metadata: "m".to_owned(),
        participant_attributes: [("mood".to_owned(), "good".to_owned())].into(),
        ..Worker::accepts(&job)
    };
    worker.say(Work::Availability(answer)).await;
    let assignment = worker.assigned().await;
    assert_eq!(assignment.job.expect("a job").id, job.id);

    let (mut agent, join) = Client::join(url, &assignment.token).await;
    assert_eq!(join.room.expect("a room").name, "r");
    let seen = ann.sees(&format!("agent-{}", job.id), |_| true).await;
    assert_eq!((seen.kind(), seen.name.as_str(), seen.metadata.as_str()), (lk::participant_info::Kind::Agent, "Helper", "m"));
    assert_eq!((seen.attributes["mood"].as_str(), seen.attributes["lk.agent_name"].as_str()), ("good", ""));
    #[expect(deprecated, reason = "it is still said")]
    let may = seen.permission.map(|permission| (permission.agent, permission.can_subscribe, permission.can_publish));
    assert_eq!(may, Some((true, true, false)));
    let state = dispatched(&program, "ListDispatch", json!({ "room": "r" })).await["agent_dispatches"][0]["state"].clone();
    let told = &state["jobs"][0];
    assert_eq!((&told["id"], &told["state"]["status"]), (&json!(job.id), &json!("JS_RUNNING")), "{state}");
    assert_eq!(told["state"]["participant_identity"], json!(format!("agent-{}", job.id)));

    // The last person leaves: the agent alone holds no room.
    ann.ask(Asked::Leave(lk::LeaveRequest::default())).await;
    leaves(&mut agent).await;
    assert_eq!(worker.terminated().await, job.id);
    assert_eq!(done(url, "ListRooms", json!({})).await, json!({}));
    // Its next run gets another one.
    let (_ann, _) = Client::join(url, &ticket("r", "ann")).await;
    assert_ne!(worker.offered().await.id, job.id);
}

#[tokio::test]
async fn who_declines_or_goes_is_followed_by_another_worker() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Worker::register(url, named("helper")).await.0);
    }
    done(url, "CreateRoom", json!({ "name": "r", "agents": [{ "agentName": "helper" }] })).await;
    let (first, job) = Worker::first_offered(&mut workers).await;
    let mut declining = workers.remove(first);
    declining.say(Work::Availability(lk::AvailabilityResponse { job_id: job.id.clone(), ..lk::AvailabilityResponse::default() })).await;
    let (second, again) = Worker::first_offered(&mut workers).await;
    assert_eq!(again.id, job.id);
    workers.remove(second).cut();
    let mut last = workers.remove(0);
    assert_eq!(last.offered().await.id, job.id);
    last.say(Work::Availability(Worker::accepts(&job))).await;
    assert_eq!(last.assigned().await.job.expect("a job").id, job.id);
    // It is lost while its agent works: the job goes on, and it takes it up again.
    let jobs =
        || async { dispatched(&program, "ListDispatch", json!({ "room": "r" })).await["agent_dispatches"][0]["state"]["jobs"].clone() };
    last.cut();
    assert_eq!(jobs().await[0]["state"]["status"], "JS_RUNNING");
    let (mut back, _) = Worker::register(url, named("helper")).await;
    back.say(Work::MigrateJob(lk::MigrateJobRequest { job_ids: vec![job.id.clone()] })).await;
    let failed = lk::UpdateJobStatus { job_id: job.id.clone(), status: JobStatus::JsFailed.into(), error: "broken".to_owned() };
    back.say(Work::UpdateJob(failed)).await;
    soon("the job's end", async {
        while jobs().await[0]["state"]["status"] != "JS_FAILED" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(jobs().await[0]["state"]["error"], "broken");
    // Who is full is not asked; the one that declined is, for another room.
    let full = lk::UpdateWorkerStatus { status: Some(lk::WorkerStatus::WsFull.into()), ..lk::UpdateWorkerStatus::default() };
    back.say(Work::UpdateWorker(full)).await;
    back.say(Work::Ping(lk::WorkerPing::default())).await;
    assert!(matches!(back.next().await, Told::Pong(_)));
    done(url, "CreateRoom", json!({ "name": "s", "agents": [{ "agentName": "helper" }] })).await;
    assert_eq!(declining.offered().await.room.expect("a room").name, "s");
}

#[tokio::test]
async fn an_agent_is_dispatched_by_name_listed_and_taken_back() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let (mut worker, _) = Worker::register(url, named("helper")).await;
    let (mut ann, _) = Client::join(url, &ticket("r", "ann")).await;
    let wanted = json!({ "room": "r", "agentName": "helper", "metadata": "task", "attributes": { "someKey": "1" } });
    let made = dispatched(&program, "CreateDispatch", wanted).await;
    assert!(made["id"].as_str().is_some_and(|id| id.starts_with("AD_")) && made["state"]["created_at"].is_string(), "{made}");
    assert_eq!((&made["agent_name"], &made["attributes"]["someKey"]), (&json!("helper"), &json!("1")));
    let job = worker.takes().await;
    assert_eq!((&json!(job.dispatch_id), job.metadata.as_str(), job.attributes["someKey"].as_str()), (&made["id"], "task", "1"));
    let (mut agent, _) = Client::join(url, &worker.token).await;
    let identity = format!("agent-{}", job.id);
    ann.sees(&identity, |_| true).await;

    // In protobuf, as most SDKs ask; by its id; of a room with another.
    let bearer = format!("Bearer {}", admin_token("r"));
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/protobuf")];
    let list =
        |dispatch_id: &str| lk::ListAgentDispatchRequest { room: "r".to_owned(), dispatch_id: dispatch_id.to_owned() }.encode_to_vec();
    let line = "POST /twirp/livekit.AgentDispatchService/ListDispatch";
    let id = made["id"].as_str().expect("an id");
    for (asked, count) in [("", 2), (id, 1), ("AD_none", 0)] {
        let answer = http(url, line, &headers, &list(asked)).await;
        let listed = lk::ListAgentDispatchResponse::decode(answer.body.as_slice()).expect("a response").agent_dispatches;
        assert_eq!(listed.len(), count, "{asked}");
        let jobs = listed.iter().filter(|one| one.id == id).flat_map(|one| &one.state.as_ref().expect("a state").jobs);
        assert!(jobs.clone().all(|one| one.id == job.id) && jobs.count() == usize::from(count > 0));
    }

    // Taken back: its worker ends it, and an agent that stays all the same is put out.
    let deleted = dispatched(&program, "DeleteDispatch", json!({ "room": "r", "dispatchId": id })).await;
    assert!(deleted["state"]["deleted_at"].is_string() && deleted["state"]["jobs"][0]["state"]["status"] == "JS_SUCCESS", "{deleted}");
    assert_eq!(worker.terminated().await, job.id);
    assert_eq!(leaves(&mut agent).await.reason(), lk::DisconnectReason::ParticipantRemoved);
    ann.sees(&identity, |info| info.state() == lk::participant_info::State::Disconnected).await;
    fails(
        &dispatch_service(&program, &admin_token("r"), "DeleteDispatch", json!({ "room": "r", "dispatchId": id })).await,
        404,
        "not_found",
        "dispatch ID",
    );
    // A room that is not there is made, as by joining.
    dispatched(&program, "CreateDispatch", json!({ "room": "new", "agentName": "helper" })).await;
    assert_eq!(worker.offered().await.room.expect("a room").name, "new");
}

#[tokio::test]
async fn dispatch_needs_its_grant_a_room_and_bounds() {
    let program = Program::start(&[KEYS, ("RTCD_LIVEKIT_AUTOCREATE", "false")]).await;
    let url = &program.url;
    done(url, "CreateRoom", json!({ "name": "r" })).await;
    let admin_elsewhere = token(KEY, json!({ "video": { "roomAdmin": true, "room": "other" } }));
    let admin_nowhere = token(KEY, json!({ "video": { "roomAdmin": true } }));
    let admin_here = token(KEY, json!({ "video": { "roomAdmin": true, "room": "r" } }));
    for method in ["CreateDispatch", "DeleteDispatch", "ListDispatch"] {
        for token in [ticket("r", "ann"), agent_token(), admin_elsewhere.clone(), admin_nowhere.clone()] {
            fails(&dispatch_service(&program, &token, method, json!({ "room": "r" })).await, 401, "unauthenticated", "permissions denied");
        }
        let nowhere = dispatch_service(&program, &admin_token("nowhere"), method, json!({ "room": "nowhere" })).await;
        fails(&nowhere, 404, "not_found", "requested room does not exist");
        fails(&dispatch_service(&program, &admin_token(""), method, json!({ "room": "" })).await, 400, "invalid_argument", "room name");
        fails(&dispatch_service(&program, &server_token(), method, json!("no message")).await, 400, "malformed", "decoded");
        let long = json!({ "room": "x".repeat(300) });
        let long = dispatch_service(&program, &token_for(&long), method, long).await;
        fails(&long, 429, "resource_exhausted", "room name");
    }
    assert_eq!(dispatch_service(&program, &admin_here, "ListDispatch", json!({ "room": "r" })).await.status, 200);
    fails(&dispatch_service(&program, &server_token(), "NoSuchCall", json!({})).await, 404, "bad_route", "NoSuchCall");
    let create = |more: Value| {
        let mut body = json!({ "room": "r", "agentName": "helper" });
        more.as_object().expect("an object").iter().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    for (more, status, code, msg) in [
        (json!({ "deployment": "a_b" }), 400, "invalid_argument", "deployment"),
        (json!({ "metadata": "x".repeat(70_000) }), 429, "resource_exhausted", "metadata"),
        (json!({ "attributes": { "a": "x".repeat(70_000) } }), 429, "resource_exhausted", "attributes"),
        (json!({ "agentName": "x".repeat(300) }), 429, "resource_exhausted", "agent name"),
    ] {
        fails(&dispatch_service(&program, &admin_token("r"), "CreateDispatch", create(more.clone())).await, status, code, msg);
        let room = json!({ "name": "bad", "agents": [create(more.clone())] });
        let mut room = room;
        room["agents"][0].as_object_mut().expect("an object").remove("room");
        fails(&twirp(url, &server_token(), "CreateRoom", room).await, status, code, msg);
    }
    // One is there from the beginning: that of all rooms.
    for _ in 1..64 {
        dispatched(&program, "CreateDispatch", create(json!({}))).await;
    }
    fails(&dispatch_service(&program, &admin_token("r"), "CreateDispatch", create(json!({}))).await, 429, "resource_exhausted", "agents");
    let many: Vec<Value> = (0..65).map(|_| json!({ "agentName": "a" })).collect();
    fails(&twirp(url, &server_token(), "CreateRoom", json!({ "name": "many", "agents": many })).await, 429, "resource_exhausted", "agents");
}

#[tokio::test]
async fn a_room_made_with_agents_has_those_alone_by_a_server_or_by_a_token() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let (mut any, _) = Worker::register(url, named("")).await;
    let (mut helper, _) = Worker::register(url, named("helper")).await;
    done(url, "CreateRoom", json!({ "name": "made", "agents": [{ "agentName": "helper", "metadata": "by a server" }] })).await;
    let job = helper.offered().await;
    assert_eq!((job.metadata.as_str(), job.room.expect("a room").name.as_str()), ("by a server", "made"));
    let claims = json!({
        "sub": "ann", "video": { "roomJoin": true, "room": "told" },
        "roomConfig": { "agents": [{ "agentName": "helper", "metadata": "by a token" }] },
    });
    let (_ann, _) = Client::join(url, &token(KEY, claims.clone())).await;
    let job = helper.offered().await;
    assert_eq!((job.metadata.as_str(), job.room.expect("a room").name.as_str()), ("by a token", "told"));
    // A room that is there keeps what it has.
    let (_bob, _) = Client::join(url, &ticket("there", "bob")).await;
    assert_eq!(any.offered().await.room.expect("a room").name, "there", "the first of it without a name");
    let mut again = claims;
    again["video"]["room"] = json!("there");
    let (_ann_too, _) = Client::join(url, &token(KEY, again.clone())).await;
    let listed = dispatched(&program, "ListDispatch", json!({ "room": "there" })).await;
    assert_eq!(listed["agent_dispatches"].as_array().expect("a list").len(), 1, "{listed}");
    again["video"]["room"] = json!("bad");
    again["roomConfig"]["agents"][0]["deployment"] = json!("a_b");
    let (status, said) = Client::open(url, "/rtc", &token(KEY, again)).await.err().expect("refused");
    assert!(status == 400 && said.contains("deployment"), "{status} {said}");
}

#[tokio::test]
async fn who_comes_and_who_speaks_gets_an_agent_and_agents_get_none() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let of = |kind: JobType| lk::RegisterWorkerRequest { r#type: kind.into(), ..named("") };
    let (mut publishers, _) = Worker::register(url, of(JobType::JtPublisher)).await;
    let (mut participants, _) = Worker::register(url, of(JobType::JtParticipant)).await;
    let address = url.replace("http://", "ws://");
    let (ann, _events) = soon("the join", Participant::join_room(&address, &ticket("r", "ann"), "127.0.0.1")).await.expect("joins");
    let job = participants.takes().await;
    let of_ann = job.participant.expect("of somebody");
    assert_eq!((job.r#type, of_ann.identity.as_str(), &of_ann.sid), (JobType::JtParticipant.into(), "ann", &ann.sid));
    let talking = keep_talking(ann.publish_opus("mic", 77).await.expect("published"), 0);
    let job = publishers.takes().await;
    let of_ann = job.participant.expect("of somebody");
    assert!(job.r#type == i32::from(JobType::JtPublisher) && of_ann.is_publisher && of_ann.tracks.len() == 1, "{of_ann:?}");
    // Its agent joins and speaks; the next offer is of the next person.
    let (agent, _heard) = soon("the join", Participant::join_room(&address, &publishers.token, "127.0.0.1")).await.expect("joins");
    let answering = keep_talking(agent.publish_opus("voice", 78).await.expect("published"), 0);
    soon("the agent's sound", async {
        loop {
            let people = done(url, "ListParticipants", json!({ "room": "r" })).await;
            let speaks = |who: &Value| who["kind"] == "AGENT" && who["tracks"].is_array();
            if people["participants"].as_array().is_some_and(|people| people.iter().any(speaks)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let (bob, _) = Client::join(url, &ticket("r", "bob")).await;
    assert_eq!(participants.offered().await.participant.expect("of somebody").identity, "bob");
    let (_, page) = program.get("/metrics").await;
    assert!(page.contains("conclave_rtcd_agent_total{name=\"offered\"} 3\n"), "none for the agent: {page}");
    bob.cut();
    talking.abort();
    answering.abort();
}

#[tokio::test]
async fn a_node_that_is_emptied_sends_idle_workers_away_and_takes_no_more() {
    let mut program = Program::start(&[KEYS, ("RTCD_NODE_DRAINDEADLINES", "600")]).await;
    let url = program.url.clone();
    let (mut busy, _) = Worker::register(&url, named("busy")).await;
    let (idle, _) = Worker::register(&url, named("idle")).await;
    let (mut ann, _) = Client::join(&url, &ticket("r", "ann")).await;
    dispatched(&program, "CreateDispatch", json!({ "room": "r", "agentName": "busy" })).await;
    let job = busy.takes().await;
    let (_agent, _) = Client::join(&url, &busy.token).await;
    program.terminate();
    let (code, reason) = idle.closed().await.expect("says why");
    assert!(code == 1012 && reason.contains("connect again"), "{code} {reason}");
    let (status, said) = Client::open(&url, "/agent", &agent_token()).await.err().expect("refused");
    assert!(status == 503 && said.contains("being emptied"), "{status} {said}");
    busy.say(Work::Ping(lk::WorkerPing::default())).await;
    assert!(matches!(busy.next().await, Told::Pong(_)), "who is at work stays");
    ann.ask(Asked::Leave(lk::LeaveRequest::default())).await;
    program.terminate();
    assert_eq!(busy.terminated().await, job.id);
    assert_eq!(busy.closed().await.expect("says why").0, 1012);
    assert!(program.ended().await.success());
}
