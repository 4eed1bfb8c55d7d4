//! Keys of what is encrypted end to end, granted to recordings by people in the call (docs/decisions/0027).

use livekit_protocol as lk;

use super::call::{Call, Participant};
use super::turn::Turn;
use crate::limits::{MEDIA_KEY_CHANGES_MAX, MEDIA_KEYS_MAX, MEDIA_KEYS_OF_ONE_MAX, MEDIA_KEYS_SAME_MAX};
use crate::media_key::{KeyName, MediaKey};
use crate::signal::seam::{AdapterOutput, KeyRequest, RoomAnswer, RoomFault};

/// What a call's adapter knows of its keys; the keys themselves are the directory's.
#[derive(Debug, Default)]
pub(super) struct Granted {
    names: Vec<KeyName>,
    /// Grants and withdrawals so far: each is a line of every recording.
    changes: usize,
}

impl Call {
    /// Somebody grants a key or takes theirs back; answers how many that were.
    pub(super) fn handle_media_key(&mut self, turn: &mut Turn<'_>, request: KeyRequest) -> Result<RoomAnswer, RoomFault> {
        let before: Vec<Option<bool>> = self.participants.iter().map(|participant| self.consent_of(participant)).collect();
        let (by, changed) = match request {
            KeyRequest::Grant { by, of, index, secret } => {
                let by_name = self.by_identity(&by).ok_or(RoomFault::NotInRoom)?.name.clone();
                let name = KeyName { by, of, index };
                self.granted.add(&name)?;
                let by = name.by.clone();
                (by, vec![MediaKey { name, by_name, secret: Some(secret), at_ms: turn.now.unix_ms }])
            }
            KeyRequest::TakeBack { by, of, index } => {
                // Who has left may still say no.
                let by_name = self.by_identity(&by).map(|participant| participant.name.clone()).unwrap_or_default();
                let theirs = |name: &KeyName| {
                    name.by == by && of.as_ref().is_none_or(|of| *of == name.of) && index.is_none_or(|index| index == name.index)
                };
                let gone = self.granted.names.extract_if(.., |name| theirs(name));
                let key = |name| MediaKey { name, by_name: by_name.clone(), secret: None, at_ms: turn.now.unix_ms };
                let gone: Vec<MediaKey> = gone.map(key).collect();
                self.granted.changes += gone.len();
                (by, gone)
            }
        };
        let granted = changed.iter().any(|key| key.secret.is_some());
        let count = changed.len();
        // Before any consent that follows: a tap is told of the key before it is given a packet.
        turn.out.extend(changed.into_iter().map(|key| AdapterOutput::MediaKey { call: self.id.clone(), key: Box::new(key) }));
        for (participant, before) in self.participants.iter().zip(before) {
            let now = self.consent_of(participant);
            if now != before {
                self.give_consent(turn, participant, now.unwrap_or(false));
            }
        }
        let peer = self.by_identity(&by).map(|participant| participant.peer.clone());
        tracing::info!(call = ?self.id, ?peer, granted, count, "keys of end-to-end encryption were granted to recordings, or taken back");
        Ok(RoomAnswer::Count(count))
    }

    /// Somebody has media that no recording can open.
    pub(super) fn is_sealed(&self, participant: &Participant) -> bool {
        let opens = |name: &KeyName| name.of.is_empty() || name.of == participant.identity;
        participant.tracks.iter().any(|track| match track.info.encryption() {
            lk::encryption::Type::None => false,
            lk::encryption::Type::Gcm => !self.granted.names.iter().any(opens),
            lk::encryption::Type::Custom => true,
        })
    }

    /// Why somebody cannot be recorded.
    pub(super) fn seal(&self, participant: &Participant) -> RoomFault {
        let custom = participant.tracks.iter().any(|track| track.info.encryption() == lk::encryption::Type::Custom);
        if custom { RoomFault::SealedOtherwise } else { RoomFault::Sealed }
    }
}

impl Granted {
    fn add(&mut self, name: &KeyName) -> Result<(), RoomFault> {
        let known = self.names.contains(name);
        let count = |same: &dyn Fn(&KeyName) -> bool| self.names.iter().filter(|other| same(other)).count();
        if self.changes >= MEDIA_KEY_CHANGES_MAX {
            return Err(RoomFault::TooMuch("the number of recording keys granted and taken back in this room"));
        }
        if !known {
            if self.names.len() >= MEDIA_KEYS_MAX {
                return Err(RoomFault::TooMuch("the number of recording keys of this room"));
            }
            if count(&|other| other.by == name.by) >= MEDIA_KEYS_OF_ONE_MAX {
                return Err(RoomFault::TooMuch("the number of recording keys of one participant (take old ones back)"));
            }
            if count(&|other| (&other.of, other.index) == (&name.of, name.index)) >= MEDIA_KEYS_SAME_MAX {
                return Err(RoomFault::TooMuch("the number of participants who grant a key of the same index"));
            }
            self.names.push(name.clone());
        }
        self.changes += 1;
        Ok(())
    }
}
