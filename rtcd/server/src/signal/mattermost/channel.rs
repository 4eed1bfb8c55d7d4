//! Messages of a client's data channel (`calls-dc`): a number that names the kind, and perhaps a payload, as MessagePack values.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use rtcd_core::limits::SDP_LEN_MAX;

use super::msgpack::{Malformed, Reader, Writer};

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
pub(super) enum FromClient<'a> {
    Ping,
    /// JSON, packed: see [`unpack`].
    Description(&'a [u8]),
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

impl<'a> FromClient<'a> {
    /// Reads a message; clients write the kind as any integer.
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(message);
        Ok(match u8::try_from(reader.integer()?).unwrap_or(u8::MAX) {
            PING => Self::Ping,
            SDP => Self::Description(reader.bytes()?),
            LOSS_RATE => Self::LossRate(reader.number()?),
            RTT => Self::Rtt(reader.number()?),
            JITTER => Self::Jitter(reader.number()?),
            LOCK => Self::Lock,
            UNLOCK => Self::Unlock,
            other => return Err(BadMessage::Unknown(i64::from(other))),
        })
    }
}

/// The JSON of a description. Nothing is unpacked beyond [`DESCRIPTION_MAX`].
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, BadMessage> {
    let mut json = Vec::new();
    let read = ZlibDecoder::new(packed).take(DESCRIPTION_MAX as u64 + 1).read_to_end(&mut json);
    if read.is_ok() && json.len() <= DESCRIPTION_MAX { Ok(json) } else { Err(BadMessage::Description) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex")).collect()
    }

    fn unpacked(message: &[u8]) -> Result<Vec<u8>, BadMessage> {
        let FromClient::Description(packed) = FromClient::decode(message)? else { panic!("not a description") };
        unpack(packed)
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
        assert_eq!(unpacked(&description(json)).as_deref(), Ok(&json[..]));
        let bomb = description(&vec![b' '; DESCRIPTION_MAX + 1]);
        assert!(bomb.len() < 20_000);
        assert_eq!(unpacked(&bomb), Err(BadMessage::Description));
        assert_eq!(unpacked(&hex("03c403010203")), Err(BadMessage::Description));
    }

    /// S-05: messages that are up to a thousand times longer inside, whole, cut and damaged.
    #[test]
    fn a_thousand_bombs_are_unpacked_to_the_bound_and_no_further() {
        /// Of the most that is packed that way, twenty times the bound when unpacked.
        const PACKED: usize = 20_000;
        /// The text grows by doubling: old and new side by side when it has reached the bound.
        const HELD_MAX: usize = 3 * DESCRIPTION_MAX + (128 << 10);
        let texts: [&[u8]; 5] = [b"\0", b" ", b"{\"sdp\":\"", b"a=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\n", b"[[[[[[[["];
        let bombs: Vec<Vec<u8>> = texts
            .iter()
            .map(|text| {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
                let megabyte: Vec<u8> = text.iter().copied().cycle().take(1 << 20).collect();
                while encoder.get_ref().len() < PACKED {
                    encoder.write_all(&megabyte).expect("memory");
                }
                assert!(encoder.total_in() > 200 * PACKED as u64, "a bomb");
                encoder.finish().expect("memory")
            })
            .collect();
        for n in 0..1000 {
            let mut bomb = bombs[n % bombs.len()].clone();
            match n / bombs.len() % 3 {
                // Damage behind the bound must not be reached, before it must not hurt.
                1 => bomb[n * 59 % PACKED + 2] ^= 0x55,
                2 => bomb.truncate(2 + n * 59 % PACKED),
                _ => {}
            }
            let (read, held) = crate::heap::peak_of(|| unpack(&bomb));
            match read {
                Ok(json) => assert!(json.len() <= DESCRIPTION_MAX),
                Err(error) => assert_eq!(error, BadMessage::Description),
            }
            assert!(held <= HELD_MAX, "bomb {n} held {held} bytes");
        }
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
