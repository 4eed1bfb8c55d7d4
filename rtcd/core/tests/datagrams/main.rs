//! Mutated datagrams into live calls: genuine ones of every protocol, changed, cut and spliced, from the address they came from, from
//! somebody else's and from strangers; into sessions that stand and handshakes that have begun; and authentic ones whose content is
//! garbage. Nothing of ours may panic, and a conversation beside it loses no frame.
//!
//! `./x datagrams MILLIONS` sends as many as one likes.

#![cfg(test)]
#![allow(unreachable_pub, dead_code, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

#[path = "../stories/raw.rs"]
mod raw;
#[path = "../stories/world.rs"]
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use raw::{Raw, client_hello};
use rtcd_core::Input;
use world::{Dice, End, MS, World, holes, udp};

/// Datagrams of every test run.
const DATAGRAMS: u64 = 300_000;
/// Given between two looks at the calls.
const ROUND: u64 = 10_000;
/// Time that passes in a round.
const STEP: Duration = Duration::from_millis(20);
/// Rounds after which a conversation is begun anew, so that every state is met again.
const ROUNDS_PER_CALL: u64 = 250;

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Genuine datagrams and who sent them.
struct Samples(Vec<(SocketAddr, Vec<u8>)>);

struct Attack {
    world: World,
    dice: Dice,
    samples: Samples,
    eve: Raw,
    /// Where peers are.
    proved: Vec<SocketAddr>,
    ann: usize,
    ben: usize,
    index: u64,
}

