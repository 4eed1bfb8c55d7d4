//! One transport on which both ends offer, as Mattermost's clients have it: theirs are the first offer, with the data section alone, and
//! every one that adds or takes away what they send; ours are those that add or take away what they receive.
//!
//! We are the impolite end (RFC 8829 4.1.8.2, "perfect negotiation"): an offer that crosses ours is not answered, and the client offers
//! again. A client that says beforehand that it will offer ([`Offerer::hold`]) is not crossed.

use std::sync::Arc;

use super::agreed::{
    Agreed, Codec, CodecKind, DtlsRole, ExtensionKind, ExtensionMap, IceCredentials, LocalSettings, Outgoing, Section, SendStream,
};
use super::answerer::{Answer, Fresh};
use super::codecs;
use super::error::NegotiateError;
use super::offered::{self, Standing};
use super::offerer::{Line, LineState, Offerer};
use super::payload_types::PayloadTypes;
use super::sections;
use crate::ids::Kind;
use crate::sdp::{self, Direction, MediaKind, Setup};

/// Chromium's own numbers: what it adds later then means the same.
const PREFERRED: &[(CodecKind, u8, u8)] = &[(CodecKind::Opus, 111, 63), (CodecKind::Vp8, 96, 97), (CodecKind::Av1, 45, 46)];

/// What an offerer knows besides, where the client offers too.
#[derive(Debug)]
pub(super) struct Mutual {
    /// What is taken of the client; other codecs of its offers are left out of the answer.
    codecs: &'static [CodecKind],
    /// Extension ids that were agreed on once, on any section: one number, one meaning, for ever.
    extensions: ExtensionMap,
    /// The client is about to offer.
    held: bool,
}

impl Mutual {
    /// The client's offer is the first, and goes first when it was announced.
    pub(super) fn may_offer(&self, is_agreed: bool) -> bool {
        is_agreed && !self.held
    }

    /// Ids for a section that we add: those in use, Chromium's numbers, or any that is free.
    pub(super) fn extensions(&self, kind: Kind) -> ExtensionMap {
        const WANTED: [(ExtensionKind, u8); 7] = [
            (ExtensionKind::AudioLevel, 1),
            (ExtensionKind::TransportCc, 3),
            (ExtensionKind::Mid, 4),
            (ExtensionKind::VideoOrientation, 13),
            (ExtensionKind::PlayoutDelay, 5),
            (ExtensionKind::DependencyDescriptor, 12),
            (ExtensionKind::AbsCaptureTime, 14),
        ];
        let mut all = self.extensions;
        let mut map = ExtensionMap::default();
        for (extension, preferred) in WANTED {
            if all.id(extension).is_none() {
                let is_free = |id: &u8| all.kind(*id).is_none() && WANTED.iter().all(|(other, id_of)| *other == extension || id_of != id);
                // Up to 14 fits the one-byte form (RFC 8285 4.2).
                let free = Some(preferred).filter(is_free).or_else(|| (1..=14).find(is_free));
                all.set(extension, free.unwrap_or(0));
            }
            if sections::extension_wanted(kind, extension) {
                map.set(extension, all.id(extension).unwrap_or(0));
            }
        }
        map
    }

    /// Takes what contradicts an earlier section out of a section's extensions, and remembers the rest.
    fn reconcile(&mut self, map: &mut ExtensionMap, lines: &mut Vec<sdp::Extension>) {
        for (kind, id) in map.clone().iter() {
            let other_id = self.extensions.id(kind).is_some_and(|known| known != id);
            let other_kind = self.extensions.kind(id).is_some_and(|known| known != kind);
            if other_id || other_kind {
                map.set(kind, 0);
                lines.retain(|line| line.uri != kind.uri());
            } else {
                self.extensions.set(kind, id);
            }
        }
    }
}

