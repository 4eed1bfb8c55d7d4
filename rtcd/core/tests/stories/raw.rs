//! A participant made by hand. It has its own keys, so what it sends is authentic and still nothing that a browser would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use rtcd_core::input::{Join, Transports};
use rtcd_core::output::Signal;
use rtcd_core::rtcp::RtcpWriter;
use rtcd_core::srtp::{Inbound, Outbound, Profile, Unprotected, split_keying_material};
use rtcd_core::stun::{BINDING, Class, IntegrityKey, RoleAttribute, StunWriter, TransactionId};
use rtcd_core::{CallId, Input, PeerId};

use crate::world::{Dice, World, announced, call};

/// Payload types and extension numbers of the offer.
pub const OPUS: u8 = 111;
pub const OPUS_AGAIN: u8 = 112;
pub const MID: u8 = 1;
pub const TRANSPORT_CC: u8 = 3;

/// Sends on mid 0, hears on mids 1 (sound) and 2 (picture), has data channels on mid 3.
const OFFER: &str = "v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2 3
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuvwx
FINGERPRINT
a=setup:actpass
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=rtcp-mux
a=sendonly
a=msid:s raw-mic
a=rtpmap:111 opus/48000/2
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:1
a=rtcp-mux
a=recvonly
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 nack
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=mid:2
a=rtcp-mux
a=recvonly
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 transport-cc
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:3
a=sctp-port:5000
";

pub struct Raw {
    pub id: PeerId,
    pub address: SocketAddr,
    pub ufrag: String,
    pub pwd: String,
    pub answer: String,
    certificate: DtlsCertificate,
    pub dtls: Option<Dtls>,
    pub inbound: Option<Inbound>,
    pub outbound: Option<Outbound>,
    pub profile: Option<SrtpProfile>,
}

pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

pub fn sha256(der: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref())
}

pub fn certificate() -> DtlsCertificate {
    dimpl::certificate::generate_self_signed_certificate().unwrap()
}

impl Raw {
    /// Joins over one connection, announces a microphone `TR_name` and offers.
    pub fn join(world: &mut World, name: &str, number: u16) -> Self {
        Self::join_in(world, call(), name, number, certificate())
    }

    /// As [`Raw::join`], in any call, with a certificate that others may have as well.
    pub fn join_in(world: &mut World, call: CallId, name: &str, number: u16, certificate: DtlsCertificate) -> Self {
        let line = format!("a=fingerprint:sha-256 {}", sha256(&certificate.certificate));
        Self::join_with(world, call, name, number, certificate, &line).unwrap()
    }

    /// As [`Raw::join`], with a certificate and what the offer says of it. `Err`: why the offer was refused.
    pub fn join_with(
        world: &mut World,
        call: CallId,
        name: &str,
        number: u16,
        certificate: DtlsCertificate,
        fingerprint: &str,
    ) -> Result<Self, String> {
        let id = PeerId::new(&format!("PA_{name}")).unwrap();
        world.tell(Input::Join(Box::new(Join {
            call,
            peer: id.clone(),
            transports: Transports::Single,
            audio_levels: false,
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            auto_subscribe: true,
            adaptive_stream: false,
            playout_delay: None,
        })));
        world.tell(Input::Publish(Box::new(announced(id.clone(), &format!("TR_{name}"), "raw-mic"))));
        let address = ([192, 0, 2, 77], 2000 + number).into();
        let mut raw = Self {
            id,
            address,
            ufrag: String::new(),
            pwd: String::new(),
            answer: String::new(),
            certificate,
            dtls: None,
            inbound: None,
            outbound: None,
            profile: None,
        };
        raw.offer(world, OFFER, fingerprint, 1).map(|()| raw)
    }

    /// Offers again: lost sound is sent again as [`OPUS_AGAIN`] (RFC 4588).
    pub fn offer_repair(&mut self, world: &mut World) {
        let text = OFFER.replacen("UDP/TLS/RTP/SAVPF 111", "UDP/TLS/RTP/SAVPF 111 112", 1).replacen(
            "a=rtpmap:111 opus/48000/2\n",
            "a=rtpmap:111 opus/48000/2\na=rtpmap:112 rtx/48000/2\na=fmtp:112 apt=111\n",
            1,
        );
        let fingerprint = format!("a=fingerprint:sha-256 {}", sha256(&self.certificate.certificate));
        self.offer(world, &text, &fingerprint, 2).unwrap();
    }

    fn offer(&mut self, world: &mut World, text: &str, fingerprint: &str, id: u32) -> Result<(), String> {
        let sdp = text.replace("FINGERPRINT", fingerprint).replace('\n', "\r\n");
        world.tell(Input::Offer { peer: self.id.clone(), sdp: &sdp, id });
        let reply = world.told.iter().rev().find_map(|(peer, signal)| match signal {
            Signal::Answer { sdp, .. } if *peer == self.id => Some(Ok(sdp.clone())),
            Signal::Refused { reason, .. } if *peer == self.id => Some(Err(reason.clone())),
            _ => None,
        });
        let answer = reply.expect("an answer or a refusal")?;
        let value = |name: &str| answer.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default().to_owned();
        (self.ufrag, self.pwd) = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        self.answer = answer;
        Ok(())
    }

