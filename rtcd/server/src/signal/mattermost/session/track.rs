//! What a track is, and what it is called.

use rtcd_core::ids::{Kind, Source, TrackId};

/// Letters of the random part of a name: z-base-32.
const LETTERS: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
const RANDOM_LEN: u32 = 8;

/// The kinds of tracks that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Voice,
    Screen,
    ScreenAudio,
    Video,
}

impl Class {
    /// In media maps and names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Screen => "screen",
            Self::ScreenAudio => "screen-audio",
            Self::Video => "video",
        }
    }

    /// In the core's words.
    pub(super) fn source(self) -> Source {
        match self {
            Self::Voice => Source::Microphone,
            Self::Screen => Source::ScreenShare,
            Self::ScreenAudio => Source::ScreenShareAudio,
            Self::Video => Source::Camera,
        }
    }
}

/// What a stream that a client sends is, by what it announced. Sound that nobody announced is a voice. A picture that nobody announced
/// may be announced later: the message takes another way than the packets.
pub(super) fn classify(kind: Kind, stream: &str, announced: &[(String, Class)]) -> Option<Class> {
    let said = announced.iter().rev().find(|(announced, _)| announced == stream).map(|(_, class)| *class);
    match (kind, said) {
        (Kind::Audio, Some(Class::Screen)) => Some(Class::ScreenAudio),
        (Kind::Audio, _) => Some(Class::Voice),
        (Kind::Video, said) => said,
    }
}

/// `<type>_<session>_<random>`: clients split it at the bar. `None`: the session's name is too long for it.
pub(super) fn track_id(class: Class, session: &str) -> Option<TrackId> {
    let random = uuid::Uuid::new_v4().as_u128();
    let letter = |place| char::from(LETTERS.get((random >> (5 * place)) as usize & 31).copied().unwrap_or(b'y'));
    let random: String = (0..RANDOM_LEN).map(letter).collect();
    TrackId::new(&format!("{}_{session}_{random}", class.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_three_fields_that_clients_split() {
        let id = track_id(Class::ScreenAudio, "sess").expect("a name");
        let fields: Vec<&str> = id.as_str().split('_').collect();
        assert_eq!(fields[..2], ["screen-audio", "sess"]);
        assert!(fields.len() == 3 && fields[2].len() == 8 && fields[2].bytes().all(|letter| LETTERS.contains(&letter)));
        assert_ne!(track_id(Class::Voice, "s"), track_id(Class::Voice, "s"));
    }

    #[test]
    fn only_what_was_announced_tells_pictures_apart() {
        let announced = [("s".to_owned(), Class::Screen), ("v".to_owned(), Class::Video)];
        assert_eq!(classify(Kind::Video, "s", &announced), Some(Class::Screen));
        assert_eq!(classify(Kind::Video, "v", &announced), Some(Class::Video));
        assert_eq!(classify(Kind::Video, "x", &announced), None, "held until it is");
        assert_eq!(classify(Kind::Audio, "s", &announced), Some(Class::ScreenAudio));
        assert_eq!(classify(Kind::Audio, "x", &announced), Some(Class::Voice));
        assert_eq!(classify(Kind::Audio, "v", &announced), Some(Class::Voice));
    }
}
