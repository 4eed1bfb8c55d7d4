//! Who is in a LiveKit room and what they publish, as the server's updates tell it, one after the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use livekit_protocol as lk;

use super::super::event::TrackKind;
use super::super::limits::{PARTICIPANTS_MAX, PUBLICATIONS_MAX};

/// Between a user's id and the session's in an identity.
const BETWEEN: &str = "___";
/// What the plugin's attributes are called.
const IS_BOT: &str = "isBot";
const RAISED_HAND: &str = "raisedHand";

/// A published track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) kind: TrackKind,
    pub(super) session_id: String,
    pub(super) muted: bool,
}

/// What an update changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Came { session_id: String, user_id: String, name: String },
    Left { session_id: String, user_id: String },
    Hand { session_id: String, user_id: String, raised: bool },
    Published(Arc<str>, Publication),
    Muted(Arc<str>, bool),
    Unpublished(Arc<str>),
}

/// See [`People::signs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs {
    pub(super) unmuted: bool,
    pub(super) hand: bool,
}

struct Person {
    /// LiveKit's name of this visit; the identity comes again with another one.
    sid: String,
    version: u32,
    session_id: String,
    user_id: String,
    hand: bool,
    tracks: HashMap<Arc<str>, Publication>,
}

/// See the module.
#[derive(Default)]
pub(super) struct People {
    /// Our own user: the site's bot, of whom there may be several.
    own_user: String,
    by_identity: HashMap<String, Person>,
    /// Tracks of them all.
    published: usize,
}

impl People {
    /// The room as it is when we enter, with who of those known before are no longer there.
    pub(super) fn enter(&mut self, own: &lk::ParticipantInfo, others: Vec<lk::ParticipantInfo>) -> Vec<Change> {
        let (user, _) = names(&own.identity);
        user.clone_into(&mut self.own_user);
        let there: HashSet<&str> = others.iter().map(|info| info.identity.as_str()).collect();
        let gone: Vec<String> = self.by_identity.keys().filter(|identity| !there.contains(identity.as_str())).cloned().collect();
        let mut changes = Vec::new();
        for identity in gone {
            self.leave(&identity, &mut changes);
        }
        // What was counted before is another room's, or another connection's.
        self.by_identity.values_mut().for_each(|person| person.version = 0);
        changes.extend(self.update(others));
        changes
    }

    /// What the server says of some of them.
    pub(super) fn update(&mut self, told: Vec<lk::ParticipantInfo>) -> Vec<Change> {
        let mut changes = Vec::new();
        for info in told {
            self.one(info, &mut changes);
        }
        changes
    }

    fn one(&mut self, info: lk::ParticipantInfo, changes: &mut Vec<Change>) {
        let (user_id, session_id) = names(&info.identity);
        if info.identity.is_empty() || (!user_id.is_empty() && user_id == self.own_user) || is_machine(&info) {
            return;
        }
        if let Some(known) = self.by_identity.get(&info.identity) {
            let same = known.sid == info.sid;
            if same && info.version != 0 && info.version < known.version {
                return;
            }
            if info.state() == lk::participant_info::State::Disconnected {
                // Of an earlier visit: whoever is there now stays.
                if same {
                    self.leave(&info.identity, changes);
                }
                return;
            }
        } else {
            if info.state() == lk::participant_info::State::Disconnected || self.by_identity.len() >= PARTICIPANTS_MAX {
                return;
            }
            let person = Person {
                sid: String::new(),
                version: 0,
                session_id: session_id.to_owned(),
                user_id: user_id.to_owned(),
                hand: false,
                tracks: HashMap::new(),
            };
            changes.push(Change::Came { session_id: session_id.to_owned(), user_id: user_id.to_owned(), name: info.name.clone() });
            self.by_identity.insert(info.identity.clone(), person);
        }
        let Some(person) = self.by_identity.get_mut(&info.identity) else { return };
        (person.sid, person.version) = (info.sid, info.version);
        let raised = info.attributes.get(RAISED_HAND).is_some_and(|hand| !matches!(hand.as_str(), "" | "0" | "false"));
        if raised != person.hand {
            person.hand = raised;
            changes.push(Change::Hand { session_id: person.session_id.clone(), user_id: person.user_id.clone(), raised });
        }
        let others = self.published - person.tracks.len();
        person.publish(info.tracks, PUBLICATIONS_MAX.saturating_sub(others), changes);
        self.published = others + person.tracks.len();
    }

    /// How each session is, beside what it publishes.
    pub(super) fn signs(&self) -> HashMap<&str, Signs> {
        let unmuted = |person: &Person| person.tracks.values().any(|track| track.kind == TrackKind::Voice && !track.muted);
        let signs = |person: &Person| Signs { unmuted: unmuted(person), hand: person.hand };
        self.by_identity.values().map(|person| (person.session_id.as_str(), signs(person))).collect()
    }

