//! Writes an RTP header straight into a send slot.

use super::extension::{Extension, ExtensionMap, Extensions, Form};
use super::header::{FIXED_LEN, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};

/// Fields of the fixed header. CSRCs are not forwarded: they would name participants of foreign mixers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Marker bit.
    pub marker: bool,
    /// Payload type as negotiated with the receiver.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Our own source number towards this receiver.
    pub ssrc: u32,
}

/// Values that belong to one receiver's leg, not to the packet that came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnExtensions<'a> {
    /// Transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// [`super::abs_send_time`], 24 bits.
    pub abs_send_time: Option<u32>,
    /// The receiver's m-line.
    pub mid: Option<&'a [u8]>,
    /// The layer, where we send simulcast (to another node).
    pub rid: Option<&'a [u8]>,
    /// Play-out delay bounds, replacing the sender's.
    pub playout_delay: Option<[u8; 3]>,
    /// A dependency descriptor, replacing the sender's.
    pub dependency_descriptor: Option<&'a [u8]>,
}

/// Builds a header: the fixed part, then any number of extension elements, then [`HeaderWriter::finish`].
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    slot: &'a mut [u8],
    at: usize,
    form: Form,
}

impl<'a> HeaderWriter<'a> {
    /// Writes the fixed part. `None` when the slot is too small for it and an extension header.
    #[inline]
    pub fn new(slot: &'a mut [u8], fixed: &Fixed, form: Form) -> Option<Self> {
        let head = slot.first_chunk_mut::<{ FIXED_LEN + 4 }>()?;
        let [s1, s0] = fixed.seq.to_be_bytes();
        let [t3, t2, t1, t0] = fixed.timestamp.to_be_bytes();
        let [c3, c2, c1, c0] = fixed.ssrc.to_be_bytes();
        let second = (u8::from(fixed.marker) << 7) | (fixed.payload_type & 0x7F);
        *head = [0x80, second, s1, s0, t3, t2, t1, t0, c3, c2, c1, c0, 0, 0, 0, 0];
        Some(Self { slot, at: FIXED_LEN + 4, form })
    }

    /// Appends one element. False when it does not fit the form or the slot; the header stays valid without it.
    #[inline]
    pub fn extension(&mut self, id: u8, value: &[u8]) -> bool {
        let Ok(len) = u8::try_from(value.len()) else { return false };
        let head_len = match self.form {
            Form::OneByte => {
                if !(1..=14).contains(&id) || !(1..=16).contains(&len) {
                    return false;
                }
                1
            }
            Form::TwoByte if id == 0 => return false,
            Form::TwoByte => 2,
        };
        let end = self.at + head_len + value.len();
        let Some((head, body)) = self.slot.get_mut(self.at..end).and_then(|place| place.split_at_mut_checked(head_len)) else {
            return false;
        };
        match head {
            [one] => *one = (id << 4) | (len - 1),
            [first, second] => (*first, *second) = (id, len),
            _ => return false,
        }
        body.copy_from_slice(value);
        self.at = end;
        true
    }

    /// Pads and closes the header; answers its length.
    #[inline]
    #[must_use]
    pub fn finish(self) -> Option<usize> {
        let Self { slot, at, form } = self;
        let start = FIXED_LEN + 4;
        if at == start {
            return Some(FIXED_LEN);
        }
        let end = at.next_multiple_of(4);
        slot.get_mut(at..end)?.fill(0);
        let words = u16::try_from((end - start) / 4).ok()?;
        let profile = match form {
            Form::OneByte => ONE_BYTE_PROFILE,
            Form::TwoByte => TWO_BYTE_PROFILE,
        };
        let [p1, p0] = profile.to_be_bytes();
        let [w1, w0] = words.to_be_bytes();
        *slot.get_mut(FIXED_LEN..start)?.first_chunk_mut::<4>()? = [p1, p0, w1, w0];
        *slot.first_mut()? |= 0x10;
        Some(end)
    }
}

/// Extensions that describe the source's leg or m-line; a receiver gets its own instead, or none.
const LEG_BOUND: u32 = 1 << Extension::AbsSendTime as u32
    | 1 << Extension::Mid as u32
    | 1 << Extension::RepairedRid as u32
    | 1 << Extension::Rid as u32
    | 1 << Extension::TransmissionOffset as u32
    | 1 << Extension::TransportCc as u32
    | 1 << Extension::VideoLayersAllocation as u32
    | 1 << Extension::VideoTiming as u32;

