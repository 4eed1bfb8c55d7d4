//! People see each other.

use std::time::Duration;

use rtcd_core::input::TrackSettings;
use rtcd_core::output::Signal;
use rtcd_core::{Input, TrackId};

use crate::world::{End, Given, Heard, MS, Profile, World, holes, read_vp8};

fn settings(layer_max: u8) -> TrackSettings {
    TrackSettings { disabled: false, layer_max, width: 0, height: 0, fps: 0, priority: 0 }
}

/// A keyframe's first packet: start of partition 0, and VP8's own bit.
fn is_key(heard: &Heard) -> bool {
    heard.payload[0] & 0x10 != 0 && heard.payload[4] & 1 == 0
}

fn layers(heard: &[&Heard]) -> Vec<u8> {
    let mut layers: Vec<u8> = heard.iter().map(|heard| read_vp8(&heard.payload).1).collect();
    layers.dedup();
    layers
}

#[test]
fn a_picture_arrives_whole_and_in_order() {
    let mut world = World::new(20);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.settle();
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 40);
    assert!(is_key(heard[0]));
    assert_eq!(holes(&heard), 0);
}

#[test]
fn late_joiner_gets_a_key_frame() {
    let mut world = World::new(21);
    let ann = world.join("ann");
    world.camera(ann, "cam", &[]);
    world.settle();
    world.clients[ann].key_frame_requests.clear();
    let ben = world.join("ben");
    world.settle();
    assert!(!world.clients[ann].key_frame_requests.is_empty());
    assert!(is_key(world.heard(ben, "TR_cam")[0]));
}

#[test]
fn lost_packets_come_back_by_rtx() {
    let mut world = World::new(22);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.settle();
    world.set_profile(ben, Profile { loss_down: 50, ..Profile::default() });
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(10));
    world.set_profile(ben, Profile::default());
    world.run(Duration::from_secs(1));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 290);
    assert_eq!(holes(&heard), 0);
    assert!(world.counter("packets_resent") >= 10);
}

#[test]
fn packets_lost_before_the_server_are_asked_for_again() {
    let mut world = World::new(23);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.settle();
    world.set_profile(ann, Profile { loss_up: 50, ..Profile::default() });
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(10));
    world.set_profile(ann, Profile::default());
    world.run(Duration::from_secs(1));
    assert_eq!(holes(&world.heard(ben, "TR_cam")), 0);
    assert!(world.counter("packets_recovered") >= 10);
}

#[test]
fn many_wishes_for_a_key_frame_become_few_requests() {
    let mut world = World::new(24);
    let ann = world.join("ann");
    world.camera(ann, "cam", &[]);
    world.settle();
    world.clients[ann].key_frame_requests.clear();
    for n in 0..10 {
        world.join(&format!("viewer{n}"));
    }
    world.settle();
    let requests = world.clients[ann].key_frame_requests.len();
    assert!((1..=4).contains(&requests), "{requests}");
}

#[test]
fn viewer_switches_layer_without_a_sequence_hole() {
    let mut world = World::new(25);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.run(Duration::from_secs(4));
    let (peer, track) = (world.peer(ben), TrackId::new("TR_cam").unwrap());
    assert_eq!(layers(&world.heard(ben, "TR_cam")).last(), Some(&2));
    for layer in [0, 1, 0, 2] {
        world.tell(Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings: settings(layer) });
        world.run(Duration::from_secs(2));
        let heard = world.heard(ben, "TR_cam");
        assert_eq!(read_vp8(&heard.last().unwrap().payload).1, layer);
    }
    let heard = world.heard(ben, "TR_cam");
    assert_eq!(holes(&heard), 0);
    // The new layer begins with a key frame; picture ids grow by one from frame to frame; time never runs back.
    for pair in heard.windows(2) {
        let ((before, layer_before, _), (after, layer_after, _)) = (read_vp8(&pair[0].payload), read_vp8(&pair[1].payload));
        if layer_before != layer_after {
            assert!(is_key(pair[1]));
        }
        assert!(after.wrapping_sub(before) & 0x7FFF <= 1, "{before} {after}");
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(step < 90_000 / 2, "{step}");
    }
}

