//! Senders whose address changes: media goes on, also when the kernel gives the new address to another shard's socket.

#![cfg(test)]

mod common;

use common::wire::{End, Wire, WirePeer};
use common::{TOKEN, TestNode, hears, keep_talking};
use rtc_client::{Dial, Participant};
use tokio::net::UdpSocket;

/// A socket whose datagrams the kernel gives to this shard. It chooses by addresses, so others are closed again. What asks
/// is a datagram longer than any peer sends: it is only counted, by the shard that it came to.
async fn socket_at(node: &TestNode, shard: usize) -> Wire {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let before = node.by_shard("conclave_rtcd_shard_total", "bad_length").await;
        socket.send_to(&[0xff; 3000], node.node.listening.udp[0]).await.expect("sends");
        if node.shard_that_counts("conclave_rtcd_shard_total", "bad_length", &before).await == shard {
            return Wire::Udp(socket);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_address_moves_to_another_shard_goes_on_talking_and_hearing() {
    let node = TestNode::start(&[("RTCD_RTC_SHARDS", "3"), ("RTCD_RTC_PARTICIPANTSPERSHARD", "48")]).await;
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let owner = node.shard_of("call-1").await;
    let (next, last) = ((owner + 1) % 3, (owner + 2) % 3);
    let bobs = keep_talking(bob.publish_opus("mic-b", 0x2222).await.expect("publishes"), 1_000_000);
    let mut ann = WirePeer::join(&node, "call-1", "ann", 2_000_000, socket_at(&node, owner).await, socket_at(&node, owner).await).await;
    hears("ann at bob", &mut at_bob, 2_000_000..3_000_000, 50).await;
    ann.hears("bob at ann", 1_000_000..2_000_000, 50).await;

    // To a shard that is not the call's, from there to another such, and home again.
    for shard in [next, last, owner] {
        let crossed = node.by_shard("conclave_rtcd_shard_total", "handed_over").await[shard];
        ann.rewire(End::Publish, socket_at(&node, shard).await);
        hears(&format!("ann at bob, over shard {shard}"), &mut at_bob, ann.spoken() + 1..3_000_000, 50).await;
        ann.rewire(End::Subscribe, socket_at(&node, shard).await);
        // What is on its way through the old socket ends with it; whatever comes now comes through the new one.
        while ann.heard.try_recv().is_ok() {}
        ann.hears(&format!("bob at ann, over shard {shard}"), 1_000_000..2_000_000, 50).await;
        if shard != owner {
            let crossed = node.by_shard("conclave_rtcd_shard_total", "handed_over").await[shard] - crossed;
            assert!(crossed >= 50.0, "ann's sound came in at shard {shard} and crossed: {crossed}");
        }
    }
    bobs.abort();
    drop((ann, bob));
    node.stop().await;
}
