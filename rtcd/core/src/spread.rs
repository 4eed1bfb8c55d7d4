//! Which shards a call lives on, who is where, and what each shard has to be told of the others' tracks.
//!
//! A small call lives on one shard, where nothing has to cross. One that outgrows it takes the next, and in the end all. Whoever owns a
//! [`Spread`] asks it about every input and output of its calls, and does what it answers, in that order: then a stand-in is where it is
//! needed before anything is said of it, and gone with the last one who needed it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::{CallId, PeerId, TapId, TrackId};
use crate::input::{Adoption, Input, TapScope};
use crate::limits::TAPS_PER_CALL_MAX;
use crate::output::{Event, Signal};
use crate::relay::Origin;
use crate::shards::{SHARDS_MAX, ShardSet};

/// A shard so busy is not given more while there is one much less so.
const BUSY: f64 = 0.7;

/// See the module.
#[derive(Debug)]
pub struct Spread {
    shards: u8,
    /// Of one call, before another shard is asked.
    people_per_shard: usize,
    calls: HashMap<CallId, Call>,
    peers: HashMap<PeerId, Place>,
    tracks: HashMap<TrackId, Track>,
}

#[derive(Debug)]
struct Call {
    /// How many are on each shard.
    people: Vec<usize>,
    tracks: Vec<TrackId>,
    taps: Vec<(TapId, TapScope)>,
}

#[derive(Debug)]
struct Place {
    call: CallId,
    shard: u8,
    tracks: Vec<TrackId>,
}

#[derive(Debug)]
struct Track {
    call: CallId,
    peer: PeerId,
    shard: u8,
    muted: bool,
    /// What is said of that one holds for this, see [`crate::input::Publish::backup_of`].
    backup_of: Option<TrackId>,
    /// Once it is live.
    origin: Option<Arc<Origin>>,
    /// What was said of it on other shards before.
    choices: Vec<(PeerId, bool)>,
}

/// Something that a shard has to be told beside what comes from outside.
#[derive(Clone, Debug)]
pub enum Order {
    /// See [`Input::Adopt`].
    Adopt(Adoption),
    /// See [`Input::Disown`].
    Disown(TrackId),
    /// See [`Input::AdoptedMuted`].
    Muted(TrackId, bool),
    /// See [`Input::TapOpen`]: a tap follows its call to another shard.
    TapOpen(CallId, TapId, TapScope),
}

impl Order {
    /// For a core.
    #[must_use]
    pub fn as_input(&self) -> Input<'static> {
        match self {
            Self::Adopt(adoption) => Input::Adopt(adoption.clone()),
            Self::Disown(track) => Input::Disown { track: track.clone() },
            Self::Muted(track, muted) => Input::AdoptedMuted { track: track.clone(), muted: *muted },
            Self::TapOpen(call, tap, scope) => Input::TapOpen { call: call.clone(), tap: tap.clone(), scope: *scope },
        }
    }
}

/// Where an input goes.
#[derive(Debug, Default)]
pub struct Routed {
    /// First this.
    pub before: Vec<(u8, Order)>,
    /// Then the input, to each of these shards.
    pub to: ShardSet,
    /// Then this.
    pub after: Vec<(u8, Order)>,
}

impl Routed {
    fn only(shard: u8) -> Self {
        let mut to = ShardSet::EMPTY;
        to.insert(shard);
        Self { to, ..Self::default() }
    }

    fn all(shards: &[u8]) -> Self {
        let mut to = ShardSet::EMPTY;
        shards.iter().for_each(|shard| to.insert(*shard));
        Self { to, ..Self::default() }
    }
}

/// Somebody's new place.
struct Joined {
    shard: u8,
    /// Nobody of the call was there before.
    first: bool,
    /// What that shard has to be told before.
    adopt: Vec<Adoption>,
}

/// Somebody's former place.
struct Left {
    shard: u8,
    /// Its tracks end where they stood in, and its shard needs no stand-ins when nobody of the call is left on it.
    disown: Vec<(u8, Order)>,
}

