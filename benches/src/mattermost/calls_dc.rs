//! What clients and server say to each other over the data channel: a number, and perhaps a payload.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use serde_json::json;

use super::line::{Description, Tally};
use crate::msgpack::{self, Value};

/// A client says it every second.
pub(crate) const PING: &[u8] = &[1];
const DESCRIPTION: i64 = 3;
/// No description of ours or theirs is longer.
const UNPACKED_MAX: u64 = 4 << 20;

pub(super) enum FromServer {
    Description(Description),
    /// A pong, or the media map.
    Other,
}

/// Reads a message, and counts it.
pub(super) fn read(message: &[u8], tally: &Tally) -> anyhow::Result<FromServer> {
    Tally::one(&tally.channel);
    let mut rest = message;
    if msgpack::read(&mut rest)? != Value::Int(DESCRIPTION) {
        return Ok(FromServer::Other);
    }
    let Value::Bytes(packed) = msgpack::read(&mut rest)? else { anyhow::bail!("a description that is no bytes") };
    let mut json = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice()).take(UNPACKED_MAX).read_to_end(&mut json)?;
    let description = Description::read(&serde_json::from_slice(&json).context("a description")?)?;
    if description.is_offer {
        Tally::one(&tally.offers);
    }
    Ok(FromServer::Description(description))
}

/// An answer, and counts it.
pub(super) fn answer(sdp: &str, tally: &Tally) -> anyhow::Result<Vec<u8>> {
    Tally::one(&tally.channel);
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(json!({ "type": "answer", "sdp": sdp }).to_string().as_bytes())?;
    let mut message = Vec::new();
    msgpack::write(&mut message, &Value::Int(DESCRIPTION))?;
    msgpack::write(&mut message, &Value::Bytes(packer.finish()?))?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_come_back_and_are_counted() -> anyhow::Result<()> {
        let tally = Tally::default();
        let packed = answer("v=0\r\n", &tally)?;
        let FromServer::Description(read_back) = read(&packed, &tally)? else { anyhow::bail!("no description") };
        assert_eq!((read_back.is_offer, read_back.sdp.as_str()), (false, "v=0\r\n"));
        assert!(matches!(read(&[0xcc, 2], &tally)?, FromServer::Other), "a pong, as Go writes it");
        assert_eq!((Tally::of(&tally.channel), Tally::of(&tally.offers)), (3.0, 0.0));
        Ok(())
    }
}
