//! LiveKit's clients come to the program itself: tokens, `/rtc` and `/rtc/v1`, resume, the end.
#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use common::livekit::{Client, KEY, KEYS, OTHER_KEY, done, http, now_s, ticket, token};
use common::program::Program;
use common::soon;
use livekit_protocol as lk;
use lk::leave_request::Action;
use lk::request_response::Reason;
use lk::signal_request::Message as Asked;
use lk::signal_response::Message as Said;
use prost::Message as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

async fn validate(program: &Program, query: &str) -> (u16, String) {
    program.get(&format!("/rtc/validate{query}")).await
}

#[tokio::test]
async fn without_keys_nobody_is_served() {
    let program = Program::start(&[]).await;
    let (_, text) = validate(&program, &format!("?access_token={}", ticket("r", "ann"))).await;
    assert_ne!(text, "success");
    assert!(Client::open(&program.url, "/rtc", &ticket("r", "ann")).await.is_err());
}

#[tokio::test]
async fn a_token_opens_what_it_grants_and_refusals_are_livekits() {
    let program = Program::start(&[KEYS]).await;
    let join = json!({ "roomJoin": true, "room": "r" });
    let with = |claims| format!("?access_token={}", token(KEY, claims));
    assert_eq!(validate(&program, &with(json!({ "sub": "ann", "video": join }))).await, (200, "success".to_owned()));
    let other = token(OTHER_KEY, json!({ "sub": "ann", "video": join }));
    assert_eq!(validate(&program, &format!("?access_token={other}")).await.0, 200, "while keys are changed both hold");
    let long = "x".repeat(257);
    for (query, status, text) in [
        (String::new(), 401, "permissions denied"),
        ("?access_token=nonsense".to_owned(), 401, "invalid authorization token"),
        (format!("?access_token={}", token(("APInone", "whatever-it-may-be"), json!({}))), 401, "invalid API key: APInone"),
        (format!("?access_token={}", token((KEY.0, "not-the-secret-of-it"), json!({ "sub": "ann" }))), 401, "invalid token"),
        (with(json!({ "sub": "ann", "video": join, "exp": now_s() - 90 })), 401, "invalid token"),
        (with(json!({ "sub": "ann", "video": join, "nbf": now_s() + 90 })), 401, "invalid token"),
        (with(json!({ "sub": "ann", "video": { "room": "r" } })), 401, "permissions denied"),
        (with(json!({ "sub": "ann" })), 401, "permissions denied"),
        (with(json!({ "video": join })), 400, "identity cannot be empty"),
        (with(json!({ "sub": long, "video": join })), 400, "participant identity exceeds limits"),
        (with(json!({ "sub": "ann", "video": { "roomJoin": true, "room": long } })), 400, "room name exceeds limits"),
        (with(json!({ "sub": "ann", "video": { "roomJoin": true } })), 400, "names no room"),
        (with(json!({ "sub": "ann", "video": join, "roomPreset": "p" })), 400, "room presets"),
        (with(json!({ "sub": "ann", "video": join })) + "&publish=x", 400, "only publish"),
    ] {
        let (got, said) = validate(&program, &query).await;
        assert_eq!(got, status, "{said}");
        assert!(said.contains(text), "{said:?} instead of {text:?}");
    }
    // A skew of a minute is LiveKit's, and a token for any room takes the room of the query.
    assert_eq!(validate(&program, &with(json!({ "sub": "ann", "video": join, "exp": now_s() - 30 }))).await.0, 200);
    assert_eq!(validate(&program, &(with(json!({ "sub": "ann", "video": { "roomJoin": true } })) + "&room=r")).await.0, 200);

    let bearer = format!("Bearer {}", ticket("r", "ann"));
    let headers = [("Authorization", bearer.as_str()), ("Origin", "https://elsewhere.example")];
    let answer = http(&program.url, "GET /rtc/validate", &headers, b"").await;
    assert_eq!((answer.status, answer.text()), (200, "success"));
    assert!(answer.head.contains("access-control-allow-origin: *"), "{}", answer.head);
    let preflight = http(&program.url, "OPTIONS /rtc/validate", &[("Access-Control-Request-Headers", "authorization")], b"").await;
    assert!(preflight.status == 204 && preflight.head.contains("access-control-allow-headers: authorization"), "{}", preflight.head);
    let basic = http(&program.url, "GET /rtc/validate", &[("Authorization", "Basic YTpi")], b"").await;
    assert!(basic.status == 401 && basic.text().contains("Must start with Bearer"));
    let v1 = http(&program.url, "GET /rtc/v1/validate", &[("Authorization", bearer.as_str())], b"").await;
    assert!(v1.status == 400 && v1.text().contains("join_request"));
    assert_eq!(program.get("/settings/regions").await.0, 404, "as a server of one's own");
    assert_eq!(program.get("/").await, (200, "OK".to_owned()));
}

