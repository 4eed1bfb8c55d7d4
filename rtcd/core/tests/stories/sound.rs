//! Of many open microphones those are heard who have something to say.

use std::time::Duration;

use rtcd_core::ids::{Kind, Source};
use rtcd_core::input::Transports;
use rtcd_core::output::Event;
use rtcd_core::rtp::PlayoutDelay;
use rtcd_core::{Core, CoreConfig};

use crate::world::{Given, Heard, MS, Profile, World, config, count, holes, sounds};

/// A call that forwards two microphones at once.
fn two_of_many(seed: u8) -> World {
    let mut world = World::new(seed);
    world.core = Core::new(CoreConfig { audio_top_n: 2, ..config(seed) });
    world
}

/// Numbers follow each other, and times are those of the packets, whatever was kept back in between.
fn is_one_stream(heard: &[&Heard]) -> bool {
    holes(heard) == 0
        && heard.windows(2).all(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp) == (count(pair[1]) - count(pair[0])) * 960)
}

#[test]
fn only_the_loudest_are_heard_and_nobody_misses_a_number() {
    for seed in [120, 121] {
        let mut world = two_of_many(seed);
        let listener = world.join("listener");
        let names = ["ann", "ben", "cem", "dan"];
        let microphones: Vec<usize> = names
            .iter()
            .map(|name| {
                let client = world.join(name);
                world.microphone(client, name)
            })
            .collect();
        for (microphone, level) in microphones.iter().zip([-45, -15, -25, -38]) {
            world.producers[*microphone].level = level;
        }
        let heard = |world: &World, name: &str| world.heard(listener, &format!("TR_{name}")).len();
        world.run(Duration::from_secs(4));
        let before = names.map(|name| heard(&world, name));
        world.run(Duration::from_secs(2));
        let after = names.map(|name| heard(&world, name));
        let gained: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert!((99..=101).contains(&gained[1]) && (99..=101).contains(&gained[2]), "{gained:?}");
        assert_eq!((gained[0], gained[3]), (0, 0), "{gained:?}");
        assert!(world.events.iter().any(|event| matches!(event, Event::Speakers(list) if list[0].0 == world.peer(2))));

        // The loudest breathes for a second: he stays. Then another takes over for good, in the middle of his sentence.
        world.producers[microphones[1]].level = -70;
        world.run(Duration::from_secs(1));
        world.producers[microphones[1]].level = -15;
        world.producers[microphones[0]].level = -10;
        world.run(Duration::from_secs(3));
        assert_eq!(holes(&world.heard(listener, "TR_ben")), 0);
        let ben = world.heard(listener, "TR_ben");
        assert!(ben.windows(2).all(|pair| count(pair[1]) == count(pair[0]) + 1), "the active speaker was cut");
        for name in names {
            assert!(is_one_stream(&world.heard(listener, &format!("TR_{name}"))), "{name}");
        }
        let ann = world.heard(listener, "TR_ann");
        assert!(ann.windows(2).any(|pair| count(pair[1]) > count(pair[0]) + 50), "she was never kept back");
        assert!(ann.last().is_some_and(|last| last.audio_level == Some(-10)), "she was not let in");
        let softer = world.counter("packets_not_among_loudest");
        assert!(softer > 300, "{softer}");
    }
}

#[test]
fn the_talk_goes_round_and_every_first_word_is_heard() {
    let mut world = two_of_many(122);
    let listener = world.join("listener");
    let names = ["ann", "ben", "cem", "dan", "eva"];
    let mut microphones = Vec::new();
    for name in names {
        let client = world.join(name);
        microphones.push(world.microphone(client, name));
    }
    for microphone in &microphones {
        (world.producers[*microphone].level, world.producers[*microphone].voice) = (-75, false);
    }
    world.run(Duration::from_secs(4));
    for round in 0..10 {
        let (name, microphone) = (names[round % 5], microphones[round % 5]);
        let track = format!("TR_{name}");
        world.clients[listener].heard.clear();
        world.producers[microphone].level = -25;
        world.run(Duration::from_secs(2));
        let first = world.heard(listener, &track).into_iter().find(|heard| heard.audio_level == Some(-25)).cloned().unwrap();
        let talk = world.heard(listener, &track).iter().filter(|heard| heard.audio_level == Some(-25)).count();
        assert!((98..=100).contains(&talk), "{name} {talk}");
        assert!(world.heard(listener, &track).windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "{name} from {}", first.seq);
        world.producers[microphone].level = -75;
    }
}

