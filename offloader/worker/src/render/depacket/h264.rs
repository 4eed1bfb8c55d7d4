//! H.264 (RFC 6184): single units, STAP-A and FU-A, given out as an Annex B stream.

use super::Piece;

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

pub(super) fn add(payload: &[u8], parts: &mut Vec<Vec<u8>>) -> Option<Piece> {
    let header = *payload.first()?;
    match header & 0x1f {
        kind @ 1..=23 => {
            parts.push(payload.to_vec());
            Some(Piece { starts_frame: true, key: kind == IDR || kind == SPS })
        }
        STAP_A => {
            let mut rest = payload.get(1..)?;
            let mut key = false;
            while !rest.is_empty() {
                let length = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
                let unit = rest.get(2..2 + length).filter(|u| !u.is_empty())?;
                key |= matches!(unit[0] & 0x1f, IDR | SPS);
                parts.push(unit.to_vec());
                rest = &rest[2 + length..];
            }
            Some(Piece { starts_frame: true, key })
        }
        FU_A => {
            let fragment = *payload.get(1)?;
            let data = payload.get(2..)?;
            let (start, kind) = (fragment & 0x80 != 0, fragment & 0x1f);
            if start {
                let mut unit = vec![header & 0xe0 | kind];
                unit.extend_from_slice(data);
                parts.push(unit);
            } else {
                parts.last_mut()?.extend_from_slice(data);
            }
            Some(Piece { starts_frame: start, key: start && kind == IDR })
        }
        _ => None,
    }
}

/// The units of a frame with start codes between them.
pub(super) fn finish(units: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut stream = Vec::with_capacity(units.iter().map(|u| u.len() + 4).sum());
    for unit in units {
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(&unit);
    }
    Some(vec![stream])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_and_fragments_become_one_stream() {
        let mut parts = Vec::new();
        let piece = add(&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 2], &mut parts).unwrap();
        assert!(piece.key);
        assert!(add(&[0x7c, 0x85, 0xa], &mut parts).unwrap().key);
        assert!(add(&[0x7c, 0x45, 0xb], &mut parts).is_some());
        let stream = finish(parts).unwrap();
        assert_eq!(stream, [vec![0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 0xa, 0xb]]);
        assert!(add(&[0x78, 0, 9, 1], &mut Vec::new()).is_none());
    }
}
