//! rtpdump, as rtptools and Wireshark read it: every packet as it came, for codecs without a simple container.

use std::io::Write;

use super::TrackError;
use crate::manifest::Track;
use crate::read::Recording;
use crate::record::Record;

const RTP_HEAD_BYTES: usize = 12;

pub(super) fn write(recording: &Recording, track: &Track, out: &mut impl Write) -> Result<(), TrackError> {
    let start_us = track.segments.first().map_or(recording.started_at_us(), |segment| segment.from_us);
    out.write_all(b"#!rtpplay1.0 0.0.0.0/0\n")?;
    out.write_all(&((start_us / 1_000_000) as u32).to_be_bytes())?;
    out.write_all(&((start_us % 1_000_000) as u32).to_be_bytes())?;
    out.write_all(&[0; 8])?;
    for record in recording.records(track.number) {
        let Record::Packet(packet) = record? else { continue };
        let Ok(length) = u16::try_from(8 + RTP_HEAD_BYTES + packet.payload.len()) else { continue };
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&(length - 8).to_be_bytes())?;
        out.write_all(&(((packet.at_us - start_us).max(0) / 1000) as u32).to_be_bytes())?;
        out.write_all(&[0x80, u8::from(packet.marker) << 7 | (track.info.payload_type as u8 & 0x7f)])?;
        out.write_all(&(packet.seq as u16).to_be_bytes())?;
        out.write_all(&(packet.timestamp as u32).to_be_bytes())?;
        out.write_all(&track.number.to_be_bytes())?;
        out.write_all(&packet.payload)?;
    }
    out.flush()?;
    Ok(())
}
