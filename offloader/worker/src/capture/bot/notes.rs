//! What is noted of people beside their media, so that the picture can show it later: portraits, hands, reactions, the host, who is
//! muted. What changes faster than the capture ticks is noted as it was at the tick.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use rtc_client::mattermost::{CallState, TrackKind, UserChange};
use tokio::sync::{Semaphore, mpsc};

use super::people::{Member, Who};
use super::{Visit, pass};
use crate::capture::Command;
use crate::capture::source::Event;
use crate::job::now_us;
use crate::limits::{PORTRAIT_BYTES_MAX, PORTRAITS_ASKED, PORTRAITS_MAX, REACTIONS_A_TICK};
use crate::notes::{Sign, packets, portrait_track, sign_packets, signs_track};

/// Portraits that may wait to be written.
const PORTRAITS_WAITING: usize = 8;

/// Somebody's portrait came.
pub(super) struct Portrait {
    member: Member,
    picture: Bytes,
}

/// What is known, and what of it was noted.
pub(super) struct Notes {
    /// By session.
    hands: HashSet<String>,
    muted: HashSet<String>,
    /// The user.
    host: String,
    /// Since the last tick: session, user, emoji.
    reactions: Vec<(String, String, String)>,
    /// By identity: hand and host.
    told: HashMap<String, (bool, bool)>,
    /// Tracks of microphones that are noted as muted.
    told_muted: HashSet<Arc<str>>,
    /// Of people whose track of signs is there.
    tracks: HashSet<String>,
    /// No two signs have one moment, since that is their number.
    last_us: i64,
    portraits_of: HashSet<String>,
    asking: Arc<Semaphore>,
    tell_portrait: mpsc::Sender<Portrait>,
}

impl Notes {
    /// Nothing is known. Portraits come by the second.
    pub(super) fn new() -> (Self, mpsc::Receiver<Portrait>) {
        let (tell_portrait, portraits) = mpsc::channel(PORTRAITS_WAITING);
        let notes = Self {
            hands: HashSet::new(),
            muted: HashSet::new(),
            host: String::new(),
            reactions: Vec::new(),
            told: HashMap::new(),
            told_muted: HashSet::new(),
            tracks: HashSet::new(),
            last_us: 0,
            portraits_of: HashSet::new(),
            asking: Arc::new(Semaphore::new(PORTRAITS_ASKED)),
            tell_portrait,
        };
        (notes, portraits)
    }

    /// The plugin told of the whole call.
    pub(super) fn state(&mut self, state: &CallState) {
        self.host.clone_from(&state.host_id);
        for session in &state.sessions {
            put(&mut self.hands, &session.session_id, session.raised_hand > 0);
            put(&mut self.muted, &session.session_id, !session.unmuted);
        }
    }

    /// Somebody else is host.
    pub(super) fn host(&mut self, user: String) {
        self.host = user;
    }

    /// Somebody did something.
    pub(super) fn changed(&mut self, change: UserChange, session: &str) {
        match change {
            UserChange::HandRaised | UserChange::HandLowered => put(&mut self.hands, session, change == UserChange::HandRaised),
            UserChange::Muted | UserChange::Unmuted => put(&mut self.muted, session, change == UserChange::Muted),
            UserChange::Left => {
                self.hands.remove(session);
                self.muted.remove(session);
            }
            UserChange::Joined
            | UserChange::VoiceOn
            | UserChange::VoiceOff
            | UserChange::ScreenOn
            | UserChange::ScreenOff
            | UserChange::VideoOn
            | UserChange::VideoOff => {}
        }
    }

    /// Somebody reacts. More than a tick has room for is forgotten: nobody could see it.
    pub(super) fn reacted(&mut self, session: String, user: String, emoji: String) {
        if self.reactions.len() < REACTIONS_A_TICK {
            self.reactions.push((session, user, emoji));
        }
    }

