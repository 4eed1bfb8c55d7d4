//! Nobody is recorded who did not agree.

use std::time::Duration;

use rtcd_core::{Input, TrackId};

use crate::world::{Given, World};

#[test]
fn consent_gates_the_tap() {
    let mut world = World::new(60);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.microphone(ben, "ben");
    world.open_tap("record", true);
    world.open_tap("caption", false);
    let (ann_id, ben_id) = (world.peer(ann), world.peer(ben));
    world.tell(Input::Consent { peer: ann_id.clone(), granted: true });
    world.tell(Input::Consent { peer: ben_id.clone(), granted: false });
    world.settle();
    let of = |world: &World, tap: &str, track: &str| {
        let packet = |given: &&Given| matches!(given, Given::Packet { track: of, .. } if of.as_str() == track);
        world.given[tap].iter().filter(packet).count()
    };
    assert!(of(&world, "record", "TR_ann") > 50);
    assert_eq!(of(&world, "record", "TR_ben"), 0);
    assert!(!world.given["record"].contains(&Given::Track(ben_id.clone(), TrackId::new("TR_ben").unwrap())));
    assert!(of(&world, "caption", "TR_ben") > 50);
    // Taken back: from that moment on nothing. Given later: from then on.
    world.tell(Input::Consent { peer: ann_id, granted: false });
    world.tell(Input::Consent { peer: ben_id, granted: true });
    let before = of(&world, "record", "TR_ann");
    world.run(Duration::from_secs(1));
    assert_eq!(of(&world, "record", "TR_ann"), before);
    assert!(world.given["record"].contains(&Given::Ended(TrackId::new("TR_ann").unwrap())));
    assert!(of(&world, "record", "TR_ben") > 45);
}

#[test]
fn late_joiner_is_not_recorded_before_the_answer() {
    let mut world = World::new(61);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.open_tap("record", true);
    world.settle();
    let ben = world.join("ben");
    world.microphone(ben, "ben");
    world.settle();
    assert!(
        !world.given.get("record").is_some_and(|given| given.iter().any(|given| matches!(given, Given::Packet { .. } | Given::Track(..))))
    );
}
