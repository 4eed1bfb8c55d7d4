//! Who may speak (attack classes ): an address counts once a signed check came from it, and not before.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rtcd_core::ice::{CONSENT, IceAgent, LocalCredentials, RANDOM_LEN};
use rtcd_core::ids::Side;
use rtcd_core::stun::IntegrityKey;
use rtcd_core::{CallId, Input, PeerId};

use crate::raw::{Raw, certificate, client_hello, signed_check, unfinished_check};
use crate::world::{Dice, End, MS, Profile, World, holes, udp};

/// 10 000 moments before, during and after the handshake.
#[test]
fn strangers_lose_the_client_hello_race() {
    const MOMENTS: u16 = 500;
    for seed in 0..20 {
        let mut world = World::new(100 + seed);
        let (ann, ben) = (world.join("ann"), world.join("ben"));
        let rough = Profile { loss_up: 50, loss_down: 50, jitter: 5 * MS, ..Profile::default() };
        if seed % 2 == 1 {
            world.set_profile(ann, rough);
        }
        let hellos = client_hello(&world);
        world.microphone(ann, "ann");
        let own = world.clients[ann].connections[&End::Publish].address;
        for moment in 0..MOMENTS {
            world.run(Duration::from_micros(300));
            // From elsewhere, from the client's own machine, and from its port on another machine.
            let from: SocketAddr = match moment % 3 {
                0 => ([203, 0, 113, 9], 40_000 + moment).into(),
                1 => (own.ip(), 40_000 + moment).into(),
                _ => ([203, 0, (moment >> 8) as u8, moment as u8], own.port()).into(),
            };
            for hello in &hellos {
                world.inject(from, hello);
            }
            assert!(!world.core.knows(udp(from)));
        }
        // Lost packets of a handshake are sent again after a second, then two.
        world.run(Duration::from_secs(10));
        assert!(world.caught.is_empty(), "an attacker got an answer: {:?}", world.caught.keys());
        for who in [ann, ben] {
            assert!(world.clients[who].connections.values().all(|connection| connection.connected), "seed {seed}");
        }
        assert!(world.heard(ben, "TR_ann").len() > 100, "seed {seed}");
        assert_eq!(world.counter("datagrams_unproved_source"), u64::from(MOMENTS) * hellos.len() as u64);
        assert_eq!(world.counter("dtls_failed"), 0);
    }
}

/// 5000 checks without or with a wrong code, against a peer whose names the attacker knows.
#[test]
fn an_address_changes_only_by_a_signed_check() {
    let mut world = World::new(120);
    let mut victim = Raw::join(&mut world, "victim", 1);
    let attacker = Raw::join(&mut world, "eve", 2);
    victim.connect(&mut world);
    world.run(Duration::from_secs(1));
    let answered = world.counter("stun_answered");
    let mut dice = Dice::new(5);
    for case in 0..5000u32 {
        let from: SocketAddr = ([203, 0, 113, case as u8], 1000 + case as u16).into();
        let nominate = case % 2 == 0;
        // Higher and lower than what was nominated.
        let priority = if case % 3 == 0 { u32::MAX } else { 0 };
        let datagram = match case % 6 {
            0 => unfinished_check(&victim.ufrag, priority, nominate, |_| {}),
            1 => unfinished_check(&victim.ufrag, priority, nominate, |writer| writer.fingerprint()),
            2 => signed_check(&victim.ufrag, "a password nobody has", priority),
            // The attacker's own password under the victim's name, and without a fingerprint.
            3 => unfinished_check(&victim.ufrag, priority, nominate, |writer| writer.integrity(&IntegrityKey::new(&attacker.pwd))),
            4 => {
                let mut valid = signed_check(&victim.ufrag, &victim.pwd, priority);
                // Up to the integrity code's end; what stands behind it, the fingerprint, is not signed and not needed.
                let bit = dice.next() as usize % ((valid.len() - 8) * 8);
                valid[bit / 8] ^= 1 << (bit % 8);
                valid
            }
            _ => {
                let mut valid = signed_check(&victim.ufrag, &victim.pwd, priority);
                valid.truncate(dice.next() as usize % valid.len());
                valid
            }
        };
        world.inject(from, &datagram);
        assert!(!world.core.knows(udp(from)), "case {case}");
        assert!(!world.sent_to.contains(&from), "case {case}");
    }
    assert_eq!(world.counter("stun_answered"), answered);
    // The same check unharmed proves its address, so the cases above failed for their faults alone.
    let moved: SocketAddr = ([203, 0, 113, 200], 9).into();
    world.inject(moved, &victim.check());
    assert!(world.core.knows(udp(moved)));
}

