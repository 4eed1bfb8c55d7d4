//! One random world: its steps, and what must hold.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use rtcd_core::ids::{Channel, Kind, Source};
use rtcd_core::input::{Join, TrackSettings, Transports};
use rtcd_core::output::{EndReason, Event, Signal};
use rtcd_core::{Input, PeerId, Planted, TrackId};

use crate::world::{Dice, End, Given, Heard, MS, Profile, World, call, count, read_vp8};

/// Everything that can go wrong here; each must be met in one of a hundred worlds at least.
pub const FAULTS: [&str; 29] = [
    "loss",
    "jitter",
    "narrow way",
    "cut",
    "leave",
    "return",
    "mute",
    "unpublish",
    "restart by server",
    "restart by client",
    "address moved",
    "signalling lost",
    "unsubscribed",
    "consent taken back",
    "forged packets",
    "verbs in the wrong state",
    "bug in a packet",
    "bug in sending",
    "bug in a timer",
    "bug in the ending",
    "tap opened",
    "tap closed",
    "several shards",
    "way between shards full",
    "duplicates",
    "damage",
    "camera",
    "simulcast",
    "key frame asked for",
];

/// At most so many people at once: five microphones are heard.
const PEOPLE_MAX: usize = 4;
/// What may still be on its way when a microphone is muted or its owner leaves, and what may be asked for again.
const AFTERGLOW: Duration = Duration::from_millis(700);

/// So long after the faults have stopped every camera is seen as well as it can be.
const PICTURES_BACK_S: u64 = 20;

struct Person {
    client: usize,
    here: bool,
    deaf: bool,
    /// Met a planted bug, or will: nothing is promised of them any more.
    doomed: bool,
    moved: bool,
    consent: bool,
    microphone: Option<Microphone>,
    camera: Option<Camera>,
    unwanted: HashSet<String>,
}

struct Camera {
    track: String,
    /// The best of its layers.
    best: u8,
}

struct Microphone {
    track: String,
    producer: usize,
    mark: u8,
    silent_since: Option<Instant>,
}

pub struct Run {
    world: World,
    dice: Dice,
    people: Vec<Person>,
    /// Every microphone there ever was, and its mark.
    marks: BTreeMap<String, u8>,
    /// Whose microphone: for consent.
    owners: BTreeMap<String, usize>,
    tap: Option<String>,
    taps: usize,
    /// Tap packets looked at, by tap.
    looked: BTreeMap<String, usize>,
    names: usize,
    reached: BTreeSet<&'static str>,
    planted: bool,
    moved: bool,
    events: usize,
    began: Instant,
    /// Says what happens.
    tell: bool,
}

impl Run {
    pub fn new(seed: u64, tell: bool) -> Self {
        let shards = [1, 2, 8][seed as usize % 3];
        let mut world = if shards > 1 { World::with_shards(seed as u8, shards) } else { World::new(seed as u8) };
        world.dice = Dice::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        world.numbers = Some(std::collections::HashMap::new());
        let reached = if shards > 1 { BTreeSet::from(["several shards"]) } else { BTreeSet::new() };
        Self {
            began: world.now,
            world,
            dice: Dice::new(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5DEE_CE66),
            people: Vec::new(),
            marks: BTreeMap::new(),
            owners: BTreeMap::new(),
            tap: None,
            taps: 0,
            looked: BTreeMap::new(),
            names: 0,
            reached,
            planted: false,
            moved: false,
            events: 0,
            tell,
        }
    }

    fn say(&self, what: &str) {
        if self.tell {
            println!("{:>6} ms  {what}", (self.world.now - self.began).as_millis());
        }
    }

    fn met(&mut self, fault: &'static str) {
        assert!(FAULTS.contains(&fault), "{fault} is in no list");
        self.reached.insert(fault);
    }

