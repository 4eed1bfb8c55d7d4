//! A participant in the calls of a Mattermost site whose Calls plugin (version 1) uses a media node: as its bot, or as a person's client.
//!
//! [`Site`] is the plugin's HTTP routes for its bot. [`Bot`] is a session of a call: a WebSocket to the site, over which the plugin and the
//! media node are spoken to, and one peer connection with a data channel on which both ends offer.
//!
//! What comes is one queue of [`Event`]s, with a bound. A reader that is slower than media for long loses packets, which are counted
//! ([`Bot::dropped`]), and nothing else; one that stops reading altogether loses the call.

mod address;
mod bot;
mod channel;
mod description;
mod event;
mod limits;
mod media;
mod outlet;
mod publication;
mod session;
mod site;
mod socket;

pub use address::Address;
pub use bot::{Bot, BotDial};
pub use event::{CallSession, CallState, Event, Ids, JobState, MediaState, TrackInfo, TrackKind, UserChange};
pub use publication::{Codec, Publication};
pub use site::{Channel, JobStatus, JobType, Profile, Sent, Site, SiteError, Transcription, Upload};
