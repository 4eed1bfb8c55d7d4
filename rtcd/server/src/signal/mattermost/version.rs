//! `/version`. Two gates read it: the plugin wants 0.17.0 or newer, or it does not start; browsers lock their signalling from 1.1.0 on.

use serde::Serialize;

/// What we do like it, and after the plus what we are. Both gates take build metadata for nothing.
pub const BUILD_VERSION: &str = concat!("v1.2.6+conclave.", env!("CARGO_PKG_VERSION"));

/// The answer, in Mattermost's words.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    build_date: &'static str,
    build_version: &'static str,
    build_hash: &'static str,
    go_version: &'static str,
    #[serde(rename = "goOS")]
    go_os: &'static str,
    go_arch: &'static str,
}

/// This program's.
pub(super) fn version() -> Version {
    let go_arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Version { build_date: "", build_version: BUILD_VERSION, build_hash: "", go_version: "", go_os: std::env::consts::OS, go_arch }
}
