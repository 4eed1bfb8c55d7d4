//! Recorders and captioners.

use std::time::Duration;

use rtcd_core::{Input, TapId, TrackId};

use crate::world::{Given, Profile, World, read_vp8};

fn packets(given: &[Given], track: &str) -> Vec<(u64, u64, Vec<u8>)> {
    given
        .iter()
        .filter_map(|given| match given {
            Given::Packet { track: of, seq, timestamp, payload, .. } if of.as_str() == track => Some((*seq, *timestamp, payload.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_tap_gets_every_packet_in_order() {
    let mut world = World::new(50);
    let ann = world.join("ann");
    world.microphone(ann, "mic");
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.open_tap("job", false);
    world.run(Duration::from_secs(5));
    let given = &world.given["job"];
    assert!(given.contains(&Given::Track(world.peer(ann), TrackId::new("TR_mic").unwrap())));
    for track in ["TR_mic", "TR_cam"] {
        let packets = packets(given, track);
        assert!(packets.len() > 150, "{track} {}", packets.len());
        assert!(packets.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1 && pair[1].1 >= pair[0].1), "{track}");
    }
    assert!(matches!(
        given.iter().find(|given| matches!(given, Given::Packet { track, .. } if track.as_str() == "TR_cam")),
        Some(Given::Packet { key_frame: true, .. })
    ));
    assert!(!given.iter().any(|given| matches!(given, Given::Gap { .. })));
}

#[test]
fn reordered_packets_are_put_right_and_lost_ones_declared() {
    let mut world = World::new(51);
    let ann = world.join("ann");
    world.microphone(ann, "mic");
    world.settle();
    world.open_tap("job", false);
    world.set_profile(ann, Profile { loss_up: 100, jitter: Duration::from_millis(60), ..Profile::default() });
    world.run(Duration::from_secs(10));
    let given = &world.given["job"];
    // Packets and gaps together count every number once, in order.
    let mut next = None;
    let mut lost = 0;
    for item in given {
        let (from, count) = match item {
            Given::Packet { seq, .. } => (*seq, 1),
            Given::Gap { from_seq, packets, .. } => {
                lost += packets;
                (*from_seq, *packets)
            }
            _ => continue,
        };
        assert!(next.is_none_or(|next| next == from), "{next:?} {item:?}");
        next = Some(from + count);
    }
    assert!(next.unwrap() > 480, "{next:?} lost {lost}");
    assert!(lost > 0 && lost < 100, "{lost}");
}

#[test]
fn a_muted_track_gives_the_tap_nothing() {
    let mut world = World::new(52);
    let ann = world.join("ann");
    world.microphone(ann, "mic");
    world.settle();
    world.open_tap("job", false);
    world.run(Duration::from_secs(1));
    let (peer, track) = (world.peer(ann), TrackId::new("TR_mic").unwrap());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
    let before = packets(&world.given["job"], "TR_mic").len();
    world.run(Duration::from_secs(1));
    assert_eq!(packets(&world.given["job"], "TR_mic").len(), before);
    assert!(world.given["job"].contains(&Given::Muted(track.clone(), true)));
    world.tell(Input::Mute { peer, track, muted: false });
    world.run(Duration::from_secs(1));
    assert!(packets(&world.given["job"], "TR_mic").len() > before + 45);
}

#[test]
fn a_tap_ends_with_the_call_and_never_begins_without_one() {
    let mut world = World::new(53);
    world.open_tap("early", false);
    assert_eq!(world.given["early"], [Given::Closed]);
    let ann = world.join("ann");
    world.microphone(ann, "mic");
    world.open_tap("job", false);
    world.settle();
    let peer = world.peer(ann);
    world.tell(Input::Leave { peer });
    let given = &world.given["job"];
    assert!(given.contains(&Given::Ended(TrackId::new("TR_mic").unwrap())));
    assert_eq!(given.last(), Some(&Given::Closed));
    world.tell(Input::TapClose { tap: TapId::new("job").unwrap() });
}

#[test]
fn a_tap_may_ask_for_a_key_frame() {
    let mut world = World::new(54);
    let ann = world.join("ann");
    world.camera(ann, "cam", &[]);
    let tap = world.open_tap("job", false);
    world.settle();
    world.clients[ann].key_frame_requests.clear();
    world.tell(Input::TapKeyFrame { tap, track: TrackId::new("TR_cam").unwrap() });
    world.run(Duration::from_secs(1));
    assert_eq!(world.clients[ann].key_frame_requests.len(), 1);
}

/// Packets of the picture that the tap got since then, key frames told apart.
fn pictures(world: &World, from: usize) -> Vec<bool> {
    let given = world.given["job"].iter().skip(from);
    given.filter_map(|given| if let Given::Packet { key_frame, .. } = given { Some(*key_frame) } else { None }).collect()
}

/// Nobody watches: only the recorder needs the key frame after a pause.
#[test]
fn a_recorded_picture_is_back_at_once_after_a_mute_that_nobody_watched() {
    for rids in [&[][..], &["q", "h", "f"]] {
        let mut world = World::new(56);
        let ann = world.join("ann");
        world.camera(ann, "cam", rids);
        world.open_tap("job", false);
        world.run(Duration::from_secs(5));
        let (peer, track) = (world.peer(ann), TrackId::new("TR_cam").unwrap());
        world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
        world.run(Duration::from_secs(3));
        let before = world.given["job"].len();
        world.tell(Input::Mute { peer, track, muted: false });
        world.run(Duration::from_secs(1));
        let came = pictures(&world, before);
        assert!(came.len() > 20 && came[0], "{} packets", came.len());
    }
}

/// A publisher's way became narrow: its encoder turns the best layer off, and the others flow on.
#[test]
fn a_recording_goes_on_with_the_layer_that_is_left() {
    for watched in [false, true] {
        let mut world = World::new(57);
        let ann = world.join("ann");
        if watched {
            world.join("ben");
        }
        let camera = world.camera(ann, "cam", &["q", "h", "f"]);
        world.producers[camera].dynacast = false;
        world.open_tap("job", false);
        world.run(Duration::from_secs(5));
        world.producers[camera].on = vec![true, true, false];
        world.run(Duration::from_secs(4));
        let before = world.given["job"].len();
        world.run(Duration::from_secs(2));
        assert!(pictures(&world, before).len() > 50, "watched: {watched}, {} packets", pictures(&world, before).len());
        let of =
            |world: &World| world.given["job"].iter().rev().find_map(|given| packets(std::slice::from_ref(given), "TR_cam").pop()).unwrap();
        assert_eq!(read_vp8(&of(&world).2).1, 1, "watched: {watched}");
        // And comes back when that one does.
        world.producers[camera].on = vec![true; 3];
        world.run(Duration::from_secs(3));
        assert_eq!(read_vp8(&of(&world).2).1, 2, "watched: {watched}");
    }
}
