//! Descriptions that are bombs (attack class G-01): refused with a reason or answered within bounds, and nobody else notices.

use std::time::Duration;

use rtcd_core::input::{Join, Transports};
use rtcd_core::output::Signal;
use rtcd_core::{CallId, Input, PeerId, Side};

use crate::world::{World, holes};

const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=setup:actpass\r\n";

fn section(mid: &str, types: &str, lines: &str) -> String {
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF {types}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=rtcp-mux\r\na=sendonly\r\na=msid:s raw-mic\r\n{lines}"
    )
}

/// One bomb of a kind, of a size that doubles.
fn bomb(kind: usize, size: usize) -> String {
    let opus = "a=rtpmap:111 opus/48000/2\r\n";
    let many = |line: &dyn Fn(usize) -> String| -> String { (0..size).map(line).collect() };
    match kind {
        0 => HEAD.to_owned() + &many(&|n| section(&n.to_string(), "111", opus)),
        // Every mid is the same, then every payload type.
        1 => HEAD.to_owned() + &many(&|_| section("0", "111", opus)),
        2 => HEAD.to_owned() + &section("0", "111 ".repeat(size).trim_end(), opus),
        3 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + &many(&|_| opus.to_owned()))),
        // Retransmission of itself, in circles, and of nothing.
        4 => {
            HEAD.to_owned()
                + &section(
                    "0",
                    "96 97",
                    &many(&|n| format!("a=rtpmap:{} rtx/90000\r\na=fmtp:{} apt={}\r\n", 96 + n % 2, 96 + n % 2, 97 - n % 2)),
                )
        }
        5 => {
            HEAD.to_owned()
                + &section(
                    "0",
                    "111",
                    &(opus.to_owned() + &many(&|n| format!("a=candidate:{n} 1 udp 1 10.0.{}.{} 9 typ host\r\n", n / 256 % 256, n % 256))),
                )
        }
        6 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + &many(&|n| format!("a=ssrc:{n} cname:x\r\n")))),
        7 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + &many(&|n| format!("a=extmap:{} urn:x:{n}\r\n", n % 300)))),
        8 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + &many(&|n| format!("a=rid:{n} send\r\na=simulcast:send {n}\r\n")))),
        9 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + &many(&|n| format!("a=fmtp:111 {}\r\n", "x=1;".repeat(n % 400))))),
        10 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + "a=ssrc-group:FID" + &many(&|n| format!(" {n}")) + "\r\n")),
        11 => HEAD.to_owned() + &format!("a=group:BUNDLE{}\r\n", many(&|n| format!(" {n}"))) + &section("0", "111", opus),
        12 => HEAD.to_owned() + &format!("a={}\r\n", "y".repeat(size * 8)) + &section("0", "111", opus),
        13 => HEAD.to_owned() + &"a=x\r\n".repeat(size) + &section("0", "111", opus),
        14 => HEAD.repeat(size.min(2000)) + &section("0", "111", opus),
        15 => HEAD.to_owned() + &section("0", "111", &(opus.to_owned() + &many(&|n| format!("a=rtcp-fb:111 x{n}\r\n")))),
        16 => {
            HEAD.to_owned()
                + &section("0", "111", opus)
                + &many(&|n| format!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d{n}\r\na=sctp-port:{n}\r\n"))
        }
        _ => HEAD.to_owned() + &section("0", "111", opus) + &many(&|n| format!("m=video {n} RTP/AVP {}\r\na=mid:v{n}\r\n", n % 128)),
    }
}

/// 306 bombs: eighteen kinds of seventeen sizes, up to a hundred and thirty thousand of the same.
#[test]
fn bombs_are_refused_or_answered_within_bounds() {
    let mut world = World::new(200);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    world.clients[ben].heard.clear();
    let (mut refused, mut answered) = (0, 0);
    for kind in 0..18 {
        for power in 0..17 {
            let sdp = bomb(kind, 1 << power);
            let peer = PeerId::new(&format!("PA_bomb{kind}-{power}")).unwrap();
            world.told.clear();
            world.tell(Input::Join(Box::new(Join {
                call: CallId::new(&format!("t/bomb{kind}")).unwrap(),
                peer: peer.clone(),
                transports: if power % 2 == 0 { Transports::Single } else { Transports::Two },
                audio_levels: false,
                can_publish: true,
                can_subscribe: true,
                can_publish_data: true,
                auto_subscribe: false,
                adaptive_stream: false,
                playout_delay: None,
            })));
            world.tell(Input::Offer { peer: peer.clone(), sdp: &sdp, id: 1 });
            let said = world
                .told
                .iter()
                .find(|(to, signal)| *to == peer && matches!(signal, Signal::Refused { side: Side::Publish, .. } | Signal::Answer { .. }));
            match said {
                Some((_, Signal::Refused { reason, .. })) => {
                    assert!(!reason.is_empty() && reason.len() < 300, "{reason}");
                    refused += 1;
                }
                Some((_, Signal::Answer { sdp: answer, .. })) => {
                    // No more sections than asked for, and the text does not grow beyond them.
                    assert!(answer.matches("\nm=").count() <= sdp.matches("\nm=").count());
                    assert!(answer.len() <= 4096 + 4 * sdp.len(), "{} for {}", answer.len(), sdp.len());
                    answered += 1;
                }
                other => panic!("kind {kind}, 2^{power}: {other:?}"),
            }
        }
        world.run(Duration::from_millis(20));
    }
    assert!(refused > 60 && answered > 60, "{refused} {answered}");
    assert_eq!(world.counter("peers_ended_by_panic"), 0);
    world.run(Duration::from_secs(1));
    let heard = world.heard(ben, "TR_ann");
    assert!(heard.len() >= 65);
    assert_eq!(holes(&heard), 0);
}
