//! The transport on which we offer.

use std::sync::Arc;

use super::agreed::{Agreed, Codec, CodecKind, DtlsRole, ExtensionKind, IceCredentials, LocalSettings, Outgoing, Section, SendStream};
use super::codecs;
use super::error::NegotiateError;
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
    settings: Arc<LocalSettings>,
    session_id: u64,
    ice: IceCredentials,
    /// Sections behind the data section, which is always the first.
    lines: Vec<Line>,
    /// Not on a section yet, oldest first.
    waiting: Vec<Outgoing>,
    payload_types: PayloadTypes,
    next_mid: u32,
    next_id: u32,
    /// Something changed since the last offer.
    changed: bool,
    outstanding: Option<Offer>,
    agreed: Option<Agreed>,
}

#[derive(Debug)]
struct Line {
    mid: String,
    kind: Kind,
    /// As offered.
    codecs: Vec<Codec>,
    state: LineState,
    /// The client answered with port 0; the section stays so until it is taken up again under another mid.
    dead: bool,
}

#[derive(Debug)]
enum LineState {
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

/// Which payload type means what on this transport, for ever: a browser must not see one number with two meanings.
#[derive(Debug, Default)]
struct PayloadTypes {
    used: Vec<(CodecKind, String, u8, Option<u8>)>,
    taken: u8,
}

impl Offerer {
    /// `session_id`: random, for the `o=` line.
    #[must_use]
    pub fn new(settings: Arc<LocalSettings>, session_id: u64, ice: IceCredentials) -> Self {
        Self {
            settings,
            session_id: session_id >> 1,
            ice,
            lines: Vec::new(),
            waiting: Vec::new(),
            payload_types: PayloadTypes::default(),
            next_mid: 1,
            next_id: 1,
            changed: true,
            outstanding: None,
            agreed: None,
        }
    }

    /// Told: the client wants this track.
    pub fn add(&mut self, outgoing: Outgoing) {
        let known = self.waiting.iter().any(|waiting| waiting.track == outgoing.track)
            || self.lines.iter().any(|line| line.state.track() == Some(&outgoing.track));
        if !known && self.waiting.len() < limits::SDP_MEDIA_MAX {
            self.waiting.push(outgoing);
            self.changed = true;
        }
    }

    /// Told: the track is over or not wanted any more. Nothing of it may be sent from now on.
    pub fn remove(&mut self, track: &TrackId) {
        self.waiting.retain(|waiting| waiting.track != *track);
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

    /// Asked: is there an offer to send? `None` while one is outstanding or where nothing changed.
    pub fn poll_offer(&mut self) -> Option<Offer> {
        if !self.changed || self.outstanding.is_some() {
            return None;
        }
        self.changed = false;
        self.place_waiting();
        let id = self.next_id;
        self.next_id += 1;
        let offer = Offer { sdp: self.write(id).to_string(), id, mids: self.mids() };
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
            Setup::Passive | Setup::ActPass => None,
        })?;
        remote.data = Some(sections::data_section(data));
        if self.agreed.as_ref().is_some_and(|agreed| agreed.remote.fingerprint != remote.fingerprint) {
            return Err(NegotiateError::Unsupported("the DTLS certificate changed; join again with a new peer connection"));
        }
        let mut agreed = Vec::with_capacity(media.len());
        for (at, (line, media)) in self.lines.iter().zip(media).enumerate() {
            if !media.rejected() && (media.mid != line.mid || sections::kind(media.kind) != Some(line.kind)) {
                return Err(wrong(at + 1, "kind or mid differ from the offer"));
            }
            agreed.push(line.agreed(media));
        }