#[test]
fn a_talker_is_not_chopped_between_words_on_a_bad_line() {
    let mut world = two_of_many(123);
    let (listener, ann) = (world.join("listener"), world.join("ann"));
    let words = world.microphone(ann, "ann");
    for name in ["ben", "cem", "dan"] {
        let client = world.join(name);
        let microphone = world.microphone(client, name);
        world.producers[microphone].level = -22;
    }
    world.run(Duration::from_secs(4));
    world.set_profile(ann, Profile { delay: 40 * MS, jitter: 30 * MS, loss_up: 30, ..Profile::default() });
    world.clients[listener].heard.clear();
    // Words of 300 ms with pauses of 400 ms, as loud as the others.
    for _ in 0..20 {
        world.producers[words].level = -20;
        world.run(300 * MS);
        world.producers[words].level = -60;
        world.run(400 * MS);
    }
    let heard = world.heard(listener, "TR_ann");
    let said = 20 * 35;
    assert!(heard.len() as f32 > said as f32 * 0.93, "{} of {said}", heard.len());
    // What is missing was lost on her way; nothing was hidden and nothing invented.
    let mut counts: Vec<u32> = heard.iter().map(|heard| count(heard)).collect();
    counts.sort_unstable();
    let lost = u64::from(counts[counts.len() - 1] - counts[0] + 1) - counts.len() as u64;
    assert_eq!(holes(&heard), lost);
}

#[test]
fn shared_sound_and_microphones_that_tell_no_level_are_never_cut() {
    let mut world = two_of_many(124);
    let listener = world.join("listener");
    for name in ["ann", "ben"] {
        let client = world.join(name);
        world.microphone(client, name);
    }
    let cem = world.join("cem");
    let screen = world.publish(cem, "screen", Kind::Audio, Source::ScreenShareAudio, &[], false);
    world.producers[screen].level = -80;
    let dan = world.join("dan");
    let old = world.microphone(dan, "old");
    world.producers[old].tells_level = false;
    let eva = world.join("eva");
    let soft = world.microphone(eva, "soft");
    world.producers[soft].level = -48;
    world.open_tap("job", false);
    world.run(Duration::from_secs(4));
    let heard = |world: &World| ["TR_ann", "TR_ben", "TR_screen", "TR_old", "TR_soft"].map(|track| world.heard(listener, track).len());
    let before = heard(&world);
    world.run(Duration::from_secs(2));
    let gained: Vec<usize> = heard(&world).iter().zip(before).map(|(after, before)| after - before).collect();
    assert!(gained[..4].iter().all(|gained| (99..=101).contains(gained)), "{gained:?}");
    assert_eq!(gained[4], 0);
    // The shared sound took nobody's place, and the recorder has her too, every packet.
    let taped: Vec<u64> = world.given["job"]
        .iter()
        .filter_map(|given| match given {
            Given::Packet { track, seq, .. } if track.as_str() == "TR_soft" => Some(*seq),
            _ => None,
        })
        .collect();
    assert!(taped.len() > 200 && taped.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}", taped.len());
    assert!(!world.given["job"].iter().any(|given| matches!(given, Given::Gap { .. })));
}

#[test]
fn zero_places_means_everybody_is_heard() {
    let mut world = World::new(125);
    world.core = Core::new(CoreConfig { audio_top_n: 0, ..config(125) });
    let listener = world.join("listener");
    let names: Vec<String> = (0..7).map(|n| format!("p{n}")).collect();
    for name in &names {
        let client = world.join(name);
        world.microphone(client, name);
    }
    world.run(Duration::from_secs(5));
    world.clients[listener].heard.clear();
    world.run(Duration::from_secs(1));
    for name in &names {
        assert!(world.heard(listener, &format!("TR_{name}")).len() >= 49, "{name}");
    }
}

