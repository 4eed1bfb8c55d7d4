//! Who is in which call, as far as taps, admission and the ops page need it. Kept by the desks from what adapters say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conclave_proto::v1;
use conclave_proto::v1::{TapItem, tap_item};
use rtcd_core::ids::{CallId, PeerId, TrackId};
use rustc_hash::FxHashMap;
use tokio::sync::broadcast;

use crate::limits::{ENCRYPTED_TRACKS_MAX, MEDIA_KEYS_MAX};
use crate::media_key::{KeyName, MediaKey};

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
    /// Of what is encrypted end to end, those taken back too.
    media_keys: Vec<MediaKey>,
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
    /// Tracks of theirs that are encrypted end to end, and how; the newest last.
    encrypted: Vec<(TrackId, v1::TapEncryption)>,
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
            media_keys: Vec::new(),
            watchers: None,
        });
        if entry.people.len() >= PEOPLE_MAX {
            entry.people.retain(|_, person| person.present);
        }
        let encrypted = entry.people.remove(&joined.participant_sid).map(|before| (before.present, before.encrypted));
        let (was_present, encrypted) = encrypted.unwrap_or_default();
        let person = Person { identity: joined.identity.clone(), display_name: joined.display_name.clone(), present: true, encrypted };
        entry.people.insert(joined.participant_sid.clone(), person.clone());
        if !was_present {
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

    /// Somebody publishes a track that is encrypted end to end.
    pub fn encrypted(&self, call: &CallId, peer: &PeerId, track: &TrackId, how: v1::TapEncryption) {
        let mut calls = self.lock();
        let Some(person) = calls.get_mut(call).and_then(|entry| entry.people.get_mut(peer.as_str())) else { return };
        if person.encrypted.len() >= ENCRYPTED_TRACKS_MAX {
            person.encrypted.remove(0);
        }
        person.encrypted.push((track.clone(), how));
    }

    /// How a peer's track is encrypted end to end.
    #[must_use]
    pub fn encryption(&self, call: &CallId, peer: &str, track: &str) -> v1::TapEncryption {
        let calls = self.lock();
        let of = calls.get(call).and_then(|entry| entry.people.get(peer));
        let known = of.and_then(|person| person.encrypted.iter().find(|(other, _)| other.as_str() == track));
        known.map_or(v1::TapEncryption::None, |(_, how)| *how)
    }

    /// A key of what is encrypted end to end was granted to recordings, or taken back.
    pub fn granted(&self, call: &CallId, key: MediaKey, at_ms: i64) {
        let mut calls = self.lock();
        let Some(entry) = calls.get_mut(call) else { return };
        // What was taken back is remembered for taps that are away for a moment: as many as are granted at most.
        while entry.media_keys.len() >= MEDIA_KEYS_MAX * 2
            && let Some(gone) = entry.media_keys.iter().position(|other| other.secret.is_none())
        {
            entry.media_keys.remove(gone);
        }
        entry.media_keys.retain(|other| other.name != key.name);
        entry.tell(|| item(at_ms, tap_item::Item::MediaKey(key.announcement())));
        entry.media_keys.push(key);
    }

    /// What a recording tap is told of a key; `None`: it changed meanwhile, and another word follows.
    #[must_use]
    pub fn media_key(&self, call: &CallId, told: &v1::TapMediaKey) -> Option<v1::TapMediaKey> {
        let name = KeyName::of_item(told);
        let calls = self.lock();
        let key = calls.get(call)?.media_keys.iter().find(|key| key.name == name)?;
        (key.secret.is_some() == told.granted && key.at_ms == told.at_ms).then(|| key.item())
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
        now.extend(entry.media_keys.iter().map(|key| item(at_ms, tap_item::Item::MediaKey(key.announcement()))));
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

    #[test]
    fn a_media_key_is_told_without_its_secret_and_given_where_it_is_looked_up() {
        use crate::media_key::{Derivation, KeySecret};
        let directory = Directory::default();
        let call = CallId::new("default/c").expect("a name");
        let joined = v1::ParticipantJoined { identity: "u-1".into(), participant_sid: "PA_1".into(), display_name: "Ann".into() };
        directory.joined(&call, &joined, 1);
        let (peer, track) = (PeerId::new("PA_1").expect("a name"), TrackId::new("TR_1").expect("a name"));
        directory.encrypted(&call, &peer, &track, v1::TapEncryption::Gcm);
        // A page that comes back has the same tracks.
        directory.joined(&call, &joined, 2);
        assert_eq!(directory.encryption(&call, "PA_1", "TR_1"), v1::TapEncryption::Gcm);
        assert_eq!(directory.encryption(&call, "PA_1", "TR_2"), v1::TapEncryption::None);

        let key = |at_ms, secret: bool| MediaKey {
            name: KeyName { by: "u-1".into(), of: String::new(), index: 1 },
            by_name: "Ann".into(),
            secret: secret.then(|| KeySecret {
                derivation: Derivation::Hkdf,
                material: zeroize::Zeroizing::new(vec![7; 16]),
                salt: "s".into(),
                bits: 128,
                ratchet_window: 0,
            }),
            at_ms,
        };
        let mut watch = directory.watch(&call, 3).expect("a call");
        directory.granted(&call, key(3, true), 3);
        let mut told = || match watch.changes.try_recv().expect("a change").item {
            Some(tap_item::Item::MediaKey(told)) => told,
            other => panic!("{other:?}"),
        };
        let granted = told();
        assert!(granted.granted && granted.material.is_empty());
        assert_eq!(directory.media_key(&call, &granted).expect("a key").material, vec![7; 16]);
        directory.granted(&call, key(4, false), 4);
        assert!(directory.media_key(&call, &granted).is_none(), "it was taken back meanwhile");
        let taken = directory.media_key(&call, &told()).expect("a word");
        assert!(!taken.granted && taken.material.is_empty());
        let later = directory.watch(&call, 5).expect("a call").now;
        assert!(later.iter().any(|item| matches!(&item.item, Some(tap_item::Item::MediaKey(key)) if !key.granted)));
        directory.ended(&call, 6);
        assert!(directory.media_key(&call, &granted).is_none(), "it ends with the call");
    }
}
