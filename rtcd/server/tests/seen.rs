//! What operators are told about a real call: verdicts while it runs and after it, latency, and metrics in few bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::err_expect,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test"
)]

mod common;

use std::time::Duration;

use common::{TOKEN, TestNode, bearing, dial, hears, hello, keep_talking, soon};
use conclave_proto::v1::{self, Verdict, call_event, from_media::Body};
use rtc_client::{Dial, Participant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_call_is_explained_while_it_runs_and_after_somebody_left() {
    let node = TestNode::start(&[]).await;
    let mut client = node.signal().await;
    let mut watching = dial(&mut client, hello("watcher", "", TOKEN)).await.expect("links");
    let (ann, mut at_ann) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let talking = keep_talking(ann.publish_opus("mic-a", 0x1111).await.expect("publishes"), 0);
    tokio::spawn(async move { while at_ann.recv().await.is_some() {} });
    hears("bob hears ann", &mut at_bob, 0..u32::MAX, 50).await;
    tokio::spawn(async move { while at_bob.recv().await.is_some() {} });

    let calls = client.list_calls(bearing(v1::ListCallsRequest::default(), TOKEN)).await.expect("lists").into_inner().calls;
    let of = |who: &str| calls[0].participants.iter().find(|one| one.identity == who).expect("is there").clone();
    let (from, to) = (of("ann"), of("bob"));
    let (from, to) = (from.diagnosis.as_ref().expect("asked"), to.diagnosis.as_ref().expect("asked"));
    assert_eq!((from.sends(), from.receives()), (Verdict::Flows, Verdict::NobodyPublishes));
    assert_eq!((to.sends(), to.receives()), (Verdict::NothingPublished, Verdict::Flows), "{to:?}");
    assert!(to.transports.iter().any(|one| one.checks > 0 && one.dtls_records > 0 && one.candidates > 0), "{to:?}");
    assert!(to.watched[0].first_packet_ms > 0 && of("ann").tracks[0].first_packet_ms > 0);

    let status = client.node_status(bearing(v1::NodeStatusRequest {}, TOKEN)).await.expect("tells").into_inner();
    let forwarding = status.forwarding.expect("is told");
    assert!(forwarding.packets >= 50 && forwarding.p50_us > 0 && forwarding.p50_us <= forwarding.p99_us, "{forwarding:?}");
    assert!(node.metric("conclave_rtcd_forward_seconds_count").await >= 50.0);

    bob.leave().await.expect("leaves");
    let departed = soon("bob's last verdict", async {
        loop {
            let frame = watching.receive.message().await.expect("the link stands").expect("goes on");
            if let Some(Body::Event(v1::CallEvent { event: Some(call_event::Event::Departed(departed)), call_id, .. })) = frame.body {
                assert_eq!(call_id, "call-1");
                return departed;
            }
        }
    })
    .await;
    assert_eq!(departed.reason(), v1::EndReason::Left);
    let bob = departed.participant.expect("who");
    assert_eq!((bob.identity.as_str(), bob.remote_address.as_str()), ("bob", ""));
    assert_eq!(bob.diagnosis.expect("why").receives(), Verdict::Flows);
    talking.abort();
    drop(ann);
    node.stop().await;
}

/// One request as plain text, so that nothing between decompresses.
async fn ask(url: &str, encoding: &str) -> Vec<u8> {
    let host = url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("reachable");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{encoding}\r\n");
    stream.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.expect("in time").expect("answers");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_compressed_for_who_asks_for_it() {
    let node = TestNode::start(&[]).await;
    let plain = ask(&node.url, "").await;
    let small = ask(&node.url, "accept-encoding: gzip\r\n").await;
    assert!(String::from_utf8_lossy(&plain).contains("# HELP rtcd_rtc_sessions_total"));
    assert!(String::from_utf8_lossy(&small).to_lowercase().contains("content-encoding: gzip"));
    assert!(small.len() * 3 < plain.len(), "{} of {}", small.len(), plain.len());
    node.stop().await;
}
