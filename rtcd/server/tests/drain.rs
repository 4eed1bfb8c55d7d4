//! The real program told to end while people are in a call.

#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

mod common;

use common::program::Program;
use common::{TOKEN, bearing, hears, keep_talking, soon};
use conclave_proto::v1;
use livekit_protocol as lk;
use livekit_protocol::signal_response::Message as Response;
use rtc_client::{ClientError, Dial, Event, Participant};
use tokio::sync::mpsc::UnboundedReceiver;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn join(program: &Program, call: &str, identity: &str) -> Result<(Participant, UnboundedReceiver<Event>), ClientError> {
    Participant::join(&Dial::new(&program.url, TOKEN, call, identity), "127.0.0.1").await
}

async fn refusal(program: &Program, call: &str, identity: &str) -> String {
    join(program, call, identity).await.err().expect("refused").to_string()
}

async fn drain(program: &Program, request: v1::DrainRequest) {
    program.signal().await.drain(bearing(request, TOKEN)).await.expect("allowed");
}

/// Waits until the program says that it is draining: a signal is handled a moment after it was sent.
async fn until_draining(program: &Program) -> String {
    soon("the drain", async {
        loop {
            let (status, text) = program.get("/readyz").await;
            if status == 503 {
                return text;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn serving(program: &Program, service: &str) -> ServingStatus {
    let channel = tonic::transport::Endpoint::from_shared(program.url.clone()).expect("an address").connect().await.expect("reachable");
    let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
    HealthClient::new(channel).check(request).await.expect("answers").into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_those_present_go_on_refuses_new_ones_and_ends_with_the_last() {
    let mut program = Program::start(&[("RTCD_NODE_DRAINDEADLINES", "3600")]).await;
    let (ann, _at_ann) = join(&program, "call-1", "ann").await.expect("joins");
    let (bob, mut at_bob) = join(&program, "call-1", "bob").await.expect("joins");
    let anns = keep_talking(ann.publish_opus("mic-a", 0x1111).await.expect("publishes"), 0);
    hears("ann at bob", &mut at_bob, 0..u32::MAX, 25).await;
    assert_eq!(program.get("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(serving(&program, "conclave.v1.Signal").await, ServingStatus::Serving);

    program.terminate();
    let text = until_draining(&program).await;
    assert!(text.contains("2 participants") && text.contains("--cancel"), "{text}");
    // Alive all the same: an orchestrator that restarted it now would cut the call.
    assert_eq!(program.get("/healthz").await, (200, "draining\n".to_owned()));
    assert_eq!(serving(&program, "conclave.v1.Signal").await, ServingStatus::NotServing);
    assert_eq!(serving(&program, "conclave.v1.Tap").await, ServingStatus::Serving);
    assert!(program.get("/metrics").await.1.contains("\nconclave_rtcd_draining 1\n"));

    let text = refusal(&program, "call-1", "cid").await;
    assert!(text.contains("maintenance") && text.contains("try again in"), "{text}");
    let text = refusal(&program, "call-2", "cid").await;
    assert!(text.contains("maintenance") && text.contains("another node"), "{text}");
    // Nothing changed for those present; and who of them comes anew, as after a lost network, takes the old place.
    hears("ann at bob, during the drain", &mut at_bob, 0..u32::MAX, 50).await;
    let (bob_again, mut at_bob_again) = join(&program, "call-1", "bob").await.expect("takes bob's place");
    hears("ann at bob, come anew during the drain", &mut at_bob_again, 0..u32::MAX, 50).await;
    assert!(program.is_running());
    // So may who reloads the page: it says good-bye and comes again.
    bob_again.leave().await.expect("leaves");
    let (bob_again, mut at_bob_again) = join(&program, "call-1", "bob").await.expect("comes back");
    hears("ann at bob, reloaded during the drain", &mut at_bob_again, 0..u32::MAX, 50).await;

    anns.abort();
    ann.leave().await.expect("leaves");
    hears_no_more(&mut at_bob_again).await;
    assert!(program.is_running(), "bob is still there");
    bob_again.leave().await.expect("leaves");
    assert!(program.ended().await.success());
    drop(bob);
}

/// Waits until the other participant's departure was told.
async fn hears_no_more(events: &mut UnboundedReceiver<Event>) {
    soon("the departure", async {
        loop {
            if let Some(Event::Participants(people)) = events.recv().await
                && people.iter().any(|person| person.state() == lk::participant_info::State::Disconnected)
            {
                return;
            }
        }
    })
    .await;
}

/// Gives what the client is told at the end.
async fn farewell(events: &mut UnboundedReceiver<Event>) -> lk::LeaveRequest {
    soon("the farewell", async {
        loop {
            match events.recv().await.expect("not ended without a word") {
                Event::Signal(message) => {
                    if let Response::Leave(leave) = *message {
                        return leave;
                    }
                }
                Event::Ended => panic!("ended without a farewell"),
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_those_left_are_told_to_come_back_and_the_program_ends() {
    let mut program = Program::start(&[("RTCD_NODE_DRAINDEADLINES", "2")]).await;
    let (_ann, mut at_ann) = join(&program, "call-1", "ann").await.expect("joins");
    // An operator's long drain does not outlast the signal's deadline.
    drain(&program, v1::DrainRequest { deadline_s: 3600, cancel: false }).await;
    program.terminate();
    let leave = farewell(&mut at_ann).await;
    assert_eq!((leave.reason(), leave.action()), (lk::DisconnectReason::ServerShutdown, lk::leave_request::Action::Reconnect));
    assert!(program.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_at_once() {
    let mut program = Program::start(&[("RTCD_NODE_DRAINDEADLINES", "3600")]).await;
    let (_ann, mut at_ann) = join(&program, "call-1", "ann").await.expect("joins");
    program.terminate();
    until_draining(&program).await;
    program.terminate();
    farewell(&mut at_ann).await;
    assert!(program.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_ends_at_once_on_sigterm() {
    let mut program = Program::start(&[("RTCD_NODE_DRAINDEADLINES", "3600")]).await;
    program.terminate();
    assert!(program.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_can_be_taken_back() {
    let mut program = Program::start(&[("RTCD_NODE_DRAINDEADLINES", "3600")]).await;
    let (ann, _at_ann) = join(&program, "call-1", "ann").await.expect("joins");
    program.terminate();
    until_draining(&program).await;
    refusal(&program, "call-1", "bob").await;
    drain(&program, v1::DrainRequest { deadline_s: 0, cancel: true }).await;
    assert_eq!(program.get("/readyz").await, (200, "ready\n".to_owned()));
    let (bob, mut at_bob) = join(&program, "call-1", "bob").await.expect("joins again");
    assert_eq!(serving(&program, "conclave.v1.Signal").await, ServingStatus::Serving);
    // Nor does it end when the call is over.
    ann.leave().await.expect("leaves");
    hears_no_more(&mut at_bob).await;
    bob.leave().await.expect("leaves");
    let status = soon("an empty node", async {
        loop {
            let status = program.signal().await.node_status(bearing(v1::NodeStatusRequest {}, TOKEN)).await.expect("lives").into_inner();
            if status.participants == 0 {
                return status;
            }
        }
    })
    .await;
    assert!(!status.draining && program.is_running());
}
