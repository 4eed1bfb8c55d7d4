//! Data messages.

use std::time::Duration;

use rtcd_core::Input;
use rtcd_core::ids::Channel;
use rtcd_core::input::Transports;
use rtcd_core::output::Event;

use crate::world::{End, World, call};

#[test]
fn data_channels_reliable_and_lossy() {
    let mut world = World::new(40);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.open_channels(ann);
    world.settle();
    assert!(world.clients[ben].connections[&End::Subscribe].channels.contains_key("_reliable"));
    assert!(world.clients[ben].connections[&End::Subscribe].channels.contains_key("_lossy"));
    let opened = |who: usize, channel: Channel| {
        let id = world.peer(who);
        world.events.iter().filter(|event| **event == Event::DataOpen { peer: id.clone(), channel }).count()
    };
    for channel in [Channel::Reliable, Channel::Lossy, Channel::DataTrack] {
        assert!(opened(ann, channel) >= 1 && opened(ben, channel) >= 1, "told when they open");
    }
    world.send_message(ann, "_reliable", b"hello");
    world.send_message(ann, "_lossy", &[7; 1000]);
    world.send_message(ann, "_reliable", &[9; 15_000]);
    world.run(Duration::from_secs(1));
    let mut got = world.clients[ben].messages.clone();
    got.sort();
    assert_eq!(got, vec![vec![7; 1000], vec![9; 15_000], b"hello".to_vec()]);
    assert!(world.clients[ann].messages.is_empty());
}

#[test]
fn single_connection_clients_listen_on_their_own_channels() {
    let mut world = World::new(41);
    let ann = world.join_with("ann", |join| join.transports = Transports::Single);
    world.open_channels(ann);
    world.settle();
    world.tell(Input::SendData { call: call(), to: &[], channel: Channel::Reliable, text: false, payload: b"from the server" });
    world.run(Duration::from_secs(1));
    assert_eq!(world.clients[ann].messages, vec![b"from the server".to_vec()]);
}

#[test]
fn messages_without_the_right_are_dropped() {
    let mut world = World::new(42);
    let ann = world.join_with("ann", |join| join.can_publish_data = false);
    let ben = world.join("ben");
    world.open_channels(ann);
    world.settle();
    world.send_message(ann, "_reliable", b"psst");
    world.run(Duration::from_secs(1));
    assert!(world.clients[ben].messages.is_empty());
    assert_eq!(world.counter("data_messages_dropped"), 1);
}

#[test]
fn a_flood_of_messages_is_rationed() {
    let mut world = World::new(43);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.open_channels(ann);
    world.settle();
    for _ in 0..20 {
        for _ in 0..100 {
            world.send_message(ann, "_reliable", &[1; 20]);
        }
        world.run(Duration::from_millis(20));
    }
    world.run(Duration::from_secs(2));
    assert!(world.clients[ben].messages.len() <= 1500, "{}", world.clients[ben].messages.len());
    assert!(world.counter("data_messages_dropped") > 0);
}

/// Attack class S-04: 10 000 messages in a second through the server.
#[test]
fn a_flood_of_messages_is_rationed_and_others_do_not_notice() {
    let mut world = World::new(44);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.open_channels(ann);
    world.microphone(ben, "ben");
    world.settle();
    world.clients[ann].heard.clear();
    let mut sent = 0;
    for n in 0..1000u32 {
        for _ in 0..10 {
            sent += u32::from(world.try_message(ann, "_lossy", &n.to_be_bytes()));
        }
        world.run(Duration::from_millis(1));
    }
    world.run(Duration::from_secs(3));
    assert!(sent > 2000, "{sent}");
    let got = world.clients[ben].messages.len();
    // 500 a second and peer (`DATA_MESSAGES_PER_S_MAX`), over the four seconds that the flood took.
    assert!((400..=2500).contains(&got), "{got}");
    assert!(world.counter("data_messages_dropped") > 0);
    let heard = world.heard(ann, "TR_ben");
    assert!(heard.len() >= 195, "{}", heard.len());
    assert_eq!(crate::world::holes(&heard), 0);
}