    /// What is to be noted of people now: who, and what.
    fn signs(&mut self, members: &HashMap<String, Who>) -> Vec<(Member, Sign)> {
        let known = |session: &str| if let Some(Who::Known(member)) = members.get(session) { Some(member) } else { None };
        let mut signs = Vec::new();
        for (session, user, emoji) in std::mem::take(&mut self.reactions) {
            if let Some(member) = known(&session).or_else(|| someone(members, &user)) {
                signs.push((member.clone(), Sign::Reaction(emoji)));
            }
        }
        let raised: HashSet<&str> = self.hands.iter().filter_map(|session| known(session)).map(|member| member.identity.as_str()).collect();
        for who in members.values() {
            let Who::Known(member) = who else { continue };
            let (hand, host) = (raised.contains(member.identity.as_str()), member.identity == self.host);
            let told = match self.told.get_mut(&member.identity) {
                Some(told) => told,
                None if !hand && !host => continue,
                None => self.told.entry(member.identity.clone()).or_default(),
            };
            if told.0 != hand {
                signs.push((member.clone(), Sign::Hand(hand)));
            }
            if told.1 != host {
                signs.push((member.clone(), Sign::Host(host)));
            }
            *told = (hand, host);
        }
        signs
    }

    /// A sign as the writer takes it, after its track.
    fn events(&mut self, member: &Member, sign: &Sign) -> Vec<Event> {
        let at_us = now_us().max(self.last_us + 1);
        self.last_us = at_us;
        let info = signs_track(&member.identity, &member.name);
        let packets = Event::Packets { track_sid: info.track_sid.clone(), packets: sign_packets(at_us, sign) };
        let track = self.tracks.insert(member.identity.clone()).then_some(Event::Track { at_us, info });
        track.into_iter().chain([packets]).collect()
    }
}

fn put(set: &mut HashSet<String>, session: &str, is: bool) {
    if is {
        // As many as the plugin's state of a call may have.
        if set.len() < crate::limits::SESSIONS_NOTED_MAX {
            set.insert(session.to_owned());
        }
    } else {
        set.remove(session);
    }
}

fn someone<'m>(members: &'m HashMap<String, Who>, user: &str) -> Option<&'m Member> {
    members.values().find_map(|who| match who {
        Who::Known(member) if !user.is_empty() && member.identity == user => Some(member),
        Who::Known(_) | Who::Asked => None,
    })
}

impl Visit {
    /// Notes what has changed since the last tick.
    pub(super) async fn note(&mut self, commands: &mpsc::Sender<Command>) {
        for (member, sign) in self.notes.signs(&self.members) {
            for event in self.notes.events(&member, &sign) {
                pass(commands, Command::Event(event)).await;
            }
        }
        let voices = self.tracks.iter().filter(|(_, track)| track.announced && track.info.kind == TrackKind::Voice);
        let changed = voices.filter_map(|(id, track)| {
            let muted = self.notes.muted.contains(&track.info.session_id);
            (muted != self.notes.told_muted.contains(id)).then(|| (Arc::clone(id), muted))
        });
        for (id, muted) in changed.collect::<Vec<_>>() {
            let track_sid = id.to_string();
            if muted {
                self.notes.told_muted.insert(id);
            } else {
                self.notes.told_muted.remove(&id);
            }
            pass(commands, Command::Event(Event::Muted { track_sid, at_us: now_us(), muted })).await;
        }
    }

    /// Asks the server for somebody's portrait, once; where only words are wanted nobody needs it.
    pub(super) fn ask_portrait(&mut self, session: &str, member: &Member) {
        let notes = &mut self.notes;
        // Without a user's name there is no user.
        let named = member.identity != session;
        if self.call.recording.is_none() || !named || notes.portraits_of.len() >= PORTRAITS_MAX {
            return;
        }
        if !notes.portraits_of.insert(member.identity.clone()) {
            return;
        }
        let (site, asking, answer, member) = (self.site.clone(), Arc::clone(&notes.asking), notes.tell_portrait.clone(), member.clone());
        tokio::spawn(async move {
            let Ok(_turn) = asking.acquire().await else { return };
            match site.image(&member.identity).await {
                Ok(picture) if picture.len() <= PORTRAIT_BYTES_MAX => {
                    let _ = answer.send(Portrait { member, picture }).await;
                }
                Ok(picture) => tracing::warn!(user = member.identity, bytes = picture.len(), "a portrait is too large: initials instead"),
                Err(error) => tracing::debug!(user = member.identity, "no portrait: {error}"),
            }
        });
    }

