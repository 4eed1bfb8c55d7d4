//! A camera in two codecs: who cannot decode the one gets the other, as the same track.

use std::time::Duration;

use rtcd_core::input::TrackSettings;
use rtcd_core::output::{Event, Signal};
use rtcd_core::verdict::Verdict;
use rtcd_core::{Input, TrackId};
use str0m::format::Codec;

use crate::shards::join_on;
use crate::world::layered::{Decoded, Encoder, Mode, tag};
use crate::world::{World, announced, holes, read_vp8};

const SECOND: Duration = Duration::from_secs(1);
const WHOLE: TrackSettings = TrackSettings { disabled: false, layer_max: 2, width: 0, height: 0, fps: 0, priority: 0 };

fn track(name: &str) -> TrackId {
    TrackId::new(name).unwrap()
}

struct People {
    world: World,
    ann: usize,
    /// Decodes everything.
    ben: usize,
    /// VP8 alone.
    eve: usize,
    /// Ann's camera in VP8.
    spare: usize,
}

impl People {
    /// Ann's camera sends AV1; then VP8 too, because Eve says that she cannot decode the other.
    fn meet(mut world: World, viewers_on: u8) -> Self {
        world.descriptors = true;
        let (ann, ben) = (join_on(&mut world, "ann", 0), join_on(&mut world, "ben", viewers_on));
        world.vp8_alone = true;
        let eve = join_on(&mut world, "eve", viewers_on);
        let camera = world.camera(ann, "cam", &[]);
        world.producers[camera].encoder = Some(Encoder::new(Mode::L3T3Key, Codec::Av1, true));
        world.run(3 * SECOND);
        let mut people = Self { world, ann, ben, eve, spare: 0 };
        assert_eq!(people.frames(eve), 0);
        assert_eq!(people.undecodable(eve), [track("TR_cam")], "said once");
        assert_eq!(people.undecodable(ben), []);

        people.world.backup_of = Some(track("TR_cam"));
        people.spare = people.world.camera(ann, "spare", &["q", "h"]);
        people.world.backup_of = None;
        people.world.run(2 * SECOND);
        assert_eq!(people.frames(eve), 0, "nobody has it who did not ask");
        let offers = people.offers(eve);
        people.subscribe(eve, "TR_spare", true);
        people.world.run(3 * SECOND);
        assert_eq!(people.offers(eve), offers, "it comes on the section that the first has");
        people
    }

    fn subscribe(&mut self, who: usize, name: &str, wanted: bool) {
        let peer = self.world.peer(who);
        self.world.tell(Input::Subscribe { peer, track: track(name), wanted });
    }

    fn wish(&mut self, settings: TrackSettings) {
        let peer = self.world.peer(self.eve);
        self.world.tell(Input::TrackSettings { peer, track: track("TR_cam"), settings });
    }

    /// Packets of the camera that came, whatever their codec.
    fn frames(&self, who: usize) -> usize {
        self.world.heard(who, "TR_cam").len()
    }

    fn new_frames(&mut self, who: usize) -> usize {
        let before = self.frames(who);
        self.world.run(2 * SECOND);
        self.frames(who) - before
    }

    fn undecodable(&self, who: usize) -> Vec<TrackId> {
        let signals = self.world.clients[who].signals.iter();
        signals.filter_map(|signal| if let Signal::Undecodable { track } = signal { Some(track.clone()) } else { None }).collect()
    }

    fn offers(&self, who: usize) -> usize {
        self.world.clients[who].signals.iter().filter(|signal| matches!(signal, Signal::Offer { .. })).count()
    }

    /// Ben's picture is whole all the time.
    fn assert_undisturbed(&self) {
        let heard = self.world.heard(self.ben, "TR_cam");
        assert_eq!(holes(&heard), 0);
        let encoder = self.world.producers[0].encoder.as_ref().unwrap();
        let decoded = Decoded::of(encoder, heard.iter().map(|heard| tag(&heard.payload)));
        assert!(decoded.broken.is_empty() && decoded.pictures.len() > 100);
    }
}

