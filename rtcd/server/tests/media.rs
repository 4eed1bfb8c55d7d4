//! Real media through real sockets: two participants on an independent WebRTC stack, the tap, and a flood.

#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{TAP_SECRET, TOKEN, TestNode, frame_number, numbered_frame, soon};
use conclave_proto::v1::tap_client::TapClient;
use conclave_proto::v1::{self, tap_gap, tap_item, tap_request};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rtc_client::{Dial, Event, OpusTrack, Participant};
use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::ReceiverStream;

/// Speaks `count` frames and gives the numbers the listener got.
async fn talk(track: &mut OpusTrack, listener: &mut UnboundedReceiver<Event>, from: u32, count: u32) -> Vec<u32> {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut heard = Vec::new();
    for number in from..from + count {
        pace.tick().await;
        track.send(numbered_frame(number)).await.expect("sends");
        take(listener, &mut heard);
    }
    // Until nothing comes any more.
    loop {
        let before = heard.len();
        tokio::time::sleep(Duration::from_millis(300)).await;
        take(listener, &mut heard);
        if heard.len() == before {
            return heard;
        }
    }
}

fn take(listener: &mut UnboundedReceiver<Event>, heard: &mut Vec<u32>) {
    while let Ok(event) = listener.try_recv() {
        if let Event::Rtp { packet, .. } = event
            && let Some(number) = frame_number(&packet.payload)
        {
            heard.push(number);
        }
    }
}

async fn until_heard(track: &mut OpusTrack, listener: &mut UnboundedReceiver<Event>) {
    for round in 0..40 {
        if !talk(track, listener, round * 25, 25).await.is_empty() {
            return;
        }
    }
    panic!("nothing was heard");
}

fn tap_token(call: &str, purpose: &str) -> String {
    let claims = serde_json::json!({ "sub": "tap", "call": call, "purpose": purpose, "exp": 4_000_000_000_u64 });
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(TAP_SECRET.as_bytes())).expect("encodes")
}

struct TestTap {
    requests: mpsc::Sender<v1::TapRequest>,
    items: tonic::Streaming<v1::TapItem>,
}

async fn open_tap(node: &TestNode, call: &str, purpose: v1::TapPurpose, token: String) -> Result<TestTap, tonic::Status> {
    let mut client = TapClient::connect(node.url.clone()).await.expect("reachable");
    let (requests, queue) = mpsc::channel(64);
    let open = v1::TapOpen {
        call_id: call.into(),
        token,
        purpose: purpose.into(),
        tap_id: "job-1".into(),
        audio: true,
        video: true,
        ..v1::TapOpen::default()
    };
    requests.send(v1::TapRequest { body: Some(tap_request::Body::Open(open)) }).await.expect("room");
    let items = client.open(ReceiverStream::new(queue)).await?.into_inner();
    Ok(TestTap { requests, items })
}

impl TestTap {
    async fn next(&mut self, what: &str) -> tap_item::Item {
        soon(what, self.items.message()).await.expect("the tap goes on").expect("the tap goes on").item.expect("an item")
    }
}