/// a participant whose own checks are right writes somebody else's address under them. That one's media stays where it is, until
/// it has not been heard of for a while: then somebody may have got the port after it.
#[test]
fn nobody_takes_an_address_from_who_is_there() {
    let mut world = World::new(121);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let mut eve = Raw::join(&mut world, "eve", 2);
    eve.connect(&mut world);
    world.settle();
    world.clients[ben].heard.clear();
    let (up, down) = (world.clients[ann].connections[&End::Publish].address, world.clients[ben].connections[&End::Subscribe].address);
    for _ in 0..100 {
        world.inject(up, &eve.check());
        world.inject(down, &eve.check());
        world.run(20 * MS);
    }
    let heard = world.heard(ben, "TR_ann");
    assert!(heard.len() >= 99 && holes(&heard) == 0, "{} of 100 frames", heard.len());
    assert_eq!(world.counter("stun_foreign_address"), 200);
    // Ann is cut off; after eight seconds her port is free.
    world.set_profile(ann, Profile { loss_up: 1000, loss_down: 1000, ..Profile::default() });
    world.run(Duration::from_secs(9));
    world.inject(up, &eve.check());
    assert_eq!(world.counter("stun_foreign_address"), 200);
    assert!(world.core.links_of(&eve.id).any(|link| link == udp(up)));
}

/// 500 peers that fall silent at a random moment.
#[test]
fn nothing_is_sent_30_seconds_after_the_last_signed_check() {
    #[allow(clippy::disallowed_methods, reason = "a simulation has to start at some moment")]
    let start = Instant::now();
    let mut dice = Dice::new(77);
    for run in 0..500u32 {
        let mut agent = IceAgent::new(LocalCredentials::new(3, run, [run as u8; RANDOM_LEN]));
        let check = signed_check(agent.local().ufrag(), agent.local().password(), 1);
        let from = udp(([192, 0, 2, 1], 1000 + run as u16).into());
        let mut now = start;
        let mut reply = [0; 256];
        for _ in 0..1 + dice.next() % 20 {
            agent.handle(now, from, &check, &mut reply);
            now += Duration::from_millis(dice.next() % 6000);
            agent.handle_timeout(now);
            assert_eq!(agent.selected(), Some(from));
        }
        agent.handle(now, from, &check, &mut reply);
        // Unsigned ones do not count.
        let unsigned = unfinished_check(agent.local().ufrag(), 1, true, |_| {});
        let until = now + CONSENT;
        while now < until {
            now += Duration::from_millis(1 + dice.next() % 4000);
            agent.handle(now, from, &unsigned, &mut reply);
            agent.handle_timeout(now);
        }
        assert_eq!(agent.selected(), None, "run {run}");
        assert!(!agent.is_proved(from));
        agent.handle(now, from, &check, &mut reply);
        assert_eq!(agent.selected(), Some(from), "a fresh check brings it back");
    }
}

/// a million names, and a thousand restarts in a minute.
#[test]
fn names_are_not_guessed_and_restarts_cost_only_the_restarter() {
    let mut world = World::new(121);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let (answered, heard) = (world.counter("stun_answered"), world.heard(ben, "TR_ann").len());
    let name = |sdp: &str| sdp.lines().find_map(|line| line.trim().strip_prefix("a=ice-ufrag:").map(str::to_owned)).unwrap();
    let offer = world.clients[ben].signals.iter().find_map(|signal| match signal {
        rtcd_core::output::Signal::Offer { sdp, .. } => Some(sdp.clone()),
        _ => None,
    });
    let known = name(&offer.unwrap());
    let guess = signed_check(&known, "wrong", 1);
    let at = guess.windows(known.len()).position(|window| window == known.as_bytes()).unwrap();
    let mut dice = Dice::new(3);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for n in 0..1_000_000u32 {
        let mut guess = guess.clone();
        for place in &mut guess[at..at + known.len()] {
            *place = alphabet[dice.next() as usize % 64];
        }
        let from = ([203, 0, 113, 9], n as u16).into();
        world.core.handle(world.now, Input::Datagram { link: udp(from), bytes: &mut guess });
    }
    world.tell(Input::Timeout);
    assert_eq!(world.counter("stun_answered"), answered);
    assert!(world.caught.is_empty());

    let peer = world.peer(ben);
    for _ in 0..1000 {
        world.tell(Input::RestartIce { peer: peer.clone() });
        world.run(60 * MS);
    }
    world.run(Duration::from_secs(2));
    assert!(world.heard(ben, "TR_ann").len() >= heard + 3000, "sound went on: {}", world.heard(ben, "TR_ann").len() - heard);
    let restarts = world.clients[ben].signals.iter().filter(|signal| matches!(signal, rtcd_core::output::Signal::Offer { .. })).count();
    assert!(restarts > 10, "{restarts}");
}

/// what a name and its password hold of chance.
#[test]
fn names_and_passwords_hold_more_than_128_bits_of_chance() {
    const { assert!(RANDOM_LEN * 8 >= 128) };
    let of = |random| {
        let made = LocalCredentials::new(1, 2, random);
        (made.ufrag().to_owned(), made.password().to_owned())
    };
    let zero = of([0; RANDOM_LEN]);
    for place in 0..RANDOM_LEN {
        for bit in 0..8 {
            let mut random = [0; RANDOM_LEN];
            random[place] = 1 << bit;
            assert_ne!(of(random), zero, "every bit of chance is in the text");
        }
    }
}

