//! What a room's maker asks for.

use rtcd_core::rtp::PlayoutDelay;

use super::*;
use crate::signal::seam::RoomAnswer;

impl World {
    pub(super) fn ask_room(&mut self, request: RoomRequest) -> Result<RoomAnswer, RoomFault> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.tell(AdapterInput::Room(Box::new(RoomAsk { call: call(), name: "call".to_owned(), request, reply })));
        answer.try_recv().expect("an answer")
    }

    /// A server changes what somebody may do.
    pub(super) fn allow(&mut self, identity: &str, permission: lk::ParticipantPermission) {
        let update = lk::UpdateParticipantRequest { identity: identity.to_owned(), permission: Some(permission), ..Default::default() };
        self.ask_room(RoomRequest::Update(Box::new(update))).expect("changed");
    }

    pub(super) fn make_room(&mut self, change: impl FnOnce(&mut lk::CreateRoomRequest)) -> Result<(), RoomFault> {
        let mut wanted = Box::new(lk::CreateRoomRequest { name: "call".to_owned(), ..Default::default() });
        change(&mut wanted);
        self.ask_room(RoomRequest::Create { wanted, key: "key".to_owned() }).map(drop)
    }

    /// What the players of somebody who joins now are told.
    fn delay_of(&mut self, session: &str) -> Option<PlayoutDelay> {
        self.commands.clear();
        self.join(session, session);
        let joined = self.commands.iter().find_map(|command| if let Command::Join(join) = command { Some(join) } else { None });
        joined.expect("joined").playout_delay
    }
}

#[test]
fn players_of_who_joins_hold_pictures_back_as_the_room_says() {
    let mut world = World::new();
    world.make_room(|_| {}).expect("made");
    assert_eq!(world.delay_of("s1"), None);
    for (min, max, told) in
        [(200, 0, (200, 10_000)), (0, 300, (0, 300)), (20_000, 0, (20_000, 20_000)), (100_000, 200_000, (40_950, 40_950))]
    {
        let set = |wanted: &mut lk::CreateRoomRequest| (wanted.min_playout_delay, wanted.max_playout_delay) = (min, max);
        world.make_room(set).expect("changed");
        assert_eq!(world.delay_of(&format!("s-{min}-{max}")), Some(PlayoutDelay::from_millis(told.0, told.1)));
    }
    world.make_room(|wanted| wanted.sync_streams = true).expect("changed");
    assert!(world.delay_of("s2").is_some(), "what is not named stays");
    let reversed = world.make_room(|wanted| (wanted.min_playout_delay, wanted.max_playout_delay) = (300, 200));
    assert!(matches!(reversed, Err(RoomFault::Invalid(_))));
}
