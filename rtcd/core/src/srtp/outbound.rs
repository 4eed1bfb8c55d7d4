//! Seals what we send to one remote endpoint.

use aws_lc_rs::aead::Aad;

use super::cipher::{Cipher, CmSha1, RTCP, RTP, SHA1_80_LEN, cm_apply, gcm_nonce, sha1_80};
use super::inbound::rtcp_aad;
use super::profile::{MasterKeys, Profile, SrtpError};

const GCM_TAG_LEN: usize = 16;
const RTCP_CLEAR_LEN: usize = 8;
const RTCP_ENCRYPTED: u32 = 1 << 31;

/// Context towards one remote endpoint.
///
/// RTP needs no state here: the caller gives the 48-bit index (an extended sequence number that only grows), which it has
/// anyway. **Never give the same `(SSRC, index)` twice with other bytes**: that would use key stream twice. Resending goes
/// over an RTX stream with its own SSRC and numbers.
#[repr(C)]
pub struct Outbound {
    rtp: Cipher,
    profile: Profile,
    rtcp: Cipher,
    // One counter for all our RTCP: unique per SSRC because it is unique at all.
    rtcp_index: u32,
}

impl Outbound {
    /// Derives the session keys.
    pub fn new(master: &MasterKeys) -> Result<Self, SrtpError> {
        Ok(Self { rtp: Cipher::new(master, &RTP)?, rtcp: Cipher::new(master, &RTCP)?, rtcp_index: 0, profile: master.profile() })
    }

    /// The profile negotiated.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Seals one packet into its send slot.
    ///
    /// The header (its SSRC included) stands already at `slot[..header_len]`; the clear payload is `prefix` and then
    /// `payload` (an RTX sequence number or a rewritten VP8 descriptor goes into `prefix`; usually it is empty and the
    /// payload is encrypted straight into the slot without a copy). `index` is the extended sequence number whose low 16 bits the
    /// header carries. Answers the packet's whole length.
    // As `write_forwarded`.
    #[inline(always)]
    pub fn protect(&self, slot: &mut [u8], header_len: usize, prefix: &[u8], payload: &[u8], index: u64) -> Result<usize, SrtpError> {
        if index >> 48 != 0 {
            return Err(SrtpError::Exhausted);
        }
        let text_len = prefix.len() + payload.len();
        let tag_len = self.profile.tag_len();
        let len = header_len + text_len + tag_len;
        let packet = slot.get_mut(..len).ok_or(SrtpError::SlotTooSmall)?;
        let (header, body) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::SlotTooSmall)?;
        let ssrc =
            header.get(8..).and_then(|rest| rest.first_chunk::<4>()).map(|ssrc| u32::from_be_bytes(*ssrc)).ok_or(SrtpError::Malformed)?;
        let (text, tag) = body.split_at_mut_checked(text_len).ok_or(SrtpError::SlotTooSmall)?;
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let aad = Aad::from(&*header);
                if prefix.is_empty() {
                    key.seal_out_of_place_scatter(nonce, aad, payload, text, &[], tag).map_err(|_| SrtpError::Keys)?;
                } else {
                    gather(text, prefix, payload);
                    key.seal_in_place_scatter(nonce, aad, text, &[], tag).map_err(|_| SrtpError::Keys)?;
                }
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, authentication, salt } = &**cm;
                gather(text, prefix, payload);
                cm_apply(key, salt, ssrc, index, text)?;
                let (signed, tag) = packet.split_at_mut_checked(header_len + text_len).ok_or(SrtpError::SlotTooSmall)?;
                tag.copy_from_slice(&sha1_80(authentication, signed, &((index >> 16) as u32).to_be_bytes()));
            }
        }
        Ok(len)
    }

    /// Seals a compound RTCP packet that stands at `slot[..len]`; answers the new length. Needs
    /// [`super::RTCP_OVERHEAD_MAX`] bytes of room behind it.
    pub fn protect_rtcp(&mut self, slot: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let index = self.rtcp_index;
        if index & RTCP_ENCRYPTED != 0 {
            return Err(SrtpError::Exhausted);
        }
        let word = (index | RTCP_ENCRYPTED).to_be_bytes();
        let ssrc =
            slot.get(4..len).and_then(|rest| rest.first_chunk::<4>()).map(|ssrc| u32::from_be_bytes(*ssrc)).ok_or(SrtpError::Malformed)?;
        let total = match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let total = len + GCM_TAG_LEN + word.len();
                let packet = slot.get_mut(..total).ok_or(SrtpError::SlotTooSmall)?;
                let (clear, rest) = packet.split_at_mut_checked(RTCP_CLEAR_LEN).ok_or(SrtpError::Malformed)?;
                let (text, rest) = rest.split_at_mut_checked(len - RTCP_CLEAR_LEN).ok_or(SrtpError::Malformed)?;
                let (tag, place) = rest.split_at_mut_checked(GCM_TAG_LEN).ok_or(SrtpError::SlotTooSmall)?;
                let aad = rtcp_aad(clear, word).ok_or(SrtpError::Malformed)?;
                key.seal_in_place_scatter(gcm_nonce(salt, ssrc, u64::from(index)), Aad::from(aad), text, &[], tag)
                    .map_err(|_| SrtpError::Keys)?;
                place.copy_from_slice(&word);
                total
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, authentication, salt } = &**cm;
                let total = len + word.len() + SHA1_80_LEN;
                let packet = slot.get_mut(..total).ok_or(SrtpError::SlotTooSmall)?;
                let (body, rest) = packet.split_at_mut_checked(len).ok_or(SrtpError::SlotTooSmall)?;
                let (place, tag) = rest.split_at_mut_checked(word.len()).ok_or(SrtpError::SlotTooSmall)?;
                cm_apply(key, salt, ssrc, u64::from(index), body.get_mut(RTCP_CLEAR_LEN..).unwrap_or_default())?;
                place.copy_from_slice(&word);
                tag.copy_from_slice(&sha1_80(authentication, body, &word));
                total
            }
        };
        self.rtcp_index += 1;
        Ok(total)
    }
}

/// Copies the two parts of a clear payload to where they are encrypted.
#[inline]
fn gather(text: &mut [u8], prefix: &[u8], payload: &[u8]) {
    if let Some((front, back)) = text.split_at_mut_checked(prefix.len()) {
        front.copy_from_slice(prefix);
        back.copy_from_slice(payload);
    }
}
