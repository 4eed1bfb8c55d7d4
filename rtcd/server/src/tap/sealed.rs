//! Media that is encrypted end to end is given to readers that open it; to others it would be noise.

use conclave_proto::v1::{TapEncryption, TapItem, tap_item::Item};
use rustc_hash::FxHashSet;

/// Follows the encrypted tracks of one tap.
#[derive(Debug)]
pub struct Sealed {
    /// The reader opens them.
    opens: bool,
    /// Those that it is not given.
    withheld: FxHashSet<String>,
}

impl Sealed {
    /// For a reader that opens what is encrypted, or does not.
    #[must_use]
    pub fn new(opens: bool) -> Self {
        Self { opens, withheld: FxHashSet::default() }
    }

    /// Told of each item; answers whether the reader is given it.
    pub fn handle_item(&mut self, item: &TapItem) -> bool {
        match &item.item {
            Some(Item::Track(track)) => {
                let withheld = track.encryption() != TapEncryption::None && !self.opens;
                if withheld {
                    self.withheld.insert(track.track_sid.clone());
                }
                !withheld
            }
            Some(Item::Packets(packets)) => !self.withheld.contains(&packets.track_sid),
            Some(Item::Gap(gap)) => !self.withheld.contains(&gap.track_sid),
            Some(Item::Muted(muted)) => !self.withheld.contains(&muted.track_sid),
            Some(Item::TrackEnded(ended)) => !self.withheld.remove(&ended.track_sid),
            Some(Item::MediaKey(_)) => self.opens,
            Some(Item::Opened(_) | Item::Participant(_) | Item::CallEnded(_) | Item::Consent(_) | Item::PartEnded(_)) | None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_proto::v1::{TapGap, TapMediaKey, TapMuted, TapPackets, TapParticipant, TapTrack, TapTrackEnded};

    #[test]
    fn a_reader_that_opens_nothing_is_given_no_key_and_nothing_encrypted() {
        let track =
            |sid: &str, how: TapEncryption| Item::Track(TapTrack { track_sid: sid.into(), encryption: how.into(), ..TapTrack::default() });
        let sid = || "sealed".to_owned();
        let items = [
            (Item::Participant(TapParticipant::default()), true),
            (Item::MediaKey(TapMediaKey::default()), false),
            (track("clear", TapEncryption::None), true),
            (track("sealed", TapEncryption::Gcm), false),
            (Item::Packets(TapPackets { track_sid: "clear".into(), packets: Vec::new() }), true),
            (Item::Packets(TapPackets { track_sid: sid(), packets: Vec::new() }), false),
            (Item::Gap(TapGap { track_sid: sid(), ..TapGap::default() }), false),
            (Item::Muted(TapMuted { track_sid: sid(), muted: true }), false),
            (Item::TrackEnded(TapTrackEnded { track_sid: sid() }), false),
            (track("other", TapEncryption::Custom), false),
            (Item::TrackEnded(TapTrackEnded { track_sid: "clear".into() }), true),
        ];
        let (mut listener, mut recorder) = (Sealed::new(false), Sealed::new(true));
        for (item, given) in items {
            let item = TapItem { at_us: 1, item: Some(item) };
            assert_eq!(listener.handle_item(&item), given, "{item:?}");
            assert!(recorder.handle_item(&item), "{item:?}");
        }
    }
}
