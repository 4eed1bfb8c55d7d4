//! After warm-up a packet costs no allocation, from the datagram in to the datagrams out to every viewer.

#![cfg(test)]
#![allow(unreachable_pub, dead_code, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

use std::time::Duration;

#[path = "../counting/mod.rs"]
mod counting;
#[path = "../tape/mod.rs"]
mod tape;
#[path = "../stories/world.rs"]
mod world;

use counting::allocations;
use rtcd_core::input::TrackSettings;
use rtcd_core::{Input, TrackId};
use world::layered::{Encoder, Mode};
use world::{Profile, World};

/// Two seconds of one camera and one microphone to ten viewers, fed straight from a tape. The sound comes with redundancy and
/// with losses, and half of the viewers have reported losses and get redundancy as well.
#[test]
fn no_allocation_per_packet() {
    let mut world = World::new(90);
    world.red = true;
    let ann = world.join("ann");
    let viewers: Vec<usize> = (0..10).map(|n| world.join(&format!("viewer{n}"))).collect();
    let microphone = world.microphone(ann, "mic");
    world.producers[microphone].redundancy = 1;
    let camera = world.camera(ann, "cam", &["q", "h", "f"]);
    // All layers come in all the time, whichever of them the viewers get at the moment.
    world.producers[camera].dynacast = false;
    for viewer in viewers.into_iter().skip(5) {
        world.set_profile(viewer, Profile { loss_down: 150, ..Profile::default() });
    }
    world.run(Duration::from_secs(12));
    let (redundant, recovered) = (world.counter("packets_with_redundancy"), world.counter("packets_recovered"));
    // What the publisher sends from now on is kept back and then given to the core alone.
    let (link, mut tape) = tape::record(&mut world, ann, Duration::from_millis(400));
    assert!(tape.len() > 100, "{}", tape.len());
    let warm_up = tape.len() / 4;
    let (mut sent, mut packets, mut allocated) = (0, 0, 0);
    let mut sounds = 0;
    for (n, bytes) in tape.iter_mut().enumerate() {
        // Pictures are 1000 bytes. Of the sounds every third is lost; in the warm-up, too.
        if bytes.len() < 400 {
            sounds += 1;
            if sounds % 3 == 2 {
                continue;
            }
        }
        let before = allocations();
        let out = tape::feed(&mut world, link, bytes);
        if n >= warm_up {
            allocated += allocations() - before;
            packets += 1;
            sent += out;
        }
    }
    assert!(sent > packets * 4, "{sent} for {packets}");
    assert!(world.counter("packets_with_redundancy") > redundant + 40, "some leave with redundancy");
    assert!(world.counter("packets_recovered") > recovered, "some are taken from redundancy");
    assert_eq!(allocated, 0, "{allocated} allocations for {packets} packets in and {sent} out");
}

/// A camera with layers inside one stream, to nine viewers that get three different parts of it.
#[test]
fn no_allocation_per_packet_with_layers_inside() {
    let mut world = World::new(92);
    world.descriptors = true;
    let ann = world.join("ann");
    let viewers: Vec<usize> = (0..9).map(|n| world.join(&format!("viewer{n}"))).collect();
    let camera = world.camera(ann, "cam", &[]);
    world.producers[camera].encoder = Some(Encoder::new(Mode::L3T3, str0m::format::Codec::Av1, true));
    world.run(Duration::from_secs(3));
    for viewer in viewers {
        let settings = TrackSettings { disabled: false, layer_max: (viewer % 3) as u8, width: 0, height: 0, fps: 0, priority: 0 };
        let (peer, track) = (world.peer(viewer), TrackId::new("TR_cam").unwrap());
        world.tell(Input::TrackSettings { peer, track, settings });
    }
    world.run(Duration::from_secs(3));
    let (link, mut tape) = tape::record(&mut world, ann, Duration::from_millis(400));
    let warm_up = tape.len() / 4;
    let (mut sent, mut allocated) = (0, 0);
    for (n, bytes) in tape.iter_mut().enumerate() {
        let before = allocations();
        let out = tape::feed(&mut world, link, bytes);
        if n >= warm_up {
            allocated += allocations() - before;
            sent += out;
        }
    }
    // Of six packets a viewer gets one, three or all.
    let packets = tape.len() - warm_up;
    assert!((packets * 4..packets * 6).contains(&sent), "{sent} for {packets}");
    assert_eq!(allocated, 0, "{allocated} allocations for {packets} packets in and {sent} out");
}
