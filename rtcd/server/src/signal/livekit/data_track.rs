//! Data tracks: who publishes which, who has them, and under which handle. Their packets never come here: the core passes them on.

use std::collections::{BTreeSet, HashMap};

use livekit_protocol as lk;
use lk::data_track_frame_encoding::Value as Encoding;
use lk::data_track_subscriber_handles::PublishedDataTrack;
use lk::request_response::{Reason, Request};
use lk::signal_response::Message;
use rtcd_core::ids::PeerId;

use super::blob;
use super::call::{Call, Participant};
use super::request::refuse;
use super::translate;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;
use crate::signal::seam::SessionKey;

/// A published data track.
#[derive(Debug)]
pub(super) struct DataTrack {
    pub(super) info: lk::DataTrackInfo,
    /// Its handle in the publisher's packets.
    publisher_handle: u16,
    /// Its handle in what subscribers get: one for all of them, unique in the call, so that its packets are made once.
    handle: u16,
    /// Who has it.
    subscribers: BTreeSet<PeerId>,
}

impl Call {
    pub(super) fn handle_publish_data_track(
        &mut self,
        turn: &mut Turn<'_>,
        session: &SessionKey,
        peer: &PeerId,
        request: lk::PublishDataTrackRequest,
    ) {
        let Some(participant) = self.participant(peer) else { return };
        let handle = u16::try_from(request.pub_handle).ok().filter(|handle| *handle > 0);
        let custom = match request.frame_encoding.as_ref().and_then(|encoding| encoding.value.as_ref()) {
            Some(Encoding::Custom(name)) => Some(name.as_str()),
            Some(Encoding::WellKnown(_)) | None => None,
        };
        let problem = if !participant.grants.can_publish_data {
            Some((Reason::NotAllowed, "does not have permission to publish data"))
        } else if handle.is_none() {
            Some((Reason::InvalidHandle, "handle should be > 0 AND < 65536"))
        } else if request.name.is_empty() || request.name.len() > limits::DATA_NAME_LEN_MAX {
            Some((Reason::InvalidName, "name should not be empty and should not exceed 256 characters"))
        } else if !blob::is_custom_name(custom) || !blob::is_schema(request.schema.as_ref()) {
            Some((Reason::InvalidRequest, "encoding identifier is empty or exceeds the maximum length"))
        } else if participant.data_tracks.iter().any(|track| Some(track.publisher_handle) == handle) {
            Some((Reason::DuplicateHandle, "a data track with same handle already exists"))
        } else if participant.data_tracks.iter().any(|track| track.info.name == request.name) {
            Some((Reason::DuplicateName, "a data track with same name already exists"))
        } else if participant.data_tracks.len() >= rtcd_core::limits::DATA_TRACKS_PER_PEER_MAX {
            Some((Reason::LimitExceeded, "unpublish a data track before publishing another one"))
        } else {
            None
        };
        let problem = match problem {
            None => self.free_handle().ok_or((Reason::LimitExceeded, "the room has too many data tracks")),
            Some(problem) => Err(problem),
        };
        let (handle, publisher_handle) = match (problem, handle) {
            (Ok(free), Some(publisher_handle)) => (free, publisher_handle),
            (Err((reason, message)), _) => return refuse(turn, session, 0, reason, message, Some(Request::PublishDataTrack(request))),
            (Ok(_), None) => return,
        };
        let info = lk::DataTrackInfo {
            pub_handle: request.pub_handle,
            sid: translate::new_sid("DTR_"),
            name: request.name,
            encryption: request.encryption,
            frame_encoding: request.frame_encoding,
            schema: request.schema,
        };
        let sid = info.sid.clone();
        self.data_handle = handle;
        if let Some(participant) = self.participant_mut(peer) {
            let track = DataTrack { info: info.clone(), publisher_handle, handle, subscribers: BTreeSet::new() };
            participant.data_tracks.push(track);
        }
        turn.frame(session, Message::PublishDataTrackResponse(lk::PublishDataTrackResponse { info: Some(info) }));
        self.announce_change(turn, peer);
        self.route_data_track(turn, &sid);
    }

    /// The next one that no data track of the call has.
    fn free_handle(&self) -> Option<u16> {
        let tracks = || self.participants.iter().flat_map(|participant| &participant.data_tracks);
        if tracks().count() >= limits::DATA_TRACKS_OF_CALL_MAX {
            return None;
        }
        let taken: BTreeSet<u16> = tracks().map(|track| track.handle).collect();
        let from = self.data_handle;
        (1..=u16::MAX).map(|step| from.wrapping_add(step)).find(|handle| *handle != 0 && !taken.contains(handle))
    }

