//! A room whose maker ordered that it records by itself: what is due when something is published.

use livekit_protocol as lk;
use rtcd_core::ids::PeerId;

use super::call::Call;
use super::turn::Turn;
use crate::signal::livekit_server::egress::standing::Standing;
use crate::signal::seam::AdapterOutput;

/// The orders, and how far they are carried out.
#[derive(Debug)]
pub(super) struct Orders {
    standing: Standing,
    /// The room's own egress is under way.
    room_begun: bool,
}

impl Orders {
    /// Everybody has left, and the room's egress ends with that; who comes then is recorded anew.
    pub(super) fn note_empty(&mut self) {
        self.room_begun = false;
    }
}

impl Call {
    /// From now on, and for what is there already.
    pub(super) fn record_by_itself(&mut self, turn: &mut Turn<'_>, standing: Standing) {
        self.orders = Some(Orders { standing, room_begun: false });
        let published = self.participants.iter_mut().flat_map(|participant| {
            participant.recorded_by_order = false;
            participant.tracks.iter().filter(|track| track.live).map(|track| (participant.peer.clone(), track.id.as_str().to_owned()))
        });
        for (peer, sid) in published.collect::<Vec<_>>() {
            self.begin_due(turn, &peer, &sid);
        }
    }

    /// A track is live: whatever was ordered for then.
    pub(super) fn begin_due(&mut self, turn: &mut Turn<'_>, peer: &PeerId, sid: &str) {
        let Some(orders) = &mut self.orders else { return };
        let Some(participant) = self.participants.iter_mut().find(|participant| participant.peer == *peer) else { return };
        if participant.kind == i32::from(lk::participant_info::Kind::Egress) {
            return;
        }
        let first_of_room = !std::mem::replace(&mut orders.room_begun, true);
        let first_of_participant = !std::mem::replace(&mut participant.recorded_by_order, true);
        let of_room = first_of_room.then(|| orders.standing.of_room()).flatten();
        let of_participant = first_of_participant.then(|| orders.standing.of_participant(&participant.identity)).flatten();
        for due in [of_room, of_participant, orders.standing.of_track(sid)].into_iter().flatten() {
            turn.out.push(AdapterOutput::Egress(Box::new(due)));
        }
    }
}
