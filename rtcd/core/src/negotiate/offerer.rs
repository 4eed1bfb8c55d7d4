//! The transport on which we offer.

use std::sync::Arc;

use super::agreed::{
    Agreed, Codec, DtlsRole, ExtensionKind, ExtensionMap, IceCredentials, LocalSettings, Outgoing, Receive, Section, SendStream,
};
use super::codecs;
use super::error::NegotiateError;
use super::mutual::Mutual;
use super::offered;
use super::payload_types::PayloadTypes;
use super::sections;
use crate::ids::{Kind, TrackId};
use crate::limits;
use crate::sdp::{self, Direction, MediaKind, Setup};

/// An offer to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// SDP text.
    pub sdp: String,
    /// Its number, growing from 1; comes back with the answer.
    pub id: u32,
    /// Which mid carries which track.
    pub mids: Vec<(String, TrackId)>,
}

/// Offers tracks to a client. See the module's documentation.
#[derive(Debug)]
pub struct Offerer {
    pub(super) settings: Arc<LocalSettings>,
    session_id: u64,
    version: u64,
    pub(super) ice: IceCredentials,
    /// Of the data section, which is always the first.
    pub(super) data_mid: String,
    /// Sections behind it.
    pub(super) lines: Vec<Line>,
    /// Not on a section yet, oldest first.
    pub(super) waiting: Vec<Outgoing>,
    pub(super) payload_types: PayloadTypes,
    /// Tracks of which no codec has a number here: a client that offers too can use them all up for itself.
    unnumbered: Vec<TrackId>,
    next_mid: u32,
    next_id: u32,
    /// Something changed since the last offer.
    pub(super) changed: bool,
    pub(super) outstanding: Option<Offer>,
    pub(super) agreed: Option<Agreed>,
    /// The client offers as well.
    pub(super) mutual: Option<Mutual>,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) mid: String,
    /// Of a section that the client offered and nobody takes it may be any.
    pub(super) kind: MediaKind,
    /// As offered.
    pub(super) codecs: Vec<Codec>,
    /// As offered.
    pub(super) extensions: ExtensionMap,
    pub(super) state: LineState,
    /// What the client sends here; only where it offers as well.
    pub(super) receive: Option<Receive>,
    /// One end refused it with port 0; the section stays so until it is taken up again under another mid.
    pub(super) dead: bool,
}

#[derive(Debug)]
pub(super) enum LineState {
    /// Carries a track, or will with the next offer.
    Used(Box<Outgoing>),
    /// Its track is gone; the client still has to agree to that. Without this step a browser would not report the next
    /// track on the section.
    Leaving {
        /// An offer that says so was made.
        offered: bool,
    },
    /// May be used again.
    Free,
    /// The client takes nothing of this track. Kept until the track goes, so that it is not offered again and again.
    Refused(TrackId),
}

impl Offerer {
    /// `session_id`: random, for the `o=` line.
    #[must_use]
    pub fn new(settings: Arc<LocalSettings>, session_id: u64, ice: IceCredentials) -> Self {
        Self {
            settings,
            session_id: session_id >> 1,
            version: 0,
            ice,
            data_mid: "0".to_owned(),
            lines: Vec::new(),
            waiting: Vec::new(),
            payload_types: PayloadTypes::default(),
            unnumbered: Vec::new(),
            next_mid: 1,
            next_id: 1,
            changed: true,
            outstanding: None,
            agreed: None,
            mutual: None,
        }
    }

    /// Told: the client wants this track.
    pub fn add(&mut self, outgoing: Outgoing) {
        let known = self.waiting.iter().any(|waiting| waiting.track == outgoing.track)
            || self.unnumbered.contains(&outgoing.track)
            || self.lines.iter().any(|line| line.state.track() == Some(&outgoing.track));
        if !known && self.waiting.len() < limits::SDP_MEDIA_MAX {
            self.waiting.push(outgoing);
            self.changed = true;
        }
    }

    /// Told: the track is over or not wanted any more. Nothing of it may be sent from now on.
    pub fn remove(&mut self, track: &TrackId) {
        self.waiting.retain(|waiting| waiting.track != *track);
        self.unnumbered.retain(|unnumbered| unnumbered != track);
        for line in &mut self.lines {
            if line.state.track() == Some(track) {
                self.changed |= matches!(line.state, LineState::Used(_));
                line.state = match line.state {
                    LineState::Refused(_) => LineState::Free,
                    LineState::Used(_) | LineState::Leaving { .. } | LineState::Free => LineState::Leaving { offered: false },
                };
            }
        }
        for section in self.agreed.iter_mut().flat_map(|agreed| &mut agreed.sections) {
            if section.send.as_ref().is_some_and(|send| send.track == *track) {
                section.send = None;
            }
        }
    }

