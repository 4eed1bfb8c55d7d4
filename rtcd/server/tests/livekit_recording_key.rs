//! Who may let recordings have the key of what is encrypted end to end, and how that ends. With media and recordings:
//! `integration-tests/browser/stories/livekit_recording_key.test.mjs`.
#![cfg(test)]

mod common;

use common::livekit::{Answer, Client, KEY, KEYS, http, now_s, ticket, token};
use common::program::Program;
use serde_json::{Value, json};

/// Nobody listens there.
const NOWHERE: [(&str, &str); 2] =
    [("RTCD_OFFLOADER_URL", "http://127.0.0.1:9"), ("RTCD_OFFLOADER_TOKEN", "a token of sixteen characters and more")];

async fn ask(program: &Program, method: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    http(&program.url, &format!("{method} /conclave/recording-key"), &[("Authorization", bearer.as_str())], body.as_bytes()).await
}

async fn grant(program: &Program, token: &str, body: Value) -> Answer {
    ask(program, "POST", token, &body.to_string()).await
}

async fn egress(program: &Program) -> Answer {
    let bearer = format!("Bearer {}", token(KEY, json!({ "video": { "roomRecord": true } })));
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = json!({ "roomName": "r", "fileOutputs": [{ "filepath": "a.mp4" }] });
    http(&program.url, "POST /twirp/livekit.Egress/StartRoomCompositeEgress", &headers, body.to_string().as_bytes()).await
}

fn refused(answer: &Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(says), "{}", answer.text());
}

#[tokio::test]
async fn a_participants_own_token_grants_the_key_while_they_are_in_the_room() {
    let program = Program::start(&[KEYS, NOWHERE[0], NOWHERE[1]]).await;
    let ann = ticket("r", "ann");
    let key = json!({ "key": "correct horse" });
    refused(&grant(&program, &ann, key.clone()).await, 404, "requested room does not exist");
    let _ann = Client::join_sealed(&program.url, &ann).await;
    let before = egress(&program).await;
    assert_eq!((before.status, before.json()["code"].as_str()), (412, Some("failed_precondition")));
    assert!(before.text().contains("grant of who holds the key") && before.text().contains("POST /conclave/recording-key"));

    for (token, status, says) in [
        (String::new(), 401, "invalid"),
        (token(("APIother", "another secret entirely"), json!({ "sub": "ann", "video": { "roomJoin": true, "room": "r" } })), 401, ""),
        (token(KEY, json!({ "sub": "ann", "exp": now_s() - 120, "video": { "roomJoin": true, "room": "r" } })), 401, "ExpiredSignature"),
        (token(KEY, json!({ "sub": "ann", "video": { "room": "r", "roomRecord": true, "roomAdmin": true } })), 401, "own token"),
        (token(KEY, json!({ "video": { "roomJoin": true, "room": "r" } })), 401, "own token"),
        (ticket("elsewhere", "ann"), 404, "requested room does not exist"),
        (ticket("r", "bob"), 403, "in the room"),
    ] {
        refused(&grant(&program, &token, key.clone()).await, status, says);
    }
    assert_eq!(egress(&program).await.status, 412, "nothing was granted");

    let granted = grant(&program, &ann, key).await;
    assert_eq!(granted.status, 200, "{}", granted.text());
    assert_eq!(granted.json(), json!({ "room": "r", "grantedBy": "ann", "keyIndex": 0 }));
    assert!(!granted.text().contains("horse") && granted.head.contains("access-control-allow-origin: *"));
    assert_eq!(egress(&program).await.status, 503, "it would begin, but there is no offloader");

    let bobs = ask(&program, "DELETE", &ticket("r", "bob"), "").await;
    assert_eq!((bobs.status, bobs.json()["takenBack"].as_u64()), (200, Some(0)), "another one's is not his to take back");
    assert_eq!(egress(&program).await.status, 503);
    let other = ask(&program, "DELETE", &ann, r#"{"keyIndex": 1}"#).await;
    assert_eq!(other.json()["takenBack"], 0);
    let taken = ask(&program, "DELETE", &ann, "").await;
    assert_eq!((taken.status, taken.json()), (200, json!({ "room": "r", "takenBack": 1 })));
    assert_eq!(egress(&program).await.status, 412);
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_repeated_to_nobody() {
    let program = Program::start(&[KEYS, NOWHERE[0], NOWHERE[1]]).await;
    let ann = ticket("r", "ann");
    let _ann = Client::join_sealed(&program.url, &ann).await;
    for (body, says) in [
        (json!({}), "once"),
        (json!({ "key": "a", "keyBase64": "YQ==" }), "once"),
        (json!({ "key": "" }), "1 to 1024"),
        (json!({ "key": "x".repeat(1025) }), "1 to 1024"),
        (json!({ "keyBase64": "secret, not base64" }), "base64"),
        (json!({ "key": "my secret", "keyIndex": 256 }), "JSON"),
        (json!({ "key": "my secret", "keyIndx": 1 }), "JSON"),
        (json!({ "key": ["my secret"] }), "JSON"),
        (json!({ "key": "a", "ratchetSalt": "x".repeat(257) }), "ratchetSalt"),
        (json!({ "key": "a", "ratchetWindowSize": 17 }), "ratchetWindowSize"),
        (json!({ "key": "a", "keySize": 64 }), "keySize"),
        (json!({ "key": "a", "participantIdentity": "x".repeat(257) }), "participantIdentity"),
    ] {
        let answer = grant(&program, &ann, body).await;
        refused(&answer, 400, says);
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    refused(&ask(&program, "POST", &ann, "my secret").await, 400, "JSON");
    assert_eq!(grant(&program, &ann, json!({ "key": "x".repeat(5_000) })).await.status, 413);
    for body in [
        json!({ "keyBase64": "AAECAwQFBgcICQoLDA0ODw==", "keyIndex": 255, "participantIdentity": "ann", "ratchetSalt": "", "keySize": 256 }),
        json!({ "key": "x".repeat(1024), "ratchetWindowSize": 16 }),
    ] {
        assert_eq!(grant(&program, &ann, body).await.status, 200);
    }
    let preflight = [("Origin", "https://meet.example"), ("Access-Control-Request-Method", "DELETE")];
    let answer = http(&program.url, "OPTIONS /conclave/recording-key", &preflight, b"").await;
    assert!(answer.status == 204 && answer.head.contains("delete"), "{}", answer.head);
}
