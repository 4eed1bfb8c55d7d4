//! The last one leaves: on purpose, or only to come back.

#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

mod common;

use std::sync::Arc;

use common::{Person, Server, node::Node};
use conclave_proto::v1::{host_action::Action, to_media::Body};
use message_server::{calls::presence, clock};
use serde_json::json;

struct Room {
    node: Arc<Node>,
    server: Server,
    admin: Person,
    bob: Person,
    call: String,
}

impl Room {
    /// Ada and Bob are in a call.
    async fn with_two() -> Self {
        let (node, server) = Server::with_node().await;
        let mut admin = server.admin().await;
        let mut bob = server.person(&mut admin, "bob", &["user"]).await;
        let call = server.call(&mut admin).await;
        server.in_call(&call, &mut admin).await;
        server.in_call(&call, &mut bob).await;
        Self { node, server, admin, bob, call }
    }

    async fn goodbye(&self, person: &Person) {
        let answer = person.clone().post(&format!("/calls/{}/leave", self.call), json!({})).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// What the media node says when a page goes away.
    async fn page_gone(&self, person: &Person) {
        presence::left(&self.server.app, &self.call, clock::now_ms(), &person.id, &format!("PA_{}", person.id)).await.unwrap();
    }

    async fn runs(&self) -> bool {
        self.admin.clone().see(&self.call).await["ended_at_ms"].is_null()
    }

    fn ended_on_the_node(&self) -> bool {
        let ends = self.node.received(|body| match body {
            Body::HostAction(action) => Some(matches!(action.action, Some(Action::End(_)))),
            _ => None,
        });
        ends.contains(&true)
    }
}

#[tokio::test]
async fn when_all_have_said_goodbye_the_call_is_over_at_once() {
    let room = Room::with_two().await;
    room.goodbye(&room.admin).await;
    assert!(room.runs().await && !room.ended_on_the_node(), "Bob is still there");
    // The media node may tell it before the page does.
    room.page_gone(&room.bob).await;
    room.goodbye(&room.bob).await;
    assert!(!room.runs().await);
    assert!(room.ended_on_the_node());
}

#[tokio::test]
async fn a_page_that_reloads_is_awaited_when_the_others_leave() {
    let mut room = Room::with_two().await;
    room.page_gone(&room.admin).await;
    room.goodbye(&room.bob).await;
    assert!(room.runs().await, "Ada's page is loading");
    let call = room.call.clone();
    room.server.in_call(&call, &mut room.admin).await;
    let seen = room.admin.see(&call).await;
    assert_eq!(seen["participants"].as_array().map(Vec::len), Some(1), "{seen}");
    room.goodbye(&room.admin).await;
    assert!(!room.runs().await);
}

#[tokio::test]
async fn who_has_taken_a_ticket_is_awaited() {
    let mut room = Room::with_two().await;
    room.goodbye(&room.bob).await;
    let path = format!("/calls/{}/join", room.call);
    assert_eq!(room.bob.post(&path, json!({})).await.status, 200);
    room.goodbye(&room.admin).await;
    assert!(room.runs().await, "Bob is on his way back");
    assert!(!room.ended_on_the_node());
}

#[tokio::test]
async fn a_goodbye_of_somebody_who_was_never_there_ends_nothing() {
    let mut room = Room::with_two().await;
    let eve = room.server.person(&mut room.admin, "eve", &["user"]).await;
    room.page_gone(&room.admin).await;
    room.page_gone(&room.bob).await;
    room.goodbye(&eve).await;
    assert!(room.runs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_empties_itself_keeps_newcomers_out_with_a_reason_and_lets_the_others_back_in() {
    let mut room = Room::with_two().await;
    let mut carol = room.server.person(&mut room.admin, "carol", &["user"]).await;
    let mut otto = room.server.person(&mut room.admin, "otto", &["ops"]).await;
    let join = format!("/calls/{}/join", room.call);
    let answer = otto.post("/ops/nodes/node/drain", json!({})).await;
    assert_eq!(answer.status, 204, "{}", answer.body);

    let answer = carol.post(&join, json!({})).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let text = answer.body.to_string();
    assert!(text.contains("maintenance") && text.contains("Try again in 600 s"), "{text}");
    // Bob loses his network, or reloads.
    let answer = room.bob.post(&join, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    room.node.restart();
    let answer = carol.post(&join, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
