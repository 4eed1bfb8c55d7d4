//! Certificates: that of DTLS, made at start and living as long as the process; and that of the HTTP port, from files.

use std::sync::Arc;

use anyhow::Context as _;
use rtcd_core::config::Certificate;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

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

/// TLS 1.2 and 1.3 with a certificate and key from PEM files, for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// Text naming the file that cannot be used.
pub fn acceptor(certificate: &str, key: &str) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate {certificate}; set api.http.tls.cert_file to a PEM file"))?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the private key {key}; set api.http.tls.cert_key to a PEM file"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("the certificate {certificate} and the key {key} do not belong together"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
