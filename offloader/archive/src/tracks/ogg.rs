//! Ogg Opus (RFC 7845). Time that was silent or lost stays a jump of the granule position.

use std::io::{self, Write};

use bytes::Bytes;

use super::TrackError;
use crate::manifest::Track;
use crate::pause::{Pauses, Verdict};
use crate::read::Recording;
use crate::record::{Gap, GapReason, Packet, Record};

/// Opus timestamps count 48 000 a second (RFC 7587 section 4.1).
const RATE: u64 = 48_000;
/// Samples after which a page is closed: one second, the usual compromise of size and seeking.
const PAGE_SAMPLES: u64 = 48_000;
/// Lacing values in one page.
const PAGE_LACES_MAX: usize = 255;

pub(super) fn write(recording: &Recording, track: &Track, out: &mut impl Write) -> Result<(), TrackError> {
    let channels = u8::try_from(track.info.channels.clamp(1, 2)).unwrap_or(2);
    let mut pages = Pages { out, serial: track.number, sequence: 0, page: Page::default() };
    pages.head(channels)?;
    let mut times = Times { clock: Clock::default(), pauses: Pauses::new(RATE), waiting: Vec::new() };
    for record in recording.records(track.number) {
        let placed = match record? {
            Record::Packet(packet) => times.handle_packet(packet),
            // The numbering may begin anew: go by arrival instead.
            Record::Gap(Gap { reason: GapReason::Worker, .. }) => times.handle_takeover(),
            Record::Gap(_) => Vec::new(),
        };
        pages.push_all(&placed)?;
    }
    pages.push_all(&times.finish())?;
    pages.finish()?;
    Ok(())
}

/// A packet with its time.
struct Placed {
    payload: Bytes,
    start: u64,
    samples: u64,
}

/// Gives each packet its time, a pause that the timestamps do not tell among them.
struct Times {
    clock: Clock,
    pauses: Pauses,
    waiting: Vec<Packet>,
}

impl Times {
    fn handle_packet(&mut self, packet: Packet) -> Vec<Placed> {
        if packet_samples(&packet.payload) == 0 {
            return Vec::new();
        }
        let verdict = self.pauses.handle_packet(packet.at_us, packet.timestamp);
        let before = if matches!(verdict, Verdict::PausedAgain(_)) { self.place_anew() } else { Vec::new() };
        self.waiting.push(packet);
        match verdict {
            Verdict::Wait | Verdict::PausedAgain(_) => before,
            Verdict::Now | Verdict::HeldUp => self.place(),
            Verdict::Paused(_) => self.place_anew(),
        }
    }

    fn handle_takeover(&mut self) -> Vec<Placed> {
        let placed = self.finish();
        self.pauses.forget();
        self.clock.rebase = true;
        placed
    }

    fn finish(&mut self) -> Vec<Placed> {
        if self.pauses.finish().is_some() { self.place_anew() } else { self.place() }
    }

    /// After a pause: by arrival.
    fn place_anew(&mut self) -> Vec<Placed> {
        self.clock.rebase = true;
        self.place()
    }

    fn place(&mut self) -> Vec<Placed> {
        let waiting = std::mem::take(&mut self.waiting);
        let place = |packet: Packet| {
            let samples = packet_samples(&packet.payload);
            Placed { start: self.clock.place(&packet, samples), payload: packet.payload, samples }
        };
        waiting.into_iter().map(place).collect()
    }
}

/// RTP timestamps to samples from the first packet.
#[derive(Default)]
struct Clock {
    first: Option<(i64, u64)>,
    base: u64,
    rebase: bool,
    end: u64,
}

impl Clock {
    fn place(&mut self, packet: &Packet, samples: u64) -> u64 {
        let (first_us, first_timestamp) = match self.first {
            Some(first) if !self.rebase => first,
            Some((first_us, _)) => {
                self.rebase = false;
                let elapsed = u64::try_from(packet.at_us - first_us).unwrap_or(0);
                self.base = (elapsed * 48 / 1000).max(self.end);
                (first_us, packet.timestamp)
            }
            None => (packet.at_us, packet.timestamp),
        };
        self.first = Some((first_us, first_timestamp));
        let start = self.base.saturating_add(packet.timestamp.saturating_sub(first_timestamp)).max(self.end);
        self.end = start + samples;
        start
    }
}

/// Length of an Opus packet in samples at 48 kHz (RFC 6716 section 3.1); 0 if it is not one.
fn packet_samples(payload: &[u8]) -> u64 {
    let Some(toc) = payload.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..16 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => payload.get(1).map_or(0, |count| u64::from(count & 63)),
    };
    // 120 ms is the longest packet there is.
    if frame * frames > 5760 { 0 } else { frame * frames }
}

#[derive(Default)]
struct Page {
    laces: Vec<u8>,
    body: Vec<u8>,
    start: u64,
    end: u64,
}

struct Pages<'a, W: Write> {
    out: &'a mut W,
    serial: u32,
    sequence: u32,
    page: Page,
}

