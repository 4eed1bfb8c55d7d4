//! What the core says, as frames for clients and events for message servers.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message;
use rtcd_core::ids::{CallId, PeerId, TrackId};
use rtcd_core::output::{EndReason, Event, Signal, Step};

use super::Adapter;
use super::call::{Call, Participant, Track};
use super::translate;
use super::turn::Turn;
use crate::signal::seam::Fault;

impl Adapter {
    /// For one participant.
    pub(super) fn handle_signal(&mut self, turn: &mut Turn<'_>, peer: &PeerId, signal: Signal) {
        // What the core says of somebody who has left meanwhile concerns nobody.
        let Some(call) = self.peers.get(peer).and_then(|call| self.calls.get_mut(call)) else { return };
        let Some(participant) = call.participant_mut(peer) else { return };
        match signal {
            Signal::Answer { sdp, id, mids } => {
                turn.tell(participant, Message::Answer(description("answer", sdp, id, mids)));
            }
            Signal::Offer { sdp, id, mids } => {
                turn.tell(participant, Message::Offer(description("offer", sdp, id, mids)));
            }
            Signal::NeedSections { audio, video } => {
                let need = lk::MediaSectionsRequirement { num_audios: audio, num_videos: video };
                turn.tell(participant, Message::MediaSectionsRequirement(need));
            }
            Signal::Refused { side, reason } => {
                tracing::warn!(?peer, ?side, reason, "description refused, client starts over");
                // There is no message for it: without one the client would wait 15 s and then start over.
                turn.tell(participant, Message::Leave(translate::start_over()));
                turn.fault(&call.id, Fault::Signaling);
            }
            Signal::WantedLayers { track: id, layers } => {
                let Some(track) = participant.track_in_any_codec(&id) else { return };
                match &mut track.backup {
                    Some(backup) if track.id != id => backup.wanted_layers = layers,
                    _ => track.wanted_layers = layers,
                }
                let update = subscribed_quality(track);
                turn.tell(participant, Message::SubscribedQualityUpdate(update));
            }
            Signal::StreamState { track, paused } => {
                let track = call.shown_as(&track);
                let Some(participant) = call.participant_mut(peer) else { return };
                if paused {
                    participant.paused.insert(track.clone())
                } else {
                    participant.paused.remove(&track)
                };
                call.tell_stream_state(turn, peer, &track, paused);
            }
            Signal::Subscribed { track } => call.tell_subscribed(turn, &track),
            Signal::Undecodable { track } => call.handle_undecodable(turn, peer, &track),
            // Of clients that offer too, which are none of LiveKit's.
            Signal::Sending(_) | Signal::OffersHeld { .. } | Signal::Delivered => {}
            Signal::Ended { reason } => {
                // `Left` follows our own command.
                let tell = reason != EndReason::Left;
                self.end_participant(turn, peer, translate::end_reason(reason), tell);
            }
        }
    }

    /// For everybody in a call.
    pub(super) fn handle_event(&mut self, turn: &mut Turn<'_>, call: &CallId, event: Event) {
        let Some(call) = self.calls.get_mut(call) else { return };
        match event {
            Event::TrackLive { peer, track, .. } if call.is_backup(&track) => call.handle_backup_live(turn, &peer, &track),
            Event::TrackEnded { peer, track } if call.is_backup(&track) => call.handle_backup_ended(turn, &peer, &track),
            Event::TrackLive { peer, track, mime, layers, kind: _, source: _ } => {
                call.handle_track_live(turn, &peer, track.as_str(), mime, &layers);
            }
            Event::TrackEnded { peer, track } => call.handle_track_ended(turn, &peer, track.as_str()),
            Event::TrackMuted { peer, track, muted } => call.note_muted(turn, &peer, track.as_str(), muted),
            Event::Speakers(speakers) => call.tell_speakers(turn, &speakers),
            Event::Quality(changes) => call.tell_verdicts(turn, &changes),
            Event::Step { peer, side: _, step, detail } => call.note_step(turn, &peer, step, detail),
            // Clients see it by themselves; the desk passes a last diagnosis on.
            Event::DataOpen { .. } | Event::Departed { .. } | Event::AudioLevels { .. } => {}
            // Calls are counted here, by participants: a new one may have joined while the core said so.
            Event::Ended => {}
        }
    }
}

impl Call {
    fn tell_stream_state(&self, turn: &mut Turn<'_>, peer: &PeerId, track: &TrackId, paused: bool) {
        let (Some(participant), Some((publisher, track))) = (self.participant(peer), self.track(track.as_str())) else {
            return;
        };
        let update = lk::StreamStateUpdate { stream_states: vec![stream_state(publisher, track, paused)] };
        turn.tell(participant, Message::StreamStateUpdate(update));
    }

