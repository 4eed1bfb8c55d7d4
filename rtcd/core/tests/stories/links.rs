//! Sound over the links that `integration-tests/profiles` describes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::world::{Heard, World, sounds};

/// The sounds that somebody could play: what came, and what came along with it.
fn played(heard: &[&Heard], plain: u8) -> BTreeSet<u32> {
    let sounds = heard.iter().flat_map(|heard| sounds(heard, plain));
    sounds.map(|(_, sound)| u32::from_be_bytes([sound[2], sound[3], sound[4], sound[5]])).collect()
}

/// Their share, between the first and the last.
fn playable(heard: &[&Heard], plain: u8) -> f64 {
    let counts = played(heard, plain);
    counts.len() as f64 / f64::from(counts.last().unwrap() - counts.first().unwrap() + 1)
}

#[test]
fn on_every_link_nearly_all_that_is_said_can_be_played() {
    // Below the worst of a hundred seeds each. A hand-over of lte-moving takes a twentieth, and the middle of a long burst nothing brings back;
    // of lossy-20 a fifth would be missing without redundancy.
    for (name, bar) in [("wifi", 0.97), ("lte-moving", 0.90), ("satellite", 0.96), ("lossy-20", 0.95), ("burst", 0.88)] {
        let link = link_model::named(name).unwrap();
        for seed in [151, 152, 153] {
            let mut world = World::new(seed);
            world.red = true;
            let (ann, ben) = (world.join("ann"), world.join("ben"));
            world.microphone(ann, "ann");
            world.run(Duration::from_secs(3));
            let plain = world.heard(ben, "TR_ann")[0].payload_type;
            world.set_link(ben, &link);
            // The receiver's reports have to come before anything can be done.
            world.run(Duration::from_secs(14));
            world.clients[ben].heard.clear();
            world.run(Duration::from_secs(30));
            let share = playable(&world.heard(ben, "TR_ann"), plain);
            assert!(share >= bar, "{name}, seed {seed}: {share}");
        }
    }
}

#[test]
fn sound_is_back_within_two_seconds_of_the_link_both_ways() {
    let profile = link_model::named("cut-30s").unwrap();
    for seed in [161, 162, 163] {
        let mut world = World::new(seed);
        let (ann, ben) = (world.join("ann"), world.join("ben"));
        world.microphone(ann, "ann");
        world.microphone(ben, "ben");
        world.run(Duration::from_secs(4));
        world.set_link(ben, &profile);
        let back = world.now + profile.cuts[0].end();
        world.run(profile.cuts[0].end());
        // What a client does when its network is there again: new ICE names for both of its connections.
        let peer = world.peer(ben);
        world.tell(rtcd_core::Input::RestartIce { peer });
        world.restart_publisher(ben);
        world.run(Duration::from_secs(10));
        for (who, track) in [(ben, "TR_ann"), (ann, "TR_ben")] {
            let first = world.heard(who, track).iter().map(|heard| heard.at).find(|at| *at >= back).unwrap();
            assert!(first - back <= Duration::from_secs(2), "seed {seed}, {track}: {:?}", first - back);
            // And it goes on.
            let after = world.heard(who, track).iter().filter(|heard| heard.at >= back + Duration::from_secs(2)).count();
            assert!(after > 350, "seed {seed}, {track}: {after}");
        }
    }
}
