//! Whose tracks a participant gets: its own choices, its settings, and what publishers allow.

use livekit_protocol as lk;
use lk::signal_response::Message;
use rtcd_core::ids::{PeerId, TrackId};
use rtcd_core::input::TrackSettings;

use super::call::{Call, Participant, Track, permits};
use super::translate;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;

impl Call {
    pub(super) fn handle_subscription(
        &mut self,
        turn: &mut Turn<'_>,
        peer: &PeerId,
        update: &lk::UpdateSubscription,
    ) -> Result<(), &'static str> {
        let listed = update.participant_tracks.iter().flat_map(|tracks| &tracks.track_sids);
        let sids: Vec<&String> = update.track_sids.iter().chain(listed).take(limits::SIDS_PER_REQUEST_MAX + 1).collect();
        if sids.len() > limits::SIDS_PER_REQUEST_MAX {
            return Err("more tracks in one subscription request than a call can have");
        }
        for sid in sids {
            self.subscribe(turn, peer, sid, update.subscribe);
        }
        Ok(())
    }

    fn subscribe(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str, wanted: bool) {
        let known = self.track(sid).filter(|(publisher, _)| publisher.peer != *peer).map(|(_, track)| track.id.clone());
        // Before anything is refused: what may not be had today may be had tomorrow.
        if let (Some(track), Some(subscriber)) = (&known, self.participant_mut(peer)) {
            if wanted == subscriber.auto_subscribe {
                subscriber.choices.remove(track);
            } else {
                subscriber.choices.insert(track.clone(), wanted);
            }
        }
        let Some(subscriber) = self.participant(peer).filter(|subscriber| subscriber.grants.can_subscribe) else { return };
        let (Some(track), Some((publisher, _))) = (known, self.track(sid)) else {
            if wanted {
                let err = lk::SubscriptionError::SeTrackNotfound.into();
                let response = lk::SubscriptionResponse { track_sid: sid.to_owned(), err };
                turn.tell(subscriber, Message::SubscriptionResponse(response));
            }
            return;
        };
        if wanted && !publisher.allows(subscriber, sid) {
            return turn.tell(subscriber, permission_update(publisher, sid, false));
        }
        turn.core(Command::Subscribe { peer: peer.clone(), track, wanted });
    }

    pub(super) fn handle_track_settings(
        &mut self,
        turn: &mut Turn<'_>,
        peer: &PeerId,
        update: &lk::UpdateTrackSettings,
    ) -> Result<(), &'static str> {
        if update.track_sids.len() > limits::SIDS_PER_REQUEST_MAX {
            return Err("more tracks in one settings request than a call can have");
        }
        for sid in &update.track_sids {
            let Some((_, track)) = self.track(sid) else { continue };
            let settings = TrackSettings {
                disabled: update.disabled,
                layer_max: layer_max(track, update),
                width: update.width,
                height: update.height,
                fps: update.fps,
                // LiveKit: 1 is the highest, 0 not said. The core: higher first, 0 not said.
                priority: if update.priority == 0 { 0 } else { 1000_u32.saturating_sub(update.priority).max(1) },
            };
            turn.core(Command::TrackSettings { peer: peer.clone(), track: track.id.clone(), settings });
        }
        Ok(())
    }

    /// After a resume the client says what it has: choices made while the connection was broken.
    pub(super) fn handle_sync_state(&mut self, turn: &mut Turn<'_>, peer: &PeerId, state: lk::SyncState) {
        if !self.knows_data_tracks(peer, &state.publish_data_tracks) {
            tracing::info!(call = ?self.id, ?peer, "a resumed client publishes data tracks that are not here: it starts over");
            if let Some(participant) = self.participant(peer) {
                turn.tell(participant, Message::Leave(translate::start_over()));
            }
            return;
        }
        if let Some(update) = state.subscription {
            // Too long a list is cut: what is in it is the state anyway, not a wish that could get lost.
            let sids = update.track_sids.iter().take(limits::SIDS_PER_REQUEST_MAX);
            for sid in sids {
                self.subscribe(turn, peer, sid, update.subscribe);
            }
        }
        for sid in state.track_sids_disabled.iter().take(limits::SIDS_PER_REQUEST_MAX) {
            let Some((_, track)) = self.track(sid) else { continue };
            let settings = TrackSettings { disabled: true, layer_max: 2, width: 0, height: 0, fps: 0, priority: 0 };
            turn.core(Command::TrackSettings { peer: peer.clone(), track: track.id.clone(), settings });
        }
    }

    /// A publisher says who may have its tracks.
    pub(super) fn handle_permission(
        &mut self,
        turn: &mut Turn<'_>,
        peer: &PeerId,
        permission: lk::SubscriptionPermission,
    ) -> Result<(), &'static str> {
        let entries: usize = permission.track_permissions.iter().map(|entry| 1 + entry.track_sids.len()).sum();
        if entries > limits::PERMISSIONS_MAX {
            return Err("more entries in one subscription permission than a call can have");
        }
        let Some(publisher) = self.participant_mut(peer) else { return Ok(()) };
        let before = publisher.permission.replace(permission);
        let Some(publisher) = self.participant(peer) else { return Ok(()) };
        for other in self.participants.iter().filter(|other| other.peer != *peer && other.grants.can_subscribe) {
            for track in &publisher.tracks {
                let allowed = publisher.allows(other, track.id.as_str());
                let was_allowed = permits(before.as_ref(), other, track.id.as_str());
                if allowed == was_allowed {
                    continue;
                }
                if track.live {
                    turn.tell(other, permission_update(publisher, track.id.as_str(), allowed));
                }
                let chosen = other.choices.get(&track.id).copied().unwrap_or(other.auto_subscribe);
                let wanted = allowed && chosen;
                turn.core(Command::Subscribe { peer: other.peer.clone(), track: track.id.clone(), wanted });
            }
        }
        for track in &publisher.data_tracks {
            let sid = &track.info.sid;
            for other in self.participants.iter().filter(|other| other.peer != *peer && other.wants_data_track(sid)) {
                let allowed = publisher.allows(other, sid);
                if allowed != permits(before.as_ref(), other, sid) {
                    turn.tell(other, permission_update(publisher, sid, allowed));
                }
            }
        }
        self.route_data_tracks(turn, Some(peer));
        Ok(())
    }

    /// A resumed client may have missed what publishers allow by now, and what not.
    pub(super) fn repeat_permissions(&self, turn: &mut Turn<'_>, subscriber: &Participant) {
        if !subscriber.grants.can_subscribe {
            return;
        }
        let restricted = self.participants.iter().filter(|other| other.permission.is_some() && other.peer != subscriber.peer);
        for publisher in restricted {
            let media = publisher.tracks.iter().filter(|track| track.live).map(|track| track.id.as_str());
            let data = publisher.data_tracks.iter().map(|track| track.info.sid.as_str()).filter(|sid| subscriber.wants_data_track(sid));
            for sid in media.chain(data) {
                turn.tell(subscriber, permission_update(publisher, sid, publisher.allows(subscriber, sid)));
            }
        }
    }

    /// A new participant: publishers that restrict their tracks may not have it.
    pub(super) fn hold_back_restricted(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        let Some(subscriber) = self.participant(peer).filter(|subscriber| subscriber.grants.can_subscribe) else { return };
        for publisher in self.participants.iter().filter(|publisher| publisher.permission.is_some()) {
            for track in &publisher.tracks {
                hold_back(turn, publisher, subscriber, track);
            }
        }
    }

    /// A track was announced: those who may not have it learn that.
    pub(super) fn tell_refused(&self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str) {
        let Some(publisher) = self.participant(peer).filter(|publisher| publisher.permission.is_some()) else { return };
        for other in self.participants.iter().filter(|other| other.peer != *peer && !publisher.allows(other, sid)) {
            turn.tell(other, permission_update(publisher, sid, false));
        }
    }

    /// A new track: some may not have it, because they may have none or because its publisher says so.
    pub(super) fn hold_back_from_restricted(&self, turn: &mut Turn<'_>, peer: &PeerId, track: &TrackId) {
        let Some(publisher) = self.participant(peer) else { return };
        let Some(track) = publisher.track(track.as_str()) else { return };
        let barred = |other: &&Participant| other.core_subscribes && !other.grants.can_subscribe && other.peer != *peer;
        for subscriber in self.participants.iter().filter(barred) {
            turn.core(Command::Subscribe { peer: subscriber.peer.clone(), track: track.id.clone(), wanted: false });
        }
        if publisher.permission.is_none() {
            return;
        }
        for subscriber in self.participants.iter().filter(|subscriber| subscriber.peer != *peer) {
            hold_back(turn, publisher, subscriber, track);
        }
    }
}

