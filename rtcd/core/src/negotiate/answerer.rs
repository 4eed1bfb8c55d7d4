//! The transport on which the client offers.

use std::collections::HashSet;
use std::sync::Arc;

use super::agreed::{Agreed, Codec, CodecKind, DtlsRole, IceCredentials, LocalSettings, Outgoing, RemoteTransport, Section, SendStream};
use super::codecs;
use super::error::NegotiateError;
use super::offered::{self, Standing};
use super::sections;
use crate::ids::{Kind, TrackId};
use crate::limits;
use crate::sdp::{self, Direction, MediaKind, Setup};

/// Fresh secrets for a transport, from whoever owns the random source and knows which ufrag leads back to it.
pub trait Fresh {
    /// New credentials: for the first answer and for every ICE restart.
    fn ice(&mut self) -> IceCredentials;
}

/// An answer to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SDP text.
    pub sdp: String,
    /// Which mid carries which track that we send.
    pub mids: Vec<(String, TrackId)>,
    /// The client restarted ICE: both ends have new credentials.
    pub ice_restarted: bool,
}

/// Answers a client's offers. See the module's documentation.
#[derive(Debug)]
pub struct Answerer {
    settings: Arc<LocalSettings>,
    /// We may send on it too.
    single: bool,
    session_id: u64,
    version: u64,
    agreed: Option<Agreed>,
    /// What the last answer said of each `m=` line.
    lines: Vec<Line>,
    /// Tracks to send, oldest first.
    outgoing: Vec<Wanted>,
    /// What was announced of tracks to come, by cid.
    published: Vec<Published>,
    /// [`Self::poll_need`] has said something that the client has not answered with an offer yet.
    asked: bool,
}

#[derive(Clone, Debug)]
struct Line {
    kind: MediaKind,
    mid: String,
    rejected: bool,
    /// What we send there.
    track: Option<TrackId>,
    /// The client would take a track there.
    free: bool,
}

#[derive(Clone, Debug)]
struct Wanted {
    outgoing: Outgoing,
    /// No section of the client shares a codec with it: asking for more would not help.
    unsupported: bool,
}

#[derive(Clone, Debug)]
struct Published {
    cid: String,
    dtx: bool,
    stereo: bool,
    codec: Option<CodecKind>,
}

impl Answerer {
    /// `single`: the client has only this transport. `session_id`: random, for the `o=` line.
    #[must_use]
    pub fn new(settings: Arc<LocalSettings>, single: bool, session_id: u64) -> Self {
        Self {
            settings,
            single,
            // Browsers take 63 bits.
            session_id: session_id >> 1,
            version: 0,
            agreed: None,
            lines: Vec::new(),
            outgoing: Vec::new(),
            published: Vec::new(),
            asked: false,
        }
    }

    /// Told: a track was announced; its section will carry this msid track id.
    pub fn publish(&mut self, cid: &str, dtx: bool, stereo: bool, codec: Option<CodecKind>) {
        self.published.retain(|published| published.cid != cid);
        if self.published.len() >= limits::TRACKS_PER_PEER_MAX {
            self.published.remove(0);
        }
        self.published.push(Published { cid: cid.to_owned(), dtx, stereo, codec });
    }

    /// Told: the client wants this track. It appears in the next answer that has room.
    pub fn add(&mut self, outgoing: Outgoing) {
        let known = self.outgoing.iter().any(|wanted| wanted.outgoing.track == outgoing.track);
        if self.single && !known && self.outgoing.len() < limits::SDP_MEDIA_MAX {
            self.outgoing.push(Wanted { outgoing, unsupported: false });
        }
    }

    /// Told: the track is over or not wanted any more. Nothing of it may be sent from now on; its section is given back
    /// with the next answer.
    pub fn remove(&mut self, track: &TrackId) {
        self.outgoing.retain(|wanted| wanted.outgoing.track != *track);
        for section in self.agreed.iter_mut().flat_map(|agreed| &mut agreed.sections) {
            if section.send.as_ref().is_some_and(|send| send.track == *track) {
                section.send = None;
            }
        }
    }

