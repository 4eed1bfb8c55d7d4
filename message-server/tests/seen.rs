//! What operators see after the fact, and may take back.

#![cfg(test)]

mod common;

use common::{Server, until};
use conclave_proto::v1::{self, from_media::Body};
use serde_json::json;

fn departed(call: &str, sid: &str, at_ms: i64, receives: v1::Verdict) -> Body {
    let participant = v1::ParticipantInfo {
        identity: "u-ben".to_owned(),
        participant_sid: sid.to_owned(),
        display_name: "Ben".to_owned(),
        remote_address: "203.0.113.9:4000".to_owned(),
        diagnosis: Some(v1::Diagnosis { receives: receives.into(), ..v1::Diagnosis::default() }),
        ..v1::ParticipantInfo::default()
    };
    let departed = v1::ParticipantDeparted { participant: Some(participant), reason: v1::EndReason::MediaLost.into() };
    Body::Event(v1::CallEvent { call_id: call.to_owned(), at_ms, event: Some(v1::call_event::Event::Departed(departed.into())) })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_is_still_explained_for_a_week_without_an_address() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut otto = server.person(&mut admin, "otto", &["ops"]).await;
    let now = message_server::clock::now_ms();
    let week = 7 * 24 * 3600 * 1000;
    node.push(departed("call-1", "PA_old", now - week - 1000, v1::Verdict::NoDescription));
    node.push(departed("call-1", "PA_a", now - 1000, v1::Verdict::NoChecks));
    node.push(departed("call-2", "PA_b", now, v1::Verdict::WaitsForKeyFrame));
    let body = until("two are kept", || {
        let mut otto = otto.clone();
        async move {
            let answer = otto.get("/ops/departed?limit=10").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            (answer.body["departed"].as_array().unwrap().iter().any(|one| one["call_id"] == "call-2")).then_some(answer.body)
        }
    })
    .await;
    let departed = body["departed"].as_array().unwrap();
    assert_eq!(departed.len(), 2, "what is older than a week is gone: {body}");
    assert_eq!(departed[0]["participant"]["diagnosis"]["receives"], "waits_for_key_frame");
    assert_eq!(departed[1]["participant"]["diagnosis"]["receives"], "no_checks");
    assert_eq!(departed[1]["reason"], "media_lost");
    assert!(!body.to_string().contains("203.0.113.9"), "{body}");
    let of = otto.get("/ops/departed?call_id=call-1&identity=u-ben").await.body;
    assert_eq!(of["departed"].as_array().unwrap().len(), 1, "{of}");
    assert_eq!(otto.get("/ops/departed?identity=u-eve").await.body, json!({ "departed": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_taken_back() {
    let (_node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut otto = server.person(&mut admin, "otto", &["ops"]).await;
    assert_eq!(otto.post("/ops/nodes/node/drain", json!({})).await.status, 204);
    assert_eq!(otto.get("/ops/nodes").await.body["nodes"][0]["draining"], true);
    assert_eq!(otto.call("DELETE", "/ops/nodes/other/drain", None).await.status, 404);
    assert_eq!(otto.call("DELETE", "/ops/nodes/node/drain", None).await.status, 204);
    assert_eq!(otto.get("/ops/nodes").await.body["nodes"][0]["draining"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_on_record_before_it_begins_and_only_of_somebody_who_is_there() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut otto = server.person(&mut admin, "otto", &["ops"]).await;
    let participants =
        vec![v1::ParticipantInfo { identity: "u-ben".to_owned(), participant_sid: "PA_ben".to_owned(), ..v1::ParticipantInfo::default() }];
    node.lists(vec![v1::CallInfo { call_id: "call-1".to_owned(), participants, ..v1::CallInfo::default() }]);
    let wish = json!({ "seconds": 7, "reason": "no sound, ticket 12" });
    for path in ["/ops/calls/call-1/participants/u-eve/capture", "/ops/calls/call-2/participants/u-ben/capture"] {
        assert_eq!(otto.post(path, wish.clone()).await.status, 404);
    }
    let path = "/ops/calls/call-1/participants/u-ben/capture";
    assert_eq!(otto.post(path, json!({ "seconds": 301 })).await.status, 400);
    assert_eq!(otto.get("/ops/deeds").await.body, json!({ "deeds": [] }));
    let answer = otto.post(path, wish).await;
    assert_eq!((answer.status, answer.body), (200, json!("PA_ben for 7 s")));
    let deeds = otto.get("/ops/deeds").await.body;
    let deed = &deeds["deeds"][0];
    assert_eq!((deed["by_id"].as_str().unwrap(), deed["subject_id"].as_str().unwrap()), (otto.id.as_str(), "u-ben"), "{deeds}");
    assert_eq!((deed["deed"].as_str().unwrap(), deed["call_id"].as_str().unwrap()), ("capture_headers", "call-1"));
    assert!(deed["at_ms"].as_i64().unwrap() > 1_700_000_000_000 && deed["detail"].as_str().unwrap().contains("ticket 12"), "{deeds}");
    assert_eq!(otto.post("/ops/probe", json!({})).await.body["ufrag"], "abcd");
}
