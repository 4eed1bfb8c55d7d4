//! When to be woken, for whom: one heap of a closed set of timers.
//!
//! Moving a timer later costs nothing: the owner notes the new time in its [`Alarm`], and the entry already queued is
//! queued again when it comes up too early. So a timer has at most a few entries however often it is moved.
//!
//! Being woken costs more than most of what is then done, so timers that nobody waits for do not wake anybody by
//! themselves at once: they go along with whatever happens within their [`PATIENCE`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::call::CallKey;
use crate::peer::TransportKey;
use crate::tap::TapKey;
use crate::track::TrackKey;

/// So much later may a patient timer fire.
const PATIENCE: Duration = Duration::from_millis(50);

/// Everything that can become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A transport's state runs out: see `peer/connect.rs`.
    State(TransportKey),
    /// DTLS wants to send again.
    Dtls(TransportKey),
    /// SCTP wants to send again.
    Sctp(TransportKey),
    /// Transport-wide feedback and retransmission requests to a publisher.
    Feedback(TransportKey),
    /// Receiver and sender reports.
    Reports(TransportKey),
    /// A viewer's bandwidth is shared out again.
    Allocation(TransportKey),
    /// A viewer's slides go on.
    Slides(TransportKey),
    /// A probe of a viewer's way goes on.
    Padding(TransportKey),
    /// A paced picture's turn has come.
    Pace(TransportKey),
    /// A key frame was asked for too soon after the last and is asked for again.
    KeyFrame(TrackKey),
    /// Layers nobody wants any more are turned off.
    Demand(TrackKey),
    /// Loudness is told.
    Speakers(CallKey),
    /// Connection quality is judged.
    Quality(CallKey),
    /// A tap stops waiting for a missing packet.
    Tap(TapKey),
}

impl Timer {
    /// Does nobody notice when it fires a little later?
    fn is_patient(self) -> bool {
        match self {
            Self::Reports(_) | Self::Allocation(_) | Self::Demand(_) | Self::Quality(_) => true,
            Self::State(_)
            | Self::Dtls(_)
            | Self::Sctp(_)
            | Self::Feedback(_)
            | Self::Slides(_)
            | Self::Padding(_)
            | Self::Pace(_)
            | Self::KeyFrame(_)
            | Self::Speakers(_)
            | Self::Tap(_) => false,
        }
    }
}

/// Owner's half of a timer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Alarm {
    due: Option<Instant>,
    queued: Option<Instant>,
}

impl Alarm {
    /// Is it set?
    pub(crate) fn is_set(self) -> bool {
        self.due.is_some()
    }

    /// Takes it back. A queued entry is ignored when it comes up.
    pub(crate) fn clear(&mut self) {
        self.due = None;
    }
}

struct Entry {
    at: Instant,
    // Ties are broken by age, so that a run with the same inputs is the same run.
    order: u64,
    timer: Timer,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

type Heap = BinaryHeap<Reverse<Entry>>;

/// The heaps.
pub(crate) struct Timers {
    prompt: Heap,
    patient: Heap,
    order: u64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { prompt: Heap::new(), patient: Heap::new(), order: 0 }
    }

    /// Sets an alarm to a time, or moves it there.
    pub(crate) fn set(&mut self, alarm: &mut Alarm, timer: Timer, at: Instant) {
        alarm.due = Some(at);
        if alarm.queued.is_none_or(|queued| at < queued) {
            alarm.queued = Some(at);
            self.push(timer, at);
        }
    }

    /// Sets an alarm unless it is set to something earlier.
    pub(crate) fn set_earlier(&mut self, alarm: &mut Alarm, timer: Timer, at: Instant) {
        if alarm.due.is_none_or(|due| at < due) {
            self.set(alarm, timer, at);
        }
    }

    fn push(&mut self, timer: Timer, at: Instant) {
        self.order += 1;
        let heap = if timer.is_patient() { &mut self.patient } else { &mut self.prompt };
        heap.push(Reverse(Entry { at, order: self.order, timer }));
    }

    /// Is any entry due?
    #[inline]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        [&self.prompt, &self.patient].into_iter().any(|heap| heap.peek().is_some_and(|entry| entry.0.at <= now))
    }

    /// The next entry that is due, with the time it was queued for. Give it to [`Timers::fired`].
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Timer, Instant)> {
        let heap = match (self.prompt.peek(), self.patient.peek()) {
            // Reversed: the greater one is the earlier.
            (Some(prompt), Some(patient)) if patient > prompt => &mut self.patient,
            (None, Some(_)) => &mut self.patient,
            (Some(_) | None, _) => &mut self.prompt,
        };
        if heap.peek()?.0.at > now {
            return None;
        }
        heap.pop().map(|Reverse(entry)| (entry.timer, entry.at))
    }

    /// Owner of a popped entry: is the alarm really due? Queues it again when it was moved later.
    pub(crate) fn fired(&mut self, alarm: &mut Alarm, timer: Timer, popped: Instant, now: Instant) -> bool {
        if alarm.queued != Some(popped) {
            // Superseded by an earlier entry, which spoke for this alarm already.
            return false;
        }
        alarm.queued = None;
        match alarm.due {
            None => false,
            Some(due) if due > now => {
                alarm.queued = Some(due);
                self.push(timer, due);
                false
            }
            Some(_) => {
                alarm.due = None;
                true
            }
        }
    }

    /// When to be woken for the next entry.
    pub(crate) fn next(&self) -> Option<Instant> {
        let prompt = self.prompt.peek().map(|entry| entry.0.at);
        let patient = self.patient.peek().map(|entry| entry.0.at + PATIENCE);
        prompt.into_iter().chain(patient).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::arena::Arena;

    #[test]
    fn a_moved_timer_fires_once_at_its_last_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let key = Arena::new().insert_with(|_: TrackKey| crate::track::Track::for_tests());
        let timer = Timer::KeyFrame(key);
        let (mut timers, mut alarm) = (Timers::new(), Alarm::default());
        timers.set(&mut alarm, timer, at(10));
        timers.set(&mut alarm, timer, at(30));
        timers.set(&mut alarm, timer, at(5));
        timers.set(&mut alarm, timer, at(20));
        let mut fired = Vec::new();
        for ms in 0..60 {
            while let Some((popped_timer, popped)) = timers.pop_due(at(ms)) {
                if timers.fired(&mut alarm, popped_timer, popped, at(ms)) {
                    fired.push(ms);
                }
            }
        }
        assert_eq!(fired, [20]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn patient_timers_go_along_and_wake_nobody_before_their_patience_ends() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let track = Arena::new().insert_with(|_: TrackKey| crate::track::Track::for_tests());
        let (mut timers, mut key_frame, mut demand) = (Timers::new(), Alarm::default(), Alarm::default());
        timers.set(&mut demand, Timer::Demand(track), at(10));
        assert_eq!(timers.next(), Some(at(10) + PATIENCE));
        assert!(!timers.is_due(at(9)) && timers.is_due(at(10)));
        timers.set(&mut key_frame, Timer::KeyFrame(track), at(30));
        assert_eq!(timers.next(), Some(at(30)), "somebody is in a hurry");
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(at(30))).map(|(timer, _)| timer).collect();
        assert_eq!(due, [Timer::Demand(track), Timer::KeyFrame(track)], "by their times, whichever heap they lie in");
    }
}
