//! LiveKit's `RoomService` on the program itself, as server SDKs call it.
#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]

mod common;

use common::livekit::{Answer, Client, KEY, KEYS, admin_token, done, http, server_token, ticket, token, token_for, twirp};
use common::program::Program;
use common::soon;
use livekit_protocol as lk;
use lk::signal_request::Message as Asked;
use lk::signal_response::Message as Said;
use prost::Message as _;
use serde_json::{Value, json};

/// Every call, with a body that names room `r`.
const CALLS: [&str; 14] = [
    "CreateRoom",
    "ListRooms",
    "DeleteRoom",
    "ListParticipants",
    "GetParticipant",
    "RemoveParticipant",
    "MutePublishedTrack",
    "UpdateParticipant",
    "UpdateSubscriptions",
    "SendData",
    "UpdateRoomMetadata",
    "ForwardParticipant",
    "MoveParticipant",
    "PerformRpc",
];

fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert!(answer.json()["msg"].as_str().is_some_and(|msg| !msg.is_empty()));
}

fn microphone() -> Asked {
    Asked::AddTrack(lk::AddTrackRequest {
        cid: "mic".into(),
        r#type: lk::TrackType::Audio.into(),
        source: lk::TrackSource::Microphone.into(),
        ..lk::AddTrackRequest::default()
    })
}

/// Announces a microphone and gives its sid.
async fn announce(client: &mut Client) -> String {
    client.ask(microphone()).await;
    client.find("the track's sid", |said| if let Said::TrackPublished(track) = said { Some(track.track?.sid) } else { None }).await
}

#[tokio::test]
async fn every_call_asks_for_its_grant_in_its_room() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    done(url, "CreateRoom", json!({ "name": "r" })).await;
    let body = json!({ "name": "r", "room": "r", "identity": "ann" });
    let join_only = ticket("r", "ann");
    let admin_elsewhere = token(KEY, json!({ "video": { "roomAdmin": true, "room": "other" } }));
    // LiveKit's server takes a grant without a room for none as well.
    let admin_nowhere = token(KEY, json!({ "video": { "roomAdmin": true } }));
    for method in CALLS {
        let mut body = body.clone();
        let wanted: Vec<&str> = match method {
            "CreateRoom" => vec!["name"],
            "ListRooms" => vec![],
            "DeleteRoom" | "ListParticipants" | "SendData" | "UpdateRoomMetadata" | "PerformRpc" => vec!["room"],
            _ => vec!["room", "identity"],
        };
        body.as_object_mut().expect("an object").retain(|name, _| wanted.contains(&name.as_str()));
        for token in [&join_only, &admin_elsewhere, &admin_nowhere] {
            let answer = twirp(url, token, method, body.clone()).await;
            fails(&answer, 401, "unauthenticated");
            assert_eq!(answer.json()["msg"], "permissions denied", "{method}");
        }
        fails(&twirp(url, "nonsense", method, body.clone()).await, 401, "unauthenticated");
        fails(&twirp(url, &server_token(), method, json!("no message")).await, 400, "malformed");
    }
    let without = http(url, "POST /twirp/livekit.RoomService/ListRooms", &[("Content-Type", "application/json")], b"{}").await;
    fails(&without, 401, "unauthenticated");
    // A token for this room alone does.
    let admin = token(KEY, json!({ "video": { "roomAdmin": true, "room": "r" } }));
    assert_eq!(twirp(url, &admin, "ListParticipants", json!({ "room": "r" })).await.status, 200);
    // A token bound to another body does not.
    let bound = token(KEY, json!({ "video": { "roomList": true }, "sha256": "bm90IHRoaXMgb25l" }));
    fails(&twirp(url, &bound, "ListRooms", json!({})).await, 401, "unauthenticated");
}