    pub(super) fn handle_unpublish_data_track(
        &mut self,
        turn: &mut Turn<'_>,
        session: &SessionKey,
        peer: &PeerId,
        request: lk::UnpublishDataTrackRequest,
    ) {
        let Some(participant) = self.participant(peer) else { return };
        let Some(track) = participant.data_tracks.iter().find(|track| u32::from(track.publisher_handle) == request.pub_handle) else {
            return refuse(turn, session, 0, Reason::NotFound, "no data track has this handle", Some(Request::UnpublishDataTrack(request)));
        };
        let sid = track.info.sid.clone();
        self.end_data_tracks(turn, peer, |track| track.info.sid == sid);
    }

    /// Its right to publish data is taken.
    pub(super) fn end_all_data_tracks(&mut self, turn: &mut Turn<'_>, peer: &PeerId) {
        self.end_data_tracks(turn, peer, |_| true);
    }

    fn end_data_tracks(&mut self, turn: &mut Turn<'_>, peer: &PeerId, which: impl Fn(&DataTrack) -> bool) {
        let Some(participant) = self.participant_mut(peer) else { return };
        let (over, rest): (Vec<DataTrack>, _) = std::mem::take(&mut participant.data_tracks).into_iter().partition(which);
        participant.data_tracks = rest;
        if over.is_empty() {
            return;
        }
        let Some(participant) = self.participant(peer) else { return };
        for track in &over {
            stop_route(turn, peer, track);
            let response = lk::UnpublishDataTrackResponse { info: Some(track.info.clone()) };
            turn.tell(participant, Message::UnpublishDataTrackResponse(response));
        }
        self.announce_change(turn, peer);
        self.forget_data_tracks(turn, &over);
    }

    /// Those who had these tracks learn that they have no handle for them any longer. The tracks are out of the tables already.
    pub(super) fn forget_data_tracks(&mut self, turn: &mut Turn<'_>, over: &[DataTrack]) {
        for other in &mut self.participants {
            other.data_choices.retain(|sid, _| over.iter().all(|track| track.info.sid != *sid));
        }
        let had: BTreeSet<&PeerId> = over.iter().flat_map(|track| &track.subscribers).collect();
        for peer in had {
            self.tell_handles(turn, peer);
        }
    }

