//! Networks change and fail.

use std::collections::BTreeSet;
use std::time::Duration;

use rtcd_core::Input;
use rtcd_core::ids::{Kind, Source};
use rtcd_core::output::{EndReason, Event, Signal, Step};

use crate::world::{Dice, End, MS, Profile, World, holes};

#[test]
fn address_change_needs_a_valid_check() {
    let mut world = World::new(70);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    // Ben's NAT gives him another port. Until a check came from there nothing goes there.
    world.move_address(ben, End::Subscribe, 33_333);
    let new = world.clients[ben].connections[&End::Subscribe].address;
    assert!(!world.sent_to.contains(&new));
    world.run(Duration::from_secs(12));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(1));
    assert!(world.sent_to.contains(&new));
    assert!(world.heard(ben, "TR_ann").len() > 45, "{}", world.heard(ben, "TR_ann").len());
}

/// Ann shares a page that moves ten times a second, and Ben sees it over a link of 64 kbit/s: slides. Answers what Ben sees of it in the
/// five seconds after `change`.
fn pictures_after(change: impl FnOnce(&mut World, usize)) -> usize {
    let mut world = World::new(68);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let share = world.publish(ann, "share", Kind::Video, Source::ScreenShare, &[], false);
    world.producers[share].every = 100 * MS;
    world.producers[share].key_packets = 30;
    world.run(Duration::from_secs(3));
    world.set_link(ben, &link_model::named("ddil-64k").unwrap());
    world.run(Duration::from_secs(20));
    change(&mut world, ben);
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(5));
    let shown: BTreeSet<u32> = world.heard(ben, "TR_share").iter().map(|heard| heard.timestamp).collect();
    shown.len()
}

/// The client is on another network, which is wide.
fn move_away(world: &mut World, client: usize) {
    world.clear_link(client);
    world.move_address(client, End::Subscribe, 33_332);
    // Its next checks come from there.
    world.run(Duration::from_secs(12));
}

#[test]
fn who_comes_to_a_wider_way_is_not_judged_by_the_old_one() {
    let stayed = pictures_after(|_, _| ());
    let moved = pictures_after(move_away);
    assert!(moved >= 45, "{moved} of 50 after it moved, {stayed} of 50 where it stayed");
    // Gone so long that nothing may be sent any more, and back from elsewhere.
    let back = pictures_after(|world, ben| {
        world.set_profile(ben, Profile { loss_up: 1000, ..Profile::default() });
        world.clear_link(ben);
        world.run(Duration::from_secs(32));
        assert!(world.events.iter().any(|event| matches!(event, Event::Step { step: Step::Lost, .. })));
        world.set_profile(ben, Profile::default());
        // As clients do then.
        let peer = world.peer(ben);
        world.tell(Input::RestartIce { peer });
        move_away(world, ben);
    });
    assert!(back >= 45, "{back} of 50 after it was gone");
    assert!(stayed < 25, "{stayed}");
}

#[test]
fn what_a_receiver_reports_of_its_way_is_in_the_figures() {
    let mut world = World::new(69);
    let (ann, ben, cat) = (world.join("ann"), world.join("ben"), world.join("cat"));
    world.microphone(ann, "ann");
    world.set_profile(cat, Profile { jitter: 40 * MS, ..Profile::default() });
    world.run(Duration::from_secs(20));
    let report = world.ask_report();
    let of = |who: usize| report.calls[0].peers.iter().find(|peer| peer.peer == world.peer(who)).unwrap();
    let (calm, rough) = (of(ben).jitter_out.unwrap(), of(cat).jitter_out.unwrap());
    assert!(calm < 2 * MS, "{calm:?}");
    assert!(rough > 5 * MS && rough < 40 * MS, "{rough:?}");
    // Nobody speaks to ann.
    assert_eq!(of(ann).jitter_out, None);
    let rtt = of(ben).rtt.unwrap();
    assert!(rtt > 15 * MS && rtt < 30 * MS, "{rtt:?}");
}