    /// Asked: is there a section of its kind for the track, and none that shares a codec with it?
    #[must_use]
    pub fn refuses(&self, track: &TrackId) -> bool {
        self.outgoing.iter().any(|wanted| wanted.unsupported && wanted.outgoing.track == *track)
    }

    /// What is agreed now.
    #[must_use]
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// Asked: how many more receiving sections (audio, video) the client has to offer. `(0, 0)`: just another offer, so
    /// that we can use or give back sections that are there. `None`: nothing to do, or asked already.
    pub fn poll_need(&mut self) -> Option<(u32, u32)> {
        if !self.single || self.asked || self.agreed.is_none() {
            return None;
        }
        let unassigned = |kind: Kind| {
            let waiting = self
                .outgoing
                .iter()
                .filter(|wanted| !wanted.unsupported && wanted.outgoing.kind == kind && !self.is_sent(&wanted.outgoing.track));
            waiting.count()
        };
        let free = |kind: Kind| self.lines.iter().filter(|line| line.free && line.kind == sections::media_kind(kind)).count();
        let (audio, video) = (unassigned(Kind::Audio), unassigned(Kind::Video));
        let given_back = self.lines.iter().any(|line| line.track.as_ref().is_some_and(|track| !self.wants(track)));
        if audio + video == 0 && !given_back {
            return None;
        }
        let room = limits::SDP_MEDIA_MAX.saturating_sub(self.lines.len());
        let missing = |waiting: usize, kind| u32::try_from(waiting.saturating_sub(free(kind)).min(room)).unwrap_or(0);
        self.asked = true;
        Some((missing(audio, Kind::Audio), missing(video, Kind::Video)))
    }

    fn wants(&self, track: &TrackId) -> bool {
        self.outgoing.iter().any(|wanted| wanted.outgoing.track == *track)
    }

    /// The name that a track goes by. What is over has its own, for one answer more.
    fn shown_as(&self, track: &TrackId) -> TrackId {
        let wanted = self.outgoing.iter().find(|wanted| wanted.outgoing.track == *track);
        wanted.map_or(track, |wanted| &wanted.outgoing.shown_as).clone()
    }

    fn is_sent(&self, track: &TrackId) -> bool {
        self.lines.iter().any(|line| line.track.as_ref() == Some(track))
    }