#[tokio::test]
async fn what_is_not_there_or_not_done_is_said_in_the_protocols_words() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let ask = async |method: &str, body: Value| twirp(url, &token_for(&body), method, body).await;
    for method in ["DeleteRoom", "ListParticipants", "SendData", "UpdateRoomMetadata"] {
        let answer = ask(method, json!({ "room": "nowhere" })).await;
        fails(&answer, 404, "not_found");
        assert_eq!(answer.json()["msg"], "requested room does not exist");
    }
    done(url, "CreateRoom", json!({ "name": "r" })).await;
    for method in ["GetParticipant", "RemoveParticipant", "MutePublishedTrack", "UpdateParticipant", "UpdateSubscriptions"] {
        let answer = ask(method, json!({ "room": "r", "identity": "nobody" })).await;
        fails(&answer, 404, "not_found");
        assert_eq!(answer.json()["msg"], "participant does not exist");
    }
    for method in ["ForwardParticipant", "MoveParticipant"] {
        let answer = ask(method, json!({ "room": "r", "identity": "ann", "destinationRoom": "s" })).await;
        fails(&answer, 501, "unimplemented");
    }
    for unsupported in [
        json!({ "name": "x", "egress": {} }),
        json!({ "name": "x", "roomPreset": "p" }),
        json!({ "name": "x", "tags": { "a": "b" } }),
        json!({ "name": "x", "replayEnabled": true }),
    ] {
        fails(&ask("CreateRoom", unsupported).await, 501, "unimplemented");
    }
    let reversed = json!({ "name": "x", "minPlayoutDelay": 50, "maxPlayoutDelay": 5 });
    fails(&ask("CreateRoom", reversed).await, 400, "invalid_argument");
    fails(&ask("CreateRoom", json!({ "name": "" })).await, 400, "invalid_argument");
    fails(&ask("CreateRoom", json!({ "name": "x", "nodeId": "another" })).await, 400, "invalid_argument");
    fails(&ask("CreateRoom", json!({ "name": "x".repeat(300) })).await, 429, "resource_exhausted");
    fails(&ask("RemoveParticipant", json!({ "room": "r", "identity": "a", "revokeTokenTs": "5" })).await, 501, "unimplemented");
    fails(&ask("NoSuchCall", json!({})).await, 404, "bad_route");
    let bearer = format!("Bearer {}", server_token());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    for service in ["Egress", "Ingress", "SIP", "Connector"] {
        fails(&http(url, &format!("POST /twirp/livekit.{service}/AnyCall"), &headers, b"{}").await, 501, "unimplemented");
    }
    fails(&http(url, "POST /twirp/livekit.Nonsense/AnyCall", &headers, b"{}").await, 404, "bad_route");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    fails(&http(url, "POST /twirp/livekit.RoomService/ListRooms", &headers, b"{}").await, 404, "bad_route");
}

