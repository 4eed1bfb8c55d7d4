//! Who is in which call, as far as taps, admission and the ops page need it. Kept by the desks from what adapters say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conclave_proto::v1;
use conclave_proto::v1::{TapItem, tap_item};
use rtcd_core::ids::CallId;
use rustc_hash::FxHashMap;
use tokio::sync::broadcast;

/// Items a watching tap may be behind before it is ended: a whole large call joining at once.
const WATCH_MAX: usize = 2048;
/// People remembered per call, those who left included; a tap asks for names a moment later.
const PEOPLE_MAX: usize = 8192;

/// See the module.
#[derive(Default)]
pub struct Directory {
    calls: Mutex<FxHashMap<CallId, Entry>>,
    present: AtomicUsize,
}

struct Entry {
    started_at_us: i64,
    /// By the core's peer id.
    people: FxHashMap<String, Person>,
    consents: FxHashMap<String, v1::TapConsent>,
    /// Made with the first tap: its places cost some 300 KiB, and most calls are watched by nobody.
    watchers: Option<broadcast::Sender<TapItem>>,
}

impl Entry {
    fn tell(&mut self, item: impl FnOnce() -> TapItem) {
        // Without taps there is nobody to tell, and nothing to keep places for.
        match &self.watchers {
            Some(watchers) if watchers.receiver_count() > 0 => drop(watchers.send(item())),
            Some(_) => self.watchers = None,
            None => {}
        }
    }
}

#[derive(Clone)]
struct Person {
    identity: String,
    display_name: String,
    present: bool,
}

/// How an identity stands to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seat {
    /// Never was in it.
    None,
    /// Was in it: a page that reloads says good-bye and comes again.
    Left,
    /// Is in it: what comes is the same person's new connection.
    Taken,
}

/// What a tap learns about people: how it is now, then what changes.
pub struct Watch {
    /// Unix, µs.
    pub call_started_at_us: i64,
    /// Who is there and what they answered.
    pub now: Vec<TapItem>,
    /// Changes.
    pub changes: broadcast::Receiver<TapItem>,
}

impl Directory {
    /// Somebody joined; the first one makes the call.
    pub fn joined(&self, call: &CallId, joined: &v1::ParticipantJoined, at_ms: i64) {
        let mut calls = self.lock();
        let entry = calls.entry(call.clone()).or_insert_with(|| Entry {
            started_at_us: at_ms.saturating_mul(1000),
            people: FxHashMap::default(),
            consents: FxHashMap::default(),
            watchers: None,
        });
        if entry.people.len() >= PEOPLE_MAX {
            entry.people.retain(|_, person| person.present);
        }
        let person = Person { identity: joined.identity.clone(), display_name: joined.display_name.clone(), present: true };
        let before = entry.people.insert(joined.participant_sid.clone(), person.clone());
        if !before.is_some_and(|before| before.present) {
            self.present.fetch_add(1, Ordering::Relaxed);
        }
        entry.tell(|| participant(&person, at_ms));
    }

    /// Somebody left.
    pub fn left(&self, call: &CallId, left: &v1::ParticipantLeft, at_ms: i64) {
        let mut calls = self.lock();
        let Some(entry) = calls.get_mut(call) else { return };
        let Some(person) = entry.people.get_mut(&left.participant_sid) else { return };
        if std::mem::replace(&mut person.present, false) {
            self.present.fetch_sub(1, Ordering::Relaxed);
            let person = person.clone();
            entry.tell(|| participant(&person, at_ms));
        }
    }

    /// Somebody answered the recording notice.
    pub fn consented(&self, call: &CallId, consent: &v1::RecordingConsent, at_ms: i64) {
        let mut calls = self.lock();
        let Some(entry) = calls.get_mut(call) else { return };
        let answer = v1::TapConsent {
            identity: consent.identity.clone(),
            granted: consent.granted,
            answered_at_ms: consent.answered_at_ms,
            notice_version: consent.notice_version.clone(),
        };
        entry.consents.insert(consent.identity.clone(), answer.clone());
        entry.tell(|| item(at_ms, tap_item::Item::Consent(answer)));
    }

    /// The call is over.
    pub fn ended(&self, call: &CallId, at_ms: i64) {
        let Some(mut entry) = self.lock().remove(call) else { return };
        let present = entry.people.values().filter(|person| person.present).count();
        self.present.fetch_sub(present, Ordering::Relaxed);
        entry.tell(|| item(at_ms, tap_item::Item::CallEnded(v1::TapCallEnded {})));
    }

