//! What is counted about clients' connections. What is measured about sessions goes to [`crate::metrics::Metrics`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::frames::{ClientMessage, ServerMessage};
use super::limits::CLIENT_SERIES_MAX;

/// Label of the clients beyond [`CLIENT_SERIES_MAX`] together.
const OTHERS: &str = "(others)";

/// Counts, in the words of Mattermost's rtcd.
#[derive(Debug, Default)]
pub struct Figures {
    messages: Mutex<Messages>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Messages {
    clients: BTreeSet<String>,
    /// By client, type and direction.
    counts: BTreeMap<(String, &'static str, &'static str), u64>,
}

impl Figures {
    /// A frame came.
    pub fn message_in(&self, client: &str, message: &ClientMessage) {
        match message {
            ClientMessage::Join { .. } | ClientMessage::Leave { .. } | ClientMessage::Reconnect { .. } | ClientMessage::Rtc { .. } => {
                self.count(client, message.name(), "in");
            }
            ClientMessage::Unexpected { .. } => {}
        }
    }

    /// A frame goes. Hello and close are not counted, as there.
    pub(super) fn message_out(&self, client: &str, message: &ServerMessage) {
        match message {
            ServerMessage::Rtc { .. } | ServerMessage::Vad { .. } => self.count(client, message.name(), "out"),
            ServerMessage::Hello { .. } | ServerMessage::Close { .. } => {}
        }
    }

    /// A frame could go nowhere.
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames that could go nowhere.
    #[must_use]
    pub fn frames_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// `(client, type, direction)` and how many.
    #[must_use]
    pub fn messages(&self) -> Vec<((String, &'static str, &'static str), u64)> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.counts.iter().map(|(labels, count)| (labels.clone(), *count)).collect()
    }

    fn count(&self, client: &str, kind: &'static str, direction: &'static str) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let known = messages.clients.contains(client);
        let label = if known || messages.clients.len() < CLIENT_SERIES_MAX { client } else { OTHERS };
        if !known {
            messages.clients.insert(label.to_owned());
        }
        *messages.counts.entry((label.to_owned(), kind, direction)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_clients_make_a_bounded_page() {
        let figures = Figures::default();
        let leave = ClientMessage::Leave { session_id: "s".to_owned() };
        for n in 0..10_000 {
            figures.message_in(&format!("client-{n}"), &leave);
            figures.message_in("client-0", &ClientMessage::Unexpected { kind: "x".to_owned() });
        }
        let messages = figures.messages();
        assert_eq!(messages.len(), CLIENT_SERIES_MAX + 1);
        assert_eq!(messages.iter().map(|(_, count)| count).sum::<u64>(), 10_000, "nothing is lost, only the names are");
    }
}