#[tokio::test]
async fn rooms_are_made_listed_described_and_ended() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let made = done(
        url,
        "CreateRoom",
        json!({ "name": "one", "empty_timeout": 60, "departureTimeout": 5, "maxParticipants": 7, "metadata": "m" }),
    )
    .await;
    assert_eq!((&made["name"], &made["empty_timeout"], &made["departure_timeout"]), (&json!("one"), &json!(60), &json!(5)));
    assert_eq!((&made["max_participants"], &made["metadata"]), (&json!(7), &json!("m")));
    let again = done(url, "CreateRoom", json!({ "name": "one" })).await;
    assert_eq!((&again["sid"], &again["metadata"]), (&made["sid"], &json!("m")), "what is there stays");
    done(url, "CreateRoom", json!({ "name": "two" })).await;
    let names = |listed: Value| {
        let mut names: Vec<String> =
            listed["rooms"].as_array().into_iter().flatten().map(|room| room["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(done(url, "ListRooms", json!({})).await), ["one", "two"]);
    assert_eq!(names(done(url, "ListRooms", json!({ "names": ["two", "none"] })).await), ["two"]);

    let (mut ann, join) = Client::join(url, &ticket("one", "ann")).await;
    assert_eq!(join.room.expect("a room").sid, made["sid"].as_str().expect("a sid"));
    done(url, "UpdateRoomMetadata", json!({ "room": "one", "metadata": "new" })).await;
    let told = ann.find("the room's news", |said| if let Said::RoomUpdate(update) = said { update.room } else { None }).await;
    assert_eq!((told.metadata.as_str(), told.num_participants), ("new", 1));
    done(url, "DeleteRoom", json!({ "room": "one" })).await;
    let leave = ann.find("a leave request", |said| if let Said::Leave(leave) = said { Some(leave) } else { None }).await;
    assert_eq!(leave.reason(), lk::DisconnectReason::RoomDeleted);
    assert_eq!(names(done(url, "ListRooms", json!({})).await), ["two"]);

    // The same in protobuf, as most SDKs ask.
    let bearer = format!("Bearer {}", server_token());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/protobuf")];
    let body = lk::ListRoomsRequest::default().encode_to_vec();
    let answer = http(url, "POST /twirp/livekit.RoomService/ListRooms", &headers, &body).await;
    assert!(answer.status == 200 && answer.head.contains("content-type: application/protobuf"), "{}", answer.head);
    let rooms = lk::ListRoomsResponse::decode(answer.body.as_slice()).expect("a response").rooms;
    assert_eq!(rooms.iter().map(|room| room.name.as_str()).collect::<Vec<_>>(), ["two"]);
}

#[tokio::test]
async fn an_empty_room_ends_after_its_time() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    done(url, "CreateRoom", json!({ "name": "short", "emptyTimeout": 1 })).await;
    done(url, "CreateRoom", json!({ "name": "left", "emptyTimeout": 900, "departureTimeout": 1 })).await;
    done(url, "CreateRoom", json!({ "name": "long", "emptyTimeout": 900 })).await;
    let (mut ann, _) = Client::join(url, &ticket("left", "ann")).await;
    ann.ask(Asked::Leave(lk::LeaveRequest::default())).await;
    soon("the end of both", async {
        loop {
            let rooms = done(url, "ListRooms", json!({})).await;
            let names: Vec<&str> = rooms["rooms"].as_array().expect("rooms").iter().filter_map(|room| room["name"].as_str()).collect();
            if names == ["long"] {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn participants_are_listed_changed_and_removed() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let (mut ann, _) = Client::join(url, &ticket("r", "ann")).await;
    let (mut bob, join) = Client::join(url, &ticket("r", "bob")).await;
    let sid = join.participant.expect("me").sid;
    let listed = done(url, "ListParticipants", json!({ "room": "r" })).await;
    assert_eq!(listed["participants"].as_array().expect("a list").len(), 2);
    let one = done(url, "GetParticipant", json!({ "room": "r", "identity": "bob" })).await;
    assert_eq!((&one["sid"], &one["name"]), (&json!(sid), &json!("BOB")));

    let update = json!({ "room": "r", "identity": "bob", "name": "Robert", "metadata": "m", "attributes": { "handRaised": "1" } });
    let changed = done(url, "UpdateParticipant", update).await;
    assert_eq!((&changed["name"], &changed["attributes"]["handRaised"]), (&json!("Robert"), &json!("1")));
    let seen = ann.sees("bob", |info| info.name == "Robert").await;
    assert_eq!((seen.metadata.as_str(), seen.attributes["handRaised"].as_str()), ("m", "1"));
    done(url, "UpdateParticipant", json!({ "room": "r", "identity": "bob", "attributes": { "handRaised": "" } })).await;
    ann.sees("bob", |info| info.attributes.is_empty()).await;
    let long = json!({ "room": "r", "identity": "bob", "metadata": "x".repeat(70_000) });
    fails(&twirp(url, &admin_token("r"), "UpdateParticipant", long).await, 429, "resource_exhausted");

    done(url, "RemoveParticipant", json!({ "room": "r", "identity": "bob" })).await;
    let leave = bob.find("a leave request", |said| if let Said::Leave(leave) = said { Some(leave) } else { None }).await;
    assert_eq!(leave.reason(), lk::DisconnectReason::ParticipantRemoved);
    ann.sees("bob", |info| info.state() == lk::participant_info::State::Disconnected).await;
    assert!(bob.closed().await.is_some());
}

#[tokio::test]
async fn a_changed_permission_holds_at_once_and_in_the_next_token() {
    let program = Program::start(&[KEYS]).await;
    let url = &program.url;
    let (mut ann, _) = Client::join(url, &ticket("r", "ann")).await;
    ann.find("the first token", |said| if let Said::RefreshToken(_) = said { Some(()) } else { None }).await;
    let sid = announce(&mut ann).await;
    let listener = json!({ "room": "r", "identity": "ann", "permission": { "canSubscribe": true } });
    done(url, "UpdateParticipant", listener).await;
    let ended =
        ann.find("the end of the track", |said| if let Said::TrackUnpublished(track) = said { Some(track.track_sid) } else { None }).await;
    assert_eq!(ended, sid);
    let fresh = ann.find("a token that says so", |said| if let Said::RefreshToken(token) = said { Some(token) } else { None }).await;
    ann.ask(microphone()).await;
    let refused = ann.find("a refusal", |said| if let Said::RequestResponse(response) = said { Some(response) } else { None }).await;
    assert_eq!(refused.reason(), lk::request_response::Reason::NotAllowed);
    // Who starts over with it is no better off.
    let (mut again, join) = Client::join(url, &fresh).await;
    assert!(!join.participant.expect("me").permission.expect("a permission").can_publish);
    let speaker =
        json!({ "room": "r", "identity": "ann", "permission": { "canSubscribe": true, "canPublish": true, "canPublishData": true } });
    done(url, "UpdateParticipant", speaker).await;
    announce(&mut again).await;
}

#[tokio::test]
async fn tracks_are_muted_and_switched_on_only_where_that_is_set() {
    for (setting, may) in [("false", false), ("true", true)] {
        let program = Program::start(&[KEYS, ("RTCD_LIVEKIT_ENABLEREMOTEUNMUTE", setting)]).await;
        let url = &program.url;
        let (mut ann, _) = Client::join(url, &ticket("r", "ann")).await;
        let sid = announce(&mut ann).await;
        let mute = |sid: &str, muted: bool| json!({ "room": "r", "identity": "ann", "trackSid": sid, "muted": muted });
        let answer = done(url, "MutePublishedTrack", mute(&sid, true)).await;
        assert_eq!((&answer["track"]["sid"], &answer["track"]["muted"]), (&json!(sid), &json!(true)));
        let told = ann.find("the mute", |said| if let Said::Mute(mute) = said { Some(mute) } else { None }).await;
        assert!(told.sid == sid && told.muted);
        fails(&twirp(url, &admin_token("r"), "MutePublishedTrack", mute("TR_none", true)).await, 404, "not_found");
        let back = twirp(url, &admin_token("r"), "MutePublishedTrack", mute(&sid, false)).await;
        if may {
            assert_eq!(back.status, 200);
            let told = ann.find("the mute", |said| if let Said::Mute(mute) = said { Some(mute) } else { None }).await;
            assert!(!told.muted);
        } else {
            fails(&back, 412, "failed_precondition");
            assert_eq!(back.json()["msg"], "remote unmute not enabled");
        }
    }
}