#[test]
fn sending_stops_when_consent_runs_out_and_the_peer_ends_after_the_grace_time() {
    let mut world = World::new(71);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    world.set_profile(ben, Profile { loss_up: 1000, ..Profile::default() });
    world.run(Duration::from_secs(31));
    let heard = world.heard(ben, "TR_ann").len();
    world.run(Duration::from_secs(5));
    assert_eq!(world.heard(ben, "TR_ann").len(), heard);
    assert!(world.events.iter().any(|event| matches!(event, Event::Step { peer, step: Step::Lost, .. } if *peer == world.peer(ben))));
    assert!(!world.clients[ben].signals.contains(&Signal::Ended { reason: EndReason::MediaLost }));
    world.run(Duration::from_secs(30));
    assert!(world.clients[ben].signals.contains(&Signal::Ended { reason: EndReason::MediaLost }));
    assert!(!world.clients[ann].signals.iter().any(|signal| matches!(signal, Signal::Ended { .. })));
}

#[test]
fn ice_restart_keeps_media() {
    let mut world = World::new(72);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let peer = world.peer(ben);
    world.tell(Input::RestartIce { peer });
    world.run(Duration::from_secs(3));
    world.restart_publisher(ann);
    world.run(Duration::from_secs(3));
    assert!(world.heard(ben, "TR_ann").len() > 350, "{}", world.heard(ben, "TR_ann").len());
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
    let sdps = world.clients[ben].signals.iter().filter_map(|signal| match signal {
        Signal::Offer { sdp, .. } => sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:").map(str::to_owned)),
        _ => None,
    });
    let mut ufrags: Vec<String> = sdps.collect();
    ufrags.dedup();
    assert_eq!(ufrags.len(), 2);
}

#[test]
fn restart_replaces_an_offer_that_never_arrived() {
    let mut world = World::new(73);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.settle();
    world.clients[ben].deaf = true;
    world.microphone(ann, "ann");
    world.run(Duration::from_secs(1));
    assert_eq!(world.clients[ben].unanswered.len(), 1);
    // Signalling comes back: the client asks for a restart and answers only the newest.
    world.clients[ben].deaf = false;
    let peer = world.peer(ben);
    world.tell(Input::RestartIce { peer });
    world.run(Duration::from_secs(3));
    assert!(world.heard(ben, "TR_ann").len() > 100);
}

#[test]
fn a_peer_that_never_connects_ends_and_says_why() {
    let mut world = World::new(74);
    world.deaf = true;
    let ann = world.join("ann");
    world.run(Duration::from_secs(61));
    assert!(world.clients[ann].signals.contains(&Signal::Ended { reason: EndReason::MediaLost }));
    let why = world.events.iter().find_map(|event| match event {
        Event::Step { step: Step::Lost, detail, .. } => Some(detail.clone()),
        _ => None,
    });
    assert!(why.unwrap().contains("answer"));
}

