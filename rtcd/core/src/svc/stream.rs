//! A publisher's stream with layers inside: what its frames are to each other, read once for all viewers.
//!
//! From the dependency descriptor where there is one, which also holds for payloads that nobody here can read; otherwise from
//! VP9's own. What cannot be told is passed on to everybody.

use std::time::{Duration, Instant};

use super::rates::Rates;
use crate::codec::Vp9Descriptor;
use crate::codec::dependency::{DECODE_TARGETS_MAX, Descriptor, REFERENCES_MAX, SPATIAL_MAX, Structure, TEMPORAL_MAX};
use crate::limits::SVC_FRAMES_MAX;
use crate::negotiate::CodecKind;

/// A frame that a chain misses is waited for so long: it may come by retransmission.
const CHAIN_PATIENCE: Duration = Duration::from_millis(400);

/// Which frame a packet is part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) frame: u16,
    flags: u8,
}

const KNOWN: u8 = 1;
const STARTS: u8 = 2;
const ENDS: u8 = 4;

impl Part {
    fn new(frame: u16, starts: bool, ends: bool) -> Self {
        Self { frame, flags: KNOWN | if starts { STARTS } else { 0 } | if ends { ENDS } else { 0 } }
    }

    /// What the packet is part of can be told.
    #[inline]
    pub(crate) fn is_known(self) -> bool {
        self.flags & KNOWN != 0
    }

    #[inline]
    pub(crate) fn starts(self) -> bool {
        self.flags & STARTS != 0
    }

    #[inline]
    pub(crate) fn ends(self) -> bool {
        self.flags & ENDS != 0
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) number: u16,
    came: bool,
    /// All decode targets begin anew with it.
    pub(crate) key: bool,
    pub(crate) spatial: u8,
    /// Decode targets that have it.
    pub(crate) present: u32,
    /// Those that may be entered with it by who has what it refers to.
    pub(crate) switch: u32,
    references: [u16; REFERENCES_MAX],
    reference_count: u8,
    references_known: bool,
    /// See [`Descriptor::active_at`].
    pub(crate) active_at: u16,
}

impl Frame {
    /// Numbers of the frames it refers to; `None`: it does not say.
    pub(crate) fn references(&self) -> Option<&[u16]> {
        self.references_known.then(|| self.references.get(..usize::from(self.reference_count)))?
    }

    fn refer(&mut self, number: u16) {
        if let Some(place) = self.references.get_mut(usize::from(self.reference_count)) {
            *place = number;
            self.reference_count += 1;
        }
    }
}

/// What a packet tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noted {
    pub(crate) part: Part,
    /// `None`: the payload has to be asked.
    pub(crate) key_frame: Option<bool>,
    /// A frame that others need is gone for good.
    pub(crate) chain_lost: bool,
    /// Other decode targets are being sent than before.
    pub(crate) targets_changed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Descriptor,
    Vp9,
}

/// The state.
pub(crate) struct Scalable {
    told: Told,
    structure: Structure,
    /// What a new one is read into.
    spare: Box<Structure>,
    /// The frame that brought the structure.
    structure_frame: u16,
    /// Decode targets that hold no frame which this one has not.
    within: [u32; DECODE_TARGETS_MAX],
    active: u32,
    /// Key frames belong to all targets: a viewer of any can begin with them.
    common_start: bool,
    frames: [Frame; SVC_FRAMES_MAX],
    newest: u16,
    rates: Rates,
    /// A frame that a chain misses, and since when.
    missing: Option<(u16, Instant)>,
    vp9: Vp9Layers,
}

/// Without a descriptor, layers are seen as they come.
#[derive(Default)]
struct Vp9Layers {
    picture: Option<u16>,
    spatial: u8,
    temporal: u8,
    sizes: [(u16, u16); SPATIAL_MAX],
}

impl Scalable {
    pub(crate) fn new() -> Self {
        Self {
            told: Told::Nothing,
            structure: Structure::default(),
            spare: Box::default(),
            structure_frame: 0,
            within: [0; DECODE_TARGETS_MAX],
            active: 0,
            common_start: false,
            frames: [Frame::default(); SVC_FRAMES_MAX],
            newest: 0,
            rates: Rates::default(),
            missing: None,
            vp9: Vp9Layers::default(),
        }
    }

