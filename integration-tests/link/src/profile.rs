//! The file that describes a link, and its bounds.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::link::Link;

/// Longest file: a profile is a screenful.
const TEXT_LEN_MAX: usize = 16 * 1024;
/// Longest delay, jitter, hold-back or queue. Nobody talks over a link worse than this.
const MS_MAX: u64 = 10_000;
/// A queue needs a rate to be a bottleneck; faster than this is none.
const RATE_KBIT_MAX: u64 = 10_000_000;
/// Latest end of a cut or a squeeze: an hour of test.
const CUT_S_MAX: f64 = 3_600.0;
/// Of cuts, and of squeezes.
const CUTS_MAX: usize = 64;

/// Why a profile cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// No such profile.
    #[error("there is no link profile called {0:?}; see integration-tests/profiles")]
    Unknown(String),
    /// Not a profile, or one with a key that does not exist.
    #[error("the link profile cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value out of bounds.
    #[error("the link profile's {key} is {value}; it has to be {must}")]
    Bound {
        /// Which.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        must: &'static str,
    },
}

/// A link, both ways.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What it stands for.
    pub about: String,
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
    /// When nothing passes, in either direction.
    #[serde(rename = "cut")]
    pub cuts: Vec<Cut>,
    /// When less passes, in either direction.
    #[serde(rename = "squeeze")]
    pub squeezes: Vec<Squeeze>,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Way {
    /// Share of the datagrams that is lost, each by itself.
    pub loss: f64,
    /// Losses that come together.
    pub burst: Option<Burst>,
    /// Every datagram is late by this.
    pub delay_ms: u64,
    /// And by up to this more, in order.
    pub jitter_ms: u64,
    /// Share of the datagrams that later ones overtake …
    pub reorder: f64,
    /// … because they are held back by this.
    pub reorder_ms: u64,
    /// Rate of the bottleneck, with IP and UDP headers; 0: none.
    pub rate_kbit: u64,
    /// How long a datagram waits before the bottleneck at most; longer, and it is dropped.
    pub queue_ms: u64,
}

/// Gilbert and Elliott's model: a good state in which nothing is lost, and a bad one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Chance, per datagram, that the link turns bad.
    pub begins: f64,
    /// Chance, per datagram, that it turns good again.
    pub ends: f64,
    /// Share lost while it is bad.
    pub loss: f64,
}

/// Nothing passes for a while.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// From when on, seconds after the profile took force.
    pub after_s: f64,
    /// For how long, seconds.
    pub for_s: f64,
}

/// Less passes for a while, and the rest waits: a microwave oven, a busy machine, a cell full of people. Squeezes do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Squeeze {
    /// From when on, seconds after the profile took force.
    pub after_s: f64,
    /// For how long, seconds.
    pub for_s: f64,
    /// So much passes meanwhile, with IP and UDP headers; 0: nothing, and all that waits comes at once when it is over.
    pub rate_kbit: u64,
    /// How long a datagram waits meanwhile at most; longer, and it is dropped.
    pub queue_ms: u64,
}

impl Squeeze {
    /// When it begins.
    #[must_use]
    pub fn begin(&self) -> Duration {
        Duration::from_secs_f64(self.after_s)
    }

    /// When the link is as it was.
    #[must_use]
    pub fn end(&self) -> Duration {
        Duration::from_secs_f64(self.after_s + self.for_s)
    }
}

impl Cut {
    /// Is the link cut then?
    #[must_use]
    pub fn covers(&self, at: Duration) -> bool {
        let at = at.as_secs_f64();
        at >= self.after_s && at < self.after_s + self.for_s
    }

    /// When the link is back.
    #[must_use]
    pub fn end(&self) -> Duration {
        Duration::from_secs_f64(self.after_s + self.for_s)
    }
}

