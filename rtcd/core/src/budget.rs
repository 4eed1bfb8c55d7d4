//! Shares one viewer's downlink among the pictures it wants: which layer of each, or none.
//!
//! Sound is never part of this: it always goes. Shared screens come before cameras, then the viewer's own priority, then who has the floor. Every
//! picture gets its lowest layer before any gets a better one, so that nobody disappears for somebody's sharpness.

use crate::limits::STEPS_MAX;

/// A better layer than the present one must fit with this much room to spare (percent), otherwise a picture at the edge
/// would go up and down with every change of the estimate.
const UP_ROOM_PERCENT: u64 = 115;

/// One wanted picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// A shared screen.
    pub screen: bool,
    /// Higher first (LiveKit `UpdateTrackSettings.priority`).
    pub priority: u32,
    /// Of who speaks, or spoke last.
    pub has_floor: bool,
    /// Highest layer that the viewer can use at the size it shows.
    pub layer_max: u8,
    /// Measured rate of each layer that is being sent, bit/s; 0: not being sent. Of a stream with layers inside: of each step, cheapest first.
    pub layer_bps: [u32; STEPS_MAX],
    /// The layer this viewer has now.
    pub current: Option<u8>,
    /// The result: the layer it shall have; `None`: paused.
    pub choice: Option<u8>,
}

impl Wish {
    /// The lowest layer that the viewer can use, and what it takes, bit/s.
    #[must_use]
    pub fn lowest(&self) -> Option<(u8, u64)> {
        usable(self).next()
    }

    /// Would the viewer have a better layer than the chosen one if its way carried it?
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        usable(self).last().is_some_and(|(best, _)| self.choice.is_none_or(|choice| choice < best))
    }

    /// What the dearest layer takes that the viewer can use, usually the best, with the room it asks for, bit/s.
    #[must_use]
    pub fn wanted_bps(&self) -> u64 {
        usable(self).map(|(_, bps)| bps).max().unwrap_or(0) * UP_ROOM_PERCENT / 100
    }
}

/// Fills in `choice` of every wish so that their sum fits into `budget_bps`.
///
/// A picture of which no layer fits is paused. A picture of which nothing is being sent yet keeps its present
/// layer, or the highest usable one, and costs nothing: it cannot be measured before it flows.
pub fn allocate(budget_bps: u64, wishes: &mut [Wish]) {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|&at| wishes.get(at).map(|wish| (std::cmp::Reverse((wish.screen, wish.priority, wish.has_floor)), at)));
    let mut left_bps = budget_bps;
    // First everybody's lowest layer …
    for &at in &order {
        let Some(wish) = wishes.get_mut(at) else { continue };
        // A better layer may take less for a while: of a still picture none takes much.
        let fits = usable(wish).find(|&(_, bps)| bps <= left_bps);
        wish.choice = match (wish.lowest(), fits) {
            (None, _) => Some(wish.current.unwrap_or(wish.layer_max)),
            (Some(_), Some((layer, bps))) => {
                left_bps -= bps;
                Some(layer)
            }
            (Some(_), None) => None,
        };
    }
    // … then one step up at a time, in the same order, as long as it fits.
    let mut stepped = true;
    while stepped {
        stepped = false;
        for &at in &order {
            let Some(wish) = wishes.get_mut(at) else { continue };
            if let Some((layer, cost_bps)) = next_step(wish, left_bps) {
                left_bps -= cost_bps;
                wish.choice = Some(layer);
                stepped = true;
            }
        }
    }
}

/// Layers that are being sent and that the viewer can use, lowest first. When only better ones than it can use are sent, the lowest of those.
fn usable(wish: &Wish) -> impl Iterator<Item = (u8, u64)> + '_ {
    let sent = || (0_u8..).zip(wish.layer_bps).filter(|&(_, bps)| bps > 0).map(|(layer, bps)| (layer, u64::from(bps)));
    let too_good = sent().all(|(layer, _)| layer > wish.layer_max);
    sent().filter(move |&(layer, _)| too_good || layer <= wish.layer_max).take(if too_good { 1 } else { STEPS_MAX })
}

