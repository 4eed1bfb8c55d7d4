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
//! estimate starts as "wide", and after congestion it grows by time alone, past what is being sent, until the next layer fits:
//! that layer is the probe. A probe that fails makes the next wait longer (3 s, doubled up to 48 s), so a viewer at the
//! edge of a layer is not shaken every few seconds. No padding is sent.
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

pub use estimate::BandwidthEstimate;
