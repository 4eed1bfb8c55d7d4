//! Handshakes that should not succeed, or never end (attack classes D-01 to D-05).

use std::collections::VecDeque;
use std::time::Duration;

use dimpl::Config;
use dimpl::crypto::{Dtls12CipherSuite, Dtls13CipherSuite};
use rtcd_core::output::{EndReason, Signal};
use rtcd_core::{CallId, Input, PeerId};
use str0m::config::DtlsVersion;

use crate::raw::{Raw, body_of, certificate, client_hello, fragment, hex, pieces, sha256};
use crate::world::{Dice, World, call, holes};

/// D-01: 500 patterns. What one may hold in memory is measured in `tests/memory`.
#[test]
fn fragments_that_never_become_a_message_end_within_30_seconds() {
    let mut world = World::new(140);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let body = body_of(&client_hello(&world)[0]);
    let done = world.counter("dtls_done");
    world.clients[ben].heard.clear();
    let raws: Vec<Raw> = (0..500u16)
        .map(|n| {
            let own = CallId::new(&format!("t/hostile{n}")).unwrap();
            let raw = Raw::join_in(&mut world, own, &format!("raw{n}"), n, certificate());
            raw.prove(&mut world);
            for piece in pieces(u64::from(n), &body) {
                world.inject(raw.address, &piece);
            }
            raw
        })
        .collect();
    world.run(Duration::from_secs(31));
    let ended = |raw: &&Raw| world.told.iter().any(|(peer, signal)| *peer == raw.id && matches!(signal, Signal::Ended { .. }));
    assert_eq!(raws.iter().filter(ended).count(), 500);
    assert_eq!(world.counter("dtls_done"), done);
    assert_eq!(world.counter("peers_ended_by_panic"), 0);
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
    assert!(world.heard(ben, "TR_ann").len() > 1500);
}

/// DTLS 1.2 alone, or 1.3.
fn only(twelve: bool) -> Config {
    let builder = Config::builder();
    if twelve { builder.dtls13_cipher_suites(&[]) } else { builder.dtls12_cipher_suites(&[]) }.build().unwrap()
}

/// D-02: forty wrong identities in both versions of DTLS, and the right one in three spellings.
#[test]
fn a_certificate_that_the_description_does_not_name_carries_no_media() {
    let (own, other) = (certificate(), certificate());
    let sha1 = |der: &[u8]| hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref());
    let sha512 = |der: &[u8]| hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, der).as_ref());
    let (mine, theirs) = (sha256(&own.certificate), sha256(&other.certificate));
    let mut flipped = mine.clone();
    flipped.replace_range(0..1, if mine.starts_with('0') { "1" } else { "0" });
    let mut last = mine.clone();
    last.replace_range(mine.len() - 1.., if mine.ends_with('0') { "1" } else { "0" });
    let wrong = [
        format!("a=fingerprint:sha-256 {theirs}"),
        format!("a=fingerprint:sha-256 {flipped}"),
        format!("a=fingerprint:sha-256 {last}"),
        format!("a=fingerprint:sha-1 {}", sha1(&own.certificate)),
        format!("a=fingerprint:sha-512 {}", sha512(&own.certificate)),
        format!("a=fingerprint:sha-512 {mine}"),
        format!("a=fingerprint:sha-256 {}", sha1(&own.certificate)),
        format!("a=fingerprint:md5 {}", &mine[..47]),
        format!("a=fingerprint:sha-256 {}", &mine[..mine.len() - 3]),
        format!("a=fingerprint:sha-256 {mine}:00"),
        format!("a=fingerprint:sha-256 {}", mine.replace(':', "")),
        "a=fingerprint:sha-256 ".to_owned(),
        "a=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00".to_owned(),
        format!("a=fingerprint:sha-256 {theirs}\na=fingerprint:sha-1 {}", sha1(&own.certificate)),
        format!("a=fingerprint:null {mine}"),
        "a=x-no-fingerprint".to_owned(),
        format!("a=fingerprint: {mine}"),
        format!("a=fingerprint:{mine}"),
        format!("a=fingerprint:sha-256 {}", mine.replace(':', "-")),
    ];
    let mut world = World::new(141);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let done = world.counter("dtls_done");
    let mut cases = 0;
    for twelve in [true, false] {
        for line in &wrong {
            cases += 1;
            let name = format!("wrong{cases}");
            let Ok(mut raw) = Raw::join_with(&mut world, call(), &name, cases, own.clone(), line) else { continue };
            raw.connect_with(&mut world, only(twelve));
            if raw.outbound.is_some() {
                // In DTLS 1.3 the client has keys before the server has seen its certificate.
                raw.send_rtp(&mut world, 7, 1, &[0xFC, 1, 2, 3]);
            }
            world.run(Duration::from_millis(100));
            assert_eq!(world.counter("dtls_done"), done, "{line}");
            assert!(world.heard(ben, &format!("TR_{name}")).is_empty(), "{line}");
        }
        // The right certificate without its key: nobody can sign the handshake for it.
        let thief = dimpl::DtlsCertificate { certificate: own.certificate.clone(), private_key: other.private_key.clone() };
        cases += 1;
        let mut raw =
            Raw::join_with(&mut world, call(), &format!("thief{cases}"), cases, thief, &format!("a=fingerprint:sha-256 {mine}")).unwrap();
        raw.connect_with(&mut world, only(twelve));
        world.run(Duration::from_millis(100));
        assert_eq!(world.counter("dtls_done"), done, "a certificate without its key");
    }
    assert_eq!(cases, 40);
    let right = [
        format!("a=fingerprint:sha-256 {mine}"),
        format!("a=fingerprint:SHA-256 {mine}"),
        format!("a=fingerprint:sha-256 {}", mine.to_lowercase()),
    ];
    for (n, (line, twelve)) in right.iter().flat_map(|line| [(line, true), (line, false)]).enumerate() {
        let mut raw = Raw::join_with(&mut world, call(), &format!("right{n}"), 500 + n as u16, own.clone(), line).unwrap();
        assert!(raw.connect_with(&mut world, only(twelve)), "{line}");
        world.run(Duration::from_millis(100));
        assert_eq!(world.counter("dtls_done"), done + 1 + n as u64, "{line}");
    }
    assert!(world.heard(ben, "TR_ann").len() > 50);
}

