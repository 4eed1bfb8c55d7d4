//! The signalling lock of a session: a client takes it before it offers, so that no offer of ours crosses its own.
//!
//! The original has a binary lock without an owner. Here it is the client's for a while at most: one that dies with it does not keep
//! tracks from itself for ever, and one that unlocks what it never had changes nothing.

use std::time::{Duration, Instant};

/// How long a client keeps the lock: longer than it waits for an answer to its offer.
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Lock {
    /// Nobody's, or ours while an offer is under way, which the core knows.
    #[default]
    Free,
    /// The core was asked to hold back its offers.
    Asked {
        /// First asked by the client.
        since: Instant,
    },
    /// The client's.
    Held {
        /// Since.
        since: Instant,
    },
}

/// What a request for the lock leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The core decides.
    Ask,
    /// It has to try again.
    Refuse,
}

impl Lock {
    /// The client asks for it.
    pub(super) fn request(&mut self, now: Instant) -> Request {
        match self {
            Self::Free => {
                *self = Self::Asked { since: now };
                Request::Ask
            }
            // Two requests at once, or it has it already.
            Self::Asked { .. } | Self::Held { .. } => Request::Refuse,
        }
    }

    /// The core has decided. Gives how long the client waited; `None` where it does not get it.
    pub(super) fn decided(&mut self, now: Instant, held: bool) -> Option<Duration> {
        let Self::Asked { since } = *self else { return None };
        *self = if held { Self::Held { since: now } } else { Self::Free };
        held.then(|| now.saturating_duration_since(since))
    }

    /// The client gives it back. Gives how long it had it; `None`: it had nothing to give.
    pub(super) fn release(&mut self, now: Instant) -> Option<Duration> {
        let Self::Held { since } = *self else { return None };
        *self = Self::Free;
        Some(now.saturating_duration_since(since))
    }

    /// It had it for too long.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let over = matches!(self, Self::Held { since } if now.saturating_duration_since(*since) >= LEASE);
        if over {
            *self = Self::Free;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_not_for_ever() {
        let start = Instant::now();
        let mut lock = Lock::default();
        assert_eq!(lock.release(start), None, "an unlock of what is free");
        assert_eq!(lock.request(start), Request::Ask);
        assert_eq!(lock.request(start), Request::Refuse);
        assert_eq!(lock.release(start), None, "ours to decide yet");
        assert_eq!(lock.decided(start, false), None);
        assert_eq!(lock.request(start), Request::Ask);
        assert_eq!(lock.decided(start + LEASE, true), Some(LEASE));
        assert!(!lock.expire(start + LEASE));
        assert_eq!(lock.request(start + LEASE), Request::Refuse);
        assert_eq!(lock.release(start + 2 * LEASE - Duration::from_secs(1)), Some(LEASE - Duration::from_secs(1)));
        assert_eq!(lock.request(start), Request::Ask);
        lock.decided(start, true);
        assert!(lock.expire(start + LEASE));
        assert_eq!(lock.release(start + LEASE), None);
    }
}
