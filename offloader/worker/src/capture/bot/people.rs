//! Who is in the call: the plugin says by which name; who comes, stays and goes is told to the writer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use archive::manifest::Consent;
use rtc_client::mattermost::{Profile, Site, TrackKind, UserChange};
use tokio::sync::mpsc;

use super::{NOTICE_VERSION, Visit, pass};
use crate::capture::Command;
use crate::capture::source::Event;
use crate::job::now_us;

/// Who somebody is, is asked so often; then they are recorded without a name.
const PROFILE_TRIES: u32 = 5;
const PROFILE_PAUSE: Duration = Duration::from_secs(1);
/// Sessions of which the media server's word is kept: as many as a call has.
const HINTS_MAX: usize = 10_000;
/// Answers that may wait to be read.
pub(super) const NAMES_MAX: usize = 256;

/// Somebody in the call.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) identity: String,
    pub(super) name: String,
}

/// Whose session it is; `None`: the site cannot say.
pub(super) struct Named {
    pub(super) session: String,
    pub(super) member: Option<Member>,
}

/// What the media server calls somebody.
pub(super) struct Hint {
    user_id: String,
    name: String,
}

/// Those of a call's sessions: by them people are recorded whom the site does not name.
pub(super) type Hints = HashMap<String, Hint>;

/// What is known of a session's owner.
pub(super) enum Who {
    Asked,
    Known(Member),
}

impl Visit {
    pub(super) fn known_members(&self) -> Vec<Member> {
        self.members.values().filter_map(|who| if let Who::Known(member) = who { Some(member.clone()) } else { None }).collect()
    }

    pub(super) async fn changed(&mut self, commands: Option<&mpsc::Sender<Command>>, change: UserChange, session: &str) {
        match change {
            UserChange::Joined => self.ask_who(session),
            UserChange::Left => {
                if let (Some(Who::Known(member)), Some(commands)) = (self.members.remove(session), commands) {
                    // Somebody with two pages open is there until the second is closed.
                    if !self.known_members().iter().any(|other| other.identity == member.identity) {
                        let Member { identity, name } = member;
                        let left = Event::Participant { at_us: now_us(), identity, display_name: name, present: false };
                        pass(commands, Command::Event(left)).await;
                    }
                }
            }
            UserChange::VideoOn | UserChange::VideoOff => {
                let muted = change == UserChange::VideoOff;
                let camera = self.tracks.values().find(|track| track.info.kind == TrackKind::Video && track.info.session_id == session);
                if let (Some(track), Some(commands)) = (camera.filter(|track| track.announced), commands) {
                    let track_sid = track.info.track_id.to_string();
                    pass(commands, Command::Event(Event::Muted { track_sid, at_us: now_us(), muted })).await;
                }
            }
            UserChange::ScreenOff => {
                let ended: Vec<Arc<str>> = self
                    .tracks
                    .iter()
                    .filter(|(_, track)| {
                        matches!(track.info.kind, TrackKind::Screen | TrackKind::ScreenAudio) && track.info.session_id == session
                    })
                    .map(|(id, _)| Arc::clone(id))
                    .collect();
                for id in ended {
                    match commands {
                        Some(commands) => self.track_ended(commands, &id).await,
                        None => drop(self.tracks.remove(&id)),
                    }
                }
            }
            UserChange::Muted
            | UserChange::Unmuted
            | UserChange::VoiceOn
            | UserChange::VoiceOff
            | UserChange::ScreenOn
            | UserChange::HandRaised
            | UserChange::HandLowered => {}
        }
    }

    /// Asks the server whose session this is, once.
    pub(super) fn ask_who(&mut self, session: &str) {
        if session.is_empty() || session == self.checkpoint.session_id || self.members.contains_key(session) {
            return;
        }
        self.members.insert(session.to_owned(), Who::Asked);
        let (site, channel, session, answer) =
            (self.site.clone(), self.call.channel_id.clone(), session.to_owned(), self.tell_name.clone());
        // Nobody's user is nobody whom the site could name: somebody on a telephone.
        let a_user = self.hints.get(&session).is_none_or(|hint| !hint.user_id.is_empty());
        tokio::spawn(async move {
            let profile = if a_user { ask(&site, &channel, &session).await } else { None };
            let member = profile.map(|profile| Member { name: profile.display_name().to_owned(), identity: profile.user_id });
            let _ = answer.send(Named { session, member }).await;
        });
    }

    /// Somebody is there, by the media server's word.
    pub(super) fn present(&mut self, session: &str, user_id: String, name: String) {
        if self.hints.len() < HINTS_MAX {
            self.hints.insert(session.to_owned(), Hint { user_id, name });
        }
        self.ask_who(session);
    }

    /// Recorded all the same.
    pub(super) fn unnamed(&self, session: &str) -> Member {
        let said = |text: fn(&Hint) -> &String| self.hints.get(session).map(text).filter(|text| !text.is_empty()).cloned();
        Member {
            identity: said(|hint| &hint.user_id).unwrap_or_else(|| session.to_owned()),
            name: said(|hint| &hint.name).unwrap_or_else(|| "Unknown participant".to_owned()),
        }
    }

    /// Somebody's name came.
    pub(super) async fn known(&mut self, commands: &mpsc::Sender<Command>, session: String, member: Member) {
        if !self.members.contains_key(&session) {
            // Left meanwhile; what they said is theirs all the same.
            self.members.insert(session.clone(), Who::Asked);
        }
        came(commands, &member).await;
        self.ask_portrait(&session, &member);
        self.members.insert(session.clone(), Who::Known(member));
        let ids: Vec<Arc<str>> =
            self.tracks.iter().filter(|(_, track)| track.info.session_id == session).map(|(id, _)| Arc::clone(id)).collect();
        for id in ids {
            let waiting = self.tracks.get_mut(&id).map(|track| std::mem::take(&mut track.waiting)).unwrap_or_default();
            for event in waiting {
                self.hand_on(commands, &id, event).await;
            }
            if self.tracks.get(&id).is_some_and(|track| track.ended) {
                self.track_ended(commands, &id).await;
            }
        }
    }
}

/// Somebody is there. Who stays after the plugin's notice agrees (docs/decisions/0019): the plugin lets a bot in only for a recording
/// that it has told everybody of.
pub(super) async fn came(commands: &mpsc::Sender<Command>, member: &Member) {
    let Member { identity, name } = member.clone();
    let consent = Consent {
        identity: identity.clone(),
        display_name: name.clone(),
        granted: true,
        answered_at_ms: now_us() / 1_000,
        notice_version: NOTICE_VERSION.to_owned(),
    };
    pass(commands, Command::Event(Event::Consent { at_us: now_us(), consent })).await;
    pass(commands, Command::Event(Event::Participant { at_us: now_us(), identity, display_name: name, present: true })).await;
}

async fn ask(site: &Site, channel: &str, session: &str) -> Option<Profile> {
    for n in 0..PROFILE_TRIES {
        if n > 0 {
            tokio::time::sleep(PROFILE_PAUSE).await;
        }
        match site.profile(channel, session).await {
            Ok(profile) => return Some(profile),
            Err(error) => tracing::debug!("{error}"),
        }
    }
    tracing::warn!(session, "the site cannot say who this is: recorded by the media server's name for them, if any");
    None
}
