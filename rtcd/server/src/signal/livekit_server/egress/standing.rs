//! Rooms that record by themselves: what their maker orders for whatever will be in them (`RoomEgress`).

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use lk::{auto_participant_egress, auto_track_egress, direct_file_output, participant_egress_request, track_egress_request};
use tokio::sync::mpsc;

use super::Egress;
use super::order::{Request, Wanted};
use crate::node::Node;
use crate::signal::livekit::new_sid;
use crate::signal::livekit_server::twirp::Code;
use crate::signal::seam::RoomFault;

/// Pause before an offloader that could not be reached is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// The orders of a room.
#[derive(Clone, Debug)]
pub struct Standing {
    orders: lk::RoomEgress,
    room: String,
    /// API key of who gave them, which vouches for the consent of whoever is recorded.
    key: String,
}

/// An egress that is due.
#[derive(Debug)]
pub struct Due {
    key: String,
    room: String,
    request: DueRequest,
}

#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
enum DueRequest {
    Room(Box<lk::RoomCompositeEgressRequest>),
    Participant(Box<lk::ParticipantEgressRequest>),
    Track(Box<lk::TrackEgressRequest>),
}

impl Due {
    /// What it wants.
    ///
    /// # Errors
    /// It cannot be done. Looked at when it was ordered.
    pub fn wanted(&self) -> Result<Wanted, RoomFault> {
        self.request.wanted()
    }
}

impl Request for DueRequest {
    fn wanted(&self) -> Result<Wanted, RoomFault> {
        match self {
            Self::Room(request) => request.wanted(),
            Self::Participant(request) => request.wanted(),
            Self::Track(request) => request.wanted(),
        }
    }
}

impl Standing {
    /// What was ordered for a room, by the holder of an API key.
    ///
    /// # Errors
    /// Some of it cannot be done: said when the room is made, not when it is too late.
    pub fn new(orders: &lk::RoomEgress, room: &str, key: &str) -> Result<Self, RoomFault> {
        let standing = Self { orders: orders.clone(), room: room.to_owned(), key: key.to_owned() };
        let all = [standing.of_room(), standing.of_participant("somebody"), standing.of_track("TR_some")];
        for due in all.into_iter().flatten() {
            due.request.wanted()?;
        }
        Ok(standing)
    }

    fn due(&self, request: DueRequest) -> Due {
        Due { key: self.key.clone(), room: self.room.clone(), request }
    }

    /// As soon as there is something to record in the room.
    #[must_use]
    pub fn of_room(&self) -> Option<Due> {
        let request = lk::RoomCompositeEgressRequest { room_name: self.room.clone(), ..self.orders.room.clone()? };
        Some(self.due(DueRequest::Room(Box::new(request))))
    }

    /// As soon as somebody publishes something.
    #[must_use]
    pub fn of_participant(&self, identity: &str) -> Option<Due> {
        use auto_participant_egress::Options;
        let wanted = self.orders.participant.clone()?;
        let request = lk::ParticipantEgressRequest {
            room_name: self.room.clone(),
            identity: identity.to_owned(),
            file_outputs: wanted.file_outputs,
            segment_outputs: wanted.segment_outputs,
            options: wanted.options.map(|options| match options {
                Options::Preset(preset) => participant_egress_request::Options::Preset(preset),
                Options::Advanced(advanced) => participant_egress_request::Options::Advanced(advanced),
            }),
            ..lk::ParticipantEgressRequest::default()
        };
        Some(self.due(DueRequest::Participant(Box::new(request))))
    }

    /// As soon as a track is there.
    #[must_use]
    pub fn of_track(&self, track: &str) -> Option<Due> {
        use auto_track_egress::Output;
        let wanted = self.orders.tracks.clone()?;
        let file = lk::DirectFileOutput {
            filepath: a_name_for_each(&wanted.filepath),
            disable_manifest: wanted.disable_manifest,
            output: wanted.output.map(|output| match output {
                Output::S3(store) => direct_file_output::Output::S3(store),
                Output::Gcp(store) => direct_file_output::Output::Gcp(store),
                Output::Azure(store) => direct_file_output::Output::Azure(store),
                Output::AliOss(store) => direct_file_output::Output::AliOss(store),
            }),
        };
        let request = lk::TrackEgressRequest {
            room_name: self.room.clone(),
            track_id: track.to_owned(),
            output: Some(track_egress_request::Output::File(file)),
            ..lk::TrackEgressRequest::default()
        };
        Some(self.due(DueRequest::Track(Box::new(request))))
    }
}

