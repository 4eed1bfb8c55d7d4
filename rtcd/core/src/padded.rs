//! A publisher's padding between its pictures: kept back from all viewers, without a hole in their numbers.
//!
//! libwebrtc fills its way up to what its encoders may send. Where no retransmissions were agreed on (LiveKit's SDKs on the Rust core),
//! it does so in the stream itself: hundreds of packets a second in which there is nothing.

use crate::thinning::Thinning;

/// Stretches remembered: at most one for every picture, and retransmission reaches back half a second.
const PICTURES: usize = 64;

/// The numbers of one layer whose publisher pads.
#[derive(Debug)]
pub(crate) struct Padding {
    numbers: Thinning<PICTURES>,
    /// Timestamp of the newest packet of padding.
    timestamp: Option<u32>,
}

impl Padding {
    /// Until this number there was none.
    pub(crate) fn after(highest: Option<u64>) -> Self {
        Self { numbers: highest.map_or_else(Thinning::default, Thinning::open_until), timestamp: None }
    }

    /// The number a packet leaves under; `None`: it is padding, and does not leave.
    pub(crate) fn place(&mut self, seq: u64, timestamp: u32, is_padding: bool) -> Option<u64> {
        let newest = self.numbers.is_newest(seq);
        // Padding has the time of the picture before it, so what is lost inside of one pause was padding too.
        let inside = is_padding && self.timestamp == Some(timestamp);
        if newest && is_padding {
            self.timestamp = Some(timestamp);
        }
        self.numbers.place_between(seq, !is_padding, inside)
    }

    /// The publisher's number of what left under this one.
    pub(crate) fn original(&self, number: u64) -> Option<u64> {
        self.numbers.original(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_first_padding_keeps_its_numbers() {
        let mut padding = Padding::after(Some(1_009));
        assert_eq!(padding.place(1_010, 1, true), None);
        assert_eq!(padding.place(1_005, 1, false), Some(1_005), "late");
        assert_eq!(padding.original(1_009), Some(1_009));
        assert_eq!(padding.place(1_011, 2, false), Some(1_010));
        assert_eq!(padding.original(1_010), Some(1_011));
    }

    #[test]
    fn padding_lost_in_a_pause_leaves_no_hole_and_lost_pictures_do() {
        let mut padding = Padding::after(Some(9));
        // 12 is lost in the pause after the picture of time 1; 14 and 17 may have been pictures.
        let placed = |padding: &mut Padding, seq, timestamp, is_padding| padding.place(seq, timestamp, is_padding);
        assert_eq!([(10, 1), (11, 1), (13, 1)].map(|(seq, time)| placed(&mut padding, seq, time, true)), [None; 3]);
        assert_eq!(placed(&mut padding, 15, 2, false), Some(11));
        assert_eq!([(16, 2), (18, 3)].map(|(seq, time)| placed(&mut padding, seq, time, true)), [None; 2]);
        assert_eq!(placed(&mut padding, 19, 4, false), Some(13));
        assert_eq!((placed(&mut padding, 14, 2, false), placed(&mut padding, 17, 3, false)), (Some(10), Some(12)));
        assert_eq!(placed(&mut padding, 12, 1, true), None);
    }
}
