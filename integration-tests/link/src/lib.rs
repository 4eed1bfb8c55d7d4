//! What a bad link does to datagrams, described in a file (`integration-tests/profiles`) and decided by a seed: the simulation of the
//! media core and the proxy of the browser stories (`bad-link`) drive the same model.
//!
//! No clock, no socket: time is how long the profile has been in force.

mod link;
mod profile;

pub use link::{Fate, Link};
pub use profile::{Burst, Cut, Profile, ProfileError, Squeeze, Way};

/// The profiles of this repository, by name: what `integration-tests/profiles` holds.
pub const PROFILES: [(&str, &str); 10] = [
    ("wifi", include_str!("../../profiles/wifi.toml")),
    ("lte-moving", include_str!("../../profiles/lte-moving.toml")),
    ("satellite", include_str!("../../profiles/satellite.toml")),
    ("ddil-64k", include_str!("../../profiles/ddil-64k.toml")),
    ("lossy-20", include_str!("../../profiles/lossy-20.toml")),
    ("burst", include_str!("../../profiles/burst.toml")),
    ("cut-30s", include_str!("../../profiles/cut-30s.toml")),
    ("stall-3s", include_str!("../../profiles/stall-3s.toml")),
    ("collapse-20s", include_str!("../../profiles/collapse-20s.toml")),
    ("shared-line", include_str!("../../profiles/shared-line.toml")),
];

/// One of [`PROFILES`].
///
/// # Errors
/// When there is none of that name, or it cannot be read.
pub fn named(name: &str) -> Result<Profile, ProfileError> {
    let (_, text) = PROFILES.iter().find(|(known, _)| *known == name).ok_or_else(|| ProfileError::Unknown(name.to_owned()))?;
    Profile::parse(text)
}
