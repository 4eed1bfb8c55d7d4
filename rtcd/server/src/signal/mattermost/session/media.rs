//! What sessions send, and who gets it.

use rtcd_core::ids::{PeerId, TrackId};
use rtcd_core::input::Publish;
use rtcd_core::output::{Event, SendingSection};

use super::call::{Call, Live, Section, Session, takes};
use super::track::{Class, classify, track_id};
use super::{RtcKind, ServerMessage, Turn, description};
use crate::shard::Command;

const AV1: &str = "video/AV1";

impl Call {
    /// Something happened in the call.
    pub(super) fn event(&mut self, turn: &mut Turn<'_>, event: Event) {
        match event {
            Event::DataOpen { peer, channel: _ } => {
                let Some(session) = self.session_mut(&peer) else { return };
                session.ready = true;
                let all: Vec<_> = self.live.iter().map(|(id, live)| (id.clone(), live.clone())).collect();
                self.give(turn, &all, |viewer| viewer.peer == peer);
            }
            Event::TrackLive { peer, track, mime, .. } => {
                let class = self.session(&peer).and_then(|session| {
                    let mut tracks = session.sections.iter().filter_map(|section| section.track.as_ref());
                    tracks.find(|(id, _)| *id == track).map(|(_, class)| *class)
                });
                let Some(class) = class else { return };
                self.live.insert(track, Live { publisher: peer.clone(), class, av1: mime == AV1 });
                self.give(turn, &self.alike(&peer, class), |_| true);
            }
            Event::TrackEnded { track, .. } => {
                for session in &mut self.sessions {
                    session.given.remove(&track);
                }
                // Of two codecs the other one may be left.
                if let Some(Live { publisher, class, .. }) = self.live.remove(&track) {
                    self.give(turn, &self.alike(&publisher, class), |_| true);
                }
            }
            Event::AudioLevels { peer, levels } => {
                let Some(session) = self.session_mut(&peer) else { return };
                let now = turn.now.instant;
                let changes: Vec<bool> = levels.iter().filter_map(|level| session.voice.push(now, *level)).collect();
                for speaks in changes {
                    self.tell_voice(turn, &peer, speaks);
                }
            }
            // Clients see connections by themselves; who speaks is told by the detector; a call ends with its last session.
            Event::TrackMuted { .. }
            | Event::Speakers(_)
            | Event::Quality(_)
            | Event::Step { .. }
            | Event::Departed { .. }
            | Event::Ended => {}
        }
    }

    /// What the session sends now.
    pub(super) fn sending(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sections: Vec<SendingSection>) {
        let Some(session) = self.session_mut(peer) else { return };
        let mut before = std::mem::take(&mut session.sections);
        for sending in sections {
            let known = before.iter().position(|section| section.sending.mid == sending.mid).map(|at| before.swap_remove(at));
            let section = match known {
                Some(section) if section.sending.stream == sending.stream && section.sending.mime == sending.mime => section,
                // Another stream on the same section is something else.
                Some(Section { track: Some((track, _)), .. }) => {
                    turn.core(Command::Unpublish { peer: peer.clone(), track });
                    Section { sending, track: None, over: false }
                }
                Some(_) | None => Section { sending, track: None, over: false },
            };
            session.sections.push(section);
        }
        // The tracks of sections that are gone end by themselves.
        self.publish_known(turn, peer);
    }

    /// Publishes whatever is known by now.
    fn publish_known(&mut self, turn: &mut Turn<'_>, peer: &PeerId) {
        let shares = self.screen.as_ref() == Some(peer);
        let Some(session) = self.session_mut(peer) else { return };
        let announced: Vec<(String, Class)> =
            session.announced.iter().filter(|(_, class)| *class != Class::Screen || shares).cloned().collect();
        let (name, muted) = (session.name.clone(), session.muted);
        for section in session.sections.iter_mut().filter(|section| section.track.is_none() && !section.over) {
            let Some(class) = classify(section.sending.kind, &section.sending.stream, &announced) else {
                tracing::debug!(?peer, mid = section.sending.mid, "a picture waits until it is said what it is");
                continue;
            };
            let Some(track) = track_id(class, &name) else { continue };
            section.track = Some((track.clone(), class));
            turn.core(Command::Publish(Box::new(Publish {
                peer: peer.clone(),
                track,
                cid: section.sending.mid.clone(),
                kind: section.sending.kind,
                source: class.source(),
                muted: muted && class == Class::Voice,
                layers: Vec::new(),
                dtx: false,
                stereo: false,
                codec: None,
                backup_of: None,
            })));
        }
    }