impl Offerer {
    /// For a client that offers too, and of whose media these codecs are taken.
    #[must_use]
    pub fn mutual(settings: Arc<LocalSettings>, session_id: u64, ice: IceCredentials, codecs: &'static [CodecKind]) -> Self {
        let mut offerer = Self::new(settings, session_id, ice);
        offerer.changed = false;
        offerer.payload_types = PayloadTypes::preferring(PREFERRED);
        offerer.mutual = Some(Mutual { codecs, extensions: ExtensionMap::default(), held: false });
        offerer
    }

    /// Is it one of those?
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.mutual.is_some()
    }

    /// Told: the client is about to offer, or no longer. False: an offer of ours is under way, it has to wait for that.
    pub fn hold(&mut self, held: bool) -> bool {
        let crossed = held && self.outstanding.is_some();
        if let Some(mutual) = &mut self.mutual {
            mutual.held = held && !crossed;
        }
        !crossed
    }

    /// Told: the client's offer. Gives the answer; [`Self::agreed`] is new.
    ///
    /// # Errors
    /// [`NegotiateError`], of which [`NegotiateError::Glare`] is nothing to tell anybody; everything stays as it was.
    pub fn handle_offer(&mut self, sdp: &str, fresh: &mut dyn Fresh) -> Result<Answer, NegotiateError> {
        if self.outstanding.is_some() {
            return Err(NegotiateError::Glare);
        }
        let offer = sdp::parse(sdp)?;
        let accepted = self.check_offer(&offer)?;
        let tagged = offered::tagged_section(&offer, &accepted)?;
        let mut remote = sections::remote_transport(&offer, tagged, |setup| match setup {
            Setup::Active | Setup::ActPass => Some(DtlsRole::Server),
            Setup::Passive => None,
        })?;
        let before = self.agreed.as_ref().map(|agreed| &agreed.remote);
        if before.is_some_and(|before| before.fingerprint != remote.fingerprint) {
            return Err(NegotiateError::Unsupported("the DTLS certificate changed; join again with a new peer connection"));
        }
        let ice_restarted = before.is_some_and(|before| before.ice != remote.ice);
        let Some((data, media)) = offer.media.split_first() else { return Err(NegotiateError::Missing("m= section")) };
        if ice_restarted {
            self.ice = fresh.ice();
        }
        self.data_mid.clone_from(&data.mid);
        remote.data = Some(sections::data_section(data));

        let transport = sections::local_transport(&self.settings, &self.ice, Setup::Passive);
        let mut answer = self.begin(&transport);
        answer.extmap_allow_mixed = offer.extmap_allow_mixed;
        let stream = self.stream_name();
        let mut agreed = Vec::with_capacity(media.len());
        for (at, (media, accepted)) in media.iter().zip(accepted.iter().skip(1)).enumerate() {
            let section = if *accepted { self.take(at, media) } else { None };
            let Some((section, extensions)) = section else {
                self.refuse(at, media);
                answer.media.push(offered::rejection(media));
                continue;
            };
            let Some(line) = self.lines.get(at) else { continue };
            let mut written = line.write(&transport, stream);
            written.protocol.clone_from(&media.protocol);
            written.rtcp_rsize = media.rtcp_rsize;
            written.extensions = extensions;
            answer.bundle.push(media.mid.clone());
            answer.media.push(written);
            agreed.push(section);
        }
        // What waits for a section that became free, or was taken from one.
        self.changed |= !self.waiting.is_empty();
        self.agreed = Some(Agreed { local_ice: self.ice.clone(), remote, sections: agreed });
        Ok(Answer { sdp: answer.to_string(), mids: self.mids(), ice_restarted })
    }

    fn check_offer(&self, offer: &sdp::Description) -> Result<Vec<bool>, NegotiateError> {
        let data = Standing { kind: MediaKind::Application, mid: &self.data_mid, rejected: false };
        let mut standing = Vec::with_capacity(self.lines.len() + 1);
        if self.agreed.is_some() {
            standing.push(data);
        }
        standing.extend(self.lines.iter().map(|line| Standing { kind: line.kind, mid: &line.mid, rejected: line.dead }));
        let accepted = offered::check(offer, &standing)?;
        let is_data = offer.media.first().is_some_and(|first| first.kind == MediaKind::Application);
        if !is_data || accepted.first() != Some(&true) {
            return Err(NegotiateError::Section {
                section: 0,
                problem: "the first section has to be the data section; make the data channel before the first offer",
            });
        }
        Ok(accepted)
    }

    /// Takes the client's section over into its line, new or old. `None`: there is nothing in it that we take.
    fn take(&mut self, at: usize, media: &sdp::Media) -> Option<(Section, Vec<sdp::Extension>)> {
        let mutual = self.mutual.as_mut()?;
        let kind = sections::kind(media.kind)?;
        let mut codecs = codecs::known(media);
        codecs.retain(|codec| mutual.codecs.contains(&codec.kind));
        if kind == Kind::Audio {
            // See `extension_wanted`.
            codecs.iter_mut().for_each(|codec| codec.transport_cc = false);
        }
        if codecs.is_empty() {
            return None;
        }
        self.payload_types.learn(&codecs);
        let (mut extensions, mut extension_lines) = sections::extensions(kind, media);
        mutual.reconcile(&mut extensions, &mut extension_lines);
        let receive = media.direction.sends().then(|| offered::receive_on(media));
        let state = match self.lines.get_mut(at).filter(|line| line.mid == media.mid) {
            Some(line) => std::mem::replace(&mut line.state, LineState::Free).offered(media.direction, &codecs),
            None => LineState::Free,
        };
        let send = match &state {
            LineState::Used(outgoing) => {
                Some(SendStream { track: outgoing.track.clone(), ssrc: outgoing.ssrc, rtx_ssrc: outgoing.rtx_ssrc })
            }
            LineState::Leaving { .. } | LineState::Free | LineState::Refused(_) => None,
        };
        let section = Section { mid: media.mid.clone(), kind, codecs: codecs.clone(), extensions, receive: receive.clone(), send };
        let line = Line { mid: media.mid.clone(), kind: media.kind, codecs, extensions, state, receive, dead: false };
        match self.lines.get_mut(at) {
            Some(place) => *place = line,
            None => self.lines.push(line),
        }
        Some((section, extension_lines))
    }

    /// The section is not, or no longer, used.
    fn refuse(&mut self, at: usize, media: &sdp::Media) {
        match self.lines.get_mut(at) {
            Some(line) => {
                (line.dead, line.receive) = (true, None);
                line.mid.clone_from(&media.mid);
                if line.kind != media.kind {
                    // Taken up again for something else: the client goes on with that kind in every later offer.
                    line.kind = media.kind;
                    line.codecs.clear();
                    line.extensions = ExtensionMap::default();
                }
                if let LineState::Used(outgoing) = std::mem::replace(&mut line.state, LineState::Free) {
                    // Stopped by the client: what was there has to go elsewhere.
                    self.waiting.push(*outgoing);
                }
            }
            None => self.lines.push(Line {
                mid: media.mid.clone(),
                kind: media.kind,
                codecs: Vec::new(),
                extensions: ExtensionMap::default(),
                state: LineState::Free,
                receive: None,
                dead: true,
            }),
        }
    }
}

impl LineState {
    /// What becomes of our side of a section in the answer to an offer.
    fn offered(self, direction: Direction, codecs: &[Codec]) -> Self {
        let fits = |outgoing: &Outgoing| outgoing.codecs.iter().any(|codec| codecs::matching(codecs, codec).is_some());
        match self {
            Self::Used(outgoing) if direction.receives() && fits(&outgoing) => Self::Used(outgoing),
            Self::Used(outgoing) => Self::Refused(outgoing.track),
            // The answer says that nothing comes any more.
            Self::Leaving { .. } | Self::Free => Self::Free,
            refused @ Self::Refused(_) => refused,
        }
    }
}