/// Writes the header of a forwarded packet: `fixed`, the source's extensions under the receiver's ids, the receiver's own.
///
/// `source` and `source_packet` are the incoming packet's; extensions the receiver did not negotiate stay behind. Answers
/// the header's length, `None` when the slot is too small.
// Per packet and viewer. Padding is a second, cold caller; with two the compiler stops inlining by itself, at 4 % of all instructions.
#[inline(always)]
pub fn write_forwarded(
    slot: &mut [u8],
    fixed: &Fixed,
    receiver: &ExtensionMap,
    source: &Extensions,
    source_packet: &[u8],
    own: &OwnExtensions<'_>,
) -> Option<usize> {
    // The two-byte form only when a passed value needs it (dependency descriptors with structure); receivers that gave
    // ids above 14 understand it, the others all negotiate `extmap-allow-mixed`.
    let mut form = receiver.form();
    let descriptor = match own.dependency_descriptor {
        None => source.value(Extension::DependencyDescriptor, source_packet),
        own => own,
    };
    if form == Form::OneByte && descriptor.is_some_and(|value| value.len() > 16) {
        form = Form::TwoByte;
    }
    let mut writer = HeaderWriter::new(slot, fixed, form)?;
    if let (Some(id), Some(seq)) = (receiver.id(Extension::TransportCc), own.transport_cc) {
        writer.extension(id, &seq.to_be_bytes());
    }
    if let (Some(id), Some(time)) = (receiver.id(Extension::AbsSendTime), own.abs_send_time) {
        let [_, a, b, c] = time.to_be_bytes();
        writer.extension(id, &[a, b, c]);
    }
    if let (Some(id), Some(mid)) = (receiver.id(Extension::Mid), own.mid) {
        writer.extension(id, mid);
    }
    if let (Some(id), Some(rid)) = (receiver.id(Extension::Rid), own.rid) {
        writer.extension(id, rid);
    }
    if let (Some(id), Some(delay)) = (receiver.id(Extension::PlayoutDelay), own.playout_delay) {
        writer.extension(id, &delay);
    }
    let mut left_out = LEG_BOUND;
    if own.playout_delay.is_some() {
        left_out |= 1 << Extension::PlayoutDelay as u32;
    }
    if let Some(value) = own.dependency_descriptor {
        left_out |= 1 << Extension::DependencyDescriptor as u32;
        if let Some(id) = receiver.id(Extension::DependencyDescriptor) {
            writer.extension(id, value);
        }
    }
    for (extension, value) in source.iter(source_packet) {
        if left_out & (1 << extension as u32) != 0 {
            continue;
        }
        if let Some(id) = receiver.id(extension) {
            writer.extension(id, value);
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::super::header::Header;
    use super::*;

    const FIXED: Fixed = Fixed { marker: true, payload_type: 111, seq: 7, timestamp: 8, ssrc: 9 };

    #[test]
    fn without_extensions_the_header_has_twelve_bytes() {
        let mut slot = [0xFF; 64];
        let len = HeaderWriter::new(&mut slot, &FIXED, Form::OneByte).unwrap().finish().unwrap();
        assert_eq!(len, 12);
        let header = Header::parse(&slot[..len]).unwrap();
        assert_eq!((header.marker, header.payload_type, header.seq, header.timestamp, header.ssrc, header.len), (true, 111, 7, 8, 9, 12));
    }

    #[test]
    fn forwarding_maps_ids_and_replaces_what_belongs_to_the_leg() {
        let mut source_map = ExtensionMap::new();
        source_map.insert(Extension::AudioLevel, 1);
        source_map.insert(Extension::Mid, 4);
        source_map.insert(Extension::TransportCc, 3);
        source_map.insert(Extension::VideoOrientation, 5);
        let mut incoming = [0u8; 128];
        let mut writer = HeaderWriter::new(&mut incoming, &FIXED, Form::OneByte).unwrap();
        assert!(writer.extension(1, &[0x85]) && writer.extension(4, b"0") && writer.extension(3, &[0, 1]) && writer.extension(5, &[2]));
        let incoming_len = writer.finish().unwrap();
        let header = Header::parse(&incoming[..incoming_len]).unwrap();
        let located = source_map.locate(&header, &incoming);

        let mut receiver = ExtensionMap::new();
        receiver.insert(Extension::AudioLevel, 10);
        receiver.insert(Extension::Mid, 2);
        receiver.insert(Extension::TransportCc, 7);
        let mut slot = [0u8; 128];
        let own = OwnExtensions { transport_cc: Some(0x1234), mid: Some(b"m3"), ..OwnExtensions::default() };
        let len = write_forwarded(&mut slot, &FIXED, &receiver, &located, &incoming, &own).unwrap();
        let written = Header::parse(&slot[..len]).unwrap();
        let found = receiver.locate(&written, &slot);
        assert_eq!(found.value(Extension::AudioLevel, &slot), Some(&[0x85][..]));
        assert_eq!(found.value(Extension::Mid, &slot), Some(&b"m3"[..]));
        assert_eq!(found.value(Extension::TransportCc, &slot), Some(&[0x12, 0x34][..]));
        // not negotiated with the receiver: stays behind
        assert_eq!(found.iter(&slot).count(), 3);
        assert_eq!(written.len, len);
    }

    #[test]
    fn long_values_switch_to_the_two_byte_form() {
        let mut map = ExtensionMap::new();
        map.insert(Extension::DependencyDescriptor, 6);
        let mut incoming = [0u8; 128];
        let mut writer = HeaderWriter::new(&mut incoming, &FIXED, Form::TwoByte).unwrap();
        assert!(writer.extension(6, &[9; 40]));
        let incoming_len = writer.finish().unwrap();
        let header = Header::parse(&incoming[..incoming_len]).unwrap();
        let located = map.locate(&header, &incoming);
        let mut slot = [0u8; 128];
        let len = write_forwarded(&mut slot, &FIXED, &map, &located, &incoming, &OwnExtensions::default()).unwrap();
        let written = Header::parse(&slot[..len]).unwrap();
        assert_eq!(map.locate(&written, &slot).value(Extension::DependencyDescriptor, &slot), Some(&[9; 40][..]));
    }

    #[test]
    fn what_does_not_fit_is_left_out_not_half_written() {
        let mut slot = [0u8; 20];
        let mut writer = HeaderWriter::new(&mut slot, &FIXED, Form::OneByte).unwrap();
        assert!(!writer.extension(1, &[0; 17]) && !writer.extension(15, &[0]) && !writer.extension(0, &[0]));
        assert!(!writer.extension(1, &[1; 5]));
        assert!(writer.extension(1, &[1; 3]));
        assert_eq!(writer.finish(), Some(20));
        assert!(HeaderWriter::new(&mut [0; 15], &FIXED, Form::OneByte).is_none());
    }
}
