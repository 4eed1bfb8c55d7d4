//! The media node against a WebRTC stack that is not ours: the `webrtc` crate, through `rtc-client`.

#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

use std::time::Duration;

use bytes::Bytes;
use integration_tests::Rtcd;
use livekit_protocol as lk;
use rtc_client::{Dial, Event, OpusTrack, Participant};
use tokio::sync::mpsc::UnboundedReceiver;

/// An Opus frame whose content tells it apart: TOC of 20 ms mono CELT, then its number.
fn frame(number: u32) -> Bytes {
    let mut bytes = vec![0xf8];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(80, 0x55);
    bytes.into()
}

async fn next<T>(events: &mut UnboundedReceiver<Event>, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let search = async {
        loop {
            let event = events.recv().await.expect("the session goes on");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), search).await.unwrap_or_else(|_| panic!("not within two minutes: {what}"))
}

/// Sends frames until the other side has got `want` of them; returns the numbers it got, in order.
async fn talk(track: &mut OpusTrack, events: &mut UnboundedReceiver<Event>, want: usize) -> Vec<u32> {
    let mut got = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0..1_000_u32 {
        pace.tick().await;
        track.send(frame(number)).await.unwrap();
        while let Ok(event) = events.try_recv() {
            if let Event::Rtp { packet, .. } = event {
                assert_eq!(packet.payload.len(), 80, "the payload came through unchanged");
                got.push(u32::from_be_bytes(packet.payload[1..5].try_into().unwrap()));
            }
        }
        if got.len() >= want {
            return got;
        }
    }
    panic!("only {} of {want} packets came", got.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_webrtc_rs_participants_hear_each_other() {
    let node = Rtcd::start().await.unwrap();
    let (alice, mut at_alice) = Participant::join(&Dial::new(&node.url, &node.token, "call-1", "alice"), "127.0.0.1").await.unwrap();
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, &node.token, "call-1", "bob"), "127.0.0.1").await.unwrap();
    let mut from_alice = alice.publish_opus("mic-a", 0x1111).await.unwrap();
    let mut from_bob = bob.publish_opus("mic-b", 0x2222).await.unwrap();
    let heard = talk(&mut from_alice, &mut at_bob, 100).await;
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "in order, nothing twice: {heard:?}");
    talk(&mut from_bob, &mut at_alice, 100).await;
    alice.leave().await.unwrap();
    next(&mut at_bob, "Bob sees Alice leave", |event| match event {
        Event::Participants(people) => people
            .iter()
            .any(|person| person.identity == "alice" && person.state() == lk::participant_info::State::Disconnected)
            .then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_messages_arrive_with_the_senders_true_identity() {
    let node = Rtcd::start().await.unwrap();
    let (alice, _at_alice) = Participant::join(&Dial::new(&node.url, &node.token, "call-2", "alice"), "127.0.0.1").await.unwrap();
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, &node.token, "call-2", "bob"), "127.0.0.1").await.unwrap();
    let _bobs_microphone = bob.publish_opus("mic-b", 0x2222).await.unwrap();
    let _alices_microphone = alice.publish_opus("mic-a", 0x1111).await.unwrap();
    for reliable in [true, false] {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        let arrival = next(&mut at_bob, "the message", |event| match event {
            Event::Data(packet) => Some(packet),
            _ => None,
        });
        tokio::pin!(arrival);
        let packet = loop {
            tokio::select! {
                packet = &mut arrival => break packet,
                _ = pace.tick() => match alice.send_data(reliable, "greeting", b"hello").await {
                    Ok(()) | Err(rtc_client::ClientError::NotOpen) => {}
                    Err(error) => panic!("{error}"),
                },
            }
        };
        assert_eq!(packet.participant_identity, "alice");
        let Some(lk::data_packet::Value::User(user)) = packet.value else { panic!("a user packet") };
        assert_eq!(user.payload, b"hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_with_a_reason() {
    let node = Rtcd::start().await.unwrap();
    let refused = Participant::join(&Dial::new(&node.url, "not the secret", "call-3", "mallory"), "127.0.0.1").await;
    let text = refused.err().expect("refused").to_string();
    assert!(text.len() > 20, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_with_the_same_call_id_never_meet() {
    let node = Rtcd::start().await.unwrap();
    let red = Dial { tenant: "red".to_owned(), ..Dial::new(&node.url, &node.token, "same-id", "alice") };
    let blue = Dial { tenant: "blue".to_owned(), ..Dial::new(&node.url, &node.token, "same-id", "bob") };
    let (alice, _at_alice) = Participant::join(&red, "127.0.0.1").await.unwrap();
    let _microphone = alice.publish_opus("mic-a", 0x1111).await.unwrap();
    let (_bob, mut at_bob) = Participant::join(&blue, "127.0.0.1").await.unwrap();
    let (_carol, _at_carol) = Participant::join(&Dial { identity: "carol".to_owned(), ..red.clone() }, "127.0.0.1").await.unwrap();
    tokio::time::timeout(Duration::from_secs(2), async {
        while let Some(event) = at_bob.recv().await {
            if let Event::Participants(people) = event {
                assert!(people.iter().all(|person| person.identity == "bob"), "{people:?}");
            }
            assert!(!matches!(at_bob.try_recv(), Ok(Event::Rtp { .. })));
        }
    })
    .await
    .ok();
}
