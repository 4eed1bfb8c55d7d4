//! What a transport's ICE lives through.

#![allow(clippy::disallowed_methods, reason = "a story has to start at some moment")]

use std::time::{Duration, Instant};

use super::agent::{CONSENT, IceAgent, IceEvent, IceOutcome, IceRefusal, Role};
use super::credentials::LocalCredentials;
use crate::ids::Link;
use crate::stun::{BINDING, Class, IntegrityKey, Message, RoleAttribute, StunWriter, TransactionId};

fn link(port: u16) -> Link {
    Link::Udp { local: "192.0.2.1:8443".parse().unwrap(), remote: format!("198.51.100.7:{port}").parse().unwrap() }
}

fn credentials(n: u8) -> LocalCredentials {
    LocalCredentials::new(3, 77, [n; super::RANDOM_LEN])
}

/// A browser that checks us.
struct Checker {
    ufrag: String,
    password: String,
    role: RoleAttribute,
    priority: u32,
    remote: &'static str,
}

impl Checker {
    fn of(agent: &IceAgent) -> Self {
        let local = agent.local();
        Self {
            ufrag: local.ufrag().into(),
            password: local.password().into(),
            role: RoleAttribute::Controlling(5),
            priority: 100,
            remote: "theirs",
        }
    }

    fn check(&self, nominate: bool) -> Vec<u8> {
        let mut slot = [0u8; 256];
        let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId([9; 12]));
        writer.username(format!("{}:{}", self.ufrag, self.remote).as_bytes());
        writer.priority(self.priority);
        writer.role(self.role);
        if nominate {
            writer.use_candidate();
        }
        writer.integrity(&IntegrityKey::new(&self.password));
        writer.fingerprint();
        let len = writer.finish().unwrap();
        slot[..len].to_vec()
    }
}

fn told(agent: &mut IceAgent, now: Instant, from: Link, datagram: &[u8]) -> (IceOutcome, Vec<u8>) {
    let mut reply = [0u8; 256];
    let outcome = agent.handle(now, from, datagram, &mut reply);
    let len = outcome.reply_len.unwrap_or(0);
    assert!(len <= datagram.len(), "an answer longer than its request");
    (outcome, reply[..len].to_vec())
}

#[test]
fn a_valid_check_is_answered_and_proves_its_address() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    agent.set_remote("theirs");
    let checker = Checker::of(&agent);
    assert_eq!(agent.selected(), None);
    let (outcome, reply) = told(&mut agent, now, link(1), &checker.check(true));
    assert_eq!(outcome.event, Some(IceEvent::Connected(link(1))));
    let answer = Message::parse(&reply).unwrap();
    assert_eq!((answer.class, answer.transaction), (Class::Success, TransactionId([9; 12])));
    assert_eq!(answer.mapped_address, Some("198.51.100.7:1".parse().unwrap()));
    assert!(answer.is_signed_by(&IntegrityKey::new(&checker.password)) && answer.fingerprint);
    assert!(agent.is_proved(link(1)) && !agent.is_proved(link(2)));
}

#[test]
fn an_ipv4_sender_on_a_socket_for_both_families_is_told_its_ipv4_address() {
    let mut agent = IceAgent::new(credentials(1));
    let check = Checker::of(&agent).check(true);
    let mapped = Link::Udp { local: "[::]:8443".parse().unwrap(), remote: "[::ffff:198.51.100.7]:9".parse().unwrap() };
    let (_, reply) = told(&mut agent, Instant::now(), mapped, &check);
    assert_eq!(Message::parse(&reply).unwrap().mapped_address, Some("198.51.100.7:9".parse().unwrap()));
}

