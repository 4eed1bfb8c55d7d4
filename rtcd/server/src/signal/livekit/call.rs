//! Who is in a call and what they publish, as LiveKit describes it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use conclave_proto::v1;
use livekit_protocol as lk;
use lk::participant_info::{Kind, State};
use rtcd_core::ids::{CallId, PeerId, TrackId};
use rtcd_core::rtp::PlayoutDelay;

use super::blob::Blobs;
use super::data_track::DataTrack;
use super::media_key::Granted;
use super::rpc::Rpc;
use super::translate;
use crate::limits;
use crate::signal::seam::{AdapterSettings, SessionKey};

/// A call (LiveKit: room).
#[derive(Debug)]
pub(super) struct Call {
    /// The core's id: tenant and name.
    pub(super) id: CallId,
    /// What clients and message servers call it.
    pub(super) name: String,
    /// LiveKit's id of this run of the call.
    pub(super) sid: String,
    pub(super) started_at_ms: i64,
    pub(super) recording: bool,
    /// Room metadata, from the message server.
    pub(super) metadata: String,
    /// In order of joining.
    pub(super) participants: Vec<Participant>,
    /// Answers to the recording notice, by identity: a rejoin does not ask again.
    pub(super) consents: HashMap<String, bool>,
    /// Who left lately: a client that resumes may have missed it, be its older connection known to be dead or not.
    pub(super) departures: VecDeque<(Instant, lk::ParticipantInfo)>,
    /// Who was here and has left.
    pub(super) attendance: Vec<v1::Attendance>,
    /// Nobody is here: since when, and why the last one went.
    ///
    /// Agents and recorders are nobody here: a room that only they are in is empty, as with LiveKit's server.
    pub(super) vacant: Option<(Instant, v1::EndReason)>,
    /// The core knows of it: somebody has joined, be it an agent.
    pub(super) opened: bool,
    /// How long it waits then.
    pub(super) timeouts: Timeouts,
    /// Participants at most; 0: as many as the core takes.
    pub(super) participants_max: u32,
    /// How long players may hold pictures back; of who joins from now on.
    pub(super) playout_delay: Option<PlayoutDelay>,
    /// Egresses that record it, and for whose consent the API key vouches that asked for each; `None`: for everybody's.
    pub(super) vouched: BTreeMap<String, Option<String>>,
    /// Keys of what is encrypted end to end that recordings may have.
    pub(super) granted: Granted,
    /// What its maker ordered to be recorded.
    pub(super) orders: Option<super::standing::Orders>,
    /// Methods of participants that a server called, unanswered.
    pub(super) rpcs: Vec<Rpc>,
    /// The handle that a data track was given last.
    pub(super) data_handle: u16,
}

/// How long an empty call waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For the first one.
    pub(super) empty: Duration,
    /// For somebody to come back.
    pub(super) departure: Duration,
    /// Somebody has been here.
    pub(super) entered: bool,
}

impl Timeouts {
    pub(super) fn now(self) -> Duration {
        if self.entered { self.departure } else { self.empty }
    }
}