    /// For a new tap. `None`: no such call.
    #[must_use]
    pub fn watch(&self, call: &CallId, at_ms: i64) -> Option<Watch> {
        let mut calls = self.lock();
        let entry = calls.get_mut(call)?;
        let mut now: Vec<TapItem> =
            entry.people.values().filter(|person| person.present).map(|person| participant(person, at_ms)).collect();
        now.extend(entry.consents.values().map(|consent| item(at_ms, tap_item::Item::Consent(consent.clone()))));
        let watchers = entry.watchers.get_or_insert_with(|| broadcast::channel(WATCH_MAX).0);
        Some(Watch { call_started_at_us: entry.started_at_us, now, changes: watchers.subscribe() })
    }

    /// `(identity, display name)` of a peer, also shortly after it left.
    #[must_use]
    pub fn person(&self, call: &CallId, peer: &str) -> Option<(String, String)> {
        let calls = self.lock();
        calls.get(call)?.people.get(peer).map(|person| (person.identity.clone(), person.display_name.clone()))
    }

    /// Whether the call is known.
    #[must_use]
    pub fn has_call(&self, call: &CallId) -> bool {
        self.lock().contains_key(call)
    }

    /// How an identity stands to a call.
    #[must_use]
    pub fn seat(&self, call: &CallId, identity: &str) -> Seat {
        let calls = self.lock();
        let same = calls.get(call).into_iter().flat_map(|entry| entry.people.values()).filter(|person| person.identity == identity);
        same.map(|person| if person.present { Seat::Taken } else { Seat::Left }).max().unwrap_or(Seat::None)
    }

    /// People in one call.
    #[must_use]
    pub fn present_in(&self, call: &CallId) -> usize {
        self.lock().get(call).map_or(0, |entry| entry.people.values().filter(|person| person.present).count())
    }

    /// People in all calls.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// Calls.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<CallId, Entry>> {
        // Nothing under the lock can leave it half done, so a poisoned one is as good.
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn participant(person: &Person, at_ms: i64) -> TapItem {
    item(
        at_ms,
        tap_item::Item::Participant(v1::TapParticipant {
            identity: person.identity.clone(),
            display_name: person.display_name.clone(),
            present: person.present,
        }),
    )
}

fn item(at_ms: i64, item: tap_item::Item) -> TapItem {
    TapItem { at_us: at_ms.saturating_mul(1000), item: Some(item) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_joins_repeats_leaves_and_ends() {
        let directory = Directory::default();
        let call = CallId::new("default/c").expect("a name");
        let joined =
            |sid: &str| v1::ParticipantJoined { identity: format!("u-{sid}"), participant_sid: sid.into(), display_name: sid.into() };
        directory.joined(&call, &joined("a"), 1);
        directory.joined(&call, &joined("a"), 2);
        directory.joined(&call, &joined("b"), 3);
        assert_eq!((directory.present(), directory.present_in(&call)), (2, 2));
        assert_eq!((directory.seat(&call, "u-a"), directory.seat(&call, "u-c")), (Seat::Taken, Seat::None));
        let left = v1::ParticipantLeft { identity: "u-a".into(), participant_sid: "a".into(), reason: 0 };
        directory.left(&call, &left, 4);
        directory.left(&call, &left, 5);
        assert_eq!(directory.present(), 1);
        assert_eq!(directory.seat(&call, "u-a"), Seat::Left);
        assert_eq!(directory.person(&call, "a"), Some(("u-a".into(), "a".into())), "remembered for a tap's last tracks");
        directory.ended(&call, 6);
        assert_eq!((directory.present(), directory.calls()), (0, 0));
    }

    #[test]
    fn a_tap_learns_how_it_is_and_what_changes() {
        let directory = Directory::default();
        let call = CallId::new("default/c").expect("a name");
        assert!(directory.watch(&call, 0).is_none());
        directory.joined(
            &call,
            &v1::ParticipantJoined { identity: "u-1".into(), participant_sid: "PA_1".into(), display_name: "Ann".into() },
            1,
        );
        // A tap that is gone takes nothing from the next one.
        drop(directory.watch(&call, 2).expect("a call"));
        let other = |sid: &str| v1::ParticipantJoined { identity: "u-2".into(), participant_sid: sid.into(), display_name: "Ben".into() };
        directory.joined(&call, &other("PA_2"), 2);
        assert!(directory.lock()[&call].watchers.is_none(), "nobody watches: no places are kept");
        let mut watch = directory.watch(&call, 2).expect("a call");
        let ann = |item: &TapItem| matches!(&item.item, Some(tap_item::Item::Participant(person)) if person.display_name == "Ann" && person.present);
        assert!(watch.now.len() == 2 && watch.now.iter().any(ann));
        directory.consented(&call, &v1::RecordingConsent { identity: "u-1".into(), granted: true, ..v1::RecordingConsent::default() }, 3);
        directory.ended(&call, 4);
        assert!(matches!(watch.changes.try_recv().expect("a change").item, Some(tap_item::Item::Consent(_))));
        assert!(matches!(watch.changes.try_recv().expect("a change").item, Some(tap_item::Item::CallEnded(_))));
    }
}