#[test]
fn resent_packets_of_the_old_layer_keep_its_numbers() {
    let mut world = World::new(26);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.run(Duration::from_secs(3));
    world.set_profile(ben, Profile { loss_down: 40, delay: 40 * MS, jitter: 20 * MS, ..Profile::default() });
    let (peer, track) = (world.peer(ben), TrackId::new("TR_cam").unwrap());
    world.clients[ben].heard.clear();
    for round in 0..6u8 {
        world.tell(Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings: settings(round % 3) });
        world.run(Duration::from_secs(2));
    }
    world.set_profile(ben, Profile::default());
    world.run(Duration::from_secs(1));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 200, "{}", heard.len());
    // Each number was seen with one content only.
    let mut by_seq = std::collections::HashMap::new();
    for packet in &heard {
        let known = by_seq.entry(packet.seq).or_insert_with(|| packet.payload.clone());
        assert_eq!(*known, packet.payload);
    }
}

#[test]
fn shown_size_chooses_the_layer() {
    let mut world = World::new(27);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.run(Duration::from_secs(3));
    let (peer, track) = (world.peer(ben), TrackId::new("TR_cam").unwrap());
    for (width, layer) in [(320, 0), (600, 1), (1280, 2), (200, 0)] {
        world.tell(Input::TrackSettings {
            peer: peer.clone(),
            track: track.clone(),
            settings: TrackSettings { width, height: width * 9 / 16, ..settings(2) },
        });
        world.run(Duration::from_secs(2));
        assert_eq!(read_vp8(&world.heard(ben, "TR_cam").last().unwrap().payload).1, layer, "{width}");
    }
    world.tell(Input::TrackSettings { peer, track, settings: TrackSettings { disabled: true, ..settings(2) } });
    world.run(100 * MS);
    let heard = world.heard(ben, "TR_cam").len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard(ben, "TR_cam").len(), heard);
}

#[test]
fn adaptive_clients_get_pictures_only_after_they_said_what_they_show() {
    let mut world = World::new(28);
    let ann = world.join("ann");
    let ben = world.join_with("ben", |join| join.adaptive_stream = true);
    world.camera(ann, "cam", &[]);
    world.settle();
    assert!(world.heard(ben, "TR_cam").is_empty());
    let (peer, track) = (world.peer(ben), TrackId::new("TR_cam").unwrap());
    world.tell(Input::TrackSettings { peer, track, settings: settings(2) });
    world.settle();
    assert!(is_key(world.heard(ben, "TR_cam")[0]));
}

#[test]
fn layers_nobody_wants_are_turned_off_after_a_while() {
    let mut world = World::new(29);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.run(Duration::from_secs(3));
    let (peer, track) = (world.peer(ben), TrackId::new("TR_cam").unwrap());
    world.clients[ann].signals.clear();
    world.tell(Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings: settings(0) });
    world.run(Duration::from_secs(3));
    let told = |world: &World| {
        world.clients[ann].signals.iter().filter(|signal| matches!(signal, Signal::WantedLayers { .. })).cloned().collect::<Vec<_>>()
    };
    assert!(!told(&world).iter().any(|signal| matches!(signal, Signal::WantedLayers { layers, .. } if !layers[2].1)));
    world.run(Duration::from_secs(4));
    assert_eq!(told(&world).last(), Some(&Signal::WantedLayers { track: track.clone(), layers: vec![(0, true), (1, false), (2, false)] }));
    // Wanted again: told at once, and the picture gets sharp when the layer comes.
    for n in [1, 2] {
        world.producers[0].on[n] = false;
    }
    world.run(Duration::from_secs(2));
    world.tell(Input::TrackSettings { peer, track: track.clone(), settings: settings(2) });
    assert!(matches!(told(&world).last(), Some(Signal::WantedLayers { layers, .. }) if layers[2].1));
    for n in [1, 2] {
        world.producers[0].on[n] = true;
    }
    world.run(Duration::from_secs(2));
    assert_eq!(read_vp8(&world.heard(ben, "TR_cam").last().unwrap().payload).1, 2);
}