    /// Told: offer again with these credentials. An outstanding offer is replaced.
    pub fn restart_ice(&mut self, ice: IceCredentials) {
        self.ice = ice;
        self.changed = true;
        self.outstanding = None;
    }

    /// Our credentials, of the newest offer or the one to come.
    #[must_use]
    pub fn local_ice(&self) -> &IceCredentials {
        &self.ice
    }

    /// What is agreed now.
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// Asked: did the client take nothing of this track?
    #[must_use]
    pub fn refuses(&self, track: &TrackId) -> bool {
        self.unnumbered.contains(track)
            || self.lines.iter().any(|line| matches!(&line.state, LineState::Refused(refused) if refused == track))
    }

    /// Asked: is there an offer to send? `None` while one is outstanding or where nothing changed.
    pub fn poll_offer(&mut self) -> Option<Offer> {
        let may = self.mutual.as_ref().is_none_or(|mutual| mutual.may_offer(self.agreed.is_some()));
        if !self.changed || self.outstanding.is_some() || !may {
            return None;
        }
        self.changed = false;
        self.place_waiting();
        let id = self.next_id;
        self.next_id += 1;
        let offer = Offer { sdp: self.write().to_string(), id, mids: self.mids() };
        self.outstanding = Some(offer.clone());
        Some(offer)
    }

    /// Asked: the outstanding offer once more, for a client that may not have got it.
    #[must_use]
    pub fn resend(&self) -> Option<Offer> {
        self.outstanding.clone()
    }

    /// Told: the client's answer. [`Self::agreed`] is new, and there may be a next offer.
    ///
    /// # Errors
    /// [`NegotiateError`]; everything stays as it was and the offer stays outstanding.
    pub fn handle_answer(&mut self, sdp: &str, id: u32) -> Result<(), NegotiateError> {
        let outstanding = self.outstanding.as_ref().map(|offer| offer.id);
        // Clients before LiveKit protocol 16 do not number their answers.
        if outstanding.is_none() || (id != 0 && outstanding != Some(id)) {
            return Err(NegotiateError::Stale { answered: id, outstanding });
        }
        let answer = sdp::parse(sdp)?;
        let wrong = |section, problem| NegotiateError::Section { section, problem };
        let (data, media) = answer.media.split_first().ok_or(NegotiateError::Missing("m= section"))?;
        if media.len() != self.lines.len() {
            return Err(wrong(media.len(), "the answer has to have as many sections as the offer"));
        }
        if data.kind != MediaKind::Application || data.rejected() {
            return Err(wrong(0, "the data section must not be rejected"));
        }
        let tagged = answer.bundle.first().and_then(|mid| answer.media.iter().find(|media| media.mid == *mid));
        let mut remote = sections::remote_transport(&answer, tagged.unwrap_or(data), |setup| match setup {
            Setup::Active => Some(DtlsRole::Server),
            // Pion (v4.2.18), and so LiveKit's Go SDK, answers an end that is ICE-lite so: then the first hello is ours.
            Setup::Passive => Some(DtlsRole::Client),
            Setup::ActPass => None,
        })?;
        if let Some(before) = &self.agreed {
            remote.role = before.remote.role;
        }
        remote.data = Some(sections::data_section(data));
        if self.agreed.as_ref().is_some_and(|agreed| agreed.remote.fingerprint != remote.fingerprint) {
            return Err(NegotiateError::Unsupported("the DTLS certificate changed; join again with a new peer connection"));
        }
        let mut agreed = Vec::with_capacity(media.len());
        for (at, (line, media)) in self.lines.iter().zip(media).enumerate() {
            if !media.rejected() && (media.mid != line.mid || media.kind != line.kind) {
                return Err(wrong(at + 1, "kind or mid differ from the offer"));
            }
            agreed.push(line.agreed(media, self.mutual.is_some()));
        }

        for ((line, media), section) in self.lines.iter_mut().zip(media).zip(&agreed) {
            line.dead = media.rejected();
            line.receive = section.as_ref().and_then(|section| section.receive.clone());
            let taken = section.as_ref().is_some_and(|section| section.send.is_some());
            line.state = match std::mem::replace(&mut line.state, LineState::Free) {
                LineState::Used(outgoing) if taken => LineState::Used(outgoing),
                LineState::Used(outgoing) => LineState::Refused(outgoing.track),
                LineState::Leaving { offered: false } => LineState::Leaving { offered: false },
                LineState::Leaving { offered: true } | LineState::Free => LineState::Free,
                refused @ LineState::Refused(_) => refused,
            };
        }
        self.outstanding = None;
        // Only where all sections are in use: tracks that wait for one that has just become free.
        self.changed |= !self.waiting.is_empty() && self.lines.iter().any(|line| matches!(line.state, LineState::Free));
        let sections = agreed.into_iter().flatten().collect();
        self.agreed = Some(Agreed { local_ice: self.ice.clone(), remote, sections });
        Ok(())
    }

