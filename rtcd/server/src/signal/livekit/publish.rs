//! A participant's own tracks: announcing, muting, describing, taking back.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::request_response::{Reason, Request};
use lk::signal_response::Message;
use rtcd_core::ids::{Kind, PeerId, TrackId};
use rtcd_core::input::{Layer, Publish};

use super::backup::Backup;
use super::call::{Call, Track};
use super::translate;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;
use crate::signal::seam::{AdapterOutput, Fault};

impl Call {
    pub(super) fn handle_add_track(&mut self, turn: &mut Turn<'_>, peer: &PeerId, request: lk::AddTrackRequest) {
        let call = self.id.clone();
        if !request.sid.is_empty() {
            return self.handle_add_backup(turn, peer, request);
        }
        let Some(participant) = self.participant_mut(peer) else { return };
        // The client asks again where the answer got lost.
        if let Some(track) = participant.tracks.iter().find(|track| track.cid == request.cid) {
            let response = lk::TrackPublishedResponse { cid: track.cid.clone(), track: Some(track.info.clone()) };
            return turn.tell(participant, Message::TrackPublished(response));
        }
        let kind = translate::kind(request.r#type());
        let too_long = |text: &String| text.len() > limits::TRACK_TEXT_LEN_MAX;
        let problem = if !translate::may_publish(&participant.grants, request.source()) {
            Some((Reason::NotAllowed, "the token does not allow to publish from this source"))
        } else if kind.is_none() || request.cid.is_empty() {
            Some((Reason::InvalidRequest, "a track needs a cid and the type AUDIO or VIDEO"))
        } else if too_long(&request.cid) || too_long(&request.name) || too_long(&request.stream) {
            Some((Reason::LimitExceeded, "cid, name or stream of the track is too long"))
        } else {
            None
        };
        if problem.is_none() && participant.tracks.len() >= rtcd_core::limits::TRACKS_PER_PEER_MAX {
            // Announced and never sent: given up by the client, which has no message for that.
            if let Some(at) = participant.tracks.iter().position(|track| !track.live) {
                let stale = participant.tracks.remove(at);
                turn.core(Command::Unpublish { peer: peer.clone(), track: stale.id });
            }
        }
        let full = participant.tracks.len() >= rtcd_core::limits::TRACKS_PER_PEER_MAX;
        let problem = problem.or_else(|| full.then_some((Reason::LimitExceeded, "unpublish a track before publishing another one")));
        let (Some(kind), None) = (kind, problem) else {
            return self.refuse_track(turn, peer, request, problem.unwrap_or((Reason::InvalidRequest, "the track has no type")));
        };
        let Some(track) = TrackId::new(&translate::new_sid("TR_")) else { return };
        let layers = translate::layers(&request);
        let info = track_info(&track, kind, &request, &layers);
        let publish = Publish {
            peer: peer.clone(),
            track: track.clone(),
            cid: request.cid.clone(),
            kind,
            source: translate::source(request.source()),
            muted: request.muted,
            layers,
            dtx: kind == Kind::Audio && !info.disable_dtx,
            stereo: info.stereo,
            codec: translate::codec(&info.mime_type).filter(|_| !request.simulcast_codecs.is_empty()),
            backup_of: None,
        };
        if let Some(how) = translate::encryption(info.encryption()) {
            turn.out.push(AdapterOutput::Encrypted { call, peer: peer.clone(), track: track.clone(), how });
        }
        turn.core(Command::Publish(Box::new(publish)));
        let response = lk::TrackPublishedResponse { cid: request.cid.clone(), track: Some(info.clone()) };
        turn.tell(participant, Message::TrackPublished(response));
        participant.tracks.push(Track {
            id: track.clone(),
            cid: request.cid.clone(),
            info,
            live: false,
            wanted_layers: Vec::new(),
            subscribed: false,
            backup: Backup::announced(kind, &request.simulcast_codecs),
        });
        self.hold_back_from_restricted(turn, peer, &track);
        self.withhold_sealed(turn, peer);
    }

    pub(super) fn refuse_track(&self, turn: &mut Turn<'_>, peer: &PeerId, request: lk::AddTrackRequest, why: (Reason, &str)) {
        if let Some(session) = self.participant(peer).and_then(|participant| participant.session.as_ref()) {
            super::request::refuse(turn, session, 0, why.0, why.1, Some(Request::AddTrack(request)));
        }
        turn.fault(&self.id, Fault::Track);
    }

    /// The participant mutes or unmutes its own track.
    pub(super) fn handle_mute(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str, muted: bool) {
        let Some(track) = self.participant_mut(peer).and_then(|participant| participant.track_mut(sid)) else { return };
        let id = track.id.clone();
        turn.core(Command::Mute { peer: peer.clone(), track: id, muted });
        self.note_muted(turn, peer, sid, muted);
    }

    /// Remembers and tells that a track is muted or not; nothing where that is known.
    pub(super) fn note_muted(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str, muted: bool) {
        let Some(track) = self.participant_mut(peer).and_then(|participant| participant.track_mut(sid)) else { return };
        if track.info.muted == muted {
            return;
        }
        track.info.muted = muted;
        if track.live {
            self.announce_change(turn, peer);
            self.track_event(turn, peer, sid, true);
        }
    }

    pub(super) fn handle_update_audio_track(&mut self, turn: &mut Turn<'_>, peer: &PeerId, update: lk::UpdateLocalAudioTrack) {
        let Some(track) = self.participant_mut(peer).and_then(|participant| participant.track_mut(&update.track_sid)) else {
            return;
        };
        // There are nine features; a longer list repeats itself.
        track.info.audio_features = update.features.into_iter().take(16).collect();
        self.announce_change(turn, peer);
    }

    pub(super) fn handle_update_video_track(&mut self, turn: &mut Turn<'_>, peer: &PeerId, update: lk::UpdateLocalVideoTrack) {
        let Some(track) = self.participant_mut(peer).and_then(|participant| participant.track_mut(&update.track_sid)) else {
            return;
        };
        track.info.width = update.width;
        track.info.height = update.height;
        self.announce_change(turn, peer);
    }

    /// The core bound media to the track: everybody may know of it.
    pub(super) fn handle_track_live(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str, mime: String, layers: &[Layer]) {
        let Some(track) = self.participant_mut(peer).and_then(|participant| participant.track_mut(sid)) else { return };
        let first = !std::mem::replace(&mut track.live, true);
        if track.info.r#type() == lk::TrackType::Video {
            track.info.simulcast = layers.len() > 1;
        }
        for codec in track.info.codecs.iter_mut().take(1) {
            codec.mime_type.clone_from(&mime);
        }
        track.info.mime_type = mime;
        self.announce_change(turn, peer);
        if first {
            self.tell_refused(turn, peer, sid);
        }
        self.give_to_those_allowed_since(turn, peer, sid);
        self.track_event(turn, peer, sid, true);
        if let Some(participant) = self.participant(peer).filter(|_| first) {
            turn.hook_track(self, participant, sid, true);
            turn.agents_published(self, participant);
            self.tell_verdict_of(turn, peer);
            self.begin_due(turn, peer, sid);
        }
    }

