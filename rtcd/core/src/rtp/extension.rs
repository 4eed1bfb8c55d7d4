//! Header extensions (RFC 8285): which we know, where they lie in a packet, and which id they have on a transport.

use super::header::{Header, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};

macro_rules! extensions {
    ($($(#[$doc:meta])* $name:ident = $uri:literal,)*) => {
        /// A header extension we understand. Others are never forwarded: nobody knows what they would leak.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Extension { $($(#[$doc])* $name,)* }

        impl Extension {
            /// All, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The URI as SDP `a=extmap` has it.
            #[must_use]
            pub fn uri(self) -> &'static str {
                match self { $(Self::$name => $uri,)* }
            }

            /// The extension with this URI.
            #[must_use]
            pub fn from_uri(uri: &str) -> Option<Self> {
                match uri { $($uri => Some(Self::$name),)* _ => None }
            }
        }
    };
}

extensions! {
    /// When the packet was sent: 24 bits, 6.18 fixed-point seconds.
    AbsSendTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    /// Capture time of the frame at its source.
    AbsCaptureTime = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    /// RFC 6464: loudness, −dBov, and a voice bit.
    AudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    /// Colour space of a frame (HDR).
    ColorSpace = "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
    /// AV1's dependency descriptor.
    DependencyDescriptor = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    /// RFC 8843: which m-line.
    Mid = "urn:ietf:params:rtp-hdrext:sdes:mid",
    /// Bounds of the receiver's jitter buffer.
    PlayoutDelay = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    /// RFC 8852: the layer that an RTX stream repairs.
    RepairedRid = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    /// RFC 8852: which simulcast layer.
    Rid = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    /// RFC 5450: when the sender sent, relative to the timestamp.
    TransmissionOffset = "urn:ietf:params:rtp-hdrext:toffset",
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    /// Screen content or camera.
    VideoContentType = "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
    /// Rotation (3GPP TS 26.114).
    VideoOrientation = "urn:3gpp:video-orientation",
    /// Encoder and pacer times, for statistics.
    VideoTiming = "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
    /// Which layers a publisher sends and with what bitrates.
    VideoLayersAllocation = "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00",
}

/// Which id each extension has on one transport, both ways round. Ids 1…14 fit the one-byte form, 15…255 only the two-byte form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionMap {
    id_by_extension: [u8; Extension::COUNT],
    // Only ids below 16 are looked up by index; the few beyond are searched.
    extension_by_id: [Option<Extension>; 16],
    form: Form,
}

/// How elements are written (RFC 8285).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Ids 1…14, 1 to 16 bytes each.
    #[default]
    OneByte,
    /// Ids 1…255, up to 255 bytes each.
    TwoByte,
}

impl Default for ExtensionMap {
    fn default() -> Self {
        Self { id_by_extension: [0; Extension::COUNT], extension_by_id: [None; 16], form: Form::OneByte }
    }
}

impl ExtensionMap {
    /// Without any extension.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives an extension its id. False, and nothing changed, when the id is 0 or taken by another extension.
    pub fn insert(&mut self, extension: Extension, id: u8) -> bool {
        if id == 0 || self.extension(id).is_some_and(|other| other != extension) {
            return false;
        }
        self.remove(extension);
        if let Some(place) = self.id_by_extension.get_mut(extension as usize) {
            *place = id;
        }
        if let Some(place) = self.extension_by_id.get_mut(usize::from(id)) {
            *place = Some(extension);
        }
        if id > 14 {
            self.form = Form::TwoByte;
        }
        true
    }

    /// Takes an extension out.
    pub fn remove(&mut self, extension: Extension) {
        if let Some(id) = self.id_by_extension.get_mut(extension as usize) {
            let old = std::mem::take(id);
            if let Some(place) = self.extension_by_id.get_mut(usize::from(old)) {
                *place = None;
            }
        }
    }

    /// The id of an extension on this transport.
    #[inline]
    #[must_use]
    pub fn id(&self, extension: Extension) -> Option<u8> {
        self.id_by_extension.get(extension as usize).copied().filter(|id| *id != 0)
    }

    /// The extension with this id.
    #[inline]
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<Extension> {
        if id == 0 {
            return None;
        }
        match self.extension_by_id.get(usize::from(id)) {
            Some(extension) => *extension,
            None => Extension::ALL.iter().copied().find(|extension| self.id(*extension) == Some(id)),
        }
    }

    /// The form that all ids of this map fit in.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Finds the known extensions of a packet. Damaged elements end the search; what was found before them stays.
    #[inline]
    #[must_use]
    pub fn locate(&self, header: &Header, packet: &[u8]) -> Extensions {
        let mut found = Extensions::default();
        if header.extension_len == 0 {
            return found;
        }
        let block = header.extension_bytes(packet);
        if header.extension_profile == ONE_BYTE_PROFILE {
            self.locate_one_byte(block, header.extension_start, &mut found);
        } else if header.extension_profile & 0xFFF0 == TWO_BYTE_PROFILE {
            self.locate_two_byte(block, header.extension_start, &mut found);
        }
        found
    }

    #[inline]
    fn locate_one_byte(&self, block: &[u8], start: usize, found: &mut Extensions) {
        let mut at = 0;
        while let Some(&byte) = block.get(at) {
            at += 1;
            if byte == 0 {
                continue;
            }
            let (id, len) = (byte >> 4, usize::from(byte & 0x0F) + 1);
            // Id 15 is reserved: RFC 8285 §4.2 says to stop there.
            if id == 15 || at + len > block.len() {
                return;
            }
            if let Some(extension) = self.extension(id) {
                found.put(extension, start + at, len);
            }
            at += len;
        }
    }

