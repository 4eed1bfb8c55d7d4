//! The dependency descriptor (AV1 RTP specification, appendix A): which frame needs which, said outside the payload, for any codec.
//!
//! Read with the structure that came with the last key frame. Everything is bounded and nothing allocates.

use super::bits::{BitWriter, Bits};

/// Templates of a structure: their ids have six bits.
pub const TEMPLATES_MAX: usize = 64;
/// Decode targets: their count has five bits.
pub const DECODE_TARGETS_MAX: usize = 32;
/// Frames that one frame may refer to. The format has no bound; AV1 has seven references, VP9 three.
pub const REFERENCES_MAX: usize = 8;
/// Spatial layers: their ids have two bits.
pub const SPATIAL_MAX: usize = 4;
/// Temporal layers: their ids have three bits.
pub const TEMPORAL_MAX: usize = 8;

/// Why a descriptor cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// It ends before its last field.
    #[error("the descriptor ends too early")]
    Short,
    /// A value or a count that the format, or our bounds, do not allow.
    #[error("the descriptor holds a value that is not allowed")]
    Value,
    /// It builds on a structure that has not come.
    #[error("the structure it refers to has not come; a key frame brings one")]
    Structure,
}

/// What a frame, or a template of frames, is to the decode targets and to other frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// Decode targets that have the frame, one bit each.
    pub present: u32,
    /// Those that can be entered with it.
    pub switch: u32,
    /// Those that can do without it: nothing of them refers to it.
    pub discardable: u32,
    /// How many frames back those lie that it refers to.
    references: [u16; REFERENCES_MAX],
    reference_count: u8,
    /// How many frames back the last one of each chain lies; 0: the chain begins with it.
    chains: [u8; DECODE_TARGETS_MAX],
}

impl Dependencies {
    const NONE: Self = Self {
        spatial: 0,
        temporal: 0,
        present: 0,
        switch: 0,
        discardable: 0,
        references: [0; REFERENCES_MAX],
        reference_count: 0,
        chains: [0; DECODE_TARGETS_MAX],
    };

    /// How many frames back those lie that it refers to.
    #[must_use]
    pub fn references(&self) -> &[u16] {
        self.references.get(..usize::from(self.reference_count)).unwrap_or_default()
    }

    /// How many frames back the last one of a chain lies; 0: the chain begins with it.
    #[must_use]
    pub fn chain(&self, chain: u8) -> u8 {
        self.chains.get(usize::from(chain)).copied().unwrap_or_default()
    }

    fn refer(&mut self, back: u32) -> Result<(), DependencyError> {
        let place = self.references.get_mut(usize::from(self.reference_count)).ok_or(DependencyError::Value)?;
        *place = u16::try_from(back).map_err(|_| DependencyError::Value)?;
        self.reference_count += 1;
        Ok(())
    }

    /// Two bits per decode target: absent, discardable, switch, required.
    fn read_indications(&mut self, bits: &mut Bits<'_>, targets: u32) -> Result<(), DependencyError> {
        (self.present, self.switch, self.discardable) = (0, 0, 0);
        for target in 0..targets {
            let indication = read(bits, 2)?;
            self.present |= u32::from(indication != 0) << target;
            self.discardable |= u32::from(indication == 1) << target;
            self.switch |= u32::from(indication == 2) << target;
        }
        Ok(())
    }
}

/// The structure of a stream: what comes with its key frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    first_id: u8,
    template_count: u8,
    targets: u8,
    chain_count: u8,
    templates: [Dependencies; TEMPLATES_MAX],
    protected_by: [u8; DECODE_TARGETS_MAX],
    target_layers: [(u8, u8); DECODE_TARGETS_MAX],
    sizes: [(u32, u32); SPATIAL_MAX],
}

impl Default for Structure {
    fn default() -> Self {
        Self {
            first_id: 0,
            template_count: 0,
            targets: 0,
            chain_count: 0,
            templates: [Dependencies::NONE; TEMPLATES_MAX],
            protected_by: [0; DECODE_TARGETS_MAX],
            target_layers: [(0, 0); DECODE_TARGETS_MAX],
            sizes: [(0, 0); SPATIAL_MAX],
        }
    }
}

impl Structure {
    /// Decode targets; 0: no structure has come yet.
    #[must_use]
    pub fn targets(&self) -> u8 {
        self.targets
    }

    /// One bit for each decode target.
    #[must_use]
    pub fn all_targets(&self) -> u32 {
        all_of(self.targets)
    }

