//! How hard x264 tries, by what it is given. A profile's preset is the most that is spent; where less gives as good a picture, less is.
//!
//! Measured and reasoned in `docs/decisions/0022-what-a-recorded-screen-costs.md` and `0024-a-screen-without-arithmetic-coding.md`.

use super::video::VideoTrack;

/// What a film's pictures show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// What we draw ourselves: flat tiles, still portraits, a clock.
    Drawn,
    /// Shared screens, and what we draw.
    Screens,
    /// Cameras among them: the rate's bound is what limits their quality, and effort is what makes the best of it.
    Cameras,
}

/// Settings of x264.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort<'p> {
    /// Its name for a bundle of them.
    pub preset: &'p str,
    /// Constant quality: text on a shared screen stays sharp, and a still picture costs next to nothing.
    pub crf: &'static str,
    /// Pictures that are made of what comes after them too; `None`: as many as the preset has.
    pub b_frames: Option<usize>,
    /// What else differs from the preset, in x264's own words.
    pub params: &'static str,
}

impl Content {
    /// Of these tracks.
    pub fn of(videos: &[VideoTrack<'_>]) -> Self {
        if videos.is_empty() {
            Self::Drawn
        } else if videos.iter().all(|video| video.screen) {
            Self::Screens
        } else {
            Self::Cameras
        }
    }

    /// What it takes at most under a profile's preset.
    pub fn effort(self, preset: &str) -> Effort<'_> {
        match self {
            Self::Drawn => Effort { preset: "ultrafast", crf: "24", b_frames: None, params: "" },
            // The cheaper presets spend more bits at the same number, so the number is higher for the same picture.
            Self::Screens if preset != "ultrafast" => Effort { preset: "superfast", crf: "27", b_frames: Some(0), params: SCREENS },
            Self::Screens | Self::Cameras => Effort { preset, crf: "24", b_frames: None, params: "" },
        }
    }
}

/// No arithmetic coding, and no motion between pixels: a quarter less CPU for a seventh more bytes, at most half a decibel less sharp.
/// Pages scroll by whole pixels, or change.
const SCREENS: &str = "cabac=0:subme=0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_the_most_that_is_spent() {
        for asked in ["medium", "fast", "faster", "veryfast", "superfast"] {
            assert_eq!(Content::Cameras.effort(asked).preset, asked);
            assert_eq!(Content::Screens.effort(asked).preset, "superfast");
        }
        for content in [Content::Drawn, Content::Screens, Content::Cameras] {
            assert_eq!(content.effort("ultrafast"), Effort { preset: "ultrafast", crf: "24", b_frames: None, params: "" });
        }
    }
}