    /// Told: the client's offer. Gives the answer; [`Self::agreed`] is new.
    ///
    /// # Errors
    /// [`NegotiateError`]; everything stays as it was.
    pub fn handle_offer(&mut self, sdp: &str, fresh: &mut dyn Fresh) -> Result<Answer, NegotiateError> {
        let offer = sdp::parse(sdp)?;
        let standing: Vec<Standing<'_>> =
            self.lines.iter().map(|line| Standing { kind: line.kind, mid: &line.mid, rejected: line.rejected }).collect();
        let accepted = offered::check(&offer, &standing)?;
        let tagged = offered::tagged_section(&offer, &accepted)?;
        let mut remote = sections::remote_transport(&offer, tagged, |setup| match setup {
            Setup::Active | Setup::ActPass => Some(DtlsRole::Server),
            Setup::Passive => None,
        })?;
        let (local_ice, ice_restarted) = self.local_ice(&remote, fresh)?;

        let transport = sections::local_transport(&self.settings, &local_ice, Setup::Passive);
        let mut answer = sdp::Description {
            session_id: self.session_id,
            session_version: self.version + 1,
            ice_lite: true,
            extmap_allow_mixed: offer.extmap_allow_mixed,
            ..sdp::Description::default()
        };
        let mut lines = Vec::with_capacity(offer.media.len());
        let mut agreed = Vec::new();
        let mut taken: HashSet<TrackId> = self.kept_tracks(&offer, &accepted);
        for (at, media) in offer.media.iter().enumerate() {
            let is_accepted = accepted.get(at).copied().unwrap_or(false);
            let mut line = Line { kind: media.kind, mid: media.mid.clone(), rejected: true, track: None, free: false };
            let written = if !is_accepted {
                None
            } else if media.kind == MediaKind::Application {
                remote.data = Some(sections::data_section(media));
                Some(sections::write_data(&media.mid, transport.clone()))
            } else {
                self.answer_section(at, media, &transport, &mut taken, &mut line).map(|(written, section)| {
                    agreed.push(section);
                    written
                })
            };
            line.rejected = written.is_none();
            if written.is_some() {
                answer.bundle.push(media.mid.clone());
            }
            answer.media.push(written.unwrap_or_else(|| offered::rejection(media)));
            lines.push(line);
        }
        let Some(first) = answer.media.iter_mut().find(|media| media.port != 0) else {
            return Err(NegotiateError::Unsupported("no section of the offer has a codec that this server forwards"));
        };
        first.candidates = sections::candidates(&self.settings);
        first.end_of_candidates = true;

        self.mark_unsupported(&lines, &agreed);
        let mids = lines.iter().filter_map(|line| Some((line.mid.clone(), self.shown_as(line.track.as_ref()?)))).collect();
        self.version += 1;
        self.lines = lines;
        self.asked = false;
        self.agreed = Some(Agreed { local_ice, remote, sections: agreed });
        Ok(Answer { sdp: answer.to_string(), mids, ice_restarted })
    }

    /// Our credentials: kept while the client keeps its own. A new certificate would need a new transport.
    fn local_ice(&self, remote: &RemoteTransport, fresh: &mut dyn Fresh) -> Result<(IceCredentials, bool), NegotiateError> {
        let Some(agreed) = &self.agreed else { return Ok((fresh.ice(), false)) };
        if agreed.remote.fingerprint != remote.fingerprint {
            return Err(NegotiateError::Unsupported("the DTLS certificate changed; join again with a new peer connection"));
        }
        if agreed.remote.ice == remote.ice { Ok((agreed.local_ice.clone(), false)) } else { Ok((fresh.ice(), true)) }
    }

    /// Tracks that stay where they are.
    fn kept_tracks(&self, offer: &sdp::Description, accepted: &[bool]) -> HashSet<TrackId> {
        let lines = self.lines.iter().zip(&offer.media).zip(accepted);
        lines
            .filter(|((line, media), accepted)| **accepted && line.mid == media.mid && media.direction.receives())
            .filter_map(|((line, _), _)| line.track.clone().filter(|track| self.wants(track)))
            .collect()
    }

