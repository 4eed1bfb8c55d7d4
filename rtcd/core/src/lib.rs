//! The media core of Conclave: who gets which packet, decided without touching the world.
//!
//! [`Core`] is told `(now, input)` and asked with [`Core::poll`] until it answers [`Output::Timeout`]. It opens no
//! socket, reads no clock, starts no thread and asks no operating system for randomness (a seed comes with
//! [`CoreConfig`]). The shell (`rtcd`) does what the outputs say.
//!
//! Words: a **call** holds **peers** (one per participant). A peer has one or two **transports** (ICE + DTLS +
//! SRTP): one when the client speaks over a single peer connection, otherwise one to publish and one to subscribe.
//! A peer publishes **tracks** (each with one or more simulcast layers) and holds **subscriptions** to the tracks of others.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test has to start at some moment"))]

mod arena;
pub mod budget;
pub mod bwe;
mod cache;
mod call;
mod census;
pub mod codec;
pub mod config;
mod core;
mod counters;
pub mod data_track;
pub mod demand;
mod diagnosis;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ice;
pub mod ids;
pub mod input;
pub mod keyframe;
mod layers;
pub mod limits;
mod loudest;
mod microphone;
pub mod negotiate;
mod outbox;
pub mod output;
mod padded;
mod padding;
mod peer;
mod random;
mod receive;
mod redundancy;
pub mod relay;
pub mod report;
mod rewrite;
mod room;
pub mod rtcp;
pub mod rtp;
pub mod sctp;
pub mod sdp;
pub mod shards;
mod slide;
pub mod speakers;
pub mod spread;
pub mod srtp;
pub mod stun;
mod subscription;
mod svc;
mod tap;
mod thinning;
mod timers;
mod track;
pub mod verdict;
pub mod wire;

pub use config::CoreConfig;
#[doc(hidden)]
pub use core::Planted;
pub use core::{Core, CoreError};
pub use ids::{CallId, PeerId, Side, TapId, TrackId};
pub use input::Input;
pub use output::Output;