    /// Highest spatial and temporal layer of a decode target.
    #[must_use]
    pub fn layers_of(&self, target: u8) -> (u8, u8) {
        self.target_layers.get(usize::from(target)).copied().unwrap_or_default()
    }

    /// Chains.
    #[must_use]
    pub fn chains(&self) -> u8 {
        self.chain_count
    }

    /// The chain without which a decode target breaks.
    #[must_use]
    pub fn chain_of(&self, target: u8) -> Option<u8> {
        (self.chain_count > 0 && target < self.targets).then(|| self.protected_by.get(usize::from(target)).copied())?
    }

    /// Width and height of a spatial layer; 0 where it is not said.
    #[must_use]
    pub fn size(&self, spatial: u8) -> (u32, u32) {
        self.sizes.get(usize::from(spatial)).copied().unwrap_or_default()
    }

    /// Templates.
    #[must_use]
    pub fn templates(&self) -> &[Dependencies] {
        self.templates.get(..usize::from(self.template_count)).unwrap_or_default()
    }

    /// The decode targets whose frames all belong to this one too: who gets it can go on with one of them at any frame.
    #[must_use]
    pub fn within(&self, target: u8) -> u32 {
        let mut within = self.all_targets();
        for template in self.templates().iter().filter(|template| template.present >> target & 1 == 0) {
            within &= !template.present;
        }
        within
    }

    fn read(&mut self, bits: &mut Bits<'_>) -> Result<(), DependencyError> {
        self.first_id = read(bits, 6)? as u8;
        let targets = read(bits, 5)? + 1;
        self.targets = targets as u8;
        self.chain_count = 0;
        self.sizes = [(0, 0); SPATIAL_MAX];
        let top = self.read_layers(bits)?;
        let count = usize::from(self.template_count);
        for template in self.templates.iter_mut().take(count) {
            template.read_indications(bits, targets)?;
        }
        for template in self.templates.iter_mut().take(count) {
            while read(bits, 1)? == 1 {
                template.refer(read(bits, 4)? + 1)?;
            }
        }
        self.read_chains(bits, targets)?;
        for (target, layers) in self.target_layers.iter_mut().enumerate().take(usize::from(self.targets)) {
            let of = || self.templates.iter().take(count).filter(|template| template.present >> target & 1 == 1);
            *layers = (of().map(|template| template.spatial).max().unwrap_or(0), of().map(|template| template.temporal).max().unwrap_or(0));
        }
        if read(bits, 1)? == 1 {
            for size in self.sizes.iter_mut().take(usize::from(top) + 1) {
                *size = (read(bits, 16)? + 1, read(bits, 16)? + 1);
            }
        }
        Ok(())
    }

    /// Answers the highest spatial layer.
    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Result<u8, DependencyError> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        self.template_count = 0;
        loop {
            let place = self.templates.get_mut(usize::from(self.template_count)).ok_or(DependencyError::Value)?;
            *place = Dependencies { spatial, temporal, ..Dependencies::NONE };
            self.template_count += 1;
            match read(bits, 2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Ok(spatial),
            }
            if usize::from(spatial) >= SPATIAL_MAX || usize::from(temporal) >= TEMPORAL_MAX {
                return Err(DependencyError::Value);
            }
        }
    }

    fn read_chains(&mut self, bits: &mut Bits<'_>, targets: u32) -> Result<(), DependencyError> {
        let chains = non_symmetric(bits, targets + 1)?;
        self.chain_count = chains as u8;
        if chains == 0 {
            return Ok(());
        }
        for protected_by in self.protected_by.iter_mut().take(targets as usize) {
            *protected_by = non_symmetric(bits, chains)? as u8;
        }
        for template in self.templates.iter_mut().take(usize::from(self.template_count)) {
            for chain in template.chains.iter_mut().take(chains as usize) {
                *chain = read(bits, 4)? as u8;
            }
        }
        Ok(())
    }
}

/// One packet's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of its frame.
    pub starts_frame: bool,
    /// Last packet of its frame.
    pub ends_frame: bool,
    /// Frame number, counted by one from frame to frame, whatever their layers.
    pub frame_number: u16,
    /// A new structure came with it: a key frame.
    pub structure: bool,
    /// Decode targets that are being sent, where it says so.
    pub active: Option<u32>,
    /// Bits before the place where it says, or would say, which are being sent.
    pub active_at: u16,
    /// What the frame is to others.
    pub dependencies: Dependencies,
}

