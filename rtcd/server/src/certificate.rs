//! The DTLS certificate: made at start, lives as long as the process.

use anyhow::Context as _;
use rtcd_core::config::Certificate;

/// Makes a self-signed ECDSA P-256 certificate. Its fingerprint goes into every SDP, so nothing else vouches for it.
///
/// # Errors
/// Only when the crypto library fails.
pub fn generate() -> anyhow::Result<Certificate> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("making the DTLS key failed")?;
    // RFC 8827 6.5: the name says nothing about the machine.
    let mut params = rcgen::CertificateParams::new(Vec::new()).context("making the DTLS certificate failed")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "WebRTC");
    let certificate = params.self_signed(&key).context("making the DTLS certificate failed")?;
    Ok(Certificate { certificate_der: certificate.der().to_vec(), private_key_der: key.serialize_der() })
}
