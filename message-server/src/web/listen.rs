//! The two listeners: plain HTTP for this machine or a proxy, HTTPS for everybody.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use axum::Router;
use axum_server::{Handle, tls_rustls::RustlsConfig};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};

use crate::{limits, people::setup::write_private, settings::Settings};

/// Opens a port; a busy one is named with the setting that moves it.
#[allow(clippy::wildcard_enum_match_arm, reason = "the system's list of errors grows; all others are told as they are")]
pub fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!("{address} is in use by another program: set {setting} to a free address"),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!("{address} may not be opened by this user: set {setting} to a port above 1023"),
        io::ErrorKind::AddrNotAvailable => anyhow::anyhow!("{address} is no address of this machine: set {setting} to one that is"),
        _ => anyhow::anyhow!("cannot listen on {address} ({setting}): {error}"),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Certificate and key: the given ones, or generated ones kept in the data folder.
pub async fn tls(settings: &Settings) -> anyhow::Result<RustlsConfig> {
    let (cert, key) = if settings.tls_cert.as_os_str().is_empty() {
        generated(&settings.data, &settings.public_url)?
    } else {
        (settings.tls_cert.clone(), settings.tls_key.clone())
    };
    RustlsConfig::from_pem_file(&cert, &key).await.with_context(|| {
        format!("cannot use the certificate {} with the key {}: both have to be PEM and belong together", cert.display(), key.display())
    })
}

fn generated(data: &Path, public_url: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (cert, key) = (data.join("tls-cert.pem"), data.join("tls-key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(name.trim().to_owned());
    }
    let host: Option<axum::http::Uri> = public_url.parse().ok();
    names.extend(host.and_then(|uri| uri.host().map(str::to_owned)));
    let made = rcgen::generate_simple_self_signed(names)?;
    write_private(&key, made.signing_key.serialize_pem().as_bytes())?;
    write_private(&cert, made.cert.pem().as_bytes())?;
    Ok((cert, key))
}

/// Serves until `handle` says stop.
pub async fn serve(router: Router, listener: TcpListener, tls: Option<RustlsConfig>, handle: Handle<SocketAddr>) -> anyhow::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        None => {
            let mut server = axum_server::from_tcp(listener)?.handle(handle);
            bounded(server.http_builder());
            server.serve(service).await?;
        }
        Some(tls) => {
            let mut server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle);
            bounded(server.http_builder());
            server.serve(service).await?;
        }
    }
    Ok(())
}

/// The caps that hyper leaves open.
fn bounded(builder: &mut Builder<TokioExecutor>) {
    // The buffer holds the request line: a LiveKit join_request is the longest.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIME).max_buf_size(128 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(128 * 1024)
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be caught: stop this server with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