fn hold_back(turn: &mut Turn<'_>, publisher: &Participant, subscriber: &Participant, track: &Track) {
    if !publisher.allows(subscriber, track.id.as_str()) {
        turn.core(Command::Subscribe { peer: subscriber.peer.clone(), track: track.id.clone(), wanted: false });
        // Of one that is not announced yet the client is told after that: it passes over what is said of tracks that it does not know.
        if track.live {
            turn.tell(subscriber, permission_update(publisher, track.id.as_str(), false));
        }
    }
}

pub(super) fn permission_update(publisher: &Participant, sid: &str, allowed: bool) -> Message {
    Message::SubscriptionPermissionUpdate(lk::SubscriptionPermissionUpdate {
        participant_sid: publisher.peer.as_str().to_owned(),
        track_sid: sid.to_owned(),
        allowed,
    })
}

/// The highest layer that what is shown can make use of. Adaptive streams say pixels, others a quality.
fn layer_max(track: &Track, update: &lk::UpdateTrackSettings) -> u8 {
    let wanted = update.width.max(update.height);
    if wanted == 0 {
        return translate::layer_max(update.quality());
    }
    let Some(codec) = track.info.codecs.first() else { return u8::MAX };
    let mut sizes: Vec<u32> = codec.layers.iter().map(|layer| layer.width.max(layer.height)).collect();
    sizes.sort_unstable();
    // The smallest layer that is not visibly blown up: a tenth is not seen.
    let enough = sizes.iter().position(|size| u64::from(*size) * 11 >= u64::from(wanted) * 10);
    u8::try_from(enough.unwrap_or(sizes.len().saturating_sub(1))).unwrap_or(u8::MAX)
}