    fn leave(&mut self, identity: &str, changes: &mut Vec<Change>) {
        if let Some(person) = self.by_identity.remove(identity) {
            self.published -= person.tracks.len();
            changes.extend(person.tracks.into_keys().map(Change::Unpublished));
            changes.push(Change::Left { session_id: person.session_id, user_id: person.user_id });
        }
    }
}

impl Person {
    fn publish(&mut self, told: Vec<lk::TrackInfo>, most: usize, changes: &mut Vec<Change>) {
        let gone: Vec<Arc<str>> = self.tracks.keys().filter(|sid| told.iter().all(|track| *track.sid != ***sid)).cloned().collect();
        for sid in gone {
            self.tracks.remove(&sid);
            changes.push(Change::Unpublished(sid));
        }
        for track in told {
            if let Some((sid, known)) = self.tracks.get_key_value(track.sid.as_str()) {
                if known.muted != track.muted {
                    let sid = Arc::clone(sid);
                    if let Some(known) = self.tracks.get_mut(&sid) {
                        known.muted = track.muted;
                    }
                    changes.push(Change::Muted(sid, track.muted));
                }
                continue;
            }
            let Some(kind) = kind(&track) else { continue };
            if track.sid.is_empty() || self.tracks.len() >= most {
                continue;
            }
            if track.encryption() != lk::encryption::Type::None {
                tracing::warn!(track = track.sid, "a track is encrypted end to end: nobody but those in the call can hear or see it");
                continue;
            }
            let sid: Arc<str> = Arc::from(track.sid.as_str());
            let publication = Publication { kind, session_id: self.session_id.clone(), muted: track.muted };
            self.tracks.insert(Arc::clone(&sid), publication.clone());
            changes.push(Change::Published(sid, publication));
        }
    }
}

/// User and session of an identity. Somebody whom the plugin gave no token, on a telephone say, is nobody's user.
fn names(identity: &str) -> (&str, &str) {
    identity.rsplit_once(BETWEEN).unwrap_or(("", identity))
}

/// Somebody whom nobody hears: recorders, agents.
fn is_machine(info: &lk::ParticipantInfo) -> bool {
    use lk::participant_info::Kind;
    matches!(info.kind(), Kind::Egress | Kind::Agent) || info.attributes.get(IS_BOT).is_some_and(|is| is == "true")
}

