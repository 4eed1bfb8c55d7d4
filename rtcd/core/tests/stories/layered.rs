//! A publisher's encoder with layers inside one stream, and what a decoder makes of the frames that arrive. Written from the
//! specifications, without the core's own code.

use std::collections::{BTreeMap, BTreeSet};

use str0m::format::Codec;
use str0m::rtp::{ExtensionSerializer, ExtensionValues};

/// How the layers depend on each other (W3C webrtc-svc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    L1T3,
    /// Every spatial layer refers to the one below.
    L3T3,
    /// Only in key frames.
    L3T3Key,
}

impl Mode {
    fn spatial(self) -> u8 {
        if self == Self::L1T3 { 1 } else { 3 }
    }
}

/// A frame as it was encoded.
#[derive(Clone, Debug)]
pub struct Made {
    pub picture: u32,
    pub spatial: u8,
    pub temporal: u8,
    pub key: bool,
    pub references: Vec<u32>,
    pub packets: usize,
}

/// A packet ready to be sent.
pub struct Ready {
    pub payload: Vec<u8>,
    pub descriptor: Option<Vec<u8>>,
    pub marker: bool,
}

/// The encoder. With `descriptor` its payloads cannot be read, as if they were encrypted; without they are VP9's.
pub struct Encoder {
    pub mode: Mode,
    pub codec: Codec,
    pub descriptor: bool,
    /// Spatial layers that it sends; of fewer than there are it says so.
    pub sends: u8,
    /// Makes no key frame although it is asked to.
    pub ignores_requests: bool,
    pub made: BTreeMap<u32, Made>,
    picture: u32,
    in_cycle: u32,
    frame: u32,
    /// Last frame of each spatial layer and temporal level.
    last: [[u32; 3]; 3],
    last_in_chain: [u32; 3],
    base: u8,
}

/// Temporal layers of four pictures.
const CYCLE: [u8; 4] = [0, 2, 1, 2];

impl Encoder {
    pub fn new(mode: Mode, codec: Codec, descriptor: bool) -> Self {
        Self {
            mode,
            codec,
            descriptor,
            sends: mode.spatial(),
            ignores_requests: false,
            made: BTreeMap::new(),
            picture: 0,
            in_cycle: 0,
            // Soon to wrap.
            frame: 65_400,
            last: [[0; 3]; 3],
            last_in_chain: [0; 3],
            base: 0,
        }
    }

    /// The packets of the next picture.
    pub fn next(&mut self, key: bool) -> Vec<Ready> {
        let key = key && !self.ignores_requests;
        if key {
            self.in_cycle = 0;
        }
        let temporal = CYCLE[self.in_cycle as usize % 4];
        let second = self.in_cycle % 4 == 3;
        self.in_cycle += 1;
        self.picture += 1;
        self.base = self.base.wrapping_add(u8::from(temporal == 0));
        let mut ready = Vec::new();
        for spatial in 0..self.sends {
            self.frame += 1;
            let number = self.frame;
            let at = usize::from(spatial);
            let mut references = Vec::new();
            if !key {
                let of = self.last[at];
                references.push(match temporal {
                    2 if second => of[1],
                    _ => of[0],
                });
            }
            if spatial > 0 && (key || self.mode == Mode::L3T3) {
                references.push(number - 1);
            }
            self.last[at][usize::from(temporal)] = number;
            let chains: Vec<u8> = (0..usize::from(self.mode.spatial()))
                .map(|chain| if key && spatial == 0 { 0 } else { (number - self.last_in_chain[chain]) as u8 })
                .collect();
            for (chain, last) in self.last_in_chain.iter_mut().enumerate() {
                let inside = if key || self.mode == Mode::L3T3 { at <= chain } else { at == chain };
                if inside && temporal == 0 {
                    *last = number;
                }
            }
            let packets = 1 + at;
            let made = Made { picture: self.picture, spatial, temporal, key, references: references.clone(), packets };
            for n in 0..packets {
                let (first, last) = (n == 0, n + 1 == packets);
                let payload = if self.descriptor { vec![0xFF; 8] } else { self.vp9(&made, first, last) };
                let descriptor = self.descriptor.then(|| self.describe(number, &made, &chains, first, last));
                ready.push(Ready { payload: tagged(payload, number, n), descriptor, marker: last && spatial + 1 == self.sends });
            }
            self.made.insert(number, made);
        }
        ready
    }