    pub(super) fn handle_data_subscription(
        &mut self,
        turn: &mut Turn<'_>,
        peer: &PeerId,
        update: lk::UpdateDataSubscription,
    ) -> Result<(), &'static str> {
        if update.updates.len() > limits::SIDS_PER_REQUEST_MAX {
            return Err("more tracks in one data subscription request than a call can have");
        }
        // `target_fps` of the options is of no effect, as with LiveKit's server.
        for update in update.updates {
            let known = self.data_track(&update.track_sid).is_some_and(|(publisher, _)| publisher.peer != *peer);
            let Some(subscriber) = self.participant_mut(peer).filter(|_| known) else { continue };
            if update.subscribe == subscriber.auto_subscribe_data {
                subscriber.data_choices.remove(&update.track_sid);
            } else {
                subscriber.data_choices.insert(update.track_sid.clone(), update.subscribe);
            }
            if update.subscribe
                && subscriber.grants.can_subscribe
                && let (Some(subscriber), Some((publisher, _))) = (self.participant(peer), self.data_track(&update.track_sid))
                && !publisher.allows(subscriber, &update.track_sid)
            {
                turn.tell(subscriber, super::subscribe::permission_update(publisher, &update.track_sid, false));
            }
            let had = self.data_track(&update.track_sid).is_some_and(|(_, track)| track.subscribers.contains(peer));
            self.route_data_track(turn, &update.track_sid);
            // Who asks again may have missed the answer.
            if had && update.subscribe {
                self.tell_handles(turn, peer);
            }
        }
        Ok(())
    }

    fn data_track(&self, sid: &str) -> Option<(&Participant, &DataTrack)> {
        self.participants
            .iter()
            .find_map(|participant| Some((participant, participant.data_tracks.iter().find(|track| track.info.sid == sid)?)))
    }

    /// Works out who has a track, and tells whoever that concerns.
    fn route_data_track(&mut self, turn: &mut Turn<'_>, sid: &str) {
        let Some((publisher, track)) = self.data_track(sid) else { return };
        let has = |other: &&Participant| other.peer != publisher.peer && other.wants_data_track(sid) && publisher.allows(other, sid);
        let subscribers: BTreeSet<PeerId> = self.participants.iter().filter(has).map(|other| other.peer.clone()).collect();
        if subscribers == track.subscribers {
            return;
        }
        let changed: Vec<PeerId> = subscribers.symmetric_difference(&track.subscribers).cloned().collect();
        let route = Command::DataRoute {
            peer: publisher.peer.clone(),
            publisher_handle: track.publisher_handle,
            handle: track.handle,
            subscribers: subscribers.iter().cloned().collect(),
        };
        let publisher = publisher.peer.clone();
        let Some(participant) = self.participant_mut(&publisher) else { return };
        let Some(track) = participant.data_tracks.iter_mut().find(|track| track.info.sid == sid) else { return };
        track.subscribers = subscribers;
        // Handles before packets: a client drops what it has no name for.
        for peer in &changed {
            self.tell_handles(turn, peer);
        }
        turn.core(route);
    }

    /// All its handles, as with each change of one.
    fn tell_handles(&self, turn: &mut Turn<'_>, peer: &PeerId) {
        if let Some(subscriber) = self.participant(peer).filter(|subscriber| subscriber.session.is_some()) {
            turn.tell(subscriber, Message::DataTrackSubscriberHandles(self.handles_of(peer)));
        }
    }

    fn handles_of(&self, peer: &PeerId) -> lk::DataTrackSubscriberHandles {
        let tracks = self.participants.iter().flat_map(|publisher| publisher.data_tracks.iter().map(move |track| (publisher, track)));
        let had = tracks.filter(|(_, track)| track.subscribers.contains(peer));
        let named = had.map(|(publisher, track)| {
            let track_sid = track.info.sid.clone();
            let of = PublishedDataTrack {
                publisher_identity: publisher.identity.clone(),
                publisher_sid: publisher.peer.as_str().to_owned(),
                track_sid,
            };
            (u32::from(track.handle), of)
        });
        lk::DataTrackSubscriberHandles { sub_handles: named.collect::<HashMap<_, _>>() }
    }

    /// What a participant may or wants to have changed, or what publishers let it have: all data tracks, or those of one.
    pub(super) fn route_data_tracks(&mut self, turn: &mut Turn<'_>, of: Option<&PeerId>) {
        let publishers = self.participants.iter().filter(|publisher| of.is_none_or(|peer| publisher.peer == *peer));
        let sids: Vec<String> = publishers.flat_map(|publisher| publisher.data_tracks.iter().map(|track| track.info.sid.clone())).collect();
        for sid in sids {
            self.route_data_track(turn, &sid);
        }
    }

    /// A resumed client may have missed what was said meanwhile.
    pub(super) fn repeat_handles(&self, turn: &mut Turn<'_>, participant: &Participant) {
        let handles = self.handles_of(&participant.peer);
        if !handles.sub_handles.is_empty() {
            turn.tell(participant, Message::DataTrackSubscriberHandles(handles));
        }
    }

    /// Whether the server knows all data tracks that a resumed client says it publishes.
    pub(super) fn knows_data_tracks(&self, peer: &PeerId, said: &[lk::PublishDataTrackResponse]) -> bool {
        let Some(participant) = self.participant(peer) else { return false };
        said.iter().all(|response| {
            let sid = response.info.as_ref().map(|info| &info.sid);
            participant.data_tracks.iter().any(|track| Some(&track.info.sid) == sid)
        })
    }

    /// Somebody has left; it is out of the table already.
    pub(super) fn end_data_of(&mut self, turn: &mut Turn<'_>, left: &mut Participant) {
        let over = std::mem::take(&mut left.data_tracks);
        self.forget_data_tracks(turn, &over);
        self.route_data_tracks(turn, None);
    }
}

impl Participant {
    /// As far as it goes by itself; the publisher may have a say too.
    pub(super) fn wants_data_track(&self, sid: &str) -> bool {
        let chosen = self.data_choices.get(sid).copied().unwrap_or(self.auto_subscribe_data && self.active);
        chosen && self.grants.can_subscribe
    }
}

fn stop_route(turn: &mut Turn<'_>, peer: &PeerId, track: &DataTrack) {
    if !track.subscribers.is_empty() {
        let (publisher_handle, handle) = (track.publisher_handle, track.handle);
        turn.core(Command::DataRoute { peer: peer.clone(), publisher_handle, handle, subscribers: Vec::new() });
    }
}
