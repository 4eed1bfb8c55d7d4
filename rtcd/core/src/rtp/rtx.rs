//! Retransmission payloads (RFC 4588): the original sequence number, then the original payload.

/// Bytes of the original sequence number.
pub const RTX_OSN_LEN: usize = 2;

/// Splits an RTX payload into original sequence number and original payload. `None` for what is too short
/// (padding-only RTX packets are bandwidth probes and carry nothing).
#[inline]
#[must_use]
pub fn rtx_unwrap(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (osn, original) = payload.split_first_chunk::<RTX_OSN_LEN>()?;
    Some((u16::from_be_bytes(*osn), original))
}

/// The prefix that makes an original payload an RTX payload; give it to [`crate::srtp::Outbound::protect`] as prefix.
#[inline]
#[must_use]
pub fn rtx_wrap_prefix(original_seq: u16) -> [u8; RTX_OSN_LEN] {
    original_seq.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let wrapped = [&rtx_wrap_prefix(0xABCD)[..], &[1, 2, 3]].concat();
        assert_eq!(rtx_unwrap(&wrapped), Some((0xABCD, &[1, 2, 3][..])));
        assert_eq!(rtx_unwrap(&[1]), None);
    }
}
