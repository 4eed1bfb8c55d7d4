//! Messages that name what belongs to others (attack class G-03): another call's, another peer's, or nobody's.

use std::time::Duration;

use rtcd_core::ids::Channel;
use rtcd_core::input::{Publish, TapScope, TrackSettings};
use rtcd_core::output::Signal;
use rtcd_core::{CallId, Input, PeerId, TapId, TrackId};

use crate::raw::{Raw, certificate};
use crate::world::{World, announced, call};

const SETTINGS: TrackSettings = TrackSettings { disabled: true, layer_max: 0, width: 0, height: 0, fps: 0, priority: 0 };

/// Every verb that names a track, about tracks of another call, another peer, a peer that left, of nobody, one's own id as a
/// track's, and an empty one: nothing of them moves.
#[test]
fn no_verb_reaches_what_belongs_to_others() {
    let mut world = World::new(190);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    // Eve is in a call of her own.
    let other = CallId::new("t/other").unwrap();
    let mut eve = Raw::join_in(&mut world, other.clone(), "eve", 1, certificate());
    eve.connect(&mut world);
    let gone = world.join("gone");
    world.microphone(gone, "gone");
    world.run(Duration::from_secs(1));
    world.tell(Input::Leave { peer: world.peer(gone) });
    world.run(Duration::from_secs(1));
    world.clients[ben].heard.clear();
    let told = world.told.len();
    let mut cases = 0;
    for track in ["TR_ann", "TR_gone", "TR_nobody", "PA_eve", "TR_ann ", "t/story"] {
        let Some(track) = TrackId::new(track) else { continue };
        let peer = eve.id.clone();
        let tap = TapId::new("tap-of-nobody").unwrap();
        let verbs = [
            Input::Subscribe { peer: peer.clone(), track: track.clone(), wanted: true },
            Input::Subscribe { peer: peer.clone(), track: track.clone(), wanted: false },
            Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings: SETTINGS },
            Input::Mute { peer: peer.clone(), track: track.clone(), muted: true },
            Input::Unpublish { peer: peer.clone(), track: track.clone() },
            Input::TapKeyFrame { tap, track: track.clone() },
        ];
        for verb in verbs {
            world.tell(verb);
            cases += 1;
        }
    }
    // A track id that is taken, announced by somebody else.
    world.tell(Input::Publish(Box::new(Publish { muted: true, ..announced(eve.id.clone(), "TR_ann", "raw-mic") })));
    // Data for people of another call, under the own one's name.
    let (ben_id, ann_id) = (world.peer(ben), world.peer(ann));
    world.tell(Input::SendData {
        call: other.clone(),
        to: &[ben_id, ann_id],
        channel: Channel::Reliable,
        text: false,
        payload: b"from elsewhere",
    });
    world.tell(Input::SendData {
        call: CallId::new("t/none").unwrap(),
        to: &[],
        channel: Channel::Reliable,
        text: false,
        payload: b"from elsewhere",
    });
    // Verbs of peers that are not there.
    for nobody in ["PA_nobody", "PA_gone", "TR_ann"] {
        let Some(peer) = PeerId::new(nobody) else { continue };
        for verb in [
            Input::Leave { peer: peer.clone() },
            Input::RestartIce { peer: peer.clone() },
            Input::Offer { peer: peer.clone(), sdp: "v=0\r\n", id: 1 },
            Input::Answer { peer: peer.clone(), sdp: "v=0\r\n", id: 1 },
            Input::Consent { peer: peer.clone(), granted: true },
            Input::Mute { peer: peer.clone(), track: TrackId::new("TR_ann").unwrap(), muted: true },
            Input::Unpublish { peer: peer.clone(), track: TrackId::new("TR_ann").unwrap() },
            Input::Subscribe { peer, track: TrackId::new("TR_ann").unwrap(), wanted: true },
        ] {
            world.tell(verb);
            cases += 1;
        }
    }
    for verb in [
        Input::EndCall { call: CallId::new("t/none").unwrap() },
        Input::TapOpen {
            call: CallId::new("t/none").unwrap(),
            tap: TapId::new("tap").unwrap(),
            scope: TapScope { consent_needed: false, audio: true, video: true, screen_only: false },
        },
        Input::TapClose { tap: TapId::new("tap-of-nobody").unwrap() },
    ] {
        world.tell(verb);
        cases += 1;
    }
    assert!(cases >= 45, "{cases}");
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= 49, "the track of the other call is as it was");
    assert!(world.clients[ben].messages.is_empty() && world.clients[ann].messages.is_empty());
    assert!(eve.received(&mut world).is_empty(), "not one packet of the other call");
    // Not found and not yours look the same: no signal tells them apart.
    let answers: Vec<&Signal> = world.told[told..].iter().filter(|(peer, _)| *peer == eve.id).map(|(_, signal)| signal).collect();
    assert!(answers.is_empty(), "{answers:?}");
    let report = world.ask_report();
    assert_eq!(report.calls.len(), 2);
    assert!(report.calls.iter().any(|known| known.call == call()));
}