#[test]
fn silence_is_not_forwarded_and_the_first_word_is() {
    for (seed, payload_len, profile) in [
        (126, 0, Profile::default()),
        (127, 2, Profile::default()),
        (128, 0, Profile { delay: 60 * MS, jitter: 15 * MS, ..Profile::default() }),
    ] {
        let mut world = World::new(seed);
        let (ann, ben) = (world.join("ann"), world.join("ben"));
        let microphone = world.microphone(ann, "ann");
        world.open_tap("job", false);
        world.settle();
        world.set_profile(ann, profile);
        world.run(Duration::from_secs(1));
        let silence = if payload_len == 0 { (-100, false) } else { (-70, true) };
        for talk_level in [-30, -31, -32] {
            (world.producers[microphone].level, world.producers[microphone].voice) = silence;
            world.producers[microphone].payload_len = payload_len;
            world.clients[ben].heard.clear();
            world.run(Duration::from_secs(5));
            // The end of the talk and the hang-over, then one a second.
            let silent = world.heard(ben, "TR_ann").iter().filter(|heard| heard.audio_level == Some(silence.0)).count();
            assert!((12..=17).contains(&silent), "{silent}");
            (world.producers[microphone].level, world.producers[microphone].voice) = (talk_level, true);
            world.producers[microphone].payload_len = 0;
            world.run(Duration::from_secs(2));
            let heard = world.heard(ben, "TR_ann");
            let talk: Vec<u32> = heard.iter().filter(|heard| heard.audio_level == Some(talk_level)).map(|heard| count(heard)).collect();
            let (least, most) = (talk.iter().min().unwrap(), talk.iter().max().unwrap());
            assert_eq!((most - least + 1) as usize, talk.len());
            assert!(talk.len() >= 94, "{}", talk.len());
            assert_eq!(holes(&heard), 0);
        }
        // 5 s of 50 packets, three times.
        assert!(world.counter("packets_silent") > 3 * 220);
        let taped = world.given["job"].iter().filter(|given| matches!(given, Given::Packet { .. })).count();
        assert!(taped > 1000, "the tap has the silence too: {taped}");
        assert!(!world.given["job"].iter().any(|given| matches!(given, Given::Gap { .. })));
    }
}

#[test]
fn silence_that_nobody_tells_of_is_forwarded() {
    let mut world = World::new(129);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let microphone = world.microphone(ann, "ann");
    world.settle();
    (world.producers[microphone].tells_level, world.producers[microphone].payload_len) = (false, 1);
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(2));
    assert!(world.heard(ben, "TR_ann").len() >= 99);
    assert_eq!(world.counter("packets_silent"), 0);
}

#[test]
fn who_joins_a_silence_gets_the_stream_all_the_same() {
    let mut world = World::new(130);
    let ann = world.join("ann");
    let microphone = world.microphone(ann, "ann");
    world.settle();
    (world.producers[microphone].level, world.producers[microphone].voice) = (-127, false);
    world.run(Duration::from_secs(3));
    let ben = world.join("ben");
    world.run(Duration::from_secs(4));
    assert!((1..=4).contains(&world.heard(ben, "TR_ann").len()), "{}", world.heard(ben, "TR_ann").len());
    (world.producers[microphone].level, world.producers[microphone].voice) = (-20, true);
    world.run(Duration::from_secs(1));
    assert!(is_one_stream(&world.heard(ben, "TR_ann")));
    assert!(world.heard(ben, "TR_ann").len() >= 49);
}

/// Which of the publisher's packets somebody can play, from what came and what came along with it.
fn playable(heard: &[&Heard], plain: u8) -> std::collections::BTreeSet<u32> {
    let mut counts = std::collections::BTreeSet::new();
    for heard in heard {
        for (offset, sound) in sounds(heard, plain) {
            let made = u32::from_be_bytes([sound[2], sound[3], sound[4], sound[5]]);
            // It says when it was: the time it would have had by itself.
            assert_eq!((heard.timestamp.wrapping_sub(offset).wrapping_sub(960 * made)), playable_origin(heard, plain));
            counts.insert(made);
        }
    }
    counts
}

/// The time of the publisher's first packet, as this receiver counts.
fn playable_origin(heard: &Heard, plain: u8) -> u32 {
    let (_, primary) = sounds(heard, plain).pop().unwrap();
    heard.timestamp.wrapping_sub(960 * u32::from_be_bytes([primary[2], primary[3], primary[4], primary[5]]))
}