    /// The sources that the answer declares for a section: media, then retransmission.
    pub fn sources(&self, mid: &str) -> Vec<u32> {
        let section = self.answer.split("m=").find(|section| section.contains(&format!("a=mid:{mid}\r\n"))).unwrap_or_default();
        let mut found: Vec<u32> =
            section.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()?.parse().ok()).collect();
        found.dedup();
        found
    }

    /// A valid check, as a browser nominates.
    pub fn check(&self) -> Vec<u8> {
        signed_check(&self.ufrag, &self.pwd, 1)
    }

    /// Proves its address.
    pub fn prove(&self, world: &mut World) {
        world.inject(self.address, &self.check());
    }

    /// Checks, then shakes hands with these settings. True: keys are there.
    pub fn connect_with(&mut self, world: &mut World, config: dimpl::Config) -> bool {
        self.prove(world);
        let version = match (config.dtls12_cipher_suites().next(), config.dtls13_cipher_suites().next()) {
            (Some(_), None) => Dtls::new_12,
            (None, _) => Dtls::new_13,
            (Some(_), Some(_)) => Dtls::new_auto,
        };
        let mut dtls = version(Arc::new(config), self.certificate.clone(), world.now);
        dtls.set_active(true);
        self.dtls = Some(dtls);
        for _ in 0..40 {
            if dtls_step(self, world).is_err() {
                return false;
            }
            if self.outbound.is_some() {
                return true;
            }
            world.run(Duration::from_millis(20));
        }
        false
    }

    pub fn connect(&mut self, world: &mut World) {
        assert!(self.connect_with(world, dimpl::Config::builder().build().unwrap()), "the handshake of a good peer");
    }

    /// One authentic packet under any source and number; `mid` names its section.
    pub fn send_rtp(&self, world: &mut World, ssrc: u32, index: u64, payload: &[u8]) {
        let packet = self.protect(ssrc, index, payload);
        world.inject(self.address, &packet);
    }

    /// The sound of that number once more; after its first packet a browser's source says no longer which section it belongs to.
    pub fn send_again(&self, world: &mut World, ssrc: u32, index: u64, number: u16, payload: &[u8], names_section: bool) {
        let payload = [&number.to_be_bytes(), payload].concat();
        let packet = self.protect_as(OPUS_AGAIN, names_section, ssrc, index, &payload);
        world.inject(self.address, &packet);
    }

    pub fn protect(&self, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
        self.protect_as(OPUS, true, ssrc, index, payload)
    }

    fn protect_as(&self, payload_type: u8, names_section: bool, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut slot = vec![0; 12 + 12 + payload.len() + 32];
        slot[0] = 0x90;
        slot[1] = payload_type;
        slot[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        slot[4..8].copy_from_slice(&(index as u32 * 960).to_be_bytes());
        slot[8..12].copy_from_slice(&ssrc.to_be_bytes());
        // One-byte form: mid "0", audio level 20 with voice, padding.
        slot[12..20].copy_from_slice(&[0xBE, 0xDE, 0, 1, MID << 4, b'0', 2 << 4, 0x80 | 20]);
        if !names_section {
            slot[16..18].fill(0);
        }
        let len = self.outbound.as_ref().unwrap().protect(&mut slot, 20, &[], payload, index).unwrap();
        slot.truncate(len);
        slot
    }

    /// One authentic compound of this.
    pub fn send_rtcp(&mut self, world: &mut World, write: impl FnOnce(&mut RtcpWriter<'_>)) {
        let mut slot = vec![0; 1500];
        let mut writer = RtcpWriter::new(&mut slot[..1400]);
        writer.receiver_report(1, &[]);
        write(&mut writer);
        let len = writer.finish().unwrap();
        self.send_clear_rtcp(world, &mut slot, len);
    }

    pub fn send_clear_rtcp(&mut self, world: &mut World, slot: &mut [u8], len: usize) {
        let len = self.outbound.as_mut().unwrap().protect_rtcp(slot, len).unwrap();
        world.inject(self.address, &slot[..len]);
    }

    /// Everything that came since the last time, opened: RTP with header and clear packet.
    pub fn received(&mut self, world: &mut World) -> Vec<(Unprotected, Vec<u8>)> {
        let mut opened = Vec::new();
        for mut bytes in world.caught.remove(&self.address).unwrap_or_default() {
            if rtcd_core::rtp::is_rtp(&bytes)
                && !rtcd_core::rtp::is_rtcp(&bytes)
                && let Ok(clear) = self.inbound.as_mut().unwrap().unprotect(&mut bytes)
            {
                opened.push((clear, bytes));
            }
        }
        opened
    }
}

/// Carries what waits both ways once.
fn dtls_step(raw: &mut Raw, world: &mut World) -> Result<(), ()> {
    let dtls = raw.dtls.as_mut().unwrap();
    let mut buffer = vec![0; 4096];
    let mut out = Vec::new();
    dtls.handle_timeout(world.now).map_err(drop)?;
    for packet in world.caught.remove(&raw.address).unwrap_or_default() {
        if packet.first().is_some_and(|first| (20..64).contains(first)) {
            dtls.handle_packet(&packet).map_err(drop)?;
        }
    }
    loop {
        match dtls.poll_output(&mut buffer) {
            Output::Packet(packet) => out.push(packet.to_vec()),
            Output::KeyingMaterial(material, profile) => {
                let ours = match profile {
                    SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                    SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
                    SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
                    _ => return Err(()),
                };
                let (client, server) = split_keying_material(ours, &material).map_err(drop)?;
                raw.outbound = Some(Outbound::new(&client).map_err(drop)?);
                raw.inbound = Some(Inbound::new(&server).map_err(drop)?);
                raw.profile = Some(profile);
            }
            Output::Timeout(_) => break,
            _ => {}
        }
    }
    for packet in out {
        world.inject(raw.address, &packet);
    }
    Ok(())
}

/// The datagrams of a client's first flight.
pub fn client_hello(world: &World) -> Vec<Vec<u8>> {
    let mut dtls = Dtls::new_auto(Arc::new(dimpl::Config::builder().build().unwrap()), certificate(), world.now);
    dtls.set_active(true);
    dtls.handle_timeout(world.now).unwrap();
    let (mut buffer, mut flight) = (vec![0; 4096], Vec::new());
    while let Output::Packet(packet) = dtls.poll_output(&mut buffer) {
        flight.push(packet.to_vec());
    }
    assert!(!flight.is_empty());
    flight
}

pub fn signed_check(ufrag: &str, pwd: &str, priority: u32) -> Vec<u8> {
    unfinished_check(ufrag, priority, true, |writer| {
        writer.integrity(&IntegrityKey::new(pwd));
        writer.fingerprint();
    })
}

/// A check up to its integrity code; `end` writes what follows.
pub fn unfinished_check(ufrag: &str, priority: u32, nominate: bool, end: impl FnOnce(&mut StunWriter<'_>)) -> Vec<u8> {
    let mut slot = vec![0; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId(*b"by-hand-made"));
    writer.username(format!("{ufrag}:abcd").as_bytes());
    writer.priority(priority);
    writer.role(RoleAttribute::Controlling(1));
    if nominate {
        writer.use_candidate();
    }
    end(&mut writer);
    let len = writer.finish().unwrap();
    slot.truncate(len);
    slot
}

/// One handshake message cut by hand: a record with the piece `from..to` of a message that claims to have `whole` bytes.
pub fn fragment(record_seq: u64, message_seq: u16, whole: u32, from: u32, body: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 0xFE, 0xFD, 0, 0];
    record.extend(&record_seq.to_be_bytes()[2..]);
    record.extend((12 + body.len() as u16).to_be_bytes());
    record.push(1);
    record.extend(&whole.to_be_bytes()[1..]);
    record.extend(message_seq.to_be_bytes());
    record.extend(&from.to_be_bytes()[1..]);
    record.extend(&(body.len() as u32).to_be_bytes()[1..]);
    record.extend(body);
    record
}

/// What one hostile handshake sends: pieces of a ClientHello that overlap, are empty, claim to be huge, come in any order, and
/// never become whole.
pub fn pieces(pattern: u64, body: &[u8]) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(pattern * 7 + 1);
    let whole = match pattern % 5 {
        0 => body.len() as u32,
        1 => 0x00FF_FFFF,
        2 => 0,
        3 => 65_536,
        _ => body.len() as u32 + 1,
    };
    (0..60)
        .map(|n| {
            let from = dice.next() as usize % body.len();
            let len = if dice.per_mille(200) { 0 } else { dice.next() as usize % (body.len() - from).max(1) };
            let claimed = if pattern % 5 == 1 { dice.next() as u32 & 0x00FF_FFFF } else { from as u32 };
            // The last byte never comes, so that no pattern is whole by chance.
            let piece = &body[from..(from + len).min(body.len() - 1).max(from)];
            let message = if pattern.is_multiple_of(7) { dice.next() as u16 } else { 0 };
            fragment(n, message, whole, claimed, piece)
        })
        .collect()
}

/// The handshake message in a record of a client's first flight.
pub fn body_of(hello: &[u8]) -> Vec<u8> {
    hello[13 + 12..].to_vec()
}