#[test]
fn a_narrow_way_gets_a_lower_layer_and_a_wide_one_the_best() {
    let mut world = World::new(30);
    let (ann, ben, eve) = (world.join("ann"), world.join("ben"), world.join("eve"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    // About 0.25, 0.5 and 2 Mbit/s.
    world.producers[0].frame_packets = vec![1, 2, 8];
    world.run(Duration::from_secs(10));
    world.set_profile(ben, Profile { down_bps: 900_000, ..Profile::default() });
    world.run(Duration::from_secs(20));
    // The middle one fits, which nobody wanted before.
    assert_eq!(read_vp8(&world.heard(ben, "TR_cam").last().unwrap().payload).1, 1);
    assert_eq!(read_vp8(&world.heard(eve, "TR_cam").last().unwrap().payload).1, 2);
    let report = world.ask_report();
    let ben_report = report.calls[0].peers.iter().find(|peer| peer.peer == world.peer(ben)).unwrap();
    assert!(ben_report.estimate_bps > 0 && ben_report.estimate_bps < 2_000_000, "{}", ben_report.estimate_bps);
}

#[test]
fn a_way_that_is_wide_again_is_found_by_padding() {
    let mut world = World::new(35);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.producers[0].frame_packets = vec![1, 2, 8];
    world.run(Duration::from_secs(10));
    assert_eq!(world.counter("packets_padding"), 0, "nobody pads a way that was never narrow");
    world.set_profile(ben, Profile { down_bps: 900_000, ..Profile::default() });
    world.run(Duration::from_secs(30));
    let shown = |world: &World| read_vp8(&world.heard(ben, "TR_cam").last().unwrap().payload).1;
    assert!(shown(&world) < 2);
    // Looked for again and again, and seldom enough.
    let (padding, forwarded) = (world.counter("packets_padding"), world.heard(ben, "TR_cam").len() as u64);
    assert!((10..forwarded / 5).contains(&padding), "{padding} beside {forwarded}");
    world.clients[ben].heard.clear();
    world.set_profile(ben, Profile::default());
    // The longest pause between two probes, and a key frame of the better layer. By time alone it took 47 s.
    world.run(Duration::from_secs(20));
    assert_eq!(shown(&world), 2);
    assert_eq!(holes(&world.heard(ben, "TR_cam")), 0, "padding leaves no hole");
    let padding = world.counter("packets_padding");
    world.run(Duration::from_secs(30));
    assert_eq!(world.counter("packets_padding"), padding, "what is wanted fits: nothing more is looked for");
}

/// LiveKit's SDKs on libwebrtc without retransmissions pad in the stream itself, hundreds of packets a second while a picture stands still.
#[test]
fn a_publishers_padding_is_not_passed_on_and_costs_no_viewer_its_picture() {
    let mut world = World::new(38);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    let tap = world.open_tap("tap", false);
    world.run(Duration::from_secs(3));
    world.producers[0].padding = 60;
    world.run(Duration::from_secs(3));
    assert!(world.counter("packets_only_padding") > 3_000);
    // The lowest layer takes 240 kbit/s; with its padding it would be 850.
    world.set_profile(ben, Profile { down_bps: 500_000, ..Profile::default() });
    world.run(Duration::from_secs(15));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(10));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() >= 250 && heard.iter().all(|heard| !heard.payload.is_empty()), "{}", heard.len());
    assert_eq!(holes(&heard), 0);
    // What is lost on the way down is found again under the numbers that ben knows.
    world.set_profile(ben, Profile { loss_down: 30, ..Profile::default() });
    world.run(Duration::from_secs(5));
    world.set_profile(ben, Profile::default());
    world.run(Duration::from_secs(1));
    assert!(world.counter("packets_resent") >= 3);
    let heard = world.heard(ben, "TR_cam");
    assert_eq!(holes(&heard), 0);
    assert!(heard.iter().all(|heard| !heard.payload.is_empty()));
    let empty =
        world.given[tap.as_str()].iter().filter(|given| matches!(given, Given::Packet { payload, .. } if payload.is_empty())).count();
    let gaps = world.given[tap.as_str()].iter().filter(|given| matches!(given, Given::Gap { .. })).count();
    assert_eq!((empty, gaps), (0, 0));
}

/// A link with a long queue, so that the whole way is known to be narrow as well.
fn of_rate(rate_kbit: u64) -> link_model::Profile {
    let up = link_model::Way { delay_ms: 10, ..link_model::Way::default() };
    link_model::Profile { up, down: link_model::Way { rate_kbit, queue_ms: 1000, ..up }, ..link_model::Profile::default() }
}

