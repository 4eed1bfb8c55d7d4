//! One connection on which both ends offer, with a client (str0m) that offers and answers on it.

use std::time::Duration;

use rtcd_core::ids::Channel;
use rtcd_core::input::{Input, Join, TrackSettings, Transports};
use rtcd_core::negotiate::CodecKind;
use rtcd_core::output::{Event, Signal};

use crate::world::{End, MS, Profile, World, announced, call, holes, read_vp8};

const CODECS: &[CodecKind] = &[CodecKind::Opus, CodecKind::Vp8, CodecKind::Av1];

fn as_mutual(join: &mut Join) {
    join.transports = Transports::Mutual { codecs: CODECS };
    join.audio_levels = true;
}

/// A client whose first offer has the data section alone.
fn join(world: &mut World, name: &str) -> usize {
    let client = world.join_with(name, as_mutual);
    open_channel(world, client);
    client
}

fn open_channel(world: &mut World, client: usize) {
    world.new_connection(client, End::Publish);
    let mut api = world.clients[client].connections.get_mut(&End::Publish).unwrap().rtc.sdp_api();
    api.add_channel("calls-dc".to_owned());
    let (offer, pending) = api.apply().unwrap();
    world.send_offer(client, offer, pending);
}

fn signals(world: &World, client: usize, is: fn(&Signal) -> bool) -> usize {
    world.clients[client].signals.iter().filter(|signal| is(signal)).count()
}

fn offers(world: &World, client: usize) -> usize {
    signals(world, client, |signal| matches!(signal, Signal::Offer { .. }))
}

#[test]
fn both_ends_offer_on_one_connection_and_each_hears_the_other() {
    let mut world = World::new(1);
    let (ann, ben) = (join(&mut world, "ann"), join(&mut world, "ben"));
    world.settle();
    assert_eq!(offers(&world, ann), 0, "there is nothing to offer yet");
    world.microphone(ann, "ann");
    world.run(Duration::from_secs(1));
    world.microphone(ben, "ben");
    world.camera(ben, "ben-cam", &[]);
    world.run(Duration::from_secs(2));
    // Who comes late, and how it is connected otherwise, makes no difference.
    let (cem, dan) = (join(&mut world, "cem"), world.join("dan"));
    world.microphone(dan, "dan");
    world.run(Duration::from_secs(2));

    for (listener, tracks) in [
        (ann, &["TR_ben", "TR_ben-cam", "TR_dan"][..]),
        (ben, &["TR_ann", "TR_dan"]),
        (cem, &["TR_ann", "TR_ben", "TR_dan"]),
        (dan, &["TR_ann"]),
    ] {
        assert_eq!(world.clients[listener].connections.len(), if listener == dan { 2 } else { 1 });
        for track in tracks {
            assert!(world.heard(listener, track).len() > 60, "{listener} has {} of {track}", world.heard(listener, track).len());
        }
    }
    world.tell(Input::Leave { peer: world.peer(ann) });
    world.run(Duration::from_secs(1));
    let before = world.heard(ben, "TR_dan").len();
    // The section of the one that left is used again.
    let eve = join(&mut world, "eve");
    world.microphone(eve, "eve");
    world.run(Duration::from_secs(2));
    assert!(world.heard(ben, "TR_eve").len() > 60 && world.heard(ben, "TR_dan").len() > before + 60);
    let Some(Signal::Offer { sdp, .. }) = world.clients[ben].signals.iter().rfind(|signal| matches!(signal, Signal::Offer { .. })) else {
        panic!("no offer")
    };
    // Data, its own microphone and camera, and two that it hears: not three.
    assert_eq!(sdp.matches("\nm=").count(), 5, "{sdp}");
    assert!(sdp.contains("a=msid:PA_eve TR_eve\r\n"), "{sdp}");
}

#[test]
fn what_was_not_published_is_nobodys() {
    let mut world = World::new(2);
    let (ann, ben) = (join(&mut world, "ann"), join(&mut world, "ben"));
    world.settle();
    let mut api = world.clients[ann].connections.get_mut(&End::Publish).unwrap().rtc.sdp_api();
    let mid = api.add_media(
        str0m::media::MediaKind::Audio,
        str0m::media::Direction::SendRecv,
        Some("a-stream".to_owned()),
        Some("a-track".to_owned()),
        None,
    );
    let (offer, pending) = api.apply().unwrap();
    world.send_offer(ann, offer, pending);
    world.run(Duration::from_millis(500));
    let Some(Signal::Sending(sections)) = world.clients[ann].signals.iter().rfind(|signal| matches!(signal, Signal::Sending(_))) else {
        panic!("not told what it sends")
    };
    let [section] = sections.as_slice() else { panic!("{sections:?}") };
    assert_eq!((section.mid.as_str(), section.stream.as_str(), section.mime), (&*mid.to_string(), "a-stream", "audio/opus"));
    assert_eq!(offers(&world, ben), 0);

    // Another name than the section's finds nothing, not even by order.
    world.tell(Input::Publish(Box::new(announced(world.peer(ann), "TR_other", "another"))));
    world.settle();
    assert_eq!(offers(&world, ben), 0);
    let mid = section_mid(&world, ann);
    world.tell(Input::Publish(Box::new(announced(world.peer(ann), "TR_ann", &mid))));
    world.settle();
    assert_eq!(offers(&world, ben), 1);
}

