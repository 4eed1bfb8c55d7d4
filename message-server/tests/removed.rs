//! Who was removed from a call by a host: out of its media, out of its chat, and not back in by another door.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::{Person, Server};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

type Page = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn page(server: &Server, person: &Person) -> Option<Page> {
    let mut request = format!("ws://{}/api/v1/events", server.address).into_client_request().unwrap();
    request.headers_mut().insert("origin", server.origin().parse().unwrap());
    request.headers_mut().insert("cookie", person.cookie.parse().unwrap());
    Some(tokio_tungstenite::connect_async(request).await.ok()?.0)
}

async fn guest(server: &Server, token: &str, name: &str) -> Person {
    let mut guest = server.stranger();
    let answer = guest.post("/session/guest", json!({ "token": token, "display_name": name })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    guest
}

#[tokio::test]
async fn a_removed_guest_reads_writes_and_hears_nothing_more_and_its_link_is_dead() {
    let (_node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    let link = admin.post(&format!("/calls/{call}/guest-links"), json!({})).await.body;
    let token = link["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut gina = guest(&server, &token, "Gina").await;
    let mut gus = guest(&server, &token, "Gus").await;
    for person in [&mut gina, &mut gus] {
        server.in_call(&call, person).await;
    }
    let channel = server.channel(&mut admin).await;
    let (read, write) = (format!("/channels/{channel}/messages?call_id={call}"), format!("/channels/{channel}/messages"));
    let text = json!({ "text": "hello", "call_id": call });
    assert_eq!((gina.get(&read).await.status, gina.post(&write, text.clone()).await.status), (200, 201));
    let mut open = page(&server, &gina).await.unwrap();

    let removed = admin.post(&format!("/calls/{call}/participants/{}/remove", gina.id), json!({})).await;
    assert_eq!(removed.status, 204, "{}", removed.body);
    assert_eq!((gina.get(&read).await.status, gina.post(&write, text.clone()).await.status), (401, 401));
    // The open page hears no more either, and does not get a new socket.
    let end = async {
        while let Some(Ok(message)) = open.next().await
            && !message.is_close()
        {}
    };
    tokio::time::timeout(Duration::from_secs(60), end).await.expect("the socket closes");
    assert!(page(&server, &gina).await.is_none());
    let again = gina.post("/session/guest", json!({ "token": token, "display_name": "Georgina" })).await;
    assert_eq!(again.status, 401, "{}", again.body);

    // Whoever else came by the link stays, and a new link lets others in.
    assert_eq!((gus.get(&read).await.status, gus.post(&write, text).await.status), (200, 201));
    let link = admin.post(&format!("/calls/{call}/guest-links"), json!({})).await.body;
    guest(&server, link["url"].as_str().unwrap().rsplit('/').next().unwrap(), "Grit").await;
}

#[tokio::test]
async fn a_removed_person_keeps_the_channels_but_not_the_call() {
    let (_node, server) = Server::with_node().await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user", "host"]).await;
    let call = server.call(&mut admin).await;
    server.in_call(&call, &mut admin).await;
    server.in_call(&call, &mut bob).await;
    let removed = admin.post(&format!("/calls/{call}/participants/{}/remove", bob.id), json!({})).await;
    assert_eq!(removed.status, 204, "{}", removed.body);
    let channel = server.channel(&mut bob).await;
    assert_eq!(bob.get(&format!("/channels/{channel}/messages?call_id={call}")).await.status, 403);
    assert_eq!(bob.get(&format!("/calls/{call}")).await.status, 403);
    assert_eq!(bob.post(&format!("/channels/{channel}/messages"), json!({ "text": "x", "call_id": call })).await.status, 403);
    // Nor does a host who was removed make a link and come as a guest.
    assert_eq!(bob.post(&format!("/calls/{call}/guest-links"), json!({})).await.status, 403);
    assert_eq!(bob.post(&format!("/channels/{channel}/messages"), json!({ "text": "sorry" })).await.status, 201);
}
