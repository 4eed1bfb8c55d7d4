//! Messages of the data channel `calls-dc`: MessagePack values back to back, a type and its payload.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use rmpv::Value;

use super::limits::{DESCRIPTION_MAX, SECTIONS_MAX};

/// The channel's name.
pub(super) const LABEL: &str = "calls-dc";
/// Values inside values.
const DEPTH_MAX: usize = 8;

const PING: u64 = 1;
const PONG: u64 = 2;
const DESCRIPTION: u64 = 3;
const LOCK: u64 = 7;
const UNLOCK: u64 = 8;
const MEDIA_MAP: u64 = 9;

/// What a section carries, by the media map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    /// `voice`, `screen`, `screen-audio` or `video`.
    pub(super) kind: String,
    /// Session; older servers name the receiver's own.
    pub(super) sender: String,
}

/// What the media node says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FromServer {
    Pong,
    /// JSON.
    Description(Vec<u8>),
    /// We have the lock, or have not.
    Lock(bool),
    /// By mid.
    MediaMap(HashMap<String, Mapped>),
    /// Nothing for us.
    Other(u64),
}

impl FromServer {
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let kind = value(&mut bytes)?.as_u64().ok_or("a message without a type")?;
        Ok(match kind {
            PONG => Self::Pong,
            DESCRIPTION => {
                let packed = value(&mut bytes)?;
                let packed = packed.as_slice().ok_or("a description that is no bytes")?;
                Self::Description(unpack(packed)?)
            }
            LOCK => Self::Lock(value(&mut bytes)?.as_bool().ok_or("a lock that is neither true nor false")?),
            MEDIA_MAP => {
                let map = value(&mut bytes)?;
                let pairs = map.as_map().ok_or("a media map that is no map")?;
                if pairs.len() > SECTIONS_MAX {
                    return Err(format!("a media map of {} sections", pairs.len()));
                }
                Self::MediaMap(pairs.iter().filter_map(|(mid, entry)| Some((mid.as_str()?.to_owned(), mapped(entry)?))).collect())
            }
            other => Self::Other(other),
        })
    }
}

fn mapped(entry: &Value) -> Option<Mapped> {
    let text = |key: &str| entry.as_map()?.iter().find(|(name, _)| name.as_str() == Some(key))?.1.as_str().map(str::to_owned);
    Some(Mapped { kind: text("type")?, sender: text("sender_id").unwrap_or_default() })
}

fn value(bytes: &mut &[u8]) -> Result<Value, String> {
    rmpv::decode::read_value_with_max_depth(bytes, DEPTH_MAX).map_err(|error| error.to_string())
}

pub(super) fn ping() -> Vec<u8> {
    encoded(PING, None)
}

pub(super) fn lock() -> Vec<u8> {
    encoded(LOCK, None)
}

pub(super) fn unlock() -> Vec<u8> {
    encoded(UNLOCK, None)
}

pub(super) fn description(json: &[u8]) -> Vec<u8> {
    encoded(DESCRIPTION, Some(Value::Binary(pack(json))))
}

fn encoded(kind: u64, payload: Option<Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in std::iter::once(Value::from(kind)).chain(payload) {
        // Writing to memory does not fail.
        let _ = rmpv::encode::write_value(&mut bytes, &value);
    }
    bytes
}

/// As descriptions travel, here and over the site's WebSocket.
pub(super) fn pack(json: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(json);
    encoder.finish().unwrap_or_default()
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut json = Vec::new();
    let mut limited = ZlibDecoder::new(packed).take(DESCRIPTION_MAX as u64 + 1);
    limited.read_to_end(&mut json).map_err(|error| format!("a description that does not unpack: {error}"))?;
    if json.len() > DESCRIPTION_MAX {
        return Err(format!("a description of more than {DESCRIPTION_MAX} bytes"));
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_protocol() {
        assert_eq!((ping(), lock(), unlock()), (vec![1], vec![7], vec![8]));
        assert_eq!(FromServer::decode(&[0xcc, 2]), Ok(FromServer::Pong));
        assert_eq!(FromServer::decode(&[2]), Ok(FromServer::Pong));
        assert_eq!(FromServer::decode(&[0xcc, 7, 0xc3]), Ok(FromServer::Lock(true)));
        assert_eq!(FromServer::decode(&[7, 0xc2]), Ok(FromServer::Lock(false)));
        assert_eq!(FromServer::decode(&[42, 1]), Ok(FromServer::Other(42)));
        let mut map = vec![0xcc, 9, 0x81, 0xa1, b'1', 0x82, 0xa4];
        map.extend_from_slice(b"type\xa5voice\xa9sender_id\xa5sessA");
        let expected = Mapped { kind: "voice".to_owned(), sender: "sessA".to_owned() };
        assert_eq!(FromServer::decode(&map), Ok(FromServer::MediaMap(HashMap::from([("1".to_owned(), expected)]))));
    }

    #[test]
    fn descriptions_come_back_as_they_were_and_bombs_do_not_unpack() {
        let message = description(br#"{"type":"offer","sdp":"v=0"}"#);
        assert_eq!(FromServer::decode(&message), Ok(FromServer::Description(br#"{"type":"offer","sdp":"v=0"}"#.to_vec())));
        let bomb = encoded(DESCRIPTION, Some(Value::Binary(pack(&vec![b' '; DESCRIPTION_MAX + 1]))));
        assert!(FromServer::decode(&bomb).expect_err("too long").contains("more than"));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&[][..], &[0xa1, b'x'], &[3, 0xc0], &[3, 0xc4, 5, 1], &[7, 1], &[9, 1], &[9, 0x81, 0xa1], &[0xcc]] {
            assert!(FromServer::decode(bytes).is_err(), "{bytes:?}");
        }
        let deep = [&[9][..], &[0x81, 0xa0].repeat(100)].concat();
        assert!(FromServer::decode(&deep).is_err());
    }
}