    /// A packet came.
    pub(crate) fn note(&mut self, now: Instant, codec: CodecKind, descriptor: Option<&[u8]>, payload: &[u8]) -> Noted {
        let noted = match descriptor {
            Some(value) => self.note_descriptor(now, value),
            None if codec == CodecKind::Vp9 && self.told != Told::Descriptor => self.note_vp9(payload),
            None => None,
        };
        let Some(noted) = noted else { return Noted::default() };
        if let Some(frame) = self.frame(noted.part) {
            let present = frame.present;
            self.rates.note(now, present, payload.len(), noted.part.starts());
        }
        noted
    }

    fn note_descriptor(&mut self, now: Instant, value: &[u8]) -> Option<Noted> {
        let before = self.targets();
        let read = self.read(value)?;
        let number = read.frame_number;
        let frame = &read.dependencies;
        let mut new = Frame {
            number,
            came: true,
            key: read.structure,
            spatial: frame.spatial,
            present: frame.present,
            switch: frame.switch,
            references_known: true,
            active_at: read.active_at,
            ..Frame::default()
        };
        frame.references().iter().for_each(|back| new.refer(number.wrapping_sub(*back)));
        let is_newest = self.told == Told::Nothing || is_newer(number, self.newest);
        if is_newest {
            self.newest = number;
            if let Some(active) = read.active.filter(|active| *active != 0) {
                self.active = active;
            }
        }
        self.told = Told::Descriptor;
        self.keep(new, read.starts_frame)?;
        let chain_lost = is_newest && self.chain_lost(now, &read);
        let part = Part::new(number, read.starts_frame, read.ends_frame);
        let targets_changed = before != 0 && before != self.targets();
        Some(Noted { part, key_frame: Some(read.starts_key_frame()), chain_lost, targets_changed })
    }

    /// Reads with the structure in force. A new one takes its place, unless it only comes late.
    fn read(&mut self, value: &[u8]) -> Option<Descriptor> {
        let brings_structure = value.get(3).is_some_and(|flags| flags & 0x80 != 0);
        if !brings_structure {
            return Descriptor::read(value, &mut self.structure).ok();
        }
        let read = Descriptor::read(value, &mut self.spare).ok()?;
        let late = self.structure.targets() > 0 && is_newer(self.structure_frame, read.frame_number);
        if !late {
            std::mem::swap(&mut self.structure, &mut *self.spare);
            self.structure_frame = read.frame_number;
            self.missing = None;
            self.active = self.structure.all_targets();
            self.common_start = read.dependencies.present == self.active;
            for (target, within) in (0..self.structure.targets()).zip(&mut self.within) {
                *within = self.structure.within(target);
            }
        }
        Some(read)
    }

    /// `None`: it came so late that its place is taken.
    fn keep(&mut self, frame: Frame, starts: bool) -> Option<()> {
        let place = self.frames.get_mut(usize::from(frame.number) % SVC_FRAMES_MAX)?;
        if place.came && is_newer(place.number, frame.number) {
            return None;
        }
        if !place.came || place.number != frame.number || starts {
            *place = frame;
        }
        Some(())
    }

    /// Every frame says how far back the last one of each chain lies: where that did not come, what follows cannot be decoded.
    fn chain_lost(&mut self, now: Instant, read: &Descriptor) -> bool {
        if let Some((missing, since)) = self.missing {
            if self.came(missing) {
                self.missing = None;
            } else if now.saturating_duration_since(since) >= CHAIN_PATIENCE {
                self.missing = None;
                return true;
            }
            return false;
        }
        let active = self.active;
        let of_active = (0..self.structure.targets()).filter(|target| active >> target & 1 == 1);
        let mut last = of_active.filter_map(|target| self.structure.chain_of(target)).map(|chain| read.dependencies.chain(chain));
        let missing = last.find_map(|back| {
            let number = read.frame_number.wrapping_sub(u16::from(back));
            let needed = back != 0 && !is_newer(self.structure_frame, number);
            (needed && !self.came(number)).then_some(number)
        });
        self.missing = missing.map(|number| (number, now));
        false
    }

    fn came(&self, number: u16) -> bool {
        self.frames.get(usize::from(number) % SVC_FRAMES_MAX).is_some_and(|frame| frame.came && frame.number == number)
    }