fn section_mid(world: &World, client: usize) -> String {
    let sections = world.clients[client].signals.iter().rev().find_map(|signal| match signal {
        Signal::Sending(sections) => sections.first(),
        _ => None,
    });
    sections.expect("it sends").mid.clone()
}

#[test]
fn an_offer_that_crosses_ours_is_made_again() {
    let mut world = World::new(3);
    world.deaf = true;
    let ann = join(&mut world, "ann");
    world.deaf = false;
    let ben = join(&mut world, "ben");
    world.settle();
    world.microphone(ben, "ben");
    world.run(Duration::from_millis(500));
    assert_eq!((offers(&world, ann), world.clients[ann].unanswered.len()), (1, 1));

    // Her own offer comes while ours is under way: nobody answers it, and nothing is refused either.
    let answers = |world: &World| signals(world, ann, |signal| matches!(signal, Signal::Answer { .. }));
    let before = answers(&world);
    let mut api = world.clients[ann].connections.get_mut(&End::Publish).unwrap().rtc.sdp_api();
    api.add_media(str0m::media::MediaKind::Audio, str0m::media::Direction::SendRecv, None, None, None);
    let (offer, _rolled_back) = api.apply().unwrap();
    world.tell(Input::Offer { peer: world.peer(ann), sdp: &offer.to_sdp_string(), id: 9 });
    world.settle();
    assert_eq!(answers(&world), before);

    // She may not have got it: it is said again, the same.
    world.tell(Input::Reoffer { peer: world.peer(ann) });
    world.settle();
    assert_eq!(world.clients[ann].unanswered[0], world.clients[ann].unanswered[1]);

    let (sdp, id) = world.clients[ann].unanswered.remove(0);
    world.answer(ann, &sdp, id);
    world.drain();
    world.clients[ann].deaf = false;
    world.microphone(ann, "ann");
    world.run(Duration::from_secs(2));
    assert!(world.heard(ann, "TR_ben").len() > 60 && world.heard(ben, "TR_ann").len() > 60);
}

#[test]
fn who_says_that_it_will_offer_is_not_crossed() {
    let mut world = World::new(4);
    let (ann, ben) = (join(&mut world, "ann"), join(&mut world, "ben"));
    world.settle();
    let hold = |world: &mut World, client: usize, held: bool| {
        world.tell(Input::HoldOffers { peer: world.peer(client), held });
        world.settle();
    };
    let answered = |world: &World, client: usize| {
        let last = world.clients[client].signals.iter().rev().find_map(|signal| match signal {
            Signal::OffersHeld { held } => Some(*held),
            _ => None,
        });
        last.expect("an answer")
    };
    hold(&mut world, ann, true);
    assert!(answered(&world, ann));
    world.microphone(ben, "ben");
    world.camera(ben, "cam", &[]);
    world.run(Duration::from_millis(500));
    assert_eq!(offers(&world, ann), 0, "she goes first");
    world.microphone(ann, "ann");
    hold(&mut world, ann, false);
    world.run(Duration::from_secs(1));
    assert_eq!(offers(&world, ann), 1, "both of his in one");
    assert!(world.heard(ann, "TR_ben").len() > 20 && world.heard(ben, "TR_ann").len() > 20);

    world.clients[ann].deaf = true;
    world.microphone(ben, "another");
    world.settle();
    hold(&mut world, ann, true);
    assert!(!answered(&world, ann), "an offer of ours is under way");
}

#[test]
fn messages_travel_on_the_clients_own_channel_as_they_were_sent() {
    let mut world = World::new(5);
    let (ann, ben) = (join(&mut world, "ann"), join(&mut world, "ben"));
    world.run(Duration::from_millis(500));
    let open = world.events.iter().filter(|event| matches!(event, Event::DataOpen { channel: Channel::Reliable, .. }));
    assert_eq!(open.count(), 2);
    world.send_as(ann, "calls-dc", true, &[0xcc, 1]);
    world.send_as(ann, "calls-dc", false, b"ping");
    world.run(100 * MS);
    assert_eq!(world.clients[ben].messages, [vec![0xcc, 1], b"ping".to_vec()]);
    assert_eq!(world.clients[ben].texts, [false, true]);
}

