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
use pcap_parser::{Block, PcapBlockOwned, PcapError, PcapNGReader, traits::PcapReaderIterator as _};
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
    // Its good-bye over DTLS may have come before the one over signalling.
    let last = bob.diagnosis.expect("why").receives();
    assert!(matches!(last, Verdict::Flows | Verdict::ClosedByClient), "{last:?}");
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

/// A packet of a capture: UDP ports from and to, length of the payload as it was, and what was kept of it.
struct Kept {
    from: u16,
    to: u16,
    payload_len: usize,
    kept: Vec<u8>,
}

/// Reads a file with a parser that is not ours.
fn packets(file: &[u8]) -> Vec<Kept> {
    let mut reader = PcapNGReader::new(1 << 20, file).expect("a pcapng file");
    let mut found = Vec::new();
    let mut begun = false;
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => begun = true,
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => assert_eq!(interface.linktype.0, 101, "raw IP"),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let data = &packet.data[..packet.caplen as usize];
                        assert!(data[0] == 0x45 && data[9] == 17, "IPv4 and UDP");
                        let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
                        assert_eq!(usize::from(word(2)), packet.origlen as usize, "the length that it had");
                        let sum: u32 = (0..20).step_by(2).map(|at| u32::from(word(at))).sum();
                        assert_eq!((sum & 0xFFFF) + (sum >> 16), 0xFFFF, "the header's checksum");
                        let payload_len = usize::from(word(24)) - 8;
                        found.push(Kept { from: word(20), to: word(22), payload_len, kept: data[28..].to_vec() });
                    }
                    _ => panic!("a block that we do not write"),
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => reader.refill().expect("more of it"),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(begun);
    found
}

async fn capture(node: &TestNode, call: &str, sid: &str, seconds: u32, bytes_max: u32) -> Result<Vec<u8>, tonic::Status> {
    let request = v1::CaptureRequest { tenant: String::new(), call_id: call.into(), participant_sid: sid.into(), seconds, bytes_max };
    let mut stream = node.signal().await.capture(bearing(request, TOKEN)).await?.into_inner();
    let mut file = Vec::new();
    soon("the capture's end", async {
        while let Some(chunk) = stream.message().await.expect("goes on") {
            file.extend_from_slice(&chunk.pcapng);
        }
    })
    .await;
    Ok(file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_holds_one_peers_headers_both_ways_and_nothing_else() {
    let node = TestNode::start(&[]).await;
    let (ann, mut at_ann) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "ann"), "127.0.0.1").await.expect("joins");
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let from_ann = keep_talking(ann.publish_opus("mic-a", 0x1111_2222).await.expect("publishes"), 0);
    let from_bob = keep_talking(bob.publish_opus("mic-b", 0x3333_4444).await.expect("publishes"), 0);
    hears("bob hears ann", &mut at_bob, 0..u32::MAX, 20).await;
    hears("ann hears bob", &mut at_ann, 0..u32::MAX, 20).await;
    tokio::spawn(async move { while at_ann.recv().await.is_some() {} });
    tokio::spawn(async move { while at_bob.recv().await.is_some() {} });
    let calls = node.signal().await.list_calls(bearing(v1::ListCallsRequest::default(), TOKEN)).await.expect("lists").into_inner().calls;
    let of = |who: &str| calls[0].participants.iter().find(|one| one.identity == who).expect("is there").clone();
    let (sid, bobs) = (of("ann").participant_sid, of("bob").remote_address);
    let bobs: std::net::SocketAddr = bobs.parse().expect("an address");

    // Room for some hundred packets, which ends it, however long they take.
    let found = packets(&capture(&node, "call-1", &sid, 300, 20_000).await.expect("may"));
    assert!(found.iter().all(|packet| packet.from != bobs.port() && packet.to != bobs.port()), "nobody else's");
    let rtp: Vec<&Kept> = found.iter().filter(|packet| packet.kept[0] >> 6 == 2 && !(192..=223).contains(&packet.kept[1])).collect();
    let ssrc = |packet: &Kept| u32::from_be_bytes(packet.kept[8..12].try_into().expect("a header"));
    let sent: Vec<&&Kept> = rtp.iter().filter(|packet| ssrc(packet) == 0x1111_2222).collect();
    let received: Vec<&&Kept> = rtp.iter().filter(|packet| ssrc(packet) != 0x1111_2222).collect();
    assert!(sent.len() >= 20 && received.len() >= 20, "{} from ann, {} to ann", sent.len(), received.len());
    for packet in &found {
        // Sound frames are 80 bytes and have a tag of 16: a packet kept whole, or with any payload, would be longer.
        let header = match packet.kept[0] {
            0..=3 => 20,
            20..=63 => 13,
            _ if (192..=223).contains(&packet.kept[1]) => 8,
            first if first & 0x10 != 0 => 12 + 4 + 4 * usize::from(u16::from_be_bytes([packet.kept[14], packet.kept[15]])),
            _ => 12,
        };
        assert_eq!(packet.kept.len(), header.min(packet.payload_len), "{:x?}", packet.kept);
    }
    for packet in sent.iter().chain(&received) {
        assert!(packet.payload_len >= packet.kept.len() + 80 + 16, "{} of {}", packet.kept.len(), packet.payload_len);
    }
    let seqs: Vec<u16> = sent.iter().map(|packet| u16::from_be_bytes([packet.kept[2], packet.kept[3]])).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "all of them, in order: {seqs:?}");

    // Free again, for somebody who is there, and within bounds.
    assert_eq!(capture(&node, "call-1", "PA_nobody", 1, 0).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(capture(&node, "call-1", &sid, 301, 0).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(!packets(&capture(&node, "call-1", &sid, 300, 2_000).await.expect("free again")).is_empty());
    packets(&capture(&node, "call-1", &sid, 1, 0).await.expect("ends by time"));
    from_ann.abort();
    from_bob.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_gets_answers_like_a_participant_and_is_none() {
    let node = TestNode::start(&[]).await;
    let probe = node.signal().await.probe(bearing(v1::ProbeRequest {}, TOKEN)).await.expect("may").into_inner();
    assert!(probe.now_ms > 1_700_000_000_000 && probe.udp.len() == 1 && probe.tcp.len() == 1, "{:?} {:?}", probe.udp, probe.tcp);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let check = common::check::check(&probe.ufrag, &probe.pwd);
    let mut answer = [0; 2048];
    let len = soon("an answer", async {
        loop {
            socket.send_to(&check, probe.udp[0].as_str()).await.expect("sent");
            let came = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await;
            if let Ok(Ok(len)) = came {
                return len;
            }
        }
    })
    .await;
    let message = rtcd_core::stun::Message::parse(&answer[..len]).expect("STUN");
    assert!(message.is_signed_by(&rtcd_core::stun::IntegrityKey::new(&probe.pwd)));
    assert_eq!(message.mapped_address, Some(socket.local_addr().expect("bound")));
    assert_eq!(node.node.directory.present(), 0, "nobody has joined");
    assert!(!node.metrics().await.contains("~probe"));
    let calls = node.signal().await.list_calls(bearing(v1::ListCallsRequest::default(), TOKEN)).await.expect("lists").into_inner().calls;
    assert!(calls.is_empty());
    // Each desk has its bound.
    let mut client = node.signal().await;
    let mut refused = None;
    for _ in 0..100 {
        if let Err(status) = client.probe(bearing(v1::ProbeRequest {}, TOKEN)).await {
            refused = Some(status.code());
            break;
        }
    }
    assert_eq!(refused, Some(tonic::Code::ResourceExhausted));
    node.stop().await;
}
