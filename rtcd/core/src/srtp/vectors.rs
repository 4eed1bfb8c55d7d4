//! Vectors of RFC 3711 and RFC 7714, and what must hold for every profile.

use super::*;
use crate::limits::SRTP_SOURCES_MAX;
use crate::rtp::{Fixed, Form, Header, HeaderWriter};

/// Bytes from hexadecimal text; blanks are ignored.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::AesCm128HmacSha1_80];

fn pair(profile: Profile) -> (Outbound, Inbound) {
    let material: Vec<u8> = (0..profile.keying_material_len()).map(|i| i as u8).collect();
    let (client, _) = split_keying_material(profile, &material).unwrap();
    (Outbound::new(&client).unwrap(), Inbound::new(&client).unwrap())
}

fn seal(out: &Outbound, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut slot = [0u8; 1600];
    let fixed = Fixed { marker: false, payload_type: 111, seq: index as u16, timestamp: 5, ssrc };
    let mut writer = HeaderWriter::new(&mut slot, &fixed, Form::OneByte).unwrap();
    writer.extension(1, &[0x85]);
    let header_len = writer.finish().unwrap();
    let len = out.protect(&mut slot, header_len, &[], payload, index).unwrap();
    slot[..len].to_vec()
}

/// RFC 7714 §16 and §17 give session keys, not master keys: nonce, associated data and order are checked on the ciphers themselves.
mod rfc7714 {
    use super::super::cipher::{gcm_nonce, gcm_open};
    use super::super::inbound::rtcp_aad;
    use super::hex;
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, UnboundKey};

    const KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
    const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const SALT: &str = "517569642070726f2071756f";

    fn key(hex_key: &str) -> LessSafeKey {
        let bytes = hex(hex_key);
        let algorithm = if bytes.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        LessSafeKey::new(UnboundKey::new(algorithm, &bytes).unwrap())
    }

    fn salt() -> [u8; 12] {
        hex(SALT).try_into().unwrap()
    }

    fn rtp_case(hex_key: &str, sealed: &str) {
        let key = key(hex_key);
        let clear = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 73207472 6573");
        let mut body = clear[12..].to_vec();
        let tag = key.seal_in_place_separate_tag(gcm_nonce(&salt(), 0x5501_a0b2, 0xf17b), Aad::from(&clear[..12]), &mut body).unwrap();
        body.extend(tag.as_ref());
        assert_eq!(body, hex(sealed));
        gcm_open(&key, gcm_nonce(&salt(), 0x5501_a0b2, 0xf17b), &clear[..12], &mut body).unwrap();
        assert_eq!(body[..clear.len() - 12], clear[12..]);
    }

    #[test]
    fn section_16_1_1_rtp_aead_aes_128_gcm() {
        rtp_case(
            KEY_128,
            "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        );
    }

    #[test]
    fn section_16_2_1_rtp_aead_aes_256_gcm() {
        rtp_case(
            KEY_256,
            "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        );
    }

    #[test]
    fn section_17_1_rtcp_aead_aes_128_gcm() {
        let clear =
            hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef deadbeef deadbeef");
        let aad = rtcp_aad(&clear[..8], [0x80, 0, 5, 0xd4]).unwrap();
        let mut body = clear[8..].to_vec();
        let tag = key(KEY_128).seal_in_place_separate_tag(gcm_nonce(&salt(), 0x4d61_7273, 0x5d4), Aad::from(aad), &mut body).unwrap();
        body.extend(tag.as_ref());
        assert_eq!(
            body,
            hex(
                "63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade"
            )
        );
    }
}

/// The keys of RFC 3711 appendix B.3 on the packets every implementation exchanges for them (libsrtp's published check).
#[test]
fn rfc3711_keys_protect_and_unprotect() {
    let master =
        MasterKeys::new(Profile::AesCm128HmacSha1_80, &hex("e1f97a0d3e018be0d64fa32c06de4139"), &hex("0ec675ad498afeebb6960b3aabe6"))
            .unwrap();
    let (out, mut inbound) = (Outbound::new(&master).unwrap(), Inbound::new(&master).unwrap());
    let clear = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
    let sealed = hex("800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb");
    let mut slot = [0u8; 64];
    slot[..12].copy_from_slice(&clear[..12]);
    let len = out.protect(&mut slot, 12, &[], &clear[12..], 0x1234).unwrap();
    assert_eq!(slot[..len], sealed);
    let opened = inbound.unprotect(&mut slot[..len]).unwrap();
    assert_eq!((slot[..opened.len].to_vec(), opened.index), (clear, 0x1234));

    let mut rtcp = hex("81c8000b cafebabe 7128035b e487b9bd bef89041 f977a5a8 80000001 993e08cd 54d6c123 0798");
    let len = inbound.unprotect_rtcp(&mut rtcp).unwrap();
    assert_eq!(rtcp[..len], hex("81c8000b cafebabe abababab abababab abababab abababab"));
}

#[test]
fn every_profile_round_trips_with_and_without_prefix() {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        for (index, len) in [(0u64, 0usize), (1, 1), (2, 100), (3, 1150)] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut sealed = seal(&out, 7, index, &payload);
            assert_eq!(sealed.len(), 20 + len + profile.tag_len());
            let opened = inbound.unprotect(&mut sealed).unwrap();
            assert_eq!(opened.header.payload(&sealed[..opened.len]).unwrap(), payload);
            // The same clear text in two parts gives the same packet.
            let mut slot = [0u8; 1600];
            let again = seal(&out, 7, index, &payload);
            let cut = len.min(2);
            slot[..20].copy_from_slice(&again[..20]);
            let total = out.protect(&mut slot, 20, &payload[..cut], &payload[cut..], index).unwrap();
            assert_eq!(slot[..total], again);
        }
    }
}

