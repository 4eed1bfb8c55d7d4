//! How much a transport's way carries: what we record for a publisher, and what a viewer's feedback tells us.

use std::time::{Duration, Instant};

use super::narrow::{Narrow, on_wire};
use crate::bwe::{BandwidthEstimate, Care, Padding, Wanted};
use crate::rtcp::{Acked, RtcpWriter, SendHistory, TwccFeedback, TwccRecorder};

/// Who talks on a narrow way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Voices {
    /// Somebody is heard.
    pub(crate) flow: bool,
    /// Somebody is not, because others are.
    pub(crate) wait: bool,
}

/// Both directions of one transport.
#[derive(Default)]
pub(crate) struct Congestion {
    recorder: TwccRecorder,
    /// Some source of the publisher's, to name in feedback.
    source: u32,
    history: SendHistory,
    acked: Vec<Acked>,
    estimate: BandwidthEstimate,
    pub(crate) narrow: Narrow,
    // Transport-wide feedback came: it says more than report blocks, which then only tell the round trip.
    has_feedback: bool,
    // What left before this moment of the history took another way.
    way_since: Duration,
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

    /// So much would be sent if the way carried it; `None`: nothing can be probed. `voices`: who is heard on it, where it is narrow.
    pub(crate) fn want(&mut self, now: Instant, wanted_bps: Option<u64>, voices: Voices) {
        let is_careful = self.narrow.is_thin(now) || voices.wait;
        let care = if is_careful { Care::Careful { silent: !voices.flow } } else { Care::Usual };
        let known_bps = self.narrow.whole_bps(now);
        self.estimate.handle_wanted(wanted_bps.map(|bps| Wanted { bps, known_bps, care }));
    }

    /// Padding to send now.
    pub(crate) fn padding(&mut self, now: Instant) -> Padding {
        let padding = self.estimate.poll_padding(now, &self.history);
        self.note_found(now);
        padding
    }

    /// When to ask for more of it.
    pub(crate) fn padding_due(&self) -> Option<Instant> {
        self.estimate.poll_timeout()
    }

    /// A viewer's feedback. True: its way became narrower, choose its layers now.
    pub(crate) fn feedback(&mut self, now: Instant, feedback: &TwccFeedback<'_>) -> bool {
        self.has_feedback = true;
        self.acked.clear();
        self.history.handle_feedback(feedback, &mut self.acked);
        self.acked.retain(|acked| acked.sent >= self.way_since);
        let fell = self.estimate.handle_acked(now, &self.acked);
        self.note_found(now);
        fell
    }

    /// What a probe found says something of the whole way too.
    fn note_found(&mut self, now: Instant) {
        if let Some(found_bps) = self.estimate.take_found_bps() {
            self.narrow.handle_found(now, found_bps);
        }
    }

    /// Did a probe just show that there is more? Once.
    pub(crate) fn take_news(&mut self) -> bool {
        self.estimate.take_news()
    }

    /// The viewer is somewhere else. What was learned of the way before says nothing of this one, and what was lost while nobody knew of
    /// it is not its fault.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.way_since = self.history.since_origin(now);
        self.estimate = BandwidthEstimate::default();
        self.narrow = Narrow::default();
    }

    /// Does the last feedback, with so much sent until now, show that the whole way is congested?
    pub(crate) fn is_congested(&mut self, now: Instant, bytes: u64, packets: u64) -> bool {
        self.narrow.note_sent(now, bytes, packets);
        let Some((sent, arrived_us)) = self.acked.iter().rev().find_map(|acked| Some((acked.sent, acked.arrived_us?))) else {
            return false;
        };
        let ago = self.history.since_origin(now).saturating_sub(sent);
        let Some(at) = now.checked_sub(ago) else { return false };
        self.narrow.handle_arrival(now, at, i64::try_from(sent.as_micros()).unwrap_or(i64::MAX), arrived_us)
    }

    /// A viewer's receiver-side estimate (clients without transport-wide feedback). True: choose its layers now.
    pub(crate) fn remb(&mut self, now: Instant, bitrate_bps: u64) -> bool {
        self.estimate.handle_remb(now, bitrate_bps)
    }

    /// A viewer's report block about a stream that leaves with `sent_bps`. True: choose its layers now.
    pub(crate) fn loss_report(&mut self, now: Instant, fraction_lost: f32, rtt: Option<Duration>, sent_bps: u64) -> bool {
        if let Some(rtt) = rtt {
            self.estimate.handle_round_trip(rtt);
        }
        !self.has_feedback && self.estimate.handle_loss_report(now, f64::from(fraction_lost), sent_bps)
    }

    /// What is left for pictures beside the sounds, bit/s; `None`: nothing says that the way is narrow. Transport-wide numbers are
    /// only on pictures, so that estimate is theirs already.
    pub(crate) fn pictures_bps(&self, now: Instant, sounds_bps: u64) -> Option<u64> {
        let estimate_bps = self.estimate.estimate_bps(now);
        let by_estimate = estimate_bps.map(|all_bps| if self.has_feedback { all_bps } else { all_bps.saturating_sub(sounds_bps) });
        let beside_sounds = self.narrow.pictures_bps(now, sounds_bps);
        [by_estimate, beside_sounds].into_iter().flatten().min()
    }

    /// What the whole way carries, sounds of this rate and pictures; `None`: nothing says that it is narrow.
    pub(crate) fn whole_bps(&self, now: Instant, sounds_bps: u64) -> Option<u64> {
        let by_estimate = self.estimate.estimate_bps(now).map(|bps| if self.has_feedback { bps + on_wire(sounds_bps) } else { bps });
        [by_estimate, self.narrow.whole_bps(now)].into_iter().flatten().min()
    }

    /// Bytes that left under what the estimate speaks of: numbered pictures, or everything.
    pub(crate) fn numbered_bytes(&self, all_bytes: u64) -> u64 {
        if self.has_feedback { self.history.bytes() } else { all_bytes }
    }

    /// What the viewer's way carries, bit/s; `None`: nothing says that it is narrow.
    pub(crate) fn estimate_bps(&self, now: Instant) -> Option<u64> {
        self.estimate.estimate_bps(now)
    }
}
