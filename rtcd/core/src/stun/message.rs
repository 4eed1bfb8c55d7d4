//! A parsed STUN message.

use std::net::SocketAddr;

use thiserror::Error;

use super::address::parse_xor;
use super::attribute::*;
use super::crc32::crc32;
use super::integrity::IntegrityKey;
use crate::limits::{STUN_ATTRIBUTES_MAX, STUN_UNKNOWN_MAX};
use crate::wire::Reader;

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none (keep-alives).
    Indication,
    /// Answer.
    Success,
    /// Refusal.
    Error,
}

/// Ties an answer to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub [u8; 12]);

/// The role the sender believes to have, with its tie-breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleAttribute {
    /// ICE-CONTROLLED.
    Controlled(u64),
    /// ICE-CONTROLLING.
    Controlling(u64),
}

/// Why bytes are no STUN message we can use. The sender's fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StunError {
    /// Not a STUN header, or a length that does not match the datagram.
    #[error("not a STUN message")]
    Malformed,
    /// An attribute runs over the end, or has a wrong size.
    #[error("STUN attribute damaged")]
    Attribute,
    /// More attributes than the bound.
    #[error("too many STUN attributes")]
    TooManyAttributes,
    /// FINGERPRINT does not match.
    #[error("STUN fingerprint does not match")]
    Fingerprint,
}

/// One message; borrows the datagram. Attributes behind MESSAGE-INTEGRITY are not read (RFC 8489 §14.5): nobody signed them.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Kind.
    pub class: Class,
    /// Method; ICE uses [`super::BINDING`].
    pub method: u16,
    /// Transaction.
    pub transaction: TransactionId,
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// PRIORITY.
    pub priority: Option<u32>,
    /// USE-CANDIDATE is there.
    pub use_candidate: bool,
    /// ICE-CONTROLLED or ICE-CONTROLLING.
    pub role: Option<RoleAttribute>,
    /// XOR-MAPPED-ADDRESS.
    pub mapped_address: Option<SocketAddr>,
    /// ERROR-CODE: number and phrase.
    pub error: Option<(u16, &'a [u8])>,
    /// A FINGERPRINT is there (and right, otherwise parsing fails).
    pub fingerprint: bool,
    unknown: [u16; STUN_UNKNOWN_MAX],
    unknown_count: usize,
    integrity_at: Option<usize>,
    bytes: &'a [u8],
}

/// True for datagrams that RFC 7983 sorts to STUN and that carry the magic cookie.
#[must_use]
pub fn is_stun(bytes: &[u8]) -> bool {
    matches!(bytes.first_chunk::<8>(), Some([0..4, _, _, _, cookie @ ..]) if *cookie == MAGIC_COOKIE.to_be_bytes())
}