impl Descriptor {
    /// Reads an extension's value with the stream's structure, which is overwritten where the value brings a new one.
    ///
    /// # Errors
    /// [`DependencyError`]. A new structure that cannot be read leaves none: nothing may be read with half of one.
    pub fn read(value: &[u8], structure: &mut Structure) -> Result<Self, DependencyError> {
        let mut bits = Bits::new(value);
        let starts_frame = read(&mut bits, 1)? == 1;
        let ends_frame = read(&mut bits, 1)? == 1;
        let template = read(&mut bits, 6)? as u8;
        let frame_number = read(&mut bits, 16)? as u16;
        let flags = if value.len() > MANDATORY_LEN { read(&mut bits, FLAG_BITS)? } else { 0 };
        let has = |bit: u32| flags & bit != 0;
        if has(STRUCTURE)
            && let Err(error) = structure.read(&mut bits)
        {
            structure.targets = 0;
            return Err(error);
        }
        if structure.targets == 0 {
            return Err(DependencyError::Structure);
        }
        let targets = u32::from(structure.targets);
        let active_at = bits.at().max(MANDATORY_BITS + FLAG_BITS as usize) as u16;
        let active = if has(ACTIVE_TARGETS) { Some(read(&mut bits, targets)?) } else { None };
        let index = template.wrapping_sub(structure.first_id) & 0x3F;
        let mut dependencies = *structure.templates().get(usize::from(index)).ok_or(DependencyError::Structure)?;
        if has(OWN_INDICATIONS) {
            dependencies.read_indications(&mut bits, targets)?;
        }
        if has(OWN_REFERENCES) {
            dependencies.reference_count = 0;
            loop {
                let size = read(&mut bits, 2)?;
                if size == 0 {
                    break;
                }
                dependencies.refer(read(&mut bits, 4 * size)? + 1)?;
            }
        }
        if has(OWN_CHAINS) {
            for chain in dependencies.chains.iter_mut().take(usize::from(structure.chain_count)) {
                *chain = read(&mut bits, 8)? as u8;
            }
        }
        Ok(Self { starts_frame, ends_frame, frame_number, structure: has(STRUCTURE), active, active_at, dependencies })
    }

    /// First packet of a key frame.
    #[must_use]
    pub fn starts_key_frame(&self) -> bool {
        self.starts_frame && self.structure
    }
}

const MANDATORY_LEN: usize = 3;
const MANDATORY_BITS: usize = 24;
const FLAG_BITS: u32 = 5;
// The five flags of the extended part, first bit highest.
const STRUCTURE: u32 = 0b1_0000;
const ACTIVE_TARGETS: u32 = 0b0_1000;
const OWN_INDICATIONS: u32 = 0b0_0100;
const OWN_REFERENCES: u32 = 0b0_0010;
const OWN_CHAINS: u32 = 0b0_0001;

fn all_of(targets: u8) -> u32 {
    1u32.checked_shl(u32::from(targets)).map_or(u32::MAX, |bit| bit - 1)
}

#[inline]
fn read(bits: &mut Bits<'_>, count: u32) -> Result<u32, DependencyError> {
    bits.read(count).ok_or(DependencyError::Short)
}

/// A value below `count` in as few bits as it takes (AV1 specification 4.10.7).
fn non_symmetric(bits: &mut Bits<'_>, count: u32) -> Result<u32, DependencyError> {
    let width = count.checked_ilog2().map_or(0, |log| log + 1);
    let short = (1u32 << width) - count;
    let value = read(bits, width.saturating_sub(1))?;
    if value < short {
        return Ok(value);
    }
    Ok((value << 1) - short + read(bits, 1)?)
}

/// Writes a value anew with the decode targets that its receiver gets, as a forwarder has to that withholds some.
///
/// `active_at`: [`Descriptor::active_at`] of the same value. Answers the length; `None` where it does not fit.
#[must_use]
pub fn write_with_active(value: &[u8], active_at: u16, targets: u8, active: u32, into: &mut [u8]) -> Option<usize> {
    let mut bits = Bits::new(value);
    let mut writer = BitWriter::new(into);
    writer.write(bits.read(MANDATORY_BITS as u32)?, MANDATORY_BITS as u32)?;
    let flags = if value.len() > MANDATORY_LEN { bits.read(FLAG_BITS)? } else { 0 };
    writer.write(flags | ACTIVE_TARGETS, FLAG_BITS)?;
    if value.len() > MANDATORY_LEN {
        copy(&mut bits, &mut writer, usize::from(active_at))?;
    }
    writer.write(active, u32::from(targets))?;
    if flags & ACTIVE_TARGETS != 0 {
        bits.read(u32::from(targets))?;
    }
    copy(&mut bits, &mut writer, value.len() * 8)?;
    Some(writer.len())
}

