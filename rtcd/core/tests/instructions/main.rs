//! What a forwarded packet costs, in instructions, from the datagram in to the datagrams out. Callgrind counts them on a
//! processor of its own making, so that the figure is the same on a busy machine; the figures below are the ones agreed on.

#![cfg(test)]
#![allow(unreachable_pub, dead_code, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

use std::process::Command;
use std::time::Duration;

#[path = "../tape/mod.rs"]
mod tape;
#[path = "../stories/world.rs"]
mod world;

use world::World;
use world::layered::{Encoder, Mode};

/// Tells this program, run by callgrind, to be what is counted.
const COUNTED: &str = "CONCLAVE_COUNTED";
/// Two runs of one build differ by less than a thousandth; but any change elsewhere in the crate may change what the compiler
/// inlines, by 2 % when it was seen.
const TOLERANCE: f64 = 0.05;

#[test]
fn sound_to_ten() {
    compare("sound_to_ten", 2_706, |world, ann| {
        world.microphone(ann, "mic");
    });
}

#[test]
fn pictures_to_ten() {
    compare("pictures_to_ten", 5_471, |world, ann| {
        world.camera(ann, "cam", &["f"]);
    });
}

/// Six packets a picture, of three sizes, all of them to everybody.
#[test]
fn layers_inside_to_ten() {
    compare("layers_inside_to_ten", 5_532, |world, ann| {
        let camera = world.camera(ann, "cam", &[]);
        world.producers[camera].encoder = Some(Encoder::new(Mode::L3T3, str0m::format::Codec::Av1, true));
    });
}

fn compare(test: &str, agreed: u64, publish: fn(&mut World, usize)) {
    if std::env::var_os(COUNTED).is_some() {
        return forward(publish);
    }
    if !has_the_usual_instructions() {
        println!("not counted: the cipher takes another way on a processor without AVX2");
        return;
    }
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*the_counted_part*"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(COUNTED, "1")
        .output()
        .expect("valgrind starts; `./x test` installs it");
    let (text, counts) = (String::from_utf8_lossy(&counted.stdout), String::from_utf8_lossy(&counted.stderr));
    assert!(counted.status.success(), "{text}{counts}");
    let number = |text: &str, after: &str| -> u64 {
        let at = text.find(after).unwrap_or_else(|| panic!("no '{after}' in {text}"));
        text[at + after.len()..].split_whitespace().next().and_then(|word| word.parse().ok()).unwrap()
    };
    let per_packet = number(&counts, "Collected : ") / number(&text, "forwarded: ");
    println!("{test}: {per_packet} instructions per forwarded packet");
    let ratio = per_packet as f64 / agreed as f64;
    assert!(
        (ratio - 1.0).abs() <= TOLERANCE,
        "{test}: {per_packet} instructions per forwarded packet, agreed on were {agreed}. If that is meant, write the new figure \
         into {} and say in the commit why",
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

#[inline(never)]
fn the_counted_part(world: &mut World, link: rtcd_core::ids::Link, bytes: &mut [u8]) -> usize {
    tape::feed(world, link, bytes)
}