    /// Somebody's portrait came.
    pub(super) async fn portrait(&mut self, commands: &mpsc::Sender<Command>, portrait: Portrait) {
        let Portrait { member, picture } = portrait;
        let Some(info) = portrait_track(&member.identity, &member.name, &picture) else {
            tracing::warn!(user = member.identity, "a portrait is of no kind that can be drawn: initials instead");
            return;
        };
        let (at_us, track_sid) = (now_us(), info.track_sid.clone());
        pass(commands, Command::Event(Event::Track { at_us, info })).await;
        pass(commands, Command::Event(Event::Packets { track_sid, packets: packets(at_us, &picture) })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> HashMap<String, Who> {
        let member = |name: &str| Who::Known(Member { identity: name.to_owned(), name: name.to_uppercase() });
        [("s1", member("ada")), ("s2", member("bob")), ("s3", member("ada")), ("s4", Who::Asked)]
            .into_iter()
            .map(|(session, who)| (session.to_owned(), who))
            .collect()
    }

    fn signs(notes: &mut Notes) -> Vec<(String, Sign)> {
        let mut signs: Vec<_> = notes.signs(&members()).into_iter().map(|(member, sign)| (member.identity, sign)).collect();
        signs.sort_by_key(|(identity, sign)| (identity.clone(), format!("{sign:?}")));
        signs
    }

    #[test]
    fn what_changes_and_changes_back_within_a_tick_is_not_noted() {
        let (mut notes, _portraits) = Notes::new();
        notes.changed(UserChange::HandRaised, "s2");
        notes.changed(UserChange::HandLowered, "s2");
        assert_eq!(signs(&mut notes), []);
        notes.changed(UserChange::HandRaised, "s2");
        notes.host("ada".to_owned());
        assert_eq!(signs(&mut notes), [("ada".to_owned(), Sign::Host(true)), ("bob".to_owned(), Sign::Hand(true))]);
        assert_eq!(signs(&mut notes), []);
        notes.host("bob".to_owned());
        notes.changed(UserChange::Left, "s2");
        let changed = [("ada".to_owned(), Sign::Host(false)), ("bob".to_owned(), Sign::Hand(false)), ("bob".to_owned(), Sign::Host(true))];
        assert_eq!(signs(&mut notes), changed);
    }

    #[test]
    fn a_hand_of_either_session_is_the_persons_and_of_nobody_known_nobodys() {
        let (mut notes, _portraits) = Notes::new();
        for session in ["s1", "s3", "s4", "s5"] {
            notes.changed(UserChange::HandRaised, session);
        }
        assert_eq!(signs(&mut notes), [("ada".to_owned(), Sign::Hand(true))]);
        notes.changed(UserChange::HandLowered, "s1");
        assert_eq!(signs(&mut notes), [], "the other is still up");
        notes.changed(UserChange::HandLowered, "s3");
        assert_eq!(signs(&mut notes), [("ada".to_owned(), Sign::Hand(false))]);
    }

    #[test]
    fn reactions_are_noted_as_many_as_can_be_seen() {
        let (mut notes, _portraits) = Notes::new();
        for _ in 0..1_000 {
            notes.reacted("s1".to_owned(), String::new(), "+1".to_owned());
        }
        assert_eq!(signs(&mut notes).len(), REACTIONS_A_TICK);
        notes.reacted("unknown".to_owned(), "bob".to_owned(), "tada".to_owned());
        notes.reacted("unknown".to_owned(), String::new(), "tada".to_owned());
        assert_eq!(signs(&mut notes), [("bob".to_owned(), Sign::Reaction("tada".to_owned()))]);
        let member = Member { identity: "ada".to_owned(), name: "Ada".to_owned() };
        let events = notes.events(&member, &Sign::Hand(true));
        assert!(matches!(&events[..], [Event::Track { .. }, Event::Packets { .. }]), "its track first");
        assert!(matches!(&notes.events(&member, &Sign::Hand(false))[..], [Event::Packets { .. }]));
    }
}
