//! One input being handled: now, and where the outputs go.

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::signal_response::Message;
use rtcd_core::ids::CallId;

use super::call::{Call, Participant};
use super::encode;
use crate::shard::Command;
use crate::signal::seam::{AdapterOutput, AdapterSettings, Fault, Moment, RoomAnswer, RoomFault, RoomReply, SessionKey};

/// One input being handled.
pub(super) struct Turn<'a> {
    pub(super) now: Moment,
    pub(super) settings: &'a AdapterSettings,
    pub(super) out: &'a mut Vec<AdapterOutput>,
}

impl Turn<'_> {
    pub(super) fn core(&mut self, command: Command) {
        self.out.push(AdapterOutput::Core(command));
    }

    pub(super) fn frame(&mut self, session: &SessionKey, message: Message) {
        self.out.push(AdapterOutput::Frame { session: session.clone(), livekit: encode(message) });
    }

    /// To one participant; nothing while it has no session (what it must not miss is sent when it resumes).
    pub(super) fn tell(&mut self, participant: &Participant, message: Message) {
        if let Some(session) = &participant.session {
            self.frame(session, message);
        }
    }

    /// To everybody in the call but `except`. Encoded once.
    pub(super) fn broadcast(&mut self, call: &Call, except: Option<&Participant>, message: Message) {
        let livekit = encode(message);
        for participant in &call.participants {
            if except.is_some_and(|except| except.peer == participant.peer) {
                continue;
            }
            if let Some(session) = &participant.session {
                self.out.push(AdapterOutput::Frame { session: session.clone(), livekit: livekit.clone() });
            }
        }
    }

    pub(super) fn event(&mut self, call: &Call, event: v1::call_event::Event) {
        let event = v1::CallEvent { call_id: call.name.clone(), at_ms: self.now.unix_ms, event: Some(event) };
        self.out.push(AdapterOutput::Event { call: call.id.clone(), event });
    }

    pub(super) fn answer(&mut self, reply: RoomReply, answer: Result<RoomAnswer, RoomFault>) {
        self.out.push(AdapterOutput::RoomAnswer { reply, answer });
    }

    pub(super) fn fault(&mut self, call: &CallId, fault: Fault) {
        self.out.push(AdapterOutput::Fault { call: call.clone(), fault });
    }

    pub(super) fn session_ended(&mut self, session: SessionKey, participant_sid: &str, reason: v1::EndReason) {
        let ended =
            v1::SessionEnded { session_id: session.id.to_string(), participant_sid: participant_sid.to_owned(), reason: reason.into() };
        self.out.push(AdapterOutput::SessionEnded { session, ended });
    }

    pub(super) fn room(&self, call: &Call) -> lk::Room {
        let visible = call.participants.iter().filter(|participant| !participant.grants.hidden);
        let (participants, publishers) = visible.fold((0, 0), |(all, publishing), participant| {
            (all + 1, publishing + u32::from(participant.tracks.iter().any(|track| track.live) || !participant.data_tracks.is_empty()))
        });
        lk::Room {
            sid: call.sid.clone(),
            name: call.name.clone(),
            creation_time: call.started_at_ms / 1000,
            creation_time_ms: call.started_at_ms,
            metadata: call.metadata.clone(),
            empty_timeout: whole_seconds(call.timeouts.empty),
            departure_timeout: whole_seconds(call.timeouts.departure),
            max_participants: call.participants_max,
            num_participants: participants,
            num_publishers: publishers,
            active_recording: call.recording,
            enabled_codecs: super::translate::enabled_codecs(),
            ..lk::Room::default()
        }
    }

    /// With credentials made for this participant, now.
    pub(super) fn ice_servers(&self, participant: &Participant) -> Vec<lk::IceServer> {
        self.settings.turn_servers.for_client(self.now.unix_ms, participant.peer.as_str())
    }

    pub(super) fn server_info(&self) -> lk::ServerInfo {
        lk::ServerInfo {
            region: self.settings.region.clone(),
            ..super::translate::server_info(&self.settings.node_id, self.settings.version)
        }
    }
}

fn whole_seconds(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
