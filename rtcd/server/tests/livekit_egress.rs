//! LiveKit's egress on the program itself, as far as it needs no offloader: grants, rooms, refusals. Recordings are in
//! `integration-tests/tests/livekit_egress.rs`.
#![cfg(test)]

mod common;

use common::livekit::{Answer, Client, KEY, KEYS, done, http, server_token, ticket, token};
use common::program::Program;
use serde_json::{Value, json};

/// Nobody listens there.
const NOWHERE: [(&str, &str); 2] =
    [("RTCD_OFFLOADER_URL", "http://127.0.0.1:9"), ("RTCD_OFFLOADER_TOKEN", "a token of sixteen characters and more")];

async fn egress(program: &Program, token: &str, method: &str, body: Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    http(&program.url, &format!("POST /twirp/livekit.Egress/{method}"), &headers, body.to_string().as_bytes()).await
}

fn recorder() -> String {
    token(KEY, json!({ "video": { "roomRecord": true } }))
}

fn composite(room: &str) -> Value {
    json!({ "roomName": room, "fileOutputs": [{ "filepath": "a.mp4" }] })
}

fn fails(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert!(answer.json()["msg"].as_str().is_some_and(|msg| msg.contains(says)), "{}", answer.text());
}

#[tokio::test]
async fn egress_needs_its_grant_a_room_with_people_and_an_offloader() {
    let program = Program::start(&[KEYS, NOWHERE[0], NOWHERE[1]]).await;
    for method in
        ["StartRoomCompositeEgress", "StartParticipantEgress", "StartTrackCompositeEgress", "StartTrackEgress", "StopEgress", "ListEgress"]
    {
        fails(&egress(&program, &server_token(), method, json!({})).await, 401, "unauthenticated", "permissions denied");
    }
    let start = async |body| egress(&program, &recorder(), "StartRoomCompositeEgress", body).await;
    fails(&start(composite("nowhere")).await, 404, "not_found", "requested room does not exist");
    done(&program.url, "CreateRoom", json!({ "name": "r" })).await;
    fails(&start(composite("r")).await, 412, "failed_precondition", "nobody is in the room");
    let (_ann, _) = Client::join(&program.url, &ticket("r", "ann")).await;
    fails(&start(composite("r")).await, 503, "unavailable", "cannot be reached");
    let rooms = done(&program.url, "ListRooms", json!({})).await;
    assert!(rooms["rooms"][0].get("active_recording").is_none(), "nobody is vouched for: {rooms}");
    fails(&egress(&program, &recorder(), "ListEgress", json!({})).await, 503, "unavailable", "cannot be reached");
}

#[tokio::test]
async fn a_part_of_a_room_is_of_somebody_who_is_there() {
    let program = Program::start(&[KEYS, NOWHERE[0], NOWHERE[1]]).await;
    let file = json!([{ "filepath": "a" }]);
    let of_ann = json!({ "roomName": "r", "identity": "ann", "fileOutputs": file });
    let of_track = json!({ "roomName": "r", "trackId": "TR_1", "file": { "filepath": "a" } });
    let of_tracks = json!({ "roomName": "r", "audioTrackId": "TR_1", "fileOutputs": file });
    let start = async |method: &str, body: &Value| egress(&program, &recorder(), method, body.clone()).await;
    for (method, body) in [("StartParticipantEgress", &of_ann), ("StartTrackEgress", &of_track), ("StartTrackCompositeEgress", &of_tracks)]
    {
        fails(&start(method, body).await, 404, "not_found", "requested room does not exist");
    }
    let (_bob, _) = Client::join(&program.url, &ticket("r", "bob")).await;
    fails(&start("StartParticipantEgress", &of_ann).await, 404, "not_found", "participant does not exist");
    for (method, body) in [("StartTrackEgress", &of_track), ("StartTrackCompositeEgress", &of_tracks)] {
        fails(&start(method, body).await, 404, "not_found", "track is not found");
    }
    let of_bob = json!({ "roomName": "r", "identity": "bob", "fileOutputs": file });
    fails(&start("StartParticipantEgress", &of_bob).await, 503, "unavailable", "cannot be reached");
    let rooms = done(&program.url, "ListRooms", json!({})).await;
    assert!(rooms["rooms"][0].get("active_recording").is_none(), "nobody is vouched for: {rooms}");
    let websocket = json!({ "roomName": "r", "trackId": "TR_1", "websocketUrl": "wss://x.example" });
    fails(&start("StartTrackEgress", &websocket).await, 501, "unimplemented", "WebSockets");
}

#[tokio::test]
async fn what_is_encrypted_end_to_end_is_not_recorded() {
    let program = Program::start(&[KEYS, NOWHERE[0], NOWHERE[1]]).await;
    let _ann = Client::join_sealed(&program.url, &ticket("r", "ann")).await;
    let answer = egress(&program, &recorder(), "StartRoomCompositeEgress", composite("r")).await;
    fails(&answer, 412, "failed_precondition", "grant of who holds the key");
}

#[tokio::test]
async fn what_egress_does_not_do_is_said_in_the_protocols_words() {
    let program = Program::start(&[KEYS, NOWHERE[0], NOWHERE[1]]).await;
    for method in ["StartWebEgress", "UpdateStream"] {
        fails(&egress(&program, &recorder(), method, json!({})).await, 501, "unimplemented", "");
    }
    let mosaic = json!({ "egressId": "EG_1", "layout": "mosaic" });
    fails(&egress(&program, &recorder(), "UpdateLayout", mosaic).await, 501, "unimplemented", "speaker");
    let page = json!({ "roomName": "r", "web": { "url": "https://page.example" }, "outputs": [{ "file": { "filepath": "a" } }] });
    fails(&egress(&program, &recorder(), "StartEgress", page).await, 501, "unimplemented", "web pages");
    let nothing = json!({ "roomName": "r", "outputs": [{ "file": { "filepath": "a" } }] });
    fails(&egress(&program, &recorder(), "StartEgress", nothing).await, 400, "invalid_argument", "source");
    fails(&egress(&program, &recorder(), "Nonsense", json!({})).await, 404, "bad_route", "Nonsense");
    let (_ann, _) = Client::join(&program.url, &ticket("r", "ann")).await;
    for more in [
        json!({ "layout": "mosaic" }),
        json!({ "customBaseUrl": "https://page.example" }),
        json!({ "streamOutputs": [{ "urls": ["rtmp://x"] }] }),
        json!({ "segmentOutputs": [{ "filenamePrefix": "x" }] }),
        json!({ "imageOutputs": [{ "captureInterval": 5 }] }),
        json!({ "fileOutputs": [{ "filepath": "a.mp3", "fileType": "MP3" }] }),
        json!({ "fileOutputs": [{ "filepath": "a.mp4", "gcp": { "bucket": "b" } }] }),
    ] {
        let mut body = composite("r");
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        fails(&egress(&program, &recorder(), "StartRoomCompositeEgress", body).await, 501, "unimplemented", "");
    }
    let mut nowhere = composite("r");
    nowhere["fileOutputs"][0]["s3"] = json!({ "bucket": "b" });
    fails(&egress(&program, &recorder(), "StartRoomCompositeEgress", nowhere).await, 400, "invalid_argument", "access_key");
    let without = Program::start(&[KEYS]).await;
    fails(&egress(&without, &recorder(), "ListEgress", json!({})).await, 501, "unimplemented", "offloader.url");
}
