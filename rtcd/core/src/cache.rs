//! The clear text of the last packets of one incoming layer: written once, read by every viewer, every retransmission and every tap.
//!
//! One ring of bytes and one of entries. It starts small and grows while what it drops is younger than
//! [`KEEP_MS`] and its publisher has room for it; so a microphone stays at a few KiB and a 4 Mbit/s screen share gets what retransmission needs.

use std::time::{Duration, Instant};

use crate::limits::{CACHE_BYTES_MAX, CACHE_ENTRIES_MAX, HISTORY_BYTES_MAX};
use crate::room::{Room, Share};
use crate::rtp::{Extensions, Header};
use crate::srtp::ReplayWindow;
use crate::svc::Part;

/// Age up to which packets should be kept: three round trips of 150 ms and the receiver's patience.
const KEEP_MS: u64 = 600;
/// First size: 1.2 s of Opus at 32 kbit/s.
const BYTES_AT_FIRST: usize = 8 * 1024;
const ENTRIES_AT_FIRST: usize = 64;

/// One packet, as it was parsed on arrival. Header offsets count from the packet's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Extended sequence number as the publisher counts.
    pub(crate) seq: u64,
    /// Its header.
    pub(crate) header: Header,
    /// Where the known header extensions lie.
    pub(crate) extensions: Extensions,
    /// The same, counted without what is kept back from all viewers (see [`crate::thinning`]).
    pub(crate) number: u64,
    /// First packet of a key frame.
    pub(crate) key_frame: bool,
    /// The frame it is part of, in streams with layers inside.
    pub(crate) part: Part,
    /// When it came.
    pub(crate) at: Instant,
    // Where its bytes start, counted from the ring's birth.
    start: u64,
    len: u32,
}

/// What is known of a packet before it is stored.
pub(crate) struct Arrived {
    pub(crate) seq: u64,
    pub(crate) header: Header,
    pub(crate) extensions: Extensions,
    pub(crate) key_frame: bool,
    pub(crate) part: Part,
    pub(crate) at: Instant,
}

/// What became of a packet given to [`Cache::store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is new and kept.
    Kept,
    /// It came before, or is older than anybody remembers.
    Seen,
    /// Newer packets took its place.
    TooOld,
}

/// The ring. Empty until the first packet.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Cache {
    entries: Vec<Option<Entry>>,
    bytes: Vec<u8>,
    // Next byte to write, counted from the ring's birth.
    head: u64,
    // Which round of the ring is being written, and since when.
    lap: Option<u64>,
    lap_began: Option<Instant>,
    seen: ReplayWindow,
    share: Share,
}

impl Cache {
    /// A ring in its publisher's room.
    pub(crate) fn new(room: &Room) -> Self {
        Self { share: Share::of(room), ..Self::default() }
    }

