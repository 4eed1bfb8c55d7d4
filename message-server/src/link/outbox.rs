//! What goes out on the link: numbered, kept until acknowledged, sent again after a break. No I/O, no clock.

use std::collections::{HashMap, VecDeque};

use conclave_proto::v1::{ToMedia, to_media::Body};
use prost::Message as _;

use crate::limits;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It will arrive, once.
    Queued,
    /// Its session has too much unacknowledged: end the session.
    SessionFull,
    /// The whole link has: nothing goes until the media node reads again.
    LinkFull,
}

#[derive(Debug)]
struct Kept {
    body: Body,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    /// Sent or waiting, not acknowledged; the first has number `first`.
    kept: VecDeque<Kept>,
    first: u64,
    /// Number of the next one to put on the present stream.
    cursor: u64,
    bytes: usize,
    session_bytes: HashMap<String, usize>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { kept: VecDeque::new(), first: 1, cursor: 1, bytes: 0, session_bytes: HashMap::new() }
    }
}

fn session_of(body: &Body) -> Option<&str> {
    match body {
        Body::Join(join) => Some(&join.session_id),
        Body::Frame(frame) => Some(&frame.session_id),
        Body::Leave(leave) => Some(&leave.session_id),
        Body::Hello(_) | Body::HostAction(_) | Body::Consent(_) | Body::Data(_) | Body::CallState(_) | Body::Ping(_) => None,
    }
}

impl Outbox {
    /// Adds a frame. Leaves always find room: they are what frees the other side.
    pub fn push(&mut self, body: Body) -> Pushed {
        let bytes = ToMedia { seq: u64::MAX, ack: u64::MAX, body: Some(body.clone()) }.encoded_len();
        let leave = matches!(body, Body::Leave(_));
        if !leave && (self.kept.len() >= limits::LINK_UNACKED_FRAMES || self.bytes + bytes > limits::LINK_UNACKED_BYTES) {
            return Pushed::LinkFull;
        }
        if let Some(session) = session_of(&body) {
            let used = self.session_bytes.entry(session.to_owned()).or_default();
            if !leave && *used + bytes > limits::LINK_UNACKED_BYTES_PER_SESSION {
                return Pushed::SessionFull;
            }
            *used += bytes;
        }
        self.bytes += bytes;
        self.kept.push_back(Kept { body, bytes });
        Pushed::Queued
    }

    /// The next frame for the stream, with its number.
    pub fn next_frame(&mut self, ack: u64) -> Option<ToMedia> {
        let index = usize::try_from(self.cursor.checked_sub(self.first)?).ok()?;
        let kept = self.kept.get(index)?;
        let frame = ToMedia { seq: self.cursor, ack, body: Some(kept.body.clone()) };
        self.cursor += 1;
        Some(frame)
    }

    /// Whether something waits to be put on the stream.
    pub fn waits(&self) -> bool {
        self.cursor < self.first + self.kept.len() as u64
    }

    /// The other side has handled everything up to `seq`. False: it acknowledges what was never sent.
    pub fn acknowledged(&mut self, seq: u64) -> bool {
        if seq >= self.cursor {
            return false;
        }
        while self.first <= seq {
            let Some(kept) = self.kept.pop_front() else { break };
            self.first += 1;
            self.bytes -= kept.bytes;
            if let Some(session) = session_of(&kept.body)
                && let Some(used) = self.session_bytes.get_mut(session)
            {
                *used = used.saturating_sub(kept.bytes);
                if *used == 0 {
                    self.session_bytes.remove(session);
                }
            }
        }
        true
    }

    /// A new stream of the same link: the other side has handled everything up to `seq`; the rest goes again.
    pub fn resume(&mut self, seq: u64) -> bool {
        if !self.acknowledged(seq) || seq + 1 < self.first {
            return false;
        }
        self.cursor = self.first;
        true
    }

    /// A new link: numbers start at 1 and nothing of the old sessions is sent. Returns what was never handled.
    pub fn restart(&mut self) -> Vec<Body> {
        let old = std::mem::take(self);
        old.kept.into_iter().map(|kept| kept.body).collect()
    }