    /// How a stream that we send is named.
    pub(super) fn stream_name(&self) -> fn(&Outgoing) -> String {
        if self.mutual.is_some() { sections::stream_of_publisher } else { sections::stream_of_track }
    }

    /// Puts waiting tracks onto free sections, or onto new ones.
    fn place_waiting(&mut self) {
        for outgoing in std::mem::take(&mut self.waiting) {
            let codecs = self.payload_types.assign(&outgoing);
            if codecs.is_empty() {
                self.unnumbered.push(outgoing.track);
                continue;
            }
            let room = self.lines.len() + 1 < limits::SDP_MEDIA_MAX;
            // What the client sends on a section it describes itself.
            let kind = sections::media_kind(outgoing.kind);
            let free = |line: &Line| line.kind == kind && matches!(line.state, LineState::Free) && line.receive.is_none();
            let place = self.lines.iter().position(|line| free(line) && line.is_for(&codecs));
            let place = if place.is_none() && !room { self.lines.iter().position(free) } else { place };
            let extensions = self.mutual.as_ref().map_or_else(|| our_extensions(outgoing.kind), |mutual| mutual.extensions(outgoing.kind));
            if let Some(line) = place.and_then(|at| self.lines.get_mut(at)) {
                if line.dead {
                    // RFC 8829 5.2.2: a rejected section is taken up again under a new mid.
                    line.mid = new_mid(&mut self.next_mid, self.mutual.is_some());
                    line.dead = false;
                }
                (line.codecs, line.extensions) = (codecs, extensions);
                line.state = LineState::Used(Box::new(outgoing));
            } else if room {
                let mid = new_mid(&mut self.next_mid, self.mutual.is_some());
                let state = LineState::Used(Box::new(outgoing));
                self.lines.push(Line { mid, kind, codecs, extensions, state, receive: None, dead: false });
            } else {
                self.waiting.push(outgoing);
            }
        }
    }

    pub(super) fn mids(&self) -> Vec<(String, TrackId)> {
        self.lines.iter().filter_map(|line| Some((line.mid.clone(), line.state.shown_as()?.clone()))).collect()
    }

    /// A description of ours, so far with the data section alone.
    pub(super) fn begin(&mut self, transport: &sdp::TransportAttributes) -> sdp::Description {
        self.version += 1;
        let mut data = sections::write_data(&self.data_mid, transport.clone());
        data.candidates = sections::candidates(&self.settings);
        data.end_of_candidates = true;
        sdp::Description {
            session_id: self.session_id,
            session_version: self.version,
            ice_lite: true,
            extmap_allow_mixed: true,
            bundle: vec![data.mid.clone()],
            media: vec![data],
            ..sdp::Description::default()
        }
    }

    fn write(&mut self) -> sdp::Description {
        let transport = sections::local_transport(&self.settings, &self.ice, Setup::ActPass);
        let mut offer = self.begin(&transport);
        let stream = self.stream_name();
        for line in &mut self.lines {
            if let LineState::Leaving { offered } = &mut line.state {
                *offered = true;
            }
            let media = line.write(&transport, stream);
            if !media.rejected() {
                offer.bundle.push(line.mid.clone());
            }
            offer.media.push(media);
        }
        offer
    }
}

impl Line {
    /// Can it carry these codecs next? A client may keep a section's formats for good: webrtc 0.21 (our bots') and str0m 0.25 answer one
    /// that had VP8 and is to have AV1 with VP8, and show nothing.
    fn is_for(&self, codecs: &[Codec]) -> bool {
        self.dead || codecs.iter().all(|wanted| self.codecs.iter().any(|known| known.kind == wanted.kind))
    }

