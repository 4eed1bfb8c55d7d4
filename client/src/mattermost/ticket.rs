//! Which media server a call has: the plugin's version 2 gives out tokens of a LiveKit room, version 1 has no such thing.

use reqwest::Method;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::limits::{TICKET_PAUSE, TICKET_TRIES, TICKET_WITHIN};
use super::site::json;
use super::{Site, SiteError};
use crate::ClientError;

/// The way into a LiveKit room. Without `Debug`: the token is a secret.
#[derive(Clone, Deserialize)]
pub(super) struct Ticket {
    pub(super) url: String,
    pub(super) token: String,
}

impl Site {
    /// The version of the site's Calls plugin, `1.12.2`.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn plugin_version(&self) -> Result<String, SiteError> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let answer: Version = json(self.plugin(Method::GET, &["version"], &[])?).await?;
        Ok(answer.version)
    }

    /// A token for a session's place in the LiveKit room of its call; `None`: the plugin has no rooms.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what to look at when the plugin says no; another one when it says nothing for long.
    pub(super) async fn ticket(&self, channel: &str, session: &str) -> Result<Option<Ticket>, ClientError> {
        let late = |_| SiteError::NoAnswer(format!("the Calls plugin gave out no LiveKit token within {} s", TICKET_WITHIN.as_secs()));
        timeout(TICKET_WITHIN, self.asked(channel, session)).await.map_err(late)?
    }

    async fn asked(&self, channel: &str, session: &str) -> Result<Option<Ticket>, ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.livekit_token(channel, session).await {
                Ok(ticket) => return Ok(Some(ticket)),
                Err(error) => error,
            };
            match Meaning::of(&error) {
                Meaning::NoRooms => return Ok(None),
                Meaning::Again if tries < TICKET_TRIES => {
                    tracing::warn!("no LiveKit token yet: {error}; trying again");
                    sleep(TICKET_PAUSE).await;
                }
                Meaning::AskVersion { unless_known } => {
                    let first = self.plugin_version().await.ok().as_deref().and_then(is_first);
                    if first.unwrap_or(unless_known) {
                        return Ok(None);
                    }
                    return Err(refused(&error));
                }
                Meaning::Again => return Err(error.into()),
            }
        }
    }

    async fn livekit_token(&self, channel: &str, session: &str) -> Result<Ticket, SiteError> {
        let request = self.plugin(Method::GET, &["livekit-token"], &[("channel_id", channel), ("session_id", session)])?;
        let ticket: Ticket = json(request).await?;
        if ticket.url.is_empty() || ticket.token.is_empty() {
            return Err(SiteError::Malformed("a LiveKit token without an address or without the token itself".to_owned()));
        }
        Ok(ticket)
    }
}

fn refused(error: &SiteError) -> ClientError {
    ClientError::Refused(format!(
        "the Calls plugin gives out no LiveKit token ({error}): are LiveKitURL, LiveKitAPIKey and LiveKitAPISecret set in its configuration?"
    ))
}

/// What a failed request for a token says of the plugin.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// There are no tokens: version 1.
    NoRooms,
    /// It may pass.
    Again,
    /// Version 1 if it says that it is that, else a refusal; `unless_known`: what it is when it does not say.
    AskVersion { unless_known: bool },
}

impl Meaning {
    fn of(error: &SiteError) -> Self {
        match error {
            SiteError::Unreachable(_) | SiteError::NoAnswer(_) => Self::Again,
            SiteError::Refused { status: 404 | 405, message } => {
                // What is said where no route is; the plugin's own "not found" would be of a call or a session.
                let nobody = message.is_empty() || message.starts_with("404 page not found") || message.starts_with('<');
                if nobody { Self::NoRooms } else { Self::AskVersion { unless_known: true } }
            }
            SiteError::Refused { status, .. } if *status >= 500 || matches!(*status, 408 | 425 | 429) => Self::Again,
            SiteError::Refused { .. } | SiteError::Configuration(_) => Self::AskVersion { unless_known: false },
            // A page instead of an answer, say: sites have one for every address that they do not know.
            SiteError::Malformed(_) => Self::AskVersion { unless_known: false },
        }
    }
}

/// Whether a version is one that came before rooms; `None`: it does not say.
fn is_first(version: &str) -> Option<bool> {
    let major: u32 = version.trim().trim_start_matches('v').split('.').next()?.parse().ok()?;
    Some(major < 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_is_not_there_is_version_1_and_what_passes_is_asked_again() {
        let of = |status, message: &str| Meaning::of(&SiteError::Refused { status, message: message.to_owned() });
        for message in ["", "404 page not found", "<!DOCTYPE html>"] {
            assert_eq!(of(404, message), Meaning::NoRooms);
        }
        assert_eq!(of(404, "no call ongoing"), Meaning::AskVersion { unless_known: true });
        for status in [401, 403, 400] {
            assert_eq!(of(status, "no"), Meaning::AskVersion { unless_known: false });
        }
        for status in [429, 500, 502, 503, 504] {
            assert_eq!(of(status, "<html>"), Meaning::Again);
        }
        assert_eq!(Meaning::of(&SiteError::NoAnswer(String::new())), Meaning::Again);
    }

    #[test]
    fn versions_before_the_second_have_no_rooms() {
        let told = ["1.12.2", "0.29.0", "v1.0.0-rc1", "2.0.0", "v2.0.0-dev3", "10.1", "master", ""].map(is_first);
        assert_eq!(told, [Some(true), Some(true), Some(true), Some(false), Some(false), Some(false), None, None]);
    }
}