fn kind(track: &lk::TrackInfo) -> Option<TrackKind> {
    Some(match (track.source(), track.r#type()) {
        (lk::TrackSource::Microphone, lk::TrackType::Audio) | (lk::TrackSource::Unknown, lk::TrackType::Audio) => TrackKind::Voice,
        (lk::TrackSource::ScreenShareAudio, lk::TrackType::Audio) => TrackKind::ScreenAudio,
        (lk::TrackSource::ScreenShare, lk::TrackType::Video) => TrackKind::Screen,
        (lk::TrackSource::Camera, lk::TrackType::Video) | (lk::TrackSource::Unknown, lk::TrackType::Video) => TrackKind::Video,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use lk::participant_info::State;

    use super::*;

    fn info(identity: &str, sid: &str, version: u32, tracks: &[(&str, lk::TrackSource, bool)]) -> lk::ParticipantInfo {
        let track = |(sid, source, muted): &(&str, lk::TrackSource, bool)| lk::TrackInfo {
            sid: (*sid).to_owned(),
            source: (*source).into(),
            r#type: match source {
                lk::TrackSource::Camera | lk::TrackSource::ScreenShare => lk::TrackType::Video,
                lk::TrackSource::Unknown | lk::TrackSource::Microphone | lk::TrackSource::ScreenShareAudio => lk::TrackType::Audio,
            }
            .into(),
            muted: *muted,
            ..Default::default()
        };
        lk::ParticipantInfo {
            identity: identity.to_owned(),
            sid: sid.to_owned(),
            version,
            name: "a name".to_owned(),
            state: State::Active.into(),
            tracks: tracks.iter().map(track).collect(),
            ..Default::default()
        }
    }

    fn gone(identity: &str, sid: &str) -> lk::ParticipantInfo {
        lk::ParticipantInfo { state: State::Disconnected.into(), ..info(identity, sid, 9, &[]) }
    }

    fn brief(changes: &[Change]) -> Vec<String> {
        let one = |change: &Change| match change {
            Change::Came { session_id, user_id, name } => format!("{session_id} of {user_id} came: {name}"),
            Change::Left { session_id, .. } => format!("{session_id} left"),
            Change::Hand { session_id, raised, .. } => format!("{session_id} hand {raised}"),
            Change::Published(sid, publication) => format!("{sid} is {:?} of {}", publication.kind, publication.session_id),
            Change::Muted(sid, muted) => format!("{sid} muted {muted}"),
            Change::Unpublished(sid) => format!("{sid} gone"),
        };
        changes.iter().map(one).collect()
    }

    const MIC: lk::TrackSource = lk::TrackSource::Microphone;

    #[test]
    fn people_come_publish_mute_republish_and_go() {
        let mut people = People::default();
        let bot = info("bot___mine", "PA_0", 1, &[]);
        let other_bot = info("bot___another", "PA_9", 1, &[("TR_9", MIC, false)]);
        let entered = people.enter(&bot, vec![info("ann___s1", "PA_1", 1, &[("TR_1", MIC, false)]), other_bot]);
        assert_eq!(brief(&entered), ["s1 of ann came: a name", "TR_1 is Voice of s1"]);
        let muted = people.update(vec![info("ann___s1", "PA_1", 2, &[("TR_1", MIC, true)])]);
        assert_eq!(brief(&muted), ["TR_1 muted true"]);
        assert_eq!(people.signs(), HashMap::from([("s1", Signs { unmuted: false, hand: false })]));
        assert_eq!(people.update(vec![info("ann___s1", "PA_1", 1, &[("TR_1", MIC, false)])]), [], "an older word");
        let screen = ("TR_3", lk::TrackSource::ScreenShare, false);
        let sound = ("TR_4", lk::TrackSource::ScreenShareAudio, false);
        let again = people.update(vec![info("ann___s1", "PA_1", 3, &[("TR_2", MIC, false), screen, sound])]);
        assert_eq!(brief(&again), ["TR_1 gone", "TR_2 is Voice of s1", "TR_3 is Screen of s1", "TR_4 is ScreenAudio of s1"]);
        let mut left = brief(&people.update(vec![gone("ann___s1", "PA_1")]));
        left.sort();
        assert_eq!(left, ["TR_2 gone", "TR_3 gone", "TR_4 gone", "s1 left"]);
        assert_eq!(people.update(vec![gone("ann___s1", "PA_1")]), []);
    }

    #[test]
    fn who_comes_again_is_not_sent_away_by_the_end_of_the_visit_before() {
        let mut people = People::default();
        people.update(vec![info("ann___s1", "PA_1", 5, &[("TR_1", MIC, false)])]);
        let again = people.update(vec![info("ann___s1", "PA_2", 1, &[("TR_2", MIC, false)])]);
        assert_eq!(brief(&again), ["TR_1 gone", "TR_2 is Voice of s1"]);
        assert_eq!(people.update(vec![gone("ann___s1", "PA_1")]), []);
        assert_eq!(brief(&people.update(vec![gone("ann___s1", "PA_2")])), ["TR_2 gone", "s1 left"]);
    }

    #[test]
    fn entering_again_tells_only_what_changed_meanwhile() {
        let mut people = People::default();
        let bot = info("bot___mine", "PA_0", 1, &[]);
        people.enter(&bot, vec![info("ann___s1", "PA_1", 7, &[("TR_1", MIC, false)]), info("bob___s2", "PA_2", 7, &[])]);
        let again = people.enter(&bot, vec![info("ann___s1", "PA_1", 1, &[("TR_1", MIC, false)])]);
        assert_eq!(brief(&again), ["s2 left"]);
    }

    #[test]
    fn telephones_are_people_and_machines_and_secrets_are_not() {
        let mut people = People::default();
        let mut secret = info("ann___s1", "PA_1", 1, &[("TR_1", MIC, false)]);
        secret.tracks[0].encryption = lk::encryption::Type::Gcm.into();
        let mut egress = info("EG_1", "PA_2", 1, &[]);
        egress.kind = lk::participant_info::Kind::Egress.into();
        let mut bot = info("other___s3", "PA_3", 1, &[("TR_3", MIC, false)]);
        bot.attributes.insert(IS_BOT.to_owned(), "true".to_owned());
        let mut hand = info("sip_+49123", "PA_4", 1, &[("TR_4", MIC, false)]);
        hand.attributes.insert(RAISED_HAND.to_owned(), "1700000000".to_owned());
        let told = people.update(vec![secret, egress, bot, hand]);
        let expected = ["s1 of ann came: a name", "sip_+49123 of  came: a name", "sip_+49123 hand true", "TR_4 is Voice of sip_+49123"];
        assert_eq!(brief(&told), expected);
        assert_eq!(people.signs().get("sip_+49123"), Some(&Signs { unmuted: true, hand: true }));
    }

    #[test]
    fn what_is_followed_has_a_bound() {
        let mut people = People::default();
        let sids: Vec<String> = (0..PUBLICATIONS_MAX + 3).map(|n| format!("TR_{n}")).collect();
        let tracks: Vec<(&str, lk::TrackSource, bool)> = sids.iter().map(|sid| (sid.as_str(), MIC, false)).collect();
        assert_eq!(people.update(vec![info("ann___s1", "PA_1", 1, &tracks)]).len(), 1 + PUBLICATIONS_MAX);
        assert_eq!(brief(&people.update(vec![info("bob___s2", "PA_2", 1, &tracks[..1])])), ["s2 of bob came: a name"]);
        let crowd = (0..=PARTICIPANTS_MAX).map(|n| info(&format!("u___{n}"), "PA", 1, &[])).collect();
        people.update(crowd);
        assert_eq!(people.by_identity.len(), PARTICIPANTS_MAX);
    }
}
