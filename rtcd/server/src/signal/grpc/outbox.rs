//! What waits to go out on one link: a queue per session and per call, served in turn, and the frames sent but not
//! acknowledged, for a resume.
//!
//! Plain data, no stream and no clock: the whole resume protocol can be tested by itself. Order holds within a session
//! and within a call's events; between them the turn decides, so nobody waits behind a large or slow one.

use std::collections::VecDeque;
use std::sync::Arc;

use conclave_proto::v1::{CallEvent, FromMedia, call_event, from_media::Body};
use prost::Message as _;
use rtcd_core::ids::CallId;
use rustc_hash::FxHashMap;

use crate::limits::{CALL_QUEUE_EVENTS_MAX, REPLAY_BYTES_MAX, REPLAY_FRAMES_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_FRAMES_MAX};

/// Whose queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QueueKey {
    /// One signalling connection.
    Session(Arc<str>),
    /// One call's events.
    Call(CallId),
    /// The link itself.
    Link,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits its turn.
    Queued,
    /// The session does not read: its queue is gone, end it.
    SessionOverflow,
    /// Events had to be lost that cannot be: the link cannot be resumed any more.
    LinkLost,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(Body, usize)>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    /// Sequence number of the next new frame.
    next_seq: u64,
    /// Frames with numbers, not acknowledged; contiguous, the last is `next_seq - 1`.
    replay: VecDeque<(Body, usize)>,
    replay_bytes: usize,
    /// Next number to hand to the stream.
    cursor: u64,
    queues: FxHashMap<QueueKey, Queue>,
    /// Keys of queues that are not empty.
    turn: VecDeque<QueueKey>,
    /// Events dropped because newer ones of the kind supersede them.
    pub superseded: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            next_seq: 1,
            replay: VecDeque::new(),
            replay_bytes: 0,
            cursor: 1,
            queues: FxHashMap::default(),
            turn: VecDeque::new(),
            superseded: 0,
        }
    }
}

impl Outbox {
    /// Queues a frame.
    pub fn push(&mut self, key: &QueueKey, body: Body) -> Pushed {
        let bytes = encoded_len(&body);
        if !self.queues.contains_key(key) {
            self.queues.insert(key.clone(), Queue::default());
            self.turn.push_back(key.clone());
        }
        let Some(queue) = self.queues.get_mut(key) else { return Pushed::LinkLost };
        match key {
            QueueKey::Session(_) => {
                if queue.frames.len() >= SESSION_QUEUE_FRAMES_MAX || queue.bytes + bytes > SESSION_QUEUE_BYTES_MAX {
                    self.drop_queue(key);
                    return Pushed::SessionOverflow;
                }
            }
            QueueKey::Call(_) | QueueKey::Link => {
                if queue.frames.len() >= CALL_QUEUE_EVENTS_MAX {
                    self.superseded += 1;
                    if is_superseded(&body) {
                        return Pushed::Queued;
                    }
                    let Some(oldest) = queue.frames.iter().position(|(body, _)| is_superseded(body)) else { return Pushed::LinkLost };
                    if let Some((_, freed)) = queue.frames.remove(oldest) {
                        queue.bytes -= freed;
                    }
                }
            }
        }
        queue.frames.push_back((body, bytes));
        queue.bytes += bytes;
        Pushed::Queued
    }

    /// Forgets what waits for a session that is over.
    pub fn drop_queue(&mut self, key: &QueueKey) {
        self.queues.remove(key);
        self.turn.retain(|waiting| waiting != key);
    }

    /// The next frame to send, with its number. `None`: nothing waits, or too much is unacknowledged.
    pub fn next_frame(&mut self, ack: u64) -> Option<FromMedia> {
        if self.cursor == self.next_seq && !self.number_next() {
            return None;
        }
        let first = self.next_seq - self.replay.len() as u64;
        let index = usize::try_from(self.cursor.checked_sub(first)?).ok()?;
        let (body, _) = self.replay.get(index)?;
        let frame = FromMedia { seq: self.cursor, ack, body: Some(body.clone()) };
        self.cursor += 1;
        Some(frame)
    }

