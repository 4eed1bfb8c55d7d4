//! The states of a transport, all on one page: each has one timer, and one state that follows when it runs out.
//!
//! ```text
//!             offer and answer      a valid check        DTLS done
//! Invited ──────────────► Checking ──────────► Securing ──────────► Live ◄─────┐ a valid check
//!    │ INVITED_MAX          │ CHECKING_MAX       │ SECURING_MAX       │ consent  │
//!    ▼                      ▼                    ▼                    ▼          │
//!   Gone                   Gone                 Gone                Quiet ──────┘
//!                                                                    │ grace
//!                                                                    ▼
//!                                                                   Gone: the peer ends with `MediaLost`
//! ```

use std::time::{Duration, Instant};

use super::TransportKey;
use crate::core::Core;
use crate::counters::Count;
use crate::output::{EndReason, Step};
use crate::timers::Timer;

/// Until the other side's description comes: an answer crosses two services and a browser's main thread.
pub(crate) const INVITED_MAX: Duration = Duration::from_secs(60);
/// Until the first valid check. Browsers give up after 15 to 30 s themselves.
pub(crate) const CHECKING_MAX: Duration = Duration::from_secs(60);
/// Until DTLS is done (D-01: a handshake ends within 30 s).
pub(crate) const SECURING_MAX: Duration = Duration::from_secs(30);

/// Where a transport stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Waits for the other side's description.
    Invited,
    /// Waits for a valid check.
    Checking,
    /// Waits for DTLS.
    Securing,
    /// Carries media.
    Live,
    /// Nothing may be sent: consent ran out.
    Quiet,
    /// Over.
    Gone,
}

impl Core {
    /// Enters a state and sets its timer.
    pub(crate) fn enter(&mut self, now: Instant, key: TransportKey, state: State) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.state == state {
            return;
        }
        transport.state = state;
        let after = match state {
            State::Invited => Some(INVITED_MAX),
            State::Checking => Some(CHECKING_MAX),
            State::Securing => Some(SECURING_MAX),
            State::Live => transport.ice.poll_timeout().map(|at| at.saturating_duration_since(now)),
            State::Quiet => Some(self.config.grace),
            State::Gone => None,
        };
        match after {
            Some(after) => self.timers.set(&mut transport.alarms.state, Timer::State(key), now + after),
            None => transport.alarms.state.clear(),
        }
        match state {
            State::Live => self.reached(key, Step::DtlsDone, String::new()),
            State::Quiet => self.reached(key, Step::Lost, "no connectivity check for 30 s: the network or the browser is gone".to_owned()),
            State::Invited | State::Checking | State::Securing | State::Gone => {}
        }
    }

    /// A state's timer ran out.
    pub(crate) fn state_timeout(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        match transport.state {
            State::Invited => self.give_up(now, key, "no answer to the description came"),
            State::Checking => self.give_up(now, key, "no connectivity check came: is the media port reachable over UDP or TCP?"),
            State::Securing => self.give_up(now, key, "DTLS did not finish"),
            State::Quiet => self.give_up(now, key, "media stayed away for the grace time"),
            State::Live => {
                let event = transport.ice.handle_timeout(now);
                let next = transport.ice.poll_timeout();
                if let Some(at) = next {
                    self.timers.set(&mut transport.alarms.state, Timer::State(key), at);
                }
                if let Some(event) = event {
                    self.ice_event(now, key, event);
                }
            }
            State::Gone => {}
        }
    }

    fn give_up(&mut self, now: Instant, key: TransportKey, why: &str) {
        self.condemn(key, None);
        self.enter(now, key, State::Gone);
        self.counters.one(Count::PeersLost);
        let Some(peer) = self.transports.get(key).map(|transport| transport.peer) else { return };
        self.reached(key, Step::Lost, why.to_owned());
        self.end_peer(now, peer, EndReason::MediaLost);
    }
}
