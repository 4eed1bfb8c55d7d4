//! Forged checks from the address that everybody else has too, as behind one NAT.

#![cfg(test)]

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::check::{Checked, check};
use common::{TOKEN, TestNode, hears, keep_talking, soon};
use rtc_client::{Dial, Participant};
use rtcd_core::stun::{Class, Message};

/// The name is a real one, the signature is not: what the core refuses only after a hash, and what crosses between shards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_checks_are_dropped_in_front_and_peers_behind_the_same_address_do_not_notice() {
    let node = TestNode::start(&[]).await;
    let join = async |who: &str| Participant::join(&Dial::new(&node.url, TOKEN, "call-1", who), "127.0.0.1").await.expect("joins");
    let (ann, _at_ann) = join("ann").await;
    let (_bob, mut at_bob) = join("bob").await;
    let anns = keep_talking(ann.publish_opus("mic-a", 0x1111).await.expect("publishes"), 0);
    hears("ann at bob", &mut at_bob, 0..u32::MAX, 25).await;
    let eve = Checked::join(&node, "call-1", "eve").await;
    let to = node.node.listening.udp[0];

    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        let forged = check(&eve.ufrag, "not the password of that name");
        move || {
            let sockets: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").expect("binds")).collect();
            while !stop.load(Ordering::Relaxed) {
                for socket in &sockets {
                    for _ in 0..4 {
                        let _ = socket.send_to(&forged, to);
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    let shard_counter = async |name: &str| node.metric_with("conclave_rtcd_shard_total", &[("name", name)]).await;
    soon("the ration", async {
        while shard_counter("checks_rationed").await < 10_000.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    // Those who are there, somebody who comes, and eve herself with the right password from another port.
    hears("ann at bob, in the flood", &mut at_bob, 0..u32::MAX, 100).await;
    let (_cid, mut at_cid) = join("cid").await;
    hears("ann at cid, come in the flood", &mut at_cid, 0..u32::MAX, 50).await;
    let valid = check(&eve.ufrag, &eve.pwd);
    let answered = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
        let mut reply = [0; 512];
        // A datagram may be lost in a flood: checks are repeated, as browsers do.
        (0..20).any(|_| {
            socket.send_to(&valid, to).expect("sends");
            socket.recv(&mut reply).is_ok_and(|len| Message::parse(&reply[..len]).is_ok_and(|reply| reply.class == Class::Success))
        })
    })
    .await
    .expect("asked");
    assert!(answered, "a valid check is answered in the flood");

    stop.store(true, Ordering::Relaxed);
    flood.join().expect("the flood ends");
    let (rationed, refused) =
        (shard_counter("checks_rationed").await, node.metric_with("conclave_rtcd_core_total", &[("name", "stun_bad_integrity")]).await);
    assert!(refused > 0.0 && rationed > 4.0 * refused, "{rationed} dropped in front, {refused} by the core");
    anns.abort();
    drop(ann);
    node.stop().await;
}
