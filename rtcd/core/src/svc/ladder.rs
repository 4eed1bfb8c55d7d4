//! The decode targets that a viewer may be given, as steps from cheap to good.

use smallvec::SmallVec;

use super::stream::Scalable;
use crate::limits::STEPS_MAX;

/// Steps of one stream for one viewer, cheapest first.
pub(crate) struct Ladder {
    steps: SmallVec<[u8; STEPS_MAX]>,
}

impl Ladder {
    /// `spatial_max`, `temporal_max`: more than this the viewer cannot use. Of a camera first the size is given up and then the rate, so
    /// that it moves as long as it can; of a screen first the rate, so that it can be read as long as it can.
    pub(crate) fn new(stream: &Scalable, screen: bool, spatial_max: u8, temporal_max: u8) -> Self {
        let mut steps = SmallVec::new();
        let mut add = |spatial: u8, temporal: u8| {
            if let Some(target) = stream.target_of(spatial, temporal)
                && steps.len() < STEPS_MAX
                && !steps.contains(&target)
            {
                steps.push(target);
            }
        };
        if screen {
            (0..=spatial_max).for_each(|spatial| add(spatial, 0));
            (0..=temporal_max).for_each(|temporal| add(spatial_max, temporal));
        } else {
            (0..=temporal_max).for_each(|temporal| add(0, temporal));
            (0..=spatial_max).for_each(|spatial| add(spatial, temporal_max));
        }
        Self { steps }
    }

    /// The decode target of a step.
    pub(crate) fn target(&self, step: u8) -> Option<u8> {
        self.steps.get(usize::from(step)).or(self.steps.last()).copied()
    }

    /// The step of what a viewer has now, or the next one below it.
    pub(crate) fn step_of(&self, stream: &Scalable, target: u8) -> u8 {
        let (spatial, temporal) = stream.layers_of(target);
        let below = |step: &u8| {
            let (of, at) = stream.layers_of(*step);
            of <= spatial && at <= temporal
        };
        self.steps.iter().rposition(below).unwrap_or(0) as u8
    }

    /// Bit/s of each step. What has not been measured yet is there all the same.
    pub(crate) fn bps(&self, stream: &Scalable) -> [u32; STEPS_MAX] {
        let mut bps = [0; STEPS_MAX];
        for (place, target) in bps.iter_mut().zip(&self.steps) {
            *place = stream.rates().bps(*target).max(1);
        }
        bps
    }

    /// The last step.
    pub(crate) fn top(&self) -> u8 {
        self.steps.len().saturating_sub(1) as u8
    }
}