/// Both shards are used: the kernel spreads the senders, so some datagrams cross from one shard to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_hear_each_other_on_whichever_shard_their_packets_arrive() {
    let node = TestNode::start(&[("RTCD_RTC_SHARDS", "3")]).await;
    for call in ["call-1", "call-2", "call-3"] {
        let (ann, mut at_ann) =
            Participant::join(&Dial::new(&node.url, TOKEN, call, &format!("ann-{call}")), "127.0.0.1").await.expect("joins");
        let (bob, mut at_bob) =
            Participant::join(&Dial::new(&node.url, TOKEN, call, &format!("bob-{call}")), "127.0.0.1").await.expect("joins");
        let mut from_ann = ann.publish_opus("mic-a", 0x1111).await.expect("publishes");
        let mut from_bob = bob.publish_opus("mic-b", 0x2222).await.expect("publishes");
        until_heard(&mut from_ann, &mut at_bob).await;
        until_heard(&mut from_bob, &mut at_ann).await;
        let heard = talk(&mut from_ann, &mut at_bob, 10_000, 100).await;
        assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "in order, nothing twice: {heard:?}");
        // A busy machine may keep a listener from its socket for a moment; more than that is our fault.
        assert!(heard.len() >= 90, "{} of 100 frames were heard", heard.len());
        drop((ann, bob));
    }
    // Six participants with two transports each over three sockets: that none had to cross has a chance of 3^-12.
    assert!(node.metric("conclave_rtcd_shard_total{shard=").await > 0.0);
    let crossed: f64 = node
        .metrics()
        .await
        .lines()
        .filter(|line| line.contains("name=\"handed_over\""))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(crossed > 0.0, "packets crossed between shards");
    assert!(node.metric_with("conclave_rtcd_core_total", &[("name", "packets_relayed_in")]).await > 0.0, "each call is on two shards");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_gets_names_packets_and_ends_and_needs_consent_to_record() {
    let node = TestNode::start(&[]).await;
    let (ann, _at_ann) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let (_bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let mut from_ann = ann.publish_opus("mic-a", 0x1111).await.expect("publishes");
    until_heard(&mut from_ann, &mut at_bob).await;

    let refused = open_tap(&node, "call-1", v1::TapPurpose::Record, tap_token("call-1", "caption")).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(tonic::Code::Unauthenticated));
    let unknown = open_tap(&node, "call-9", v1::TapPurpose::Caption, tap_token("call-9", "caption")).await;
    assert_eq!(unknown.err().map(|status| status.code()), Some(tonic::Code::NotFound));

    let mut captions = open_tap(&node, "call-1", v1::TapPurpose::Caption, tap_token("call-1", "caption")).await.expect("opens");
    let mut people = Vec::new();
    let mut packets = 0;
    let mut named = false;
    let mut number = 20_000;
    while packets < 50 {
        talk(&mut from_ann, &mut at_bob, number, 25).await;
        number += 25;
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(50), captions.items.message()).await {
            match message.expect("goes on").expect("goes on").item.expect("an item") {
                tap_item::Item::Participant(person) => people.push(person.identity),
                tap_item::Item::Track(track) => {
                    assert_eq!(
                        (track.identity.as_str(), track.display_name.as_str(), track.mime.as_str(), track.clock_rate),
                        ("ann", "ann", "audio/opus", 48_000)
                    );
                    named = true;
                }
                tap_item::Item::Packets(batch) => {
                    assert!(named, "the track comes before its packets");
                    assert!(batch.packets.windows(2).all(|pair| pair[0].seq < pair[1].seq));
                    assert!(batch.packets.iter().all(|packet| packet.payload.len() == 80 && packet.at_us > 1_600_000_000_000_000));
                    packets += batch.packets.len();
                }
                _ => {}
            }
        }
    }
    people.sort();
    assert_eq!(people, ["ann", "bob"]);

    // Recording: nothing of anybody before consent.
    let mut record = open_tap(&node, "call-1", v1::TapPurpose::Record, tap_token("call-1", "record")).await.expect("opens");
    talk(&mut from_ann, &mut at_bob, number, 50).await;
    while let Ok(message) = tokio::time::timeout(Duration::from_millis(200), record.items.message()).await {
        let item = message.expect("goes on").expect("goes on").item.expect("an item");
        assert!(!matches!(item, tap_item::Item::Packets(_) | tap_item::Item::Track(_)), "media before consent: {item:?}");
    }
    let call = rtcd::admit::core_call_id("default", "call-1").expect("a call");
    let consent = v1::RecordingConsent {
        call_id: "call-1".into(),
        identity: "ann".into(),
        granted: true,
        notice_version: "1".into(),
        answered_at_ms: 5,
    };
    node.node.tell_call(&call, rtcd::signal::seam::AdapterInput::Consent { call: call.clone(), consent }).await;
    let (mut answered, mut recorded) = (false, 0);
    while recorded < 20 {
        number += 25;
        talk(&mut from_ann, &mut at_bob, number, 25).await;
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(50), record.items.message()).await {
            match message.expect("goes on").expect("goes on").item.expect("an item") {
                tap_item::Item::Consent(consent) => answered = consent.granted && consent.identity == "ann",
                tap_item::Item::Packets(batch) => recorded += batch.packets.len(),
                _ => {}
            }
        }
    }
    assert!(answered, "the answer is part of the stream");
    // A recorder may not put words into people's mouths.
    let caption = v1::Caption { committed: "forged".into(), ..v1::Caption::default() };
    record.requests.send(v1::TapRequest { body: Some(tap_request::Body::Caption(caption)) }).await.expect("sends");
    let status = soon("the refusal", async {
        loop {
            match record.items.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without a reason"),
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    // The call's end is the tap's end.
    node.node.tell_call(&call, rtcd::signal::seam::AdapterInput::EndAll { reason: v1::EndReason::CallEnded }).await;
    soon("the end of the call", async {
        loop {
            if let tap_item::Item::CallEnded(_) = captions.next("the end").await {
                return;
            }
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_tap_reader_loses_only_its_own_packets_and_is_told() {
    let node = TestNode::start(&[]).await;
    let (ann, _at_ann) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let (_bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let mut from_ann = ann.publish_opus("mic-a", 0x1111).await.expect("publishes");
    until_heard(&mut from_ann, &mut at_bob).await;
    let mut tap = open_tap(&node, "call-1", v1::TapPurpose::Caption, tap_token("call-1", "caption")).await.expect("opens");
    // The reader sleeps while more than its queue holds is spoken, without pacing but so that loopback does not lose it.
    let mut dropped = 0.0;
    let mut number = 100_000;
    let start = Instant::now();
    while dropped < 10.0 && start.elapsed() < Duration::from_secs(60) {
        for _ in 0..40 {
            number += 1;
            let mut large = vec![0xf8; 1100];
            large[1..5].copy_from_slice(&u32::to_be_bytes(number));
            from_ann.send(large.into()).await.expect("sends");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if number % 400 == 0 {
            dropped = node
                .metrics()
                .await
                .lines()
                .filter(|line| line.contains("tap_packets_dropped"))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum();
        }
    }
    assert!(dropped >= 10.0, "the queue is bounded");
    // The call itself goes on.
    let mut heard = Vec::new();
    take(&mut at_bob, &mut heard);
    let heard = talk(&mut from_ann, &mut at_bob, 5_000_000, 50).await;
    assert!(heard.iter().filter(|number| **number >= 5_000_000).count() >= 40, "{}", heard.len());
    // Once it reads again it is told of the gap before the next packet, and there is no hole that is not told.
    let mut next_seq = None;
    let mut told = 0;
    let mut number = 6_000_000;
    let mut quiet = 0;
    while told == 0 || quiet < 3 {
        number += 5;
        assert!(number < 6_005_000, "the gap was never told");
        talk(&mut from_ann, &mut at_bob, number, 5).await;
        quiet += 1;
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(50), tap.items.message()).await {
            match message.expect("goes on").expect("goes on").item.expect("an item") {
                tap_item::Item::Packets(batch) => {
                    for packet in batch.packets {
                        if let Some(next) = next_seq {
                            assert_eq!(packet.seq, next, "no hole that is not told");
                        }
                        next_seq = Some(packet.seq + 1);
                    }
                }
                tap_item::Item::Gap(gap) => {
                    if let Some(next) = next_seq {
                        assert_eq!(gap.from_seq, next, "{gap:?}");
                    }
                    next_seq = Some(gap.from_seq + gap.packets);
                    if gap.reason() == tap_gap::Reason::Reader {
                        told += gap.packets;
                        quiet = 0;
                    }
                }
                _ => {}
            }
        }
    }
    assert!(told >= 10, "{told}");
    node.stop().await;
}

/// 50 000 datagrams a second of garbage for 5 s: the call goes on and the counters say what happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage_leaves_the_call_unharmed() {
    let node = TestNode::start(&[]).await;
    let (ann, _at_ann) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let (_bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let mut from_ann = ann.publish_opus("mic-a", 0x1111).await.expect("publishes");
    until_heard(&mut from_ann, &mut at_bob).await;
    let before = node.metric("conclave_rtcd_shard_total").await;
    let target = node.node.listening.udp[0];
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let sockets: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").expect("binds")).collect();
            let start = Instant::now();
            let mut sent = 0_u64;
            // A plain generator: the bytes only have to be many and different.
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let mut bytes = [0_u8; 200];
            while start.elapsed() < Duration::from_secs(5) && !stop.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * 50_000.0) as u64;
                while sent < due {
                    for byte in &mut bytes {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        *byte = (state >> 33) as u8;
                    }
                    // A share that looks like STUN, DTLS and RTP at first sight.
                    bytes[0] = [0x00, 0x16, 0x80, 0xff][(sent % 4) as usize];
                    let len = 1 + (state >> 40) as usize % bytes.len();
                    let _ = sockets[(sent % 8) as usize].send_to(&bytes[..len], target);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        }
    });
    let heard = talk(&mut from_ann, &mut at_bob, 1_000_000, 240).await;
    stop.store(true, Ordering::Relaxed);
    let sent = flood.join().expect("the flood ends");
    assert!(sent > 100_000, "the flood was one: {sent}");
    assert!(heard.len() >= 216, "{} of 240 frames were heard under the flood", heard.len());
    assert!(node.metric("conclave_rtcd_shard_total").await > before);
    let refused: f64 = node
        .metrics()
        .await
        .lines()
        .filter(|line| line.starts_with("conclave_rtcd_core_total"))
        .filter(|line| line.contains("unknown") || line.contains("stun") || line.contains("drop") || line.contains("bad"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(refused > 10_000.0, "the core counts what it refuses: {refused}\n{}", node.metrics().await);
    assert!(node.node.is_healthy());
    node.stop().await;
}

/// A page alone in its call reloads, or crashes and is opened again: for a recorder it is one call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_outlives_a_moment_without_participants() {
    let node = TestNode::start(&[("RTCD_RTC_DEPARTURETIMEOUTS", "60")]).await;
    let (first, _at_first) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let mut tap = open_tap(&node, "call-1", v1::TapPurpose::Caption, tap_token("call-1", "caption")).await.expect("opens");
    // Her next one takes the place of the first, which has not said good-bye; then that one does, and a third one comes.
    let (second, _at_second) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    hear(&mut tap, &second, 0x1111).await;
    second.leave().await.expect("leaves");
    soon("she has left", async {
        while node.node.directory.present() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await
        }
    })
    .await;
    let (third, _at_third) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    hear(&mut tap, &third, 0x2222).await;
    drop(first);
    node.stop().await;
}

/// Speaks until the tap has packets of a track that was announced after the speaking began.
async fn hear(tap: &mut TestTap, speaker: &Participant, ssrc: u32) {
    let mut track = speaker.publish_opus("mic", ssrc).await.expect("publishes");
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut announced = None;
    let mut number = 0;
    soon("packets of a new track", async {
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    track.send(numbered_frame(number)).await.expect("sends");
                    number += 1;
                }
                item = tap.items.message() => match item.expect("goes on").expect("goes on").item.expect("an item") {
                    tap_item::Item::Track(track) => announced = Some(track.track_sid),
                    tap_item::Item::Packets(batch) if announced.as_ref() == Some(&batch.track_sid) => return,
                    tap_item::Item::CallEnded(_) => panic!("the call is not over"),
                    _ => {}
                },
            }
        }
    })
    .await;
}