    /// Takes the next waiting frame in turn and gives it its number.
    fn number_next(&mut self) -> bool {
        if self.replay.len() >= REPLAY_FRAMES_MAX || self.replay_bytes >= REPLAY_BYTES_MAX {
            return false;
        }
        let Some(key) = self.turn.pop_front() else { return false };
        let Some(queue) = self.queues.get_mut(&key) else { return false };
        let Some((body, bytes)) = queue.frames.pop_front() else { return false };
        queue.bytes -= bytes;
        if queue.frames.is_empty() {
            self.queues.remove(&key);
        } else {
            self.turn.push_back(key);
        }
        self.replay.push_back((body, bytes));
        self.replay_bytes += bytes;
        self.next_seq += 1;
        true
    }

    /// The other side has handled everything up to `seq`. `false`: it never got that far, it lies.
    pub fn acknowledged(&mut self, seq: u64) -> bool {
        if seq >= self.next_seq {
            return false;
        }
        let mut first = self.next_seq - self.replay.len() as u64;
        while first <= seq {
            let Some((_, bytes)) = self.replay.pop_front() else { break };
            self.replay_bytes -= bytes;
            first += 1;
        }
        self.cursor = self.cursor.max(first);
        true
    }

    /// A new stream takes over from one that broke after `last_seen`. `false`: that cannot be, start anew.
    pub fn resume(&mut self, last_seen: u64) -> bool {
        let first = self.next_seq - self.replay.len() as u64;
        if last_seen + 1 < first || !self.acknowledged(last_seen) {
            return false;
        }
        self.cursor = last_seen + 1;
        true
    }

    /// Frames without a number yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.frames.len()).sum()
    }
}

/// Events that the next of their kind makes worthless.
fn is_superseded(body: &Body) -> bool {
    matches!(body, Body::Event(CallEvent { event: Some(call_event::Event::Speakers(_) | call_event::Event::Quality(_)), .. }))
}

