//! A drain: the node takes nobody new, those present go on, and it ends with the last of them or at a deadline.
//!
//! This only keeps the state; admission asks it, `/readyz` and the health service show it, the program waits for its end.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Emptiness has no event of its own; it is looked at this often.
const LOOK: Duration = Duration::from_millis(200);

/// What the program does after a SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminate {
    /// The drain has begun, or an operator's now ends by SIGTERM's deadline.
    Drain,
    /// It was the second one: end now.
    EndNow,
}

#[derive(Clone, Copy, Debug)]
struct State {
    deadline: Instant,
    /// A signal asked for it; the next one forces the end.
    by_signal: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Drain {
    state: watch::Sender<Option<State>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { state: watch::Sender::new(None) }
    }
}

impl Drain {
    /// An operator asks for it; a later call moves the deadline.
    pub fn begin(&self, now: Instant, within: Duration) {
        self.state.send_modify(|state| {
            let by_signal = state.is_some_and(|state| state.by_signal);
            *state = Some(State { deadline: now + within, by_signal });
        });
    }

    /// SIGTERM asks for it. An operator's deadline that comes earlier stays.
    pub fn begin_by_signal(&self, now: Instant, within: Duration) -> Terminate {
        let mut forced = false;
        self.state.send_modify(|state| {
            forced = state.is_some_and(|state| state.by_signal);
            let deadline = now + within;
            let deadline = state.map_or(deadline, |state| state.deadline.min(deadline));
            *state = Some(State { deadline, by_signal: true });
        });
        if forced { Terminate::EndNow } else { Terminate::Drain }
    }

    /// Takes it back. `false`: there was none.
    pub fn cancel(&self) -> bool {
        self.state.send_replace(None).is_some()
    }

    /// Time until the deadline; `None`: no drain.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.state.borrow().map(|state| state.deadline.saturating_duration_since(now))
    }

    /// Waits until a drain is over: the node is empty or the deadline has passed.
    pub async fn over(&self, is_empty: impl Fn() -> bool) {
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if state.is_some_and(|state| is_empty() || Instant::now() >= state.deadline) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK), if state.is_some() => {}
                // Never closed: the sender is ours.
                _ = changes.changed() => {}
            }
        }
    }

    /// For whoever shows the state.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch(self.state.subscribe())
    }
}

/// A view of the state that does not keep the node alive.
pub struct DrainWatch(watch::Receiver<Option<State>>);

impl DrainWatch {
    /// Whether a drain goes on now.
    #[must_use]
    pub fn is_draining(&mut self) -> bool {
        self.0.borrow_and_update().is_some()
    }

    /// Waits for a change. `false`: the node is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_signal_shortens_an_operators_drain_and_the_second_one_forces_the_end() {
        let (drain, now) = (Drain::default(), Instant::now());
        assert_eq!(drain.left(now), None);
        drain.begin(now, 600 * S);
        assert_eq!(drain.left(now), Some(600 * S));
        assert_eq!(drain.begin_by_signal(now, 30 * S), Terminate::Drain, "the first signal, though a drain was going on");
        assert_eq!(drain.left(now + S), Some(29 * S));
        drain.begin(now, 60 * S);
        assert_eq!(drain.begin_by_signal(now, 30 * S), Terminate::EndNow);
    }

    #[test]
    fn an_operators_earlier_deadline_stays_and_a_drain_can_be_taken_back() {
        let (drain, now) = (Drain::default(), Instant::now());
        drain.begin(now, 5 * S);
        assert_eq!(drain.begin_by_signal(now, 30 * S), Terminate::Drain);
        assert_eq!(drain.left(now), Some(5 * S));
        assert!(drain.cancel());
        assert!(!drain.cancel());
        assert_eq!(drain.left(now), None);
        assert_eq!(drain.begin_by_signal(now, 30 * S), Terminate::Drain, "after that a signal is the first again");
    }
}
