//! The data channel establishment protocol, RFC 8832: OPEN and ACK.

use crate::ids::{Channel, NAME_LEN_MAX};

/// DATA_CHANNEL_ACK, the whole message.
pub(crate) const ACK: [u8; 1] = [0x02];

const OPEN: u8 = 0x03;
const UNORDERED: u8 = 0x80;
const PARTIAL_RELIABLE_REXMIT: u8 = 0x01;

/// A message of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Open { label: String, reliable: bool, ordered: bool },
    Ack,
}

/// `None`: not a message of the protocol, or one with a label longer than [`NAME_LEN_MAX`].
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    match *bytes.first()? {
        0x02 => Some(Message::Ack),
        OPEN => {
            // type, channel type, priority (2), reliability (4), label length (2), protocol length (2), label, protocol
            let kind = *bytes.get(1)?;
            let label_len = usize::from(u16::from_be_bytes([*bytes.get(8)?, *bytes.get(9)?]));
            if label_len > NAME_LEN_MAX {
                return None;
            }
            let label = bytes.get(12..12 + label_len)?;
            Some(Message::Open {
                label: std::str::from_utf8(label).ok()?.to_owned(),
                reliable: kind & !UNORDERED == 0,
                ordered: kind & UNORDERED == 0,
            })
        }
        _ => None,
    }
}

/// OPEN of a channel; one that may lose retransmits nothing.
pub(crate) fn open(label: &str, channel: Channel) -> Vec<u8> {
    let kind = match channel {
        Channel::Reliable => 0,
        Channel::Lossy => PARTIAL_RELIABLE_REXMIT,
        Channel::DataTrack => PARTIAL_RELIABLE_REXMIT | UNORDERED,
    };
    let label_len = u16::try_from(label.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut message = vec![OPEN, kind, 0, 0, 0, 0, 0, 0, label_len[0], label_len[1], 0, 0];
    message.extend_from_slice(label.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (channel, reliable, ordered) in
            [(Channel::Reliable, true, true), (Channel::Lossy, false, true), (Channel::DataTrack, false, false)]
        {
            assert_eq!(parse(&open("_lossy", channel)), Some(Message::Open { label: "_lossy".to_owned(), reliable, ordered }));
        }
        assert_eq!(parse(&ACK), Some(Message::Ack));
    }

    #[test]
    fn cut_and_lying_messages_are_nothing() {
        let whole = open("_reliable", Channel::Reliable);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "cut to {length}");
        }
        let mut lying = whole;
        lying[8] = 0xff;
        assert_eq!(parse(&lying), None);
    }
}