    /// The payload descriptor of RFC 9628, non-flexible.
    fn vp9(&self, made: &Made, first: bool, last: bool) -> Vec<u8> {
        let lowest = made.spatial == 0;
        let inter_layer = !lowest && (made.key || self.mode == Mode::L3T3);
        let unused_above = self.mode == Mode::L3T3Key && !made.key;
        let structure = made.key && lowest && first;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let head =
            0x80 | 0x20 | flag(!made.key, 0x40) | flag(first, 0x08) | flag(last, 0x04) | flag(structure, 0x02) | flag(unused_above, 0x01);
        let id = (self.picture as u16).to_be_bytes();
        let layers = made.temporal << 5 | flag(made.temporal < 2, 0x10) | made.spatial << 1 | flag(inter_layer, 0x01);
        let mut payload = vec![head, 0x80 | id[0], id[1], layers, self.base];
        if structure {
            payload.push((self.mode.spatial() - 1) << 5 | 0x10);
            for spatial in 0..self.mode.spatial() {
                let (width, height) = size(self.mode, spatial);
                payload.extend(width.to_be_bytes());
                payload.extend(height.to_be_bytes());
            }
        }
        payload
    }

    /// The dependency descriptor.
    fn describe(&self, number: u32, made: &Made, chains: &[u8], first: bool, last: bool) -> Vec<u8> {
        let mut bits = BitString::default();
        bits.put(first.into(), 1);
        bits.put(last.into(), 1);
        let kind = if made.key { 0 } else { u32::from(made.temporal) + 1 };
        bits.put((FIRST_ID + u32::from(made.spatial) * 4 + kind) % 64, 6);
        bits.put(number & 0xFFFF, 16);
        let structure = made.key && made.spatial == 0 && first;
        let back: Vec<u32> = made.references.iter().map(|reference| number - reference).collect();
        let own_references = back != self.template_references(made.spatial, kind);
        let says_targets = self.sends < self.mode.spatial();
        // Chains are said with every frame.
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        bits.put(flag(structure, 0b10000) | flag(says_targets, 0b01000) | flag(own_references, 0b00010) | 0b00001, 5);
        if structure {
            self.write_structure(&mut bits);
        }
        if says_targets {
            bits.put((1 << (self.sends * 3)) - 1, u32::from(self.mode.spatial()) * 3);
        }
        if own_references {
            for back in back {
                bits.put(2, 2);
                bits.put(back - 1, 8);
            }
            bits.put(0, 2);
        }
        chains.iter().for_each(|chain| bits.put((*chain).into(), 8));
        bits.bytes()
    }

    fn write_structure(&self, bits: &mut BitString) {
        let spatial = self.mode.spatial();
        let kinds = || (0..spatial).flat_map(|spatial| (0..4u8).map(move |kind| (spatial, kind)));
        bits.put(FIRST_ID, 6);
        bits.put(u32::from(spatial) * 3 - 1, 5);
        for (of, kind) in kinds() {
            bits.put(
                if kind == 0 {
                    0
                } else if kind < 3 {
                    1
                } else if of + 1 < spatial {
                    2
                } else {
                    3
                },
                2,
            );
        }
        for (of, kind) in kinds() {
            for target in 0..spatial * 3 {
                bits.put(self.indication(of, kind, target / 3, target % 3), 2);
            }
        }
        for (of, kind) in kinds() {
            for back in self.template_references(of, kind.into()) {
                bits.put(1, 1);
                bits.put(back - 1, 4);
            }
            bits.put(0, 1);
        }
        // ns(targets + 1): 4 values take two bits (and all of them), 10 take three or four.
        match self.mode {
            Mode::L1T3 => bits.put(1, 2),
            Mode::L3T3 | Mode::L3T3Key => bits.put(3, 3),
        }
        for target in 0..spatial * 3 {
            match (self.mode, target / 3) {
                (Mode::L1T3, _) => {}
                // ns(3): 0, 10, 11.
                (_, 0) => bits.put(0, 1),
                (_, chain) => bits.put(u32::from(chain) + 1, 2),
            }
        }
        for _ in kinds() {
            (0..spatial).for_each(|_| bits.put(0, 4));
        }
        bits.put(1, 1);
        for of in 0..spatial {
            let (width, height) = size(self.mode, of);
            bits.put(u32::from(width) - 1, 16);
            bits.put(u32::from(height) - 1, 16);
        }
    }

