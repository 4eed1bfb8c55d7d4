//! Our own ends: numbers, history, feedback as it is on the wire, and the estimate. Only ciphers and headers are left out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtcd_core::bwe::{BandwidthEstimate, Care, Wanted};
use rtcd_core::rtcp::{Packet, RtcpWriter, SendHistory, TwccRecorder, parse};

use crate::source::{FRAME, Frames, OVERHEAD, Source};
use crate::way::Ends;

pub struct Ours {
    begun: Instant,
    source: Source,
    frames: Frames,
    next_frame: Duration,
    history: SendHistory,
    estimate: BandwidthEstimate,
    recorder: TwccRecorder,
    out: VecDeque<(bool, Vec<u8>)>,
    media_bytes: u64,
}

impl Ours {
    pub fn new(source: Source) -> Self {
        #[allow(clippy::disallowed_methods, reason = "a simulation has to start at some moment")]
        let begun = Instant::now();
        Self {
            begun,
            source,
            frames: Frames::default(),
            next_frame: Duration::ZERO,
            history: SendHistory::new(),
            estimate: BandwidthEstimate::new(),
            recorder: TwccRecorder::new(),
            out: VecDeque::new(),
            media_bytes: 0,
        }
    }
}

impl Ours {
    fn send(&mut self, now: Instant, len: usize, padding: bool) {
        let number = self.history.send(now, len);
        let mut bytes = vec![u8::from(padding); len];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        self.out.push_back((true, bytes));
    }
}

impl Ends for Ours {
    fn next(&mut self) -> Duration {
        let others = [self.recorder.poll_timeout(), self.estimate.poll_timeout()];
        let others = others.into_iter().flatten().map(|at| at.saturating_duration_since(self.begun));
        others.fold(self.next_frame, Duration::min)
    }

    fn wake(&mut self, now: Duration) {
        let moment = self.begun + now;
        let mut slot = [0; 1200];
        let mut writer = RtcpWriter::new(&mut slot);
        while self.recorder.poll(moment, &mut writer, 1, 2) {}
        if let Some(len) = writer.finish() {
            self.out.push_back((false, slot[..len].to_vec()));
        }
        if self.next_frame <= now {
            let rate_bps = self.source.rate_bps(now, self.estimate.estimate_bps(moment));
            for len in self.frames.next(rate_bps) {
                self.send(moment, len + OVERHEAD, false);
            }
            self.estimate.handle_wanted(Some(Wanted { bps: self.source.probed_bps(), known_bps: None, care: Care::Usual }));
            self.next_frame += FRAME;
        }
        let padding = self.estimate.poll_padding(moment, &self.history);
        let mut left = padding.bytes;
        while left > 0 {
            let len = left.clamp(OVERHEAD + 8, padding.packet_len);
            self.send(moment, len, true);
            left = left.saturating_sub(len);
        }
    }

    fn take(&mut self, _: Duration) -> Option<(bool, Vec<u8>)> {
        self.out.pop_front()
    }

    fn hear(&mut self, now: Duration, viewer: bool, bytes: &[u8]) {
        let moment = self.begun + now;
        if viewer {
            self.recorder.handle_packet(moment, u16::from_be_bytes([bytes[0], bytes[1]]));
            if bytes[2] == 0 {
                self.media_bytes += (bytes.len() - OVERHEAD) as u64;
            }
            return;
        }
        let mut acked = Vec::new();
        for packet in parse(bytes) {
            let Ok(Packet::Twcc(feedback)) = packet else { continue };
            acked.clear();
            self.history.handle_feedback(&feedback, &mut acked);
            if self.estimate.handle_acked(moment, &acked) {
                self.source.hurry();
            }
        }
    }

    fn media_bytes(&self) -> u64 {
        self.media_bytes
    }
}