impl Spread {
    /// For a node with so many shards, of which each takes so many people of one call before another one is asked.
    #[must_use]
    pub fn new(shards: u8, people_per_shard: usize) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX as u8);
        Self { shards, people_per_shard: people_per_shard.max(1), calls: HashMap::new(), peers: HashMap::new(), tracks: HashMap::new() }
    }

    /// Where an input belongs that is about a call, a peer, a track or a tap. Others (datagrams, time, reports) are their shard's own.
    /// `busy`: how busy each shard is, 0…1.
    pub fn route(&mut self, input: &Input<'_>, busy: &[f64]) -> Routed {
        // Whom nobody knows any shard may turn away.
        let of = |spread: &Self, peer: &PeerId| Routed::only(spread.shard_of(peer).unwrap_or(0));
        match input {
            // A second one of one name would be taken for the first.
            Input::Join(join) if self.peers.contains_key(&join.peer) => Routed::default(),
            Input::Join(join) => {
                let Joined { shard, first, adopt } = self.join(&join.call, &join.peer, busy);
                let taps = self.calls.get(&join.call).map(|call| call.taps.as_slice()).filter(|_| first).unwrap_or_default();
                let open = |(tap, scope): &(TapId, TapScope)| (shard, Order::TapOpen(join.call.clone(), tap.clone(), *scope));
                Routed {
                    before: adopt.into_iter().map(|adoption| (shard, Order::Adopt(adoption))).collect(),
                    after: taps.iter().map(open).collect(),
                    ..Routed::only(shard)
                }
            }
            Input::Leave { peer } => match self.leave(peer) {
                Some(left) => Routed { after: left.disown, ..Routed::only(left.shard) },
                None => Routed::only(0),
            },
            Input::Publish(publish) => {
                self.publish(&publish.peer, &publish.track, publish.muted, publish.backup_of.as_ref());
                of(self, &publish.peer)
            }
            Input::Mute { peer, track, muted } => {
                let told = self.mute(peer, track, *muted);
                Routed { before: told, ..of(self, peer) }
            }
            Input::Subscribe { peer, track, wanted } if !self.choose(peer, track, *wanted) => Routed::default(),
            Input::Unpublish { peer, track } => {
                let own = self.tracks.get(track).is_some_and(|track| track.peer == *peer);
                Routed { after: if own { self.disown(track) } else { Vec::new() }, ..of(self, peer) }
            }
            Input::Subscribe { peer, .. }
            | Input::Offer { peer, .. }
            | Input::Answer { peer, .. }
            | Input::Candidate { peer, .. }
            | Input::RestartIce { peer }
            | Input::HoldOffers { peer, .. }
            | Input::AwaitDelivery { peer }
            | Input::Reoffer { peer }
            | Input::TrackSettings { peer, .. }
            | Input::DataRoute { peer, .. }
            | Input::Consent { peer, .. } => of(self, peer),
            Input::SendData { call, .. } => Routed::all(&self.shards_of(call)),
            Input::EndCall { call } => Routed::all(&self.end(call)),
            Input::TapOpen { call, tap, scope } => match self.calls.get_mut(call) {
                // Its cores would refuse it, and nobody would say so: it goes nowhere, so that its reader's queue ends.
                Some(known) if known.taps.len() >= TAPS_PER_CALL_MAX => Routed::default(),
                Some(known) => {
                    known.taps.push((tap.clone(), *scope));
                    Routed::all(&known.shards())
                }
                // It says that there is no such call.
                None => Routed::only(0),
            },
            Input::TapClose { tap } => {
                let call = self.calls.values_mut().find(|call| call.taps.iter().any(|(of, _)| of == tap));
                let Some(call) = call else { return Routed::default() };
                call.taps.retain(|(of, _)| of != tap);
                Routed::all(&call.shards())
            }
            Input::TapKeyFrame { track, .. } => Routed::only(self.tracks.get(track).map_or(0, |track| track.shard)),
            Input::Datagram { .. }
            | Input::LinkClosed { .. }
            | Input::Timeout
            | Input::Report { .. }
            | Input::Adopt(_)
            | Input::Disown { .. }
            | Input::AdoptedMuted { .. }
            | Input::Parcel { .. }
            | Input::RelayRequest { .. } => Routed::default(),
        }
    }

    /// What follows from something that a core told somebody.
    pub fn note_signal(&mut self, peer: &PeerId, signal: &Signal) -> Vec<(u8, Order)> {
        // Who left by itself has been forgotten already.
        let ended = matches!(signal, Signal::Ended { .. });
        ended.then(|| self.leave(peer)).flatten().map(|left| left.disown).unwrap_or_default()
    }

    /// What follows from something that happened in a call.
    pub fn note_event(&mut self, event: &Event) -> Vec<(u8, Order)> {
        let Event::TrackEnded { track, .. } = event else { return Vec::new() };
        self.disown(track)
    }

    /// What follows from a track that went live or changed, see [`crate::Output::Origin`].
    pub fn note_origin(&mut self, origin: Arc<Origin>) -> Vec<(u8, Order)> {
        let Some((adoption, shards)) = self.live(origin) else { return Vec::new() };
        shards.into_iter().map(|shard| (shard, Order::Adopt(adoption.clone()))).collect()
    }

    /// Is anybody of that call here?
    #[must_use]
    pub fn has_call(&self, call: &CallId) -> bool {
        self.calls.contains_key(call)
    }

    /// Is that tap open?
    #[must_use]
    pub fn has_tap(&self, tap: &TapId) -> bool {
        self.calls.values().any(|call| call.taps.iter().any(|(of, _)| of == tap))
    }

    fn join(&mut self, call: &CallId, peer: &PeerId, busy: &[f64]) -> Joined {
        let entry = self.calls.entry(call.clone()).or_insert_with(|| Call {
            people: vec![0; usize::from(self.shards)],
            tracks: Vec::new(),
            taps: Vec::new(),
        });
        let shard = entry.place(self.people_per_shard, busy);
        let first = entry.people.get(usize::from(shard)).is_some_and(|people| *people == 0);
        if let Some(people) = entry.people.get_mut(usize::from(shard)) {
            *people += 1;
        }
        let tracks = if first { entry.tracks.as_slice() } else { &[] };
        let adopt = tracks.iter().filter_map(|track| self.tracks.get(track)).filter(|track| track.shard != shard);
        let adopt = adopt.filter_map(Track::adoption).collect();
        self.peers.insert(peer.clone(), Place { call: call.clone(), shard, tracks: Vec::new() });
        Joined { shard, first, adopt }
    }

    fn leave(&mut self, peer: &PeerId) -> Option<Left> {
        let own = self.peers.get(peer)?.tracks.clone();
        let mut disown: Vec<(u8, Order)> = own.iter().flat_map(|track| self.disown(track)).collect();
        let place = self.peers.remove(peer)?;
        if let Some(call) = self.calls.get_mut(&place.call) {
            if let Some(people) = call.people.get_mut(usize::from(place.shard)) {
                *people = people.saturating_sub(1);
                if *people == 0 {
                    let elsewhere = |track: &&TrackId| {
                        self.tracks.get(*track).is_some_and(|track| track.shard != place.shard && track.origin.is_some())
                    };
                    disown.extend(call.tracks.iter().filter(elsewhere).map(|track| (place.shard, Order::Disown(track.clone()))));
                }
            }
            if call.people.iter().all(|people| *people == 0) {
                self.calls.remove(&place.call);
            }
        }
        for track in self.calls.get(&place.call).into_iter().flat_map(|call| &call.tracks) {
            if let Some(track) = self.tracks.get_mut(track) {
                track.choices.retain(|(of, _)| of != peer);
            }
        }
        Some(Left { shard: place.shard, disown })
    }

    /// The shard somebody is on.
    #[must_use]
    pub fn shard_of(&self, peer: &PeerId) -> Option<u8> {
        self.peers.get(peer).map(|place| place.shard)
    }

    /// All shards a call lives on.
    #[must_use]
    pub fn shards_of(&self, call: &CallId) -> Vec<u8> {
        self.calls.get(call).map(Call::shards).unwrap_or_default()
    }

    fn publish(&mut self, peer: &PeerId, track: &TrackId, muted: bool, backup_of: Option<&TrackId>) {
        let Some(place) = self.peers.get_mut(peer) else { return };
        let Some(call) = self.calls.get_mut(&place.call) else { return };
        if self.tracks.contains_key(track) {
            return;
        }
        call.tracks.push(track.clone());
        place.tracks.push(track.clone());
        let entry = Track {
            call: place.call.clone(),
            peer: peer.clone(),
            shard: place.shard,
            muted,
            backup_of: backup_of.cloned(),
            origin: None,
            choices: Vec::new(),
        };
        self.tracks.insert(track.clone(), entry);
    }

    /// What to tell, and whom.
    fn mute(&mut self, peer: &PeerId, track: &TrackId, muted: bool) -> Vec<(u8, Order)> {
        let Some(place) = self.peers.get(peer) else { return Vec::new() };
        let others: Vec<u8> = self.shards_of(&place.call).into_iter().filter(|shard| *shard != place.shard).collect();
        let mut told = Vec::new();
        for own in &place.tracks {
            let Some(entry) = self.tracks.get_mut(own) else { continue };
            // Its backup too: the cores that know both do so by themselves, one that comes later has it from here.
            if own == track || entry.backup_of.as_ref() == Some(track) {
                entry.muted = muted;
                if entry.origin.is_some() {
                    told.extend(others.iter().map(|shard| (*shard, Order::Muted(own.clone(), muted))));
                }
            }
        }
        told
    }

    /// What to tell, and whom.
    fn live(&mut self, origin: Arc<Origin>) -> Option<(Adoption, Vec<u8>)> {
        let entry = self.tracks.get_mut(origin.track())?;
        entry.origin = Some(origin);
        let adoption = entry.adoption()?;
        let (call, shard) = (entry.call.clone(), entry.shard);
        Some((adoption, self.others(&call, shard)))
    }

    fn disown(&mut self, track: &TrackId) -> Vec<(u8, Order)> {
        self.ended(track).into_iter().map(|shard| (shard, Order::Disown(track.clone()))).collect()
    }

    /// Who else has to know.
    fn ended(&mut self, track: &TrackId) -> Vec<u8> {
        let Some(entry) = self.tracks.remove(track) else { return Vec::new() };
        if let Some(call) = self.calls.get_mut(&entry.call) {
            call.tracks.retain(|other| other != track);
        }
        if let Some(place) = self.peers.get_mut(&entry.peer) {
            place.tracks.retain(|other| other != track);
        }
        if entry.origin.is_some() { self.others(&entry.call, entry.shard) } else { Vec::new() }
    }

    /// False: the shard of who chooses does not know the track yet; it is told with it.
    fn choose(&mut self, peer: &PeerId, track: &TrackId, wanted: bool) -> bool {
        let Some(place) = self.peers.get(peer) else { return true };
        let Some(entry) = self.tracks.get_mut(track).filter(|track| track.call == place.call && track.shard != place.shard) else {
            return true;
        };
        entry.choices.retain(|(of, _)| of != peer);
        entry.choices.push((peer.clone(), wanted));
        entry.origin.is_some()
    }

    /// The shards it lived on.
    fn end(&mut self, call: &CallId) -> Vec<u8> {
        self.peers.retain(|_, place| place.call != *call);
        self.tracks.retain(|_, track| track.call != *call);
        self.calls.remove(call).map(|call| call.shards()).unwrap_or_default()
    }

    fn others(&self, call: &CallId, shard: u8) -> Vec<u8> {
        self.shards_of(call).into_iter().filter(|other| *other != shard).collect()
    }
}