impl Profile {
    /// Both directions of a link that is like this, up and down, each with its seed.
    #[must_use]
    pub fn links(&self, up: u64, down: u64) -> (Link, Link) {
        let link = |way, seed| Link::new(way, seed).squeezed(&self.squeezes);
        (link(self.up, up), link(self.down, down))
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// [`ProfileError`] with the key and what it may say.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        within("length", text.len() as f64, 0.0, TEXT_LEN_MAX as f64, "at most 16 KiB")?;
        let profile: Self = toml::from_str(text)?;
        within("number of cuts", profile.cuts.len() as f64, 0.0, CUTS_MAX as f64, "at most 64")?;
        for cut in &profile.cuts {
            within("cut.after_s", cut.after_s, 0.0, CUT_S_MAX, "0 to 3600 s")?;
            within("cut.for_s", cut.for_s, 0.0, CUT_S_MAX, "0 to 3600 s")?;
        }
        within("number of squeezes", profile.squeezes.len() as f64, 0.0, CUTS_MAX as f64, "at most 64")?;
        for squeeze in &profile.squeezes {
            within("squeeze.after_s", squeeze.after_s, 0.0, CUT_S_MAX, "0 to 3600 s")?;
            within("squeeze.for_s", squeeze.for_s, 0.0, CUT_S_MAX, "0 to 3600 s")?;
            within("squeeze.rate_kbit", squeeze.rate_kbit as f64, 0.0, RATE_KBIT_MAX as f64, "0 (nothing) to 10000000 kbit/s")?;
            within("squeeze.queue_ms", squeeze.queue_ms as f64, 1.0, MS_MAX as f64, "1 to 10000 ms")?;
        }
        for (before, after) in profile.squeezes.iter().zip(profile.squeezes.iter().skip(1)) {
            within(
                "squeeze.after_s",
                after.after_s,
                before.after_s + before.for_s,
                CUT_S_MAX,
                "not before the end of the squeeze before it",
            )?;
        }
        for way in [&profile.up, &profile.down] {
            way.check()?;
        }
        Ok(profile)
    }

    /// Is the link cut then?
    #[must_use]
    pub fn is_cut(&self, at: Duration) -> bool {
        self.cuts.iter().any(|cut| cut.covers(at))
    }
}

impl Way {
    fn check(&self) -> Result<(), ProfileError> {
        let share = |key, value| within(key, value, 0.0, 1.0, "a share, 0 to 1");
        let ms = |key, value: u64| within(key, value as f64, 0.0, MS_MAX as f64, "0 to 10000 ms");
        share("loss", self.loss)?;
        share("reorder", self.reorder)?;
        if let Some(burst) = &self.burst {
            share("burst.begins", burst.begins)?;
            share("burst.ends", burst.ends)?;
            share("burst.loss", burst.loss)?;
        }
        ms("delay_ms", self.delay_ms)?;
        ms("jitter_ms", self.jitter_ms)?;
        ms("reorder_ms", self.reorder_ms)?;
        ms("queue_ms", self.queue_ms)?;
        within("rate_kbit", self.rate_kbit as f64, 0.0, RATE_KBIT_MAX as f64, "0 (no bound) to 10000000 kbit/s")?;
        if self.rate_kbit > 0 && self.queue_ms == 0 {
            return Err(bound("queue_ms", 0.0, "at least 1 ms where there is a rate: a bottleneck without a queue passes nothing"));
        }
        if self.reorder > 0.0 && self.reorder_ms == 0 {
            return Err(bound("reorder_ms", 0.0, "at least 1 ms where datagrams are reordered"));
        }
        Ok(())
    }
}

fn within(key: &'static str, value: f64, min: f64, max: f64, must: &'static str) -> Result<(), ProfileError> {
    // Also refuses what is no number.
    if (min..=max).contains(&value) { Ok(()) } else { Err(bound(key, value, must)) }
}

fn bound(key: &'static str, value: f64, must: &'static str) -> ProfileError {
    ProfileError::Bound { key, value: value.to_string(), must }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may say what they mean")]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_the_repository_can_be_read_and_says_what_it_is() {
        for (name, text) in crate::PROFILES {
            let profile = Profile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!profile.about.is_empty(), "{name}");
            let changes = profile.cuts.len() + profile.squeezes.len();
            assert_ne!((profile.up, profile.down, changes), (Way::default(), Way::default(), 0), "{name}");
        }
        assert!(crate::named("nowhere").unwrap_err().to_string().contains("integration-tests/profiles"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (text, key) in [
            ("[up]\nloss = 1.5", "loss"),
            ("[up]\nloss = nan", "loss"),
            ("[down]\nburst = { begins = 0.1, ends = -1.0, loss = 0.5 }", "burst.ends"),
            ("[down]\ndelay_ms = 10001", "delay_ms"),
            ("[up]\nrate_kbit = 64", "queue_ms"),
            ("[up]\nreorder = 0.1", "reorder_ms"),
            ("[[cut]]\nafter_s = 1.0\nfor_s = 4000.0", "cut.for_s"),
            ("[[squeeze]]\nafter_s = 1.0\nfor_s = 3.0\nrate_kbit = 0\nqueue_ms = 0", "squeeze.queue_ms"),
            (
                "[[squeeze]]\nafter_s = 1.0\nfor_s = 3.0\nrate_kbit = 0\nqueue_ms = 10\n\
                 [[squeeze]]\nafter_s = 2.0\nfor_s = 3.0\nrate_kbit = 0\nqueue_ms = 10",
                "squeeze.after_s",
            ),
            ("[up]\nlos = 0.1", "los"),
            ("[up]\nloss = \"much\"", "loss"),
            (&"#".repeat(20_000), "length"),
        ] {
            let error = Profile::parse(text).unwrap_err().to_string();
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