fn encoded_len(body: &Body) -> usize {
    match body {
        Body::Welcome(message) => message.encoded_len(),
        Body::JoinAck(message) => message.encoded_len(),
        Body::Frame(message) => message.encoded_len(),
        Body::SessionEnded(message) => message.encoded_len(),
        Body::HostActionResult(message) => message.encoded_len(),
        Body::Event(message) => message.encoded_len(),
        Body::Pong(message) => message.encoded_len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_proto::v1::{ParticipantJoined, SessionFrame, SpeakersChanged};
    use proptest::prelude::*;

    fn session(n: u8) -> QueueKey {
        QueueKey::Session(format!("s{n}").into())
    }

    fn frame(n: u8, number: u32) -> Body {
        Body::Frame(SessionFrame { session_id: format!("s{n}"), livekit: number.to_be_bytes().to_vec().into() })
    }

    fn read(body: Option<Body>) -> (String, u32) {
        let Some(Body::Frame(frame)) = body else { panic!("a frame") };
        (frame.session_id, u32::from_be_bytes(frame.livekit.as_ref().try_into().expect("four bytes")))
    }

    #[test]
    fn sessions_are_served_in_turn() {
        let mut outbox = Outbox::default();
        for number in 0..100 {
            assert_eq!(outbox.push(&session(1), frame(1, number)), Pushed::Queued);
        }
        assert_eq!(outbox.push(&session(2), frame(2, 0)), Pushed::Queued);
        let order: Vec<String> = std::iter::from_fn(|| outbox.next_frame(0)).take(3).map(|frame| read(frame.body).0).collect();
        assert!(order.contains(&"s2".to_owned()), "a short session does not wait behind a long one: {order:?}");
    }

    #[test]
    fn a_session_that_does_not_read_loses_only_itself() {
        let mut outbox = Outbox::default();
        let mut pushed = Pushed::Queued;
        for number in 0..=u32::try_from(SESSION_QUEUE_FRAMES_MAX).expect("small") {
            pushed = outbox.push(&session(1), frame(1, number));
        }
        assert_eq!(pushed, Pushed::SessionOverflow);
        assert_eq!(outbox.push(&session(2), frame(2, 7)), Pushed::Queued);
        assert_eq!(read(outbox.next_frame(0).and_then(|frame| frame.body)), ("s2".to_owned(), 7));
        assert!(outbox.next_frame(0).is_none());
    }

    #[test]
    fn a_session_that_does_not_read_large_frames_is_bounded_in_bytes() {
        let mut outbox = Outbox::default();
        let large = || Body::Frame(SessionFrame { session_id: "s1".into(), livekit: vec![0; 256 * 1024].into() });
        let taken = (0..1000).take_while(|_| outbox.push(&session(1), large()) == Pushed::Queued).count();
        assert!((1..=SESSION_QUEUE_BYTES_MAX / (256 * 1024)).contains(&taken), "{taken}");
        assert_eq!(outbox.push(&session(2), frame(2, 7)), Pushed::Queued);
    }

    #[test]
    fn speakers_give_way_to_events_that_cannot_be_lost() {
        let mut outbox = Outbox::default();
        let call = QueueKey::Call(CallId::new("default/c").expect("a name"));
        let event = |event| Body::Event(CallEvent { call_id: "c".into(), at_ms: 0, event: Some(event) });
        for _ in 0..CALL_QUEUE_EVENTS_MAX + 5 {
            assert_eq!(outbox.push(&call, event(call_event::Event::Speakers(SpeakersChanged::default()))), Pushed::Queued);
        }
        for _ in 0..CALL_QUEUE_EVENTS_MAX {
            assert_eq!(outbox.push(&call, event(call_event::Event::Joined(ParticipantJoined::default()))), Pushed::Queued);
        }
        assert_eq!(outbox.push(&call, event(call_event::Event::Joined(ParticipantJoined::default()))), Pushed::LinkLost);
    }

    #[test]
    fn unacknowledged_frames_are_bounded_and_acks_make_room() {
        let mut outbox = Outbox::default();
        let mut sent = 0_u64;
        for number in 0..u32::try_from(REPLAY_FRAMES_MAX).expect("small") + 100 {
            let key = session(u8::try_from(number % 200).expect("small"));
            outbox.push(&key, frame(0, number));
            sent += u64::from(outbox.next_frame(0).is_some());
        }
        assert_eq!(sent, REPLAY_FRAMES_MAX as u64);
        assert!(!outbox.acknowledged(sent + 1), "an ack of what was never sent");
        assert!(outbox.acknowledged(10));
        assert!(outbox.next_frame(0).is_some());
        assert!(!outbox.resume(5), "what was acknowledged cannot be asked for again");
    }

    proptest! {
        /// Whatever the pattern of pushes, sends, acks and breaks: each session's frames arrive once, in order, all.
        #[test]
        fn resume_keeps_order_and_loses_and_repeats_nothing(steps in proptest::collection::vec((0_u8..10, 0_u8..4), 1..400)) {
            let mut outbox = Outbox::default();
            let mut pushed = [0_u32; 4];
            let mut seen: Vec<Vec<u32>> = vec![Vec::new(); 4];
            let mut last_handled = 0_u64;
            // Frames on the wire of the current stream: lost when it breaks.
            let mut wire: VecDeque<FromMedia> = VecDeque::new();
            let mut deliver = |wire: &mut VecDeque<FromMedia>, last_handled: &mut u64| {
                if let Some(frame) = wire.pop_front() {
                    if frame.seq <= *last_handled { return }
                    assert_eq!(frame.seq, *last_handled + 1, "no hole within a stream");
                    *last_handled = frame.seq;
                    let (name, number) = read(frame.body);
                    seen[usize::from(name.as_bytes()[1] - b'0')].push(number);
                }
            };
            for (what, who) in steps {
                match what {
                    0..=3 => {
                        let number = &mut pushed[usize::from(who)];
                        prop_assert_eq!(outbox.push(&session(who), frame(who, *number)), Pushed::Queued);
                        *number += 1;
                    }
                    4 | 5 => wire.extend(outbox.next_frame(0)),
                    6 | 7 => deliver(&mut wire, &mut last_handled),
                    8 => prop_assert!(outbox.acknowledged(last_handled)),
                    _ => {
                        wire.clear();
                        prop_assert!(outbox.resume(last_handled));
                    }
                }
            }
            wire.clear();
            prop_assert!(outbox.resume(last_handled));
            while let Some(frame) = outbox.next_frame(0) {
                wire.push_back(frame);
                deliver(&mut wire, &mut last_handled);
            }
            for (who, numbers) in seen.iter().enumerate() {
                let want: Vec<u32> = (0..pushed[who]).collect();
                prop_assert_eq!(numbers, &want);
            }
        }
    }
}
