//! Opens what one remote endpoint sends.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rustc_hash::FxHasher;

use super::cipher::{Cipher, CmSha1, RTCP, RTP, SHA1_80_LEN, cm_apply, gcm_nonce, gcm_open, verify_sha1_80};
use super::profile::{MasterKeys, Profile, SrtpError};
use super::replay::ReplayWindow;
use crate::limits::{SRTP_RETIRED_MAX, SRTP_SOURCES_MAX};
use crate::rtp::{Header, extend};

const GCM_TAG_LEN: usize = 16;
/// Fixed RTCP header and sender SSRC, which stay clear.
const RTCP_CLEAR_LEN: usize = 8;
const RTCP_INDEX_LEN: usize = 4;
/// Set on the SRTCP index word when the packet is encrypted.
const RTCP_ENCRYPTED: u32 = 1 << 31;

/// What one kind of packets came from.
#[derive(Default)]
struct Sources {
    live: HashMap<u32, Source, BuildHasherDefault<FxHasher>>,
    /// Of those that fell silent only the highest index is kept: nothing up to it is new, and its roll-over counter goes on.
    retired: HashMap<u32, u64, BuildHasherDefault<FxHasher>>,
}

struct Source {
    window: ReplayWindow,
    /// The highest index when silent sources were last looked for.
    highest_then: Option<u64>,
}

/// An opened RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unprotected {
    /// Its header.
    pub header: Header,
    /// Packet length without the tag: `packet[header.len..len]` is the clear payload (padding included, see [`Header::payload`]).
    pub len: usize,
    /// Roll-over counter and sequence number: a sequence number that never wraps.
    pub index: u64,
}

/// Context for one remote endpoint, RTP and RTCP. Sources appear with their first authentic packet.
#[repr(C)]
pub struct Inbound {
    rtp: Cipher,
    rtp_sources: Sources,
    rtcp: Cipher,
    rtcp_sources: Sources,
    profile: Profile,
}