    /// The publisher learns of its first subscriber.
    fn tell_subscribed(&mut self, turn: &mut Turn<'_>, track: &TrackId) {
        for publisher in &mut self.participants {
            let Some(track) = publisher.track_mut(track.as_str()) else { continue };
            if !std::mem::replace(&mut track.subscribed, true) {
                let message = lk::TrackSubscribed { track_sid: track.id.as_str().to_owned() };
                turn.tell(publisher, Message::TrackSubscribed(message));
            }
        }
    }

    fn tell_speakers(&self, turn: &mut Turn<'_>, speakers: &[(PeerId, f32, bool)]) {
        let visible: Vec<(&Participant, f32, bool)> = speakers
            .iter()
            .filter_map(|(peer, level, active)| Some((self.participant(peer)?, *level, *active)))
            .filter(|(participant, ..)| !participant.grants.hidden)
            .collect();
        if visible.is_empty() {
            return;
        }
        let info = |(participant, level, active): &(&Participant, f32, bool)| lk::SpeakerInfo {
            sid: participant.peer.as_str().to_owned(),
            level: *level,
            active: *active,
        };
        let changed = lk::SpeakersChanged { speakers: visible.iter().map(info).collect() };
        turn.broadcast(self, None, Message::SpeakersChanged(changed));
        let speaker = |(participant, level, active): &(&Participant, f32, bool)| v1::Speaker {
            identity: participant.identity.clone(),
            level: *level,
            active: *active,
        };
        let speakers = visible.iter().map(speaker).collect();
        turn.event(self, v1::call_event::Event::Speakers(v1::SpeakersChanged { speakers }));
    }

    fn note_step(&mut self, turn: &mut Turn<'_>, peer: &PeerId, step: Step, detail: String) {
        let Some(participant) = self.participant_mut(peer) else { return };
        let identity = participant.identity.clone();
        let connected = matches!(step, Step::DtlsDone | Step::RtpIn | Step::RtpOut);
        let became_active = connected && !participant.active;
        participant.active |= connected;
        let state = v1::MediaState { identity, step: translate::media_step(step).into(), detail };
        turn.event(self, v1::call_event::Event::Media(state));
        if became_active {
            self.announce_change(turn, peer);
            self.route_data_tracks(turn, None);
            if let Some(participant) = self.participant(peer) {
                turn.hook_joined(self, participant);
            }
        }
    }
}

fn description(kind: &str, sdp: String, id: u32, mids: Vec<(String, TrackId)>) -> lk::SessionDescription {
    lk::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        mid_to_track_id: mids.into_iter().map(|(mid, track)| (mid, track.as_str().to_owned())).collect(),
    }
}

/// Dynacast: which layers somebody wants.
pub(super) fn subscribed_quality(track: &Track) -> lk::SubscribedQualityUpdate {
    let qualities = qualities(&track.wanted_layers);
    let codec = |mime_type: &str, qualities| {
        let codec = mime_type.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        lk::SubscribedCodec { codec, qualities }
    };
    let backup = track.backup.as_ref().filter(|backup| backup.is_asked_for());
    // SDKs of before codec simulcast read only the first list.
    lk::SubscribedQualityUpdate {
        track_sid: track.id.as_str().to_owned(),
        subscribed_qualities: qualities.clone(),
        subscribed_codecs: std::iter::once(codec(&track.info.mime_type, qualities))
            .chain(backup.map(|backup| codec(backup.mime(), self::qualities(&backup.wanted_layers))))
            .collect(),
    }
}

/// A client publishes everything until told otherwise.
fn qualities(wanted: &[(u8, bool)]) -> Vec<lk::SubscribedQuality> {
    let everything = [(0, true), (1, true), (2, true)];
    let wanted = if wanted.is_empty() { &everything } else { wanted };
    let quality =
        |(layer, enabled): &(u8, bool)| lk::SubscribedQuality { quality: translate::video_quality(*layer).into(), enabled: *enabled };
    wanted.iter().map(quality).collect()
}

pub(super) fn stream_state(publisher: &Participant, track: &Track, paused: bool) -> lk::StreamStateInfo {
    let state = if paused { lk::StreamState::Paused } else { lk::StreamState::Active };
    lk::StreamStateInfo {
        participant_sid: publisher.peer.as_str().to_owned(),
        track_sid: track.id.as_str().to_owned(),
        state: state.into(),
    }
}