impl Call {
    fn shards(&self) -> Vec<u8> {
        (0..).zip(&self.people).filter(|(_, people)| **people > 0).map(|(shard, _)| shard).collect()
    }

    /// Where the next one goes.
    fn place(&self, people_per_shard: usize, busy: &[f64]) -> u8 {
        let all = || 0..self.people.len();
        let people = |shard: usize| self.people.get(shard).copied().unwrap_or(0);
        let load = |shard: usize| busy.get(shard).copied().unwrap_or(0.0);
        let has_room = |shard: &usize| people(*shard) < people_per_shard;
        let least = all().map(load).fold(f64::INFINITY, f64::min);
        let strained = |shard: &usize| load(*shard) >= BUSY && least < BUSY / 2.0;
        // The fullest first, so that a call that shrinks and grows again does not scatter.
        let roomy = all().filter(|shard| people(*shard) > 0 && has_room(shard) && !strained(shard));
        let fullest = roomy.max_by_key(|shard| (people(*shard), std::cmp::Reverse(*shard)));
        // Then an untouched shard before a busy one; in a call that fills all of them, evenly.
        let least_busy = || all().filter(has_room).min_by(|a, b| load(*a).total_cmp(&load(*b)).then(people(*a).cmp(&people(*b))));
        let emptiest = || all().min_by(|a, b| people(*a).cmp(&people(*b)).then(load(*a).total_cmp(&load(*b))));
        let shard = fullest.or_else(least_busy).or_else(emptiest).unwrap_or(0);
        u8::try_from(shard).unwrap_or(0)
    }
}

