//! Calls, the sessions in them and what they send.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtcd_core::ids::{CallId, PeerId, TrackId};
use rtcd_core::output::SendingSection;

use super::super::limits::{DESCRIPTION_BYTES_BURST, DESCRIPTION_BYTES_PER_S};
use super::lock::Lock;
use super::track::Class;
use super::voice::{THRESHOLDS, VoiceDetector};
use crate::signal::bucket::Bucket;

/// One call of a client.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    /// As the client calls it.
    pub(super) name: String,
    /// Whose.
    pub(super) client: Arc<str>,
    pub(super) started_at_ms: i64,
    pub(super) sessions: Vec<Session>,
    /// Who shares its screen: one at a time.
    pub(super) screen: Option<PeerId>,
    /// Tracks that others can have.
    pub(super) live: HashMap<TrackId, Live>,
}

/// A live track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) publisher: PeerId,
    pub(super) class: Class,
    pub(super) av1: bool,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: PeerId,
    /// The client's name for it.
    pub(super) name: String,
    pub(super) user: String,
    pub(super) av1: bool,
    /// Our offers go over its data channel.
    pub(super) offers_by_channel: bool,
    pub(super) joined: Instant,
    pub(super) joined_at_ms: i64,
    /// Its first offer came.
    pub(super) offered: bool,
    /// The certificate of that offer, by its fingerprint.
    pub(super) certificate: Option<String>,
    /// An offer for a new media connection, waiting for the end of the one before: the JSON it came as.
    pub(super) renewal: Option<Bytes>,
    /// The plugin has said that it is over; the core is about to. No offer brings it back.
    pub(super) leaves: bool,
    /// Its data channel is open.
    pub(super) ready: bool,
    /// Bytes of descriptions that may still be read.
    pub(super) descriptions: Bucket,
    /// Counts its offers.
    pub(super) offers: u32,
    /// Our offer is under way since.
    pub(super) awaits_answer: Option<Instant>,
    /// That offer, where it goes over the plugin and the client does not have its media map yet: since when it waits, and the JSON.
    pub(super) after_map: Option<(Instant, Vec<u8>)>,
    pub(super) lock: Lock,
    pub(super) voice: VoiceDetector,
    /// What it muted last.
    pub(super) muted: bool,
    /// Streams it said it would send, oldest first.
    pub(super) announced: Vec<(String, Class)>,
    /// What it sends.
    pub(super) sections: Vec<Section>,
    /// What it was given of the others.
    pub(super) given: HashSet<TrackId>,
}

/// Something a session sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) sending: SendingSection,
    /// Once it is known what it is.
    pub(super) track: Option<(TrackId, Class)>,
    /// Its track was taken back by word; what may still come on it is nothing.
    pub(super) over: bool,
}

/// Names of one session's streams that are remembered: screens and cameras, one after the other.
const ANNOUNCED_MAX: usize = 16;

impl Call {
    pub(super) fn session(&self, peer: &PeerId) -> Option<&Session> {
        self.sessions.iter().find(|session| session.peer == *peer)
    }

    /// A session is over, be a new media connection of it waiting or not.
    pub(super) fn leaves(&mut self, peer: &PeerId) {
        if let Some(session) = self.session_mut(peer) {
            (session.leaves, session.renewal) = (true, None);
        }
    }

    pub(super) fn session_mut(&mut self, peer: &PeerId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.peer == *peer)
    }

    /// Nothing of this session can be had any more.
    pub(super) fn forget_tracks(&mut self, peer: &PeerId) {
        if self.screen.as_ref() == Some(peer) {
            self.screen = None;
        }
        self.live.retain(|_, live| live.publisher != *peer);
    }

    /// What is live of one publisher and of one class: more than one where a picture comes in two codecs.
    pub(super) fn alike(&self, publisher: &PeerId, class: Class) -> Vec<(TrackId, Live)> {
        let of_it = self.live.iter().filter(|(_, live)| live.publisher == *publisher && live.class == class);
        of_it.map(|(id, live)| (id.clone(), live.clone())).collect()
    }
}

/// Whether a viewer gets a track: everything of the others, of a picture in two codecs (`tracks` has both) the one it can show.
pub(super) fn takes(viewer: &Session, track: &Live, tracks: &[(TrackId, Live)]) -> bool {
    let twin = |other: &Live| other.publisher == track.publisher && other.class == track.class && other.av1 != track.av1;
    track.publisher != viewer.peer
        && match (track.av1, viewer.av1) {
            (true, can) => can,
            (false, true) => !tracks.iter().any(|(_, other)| twin(other)),
            (false, false) => true,
        }
}

