//! The RTP header as a small `Copy` view over the bytes of a packet.

use thiserror::Error;

/// Bytes of the fixed header.
pub const FIXED_LEN: usize = 12;

/// Profile of one-byte extension headers (RFC 8285 §4.2).
pub(super) const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// Profile of two-byte extension headers, upper twelve bits (RFC 8285 §4.3).
pub(super) const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Why bytes are no RTP packet. The sender's fault; sending it again does not help.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RtpError {
    /// Fewer bytes than the header announces.
    #[error("RTP packet shorter than its header announces")]
    Truncated,
    /// Not version 2.
    #[error("RTP version is not 2")]
    Version,
    /// Padding longer than the payload, or of length zero.
    #[error("RTP padding does not fit the payload")]
    Padding,
}

/// A parsed RTP header. Offsets fit every datagram: the header cannot be longer than 12 + 60 + 4 + 262 140 bytes and is checked against the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Marker bit.
    pub marker: bool,
    /// Padding bit; how much is told by the last byte of the clear payload.
    pub padding: bool,
    /// Payload type, 0…127.
    pub payload_type: u8,
    /// Contributing sources.
    pub csrc_count: u8,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp in units of the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Profile of the extension block (0xBEDE or 0x100X are understood), 0 without one.
    pub extension_profile: u16,
    /// Where the elements of the extension block start.
    pub extension_start: usize,
    /// Bytes of the extension elements, 0 without.
    pub extension_len: usize,
    /// Whole header; the payload starts here.
    pub len: usize,
}

/// True for what RFC 7983 sorts to RTP or RTCP and RFC 5761 to RTP.
#[must_use]
pub fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [first, second, ..] if (128..192).contains(first) && !(192..224).contains(second))
}

/// True for RTCP after RFC 5761 §4: packet types 192 to 223.
#[must_use]
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [first, second, ..] if (128..192).contains(first) && (192..224).contains(second))
}

impl Header {
    /// Reads the header at the front of `packet`, clear or encrypted (SRTP leaves headers readable).
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        let Some((&[first, second, s1, s0, t3, t2, t1, t0, c3, c2, c1, c0], _)) = packet.split_first_chunk::<FIXED_LEN>() else {
            return Err(RtpError::Truncated);
        };
        if first >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let csrc_count = first & 0x0F;
        let mut len = FIXED_LEN + usize::from(csrc_count) * 4;
        let (mut extension_profile, mut extension_start, mut extension_len) = (0, len, 0);
        if first & 0x10 != 0 {
            let Some(&[p1, p0, w1, w0]) = packet.get(len..).and_then(|rest| rest.first_chunk::<4>()) else {
                return Err(RtpError::Truncated);
            };
            extension_profile = u16::from_be_bytes([p1, p0]);
            extension_start = len + 4;
            extension_len = usize::from(u16::from_be_bytes([w1, w0])) * 4;
            len = extension_start + extension_len;
        }
        if len > packet.len() {
            return Err(RtpError::Truncated);
        }
        Ok(Self {
            marker: second & 0x80 != 0,
            padding: first & 0x20 != 0,
            payload_type: second & 0x7F,
            csrc_count,
            seq: u16::from_be_bytes([s1, s0]),
            timestamp: u32::from_be_bytes([t3, t2, t1, t0]),
            ssrc: u32::from_be_bytes([c3, c2, c1, c0]),
            extension_profile,
            extension_start,
            extension_len,
            len,
        })
    }

    /// The payload of a *clear* packet without its padding. Empty for packets that are padding only (probes).
    #[inline]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8], RtpError> {
        let payload = packet.get(self.len..).ok_or(RtpError::Truncated)?;
        if !self.padding {
            return Ok(payload);
        }
        let padding = usize::from(*payload.last().ok_or(RtpError::Padding)?);
        if padding == 0 {
            return Err(RtpError::Padding);
        }
        let end = payload.len().checked_sub(padding).ok_or(RtpError::Padding)?;
        payload.get(..end).ok_or(RtpError::Padding)
    }

    /// The bytes of the extension elements.
    #[inline]
    #[must_use]
    pub fn extension_bytes<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.extension_start..self.extension_start.saturating_add(self.extension_len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fixed_header_csrcs_and_extension() {
        let mut packet = vec![0b1001_0010, 0x80 | 96, 0x12, 0x34, 0, 0, 0, 9, 0xAA, 0xBB, 0xCC, 0xDD];
        packet.extend([1, 1, 1, 1, 2, 2, 2, 2]);
        packet.extend([0xBE, 0xDE, 0, 1, 0x10, 0x55, 0, 0]);
        packet.extend([7, 8, 9]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.marker, header.payload_type, header.seq, header.timestamp, header.ssrc), (true, 96, 0x1234, 9, 0xAABB_CCDD));
        assert_eq!((header.csrc_count, header.extension_profile, header.len), (2, 0xBEDE, 28));
        assert_eq!(header.extension_bytes(&packet), [0x10, 0x55, 0, 0]);
        assert_eq!(header.payload(&packet).unwrap(), [7, 8, 9]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(Header::parse(&[0x80; 11]), Err(RtpError::Truncated));
        assert_eq!(Header::parse(&[0x40; 12]), Err(RtpError::Version));
        // 15 CSRCs announced, none there
        assert_eq!(Header::parse(&[0x8F; 12]), Err(RtpError::Truncated));
        // extension announced: header of it missing, then its words missing
        let mut packet = vec![0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::parse(&packet), Err(RtpError::Truncated));
        packet.extend([0xBE, 0xDE, 0xFF, 0xFF, 0, 0, 0, 0]);
        assert_eq!(Header::parse(&packet), Err(RtpError::Truncated));
    }

    #[test]
    fn padding_is_cut_and_checked() {
        let head = [0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let with = |payload: &[u8]| [&head[..], payload].concat();
        let cut = |payload: &[u8]| {
            let packet = with(payload);
            Header::parse(&packet).unwrap().payload(&packet).map(<[u8]>::to_vec)
        };
        assert_eq!(cut(&[1, 2, 0, 0, 3]), Ok(vec![1, 2]));
        assert_eq!(cut(&[0, 0, 3]), Ok(vec![]));
        assert_eq!(cut(&[0, 4]), Err(RtpError::Padding));
        assert_eq!(cut(&[1, 0]), Err(RtpError::Padding));
        assert_eq!(cut(&[]), Err(RtpError::Padding));
    }

    #[test]
    fn sorts_rtp_from_rtcp() {
        assert!(is_rtp(&[0x80, 96]) && !is_rtcp(&[0x80, 96]));
        assert!(is_rtcp(&[0x80, 200]) && !is_rtp(&[0x81, 206]));
        // marker bit with payload type 111
        assert!(is_rtp(&[0x90, 0x80 | 111]));
        assert!(!is_rtp(&[0x16, 0]) && !is_rtcp(&[]));
    }
}
