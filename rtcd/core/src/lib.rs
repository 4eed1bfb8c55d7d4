//! The media core of Conclave: who gets which packet, decided without touching the world.
//!
//! [`Core`] is told `(now, input)` and asked with [`Core::poll`] until it answers [`Output::Timeout`]. It opens no
//! socket, reads no clock, starts no thread and asks no operating system for randomness (a seed comes with
//! [`CoreConfig`]). The shell (`rtcd`) does what the outputs say.
//!
//! Words: a **call** holds **peers** (one per participant). A peer has one or two **transports** (ICE + DTLS +
//! SRTP): one when the client speaks over a single peer connection, otherwise one to publish and one to subscribe.
//! A peer publishes **tracks** (each with one or more simulcast layers) and holds **subscriptions** to the tracks of others.

pub mod budget;
pub mod bwe;
pub mod codec;
pub mod config;
pub mod demand;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ice;
pub mod ids;
pub mod input;
pub mod keyframe;
pub mod limits;
pub mod negotiate;
pub mod output;
pub mod report;
pub mod rtcp;
pub mod rtp;
pub mod sctp;
pub mod sdp;
pub mod speakers;
pub mod srtp;
pub mod stun;
pub mod wire;

pub use config::CoreConfig;
pub use ids::{CallId, PeerId, Side, TapId, TrackId};
pub use input::Input;
pub use output::Output;

/// The core. See the crate's documentation.
pub struct Core;