impl Track {
    fn adoption(&self) -> Option<Adoption> {
        Some(Adoption { origin: Arc::clone(self.origin.as_ref()?), muted: self.muted, choices: self.choices.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEOPLE_PER_SHARD: usize = 48;

    fn call(name: &str) -> CallId {
        CallId::new(name).unwrap()
    }

    fn peer(n: usize) -> PeerId {
        PeerId::new(&format!("PA_{n}")).unwrap()
    }

    fn origin(of: &str, number: usize, shard: u8) -> Arc<Origin> {
        Arc::new(Origin {
            call: call(of),
            peer: peer(number),
            track: TrackId::new(&format!("TR_{number}")).unwrap(),
            shard,
            number: number as u64,
            kind: crate::ids::Kind::Audio,
            source: crate::ids::Source::Microphone,
            stereo: false,
            dtx: false,
            announced: Vec::new(),
            rids: vec![String::new()],
            codecs: Vec::new(),
            backup_of: None,
        })
    }

    #[test]
    fn small_calls_stay_together_and_large_ones_fill_every_shard_evenly() {
        let mut spread = Spread::new(8, PEOPLE_PER_SHARD);
        for n in 0..PEOPLE_PER_SHARD {
            spread.join(&call("small"), &peer(n), &[0.0; 8]);
        }
        assert_eq!(spread.shards_of(&call("small")).len(), 1);
        for n in 1000..2000 {
            spread.join(&call("large"), &peer(n), &[0.0; 8]);
        }
        assert_eq!(spread.shards_of(&call("large")).len(), 8);
        let people = &spread.calls[&call("large")].people;
        assert!(people.iter().all(|people| *people == 125), "{people:?}");
    }

    #[test]
    fn new_calls_go_to_the_least_busy_shard_and_strained_ones_get_no_more() {
        let mut spread = Spread::new(3, PEOPLE_PER_SHARD);
        assert_eq!(spread.join(&call("a"), &peer(0), &[0.5, 0.1, 0.3]).shard, 1);
        assert_eq!(spread.join(&call("a"), &peer(1), &[0.0, 0.2, 0.0]).shard, 1, "together");
        assert_eq!(spread.join(&call("a"), &peer(2), &[0.6, 0.9, 0.1]).shard, 2, "its shard is strained");
        assert_eq!(spread.join(&call("a"), &peer(3), &[0.9, 0.9, 0.9]).shard, 1, "all are");
    }

    #[test]
    fn a_stand_in_is_told_where_it_is_needed_and_nowhere_else() {
        let mut spread = Spread::new(2, PEOPLE_PER_SHARD);
        let joined = spread.join(&call("c"), &peer(0), &[0.0, 0.5]);
        assert_eq!((joined.shard, joined.adopt.len()), (0, 0));
        let track = TrackId::new("TR_0").unwrap();
        spread.publish(&peer(0), &track, false, None);
        assert!(spread.mute(&peer(0), &track, true).is_empty(), "nobody else has it");
        let (_, told) = spread.live(origin("c", 0, 0)).unwrap();
        assert!(told.is_empty());
        // Its shard is strained: the next ones go elsewhere.
        let joined = spread.join(&call("c"), &peer(1), &[0.9, 0.1]);
        assert_eq!((joined.shard, joined.adopt.len()), (1, 1));
        assert!(joined.adopt[0].muted);
        let joined = spread.join(&call("c"), &peer(2), &[0.9, 0.1]);
        assert_eq!((joined.shard, joined.adopt.len()), (1, 0), "is there already");
        let told = spread.mute(&peer(0), &track, false);
        assert!(matches!(told.as_slice(), [(1, Order::Muted(of, false))] if *of == track), "{told:?}");
        assert!(spread.mute(&peer(1), &track, true).is_empty(), "not its own");
        assert!(spread.leave(&peer(1)).unwrap().disown.is_empty());
        let left = spread.leave(&peer(2)).unwrap();
        assert!(matches!(left.disown.as_slice(), [(1, Order::Disown(gone))] if *gone == track), "{:?}", left.disown);
        assert!(spread.leave(&peer(2)).is_none());
        assert!(spread.leave(&peer(0)).unwrap().disown.is_empty(), "nobody else has it any longer");
        assert!(spread.calls.is_empty() && spread.peers.is_empty() && spread.tracks.is_empty());
    }

    #[test]
    fn a_backup_is_muted_and_unmuted_with_its_original() {
        let mut spread = Spread::new(2, PEOPLE_PER_SHARD);
        spread.join(&call("c"), &peer(0), &[0.0, 0.5]);
        let (track, backup) = (TrackId::new("TR_0").unwrap(), TrackId::new("TR_1").unwrap());
        spread.publish(&peer(0), &track, true, None);
        spread.publish(&peer(0), &backup, true, Some(&track));
        spread.mute(&peer(0), &track, false);
        for number in [0, 1] {
            spread.live(origin("c", number, 0)).unwrap();
        }
        let joined = spread.join(&call("c"), &peer(1), &[0.9, 0.1]);
        assert_eq!(joined.adopt.iter().map(|adoption| adoption.muted).collect::<Vec<_>>(), [false, false]);
        // Both are said: the original may end or not be live yet.
        assert_eq!(spread.mute(&peer(0), &track, true).len(), 2);
        assert_eq!(spread.mute(&peer(0), &backup, false).len(), 1);
    }

    #[test]
    fn a_choice_before_the_track_is_live_travels_with_it() {
        let mut spread = Spread::new(2, PEOPLE_PER_SHARD);
        spread.join(&call("c"), &peer(0), &[0.0, 0.5]);
        spread.join(&call("c"), &peer(1), &[0.9, 0.1]);
        let track = TrackId::new("TR_0").unwrap();
        spread.publish(&peer(0), &track, false, None);
        assert!(!spread.choose(&peer(1), &track, false));
        let (adoption, told) = spread.live(origin("c", 0, 0)).unwrap();
        assert_eq!((adoption.choices, told), (vec![(peer(1), false)], vec![1]));
        assert!(spread.choose(&peer(1), &track, true), "now it is told at once");
        assert_eq!(spread.end(&call("c")), [0, 1]);
        assert!(spread.peers.is_empty() && spread.tracks.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_people_who_came_and_went() {
        let mut spread = Spread::new(4, PEOPLE_PER_SHARD);
        for round in 0..50 {
            for n in 0..100 {
                spread.join(&call("c"), &peer(n), &[0.1 * f64::from(round % 7); 4]);
                let track = TrackId::new(&format!("TR_{n}")).unwrap();
                spread.publish(&peer(n), &track, false, None);
                let shard = spread.shard_of(&peer(n)).unwrap();
                spread.live(origin("c", n, shard));
            }
            for n in 0..100 {
                // The order in which the core says it: tracks end first.
                spread.ended(&TrackId::new(&format!("TR_{n}")).unwrap());
                spread.leave(&peer(n));
            }
            assert!(spread.calls.is_empty() && spread.peers.is_empty() && spread.tracks.is_empty());
        }
    }
}