/// Attack class A-03: whatever is not signed changes nothing and gets no answer.
#[test]
fn forged_checks_change_nothing_and_are_counted() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    agent.set_remote("theirs");
    let good = Checker::of(&agent);
    told(&mut agent, now, link(1), &good.check(true));

    let mut wrong_password = Checker::of(&agent);
    wrong_password.password = "guess".into();
    let mut wrong_name = Checker::of(&agent);
    wrong_name.ufrag = "AAAAAAAAAAAAAAAA".into();
    let mut wrong_remote = Checker::of(&agent);
    wrong_remote.remote = "somebody";
    let mut conflict = Checker::of(&agent);
    conflict.role = RoleAttribute::Controlled(5);
    conflict.password = "guess".into();
    for (checker, refusal) in [
        (&wrong_password, IceRefusal::BadIntegrity),
        (&wrong_name, IceRefusal::UnknownUser),
        (&wrong_remote, IceRefusal::UnknownUser),
        (&conflict, IceRefusal::BadIntegrity),
    ] {
        for nominate in [false, true] {
            let (outcome, _) = told(&mut agent, now, link(2), &checker.check(nominate));
            assert_eq!(outcome, IceOutcome { reply_len: None, event: None, refused: Some(refusal) });
        }
    }
    let mut bytes = good.check(true);
    // Up to and with the integrity code; nobody signs the fingerprint behind it.
    for bit in 0..(bytes.len() - 8) * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (outcome, _) = told(&mut agent, now, link(2), &bytes);
        assert!(outcome.refused.is_some() && outcome.reply_len.is_none() && outcome.event.is_none(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(agent.selected(), Some(link(1)));
    assert!(!agent.is_proved(link(2)));
    assert_eq!(agent.role(), Role::Controlled);
}

#[test]
fn a_new_address_under_the_same_name_takes_over_when_it_nominates() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let checker = Checker::of(&agent);
    told(&mut agent, now, link(1), &checker.check(true));
    // A plain check proves the address but does not move media.
    let (outcome, _) = told(&mut agent, now, link(2), &checker.check(false));
    assert_eq!((outcome.event, agent.selected()), (None, Some(link(1))));
    let (outcome, _) = told(&mut agent, now + Duration::from_secs(5), link(2), &checker.check(true));
    assert_eq!(outcome.event, Some(IceEvent::Moved(link(2))));
}

#[test]
fn aggressive_nomination_settles_on_the_highest_priority() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let mut checker = Checker::of(&agent);
    checker.priority = 200;
    told(&mut agent, now, link(1), &checker.check(true));
    checker.priority = 100;
    let (outcome, _) = told(&mut agent, now + Duration::from_millis(50), link(2), &checker.check(true));
    assert_eq!((outcome.event, agent.selected()), (None, Some(link(1))));
    checker.priority = 300;
    let (outcome, _) = told(&mut agent, now + Duration::from_millis(100), link(3), &checker.check(true));
    assert_eq!(outcome.event, Some(IceEvent::Moved(link(3))));
    // Much later a lower one is a change of network, not of priority.
    checker.priority = 1;
    let (outcome, _) = told(&mut agent, now + Duration::from_secs(4), link(4), &checker.check(true));
    assert_eq!(outcome.event, Some(IceEvent::Moved(link(4))));
}

#[test]
fn a_silent_address_gives_way_to_one_that_is_still_checked() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let checker = Checker::of(&agent);
    told(&mut agent, now, link(1), &checker.check(true));
    told(&mut agent, now, link(2), &checker.check(false));
    let (outcome, _) = told(&mut agent, now + Duration::from_secs(5), link(2), &checker.check(false));
    assert_eq!(outcome.event, None);
    let (outcome, _) = told(&mut agent, now + Duration::from_secs(9), link(2), &checker.check(false));
    assert_eq!(outcome.event, Some(IceEvent::Moved(link(2))));
}

