//! One viewer's choice of frames out of a stream with layers inside.

use super::stream::{Frame, Scalable, bits};
use crate::cache::Entry;
use crate::limits::{SVC_FRAMES_MAX, SVC_STRETCHES_MAX};
use crate::thinning::Thinning;

/// A frame's fate.
#[derive(Clone, Copy, Default)]
struct Fate {
    number: u16,
    decided: bool,
    forward: bool,
    /// What the viewer had then.
    target: u8,
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) number: u64,
    /// It is the last one of what the viewer gets of its picture.
    pub(crate) marker: bool,
    /// Decode targets that the viewer can decode, where it has to be told: how many there are, which, and where that is written.
    pub(crate) active: Option<(u8, u32, u16)>,
    /// With it another target began.
    pub(crate) switched: bool,
}

/// The state.
pub(crate) struct Selection {
    numbers: Thinning<SVC_STRETCHES_MAX>,
    fates: [Fate; SVC_FRAMES_MAX],
    /// Highest layers wanted, spatial and temporal.
    wanted: (u8, u8),
    /// The decode target that the viewer has; `None`: it gets everything.
    current: Option<u8>,
    /// It was told that some are missing, and has to be told when they are back.
    told: bool,
    /// The frame of the newest packet, if that was withheld.
    withheld: Option<u16>,
}

impl Selection {
    /// Gets everything until something is wanted.
    pub(crate) fn new() -> Self {
        Self {
            numbers: Thinning::default(),
            fates: [Fate::default(); SVC_FRAMES_MAX],
            wanted: (u8::MAX, u8::MAX),
            current: None,
            told: false,
            withheld: None,
        }
    }

    /// The publisher counts from anywhere now.
    pub(crate) fn restart(&mut self) {
        *self = Self { wanted: self.wanted, ..Self::new() };
    }

    /// The layers that the viewer should have, spatial and temporal. True: it takes a key frame to get there.
    pub(crate) fn want(&mut self, stream: &Scalable, layers: (u8, u8)) -> bool {
        self.wanted = layers;
        let (Some(wanted), Some(current)) = (stream.best(layers.0, layers.1), self.target(stream)) else { return false };
        stream.layers_of(wanted).0 != stream.layers_of(current).0 && stream.within(current) >> wanted & 1 == 0
    }

    /// The decode target that the viewer has.
    pub(crate) fn target(&self, stream: &Scalable) -> Option<u8> {
        self.current.or_else(|| stream.best(u8::MAX, u8::MAX))
    }

    /// The publisher's number of what left under this one.
    pub(crate) fn original(&self, number: u64) -> Option<u64> {
        self.numbers.original(number)
    }

    /// How a packet leaves; `None`: the viewer does not get it. `again`: it was sent before.
    pub(crate) fn choose(&mut self, stream: &Scalable, entry: &Entry, again: bool) -> Option<Chosen> {
        let (seq, part) = (entry.number, entry.part);
        let frame = stream.frame(part);
        let before = self.current;
        let number = if !again && self.numbers.is_newest(seq) {
            let forward = frame.is_none_or(|frame| self.decide(stream, frame));
            // Numbers missing in the middle of a frame that is withheld belong to it; others may be anything, and are waited for.
            let inside = frame.is_some_and(|frame| self.withheld == Some(frame.number));
            self.withheld = if forward { None } else { frame.map(|frame| frame.number) };
            self.numbers.place_between(seq, forward, inside)
        } else {
            let number = self.numbers.number_of(seq);
            if let (Some(_), Some(frame)) = (number, frame) {
                self.note_late(stream, frame.number);
            }
            number
        }?;
        let fate = frame.and_then(|frame| self.fate(frame.number));
        let target = fate.and_then(|fate| Some((fate.target, frame?)));
        let marker = part.ends() && target.is_some_and(|(target, frame)| stream.layers_of(target).0 == frame.spatial);
        let active = match target {
            Some((target, frame)) if part.starts() => self.tell(stream, target, frame),
            Some(_) | None => None,
        };
        let switched = self.current != before && before.or_else(|| stream.best(u8::MAX, u8::MAX)) != self.target(stream);
        Some(Chosen { number, marker, active, switched })
    }

    /// Shall the viewer have this frame?
    fn decide(&mut self, stream: &Scalable, frame: &Frame) -> bool {
        if let Some(fate) = self.fate(frame.number) {
            return fate.forward;
        }
        let current = self.move_on(stream, frame);
        let forward = current.is_none_or(|current| frame.present >> current & 1 == 1);
        self.note(frame.number, forward, current.or_else(|| self.target(stream)).unwrap_or_default());
        forward
    }

    /// From this frame on another target, where it is wanted and can be.
    fn move_on(&mut self, stream: &Scalable, frame: &Frame) -> Option<u8> {
        let wanted = stream.best(self.wanted.0, self.wanted.1)?;
        let current = self.target(stream)?;
        let next = if frame.key || current == wanted || stream.within(current) >> wanted & 1 == 1 {
            wanted
        } else {
            self.entered(stream, frame, current, wanted).unwrap_or(current)
        };
        // Where layers are only seen as they come, who has the best gets what nobody knew of, too.
        let everything = stream.grows() && stream.best(u8::MAX, u8::MAX) == Some(next);
        self.current = (!everything).then_some(next);
        self.current
    }

    /// The best target on the way to the wanted one that can be entered with this frame.
    fn entered(&self, stream: &Scalable, frame: &Frame, current: u8, wanted: u8) -> Option<u8> {
        let has_all = match frame.references() {
            Some(references) => references.iter().all(|number| self.fate(*number).is_some_and(|fate| fate.forward)),
            None => frame.present >> current & 1 == 1,
        };
        if !has_all {
            return None;
        }
        let (spatial_max, temporal_max) = stream.layers_of(wanted);
        let on_the_way = |target: &u8| {
            let (spatial, temporal) = stream.layers_of(*target);
            *target == wanted || (spatial <= spatial_max && temporal <= temporal_max && (spatial, temporal) > stream.layers_of(current))
        };
        bits(frame.switch & frame.present & stream.targets()).filter(on_the_way).max_by_key(|target| stream.layers_of(*target))
    }

    /// A frame came by retransmission, and in a gap that was kept open for it.
    fn note_late(&mut self, stream: &Scalable, number: u16) {
        if self.fate(number).is_none() {
            self.note(number, true, self.target(stream).unwrap_or_default());
        }
    }

    /// What the viewer has to be told of the decode targets with a frame's first packet, once it did not get all of them.
    fn tell(&mut self, stream: &Scalable, target: u8, frame: &Frame) -> Option<(u8, u32, u16)> {
        let decodable = stream.within(target) & stream.targets();
        let withheld = decodable != stream.targets();
        if !withheld && frame.key {
            // The structure says it all.
            self.told = false;
        }
        self.told |= withheld;
        (self.told && stream.target_count() > 0).then(|| (stream.target_count(), decodable, frame.active_at))
    }

    fn fate(&self, number: u16) -> Option<Fate> {
        self.fates.get(usize::from(number) % SVC_FRAMES_MAX).filter(|fate| fate.decided && fate.number == number).copied()
    }

    fn note(&mut self, number: u16, forward: bool, target: u8) {
        if let Some(place) = self.fates.get_mut(usize::from(number) % SVC_FRAMES_MAX) {
            *place = Fate { number, decided: true, forward, target };
        }
    }
}