    fn note_vp9(&mut self, payload: &[u8]) -> Option<Noted> {
        let read = Vp9Descriptor::parse(payload)?;
        let (picture, (temporal, spatial)) = (read.picture_id?, read.layer?);
        if usize::from(spatial) >= SPATIAL_MAX {
            return None;
        }
        let picture = self.vp9.extend(picture, read.short_picture_id);
        let number = picture << 2 | u16::from(spatial);
        let key = !read.inter_predicted && spatial == 0;
        if key && read.starts_frame {
            self.vp9.read_structure(&read, payload);
        }
        self.vp9.spatial = self.vp9.spatial.max(spatial + 1);
        self.vp9.temporal = self.vp9.temporal.max(temporal + 1);
        let mut frame = Frame {
            number,
            came: true,
            key,
            spatial,
            present: targets_from(spatial, temporal),
            references_known: true,
            ..Frame::default()
        };
        if read.inter_layer {
            frame.refer(number.wrapping_sub(1));
        }
        if !read.inter_predicted {
            frame.switch = targets_at(spatial, 0);
        } else {
            // After it nothing of a higher temporal layer refers to what lies before it (RFC 9628 4.2).
            frame.switch = if read.switching_up { targets_at(spatial, temporal) } else { 0 };
            frame.references_known = read.flexible;
            read.references().iter().for_each(|back| frame.refer(number.wrapping_sub(u16::from(*back) << 2)));
        }
        if self.told == Told::Nothing || is_newer(number, self.newest) {
            self.newest = number;
        }
        (self.told, self.common_start) = (Told::Vp9, true);
        self.keep(frame, read.starts_frame)?;
        Some(Noted { part: Part::new(number, read.starts_frame, read.ends_frame), ..Noted::default() })
    }

    /// Is there anything to choose from?
    pub(crate) fn is_selectable(&self) -> bool {
        self.common_start && self.targets().count_ones() > 1
    }

    /// Its layers are not announced but seen as they come.
    pub(crate) fn grows(&self) -> bool {
        self.told == Told::Vp9
    }

    /// The frame that a packet is part of.
    #[inline]
    pub(crate) fn frame(&self, part: Part) -> Option<&Frame> {
        let frame = self.frames.get(usize::from(part.frame) % SVC_FRAMES_MAX)?;
        (part.is_known() && frame.came && frame.number == part.frame).then_some(frame)
    }

    /// Decode targets that are being sent.
    pub(crate) fn targets(&self) -> u32 {
        match self.told {
            Told::Nothing => 0,
            Told::Descriptor => self.active & self.structure.all_targets(),
            Told::Vp9 => {
                (0..self.vp9.spatial).map(|spatial| targets_at(spatial, 0) & targets_below(self.vp9.temporal)).fold(0, |all, of| all | of)
            }
        }
    }

    /// All decode targets, how many.
    pub(crate) fn target_count(&self) -> u8 {
        self.structure.targets()
    }

    /// Highest spatial and temporal layer of a target.
    pub(crate) fn layers_of(&self, target: u8) -> (u8, u8) {
        match self.told {
            Told::Nothing | Told::Descriptor => self.structure.layers_of(target),
            Told::Vp9 => (target / TEMPORAL_MAX as u8, target % TEMPORAL_MAX as u8),
        }
    }

    /// Targets that hold no frame which this one has not.
    pub(crate) fn within(&self, target: u8) -> u32 {
        match self.told {
            Told::Nothing => 0,
            Told::Descriptor => self.within.get(usize::from(target)).copied().unwrap_or_default(),
            Told::Vp9 => {
                let (spatial, temporal) = self.layers_of(target);
                (0..=spatial).map(|spatial| targets_at(spatial, 0) & targets_below(temporal + 1)).fold(0, |all, of| all | of)
            }
        }
    }

    /// The target with exactly these layers, while it is sent.
    pub(crate) fn target_of(&self, spatial: u8, temporal: u8) -> Option<u8> {
        bits(self.targets()).find(|target| self.layers_of(*target) == (spatial, temporal))
    }

    /// The best target with no more than these layers.
    pub(crate) fn best(&self, spatial_max: u8, temporal_max: u8) -> Option<u8> {
        let fits = |target: &u8| {
            let (spatial, temporal) = self.layers_of(*target);
            spatial <= spatial_max && temporal <= temporal_max
        };
        bits(self.targets()).filter(fits).max_by_key(|target| self.layers_of(*target))
    }

    /// Highest layers that are being sent.
    pub(crate) fn top(&self) -> (u8, u8) {
        bits(self.targets())
            .map(|target| self.layers_of(target))
            .fold((0, 0), |(s, t), (spatial, temporal)| (s.max(spatial), t.max(temporal)))
    }

    /// Longer side of a spatial layer, pixels; 0 where the stream does not say.
    pub(crate) fn size(&self, spatial: u8) -> u32 {
        let (width, height) = match self.told {
            Told::Nothing | Told::Descriptor => self.structure.size(spatial),
            Told::Vp9 => self.vp9.sizes.get(usize::from(spatial)).map_or((0, 0), |size| (size.0.into(), size.1.into())),
        };
        width.max(height)
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }
}