impl Inbound {
    /// Derives the session keys.
    pub fn new(master: &MasterKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Cipher::new(master, &RTP)?,
            rtcp: Cipher::new(master, &RTCP)?,
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
            profile: master.profile(),
        })
    }

    /// The profile negotiated.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Verifies and decrypts an SRTP packet in place. On an error the bytes are worthless and nothing else has changed.
    #[inline]
    pub fn unprotect(&mut self, packet: &mut [u8]) -> Result<Unprotected, SrtpError> {
        let header = Header::parse(packet).map_err(|_| SrtpError::Malformed)?;
        let Sources { live, retired } = &mut self.rtp_sources;
        let source = live.get_mut(&header.ssrc);
        let highest = match &source {
            Some(source) => source.window.highest(),
            None => retired.get(&header.ssrc).copied(),
        };
        let index = match highest {
            // RFC 3711 §3.3.1: the roll-over counter that brings the sequence number nearest to the highest seen.
            Some(highest) => extend(highest, header.seq),
            None => u64::from(header.seq),
        };
        if !is_new(source.as_deref(), highest, index) {
            return Err(SrtpError::Replayed);
        }
        let (head, body) = packet.split_at_mut_checked(header.len).ok_or(SrtpError::Malformed)?;
        let body_len = body.len();
        let tag_len = match &self.rtp {
            Cipher::Gcm { key, salt } => {
                gcm_open(key, gcm_nonce(salt, header.ssrc, index), head, body)?;
                GCM_TAG_LEN
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, authentication, salt } = &**cm;
                let end = packet.len().checked_sub(SHA1_80_LEN).filter(|end| *end >= header.len).ok_or(SrtpError::Malformed)?;
                let (signed, tag) = packet.split_at_mut_checked(end).ok_or(SrtpError::Malformed)?;
                let roc = ((index >> 16) as u32).to_be_bytes();
                verify_sha1_80(authentication, signed, &roc, tag)?;
                cm_apply(key, salt, header.ssrc, index, signed.get_mut(header.len..).unwrap_or_default())?;
                SHA1_80_LEN
            }
        };
        // Authentic from here on; only now may anything be remembered.
        match source {
            Some(source) => source.window.note(index),
            None => self.rtp_sources.insert(header.ssrc, index)?,
        }
        Ok(Unprotected { header, len: header.len + body_len.saturating_sub(tag_len), index })
    }

    /// Verifies and decrypts an SRTCP packet in place; answers the length of the clear compound packet at its front.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc =
            packet.get(4..).and_then(|rest| rest.first_chunk::<4>()).map(|ssrc| u32::from_be_bytes(*ssrc)).ok_or(SrtpError::Malformed)?;
        if packet.first().is_none_or(|first| first >> 6 != 2) {
            return Err(SrtpError::Malformed);
        }
        // In AES-GCM the index comes last, in AES-CM the tag does.
        let trailer = match &self.rtcp {
            Cipher::Gcm { .. } => RTCP_INDEX_LEN,
            Cipher::CmSha1(_) => RTCP_INDEX_LEN + SHA1_80_LEN,
        };
        let end = packet.len().checked_sub(trailer).filter(|end| *end >= RTCP_CLEAR_LEN).ok_or(SrtpError::Malformed)?;
        let (body, tail) = packet.split_at_mut_checked(end).ok_or(SrtpError::Malformed)?;
        let word = *tail.first_chunk::<RTCP_INDEX_LEN>().ok_or(SrtpError::Malformed)?;
        let word_value = u32::from_be_bytes(word);
        let index = u64::from(word_value & !RTCP_ENCRYPTED);
        if word_value & RTCP_ENCRYPTED == 0 {
            return Err(SrtpError::NotEncrypted);
        }
        let Sources { live, retired } = &mut self.rtcp_sources;
        let source = live.get_mut(&ssrc);
        if !is_new(source.as_deref(), retired.get(&ssrc).copied(), index) {
            return Err(SrtpError::Replayed);
        }
        let len = match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let (clear, sealed) = body.split_at_mut_checked(RTCP_CLEAR_LEN).ok_or(SrtpError::Malformed)?;
                let aad = rtcp_aad(clear, word).ok_or(SrtpError::Malformed)?;
                let sealed_len = sealed.len();
                gcm_open(key, gcm_nonce(salt, ssrc, index), &aad, sealed)?;
                RTCP_CLEAR_LEN + sealed_len.saturating_sub(GCM_TAG_LEN)
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, authentication, salt } = &**cm;
                let tag = tail.get(RTCP_INDEX_LEN..).unwrap_or_default();
                verify_sha1_80(authentication, body, &word, tag)?;
                cm_apply(key, salt, ssrc, index, body.get_mut(RTCP_CLEAR_LEN..).unwrap_or_default())?;
                body.len()
            }
        };
        match source {
            Some(source) => source.window.note(index),
            None => self.rtcp_sources.insert(ssrc, index)?,
        }
        Ok(len)
    }

    /// Makes room, once half of it is taken: sources that went no further since the last call give their places to new ones, as
    /// those of cameras and screens that were shown earlier in a long call. Whoever of them comes back goes on where it was.
    pub fn retire_silent(&mut self) {
        self.rtp_sources.retire_silent();
        self.rtcp_sources.retire_silent();
    }

    /// Sources with a window now, RTP and RTCP.
    #[must_use]
    pub fn sources(&self) -> (usize, usize) {
        (self.rtp_sources.live.len(), self.rtcp_sources.live.len())
    }
}

/// What SRTCP's AES-GCM authenticates besides the text: clear header and index word (RFC 7714 §9.2).
#[inline]
pub(super) fn rtcp_aad(clear: &[u8], word: [u8; 4]) -> Option<[u8; 12]> {
    let [a, b, c, d, e, f, g, h] = *clear.first_chunk::<RTCP_CLEAR_LEN>()?;
    let [w3, w2, w1, w0] = word;
    Some([a, b, c, d, e, f, g, h, w3, w2, w1, w0])
}

/// May the index be new? `highest` is asked where there is no window.
#[inline]
fn is_new(source: Option<&Source>, highest: Option<u64>, index: u64) -> bool {
    match source {
        Some(source) => source.window.is_new(index),
        None => highest.is_none_or(|highest| index > highest),
    }
}

impl Sources {
    #[cold]
    fn insert(&mut self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        if self.live.len() >= SRTP_SOURCES_MAX {
            return Err(SrtpError::TooManySources);
        }
        let mut window = self.retired.remove(&ssrc).map_or_else(ReplayWindow::new, ReplayWindow::after);
        window.note(index);
        self.live.insert(ssrc, Source { window, highest_then: None });
        Ok(())
    }

    fn retire_silent(&mut self) {
        let Self { live, retired } = self;
        if live.len() < SRTP_SOURCES_MAX / 2 {
            return;
        }
        live.retain(|ssrc, source| {
            let highest = source.window.highest();
            let silent = std::mem::replace(&mut source.highest_then, highest) == highest;
            match highest {
                Some(highest) if silent && retired.len() < SRTP_RETIRED_MAX => {
                    retired.insert(*ssrc, highest);
                    false
                }
                Some(_) | None => true,
            }
        });
    }
}