    /// Frames not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use conclave_proto::v1::{Leave, Ping, SessionFrame};

    use super::*;

    fn ping(n: i64) -> Body {
        Body::Ping(Ping { sent_at_ms: n })
    }

    fn sent(outbox: &mut Outbox) -> Vec<(u64, i64)> {
        std::iter::from_fn(|| outbox.next_frame(0))
            .map(|frame| match frame.body {
                Some(Body::Ping(ping)) => (frame.seq, ping.sent_at_ms),
                _ => (frame.seq, 0),
            })
            .collect()
    }

    #[test]
    fn after_a_break_exactly_the_unhandled_frames_go_again_in_order() {
        let mut outbox = Outbox::default();
        for n in 1..=5 {
            outbox.push(ping(n));
        }
        assert_eq!(sent(&mut outbox).len(), 5);
        assert!(outbox.acknowledged(2));
        outbox.push(ping(6));
        assert!(outbox.resume(3));
        assert_eq!(sent(&mut outbox), [(4, 4), (5, 5), (6, 6)]);
    }

    #[test]
    fn impossible_acknowledgements_are_refused() {
        let mut outbox = Outbox::default();
        outbox.push(ping(1));
        assert!(!outbox.acknowledged(1), "queued, not sent");
        outbox.next_frame(0);
        assert!(outbox.acknowledged(1));
        assert!(!outbox.acknowledged(2));
        assert!(!outbox.resume(0), "frame 1 is gone: it was acknowledged before");
    }

    #[test]
    fn one_session_cannot_fill_the_link_and_may_still_leave() {
        let mut outbox = Outbox::default();
        let frame = |session: &str| Body::Frame(SessionFrame { session_id: session.to_owned(), livekit: vec![0; 100_000].into() });
        let mut count = 0;
        while outbox.push(frame("greedy")) == Pushed::Queued {
            count += 1;
            assert!(count < 1_000, "no bound");
        }
        assert_eq!(outbox.push(frame("greedy")), Pushed::SessionFull);
        assert_eq!(outbox.push(frame("modest")), Pushed::Queued);
        let leave = Body::Leave(Leave { session_id: "greedy".to_owned(), connection_lost: true });
        assert_eq!(outbox.push(leave), Pushed::Queued);
    }

    #[test]
    fn the_whole_link_is_bounded() {
        let mut outbox = Outbox::default();
        for n in 0..limits::LINK_UNACKED_FRAMES {
            assert_eq!(outbox.push(ping(n as i64)), Pushed::Queued);
        }
        assert_eq!(outbox.push(ping(0)), Pushed::LinkFull);
    }

    /// Over random breaks and acknowledgements the other side gets every frame once, in order.
    #[test]
    fn every_frame_arrives_once_in_order_over_any_breaks() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = move |bound: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % bound
        };
        for _ in 0..200 {
            let mut outbox = Outbox::default();
            let (mut handled, mut got, mut pushed) = (0_u64, Vec::new(), 0_i64);
            let mut wire: VecDeque<ToMedia> = VecDeque::new();
            for _ in 0..300 {
                match random(6) {
                    0 | 1 => {
                        pushed += 1;
                        outbox.push(ping(pushed));
                    }
                    2 => wire.extend(outbox.next_frame(0)),
                    3 => {
                        if let Some(frame) = wire.pop_front() {
                            assert_eq!(frame.seq, handled + 1, "a hole or a repetition on one stream");
                            handled = frame.seq;
                            if let Some(Body::Ping(ping)) = frame.body {
                                got.push(ping.sent_at_ms);
                            }
                        }
                    }
                    4 => assert!(outbox.acknowledged(handled)),
                    _ => {
                        wire.clear();
                        assert!(outbox.resume(handled));
                    }
                }
            }
            assert!(outbox.resume(handled));
            wire.clear();
            while let Some(frame) = outbox.next_frame(0) {
                if let Some(Body::Ping(ping)) = frame.body {
                    got.push(ping.sent_at_ms);
                }
            }
            assert_eq!(got, (1..=pushed).collect::<Vec<_>>());
        }
    }
}
