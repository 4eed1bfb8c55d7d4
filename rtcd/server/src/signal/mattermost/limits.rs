//! Bounds of the Mattermost dialect on what others can make it hold.

use std::time::Duration;

/// Largest frame of `/ws`, in both directions. Mattermost's.
pub const FRAME_LEN_MAX: usize = 1 << 20;
/// Frames waiting for one connection: as many as Mattermost's own queue has. Beyond it they are dropped and counted.
pub const OUTGOING_FRAMES_MAX: usize = 5000;
/// Bytes waiting for one connection: 400 descriptions of 40 KiB.
pub const OUTGOING_BYTES_MAX: usize = 16 << 20;
/// A frame waits so long for a client that has no connection at all: its reconnecting starts at 5 s and ends at 30.
pub const KEPT_FOR: Duration = Duration::from_secs(60);
/// Frames kept for one client without a connection …
pub const KEPT_FRAMES_MAX: usize = 4096;
/// … and bytes kept for all such clients together.
pub const KEPT_BYTES_MAX: usize = 32 << 20;
/// Bytes of descriptions of one session, unpacked, that are read at once: an answer of a big call is some 40 KiB, the largest 1 MiB …
pub const DESCRIPTION_BYTES_BURST: f64 = (8 << 20) as f64;
/// … and a second. A packed one costs its sender a thousandth of what unpacking costs here.
pub const DESCRIPTION_BYTES_PER_S: f64 = (2 << 20) as f64;
/// Clients with figures of their own; the others share theirs.
pub const CLIENT_SERIES_MAX: usize = 256;
/// Open connections of all clients. Each node of an installation has one.
pub const SOCKETS_MAX: usize = 1024;