#[test]
fn rtcp_round_trips_and_is_not_accepted_twice() {
    for profile in PROFILES {
        let (mut out, mut inbound) = pair(profile);
        for _ in 0..3 {
            let clear = hex("80c90001 00000007");
            let mut slot = [0u8; 64];
            slot[..8].copy_from_slice(&clear);
            let len = out.protect_rtcp(&mut slot, 8).unwrap();
            assert!(len <= 8 + RTCP_OVERHEAD_MAX);
            let (mut first, mut second) = (slot, slot);
            assert_eq!(inbound.unprotect_rtcp(&mut first[..len]), Ok(8));
            assert_eq!(first[..8], clear);
            assert_eq!(inbound.unprotect_rtcp(&mut second[..len]), Err(SrtpError::Replayed));
        }
        assert_eq!(out.protect_rtcp(&mut [0u8; 64], 7), Err(SrtpError::Malformed));
        assert_eq!(out.protect_rtcp(&mut [0u8; 8], 8), Err(SrtpError::SlotTooSmall));
    }
}

/// Attack class R-03: flip every bit of a packet; none may be delivered, none may leave a trace.
#[test]
fn no_flipped_bit_is_delivered_or_remembered() {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        let sealed = seal(&out, 7, 100, &[0x55; 40]);
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(inbound.unprotect(&mut forged), Err(SrtpError::Tag | SrtpError::Malformed)), "{profile:?} bit {bit}");
            assert_eq!(inbound.sources(), (0, 0));
        }
        assert!(inbound.unprotect(&mut sealed.clone()).is_ok());

        let (mut out, mut inbound) = pair(profile);
        let mut slot = [0u8; 64];
        slot[..12].copy_from_slice(&hex("81cd0002 00000007 00000009"));
        let len = out.protect_rtcp(&mut slot, 12).unwrap();
        for bit in 0..len * 8 {
            let mut forged = slot[..len].to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(inbound.unprotect_rtcp(&mut forged).is_err(), "{profile:?} bit {bit}");
            assert_eq!(inbound.sources(), (0, 0));
        }
        assert_eq!(inbound.unprotect_rtcp(&mut slot[..len]), Ok(12));
    }
}

/// A forged packet must not move the roll-over counter either: one with a far sequence number would otherwise shut out the genuine ones.
#[test]
fn forged_packets_do_not_move_the_rollover_counter() {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        inbound.unprotect(&mut seal(&out, 7, 1000, b"a")).unwrap();
        for seq in [1001u16, 20_000, 33_000, 34_000, 60_000] {
            let mut forged = seal(&out, 7, 1001, b"b");
            forged[2..4].copy_from_slice(&seq.to_be_bytes());
            let last = forged.len() - 1;
            forged[last] ^= 1;
            assert!(inbound.unprotect(&mut forged).is_err());
        }
        assert_eq!(inbound.unprotect(&mut seal(&out, 7, 1001, b"b")).unwrap().index, 1001);
    }
}