/// RFC 8445 §7.3.1.1, all four cases.
#[test]
fn role_conflicts_are_settled_by_tie_breaker() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let mut checker = Checker::of(&agent);
    // Chromium that took the controlled role: told 487, and nothing is proved by it.
    checker.role = RoleAttribute::Controlled(5);
    let (outcome, reply) = told(&mut agent, now, link(1), &checker.check(false));
    assert_eq!((outcome.refused, outcome.event), (Some(IceRefusal::RoleConflict), None));
    let answer = Message::parse(&reply).unwrap();
    assert_eq!(answer.error.map(|(code, _)| code), Some(487));
    assert!(answer.is_signed_by(&IntegrityKey::new(&checker.password)));
    assert!(!agent.is_proved(link(1)));
    // It switches and repeats.
    checker.role = RoleAttribute::Controlling(5);
    let (outcome, _) = told(&mut agent, now, link(1), &checker.check(true));
    assert_eq!(outcome.event, Some(IceEvent::Connected(link(1))));
    // A tie-breaker as low as ours: we have to control, and any checked address will do.
    checker.role = RoleAttribute::Controlled(0);
    let (outcome, _) = told(&mut agent, now, link(1), &checker.check(false));
    assert_eq!((outcome.refused, agent.role()), (None, Role::Controlling));
    // In that role the other side must not control with the same value …
    checker.role = RoleAttribute::Controlling(0);
    let (outcome, _) = told(&mut agent, now, link(1), &checker.check(false));
    assert_eq!((outcome.refused, agent.role()), (Some(IceRefusal::RoleConflict), Role::Controlling));
    // … but with a higher one it wins.
    checker.role = RoleAttribute::Controlling(1);
    let (outcome, _) = told(&mut agent, now, link(1), &checker.check(false));
    assert_eq!((outcome.refused, agent.role()), (None, Role::Controlled));
}

/// Attack class A-05.
#[test]
fn consent_ends_thirty_seconds_after_the_last_valid_check_and_comes_back() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    assert_eq!(agent.poll_timeout(), None);
    let checker = Checker::of(&agent);
    told(&mut agent, now, link(1), &checker.check(true));
    assert_eq!(agent.poll_timeout(), Some(now + CONSENT));
    told(&mut agent, now + Duration::from_secs(10), link(1), &checker.check(false));
    // A forged one does not prolong it.
    let mut forged = checker.check(true);
    forged[30] ^= 1;
    told(&mut agent, now + Duration::from_secs(20), link(1), &forged);
    assert_eq!(agent.handle_timeout(now + CONSENT), None);
    let end = agent.poll_timeout().unwrap();
    assert_eq!(end, now + Duration::from_secs(10) + CONSENT);
    assert_eq!(agent.handle_timeout(end), Some(IceEvent::ConsentLost));
    assert_eq!((agent.selected(), agent.is_proved(link(1)), agent.poll_timeout()), (None, false, None));
    let (outcome, _) = told(&mut agent, end, link(1), &checker.check(true));
    assert_eq!(outcome.event, Some(IceEvent::Connected(link(1))));
}

#[test]
fn when_the_selected_address_dies_another_proved_one_takes_over() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let checker = Checker::of(&agent);
    let tcp = Link::Tcp { connection: 4, remote: "198.51.100.7:9".parse().unwrap() };
    told(&mut agent, now, tcp, &checker.check(true));
    told(&mut agent, now, link(2), &checker.check(false));
    assert_eq!(agent.handle_link_closed(tcp), Some(IceEvent::Moved(link(2))));
    assert_eq!(agent.handle_link_closed(link(2)), Some(IceEvent::ConsentLost));
}

#[test]
fn a_restart_answers_under_both_names_until_the_new_one_is_nominated() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    agent.set_remote("theirs");
    let old = Checker::of(&agent);
    told(&mut agent, now, link(1), &old.check(true));

    assert_eq!(agent.remote_ufrag(), Some("theirs"));
    agent.restart(credentials(2));
    assert_eq!(agent.remote_ufrag(), None, "the new generation's is not known yet");
    let mut new = Checker::of(&agent);
    new.remote = "theirs2";
    new.priority = 1;
    agent.set_remote("theirs2");
    assert_ne!(old.ufrag, new.ufrag);
    assert_eq!((agent.is_restarting(), agent.remote_ufrag()), (true, Some("theirs2")));
    let (outcome, _) = told(&mut agent, now, link(1), &old.check(false));
    assert_eq!(outcome.refused, None);
    let (outcome, _) = told(&mut agent, now, link(2), &new.check(false));
    assert_eq!((outcome.refused, outcome.event, agent.is_restarting()), (None, None, true));
    let (outcome, _) = told(&mut agent, now, link(2), &new.check(true));
    assert_eq!((outcome.event, agent.is_restarting()), (Some(IceEvent::Moved(link(2))), false));
    let (outcome, _) = told(&mut agent, now, link(1), &old.check(true));
    assert_eq!(outcome.refused, Some(IceRefusal::UnknownUser));
    assert_eq!(agent.selected(), Some(link(2)));
}

