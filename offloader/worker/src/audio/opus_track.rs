//! One track's Opus packets to runs of samples on the wall clock.
//!
//! Losses inside a run are repaired as far as Opus can (the next packet's FEC, then concealment, then silence); a longer hole
//! (mute, DTX, a reader that was too slow) ends the run. Silence that nobody sent costs nothing here. A pause that the timestamps do not
//! tell ends it too, see `archive::pause`.

use archive::pause::{Pauses, Verdict};

use crate::audio::clock::RtpClock;
use crate::limits;

/// Why a packet could not be made into sound. The packet is skipped; the track goes on.
#[derive(Debug, thiserror::Error)]
#[error("Opus: {0}")]
pub struct OpusError(#[from] opus::Error);

/// A piece of sound. Pieces with the same `run` follow one another without a hole.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Counts up with each run of this track.
    pub run: u32,
    /// Unix µs of the first sample.
    pub start_us: i64,
    /// Interleaved if there are two channels.
    pub samples: Vec<f32>,
}

/// Decodes one track at the rate and channel count that is wanted.
pub struct OpusTrack {
    decoder: opus::Decoder,
    clock: RtpClock,
    rate: usize,
    channels: usize,
    buffer: Vec<f32>,
    run: u32,
    /// Start of the run, samples a channel given out in it, and what the next packet should carry.
    open: Option<OpenRun>,
    pauses: Pauses,
    /// Packets after what may be a pause.
    held: Vec<Held>,
    /// Packets that Opus refused.
    pub bad_packets: u64,
    /// Packets whose sound was rebuilt from the next one's FEC or concealed.
    pub concealed: u64,
}

/// A packet that waits.
struct Held {
    at_us: i64,
    seq: u64,
    timestamp: u64,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct OpenRun {
    start_us: i64,
    samples: usize,
    next_seq: u64,
    next_timestamp: u64,
    first_timestamp: u64,
}

/// Opus RTP timestamps always count 48 000 a second (RFC 7587 section 4.1).
const RTP_RATE: u64 = 48_000;

impl OpusTrack {
    /// A decoder giving `rate` (8, 12, 16, 24 or 48 kHz) and `channels` (1 or 2).
    pub fn new(rate: u32, channels: u8) -> Result<Self, OpusError> {
        let layout = if channels == 2 { opus::Channels::Stereo } else { opus::Channels::Mono };
        Ok(Self {
            decoder: opus::Decoder::new(rate, layout)?,
            clock: RtpClock::new(RTP_RATE as u32),
            rate: rate as usize,
            channels: if channels == 2 { 2 } else { 1 },
            buffer: vec![0.0; limits::OPUS_PACKET_SAMPLES * 2],
            run: 0,
            open: None,
            pauses: Pauses::new(RTP_RATE),
            held: Vec::new(),
            bad_packets: 0,
            concealed: 0,
        })
    }

    /// Told that another worker took the recording over: sequence numbers and timestamps may begin anew.
    /// Gives the sound of what waited.
    pub fn handle_takeover(&mut self) -> Vec<Piece> {
        let pieces = self.finish();
        self.open = None;
        self.clock = RtpClock::new(RTP_RATE as u32);
        self.pauses.forget();
        pieces
    }

    /// Told of a packet; gives its sound, with what was missing before it filled in, and of those that waited. Packets must come in
    /// sequence order.
    pub fn handle_packet(&mut self, at_us: i64, seq: u64, timestamp: u64, payload: &[u8]) -> Vec<Piece> {
        let verdict = self.pauses.handle_packet(at_us, timestamp);
        if verdict == Verdict::Now {
            return self.decode(at_us, seq, timestamp, payload).into_iter().collect();
        }
        let before = if let Verdict::PausedAgain(seen_us) = verdict { self.go_on_at(seen_us) } else { Vec::new() };
        self.held.push(Held { at_us, seq, timestamp, payload: payload.to_vec() });
        match verdict {
            Verdict::Now | Verdict::HeldUp => self.release(),
            Verdict::Wait | Verdict::PausedAgain(_) => before,
            Verdict::Paused(seen_us) => self.go_on_at(seen_us),
        }
    }

    /// Nothing more comes for a while, or at all: gives the sound of what waited, which came after a pause.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.pauses.finish().map_or_else(Vec::new, |seen_us| self.go_on_at(seen_us))
    }

    fn go_on_at(&mut self, seen_us: i64) -> Vec<Piece> {
        self.clock.restart(seen_us);
        self.open = None;
        self.release()
    }

    fn release(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        held.iter().filter_map(|held| self.decode(held.at_us, held.seq, held.timestamp, &held.payload)).collect()
    }

