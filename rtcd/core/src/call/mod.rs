//! A call: who is in it. Each verb has its own file.

mod adopt;
mod backup;
mod consent;
mod data;
mod end;
mod join;
mod leave;
mod mute;
mod publish;
mod quality;
mod settings;
pub(crate) mod speaking;
mod subscribe;
mod unpublish;

use crate::arena::Key;
use crate::ids::CallId;
use crate::limits::AUDIO_TOP_MAX;
use crate::loudest::Loudest;
use crate::peer::PeerKey;
use crate::speakers::Speakers;
use crate::tap::TapKey;
use crate::timers::Alarm;
use crate::track::{LayerKey, TrackKey};

pub(crate) type CallKey = Key<Call>;

/// One call. What every packet of a microphone needs stands in front (`repr(C)`; see [`crate::arena`]).
#[repr(C)]
pub(crate) struct Call {
    pub(crate) loudest: Loudest<LayerKey>,
    pub(crate) speakers: Speakers,
    pub(crate) speakers_alarm: Alarm,
    pub(crate) quality_alarm: Alarm,
    pub(crate) id: CallId,
    pub(crate) peers: Vec<PeerKey>,
    /// Tracks of other shards.
    pub(crate) stand_ins: Vec<TrackKey>,
    pub(crate) taps: Vec<TapKey>,
}

impl Call {
    pub(crate) fn new(id: CallId, audio_top_n: usize) -> Self {
        Self {
            id,
            peers: Vec::new(),
            stand_ins: Vec::new(),
            taps: Vec::new(),
            speakers: Speakers::default(),
            loudest: Loudest::new(audio_top_n.min(AUDIO_TOP_MAX)),
            speakers_alarm: Alarm::default(),
            quality_alarm: Alarm::default(),
        }
    }
}
