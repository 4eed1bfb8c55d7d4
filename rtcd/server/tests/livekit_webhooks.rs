//! Webhooks of the program itself, at a receiver that reads and checks them by itself; rooms driven by LiveKit's own contract.
#![cfg(test)]

mod common;

use common::hooks::{Answer, Place, Receiver, name};
use common::livekit::{Client, KEYS, done, ticket};
use common::program::Program;
use common::{keep_talking, soon};
use livekit_protocol as lk;
use lk::signal_request::Message as Asked;
use rtc_client::{Dial, Participant};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::oneshot;

async fn start(url: &str, more: &[(&str, &str)]) -> Program {
    let settings: Vec<_> = [KEYS].into_iter().chain(Receiver::settings(url)).chain(more.iter().copied()).collect();
    Program::start(&settings).await
}

/// Ends the program at once: the first signal drains, the second ends.
fn end(program: &Program) {
    program.signal_with(Signal::INT);
}

async fn join(program: &Program, room: &str, identity: &str) -> (Participant, tokio::sync::mpsc::UnboundedReceiver<rtc_client::Event>) {
    let url = program.url.replace("http://", "ws://");
    soon("the join", Participant::join_room(&url, &ticket(room, identity), "127.0.0.1")).await.expect("joins")
}

/// The value of a metric with these labels.
async fn metric(program: &Program, name: &str, label: &str) -> f64 {
    let (_, page) = program.get("/metrics").await;
    let line = page.lines().find(|line| line.starts_with(name) && line.contains(label)).unwrap_or_else(|| panic!("no {name} {label}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[tokio::test]
async fn a_rooms_life_is_told_in_order_and_signed() {
    let mut receiver = Receiver::new();
    let program = start(&receiver.url, &[]).await;
    done(&program.url, "CreateRoom", json!({ "name": "r", "metadata": "m", "emptyTimeout": 77 })).await;
    let started = receiver.next().await;
    assert_eq!(name(&started), "room_started");
    let room = &started["room"];
    assert_eq!((&room["name"], &room["metadata"], &room["emptyTimeout"]), (&json!("r"), &json!("m"), &json!(77)));
    assert!(started.get("numDropped").is_none() && started.get("participant").is_none());

    let (ann, _events) = join(&program, "r", "ann").await;
    let joined = receiver.next().await;
    assert_eq!(name(&joined), "participant_joined");
    let who = &joined["participant"];
    assert_eq!((&who["identity"], &who["name"], &who["state"]), (&json!("ann"), &json!("ANN"), &json!("ACTIVE")));
    assert_eq!((&who["sid"], &joined["room"]["sid"]), (&json!(ann.sid), &room["sid"]));
    assert_eq!(joined["room"]["numParticipants"], 1);

    let talking = keep_talking(ann.publish_opus("mic", 77).await.expect("published"), 0);
    let published = receiver.next().await;
    assert_eq!(name(&published), "track_published");
    let track = &published["track"];
    assert_eq!((&track["source"], &track["mimeType"], &track["name"]), (&json!("MICROPHONE"), &json!("audio/opus"), &json!("mic")));
    assert!(track["sid"].as_str().is_some_and(|sid| sid.starts_with("TR_")));
    assert_eq!(published["participant"], json!({ "sid": ann.sid, "identity": "ann", "name": "ANN" }), "what names it, no more");
    assert_eq!(published["room"], json!({ "sid": room["sid"], "name": "r" }));

    ann.leave().await.expect("leaves");
    talking.abort();
    let unpublished = receiver.next().await;
    assert_eq!((name(&unpublished), &unpublished["track"]["sid"]), ("track_unpublished", &track["sid"]));
    let left = receiver.next().await;
    assert_eq!((name(&left), &left["participant"]["identity"]), ("participant_left", &json!("ann")));
    assert_eq!(
        (&left["participant"]["state"], &left["participant"]["disconnectReason"]),
        (&json!("DISCONNECTED"), &json!("CLIENT_INITIATED"))
    );

    done(&program.url, "DeleteRoom", json!({ "room": "r" })).await;
    let finished = receiver.next().await;
    assert_eq!((name(&finished), &finished["roomEndReason"]), ("room_finished", &json!("ROOM_END_API_DELETE")));
    let all = [&started, &joined, &published, &unpublished, &left, &finished];
    let ids: std::collections::BTreeSet<&str> = all.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(ids.len(), all.len());

    soon("the counts", async {
        while metric(&program, "conclave_rtcd_webhook_total", "name=\"delivered\"").await < 6.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let (_, page) = program.get("/metrics").await;
    assert!(!page.contains("not-for-logs"), "a URL's query may be a secret");
    assert!(metric(&program, "conclave_rtcd_livekit_socket_total", "name=\"opened\"").await >= 1.0);
    assert!(metric(&program, "conclave_rtcd_livekit_socket_total", "name=\"frames_in\"").await >= 1.0);
    soon("the end of the socket", async {
        while metric(&program, "conclave_rtcd_livekit_sockets", "").await > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_never_sent_or_received_a_packet_did_not_join() {
    let mut receiver = Receiver::new();
    let program = start(&receiver.url, &[("RTCD_RTC_DEPARTURETIMEOUTS", "0")]).await;
    let (mut ann, _) = Client::join(&program.url, &ticket("r", "ann")).await;
    ann.ask(Asked::Leave(lk::LeaveRequest::default())).await;
    assert_eq!(name(&receiver.next().await), "room_started");
    let aborted = receiver.next().await;
    assert_eq!((name(&aborted), &aborted["participant"]["identity"]), ("participant_connection_aborted", &json!("ann")));
    let finished = receiver.next().await;
    assert_eq!((name(&finished), &finished["roomEndReason"]), ("room_finished", &json!("ROOM_END_IDLE_TIMEOUT")));
}

#[tokio::test]
async fn a_receiver_that_is_slow_delays_nobody_and_one_that_fails_is_asked_again_in_order() {
    let mut receiver = Receiver::new();
    let (release, held) = oneshot::channel();
    receiver.plan([Answer::Hold(held)]);
    let program = start(&receiver.url, &[]).await;
    let url = &program.url;
    done(url, "CreateRoom", json!({ "name": "a" })).await;
    let first = receiver.next().await;
    // It says nothing, and calls go on.
    let (mut ann, _) = Client::join(url, &ticket("b", "ann")).await;
    ann.ask(Asked::Ping(1)).await;
    for room in ["c", "d", "e"] {
        done(url, "CreateRoom", json!({ "name": room })).await;
    }
    receiver.plan([Answer::Status(500), Answer::Close, Answer::Status(429), Answer::Status(503)]);
    release.send(()).expect("is held");
    let mut events: Vec<Value> = vec![first];
    for _ in 0..8 {
        events.push(receiver.next().await);
    }
    let rooms: Vec<&str> = events.iter().filter_map(|event| event["room"]["name"].as_str()).collect();
    assert_eq!(rooms, ["a", "b", "b", "b", "b", "b", "c", "d", "e"], "one after the other, and the same again while it fails");
    assert!(events[1..6].iter().all(|event| event["id"] == events[1]["id"]), "a repeated event can be told by its id");
    assert_eq!(metric(&program, "conclave_rtcd_webhook_total", "name=\"failed\"").await, 4.0);
}

#[tokio::test]
async fn what_happened_while_a_receiver_was_away_is_told_when_it_is_back() {
    let place = Place::new();
    let program = start(&place.url(), &[]).await;
    for room in ["a", "b", "c"] {
        done(&program.url, "CreateRoom", json!({ "name": room })).await;
    }
    soon("a try that fails", async {
        while metric(&program, "conclave_rtcd_webhook_total", "name=\"failed\"").await < 2.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let mut receiver = place.listen();
    for room in ["a", "b", "c"] {
        let event = receiver.next().await;
        assert_eq!((name(&event), &event["room"]["name"]), ("room_started", &json!(room)));
    }
}

#[tokio::test]
async fn what_a_receiver_refuses_is_not_told_again_but_counted_in_the_next() {
    let mut receiver = Receiver::new();
    // A redirect is a refusal too: the event is not taken elsewhere.
    receiver.plan([Answer::Status(401), Answer::Status(302)]);
    let program = start(&receiver.url, &[]).await;
    for room in ["a", "b", "c", "d"] {
        done(&program.url, "CreateRoom", json!({ "name": room })).await;
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        let event = receiver.next().await;
        told.push((event["room"]["name"].as_str().expect("a name").to_owned(), event["numDropped"].as_i64().unwrap_or_default()));
    }
    let expected = [("a", 0), ("b", 1), ("c", 2), ("d", 0)].map(|(room, dropped)| (room.to_owned(), dropped));
    assert_eq!(told, expected);
    assert_eq!(metric(&program, "conclave_rtcd_webhook_total", "name=\"refused\"").await, 2.0);
}

#[tokio::test]
async fn the_end_of_the_node_is_told_if_the_receiver_answers_and_waits_for_nobody() {
    let mut receiver = Receiver::new();
    // The first try fails, so that the node ends while the event waits for its next one.
    receiver.plan([Answer::Status(503)]);
    let mut program = start(&receiver.url, &[]).await;
    done(&program.url, "CreateRoom", json!({ "name": "r" })).await;
    assert_eq!(receiver.names(1).await, ["room_started"]);
    end(&program);
    let again = receiver.find("room_started").await;
    assert_eq!(again["room"]["name"], "r");
    let finished = receiver.find("room_finished").await;
    assert_eq!(finished["roomEndReason"], "ROOM_END_SERVER_SHUTDOWN");
    assert!(program.ended().await.success());

    let mut dead = Receiver::new();
    let (_never, held) = oneshot::channel();
    dead.plan([Answer::Hold(held)]);
    let mut program = start(&dead.url, &[]).await;
    done(&program.url, "CreateRoom", json!({ "name": "r" })).await;
    assert_eq!(dead.names(1).await, ["room_started"]);
    end(&program);
    assert!(program.ended().await.success(), "it ends in order, though nobody listens");
}

#[tokio::test]
async fn every_receiver_is_told_and_none_waits_for_another() {
    let (place, mut receiver) = (Place::new(), Receiver::new());
    let program = start(&format!("{}, {}", place.url(), receiver.url), &[]).await;
    for room in ["a", "b"] {
        done(&program.url, "CreateRoom", json!({ "name": room })).await;
    }
    assert_eq!(receiver.names(2).await, ["room_started", "room_started"]);
    let mut late = place.listen();
    assert_eq!(late.names(2).await, ["room_started", "room_started"]);
}

#[tokio::test]
async fn calls_of_message_servers_are_told_to_these_and_nobody_else() {
    let mut receiver = Receiver::new();
    let program = start(&receiver.url, &[("RTCD_RTC_DEPARTURETIMEOUTS", "0")]).await;
    let dial = Dial::new(&program.url, common::TOKEN, "r", "ann");
    let (ann, _events) = soon("the join", Participant::join(&dial, "127.0.0.1")).await.expect("joins");
    let talking = keep_talking(ann.publish_opus("mic", 77).await.expect("published"), 0);
    ann.leave().await.expect("leaves");
    talking.abort();
    done(&program.url, "CreateRoom", json!({ "name": "theirs" })).await;
    let only = receiver.next().await;
    assert_eq!((name(&only), &only["room"]["name"]), ("room_started", &json!("theirs")));
}