#[test]
fn the_best_layer_is_back_soon_after_a_narrow_way_got_wide() {
    for seed in [36, 37, 38] {
        let mut world = World::new(seed);
        let (ann, ben, eve) = (world.join("ann"), world.join("ben"), world.join("eve"));
        let microphone = world.microphone(ann, "mic");
        world.producers[microphone].payload_len = 60;
        let camera = world.camera(ann, "cam", &["q", "h", "f"]);
        // About 0.13, 0.4 and 1.5 Mbit/s: the lowest does not fill even the narrow way.
        world.producers[camera].every = 66 * MS;
        world.producers[camera].frame_packets = vec![1, 3, 12];
        world.run(Duration::from_secs(5));
        for viewer in [ben, eve] {
            world.set_link(viewer, &of_rate(300));
        }
        // One of them shows the picture small, and misses nothing.
        let (peer, track) = (world.peer(eve), TrackId::new("TR_cam").unwrap());
        world.tell(Input::TrackSettings { peer, track, settings: settings(0) });
        world.run(Duration::from_secs(15));
        world.clients[ben].heard.clear();
        world.run(Duration::from_secs(30));
        let shown = |world: &World, viewer: usize| read_vp8(&world.heard(viewer, "TR_cam").last().unwrap().payload).1;
        assert_eq!((shown(&world, ben), shown(&world, eve)), (0, 0), "seed {seed}");
        let said = world.heard(ben, "TR_mic").len();
        assert!(said > 1450, "seed {seed}: no probe costs a sound: {said} of 1500");
        assert!(world.counter("packets_padding") > 10, "seed {seed}");
        world.set_link(ben, &of_rate(3000));
        world.run(Duration::from_secs(20));
        assert_eq!(shown(&world, ben), 2, "seed {seed}");
        assert_eq!(holes(&world.heard(ben, "TR_cam")), 0, "seed {seed}");
        // Nobody wants more than there is by now.
        let padding = world.counter("packets_padding");
        world.run(Duration::from_secs(30));
        assert_eq!(world.counter("packets_padding"), padding, "seed {seed}");
    }
}

/// Padding on its way to a client: the length of each datagram.
fn padding_to(world: &World, client: usize) -> Vec<usize> {
    const PADDING_BIT: u8 = 0x20;
    let numbers = world.numbers.as_ref().unwrap();
    let address = world.clients[client].connections[&End::Subscribe].address;
    numbers.iter().filter(|((to, ..), bytes)| *to == address && bytes[0] & PADDING_BIT != 0).map(|(_, bytes)| bytes.len()).collect()
}

#[test]
fn a_way_too_narrow_for_all_who_talk_is_only_glimpsed_at() {
    for (rate_kbit, second) in [(300, None), (300, Some((-71, false))), (70, Some((-20, true)))] {
        let mut world = World::new(39);
        let (ann, cat, ben) = (world.join("ann"), world.join("cat"), world.join("ben"));
        let talker = world.microphone(ann, "mic");
        world.producers[talker].payload_len = 60;
        if let Some((level, voice)) = second {
            let room = world.microphone(cat, "room");
            world.producers[room].payload_len = 60;
            (world.producers[room].level, world.producers[room].voice) = (level, voice);
        }
        let camera = world.camera(ann, "cam", &["q", "h", "f"]);
        world.producers[camera].every = 66 * MS;
        world.producers[camera].frame_packets = vec![1, 3, 12];
        world.run(Duration::from_secs(5));
        world.set_link(ben, &of_rate(rate_kbit));
        // Until it is known how narrow it is.
        world.run(Duration::from_secs(15));
        let held_back = world.counter("packets_out_of_earshot");
        world.numbers = Some(std::collections::HashMap::new());
        world.run(Duration::from_secs(15));
        // Sounds without padding have the bit too where they are made equally long, which they are not on a narrow way.
        let padding = padding_to(&world, ben);
        assert!(!padding.is_empty(), "{rate_kbit} {second:?}");
        // Background that is not sent keeps nobody from looking; where somebody who talks is not heard, a glimpse must do.
        let only_glimpses = padding.iter().all(|len| *len < 100);
        assert_eq!(only_glimpses, rate_kbit == 70, "{rate_kbit} {second:?}: {padding:?}");
        assert_eq!(world.counter("packets_out_of_earshot") - held_back > 100, second.is_some(), "{rate_kbit} {second:?}");
    }
}