#[test]
fn steps_are_told_in_order() {
    let mut world = World::new(75);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let steps = |peer| {
        let of = move |event: &Event| match event {
            Event::Step { peer: of, step, .. } if *of == peer => Some(*step),
            _ => None,
        };
        world.events.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(steps(world.peer(ben)), [Step::Negotiated, Step::IceChecked, Step::DtlsDone, Step::RtpOut]);
    assert!(steps(world.peer(ann)).contains(&Step::RtpIn));
}

#[test]
fn quality_falls_with_loss() {
    let mut world = World::new(76);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    world.set_profile(ben, Profile { loss_down: 250, delay: 20 * MS, ..Profile::default() });
    world.run(Duration::from_secs(20));
    let ben_id = world.peer(ben);
    let last = world.events.iter().rev().find_map(|event| match event {
        Event::Quality(changes) => changes.iter().find(|(peer, ..)| *peer == ben_id).map(|(_, quality, _)| *quality),
        _ => None,
    });
    assert_eq!(last, Some(rtcd_core::output::Quality::Poor));
}

#[test]
fn media_goes_over_tcp_where_udp_is_blocked() {
    let mut world = World::new(77);
    let ann = world.join("ann");
    world.tcp = true;
    let ben = world.join("ben");
    world.camera(ann, "cam", &[]);
    world.microphone(ben, "ben");
    world.settle();
    assert!(world.heard(ben, "TR_cam").len() > 40);
    assert!(world.heard(ann, "TR_ben").len() > 50);
    let ben_id = world.peer(ben);
    let report = world.ask_report();
    assert_eq!(report.calls[0].peers.iter().find(|peer| peer.peer == ben_id).unwrap().transport, "tcp");
    // The connection breaks: nothing more is written to it, the place is kept.
    world.close_link(ben, End::Subscribe);
    assert!(world.events.iter().any(|event| matches!(event, Event::Step { peer, step: Step::Lost, .. } if *peer == ben_id)));
    assert!(!world.clients[ben].signals.iter().any(|signal| matches!(signal, Signal::Ended { .. })));
}

/// The client's checks reach nobody: it has tracks, and nothing can be sent to it.
#[test]
fn who_cannot_be_reached_costs_publishers_no_key_frames() {
    let mut world = World::new(75);
    let ann = world.join("ann");
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.join("cat");
    world.settle();
    world.clients[ann].key_frame_requests.clear();
    let ben = world.join("ben");
    world.set_profile(ben, Profile { loss_up: 1000, ..Profile::default() });
    world.run(Duration::from_secs(10));
    assert!(world.clients[ann].key_frame_requests.len() <= 1, "{}", world.clients[ann].key_frame_requests.len());
    world.set_profile(ben, Profile::default());
    world.run(Duration::from_secs(8));
    assert!(world.heard(ben, "TR_cam").len() > 30, "{}", world.heard(ben, "TR_cam").len());
}

/// A way that is thin and wide in turn: slides and what flows share the numbers of one source, and no number leaves twice (the world
/// looks at every packet).
#[test]
fn slides_and_what_flows_never_leave_under_one_number() {
    let way = |rate_kbit| {
        let up = link_model::Way { delay_ms: 5, ..link_model::Way::default() };
        link_model::Profile { up, down: link_model::Way { rate_kbit, queue_ms: 900, ..up }, ..link_model::Profile::default() }
    };
    for seed in 0..6_u64 {
        let mut world = World::new(80 + seed as u8);
        let (ann, ben, eve) = (world.join("ann"), world.join("ben"), world.join("eve"));
        world.microphone(ann, "mic");
        let share = world.publish(ann, "share", Kind::Video, Source::ScreenShare, &[], false);
        world.producers[share].every = 100 * MS;
        world.producers[share].key_packets = 120;
        world.run(Duration::from_secs(2));
        // She stays where slides are needed.
        world.set_link(eve, &way(64));
        let mut slides = 0;
        let mut dice = Dice::new(seed + 5);
        for round in 0..60 {
            let (rate_kbit, long_ms) = if round % 2 == 0 { (60 + dice.next() % 100, 4000) } else { (500 + dice.next() % 1000, 16_000) };
            world.set_link(ben, &way(rate_kbit));
            world.run(Duration::from_millis(300 + dice.next() % long_ms));
            slides += usize::from(world.heard(ben, "TR_share").len() > slides);
        }
        assert!(slides > 5, "seed {seed}: {slides}");
    }
}

/// Shown as slides, from a publisher that pads in the stream itself.
#[test]
fn slides_of_a_publisher_that_pads_are_whole() {
    let mut world = World::new(87);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let microphone = world.microphone(ann, "ann");
    world.producers[microphone].payload_len = 20;
    let share = world.publish(ann, "share", Kind::Video, Source::ScreenShare, &[], false);
    world.producers[share].every = 100 * MS;
    world.producers[share].key_packets = 20;
    world.producers[share].padding = 10;
    world.run(Duration::from_secs(3));
    assert!(world.counter("packets_only_padding") > 100);
    world.set_link(ben, &link_model::named("ddil-64k").unwrap());
    world.run(Duration::from_secs(20));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(30));
    let heard = world.heard(ben, "TR_share");
    let shown: BTreeSet<u32> = heard.iter().map(|heard| heard.timestamp).collect();
    assert!(shown.len() < 100, "slides, not everything: {}", shown.len());
    let whole = shown.iter().filter(|at| {
        let of: Vec<_> = heard.iter().copied().filter(|heard| heard.timestamp == **at).collect();
        of.len() == 20 && holes(&of) == 0
    });
    assert!(whole.count() + 2 >= shown.len() && shown.len() >= 4, "{} slides", shown.len());
}