        for ((line, media), section) in self.lines.iter_mut().zip(media).zip(&agreed) {
            line.dead = media.rejected();
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

    /// Puts waiting tracks onto free sections, or onto new ones.
    fn place_waiting(&mut self) {
        for outgoing in std::mem::take(&mut self.waiting) {
            let codecs = self.payload_types.assign(&outgoing);
            if codecs.is_empty() {
                continue;
            }
            let room = self.lines.len() + 1 < limits::SDP_MEDIA_MAX;
            let free = |line: &&mut Line| line.kind == outgoing.kind && matches!(line.state, LineState::Free);
            if let Some(line) = self.lines.iter_mut().find(free) {
                if line.dead {
                    // RFC 8829 5.2.2: a rejected section is taken up again under a new mid.
                    line.mid = self.next_mid.to_string();
                    self.next_mid += 1;
                    line.dead = false;
                }
                line.codecs = codecs;
                line.state = LineState::Used(Box::new(outgoing));
            } else if room {
                let (mid, kind) = (self.next_mid.to_string(), outgoing.kind);
                self.next_mid += 1;
                self.lines.push(Line { mid, kind, codecs, state: LineState::Used(Box::new(outgoing)), dead: false });
            } else {
                self.waiting.push(outgoing);
            }
        }
    }

    fn mids(&self) -> Vec<(String, TrackId)> {
        self.lines.iter().filter_map(|line| Some((line.mid.clone(), line.state.track()?.clone()))).collect()
    }

    fn write(&mut self, version: u32) -> sdp::Description {
        let transport = sections::local_transport(&self.settings, &self.ice, Setup::ActPass);
        let mut data = sections::write_data("0", transport.clone());
        data.candidates = sections::candidates(&self.settings);
        data.end_of_candidates = true;
        let mut offer = sdp::Description {
            session_id: self.session_id,
            session_version: u64::from(version),
            ice_lite: true,
            extmap_allow_mixed: true,
            bundle: vec![data.mid.clone()],
            media: vec![data],
            ..sdp::Description::default()
        };
        for line in &mut self.lines {
            if let LineState::Leaving { offered } = &mut line.state {
                *offered = true;
            }
            let media = line.write(&transport);
            if !media.rejected() {
                offer.bundle.push(line.mid.clone());
            }
            offer.media.push(media);
        }
        offer
    }
}

impl Line {
    fn write(&self, transport: &sdp::TransportAttributes) -> sdp::Media {
        let used = match &self.state {
            LineState::Used(outgoing) => Some(outgoing),
            LineState::Leaving { .. } | LineState::Free | LineState::Refused(_) => None,
        };
        let stereo = used.is_some_and(|outgoing| outgoing.stereo);
        let mut media = sdp::Media {
            kind: sections::media_kind(self.kind),
            port: if self.dead { 0 } else { 9 },
            protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
            mid: self.mid.clone(),
            direction: Direction::of(used.is_some(), false),
            transport: if self.dead { sdp::TransportAttributes::default() } else { transport.clone() },
            rtcp_mux: true,
            rtcp_rsize: true,
            codecs: sections::write_codecs(&self.codecs, &sections::opus_fmtp(false, stereo, stereo)),
            extensions: offered_extensions(self.kind),
            ..sdp::Media::default()
        };
        if let Some(outgoing) = used {
            let rtx = self.codecs.iter().any(|codec| codec.rtx.is_some());
            sections::write_outgoing(&mut media, outgoing, sections::stream_of_track(outgoing), rtx);
        }
        media
    }

    /// What is left of the offered section after the answer; `None` where it was rejected.
    fn agreed(&self, answer: &sdp::Media) -> Option<Section> {
        if answer.rejected() {
            return None;
        }
        let answered = codecs::known(answer);
        let (mut extensions, _) = sections::extensions(self.kind, answer);
        for (kind, id) in offered_ids(self.kind) {
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
        Some(Section { mid: self.mid.clone(), kind: self.kind, codecs, extensions, receive: None, send })
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
}

impl PayloadTypes {
    /// The track's codecs with this transport's numbers.
    fn assign(&mut self, outgoing: &Outgoing) -> Vec<Codec> {
        let mut codecs: Vec<Codec> = Vec::with_capacity(outgoing.codecs.len());
        for codec in &outgoing.codecs {
            // Mono and stereo Opus differ in fmtp, and so must not share a number.
            let variant = if codec.kind == CodecKind::Opus { outgoing.stereo.to_string() } else { codec.fmtp.clone() };
            let Some((payload_type, repair)) = self.number(codec.kind, variant) else { continue };
            if codecs.iter().any(|other| other.payload_type == payload_type) {
                continue;
            }
            let video = codec.kind != CodecKind::Opus;
            // Pictures are sent again; sound is sent twice where it gets lost.
            let (rtx, red) = if video { (repair, None) } else { (None, repair) };
            codecs.push(Codec { payload_type, rtx, red, nack: video, pli: video, transport_cc: video, ..codec.clone() });
        }
        codecs
    }

    fn number(&mut self, kind: CodecKind, variant: String) -> Option<(u8, Option<u8>)> {
        let known = self.used.iter().find(|(known, fmtp, ..)| *known == kind && *fmtp == variant);
        if let Some((.., payload_type, repair)) = known {
            return Some((*payload_type, *repair));
        }
        let payload_type = self.next()?;
        let repair = self.next();
        self.used.push((kind, variant, payload_type, repair));
        Some((payload_type, repair))
    }

    /// 96 to 127, then 35 to 63: the dynamic ranges that RTCP multiplexing leaves (RFC 5761 4).
    fn next(&mut self) -> Option<u8> {
        let number = (96..=127).chain(35..=63).nth(usize::from(self.taken))?;
        self.taken += 1;
        Some(number)
    }
}

/// Our extension ids. Small ones for what every packet carries.
fn offered_ids(kind: Kind) -> impl Iterator<Item = (ExtensionKind, u8)> {
    const OFFERED: [(ExtensionKind, u8); 7] = [
        (ExtensionKind::Mid, 1),
        (ExtensionKind::AudioLevel, 2),
        (ExtensionKind::TransportCc, 3),
        (ExtensionKind::VideoOrientation, 4),
        (ExtensionKind::DependencyDescriptor, 5),
        (ExtensionKind::AbsCaptureTime, 6),
        (ExtensionKind::PlayoutDelay, 7),
    ];
    OFFERED.into_iter().filter(move |(extension, _)| sections::extension_wanted(kind, *extension))
}

fn offered_extensions(kind: Kind) -> Vec<sdp::Extension> {
    offered_ids(kind).map(|(extension, id)| sdp::Extension { id, direction: None, uri: extension.uri().to_owned() }).collect()
}