/// One path for all tracks would have each overwrite the one before.
fn a_name_for_each(path: &str) -> String {
    if path.is_empty() || path.ends_with('/') || path.contains("{track_id}") {
        return path.to_owned();
    }
    let name = path.rfind('/').map_or(0, |at| at + 1);
    let (before, ending) = path.split_at(path.get(name..).and_then(|name| name.rfind('.')).map_or(path.len(), |dot| name + dot));
    format!("{before}-{{track_id}}{ending}")
}

/// Begins what is due, until the node ends.
pub async fn run(node: Arc<Node>, egress: Egress, mut due: mpsc::Receiver<Due>) {
    while let Some(due) = due.recv().await {
        tokio::spawn(begin(Arc::clone(&node), egress.clone(), due));
    }
}

/// Goes on while the offloader cannot be reached, for as long as there is something to record.
async fn begin(node: Arc<Node>, egress: Egress, due: Due) {
    let id = new_sid("EG_");
    loop {
        match super::start(&node, &egress, &due.key, id.clone(), &due.request).await {
            Ok(_) => return,
            Err(error) if error.code == Code::Unavailable => tokio::time::sleep(AGAIN).await,
            Err(error) => {
                tracing::warn!(room = due.room, egress = id, error = error.msg, "an egress that the room's maker ordered did not begin");
                let info = lk::EgressInfo {
                    egress_id: id,
                    room_name: due.room,
                    status: lk::EgressStatus::EgressFailed.into(),
                    error: error.msg,
                    ..lk::EgressInfo::default()
                };
                return super::tell(&node, "egress_ended", info);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_do_not_overwrite_each_other() {
        for (path, each) in [
            ("", ""),
            ("day/", "day/"),
            ("{track_id}.ogg", "{track_id}.ogg"),
            ("day/take", "day/take-{track_id}"),
            ("day.1/take", "day.1/take-{track_id}"),
            ("day.1/take.2.ogg", "day.1/take.2-{track_id}.ogg"),
        ] {
            assert_eq!(a_name_for_each(path), each);
        }
    }

    #[test]
    fn what_cannot_be_recorded_is_refused_before_there_is_a_room() {
        let file = lk::EncodedFileOutput { filepath: "a".to_owned(), ..Default::default() };
        let segments = lk::SegmentedFileOutput::default();
        let room = lk::RoomCompositeEgressRequest { file_outputs: vec![file.clone()], ..Default::default() };
        let participant = lk::AutoParticipantEgress { file_outputs: vec![file], ..Default::default() };
        let good = lk::RoomEgress {
            room: Some(room.clone()),
            participant: Some(participant.clone()),
            tracks: Some(lk::AutoTrackEgress::default()),
        };
        let standing = Standing::new(&good, "r", "key").expect("all of it can be done");
        assert!(matches!(&standing.of_room().expect("due").request, DueRequest::Room(request) if request.room_name == "r"));
        assert!(
            matches!(&standing.of_participant("ann").expect("due").request, DueRequest::Participant(request) if request.identity == "ann")
        );
        assert!(matches!(&standing.of_track("TR_1").expect("due").request, DueRequest::Track(request) if request.track_id == "TR_1"));
        for bad in [
            lk::RoomEgress {
                room: Some(lk::RoomCompositeEgressRequest { segment_outputs: vec![segments.clone()], ..room }),
                ..good.clone()
            },
            lk::RoomEgress {
                participant: Some(lk::AutoParticipantEgress { segment_outputs: vec![segments], ..participant }),
                ..good.clone()
            },
            lk::RoomEgress {
                tracks: Some(lk::AutoTrackEgress {
                    output: Some(auto_track_egress::Output::Gcp(Default::default())),
                    ..Default::default()
                }),
                ..good
            },
        ] {
            assert!(matches!(Standing::new(&bad, "r", "key"), Err(RoomFault::Unsupported(_))), "{bad:?}");
        }
        let none = Standing::new(&lk::RoomEgress::default(), "r", "key").expect("nothing is ordered");
        assert!(none.of_room().is_none() && none.of_participant("ann").is_none() && none.of_track("TR_1").is_none());
    }
}
