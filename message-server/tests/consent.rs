//! Recording consent over HTTP and through a restart. The offloader is away here: what is wanted stays wanted.

#![cfg(test)]

mod common;

use common::{Person, Server, until};
use serde_json::{Value, json};

async fn answer(person: &mut Person, call: &str, granted: bool) -> (u16, Value) {
    let answer = person.post(&format!("/calls/{call}/consent"), json!({ "granted": granted, "notice_version": "1" })).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn everybody_is_asked_before_anything_is_recorded() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user"]).await;
    let mut eve = server.person(&mut admin, "eve", &["user"]).await;
    let call = server.call(&mut admin).await;
    let start = json!({ "action": "start" });
    let path = format!("/calls/{call}/recording");
    assert_eq!(admin.post(&path, start.clone()).await.status, 409, "nobody is in the call");
    server.in_call(&call, &mut admin).await;
    server.in_call(&call, &mut bob).await;
    assert_eq!(bob.post(&path, start.clone()).await.status, 403, "not the host");
    assert_eq!(answer(&mut bob, &call, true).await.0, 409, "nothing asked yet");
    assert_eq!(admin.post(&path, start.clone()).await.status, 200);
    let seen = bob.see(&call).await;
    assert_eq!(seen["recording"]["state"], "asking");
    assert_eq!(seen["recording"]["waiting_for"].as_array().unwrap().len(), 2);
    assert_eq!(admin.post(&path, start).await.status, 409, "already asking");

    let old_notice = json!({ "granted": true, "notice_version": "0" });
    assert_eq!(bob.post(&format!("/calls/{call}/consent"), old_notice).await.status, 409);
    assert_eq!(answer(&mut eve, &call, true).await.0, 409, "not in the call");
    assert_eq!(answer(&mut bob, &call, false).await.0, 200);
    let (_, seen) = answer(&mut admin, &call, true).await;
    assert_eq!(seen["recording"]["waiting_for"], json!([]));
    let of = |seen: &Value, id: &str| {
        let people = seen["participants"].as_array().unwrap().clone();
        people.iter().find(|person| person["identity"] == id).map(|person| person["consent"].clone()).unwrap()
    };
    assert_eq!((of(&seen, &bob.id), of(&seen, &admin.id)), (json!("declined"), json!("granted")));
    // The recorder cannot be reached: the page says so and nothing claims to record.
    let seen = until("the trouble is shown", || {
        let mut admin = admin.clone();
        let call = call.clone();
        async move {
            let seen = admin.see(&call).await;
            (seen["recording"]["problem"] != "").then_some(seen)
        }
    })
    .await;
    assert_eq!(seen["recording"]["state"], "asking");

    // A late joiner is asked too.
    server.in_call(&call, &mut eve).await;
    assert_eq!(eve.see(&call).await["recording"]["waiting_for"], json!([eve.id]));

    // The message server is killed: answers and wish are still there.
    let data = server.kill().await;
    let server = Server::start_in(data, |_| {}).await;
    admin.origin = server.origin();
    let seen = admin.see(&call).await;
    assert_eq!(seen["recording"]["state"], "asking");
    assert_eq!(of(&seen, &bob.id), "declined");
    assert_eq!(admin.post(&path, json!({ "action": "stop" })).await.status, 200);
    assert_eq!(admin.post(&path, json!({ "action": "start" })).await.status, 409, "the last one is still being closed");
}

#[tokio::test]
async fn when_everybody_declines_nothing_is_recorded() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    admin.post(&format!("/calls/{call}/recording"), json!({ "action": "start" })).await;
    let (_, seen) = answer(&mut admin, &call, false).await;
    assert_eq!(seen["recording"]["state"], "off");
}

#[tokio::test]
async fn without_an_offloader_recording_and_captions_say_what_is_missing() {
    let server = Server::start_with(|settings| settings.offloader = String::new()).await;
    let mut admin = server.admin().await;
    assert_eq!(admin.get("/session").await.body["features"]["recording"], false);
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    for (path, body) in [("recording", json!({ "action": "start" })), ("captions", json!({ "enabled": true }))] {
        let answer = admin.post(&format!("/calls/{call}/{path}"), body).await;
        assert_eq!(answer.status, 501);
        assert!(answer.body["error"]["message"].as_str().unwrap().contains("MESSAGE_SERVER_OFFLOADER"));
    }
}
