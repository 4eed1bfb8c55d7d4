//! The one port: HTTP/1.1 and HTTP/2, with TLS where a certificate is set.
//!
//! Workers are on this machine and speak plainly, whatever the port speaks to others: the first byte tells TLS from HTTP, and what is
//! not TLS is answered to this machine alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::limits::{CONNECTIONS_MAX, HEAD_TIME};

/// First byte of a TLS connection: a handshake's record.
const TLS_HANDSHAKE: u8 = 0x16;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// TLS 1.2 and 1.3 with certificate and key from PEM files.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("api.http.tls.cert_file: cannot read the certificate {}", certificate.display()))?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("api.http.tls.cert_key: cannot read the private key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("the certificate {} and the key {} do not belong together", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop`, then lets open requests end.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: waiting a little is all that helps.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Over the bound: closed at once, the other side tries again.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (builder, watcher, tls) = (builder.clone(), graceful.watcher(), tls.clone());
        let service = TowerToHyperService::new(router.clone().layer(Extension(ConnectInfo(from))));
        tokio::spawn(async move {
            // As long as the other side wants: here it holds up nobody.
            let Some(stream) = tokio::time::timeout(HEAD_TIME, secured(stream, from, tls)).await.ok().flatten() else { return };
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The connection to be served, if it is to be.
async fn secured(mut stream: TcpStream, from: SocketAddr, tls: Option<TlsAcceptor>) -> Option<Box<dyn Stream>> {
    let _ = stream.set_nodelay(true);
    // Waits for the first byte, so that a connection that says nothing is not kept.
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    let Some(tls) = tls else { return Some(Box::new(stream)) };
    if first[0] == TLS_HANDSHAKE {
        return tls.accept(stream).await.ok().map(|stream| Box::new(stream) as Box<dyn Stream>);
    }
    if from.ip().to_canonical().is_loopback() {
        return Some(Box::new(stream));
    }
    // As Go's server says it.
    let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n").await;
    None
}
