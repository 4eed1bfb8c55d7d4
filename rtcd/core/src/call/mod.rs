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

use self::speaking::Voice;
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
    pub(crate) speakers: Speakers<Voice>,
    pub(crate) speakers_alarm: Alarm,
    pub(crate) quality_alarm: Alarm,
    pub(crate) id: CallId,
    pub(crate) peers: Vec<PeerKey>,
    /// Tracks of other shards.
    pub(crate) stand_ins: Vec<TrackKey>,
    /// Voices of other shards, ever.
    voices_elsewhere: u32,
    pub(crate) taps: Vec<TapKey>,
}

impl Call {
    pub(crate) fn new(id: CallId, audio_top_n: usize) -> Self {
        Self {
            id,
            peers: Vec::new(),
            stand_ins: Vec::new(),
            voices_elsewhere: 0,
            taps: Vec::new(),
            speakers: Speakers::default(),
            loudest: Loudest::new(audio_top_n.min(AUDIO_TOP_MAX)),
            speakers_alarm: Alarm::default(),
            quality_alarm: Alarm::default(),
        }
    }

    /// For somebody on another shard who was not known of.
    fn voice_elsewhere(&mut self) -> Voice {
        self.voices_elsewhere = self.voices_elsewhere.wrapping_add(1);
        Voice::Elsewhere(self.voices_elsewhere)
    }
}
