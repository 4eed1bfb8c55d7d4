//! What a client's offer says, whoever answers it.

use std::collections::HashSet;

use super::agreed::{ExtensionKind, ExtensionMap, Receive, ReceiveStream};
use super::codecs;
use super::error::NegotiateError;
use crate::limits;
use crate::sdp::{self, Direction, MediaKind};

/// What an `m=` line was before this offer.
pub(super) struct Standing<'a> {
    pub(super) kind: MediaKind,
    pub(super) mid: &'a str,
    pub(super) rejected: bool,
}

/// Which sections can be accepted at all; an error where the offer breaks a rule that nothing can be built on.
pub(super) fn check(offer: &sdp::Description, standing: &[Standing<'_>]) -> Result<Vec<bool>, NegotiateError> {
    let wrong = |section, problem| Err(NegotiateError::Section { section, problem });
    if offer.media.is_empty() {
        return Err(NegotiateError::Missing("m= section"));
    }
    if offer.media.len() < standing.len() {
        return wrong(offer.media.len(), "sections of earlier offers are missing; they stay for ever");
    }
    let bundle: HashSet<&str> = offer.bundle.iter().map(String::as_str).collect();
    let mut mids = HashSet::new();
    let mut accepted = Vec::with_capacity(offer.media.len());
    let mut extension_ids = ExtensionMap::default();
    for (at, media) in offer.media.iter().enumerate() {
        if let Some(line) = standing.get(at) {
            let recycled = line.rejected && line.mid != media.mid;
            if !recycled && line.kind != media.kind {
                return wrong(at, "the kind of a section in use changed");
            }
            if !line.rejected && !media.rejected() && line.mid != media.mid {
                return wrong(at, "the mid of a section in use changed");
            }
        }
        if media.rejected() {
            accepted.push(false);
            continue;
        }
        if media.mid.is_empty() {
            return wrong(at, "a=mid is missing");
        }
        if !mids.insert(media.mid.as_str()) {
            return wrong(at, "the mid is used twice");
        }
        for extension in &media.extensions {
            let Some(kind) = ExtensionKind::from_uri(&extension.uri) else { continue };
            // Packets of one transport are read before their section is known.
            if extension_ids.id(kind).is_some_and(|id| id != extension.id) {
                return wrong(at, "a header extension has another id than in the sections before");
            }
            extension_ids.set(kind, extension.id);
        }
        // One transport is all there is: what cannot be bundled is refused.
        let bundled = bundle.contains(media.mid.as_str()) || (bundle.is_empty() && offer.media.len() == 1);
        let rtp = matches!(media.kind, MediaKind::Audio | MediaKind::Video);
        let fits = if rtp { media.protocol.ends_with("RTP/SAVPF") } else { media.protocol.ends_with("DTLS/SCTP") };
        let known = rtp || media.kind == MediaKind::Application;
        accepted.push(known && bundled && fits && (!rtp || media.rtcp_mux));
    }
    Ok(accepted)
}

/// What the client sends on a section.
pub(super) fn receive(media: &sdp::Media) -> Receive {
    let msid = media.msids.iter().find(|msid| !msid.track.is_empty()).or_else(|| media.ssrcs.iter().find_map(|ssrc| ssrc.msid.as_ref()));
    let (stream, cid) = msid.map(|msid| (msid.stream.clone(), msid.track.clone())).unwrap_or_default();
    let offered = |id: &String| media.rids.iter().any(|rid| rid.send && rid.id == *id);
    let rids = media.simulcast.send.iter().filter(|id| offered(id)).take(limits::LAYERS_MAX).cloned().collect();
    let opus = media.codecs.iter().find(|codec| codec.name.eq_ignore_ascii_case("opus"));
    let says = |name| opus.is_some_and(|opus| codecs::parameter(&opus.fmtp, name) == Some("1"));
    Receive { cid, stream, rids, streams: streams(media), dtx: says("usedtx"), stereo: says("sprop-stereo") }
}

/// As [`receive`], where nobody announces tracks by name and the section's mid stands for it.
pub(super) fn receive_on(media: &sdp::Media) -> Receive {
    Receive { cid: media.mid.clone(), ..receive(media) }
}

/// Declared streams, the lowest layer first: SSRCs of FID groups, in the order of the SIM group where there is one.
fn streams(media: &sdp::Media) -> Vec<ReceiveStream> {
    let group = |semantics: &'static str| media.ssrc_groups.iter().filter(move |group| group.semantics == semantics);
    let mut retransmissions = Vec::new();
    for fid in group("FID") {
        if let [ssrc, rtx] = fid.ssrcs.as_slice() {
            retransmissions.push((*ssrc, *rtx));
        }
    }
    let is_rtx = |ssrc: u32| retransmissions.iter().any(|(_, rtx)| *rtx == ssrc);
    let declared: Vec<u32> = match group("SIM").next() {
        Some(sim) => sim.ssrcs.clone(),
        None => media.ssrcs.iter().map(|ssrc| ssrc.ssrc).filter(|ssrc| !is_rtx(*ssrc)).collect(),
    };
    declared
        .into_iter()
        .take(limits::LAYERS_MAX)
        .map(|ssrc| ReceiveStream { ssrc, rtx: retransmissions.iter().find(|(media, _)| *media == ssrc).map(|(_, rtx)| *rtx) })
        .collect()
}

/// The section that carries the transport for all: the first accepted one of the BUNDLE group.
pub(super) fn tagged_section<'a>(offer: &'a sdp::Description, accepted: &[bool]) -> Result<&'a sdp::Media, NegotiateError> {
    let usable = || offer.media.iter().zip(accepted).filter(|(_, accepted)| **accepted).map(|(media, _)| media);
    // The tagged section may be one that we reject; its transport still is the bundle's.
    let tagged = offer.bundle.first().and_then(|tag| offer.media.iter().find(|media| media.mid == *tag));
    usable()
        .next()
        .map(|first| tagged.filter(|tagged| tagged.transport.ice_ufrag.is_some()).unwrap_or(first))
        .ok_or(NegotiateError::Unsupported("no section of the offer is bundled, with rtcp-mux, over DTLS"))
}

pub(super) fn rejection(media: &sdp::Media) -> sdp::Media {
    sdp::Media {
        kind: media.kind,
        port: 0,
        protocol: media.protocol.clone(),
        mid: media.mid.clone(),
        direction: Direction::Inactive,
        // A payload type that was offered: an empty list is no SDP.
        codecs: media
            .codecs
            .first()
            .map(|codec| sdp::Codec { feedback: Vec::new(), fmtp: String::new(), ..codec.clone() })
            .into_iter()
            .collect(),
        ..sdp::Media::default()
    }
}
