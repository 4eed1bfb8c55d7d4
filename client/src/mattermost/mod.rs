//! A participant in the calls of a Mattermost site: as its bot, or as a person's client.
//!
//! [`Site`] is the plugin's HTTP routes for its bot. [`Bot`] is a session of a call: a WebSocket to the site, over which the plugin is
//! spoken to, and media from wherever the plugin has it. With its version 1 that is a media node, spoken to through the plugin, over one
//! peer connection with a data channel on which both ends offer (`session`). With version 2 it is a LiveKit room, into which the plugin
//! gives a token (`ticket`, `livekit`); there a bot only listens. Nobody above this module sees which of them it is.
//!
//! What comes is one queue of [`Event`]s, with a bound. A reader that is slower than media for long loses packets, which are counted
//! ([`Bot::dropped`]), and nothing else; one that stops reading altogether loses the call.

mod address;
mod bot;
mod channel;
mod description;
mod ending;
mod event;
mod limits;
mod livekit;
mod media;
mod outlet;
mod publication;
mod reader;
mod session;
mod site;
mod socket;
mod ticket;

pub use address::{Address, local_for};
pub use bot::{Bot, BotDial};
pub use event::{CallSession, CallState, Event, Ids, JobState, MediaState, TrackInfo, TrackKind, UserChange};
pub use publication::{Codec, Publication};
pub use site::{Channel, JobStatus, JobType, Profile, Sent, Site, SiteError, Transcription, Upload};