/// Copies bits up to a place of the value read.
fn copy(bits: &mut Bits<'_>, writer: &mut BitWriter<'_>, until: usize) -> Option<()> {
    while bits.at() < until {
        let count = (until - bits.at()).min(8) as u32;
        writer.write(bits.read(count)?, count)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a bit string, the last one filled up with zeros. The strings below are written by hand from the specification's syntax.
    fn bytes(text: &str) -> Vec<u8> {
        let bits: Vec<u8> = text.chars().filter(|bit| ['0', '1'].contains(bit)).map(|bit| u8::from(bit == '1')).collect();
        bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| bit << (7 - at)).sum()).collect()
    }

    /// One spatial and two temporal layers: templates of the key frame, of T0 and of T1; one chain; 640 × 360.
    const L1T2: &str = "
        000101 00001
        00 01 11
        1010 1010 0001
        0 1 0001 0 1 0000 0
        10 0000 0010 0001
        1 0000001001111111 0000000101100111";

    /// Two spatial layers, inter-layer prediction at key frames only: S0 key, S0, S1 key, S1; two chains, one per target.
    const L2T1_KEY: &str = "
        000000 00001
        00 10 00 11
        1011 1000 0010 0010
        0 1 0001 0 1 0000 0 1 0001 0
        11 0 1 00000000 00100001 00010001 00010010
        0";

    fn key(structure: &str, template: &str) -> Vec<u8> {
        bytes(&format!("11 {template} 0000000000000111 10000 {structure}"))
    }

    #[test]
    fn a_structure_and_its_templates() {
        let mut structure = Structure::default();
        let first = Descriptor::read(&key(L1T2, "000101"), &mut structure).unwrap();
        assert!(first.starts_key_frame() && first.ends_frame);
        assert_eq!((first.frame_number, first.active), (7, None));
        assert_eq!((structure.targets(), structure.all_targets(), structure.chains()), (2, 0b11, 1));
        assert_eq!((structure.layers_of(0), structure.layers_of(1)), ((0, 0), (0, 1)));
        assert_eq!((structure.size(0), structure.size(1)), ((640, 360), (0, 0)));
        assert_eq!((structure.chain_of(0), structure.chain_of(1), structure.chain_of(2)), (Some(0), Some(0), None));
        // The smaller target is part of the larger one, not the other way round.
        assert_eq!((structure.within(0), structure.within(1)), (0b01, 0b11));

        // T1: discardable for the second target, absent from the first; refers to the frame before, as its chain does.
        let upper = Descriptor::read(&bytes("10 000111 0000000000001000"), &mut structure).unwrap();
        assert!(upper.starts_frame && !upper.ends_frame && !upper.structure);
        let frame = upper.dependencies;
        assert_eq!((frame.spatial, frame.temporal, frame.present, frame.switch, frame.discardable), (0, 1, 0b10, 0, 0b10));
        assert_eq!((frame.references(), frame.chain(0)), (&[1][..], 1));
        // T0: whoever got it may have either target from here on.
        let lower = Descriptor::read(&bytes("11 000110 0000000000001001"), &mut structure).unwrap().dependencies;
        assert_eq!((lower.present, lower.switch, lower.references(), lower.chain(0)), (0b11, 0b11, &[2][..], 2));
    }

    #[test]
    fn layers_that_depend_on_each_other_in_key_frames_only() {
        let mut structure = Structure::default();
        Descriptor::read(&key(L2T1_KEY, "000000"), &mut structure).unwrap();
        assert_eq!((structure.layers_of(0), structure.layers_of(1)), ((0, 0), (1, 0)));
        assert_eq!((structure.chain_of(0), structure.chain_of(1)), (Some(0), Some(1)));
        // Neither holds the other: going from one to the other takes a key frame.
        assert_eq!((structure.within(0), structure.within(1)), (0b01, 0b10));
        let [key, lower, upper_key, upper] = structure.templates() else { panic!() };
        assert_eq!((key.present, key.switch), (0b11, 0b01));
        assert_eq!((lower.present, upper_key.present, upper.present), (0b01, 0b10, 0b10));
        assert_eq!((upper_key.references(), upper.references()), (&[1][..], &[2][..]));
        assert_eq!((lower.chain(0), lower.chain(1), upper.chain(0), upper.chain(1)), (2, 1, 1, 2));
    }

    #[test]
    fn a_frame_may_say_all_by_itself() {
        let mut structure = Structure::default();
        Descriptor::read(&key(L1T2, "000101"), &mut structure).unwrap();
        // Active targets 01, own indications "R -", references 5 (four bits) and 300 (twelve), chain 200.
        let own = "11 000110 0000000000001001 01111 01 1100 01 0100 11 000100101011 00 11001000";
        let read = Descriptor::read(&bytes(own), &mut structure).unwrap();
        assert_eq!(read.active, Some(0b01));
        let frame = read.dependencies;
        assert_eq!((frame.present, frame.switch, frame.references(), frame.chain(0)), (0b01, 0, &[5, 300][..], 200));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_half_a_structure_is_none() {
        let mut structure = Structure::default();
        let plain = bytes("11 000110 0000000000001001");
        assert_eq!(Descriptor::read(&plain, &mut structure), Err(DependencyError::Structure));
        let whole = key(L1T2, "000101");
        for len in 0..whole.len() {
            assert!(Descriptor::read(&whole[..len], &mut structure).is_err(), "{len}");
            assert_eq!(structure.targets(), 0);
        }
        Descriptor::read(&whole, &mut structure).unwrap();
        // A template that the structure does not have.
        assert_eq!(Descriptor::read(&bytes("11 001000 0000000000001001"), &mut structure), Err(DependencyError::Structure));
        // Templates without an end, a ninth reference, a fifth spatial layer.
        let endless = format!("11 000000 0000000000000111 10000 000000 00000 {}", "00".repeat(70));
        assert_eq!(Descriptor::read(&bytes(&endless), &mut structure), Err(DependencyError::Value));
        let ninth = format!("11 000000 0000000000000111 10000 000000 00000 11 10 {} 0 000000000", "1 0000 ".repeat(9));
        assert_eq!(Descriptor::read(&bytes(&ninth), &mut structure), Err(DependencyError::Value));
        let fifth = format!("11 000000 0000000000000111 10000 000000 00000 {} 11", "10".repeat(4));
        assert_eq!(Descriptor::read(&bytes(&fifth), &mut structure), Err(DependencyError::Value));
    }

    #[test]
    fn values_in_as_few_bits_as_it_takes() {
        // AV1 specification 4.10.7, for five values: 0, 1, 2 in two bits, 3 and 4 in three.
        let read = |text: &str| non_symmetric(&mut Bits::new(&bytes(text)), 5).unwrap();
        assert_eq!(["00", "01", "10", "110", "111"].map(read), [0, 1, 2, 3, 4]);
        assert_eq!(non_symmetric(&mut Bits::new(&[]), 1), Ok(0));
    }

    #[test]
    fn withheld_targets_are_said() {
        let mut structure = Structure::default();
        let mut slot = [0xFF; 255];
        let whole = key(L1T2, "000101");
        let first = Descriptor::read(&whole, &mut structure).unwrap();
        let len = write_with_active(&whole, first.active_at, 2, 0b01, &mut slot).unwrap();
        let mut again = Structure::default();
        let read = Descriptor::read(&slot[..len], &mut again).unwrap();
        assert_eq!(again, structure);
        assert_eq!(Descriptor { active: Some(0b01), active_at: first.active_at, ..first }, read);

        // Into the shortest one, and in place of what stood there.
        let plain = bytes("11 000110 0000000000001001");
        let short = Descriptor::read(&plain, &mut structure).unwrap();
        let len = write_with_active(&plain, short.active_at, 2, 0b01, &mut slot).unwrap();
        assert_eq!(slot[..len], bytes("11 000110 0000000000001001 01000 01"));
        let own = bytes("11 000110 0000000000001001 01111 11 1100 01 0100 11 000100101011 00 11001000");
        let long = Descriptor::read(&own, &mut structure).unwrap();
        let len = write_with_active(&own, long.active_at, 2, 0b01, &mut slot).unwrap();
        assert_eq!(Descriptor::read(&slot[..len], &mut structure), Ok(Descriptor { active: Some(0b01), ..long }));
        assert_eq!(write_with_active(&own, long.active_at, 2, 0b01, &mut [0; 7]), None);
    }
}