#[test]
fn who_loses_packets_gets_each_sound_twice_and_nobody_else_does() {
    for seed in [131, 132] {
        let mut world = World::new(seed);
        let ann = world.join("ann");
        let old = world.join("old");
        world.red = true;
        let (good, bad) = (world.join("good"), world.join("bad"));
        let one = world.join_with("one", |join| join.transports = Transports::Single);
        world.microphone(ann, "ann");
        // It sends as well: its reports then come in sender reports.
        world.microphone(one, "one");
        world.run(Duration::from_secs(6));
        let plain = world.heard(good, "TR_ann")[0].payload_type;
        let plain_of_bad = world.heard(bad, "TR_ann")[0].payload_type;
        let lossy = Profile { loss_down: 150, ..Profile::default() };
        world.set_profile(old, lossy);
        world.set_profile(bad, lossy);
        world.set_profile(one, lossy);
        let plain_of_one = world.heard(one, "TR_ann")[0].payload_type;
        world.run(Duration::from_secs(20));
        for client in [old, good, bad, one] {
            world.clients[client].heard.clear();
        }
        world.run(Duration::from_secs(20));
        // Who did not negotiate it, and who loses nothing, gets plain Opus.
        assert!(world.heard(good, "TR_ann").iter().all(|heard| heard.payload_type == plain));
        let opus = world.heard(old, "TR_ann")[0].payload_type;
        assert!(world.heard(old, "TR_ann").iter().all(|heard| heard.payload_type == opus && heard.payload.len() <= 86));
        let share = |client: usize, plain: u8| {
            let counts = playable(&world.heard(client, "TR_ann"), plain);
            counts.len() as f64 / f64::from(counts.last().unwrap() - counts.first().unwrap() + 1)
        };
        let (without, with) = (share(old, opus), share(bad, plain_of_bad));
        assert!((0.80..0.90).contains(&without), "{without}");
        assert!(with > 0.965, "{with} against {without}");
        let with_one_connection = share(one, plain_of_one);
        assert!(with_one_connection > 0.965, "{with_one_connection} against {without}");
        assert!(world.counter("packets_with_redundancy") > 900);
        // The way gets better: after a while everything is plain again.
        world.set_profile(bad, Profile::default());
        world.run(Duration::from_secs(40));
        world.clients[bad].heard.clear();
        world.run(Duration::from_secs(2));
        assert!(world.heard(bad, "TR_ann").iter().all(|heard| heard.payload_type == plain_of_bad));
        assert_eq!(holes(&world.heard(bad, "TR_ann")), 0);
    }
}

#[test]
fn redundancy_never_brings_back_what_was_muted_or_kept_back() {
    let mut world = World::new(133);
    let ann = world.join("ann");
    world.red = true;
    let ben = world.join("ben");
    let microphone = world.microphone(ann, "ann");
    world.run(Duration::from_secs(3));
    let plain = world.heard(ben, "TR_ann")[0].payload_type;
    world.set_profile(ben, Profile { loss_down: 250, ..Profile::default() });
    world.run(Duration::from_secs(20));
    let (peer, track) = (world.peer(ann), rtcd_core::TrackId::new("TR_ann").unwrap());
    let mut silences = Vec::new();
    for _ in 0..5 {
        world.tell(rtcd_core::Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
        world.run(100 * MS);
        world.clients[ben].heard.clear();
        world.run(Duration::from_secs(1));
        assert!(world.heard(ben, "TR_ann").is_empty());
        world.tell(rtcd_core::Input::Mute { peer: peer.clone(), track: track.clone(), muted: false });
        world.run(Duration::from_secs(2));
        let heard = world.heard(ben, "TR_ann");
        let counts = playable(&heard, plain);
        silences.push(counts.len());
        // A second of 50 packets was muted: nothing of it came along with the first words after it.
        assert!(counts.len() <= 101, "{}", counts.len());
        assert!(heard.iter().any(|heard| heard.payload_type != plain));
        (world.producers[microphone].level, world.producers[microphone].voice) = (-127, false);
        world.run(Duration::from_secs(1));
        (world.producers[microphone].level, world.producers[microphone].voice) = (-20, true);
        world.run(Duration::from_secs(1));
    }
    assert_eq!(silences.len(), 5);
}

#[test]
fn playout_delay_is_passed_to_who_negotiated_it() {
    let mut world = World::new(134);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let camera = world.camera(ann, "cam", &["q"]);
    let bounds = (200 * MS, 500 * MS);
    world.producers[camera].playout_delay = Some(bounds);
    world.run(Duration::from_secs(4));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 20 && heard.iter().all(|heard| heard.playout_delay == Some(bounds)), "{:?}", heard.last());
}