    /// How far back a template's references lie, where all layers are sent.
    fn template_references(&self, spatial: u8, kind: u32) -> Vec<u32> {
        let layers = u32::from(self.mode.spatial());
        let mut back = match kind {
            0 => Vec::new(),
            1 => vec![4 * layers],
            2 => vec![2 * layers],
            _ => vec![layers],
        };
        if spatial > 0 && (kind == 0 || self.mode == Mode::L3T3) {
            back.push(1);
        }
        back
    }

    /// Absent, discardable, switch, required: 0 to 3. `kind`: key frame, or its temporal layer and one more.
    fn indication(&self, spatial: u8, kind: u8, of_spatial: u8, of_temporal: u8) -> u32 {
        let temporal = kind.saturating_sub(1);
        let key = kind == 0;
        let alone = self.mode == Mode::L3T3Key && !key;
        if spatial > of_spatial || temporal > of_temporal || (alone && spatial != of_spatial) {
            return 0;
        }
        match (key, spatial == of_spatial) {
            (true, _) => 2,
            (false, true) if temporal > 0 && temporal == of_temporal => 1,
            (false, true) => 2,
            (false, false) => 3,
        }
    }
}

const FIRST_ID: u32 = 60;

fn size(mode: Mode, spatial: u8) -> (u16, u16) {
    let shift = mode.spatial() - 1 - spatial;
    (1280 >> shift, 720 >> shift)
}

/// Behind what a codec would have: the frame, and which of its packets this is.
fn tagged(mut payload: Vec<u8>, number: u32, packet: usize) -> Vec<u8> {
    payload.resize(24, 0xFF);
    payload.extend(number.to_be_bytes());
    payload.push(packet as u8);
    payload.resize(900, 0xEE);
    payload
}

/// The frame that a packet belongs to, and which of its packets it is.
pub fn tag(payload: &[u8]) -> (u32, usize) {
    (u32::from_be_bytes([payload[24], payload[25], payload[26], payload[27]]), payload[28].into())
}

#[derive(Default)]
struct BitString(Vec<bool>);

impl BitString {
    fn put(&mut self, value: u32, count: u32) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| u8::from(*bit) << (7 - at)).sum()).collect()
    }
}

/// A descriptor as it travels in packets.
#[derive(Debug)]
pub struct DescriptorValue(pub Vec<u8>);

/// Carries descriptors through str0m unread.
#[derive(Debug)]
pub struct Carrier;

impl ExtensionSerializer for Carrier {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(DescriptorValue(bytes)) = values.user_values.get() else { return 0 };
        buf[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(DescriptorValue(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        values.user_values.get().is_some_and(|DescriptorValue(bytes)| bytes.len() > 16)
    }
}

/// What a decoder can make of the packets that came: complete frames whose references it decoded.
pub struct Decoded {
    /// Of each picture of which anything came, in order: its number, and the highest layer decoded, spatial and temporal.
    pub pictures: Vec<(u32, Option<(u8, u8)>)>,
    /// Complete frames that could not be decoded.
    pub broken: Vec<u32>,
}

impl Decoded {
    /// `packets`: frame and packet, as [`tag`] reads them.
    pub fn of(encoder: &Encoder, packets: impl Iterator<Item = (u32, usize)>) -> Self {
        let mut came: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (frame, packet) in packets {
            came.entry(frame).or_default().insert(packet);
        }
        let (mut good, mut broken, mut pictures) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        for (number, packets) in came {
            let made = &encoder.made[&number];
            let best = pictures.entry(made.picture).or_insert(None);
            if packets.len() < made.packets {
                continue;
            }
            if made.references.iter().all(|reference| good.contains(reference)) {
                good.insert(number);
                *best = Some((made.spatial, made.temporal));
            } else {
                broken.push(number);
            }
        }
        Self { pictures: pictures.into_iter().collect(), broken }
    }

    /// The layers of the pictures after one, highest first seen last.
    pub fn layers_after(&self, picture: u32) -> Vec<(u8, u8)> {
        self.pictures.iter().filter(|(number, _)| *number > picture).filter_map(|(_, layers)| *layers).collect()
    }
}