/// Pion, and so LiveKit's Go SDK, answers an ICE-lite server with `a=setup:passive`.
#[test]
fn who_waits_for_the_hello_is_sent_one() {
    for (seed, version) in [(160, DtlsVersion::Dtls12), (161, DtlsVersion::Dtls13)] {
        let mut world = World::new(seed);
        world.dtls = version;
        let (ann, ben) = (world.join("ann"), world.join("ben"));
        world.clients[ben].passive = true;
        // The first ones find nobody: the client is still getting ready.
        world.clients[ben].hellos_lost = 2;
        world.open_channels(ann);
        world.microphone(ann, "ann");
        world.run(Duration::from_secs(10));
        world.clients[ben].heard.clear();
        // Another track is another offer, answered the same: the roles stay.
        world.camera(ann, "ann-cam", &[]);
        world.send_message(ann, "_reliable", b"hello");
        world.run(Duration::from_secs(3));
        assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
        assert!(world.heard(ben, "TR_ann").len() > 100 && world.heard(ben, "TR_ann-cam").len() > 20);
        assert_eq!(world.clients[ben].messages, vec![b"hello".to_vec()]);
        assert_eq!(world.counter("dtls_failed"), 0);
    }
}

/// Seen with LiveKit's Go SDK: its first check took another way than its answer, and was faster.
#[test]
fn a_check_that_overtakes_the_answer_does_not_stop_the_hello() {
    let mut world = World::new(162);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.deaf = true;
    let ben = world.join("ben");
    world.clients[ben].passive = true;
    world.run(Duration::from_secs(1));
    let (offer, id) = world.clients[ben].unanswered.pop().expect("an offer");
    let answer = world.accept(ben, &offer);
    world.run(Duration::from_secs(1));
    world.clients[ben].deaf = false;
    let peer = world.peer(ben);
    world.tell(Input::Answer { peer, sdp: &answer, id });
    world.run(Duration::from_secs(3));
    assert!(world.heard(ben, "TR_ann").len() > 50);
}