/// A page that stands still for seconds, seen over a thin way: it stays a slide, and asks nobody for key frames meanwhile.
#[test]
fn a_page_that_stands_still_stays_a_slide() {
    let mut world = World::new(88);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let share = world.publish(ann, "share", Kind::Video, Source::ScreenShare, &[], false);
    world.producers[share].every = 100 * MS;
    world.producers[share].key_packets = 20;
    world.run(Duration::from_secs(3));
    world.set_link(ben, &link_model::named("ddil-64k").unwrap());
    world.run(Duration::from_secs(20));
    world.producers[share].running = false;
    world.run(Duration::from_secs(12));
    world.clients[ann].key_frame_requests.clear();
    world.run(Duration::from_secs(20));
    let asked = world.clients[ann].key_frame_requests.len();
    assert!(asked <= 5, "{asked} key frames of a page that stands still");
}

/// Gaps in what is heard, the longest.
fn longest_gap(world: &World, client: usize, track: &str) -> Duration {
    let heard = world.heard(client, track);
    heard.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at)).max().unwrap_or(Duration::MAX)
}

#[test]
fn an_ice_restart_is_not_heard() {
    for seed in 0..4 {
        let mut world = World::new(90 + seed);
        let (ann, ben) = (world.join("ann"), world.join("ben"));
        world.microphone(ann, "ann");
        world.settle();
        world.clients[ben].heard.clear();
        let peer = world.peer(ben);
        world.tell(Input::RestartIce { peer });
        world.run(Duration::from_secs(2));
        world.restart_publisher(ann);
        world.run(Duration::from_secs(3));
        assert!(world.heard(ben, "TR_ann").len() > 200);
        let gap = longest_gap(&world, ben, "TR_ann");
        assert!(gap <= 500 * MS, "seed {seed}: {gap:?}");
    }
}

/// On another network from one moment to the next, without a word. A client's next check is its own business; the rest is ours.
#[test]
fn who_moves_hears_and_is_heard_from_its_first_check_on() {
    for seed in 0..4 {
        for mover_speaks in [false, true] {
            let mut world = World::new(94 + seed);
            let (ann, ben) = (world.join("ann"), world.join("ben"));
            world.microphone(ann, "ann");
            world.settle();
            let (mover, end) = if mover_speaks { (ann, End::Publish) } else { (ben, End::Subscribe) };
            world.move_address(mover, end, 40_000 + u16::from(seed));
            let new = world.clients[mover].connections[&end].address;
            let mut steps = 0;
            while !world.sent_to.contains(&new) {
                world.run(20 * MS);
                steps += 1;
                assert!(steps < 1000, "its checks are answered");
            }
            world.clients[ben].heard.clear();
            world.run(500 * MS);
            assert!(!world.heard(ben, "TR_ann").is_empty(), "seed {seed}, speaks: {mover_speaks}");
            world.run(Duration::from_secs(2));
            assert!(world.heard(ben, "TR_ann").len() > 100);
        }
    }
}
