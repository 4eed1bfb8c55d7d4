//! The link over real gRPC streams: authentication, tenants, resume after breaks, refusals.

#![cfg(test)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

mod common;

use common::{RawLink, TOKEN, TestNode, bearing, dial, hello, join, soon};
use conclave_proto::v1::{self, call_event, from_media::Body, to_media};

async fn next_body(link: &mut RawLink, what: &str) -> Body {
    soon(what, async {
        loop {
            let frame = link.receive.message().await.expect("the stream goes on").expect("the stream goes on");
            if let Some(body) = frame.body {
                return body;
            }
        }
    })
    .await
}

async fn send(link: &RawLink, seq: u64, body: to_media::Body) {
    link.send.send(v1::ToMedia { seq, ack: 0, body: Some(body) }).await.expect("the stream goes on");
}

#[tokio::test]
async fn a_wrong_token_and_a_missing_hello_are_refused_with_what_to_do() {
    let node = TestNode::start(&[]).await;
    let mut client = node.signal().await;
    let status = dial(&mut client, hello("m1", "", "wrong")).await.err().expect("refused");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("RTCD_SIGNAL_TOKEN"), "{}", status.message());
    let first = v1::ToMedia { seq: 1, ack: 0, body: Some(to_media::Body::Ping(v1::Ping { sent_at_ms: 1 })) };
    let status = client.link(tokio_stream::iter([first])).await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let status = client.node_status(v1::NodeStatusRequest {}).await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    node.stop().await;
}

/// Pings over many streams that break at arbitrary points: every pong comes once, in order, without a hole.
#[tokio::test]
async fn resume_after_breaks_at_any_point_loses_and_repeats_nothing() {
    let node = TestNode::start(&[]).await;
    let mut client = node.signal().await;
    let (mut resume_token, mut last_seen, mut handled) = (String::new(), 0_u64, 0_u64);
    let mut pongs: Vec<i64> = Vec::new();
    let total = 400_u64;
    // Frames sent per stream and pongs read before it breaks; chosen to leave work in every stage.
    for (number, (sent, read)) in [(1, 0), (50, 3), (7, 7), (120, 40), (0, 20), (90, 1), (400, 1000)].into_iter().enumerate() {
        let mut greeting = hello("m1", "", TOKEN);
        greeting.resume_token.clone_from(&resume_token);
        greeting.last_seen_seq = last_seen;
        let mut link = dial(&mut client, greeting).await.expect("linked");
        assert_eq!(link.welcome.resumed, number > 0);
        resume_token.clone_from(&link.welcome.resume_token);
        // What the node has not handled is sent again.
        handled = handled.max(link.welcome.last_seen_seq);
        for seq in handled + 1..=(handled + sent).min(total) {
            send(&link, seq, to_media::Body::Ping(v1::Ping { sent_at_ms: i64::try_from(seq).expect("small") })).await;
        }
        let last = sent >= total;
        for _ in 0..read {
            let frame = if last {
                soon("a frame", link.receive.message()).await
            } else {
                // What the earlier stream lost on its way in cannot be answered yet.
                match tokio::time::timeout(std::time::Duration::from_millis(300), link.receive.message()).await {
                    Ok(frame) => frame,
                    Err(_) => break,
                }
            };
            let frame = frame.expect("goes on").expect("goes on");
            if frame.seq > 0 {
                assert_eq!(frame.seq, last_seen + 1);
                last_seen = frame.seq;
            }
            if let Some(Body::Pong(pong)) = frame.body {
                pongs.push(pong.sent_at_ms);
            }
            if pongs.len() as u64 == total {
                break;
            }
        }
        // Dropped without a word, as a lost connection.
    }
    let want: Vec<i64> = (1..=400).collect();
    assert_eq!(pongs, want);
    assert!(node.metric("conclave_rtcd_link_total{name=\"resumed\"}").await >= 6.0);
    node.stop().await;
}

