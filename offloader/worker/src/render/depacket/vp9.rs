//! VP9 (RFC 9628 section 4.2). Spatial layers of a picture are frames of their own to the decoder.

use super::Piece;

pub(super) fn add(payload: &[u8], parts: &mut Vec<Vec<u8>>) -> Option<Piece> {
    let flags = *payload.first()?;
    let bit = |mask: u8| flags & mask != 0;
    let (id, predicted, layered, flexible, begins, structure) = (bit(0x80), bit(0x40), bit(0x20), bit(0x10), bit(0x08), bit(0x02));
    let mut at = 1;
    if id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let mut spatial = 0;
    if layered {
        spatial = payload.get(at)? >> 1 & 0x07;
        // Non-flexible mode has TL0PICIDX after the layer byte.
        at += if flexible { 1 } else { 2 };
    }
    if flexible && predicted {
        // Up to three differences; the last bit says whether another follows.
        for n in 0.. {
            let more = payload.get(at)? & 0x01 != 0;
            at += 1;
            if !more {
                break;
            }
            if n == 2 {
                return None;
            }
        }
    }
    if structure {
        let head = *payload.get(at)?;
        at += 1;
        let layers = usize::from(head >> 5) + 1;
        at += if head & 0x10 != 0 { layers * 4 } else { 0 };
        if head & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(payload.get(at)? >> 2 & 0x03);
            }
        }
    }
    let data = payload.get(at..).filter(|d| !d.is_empty())?;
    match parts.last_mut() {
        Some(frame) if !begins => frame.extend_from_slice(data),
        _ => parts.push(data.to_vec()),
    }
    Some(Piece { starts_frame: begins, key: begins && !predicted && spatial == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_kept_apart_and_the_scalability_structure_is_skipped() {
        let mut parts = Vec::new();
        // I (15 bit), L, F, B, V with 2 layers, sizes and one picture with one reference.
        let key = [0xba, 0x80, 0x01, 0x00, 0x38, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0x04, 1, 0x82, 0xaa];
        let piece = add(&key, &mut parts).unwrap();
        assert!(piece.key && piece.starts_frame);
        assert_eq!(parts, [vec![0x82, 0xaa]]);
        // Second spatial layer: I (7 bit), L with spatial id 1, F, B, E.
        let upper = add(&[0xbc, 0x01, 0x02, 0x83], &mut parts).unwrap();
        assert!(!upper.key);
        assert_eq!(parts, [vec![0x82, 0xaa], vec![0x83]]);
        // Inter frame, flexible mode, one difference.
        let inter = add(&[0xf8, 0x02, 0x00, 0x02, 0x84], &mut Vec::new()).unwrap();
        assert!(!inter.key && inter.starts_frame);
    }
}
