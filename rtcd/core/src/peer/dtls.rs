//! DTLS 1.2 and 1.3 of one transport: a thin skin over `dimpl` that checks the certificate and hands over the keys.
//!
//! The other end's certificate must have the SHA-256 fingerprint its SDP named; keys are given out only after that. The key exchange
//! and the signatures draw their randomness inside `aws-lc-rs`, the one part of the core that no seed reaches.

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest;
use dimpl::{Config, Dtls, DtlsCertificate, Error, Output, ProtocolVersion, SrtpProfile};
use zeroize::Zeroizing;

use crate::config::CoreConfig;
use crate::negotiate::DtlsRole;
use crate::srtp::Profile;

/// A DTLS record never makes a longer datagram: the handshake is cut at 1150, SCTP at 1228.
const SCRATCH_LEN: usize = 2048;

/// Datagrams of a handshake that wait for the ones before them: a browser's longest flight has six. With the twelve of an unfinished
/// ClientHello that the library keeps, a handshake that only hoards fragments holds less than 64 KiB.
const RECORDS_WAITING_MAX: usize = 8;

/// What all transports of a core share.
#[derive(Clone)]
pub(crate) struct DtlsSettings {
    config: Arc<Config>,
    certificate: DtlsCertificate,
}

impl DtlsSettings {
    /// `None` when the crypto provider refuses the configuration, which only a broken build does.
    pub(crate) fn new(config: &CoreConfig) -> Option<Self> {
        let (first, second) = if config.prefer_aes256 {
            (SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AEAD_AES_128_GCM)
        } else {
            (SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AEAD_AES_256_GCM)
        };
        let dtls = Config::builder()
            // An address that speaks DTLS has passed an ICE check, so a cookie proves nothing more and costs a round trip.
            .use_server_cookie(false)
            .srtp_profiles([first, second, SrtpProfile::AES128_CM_SHA1_80])
            .handshake_timeout(super::connect::SECURING_MAX)
            .max_queue_rx(RECORDS_WAITING_MAX)
            .build()
            .ok()?;
        Some(Self {
            config: Arc::new(dtls),
            certificate: DtlsCertificate {
                certificate: config.certificate.certificate_der.clone(),
                private_key: config.certificate.private_key_der.clone(),
            },
        })
    }
}

/// What DTLS gives when driven.
pub(crate) enum FromDtls<'a> {
    /// To send.
    Packet(&'a [u8]),
    /// The handshake is done: profile and exported material, client's part first.
    Keys(Profile, Zeroizing<Vec<u8>>),
    /// SCTP.
    Data(&'a [u8]),
    /// The other end says good-bye.
    Closed,
}

/// Why a handshake or session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DtlsError {
    /// Handshake or record layer failed for good.
    Failed,
    /// The certificate is not the one of the SDP.
    Fingerprint,
}

/// One DTLS session.
pub(crate) struct DtlsSession {
    dtls: Dtls,
    role: DtlsRole,
    fingerprint: [u8; 32],
    verified: bool,
    /// Why it failed, in the words of its library: names of states and alerts, nothing of content.
    error: Option<Box<str>>,
    scratch: Vec<u8>,
}

impl DtlsSession {
    pub(crate) fn new(settings: &DtlsSettings, role: DtlsRole, fingerprint: [u8; 32], now: Instant) -> Self {
        let mut dtls = Dtls::new_auto(Arc::clone(&settings.config), settings.certificate.clone(), now);
        if role == DtlsRole::Client {
            dtls.set_active(true);
        }
        Self { dtls, role, fingerprint, verified: false, error: None, scratch: Vec::new() }
    }

    pub(crate) fn role(&self) -> DtlsRole {
        self.role
    }

    /// `1.2`, `1.3`, or empty before that is settled.
    pub(crate) fn version(&self) -> &'static str {
        match self.dtls.protocol_version() {
            Some(ProtocolVersion::DTLS1_3) => "1.3",
            Some(ProtocolVersion::DTLS1_2) => "1.2",
            _ => "",
        }
    }

    /// A record came.
    pub(crate) fn handle(&mut self, now: Instant, packet: &[u8]) -> Result<(), DtlsError> {
        match self.dtls.handle_timeout(now).and_then(|()| self.dtls.handle_packet(packet)) {
            // What finds no room is lost, as on the way: it is sent again, or the handshake's time runs out.
            Ok(()) | Err(Error::ReceiveQueueFull | Error::TooManyClientHelloFragments) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Its time has come, or (as a client) it may begin.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        self.dtls.handle_timeout(now).map_err(|error| self.failed(&error))
    }

    /// Sends application data (SCTP).
    pub(crate) fn send(&mut self, data: &[u8]) -> Result<(), DtlsError> {
        self.dtls.send_application_data(data).map(|_| ()).map_err(|error| self.failed(&error))
    }

    fn failed(&mut self, error: &Error) -> DtlsError {
        self.error = Some(error.to_string().into_boxed_str());
        DtlsError::Failed
    }

    /// Why it failed.
    pub(crate) fn take_error(&mut self) -> Option<Box<str>> {
        self.error.take()
    }

    /// Says good-bye.
    pub(crate) fn close(&mut self) {
        // Nobody is left to tell when this fails.
        let _ = self.dtls.close();
    }

    /// Gives everything that is ready to `sink`; answers when to be woken.
    pub(crate) fn poll(&mut self, mut sink: impl FnMut(FromDtls<'_>)) -> Result<Option<Instant>, DtlsError> {
        // The buffer is only kept while a handshake or a message needs it; it would be 2 KiB per idle transport.
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(SCRATCH_LEN, 0);
        loop {
            match self.dtls.poll_output(&mut scratch) {
                Output::Packet(packet) => sink(FromDtls::Packet(packet)),
                Output::BufferTooSmall { needed } if needed <= usize::from(u16::MAX) => scratch.resize(needed, 0),
                Output::BufferTooSmall { .. } => return Err(DtlsError::Failed),
                Output::PeerCert(certificate) => {
                    let digest = digest::digest(&digest::SHA256, certificate);
                    if digest.as_ref() != self.fingerprint {
                        return Err(DtlsError::Fingerprint);
                    }
                    self.verified = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    if !self.verified {
                        return Err(DtlsError::Fingerprint);
                    }
                    let profile = match profile {
                        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
                        SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
                        _ => return Err(DtlsError::Failed),
                    };
                    sink(FromDtls::Keys(profile, Zeroizing::new(material.to_vec())));
                }
                Output::ApplicationData(data) => {
                    if !self.verified {
                        return Err(DtlsError::Fingerprint);
                    }
                    sink(FromDtls::Data(data));
                }
                Output::CloseNotify => sink(FromDtls::Closed),
                Output::Connected => {}
                Output::Timeout(at) => return Ok(Some(at)),
                // The enum may grow; what we do not know we do not need.
                _ => {}
            }
        }
    }
}