/// A participant.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) peer: PeerId,
    pub(super) identity: String,
    pub(super) name: String,
    pub(super) metadata: String,
    pub(super) attributes: HashMap<String, String>,
    pub(super) grants: v1::Grants,
    /// What it is: a person, an agent, …
    pub(super) kind: i32,
    pub(super) kind_details: Vec<i32>,
    /// SDK and browser, for operators.
    pub(super) client: String,
    pub(super) client_protocol: i32,
    pub(super) capabilities: Vec<i32>,
    pub(super) single: bool,
    pub(super) auto_subscribe: bool,
    /// The core gives it every track by itself; what it may not have is declined one by one.
    pub(super) core_subscribes: bool,
    pub(super) joined_at: Instant,
    pub(super) joined_at_ms: i64,
    /// Of its `ParticipantInfo`: clients ignore older ones.
    pub(super) version: u32,
    /// Media is connected.
    pub(super) active: bool,
    pub(super) session: Option<SessionKey>,
    /// Since when there is no session.
    pub(super) detached_at: Option<Instant>,
    pub(super) tracks: Vec<Track>,
    pub(super) data_tracks: Vec<DataTrack>,
    /// It gets data tracks without asking.
    pub(super) auto_subscribe_data: bool,
    /// Data tracks of others that it chose to have or not to have, where that differs from `auto_subscribe_data`.
    pub(super) data_choices: HashMap<String, bool>,
    /// Tracks of others that it chose to have or not to have, where that differs from `auto_subscribe`.
    pub(super) choices: HashMap<TrackId, bool>,
    /// Subscriptions paused for want of bandwidth.
    pub(super) paused: HashSet<TrackId>,
    /// Who may have its tracks; `None`: everybody.
    pub(super) permission: Option<lk::SubscriptionPermission>,
    /// Highest number of its reliable data packets: told when it resumes, so that it repeats what was lost.
    pub(super) data_sequence: u32,
    /// An egress of this participant was ordered, and has begun.
    pub(super) recorded_by_order: bool,
    /// What it stored for others to fetch.
    pub(super) blobs: Blobs,
    /// How good its connection was when it was judged last.
    pub(super) verdict: Option<lk::ConnectionQualityInfo>,
}

/// An announced or live track.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: TrackId,
    pub(super) cid: String,
    pub(super) info: lk::TrackInfo,
    /// Media is bound: others see it.
    pub(super) live: bool,
    /// Dynacast: what the client was told last.
    pub(super) wanted_layers: Vec<(u8, bool)>,
    /// The publisher was told that somebody has it.
    pub(super) subscribed: bool,
    /// The second codec that the client can publish it in.
    pub(super) backup: Option<super::backup::Backup>,
}

impl Call {
    pub(super) fn new(id: CallId, name: String, started_at_ms: i64, settings: &AdapterSettings) -> Self {
        Self {
            timeouts: Timeouts { empty: settings.rooms.empty, departure: settings.departure, entered: false },
            participants_max: settings.rooms.participants_max,
            playout_delay: None,
            rpcs: Vec::new(),
            data_handle: 0,
            vouched: BTreeMap::new(),
            granted: Granted::default(),
            orders: None,
            id,
            name,
            sid: translate::new_sid("RM_"),
            started_at_ms,
            recording: false,
            metadata: String::new(),
            participants: Vec::new(),
            consents: HashMap::new(),
            departures: VecDeque::new(),
            attendance: Vec::new(),
            vacant: None,
            opened: false,
        }
    }

    pub(super) fn participant(&self, peer: &PeerId) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.peer == *peer)
    }

    pub(super) fn participant_mut(&mut self, peer: &PeerId) -> Option<&mut Participant> {
        self.participants.iter_mut().find(|participant| participant.peer == *peer)
    }

    pub(super) fn by_identity(&self, identity: &str) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.identity == identity)
    }

    /// A track by its sid, with its publisher.
    pub(super) fn track(&self, sid: &str) -> Option<(&Participant, &Track)> {
        self.participants.iter().find_map(|participant| Some((participant, participant.track(sid)?)))
    }

    /// Who is here, or what somebody is, has changed: the call is held by people, or empty since now and for this reason.
    pub(super) fn note_holders(&mut self, now: Instant, reason: v1::EndReason) {
        if self.participants.iter().any(|participant| !participant.is_dependent()) {
            self.vacant = None;
            self.timeouts.entered = true;
        } else if self.vacant.is_none() {
            self.vacant = Some((now, reason));
        }
    }

    /// Keeps for those who resume that somebody left.
    pub(super) fn keep_departure(&mut self, now: Instant, grace: Duration, info: &lk::ParticipantInfo) {
        let over = |since: Instant| now.saturating_duration_since(since) > limits::DEPARTURES_KEPT + grace;
        while self.departures.len() >= limits::DEPARTURES_MAX || self.departures.front().is_some_and(|(since, _)| over(*since)) {
            self.departures.pop_front();
        }
        // Up to 128 KiB that nobody wants to know of somebody who has left.
        let info = lk::ParticipantInfo { metadata: String::new(), attributes: HashMap::new(), ..info.clone() };
        self.departures.push_back((now, info));
    }

    /// Who left since `participant` joined. Clients remove people by their identity: who is here again is not among them.
    pub(super) fn departures_for(&self, participant: &Participant) -> impl Iterator<Item = lk::ParticipantInfo> {
        let concerns =
            |(since, info): &&(Instant, lk::ParticipantInfo)| *since >= participant.joined_at && self.by_identity(&info.identity).is_none();
        self.departures.iter().filter(concerns).map(|(_, info)| info.clone())
    }

    /// Adds to the attendance list.
    pub(super) fn note_departure(&mut self, participant: &Participant, left_at_ms: i64, reason: v1::EndReason) {
        if self.attendance.len() < limits::ATTENDANCE_MAX {
            self.attendance.push(v1::Attendance {
                identity: participant.identity.clone(),
                display_name: participant.name.clone(),
                joined_at_ms: participant.joined_at_ms,
                left_at_ms,
                reason: reason.into(),
            });
        }
    }
}

