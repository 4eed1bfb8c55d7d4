//! What is there to send: a source that fills what the estimate allows, or a camera's three layers as the allocator chooses them.

use std::time::Duration;

use rtcd_core::budget::{Wish, allocate};
use rtcd_core::limits::STEPS_MAX;

/// What the whole picture takes.
pub const WANTED_BPS: u64 = 2_000_000;
const LAYERS_BPS: [u32; 3] = [150_000, 500_000, 1_700_000];
pub const FRAME: Duration = Duration::from_micros(33_333);
/// Of RTP, its extensions and SRTP: what stands around a payload.
pub const OVERHEAD: usize = 40;
/// And on the way, IP and UDP.
const AROUND: usize = OVERHEAD + 28;
const PACKET_LEN: usize = 1100;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Any rate up to the wanted one.
    Any,
    /// One of three.
    Layers { current: Option<u8>, chosen_at: Duration },
}

impl Source {
    pub fn layers() -> Self {
        Self::Layers { current: Some(2), chosen_at: Duration::ZERO }
    }

    /// The most that it would send.
    pub fn wanted_bps(self) -> u64 {
        match self {
            Self::Any => WANTED_BPS,
            Self::Layers { .. } => u64::from(LAYERS_BPS[2]),
        }
    }

    /// What is worth looking for, as the core tells it: while a better layer is held back.
    pub fn probed_bps(self) -> u64 {
        match self {
            // With the room that better layers ask for, too.
            Self::Any => WANTED_BPS * 115 / 100,
            Self::Layers { current: Some(2), .. } => 0,
            Self::Layers { current, .. } => wish(current).wanted_bps(),
        }
    }

    /// The estimate fell: choose now.
    pub fn hurry(&mut self) {
        if let Self::Layers { chosen_at, .. } = self {
            *chosen_at = Duration::ZERO;
        }
    }

    /// What flows now, bit/s.
    pub fn rate_bps(&mut self, now: Duration, estimate_bps: Option<u64>) -> u64 {
        match self {
            Self::Any => estimate_bps.unwrap_or(WANTED_BPS).min(WANTED_BPS),
            Self::Layers { current, chosen_at } => {
                // As often as the core does.
                if *chosen_at == Duration::ZERO || now - *chosen_at >= Duration::from_millis(500) {
                    *chosen_at = now.max(Duration::from_micros(1));
                    let mut wishes = [wish(*current)];
                    allocate(estimate_bps.unwrap_or(u64::MAX), &mut wishes);
                    *current = wishes[0].choice;
                }
                current.map_or(0, |layer| u64::from(LAYERS_BPS[usize::from(layer)]))
            }
        }
    }
}

fn wish(current: Option<u8>) -> Wish {
    let mut layer_bps = [0; STEPS_MAX];
    layer_bps[..3].copy_from_slice(&LAYERS_BPS);
    Wish { screen: false, priority: 0, has_floor: false, layer_max: 2, layer_bps, current, choice: None }
}

/// Cuts a stream into frames and packets without losing a bit.
#[derive(Default)]
pub struct Frames {
    bits: u64,
}

impl Frames {
    /// Lengths of the next frame's payloads, for so much on the way.
    pub fn next(&mut self, rate_bps: u64) -> Vec<usize> {
        self.bits += rate_bps * FRAME.as_micros() as u64 / 1_000_000;
        let mut bytes = (self.bits / 8) as usize;
        if rate_bps == 0 || bytes < 2 * AROUND {
            return Vec::new();
        }
        self.bits -= bytes as u64 * 8;
        let packets = bytes.div_ceil(PACKET_LEN + AROUND);
        (0..packets)
            .map(|n| {
                let len = bytes / (packets - n);
                bytes -= len;
                len - AROUND
            })
            .collect()
    }
}
