//! Mattermost's Calls v2 on the program itself: its plugin mints tokens, hears of people by webhooks and steers them with five calls of
//! `RoomService`; its people are participants with media.
#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]

mod common;

use common::hooks::{Receiver, name};
use common::livekit::{KEY, KEYS, admin_token, done, token, twirp};
use common::program::Program;
use common::{keep_talking, soon};
use livekit_protocol as lk;
use lk::signal_response::Message as Said;
use rtc_client::{Event, Participant};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

/// The plugin's side: it knows who is in the call from webhooks alone.
struct Plugin {
    program: Program,
    hooks: Receiver,
    room: String,
}

impl Plugin {
    async fn start(room: &str) -> Self {
        let hooks = Receiver::new();
        let settings: Vec<_> = [KEYS].into_iter().chain(Receiver::settings(&hooks.url)).collect();
        let program = Program::start(&settings).await;
        Self { program, hooks, room: room.to_owned() }
    }

    /// A token as the plugin gives it to a page: one identity per session of a user.
    fn ticket(&self, user: &str, session: &str) -> String {
        let grant = json!({ "roomJoin": true, "room": self.room, "canPublish": true, "canSubscribe": true, "canUpdateOwnMetadata": true });
        token(KEY, json!({ "sub": format!("{user}___{session}"), "name": user, "attributes": { "isBot": "false" }, "video": grant }))
    }

    async fn enter(&mut self, user: &str, session: &str) -> (Participant, UnboundedReceiver<Event>) {
        let url = self.program.url.replace("http://", "ws://");
        let ticket = self.ticket(user, session);
        let entered = soon("the join", Participant::join_room(&url, &ticket, "127.0.0.1")).await.expect("joins");
        let joined = self.hooks.find("participant_joined").await;
        assert_eq!(joined["participant"]["identity"], format!("{user}___{session}"));
        entered
    }

    async fn ask(&self, method: &str, more: Value) -> Value {
        let mut body = json!({ "room": self.room });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        done(&self.program.url, method, body).await
    }
}

/// Waits until a participant is told something of this kind.
async fn hears<T>(what: &str, events: &mut UnboundedReceiver<Event>, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("goes on")) {
                return found;
            }
        }
    })
    .await
}

async fn leave_reason(events: &mut UnboundedReceiver<Event>) -> lk::DisconnectReason {
    hears("why it ends", events, |event| match event {
        Event::Signal(said) => match *said {
            Said::Leave(leave) => Some(leave.reason()),
            _ => None,
        },
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_call_is_steered_by_five_requests_and_followed_by_webhooks() {
    let mut plugin = Plugin::start("channel-1").await;
    let (alice, mut to_alice) = plugin.enter("alice", "s1").await;
    let (bob, mut to_bob) = plugin.enter("bob", "s2").await;
    let talking = keep_talking(bob.publish_opus("mic", 77).await.expect("published"), 0);
    let published = plugin.hooks.find("track_published").await;
    assert_eq!(published["participant"]["identity"], "bob___s2");

    // The host mutes Bob: the plugin looks for his microphone and silences it.
    let found = plugin.ask("GetParticipant", json!({ "identity": "bob___s2" })).await;
    let track = found["tracks"].as_array().expect("tracks").iter().find(|track| track["source"] == "MICROPHONE").expect("a microphone");
    assert_eq!(track["sid"], published["track"]["sid"]);
    plugin.ask("MutePublishedTrack", json!({ "identity": "bob___s2", "trackSid": track["sid"], "muted": true })).await;
    let muted = hears("the mute", &mut to_bob, |event| match event {
        Event::Signal(said) => match *said {
            Said::Mute(mute) => Some(mute),
            _ => None,
        },
        _ => None,
    })
    .await;
    assert!(muted.muted && track["sid"] == muted.sid.as_str());

    // The host lowers a raised hand.
    for (hand, raised) in [("1700000000", true), ("", false)] {
        plugin.ask("UpdateParticipant", json!({ "identity": "bob___s2", "attributes": { "raisedHand": hand } })).await;
        hears("the hand", &mut to_alice, |event| match event {
            Event::Participants(people) => {
                people.into_iter().find(|info| info.identity == "bob___s2" && info.attributes.contains_key("raisedHand") == raised)
            }
            _ => None,
        })
        .await;
    }

    // The host removes Bob, who is then nobody's participant.
    plugin.ask("RemoveParticipant", json!({ "identity": "bob___s2" })).await;
    assert_eq!(leave_reason(&mut to_bob).await, lk::DisconnectReason::ParticipantRemoved);
    talking.abort();
    assert_eq!(plugin.hooks.names(1).await, ["track_unpublished"]);
    let left = plugin.hooks.next().await;
    assert_eq!((name(&left), &left["participant"]["identity"]), ("participant_left", &json!("bob___s2")));
    assert_eq!(left["participant"]["disconnectReason"], "PARTICIPANT_REMOVED");
    let gone = json!({ "room": "channel-1", "identity": "bob___s2" });
    assert_eq!(twirp(&plugin.program.url, &admin_token("channel-1"), "GetParticipant", gone).await.json()["code"], "not_found");

    // The host ends the call for everybody.
    plugin.ask("DeleteRoom", json!({})).await;
    assert_eq!(leave_reason(&mut to_alice).await, lk::DisconnectReason::RoomDeleted);
    let left = plugin.hooks.next().await;
    assert_eq!((name(&left), &left["participant"]["identity"]), ("participant_left", &json!("alice___s1")));
    assert_eq!(plugin.hooks.names(1).await, ["room_finished"]);
    drop((alice, bob));

    // The channel's next call is another room of the same name.
    let (_carol, _to_carol) = plugin.enter("carol", "s3").await;
}