/// A DTLS 1.2 ClientHello with one cipher suite and these SRTP profiles.
fn hello(suite: u16, profiles: Option<&[u16]>) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, body: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend((body.len() as u16).to_be_bytes());
        extensions.extend(body);
    };
    extension(10, &[0, 4, 0, 23, 0, 29]);
    extension(11, &[1, 0]);
    extension(13, &[0, 6, 4, 3, 5, 3, 4, 1]);
    extension(23, &[]);
    extension(0xFF01, &[0]);
    if let Some(profiles) = profiles {
        let mut body = (profiles.len() as u16 * 2).to_be_bytes().to_vec();
        body.extend(profiles.iter().flat_map(|profile| profile.to_be_bytes()));
        body.push(0);
        extension(14, &body);
    }
    let mut body = vec![0xFE, 0xFD];
    body.extend([0x42; 32]);
    body.extend([0, 0, 0, 2]);
    body.extend(suite.to_be_bytes());
    body.extend([1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    fragment(0, 0, body.len() as u32, 0, &body)
}

/// Suite and SRTP profile of the ServerHello that came, if one did.
fn server_hello(world: &mut World, raw: &Raw) -> Option<(u16, Option<u16>)> {
    let flight = world.caught.remove(&raw.address).unwrap_or_default();
    let hello = flight.iter().find(|packet| packet.first() == Some(&22) && packet.get(13) == Some(&2))?;
    let body = &hello[13 + 12..];
    let mut at = 34 + 1 + usize::from(body[34]);
    let suite = u16::from_be_bytes([body[at], body[at + 1]]);
    at += 3;
    let end = at + 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    at += 2;
    let mut profile = None;
    while at + 4 <= end {
        let (kind, len) = (u16::from_be_bytes([body[at], body[at + 1]]), usize::from(u16::from_be_bytes([body[at + 2], body[at + 3]])));
        if kind == 14 {
            profile = Some(u16::from_be_bytes([body[at + 6], body[at + 7]]));
        }
        at += 4 + len;
    }
    Some((suite, profile))
}

/// D-03: every cipher suite there is a number for in the families in use, offered alone, and every SRTP profile.
#[test]
fn only_strong_suites_and_profiles_are_chosen() {
    let mut world = World::new(142);
    let mut n = 0;
    let mut ask = |world: &mut World, suite: u16, profiles: Option<&[u16]>| {
        n += 1;
        let own = CallId::new(&format!("t/scan{n}")).unwrap();
        let raw = Raw::join_in(world, own, &format!("scan{n}"), n, certificate());
        raw.prove(world);
        world.caught.clear();
        world.inject(raw.address, &hello(suite, profiles));
        world.run(Duration::from_millis(10));
        let answer = server_hello(world, &raw);
        world.tell(Input::Leave { peer: raw.id });
        answer
    };
    let gcm: &[u16] = &[7];
    let suites = (0..=0x00FFu16).chain(0x1301..=0x1307).chain(0xC001..=0xC0FF).chain(0xCCA8..=0xCCAE).chain(0xD001..=0xD005);
    let mut taken: Vec<u16> =
        suites.filter(|suite| ask(&mut world, *suite, Some(gcm)).is_some_and(|(chosen, _)| chosen == *suite)).collect();
    taken.sort_unstable();
    // ECDHE with ECDSA: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305.
    assert_eq!(taken, [0xC02B, 0xC02C, 0xCCA9]);
    let mut profile_of = |world: &mut World, list: &[u16]| ask(world, 0xC02B, Some(list)).and_then(|(_, profile)| profile);
    for profile in 0..=20u16 {
        // AES_CM_128_HMAC_SHA1_80, AEAD_AES_128_GCM, AEAD_AES_256_GCM. Neither NULL (5, 6) nor the 32-bit tag (2).
        let expected = [1, 7, 8].contains(&profile).then_some(profile);
        assert_eq!(profile_of(&mut world, &[profile]), expected, "SRTP profile {profile}");
    }
    assert_eq!(profile_of(&mut world, &[5, 6, 2, 1, 8, 7]), Some(7), "the server's order counts");
    // Without any, or with none that is allowed, a peer never gets so far that media could flow without protection.
    assert_eq!(world.counter("dtls_done"), 0);
}

/// D-03: what may be chosen works, suite by suite and version by version.
#[test]
fn each_allowed_suite_carries_media() {
    let mut world = World::new(143);
    let ben = world.join("ben");
    let twelve = [
        Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
        Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
        Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
    ];
    let thirteen =
        [Dtls13CipherSuite::AES_128_GCM_SHA256, Dtls13CipherSuite::AES_256_GCM_SHA384, Dtls13CipherSuite::CHACHA20_POLY1305_SHA256];
    let configs = twelve
        .iter()
        .map(|suite| Config::builder().dtls13_cipher_suites(&[]).dtls12_cipher_suites(&[*suite]).build().unwrap())
        .chain(thirteen.iter().map(|suite| Config::builder().dtls12_cipher_suites(&[]).dtls13_cipher_suites(&[*suite]).build().unwrap()));
    for (n, config) in configs.enumerate() {
        let mut raw = Raw::join(&mut world, &format!("raw{n}"), n as u16);
        assert!(raw.connect_with(&mut world, config), "suite {n}");
        assert_eq!(raw.profile, Some(dimpl::SrtpProfile::AEAD_AES_128_GCM));
        world.run(Duration::from_millis(500));
        for seq in 0..10 {
            raw.send_rtp(&mut world, 77, seq, &[0xFC, 1, 2, 3]);
        }
        world.run(Duration::from_millis(500));
        assert_eq!(world.heard(ben, &format!("TR_raw{n}")).len(), 10, "suite {n}");
        world.tell(Input::Leave { peer: raw.id });
    }
}

/// D-04: 5000 handshakes from proved addresses that stop after the first flight, within one second of a live call. `HANDSHAKE_FLOOD_S`: for that
/// many seconds.
#[test]
fn half_open_handshakes_harm_no_live_call_and_are_forgotten() {
    let mut world = World::new(144);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    world.clients[ben].heard.clear();
    let hellos = client_hello(&world);
    let shared = certificate();
    // A node has a bound on sessions, so in a flood that lasts who asks for them ends those of the second before last.
    let seconds = std::env::var("HANDSHAKE_FLOOD_S").map_or(1, |text| text.parse().expect("seconds"));
    let mut rounds: VecDeque<Vec<PeerId>> = VecDeque::new();
    for second in 0..seconds {
        if rounds.len() == 2 {
            for peer in rounds.pop_front().unwrap() {
                world.tell(Input::Leave { peer });
            }
        }
        let mut round = Vec::new();
        for n in 0..5000u16 {
            let own = CallId::new(&format!("t/half{second}-{n}")).unwrap();
            let number = n + 5000 * (second % 3) as u16;
            let raw = Raw::join_in(&mut world, own, &format!("half{second}-{n}"), number, shared.clone());
            raw.prove(&mut world);
            for hello in &hellos {
                world.inject(raw.address, hello);
            }
            world.run(Duration::from_micros(200));
            round.push(raw.id);
        }
        rounds.push_back(round);
    }
    let half_open = world.ask_report().calls.len();
    assert_eq!(half_open, 1 + 5000 * rounds.len());
    world.run(Duration::from_secs(35));
    assert_eq!(world.ask_report().calls.len(), 1, "all of them are over");
    let heard = world.heard(ben, "TR_ann");
    assert!(heard.len() as u64 > 1650 + 50 * seconds, "{}", heard.len());
    assert_eq!(holes(&heard), 0);
}

/// D-05: a hundred kinds of records that whoever can write the sender's address may send into a live session: alerts in clear,
/// a forged good-bye, a new ClientHello, wrong epochs, damaged lengths.
#[test]
fn forged_records_do_not_end_a_session() {
    let mut world = World::new(145);
    let ben = world.join("ben");
    let mut raw = Raw::join(&mut world, "raw", 1);
    raw.connect(&mut world);
    world.run(Duration::from_secs(1));
    let hellos = client_hello(&world);
    let mut dice = Dice::new(5);
    let mut seq = 0;
    let mut kinds = 0;
    for kind in 0..500u64 {
        let record = match kind % 10 {
            // close_notify and fatal alerts in clear.
            0 => vec![21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, kind as u8, 0, 2, 1, 0],
            1 => vec![21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, kind as u8, 0, 2, 2, dice.next() as u8],
            // In the session's epoch, without its key.
            2 | 3 => {
                let mut record =
                    vec![[21, 23][kind as usize % 2], 0xFE, 0xFD, 0, 1 + (dice.next() % 3) as u8, 0, 0, 0, 0, 1, kind as u8, 0, 40];
                record.extend((0..40).map(|_| dice.next() as u8));
                record
            }
            4 => hellos[dice.next() as usize % hellos.len()].clone(),
            5 => fragment(kind, 0, 100, 0, &[0; 40]),
            // The short headers of DTLS 1.3.
            6 => {
                let mut record = vec![0x20 | (dice.next() as u8 & 0x1F)];
                record.extend((0..dice.next() % 60).map(|_| dice.next() as u8));
                record
            }
            7 => vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 1],
            8 => vec![20, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1],
            _ => {
                let mut cut = hellos[0].clone();
                let at = dice.next() as usize % cut.len();
                cut[at] ^= 1 << (dice.next() % 8);
                cut.truncate(1 + dice.next() as usize % cut.len());
                cut
            }
        };
        world.inject(raw.address, &record);
        kinds += 1;
        if kind % 5 == 0 {
            raw.send_rtp(&mut world, 9, seq, &[0xFC, 1, 2, 3]);
            seq += 1;
            world.run(Duration::from_millis(20));
        }
        let ended = world.told.iter().find_map(|(peer, signal)| match signal {
            Signal::Ended { reason } if *peer == raw.id => Some(*reason),
            _ => None,
        });
        assert_eq!(ended, None::<EndReason>, "record {kind}: {record:02x?}");
    }
    assert!(kinds >= 100);
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard(ben, "TR_raw").len() as u64, seq);
    assert_eq!(world.counter("peers_ended_by_panic"), 0);
}
