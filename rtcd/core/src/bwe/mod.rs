//! How much one viewer's way carries, estimated from its feedback: delay first (it grows before anything is lost), loss second.
//!
//! **How it is used.** One [`BandwidthEstimate`] per sending transport.
//!
//! 1. Every packet with a transport-wide number is noted in [`crate::rtcp::SendHistory`].
//! 2. What [`crate::rtcp::SendHistory::handle_feedback`] answers goes, as it is, to [`BandwidthEstimate::handle_acked`].
//! 3. Without transport-wide feedback: report blocks to [`BandwidthEstimate::handle_loss_report`], REMB to
//!    [`BandwidthEstimate::handle_remb`].
//! 4. The layer allocator asks [`BandwidthEstimate::estimate_bps`], at its own pace (every 500 ms) and at once when a `handle_*`
//!    answered true (the way became narrower). `None` means: nothing ever said that the way is narrow; send what is wanted.
//!
//! **What is different from a sender with an encoder.** A forwarder cannot send a little more: it has layers. So the
//! estimate starts as "wide". After congestion padding tells whether the way carries more ([`BandwidthEstimate::poll_padding`], a
//! probe of 40 ms every 4 to 16 s; on a thin way first a glimpse of 10 ms every 3 to 5 s), for as long as more is wanted. Where no padding can be sent, or nobody answers it, the
//! estimate grows by time alone, past what is being sent, until the next layer fits: that layer is the probe. One that fails makes the
//! next wait longer (3 s, doubled up to 48 s), so that a viewer at the edge of a layer is not shaken every few seconds.
//!
//! Loss that sending less does not lessen is the way's own and no congestion (`inherent.rs`).
//!
//! The delay part follows draft-ietf-rmcat-gcc-02 with the trend line that libwebrtc put in place of its Kalman filter.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a story has to start at some moment"))]

mod acked_rate;
mod arrival;
mod estimate;
mod inherent;
mod probe;
#[cfg(test)]
mod stories;
mod trend;

pub use estimate::{BandwidthEstimate, Wanted};
pub use probe::{Care, Padding};