impl<W: Write> Pages<'_, W> {
    fn head(&mut self, channels: u8) -> io::Result<()> {
        let mut head = b"OpusHead\x01".to_vec();
        head.push(channels);
        head.extend_from_slice(&[0, 0]); // pre-skip: the first packet heard is the first recorded
        head.extend_from_slice(&48_000u32.to_le_bytes());
        head.extend_from_slice(&[0, 0, 0]); // gain, mapping family
        self.single(&head, 2)?;
        let vendor = b"conclave";
        let mut tags = b"OpusTags".to_vec();
        tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
        tags.extend_from_slice(vendor);
        tags.extend_from_slice(&0u32.to_le_bytes());
        self.single(&tags, 0)
    }

    fn single(&mut self, body: &[u8], flags: u8) -> io::Result<()> {
        let page = Page { laces: laces(body.len()), body: body.to_vec(), start: 0, end: 0 };
        self.write(&page, flags)
    }

    fn push_all(&mut self, placed: &[Placed]) -> io::Result<()> {
        placed.iter().try_for_each(|placed| self.push(&placed.payload, placed.start, placed.samples))
    }

    fn push(&mut self, payload: &[u8], start: u64, samples: u64) -> io::Result<()> {
        let laces = laces(payload.len());
        let page = &self.page;
        let full = page.laces.len() + laces.len() > PAGE_LACES_MAX || page.end - page.start >= PAGE_SAMPLES;
        // A page's time counts back from its end: a jump must fall between pages.
        if !page.laces.is_empty() && (full || start != page.end) {
            self.flush(0)?;
        }
        if self.page.laces.is_empty() {
            self.page.start = start;
        }
        self.page.laces.extend(laces);
        self.page.body.extend_from_slice(payload);
        self.page.end = start + samples;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush(4)?;
        self.out.flush()
    }

    fn flush(&mut self, flags: u8) -> io::Result<()> {
        let page = std::mem::take(&mut self.page);
        self.page.start = page.end;
        self.page.end = page.end;
        self.write(&page, flags)
    }

    fn write(&mut self, page: &Page, flags: u8) -> io::Result<()> {
        let mut bytes = b"OggS\0".to_vec();
        bytes.push(flags);
        bytes.extend_from_slice(&page.end.to_le_bytes());
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(page.laces.len() as u8);
        bytes.extend_from_slice(&page.laces);
        bytes.extend_from_slice(&page.body);
        let sum = checksum(&bytes);
        bytes[22..26].copy_from_slice(&sum.to_le_bytes());
        self.sequence += 1;
        self.out.write_all(&bytes)
    }
}

/// Opus packets are far below 64 kB: they always fit one page.
fn laces(length: usize) -> Vec<u8> {
    let length = length.min(254 * 255);
    let mut laces = vec![255; length / 255];
    laces.push((length % 255) as u8);
    laces
}

/// CRC-32 of RFC 3533: polynomial 04c11db7, not reflected.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| if sum & 0x8000_0000 == 0 { sum << 1 } else { sum << 1 ^ 0x04c1_1db7 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_lengths_follow_the_toc() {
        assert_eq!(packet_samples(&[0x78]), 960); // hybrid 20 ms
        assert_eq!(packet_samples(&[0x08]), 960); // SILK 20 ms
        assert_eq!(packet_samples(&[0xf8]), 960); // CELT 20 ms
        assert_eq!(packet_samples(&[0xf9, 0]), 1920);
        assert_eq!(packet_samples(&[0xfb, 3]), 2880);
        assert_eq!(packet_samples(&[0xfb, 63]), 0);
        assert_eq!(packet_samples(&[]), 0);
    }

    fn packet(n: u64, at_us: i64, timestamp: u64) -> Packet {
        Packet { at_us, seq: n, timestamp, marker: false, key_frame: false, audio_level: 255, payload: Bytes::from_static(&[0x78, 0]) }
    }

    #[test]
    fn a_mute_that_the_timestamps_do_not_tell_stays_a_jump() {
        let mut times = Times { clock: Clock::default(), pauses: Pauses::new(RATE), waiting: Vec::new() };
        let mut placed = Vec::new();
        let at_ms =
            |n: u64| n * 20 + [(50, 3_000), (53, 1_000), (100, 1_000)].iter().filter(|(from, _)| n >= *from).map(|(_, ms)| ms).sum::<u64>();
        // Muted for 3 s after the first second, for a second after a word of 60 ms, then for another just before the end.
        for n in 0..103_u64 {
            let at_ms = at_ms(n);
            placed.extend(times.handle_packet(packet(n, at_ms as i64 * 1_000, 9_000 + n * 960)));
        }
        placed.extend(times.finish());
        let starts: Vec<u64> = placed.iter().map(|placed| placed.start / 48).collect();
        let expected: Vec<u64> = (0..103).map(at_ms).collect();
        assert_eq!(starts, expected);
        // Another worker's numbers begin anew.
        assert!(times.handle_takeover().is_empty());
        assert_eq!(times.handle_packet(packet(7, 9_000_000, 5))[0].start, 9_000 * 48);
        assert!(times.handle_packet(Packet { payload: Bytes::new(), ..packet(8, 9_020_000, 965) }).is_empty());
    }
}
