//! Media over TCP: RFC 4571 frames, whichever shard accepts the connection; strangers are turned away.

#![cfg(test)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use common::check::{Checked, check};
use common::wire::{End, Wire, WirePeer};
use common::{TOKEN, TestNode, bearing, hears, keep_talking};
use conclave_proto::v1;
use rtc_client::{Dial, Participant};
use rtcd_core::stun::{Class, Message};

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u16::try_from(bytes.len()).expect("short").to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

/// One frame, or nothing when the other side closed.
fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut frame = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

/// A media connection that was accepted by a shard the test likes; the kernel chooses, so others are closed again.
async fn connect(node: &TestNode, likes: impl Fn(usize) -> bool) -> Wire {
    loop {
        let before = node.by_shard("conclave_rtcd_tcp_total", "accepted").await;
        let stream = tokio::net::TcpStream::connect(node.node.listening.tcp[0]).await.expect("connects");
        if likes(node.shard_that_counts("conclave_rtcd_tcp_total", "accepted", &before).await) {
            return Wire::Tcp(stream);
        }
    }
}

/// ICE, DTLS and SRTP of an independent stack over RFC 4571 frames. The connections of one participant are accepted by
/// the shard that owns its call, by another one, and again when they break and are made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_travels_over_tcp_whichever_shard_accepts_the_connection() {
    let node = TestNode::start(&[("RTCD_RTC_SHARDS", "3"), ("RTCD_RTC_PARTICIPANTSPERSHARD", "48")]).await;
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let owner = node.shard_of("call-1").await;
    let (at_home, abroad) = (|shard: usize| shard == owner, |shard: usize| shard != owner);
    let bobs = keep_talking(bob.publish_opus("mic-b", 0x2222).await.expect("publishes"), 1_000_000);
    let mut ann = WirePeer::join(&node, "call-1", "ann", 2_000_000, connect(&node, abroad).await, connect(&node, at_home).await).await;
    let mut cid = WirePeer::join(&node, "call-1", "cid", 3_000_000, connect(&node, at_home).await, connect(&node, abroad).await).await;

    hears("ann at bob", &mut at_bob, 2_000_000..3_000_000, 50).await;
    hears("cid at bob", &mut at_bob, 3_000_000..4_000_000, 50).await;
    ann.hears("bob at ann", 1_000_000..2_000_000, 50).await;
    ann.hears("cid at ann", 3_000_000..4_000_000, 50).await;
    cid.hears("bob at cid", 1_000_000..2_000_000, 50).await;
    cid.hears("ann at cid", 2_000_000..3_000_000, 50).await;
    let moved = node.by_shard("conclave_rtcd_tcp_total", "moved_in").await;
    let open = node.by_shard("conclave_rtcd_tcp_connections", "").await;
    for shard in 0..3 {
        assert_eq!(moved[shard], if shard == owner { 2.0 } else { 0.0 }, "moved to shard {shard}");
        assert_eq!(open[shard], if shard == owner { 4.0 } else { 0.0 }, "open at shard {shard}");
    }
    let mut client = node.signal().await;
    let calls = client.list_calls(bearing(v1::ListCallsRequest::default(), TOKEN)).await.expect("allowed").into_inner().calls;
    let transport = |who: &str| calls[0].participants.iter().find(|person| person.identity == who).expect("there").transport.clone();
    assert_eq!((transport("ann").as_str(), transport("cid").as_str(), transport("bob").as_str()), ("tcp", "tcp", "udp"));

    // A broken connection is made anew: a check under the same name brings the media back.
    ann.rewire(End::Publish, connect(&node, at_home).await);
    cid.rewire(End::Subscribe, connect(&node, abroad).await);
    hears("ann at bob, again", &mut at_bob, ann.spoken() + 1..3_000_000, 50).await;
    cid.hears("ann at cid, again", ann.spoken() + 1..3_000_000, 50).await;
    bobs.abort();
    drop((ann, cid, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_over_tcp_are_answered_whichever_shard_accepts() {
    let node = TestNode::start(&[("RTCD_RTC_SHARDS", "3")]).await;
    let mut client = node.signal().await;
    // Several calls and several connections each: some of them have to move from the shard that accepted them.
    let mut people = Vec::new();
    for call in 0..4 {
        let ann = Checked::join(&node, &format!("call-{call}"), "ann").await;
        let (ufrag, pwd, to) = (ann.ufrag.clone(), ann.pwd.clone(), ann.tcp_candidate());
        people.push(ann);
        tokio::task::spawn_blocking(move || {
            for _ in 0..4 {
                let mut stream = TcpStream::connect(to).expect("connects");
                stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
                // Two checks in one segment, the second cut in the middle.
                let two = [framed(&check(&ufrag, &pwd)), framed(&check(&ufrag, &pwd))].concat();
                let (first, second) = two.split_at(two.len() - 5);
                stream.write_all(first).expect("sends");
                let reply = read_frame(&mut stream).expect("an answer");
                assert_eq!(Message::parse(&reply).expect("STUN").class, Class::Success);
                stream.write_all(second).expect("sends");
                let reply = read_frame(&mut stream).expect("an answer");
                assert_eq!(Message::parse(&reply).expect("STUN").class, Class::Success);
            }
        })
        .await
        .expect("answered");
    }
    let calls = client.list_calls(bearing(v1::ListCallsRequest::default(), TOKEN)).await.expect("allowed").into_inner().calls;
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().flat_map(|call| &call.participants).all(|person| person.step() >= v1::MediaStep::IceChecked), "{calls:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_on_the_tcp_port_are_closed_and_counted() {
    let node = TestNode::start(&[]).await;
    let to = node.node.listening.tcp[0];
    tokio::task::spawn_blocking(move || {
        for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), framed(&[0x80; 40]), vec![0xff; 4000]] {
            let mut stream = TcpStream::connect(to).expect("connects");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            let _ = stream.write_all(&garbage);
            assert_eq!(read_frame(&mut stream), None, "closed without an answer");
        }
    })
    .await
    .expect("closed");
    let bad: f64 = node
        .metrics()
        .await
        .lines()
        .filter(|line| line.contains("tcp_total") && line.contains("bad_frames"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(bad >= 3.0, "{bad}");
    node.stop().await;
}

/// A real name and a wrong signature: each costs a hash, so there are only so many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_checks_over_tcp_close_the_connection() {
    let node = TestNode::start(&[("RTCD_RTC_SHARDS", "3")]).await;
    let eve = Checked::join(&node, "call-1", "eve").await;
    let (forged, valid, to) = (check(&eve.ufrag, "not the password"), check(&eve.ufrag, &eve.pwd), eve.tcp_candidate());
    tokio::task::spawn_blocking(move || {
        let connect = || {
            let stream = TcpStream::connect(to).expect("connects");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            stream
        };
        let mut stream = connect();
        for _ in 0..200 {
            // Fails once the node has closed it.
            if stream.write_all(&framed(&forged)).is_err() {
                break;
            }
        }
        assert_eq!(read_frame(&mut stream), None, "closed without an answer");
        // A few wrong ones are forgiven.
        let mut stream = connect();
        for _ in 0..5 {
            stream.write_all(&framed(&forged)).expect("sends");
        }
        stream.write_all(&framed(&valid)).expect("sends");
        let reply = read_frame(&mut stream).expect("an answer");
        assert_eq!(Message::parse(&reply).expect("STUN").class, Class::Success);
    })
    .await
    .expect("closed");
    assert!(node.metric_with("conclave_rtcd_tcp_total", &[("name", "rationed")]).await >= 1.0);
    let refused = node.metric_with("conclave_rtcd_core_total", &[("name", "stun_bad_integrity")]).await;
    assert!(refused <= f64::from(rtcd::limits::TCP_FAILED_CHECKS_MAX) + 5.0, "{refused} were looked at");
    node.stop().await;
}

/// A second program on the port would silently take half of the packets; it has to be told instead.
#[tokio::test]
async fn a_busy_media_port_is_an_error_that_names_its_setting() {
    let (first, port) = (20_000..40_000)
        .step_by(7)
        .find_map(|port| Some((std::net::UdpSocket::bind(("127.0.0.1", port)).ok()?, port)))
        .expect("a free port");
    let port = port.to_string();
    let settings = [
        ("RTCD_SIGNAL_TOKEN", TOKEN),
        ("RTCD_TAP_SECRET", TOKEN),
        ("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1"),
        ("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1"),
        ("RTCD_RTC_ICEPORTUDP", port.as_str()),
        ("RTCD_RTC_ICEPORTTCP", "0"),
    ];
    let of = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let config = rtcd::config::Config::from_sources(None, &of).expect("valid").config;
    let error = rtcd::node::start(&config).err().expect("busy").to_string();
    assert!(error.contains("RTCD_RTC_ICEPORTUDP") && error.contains(&port), "{error}");
    drop(first);
    // Two nodes of ours do not share it either.
    let node = rtcd::node::start(&config).expect("free now");
    assert!(rtcd::node::start(&config).is_err());
    node.stop().await;
}
