//! What a forwarded packet costs, in instructions, and in cache lines that are not there when it comes, from the datagram in to the
//! datagrams out. Callgrind counts both on a processor of its own making, so that the figures are the same on a busy machine; those
//! below are the ones agreed on.

#![cfg(test)]
#![allow(unreachable_pub, dead_code, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

use std::process::Command;
use std::time::Duration;

#[path = "../tape/mod.rs"]
mod tape;
#[path = "../stories/world.rs"]
mod world;

use rtcd_core::Input;
use world::layered::{Encoder, Mode};
use world::{End, World, data_packet, udp};

/// Tells this program, run by callgrind, to be what is counted.
const COUNTED: &str = "CONCLAVE_COUNTED";
/// Two runs of one build differ by less than a thousandth; but any change elsewhere in the crate may change what the compiler
/// inlines, by 2 % when it was seen.
const TOLERANCE: f64 = 0.05;

#[test]
fn sound_to_ten() {
    compare("sound_to_ten", 2_800, |world, ann| {
        world.microphone(ann, "mic");
    });
}

#[test]
fn pictures_to_ten() {
    compare("pictures_to_ten", 5_580, |world, ann| {
        world.camera(ann, "cam", &["f"]);
    });
}

/// Six packets a picture, of three sizes, all of them to everybody.
#[test]
fn layers_inside_to_ten() {
    compare("layers_inside_to_ten", 5_620, |world, ann| {
        let camera = world.camera(ann, "cam", &[]);
        world.producers[camera].encoder = Some(Encoder::new(Mode::L3T3, str0m::format::Codec::Av1, true));
    });
}

/// Packets of a data track, over SCTP and DTLS on both sides.
#[test]
fn data_to_ten() {
    if std::env::var_os(COUNTED).is_some() {
        return forward_data();
    }
    if let Some(counted) = count("data_to_ten", &[]) {
        agree("data_to_ten", "instructions", counted.instructions, 38_918);
    }
}

/// Twenty calls of two take turns, in caches that hold a few of them: as for a thread that slept between two packets, which pays for
/// cache lines and hardly for instructions (docs/decisions/0029).
#[test]
fn calls_of_two_in_cold_caches() {
    if std::env::var_os(COUNTED).is_some() {
        return forward_in_turn(20);
    }
    if let Some(counted) =
        count("calls_of_two_in_cold_caches", &["--cache-sim=yes", "--I1=262144,8,64", "--D1=8192,8,64", "--LL=32768,16,64"])
    {
        agree("calls_of_two_in_cold_caches", "cache lines that have to come from memory", counted.lines_from_memory, 68);
    }
}

fn compare(test: &str, agreed: u64, publish: fn(&mut World, usize)) {
    if std::env::var_os(COUNTED).is_some() {
        return forward(publish);
    }
    if let Some(counted) = count(test, &[]) {
        agree(test, "instructions", counted.instructions, agreed);
    }
}

/// Of one forwarded packet.
struct Counted {
    instructions: u64,
    /// 0 without `--cache-sim`.
    lines_from_memory: u64,
}

/// Runs a test of this program under callgrind; `None`: here it would be another figure.
fn count(test: &str, more: &[&str]) -> Option<Counted> {
    if !has_the_usual_instructions() {
        println!("not counted: the cipher takes another way on a processor without AVX2");
        return None;
    }
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*the_counted_part*"])
        .args(more)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(COUNTED, "1")
        .output()
        .expect("valgrind starts; `./x test` installs it");
    let (text, counts) = (String::from_utf8_lossy(&counted.stdout), String::from_utf8_lossy(&counted.stderr));
    assert!(counted.status.success(), "{text}{counts}");
    let numbers = |text: &str, after: &str| -> Vec<u64> {
        let at = text.find(after).unwrap_or_else(|| panic!("no '{after}' in {text}"));
        text[at + after.len()..].lines().next().unwrap().split_whitespace().map_while(|word| word.parse().ok()).collect()
    };
    let (sums, forwarded) = (numbers(&counts, "Collected : "), numbers(&text, "forwarded: ")[0]);
    // Ir, and with caches: Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw.
    Some(Counted { instructions: sums[0] / forwarded, lines_from_memory: sums.iter().skip(7).sum::<u64>() / forwarded })
}

fn agree(test: &str, what: &str, per_packet: u64, agreed: u64) {
    println!("{test}: {per_packet} {what} per forwarded packet");
    let ratio = per_packet as f64 / agreed as f64;
    assert!(
        (ratio - 1.0).abs() <= TOLERANCE,
        "{test}: {per_packet} {what} per forwarded packet, agreed on were {agreed}. If that is meant, write the new figure into {} and say \
         in the commit why",
        file!()
    );
}