#[tokio::test]
async fn a_hole_in_the_sequence_ends_the_stream_and_not_the_link() {
    let node = TestNode::start(&[]).await;
    let mut client = node.signal().await;
    let mut link = dial(&mut client, hello("m1", "", TOKEN)).await.expect("linked");
    let token = link.welcome.resume_token.clone();
    send(&link, 2, to_media::Body::Ping(v1::Ping { sent_at_ms: 2 })).await;
    let status = soon("the refusal", async {
        loop {
            if let Err(status) = link.receive.message().await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let again = dial(&mut client, v1::Hello { resume_token: token, ..hello("m1", "", TOKEN) }).await.expect("linked");
    assert!(again.welcome.resumed);
    node.stop().await;
}

#[tokio::test]
async fn joins_are_acknowledged_and_tenants_see_only_their_own_calls() {
    let node = TestNode::start(&[("RTCD_SIGNAL_TENANTTOKENS", "acme=the-token-of-acme-only")]).await;
    let mut client = node.signal().await;
    let mut ours = dial(&mut client, hello("m1", "", TOKEN)).await.expect("linked");
    let mut acme = dial(&mut client, hello("m2", "acme", "the-token-of-acme-only")).await.expect("linked");
    assert!(dial(&mut client, hello("m3", "acme", TOKEN)).await.is_err(), "the shared token does not open a tenant with its own");
    // The same call id in both tenants: two calls.
    send(&ours, 1, to_media::Body::Join(join("s1", "call-1", "ann"))).await;
    send(&acme, 1, to_media::Body::Join(join("s1", "call-1", "bob"))).await;
    for (link, other) in [(&mut ours, "bob"), (&mut acme, "ann")] {
        let (mut acknowledged, mut joined) = (false, false);
        while !(acknowledged && joined) {
            match next_body(link, "the join's answer and event").await {
                Body::JoinAck(ack) => {
                    assert!(ack.accepted && ack.participant_sid.starts_with("PA_"), "{ack:?}");
                    acknowledged = true;
                }
                Body::Event(event) => {
                    if let Some(call_event::Event::Joined(person)) = event.event {
                        assert_ne!(person.identity, other, "an event of another tenant");
                        joined = true;
                    }
                }
                _ => {}
            }
        }
    }
    for (token, tenant, who) in [(TOKEN, "", "ann"), ("the-token-of-acme-only", "acme", "bob")] {
        let request = v1::ListCallsRequest { tenant: tenant.into() };
        let calls = client.list_calls(bearing(request, token)).await.expect("allowed").into_inner().calls;
        assert_eq!(calls.len(), 1);
        assert_eq!((calls[0].call_id.as_str(), calls[0].participants[0].identity.as_str()), ("call-1", who));
    }
    let foreign = client.list_calls(bearing(v1::ListCallsRequest { tenant: "acme".into() }, TOKEN)).await;
    assert_eq!(foreign.err().map(|status| status.code()), Some(tonic::Code::PermissionDenied));
    let status = client.node_status(bearing(v1::NodeStatusRequest {}, "the-token-of-acme-only")).await;
    assert_eq!(status.err().map(|status| status.code()), Some(tonic::Code::PermissionDenied), "the node is not a tenant's");
    let status = client.node_status(bearing(v1::NodeStatusRequest {}, TOKEN)).await.expect("allowed").into_inner();
    assert_eq!((status.participants, status.calls, status.shards), (2, 2, 2));
    assert!(status.advertised.iter().any(|address| address.starts_with("udp 127.0.0.1:")), "{:?}", status.advertised);
    node.stop().await;
}

#[tokio::test]
async fn a_draining_node_refuses_new_joins_and_says_so() {
    let node = TestNode::start(&[]).await;
    let mut client = node.signal().await;
    client.drain(bearing(v1::DrainRequest { deadline_s: 60, cancel: false }, TOKEN)).await.expect("allowed");
    let mut link = dial(&mut client, hello("m1", "", TOKEN)).await.expect("linked");
    send(&link, 1, to_media::Body::Join(join("s1", "call-1", "ann"))).await;
    let Body::JoinAck(ack) = next_body(&mut link, "the refusal").await else { panic!("a join's answer") };
    assert!(!ack.accepted);
    assert_eq!(ack.error(), v1::ErrorReason::Draining);
    assert!(ack.error_text.contains("try again in"), "{}", ack.error_text);
    send(&link, 2, to_media::Body::Join(join("s2", "a/b", "ann"))).await;
    let Body::JoinAck(ack) = next_body(&mut link, "the refusal").await else { panic!("a join's answer") };
    assert_eq!(ack.error(), v1::ErrorReason::BadRequest);
    assert!(node.metric("conclave_rtcd_joins_refused_total").await >= 2.0);
    node.stop().await;
}

#[tokio::test]
async fn a_session_that_floods_is_ended_alone() {
    let node = TestNode::start(&[]).await;
    let mut client = node.signal().await;
    let mut link = dial(&mut client, hello("m1", "", TOKEN)).await.expect("linked");
    send(&link, 1, to_media::Body::Join(join("s1", "call-1", "ann"))).await;
    send(&link, 2, to_media::Body::Join(join("s2", "call-1", "bob"))).await;
    // LiveKit's ping, far over the ration.
    let frame = v1::SessionFrame { session_id: "s1".into(), livekit: vec![0x70, 0x01].into() };
    for seq in 3..1500 {
        send(&link, seq, to_media::Body::Frame(frame.clone())).await;
    }
    soon("the end of the flooding session", async {
        loop {
            if let Body::SessionEnded(ended) = next_body(&mut link, "the end").await {
                assert_eq!((ended.session_id.as_str(), ended.reason()), ("s1", v1::EndReason::Protocol));
                return;
            }
        }
    })
    .await;
    let calls = client.list_calls(bearing(v1::ListCallsRequest::default(), TOKEN)).await.expect("allowed").into_inner().calls;
    assert!(calls[0].participants.iter().any(|person| person.identity == "bob"), "the other one is still there");
    node.stop().await;
}

#[tokio::test]
async fn health_and_metrics_answer_on_the_same_port() {
    let node = TestNode::start(&[]).await;
    let channel = tonic::transport::Endpoint::from_shared(node.url.clone()).expect("an address").connect().await.expect("reachable");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "conclave.v1.Signal".into() };
    let answer = health.check(request).await.expect("answers").into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    let page = node.metrics().await;
    for name in ["rtcd_rtc_sessions_total", "rtcd_process_resident_memory_bytes", "conclave_rtcd_shard_total{shard=\"1\",name=\"wakes\"}"] {
        assert!(page.contains(name), "{name} is missing");
    }
    node.stop().await;
}