fn next_step(wish: &Wish, left_bps: u64) -> Option<(u8, u64)> {
    let chosen = wish.choice?;
    let (_, have_bps) = usable(wish).find(|&(layer, _)| layer == chosen)?;
    let (layer, want_bps) = usable(wish).find(|&(layer, _)| layer > chosen)?;
    let cost_bps = want_bps.saturating_sub(have_bps);
    let is_better_than_now = wish.current.is_some_and(|current| layer > current);
    let needed_bps = if is_better_than_now { cost_bps.saturating_mul(UP_ROOM_PERCENT) / 100 } else { cost_bps };
    (needed_bps <= left_bps).then_some((layer, cost_bps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAMERA: Wish = Wish {
        screen: false,
        priority: 0,
        has_floor: false,
        layer_max: 2,
        layer_bps: [150_000, 500_000, 1_700_000, 0, 0, 0, 0, 0],
        current: None,
        choice: None,
    };

    fn choices(budget_bps: u64, wishes: &[Wish]) -> Vec<Option<u8>> {
        let mut wishes = wishes.to_vec();
        allocate(budget_bps, &mut wishes);
        wishes.iter().map(|wish| wish.choice).collect()
    }

    #[test]
    fn with_room_everybody_gets_the_best() {
        assert_eq!(choices(10_000_000, &[CAMERA, CAMERA]), [Some(2), Some(2)]);
    }

    #[test]
    fn all_lowest_layers_come_before_anybodys_better_one() {
        assert_eq!(choices(700_000, &[CAMERA, CAMERA]), [Some(1), Some(0)]);
        assert_eq!(choices(300_000, &[CAMERA, CAMERA]), [Some(0), Some(0)]);
    }

    #[test]
    fn the_screen_comes_first_and_the_last_camera_is_paused() {
        let screen = Wish { screen: true, layer_bps: [1_200_000, 0, 0, 0, 0, 0, 0, 0], layer_max: 0, ..CAMERA };
        assert_eq!(choices(1_400_000, &[CAMERA, CAMERA, screen]), [Some(0), None, Some(0)]);
        assert_eq!(choices(1_000_000, &[CAMERA, CAMERA, screen]), [Some(1), Some(1), None]);
    }

    #[test]
    fn who_has_the_floor_comes_before_other_cameras_and_behind_a_pinned_one() {
        let speaking = Wish { has_floor: true, ..CAMERA };
        assert_eq!(choices(700_000, &[CAMERA, speaking, CAMERA]), [Some(0), Some(0), Some(0)]);
        assert_eq!(choices(900_000, &[CAMERA, speaking, CAMERA]), [Some(0), Some(1), Some(0)]);
        assert_eq!(choices(200_000, &[CAMERA, speaking, CAMERA]), [None, Some(0), None]);
        assert_eq!(choices(200_000, &[CAMERA, speaking, Wish { priority: 1, ..CAMERA }]), [None, None, Some(0)]);
    }

    #[test]
    fn a_small_tile_is_never_given_more_than_it_shows() {
        assert_eq!(choices(10_000_000, &[Wish { layer_max: 0, ..CAMERA }]), [Some(0)]);
    }

    #[test]
    fn only_a_better_layer_than_wanted_is_sent_then_that_one_it_is() {
        assert_eq!(choices(10_000_000, &[Wish { layer_max: 0, layer_bps: [0, 0, 1_700_000, 0, 0, 0, 0, 0], ..CAMERA }]), [Some(2)]);
    }

    #[test]
    fn going_up_needs_room_to_spare_staying_does_not() {
        let at_low = Wish { current: Some(0), ..CAMERA };
        let at_middle = Wish { current: Some(1), ..CAMERA };
        assert_eq!(choices(510_000, &[at_low]), [Some(0)]);
        assert_eq!(choices(510_000, &[at_middle]), [Some(1)]);
        assert_eq!(choices(600_000, &[at_low]), [Some(1)]);
    }

    #[test]
    fn what_is_not_sent_yet_is_waited_for_and_costs_nothing() {
        assert_eq!(choices(0, &[Wish { layer_bps: [0; STEPS_MAX], ..CAMERA }]), [Some(2)]);
    }

    #[test]
    fn a_better_layer_that_takes_less_is_better_than_nothing() {
        let still = Wish { layer_bps: [600_000, 40_000, 50_000, 0, 0, 0, 0, 0], ..CAMERA };
        assert_eq!(choices(100_000, &[still]), [Some(2)]);
        assert_eq!(still.wanted_bps(), 690_000);
    }

    proptest! {
        #[test]
        fn the_sum_never_exceeds_the_budget(
            budget_bps in 0_u64..8_000_000,
            wishes in prop::collection::vec((any::<(bool, bool)>(), 0_u32..4, 0_u8..3, [0_u32..400_000, 0_u32..900_000, 0_u32..3_000_000], prop::option::of(0_u8..3)), 0..12),
        ) {
            let mut wishes: Vec<Wish> = wishes
                .into_iter()
                .map(|((screen, has_floor), priority, layer_max, [low, middle, high], current)| {
                    let layer_bps = [low, middle, high, 0, 0, 0, 0, 0];
                    Wish { screen, priority, has_floor, layer_max, layer_bps, current, choice: None }
                })
                .collect();
            allocate(budget_bps, &mut wishes);
            let spent: u64 = wishes.iter().filter_map(|wish| wish.choice.and_then(|layer| wish.layer_bps.get(usize::from(layer)))).map(|&bps| u64::from(bps)).sum();
            prop_assert!(spent <= budget_bps, "{spent} of {budget_bps}: {wishes:?}");
        }
    }
}
