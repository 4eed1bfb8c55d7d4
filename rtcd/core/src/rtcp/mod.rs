//! RTCP (RFC 3550, 4585, 5104) and what is counted for it: reports, loss, retransmission requests, transport-wide feedback.
//!
//! Reads clear compound packets that [`crate::srtp::Inbound::unprotect_rtcp`] opened; writes ones for
//! [`crate::srtp::Outbound::protect_rtcp`] to seal. No clock: every moment is an argument.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test has to start at some moment"))]

mod history;
mod nack;
mod packet;
mod recorder;
mod stats;
mod twcc;
mod writer;

pub use history::{Acked, SendHistory};
pub use nack::{Arrival, NackTracker};
pub use packet::{
    Fir, FirEntry, Nack, Packet, Packets, ReceiverReport, Remb, ReportBlock, ReportBlocks, RtcpError, Sdes, SenderReport, parse,
};
pub use recorder::{FEEDBACK_INTERVAL, TwccRecorder};
pub use stats::{ReceiverStats, SenderStats, ntp_from_unix_us, ntp_middle, round_trip};
pub use twcc::{TwccError, TwccFeedback, TwccStatus};
pub use writer::{RtcpWriter, SenderInfo};