    fn locate_two_byte(&self, block: &[u8], start: usize, found: &mut Extensions) {
        let mut at = 0;
        while let Some(&id) = block.get(at) {
            at += 1;
            if id == 0 {
                continue;
            }
            let Some(len) = block.get(at).copied().map(usize::from) else { return };
            at += 1;
            if at + len > block.len() {
                return;
            }
            if let Some(extension) = self.extension(id) {
                found.put(extension, start + at, len);
            }
            at += len;
        }
    }
}

/// Where the known extensions of one packet lie. `Copy`, made once per incoming packet, read once per receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    // (offset, length) per extension; a bit in `present` says whether it is there.
    places: [(u16, u8); Extension::COUNT],
    present: u32,
}

impl Default for Extensions {
    fn default() -> Self {
        Self { places: [(0, 0); Extension::COUNT], present: 0 }
    }
}

impl Extensions {
    #[inline]
    fn put(&mut self, extension: Extension, at: usize, len: usize) {
        // Datagrams are far below 64 KiB; an offset beyond would be a caller's mistake and is simply not found.
        let (Ok(at), Ok(len)) = (u16::try_from(at), u8::try_from(len)) else { return };
        if let Some(place) = self.places.get_mut(extension as usize) {
            *place = (at, len);
            self.present |= 1 << (extension as u32);
        }
    }

    /// The value of one extension, if the packet has it. `packet` is the one located in.
    #[inline]
    #[must_use]
    pub fn value<'a>(&self, extension: Extension, packet: &'a [u8]) -> Option<&'a [u8]> {
        if self.present & (1 << (extension as u32)) == 0 {
            return None;
        }
        let (at, len) = *self.places.get(extension as usize)?;
        packet.get(usize::from(at)..usize::from(at) + usize::from(len))
    }

    /// Does the packet have it?
    #[inline]
    #[must_use]
    pub fn has(&self, extension: Extension) -> bool {
        self.present & (1 << (extension as u32)) != 0
    }

    /// The extensions present, in the order of [`Extension::ALL`].
    #[inline]
    pub fn iter<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = (Extension, &'a [u8])> + use<'a> {
        let this = *self;
        let mut left = this.present;
        std::iter::from_fn(move || {
            loop {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                let extension = *Extension::ALL.get(bit as usize)?;
                if let Some(value) = this.value(extension, packet) {
                    return Some((extension, value));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(profile: u16, elements: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
        packet.extend(profile.to_be_bytes());
        let words = elements.len().div_ceil(4);
        packet.extend(u16::try_from(words).unwrap().to_be_bytes());
        packet.extend(elements);
        packet.resize(16 + words * 4, 0);
        packet
    }

    fn map() -> ExtensionMap {
        let mut map = ExtensionMap::new();
        assert!(map.insert(Extension::AudioLevel, 1));
        assert!(map.insert(Extension::Mid, 4));
        assert!(map.insert(Extension::TransportCc, 14));
        map
    }

    #[test]
    fn one_byte_elements_are_found_between_padding() {
        let packet = packet(0xBEDE, &[0x10, 0x85, 0, 0x41, b'a', b'b', 0xE1, 0x12, 0x34]);
        let header = Header::parse(&packet).unwrap();
        let found = map().locate(&header, &packet);
        assert_eq!(found.value(Extension::AudioLevel, &packet), Some(&[0x85][..]));
        assert_eq!(found.value(Extension::Mid, &packet), Some(&b"ab"[..]));
        assert_eq!(found.value(Extension::TransportCc, &packet), Some(&[0x12, 0x34][..]));
        assert_eq!(found.value(Extension::Rid, &packet), None);
        assert_eq!(found.iter(&packet).count(), 3);
    }

    #[test]
    fn two_byte_elements_may_be_empty_and_have_large_ids() {
        let mut map = map();
        assert!(map.insert(Extension::Rid, 200));
        assert_eq!(map.form(), Form::TwoByte);
        let packet = packet(0x1000, &[1, 0, 200, 3, b'x', b'y', b'z']);
        let header = Header::parse(&packet).unwrap();
        let found = map.locate(&header, &packet);
        assert_eq!(found.value(Extension::AudioLevel, &packet), Some(&[][..]));
        assert_eq!(found.value(Extension::Rid, &packet), Some(&b"xyz"[..]));
    }

    #[test]
    fn damaged_elements_end_the_search() {
        // the second element claims 16 bytes, 2 are there
        let packet = packet(0xBEDE, &[0x10, 0x05, 0x4F, b'a', b'b']);
        let header = Header::parse(&packet).unwrap();
        let found = map().locate(&header, &packet);
        assert!(found.has(Extension::AudioLevel) && !found.has(Extension::Mid));
    }

    #[test]
    fn an_id_belongs_to_one_extension() {
        let mut map = map();
        assert!(!map.insert(Extension::Rid, 1) && !map.insert(Extension::Rid, 0));
        assert!(map.insert(Extension::AudioLevel, 2));
        assert_eq!(map.extension(1), None);
        assert!(map.insert(Extension::Rid, 1));
    }

    #[test]
    fn uris_round_trip() {
        for extension in Extension::ALL {
            assert_eq!(Extension::from_uri(extension.uri()), Some(*extension));
        }
    }
}
