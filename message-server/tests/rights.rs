//! Every route × every kind of person. A new route or a changed right has to be entered here.

#![cfg(test)]

mod common;

use common::{Person, Server};
use serde_json::json;

/// What a cell expects: `.` let in (whatever comes of it), `-` 403, `?` 404 (may not even know), `!` 401.
fn fits(expected: char, status: u16) -> bool {
    match expected {
        '.' => !matches!(status, 401 | 403 | 404),
        '-' => status == 403,
        '?' => status == 404,
        '!' => status == 401,
        _ => false,
    }
}

#[tokio::test]
async fn every_route_lets_in_exactly_whom_it_should() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let mut starter = server.person(&mut admin, "starter", &["user"]).await;
    let user = server.person(&mut admin, "user", &["user"]).await;
    let host = server.person(&mut admin, "host", &["user", "host"]).await;
    let ops = server.person(&mut admin, "ops", &["ops"]).await;
    let officer = server.person(&mut admin, "officer", &["officer"]).await;
    let only_admin = server.person(&mut admin, "chief", &["admin"]).await;
    let channel = server.channel(&mut starter).await;
    let call = server.call(&mut starter).await;
    server.in_call(&call, &mut starter).await;

    let link = starter.post(&format!("/calls/{call}/guest-links"), json!({})).await;
    assert_eq!(link.status, 201, "{}", link.body);
    let token = link.body["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut guest = server.stranger();
    assert_eq!(guest.post("/session/guest", json!({ "token": token, "display_name": "Gus" })).await.status, 200);
    server.in_call(&call, &mut guest).await;

    // A guest of another call.
    let other_channel = starter.post("/channels", json!({ "name": "Other" })).await.body["id"].as_str().unwrap().to_owned();
    let other = starter.post(&format!("/channels/{other_channel}/call"), json!({})).await.body["call"]["id"].as_str().unwrap().to_owned();
    let link = starter.post(&format!("/calls/{other}/guest-links"), json!({})).await;
    let token = link.body["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut foreign = server.stranger();
    assert_eq!(foreign.post("/session/guest", json!({ "token": token, "display_name": "Fay" })).await.status, 200);

    let nobody = server.stranger();
    let mut people: Vec<(&str, Person)> = vec![
        ("starter", starter.clone()),
        ("host", host),
        ("user", user),
        ("guest", guest),
        ("foreign guest", foreign),
        ("ops", ops),
        ("officer", officer),
        ("admin", only_admin),
        ("nobody", nobody),
    ];
    let some = json!({});
    let rows: Vec<(&str, String, Option<serde_json::Value>, &str)> = vec![
        //                                                                            starter host user guest foreign ops officer admin nobody
        ("GET", "/session".into(), None, "........!"),
        ("GET", "/users".into(), None, "-------.!"),
        ("POST", "/users".into(), Some(json!({ "username": "", "display_name": "", "password": "", "roles": [] })), "-------.!"),
        ("PATCH", "/users/u-none".into(), Some(some.clone()), "-------?!"),
        ("GET", "/people?q=a".into(), None, "...-----!"),
        ("GET", "/channels".into(), None, "...-----!"),
        ("POST", "/channels".into(), Some(json!({ "name": "" })), "...-----!"),
        ("GET", format!("/channels/{channel}/messages"), None, "...-----!"),
        ("GET", format!("/channels/{channel}/messages?call_id={call}"), None, "....????!"),
        ("GET", format!("/channels/{channel}/messages?call_id={other}"), None, "????????!"),
        ("POST", format!("/channels/{channel}/messages"), Some(json!({ "text": "hi" })), "...-----!"),
        ("POST", format!("/channels/{channel}/messages"), Some(json!({ "text": "hi", "call_id": call })), "....????!"),
        ("POST", format!("/channels/{channel}/read"), Some(some.clone()), "...-----!"),
        ("POST", format!("/channels/{channel}/call"), Some(some.clone()), "...-----!"),
        ("GET", format!("/calls/{call}"), None, "....????!"),
        ("GET", "/calls/call-none".into(), None, "????????!"),
        ("POST", format!("/calls/{call}/join"), Some(some.clone()), "....????!"),
        ("POST", format!("/calls/{call}/leave"), Some(some.clone()), "....????!"),
        ("POST", format!("/calls/{call}/hand"), Some(json!({ "raised": true })), "....????!"),
        ("POST", format!("/calls/{call}/reactions"), Some(json!({ "emoji": "👍" })), "....????!"),
        ("POST", format!("/calls/{call}/consent"), Some(json!({ "granted": true, "notice_version": "1" })), "....????!"),
        ("GET", format!("/calls/{call}/captions"), None, "....????!"),
        ("POST", format!("/calls/{call}/captions"), Some(json!({ "enabled": false })), "..--????!"),
        ("POST", format!("/calls/{call}/recording"), Some(json!({ "action": "stop" })), "..--????!"),
        ("POST", format!("/calls/{call}/guest-links"), Some(some.clone()), "..--????!"),
        ("POST", format!("/calls/{call}/participants/u-none/mute"), Some(some.clone()), "??--????!"),
        ("GET", "/ops/nodes".into(), None, "-----.--!"),
        ("GET", "/ops/calls".into(), None, "-----.--!"),
        ("GET", "/ops/departed".into(), None, "-----.--!"),
        ("GET", "/ops/deeds".into(), None, "-----.--!"),
        ("POST", "/ops/probe".into(), Some(some.clone()), "-----.--!"),
        ("POST", "/ops/calls/c/participants/p/capture".into(), Some(json!({ "seconds": 1 })), "-----.--!"),
        ("GET", "/ops/jobs".into(), None, "-----.--!"),
        ("GET", "/ops/captions".into(), None, "-----.--!"),
        ("POST", "/ops/nodes/x/drain".into(), Some(some.clone()), "-----.--!"),
        ("DELETE", "/ops/nodes/x/drain".into(), None, "-----.--!"),
        ("GET", "/recordings".into(), None, "------.-!"),
        ("GET", "/recordings/r-1/media".into(), None, "------.-!"),
        ("POST", "/recordings/r-1/verify".into(), Some(some.clone()), "------.-!"),
        ("GET", "/accesses".into(), None, "------.-!"),
        // Last: it ends the call.
        ("POST", format!("/calls/{call}/end"), Some(some.clone()), "..--????!"),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, expected) in rows {
        // From the least to the most entitled: what the last ones do must not change the answers of the others.
        for ((who, person), expected) in people.iter_mut().rev().zip(expected.chars().rev()) {
            let answer = person.call(method, &path, body.clone()).await;
            if !fits(expected, answer.status) {
                wrong.push(format!("{method} {path} as {who}: {} instead of {expected} {}", answer.status, answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