/// Attack class R-04: wraps, reordering around them, replays.
#[test]
fn rollover_is_followed_and_replays_are_refused_around_it() {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        for index in [65_500u64, 65_534, 65_536, 65_535, 65_537, 91_071, 120_000, 131_071, 131_073, 131_072] {
            let mut packet = seal(&out, 7, index, b"x");
            assert_eq!(inbound.unprotect(&mut packet).map(|o| o.index), Ok(index), "{profile:?} {index}");
            assert_eq!(inbound.unprotect(&mut seal(&out, 7, index, b"x")).unwrap_err(), SrtpError::Replayed);
        }
        // Another source in between has its own counter, and the first one's is kept.
        assert_eq!(inbound.unprotect(&mut seal(&out, 8, 5, b"y")).map(|o| o.index), Ok(5));
        assert_eq!(inbound.unprotect(&mut seal(&out, 7, 131_074, b"x")).map(|o| o.index), Ok(131_074));
        // Older than the window.
        assert_eq!(inbound.unprotect(&mut seal(&out, 7, 131_074 - REPLAY_WINDOW, b"x")).unwrap_err(), SrtpError::Replayed);
    }
}

/// Attack class R-07: authentic sources beyond the bound are refused, the known ones live on.
#[test]
fn sources_are_bounded_and_silent_ones_make_room() {
    let (out, mut inbound) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..SRTP_SOURCES_MAX as u32 {
        inbound.unprotect(&mut seal(&out, ssrc, 1, b"x")).unwrap();
    }
    assert_eq!(inbound.unprotect(&mut seal(&out, 999_999, 1, b"x")).unwrap_err(), SrtpError::TooManySources);
    assert!(inbound.unprotect(&mut seal(&out, 3, 2, b"x")).is_ok());
    // Looked at twice: who went on in between stays.
    inbound.retire_silent();
    inbound.unprotect(&mut seal(&out, 3, 3, b"x")).unwrap();
    assert_eq!(inbound.sources().0, SRTP_SOURCES_MAX);
    inbound.retire_silent();
    assert_eq!(inbound.sources().0, 1);
    assert!(inbound.unprotect(&mut seal(&out, 999_999, 1, b"x")).is_ok());
    // A retired one takes nothing twice, and goes on.
    assert_eq!(inbound.unprotect(&mut seal(&out, 5, 1, b"x")).unwrap_err(), SrtpError::Replayed);
    assert_eq!(inbound.unprotect(&mut seal(&out, 5, 2, b"x")).map(|opened| opened.index), Ok(2));
    assert_eq!(inbound.unprotect(&mut seal(&out, 5, 1, b"x")).unwrap_err(), SrtpError::Replayed);
    // With little in use nobody has to go.
    inbound.retire_silent();
    inbound.retire_silent();
    assert_eq!(inbound.sources().0, 3);
}

/// The roll-over counter of a source that was silent for long is still known.
#[test]
fn a_retired_source_goes_on_behind_its_roll_over() {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        for index in (0..200_000).step_by(30_000) {
            inbound.unprotect(&mut seal(&out, 7, index, b"x")).unwrap();
        }
        for ssrc in 1000..1000 + SRTP_SOURCES_MAX as u32 / 2 {
            inbound.unprotect(&mut seal(&out, ssrc, 1, b"x")).unwrap();
        }
        inbound.retire_silent();
        inbound.retire_silent();
        assert_eq!(inbound.sources().0, 0, "{profile:?}");
        for (index, is_new) in [(180_000, false), (179_999, false), (180_005, true), (180_004, true), (179_998, false), (180_004, false)] {
            let expected = if is_new { Ok(index) } else { Err(SrtpError::Replayed) };
            let opened = inbound.unprotect(&mut seal(&out, 7, index, b"x")).map(|opened| opened.index);
            assert_eq!(opened, expected, "{profile:?} {index}");
        }
    }
}

#[test]
fn damaged_lengths_are_errors() {
    for profile in PROFILES {
        let (out, mut inbound) = pair(profile);
        let sealed = seal(&out, 7, 1, b"");
        for len in 0..sealed.len() {
            assert!(inbound.unprotect(&mut sealed[..len].to_vec()).is_err());
            assert!(inbound.unprotect_rtcp(&mut sealed[..len].to_vec()).is_err());
        }
        assert_eq!(out.protect(&mut [0u8; 20], 12, &[], b"too long for it", 1), Err(SrtpError::SlotTooSmall));
        assert_eq!(out.protect(&mut [0u8; 64], 12, &[], b"x", 1 << 48), Err(SrtpError::Exhausted));
        assert!(MasterKeys::new(profile, &[0; 5], &[0; 14]).is_err());
        assert!(split_keying_material(profile, &[0; 5]).is_err());
    }
}

#[test]
fn header_and_ssrc_stay_readable() {
    let (out, _) = pair(Profile::AeadAes128Gcm);
    let sealed = seal(&out, 0xABCD_EF01, 70_000, b"x");
    let header = Header::parse(&sealed).unwrap();
    assert_eq!((header.ssrc, header.seq), (0xABCD_EF01, (70_000u32 & 0xFFFF) as u16));
}