/// The layer of a packet of `spare` is in its payload.
fn layers_of_the_last_second(people: &mut People) -> Vec<u8> {
    people.world.run(3 * SECOND);
    let from = people.world.now - SECOND;
    let heard = people.world.heard(people.eve, "TR_cam");
    let mut layers: Vec<u8> = heard.iter().filter(|heard| heard.at > from).map(|heard| read_vp8(&heard.payload).1).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

#[test]
fn who_cannot_decode_the_first_codec_gets_the_second_under_the_same_name() {
    for world in [World::new(131), World::with_shards(132, 2)] {
        let viewers_on = u8::from(world.shards.is_some());
        let mut people = People::meet(world, viewers_on);
        let (ann, ben, eve, spare) = (people.ann, people.ben, people.eve, people.spare);
        assert!(people.new_frames(eve) > 50);
        assert!(people.world.heard(eve, "TR_spare").is_empty(), "it goes by the name of the first");
        assert_eq!(holes(&people.world.heard(eve, "TR_cam")), 0);
        people.assert_undisturbed();

        // What is said of the first holds for the second.
        assert_eq!(layers_of_the_last_second(&mut people), [1]);
        people.wish(TrackSettings { layer_max: 0, ..WHOLE });
        assert_eq!(layers_of_the_last_second(&mut people), [0]);
        people.wish(TrackSettings { disabled: true, ..WHOLE });
        people.world.run(SECOND);
        assert_eq!(people.new_frames(eve), 0);
        people.wish(WHOLE);
        assert!(people.new_frames(eve) > 0);

        let peer = people.world.peer(ann);
        for muted in [true, false] {
            people.world.tell(Input::Mute { peer: peer.clone(), track: track("TR_cam"), muted });
            people.world.run(SECOND);
            let (eves, bens) = (people.new_frames(eve), people.new_frames(ben));
            assert!((eves == 0) == muted && (bens == 0) == muted, "{muted} {eves} {bens}");
        }

        people.subscribe(eve, "TR_cam", false);
        people.world.run(SECOND);
        assert_eq!(people.new_frames(eve), 0);
        // Wanted again, it is the first that comes, and of no use again.
        people.subscribe(eve, "TR_cam", true);
        people.world.run(SECOND);
        assert_eq!(people.new_frames(eve), 0);
        assert_eq!(people.undecodable(eve).len(), 2);
        people.subscribe(eve, "TR_spare", true);
        people.world.run(SECOND);
        assert!(people.new_frames(eve) > 50);

        people.world.producers[spare].running = false;
        people.world.tell(Input::Unpublish { peer, track: track("TR_cam") });
        people.world.run(SECOND);
        let ended: Vec<_> = people
            .world
            .events
            .iter()
            .filter_map(|event| if let Event::TrackEnded { track, .. } = event { Some(track.as_str()) } else { None })
            .collect();
        assert!(ended.contains(&"TR_cam") && ended.contains(&"TR_spare"), "{ended:?}");
        assert_eq!((people.new_frames(eve), people.new_frames(ben)), (0, 0));
    }
}

#[test]
fn the_wish_of_before_holds_for_what_comes_instead() {
    let mut people = People::meet(World::new(133), 0);
    let eve = people.eve;
    people.subscribe(eve, "TR_cam", false);
    people.subscribe(eve, "TR_cam", true);
    people.wish(TrackSettings { layer_max: 0, ..WHOLE });
    people.subscribe(eve, "TR_spare", true);
    assert_eq!(layers_of_the_last_second(&mut people), [0]);
}

#[test]
fn operators_are_told_that_there_is_no_codec_in_common() {
    let mut world = World::new(134);
    world.descriptors = true;
    let ann = world.join("ann");
    world.vp8_alone = true;
    let eve = world.join("eve");
    let camera = world.camera(ann, "cam", &[]);
    world.producers[camera].encoder = Some(Encoder::new(Mode::L3T3Key, Codec::Av1, true));
    world.run(3 * SECOND);
    let diagnosis = world.diagnose(eve);
    assert_eq!(diagnosis.watched[0].verdict, Verdict::NoCommonCodec);
}

#[test]
fn a_backup_is_of_a_track_of_ones_own_and_there_is_one() {
    let mut people = People::meet(World::new(135), 0);
    let refused = people.world.counter("unknown_name");
    for (who, of) in [(people.ben, "TR_cam"), (people.ann, "TR_cam"), (people.ann, "TR_spare"), (people.ann, "TR_nothing")] {
        let mut publish = announced(people.world.peer(who), "TR_more", "more");
        publish.backup_of = Some(track(of));
        people.world.tell(Input::Publish(Box::new(publish)));
    }
    assert_eq!(people.world.counter("unknown_name"), refused + 4);
}

#[test]
fn a_publisher_that_changes_its_codec_with_every_picture_is_told_of_once() {
    let mut world = World::new(136);
    world.descriptors = true;
    let ann = world.join("ann");
    world.vp8_alone = true;
    let eve = world.join("eve");
    let camera = world.camera(ann, "cam", &[]);
    world.run(3 * SECOND);
    let told = |world: &World, is: fn(&Signal) -> bool| world.clients[eve].signals.iter().filter(|signal| is(signal)).count();
    let subscribed = |world: &World| told(world, |signal| matches!(signal, Signal::Subscribed { .. }));
    assert_eq!(subscribed(&world), 1);
    let mut other = Some(Encoder::new(Mode::L3T3Key, Codec::Av1, true));
    for _ in 0..1000 {
        std::mem::swap(&mut world.producers[camera].encoder, &mut other);
        world.run(world.producers[camera].every);
    }
    assert!(subscribed(&world) <= 2, "{}", subscribed(&world));
    assert_eq!(told(&world, |signal| matches!(signal, Signal::Undecodable { .. })), 1);
}
