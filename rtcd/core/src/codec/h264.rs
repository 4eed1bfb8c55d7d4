//! H.264 payloads (RFC 6184): where a key frame starts.

use crate::wire::Reader;

const IDR: u8 = 5;
const SEQUENCE_PARAMETERS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Units looked at inside one aggregate: parameter sets come first, an encoder puts four or five together.
const UNITS_MAX: usize = 16;

/// Does a key frame start here: sequence parameters, or an IDR slice's first piece? Browsers send parameters before every IDR
/// slice, so normally that is the packet with the parameters.
#[inline]
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    let Some(first) = reader.u8() else { return false };
    match first & 0x1F {
        IDR | SEQUENCE_PARAMETERS => true,
        STAP_A => aggregate_has_key(reader),
        // Start bit, then the kind of the unit cut into pieces.
        FU_A => reader.u8().is_some_and(|header| header & 0x80 != 0 && matches!(header & 0x1F, IDR | SEQUENCE_PARAMETERS)),
        _ => false,
    }
}

fn aggregate_has_key(mut reader: Reader<'_>) -> bool {
    for _ in 0..UNITS_MAX {
        let Some(unit) = reader.u16().and_then(|len| reader.take(usize::from(len))) else { return false };
        if unit.first().is_some_and(|header| matches!(header & 0x1F, IDR | SEQUENCE_PARAMETERS)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_units_aggregates_and_fragments() {
        assert!(starts_key_frame(&[0x67, 1, 2]) && starts_key_frame(&[0x65]));
        assert!(!starts_key_frame(&[0x61, 1]) && !starts_key_frame(&[0x68, 1]) && !starts_key_frame(&[]));
        // aggregate of SEI, then parameters
        assert!(starts_key_frame(&[0x78, 0, 2, 0x06, 1, 0, 3, 0x67, 1, 2]));
        assert!(!starts_key_frame(&[0x78, 0, 2, 0x61, 1]));
        // lengths that lie
        assert!(!starts_key_frame(&[0x78, 0xFF, 0xFF, 0x67]) && !starts_key_frame(&[0x78, 0]));
        // fragment: start, middle
        assert!(starts_key_frame(&[0x7C, 0x85, 0]) && !starts_key_frame(&[0x7C, 0x05, 0]) && !starts_key_frame(&[0x7C]));
    }
}