#[tokio::test]
async fn people_meet_and_part() {
    let program = Program::start(&[KEYS]).await;
    let (mut ann, join) = Client::join(&program.url, &ticket("a room/with a slash", "ann")).await;
    let room = join.room.expect("a room");
    assert!(room.name == "a room/with a slash" && room.sid.starts_with("RM_") && room.empty_timeout == 300);
    assert!(join.other_participants.is_empty() && join.ping_interval > 0);
    // A token holds as long as the participant stays.
    let fresh = ann.find("a fresh token", |said| if let Said::RefreshToken(token) = said { Some(token) } else { None }).await;
    assert_eq!(validate(&program, &format!("?access_token={fresh}")).await.0, 200);

    let claims = json!({
        "sub": "bot", "name": "Bot", "metadata": "m", "attributes": { "role": "helper" }, "kind": "agent",
        "video": { "roomJoin": true, "room": "a room/with a slash", "canPublish": false, "canPublishSources": ["microphone"] },
    });
    let (mut bot, join) = Client::join(&program.url, &token(KEY, claims)).await;
    assert_eq!(join.other_participants[0].identity, "ann");
    let seen = ann.sees("bot", |_| true).await;
    assert_eq!((seen.name.as_str(), seen.metadata.as_str(), seen.attributes["role"].as_str()), ("Bot", "m", "helper"));
    assert_eq!(seen.kind(), lk::participant_info::Kind::Agent);
    let permission = seen.permission.expect("a permission");
    assert!(!permission.can_publish && !permission.can_publish_data && permission.can_subscribe);

    // What is not granted is refused with a reason.
    let camera = lk::AddTrackRequest { cid: "c".into(), r#type: lk::TrackType::Video.into(), source: 1, ..lk::AddTrackRequest::default() };
    bot.ask(Asked::AddTrack(camera)).await;
    let refused = bot.find("a refusal", |said| if let Said::RequestResponse(response) = said { Some(response) } else { None }).await;
    assert_eq!(refused.reason(), Reason::NotAllowed);
    bot.ask(Asked::UpdateMetadata(lk::UpdateParticipantMetadata { name: "Boss".into(), request_id: 9, ..Default::default() })).await;
    let refused = bot.find("a refusal", |said| if let Said::RequestResponse(response) = said { Some(response) } else { None }).await;
    assert_eq!((refused.request_id, refused.reason()), (9, Reason::NotAllowed));
    bot.ask(Asked::PingReq(lk::Ping { timestamp: 5, rtt: 0 })).await;
    let pong = bot.find("a pong", |said| if let Said::PongResp(pong) = said { Some(pong) } else { None }).await;
    assert_eq!(pong.last_ping_timestamp, 5);

    bot.ask(Asked::Leave(lk::LeaveRequest::default())).await;
    assert!(bot.closed().await.is_some());
    ann.sees("bot", |info| info.state() == lk::participant_info::State::Disconnected).await;
}

/// What somebody calls itself outlives a new start at once, not only after the next token that comes by the clock.
#[tokio::test]
async fn a_change_of_ones_own_goes_into_a_token_at_once() {
    let program = Program::start(&[KEYS]).await;
    let grant = json!({ "roomJoin": true, "room": "r", "canUpdateOwnMetadata": true });
    let (mut ann, _) = Client::join(&program.url, &token(KEY, json!({ "sub": "ann", "name": "Ann", "video": grant }))).await;
    let fresh = |said| if let Said::RefreshToken(token) = said { Some(token) } else { None };
    ann.find("the first token", fresh).await;
    let attributes = [("handRaised".to_owned(), "1".to_owned())].into();
    let update = lk::UpdateParticipantMetadata { name: "Dr. Ann".into(), metadata: "m".into(), attributes, ..Default::default() };
    ann.ask(Asked::UpdateMetadata(update)).await;
    let token = ann.find("a token that says so", fresh).await;
    let (_again, join) = Client::join(&program.url, &token).await;
    let me = join.participant.expect("me");
    assert_eq!((me.name.as_str(), me.metadata.as_str(), me.attributes["handRaised"].as_str()), ("Dr. Ann", "m", "1"));
}

#[tokio::test]
async fn a_second_connection_takes_the_place_of_the_first() {
    let program = Program::start(&[KEYS]).await;
    let (mut first, _) = Client::join(&program.url, &ticket("r", "ann")).await;
    let (_second, _) = Client::join(&program.url, &ticket("r", "ann")).await;
    let leave = first.find("a leave request", |said| if let Said::Leave(leave) = said { Some(leave) } else { None }).await;
    assert_eq!((leave.action(), leave.reason()), (Action::Disconnect, lk::DisconnectReason::DuplicateIdentity));
    assert!(first.closed().await.is_some());
}

#[tokio::test]
async fn a_broken_socket_is_resumed_and_a_stranger_starts_over() {
    let program = Program::start(&[KEYS]).await;
    let (mut bob, _) = Client::join(&program.url, &ticket("r", "bob")).await;
    let (ann, join) = Client::join(&program.url, &ticket("r", "ann")).await;
    bob.sees("ann", |_| true).await;
    let sid = join.participant.expect("me").sid;
    ann.cut();
    let path = format!("/rtc?reconnect=1&reconnect_reason=1&sid={sid}");
    let mut ann = Client::open(&program.url, &path, &ticket("r", "ann")).await.expect("is known");
    assert!(matches!(ann.next().await, Said::Reconnect(_)));
    ann.find("who is there", |said| match said {
        Said::Update(update) => update.participants.iter().any(|info| info.identity == "bob").then_some(()),
        _ => None,
    })
    .await;
    // Somebody else's sid, or one that has left, is nobody's to resume.
    for who in ["mallory", "bob"] {
        let mut stranger = Client::open(&program.url, &path, &ticket("r", who)).await.expect("is told on the socket");
        let leave = stranger.find("a leave request", |said| if let Said::Leave(leave) = said { Some(leave) } else { None }).await;
        assert_eq!((leave.action(), leave.reason()), (Action::Reconnect, lk::DisconnectReason::StateMismatch));
    }
    ann.ask(Asked::Ping(1)).await;
    ann.find("that she is still there", |said| if let Said::Pong(_) = said { Some(()) } else { None }).await;
}

#[tokio::test]
async fn the_newer_form_and_frames_of_text_are_understood() {
    let program = Program::start(&[KEYS]).await;
    let request = lk::JoinRequest {
        client_info: Some(lk::ClientInfo { version: "2.23.0".into(), ..lk::ClientInfo::default() }),
        connection_settings: Some(lk::ConnectionSettings { auto_subscribe: true, ..lk::ConnectionSettings::default() }),
        ..lk::JoinRequest::default()
    };
    let wrapped = lk::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
    let path = format!("/rtc/v1?join_request={}", URL_SAFE.encode(wrapped.encode_to_vec()));
    let mut ann = Client::open(&program.url, &path, &ticket("r", "ann")).await.expect("joins");
    let Said::Join(join) = ann.next().await else { panic!("no join") };
    assert!(!join.subscriber_primary, "one connection for both directions");

    ann.raw(Message::Text(r#"{"pingReq":{"timestamp":"7"}}"#.into())).await;
    soon("an answer in JSON", async {
        loop {
            let Some(Message::Text(text)) = ann.next_raw().await else { continue };
            let answer: lk::SignalResponse = serde_json::from_str(&text).expect("a SignalResponse");
            if let Some(Said::PongResp(pong)) = answer.message {
                assert_eq!(pong.last_ping_timestamp, 7);
                return;
            }
        }
    })
    .await;
    ann.raw(Message::Text("nonsense".into())).await;
    let (code, _) = ann.closed().await.expect("says why");
    assert_eq!(code, 1008);
}

#[tokio::test]
async fn a_room_nobody_made_is_made_only_where_that_is_allowed() {
    let program = Program::start(&[KEYS, ("RTCD_LIVEKIT_AUTOCREATE", "false")]).await;
    let query = format!("?access_token={}", ticket("r", "ann"));
    let (status, text) = validate(&program, &query).await;
    assert_eq!((status, text.as_str()), (404, "requested room does not exist"));
    assert_eq!(Client::open(&program.url, "/rtc", &ticket("r", "ann")).await.err().expect("refused").0, 404);
    let maker = json!({ "sub": "max", "video": { "roomJoin": true, "room": "own", "roomCreate": true }, "roomConfig": { "maxParticipants": 1, "metadata": "made" } });
    let (_max, join) = Client::join(&program.url, &token(KEY, maker)).await;
    let room = join.room.expect("a room");
    assert_eq!((room.max_participants, room.metadata.as_str()), (1, "made"));
    done(&program.url, "CreateRoom", json!({ "name": "r" })).await;
    assert_eq!(validate(&program, &query).await.0, 200);
    Client::join(&program.url, &ticket("r", "ann")).await;
    // The room of one is full.
    let (status, text) = Client::open(&program.url, "/rtc", &ticket("own", "eve")).await.err().expect("refused");
    assert!(status == 503 && text.contains("max participants"), "{status} {text}");
    Client::join(&program.url, &ticket("own", "max")).await;
}

#[tokio::test]
async fn a_node_that_is_emptied_takes_nobody_new_and_sends_those_left_elsewhere() {
    let mut program = Program::start(&[KEYS, ("RTCD_NODE_DRAINDEADLINES", "600")]).await;
    let (mut ann, _) = Client::join(&program.url, &ticket("r", "ann")).await;
    program.terminate();
    let query = format!("?access_token={}", ticket("r", "bob"));
    soon("the drain", async {
        while validate(&program, &query).await.0 != 503 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(Client::open(&program.url, "/rtc", &ticket("r", "bob")).await.err().expect("refused").0, 503);
    ann.ask(Asked::Ping(1)).await;
    ann.find("that the call goes on", |said| if let Said::Pong(_) = said { Some(()) } else { None }).await;
    program.terminate();
    let leave = ann.find("a leave request", |said| if let Said::Leave(leave) = said { Some(leave) } else { None }).await;
    assert_eq!((leave.action(), leave.reason()), (Action::Reconnect, lk::DisconnectReason::ServerShutdown));
    assert!(ann.closed().await.is_some());
    assert!(program.ended().await.success());
}
