//! Captions from the media node to the open pages of those who are in the call, over the real event route.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::{Person, Server, jobs::Offloader, until};
use conclave_proto::v1::{self, call_event, from_media};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// An open page: its event socket.
struct Page(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Page {
    async fn open(server: &Server, person: &Person) -> Self {
        let mut request = format!("ws://{}/api/v1/events", server.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", server.origin().parse().unwrap());
        request.headers_mut().insert("cookie", person.cookie.parse().unwrap());
        let mut page = Self(tokio_tungstenite::connect_async(request).await.unwrap().0);
        assert_eq!(page.next().await["type"], "hello");
        page
    }

    async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await.expect("an event within 60 s");
            if let Message::Text(text) = message.expect("the socket stays open").unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The kinds of events before the message that ends the story.
    async fn kinds_until_message(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        loop {
            match self.next().await["type"].as_str().unwrap() {
                "message" => return kinds,
                kind => kinds.push(kind.to_owned()),
            }
        }
    }
}

fn caption(call: &str, identity: &str, committed: &str, pending: &str, is_final: bool) -> from_media::Body {
    let now = message_server::clock::now_ms();
    from_media::Body::Event(v1::CallEvent {
        call_id: call.to_owned(),
        at_ms: now,
        event: Some(call_event::Event::Caption(v1::Caption {
            call_id: call.to_owned(),
            identity: identity.to_owned(),
            track_sid: "TR_mic".to_owned(),
            segment_id: "seg-1".to_owned(),
            committed: committed.to_owned(),
            pending: pending.to_owned(),
            r#final: is_final,
            language: "en".to_owned(),
            start_ms: now - 2_000,
            end_ms: now - 500,
            delay_ms: 500,
        })),
    })
}

#[tokio::test]
async fn committed_captions_reach_everybody_in_the_call_with_the_speakers_name_and_nobody_else() {
    let (node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user"]).await;
    let mut eve = server.person(&mut admin, "eve", &["user"]).await;
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    server.in_call(&call, &mut bob).await;
    let link = admin.post(&format!("/calls/{call}/guest-links"), json!({})).await;
    let token = link.body["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut guest = server.stranger();
    assert_eq!(guest.post("/session/guest", json!({ "token": token, "display_name": "Gina" })).await.status, 200);
    server.in_call(&call, &mut guest).await;

    let mut pages = [Page::open(&server, &admin).await, Page::open(&server, &bob).await, Page::open(&server, &guest).await];
    let mut outside = Page::open(&server, &eve).await;
    node.push(caption(&call, &bob.id, "Ask not", " what your", false));
    node.push(caption(&call, &bob.id, "Ask not what your country can do", "", true));
    for page in &mut pages {
        let first = page.next_of("caption").await;
        assert_eq!((first["committed"].as_str(), first["pending"].as_str()), (Some("Ask not"), Some(" what your")));
        let last = page.next_of("caption").await;
        assert_eq!(last["committed"], "Ask not what your country can do");
        assert_eq!((&last["display_name"], &last["identity"]), (&json!("bob Person"), &json!(bob.id)));
        assert_eq!((&last["segment_id"], &last["final"], &last["language"]), (&first["segment_id"], &json!(true), &json!("en")));
        assert!(last["delay_ms"].as_u64() >= Some(500), "{last}");
    }
    // Eve may join the call but is not in it: she reads nothing, live or afterwards.
    let channel = server.channel(&mut admin).await;
    assert_eq!(admin.post(&format!("/channels/{channel}/messages"), json!({ "text": "done" })).await.status, 201);
    let kinds = outside.kinds_until_message().await;
    assert!(!kinds.iter().any(|kind| kind == "caption"), "{kinds:?}");
    assert_eq!(eve.get(&format!("/calls/{call}/captions")).await.status, 409);
    // Who comes late can read up; a line that was replaced is there once.
    server.in_call(&call, &mut eve).await;
    let kept = eve.get(&format!("/calls/{call}/captions")).await.body;
    let lines = kept["captions"].as_array().unwrap();
    assert_eq!(lines.len(), 1, "{kept}");
    assert_eq!((&lines[0]["committed"], &lines[0]["display_name"]), (&json!("Ask not what your country can do"), &json!("bob Person")));
}

#[tokio::test]
async fn captions_that_a_host_switched_off_while_they_were_asked_for_stay_off() {
    let offloader = Offloader::start().await;
    let server = Server::start_with(|settings| settings.offloader = format!("http://{}", offloader.address)).await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    let path = format!("/calls/{call}/captions");
    assert_eq!(admin.post(&path, json!({ "enabled": true })).await.status, 200);
    let first = until("the job is asked for", || async { offloader.submitted().pop() }).await;
    assert_eq!(admin.post(&path, json!({ "enabled": false })).await.status, 200);
    offloader.answers.add_permits(1);
    until("the job is stopped", || async { offloader.stopped().contains(&first).then_some(()) }).await;
    assert_eq!(admin.see(&call).await["captions"]["enabled"], false);

    // Off and on again while it was asked for: the second job is the call's, the first one nobody's.
    let off = async || job_of(&server, &call).await.is_empty().then_some(());
    until("the first is done with", off).await;
    assert_eq!(admin.post(&path, json!({ "enabled": true })).await.status, 200);
    let second = until("another one", || async { offloader.submitted().into_iter().find(|key| *key != first) }).await;
    assert_eq!(admin.post(&path, json!({ "enabled": false })).await.status, 200);
    assert_eq!(admin.post(&path, json!({ "enabled": true, "language": "de" })).await.status, 200);
    offloader.answers.add_permits(2);
    until("the second is stopped", || async { offloader.stopped().contains(&second).then_some(()) }).await;
    let third = until("the third is the call's", || async { Some(job_of(&server, &call).await).filter(|job| !job.is_empty()) }).await;
    assert!(third != first && third != second && !offloader.stopped().contains(&third), "{third}");
    assert_eq!(admin.see(&call).await["captions"]["enabled"], true);
}

async fn job_of(server: &Server, call: &str) -> String {
    message_server::calls::row(&server.app.store, call).await.unwrap().captions.job
}

#[tokio::test]
async fn a_caption_that_comes_after_the_end_is_neither_kept_nor_shown() {
    let server = Server::start().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    let caption = || {
        let from_media::Body::Event(event) = caption(&call, &admin.id, "good bye", "", true) else { unreachable!() };
        let Some(call_event::Event::Caption(caption)) = event.event else { unreachable!() };
        caption
    };
    let now = message_server::clock::now_ms;
    message_server::calls::captions::handle(&server.app, &call, now(), caption()).await.unwrap();
    let kept = async || message_server::calls::captions::recent(&server.app.store, &call).await.unwrap().len();
    assert_eq!(kept().await, 1);
    message_server::calls::presence::end(&server.app, &call, now()).await.unwrap();
    // Queued on the link when the call ended.
    message_server::calls::captions::handle(&server.app, &call, now(), caption()).await.unwrap();
    assert_eq!(kept().await, 0);
}
