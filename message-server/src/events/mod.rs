//! What the pages are told as it happens.
//!
//! Every open page has one event socket with its own bounded queue ([`hub`]). An event names its audience; whoever is
//! not in it never gets it into the queue. A page that missed events (closed, slow) loads the present state anew.

pub mod announcer;
pub mod hub;
pub mod socket;

use std::collections::HashSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    calls::{Call, captions::CaptionLine},
    channels::Message,
    jobs::JobView,
    people::accounts::Person,
    rights::{Deed, Role, Viewer},
};

/// Server to page.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// First on each socket.
    Hello {
        /// Who the server thinks this is.
        user: Person,
    },
    /// Somebody started a call.
    Ring {
        /// The call.
        call: Box<Call>,
        /// Who rings.
        from: Person,
    },
    /// Anything about a call changed: the whole call.
    Call {
        /// The call.
        call: Box<Call>,
    },
    /// A call is over.
    CallEnded {
        /// The call.
        call_id: String,
        /// Who was in it, when.
        attendance: Vec<Attendance>,
    },
    /// A message was written.
    Message {
        /// Channel.
        channel_id: String,
        /// The message.
        message: Message,
    },
    /// A short-lived emoji.
    Reaction {
        /// The call.
        call_id: String,
        /// Who.
        identity: String,
        /// One emoji.
        emoji: String,
    },
    /// A line of live captions; the same segment_id replaces the earlier line.
    Caption(CaptionLine),
    /// A job changed (officers and operators).
    Job {
        /// The job.
        job: JobView,
    },
}

/// Who was in a call, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
pub struct Attendance {
    /// Person or guest id.
    pub identity: String,
    /// Name.
    pub display_name: String,
    /// Unix ms.
    pub joined_at_ms: i64,
    /// Unix ms; absent: unknown.
    pub left_at_ms: Option<i64>,
}

/// Who gets an event.
#[derive(Debug, Clone)]
pub enum Audience {
    /// All people who may see channels, and the guests of one call.
    Conversing {
        /// Guests of this call get it too.
        guests_of: Option<String>,
        /// Not to this person.
        except: Option<String>,
    },
    /// These people and guests.
    Identities(HashSet<String>),
    /// Holders of any of these roles.
    Roles(&'static [Role]),
}

impl Audience {
    /// Whether this viewer may get the event.
    pub fn reaches(&self, viewer: &Viewer) -> bool {
        match self {
            Self::Conversing { guests_of, except } => {
                except.as_deref() != Some(viewer.id.as_str())
                    && match (&viewer.guest_call, guests_of) {
                        (None, _) => viewer.may(Deed::Converse),
                        (Some(own), Some(call)) => own == call,
                        (Some(_), None) => false,
                    }
            }
            Self::Identities(identities) => identities.contains(&viewer.id),
            Self::Roles(roles) => roles.iter().any(|role| viewer.has(*role)),
        }
    }
}

/// An event with its time, as the page gets it.
#[derive(Debug, Serialize)]
pub(crate) struct Stamped<'a> {
    at_ms: i64,
    #[serde(flatten)]
    event: &'a Event,
}

/// The JSON text for one viewer: calls carry `you`, which differs.
pub(crate) fn text_for(event: &Event, at_ms: i64, viewer: &Viewer) -> String {
    let own = match event {
        Event::Call { call } => Some(Event::Call { call: Box::new((**call).clone().seen_by(viewer)) }),
        Event::Ring { call, from } => Some(Event::Ring { call: Box::new((**call).clone().seen_by(viewer)), from: from.clone() }),
        Event::Hello { .. }
        | Event::CallEnded { .. }
        | Event::Message { .. }
        | Event::Reaction { .. }
        | Event::Caption(_)
        | Event::Job { .. } => None,
    };
    serde_json::to_string(&Stamped { at_ms, event: own.as_ref().unwrap_or(event) }).unwrap_or_default()
}