/// Agents and recorders: there for the others, who decide how long a room lives and how many it has.
pub(super) fn serves_others(kind: i32, grants: &v1::Grants) -> bool {
    [Kind::Agent.into(), Kind::Egress.into()].contains(&kind) || grants.agent || grants.recorder
}

impl Participant {
    /// See [`serves_others`].
    pub(super) fn is_dependent(&self) -> bool {
        serves_others(self.kind, &self.grants)
    }

    /// It may speak for others, whose words it has written down.
    pub(super) fn is_agent(&self) -> bool {
        self.kind == i32::from(Kind::Agent) || self.grants.agent
    }

    pub(super) fn track(&self, sid: &str) -> Option<&Track> {
        self.tracks.iter().find(|track| track.id.as_str() == sid)
    }

    pub(super) fn track_mut(&mut self, sid: &str) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.id.as_str() == sid)
    }

    /// As others see it, with its live tracks.
    pub(super) fn info(&self) -> lk::ParticipantInfo {
        self.info_with(if self.active { State::Active } else { State::Joined })
    }

    pub(super) fn info_with(&self, state: State) -> lk::ParticipantInfo {
        let tracks: Vec<_> = self.tracks.iter().filter(|track| track.live).map(|track| track.info.clone()).collect();
        lk::ParticipantInfo {
            sid: self.peer.as_str().to_owned(),
            identity: self.identity.clone(),
            state: state.into(),
            is_publisher: !tracks.is_empty() || !self.data_tracks.is_empty(),
            tracks,
            data_tracks: self.data_tracks.iter().map(|track| track.info.clone()).collect(),
            metadata: self.metadata.clone(),
            joined_at: self.joined_at_ms / 1000,
            joined_at_ms: self.joined_at_ms,
            name: self.name.clone(),
            version: self.version,
            permission: Some(translate::permission(&self.grants)),
            kind: self.kind,
            kind_details: self.kind_details.clone(),
            attributes: self.attributes.clone(),
            client_protocol: self.client_protocol,
            capabilities: self.capabilities.clone(),
            ..lk::ParticipantInfo::default()
        }
    }

    /// May `other` have this participant's track?
    pub(super) fn allows(&self, other: &Participant, sid: &str) -> bool {
        permits(self.permission.as_ref(), other, sid)
    }
}

/// Does a publisher's permission, if there is one, let `other` have the track?
pub(super) fn permits(permission: Option<&lk::SubscriptionPermission>, other: &Participant, sid: &str) -> bool {
    let Some(permission) = permission else { return true };
    permission.all_participants
        || permission.track_permissions.iter().any(|granted| {
            let named = granted.participant_identity == other.identity
                || (!granted.participant_sid.is_empty() && granted.participant_sid == other.peer.as_str());
            named && (granted.all_tracks || granted.track_sids.iter().any(|granted| granted == sid))
        })
}
