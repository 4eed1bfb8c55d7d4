//! A track in a second codec, for those who cannot decode the first (LiveKit's backup codec).
//!
//! The client announces it with the track and publishes it once it is told that somebody needs it. Both have the sid of the first. As
//! LiveKit's server does it in rooms of up to five, both are sent while both are needed. That everybody gets the second as soon as one needs
//! it (`REGRESSION`) is not done: all would see worse for the sake of one, and the publisher is told what nobody wants.

use std::collections::HashSet;

use livekit_protocol as lk;
use lk::request_response::Reason;
use lk::signal_response::Message;
use rtcd_core::ids::{Kind, PeerId, TrackId};
use rtcd_core::input::Publish;

use super::call::{Call, Participant, Track};
use super::publish::codec_info;
use super::translate;
use super::turn::Turn;
use crate::limits;
use crate::shard::Command;

/// The second codec of a track.
#[derive(Debug)]
pub(super) struct Backup {
    /// `video/VP8`, …
    mime: String,
    /// Who cannot decode the first.
    needed_by: HashSet<PeerId>,
    /// What the client announced after it was told so.
    media: Option<Media>,
    /// Dynacast: what the client was told last.
    pub(super) wanted_layers: Vec<(u8, bool)>,
}

#[derive(Debug)]
struct Media {
    /// The core's name for it.
    id: TrackId,
    cid: String,
    live: bool,
}

impl Backup {
    fn new(mime: String) -> Self {
        Self { mime, needed_by: HashSet::new(), media: None, wanted_layers: Vec::new() }
    }

    /// What an announcement says of a second codec.
    pub(super) fn announced(kind: Kind, codecs: &[lk::SimulcastCodec]) -> Option<Self> {
        let [first, second, ..] = codecs else { return None };
        let mime = translate::mime(kind, &second.codec);
        let is_another = kind == Kind::Video && mime != translate::mime(kind, &first.codec);
        is_another.then(|| Self::new(mime))
    }

    pub(super) fn mime(&self) -> &str {
        &self.mime
    }

    /// The client was told that somebody needs it.
    pub(super) fn is_asked_for(&self) -> bool {
        self.media.is_some() || !self.needed_by.is_empty()
    }

    /// The client's name for it, where it is announced and no media has come.
    pub(super) fn awaited(&self) -> Option<&str> {
        self.media.as_ref().filter(|media| !media.live).map(|media| media.cid.as_str())
    }

    /// Somebody has left.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.needed_by.remove(peer);
    }

    fn is_media(&self, id: &TrackId) -> bool {
        self.media.as_ref().is_some_and(|media| media.id == *id)
    }
}

impl Participant {
    /// The track that the core knows by this name, whichever of its codecs that is.
    pub(super) fn track_in_any_codec(&mut self, id: &TrackId) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.is_in_any_codec(id))
    }
}

impl Track {
    fn is_in_any_codec(&self, id: &TrackId) -> bool {
        self.id == *id || self.backup.as_ref().is_some_and(|backup| backup.is_media(id))
    }
}

impl Call {
    /// The name that clients know the core's track by.
    pub(super) fn shown_as(&self, id: &TrackId) -> TrackId {
        let mut tracks = self.participants.iter().flat_map(|participant| &participant.tracks);
        tracks.find(|track| track.is_in_any_codec(id)).map_or(id, |track| &track.id).clone()
    }

    /// Is that the core's name for a track in its second codec?
    pub(super) fn is_backup(&self, id: &TrackId) -> bool {
        self.shown_as(id) != *id
    }

    /// A viewer cannot decode the track: it gets the other codec, as soon as that is there.
    pub(super) fn handle_undecodable(&mut self, turn: &mut Turn<'_>, viewer: &PeerId, id: &TrackId) {
        let Some(publisher) = self.participants.iter_mut().find(|publisher| publisher.track(id.as_str()).is_some()) else { return };
        let Some(track) = publisher.track_mut(id.as_str()) else { return };
        let Some(backup) = &mut track.backup else {
            let Some(viewer) = self.participant(viewer) else { return };
            let err = lk::SubscriptionError::SeCodecUnsupported.into();
            let response = lk::SubscriptionResponse { track_sid: id.as_str().to_owned(), err };
            return turn.tell(viewer, Message::SubscriptionResponse(response));
        };
        let was_asked_for = backup.is_asked_for();
        backup.needed_by.insert(viewer.clone());
        if let Some(media) = backup.media.as_ref().filter(|media| media.live) {
            turn.core(Command::Subscribe { peer: viewer.clone(), track: media.id.clone(), wanted: true });
        }
        if !was_asked_for {
            let update = super::signal::subscribed_quality(track);
            turn.tell(publisher, Message::SubscribedQualityUpdate(update));
        }
    }

