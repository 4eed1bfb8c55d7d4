//! Whose part of a room an egress is of: found among who is there, before anything is recorded.

use livekit_protocol as lk;
use offloader_jobs::selection::PartOfCall;

use super::order::Of;
use crate::signal::seam::RoomFault;

/// A part of a room.
#[derive(Debug, PartialEq)]
pub struct Part {
    /// For the tap.
    pub of: PartOfCall,
    /// The one track that is wanted as it is.
    pub track: Option<lk::TrackInfo>,
}

/// Finds it. `None`: everybody's.
///
/// # Errors
/// It is not there, or is no such thing.
pub fn find(of: &Of, people: &[lk::ParticipantInfo]) -> Result<Option<Part>, RoomFault> {
    match of {
        Of::Room => Ok(None),
        Of::Person { identity, sources } => {
            let person = people.iter().find(|person| person.identity == *identity).ok_or(RoomFault::NoParticipant)?;
            let sources = sources.iter().map(|source| (*source).to_owned()).collect();
            let of = PartOfCall { identity: person.identity.clone(), sources, ..PartOfCall::default() };
            Ok(Some(Part { of, track: None }))
        }
        Of::Tracks { audio, video } => {
            let audio = audio.as_deref().map(|sid| track(people, sid, Some(lk::TrackType::Audio))).transpose()?;
            let video = video.as_deref().map(|sid| track(people, sid, Some(lk::TrackType::Video))).transpose()?;
            let mut identities = audio.iter().chain(&video).map(|(person, _)| &person.identity);
            let identity = identities.next().ok_or(RoomFault::NoTrack)?;
            if identities.any(|other| other != identity) {
                return Err(RoomFault::Invalid("both tracks have to be of one participant".to_owned()));
            }
            let track_sids = audio.iter().chain(&video).map(|(_, track)| track.sid.clone()).collect();
            Ok(Some(Part { of: PartOfCall { identity: identity.clone(), track_sids, ..PartOfCall::default() }, track: None }))
        }
        Of::Track(sid) => {
            let (person, track) = track(people, sid, None)?;
            let of = PartOfCall { identity: person.identity.clone(), track_sids: vec![sid.clone()], ..PartOfCall::default() };
            Ok(Some(Part { of, track: Some(track.clone()) }))
        }
    }
}

fn track<'p>(
    people: &'p [lk::ParticipantInfo],
    sid: &str,
    wanted: Option<lk::TrackType>,
) -> Result<(&'p lk::ParticipantInfo, &'p lk::TrackInfo), RoomFault> {
    let mut tracks = people.iter().flat_map(|person| person.tracks.iter().map(move |track| (person, track)));
    let (person, track) = tracks.find(|(_, track)| track.sid == sid).ok_or(RoomFault::NoTrack)?;
    match wanted {
        Some(wanted) if track.r#type() != wanted => {
            let name = wanted.as_str_name().to_ascii_lowercase();
            Err(RoomFault::Invalid(format!("track {sid} is no {name} track")))
        }
        _ => Ok((person, track)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people() -> Vec<lk::ParticipantInfo> {
        let track = |sid: &str, kind: lk::TrackType| lk::TrackInfo { sid: sid.to_owned(), r#type: kind.into(), ..lk::TrackInfo::default() };
        let person =
            |identity: &str, tracks| lk::ParticipantInfo { identity: identity.to_owned(), tracks, ..lk::ParticipantInfo::default() };
        vec![
            person("ann", vec![track("TR_a", lk::TrackType::Audio), track("TR_v", lk::TrackType::Video)]),
            person("bob", vec![track("TR_b", lk::TrackType::Audio)]),
        ]
    }

    #[test]
    fn a_part_is_somebodys_who_is_there() {
        let found = |of: Of| find(&of, &people()).map(|part| part.map(|part| part.of));
        let named = |sid: &str| Some(sid.to_owned());
        assert_eq!(found(Of::Room), Ok(None));
        let screen = found(Of::Person { identity: "ann".to_owned(), sources: &["screen_share", "screen_share_audio"] })
            .expect("ann")
            .expect("a part");
        assert_eq!((screen.identity.as_str(), screen.sources[0].as_str()), ("ann", "screen_share"));
        let part = found(Of::Tracks { audio: named("TR_a"), video: named("TR_v") }).expect("hers").expect("a part");
        assert_eq!((part.identity.as_str(), &part.track_sids[..]), ("ann", &["TR_a".to_owned(), "TR_v".to_owned()][..]));
        let track = find(&Of::Track("TR_b".to_owned()), &people()).expect("his").expect("a part");
        assert_eq!((track.of.identity.as_str(), track.track.map(|track| track.sid)), ("bob", named("TR_b")));
        for (of, fault) in [
            (Of::Person { identity: "carol".to_owned(), sources: &["camera", "microphone"] }, RoomFault::NoParticipant),
            (Of::Track("TR_x".to_owned()), RoomFault::NoTrack),
            (Of::Tracks { audio: named("TR_x"), video: None }, RoomFault::NoTrack),
        ] {
            assert_eq!(found(of), Err(fault));
        }
        for (audio, video) in [(named("TR_v"), None), (named("TR_b"), named("TR_v")), (None, named("TR_a"))] {
            assert!(matches!(found(Of::Tracks { audio, video }), Err(RoomFault::Invalid(_))));
        }
    }
}
