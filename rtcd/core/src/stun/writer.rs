//! Writes STUN messages.

use std::net::SocketAddr;

use super::address::write_xor;
use super::attribute::*;
use super::crc32::crc32;
use super::integrity::IntegrityKey;
use super::message::{Class, RoleAttribute, TransactionId, kind_word};
use crate::wire::Writer;

/// Builds one message in a slot. Order of calls is order of attributes; [`StunWriter::integrity`] and then
/// [`StunWriter::fingerprint`] come last.
#[derive(Debug)]
pub struct StunWriter<'a> {
    writer: Writer<'a>,
    transaction: TransactionId,
}

impl<'a> StunWriter<'a> {
    /// Starts a message.
    pub fn new(slot: &'a mut [u8], class: Class, method: u16, transaction: TransactionId) -> Self {
        let mut writer = Writer::new(slot);
        writer.u16(kind_word(class, method));
        writer.u16(0);
        writer.u32(MAGIC_COOKIE);
        writer.bytes(&transaction.0);
        Self { writer, transaction }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let Ok(len) = u16::try_from(value.len()) else { return };
        self.writer.u16(kind);
        self.writer.u16(len);
        self.writer.bytes(value);
        self.writer.pad4();
        self.set_len(0);
    }

    /// Puts the length so far, plus what is still to come, into the header.
    fn set_len(&mut self, more: usize) {
        let len = (self.writer.len() + more).saturating_sub(HEADER_LEN);
        if let Ok(len) = u16::try_from(len) {
            self.writer.patch_u16(2, len);
        }
    }

    /// USERNAME.
    pub fn username(&mut self, username: &[u8]) {
        self.attribute(USERNAME, username);
    }

    /// SOFTWARE; may be given again. Nobody reads it: it makes a message longer.
    pub fn software(&mut self, text: &[u8]) {
        self.attribute(SOFTWARE, text);
    }

    /// PRIORITY.
    pub fn priority(&mut self, priority: u32) {
        self.attribute(PRIORITY, &priority.to_be_bytes());
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(&mut self) {
        self.attribute(USE_CANDIDATE, &[]);
    }

    /// ICE-CONTROLLED or ICE-CONTROLLING.
    pub fn role(&mut self, role: RoleAttribute) {
        match role {
            RoleAttribute::Controlled(tie_breaker) => self.attribute(ICE_CONTROLLED, &tie_breaker.to_be_bytes()),
            RoleAttribute::Controlling(tie_breaker) => self.attribute(ICE_CONTROLLING, &tie_breaker.to_be_bytes()),
        }
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn mapped_address(&mut self, address: SocketAddr) {
        let mut value = [0u8; 20];
        let mut writer = Writer::new(&mut value);
        write_xor(&mut writer, address, &self.transaction);
        let len = writer.len();
        self.attribute(XOR_MAPPED_ADDRESS, value.get(..len).unwrap_or_default());
    }

    /// ERROR-CODE.
    pub fn error(&mut self, code: u16, phrase: &str) {
        let mut value = [0u8; 4 + 64];
        let mut writer = Writer::new(&mut value);
        writer.u16(0);
        writer.u8((code / 100) as u8);
        writer.u8((code % 100) as u8);
        writer.bytes(phrase.as_bytes());
        let len = writer.len();
        self.attribute(ERROR_CODE, value.get(..len).unwrap_or_default());
    }

    /// UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(&mut self, kinds: &[u16]) {
        let mut value = [0u8; 32];
        let mut writer = Writer::new(&mut value);
        for kind in kinds.iter().take(16) {
            writer.u16(*kind);
        }
        let len = writer.len();
        self.attribute(UNKNOWN_ATTRIBUTES, value.get(..len).unwrap_or_default());
    }

    /// MESSAGE-INTEGRITY over everything so far.
    pub fn integrity(&mut self, key: &IntegrityKey) {
        self.set_len(4 + INTEGRITY_LEN);
        let code = match self.writer.written().split_first_chunk::<4>() {
            Some((head, rest)) => key.sign(*head, rest),
            None => return,
        };
        self.attribute(MESSAGE_INTEGRITY, &code);
    }

    /// FINGERPRINT over everything so far.
    pub fn fingerprint(&mut self) {
        self.set_len(8);
        let crc = crc32(&[self.writer.written()]) ^ FINGERPRINT_XOR;
        self.attribute(FINGERPRINT, &crc.to_be_bytes());
    }

    /// The message's length, or `None` when the slot was too small.
    #[must_use]
    pub fn finish(self) -> Option<usize> {
        self.writer.finish()
    }
}
