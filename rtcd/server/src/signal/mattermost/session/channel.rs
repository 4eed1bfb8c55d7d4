//! Messages of a client's data channel (`calls-dc`): a number that names the kind, and perhaps a payload, as MessagePack values.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use rtcd_core::limits::SDP_LEN_MAX;

use super::super::msgpack::{Malformed, Reader, Writer};

const PING: u8 = 1;
const PONG: u8 = 2;
const SDP: u8 = 3;
const LOSS_RATE: u8 = 4;
const RTT: u8 = 5;
const JITTER: u8 = 6;
const LOCK: u8 = 7;
const UNLOCK: u8 = 8;
const MEDIA_MAP: u8 = 9;

/// A description as JSON: quotes and escapes around an SDP of the largest size.
pub(super) const DESCRIPTION_MAX: usize = 2 * SDP_LEN_MAX;

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FromClient {
    Ping,
    /// JSON, unpacked.
    Description(Vec<u8>),
    /// 0 to 1.
    LossRate(f64),
    /// Seconds.
    Rtt(f64),
    /// Seconds.
    Jitter(f64),
    Lock,
    Unlock,
}

/// Why a message was passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessage {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("kind {0} is not known")]
    Unknown(i64),
    #[error("the description does not unpack to at most {DESCRIPTION_MAX} bytes")]
    Description,
}

impl FromClient {
    /// Reads a message; clients write the kind as any integer.
    pub(super) fn decode(message: &[u8]) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(message);
        Ok(match u8::try_from(reader.integer()?).unwrap_or(u8::MAX) {
            PING => Self::Ping,
            SDP => Self::Description(unpack(reader.bytes()?).ok_or(BadMessage::Description)?),
            LOSS_RATE => Self::LossRate(reader.number()?),
            RTT => Self::Rtt(reader.number()?),
            JITTER => Self::Jitter(reader.number()?),
            LOCK => Self::Lock,
            UNLOCK => Self::Unlock,
            other => return Err(BadMessage::Unknown(i64::from(other))),
        })
    }
}

/// The answer to a ping.
pub(super) fn pong() -> Bytes {
    head(PONG).into_bytes().into()
}

/// The answer to a request for the lock.
pub(super) fn lock(granted: bool) -> Bytes {
    let mut writer = head(LOCK);
    writer.boolean(granted);
    writer.into_bytes().into()
}

/// A description as JSON, packed.
pub(super) fn description(json: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(json.len() / 2), Compression::fast());
    // Writing to memory does not fail.
    let packed = encoder.write_all(json).and_then(|()| encoder.finish()).unwrap_or_default();
    let mut writer = head(SDP);
    writer.bytes(&packed);
    writer.into_bytes().into()
}

/// Which section carries what: `(mid, type, publisher's session)`.
pub(super) fn media_map<'a>(sections: impl ExactSizeIterator<Item = (&'a str, &'a str, &'a str)>) -> Bytes {
    let mut writer = head(MEDIA_MAP);
    writer.map(u16::try_from(sections.len()).unwrap_or(u16::MAX));
    for (mid, kind, sender) in sections.take(usize::from(u16::MAX)) {
        writer.text(mid);
        writer.map(2);
        for text in ["type", kind, "sender_id", sender] {
            writer.text(text);
        }
    }
    writer.into_bytes().into()
}

/// The kind in two bytes, as Go's library writes it and every client takes it.
fn head(kind: u8) -> Writer {
    let mut writer = Writer::default();
    writer.small_in_two(kind);
    writer
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    ZlibDecoder::new(packed).take(DESCRIPTION_MAX as u64 + 1).read_to_end(&mut json).ok()?;
    (json.len() <= DESCRIPTION_MAX).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex")).collect()
    }

    #[test]
    fn vectors_of_the_protocol() {
        for ping in ["01", "cc01"] {
            assert_eq!(FromClient::decode(&hex(ping)), Ok(FromClient::Ping));
        }
        assert_eq!(pong(), hex("cc02"));
        assert_eq!(FromClient::decode(&hex("07")), Ok(FromClient::Lock));
        assert_eq!(lock(true), hex("cc07c3"));
        assert_eq!(FromClient::decode(&hex("08")), Ok(FromClient::Unlock));
        assert_eq!(FromClient::decode(&hex("05cb3f8999999999999a")), Ok(FromClient::Rtt(0.0125)));
        assert_eq!(FromClient::decode(&hex("0400")), Ok(FromClient::LossRate(0.0)), "an integer");
        assert_eq!(FromClient::decode(&hex("06ca3f000000")), Ok(FromClient::Jitter(0.5)), "a short float");
        let map = media_map([("1", "voice", "sessA")].into_iter());
        assert_eq!(map, hex("cc09 81 a131 82 a474797065 a5766f696365 a973656e6465725f6964 a57365737341"));
    }

    #[test]
    fn descriptions_travel_packed_and_bombs_do_not_unpack() {
        let json = br#"{"type":"offer","sdp":"v=0\r\n"}"#;
        assert_eq!(FromClient::decode(&description(json)), Ok(FromClient::Description(json.to_vec())));
        let bomb = description(&vec![b' '; DESCRIPTION_MAX + 1]);
        assert!(bomb.len() < 20_000);
        assert_eq!(FromClient::decode(&bomb), Err(BadMessage::Description));
        assert_eq!(FromClient::decode(&hex("03c403010203")), Err(BadMessage::Description));
    }

    #[test]
    fn what_is_no_message_is_said_to_be_none() {
        for bad in ["", "a0", "03", "04", "04a0", "c1"] {
            assert!(FromClient::decode(&hex(bad)).is_err(), "{bad}");
        }
        assert_eq!(FromClient::decode(&hex("09")), Err(BadMessage::Unknown(9)), "only ever told, never asked");
        assert!(matches!(FromClient::decode(&hex("cd0107")), Err(BadMessage::Unknown(_))));
    }
}
