//! Where a Mattermost client finds the node: what the answer to its first offer says, and that media really takes that way.

#![cfg(test)]

mod common;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::check::stun_server;
use common::mattermost::Site;
use common::page::{Able, Page};
use str0m::format::Codec;
use tokio::net::UdpSocket;

const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A site that has registered.
async fn site(settings: &[(&str, &str)]) -> Site {
    let site = Site::start(&[&[("RTCD_API_SECURITY_ALLOWSELFREGISTRATION", "true")], settings].concat()).await;
    site.register("a").await;
    site
}

fn able(udp: Option<IpAddr>) -> Able {
    Able { udp, ..Able::default() }
}

/// Both speak, both hear.
async fn talk(one: &mut Page, other: &mut Page) {
    one.publishes("mic", Codec::Opus, 1_000_000).await;
    other.publishes("mic", Codec::Opus, 2_000_000).await;
    one.hears("the other's voice", 2_000_000..3_000_000, 20).await;
    other.hears("the one's voice", 1_000_000..2_000_000, 20).await;
}

/// The addresses that a page was offered for a protocol. There are none but the node's own.
fn offered(page: &Page, protocol: &str) -> Vec<String> {
    let candidates = page.candidates();
    assert!(candidates.iter().all(|(_, _, kind)| kind == "host"), "{candidates:?}");
    candidates.iter().filter(|(of, ..)| of == protocol).map(|(_, address, _)| address.to_string()).collect()
}

/// A port for a setting, which may not be any: free now, for UDP and TCP.
fn free_port() -> u16 {
    let is_free = |port: &u16| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let found = std::iter::repeat_with(|| std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port());
    found.take(10_000).find(|port| *port < 49_000 && is_free(port)).expect("a free port")
}

/// Row 16.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_media_threads_are_behind_one_port_and_who_is_on_different_ones_hears_each_other() {
    let site = site(&[("RTCD_RTC_SHARDS", "3"), ("RTCD_RTC_PARTICIPANTSPERSHARD", "1")]).await;
    let mut pages = Vec::new();
    for name in ["ann", "ben", "cem"] {
        pages.push(Page::comes(&site, "call", name, Able::default()).await);
    }
    let own = offered(&pages[0], "udp");
    assert_eq!(own.len(), 1, "{own:?}");
    for (page, first) in pages.iter_mut().zip([1_000_000, 2_000_000, 3_000_000]) {
        assert_eq!(offered(page, "udp"), own);
        page.publishes("mic", Codec::Opus, first).await;
    }
    for (at, page) in pages.iter_mut().enumerate() {
        for (from, first) in [1_000_000, 2_000_000, 3_000_000].into_iter().enumerate().filter(|(from, _)| *from != at) {
            page.hears(&format!("{from}"), first..first + 1_000_000, 20).await;
        }
    }
    // Each of them is on a thread of its own.
    assert!(site.sum("conclave_rtcd_core_total", "name=\"packets_relayed_in\"").await > 0.0);
}

/// Row 17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_only_do_tcp_speaks_and_hears() {
    let site = site(&[]).await;
    let mut ann = Page::comes(&site, "call", "ann", able(None)).await;
    let passive =
        |line: &str| line.starts_with("a=candidate:") && line.to_lowercase().contains(" tcp ") && line.contains("tcptype passive");
    assert!(ann.answer.lines().any(passive), "{}", ann.answer);
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    talk(&mut ann, &mut ben).await;
    let mut cem = Page::comes(&site, "call", "cem", able(None)).await;
    cem.hears("ann, over TCP at both ends", 1_000_000..2_000_000, 20).await;
    assert!((site.sum("conclave_rtcd_tcp_connections", "shard=").await - 2.0).abs() < 0.1, "two of three");
}

/// Row 18.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_is_offered_when_it_is_switched_on_and_not_before() {
    if std::net::UdpSocket::bind((V6, 0)).is_err() {
        eprintln!("this machine has no IPv6, not even to itself: nothing tested");
        return;
    }
    let both = [("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1,::1"), ("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1,::1")];
    let off = site(&both).await;
    let ann = Page::offers(&off, "call", "ann", Able::default()).await;
    let addresses = [offered(&ann, "udp"), offered(&ann, "tcp")].concat();
    assert!(addresses.len() == 2 && addresses.iter().all(|address| address.starts_with("127.0.0.1:")), "{addresses:?}");

    let on = site(&[&both[..], &[("RTCD_RTC_ENABLEIPV6", "true")]].concat()).await;
    let mut ann = Page::comes(&on, "call", "ann", able(Some(V6))).await;
    for protocol in ["udp", "tcp"] {
        let addresses = offered(&ann, protocol);
        assert!(addresses.len() == 2 && addresses[0].starts_with("127.0.0.1:") && addresses[1].starts_with("[::1]:"), "{addresses:?}");
    }
    let mut ben = Page::comes(&on, "call", "ben", Able::default()).await;
    talk(&mut ann, &mut ben).await;
}

