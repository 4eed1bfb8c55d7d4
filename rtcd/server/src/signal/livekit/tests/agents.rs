//! Agents and recorders in a call: whom they hold there, and for whom they speak.

use lk::data_packet::Value;
use lk::data_stream::header::ContentHeader;
use lk::participant_info::Kind as Who;

use super::*;

fn agent(join: &mut v1::Join) {
    join.kind = Who::Agent.into();
}

fn calls(world: &World) -> usize {
    world.adapter.roster().len()
}

#[test]
fn agents_and_recorders_hold_no_call() {
    let by_kind: fn(&mut v1::Join) = agent;
    let by_grant: fn(&mut v1::Join) = |join| join.grants.as_mut().expect("grants").agent = true;
    let recorder: fn(&mut v1::Join) = |join| join.grants.as_mut().expect("grants").recorder = true;
    for who in [by_kind, by_grant, recorder] {
        let mut world = World::new();
        world.join("s1", "alice");
        world.join_with("s2", "helper", who);
        world.ask("s1", Asked::Leave(lk::LeaveRequest::default()));
        world.now.instant += DEPARTURE - Duration::from_millis(1);
        world.tell(AdapterInput::Tick);
        assert_eq!(calls(&world), 1, "she may come back");
        assert!(!world.ended.contains_key("s2"));
        world.forget();
        world.now.instant += Duration::from_millis(1);
        world.tell(AdapterInput::Tick);
        assert_eq!((calls(&world), world.ended["s2"]), (0, v1::EndReason::CallEnded));
        let told = world.seen("s2");
        assert!(told.iter().any(|said| matches!(said, Message::Leave(leave) if leave.action() == lk::leave_request::Action::Disconnect)));
        let events = &world.events;
        let left = events.iter().position(|event| matches!(event, v1::call_event::Event::Left(left) if left.identity == "helper"));
        let ended = events.iter().position(|event| matches!(event, v1::call_event::Event::Ended(_)));
        assert!(left.expect("left") < ended.expect("ended"), "its departure is in the attendance");
    }
}

#[test]
fn who_becomes_a_person_holds_the_call_and_who_becomes_a_recorder_does_not() {
    let mut world = World::new();
    world.join_with("s1", "helper", |join| join.grants.as_mut().expect("grants").recorder = true);
    world.allow("helper", lk::ParticipantPermission { can_subscribe: true, ..Default::default() });
    world.now.instant += ROOMS.empty * 2;
    world.tell(AdapterInput::Tick);
    assert_eq!(calls(&world), 1, "a person is there");
    world.allow("helper", lk::ParticipantPermission { recorder: true, ..Default::default() });
    world.now.instant += DEPARTURE - Duration::from_millis(1);
    world.tell(AdapterInput::Tick);
    assert_eq!(calls(&world), 1);
    world.now.instant += Duration::from_millis(1);
    world.tell(AdapterInput::Tick);
    assert_eq!(calls(&world), 0);
}

#[test]
fn an_agent_that_waits_alone_has_the_time_of_an_empty_room_and_a_person_takes_it_over() {
    let mut world = World::new();
    world.join_with("s1", "helper", agent);
    world.now.instant += ROOMS.empty - Duration::from_millis(1);
    world.tell(AdapterInput::Tick);
    world.join("s2", "alice");
    world.now.instant += ROOMS.empty * 2;
    world.tell(AdapterInput::Tick);
    assert_eq!(calls(&world), 1, "as long as somebody is there");
    world.ask("s2", Asked::Leave(lk::LeaveRequest::default()));
    // The agent's own coming and going changes nothing.
    world.now.instant += DEPARTURE / 2;
    world.ask("s1", Asked::Leave(lk::LeaveRequest::default()));
    world.join_with("s3", "helper", agent);
    world.now.instant += DEPARTURE / 2;
    world.tell(AdapterInput::Tick);
    assert_eq!(calls(&world), 0);
}

fn text_of(identity: &str) -> lk::DataPacket {
    let header = lk::data_stream::Header {
        stream_id: "s".to_owned(),
        content_header: Some(ContentHeader::TextHeader(lk::data_stream::TextHeader::default())),
        ..lk::data_stream::Header::default()
    };
    lk::DataPacket { participant_identity: identity.to_owned(), value: Some(Value::StreamHeader(header)), ..lk::DataPacket::default() }
}

fn chat_of(identity: &str) -> lk::DataPacket {
    let message = lk::ChatMessage { message: "hello".to_owned(), ..lk::ChatMessage::default() };
    lk::DataPacket { participant_identity: identity.to_owned(), value: Some(Value::ChatMessage(message)), ..lk::DataPacket::default() }
}

/// Whose it is said to be, and whether it is marked as made by a program.
fn sent(world: &mut World, peer: &PeerId, packet: &lk::DataPacket) -> Option<(String, bool)> {
    world.commands.clear();
    world.send_data(peer, true, packet);
    let (_, _, packet) = world.sent_data().pop()?;
    let generated = match &packet.value {
        Some(Value::ChatMessage(message)) => message.generated,
        Some(Value::StreamHeader(header)) => matches!(&header.content_header, Some(ContentHeader::TextHeader(text)) if text.generated),
        _ => false,
    };
    Some((packet.participant_identity, generated))
}

#[test]
fn an_agent_sends_words_of_others_and_nobody_else_does() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    world.join_with("s3", "helper", agent);
    let helper = world.peer("s3");
    for of in [text_of, chat_of] {
        assert_eq!(sent(&mut world, &helper, &of("bob")), Some(("bob".to_owned(), true)));
        for own in ["helper", ""] {
            assert_eq!(sent(&mut world, &helper, &of(own)), Some(("helper".to_owned(), false)));
        }
        assert_eq!(sent(&mut world, &alice, &of("bob")), Some(("alice".to_owned(), false)));
    }
    // What a program made of somebody's data is its own.
    let data = lk::DataPacket { participant_identity: "bob".to_owned(), ..user_packet("t") };
    assert_eq!(sent(&mut world, &helper, &data), Some(("helper".to_owned(), false)));
    let mut bytes = text_of("bob");
    let Some(Value::StreamHeader(header)) = &mut bytes.value else { panic!("a header") };
    header.content_header = Some(ContentHeader::ByteHeader(lk::data_stream::ByteHeader::default()));
    assert_eq!(sent(&mut world, &helper, &bytes), Some(("helper".to_owned(), false)));
    // Transcriptions of the older form name whose words they are inside.
    let words = lk::Transcription { transcribed_participant_identity: "bob".to_owned(), ..lk::Transcription::default() };
    let words = lk::DataPacket { value: Some(Value::Transcription(words)), ..lk::DataPacket::default() };
    assert_eq!(sent(&mut world, &helper, &words), Some(("helper".to_owned(), false)));
    assert_eq!(sent(&mut world, &alice, &words), None);
}

#[test]
fn who_is_hidden_sends_as_nobody() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.join_with("s2", "helper", |join| join.grants.as_mut().expect("grants").hidden = true);
    let helper = world.peer("s2");
    world.commands.clear();
    world.send_data(&helper, true, &user_packet("t"));
    let (_, _, packet) = world.sent_data().pop().expect("sent");
    let Some(Value::User(user)) = &packet.value else { panic!("a user's packet") };
    assert_eq!((packet.participant_identity.as_str(), user.participant_identity.as_str(), user.participant_sid.as_str()), ("", "", ""));
    assert_eq!(user.payload, b"hello");
}
