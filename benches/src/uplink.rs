//! A publisher behind a link that loses packets on the way to the server: what the server asks for is sent again, as a browser does.
//!
//! Media and what the server says to the publisher are each half a round trip under way, so that a server which asks too early or too
//! often does so here, too. Reports and connectivity checks of the publisher are not held back, and nothing but media is lost.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use link_model::{Fate, Link, Way};
use rtcd_core::rtp::rtx_wrap_prefix;
use rtcd_core::srtp::Outbound;

use crate::sdp;

/// Packets that a publisher can send again: some seconds of a screen.
const KEPT_MAX: usize = 1024;

/// One publisher's link.
pub(crate) struct Uplink {
    link: Link,
    began: Instant,
    one_way: Duration,
    /// When what is under way comes.
    up: VecDeque<(Instant, Vec<u8>)>,
    down: VecDeque<(Instant, Vec<u8>)>,
    kept: VecDeque<Sent>,
    /// Number of the next packet that is sent again under a source of its own.
    next_again: u64,
    /// What the link took when it was sent first.
    pub(crate) lost: Vec<Lost>,
    /// Packets sent again, each time counted.
    pub(crate) again: u64,
}

/// A packet as it was before it was sealed.
pub(crate) struct Sent {
    pub(crate) ssrc: u32,
    pub(crate) index: u64,
    /// The sender's clock, as it stands in the payload.
    pub(crate) stamp: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// A packet that did not come at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    ssrc: u32,
    index: u64,
    pub(crate) stamp: u64,
    /// The server asked for it.
    pub(crate) asked: bool,
}

#[cfg(test)]
impl Lost {
    pub(crate) fn of(stamp: u64, asked: bool) -> Self {
        Self { ssrc: 1, index: stamp, stamp, asked }
    }
}

impl Uplink {
    /// Loses nothing at first.
    pub(crate) fn new() -> Self {
        Self {
            link: Link::new(Way::default(), 0),
            began: Instant::now(),
            one_way: Duration::ZERO,
            up: VecDeque::new(),
            down: VecDeque::new(),
            kept: VecDeque::new(),
            next_again: 1,
            lost: Vec::new(),
            again: 0,
        }
    }

    /// From now on the link is like this. What is under way comes when it would have come.
    pub(crate) fn change(&mut self, loss: f64, round_trip: Duration, seed: u64) {
        self.link = Link::new(Way { loss, ..Way::default() }, seed);
        self.one_way = round_trip / 2;
    }

    /// A packet leaves for the first time.
    pub(crate) fn send(&mut self, now: Instant, sent: Sent, sealed: &[u8]) {
        if !self.passes(now, sealed) {
            self.lost.push(Lost { ssrc: sent.ssrc, index: sent.index, stamp: sent.stamp, asked: false });
        }
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(sent);
    }

    fn passes(&mut self, now: Instant, sealed: &[u8]) -> bool {
        let passes = self.link.pass(self.began.elapsed(), sealed.len()) != Fate::Lost;
        if passes {
            self.up.push_back((now + self.one_way, sealed.to_vec()));
        }
        passes
    }

    /// The server asks for packets again; they leave under a source of their own where that was agreed (RFC 4588).
    pub(crate) fn asked(&mut self, now: Instant, ssrc: u32, numbers: &[u16], outbound: &Outbound, rtx: bool) -> anyhow::Result<()> {
        for number in numbers {
            for lost in self.lost.iter_mut().filter(|lost| lost.ssrc == ssrc && lost.index & 0xffff == u64::from(*number)) {
                lost.asked = true;
            }
            let Some(sent) = self.kept.iter().rev().find(|sent| sent.ssrc == ssrc && sent.index & 0xffff == u64::from(*number)) else {
                continue;
            };
            let mut slot = [0; 1500];
            let header = slot.get_mut(..sent.header.len()).unwrap_or_default();
            header.copy_from_slice(&sent.header);
            let len = if rtx {
                header[1] = header[1] & 0x80 | sdp::RTX;
                header[2..4].copy_from_slice(&u16::try_from(self.next_again & 0xffff)?.to_be_bytes());
                header[8..12].copy_from_slice(&(ssrc + sdp::RTX_SSRC_ABOVE).to_be_bytes());
                self.next_again += 1;
                outbound.protect(&mut slot, sent.header.len(), &rtx_wrap_prefix(*number), &sent.payload, self.next_again - 1)?
            } else {
                outbound.protect(&mut slot, sent.header.len(), &[], &sent.payload, sent.index)?
            };
            self.again += 1;
            self.passes(now, slot.get(..len).unwrap_or_default());
        }
        Ok(())
    }