/// Rows 19 and 20: chapter 4.3 of the contract, with addresses that this machine has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overrides_of_host_and_port_are_what_a_client_is_offered() {
    let port = free_port();
    let own = port.to_string();
    for (host, outside, expected) in [
        ("", "", "127.0.0.1:OWN 127.0.0.2:OWN"),
        ("", "30443", "127.0.0.1:OWN 127.0.0.2:OWN"),
        ("1.1.1.1", "", "1.1.1.1:OWN"),
        ("1.1.1.1", "30443", "1.1.1.1:30443"),
        // A name for it, as for the address itself.
        ("localhost", "30443", "127.0.0.1:30443"),
        ("1.1.1.1/127.0.0.1", "30443", "1.1.1.1:30443 127.0.0.2:OWN"),
        ("1.1.1.1/127.0.0.1,127.0.0.2/127.0.0.2", "30443", "1.1.1.1:30443 127.0.0.2:OWN"),
        ("1.1.1.1", "10.9.9.9/30441,127.0.0.1/30442", "1.1.1.1:30442"),
        ("1.1.1.1", "10.9.9.9/30441", "1.1.1.1:OWN"),
    ] {
        let mut site = site(&[
            ("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1,127.0.0.2"),
            ("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1,127.0.0.2"),
            ("RTCD_RTC_ICEPORTUDP", &own),
            ("RTCD_RTC_ICEPORTTCP", &own),
            ("RTCD_RTC_ICEHOSTOVERRIDE", host),
            ("RTCD_RTC_ICEHOSTPORTOVERRIDE", outside),
        ])
        .await;
        let ann = Page::offers(&site, "call", "ann", Able::default()).await;
        for protocol in ["udp", "tcp"] {
            assert_eq!(offered(&ann, protocol).join(" "), expected.replace("OWN", &own), "{host:?} {outside:?} {protocol}");
        }
        drop(ann);
        // The next one needs the port.
        site.program.signal_with(rustix::process::Signal::KILL);
        site.program.ended().await;
    }
}

/// Row 19: without an override, what a STUN server of the site tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stun_server_tells_is_what_a_client_is_offered() {
    let (url, serving) = stun_server("203.0.113.5:30443").await;
    let site = site(&[("RTCD_RTC_ICESERVERS", &format!("[\"{url}\"]")), ("RTCD_RTC_ICEHOSTPORTOVERRIDE", "30443")]).await;
    let ann = Page::offers(&site, "call", "ann", Able::default()).await;
    assert_eq!((offered(&ann, "udp"), offered(&ann, "tcp")), (vec!["203.0.113.5:30443".to_owned()], vec!["203.0.113.5:30443".to_owned()]));
    serving.abort();
}

/// Forwards between what comes to the socket and the node, each stranger by a socket of its own, as an address translator does.
async fn translate(outside: UdpSocket, node: SocketAddr, count: Arc<AtomicUsize>) {
    let outside = Arc::new(outside);
    let mut inside: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
    let mut bytes = [0; 2048];
    loop {
        let (len, from) = outside.recv_from(&mut bytes).await.expect("a packet");
        count.fetch_add(1, Ordering::Relaxed);
        let known = inside.iter().find(|(stranger, _)| *stranger == from).map(|(_, socket)| Arc::clone(socket));
        let socket = match known {
            Some(socket) => socket,
            None => {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("binds"));
                inside.push((from, Arc::clone(&socket)));
                let (back, outside) = (Arc::clone(&socket), Arc::clone(&outside));
                tokio::spawn(async move {
                    let mut bytes = [0; 2048];
                    while let Ok(len) = back.recv(&mut bytes).await {
                        let _ = outside.send_to(&bytes[..len], from).await;
                    }
                });
                socket
            }
        };
        let _ = socket.send_to(&bytes[..len], node).await;
    }
}

/// Rows 19 and 20, all the way: behind a translator of addresses and ports, the one offered is the one that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_flows_through_the_address_and_port_that_are_forwarded() {
    let (port, forwarded) = (free_port(), free_port());
    let outside = UdpSocket::bind(("127.0.0.3", forwarded)).await.expect("binds");
    let count = Arc::new(AtomicUsize::new(0));
    let node = SocketAddr::from(([127, 0, 0, 1], port));
    let translating = tokio::spawn(translate(outside, node, Arc::clone(&count)));
    let site = site(&[
        ("RTCD_RTC_ICEPORTUDP", &port.to_string()),
        ("RTCD_RTC_ICEHOSTOVERRIDE", "127.0.0.3"),
        ("RTCD_RTC_ICEHOSTPORTOVERRIDE", &forwarded.to_string()),
    ])
    .await;
    let mut ann = Page::comes(&site, "call", "ann", Able::default()).await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    assert_eq!(offered(&ann, "udp"), [format!("127.0.0.3:{forwarded}")]);
    talk(&mut ann, &mut ben).await;
    assert!(count.load(Ordering::Relaxed) >= 40, "it came that way");
    translating.abort();
}

/// Row 21: the node is reached by itself; a TURN server of the site's settings is for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_turn_server_is_asked_and_no_relay_offered() {
    let turn = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("turn:{}", turn.local_addr().expect("bound"));
    let site = site(&[
        ("RTCD_RTC_ICESERVERS", &format!(r#"[{{"urls":["{url}"],"username":"user","credential":"secret"}}]"#)),
        ("RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", "the secret of the TURN server"),
    ])
    .await;
    let mut ann = Page::comes(&site, "call", "ann", Able::default()).await;
    let mut ben = Page::comes(&site, "call", "ben", Able::default()).await;
    // Which looks at the kind of each.
    assert!(offered(&ann, "udp")[0].starts_with("127.0.0.1:"));
    talk(&mut ann, &mut ben).await;
    let asked = turn.try_recv_from(&mut [0; 1]);
    assert!(asked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}