impl Attack {
    /// Ann speaks and shows, ben listens, mal and eve are there too, and what mal sent from the first check on is kept.
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed as u8);
        let (ann, ben) = (world.join("ann"), world.join("ben"));
        world.microphone(ann, "ann");
        world.tape_up = Some(Vec::new());
        let mal = world.join("mal");
        world.camera(mal, "mal", &["q", "h"]);
        world.open_channels(mal);
        world.settle();
        world.send_message(mal, "_reliable", b"hello");
        world.run(500 * MS);
        let tape = world.tape_up.take().unwrap_or_default();
        let address = |client: usize, end: End| world.clients[client].connections[&end].address;
        let proved = vec![address(ann, End::Publish), address(ben, End::Subscribe), address(mal, End::Publish)];
        let mut kept: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        let mut counts = [0; 4];
        for (client, end, bytes) in tape {
            // A check of ann's or ben's that comes out of a mutation as good as it was would move their call, as it would on any way.
            let stun = bytes.first().is_some_and(|first| *first < 4);
            let kind = if stun { 0 } else { 1 + usize::from(bytes[0] >= 128) + usize::from(rtcd_core::rtp::is_rtcp(&bytes)) };
            if (stun && client != mal) || counts[kind] >= 60 {
                continue;
            }
            counts[kind] += 1;
            kept.push((address(client, end), bytes));
        }
        let mut eve = Raw::join(&mut world, "eve", 1);
        eve.connect(&mut world);
        kept.push((eve.address, eve.check()));
        kept.extend(client_hello(&world).into_iter().map(|hello| (eve.address, hello)));
        assert!(counts.iter().all(|count| *count > 4), "checks, handshakes, RTP, RTCP: {counts:?}");
        world.caught.clear();
        world.clients[ben].heard.clear();
        let dice = Dice::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { world, dice, samples: Samples(kept), eve, proved, ann, ben, index: 1 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.dice.next() as usize % bound.max(1)
    }

    /// One sample, changed: never as it was.
    fn mutated(&mut self) -> (SocketAddr, Vec<u8>) {
        loop {
            let (at, other) = (self.below(self.samples.0.len()), self.below(self.samples.0.len()));
            let (from, original) = self.samples.0[at].clone();
            let mut bytes = original.clone();
            for _ in 0..=self.below(3) {
                let place = self.below(bytes.len());
                let value = self.dice.next() as u8;
                match self.below(8) {
                    0 => bytes.truncate(place),
                    1 => bytes.insert(place, value),
                    2 if !bytes.is_empty() => drop(bytes.remove(place)),
                    3 if !bytes.is_empty() => bytes[place] = [0, 1, 0x7F, 0x80, 0xFF][usize::from(value) % 5],
                    4 | 5 if !bytes.is_empty() => bytes[place] ^= 1 << (value % 8),
                    6 if bytes.len() > place + 1 => bytes[place + 1] = bytes[place + 1].wrapping_add(1 + value % 3),
                    _ => {
                        let source = &self.samples.0[other].1;
                        let begin = usize::from(value) % source.len().max(1);
                        bytes.splice(place..place, source[begin..(begin + 20).min(source.len())].iter().copied());
                    }
                }
            }
            if bytes != original {
                return (from, bytes);
            }
        }
    }

    /// Eve's own key, and nothing sensible under it.
    fn authentic(&mut self) -> Vec<u8> {
        let mut content: Vec<u8> = (0..self.dice.next() % 60).map(|_| self.dice.next() as u8).collect();
        self.index += self.dice.next() % 3;
        if self.dice.per_mille(700) {
            return self.eve.protect(1 + (self.dice.next() % 3) as u32, self.index, &content);
        }
        // A compound whose first packet says what it is, and the rest is anything.
        let kind = 200 + (self.dice.next() % 8) as u8;
        let words = (content.len() / 4) as u8;
        let mut slot = vec![0x80 | (self.dice.next() as u8 & 0x1F), kind, 0, words, 0, 0, 0, 1];
        slot.append(&mut content);
        let len = slot.len();
        slot.resize(len + 32, 0);
        let len = self.eve.outbound.as_mut().unwrap().protect_rtcp(&mut slot, len).unwrap();
        slot.truncate(len);
        slot
    }

    fn one(&mut self) {
        let (mut from, mut bytes) = self.mutated();
        match self.dice.next() % 8 {
            0 => from = self.proved[self.dice.next() as usize % self.proved.len()],
            1 | 2 => from = ([203, 0, 113, 1 + (self.dice.next() % 200) as u8], 1024 + self.dice.next() as u16 % 60_000).into(),
            3 => (from, bytes) = (self.eve.address, self.authentic()),
            _ => {}
        }
        self.world.core.handle(self.world.now, Input::Datagram { link: udp(from), bytes: &mut bytes });
    }

    /// Somebody new, whose handshake is disturbed from its own address.
    fn disturbed_handshake(&mut self, number: u64, count: u64) {
        let raw = Raw::join(&mut self.world, &format!("new{number}"), 10 + (number % 1000) as u16);
        raw.prove(&mut self.world);
        for _ in 0..count {
            let (_, bytes) = self.mutated();
            // Its checks are its own.
            if bytes.first().is_some_and(|first| *first >= 20) {
                self.world.core.handle(self.world.now, Input::Datagram { link: udp(raw.address), bytes: &mut bytes.clone() });
            }
        }
        self.world.tell(Input::Leave { peer: raw.id });
    }

    fn round(&mut self, number: u64) {
        for n in 0..ROUND {
            self.one();
            if n % 64 == 0 {
                self.world.drain();
            }
        }
        if number.is_multiple_of(5) {
            self.disturbed_handshake(number, 500);
        }
        if number.is_multiple_of(100) {
            self.eve.prove(&mut self.world);
        }
        self.world.run(STEP);
        self.world.caught.clear();
        self.world.told.clear();
    }
}

#[test]
fn mutated_datagrams_harm_nobody() {
    let wanted = asked("DATAGRAMS", DATAGRAMS);
    let mut seed = asked("DATAGRAMS_SEED", 1);
    let mut given = 0;
    while given < wanted {
        let mut attack = Attack::new(seed);
        let rounds = ROUNDS_PER_CALL.min((wanted - given).div_ceil(ROUND));
        for number in 0..rounds {
            attack.round(number);
        }
        given += rounds * ROUND;
        assert_eq!(attack.world.counter("peers_ended_by_panic"), 0, "seed {seed}");
        let heard = attack.world.heard(attack.ben, "TR_ann");
        let expected = u128::from(rounds) * STEP.as_millis() / 20;
        assert!(heard.len() as u128 + 3 >= expected, "seed {seed}: {} of {expected} frames came", heard.len());
        assert_eq!(holes(&heard), 0, "seed {seed}");
        assert!(attack.world.clients[attack.ann].signals.iter().all(|signal| !matches!(signal, rtcd_core::output::Signal::Ended { .. })));
        if wanted > DATAGRAMS && given % 25_000_000 == 0 {
            println!("{given} mutated datagrams, the last call by seed {seed}");
        }
        seed += 1;
    }
    println!("{given} mutated datagrams, no panic, no frame lost beside them");
}
