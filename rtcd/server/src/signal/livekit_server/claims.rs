//! What an access token says: LiveKit's claims and grants, all of them.

use std::collections::HashMap;

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::participant_info::{Kind, KindDetail};
use serde::{Deserialize, Serialize};

/// The claims of a token. Grants for services that this server does not have (SIP, agents, inference) open nothing here, so
/// they are not read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The API key that signed it.
    pub iss: String,
    /// The participant's identity.
    pub sub: String,
    /// The identity of tokens of old SDKs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Unix, seconds.
    pub exp: u64,
    /// Unix, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// For people.
    pub name: String,
    /// What the participant is: `standard`, `ingress`, `egress`, `sip`, `agent`, `connector` or `bridge`.
    pub kind: String,
    /// More of that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kind_details: Vec<String>,
    /// What it opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// Settings of the room if this participant is the first in it: LiveKit's `RoomConfiguration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_config: Option<serde_json::Value>,
    /// A named set of such settings, which only LiveKit's cloud has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
    /// Of the body that the token goes with, base64. Server SDKs of today leave it out of requests; where it stands it has to fit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Participant metadata.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Participant attributes.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub attributes: HashMap<String, String>,
}

/// LiveKit's `VideoGrant`. `None` where the token leaves the default to the server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    /// May make and delete rooms.
    pub room_create: bool,
    /// May list rooms.
    pub room_list: bool,
    /// May record (LiveKit's egress).
    pub room_record: bool,
    /// May do to its room what servers do.
    pub room_admin: bool,
    /// May join its room.
    pub room_join: bool,
    /// Its room.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// May send media. By default yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// May receive media. By default yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// May send data. By default as `can_publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// Sources of which media may be sent; none named: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// May change its own name, metadata and attributes. By default no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// May use LiveKit's ingress.
    pub ingress_admin: bool,
    /// Others do not see it.
    pub hidden: bool,
    /// It records.
    pub recorder: bool,
    /// It may register as a worker of LiveKit's agents.
    pub agent: bool,
    /// Gets what others measure of their calls. By default no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    /// May manage agents' sessions. By default no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    /// Where it may move or forward participants to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
}

impl Claims {
    /// The participant's identity.
    #[must_use]
    pub fn identity(&self) -> &str {
        if self.sub.is_empty() { &self.jti } else { &self.sub }
    }

    /// The grant, with nothing granted where the token has none.
    #[must_use]
    pub fn grant(&self) -> VideoGrant {
        self.video.clone().unwrap_or_default()
    }

    /// What the participant is, as a number of LiveKit's `ParticipantInfo.Kind`. Words that are not known are a person, as there.
    #[must_use]
    pub fn participant_kind(&self) -> Kind {
        Kind::from_str_name(&self.kind.to_ascii_uppercase()).unwrap_or(Kind::Standard)
    }

    /// The details that are known.
    #[must_use]
    pub fn participant_kind_details(&self) -> Vec<i32> {
        let known = self.kind_details.iter().filter_map(|name| KindDetail::from_str_name(&name.to_ascii_uppercase()));
        known.map(Into::into).collect()
    }

    /// Settings of a room that this token makes.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn room_configuration(&self) -> Result<lk::RoomConfiguration, serde_json::Error> {
        self.room_config.clone().map_or_else(|| Ok(lk::RoomConfiguration::default()), serde_json::from_value)
    }
}

impl VideoGrant {
    /// As the adapter takes them.
    #[must_use]
    pub fn rights(&self) -> v1::Grants {
        let can_publish = self.can_publish.unwrap_or(true);
        v1::Grants {
            can_publish,
            can_subscribe: self.can_subscribe.unwrap_or(true),
            can_publish_data: self.can_publish_data.unwrap_or(can_publish),
            hidden: self.hidden,
            host: self.room_admin,
            can_update_own_metadata: self.can_update_own_metadata.unwrap_or(false),
            can_publish_sources: self.can_publish_sources.clone(),
            recorder: self.recorder,
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics.unwrap_or(false),
            can_manage_agent_session: self.can_manage_agent_session.unwrap_or(false),
        }
    }

    /// The grant of somebody whose permission was changed.
    #[must_use]
    #[expect(deprecated, reason = "older SDKs still read the fields that newer ones replaced")]
    pub fn with_permission(mut self, permission: &lk::ParticipantPermission) -> Self {
        self.can_publish = Some(permission.can_publish);
        self.can_subscribe = Some(permission.can_subscribe);
        self.can_publish_data = Some(permission.can_publish_data);
        self.can_publish_sources = permission.can_publish_sources().map(|source| source.as_str_name().to_ascii_lowercase()).collect();
        self.can_update_own_metadata = Some(permission.can_update_metadata);
        self.hidden = permission.hidden;
        self.recorder = permission.recorder;
        self.agent = permission.agent;
        self.can_subscribe_metrics = Some(permission.can_subscribe_metrics);
        self.can_manage_agent_session = Some(permission.can_manage_agent_session);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: serde_json::Value) -> Claims {
        serde_json::from_value(json).expect("claims")
    }

    #[test]
    fn what_a_token_leaves_out_is_as_livekit_has_it() {
        let rights = claims(serde_json::json!({ "video": { "roomJoin": true } })).grant().rights();
        assert!(rights.can_publish && rights.can_subscribe && rights.can_publish_data);
        assert!(!rights.can_update_own_metadata && !rights.hidden && !rights.host && !rights.can_subscribe_metrics);
        let silent = claims(serde_json::json!({ "video": { "canPublish": false } })).grant().rights();
        assert!(!silent.can_publish && !silent.can_publish_data && silent.can_subscribe, "data goes with media where nothing is said");
        let data = claims(serde_json::json!({ "video": { "canPublish": false, "canPublishData": true } })).grant().rights();
        assert!(!data.can_publish && data.can_publish_data);
    }

    #[test]
    fn kinds_identities_and_room_settings_are_read() {
        let all = claims(serde_json::json!({
            "jti": "old", "kind": "agent", "kindDetails": ["cloud_agent", "no-such"],
            "roomConfig": { "emptyTimeout": 7, "maxParticipants": 3, "metadata": "m" },
        }));
        assert_eq!((all.identity(), all.participant_kind()), ("old", Kind::Agent));
        assert_eq!(all.participant_kind_details(), [i32::from(KindDetail::CloudAgent)]);
        let room = all.room_configuration().expect("settings");
        assert_eq!((room.empty_timeout, room.max_participants, room.metadata.as_str()), (7, 3, "m"));
        assert!(claims(serde_json::json!({ "roomConfig": { "emptyTimeout": "soon" } })).room_configuration().is_err());
        assert_eq!(claims(serde_json::json!({ "kind": "martian" })).participant_kind(), Kind::Standard);
    }

    #[test]
    fn a_changed_permission_goes_into_the_next_token() {
        let before = claims(serde_json::json!({ "video": { "roomJoin": true, "room": "r", "roomAdmin": true } })).grant();
        let permission = lk::ParticipantPermission {
            can_subscribe: true,
            can_publish_sources: vec![lk::TrackSource::Microphone.into(), lk::TrackSource::ScreenShare.into()],
            ..lk::ParticipantPermission::default()
        };
        let after = before.with_permission(&permission);
        assert!(after.room_join && after.room_admin && after.room == "r", "what is no permission stays");
        assert_eq!(after.can_publish_sources, ["microphone", "screen_share"]);
        assert!(!after.rights().can_publish && after.rights().can_subscribe);
    }
}
