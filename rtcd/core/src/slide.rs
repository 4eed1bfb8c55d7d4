//! Whole key frames of a shared screen, for viewers whose way is too narrow to follow it: each gets one after the other, as fast as its
//! way carries them.
//!
//! Kept once per incoming layer and shared by all such viewers, and only while there are some.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Entry};
use crate::limits::{SLIDE_BYTES_MAX, SLIDE_PACKETS_MAX, SLIDES_BYTES_MAX};
use crate::room::{Room, Share};

/// Nobody asked for so long: nothing is kept any more.
const KEPT_FOR: Duration = Duration::from_secs(3);

/// One key frame, all packets of it.
#[derive(Debug)]
pub(crate) struct Slide {
    first: u64,
    packets: Vec<(Entry, Range<usize>)>,
    bytes: Vec<u8>,
    // As long as a viewer is not through with it.
    _share: Share,
}

impl Slide {
    /// The publisher's number of its first packet, which tells it from others.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// One of its packets.
    pub(crate) fn packet(&self, index: usize) -> Option<(&Entry, &[u8])> {
        let (entry, range) = self.packets.get(index)?;
        Some((entry, self.bytes.get(range.clone())?))
    }

    /// Which of its packets leaves under this number (see [`Entry::number`]).
    pub(crate) fn index_of(&self, number: u64) -> Option<usize> {
        self.packets.binary_search_by_key(&number, |(entry, _)| entry.number).ok()
    }
}

/// A key frame that comes in.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    first: u64,
    timestamp: u32,
    last: Option<u64>,
}

/// Those of one layer.
#[derive(Debug)]
pub(crate) struct Slides {
    wanted_at: Instant,
    gathering: Option<Gathering>,
    newest: Option<Arc<Slide>>,
    room: Room,
}

impl Slides {
    pub(crate) fn new(now: Instant, room: &Room) -> Self {
        Self { wanted_at: now, gathering: None, newest: None, room: room.clone() }
    }

    /// There is a viewer that takes them.
    pub(crate) fn want(&mut self, now: Instant) {
        self.wanted_at = now;
    }

    /// Is there none any more?
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.wanted_at) > KEPT_FOR
    }

    pub(crate) fn newest(&self) -> Option<&Arc<Slide>> {
        self.newest.as_ref()
    }

    /// A packet was stored. True: with it a slide is whole.
    pub(crate) fn note(&mut self, cache: &Cache, seq: u64) -> bool {
        let Some((entry, _)) = cache.get(seq) else { return false };
        let timestamp = entry.header.timestamp;
        if entry.key_frame && self.gathering.is_none_or(|gathering| gathering.timestamp != timestamp) {
            self.gathering = Some(Gathering { first: seq, timestamp, last: None });
        }
        let Some(gathering) = self.gathering.as_mut().filter(|gathering| gathering.timestamp == timestamp && gathering.first <= seq) else {
            return false;
        };
        if entry.header.marker {
            gathering.last = Some(seq);
        }
        let Gathering { first, last: Some(last), .. } = *gathering else { return false };
        let count = last.saturating_sub(first).saturating_add(1);
        let packets = || (first..=last).map(|seq| cache.get(seq));
        let len: usize = packets().flatten().map(|(_, packet)| packet.len()).sum();
        if count > SLIDE_PACKETS_MAX as u64 || len > SLIDE_BYTES_MAX {
            self.gathering = None;
            return false;
        }
        if packets().any(|packet| packet.is_none()) {
            return false;
        }
        let mut share = Share::of(&self.room);
        if !share.take(len + count as usize * size_of::<(Entry, Range<usize>)>(), SLIDES_BYTES_MAX) {
            // The next one finds room, if this is what it lacks.
            (self.newest, self.gathering) = (None, None);
            return false;
        }
        let mut slide = Slide { first, packets: Vec::with_capacity(count as usize), bytes: Vec::with_capacity(len), _share: share };
        // Padding of the publisher's in between is passed on to nobody, and has no number of its own.
        for (entry, packet) in packets().flatten().filter(|(entry, packet)| packet.len() > entry.header.len) {
            let start = slide.bytes.len();
            slide.bytes.extend_from_slice(packet);
            slide.packets.push((*entry, start..slide.bytes.len()));
        }
        (self.newest, self.gathering) = (Some(Arc::new(slide)), None);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Arrived;
    use crate::rtp::{Extensions, Header};

    struct Stage {
        slides: Slides,
        cache: Cache,
        now: Instant,
    }

    impl Stage {
        fn new() -> Self {
            let now = Instant::now();
            Self { slides: Slides::new(now, &Room::default()), cache: Cache::default(), now }
        }

        fn come(&mut self, seq: u64, timestamp: u32, key_frame: bool, marker: bool, len: usize) -> bool {
            let mut packet = vec![seq as u8; 12 + len];
            packet[..12].copy_from_slice(&[0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            let mut header = Header::parse(&packet).unwrap();
            (header.timestamp, header.marker) = (timestamp, marker);
            self.cache.store(
                &Arrived { seq, header, extensions: Extensions::default(), key_frame, part: crate::svc::Part::default(), at: self.now },
                &packet,
            );
            self.slides.note(&self.cache, seq)
        }
    }

    #[test]
    fn a_key_frame_is_a_slide_once_all_of_it_is_there() {
        let mut stage = Stage::new();
        assert!(!stage.come(10, 1, false, true, 100));
        assert!(!stage.come(11, 2, true, false, 100));
        assert!(!stage.come(14, 2, false, true, 100));
        assert!(!stage.come(15, 3, false, true, 100), "of the next frame");
        assert!(!stage.come(12, 2, false, false, 100));
        assert!(stage.come(13, 2, false, false, 100), "sent again");
        let slide = stage.slides.newest().unwrap();
        assert_eq!((slide.first(), slide.index_of(14), slide.index_of(15), slide.index_of(10)), (11, Some(3), None, None));
        assert_eq!(slide.packet(2).unwrap().1[12], 13);
        assert!(slide.packet(4).is_none());
        assert!(stage.come(16, 4, true, true, 100));
        assert_eq!(stage.slides.newest().unwrap().first(), 16);
    }

    #[test]
    fn what_is_too_large_is_none() {
        let mut stage = Stage::new();
        let count = (SLIDE_BYTES_MAX / 1000 + 1) as u64;
        assert!((0..count).all(|n| !stage.come(n, 1, n == 0, n + 1 == count, 1000)));
        assert!(stage.slides.newest().is_none());
        assert!(stage.come(count, 2, true, true, 1000));
    }

    #[test]
    fn it_is_over_when_nobody_wants_it() {
        let mut slides = Slides::new(Instant::now(), &Room::default());
        let now = slides.wanted_at;
        assert!(!slides.is_over(now + KEPT_FOR) && slides.is_over(now + KEPT_FOR * 2));
        slides.want(now + KEPT_FOR);
        assert!(!slides.is_over(now + KEPT_FOR * 2));
    }
}
