//! The token by which an agent joins: LiveKit's own claims of it.

use std::collections::HashMap;

use livekit_protocol as lk;

use super::super::claims::{Claims, VideoGrant};
use crate::limits::AGENT_TOKEN_LIFE;

/// Tells clients which agent somebody is.
const AGENT_NAME: &str = "lk.agent_name";

/// An agent that a worker sends for a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// The key that signs its token.
    pub api_key: String,
    /// Where it goes.
    pub room: String,
    /// As the worker calls it.
    pub agent_name: String,
    /// In the room.
    pub identity: String,
    /// For people.
    pub name: String,
    /// As the worker said.
    pub metadata: String,
    /// As the worker said.
    pub attributes: HashMap<String, String>,
    /// What it may do.
    pub permission: lk::ParticipantPermission,
}

impl Agent {
    /// Its token's claims.
    #[must_use]
    pub fn claims(self, now_s: u64) -> Claims {
        // It neither records nor manages sessions by what a worker registers, as with LiveKit's server.
        let video = VideoGrant {
            room_join: true,
            room: self.room,
            agent: true,
            recorder: false,
            can_manage_agent_session: None,
            ..VideoGrant::default().with_permission(&self.permission)
        };
        let mut attributes = self.attributes;
        attributes.insert(AGENT_NAME.to_owned(), self.agent_name);
        Claims {
            iss: self.api_key,
            sub: self.identity,
            name: self.name,
            kind: "agent".to_owned(),
            nbf: Some(now_s),
            exp: now_s + AGENT_TOKEN_LIFE.as_secs(),
            video: Some(video),
            metadata: self.metadata,
            attributes,
            ..Claims::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use lk::participant_info::Kind;

    use super::*;

    #[test]
    fn an_agent_is_what_its_worker_says_and_may_what_was_registered() {
        let agent = Agent {
            api_key: "key".to_owned(),
            room: "r".to_owned(),
            agent_name: "helper".to_owned(),
            identity: "agent-1".to_owned(),
            name: "Helper".to_owned(),
            metadata: "m".to_owned(),
            attributes: HashMap::from([("a".to_owned(), "b".to_owned()), (AGENT_NAME.to_owned(), "forged".to_owned())]),
            permission: lk::ParticipantPermission {
                can_subscribe: true,
                can_publish: true,
                can_publish_sources: vec![lk::TrackSource::Microphone.into()],
                hidden: true,
                ..lk::ParticipantPermission::default()
            },
        };
        let claims = agent.claims(1000);
        assert_eq!((claims.identity(), claims.name.as_str(), claims.metadata.as_str()), ("agent-1", "Helper", "m"));
        assert_eq!((claims.nbf, claims.exp, claims.participant_kind()), (Some(1000), 4600, Kind::Agent));
        assert_eq!((claims.attributes["a"].as_str(), claims.attributes[AGENT_NAME].as_str()), ("b", "helper"));
        let grant = claims.grant();
        assert!(grant.room_join && grant.agent && grant.room == "r" && grant.can_publish_sources == ["microphone"]);
        let rights = grant.rights();
        assert!(rights.can_subscribe && rights.can_publish && rights.hidden && rights.agent);
        assert!(!rights.can_publish_data && !rights.recorder && !rights.host && !rights.can_update_own_metadata);
    }
}