impl<'a> Message<'a> {
    /// Reads one message that fills `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StunError> {
        let mut reader = Reader::new(bytes);
        let (class, method) = kind(reader.u16().ok_or(StunError::Malformed)?)?;
        let len = usize::from(reader.u16().ok_or(StunError::Malformed)?);
        if reader.u32() != Some(MAGIC_COOKIE) {
            return Err(StunError::Malformed);
        }
        let transaction = TransactionId(reader.array().ok_or(StunError::Malformed)?);
        if reader.len() != len || !len.is_multiple_of(4) {
            return Err(StunError::Malformed);
        }
        let mut message = Self {
            class,
            method,
            transaction,
            username: None,
            priority: None,
            use_candidate: false,
            role: None,
            mapped_address: None,
            error: None,
            fingerprint: false,
            unknown: [0; STUN_UNKNOWN_MAX],
            unknown_count: 0,
            integrity_at: None,
            bytes,
        };
        let mut count = 0;
        while !reader.is_empty() {
            count += 1;
            if count > STUN_ATTRIBUTES_MAX {
                return Err(StunError::TooManyAttributes);
            }
            let at = bytes.len() - reader.len();
            let kind = reader.u16().ok_or(StunError::Attribute)?;
            let len = usize::from(reader.u16().ok_or(StunError::Attribute)?);
            let value = reader.take(len).ok_or(StunError::Attribute)?;
            reader.take(len.next_multiple_of(4) - len).ok_or(StunError::Attribute)?;
            message.attribute(kind, at, value, reader.is_empty())?;
        }
        Ok(message)
    }

    fn attribute(&mut self, kind: u16, at: usize, value: &'a [u8], last: bool) -> Result<(), StunError> {
        if kind == FINGERPRINT {
            // It has to be the last one; its CRC covers everything before it.
            let signed = self.bytes.get(..at).ok_or(StunError::Attribute)?;
            if !last || value != (crc32(&[signed]) ^ FINGERPRINT_XOR).to_be_bytes() {
                return Err(StunError::Fingerprint);
            }
            self.fingerprint = true;
            return Ok(());
        }
        if self.integrity_at.is_some() {
            return Ok(());
        }
        let number = || value.first_chunk::<4>().filter(|_| value.len() == 4).map(|v| u32::from_be_bytes(*v)).ok_or(StunError::Attribute);
        let tie_breaker =
            || value.first_chunk::<8>().filter(|_| value.len() == 8).map(|v| u64::from_be_bytes(*v)).ok_or(StunError::Attribute);
        match kind {
            MESSAGE_INTEGRITY => {
                if value.len() != INTEGRITY_LEN {
                    return Err(StunError::Attribute);
                }
                self.integrity_at = Some(at);
            }
            // Of repeated attributes the first counts (RFC 8489 §14).
            USERNAME if self.username.is_none() => self.username = Some(value),
            PRIORITY if self.priority.is_none() => self.priority = Some(number()?),
            USE_CANDIDATE if value.is_empty() => self.use_candidate = true,
            USE_CANDIDATE => return Err(StunError::Attribute),
            ICE_CONTROLLED if self.role.is_none() => self.role = Some(RoleAttribute::Controlled(tie_breaker()?)),
            ICE_CONTROLLING if self.role.is_none() => self.role = Some(RoleAttribute::Controlling(tie_breaker()?)),
            XOR_MAPPED_ADDRESS if self.mapped_address.is_none() => {
                self.mapped_address = Some(parse_xor(value, &self.transaction).ok_or(StunError::Attribute)?);
            }
            ERROR_CODE if self.error.is_none() => {
                let ([_, _, class, number], phrase) = value.split_first_chunk::<4>().ok_or(StunError::Attribute)?;
                self.error = Some((u16::from(class & 7) * 100 + u16::from(*number), phrase));
            }
            USERNAME | PRIORITY | ICE_CONTROLLED | ICE_CONTROLLING | XOR_MAPPED_ADDRESS | ERROR_CODE => {}
            MAPPED_ADDRESS | UNKNOWN_ATTRIBUTES | REALM | NONCE | SOFTWARE => {}
            unknown if unknown < COMPREHENSION_OPTIONAL => {
                if let Some(place) = self.unknown.get_mut(self.unknown_count) {
                    *place = unknown;
                    self.unknown_count += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Types of attributes that must be understood and are not, at most [`STUN_UNKNOWN_MAX`] of them.
    #[must_use]
    pub fn unknown(&self) -> &[u16] {
        self.unknown.get(..self.unknown_count).unwrap_or_default()
    }

    /// Is there a MESSAGE-INTEGRITY, and was it made with this password?
    #[must_use]
    pub fn is_signed_by(&self, key: &IntegrityKey) -> bool {
        let verify = || {
            let at = self.integrity_at?;
            let [t1, t0, _, _] = *self.bytes.first_chunk::<4>()?;
            // The length that counts is the one up to and with this attribute.
            let [l1, l0] = u16::try_from(at + 4 + INTEGRITY_LEN - HEADER_LEN).ok()?.to_be_bytes();
            let rest = self.bytes.get(4..at)?;
            let code = self.bytes.get(at + 4..at + 4 + INTEGRITY_LEN)?;
            Some(key.verify([t1, t0, l1, l0], rest, code))
        };
        verify().unwrap_or(false)
    }

    /// The local part of USERNAME in a check sent to us: what stands before the colon, and what behind it.
    #[must_use]
    pub fn user_parts(&self) -> Option<(&'a [u8], &'a [u8])> {
        let username = self.username?;
        let colon = username.iter().position(|byte| *byte == b':')?;
        let (local, rest) = username.split_at_checked(colon)?;
        Some((local, rest.get(1..)?))
    }

    /// Bytes of the whole message.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Splits the interleaved class and method bits (RFC 8489 §5).
fn kind(word: u16) -> Result<(Class, u16), StunError> {
    if word & 0xC000 != 0 {
        return Err(StunError::Malformed);
    }
    let class = match word & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    Ok((class, (word & 0x000F) | ((word & 0x00E0) >> 1) | ((word & 0x3E00) >> 2)))
}

/// The inverse of [`kind`].
pub(super) fn kind_word(class: Class, method: u16) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    class | (method & 0x000F) | ((method & 0x0070) << 1) | ((method & 0x0F80) << 2)
}
