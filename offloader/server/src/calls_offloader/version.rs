//! `/version`. The plugin wants v0.9.0 or newer, or its recordings stay off.

use serde::Serialize;

/// What we do like it: the release whose contract this is.
pub(crate) const BUILD_VERSION: &str = "v0.9.5";

/// The original's four fields, and ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    build_date: &'static str,
    build_version: &'static str,
    build_hash: &'static str,
    go_version: &'static str,
    conclave_version: &'static str,
}

/// This program's.
pub(super) fn version() -> Version {
    Version { build_date: "", build_version: BUILD_VERSION, build_hash: "", go_version: "", conclave_version: env!("CARGO_PKG_VERSION") }
}
