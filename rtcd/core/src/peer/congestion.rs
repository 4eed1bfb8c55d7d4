//! How much a transport's way carries: what we record for a publisher, and what a viewer's feedback tells us.

use std::time::{Duration, Instant};

use crate::rtcp::{Acked, RtcpWriter, SendHistory, TwccFeedback, TwccRecorder};

/// Both directions of one transport.
#[derive(Default)]
pub(crate) struct Congestion {
    recorder: TwccRecorder,
    /// Some source of the publisher's, to name in feedback.
    source: u32,
    history: SendHistory,
    acked: Vec<Acked>,
    remb_bps: Option<u64>,
}

impl Congestion {
    /// A publisher's packet came with this transport-wide number.
    #[inline]
    pub(crate) fn arrived(&mut self, now: Instant, number: u16, ssrc: u32) {
        self.source = ssrc;
        self.recorder.handle_packet(now, number);
    }

    /// Appends feedback that is due.
    pub(crate) fn write_feedback(&mut self, now: Instant, writer: &mut RtcpWriter<'_>, sender_ssrc: u32) -> bool {
        self.recorder.poll(now, writer, sender_ssrc, self.source)
    }

    /// When feedback is due.
    pub(crate) fn feedback_due(&self) -> Option<Instant> {
        self.recorder.poll_timeout()
    }

    /// The number of a packet that leaves now.
    #[inline]
    pub(crate) fn sent(&mut self, now: Instant, len: usize) -> u16 {
        self.history.send(now, len)
    }

    /// A viewer's feedback.
    pub(crate) fn feedback(&mut self, _now: Instant, feedback: &TwccFeedback<'_>) {
        self.acked.clear();
        self.history.handle_feedback(feedback, &mut self.acked);
    }

    /// A viewer's receiver-side estimate (clients without transport-wide feedback).
    pub(crate) fn remb(&mut self, _now: Instant, bitrate_bps: u64) {
        self.remb_bps = Some(bitrate_bps);
    }

    /// A viewer's report block.
    pub(crate) fn loss_report(&mut self, _now: Instant, _fraction_lost: f32, _rtt: Option<Duration>) {}

    /// What the viewer's way carries, bit/s; `None`: not known, take it for wide.
    pub(crate) fn estimate_bps(&self, _now: Instant) -> Option<u64> {
        self.remb_bps
    }
}