#[cfg(target_arch = "x86_64")]
fn has_the_usual_instructions() -> bool {
    std::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_the_usual_instructions() -> bool {
    false
}

/// One publisher to ten viewers, straight from a tape; the first quarter warms up.
fn forward(publish: fn(&mut World, usize)) {
    let mut world = World::new(91);
    world.descriptors = true;
    let ann = world.join("ann");
    for n in 0..10 {
        world.join(&format!("viewer{n}"));
    }
    publish(&mut world, ann);
    world.run(Duration::from_secs(2));
    let (link, mut tape) = tape::record(&mut world, ann, Duration::from_secs(1));
    let warm_up = tape.len() / 4;
    let mut sent = 0;
    for (n, bytes) in tape.iter_mut().enumerate() {
        if n < warm_up {
            tape::feed(&mut world, link, bytes);
        } else {
            sent += the_counted_part(&mut world, link, bytes);
        }
    }
    assert!(sent >= (tape.len() - warm_up) * 9, "{sent} of {}", tape.len());
    println!("forwarded: {sent}");
}

/// One publisher's data track to ten viewers. Nobody acknowledges anything meanwhile, so no more is sent than may be under way at the start.
fn forward_data() {
    let mut world = World::new(91);
    let ann = world.join("ann");
    world.open_channels(ann);
    let viewers: Vec<_> = (0..10).map(|n| world.join(&format!("viewer{n}"))).collect();
    world.settle();
    let subscribers: Vec<_> = viewers.iter().map(|viewer| world.peer(*viewer)).collect();
    let peer = world.peer(ann);
    world.tell(Input::DataRoute { peer, publisher_handle: 7, handle: 300, subscribers: &subscribers });
    (world.tape_only, world.tape_up) = (true, Some(Vec::new()));
    for frame in 0..24_u16 {
        world.send_message(ann, "_data_track", &data_packet(7, frame, &[5; 48]));
        world.run(Duration::from_millis(10));
    }
    let tape = world.tape_up.take().unwrap();
    let sent: Vec<_> = tape.into_iter().filter(|(_, end, bytes)| *end == End::Publish && (20..64).contains(&bytes[0])).collect();
    let (warm_up, mut before) = (sent.len() / 4, 0);
    for (n, (who, end, bytes)) in sent.iter().enumerate() {
        let (link, mut bytes) = (udp(world.clients[*who].connections[end].address), bytes.clone());
        if n < warm_up {
            tape::feed(&mut world, link, &mut bytes);
            before = world.counter("data_track_packets_sent");
        } else {
            the_counted_part(&mut world, link, &mut bytes);
        }
    }
    let forwarded = world.counter("data_track_packets_sent") - before;
    assert!(forwarded >= 150, "{forwarded} from {} datagrams", sent.len());
    println!("forwarded: {forwarded}");
}

/// As many calls, somebody speaks to somebody in each; a packet of each in turn.
fn forward_in_turn(calls: usize) {
    let mut world = World::new(91);
    for n in 0..calls {
        let call = |join: &mut rtcd_core::input::Join| join.call = rtcd_core::CallId::new(&format!("call{n}")).unwrap();
        let ann = world.join_with(&format!("ann{n}"), call);
        world.join_with(&format!("bob{n}"), call);
        world.microphone(ann, &format!("mic{n}"));
    }
    world.run(Duration::from_secs(2));
    (world.tape_only, world.tape_up) = (true, Some(Vec::new()));
    world.run(Duration::from_millis(400));
    let tape = world.tape_up.take().unwrap();
    let spoken: Vec<_> = tape.into_iter().filter(|(_, end, bytes)| *end == End::Publish && rtcd_core::rtp::is_rtp(bytes)).collect();
    let (warm_up, mut sent) = (spoken.len() / 4, 0);
    for (n, (who, end, bytes)) in spoken.iter().enumerate() {
        let (link, mut bytes) = (udp(world.clients[*who].connections[end].address), bytes.clone());
        world.now += Duration::from_millis(20) / u32::try_from(calls).unwrap();
        if n < warm_up {
            tape::feed(&mut world, link, &mut bytes);
        } else {
            sent += the_counted_part(&mut world, link, &mut bytes);
        }
    }
    assert!(sent >= spoken.len() - warm_up, "{sent} of {}", spoken.len());
    println!("forwarded: {sent}");
}

#[inline(never)]
fn the_counted_part(world: &mut World, link: rtcd_core::ids::Link, bytes: &mut [u8]) -> usize {
    tape::feed(world, link, bytes)
}