    /// Brings what these viewers get of these tracks in line with what there is: in a call of a thousand, one that comes is nobody else's
    /// business. Tracks that are alike are all among them or none.
    fn give(&mut self, turn: &mut Turn<'_>, tracks: &[(TrackId, Live)], viewers: impl Fn(&Session) -> bool) {
        for session in self.sessions.iter_mut().filter(|session| session.ready && viewers(session)) {
            let (comes, goes): (Vec<_>, Vec<_>) = tracks.iter().partition(|(_, live)| takes(session, live, tracks));
            // What goes makes room for what comes.
            for (track, wanted) in goes.iter().map(|(id, _)| (id, false)).chain(comes.iter().map(|(id, _)| (id, true))) {
                let changed = if wanted { session.given.insert(track.clone()) } else { session.given.remove(track) };
                if changed {
                    turn.core(Command::Subscribe { peer: session.peer.clone(), track: track.clone(), wanted });
                }
            }
        }
    }

    pub(super) fn mute(&mut self, turn: &mut Turn<'_>, peer: &PeerId, muted: bool) {
        let Some(session) = self.session_mut(peer) else { return };
        let tracks: Vec<TrackId> = session.tracks(Class::Voice).cloned().collect();
        // Before there is a voice there is nothing to mute; the first one is born enabled.
        if tracks.is_empty() {
            return;
        }
        session.muted = muted;
        for track in tracks {
            turn.core(Command::Mute { peer: peer.clone(), track, muted });
        }
        if muted {
            session.voice.reset();
            self.tell_voice(turn, peer, false);
        }
    }

    pub(super) fn screen_on(&mut self, turn: &mut Turn<'_>, peer: &PeerId, data: &[u8]) {
        let Some(stream) = description::announced_stream(data) else {
            tracing::warn!(?peer, "a screen was announced without the id of its stream: it is passed over");
            return;
        };
        match &self.screen {
            Some(other) if other != peer => tracing::warn!(?peer, "somebody else shares a screen already"),
            Some(_) | None => self.screen = Some(peer.clone()),
        }
        if let Some(session) = self.session_mut(peer) {
            session.sections.iter_mut().filter(|section| section.sending.stream == stream).for_each(|section| section.over = false);
            session.announce(stream, Class::Screen);
        }
        self.publish_known(turn, peer);
    }

    pub(super) fn screen_off(&mut self, turn: &mut Turn<'_>, peer: &PeerId) {
        let shared = self.screen.as_ref() == Some(peer);
        let Some(session) = self.session_mut(peer) else { return };
        session.announced.retain(|(_, class)| *class != Class::Screen);
        if !shared {
            return;
        }
        for section in &mut session.sections {
            let of_screen = section.track.take_if(|(_, class)| matches!(class, Class::Screen | Class::ScreenAudio));
            if let Some((track, _)) = of_screen {
                section.over = true;
                turn.core(Command::Unpublish { peer: peer.clone(), track });
            }
        }
        self.screen = None;
    }

    pub(super) fn video_on(&mut self, turn: &mut Turn<'_>, peer: &PeerId, data: &[u8]) {
        let Some(stream) = description::announced_stream(data) else {
            tracing::warn!(?peer, "a camera was announced without the id of its stream: it is passed over");
            return;
        };
        if let Some(session) = self.session_mut(peer) {
            session.announce(stream, Class::Video);
        }
        self.publish_known(turn, peer);
    }

    fn tell_voice(&self, turn: &mut Turn<'_>, peer: &PeerId, speaks: bool) {
        let Some(session) = self.session(peer) else { return };
        let message = ServerMessage::Vad {
            group_id: self.client.to_string(),
            user_id: session.user.clone(),
            session_id: session.name.clone(),
            call_id: self.name.clone(),
            kind: if speaks { RtcKind::VoiceOn } else { RtcKind::VoiceOff },
        };
        turn.say(self, session, message);
    }
}