#[test]
fn it_is_told_when_a_client_has_its_messages() {
    let mut world = World::new(7);
    let ann = join(&mut world, "ann");
    let delivered = |world: &World| signals(world, ann, |signal| matches!(signal, Signal::Delivered));
    let send = |world: &mut World| {
        let (call, to) = (call(), [world.peer(ann)]);
        world.tell(Input::SendData { call, to: &to, channel: Channel::Reliable, text: false, payload: b"a map" });
        world.tell(Input::AwaitDelivery { peer: world.peer(ann) });
    };
    world.run(Duration::from_millis(500));
    world.tell(Input::AwaitDelivery { peer: world.peer(ann) });
    world.drain();
    assert_eq!(delivered(&world), 1, "nothing is on its way");

    // As long as nothing gets through, and until a repetition does.
    world.set_profile(ann, Profile { loss_down: 1000, ..Profile::default() });
    send(&mut world);
    world.run(Duration::from_millis(500));
    assert_eq!((delivered(&world), world.clients[ann].messages.len()), (1, 0));
    world.set_profile(ann, Profile::default());
    world.run(Duration::from_secs(10));
    assert_eq!((delivered(&world), &world.clients[ann].messages[..]), (2, &[b"a map".to_vec()][..]));
    world.run(Duration::from_secs(5));
    assert_eq!(delivered(&world), 2, "once");
}

/// A picture alone, paused on a line that is wide again: nothing flows but probes, and all of one is known before it is over.
#[test]
fn a_moment_in_which_a_line_is_shared_does_not_stop_a_picture() {
    let shared = link_model::named("shared-line").unwrap();
    for (early, hold) in [(1533, 1211), (985, 3699), (2766, 6498), (300, 900)] {
        let mut world = World::new(8);
        let (ann, ben) = (join(&mut world, "ann"), join(&mut world, "ben"));
        let free = link_model::Profile::default();
        world.set_link(ben, &free);
        world.settle();
        let screen = world.camera(ann, "screen", &["l", "h"]);
        // 0.3 and 2.1 Mbit/s, and 50 KB for a key frame.
        world.producers[screen].every = 55 * MS;
        world.producers[screen].frame_packets = vec![2, 14];
        world.producers[screen].key_packets = 40;
        world.run(Duration::from_millis(early));
        world.set_link(ben, &shared);
        world.run(Duration::from_millis(hold));
        world.set_link(ben, &free);
        world.run(Duration::from_secs(8));
        world.clients[ben].heard.clear();
        world.run(Duration::from_secs(2));
        let heard = world.heard(ben, "TR_screen");
        let best = heard.iter().filter(|heard| read_vp8(&heard.payload).1 == 1).count();
        assert!(best > 400, "narrow after {early} ms for {hold} ms: {best} of {} packets are the best layer's", heard.len());
    }
}

#[test]
fn loudness_is_told_to_who_asked_for_it() {
    let mut world = World::new(6);
    let (ann, ben) = (join(&mut world, "ann"), world.join("ben"));
    let (loud, _) = (world.microphone(ann, "ann"), world.microphone(ben, "ben"));
    world.producers[loud].level = -33;
    world.run(Duration::from_secs(2));
    let told: Vec<(usize, Vec<u8>)> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::AudioLevels { peer, levels } => Some((usize::from(*peer != world.peer(ann)), levels.to_vec())),
            _ => None,
        })
        .collect();
    assert!(told.len() >= 8, "{}", told.len());
    assert!(told.iter().all(|(whose, levels)| *whose == 0 && *levels == [33; 10]), "{told:?}");
}

#[test]
fn layers_of_a_screen_are_switched_without_an_offer() {
    let mut world = World::new(7);
    let (ann, ben) = (join(&mut world, "ann"), join(&mut world, "ben"));
    world.settle();
    // As Mattermost's client names them; the second one is the better.
    world.camera(ann, "screen", &["l", "h"]);
    world.run(Duration::from_secs(3));
    let top = |world: &World| read_vp8(&world.heard(ben, "TR_screen").last().expect("a picture").payload).1;
    assert_eq!(top(&world), 1, "there is room for the better one");
    let before = offers(&world, ben);
    let id = rtcd_core::ids::TrackId::new("TR_screen").unwrap();
    world.tell(Input::TrackSettings { peer: world.peer(ben), track: id, settings: lowest() });
    world.run(Duration::from_secs(2));
    assert_eq!((top(&world), offers(&world, ben)), (0, before));
    assert_eq!(holes(&world.heard(ben, "TR_screen")), 0);
}

fn lowest() -> TrackSettings {
    TrackSettings { disabled: false, layer_max: 0, width: 0, height: 0, fps: 0, priority: 0 }
}