    /// The track is over; its publisher knows, because it did that itself or was told.
    pub(super) fn handle_track_ended(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str) {
        let Some(participant) = self.participant(peer) else { return };
        let Some(at) = participant.tracks.iter().position(|track| track.id.as_str() == sid) else { return };
        if participant.tracks.get(at).is_some_and(|track| track.live) {
            self.track_event(turn, peer, sid, false);
            turn.hook_track(self, participant, sid, false);
        }
        let Some(participant) = self.participant_mut(peer) else { return };
        participant.tracks.remove(at);
        for other in &mut self.participants {
            other.choices.retain(|track, _| track.as_str() != sid);
            other.paused.retain(|track| track.as_str() != sid);
        }
        self.announce_change(turn, peer);
    }

    /// Tells message servers about a track.
    pub(super) fn track_event(&self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str, published: bool) {
        let Some(participant) = self.participant(peer) else { return };
        let Some(track) = participant.track(sid) else { return };
        let state = v1::TrackState {
            identity: participant.identity.clone(),
            track_sid: sid.to_owned(),
            kind: translate::event_kind(track.info.r#type()).into(),
            source: translate::event_source(track.info.source()).into(),
            published,
            muted: track.info.muted,
            mime: track.info.mime_type.clone(),
        };
        turn.event(self, v1::call_event::Event::Track(state));
    }
}

fn track_info(track: &TrackId, kind: Kind, request: &lk::AddTrackRequest, layers: &[Layer]) -> lk::TrackInfo {
    let codec = request.simulcast_codecs.first().map(|codec| codec.codec.as_str()).unwrap_or_default();
    let mime_type = translate::mime(kind, codec);
    let has = |feature: lk::AudioTrackFeature| request.audio_features.contains(&feature.into());
    // More layers than there are simulcast streams only say what an SVC stream carries inside.
    let video_layers: Vec<_> = request.layers.iter().take(rtcd_core::limits::LAYERS_MAX).cloned().collect();
    lk::TrackInfo {
        sid: track.as_str().to_owned(),
        r#type: request.r#type,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: layers.len() > 1,
        disable_dtx: request.disable_dtx || has(lk::AudioTrackFeature::TfNoDtx),
        source: request.source,
        layers: video_layers.clone(),
        codecs: vec![codec_info(&mime_type, &request.cid, &video_layers)],
        mime_type,
        stereo: request.stereo || has(lk::AudioTrackFeature::TfStereo),
        disable_red: true,
        encryption: request.encryption,
        stream: request.stream.clone(),
        audio_features: request.audio_features.iter().copied().take(16).collect(),
        backup_codec_policy: request.backup_codec_policy,
        ..lk::TrackInfo::default()
    }
}

pub(super) fn codec_info(mime_type: &str, cid: &str, layers: &[lk::VideoLayer]) -> lk::SimulcastCodecInfo {
    lk::SimulcastCodecInfo {
        mime_type: mime_type.to_owned(),
        cid: cid.to_owned(),
        layers: layers.to_vec(),
        ..lk::SimulcastCodecInfo::default()
    }
}
