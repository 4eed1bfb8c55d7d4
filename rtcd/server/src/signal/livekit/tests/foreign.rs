//! Messages that name what is not theirs (attack class G-03): thirty verbs, six kinds of names, each answered as a name that
//! nobody has, and nothing of anybody's moves.

use lk::UpdateSubscription;
use v1::host_action::Action;

use super::*;

/// What a verb may name.
#[derive(Clone, Debug)]
struct Names {
    track: String,
    identity: String,
    sid: String,
    session: SessionKey,
}

/// How a verb names it. The third: whose names make it do something, so that a refusal means something; `None`: nobody's.
type Verb = (&'static str, fn(&mut World, &Names), Option<Whose>);

#[derive(Clone, Copy)]
enum Whose {
    /// Of who asks.
    Own,
    /// Of somebody in the same call.
    Neighbour,
}

fn subscription(subscribe: bool, sids: &[&str]) -> UpdateSubscription {
    UpdateSubscription { subscribe, track_sids: sids.iter().map(|sid| (*sid).to_owned()).collect(), ..Default::default() }
}

fn of_participant(subscribe: bool, names: &Names) -> UpdateSubscription {
    let tracks = lk::ParticipantTracks { participant_sid: names.sid.clone(), track_sids: vec![names.track.clone()] };
    UpdateSubscription { subscribe, participant_tracks: vec![tracks], ..Default::default() }
}

fn permit(world: &mut World, entry: lk::TrackPermission) {
    world.ask("s-ann", Asked::SubscriptionPermission(lk::SubscriptionPermission { track_permissions: vec![entry], ..Default::default() }));
}

fn words_of(identity: &str) -> lk::DataPacket {
    let words = lk::Transcription { transcribed_participant_identity: identity.to_owned(), ..Default::default() };
    lk::DataPacket { value: Some(lk::data_packet::Value::Transcription(words)), ..Default::default() }
}

fn consent(world: &mut World, names: &Names, granted: bool) {
    let consent = v1::RecordingConsent { identity: names.identity.clone(), granted, ..Default::default() };
    world.tell(AdapterInput::Consent { call: call(), consent });
}

/// The packet of ann, in ann's call.
fn data_of_ann(world: &mut World, packet: &lk::DataPacket) {
    let ann = world.peer("s-ann");
    world.send_data(&ann, false, packet);
}

/// All that ann, a host of her call or its message server can say about a track, a person or a session.
const VERBS: [Verb; 30] = [
    ("mute", |world, n| world.ask("s-ann", Asked::Mute(lk::MuteTrackRequest { sid: n.track.clone(), muted: true })), Some(Whose::Own)),
    ("unmute", |world, n| world.ask("s-ann", Asked::Mute(lk::MuteTrackRequest { sid: n.track.clone(), muted: false })), Some(Whose::Own)),
    ("subscribe", |world, n| world.ask("s-ann", Asked::Subscription(subscription(true, &[&n.track]))), Some(Whose::Neighbour)),
    ("unsubscribe", |world, n| world.ask("s-ann", Asked::Subscription(subscription(false, &[&n.track]))), Some(Whose::Neighbour)),
    ("subscribe to a person's", |world, n| world.ask("s-ann", Asked::Subscription(of_participant(true, n))), Some(Whose::Neighbour)),
    ("unsubscribe from a person's", |world, n| world.ask("s-ann", Asked::Subscription(of_participant(false, n))), Some(Whose::Neighbour)),
    (
        "subscribe to one's own and another",
        |world, n| {
            let own = world.track_of("s-ann");
            world.ask("s-ann", Asked::Subscription(subscription(true, &[&own, &n.track])));
        },
        Some(Whose::Neighbour),
    ),
    ("track settings", |world, n| world.settings(&n.track, false), Some(Whose::Neighbour)),
    ("pause a track", |world, n| world.settings(&n.track, true), Some(Whose::Neighbour)),
    (
        "resume with a subscription",
        |world, n| world.resume(lk::SyncState { subscription: Some(subscription(true, &[&n.track])), ..Default::default() }),
        Some(Whose::Neighbour),
    ),
    (
        "resume without a subscription",
        |world, n| world.resume(lk::SyncState { subscription: Some(subscription(false, &[&n.track])), ..Default::default() }),
        Some(Whose::Neighbour),
    ),
    (
        "resume with a pause",
        |world, n| world.resume(lk::SyncState { track_sids_disabled: vec![n.track.clone()], ..Default::default() }),
        Some(Whose::Neighbour),
    ),
    (
        "describe a sound",
        |world, n| {
            let update = lk::UpdateLocalAudioTrack { track_sid: n.track.clone(), features: vec![1] };
            world.ask("s-ann", Asked::UpdateAudioTrack(update));
        },
        Some(Whose::Own),
    ),
    (
        "describe a picture",
        |world, n| {
            let update = lk::UpdateLocalVideoTrack { track_sid: n.track.clone(), width: 1, height: 1 };
            world.ask("s-ann", Asked::UpdateVideoTrack(update));
        },
        Some(Whose::Own),
    ),
    (
        "publish another codec of a track",
        |world, n| {
            let request =
                lk::AddTrackRequest { sid: n.track.clone(), ..add_track("more", lk::TrackType::Audio, lk::TrackSource::Microphone) };
            world.ask("s-ann", Asked::AddTrack(request));
        },
        None,
    ),
    (
        "let a person have one's tracks",
        |world, n| permit(world, lk::TrackPermission { participant_identity: n.identity.clone(), all_tracks: true, ..Default::default() }),
        Some(Whose::Neighbour),
    ),
    (
        "let a participant have one's tracks",
        |world, n| permit(world, lk::TrackPermission { participant_sid: n.sid.clone(), all_tracks: true, ..Default::default() }),
        Some(Whose::Neighbour),
    ),
    (
        "let the neighbour have a track",
        |world, n| {
            let track_sids = vec![n.track.clone()];
            permit(world, lk::TrackPermission { participant_identity: "ben".to_owned(), track_sids, ..Default::default() });
        },
        Some(Whose::Own),
    ),
    (
        "a host mutes a person",
        |world, n| {
            let mute = v1::MuteTrack { identity: n.identity.clone(), track_sid: String::new(), muted: true };
            world.act(Action::Mute(mute));
        },
        Some(Whose::Neighbour),
    ),
    (
        "a host mutes a person's track",
        |world, n| {
            world.act(Action::Mute(v1::MuteTrack { identity: n.identity.clone(), track_sid: n.track.clone(), muted: true }));
        },
        Some(Whose::Neighbour),
    ),
    (
        "a host mutes a track of the neighbour",
        |world, n| {
            world.act(Action::Mute(v1::MuteTrack { identity: "ben".to_owned(), track_sid: n.track.clone(), muted: true }));
        },
        Some(Whose::Neighbour),
    ),
    (
        "a host removes a person",
        |world, n| {
            world.act(Action::Remove(v1::RemoveParticipant { identity: n.identity.clone() }));
        },
        Some(Whose::Neighbour),
    ),
    (
        "a host stops a share",
        |world, n| {
            world.act(Action::StopShare(v1::StopShare { identity: n.identity.clone() }));
        },
        Some(Whose::Neighbour),
    ),
    ("a person agrees", |world, n| consent(world, n, true), Some(Whose::Neighbour)),
    ("a person declines", |world, n| consent(world, n, false), Some(Whose::Neighbour)),
    (
        "data of the message server",
        |world, n| {
            let data = v1::SendData { to_identities: vec![n.identity.clone()], payload: b"x".to_vec().into(), ..Default::default() };
            world.tell(AdapterInput::SendData { call: call(), data });
        },
        Some(Whose::Neighbour),
    ),
    (
        "data for a person",
        |world, n| data_of_ann(world, &lk::DataPacket { destination_identities: vec![n.identity.clone()], ..user_packet("") }),
        Some(Whose::Neighbour),
    ),
    ("words of a person", |world, n| data_of_ann(world, &words_of(&n.identity)), Some(Whose::Own)),
    (
        "a frame on a session",
        |world, n| {
            let livekit = lk::SignalRequest { message: Some(Asked::Leave(lk::LeaveRequest::default())) }.encode_to_vec().into();
            world.tell(AdapterInput::Frame { session: n.session.clone(), livekit });
        },
        Some(Whose::Neighbour),
    ),
    (
        "the end of a session",
        |world, n| world.tell(AdapterInput::Leave { session: n.session.clone(), connection_lost: false }),
        Some(Whose::Neighbour),
    ),
];

fn elsewhere(tenant_and_call: &str) -> CallId {
    CallId::new(tenant_and_call).expect("a name")
}

impl World {
    /// Ann and ben in one call; eve in another of the tenant, mia in one of another tenant; dan was here and has left. All with tracks.
    fn peopled() -> (Self, Vec<(&'static str, Names)>, Names, Names) {
        let mut world = Self::new();
        let mut known = Vec::new();
        for (identity, at) in
            [("ann", call()), ("ben", call()), ("dan", call()), ("eve", elsewhere("tenant/second")), ("mia", elsewhere("other/call"))]
        {
            let session = format!("s-{identity}");
            let grants = v1::Grants { can_publish: true, can_subscribe: true, can_publish_data: true, ..v1::Grants::default() };
            let join = v1::Join {
                session_id: session.clone(),
                call_id: "call".to_owned(),
                identity: identity.to_owned(),
                grants: Some(grants),
                ..v1::Join::default()
            };
            world.tell(AdapterInput::Join { session: key(&session), call: at.clone(), join: Box::new(join) });
            let mut track = String::new();
            for (cid, kind, source) in
                [("screen", lk::TrackType::Video, lk::TrackSource::ScreenShare), ("mic", lk::TrackType::Audio, lk::TrackSource::Microphone)]
            {
                track = world.publish_in(&at, &session, cid, kind, source).as_str().to_owned();
            }
            let sid = world.peer(&session).as_str().to_owned();
            known.push(Names { track, identity: identity.to_owned(), sid, session: key(&session) });
        }
        world.tell(AdapterInput::Leave { session: key("s-dan"), connection_lost: false });
        world.forget();
        world.ended.clear();
        let [ann, ben, dan, eve, mia] = known.try_into().expect("five people");
        // On another message server's link the same session id is another session, or none.
        let foreign = |names: Names| Names { session: SessionKey { link: 2, ..names.session.clone() }, ..names };
        let nobody = Names { track: "TR_nobody".into(), identity: "nobody".into(), sid: "PA_nobody".into(), session: key("s-nobody") };
        let of_the_wrong_kind =
            Names { track: ben.sid.clone(), identity: ben.track.clone(), sid: ben.identity.clone(), session: key(&ben.sid) };
        let misspelled = Names {
            track: format!("{} ", ben.track),
            identity: ben.identity.to_uppercase(),
            sid: ben.sid.to_lowercase(),
            session: key(&format!("{}\0", ben.session.id)),
        };
        let kinds = vec![
            ("nobody's", nobody),
            ("of another call", foreign(eve)),
            ("of another tenant", foreign(mia)),
            ("of somebody who has left", dan),
            ("of the wrong kind", of_the_wrong_kind),
            ("misspelled", misspelled),
        ];
        (world, kinds, ann, ben)
    }

    fn track_of(&mut self, session: &str) -> String {
        let peer = self.peer(session);
        let call = &self.adapter.calls[&call()];
        call.participant(&peer).and_then(|participant| participant.tracks.last()).expect("a track").id.as_str().to_owned()
    }

    fn settings(&mut self, track: &str, disabled: bool) {
        let settings = lk::UpdateTrackSettings { track_sids: vec![track.to_owned()], disabled, width: 320, ..Default::default() };
        self.ask("s-ann", Asked::TrackSetting(settings));
    }

    fn resume(&mut self, state: lk::SyncState) {
        self.ask("s-ann", Asked::SyncState(state));
    }

    /// As [`World::host`], with the answer left among the results.
    fn act(&mut self, action: Action) {
        let result = self.host(action);
        self.results.push(result);
    }

    /// All that came of a verb, with the name it used blotted out.
    fn outcome(&mut self, names: &Names) -> String {
        let sent = self.commands.drain(..).map(|command| match command {
            Command::SendData { call, to, payload, .. } => {
                format!("{call:?} {to:?} {:?}", lk::DataPacket::decode(payload).expect("a packet"))
            }
            other => format!("{other:?}"),
        });
        let sent: Vec<String> = sent.collect();
        let frames: std::collections::BTreeMap<_, _> = self.frames.iter_mut().filter(|(_, frames)| !frames.is_empty()).collect();
        let ended: std::collections::BTreeMap<_, _> = self.ended.iter().collect();
        let mut outcome = format!("{sent:?} {frames:?} {ended:?} {:?} {:?} {:?}", self.events, self.results, self.faults);
        self.forget();
        self.results.clear();
        self.faults.clear();
        for name in [&names.track, &names.identity, &names.sid] {
            outcome = outcome.replace(&format!("{name:?}"), "NAMED");
        }
        outcome
    }

    /// Everybody in the other calls, as an observer would describe them.
    fn others(&self) -> String {
        let calls = self.adapter.calls.iter().filter(|(id, _)| **id != call());
        let mut all: Vec<String> = calls.map(|(id, call)| format!("{id:?} {:?}", call.participants)).collect();
        all.sort();
        all.join("\n")
    }
}

#[test]
fn a_foreign_name_is_answered_as_one_that_nobody_has() {
    let mut cases = 0;
    for (verb, say, works_with) in VERBS {
        let mut nothing_there = None;
        for n in 0..6 {
            let (mut world, kinds, ..) = World::peopled();
            let (kind, names) = &kinds[n];
            let before = world.others();
            say(&mut world, names);
            assert!(!before.is_empty() && world.others() == before, "{verb}, a name {kind}: other calls moved");
            // Sids are drawn anew in each world.
            let outcome = anonymous(&world.outcome(names));
            let expected = nothing_there.get_or_insert_with(|| outcome.clone());
            assert_eq!(outcome, *expected, "{verb}, a name {kind}: not as one that nobody has");
            cases += 1;
        }
        let Some(whose) = works_with else { continue };
        let (mut world, _, ann, ben) = World::peopled();
        let names = match whose {
            Whose::Own => ann,
            Whose::Neighbour => ben,
        };
        say(&mut world, &names);
        assert_ne!(anonymous(&world.outcome(&names)), nothing_there.expect("six kinds"), "{verb} does nothing at all");
    }
    assert_eq!(cases, 180);
}

/// Without what is drawn by chance.
fn anonymous(text: &str) -> String {
    ["PA_", "TR_", "RM_"].iter().fold(text.to_owned(), |text, prefix| {
        let drawn = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        text.split(prefix).map(|piece| piece.trim_start_matches(drawn)).collect::<Vec<_>>().join(prefix)
    })
}