    fn answer_section(
        &self,
        at: usize,
        media: &sdp::Media,
        transport: &sdp::TransportAttributes,
        taken: &mut HashSet<TrackId>,
        line: &mut Line,
    ) -> Option<(sdp::Media, Section)> {
        let kind = sections::kind(media.kind)?;
        let mut codecs = codecs::known(media);
        if kind == Kind::Audio {
            // See `extension_wanted`.
            codecs.iter_mut().for_each(|codec| codec.transport_cc = false);
        }
        if codecs.is_empty() {
            return None;
        }
        let receive = media.direction.sends().then(|| offered::receive(media));
        let outgoing = self.outgoing_for(at, media, kind, &codecs, taken, line);
        if let Some(outgoing) = outgoing {
            sort_by_preference(&mut codecs, &outgoing.codecs);
            taken.insert(outgoing.track.clone());
            line.track = Some(outgoing.track.clone());
        }

        let published = receive.as_ref().and_then(|receive| self.published.iter().find(|published| published.cid == receive.cid));
        if let Some(wished) = published.and_then(|published| published.codec) {
            // Browsers send the first codec of the answer (Chromium 156, Firefox 153).
            codecs.sort_by_key(|codec| codec.kind != wished);
        }
        let opus = sections::opus_fmtp(
            published.is_some_and(|published| published.dtx),
            published.is_some_and(|published| published.stereo),
            outgoing.is_some_and(|outgoing| outgoing.stereo),
        );
        let (extensions, extension_lines) = sections::extensions(kind, media);
        let mut written = sdp::Media {
            kind: media.kind,
            port: 9,
            protocol: media.protocol.clone(),
            mid: media.mid.clone(),
            direction: Direction::of(outgoing.is_some(), receive.is_some()),
            transport: transport.clone(),
            rtcp_mux: true,
            rtcp_rsize: media.rtcp_rsize,
            codecs: sections::write_codecs(&codecs, &opus),
            extensions: extension_lines,
            ..sdp::Media::default()
        };
        if let Some(receive) = &receive {
            sections::write_receive(&mut written, receive);
        }
        if let Some(outgoing) = outgoing {
            let rtx = codecs.iter().any(|codec| codec.rtx.is_some());
            sections::write_outgoing(&mut written, outgoing, sections::stream_of_source(outgoing), rtx);
        }
        let section = Section {
            mid: media.mid.clone(),
            kind,
            codecs,
            extensions,
            receive,
            send: outgoing.map(|outgoing| SendStream { track: outgoing.track.clone(), ssrc: outgoing.ssrc, rtx_ssrc: outgoing.rtx_ssrc }),
        };
        Some((written, section))
    }

    /// The track that goes onto this section: the one that is there, or the oldest waiting one.
    fn outgoing_for(
        &self,
        at: usize,
        media: &sdp::Media,
        kind: Kind,
        codecs: &[Codec],
        taken: &HashSet<TrackId>,
        line: &mut Line,
    ) -> Option<&Outgoing> {
        if !self.single || !media.direction.receives() {
            return None;
        }
        let before = self.lines.get(at).filter(|before| before.mid == media.mid).and_then(|before| before.track.as_ref());
        if let Some(track) = before {
            // A track that ended leaves its section inactive for one answer: without that step a browser would not
            // report the next track on it (Chromium fires `track` only when the direction changes).
            line.free = !self.wants(track);
            return self.outgoing.iter().map(|wanted| &wanted.outgoing).find(|outgoing| outgoing.track == *track);
        }
        let chosen = self.outgoing.iter().map(|wanted| &wanted.outgoing).find(|outgoing| {
            outgoing.kind == kind
                && !taken.contains(&outgoing.track)
                && outgoing.codecs.iter().any(|codec| codecs::matching(codecs, codec).is_some())
        });
        line.free = chosen.is_none();
        chosen
    }

    /// Tracks for which there is a free section of their kind and still no common codec.
    fn mark_unsupported(&mut self, lines: &[Line], agreed: &[Section]) {
        for wanted in &mut self.outgoing {
            let free =
                |section: &&Section| section.kind == wanted.outgoing.kind && lines.iter().any(|line| line.free && line.mid == section.mid);
            let mut free_sections = agreed.iter().filter(free).peekable();
            let sent = lines.iter().any(|line| line.track.as_ref() == Some(&wanted.outgoing.track));
            wanted.unsupported = !sent
                && free_sections.peek().is_some()
                && free_sections
                    .all(|section| wanted.outgoing.codecs.iter().all(|codec| codecs::matching(&section.codecs, codec).is_none()));
        }
    }
}

/// Codecs that the track has come first, in the track's order: a browser decodes them all, but it is told what to expect.
pub(super) fn sort_by_preference(codecs: &mut [Codec], preferred: &[Codec]) {
    codecs.sort_by_key(|codec| {
        let exact = preferred
            .iter()
            .position(|other| codecs::matching(std::slice::from_ref(other), codec).is_some_and(|_| other.fmtp == codec.fmtp));
        exact.or_else(|| preferred.iter().position(|other| other.kind == codec.kind)).unwrap_or(usize::MAX)
    });
}