#[test]
fn playout_delay_of_a_call_replaces_that_of_publishers() {
    for transports in [Transports::Two, Transports::Single] {
        let mut world = World::new(135);
        let ann = world.join("ann");
        let bounds = PlayoutDelay::from_millis(100, 400);
        let ben = world.join_with("ben", |join| {
            join.playout_delay = Some(bounds);
            join.transports = transports;
        });
        let camera = world.camera(ann, "cam", &["q"]);
        world.producers[camera].playout_delay = Some((200 * MS, 500 * MS));
        world.microphone(ann, "ann");
        world.microphone(ben, "ben");
        world.run(Duration::from_secs(4));
        let (seen, heard) = (world.heard(ben, "TR_cam"), world.heard(ben, "TR_ann"));
        assert!(
            seen.len() > 20 && seen.iter().all(|seen| seen.playout_delay == Some((100 * MS, 400 * MS))),
            "{transports:?} {:?}",
            seen.last()
        );
        assert!(heard.len() > 20 && heard.iter().all(|heard| heard.playout_delay.is_none()), "{:?}", heard.last());
    }
}

#[test]
fn what_a_publisher_loses_on_its_way_up_is_taken_from_its_redundancy() {
    for (seed, single) in [(141, false), (142, true)] {
        let mut world = World::new(seed);
        let ben = world.join("ben");
        world.red = true;
        let ann = world.join_with("ann", |join| join.transports = if single { Transports::Single } else { Transports::Two });
        let microphone = world.microphone(ann, "ann");
        world.run(Duration::from_secs(3));
        world.producers[microphone].redundancy = 2;
        world.set_profile(ann, Profile { loss_up: 150, jitter: 30 * MS, ..Profile::default() });
        world.run(Duration::from_secs(1));
        world.clients[ben].heard.clear();
        world.run(Duration::from_secs(20));
        assert!(world.counter("packets_recovered") > 100);
        let heard = world.heard(ben, "TR_ann");
        // Who listens gets plain Opus, each sound once and under its own time, and next to nothing is missing.
        let counts: std::collections::BTreeSet<u32> = heard.iter().map(|heard| count(heard)).collect();
        assert_eq!(counts.len(), heard.len());
        assert!(heard.iter().all(|heard| heard.payload.len() <= 86));
        let origin = |heard: &Heard| heard.timestamp.wrapping_sub(960 * count(heard));
        assert!(heard.iter().all(|one| origin(one) == origin(heard[0])));
        let share = counts.len() as f64 / f64::from(counts.last().unwrap() - counts.first().unwrap() + 1);
        assert!(share > 0.985, "{share}");
        // Numbers stay in step with times: whoever counts holes counts what is really missing.
        let offset = |heard: &Heard| heard.seq as i64 - i64::from(count(heard));
        assert!(heard.iter().all(|one| offset(one) == offset(heard[0])));
    }
}

#[test]
fn sounds_that_come_together_leave_as_one_train_and_arrive_as_they_were() {
    let messages = [true, false].map(|trains| {
        let mut world = World::new(126);
        world.core = Core::new(CoreConfig { trains, ..config(126) });
        let listener = world.join("listener");
        let lengths = [("ann", 90), ("ben", 120), ("cem", 20)];
        let mut microphones = Vec::new();
        for (name, len) in lengths {
            let client = world.join(name);
            let microphone = world.microphone(client, name);
            world.producers[microphone].payload_len = len;
            microphones.push(microphone);
        }
        world.settle();
        // In step from now on.
        let at = world.now + 20 * MS;
        for microphone in &microphones {
            world.producers[*microphone].next = at;
        }
        world.clients[listener].heard.clear();
        let before = world.messages;
        world.run(Duration::from_secs(2));
        let made = world.messages - before;
        for (name, len) in lengths {
            let heard = world.heard(listener, &format!("TR_{name}"));
            assert!(heard.len() >= 99 && is_one_stream(&heard), "{name} {}", heard.len());
            assert!(heard.iter().all(|heard| heard.payload.len() == len), "{name}");
        }
        made
    });
    // Two of the three are near enough to each other, and go to two people; a shorter one may end a train as it is.
    assert!(messages[0] + 2 * 99 <= messages[1], "{messages:?}");
}