#[test]
fn a_key_frame_over_a_thin_link_overflows_no_queue() {
    for seed in [40, 41, 42] {
        let mut world = World::new(seed);
        let (ann, ben, eve) = (world.join("ann"), world.join("ben"), world.join("eve"));
        let camera = world.camera(ann, "cam", &["q", "h", "f"]);
        // About 0.13, 0.4 and 1.5 Mbit/s, and 20 KB for a key frame: more than the queue before the link takes.
        world.producers[camera].every = 66 * MS;
        world.producers[camera].frame_packets = vec![1, 3, 12];
        world.producers[camera].key_packets = 20;
        world.run(Duration::from_secs(5));
        let mut link = of_rate(1000);
        link.down.queue_ms = 120;
        world.set_link(ben, &link);
        world.run(Duration::from_secs(20));
        assert_eq!(read_vp8(&world.heard(ben, "TR_cam").last().unwrap().payload).1, 1, "seed {seed}");
        let (resent, left_out) = (world.counter("packets_resent"), world.counter("packets_left_out"));
        world.clients[ben].heard.clear();
        let (peer, track) = (world.peer(ben), TrackId::new("TR_cam").unwrap());
        for _ in 0..5 {
            for disabled in [true, false] {
                let settings = TrackSettings { disabled, ..settings(1) };
                world.tell(Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings });
                world.run(Duration::from_secs(3));
            }
        }
        let heard = world.heard(ben, "TR_cam");
        let key_frames = heard.chunk_by(|a, b| a.timestamp == b.timestamp).filter(|frame| frame.len() == 20).count();
        assert!(key_frames >= 5, "seed {seed}: {key_frames}");
        assert_eq!(holes(&heard), 0, "seed {seed}");
        assert_eq!(world.counter("packets_resent"), resent, "seed {seed}: something was lost");
        assert_eq!(world.counter("packets_left_out"), left_out, "seed {seed}");
        assert!(world.heard(eve, "TR_cam").len() > 3000, "seed {seed}");
    }
}

#[test]
fn who_has_room_is_never_paced_nor_probed() {
    let mut world = World::new(43);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let camera = world.camera(ann, "cam", &["q", "h", "f"]);
    world.producers[camera].frame_packets = vec![1, 2, 8];
    world.producers[camera].key_packets = 60;
    world.set_link(ben, &of_rate(20_000));
    world.run(Duration::from_secs(30));
    assert!(world.heard(ben, "TR_cam").len() > 6_000);
    assert_eq!((world.counter("packets_paced"), world.counter("packets_padding")), (0, 0));
}

#[test]
fn equal_packets_to_one_viewer_leave_together() {
    let mut world = World::new(31);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.producers[0].frame_packets = vec![9];
    world.settle();
    assert!(world.heard(ben, "TR_cam").len() > 200);
    assert!(world.trains > 20, "{}", world.trains);
}

#[test]
fn video_mute_needs_a_key_frame_to_go_on() {
    let mut world = World::new(32);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.settle();
    let (peer, track) = (world.peer(ann), TrackId::new("TR_cam").unwrap());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
    world.run(Duration::from_secs(1));
    world.clients[ben].heard.clear();
    world.tell(Input::Mute { peer, track, muted: false });
    world.run(Duration::from_secs(2));
    let heard = world.heard(ben, "TR_cam");
    assert!(is_key(heard[0]));
    assert_eq!(holes(&heard), 0);
    assert!(world.clients[ben].connections.contains_key(&End::Subscribe));
}

#[test]
fn a_paused_picture_comes_back_when_the_way_gets_wider() {
    let mut world = World::new(33);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.producers[0].frame_packets = vec![4];
    world.run(Duration::from_secs(3));
    world.set_profile(ben, Profile { down_bps: 200_000, ..Profile::default() });
    world.run(Duration::from_secs(20));
    let states = |world: &World| {
        world.clients[ben]
            .signals
            .iter()
            .filter_map(|signal| if let Signal::StreamState { paused, .. } = signal { Some(*paused) } else { None })
            .collect::<Vec<_>>()
    };
    assert!(states(&world).contains(&true));
    world.set_profile(ben, Profile::default());
    world.run(Duration::from_secs(60));
    assert_eq!(states(&world).last(), Some(&false));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(2));
    assert!(world.heard(ben, "TR_cam").len() > 200);
}