    fn decode(&mut self, at_us: i64, seq: u64, timestamp: u64, payload: &[u8]) -> Option<Piece> {
        let sent_us = self.clock.handle_packet(at_us, timestamp);
        let length = match opus::packet::get_nb_samples(payload, RTP_RATE as u32) {
            Ok(length) if length > 0 => length as u64,
            _ => {
                self.bad_packets += 1;
                return None;
            }
        };
        if let Some(open) = self.open {
            let backwards = timestamp < open.next_timestamp;
            let hole = timestamp.saturating_sub(open.next_timestamp);
            let next_us = open.start_us + (open.samples + self.scaled(hole)) as i64 * 1_000_000 / self.rate as i64;
            let elsewhere = (sent_us - next_us).abs() > limits::RUN_BREAK.as_micros() as i64;
            if backwards || elsewhere || hole > limits::RUN_BREAK.as_millis() as u64 * RTP_RATE / 1_000 {
                self.open = None;
            }
        }
        let mut samples = Vec::new();
        let (run, before) = match self.open {
            None => {
                self.run += 1;
                // A decoder that has been idle would fade from what it said last.
                let _ = self.decoder.reset_state();
                let open = OpenRun { start_us: sent_us, samples: 0, next_seq: seq, next_timestamp: timestamp, first_timestamp: timestamp };
                (open, 0)
            }
            Some(open) => {
                let lost = seq.saturating_sub(open.next_seq);
                self.fill(timestamp - open.next_timestamp, lost, length, payload, &mut samples);
                (open, open.samples)
            }
        };
        match self.decoder.decode_float(payload, &mut self.buffer, false) {
            Ok(got) => samples.extend_from_slice(&self.buffer[..got * self.channels]),
            Err(_) => {
                self.bad_packets += 1;
                samples.resize(samples.len() + self.scaled(length) * self.channels, 0.0);
            }
        }
        let given = before + samples.len() / self.channels;
        self.open = Some(OpenRun { samples: given, next_seq: seq + 1, next_timestamp: timestamp + length, ..run });
        let start_us = run.start_us + (before as i64 * 1_000_000) / self.rate as i64;
        Some(Piece { run: self.run, start_us, samples })
    }

    /// Samples a channel given out in the open run against those its timestamps ask for; tests hold this at zero.
    pub fn drift_samples(&self) -> i64 {
        self.open.map_or(0, |open| open.samples as i64 - self.scaled(open.next_timestamp - open.first_timestamp) as i64)
    }

    fn scaled(&self, rtp: u64) -> usize {
        (rtp as usize * self.rate) / RTP_RATE as usize
    }