    /// Plays it to its end; answers the faults that it met.
    pub fn play(mut self) -> BTreeSet<&'static str> {
        for _ in 0..2 {
            self.join();
        }
        self.publish_microphone(0);
        for _ in 0..8 + self.dice.next() % 6 {
            self.step();
            let slice = 40 + self.dice.next() % 260;
            self.pass(Duration::from_millis(slice));
        }
        self.calm();
        self.everybody_hears_everybody();
        self.everybody_sees_every_camera();
        self.all_go();
        self.reached
    }

    fn here(&self) -> Vec<usize> {
        (0..self.people.len()).filter(|who| self.people[*who].here && !self.people[*who].doomed).collect()
    }

    fn somebody(&mut self) -> Option<usize> {
        let here = self.here();
        (!here.is_empty()).then(|| here[self.dice.next() as usize % here.len()])
    }

    fn join(&mut self) {
        if self.here().len() >= PEOPLE_MAX {
            return;
        }
        self.names += 1;
        let client = self.world.join(&format!("p{}", self.names));
        self.say(&format!("p{} joins", self.names));
        self.people.push(Person {
            client,
            here: true,
            deaf: false,
            doomed: false,
            moved: false,
            consent: false,
            microphone: None,
            camera: None,
            unwanted: HashSet::new(),
        });
    }

    fn publish_microphone(&mut self, who: usize) {
        if self.people[who].microphone.is_some() {
            return;
        }
        self.names += 1;
        let (name, mark) = (format!("m{}", self.names), self.names as u8);
        let producer = self.world.microphone(self.people[who].client, &name);
        self.world.producers[producer].mark = Some(mark);
        // Ten packets a second are enough to see where they go.
        self.world.producers[producer].every = 100 * MS;
        let track = format!("TR_{name}");
        self.say(&format!("person {who} publishes {track}"));
        self.marks.insert(track.clone(), mark);
        self.owners.insert(track.clone(), who);
        self.people[who].microphone = Some(Microphone { track, producer, mark, silent_since: None });
    }

    fn publish_camera(&mut self, who: usize) {
        if self.people[who].camera.is_some() {
            return;
        }
        self.names += 1;
        let name = format!("c{}", self.names);
        let rids: &[&str] = if self.dice.per_mille(500) { &["q", "h"] } else { &[] };
        self.people[who].camera = Some(Camera { track: format!("TR_{name}"), best: u8::from(!rids.is_empty()) });
        let producer = self.world.publish(self.people[who].client, &name, Kind::Video, Source::Camera, rids, false);
        self.world.producers[producer].every = 200 * MS;
        // Up to 0.3 Mbit/s: more than a narrow way carries.
        self.world.producers[producer].frame_packets = if rids.is_empty() { vec![4] } else { vec![2, 8] };
        self.world.producers[producer].key_packets = 12;
        self.met(if rids.is_empty() { "camera" } else { "simulcast" });
        self.say(&format!("person {who} shows a camera"));
    }

    fn step(&mut self) {
        let Some(who) = self.somebody() else { return self.join() };
        let client = self.people[who].client;
        let peer = self.world.peer(client);
        match self.dice.next() % 24 {
            0 | 1 => self.join(),
            2 => {
                if self.here().len() > 1 {
                    self.met("leave");
                    self.leave(who);
                    if self.dice.per_mille(500) {
                        self.met("return");
                        self.join();
                    }
                }
            }
            3..=5 => self.publish_microphone(who),
            6 => self.publish_camera(who),
            7 | 8 => self.mute(who),
            9 => {
                if let Some(microphone) = self.people[who].microphone.take() {
                    self.met("unpublish");
                    self.say(&format!("person {who} takes {} back", microphone.track));
                    self.world.producers[microphone.producer].running = false;
                    self.world.tell(Input::Unpublish { peer, track: TrackId::new(&microphone.track).unwrap() });
                }
            }
            10 => {
                self.met("restart by server");
                self.world.tell(Input::RestartIce { peer });
            }
            11 => {
                if self.world.clients[client].connections.contains_key(&End::Publish) {
                    self.met("restart by client");
                    self.world.restart_publisher(client);
                }
            }
            12 => {
                let end = if self.dice.per_mille(500) { End::Publish } else { End::Subscribe };
                if self.world.clients[client].connections.get(&end).is_some_and(|connection| connection.connected) {
                    self.met("address moved");
                    self.say(&format!("{end:?} of person {who} moves"));
                    self.people[who].moved = true;
                    self.moved = true;
                    self.names += 1;
                    self.world.move_address(client, end, 30_000 + self.names as u16);
                }
            }
            13..=15 => self.network(who),
            16 => {
                if !self.people[who].deaf {
                    self.met("signalling lost");
                    self.say(&format!("person {who} does not answer any more"));
                    self.people[who].deaf = true;
                    self.world.clients[client].deaf = true;
                }
            }
            17 => self.want(who),
            18 => self.consent(who),
            19 => self.tap(),
            20 => self.forge(client),
            21 => self.wrong_verbs(),
            22 => {
                if !self.planted && self.here().len() > 1 && self.dice.per_mille(700) {
                    self.planted = true;
                    self.people[who].doomed = true;
                    let (place, fault) = [
                        (Planted::Packet, "bug in a packet"),
                        (Planted::Sending, "bug in sending"),
                        (Planted::Timer, "bug in a timer"),
                        (Planted::Ending, "bug in the ending"),
                    ][self.dice.next() as usize % 4];
                    self.met(fault);
                    self.say(&format!("person {who} meets a bug: {place:?}"));
                    self.world.plant_bug(&peer, place);
                }
            }
            _ => {
                let settings = TrackSettings { disabled: false, layer_max: 1, width: 320, height: 180, fps: 0, priority: 1 };
                if let Some(track) = self.any_track() {
                    self.world.tell(Input::TrackSettings { peer, track, settings });
                }
            }
        }
    }

    fn leave(&mut self, who: usize) {
        self.say(&format!("person {who} leaves"));
        let now = self.world.now;
        let person = &mut self.people[who];
        person.here = false;
        if let Some(microphone) = &mut person.microphone {
            microphone.silent_since.get_or_insert(now);
            self.world.producers[microphone.producer].running = false;
        }
        let client = person.client;
        for producer in self.world.producers.iter_mut().filter(|producer| producer.client == client) {
            producer.running = false;
        }
        let peer = self.world.peer(client);
        self.world.tell(Input::Leave { peer });
        self.world.clients[client].connections.clear();
    }

    fn mute(&mut self, who: usize) {
        let now = self.world.now;
        let peer = self.world.peer(self.people[who].client);
        let Some(microphone) = &mut self.people[who].microphone else { return };
        let muted = microphone.silent_since.is_none();
        microphone.silent_since = muted.then_some(now);
        let track = TrackId::new(&microphone.track).unwrap();
        self.met("mute");
        self.say(&format!("person {who} muted: {muted}"));
        // The browser goes on sending; what counts is that nobody hears it.
        self.world.tell(Input::Mute { peer, track, muted });
    }

    fn network(&mut self, who: usize) {
        let mut profile = Profile { delay: Duration::from_millis(5 + self.dice.next() % 60), ..Profile::default() };
        let loss = 20 + (self.dice.next() % 180) as u32;
        if self.dice.per_mille(150)
            && let Some(shards) = &mut self.world.shards
        {
            shards.full = loss;
            self.met("way between shards full");
        }
        match self.dice.next() % 8 {
            0 => {
                self.met("loss");
                (profile.loss_up, profile.loss_down) = (loss, loss);
            }
            1 => {
                self.met("jitter");
                profile.jitter = Duration::from_millis(1 + self.dice.next() % 60);
            }
            2 => {
                self.met("narrow way");
                profile.down_bps = 64_000 + self.dice.next() % 500_000;
            }
            3 | 4 => {
                self.met("cut");
                (profile.loss_up, profile.loss_down) = (1000, 1000);
            }
            5 => {
                self.met("duplicates");
                profile.twice_up = 2 * loss;
            }
            6 => {
                self.met("damage");
                profile.damaged_up = loss;
            }
            _ => {}
        }
        self.say(&format!("network of person {who}: {profile:?}"));
        self.world.set_profile(self.people[who].client, profile);
    }

    fn any_track(&mut self) -> Option<TrackId> {
        let tracks: Vec<String> = self.people.iter().filter_map(|person| person.microphone.as_ref()).map(|one| one.track.clone()).collect();
        (!tracks.is_empty()).then(|| TrackId::new(&tracks[self.dice.next() as usize % tracks.len()]).unwrap())
    }

    fn want(&mut self, who: usize) {
        let Some(track) = self.any_track() else { return };
        let peer = self.world.peer(self.people[who].client);
        let wanted = !self.people[who].unwanted.insert(track.as_str().to_owned());
        if wanted {
            self.people[who].unwanted.remove(track.as_str());
        }
        self.met("unsubscribed");
        self.say(&format!("person {who} wants {}: {wanted}", track.as_str()));
        self.world.tell(Input::Subscribe { peer, track, wanted });
    }

    fn consent(&mut self, who: usize) {
        let granted = !self.people[who].consent;
        if !granted {
            self.met("consent taken back");
        }
        self.say(&format!("person {who} may be recorded: {granted}"));
        self.people[who].consent = granted;
        let peer = self.world.peer(self.people[who].client);
        self.world.tell(Input::Consent { peer, granted });
    }

    fn tap(&mut self) {
        match self.tap.take() {
            Some(tap) if self.dice.per_mille(400) => {
                self.met("tap closed");
                self.world.tell(Input::TapClose { tap: rtcd_core::TapId::new(&tap).unwrap() });
            }
            Some(tap) => {
                if let Some(track) = self.any_track() {
                    self.met("key frame asked for");
                    self.world.tell(Input::TapKeyFrame { tap: rtcd_core::TapId::new(&tap).unwrap(), track });
                }
                self.tap = Some(tap);
            }
            None => {
                self.taps += 1;
                let name = format!("tap{}", self.taps);
                self.say(&format!("{name} opens"));
                self.met("tap opened");
                self.world.open_tap(&name, true);
                self.tap = Some(name);
            }
        }
    }

    /// Packets without a key, from strangers and in the client's name.
    fn forge(&mut self, client: usize) {
        let Some(own) = self.world.clients[client].connections.values().next().map(|connection| connection.address) else { return };
        self.met("forged packets");
        for n in 0..20u16 {
            let first = [0x80, 0x90, 22, 0x00, 0x40][self.dice.next() as usize % 5];
            let mut bytes: Vec<u8> = (0..12 + self.dice.next() % 100).map(|_| self.dice.next() as u8).collect();
            bytes[0] = first;
            let from = if n % 2 == 0 { own } else { ([203, 0, 113, 7], 1000 + n).into() };
            self.world.inject(from, &bytes);
        }
        assert!(!self.world.sent_to.iter().any(|to| to.ip() == std::net::IpAddr::from([203, 0, 113, 7])), "a stranger got an answer");
    }

    /// Somebody whose messages come in any order: descriptions that fit nothing, verbs about others, twice, after leaving.
    fn wrong_verbs(&mut self) {
        self.met("verbs in the wrong state");
        let ghost = PeerId::new("PA_ghost").unwrap();
        for _ in 0..1 + self.dice.next() % 6 {
            let peer = ghost.clone();
            let track = self.any_track();
            match self.dice.next() % 11 {
                0 | 1 => self.world.tell(Input::Join(Box::new(Join {
                    call: call(),
                    peer,
                    transports: if self.dice.per_mille(500) { Transports::Single } else { Transports::Two },
                    audio_levels: false,
                    can_publish: true,
                    can_subscribe: false,
                    can_publish_data: false,
                    auto_subscribe: true,
                    adaptive_stream: false,
                    playout_delay: None,
                }))),
                2 => self.world.tell(Input::Leave { peer }),
                3 => self.world.tell(Input::Offer { peer, sdp: "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", id: 1 }),
                4 => self.world.tell(Input::Answer { peer, sdp: "v=0\r\n", id: 7 }),
                5 => self.world.tell(Input::RestartIce { peer }),
                6 => self.world.tell(Input::Consent { peer, granted: true }),
                7 => {
                    if let Some(track) = track {
                        self.world.tell(Input::Mute { peer, track, muted: true });
                    }
                }
                8 => {
                    if let Some(track) = track {
                        self.world.tell(Input::Unpublish { peer, track });
                    }
                }
                9 => {
                    if let Some(track) = track {
                        self.world.tell(Input::Subscribe { peer, track, wanted: true });
                    }
                }
                _ => self.world.tell(Input::SendData { call: call(), to: &[peer], channel: Channel::Reliable, text: false, payload: b"x" }),
            }
        }
        self.world.tell(Input::Leave { peer: ghost });
        self.world.told.clear();
    }

    /// Lets time pass, then looks at what came of it.
    fn pass(&mut self, time: Duration) {
        let began: Vec<bool> = self.people.iter().map(|person| person.consent).collect();
        let heard = self.heard_so_far();
        let from = self.world.now;
        self.world.run(time);
        self.world.caught.clear();
        // What left is compared with what left shortly before: numbers are not met again later, they only grow.
        self.right_voices(&heard, from);
        self.consented(&began);
        self.no_early_end();
        let panics = self.world.counter("peers_ended_by_panic");
        assert!(panics <= if self.planted { 2 } else { 0 }, "{panics} panics");
        for person in self.people.iter().filter(|person| person.here && !person.doomed) {
            let ended = self.world.clients[person.client].signals.iter().find(|signal| matches!(signal, Signal::Ended { .. }));
            assert_eq!(ended, None, "somebody was ended");
        }
    }

    /// How much each has heard by now.
    fn heard_so_far(&self) -> Vec<usize> {
        self.people.iter().map(|person| self.world.clients[person.client].heard.len()).collect()
    }

    /// What was heard is of the track it came under, once each, and of nobody who was silent.
    fn right_voices(&self, before: &[usize], from: Instant) {
        for (person, before) in self.people.iter().zip(before) {
            let heard = &self.world.clients[person.client].heard;
            for packet in heard[*before..].iter().filter(|packet| packet.track.starts_with("TR_m")) {
                let mark = self.marks[&packet.track];
                assert_eq!(packet.payload.last(), Some(&mark), "somebody else's sound under {}", packet.track);
                if let Some(microphone) =
                    self.people.iter().filter_map(|person| person.microphone.as_ref()).find(|one| one.track == packet.track)
                    && let Some(since) = microphone.silent_since
                {
                    assert!(from <= since + AFTERGLOW, "{} was heard after it fell silent", packet.track);
                }
            }
            let mut seen = HashSet::new();
            for packet in heard.iter().filter(|packet| packet.track.starts_with("TR_m")) {
                assert!(seen.insert((packet.track.clone(), count(packet))), "{} twice", packet.track);
            }
        }
    }

    /// The tap was given nothing of people who had not agreed.
    fn consented(&mut self, before: &[bool]) {
        for (tap, given) in &self.world.given {
            let looked = self.looked.entry(tap.clone()).or_default();
            for item in &given[*looked..] {
                if let Given::Packet { track, .. } = item
                    && let Some(owner) = self.owners.get(track.as_str())
                {
                    let person = &self.people[*owner];
                    assert!(person.consent || before[*owner], "{} was recorded without a yes", track.as_str());
                }
            }
            *looked = given.len();
        }
    }

    fn no_early_end(&mut self) {
        let new = &self.world.events[self.events..];
        assert!(!new.iter().any(|event| matches!(event, Event::Ended)) || self.here().is_empty(), "the call ended with people in it");
        self.events = self.world.events.len();
    }

    /// The faults stop.
    fn calm(&mut self) {
        if let Some(shards) = &mut self.world.shards {
            shards.full = 0;
        }
        for who in 0..self.people.len() {
            let client = self.people[who].client;
            // Answers that come at once are another world than those of a real way.
            let delay = if self.dice.per_mille(500) { Duration::ZERO } else { Profile::default().delay };
            self.world.set_profile(client, Profile { delay, ..Profile::default() });
            if self.people[who].here && std::mem::take(&mut self.people[who].deaf) {
                self.world.clients[client].deaf = false;
                let peer = self.world.peer(client);
                self.world.tell(Input::RestartIce { peer });
            }
        }
        // A client that moved finds out with its next checks; a handshake that lost packets repeats them after up to four seconds.
        let seconds = if self.moved { 16 } else { 7 };
        for _ in 0..seconds {
            self.pass(Duration::from_secs(1));
        }
    }

    fn everybody_hears_everybody(&mut self) {
        let here = self.here();
        let before = self.heard_so_far();
        self.pass(Duration::from_secs(2));
        for listener in &here {
            for speaker in here.iter().filter(|speaker| *speaker != listener) {
                let Some(microphone) = &self.people[*speaker].microphone else { continue };
                if microphone.silent_since.is_some() || self.people[*listener].unwanted.contains(&microphone.track) {
                    continue;
                }
                let heard = &self.world.clients[self.people[*listener].client].heard[before[*listener]..];
                let came = heard.iter().filter(|packet| packet.track == microphone.track).count();
                if came < 15 {
                    self.explain(&[*listener, *speaker]);
                }
                assert!(came >= 15, "person {listener} hears {came} of 20 packets of person {speaker} after the faults have stopped");
            }
        }
    }

    /// At its best, once a way that was narrow is found to be wide again.
    fn everybody_sees_every_camera(&mut self) {
        let here = self.here();
        let mut missing = Vec::new();
        for _ in 0..PICTURES_BACK_S {
            let before = self.heard_so_far();
            self.pass(Duration::from_secs(1));
            missing.clear();
            for viewer in &here {
                let seen = &self.world.clients[self.people[*viewer].client].heard[before[*viewer]..];
                for shown in here.iter().filter(|shown| *shown != viewer) {
                    let Some(Camera { track, best }) = &self.people[*shown].camera else { continue };
                    // Of five frames.
                    let of_best = |heard: &&Heard| heard.track == *track && read_vp8(&heard.payload).1 == *best;
                    let frames: BTreeSet<u32> = seen.iter().filter(of_best).map(|heard| heard.timestamp).collect();
                    if frames.len() < 3 {
                        missing.push((*viewer, *shown));
                    }
                }
            }
            if missing.is_empty() {
                return;
            }
        }
        let (viewer, shown) = missing[0];
        self.explain(&[viewer, shown]);
        panic!("person {viewer} does not see the camera of person {shown} {PICTURES_BACK_S} s after the faults have stopped");
    }

    /// What the core knows of some people, for who looks at a world that failed.
    fn explain(&mut self, people: &[usize]) {
        if !self.tell {
            return;
        }
        let counters = self.world.ask_report().counters;
        println!("counters: {:?}", counters.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>());
        for who in people {
            let diagnosis = self.world.diagnose(self.people[*who].client);
            println!("person {who}: {diagnosis:#?}");
        }
    }

    /// When all have gone nothing is left.
    fn all_go(&mut self) {
        for who in 0..self.people.len() {
            if self.people[who].here {
                self.leave(who);
            }
        }
        self.world.run(100 * MS);
        let report = self.world.ask_report();
        assert_eq!(report.calls.len(), 0, "a call is left");
        let ended = self
            .world
            .clients
            .iter()
            .flat_map(|client| &client.signals)
            .filter(|signal| matches!(signal, Signal::Ended { reason: EndReason::Internal }));
        assert!(ended.count() <= usize::from(self.planted), "ended by a bug that nobody planted");
    }
}