impl Session {
    pub(super) fn new(peer: PeerId, name: String, user: String, av1: bool, offers_by_channel: bool, now: Instant, unix_ms: i64) -> Self {
        Self {
            peer,
            name,
            user,
            av1,
            offers_by_channel,
            joined: now,
            joined_at_ms: unix_ms,
            offered: false,
            certificate: None,
            renewal: None,
            leaves: false,
            ready: false,
            descriptions: Bucket::new(DESCRIPTION_BYTES_PER_S, DESCRIPTION_BYTES_BURST, now),
            offers: 0,
            awaits_answer: None,
            after_map: None,
            lock: Lock::default(),
            voice: VoiceDetector::new(THRESHOLDS),
            muted: false,
            announced: Vec::new(),
            sections: Vec::new(),
            given: HashSet::new(),
        }
    }

    /// As it was when it joined, for a new media connection.
    pub(super) fn renew(&mut self, now: Instant) {
        let (name, user, descriptions) = (std::mem::take(&mut self.name), std::mem::take(&mut self.user), self.descriptions);
        *self = Self::new(self.peer.clone(), name, user, self.av1, self.offers_by_channel, now, self.joined_at_ms);
        self.descriptions = descriptions;
    }

    pub(super) fn announce(&mut self, stream: String, class: Class) {
        self.announced.retain(|(known, _)| *known != stream);
        if self.announced.len() >= ANNOUNCED_MAX {
            self.announced.remove(0);
        }
        self.announced.push((stream, class));
    }

    /// Its tracks of a class.
    pub(super) fn tracks(&self, class: Class) -> impl Iterator<Item = &TrackId> {
        self.sections.iter().filter_map(move |section| section.track.as_ref().filter(|(_, of)| *of == class).map(|(id, _)| id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).expect("a name")
    }

    fn session(name: &str, av1: bool) -> Session {
        Session::new(peer(name), name.to_owned(), "u".to_owned(), av1, true, Instant::now(), 0)
    }

    fn live(publisher: &str, class: Class, av1: bool) -> Live {
        Live { publisher: peer(publisher), class, av1 }
    }

    #[test]
    fn of_two_codecs_each_viewer_gets_the_one_it_can_show() {
        let id = |name: &str| TrackId::new(name).expect("a name");
        let mut call = Call {
            id: CallId::new("mm:a/c").expect("a name"),
            name: "c".to_owned(),
            client: "a".into(),
            started_at_ms: 0,
            sessions: Vec::new(),
            screen: None,
            live: HashMap::from([(id("vp8"), live("ann", Class::Screen, false)), (id("voice"), live("ann", Class::Voice, false))]),
        };
        let (old, new) = (session("ben", false), session("cem", true));
        let wanted = |call: &Call, viewer: &Session| -> HashSet<TrackId> {
            let all: Vec<_> = call.live.iter().map(|(id, live)| (id.clone(), live.clone())).collect();
            all.iter().filter(|(_, live)| takes(viewer, live, &all)).map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(wanted(&call, &new), HashSet::from([id("vp8"), id("voice")]), "there is no other yet");
        call.live.insert(id("av1"), live("ann", Class::Screen, true));
        assert_eq!(wanted(&call, &new), HashSet::from([id("av1"), id("voice")]));
        assert_eq!(wanted(&call, &old), HashSet::from([id("vp8"), id("voice")]));
        assert!(wanted(&call, &session("ann", true)).is_empty(), "nobody gets its own");
        let screens: HashSet<_> = call.alike(&peer("ann"), Class::Screen).into_iter().map(|(id, _)| id).collect();
        assert_eq!(screens, HashSet::from([id("vp8"), id("av1")]));
    }

    #[test]
    fn announcements_are_bounded_and_the_last_counts() {
        let mut session = session("ann", false);
        for n in 0..100 {
            session.announce(format!("stream{n}"), Class::Video);
        }
        session.announce("stream99".to_owned(), Class::Screen);
        assert_eq!((session.announced.len(), session.announced.last().cloned()), (16, Some(("stream99".to_owned(), Class::Screen))));
    }
}
