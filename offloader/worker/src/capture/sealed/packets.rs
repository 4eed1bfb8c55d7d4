//! One frame's packets: its encrypted bytes out of them, and the plain ones back into the same packets.
//!
//! Plain frames are shorter than encrypted ones by tag and trailer, so the last packets may be left empty. Such a one stays, as the
//! padding that senders have too: it keeps its number, and no reader takes it for a loss.

use archive::record::Packet;
use bytes::Bytes;

use super::frame::{SLICE_HEADER, Sealed, is_slice, picture_header, unescaped};
use crate::render::depacket::Codec;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_END: u8 = 0x40;
const VP9_END: u8 = 0x04;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Whether a packet is its frame's last. Layers of a VP9 picture are encrypted each for itself.
pub(super) fn ends_frame(codec: Codec, packet: &Packet) -> bool {
    match codec {
        Codec::Vp9 => packet.marker || packet.payload.first().is_some_and(|flags| flags & VP9_END != 0),
        Codec::Vp8 | Codec::H264 | Codec::Av1 => packet.marker,
    }
}

/// Opens a frame in place with `open`. False: malformed, or no key fits; then nothing has changed.
pub(super) fn open_frame(codec: Codec, packets: &mut [Packet], open: impl FnOnce(&Sealed<'_>) -> Option<Vec<u8>>) -> bool {
    let opened = match codec {
        Codec::Vp8 | Codec::Vp9 => open_plainly(codec, packets, open),
        Codec::H264 => open_units(packets, open),
        // No client encrypts it.
        Codec::Av1 => None,
    };
    let Some(payloads) = opened else { return false };
    let marker = packets.iter().any(|packet| packet.marker);
    let last = payloads.iter().rposition(|payload| !payload.is_empty());
    for (n, (packet, payload)) in packets.iter_mut().zip(payloads).enumerate() {
        packet.payload = payload;
        packet.marker = marker && Some(n) == last;
    }
    true
}

/// VP8 and VP9: each packet has a descriptor and a share of the frame.
fn open_plainly(codec: Codec, packets: &[Packet], open: impl FnOnce(&Sealed<'_>) -> Option<Vec<u8>>) -> Option<Vec<Bytes>> {
    let mut frame = Vec::new();
    // Where each packet's share begins in it.
    let mut heads = Vec::with_capacity(packets.len());
    for packet in packets {
        let mut share = Vec::new();
        if !packet.payload.is_empty() {
            codec.add(&packet.payload, &mut share)?;
        }
        let share = share.concat();
        heads.push(packet.payload.len().checked_sub(share.len())?);
        frame.extend_from_slice(&share);
    }
    let header = picture_header(codec, &frame)?;
    let (header, rest) = frame.split_at_checked(header)?;
    let plain = open(&Sealed::split(header, rest)?)?;
    let frame = [header, &plain[..]].concat();
    let mut rest = &frame[..];
    let mut payloads: Vec<Bytes> = Vec::with_capacity(packets.len());
    for (packet, head) in packets.iter().zip(heads) {
        let room = packet.payload.len() - head;
        let (share, after) = rest.split_at(room.min(rest.len()));
        rest = after;
        payloads.push(if share.is_empty() { Bytes::new() } else { [&packet.payload[..head], share].concat().into() });
    }
    if codec == Codec::Vp9
        && let Some(last) = payloads.iter_mut().rfind(|payload| !payload.is_empty())
    {
        let mut ending = last.to_vec();
        ending[0] |= VP9_END;
        *last = ending.into();
    }
    Some(payloads)
}

/// H.264: the units before the first slice are in clear; all from there on is one unit on the way, whatever it was before.
fn open_units(packets: &[Packet], open: impl FnOnce(&Sealed<'_>) -> Option<Vec<u8>>) -> Option<Vec<Bytes>> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    // The packet in which the last unit begins, and how many units there were before that packet.
    let mut begins = (0, 0);
    for (n, packet) in packets.iter().enumerate().filter(|(_, packet)| !packet.payload.is_empty()) {
        let before = units.len();
        Codec::H264.add(&packet.payload, &mut units)?;
        if units.len() > before {
            begins = (n, before);
        }
    }
    let at = units.iter().position(|unit| is_slice(unit))?;
    let (slice, before) = units.split_last()?;
    if at != before.len() || slice.len() < SLICE_HEADER {
        return None;
    }
    // As a decoder is given it: that is what the sender counted in, too.
    let mut header: Vec<u8> = before.iter().flat_map(|unit| START_CODE.iter().chain(unit)).copied().collect();
    header.extend(START_CODE.iter().chain(&slice[..SLICE_HEADER]));
    let rest = unescaped(&slice[SLICE_HEADER..]);
    let plain = open(&Sealed::split(&header, &rest)?)?;
    let unit = [&slice[..SLICE_HEADER], &plain[..]].concat();

    let (first, units_before) = begins;
    let mut payloads: Vec<Bytes> = packets.iter().map(|packet| packet.payload.clone()).collect();
    let old = packets.get(first)?.payload.clone();
    match old.first()? & 0x1f {
        FU_A => {
            // The unit's header is in the fragments' own two bytes.
            let mut rest = &unit[1..];
            let mut last = first;
            for (n, payload) in payloads.iter_mut().enumerate().skip(first).filter(|(_, payload)| !payload.is_empty()) {
                let (share, after) = rest.split_at(payload.len().checked_sub(2)?.min(rest.len()));
                rest = after;
                *payload = if share.is_empty() { Bytes::new() } else { [&payload[..2], share].concat().into() };
                if !payload.is_empty() {
                    last = n;
                }
            }
            let mut ending = payloads.get(last)?.to_vec();
            *ending.get_mut(1)? |= FU_END;
            *payloads.get_mut(last)? = ending.into();
        }
        STAP_A => {
            let mut payload = old[..1].to_vec();
            for unit in units.get(units_before..at)?.iter().chain([&unit]) {
                payload.extend_from_slice(&u16::try_from(unit.len()).ok()?.to_be_bytes());
                payload.extend_from_slice(unit);
            }
            *payloads.get_mut(first)? = payload.into();
        }
        _ => *payloads.get_mut(first)? = unit.into(),
    }
    Some(payloads)
}