    /// Copies a clear packet (header and payload, no padding) into the ring.
    pub(crate) fn store(&mut self, arrived: &Arrived, packet: &[u8]) -> Stored {
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES_AT_FIRST, None);
            self.bytes.resize(BYTES_AT_FIRST, 0);
            // Nobody is left without: there are only so many layers.
            self.share.take(self.memory(), usize::MAX);
        }
        if !self.seen.is_new(arrived.seq) {
            return Stored::Seen;
        }
        match self.slot(arrived.seq) {
            Some(old) if old.seq > arrived.seq => return Stored::TooOld,
            Some(old) if self.young(old, arrived.at) && self.entries.len() < CACHE_ENTRIES_MAX => self.grow_entries(),
            Some(_) | None => {}
        }
        self.seen.note(arrived.seq);
        let len = packet.len();
        let mut start = self.place_for(len);
        while self.bytes.len() < CACHE_BYTES_MAX && (len > self.bytes.len() || self.laps_too_fast(start, arrived.at)) && self.grow_bytes() {
            start = self.place_for(len);
        }
        let size = self.bytes.len();
        let lap = start / size as u64;
        if self.lap != Some(lap) {
            (self.lap, self.lap_began) = (Some(lap), Some(arrived.at));
        }
        let at = (start % size as u64) as usize;
        let Some(place) = self.bytes.get_mut(at..at + len) else { return Stored::TooOld };
        place.copy_from_slice(packet);
        self.head = start + len as u64;
        let index = self.index(arrived.seq);
        if let Some(slot) = self.entries.get_mut(index) {
            *slot = Some(Entry {
                seq: arrived.seq,
                number: arrived.seq,
                header: arrived.header,
                extensions: arrived.extensions,
                key_frame: arrived.key_frame,
                part: arrived.part,
                at: arrived.at,
                start,
                len: len as u32,
            });
        }
        Stored::Kept
    }

    /// A packet and its bytes, if they are still here.
    #[inline]
    pub(crate) fn get(&self, seq: u64) -> Option<(&Entry, &[u8])> {
        let entry = self.slot(seq).filter(|entry| entry.seq == seq)?;
        let bytes = self.bytes_of(entry)?;
        Some((entry, bytes))
    }

    /// Says under which number a packet leaves.
    #[inline]
    pub(crate) fn renumber(&mut self, seq: u64, number: u64) {
        let index = self.index(seq);
        if let Some(entry) = self.entries.get_mut(index).and_then(Option::as_mut)
            && entry.seq == seq
        {
            entry.number = number;
        }
    }

    /// Memory held, bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Option<Entry>>()
    }

    /// Gives the memory back (the track was muted). What came once is still known: a viewer must never get two packets
    /// under one number, since both would be encrypted with the same key stream.
    pub(crate) fn clear(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.restart();
        self.seen = seen;
    }

    /// The publisher counts from anywhere now.
    pub(crate) fn restart(&mut self) {
        self.share.give_back();
        *self = Self { share: std::mem::take(&mut self.share), ..Self::default() };
    }

    #[inline]
    fn index(&self, seq: u64) -> usize {
        // A power of two.
        (seq as usize) & (self.entries.len().wrapping_sub(1))
    }

    #[inline]
    fn slot(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(self.index(seq))?.as_ref()
    }

    fn bytes_of(&self, entry: &Entry) -> Option<&[u8]> {
        let size = self.bytes.len() as u64;
        // Overwritten as soon as the head is a whole ring ahead of its start.
        if size == 0 || self.head > entry.start + size {
            return None;
        }
        let at = (entry.start % size) as usize;
        self.bytes.get(at..at + entry.len as usize)
    }

    fn young(&self, entry: &Entry, now: Instant) -> bool {
        now.saturating_duration_since(entry.at) < Duration::from_millis(KEEP_MS)
    }

    /// Packets lie in one piece: one that would cross the ring's end starts at its front.
    fn place_for(&self, len: usize) -> u64 {
        let size = self.bytes.len() as u64;
        let left = size - self.head % size;
        if left < len as u64 { self.head + left } else { self.head }
    }

    /// A new lap starts to overwrite what the last one began with; was that too short a while ago?
    fn laps_too_fast(&self, start: u64, now: Instant) -> bool {
        let lap = start / self.bytes.len() as u64;
        self.lap.is_some_and(|current| lap != current)
            && self.lap_began.is_some_and(|began| now.saturating_duration_since(began) < Duration::from_millis(KEEP_MS))
    }

    fn grow_entries(&mut self) {
        if !self.share.take(self.entries.len() * size_of::<Option<Entry>>(), HISTORY_BYTES_MAX) {
            return;
        }
        let old = std::mem::take(&mut self.entries);
        self.entries.resize(old.len() * 2, None);
        for entry in old.into_iter().flatten() {
            let index = self.index(entry.seq);
            if let Some(slot) = self.entries.get_mut(index) {
                *slot = Some(entry);
            }
        }
    }

    /// Twice as large, if there is room.
    fn grow_bytes(&mut self) -> bool {
        if !self.share.take(self.bytes.len(), HISTORY_BYTES_MAX) {
            return false;
        }
        let began = self.lap_began;
        let mut larger = Self { entries: vec![None; self.entries.len()], bytes: vec![0; self.bytes.len() * 2], ..Self::default() };
        let mut kept: Vec<Entry> = self.entries.iter().flatten().copied().collect();
        kept.sort_unstable_by_key(|entry| entry.start);
        for entry in kept {
            let Some(bytes) = self.bytes_of(&entry) else { continue };
            let start = larger.place_for(bytes.len());
            let at = (start % larger.bytes.len() as u64) as usize;
            if let Some(place) = larger.bytes.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
                larger.head = start + bytes.len() as u64;
                let index = larger.index(entry.seq);
                if let Some(slot) = larger.entries.get_mut(index) {
                    *slot = Some(Entry { start, ..entry });
                }
            }
        }
        larger.lap = Some(larger.head / larger.bytes.len() as u64);
        larger.lap_began = began;
        larger.seen = std::mem::take(&mut self.seen);
        larger.share = std::mem::take(&mut self.share);
        *self = larger;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u64, len: usize) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend((seq as u16).to_be_bytes());
        packet.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        packet.resize(len.max(12), seq as u8);
        packet
    }

    fn arrived(seq: u64, at: Instant) -> Arrived {
        let header = Header::parse(&packet(seq, 12)).unwrap();
        Arrived { seq, header, extensions: Extensions::default(), key_frame: false, part: Part::default(), at }
    }

    #[test]
    fn keeps_what_retransmission_needs_and_drops_the_rest() {
        let start = Instant::now();
        let mut cache = Cache::default();
        // 300 packets of 1100 bytes, one each 3 ms: 600 ms are 200 packets.
        for n in 0..300u64 {
            let at = start + Duration::from_millis(n * 3);
            assert_eq!(cache.store(&arrived(70_000 + n, at), &packet(70_000 + n, 1100)), Stored::Kept);
        }
        for n in 110..300u64 {
            let (entry, bytes) = cache.get(70_000 + n).unwrap();
            assert_eq!((entry.seq, bytes), (70_000 + n, &packet(70_000 + n, 1100)[..]));
        }
        assert!(cache.get(70_300).is_none());
        assert!(cache.memory() <= 1024 * 1024, "{}", cache.memory());
    }

    #[test]
    fn a_microphone_stays_small() {
        let start = Instant::now();
        let mut cache = Cache::default();
        for n in 0..500u64 {
            cache.store(&arrived(n, start + Duration::from_millis(n * 20)), &packet(n, 120));
        }
        assert!(cache.memory() < 32 * 1024, "{}", cache.memory());
        assert!(cache.get(499).is_some() && cache.get(475).is_some());
    }

    #[test]
    fn what_one_publisher_sends_is_remembered_within_its_room() {
        let start = Instant::now();
        let room = Room::default();
        let mut rings: Vec<Cache> = (0..48).map(|_| Cache::new(&room)).collect();
        // 8 Mbit/s each: every ring would grow to its own bound.
        for n in 0..1200u64 {
            for ring in &mut rings {
                assert_eq!(ring.store(&arrived(n, start + Duration::from_millis(n)), &packet(n, 1000)), Stored::Kept);
            }
        }
        let held = |rings: &[Cache]| rings.iter().map(Cache::memory).sum::<usize>();
        assert!(held(&rings) <= HISTORY_BYTES_MAX, "{}", held(&rings));
        assert_eq!(held(&rings), room.taken());
        // Who came late has what newcomers have, and the newest packet of everybody is there.
        assert!(rings.iter().all(|ring| ring.get(1199).is_some()));
        // Of two that are left, each gets what it needs.
        rings.truncate(2);
        rings.iter_mut().for_each(Cache::restart);
        for n in 5000..6200u64 {
            for ring in &mut rings {
                ring.store(&arrived(n, start + Duration::from_millis(n)), &packet(n, 500));
            }
        }
        assert!(rings.iter().all(|ring| ring.get(5620).is_some()), "{}", held(&rings));
        rings.clear();
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn duplicates_and_relics_are_refused() {
        let now = Instant::now();
        let mut cache = Cache::default();
        assert_eq!(cache.store(&arrived(500, now), &packet(500, 50)), Stored::Kept);
        assert_eq!(cache.store(&arrived(500, now), &packet(500, 50)), Stored::Seen);
        cache.clear();
        assert_eq!(cache.store(&arrived(500, now), &packet(500, 50)), Stored::Seen);
        let later = now + Duration::from_secs(5);
        for n in 502..600 {
            cache.store(&arrived(n, later), &packet(n, 50));
        }
        assert_eq!(cache.store(&arrived(500, later), &packet(500, 50)), Stored::Seen);
        assert_eq!(cache.store(&arrived(501, later), &packet(501, 50)), Stored::Kept);
    }
}
