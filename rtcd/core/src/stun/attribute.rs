//! Attribute types, and sizes that STUN fixes.

pub(super) const MAGIC_COOKIE: u32 = 0x2112_A442;
pub(super) const HEADER_LEN: usize = 20;
pub(super) const INTEGRITY_LEN: usize = 20;
/// FINGERPRINT's CRC is XORed with this (RFC 8489 §14.7).
pub(super) const FINGERPRINT_XOR: u32 = 0x5354_554E;

pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
pub(super) const USERNAME: u16 = 0x0006;
pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(super) const ERROR_CODE: u16 = 0x0009;
pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
pub(super) const REALM: u16 = 0x0014;
pub(super) const NONCE: u16 = 0x0015;
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(super) const PRIORITY: u16 = 0x0024;
pub(super) const USE_CANDIDATE: u16 = 0x0025;
pub(super) const SOFTWARE: u16 = 0x8022;
pub(super) const FINGERPRINT: u16 = 0x8028;
pub(super) const ICE_CONTROLLED: u16 = 0x8029;
pub(super) const ICE_CONTROLLING: u16 = 0x802A;

/// Below this an unknown attribute forbids to process the message (RFC 8489 §5).
pub(super) const COMPREHENSION_OPTIONAL: u16 = 0x8000;
