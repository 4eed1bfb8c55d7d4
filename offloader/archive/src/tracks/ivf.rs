//! IVF for VP8: whole frames with their RTP time. A frame with a lost packet is left out.

use std::io::{Seek, SeekFrom, Write};

use super::TrackError;
use crate::manifest::Track;
use crate::read::Recording;
use crate::record::{Packet, Record};

const HEAD_BYTES: usize = 32;

pub(super) fn write(recording: &Recording, track: &Track, out: &mut (impl Write + Seek)) -> Result<(), TrackError> {
    let size = (track.info.width as u16, track.info.height as u16);
    out.write_all(&head(size, 0))?;
    let mut frames = Frames::default();
    let (mut count, mut size_seen) = (0, None);
    for record in recording.records(track.number) {
        let Record::Packet(packet) = record? else { continue };
        if let Some((time, frame)) = frames.push(&packet) {
            size_seen = size_seen.or(key_frame_size(&frame));
            out.write_all(&(frame.len() as u32).to_le_bytes())?;
            out.write_all(&time.to_le_bytes())?;
            out.write_all(&frame)?;
            count += 1;
        }
    }
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&head(size_seen.unwrap_or(size), count))?;
    out.flush()?;
    Ok(())
}

fn head(size: (u16, u16), frames: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(b"DKIF");
    head[6..8].copy_from_slice(&32u16.to_le_bytes());
    head[8..12].copy_from_slice(b"VP80");
    head[12..14].copy_from_slice(&size.0.to_le_bytes());
    head[14..16].copy_from_slice(&size.1.to_le_bytes());
    head[16..20].copy_from_slice(&90_000u32.to_le_bytes());
    head[20..24].copy_from_slice(&1u32.to_le_bytes());
    head[24..28].copy_from_slice(&frames.to_le_bytes());
    head
}

/// Puts frames together.
#[derive(Default)]
struct Frames {
    first: Option<u64>,
    /// Time, next expected sequence number, bytes.
    open: Option<(u64, u64, Vec<u8>)>,
}

impl Frames {
    fn push(&mut self, packet: &Packet) -> Option<(u64, Vec<u8>)> {
        let (begins, payload) = descriptor(&packet.payload)?;
        if begins {
            self.open = Some((packet.timestamp, packet.seq, Vec::new()));
        }
        match &mut self.open {
            Some((time, next, frame)) if *time == packet.timestamp && *next == packet.seq => {
                frame.extend_from_slice(payload);
                *next += 1;
            }
            _ => self.open = None,
        }
        if !packet.marker {
            return None;
        }
        let (time, _, frame) = self.open.take()?;
        let first = *self.first.get_or_insert(time);
        Some((time.saturating_sub(first), frame))
    }
}

/// The payload descriptor of RFC 7741 section 4.2: does a frame begin here, and what follows it.
fn descriptor(payload: &[u8]) -> Option<(bool, &[u8])> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let extension = *payload.get(at)?;
        at += 1;
        if extension & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extension & 0x40 != 0);
        at += usize::from(extension & 0x30 != 0);
    }
    let begins = first & 0x10 != 0 && first & 0x07 == 0;
    Some((begins, payload.get(at..)?))
}

/// Width and height in a key frame (RFC 6386 section 9.1).
fn key_frame_size(frame: &[u8]) -> Option<(u16, u16)> {
    let is_key = frame.first()? & 1 == 0 && frame.get(3..6)? == [0x9d, 0x01, 0x2a];
    let number = |at: usize| Some(u16::from_le_bytes([*frame.get(at)?, *frame.get(at + 1)?]) & 0x3fff);
    if is_key { Some((number(6)?, number(8)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn packet(seq: u64, timestamp: u64, marker: bool, payload: &[u8]) -> Packet {
        Packet { at_us: 0, seq, timestamp, marker, key_frame: false, audio_level: 255, payload: Bytes::copy_from_slice(payload) }
    }

    #[test]
    fn whole_frames_come_out_and_torn_ones_do_not() {
        let mut frames = Frames::default();
        // Descriptor with extension, 15-bit picture id, TL0PICIDX and TID/KEYIDX.
        assert_eq!(frames.push(&packet(1, 900, false, &[0x90, 0xf0, 0x80, 1, 2, 3, b'a'])), None);
        assert_eq!(frames.push(&packet(2, 900, true, &[0x80, 0xf0, 0x80, 1, 2, 3, b'b'])), Some((0, b"ab".to_vec())));
        assert_eq!(frames.push(&packet(3, 3900, false, &[0x10, b'c'])), None);
        assert_eq!(frames.push(&packet(5, 3900, true, &[0x00, b'e'])), None);
        assert_eq!(frames.push(&packet(6, 6900, true, &[0x10, b'f'])), Some((6000, b"f".to_vec())));
        assert_eq!(frames.push(&packet(7, 9900, true, &[0x80, 0x80])), None);
    }
}
