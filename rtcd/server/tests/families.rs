//! IPv6 beside IPv4, over UDP and TCP, in one call; and what an address is outside.

#![cfg(test)]

mod common;

use common::check::stun_server;
use common::wire::{Wire, WirePeer};
use common::{TOKEN, TestNode, hears, keep_talking};
use rtc_client::{Dial, Participant};
use tokio::net::{TcpStream, UdpSocket};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_of_both_families_hear_each_other_over_udp_and_tcp() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6, not even to itself: nothing tested");
        return;
    }
    let both = "127.0.0.1,::1";
    let node = TestNode::start(&[("RTCD_RTC_ICEADDRESSUDP", both), ("RTCD_RTC_ICEADDRESSTCP", both)]).await;
    let listening = &node.node.listening;
    let tcp6 = *listening.tcp.iter().find(|address| address.is_ipv6()).expect("offered over IPv6");
    assert!(listening.udp.iter().any(std::net::SocketAddr::is_ipv6) && listening.udp.iter().any(std::net::SocketAddr::is_ipv4));
    assert!(listening.udp.iter().all(|address| address.port() == listening.udp[0].port()), "one port for all: {:?}", listening.udp);

    let udp6 = async || Wire::Udp(UdpSocket::bind("[::1]:0").await.expect("binds"));
    let tcp6 = async || Wire::Tcp(TcpStream::connect(tcp6).await.expect("connects"));
    let (bob, mut at_bob) = Participant::join(&Dial::new(&node.url, TOKEN, "call-1", "bob"), "127.0.0.1").await.expect("joins");
    let bobs = keep_talking(bob.publish_opus("mic-b", 0x2222).await.expect("publishes"), 1_000_000);
    let mut ann = WirePeer::join(&node, "call-1", "ann", 2_000_000, udp6().await, udp6().await).await;
    let mut cid = WirePeer::join(&node, "call-1", "cid", 3_000_000, tcp6().await, tcp6().await).await;
    hears("ann at bob, UDP over IPv6", &mut at_bob, 2_000_000..3_000_000, 50).await;
    hears("cid at bob, TCP over IPv6", &mut at_bob, 3_000_000..4_000_000, 50).await;
    ann.hears("bob at ann", 1_000_000..2_000_000, 50).await;
    cid.hears("bob at cid", 1_000_000..2_000_000, 50).await;
    ann.hears("cid at ann", 3_000_000..4_000_000, 50).await;
    bobs.abort();
    drop((ann, cid, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stun_server_tells_is_offered_with_the_port_that_is_forwarded() {
    let (url, asked) = stun_server("203.0.113.5:30443").await;
    let entry = format!("[\"{url}\"]");
    let settings = [("RTCD_RTC_ICESERVERS", entry.as_str()), ("RTCD_RTC_ICEHOSTPORTOVERRIDE", "30443")];
    let node = TestNode::start(&settings).await;
    for offered in [&node.node.listening.udp, &node.node.listening.tcp] {
        assert_eq!(offered.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.5:30443"]);
    }
    node.stop().await;
    // Who sets the address asks nobody.
    asked.abort();
    let node = TestNode::start(&[settings[0], ("RTCD_RTC_ICEHOSTOVERRIDE", "203.0.113.9")]).await;
    assert!(node.node.listening.udp.iter().all(|address| address.ip().to_string() == "203.0.113.9"));
    assert!(!node.node.listening.warnings.iter().any(|warning| warning.contains("stun:")), "{:?}", node.node.listening.warnings);
    node.stop().await;
}
