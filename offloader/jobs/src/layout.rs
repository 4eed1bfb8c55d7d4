//! How people stand on a rendered picture, by the names that LiveKit's egress has for it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who is large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrangement {
    /// Nobody: all alike; a shared screen in full with people beside it.
    #[default]
    Grid,
    /// Who speaks, or a shared screen while there is one, with the others beside it.
    Speaker,
    /// The same, and nobody beside it.
    SingleSpeaker,
}

/// An arrangement on a ground.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Layout {
    /// Who is large.
    pub arrangement: Arrangement,
    /// On a light ground instead of a dark one.
    pub light: bool,
}

impl Layout {
    /// Every name of one.
    pub const NAMES: [&str; 9] = [
        "grid",
        "speaker",
        "single-speaker",
        "grid-light",
        "speaker-light",
        "single-speaker-light",
        "grid-dark",
        "speaker-dark",
        "single-speaker-dark",
    ];
}

/// A layout that takes the place of another one while the call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterLayout {
    /// From when on: Unix ms by the clock of the node that has the media.
    pub at_ms: i64,
    /// How it looks then.
    pub layout: Layout,
}

/// There is no such layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the layouts are grid, speaker and single-speaker, each also with -light or -dark")]
pub struct UnknownLayout;

impl FromStr for Layout {
    type Err = UnknownLayout;

    fn from_str(name: &str) -> Result<Self, UnknownLayout> {
        let (name, light) = match name.strip_suffix("-light") {
            Some(name) => (name, true),
            None => (name.strip_suffix("-dark").unwrap_or(name), false),
        };
        let arrangement = match name {
            "grid" => Arrangement::Grid,
            "speaker" => Arrangement::Speaker,
            "single-speaker" => Arrangement::SingleSpeaker,
            _ => return Err(UnknownLayout),
        };
        Ok(Self { arrangement, light })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_livekits_names() {
        for name in Layout::NAMES {
            let layout: Layout = name.parse().unwrap();
            assert_eq!(layout.light, name.ends_with("-light"), "{name}");
        }
        let speaker = Layout { arrangement: Arrangement::Speaker, light: true };
        assert_eq!("speaker-light".parse(), Ok(speaker));
        for other in ["", "Grid", "mosaic", "-light", "grid-light-dark", "speaker-grid"] {
            assert_eq!(other.parse::<Layout>(), Err(UnknownLayout), "{other}");
        }
    }
}
