//! One person's part of a call, out of what a tap is told of everybody.

use conclave_proto::v1::{TapItem, TapPart, tap_item::Item};
use rustc_hash::FxHashSet;

use crate::limits::TAP_PART_TRACKS_MAX;

/// Follows the person and the tracks that were asked for.
#[derive(Debug)]
pub struct Part {
    wanted: TapPart,
    /// Tracks of it that were told, and have not ended.
    live: FxHashSet<String>,
    /// Those that have.
    ended: FxHashSet<String>,
    over: bool,
}

impl Part {
    /// As a worker asks for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(wanted: TapPart) -> Result<Self, &'static str> {
        if wanted.identity.is_empty() {
            return Err("a part of a call is somebody's: TapPart.identity is missing");
        }
        if wanted.track_sids.len() > TAP_PART_TRACKS_MAX {
            return Err("TapPart.track_sids names more tracks than a person has");
        }
        Ok(Self { wanted, live: FxHashSet::default(), ended: FxHashSet::default(), over: false })
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.wanted.identity
    }

    /// The tracks that it is of; none: all of the person's.
    #[must_use]
    pub fn track_sids(&self) -> &[String] {
        &self.wanted.track_sids
    }

    /// Nothing more comes of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The person or the tracks are not there.
    pub fn handle_absence(&mut self) {
        self.over = true;
    }

    /// Told of each item, with people's names in it; answers whether it is of this part.
    pub fn handle_item(&mut self, item: &TapItem) -> bool {
        match &item.item {
            Some(Item::Track(track)) => {
                let wanted = track.identity == self.wanted.identity
                    && (self.wanted.track_sids.is_empty() || self.wanted.track_sids.contains(&track.track_sid))
                    && (self.wanted.sources.is_empty() || self.wanted.sources.contains(&track.source));
                if wanted {
                    self.live.insert(track.track_sid.clone());
                }
                wanted
            }
            Some(Item::Packets(packets)) => self.live.contains(&packets.track_sid),
            Some(Item::Gap(gap)) => self.live.contains(&gap.track_sid),
            Some(Item::Muted(muted)) => self.live.contains(&muted.track_sid),
            Some(Item::TrackEnded(ended)) => {
                let known = self.live.remove(&ended.track_sid);
                if known {
                    self.ended.insert(ended.track_sid.clone());
                    let named = &self.wanted.track_sids;
                    self.over |= !named.is_empty() && named.iter().all(|sid| self.ended.contains(sid));
                }
                known
            }
            Some(Item::Participant(person)) => {
                let theirs = person.identity == self.wanted.identity;
                self.over |= theirs && !person.present;
                theirs
            }
            Some(Item::Consent(consent)) => consent.identity == self.wanted.identity,
            Some(Item::MediaKey(key)) => key.of.is_empty() || key.of == self.wanted.identity,
            Some(Item::Opened(_) | Item::CallEnded(_) | Item::PartEnded(_)) | None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_proto::v1::{self, TrackSource};

    fn track(sid: &str, identity: &str, source: TrackSource) -> Item {
        Item::Track(v1::TapTrack { track_sid: sid.into(), identity: identity.into(), source: source.into(), ..Default::default() })
    }

    fn packets(sid: &str) -> Item {
        Item::Packets(v1::TapPackets { track_sid: sid.into(), packets: Vec::new() })
    }

    fn ended(sid: &str) -> Item {
        Item::TrackEnded(v1::TapTrackEnded { track_sid: sid.into() })
    }

    fn person(identity: &str, present: bool) -> Item {
        Item::Participant(v1::TapParticipant { identity: identity.into(), display_name: String::new(), present })
    }

    fn told(part: &mut Part, item: Item) -> bool {
        part.handle_item(&TapItem { at_us: 1, item: Some(item) })
    }

    #[test]
    fn a_persons_part_is_their_tracks_of_the_sources_and_ends_when_they_leave() {
        let sources = vec![TrackSource::Camera.into(), TrackSource::Microphone.into()];
        let mut part = Part::new(TapPart { identity: "ann".into(), sources, ..TapPart::default() }).expect("a part");
        for (item, wanted) in [
            (person("ann", true), true),
            (person("bob", true), false),
            (track("mic", "ann", TrackSource::Microphone), true),
            (track("screen", "ann", TrackSource::ScreenShare), false),
            (track("his", "bob", TrackSource::Microphone), false),
            (packets("mic"), true),
            (packets("screen"), false),
            (packets("his"), false),
            (ended("his"), false),
            (person("bob", false), false),
            // She may publish another one.
            (ended("mic"), true),
            (packets("mic"), false),
        ] {
            assert_eq!(told(&mut part, item.clone()), wanted, "{item:?}");
            assert!(!part.is_over(), "{item:?}");
        }
        assert!(told(&mut part, person("ann", false)) && part.is_over());
    }

    #[test]
    fn a_part_of_tracks_ends_with_the_last_of_them() {
        let track_sids = vec!["mic".to_owned(), "cam".to_owned()];
        let mut part = Part::new(TapPart { identity: "ann".into(), track_sids, ..TapPart::default() }).expect("a part");
        assert!(told(&mut part, track("mic", "ann", TrackSource::Microphone)));
        assert!(told(&mut part, ended("mic")) && !part.is_over(), "the other one has not come yet");
        assert!(told(&mut part, track("cam", "ann", TrackSource::Camera)));
        assert!(!told(&mut part, track("screen", "ann", TrackSource::ScreenShare)));
        assert!(told(&mut part, ended("cam")) && part.is_over());
        assert!(Part::new(TapPart::default()).is_err());
        assert!(Part::new(TapPart { identity: "a".into(), track_sids: vec![String::new(); 1000], ..TapPart::default() }).is_err());
    }
}