impl Vp9Layers {
    /// Continues a picture id that wraps after seven bits.
    fn extend(&mut self, id: u16, short: bool) -> u16 {
        let newest = self.picture.unwrap_or(id);
        let ahead =
            if short { (id.wrapping_sub(newest) << 9).cast_signed() >> 9 } else { (id.wrapping_sub(newest) << 1).cast_signed() >> 1 };
        let picture = newest.wrapping_add_signed(ahead);
        if ahead >= 0 {
            self.picture = Some(picture);
        }
        picture
    }

    fn read_structure(&mut self, read: &Vp9Descriptor, payload: &[u8]) {
        let Some(structure) = read.read_structure(payload) else { return };
        let spatial = structure.sizes().count().min(SPATIAL_MAX);
        self.spatial = spatial as u8;
        self.sizes = [(0, 0); SPATIAL_MAX];
        for (place, size) in self.sizes.iter_mut().zip(structure.sizes()) {
            *place = size;
        }
    }
}

fn is_newer(a: u16, b: u16) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Indices of the bits that are set.
pub(super) fn bits(mut of: u32) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        (of != 0).then(|| {
            let bit = of.trailing_zeros() as u8;
            of &= of - 1;
            bit
        })
    })
}

/// VP9's targets: one per spatial and temporal layer, eight temporal ones each.
fn targets_at(spatial: u8, temporal: u8) -> u32 {
    (0xFF << temporal & 0xFF) << (TEMPORAL_MAX as u8 * spatial)
}

fn targets_below(temporal: u8) -> u32 {
    ((1 << temporal) - 1) * 0x0101_0101
}

fn targets_from(spatial: u8, temporal: u8) -> u32 {
    (spatial..SPATIAL_MAX as u8).fold(0, |all, spatial| all | targets_at(spatial, temporal))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key frame of two temporal layers; its structure's templates have the ids 5 to 7 (see `codec::dependency`).
    const KEY: [u8; 15] = [0xC5, 0, 7, 0x80, 0xA1, 0x1E, 0xA8, 0x51, 0x41, 0x01, 0x0C, 0x09, 0xFC, 0x05, 0x9C];
    /// One of two spatial layers, with the ids 0 to 3.
    const OTHER_KEY: [u8; 15] = [0xC0, 0, 6, 0x80, 0x01, 0x23, 0xB8, 0x22, 0x45, 0x04, 0x5A, 0x00, 0x42, 0x22, 0x24];

    fn frame(template: u8, number: u8) -> [u8; 3] {
        [0xC0 | template, 0, number]
    }

    #[test]
    fn a_structure_that_comes_late_does_not_replace_a_newer_one() {
        let (mut stream, now) = (Scalable::new(), Instant::now());
        let note = |stream: &mut Scalable, value: &[u8]| stream.note(now, CodecKind::Av1, Some(value), &[0xFF; 100]);
        assert_eq!(note(&mut stream, &frame(6, 8)).part, Part::default(), "without a structure nothing can be told");
        assert_eq!(note(&mut stream, &KEY).key_frame, Some(true));
        assert_eq!((stream.top(), stream.is_selectable()), ((0, 1), true));
        assert_eq!(note(&mut stream, &OTHER_KEY).key_frame, Some(true));
        assert_eq!(stream.top(), (0, 1));
        assert_eq!(note(&mut stream, &frame(7, 8)).key_frame, Some(false));
        assert_eq!(note(&mut stream, &frame(3, 9)).part, Part::default(), "a template of the older one");
    }

    #[test]
    fn a_frame_that_others_need_is_waited_for_before_it_is_given_up() {
        let (mut stream, mut now) = (Scalable::new(), Instant::now());
        let mut lost = |stream: &mut Scalable, value: &[u8], later: u64| {
            now += Duration::from_millis(later);
            stream.note(now, CodecKind::Av1, Some(value), &[0xFF; 100]).chain_lost
        };
        assert!(!lost(&mut stream, &KEY, 0));
        // 9, of T0, is missing when 10 comes, and comes after all; 8, of T1, nobody needs.
        assert!(!lost(&mut stream, &frame(7, 10), 33) && !lost(&mut stream, &frame(6, 9), 100));
        assert!(!lost(&mut stream, &frame(6, 11), 33) && !lost(&mut stream, &frame(6, 13), 500));
        // 15 does not come.
        assert!(!lost(&mut stream, &frame(7, 16), 100) && !lost(&mut stream, &frame(6, 17), 300));
        assert!(lost(&mut stream, &frame(7, 18), 300));
    }
}
