//! What is told to webhooks: rooms of LiveKit's own contract, in LiveKit's words. Calls of message servers have their events instead.

use livekit_protocol as lk;

use super::call::{Call, Participant};
use super::translate;
use super::turn::Turn;
use crate::admit::split_call_id;
use crate::signal::livekit_server::TENANT;
use crate::signal::seam::AdapterOutput;

impl Turn<'_> {
    fn hook(&mut self, call: &Call, name: &str, event: impl FnOnce(&Self) -> lk::WebhookEvent) {
        if !self.settings.webhooks || split_call_id(&call.id).0 != TENANT {
            return;
        }
        let event =
            lk::WebhookEvent { event: name.to_owned(), id: translate::new_sid("EV_"), created_at: self.now.unix_ms / 1000, ..event(self) };
        self.out.push(AdapterOutput::Webhook(Box::new(event)));
    }

    pub(super) fn hook_started(&mut self, call: &Call) {
        self.hook(call, "room_started", |turn| lk::WebhookEvent { room: Some(turn.room(call)), ..lk::WebhookEvent::default() });
    }

    pub(super) fn hook_finished(&mut self, call: &Call, why: lk::RoomEndReason) {
        self.hook(call, "room_finished", |turn| lk::WebhookEvent {
            room: Some(turn.room(call)),
            room_end_reason: why.into(),
            ..lk::WebhookEvent::default()
        });
    }

    /// Its media is connected: whoever only opens a WebSocket has not joined, as with LiveKit's server.
    pub(super) fn hook_joined(&mut self, call: &Call, participant: &Participant) {
        self.hook_participant(call, "participant_joined", participant.info());
    }

    /// `info`: as others were told of the end.
    pub(super) fn hook_left(&mut self, call: &Call, joined: bool, info: lk::ParticipantInfo) {
        self.hook_participant(call, if joined { "participant_left" } else { "participant_connection_aborted" }, info);
    }

    fn hook_participant(&mut self, call: &Call, name: &str, info: lk::ParticipantInfo) {
        self.hook(call, name, |turn| lk::WebhookEvent {
            room: Some(turn.room(call)),
            participant: Some(info),
            ..lk::WebhookEvent::default()
        });
    }

    /// Of room and participant only what names them, as with LiveKit's server.
    pub(super) fn hook_track(&mut self, call: &Call, participant: &Participant, sid: &str, published: bool) {
        let Some(track) = participant.track(sid).filter(|track| track.live) else { return };
        self.hook(call, if published { "track_published" } else { "track_unpublished" }, |_| lk::WebhookEvent {
            room: Some(lk::Room { sid: call.sid.clone(), name: call.name.clone(), ..lk::Room::default() }),
            participant: Some(lk::ParticipantInfo {
                sid: participant.peer.as_str().to_owned(),
                identity: participant.identity.clone(),
                name: participant.name.clone(),
                ..lk::ParticipantInfo::default()
            }),
            track: Some(track.info.clone()),
            ..lk::WebhookEvent::default()
        });
    }
}