    /// The section as we see it.
    pub(super) fn write(&self, transport: &sdp::TransportAttributes, stream: fn(&Outgoing) -> String) -> sdp::Media {
        let used = match &self.state {
            LineState::Used(outgoing) => Some(outgoing),
            LineState::Leaving { .. } | LineState::Free | LineState::Refused(_) => None,
        };
        let stereo = used.is_some_and(|outgoing| outgoing.stereo);
        let mut media = sdp::Media {
            kind: self.kind,
            port: if self.dead { 0 } else { 9 },
            protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
            mid: self.mid.clone(),
            direction: Direction::of(used.is_some(), self.receive.is_some()),
            transport: if self.dead { sdp::TransportAttributes::default() } else { transport.clone() },
            rtcp_mux: true,
            rtcp_rsize: true,
            codecs: sections::write_codecs(&self.codecs, &sections::opus_fmtp(false, stereo, stereo)),
            extensions: self
                .extensions
                .iter()
                .map(|(kind, id)| sdp::Extension { id, direction: None, uri: kind.uri().to_owned() })
                .collect(),
            ..sdp::Media::default()
        };
        if media.codecs.is_empty() {
            // A section of the client's with nothing in it that we know; a list without any format is no SDP.
            media.codecs.extend(sections::kind(self.kind).map(sections::any_codec));
        }
        if let Some(receive) = &self.receive {
            sections::write_receive(&mut media, receive);
        }
        if let Some(outgoing) = used {
            let rtx = self.codecs.iter().any(|codec| codec.rtx.is_some());
            sections::write_outgoing(&mut media, outgoing, stream(outgoing), rtx);
        }
        media
    }

    /// What is left of the offered section after the answer; `None` where it was rejected.
    fn agreed(&self, answer: &sdp::Media, mutual: bool) -> Option<Section> {
        if answer.rejected() {
            return None;
        }
        let kind = sections::kind(self.kind)?;
        let answered = codecs::known(answer);
        let (mut extensions, _) = sections::extensions(kind, answer);
        for (kind, id) in self.extensions.iter() {
            if extensions.id(kind).is_some_and(|answered| answered != id) {
                extensions.set(kind, 0);
            }
        }
        let has_transport_cc = extensions.id(ExtensionKind::TransportCc).is_some();
        let both = |offered: &Codec| {
            let answered =
                answered.iter().find(|answered| answered.payload_type == offered.payload_type && answered.kind == offered.kind)?;
            Some(Codec {
                rtx: offered.rtx.filter(|_| answered.rtx == offered.rtx),
                red: offered.red.filter(|_| answered.red == offered.red),
                nack: offered.nack && answered.nack,
                pli: offered.pli && answered.pli,
                transport_cc: offered.transport_cc && answered.transport_cc && has_transport_cc,
                ..offered.clone()
            })
        };
        let codecs: Vec<Codec> = self.codecs.iter().filter_map(both).collect();
        let send = match &self.state {
            LineState::Used(outgoing) if answer.direction.receives() && !codecs.is_empty() => {
                Some(SendStream { track: outgoing.track.clone(), ssrc: outgoing.ssrc, rtx_ssrc: outgoing.rtx_ssrc })
            }
            LineState::Used(_) | LineState::Leaving { .. } | LineState::Free | LineState::Refused(_) => None,
        };
        let receive = (mutual && answer.direction.sends()).then(|| offered::receive_on(answer));
        Some(Section { mid: self.mid.clone(), kind, codecs, extensions, receive, send })
    }
}

impl LineState {
    fn track(&self) -> Option<&TrackId> {
        match self {
            Self::Used(outgoing) => Some(&outgoing.track),
            Self::Refused(track) => Some(track),
            Self::Leaving { .. } | Self::Free => None,
        }
    }

    fn shown_as(&self) -> Option<&TrackId> {
        match self {
            Self::Used(outgoing) => Some(&outgoing.shown_as),
            Self::Refused(track) => Some(track),
            Self::Leaving { .. } | Self::Free => None,
        }
    }
}

/// Our extension ids. Small ones for what every packet carries.
fn our_extensions(kind: Kind) -> ExtensionMap {
    const OFFERED: [(ExtensionKind, u8); 7] = [
        (ExtensionKind::Mid, 1),
        (ExtensionKind::AudioLevel, 2),
        (ExtensionKind::TransportCc, 3),
        (ExtensionKind::VideoOrientation, 4),
        (ExtensionKind::DependencyDescriptor, 5),
        (ExtensionKind::AbsCaptureTime, 6),
        (ExtensionKind::PlayoutDelay, 7),
    ];
    let mut map = ExtensionMap::default();
    for (extension, id) in OFFERED.into_iter().filter(|(extension, _)| sections::extension_wanted(kind, *extension)) {
        map.set(extension, id);
    }
    map
}

/// Where the client offers too, it numbers its own sections: ours have to look different.
fn new_mid(next: &mut u32, mutual: bool) -> String {
    let number = *next;
    *next += 1;
    if mutual { format!("s{number}") } else { number.to_string() }
}