/// 200 addresses that a client names, in its offer and by trickle.
#[test]
fn nothing_is_ever_sent_to_an_address_that_a_client_names() {
    let places = [
        "10.0.0.1",
        "10.255.255.255",
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "169.254.169.254",
        "169.254.1.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.7",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "localhost",
        "metadata.google.internal",
        "a1b2c3d4.local",
        "0x7f.1",
        "2130706433",
        "10.0.0.1%eth0",
        "[::1]",
        "127.0.0.1:80",
    ];
    let mut world = World::new(122);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let mut forms = Vec::new();
    for (place, port) in places.iter().flat_map(|place| [1u16, 53, 80, 443, 5432, 8443, 65_535].map(|port| (*place, port))) {
        forms.push(format!("candidate:1 1 udp 2130706431 {place} {port} typ host"));
        forms.push(format!("candidate:2 1 tcp 1518280447 {place} {port} typ host tcptype active"));
    }
    assert!(forms.len() >= 200, "{}", forms.len());
    for (n, lot) in forms.chunks(60).enumerate() {
        let lines: String = lot.iter().map(|form| format!("a={form}\r\n")).collect();
        let raw = Raw::join(&mut world, &format!("scan{n}"), n as u16);
        let peer = PeerId::new(raw.id.as_str()).unwrap();
        let sdp = format!("{}{lines}", raw_offer(&raw));
        world.tell(Input::Offer { peer: peer.clone(), sdp: &sdp, id: 2 });
        for form in lot {
            for side in [Side::Publish, Side::Subscribe] {
                world.tell(Input::Candidate { peer: peer.clone(), side, candidate: form });
            }
        }
    }
    world.microphone(ann, "ann");
    world.run(Duration::from_secs(20));
    assert!(world.heard(ben, "TR_ann").len() > 400);
    assert!(world.caught.is_empty(), "{:?}", world.caught.keys());
    let clients: Vec<IpAddr> = world.clients.iter().flat_map(|client| client.connections.values()).map(|end| end.address.ip()).collect();
    assert!(world.sent_to.iter().all(|to| clients.contains(&to.ip())));
}

/// An offer that a session takes, to which candidate lines may be appended.
fn raw_offer(raw: &Raw) -> String {
    assert!(!raw.answer.is_empty());
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
     a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
     a=setup:actpass\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\na=sendonly\r\na=msid:s raw-mic\r\n\
     a=rtpmap:111 opus/48000/2\r\n"
        .to_owned()
}

/// 10 000 first datagrams from 10 000 addresses.
#[test]
fn no_source_gets_more_bytes_than_it_sent() {
    let mut world = World::new(123);
    let (ann, _ben) = (world.join("ann"), world.join("ben"));
    world.tape_up = Some(Vec::new());
    world.microphone(ann, "ann");
    world.settle();
    let tape: Vec<Vec<u8>> = world.tape_up.take().unwrap().into_iter().map(|(_, _, bytes)| bytes).collect();
    let hellos = client_hello(&world);
    let mut dice = Dice::new(11);
    let shared = certificate();
    let (mut sent, mut answered) = (0, 0);
    for case in 0..10_000u32 {
        let from: SocketAddr = ([198, 18, (case >> 8) as u8, case as u8], 4000).into();
        let datagram: Vec<u8> = match case % 5 {
            // Whatever a client ever said, checks with their valid codes among it.
            0 => tape[dice.next() as usize % tape.len()].clone(),
            1 => hellos[dice.next() as usize % hellos.len()].clone(),
            // The shortest signed check there is, and one with attributes that have to be named in the answer.
            2 => {
                let own = CallId::new(&format!("t/{case}")).unwrap();
                let id = Raw::join_in(&mut world, own, &format!("raw{case}"), case as u16 % 1000, shared.clone());
                let valid = unfinished_check(&id.ufrag, 1, case % 2 == 0, |writer| {
                    writer.unknown_attributes(&[1, 2]);
                    writer.integrity(&IntegrityKey::new(&id.pwd));
                });
                world.tell(Input::Leave { peer: id.id });
                valid
            }
            3 => {
                let mut cut = tape[dice.next() as usize % tape.len()].clone();
                cut.truncate(1 + dice.next() as usize % 40);
                cut
            }
            _ => (0..1 + dice.next() % 1400).map(|_| dice.next() as u8).collect(),
        };
        world.inject(from, &datagram);
        let out: usize = world.caught.remove(&from).unwrap_or_default().iter().map(Vec::len).sum();
        assert!(out <= datagram.len(), "case {case}: {} in, {out} out", datagram.len());
        sent += datagram.len();
        answered += usize::from(out > 0);
    }
    assert!(sent > 1_000_000);
    // Signed checks are answered (they moved nothing: the media of the world's clients is theirs).
    assert!(answered > 0, "{answered}");
}
