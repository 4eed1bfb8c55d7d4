//! The vectors of RFC 5769, and what must hold for hostile messages.

use std::net::SocketAddr;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const REQUEST: &str = "00010058 2112a442 b7e7a701 bc34d686 fa87dfae 80220010 5354554e 20746573 7420636c 69656e74 00240004 6e0001ff \
    80290008 932ff9b1 51263b36 00060009 6576746a 3a683676 59202020 00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2 80280004 e57a3bcf";
const RESPONSE_V4: &str = "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200008 0001a147 e112a643 \
    00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96";
const RESPONSE_V6: &str = "01010048 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200014 0002a147 0113a9fa \
    a5d3f179 bc25f4b5 bed2b9d9 00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41 80280004 c8fb0b4c";

#[test]
fn rfc5769_2_1_sample_request() {
    let bytes = hex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Request, BINDING));
    assert_eq!(message.username, Some(&b"evtj:h6vY"[..]));
    assert_eq!(message.user_parts(), Some((&b"evtj"[..], &b"h6vY"[..])));
    assert_eq!(message.priority, Some(0x6e00_01ff));
    assert_eq!(message.role, Some(RoleAttribute::Controlled(0x932f_f9b1_5126_3b36)));
    assert!(message.fingerprint && !message.use_candidate && message.unknown().is_empty());
    assert!(message.is_signed_by(&IntegrityKey::new(PASSWORD)));
    assert!(!message.is_signed_by(&IntegrityKey::new("another")));
}

#[test]
fn rfc5769_2_2_and_2_3_sample_responses() {
    for (text, address) in [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")] {
        let bytes = hex(text);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.class, Class::Success);
        assert_eq!(message.mapped_address, Some(address.parse::<SocketAddr>().unwrap()));
        assert!(message.is_signed_by(&IntegrityKey::new(PASSWORD)) && message.fingerprint);
    }
}

#[test]
fn what_is_written_is_read_and_verifies() {
    let key = IntegrityKey::new(PASSWORD);
    let transaction = TransactionId([7; 12]);
    let mut slot = [0u8; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, transaction);
    writer.username(b"abcd:efghi");
    writer.priority(5);
    writer.use_candidate();
    writer.role(RoleAttribute::Controlling(9));
    writer.integrity(&key);
    writer.fingerprint();
    let len = writer.finish().unwrap();
    assert!(is_stun(&slot));
    let message = Message::parse(&slot[..len]).unwrap();
    assert_eq!((message.transaction, message.priority, message.use_candidate), (transaction, Some(5), true));
    assert_eq!(message.role, Some(RoleAttribute::Controlling(9)));
    assert!(message.is_signed_by(&key) && message.fingerprint);

    let mut writer = StunWriter::new(&mut slot, Class::Error, BINDING, transaction);
    writer.error(487, "Role Conflict");
    writer.unknown_attributes(&[0x1234, 0x4321]);
    writer.mapped_address("[::1]:5".parse().unwrap());
    let len = writer.finish().unwrap();
    let message = Message::parse(&slot[..len]).unwrap();
    assert_eq!(message.error, Some((487, &b"Role Conflict"[..])));
    assert_eq!(message.mapped_address, Some("[::1]:5".parse().unwrap()));
    assert!(!message.is_signed_by(&key) && !message.fingerprint);

    assert_eq!(StunWriter::new(&mut [0; 19], Class::Request, BINDING, transaction).finish(), None);
}

/// Nobody signed what stands behind MESSAGE-INTEGRITY, so it must not count.
#[test]
fn attributes_behind_the_integrity_code_are_not_read() {
    let key = IntegrityKey::new(PASSWORD);
    let mut slot = [0u8; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId([7; 12]));
    writer.username(b"a:b");
    writer.integrity(&key);
    writer.use_candidate();
    writer.priority(1);
    let len = writer.finish().unwrap();
    let message = Message::parse(&slot[..len]).unwrap();
    assert!(message.is_signed_by(&key));
    assert!(!message.use_candidate && message.priority.is_none());
}

#[test]
fn no_flipped_bit_keeps_the_signature() {
    let key = IntegrityKey::new(PASSWORD);
    let bytes = hex(REQUEST);
    // Up to and with the integrity code; behind it only FINGERPRINT follows.
    for bit in 0..(bytes.len() - 8) * 8 {
        let mut forged = bytes.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(!Message::parse(&forged).is_ok_and(|message| message.is_signed_by(&key)), "bit {bit}");
    }
}

#[test]
fn damaged_messages_are_errors() {
    let bytes = hex(REQUEST);
    for len in 0..bytes.len() {
        assert!(Message::parse(&bytes[..len]).is_err(), "{len}");
    }
    let mut wrong = bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(Message::parse(&wrong).unwrap_err(), StunError::Fingerprint);
    // An attribute that runs over the end.
    let mut slot = [0u8; 64];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId([0; 12]));
    writer.username(b"abcd");
    let len = writer.finish().unwrap();
    slot[23] = 200;
    assert_eq!(Message::parse(&slot[..len]).unwrap_err(), StunError::Attribute);
    // Unknown ones that must be understood are listed, up to the bound.
    let mut bytes = hex("00010000 2112a442 00000000 00000000 00000000");
    for _ in 0..20 {
        bytes.extend(hex("7f010000"));
    }
    bytes[3] = 80;
    assert_eq!(Message::parse(&bytes).unwrap().unknown().len(), crate::limits::STUN_UNKNOWN_MAX);
    for _ in 0..20 {
        bytes.extend(hex("7f010000"));
    }
    bytes[3] = 160;
    assert_eq!(Message::parse(&bytes).unwrap_err(), StunError::TooManyAttributes);
}