    /// Something for the publisher left the server.
    pub(crate) fn hold_back(&mut self, now: Instant, packet: &[u8]) {
        self.down.push_back((now + self.one_way, packet.to_vec()));
    }

    /// The next packet that has come to the publisher.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        due(&mut self.down, now)
    }

    /// Gives the server what has come to it.
    pub(crate) fn deliver(&mut self, now: Instant, socket: &UdpSocket) {
        while let Some(packet) = due(&mut self.up, now) {
            let _ = socket.send(&packet);
        }
    }
}

fn due(queue: &mut VecDeque<(Instant, Vec<u8>)>, now: Instant) -> Option<Vec<u8>> {
    queue.front().is_some_and(|(at, _)| *at <= now).then(|| queue.pop_front()).flatten().map(|(_, packet)| packet)
}

#[cfg(test)]
mod tests {
    use rtcd_core::rtp::rtx_unwrap;
    use rtcd_core::srtp::{Inbound, MasterKeys, Profile};

    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(200);

    fn header(ssrc: u32, number: u16) -> Vec<u8> {
        let mut header = vec![0x80, 0x80 | 96, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&number.to_be_bytes());
        header[8..12].copy_from_slice(&ssrc.to_be_bytes());
        header
    }

    /// Sends three packets, of which all are lost, and lets the server ask for two of them and one that never was: what comes to it.
    fn asked_again(rtx: bool) -> anyhow::Result<Vec<(u32, u8, Vec<u8>)>> {
        let keys = MasterKeys::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12])?;
        let (outbound, mut inbound) = (Outbound::new(&keys)?, Inbound::new(&keys)?);
        let server = UdpSocket::bind("127.0.0.1:0")?;
        server.set_nonblocking(true)?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.connect(server.local_addr()?)?;
        let mut uplink = Uplink::new();
        let start = Instant::now();
        uplink.change(1.0, ROUND_TRIP, 1);
        for index in [100, 101, 102] {
            let sent = Sent { ssrc: 7, index, stamp: index * 10, header: header(7, u16::try_from(index)?), payload: vec![5; 40] };
            uplink.send(start, sent, &[0; 80]);
        }
        uplink.change(0.0, ROUND_TRIP, 1);
        uplink.asked(start, 7, &[100, 102, 999], &outbound, rtx)?;
        uplink.asked(start, 8, &[101], &outbound, rtx)?;
        assert_eq!(uplink.again, 2);
        assert_eq!(
            uplink.lost.iter().map(|lost| (lost.stamp, lost.asked)).collect::<Vec<_>>(),
            [(1000, true), (1010, false), (1020, true)]
        );
        let mut packet = [0; 1500];
        uplink.deliver(start + ROUND_TRIP / 2 - Duration::from_millis(1), &client);
        assert!(server.recv(&mut packet).is_err(), "under way for half a round trip");
        uplink.deliver(start + ROUND_TRIP / 2, &client);
        let mut came = Vec::new();
        while let Ok(len) = server.recv(&mut packet) {
            let opened = inbound.unprotect(packet.get_mut(..len).unwrap_or_default())?;
            let payload = packet.get(opened.header.len..opened.len).unwrap_or_default();
            came.push((opened.header.ssrc, opened.header.payload_type, payload.to_vec()));
        }
        Ok(came)
    }

    #[test]
    fn what_was_lost_is_sent_again_under_a_source_of_its_own() -> anyhow::Result<()> {
        let came = asked_again(true)?;
        let numbers: Vec<_> =
            came.iter().filter_map(|(.., payload)| rtx_unwrap(payload)).map(|(number, rest)| (number, rest.len())).collect();
        assert_eq!(numbers, [(100, 40), (102, 40)]);
        assert!(came.iter().all(|(ssrc, kind, _)| (*ssrc, *kind) == (7 + sdp::RTX_SSRC_ABOVE, sdp::RTX)), "{came:?}");
        Ok(())
    }

    #[test]
    fn or_as_it_was_where_no_such_source_was_agreed() -> anyhow::Result<()> {
        let came = asked_again(false)?;
        assert!(came.len() == 2 && came.iter().all(|(ssrc, kind, payload)| (*ssrc, *kind, payload.len()) == (7, 96, 40)), "{came:?}");
        Ok(())
    }

    #[test]
    fn what_the_server_says_takes_half_a_round_trip() {
        let (mut uplink, start) = (Uplink::new(), Instant::now());
        uplink.change(0.0, ROUND_TRIP, 1);
        uplink.hold_back(start, &[1]);
        assert_eq!(uplink.next(start), None);
        assert_eq!(uplink.next(start + ROUND_TRIP / 2), Some(vec![1]));
        assert_eq!(uplink.next(start + ROUND_TRIP), None);
    }
}