    /// The client publishes a track of its own in another codec.
    pub(super) fn handle_add_backup(&mut self, turn: &mut Turn<'_>, peer: &PeerId, request: lk::AddTrackRequest) {
        let Some(participant) = self.participant_mut(peer) else { return };
        let media = |track: &Track| track.backup.as_ref().is_some_and(|backup| backup.media.is_some());
        let published: usize = participant.tracks.iter().map(|track| 1 + usize::from(media(track))).sum();
        let may = translate::may_publish(&participant.grants, request.source());
        let mime = request.simulcast_codecs.first().map(|codec| translate::mime(Kind::Video, &codec.codec)).unwrap_or_default();
        let Some(track) = participant.track_mut(&request.sid) else {
            let problem = (Reason::NotFound, "you have no such track: publish it before its backup codec");
            return self.refuse_track(turn, peer, request, problem);
        };
        let known = track.backup.as_ref().and_then(|backup| backup.media.as_ref());
        // The client asks again where the answer got lost.
        if known.is_some_and(|media| media.cid == request.cid) {
            let response = lk::TrackPublishedResponse { cid: request.cid, track: Some(track.info.clone()) };
            return turn.tell(participant, Message::TrackPublished(response));
        }
        let problem = if !may {
            Some((Reason::NotAllowed, "the token does not allow to publish from this source"))
        } else if request.cid.is_empty() || mime.is_empty() || track.info.r#type() != lk::TrackType::Video {
            Some((Reason::InvalidRequest, "a backup codec needs a cid, the codec, and a track of type VIDEO"))
        } else if mime == track.info.mime_type {
            Some((Reason::InvalidRequest, "the track is in that codec already"))
        } else if request.cid.len() > limits::TRACK_TEXT_LEN_MAX {
            Some((Reason::LimitExceeded, "the cid is too long"))
        } else if known.is_some() {
            Some((Reason::UnsupportedType, "this server takes one backup codec for each track"))
        } else if published >= rtcd_core::limits::TRACKS_PER_PEER_MAX {
            Some((Reason::LimitExceeded, "unpublish a track before publishing another one"))
        } else {
            None
        };
        if let Some(problem) = problem {
            return self.refuse_track(turn, peer, request, problem);
        }
        let Some(id) = TrackId::new(&translate::new_sid("TR_")) else { return };
        let publish = Publish {
            peer: peer.clone(),
            track: id.clone(),
            cid: request.cid.clone(),
            kind: Kind::Video,
            source: translate::source(track.info.source()),
            muted: track.info.muted,
            layers: translate::layers(&request),
            dtx: false,
            stereo: false,
            codec: translate::codec(&mime),
            backup_of: Some(track.id.clone()),
        };
        turn.core(Command::Publish(Box::new(publish)));
        let layers: Vec<_> = request.layers.into_iter().take(rtcd_core::limits::LAYERS_MAX).collect();
        track.info.codecs.truncate(1);
        track.info.codecs.push(codec_info(&mime, &request.cid, &layers));
        let backup = track.backup.get_or_insert_with(|| Backup::new(String::new()));
        backup.mime = mime;
        backup.media = Some(Media { id, cid: request.cid.clone(), live: false });
        let response = lk::TrackPublishedResponse { cid: request.cid, track: Some(track.info.clone()) };
        turn.tell(participant, Message::TrackPublished(response));
    }

    /// The core has its media: whoever needs it gets it, where they still may.
    pub(super) fn handle_backup_live(&mut self, turn: &mut Turn<'_>, peer: &PeerId, id: &TrackId) {
        let Some(publisher) = self.participant_mut(peer) else { return };
        let Some(track) = publisher.track_in_any_codec(id) else { return };
        let Some(backup) = &mut track.backup else { return };
        if let Some(media) = &mut backup.media {
            media.live = true;
        }
        let (original, viewers) = (track.id.clone(), backup.needed_by.clone());
        self.give(turn, peer, &original, id, viewers);
        self.announce_change(turn, peer);
    }

    /// The client sends it no longer. Who had it has the original again, and says once more that this is of no use.
    pub(super) fn handle_backup_ended(&mut self, turn: &mut Turn<'_>, peer: &PeerId, id: &TrackId) {
        let Some(publisher) = self.participant_mut(peer) else { return };
        let Some(track) = publisher.track_in_any_codec(id) else { return };
        let Some(backup) = &mut track.backup else { return };
        let viewers = std::mem::take(&mut backup.needed_by);
        (backup.media, backup.wanted_layers) = (None, Vec::new());
        let original = track.id.clone();
        self.give(turn, peer, &original, &original, viewers);
    }

    /// Gives viewers a track in one of its codecs.
    fn give(&self, turn: &mut Turn<'_>, publisher: &PeerId, original: &TrackId, track: &TrackId, viewers: HashSet<PeerId>) {
        let Some(publisher) = self.participant(publisher) else { return };
        for viewer in viewers.iter().filter_map(|viewer| self.participant(viewer)) {
            let chosen = viewer.choices.get(original).copied().unwrap_or(viewer.auto_subscribe);
            if chosen && viewer.grants.can_subscribe && publisher.allows(viewer, original.as_str()) {
                turn.core(Command::Subscribe { peer: viewer.peer.clone(), track: track.clone(), wanted: true });
            }
        }
    }
}
