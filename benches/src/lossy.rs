//! A receiver behind a link that loses packets: what is missing is asked for again, as a browser does, and counted.
//!
//! Both ways of the link's round trip are spent before the request leaves, so packets need no holding back.

use std::collections::{HashMap, VecDeque};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use link_model::{Fate, Link, Way};
use rtcd_core::rtcp::{Arrival, NackTracker};
use rtcd_core::rtp;
use rtcd_core::srtp::Outbound;

use crate::reports;

/// One receiver's link.
pub(crate) struct LossyLink {
    link: Link,
    began: Instant,
    round_trip: Duration,
    /// The one source of media here.
    media: Option<u32>,
    streams: HashMap<u32, Stream>,
    /// Requests on their way: when they leave.
    under_way: VecDeque<(Instant, u32, Vec<u16>)>,
    /// How long packets that came again were missing, ms.
    pub(crate) recovered_ms: Vec<f64>,
    /// Packets found missing.
    pub(crate) missing: u64,
}

#[derive(Default)]
struct Stream {
    tracker: NackTracker,
    highest: Option<u64>,
    since: HashMap<u64, Instant>,
}

impl LossyLink {
    pub(crate) fn new(loss: f64, round_trip: Duration, seed: u64) -> Self {
        Self {
            link: Link::new(Way { loss, ..Way::default() }, seed),
            began: Instant::now(),
            round_trip,
            media: None,
            streams: HashMap::new(),
            under_way: VecDeque::new(),
            recovered_ms: Vec::new(),
            missing: 0,
        }
    }

    /// From now on nothing is lost; what is missing may still come.
    pub(crate) fn heal(&mut self) {
        self.link = Link::new(Way::default(), 0);
    }

    /// Does the link take a packet of this length?
    pub(crate) fn loses(&mut self, len: usize) -> bool {
        self.link.pass(self.began.elapsed(), len) == Fate::Lost
    }

    /// A packet came, with its clear payload.
    pub(crate) fn came(&mut self, now: Instant, ssrc: u32, index: u64, payload: &[u8]) {
        let (ssrc, index) = self.original(ssrc, index, payload);
        let stream = self.streams.entry(ssrc).or_default();
        if let Arrival::AfterGap(_) = stream.tracker.handle_packet(now, index) {
            let first = stream.highest.map_or(index, |highest| highest + 1);
            stream.since.extend((first..index).map(|index| (index, now)));
            self.missing += index - first;
        }
        if let Some(since) = stream.since.remove(&index) {
            self.recovered_ms.push((now - since).as_secs_f64() * 1000.0);
        }
        stream.highest = stream.highest.max(Some(index));
    }

    /// Which packet this is: on a second source, one of the first comes again, and begins with the number that it had (RFC 4588).
    fn original(&mut self, ssrc: u32, index: u64, payload: &[u8]) -> (u32, u64) {
        let first = *self.media.get_or_insert(ssrc);
        let highest = self.streams.get(&first).and_then(|stream| stream.highest);
        match (payload.first_chunk::<2>(), highest) {
            (Some(number), Some(highest)) if ssrc != first => (first, rtp::extend(highest, u16::from_be_bytes(*number))),
            _ => (ssrc, index),
        }
    }

    /// Asks for what is due.
    pub(crate) fn ask(&mut self, now: Instant, socket: &UdpSocket, outbound: &mut Outbound) -> anyhow::Result<()> {
        for (ssrc, stream) in &mut self.streams {
            let mut lost = Vec::new();
            stream.tracker.poll(now, self.round_trip, &mut lost);
            if !lost.is_empty() {
                self.under_way.push_back((now + self.round_trip, *ssrc, lost));
            }
        }
        while self.under_way.front().is_some_and(|(leaves, ..)| *leaves <= now) {
            let Some((_, ssrc, lost)) = self.under_way.pop_front() else { break };
            reports::ask_again(socket, outbound, ssrc, &lost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_was_missing_for_so_long() {
        let mut link = LossyLink::new(0.0, Duration::from_millis(20), 1);
        let start = Instant::now();
        let came =
            [(0, 7, 0x1_0001, 0), (10, 7, 0x1_0002, 0), (20, 7, 0x1_0005, 0), (50, 7, 0x1_0003, 0), (60, 8, 900, 4), (60, 8, 901, 4)];
        for (at_ms, ssrc, index, number) in came {
            assert!(!link.loses(100), "nothing is lost on this link");
            link.came(start + Duration::from_millis(at_ms), ssrc, index, &[0, number, 1]);
        }
        assert_eq!(link.missing, 2);
        assert_eq!(link.recovered_ms, [30.0, 40.0]);
    }
}