#[test]
fn unknown_attributes_that_matter_are_answered_420() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let checker = Checker::of(&agent);
    let mut bytes = Vec::new();
    // Username, an unknown attribute that must be understood, integrity.
    let mut slot = [0u8; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId([9; 12]));
    writer.username(format!("{}:x", checker.ufrag).as_bytes());
    let len = writer.finish().unwrap();
    bytes.extend(&slot[..len]);
    bytes.extend([0x7F, 0x00, 0, 4, 1, 2, 3, 4]);
    let total = u16::try_from(bytes.len() - 20 + 24).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    let code = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, checker.password.as_bytes()),
        &bytes,
    );
    bytes.extend([0, 8, 0, 20]);
    bytes.extend(code.as_ref());
    let (outcome, reply) = told(&mut agent, now, link(1), &bytes);
    assert_eq!(outcome.refused, Some(IceRefusal::UnknownAttribute));
    if outcome.reply_len.is_some() {
        assert_eq!(Message::parse(&reply).unwrap().error.map(|(code, _)| code), Some(420));
    }
    assert!(!agent.is_proved(link(1)));
}

/// Attack class A-08: the shortest check there can be, from an IPv6 address, whose answer would be 76 bytes.
#[test]
fn no_answer_is_longer_than_its_request() {
    let mut agent = IceAgent::new(credentials(1));
    let checker = Checker::of(&agent);
    let mut slot = [0u8; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId([9; 12]));
    writer.username(format!("{}:x", checker.ufrag).as_bytes());
    writer.integrity(&IntegrityKey::new(&checker.password));
    let len = writer.finish().unwrap();
    let from = Link::Udp { local: "[2001:db8::1]:8443".parse().unwrap(), remote: "[2001:db8::7]:9".parse().unwrap() };
    let (outcome, _) = told(&mut agent, Instant::now(), from, &slot[..len]);
    assert_eq!((outcome.refused, outcome.reply_len), (None, None), "valid, and yet not answered");
    let (outcome, _) = told(&mut agent, Instant::now(), from, &checker.check(false));
    assert!(outcome.reply_len.is_some_and(|reply| reply == 76), "{:?}", outcome.reply_len);
}

#[test]
fn answers_and_indications_do_nothing() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    for class in [Class::Success, Class::Error, Class::Indication] {
        let mut slot = [0u8; 64];
        let len = StunWriter::new(&mut slot, class, BINDING, TransactionId([0; 12])).finish().unwrap();
        let (outcome, _) = told(&mut agent, now, link(1), &slot[..len]);
        assert_eq!(outcome.refused, Some(IceRefusal::Unexpected));
    }
}

#[test]
fn addresses_of_one_transport_are_bounded() {
    let now = Instant::now();
    let mut agent = IceAgent::new(credentials(1));
    let checker = Checker::of(&agent);
    for port in 1..200 {
        told(&mut agent, now, link(port), &checker.check(false));
    }
    assert_eq!((1..200).filter(|port| agent.is_proved(link(*port))).count(), crate::limits::ICE_LINKS_MAX);
    assert_eq!(agent.selected(), Some(link(1)));
    // Later the silent ones give way, not the one in use.
    let (outcome, _) = told(&mut agent, now + Duration::from_secs(9), link(500), &checker.check(false));
    assert_eq!(outcome.refused, None);
    assert!(agent.is_proved(link(1)) && agent.is_proved(link(500)));
}

#[test]
fn the_shell_finds_shard_and_slot_in_a_check() {
    let agent = IceAgent::new(credentials(1));
    let check = Checker::of(&agent).check(false);
    assert_eq!(super::ufrag::route(&check), Some(super::ufrag::Place { shard: 3, slot: 77 }));
    assert_eq!(super::ufrag::route(b"nonsense"), None);
}