    /// Makes up `missing` timestamp units before a packet: concealment, at the end the packet's FEC, silence for the rest.
    fn fill(&mut self, missing: u64, lost_packets: u64, length: u64, payload: &[u8], out: &mut Vec<f32>) {
        if missing == 0 {
            return;
        }
        let wanted = self.scaled(missing) * self.channels;
        let end = out.len() + wanted;
        if lost_packets > 0 {
            self.concealed += lost_packets;
            let frame = self.scaled(length).max(1);
            let frames = (missing / length.max(1)).max(1);
            let concealable = limits::CONCEAL.as_millis() as u64 * RTP_RATE / 1_000 / length.max(1);
            for n in 0..frames {
                let last = n + 1 == frames;
                // Only the last hole's content is in the next packet; hidden losses deeper than 100 ms become silence.
                if !last && n >= concealable {
                    out.resize((out.len() + frame * self.channels).min(end), 0.0);
                    continue;
                }
                let source: &[u8] = if last { payload } else { &[] };
                match self.decoder.decode_float(source, &mut self.buffer[..frame * self.channels], last) {
                    Ok(got) => out.extend_from_slice(&self.buffer[..got * self.channels]),
                    Err(_) => out.resize(out.len() + frame * self.channels, 0.0),
                }
            }
        }
        // No packet was lost: the sender paused (DTX). What is left over is silence.
        out.resize(end, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(seconds: usize) -> Vec<Vec<u8>> {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        encoder.set_inband_fec(true).unwrap();
        encoder.set_packet_loss_perc(20).unwrap();
        (0..seconds * 50)
            .map(|n| {
                let frame: Vec<f32> = (0..960)
                    .map(|k| {
                        let t = (n * 960 + k) as f32 / 48_000.0;
                        (t * 300.0 * std::f32::consts::TAU).sin() * 0.3 * (1.0 + (t * 4.0).sin()) / 2.0
                    })
                    .collect();
                encoder.encode_vec_float(&frame, 1_275).unwrap()
            })
            .collect()
    }

    #[test]
    fn lost_packets_are_filled_so_that_time_stays_right() {
        let packets = encoded(4);
        let mut track = OpusTrack::new(16_000, 1).unwrap();
        let mut samples = 0;
        for (n, packet) in packets.iter().enumerate() {
            if n % 7 == 2 || (60..63).contains(&n) {
                continue;
            }
            let [piece] = &track.handle_packet(n as i64 * 20_000, n as u64, n as u64 * 960, packet)[..] else { panic!("one piece") };
            assert_eq!(piece.run, 1);
            assert!((piece.start_us - samples as i64 * 1_000_000 / 16_000).abs() < 100);
            samples += piece.samples.len();
        }
        assert_eq!(samples, 4 * 16_000);
        assert_eq!(track.drift_samples(), 0);
        assert!(track.concealed > 25);
    }

    #[test]
    fn a_pause_starts_a_new_run_at_the_right_time() {
        let packets = encoded(1);
        let mut track = OpusTrack::new(16_000, 1).unwrap();
        let mut last = None;
        for (n, packet) in packets.iter().enumerate() {
            // The speaker mutes for 10 s in the middle; the timestamps go on.
            let at = n as u64 + if n >= 25 { 500 } else { 0 };
            last = track.handle_packet(at as i64 * 20_000, n as u64, at * 960, packet).pop();
        }
        let last = last.unwrap();
        assert_eq!(last.run, 2);
        assert_eq!(last.start_us, (49 + 500) * 20_000);
    }

    /// Where the sound of each packet is, in ms, when packet n comes at `at_ms(n)` and the timestamps tell of no pause.
    fn placed(packets: &[Vec<u8>], at_ms: impl Fn(u64) -> u64) -> Vec<i64> {
        let mut track = OpusTrack::new(16_000, 1).unwrap();
        let mut pieces = Vec::new();
        for (n, packet) in (0..).zip(packets) {
            pieces.extend(track.handle_packet(at_ms(n) as i64 * 1_000, n, n * 960, packet));
        }
        pieces.extend(track.finish());
        assert_eq!(pieces.len(), packets.len(), "each packet is heard once");
        pieces.iter().map(|piece| (piece.start_us + 500) / 1_000).collect()
    }

    #[test]
    fn a_pause_that_the_timestamps_do_not_tell_is_one() {
        let packets = encoded(3);
        // Muted for 7 s after the first second, and for 2 s after the second: each packet is said when it comes.
        let said = |n: u64| n * 20 + if n >= 50 { 7_000 } else { 0 } + if n >= 100 { 2_000 } else { 0 };
        let expected: Vec<i64> = (0..150).map(|n| said(n) as i64).collect();
        assert_eq!(placed(&packets, said), expected);
        // On a way that is never even.
        let shaky = placed(&packets, |n| said(n) + [0, 31, 9, 55, 2][n as usize % 5]);
        let worst = shaky.iter().zip(&expected).map(|(is, should)| (is - should).abs()).max();
        assert!(worst <= Some(60), "{worst:?} ms");
        // One word, and muted again; for good, or to say more.
        let short = placed(&packets[..55], said);
        assert_eq!(short[50..], expected[50..55]);
        let twice = |n: u64| said(n) + if n >= 55 { 4_000 } else { 0 };
        assert_eq!(placed(&packets[..100], twice), (0..100).map(|n| twice(n) as i64).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_network_held_up_was_said_before() {
        let packets = encoded(3);
        let evenly: Vec<i64> = (0..150).map(|n| n * 20).collect();
        // Two seconds stood still, and came at once, or twice as fast as they were said.
        assert_eq!(placed(&packets, |n| if (40..140).contains(&n) { 2_800 } else { n * 20 }), evenly);
        let faster = placed(&packets, |n| if (40..150).contains(&n) { 2_800 + (n - 40) * 2 } else { n * 20 });
        assert_eq!(faster, evenly);
        // One packet was sent again, twice.
        assert_eq!(placed(&packets, |n| if n == 60 { 2_400 } else { n * 20 }), evenly);
    }

    #[test]
    fn after_a_takeover_the_time_line_goes_on_whatever_the_timestamps_say() {
        let packets = encoded(1);
        let mut track = OpusTrack::new(16_000, 1).unwrap();
        for (n, packet) in packets.iter().enumerate() {
            track.handle_packet(n as i64 * 20_000, 9_000 + n as u64, 5_000_000 + n as u64 * 960, packet);
        }
        track.handle_takeover();
        let piece = track.handle_packet(9_000_000, 3, 17, &packets[0]).remove(0);
        assert_eq!((piece.run, piece.start_us), (2, 9_000_000));
    }

    #[test]
    fn rubbish_is_counted_and_skipped() {
        let mut track = OpusTrack::new(16_000, 1).unwrap();
        for (n, payload) in [&[][..], &[0xff; 3], &[0x03, 0xff], &[0u8; 1]].iter().enumerate() {
            track.handle_packet(n as i64, n as u64, n as u64 * 960, payload);
        }
        assert!(track.bad_packets >= 1);
    }
}
